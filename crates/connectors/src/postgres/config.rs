//! The settings of a PostgreSQL source, and the driver's settings that follow from them.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode};
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

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
    let (url, mode) = take_ssl_mode(url.reveal())?;
    let invalid = || {
        fault(codes::INVALID_VALUE, "`url` is not a PostgreSQL address")
            .at("url")
            .remedy("Write postgres://user:password@host:port/database, with @ : / ? # of the password percent-encoded.")
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid());
    }
    // The driver's message names a parameter or a part, never the password.
    let driver = tokio_postgres::Config::from_str(&url).map_err(|error| invalid().because(error))?;
    if driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
        return Err(invalid().detail("`url` names no host"));
    }
    Ok((driver, mode))
}

/// Removes `sslmode` from a URL, because the driver knows only three of its six values.
fn take_ssl_mode(url: &str) -> Result<(String, Option<SslMode>), Failure> {
    let Some((address, query)) = url.split_once('?') else { return Ok((url.to_owned(), None)) };
    let mut mode = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = Some(parse_ssl_mode(value)?),
            Some((name @ ("sslrootcert" | "sslcert" | "sslkey"), _)) => {
                return Err(fault(codes::INVALID_VALUE, format!("`url` has `{name}`"))
                    .at("url")
                    .remedy("Give certificates and keys under `tls`: `ca`, `cert`, `key`."));
            }
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
        other => Err(fault(codes::INVALID_VALUE, format!("`sslmode={other}` is not known"))
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
}
