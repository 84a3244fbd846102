//! The settings of a MySQL or MariaDB source, and the driver's settings that follow from them.

use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts, UrlError};
use schemars::JsonSchema;
use serde::Deserialize;
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::address::{Parameters, Unusable, no_controls, no_line_break, no_zero_byte};
use crate::kit::renew::{Renew, Renewed};
use crate::kit::setting::{Misfit, Secret, Span};
use crate::kit::tls::{TlsSettings, client_config, is_pem, system_roots};

/// A MySQL (5.7 or later) or MariaDB (10.3 or later) database.
///
/// Give `url`, or `host` with its related keys. The user needs only `SELECT` on what the queries read. Only
/// InnoDB tables are read as of a single point in time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `mysql://user:password@host:port/database?require_ssl=true`. Also accepts `compression` (`fast`, `on`,
    /// `best`) and `socket`. A character such as `@` or `/` in the user or password must be percent-encoded.
    /// Not together with `host`.
    pub url: Option<Secret>,
    /// The server's name or address. Not together with `url`.
    #[schemars(extend("x-public" = true))]
    pub host: Option<String>,
    /// The server's port. Default: 3306.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The database for table names that name none. Default: none.
    #[schemars(extend("x-public" = true))]
    pub database: Option<String>,
    /// The user.
    #[schemars(extend("x-public" = true))]
    pub username: Option<String>,
    /// The password. Allowed together with a `url` that has no password.
    pub password: Option<Secret>,
    /// TLS with the server. If the section is present, even empty, TLS is required. Without it (and without
    /// `require_ssl=true` in `url`) the connection is not encrypted, and anyone on the network path can read
    /// the rows.
    pub tls: Option<TlsSettings>,
    /// The maximum time for connecting and logging in. Default: 10 s. If it is too short, a busy server looks
    /// like one that is down. If it is too long, a run waits for a server that is down.
    #[schemars(extend("x-least" = "1ms"))]
    pub connect_timeout: Option<Span>,
    /// The maximum duration of a query, including reading its rows, unless its model sets another. Default:
    /// the server's setting, usually no limit. If it is too short, queries of large models never finish.
    #[schemars(extend("x-least" = "1ms"))]
    pub statement_timeout: Option<Span>,
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
    pub(super) driver: Opts,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Option<Duration>,
    /// Host, port and database as shown to people; never the password.
    pub(super) address: String,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Detects a server that disappeared without closing the connection, although Warren only reads from it.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// URL parameters that would disable the check of certificates, or have no meaning here.
const REFUSED_PARAMETERS: &[&str] =
    &["verify_ca", "verify_identity", "built_in_roots", "enable_cleartext_plugin"];

/// As the driver takes them, without those above and those of its pool, which is not used.
const PARAMETERS: Parameters = Parameters {
    system: "MySQL",
    accepted: &[
        "require_ssl",
        "compression",
        "socket",
        "max_allowed_packet",
        "tcp_keepalive",
        "tcp_nodelay",
        "wait_timeout",
        "secure_auth",
        "client_found_rows",
        "reset_connection",
        "prefer_socket",
        "stmt_cache_size",
        "pool_min",
        "pool_max",
        "inactive_connection_ttl",
        "ttl_check_interval",
        "conn_ttl",
        "abs_conn_ttl",
        "abs_conn_ttl_jitter",
    ],
    instead: &[
        (
            &["ssl", "tls", "usessl", "sslmode", "requiressl", "sslaccept"],
            "Write `require_ssl=true`, or give `tls`.",
        ),
        (
            &["sslca", "sslcert", "sslkey", "sslrootcert", "sslidentity", "sslpassword"],
            "Give certificates and keys under `tls`: `ca`, `cert`, `key`.",
        ),
        (&["connecttimeout", "connectiontimeout"], "Set the key `connect_timeout`."),
        (&["maxexecutiontime", "statementtimeout", "maxstatementtime"], "Set the key `statement_timeout`."),
        (
            &["charset", "characterencoding", "useunicode", "collation"],
            "Remove it; text is always read as UTF-8.",
        ),
        (&["user", "username", "password"], "Write the login before the host: `USER:PASSWORD@`."),
        (&["database", "dbname", "schema"], "Write the database behind the host: `/NAME`."),
    ],
    otherwise: "Remove it.",
};

impl Settings {
    pub(super) fn new(config: &Config) -> Result<Settings, Failure> {
        let (given, tls_in_url) = address_of(config)?;
        let host = given.ip_or_hostname().to_owned();
        let address = match given.db_name() {
            Some(database) => format!("{host}:{} database `{database}`", given.tcp_port()),
            None => format!("{host}:{}", given.tcp_port()),
        };
        let tls = match (&config.tls, tls_in_url) {
            (Some(settings), _) => Some(settings.clone()),
            (None, true) => Some(TlsSettings::default()),
            (None, false) => None,
        };
        let ssl = tls.as_ref().map(ssl).transpose()?;
        let mut builder = OptsBuilder::from_opts(given)
            .ssl_opts(ssl)
            // Otherwise the driver replaces a local connection by the server's socket, without TLS.
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            // Each connection runs one statement, so there is nothing to cache.
            .stmt_cache_size(0);
        if let Some(password) = &config.password {
            builder = builder.pass(Some(password.reveal()));
        }
        Ok(Settings {
            driver: builder.into(),
            connect_timeout: config.connect_timeout.map_or(CONNECT_TIMEOUT, |span| span.0),
            statement_timeout: config.statement_timeout.map(|span| span.0),
            address,
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

/// Where to connect and with which login, and whether the URL asks for TLS.
fn address_of(config: &Config) -> Result<(Opts, bool), Failure> {
    let (given, tls_in_url) = match &config.url {
        Some(url) => from_url(config, url)?,
        None => (from_parts(config)?, false),
    };
    if config.password.is_some() && given.pass().is_some() {
        return Err(fault(codes::CONFLICTING_KEYS, "the password stands in `url` and in `password`")
            .at("password")
            .remedy("Give it once."));
    }
    if let Some(password) = &config.password {
        no_line_break("`password`", password.reveal()).map_err(|unusable| refused("password", unusable))?;
    }
    let host = given.ip_or_hostname();
    if host.contains([',', ';']) || host.contains(char::is_whitespace) {
        return Err(fault(codes::INVALID_VALUE, "the host names several hosts, and a source has one")
            .at(if config.url.is_some() { "url" } else { "host" })
            .remedy("Give one host. For failover use a name that resolves to all servers, or a proxy."));
    }
    Ok((given, tls_in_url))
}

fn from_url(config: &Config, url: &Secret) -> Result<(Opts, bool), Failure> {
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
    let url = match url.strip_prefix("mariadb://") {
        Some(rest) => format!("mysql://{rest}"),
        None => url.to_owned(),
    };
    if let Some(parameter) = REFUSED_PARAMETERS.iter().find(|name| has_parameter(&url, name)) {
        return Err(fault(codes::INVALID_VALUE, format!("`url` has `{parameter}`")).at("url").remedy(
            "Take it out; certificates are always checked, and `tls.ca` names the authority to trust.",
        ));
    }
    if url.starts_with("mysql://") {
        PARAMETERS.check(url.split_once('?').map_or("", |(_, query)| query)).map_err(of_url)?;
    }
    let driver = Opts::from_url(&url).map_err(|error| match error {
        // The driver's message shows the value.
        UrlError::InvalidParamValue { param, .. } => {
            fault(codes::INVALID_VALUE, format!("the value of the parameter `{param}` cannot be used"))
                .at("url")
                .remedy(format!("Correct `{param}`, or remove it."))
        }
        error => fault(codes::INVALID_VALUE, "`url` is not a MySQL address")
            .at("url")
            .remedy("Write mysql://user:password@host:port/database, with @ : / ? # of the password percent-encoded.")
            .because(error),
    })?;
    // What was percent-encoded.
    no_controls("the host in `url`", driver.ip_or_hostname()).map_err(of_url)?;
    no_controls("the user in `url`", driver.user().unwrap_or_default()).map_err(of_url)?;
    no_controls("the database in `url`", driver.db_name().unwrap_or_default()).map_err(of_url)?;
    no_zero_byte("the password in `url`", driver.pass().unwrap_or_default().as_bytes()).map_err(of_url)?;
    let tls = driver.ssl_opts().is_some();
    Ok((driver, tls))
}

fn has_parameter(url: &str, name: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| pair.split('=').next() == Some(name))
}

fn from_parts(config: &Config) -> Result<Opts, Failure> {
    let Some(host) = &config.host else {
        return Err(fault(codes::MISSING_KEY, "neither `url` nor `host` is given")
            .remedy("Give `url: mysql://user:password@host/database`."));
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
    Ok(OptsBuilder::default()
        .ip_or_hostname(host)
        .tcp_port(config.port.unwrap_or(3306))
        .db_name(config.database.as_deref())
        .user(config.username.as_deref())
        .into())
}

/// The TLS settings in the driver's form, because the driver accepts no finished rustls configuration.
fn ssl(settings: &TlsSettings) -> Result<SslOpts, Failure> {
    // Reads and checks all files now, so that an error names the setting and not the driver's option.
    client_config(settings)?;
    let roots = match &settings.ca {
        Some(ca) if is_pem(ca) => vec![ca.clone().into_bytes().into()],
        Some(ca) => vec![PathBuf::from(ca).into()],
        None => system_roots()?.into_iter().map(|root| root.to_vec().into()).collect(),
    };
    let identity = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => Some(identity(cert, key.reveal())),
        (None | Some(_), None) | (None, Some(_)) => None,
    };
    Ok(SslOpts::default()
        .with_root_certs(roots)
        .with_disable_built_in_roots(true)
        .with_client_identity(identity)
        .with_danger_tls_hostname_override(settings.server_name.clone()))
}

fn identity(cert: &str, key: &str) -> ClientIdentity {
    match (is_pem(cert), is_pem(key)) {
        (true, true) => ClientIdentity::new(cert.as_bytes().to_vec().into(), key.as_bytes().to_vec().into()),
        (true, false) => ClientIdentity::new(cert.as_bytes().to_vec().into(), PathBuf::from(key).into()),
        (false, true) => ClientIdentity::new(PathBuf::from(cert).into(), key.as_bytes().to_vec().into()),
        (false, false) => ClientIdentity::new(PathBuf::from(cert).into(), PathBuf::from(key).into()),
    }
}

fn refused(key: &str, unusable: Unusable) -> Failure {
    fault(codes::INVALID_VALUE, unusable.detail).at(key).remedy(unusable.remedy)
}

fn fault(code: Code, detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, code, "read the settings of the MySQL source").detail(detail)
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
        let settings = Settings::new(&url("mariadb://me:s%40cret@db.example.com:3307/shop")).unwrap();
        assert_eq!(settings.address, "db.example.com:3307 database `shop`");
        assert_eq!(settings.driver.pass(), Some("s@cret"));
        assert!(settings.driver.ssl_opts().is_none());
    }

    #[test]
    fn tls_checks_certificates_whatever_the_url_says() {
        let settings = Settings::new(&url("mysql://db.example.com/shop?require_ssl=true")).unwrap();
        let ssl = settings.driver.ssl_opts().unwrap();
        assert!(!ssl.accept_invalid_certs() && !ssl.skip_domain_validation() && !ssl.root_certs().is_empty());
        assert_eq!(code(&url("mysql://h/d?require_ssl=true&verify_ca=false")), codes::INVALID_VALUE);
    }

    #[test]
    fn what_contradicts_or_is_missing_is_told() {
        assert_eq!(code(&Config::default()), codes::MISSING_KEY);
        assert_eq!(code(&Config { port: Some(1), ..url("mysql://h/d") }), codes::CONFLICTING_KEYS);
        assert_eq!(
            code(&Config { password: Some(Secret::new("b")), ..url("mysql://u:a@h/d") }),
            codes::CONFLICTING_KEYS
        );
        assert_eq!(code(&url("postgres://h/d")), codes::INVALID_VALUE);
        assert_eq!(code(&url("mysql://h/d?no_such_parameter=1")), codes::INVALID_VALUE);
    }

    #[test]
    fn an_unknown_parameter_of_a_url_is_named_with_a_hint() {
        for (query, name, hint) in [
            ("connection_limit=1", "connection_limit", "Remove it"),
            ("require_ssl=true&ssl-mode=REQUIRED", "ssl-mode", "require_ssl=true"),
            ("useSSL=true", "useSSL", "require_ssl=true"),
            ("charset=utf8mb4", "charset", "UTF-8"),
            ("connectTimeout=5", "connectTimeout", "`connect_timeout`"),
        ] {
            for scheme in ["mysql", "mariadb"] {
                let address = format!("{scheme}://u:swordfish@h/db?{query}");
                let failure = Settings::new(&url(&address)).err().unwrap();
                assert_eq!((failure.code, failure.place.as_deref()), (codes::INVALID_VALUE, Some("url")));
                let (text, remedy) = (failure.to_string(), failure.remedy.as_deref().unwrap());
                assert!(text.contains(&format!("`{name}` is not a parameter of a MySQL URL")), "{text}");
                assert!(text.contains("`require_ssl`") && remedy.contains(hint), "{failure:?}");
                assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
            }
        }
    }

    #[test]
    fn every_accepted_parameter_of_a_url_is_known_to_the_driver() {
        for name in PARAMETERS.accepted {
            let result = Opts::from_url(&format!("mysql://h/d?{name}=x"));
            assert!(!matches!(result, Err(UrlError::UnknownParameter { .. })), "{name}");
        }
    }

    #[test]
    fn a_secret_in_a_wrong_place_of_a_url_is_not_shown() {
        for text in [
            "mysql://u:1?swordfish@h/d",
            "mysql://u:1?swordfish=1@h/d",
            "mysql://u:1?swordfish#x@h/d",
            "mysql://u:1?tcp_nodelay=swordfish@h/d",
            "mysql://h/d?password=swordfish",
        ] {
            let failure = Settings::new(&url(text)).err().unwrap();
            assert!(!format!("{failure:?}").contains("swordfish"), "{text}: {failure:?}");
        }
    }

    #[test]
    fn a_line_break_in_a_part_of_the_address_names_the_part() {
        let of = |config: Config| Settings::new(&config).err().unwrap();
        let parts = || Config { host: Some("h".into()), ..Config::default() };
        for (config, key, text) in [
            (url("mysql://u:swordfish@h/bench\n"), "url", "`url` ends in a line break"),
            (url("mysql://u:sword\nfish@h/bench"), "url", "`url` contains a line break"),
            (url("mysql://u:swordfish@h/bench%0A"), "url", "the database in `url` ends in a line break"),
            (url("mysql://u%00:swordfish@h/d"), "url", "the user in `url` contains a control character"),
            (url("mysql://u:swordfish%00@h/d"), "url", "the password in `url` contains a zero byte"),
            (Config { host: Some("h\n".into()), ..parts() }, "host", "`host` ends in a line break"),
            (
                Config { username: Some("u\n".into()), ..parts() },
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
            assert!(!format!("{failure:?}").contains("fish"), "{failure:?}");
        }
    }
}
