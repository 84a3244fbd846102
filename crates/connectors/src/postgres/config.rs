//! The settings of a PostgreSQL source, and the driver's settings that follow from them.

use std::error::Error as _;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::address::{Parameters, Unusable, no_controls, no_line_break, no_zero_byte};
use crate::kit::renew::{Renew, Renewed};
use crate::kit::setting::{Misfit, Secret, Span};
use crate::kit::tls::{TlsSettings, client_config};

/// A PostgreSQL database (10 or later), or a database that speaks its protocol with binary
/// `COPY … TO STDOUT`.
///
/// Give `url`, or `host` with its related keys. The user needs only `SELECT` on what the queries read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `postgres://user:password@host:port/database?sslmode=require`. Also accepts `application_name`,
    /// `options`, `connect_timeout` (seconds) and several hosts separated by commas; the first host that
    /// answers is used. A character such as `@` or `/` in the user or password must be percent-encoded. Not
    /// together with `host`.
    ///
    /// `sslmode` is `disable`, `prefer` (TLS if the server offers it), `require`, `verify-ca` or
    /// `verify-full`. The last three have the same meaning, because Warren checks the server's certificate on
    /// every TLS connection. Default: `prefer`; `disable` on a socket or this machine's loopback address;
    /// `require` if `tls` is given.
    pub url: Option<Secret>,
    /// The server's name or address, or the folder of its socket (which begins with `/`). Several hosts are
    /// separated by commas; the first that answers is used. Not together with `url`.
    #[schemars(extend("x-public" = true))]
    pub host: Option<String>,
    /// The server's port. Default: 5432.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The database. Default: the database with the same name as the user.
    #[schemars(extend("x-public" = true))]
    pub database: Option<String>,
    /// The user. Default: the user Warren runs as.
    #[schemars(extend("x-public" = true))]
    pub username: Option<String>,
    /// The password. Allowed together with a `url` that has no password.
    pub password: Option<Secret>,
    /// TLS with the server. If the section is present, even empty, TLS is required.
    pub tls: Option<TlsSettings>,
    /// The maximum time for connecting and logging in. Default: 10 s. If it is too short, a busy server looks
    /// like one that is down. If it is too long, a run waits for a server that is down.
    #[schemars(extend("x-least" = "1ms"))]
    pub connect_timeout: Option<Span>,
    /// The maximum duration of a query, including reading its rows, unless its model sets another. Default:
    /// the server's setting for the user, usually no limit. If it is too short, queries of large models never
    /// finish.
    #[schemars(extend("x-least" = "1ms"))]
    pub statement_timeout: Option<Span>,
    /// The name of the connection in `pg_stat_activity`. Default: `warren`.
    pub application_name: Option<String>,
    /// How the settings are read again before each login.
    #[serde(skip)]
    #[schemars(skip)]
    pub renew: Renew<Config>,
}

impl Renewed for Config {
    fn renewed(&self) -> Config {
        self.renew.now(self)
    }

    fn depends_on_files(&self) -> bool {
        self.renew.is_set() || self.tls.is_some()
    }
}

/// The settings, checked and made ready for the driver.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) driver: tokio_postgres::Config,
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Option<Duration>,
    /// Host, port and database as shown to people; never the password.
    pub(super) address: String,
}

/// The TLS settings of a connection.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: Option<String>,
}

/// An idle connection is probed after a minute, and closed after three more half-minutes. So Warren detects a
/// server that disappeared without closing the connection, although it only reads from it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_RETRIES: u32 = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// `sslmode` is taken out before the driver reads the others.
const PARAMETERS: Parameters = Parameters {
    system: "PostgreSQL",
    accepted: &[
        "sslmode",
        "application_name",
        "options",
        "connect_timeout",
        "user",
        "password",
        "dbname",
        "host",
        "hostaddr",
        "port",
        "target_session_attrs",
        "load_balance_hosts",
        "channel_binding",
        "sslnegotiation",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_retries",
    ],
    instead: &[
        (
            &["schema", "currentschema", "searchpath"],
            "Set the search path by `options=-c%20search_path%3DNAME`, or write the schema before the names of tables.",
        ),
        (&["database"], "Write the database behind the host: `/NAME`."),
        (&["username"], "Write the user before the host: `USER:PASSWORD@`."),
        (&["ssl", "tls", "sslaccept"], "Write `sslmode=require`."),
        (
            &["sslrootcert", "sslcert", "sslkey", "sslpassword", "sslidentity", "sslcrl"],
            "Give certificates and keys under `tls`: `ca`, `cert`, `key`.",
        ),
        (&["statementtimeout"], "Set the key `statement_timeout`."),
        (
            &["connecttimeout", "connectiontimeout", "logintimeout"],
            "Write `connect_timeout`, or set the key of that name.",
        ),
    ],
    otherwise: "Remove it, or set a parameter of the server by `options=-c%20NAME%3DVALUE`.",
};

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Settings, Failure> {
        let (mut driver, mode) = address_of(config)?;
        if let Some(name) = &config.application_name {
            driver.application_name(name);
        } else if driver.get_application_name().is_none() {
            driver.application_name("warren");
        }
        driver.keepalives_idle(KEEPALIVE_IDLE);
        driver.keepalives_interval(KEEPALIVE_INTERVAL);
        driver.keepalives_retries(KEEPALIVE_RETRIES);
        driver.ssl_mode(mode);
        let tls = if mode == SslMode::Disable {
            None
        } else {
            let settings = config.tls.clone().unwrap_or_default();
            Some(Tls { config: client_config(&settings)?, server_name: settings.server_name })
        };
        let connect_timeout = match config.connect_timeout {
            Some(span) => span.0,
            None => driver.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT),
        };
        Ok(Settings {
            address: address(&driver),
            driver,
            tls,
            connect_timeout,
            statement_timeout: config.statement_timeout.map(|span| span.0),
        })
    }
}

impl Config {
    /// All settings that cannot be used.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        let own = address_of(self).err().map(Misfit::from);
        own.into_iter().chain(self.tls.iter().flat_map(TlsSettings::faults)).collect()
    }
}

/// Where to connect, with which login, and whether over TLS.
fn address_of(config: &Config) -> Result<(tokio_postgres::Config, SslMode), Failure> {
    let (mut driver, asked) = match &config.url {
        Some(url) => from_url(config, url)?,
        None => (from_parts(config)?, None),
    };
    if let Some(password) = &config.password {
        if driver.get_password().is_some() {
            return Err(fault(codes::CONFLICTING_KEYS, "the password stands in `url` and in `password`")
                .at("password")
                .remedy("Give it once."));
        }
        no_line_break("`password`", password.reveal()).map_err(|unusable| refused("password", unusable))?;
        driver.password(password.reveal());
    }
    let mode = ssl_mode(config, asked, &driver)?;
    Ok((driver, mode))
}

fn from_url(config: &Config, url: &Secret) -> Result<(tokio_postgres::Config, Option<SslMode>), Failure> {
    let parts = [
        ("host", config.host.is_some()),
        ("port", config.port.is_some()),
        ("database", config.database.is_some()),
        ("username", config.username.is_some()),
    ];
    if let Some((part, _)) = parts.iter().find(|(_, given)| *given) {
        return Err(fault(codes::CONFLICTING_KEYS, format!("`url` and `{part}` are both given"))
            .at(*part)
            .remedy(format!("Put the {part} into `url`, or give no `url`.")));
    }
    let url = url.reveal();
    let of_url = |unusable| refused("url", unusable);
    no_controls("`url`", url).map_err(of_url)?;
    let invalid = || {
        fault(codes::INVALID_VALUE, "`url` is not a PostgreSQL address")
            .at("url")
            .remedy("Write postgres://user:password@host:port/database, with @ : / ? # of the password percent-encoded.")
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid());
    }
    PARAMETERS.check(query_of(url).1).map_err(of_url)?;
    let (url, mode) = take_ssl_mode(url)?;
    // The driver's message names a parameter or a part, never the password.
    let driver = tokio_postgres::Config::from_str(&url).map_err(|error| {
        match bad_value(&error) {
            Some(name) => {
                fault(codes::INVALID_VALUE, format!("the value of the parameter `{name}` cannot be used"))
                    .at("url")
                    .remedy(format!("Correct `{name}`, or remove it."))
            }
            None => invalid(),
        }
        .because(error)
    })?;
    if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
        return Err(invalid().detail("`url` names no host"));
    }
    // What was percent-encoded.
    for host in driver.get_hosts() {
        if let Host::Tcp(name) = host {
            no_controls("the host in `url`", name).map_err(of_url)?;
        }
    }
    no_controls("the user in `url`", driver.get_user().unwrap_or_default()).map_err(of_url)?;
    no_controls("the database in `url`", driver.get_dbname().unwrap_or_default()).map_err(of_url)?;
    no_zero_byte("the password in `url`", driver.get_password().unwrap_or_default()).map_err(of_url)?;
    Ok((driver, mode))
}

/// A URL without its parameters, and its parameters. As for the driver, a `?` before the first `@` belongs to the login.
fn query_of(url: &str) -> (&str, &str) {
    let behind_login = url.find('@').unwrap_or(0);
    match url[behind_login..].find('?') {
        Some(at) => (&url[..behind_login + at], &url[behind_login + at + 1..]),
        None => (url, ""),
    }
}

/// The parameter whose value the driver does not take. A part of the address is none.
fn bad_value(error: &tokio_postgres::Error) -> Option<&'static str> {
    let cause = error.source()?.to_string();
    let parts = ["host", "port"];
    let name = PARAMETERS.accepted.iter().filter(|name| !parts.contains(name));
    name.copied().find(|name| cause == format!("invalid value for option `{name}`"))
}

/// Removes `sslmode` from a URL, because the driver knows only three of its six values.
fn take_ssl_mode(url: &str) -> Result<(String, Option<SslMode>), Failure> {
    let (address, query) = query_of(url);
    let mut mode = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(parse_ssl_mode(value)?),
            _ if pair.is_empty() => {}
            _ => kept.push(pair),
        }
    }
    let rest = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    Ok((rest, mode))
}

fn parse_ssl_mode(value: &str) -> Result<SslMode, Failure> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "allow" | "prefer" => Ok(SslMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Ok(SslMode::Require),
        // It may be a part of a password.
        _ => Err(fault(codes::INVALID_VALUE, "the value of the parameter `sslmode` is not known")
            .at("url")
            .remedy("Write disable, prefer or require.")),
    }
}

fn ssl_mode(
    config: &Config,
    asked: Option<SslMode>,
    driver: &tokio_postgres::Config,
) -> Result<SslMode, Failure> {
    match (asked, &config.tls) {
        (Some(SslMode::Disable), Some(_)) => {
            Err(fault(codes::CONFLICTING_KEYS, "`sslmode=disable` and `tls` contradict each other")
                .at("tls")
                .remedy("Remove one of them."))
        }
        (_, Some(_)) => Ok(SslMode::Require),
        (Some(mode), None) => Ok(mode),
        // A local connection crosses no network, and the certificate that Debian makes for a local server is self-signed.
        (None, None) if driver.get_hosts().iter().all(is_local) => Ok(SslMode::Disable),
        (None, None) => Ok(SslMode::Prefer),
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn from_parts(config: &Config) -> Result<tokio_postgres::Config, Failure> {
    let Some(host) = &config.host else {
        return Err(fault(codes::MISSING_KEY, "neither `url` nor `host` is given")
            .remedy("Give `url: postgres://user:password@host/database`."));
    };
    let given = [
        ("host", Some(host)),
        ("database", config.database.as_ref()),
        ("username", config.username.as_ref()),
    ];
    for (key, value) in given {
        no_controls(&format!("`{key}`"), value.map_or("", |value| value))
            .map_err(|unusable| refused(key, unusable))?;
    }
    let mut driver = tokio_postgres::Config::new();
    // As in a URL: the first that answers is used.
    for host in host.split(',').map(str::trim) {
        if host.is_empty() {
            return Err(fault(codes::INVALID_VALUE, "`host` is empty, or has an empty name in it")
                .remedy("Give the server's name, or several separated by commas."));
        }
        driver.host(host);
    }
    driver.port(config.port.unwrap_or(5432));
    if let Some(database) = &config.database {
        driver.dbname(database);
    }
    if let Some(username) = &config.username {
        driver.user(username);
    }
    Ok(driver)
}

fn address(driver: &tokio_postgres::Config) -> String {
    let mut hosts = Vec::new();
    for (index, host) in driver.get_hosts().iter().enumerate() {
        let ports = driver.get_ports();
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        hosts.push(match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
        });
    }
    for address in driver.get_hostaddrs().iter().skip(hosts.len()) {
        hosts.push(address.to_string());
    }
    let database = driver.get_dbname().or(driver.get_user()).unwrap_or_default();
    format!("{} database `{database}`", hosts.join(", "))
}

fn refused(key: &str, unusable: Unusable) -> Failure {
    fault(codes::INVALID_VALUE, unusable.detail).at(key).remedy(unusable.remedy)
}

fn fault(code: Code, detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, code, "read the settings of the PostgreSQL source").detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Config {
        Config { url: Some(Secret::new(text)), ..Config::default() }
    }

    fn code(config: &Config) -> Code {
        Settings::new(config).map(|settings| settings.address).unwrap_err().code
    }

    #[test]
    fn a_url_is_taken_apart() {
        let settings =
            Settings::new(&url("postgres://me:s%40cret@127.0.0.1:6432/shop?application_name=x")).unwrap();
        assert_eq!(settings.address, "127.0.0.1:6432 database `shop`");
        assert_eq!(settings.driver.get_password(), Some(&b"s@cret"[..]));
        assert_eq!(settings.driver.get_application_name(), Some("x"));
        assert!(settings.tls.is_none(), "loopback needs no TLS");
    }

    #[test]
    fn tls_is_required_where_it_is_asked_for() {
        let modes =
            [("disable", SslMode::Disable), ("prefer", SslMode::Prefer), ("verify-full", SslMode::Require)];
        for (text, mode) in modes {
            let (rest, found) =
                take_ssl_mode(&format!("postgres://h/d?sslmode={text}&options=-c%20a=b")).unwrap();
            assert_eq!(rest, "postgres://h/d?options=-c%20a=b");
            assert_eq!(found, Some(mode));
        }
        let driver = tokio_postgres::Config::from_str("postgres://db.example.com/d").unwrap();
        assert_eq!(ssl_mode(&Config::default(), None, &driver).unwrap(), SslMode::Prefer);
        let with_tls = Config { tls: Some(TlsSettings::default()), ..Config::default() };
        assert_eq!(ssl_mode(&with_tls, Some(SslMode::Prefer), &driver).unwrap(), SslMode::Require);
        assert!(ssl_mode(&with_tls, Some(SslMode::Disable), &driver).is_err());
    }

    #[test]
    fn what_contradicts_or_is_missing_is_told() {
        assert_eq!(code(&Config::default()), codes::MISSING_KEY);
        assert_eq!(
            code(&Config { host: Some("h".into()), ..url("postgres://h/d") }),
            codes::CONFLICTING_KEYS
        );
        assert_eq!(
            code(&Config { password: Some(Secret::new("b")), ..url("postgres://u:a@h/d") }),
            codes::CONFLICTING_KEYS
        );
        assert_eq!(code(&url("mysql://h/d")), codes::INVALID_VALUE);
        assert_eq!(code(&url("postgres://h/d?sslmode=maybe")), codes::INVALID_VALUE);
        assert_eq!(code(&url("postgres:///d")), codes::INVALID_VALUE);
    }

    #[test]
    fn an_unknown_parameter_of_a_url_is_named_with_a_hint() {
        for (query, name, hint) in [
            ("schema=public", "schema", "search_path"),
            ("sslmode=disable&currentSchema=public", "currentSchema", "search_path"),
            ("pgbouncer=true", "pgbouncer", "Remove it"),
            ("connection_limit=1", "connection_limit", "Remove it"),
            ("sslrootcert=/ca.pem", "sslrootcert", "`ca`"),
            ("ssl=true", "ssl", "sslmode=require"),
            ("statement_timeout=5", "statement_timeout", "the key `statement_timeout`"),
        ] {
            let failure = Settings::new(&url(&format!("postgres://u:swordfish@h/db?{query}"))).err().unwrap();
            assert_eq!((failure.code, failure.place.as_deref()), (codes::INVALID_VALUE, Some("url")));
            let (text, remedy) = (failure.to_string(), failure.remedy.as_deref().unwrap());
            assert!(text.contains(&format!("`{name}` is not a parameter of a PostgreSQL URL")), "{text}");
            assert!(text.contains("`application_name`") && remedy.contains(hint), "{failure:?}");
            assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
        }
        let failure = Settings::new(&url("postgres://u@h/db?connect_timeout=soon")).err().unwrap();
        assert!(failure.to_string().contains("the parameter `connect_timeout`"), "{failure}");
    }

    #[test]
    fn every_accepted_parameter_of_a_url_reaches_the_driver() {
        for name in PARAMETERS.accepted.iter().filter(|name| **name != "sslmode") {
            let result = tokio_postgres::Config::from_str(&format!("postgres://h/d?{name}=1"));
            let cause = result.err().and_then(|error| error.source().map(ToString::to_string));
            assert!(!cause.is_some_and(|cause| cause.contains("unknown option")), "{name}");
        }
    }

    #[test]
    fn a_password_with_a_question_mark_works_or_is_not_shown() {
        let settings = Settings::new(&url("postgres://u:sword?fish@127.0.0.1/d?sslmode=disable")).unwrap();
        assert_eq!(settings.driver.get_password(), Some(&b"sword?fish"[..]));
        let failure = Settings::new(&url("postgres://u:p@x?swordfish=1@h/d")).err().unwrap();
        assert!(!format!("{failure:?}").contains("fish"), "{failure:?}");
    }

    #[test]
    fn a_line_break_in_a_part_of_the_address_names_the_part() {
        let of = |config: Config| Settings::new(&config).err().unwrap();
        let parts = || Config { host: Some("h".into()), ..Config::default() };
        for (config, key, text) in [
            (url("postgres://u:swordfish@h/bench\n"), "url", "`url` ends in a line break"),
            (url("postgres://u:swordfish\n@h/bench"), "url", "`url` contains a line break"),
            (url("postgres://u:swordfish@h/bench%0A"), "url", "the database in `url` ends in a line break"),
            (url("postgres://u%00:swordfish@h/d"), "url", "the user in `url` contains a control character"),
            (url("postgres://u:swordfish%00@h/d"), "url", "the password in `url` contains a zero byte"),
            (Config { host: Some("h\n".into()), ..parts() }, "host", "`host` ends in a line break"),
            (
                Config { username: Some("u\r\n".into()), ..parts() },
                "username",
                "`username` ends in a line break",
            ),
            (
                Config { database: Some("d\n".into()), ..parts() },
                "database",
                "`database` ends in a line break",
            ),
            (
                Config { password: Some(Secret::new("swordfish\n")), ..parts() },
                "password",
                "`password` ends in a line break",
            ),
        ] {
            let failure = of(config);
            assert_eq!((failure.code, failure.place.as_deref()), (codes::INVALID_VALUE, Some(key)));
            assert!(failure.to_string().ends_with(text) && failure.remedy.is_some(), "{failure:?}");
            assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
        }
    }
}
