//! The settings of a RabbitMQ broker, as written and as checked.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::address::{Parameters, Unusable, no_controls, no_line_break, no_zero_byte};
use crate::kit::renew::{Renew, Renewed};
use crate::kit::setting::{Misfit, Secret, Size, Span};
use crate::kit::tls::TlsSettings;

/// A RabbitMQ broker.
///
/// Give `url`, or its parts: `protocol`, `host`, `port`, `vhost`, `username`, `password`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The address with login and vhost: `amqp://user:password@host:5672/vhost`, or `amqps://…` for TLS.
    /// Names in it are percent-encoded: the vhost `/`, which is the default, is `%2F`. Not together with its
    /// parts.
    pub url: Option<Secret>,
    /// `amqp` (default), or `amqps` for TLS.
    pub protocol: Option<Protocol>,
    /// The host's name or address. Default: `localhost`.
    #[schemars(extend("x-public" = true))]
    pub host: Option<String>,
    /// The port. Default: 5672; with TLS 5671.
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The vhost, without percent-encoding. Default: `/`.
    #[schemars(extend("x-public" = true))]
    pub vhost: Option<String>,
    /// The user. Default: `guest`, which RabbitMQ accepts only from its own machine. With a client
    /// certificate and neither `username` nor `password`, the certificate is the login (mechanism EXTERNAL).
    #[schemars(extend("x-public" = true))]
    pub username: Option<String>,
    /// The user's password. Default: `guest`.
    pub password: Option<Secret>,
    /// The URL of the management API, such as `http://host:15672`, which Warren uses to list queues and to
    /// check permissions. A login in this URL is used there; default: the broker's login.
    pub management_url: Option<Secret>,
    /// How the server's certificate is checked, and the client certificate. Needs the protocol `amqps`.
    pub tls: Option<TlsSettings>,
    /// The interval of AMQP heartbeats, in whole seconds. A connection that is silent for two intervals is
    /// closed. Default: 15s. A shorter interval detects a dead network sooner, but may close a busy
    /// connection. `0s` disables heartbeats, so a dead connection may be detected only after many minutes.
    #[schemars(extend("x-least" = "0s", "x-most" = "18h", "x-step" = "1s"))]
    pub heartbeat: Option<Span>,
    /// The maximum time for connecting, from resolving the name to opening the vhost, and for the broker's
    /// answer to a request about a queue or exchange. Default: 10s.
    #[schemars(extend("x-least" = "1ms"))]
    pub connect_timeout: Option<Span>,
    /// How long a message waits for the broker's answer. After that its outcome is unknown, and it is sent
    /// again. Default: 30s. If it is too short, a slow broker causes duplicates.
    #[schemars(extend("x-least" = "1ms"))]
    pub publish_timeout: Option<Span>,
    /// How many channels publish in parallel. Default: 4. Messages of one batch always keep their order. With
    /// 1, concurrent batches keep their order too, but publishing is slower.
    #[schemars(range(min = 1, max = 64))]
    pub channels: Option<u16>,
    /// The maximum size of a body that is sent. Default: the default of the broker's version (16 MiB since
    /// 4.0, 128 MiB before). Set it if the broker's own `max_message_size` differs.
    pub max_message_size: Option<Size>,
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

/// Whether the connection uses TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Without TLS.
    Amqp,
    /// With TLS.
    Amqps,
}

/// Where to connect, and with which settings. Made from a checked [`Config`].
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    pub(crate) login: Login,
    pub(crate) management: Option<Management>,
    pub(crate) heartbeat: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) channels: u16,
    pub(crate) body_bytes_max: Option<u64>,
    /// The settings that it was made from.
    pub(crate) config: Arc<Config>,
}

impl Target {
    /// The target and its TLS settings for the next login, with the current content of the files that the
    /// settings name. If that content is not valid, the previous values are used. The vhost does not change.
    pub(crate) fn now(&self, tls: &TlsSettings) -> (Target, TlsSettings) {
        let unchanged = || (self.clone(), tls.clone());
        if !self.config.renew.is_set() {
            return unchanged();
        }
        let config = self.config.renewed();
        let Ok(target) = config.target() else { return unchanged() };
        let target = Target { vhost: self.vhost.clone(), config: self.config.clone(), ..target };
        (target, config.tls.unwrap_or_default())
    }
}

/// The credentials of the connection.
#[derive(Debug, Clone)]
pub(crate) enum Login {
    /// User and password (SASL PLAIN).
    Plain { username: String, password: Secret },
    /// The client certificate (SASL EXTERNAL).
    External,
}

/// The management API.
#[derive(Debug, Clone)]
pub(crate) struct Management {
    /// The URL without a login, and without a slash at its end.
    pub(crate) base: String,
    pub(crate) username: String,
    pub(crate) password: Secret,
}

const HEARTBEAT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
const CHANNELS: u16 = 4;
const CHANNELS_MAX: u16 = 64;

/// Other clients take them.
const PARAMETERS: Parameters = Parameters {
    system: "RabbitMQ",
    accepted: &[],
    instead: &[
        (&["heartbeat", "heartbeatinterval"], "Set the key `heartbeat`, such as `heartbeat: 15s`."),
        (
            &["connectiontimeout", "connecttimeout", "sockettimeout", "blockedconnectiontimeout"],
            "Set the key `connect_timeout`, such as `connect_timeout: 10s`.",
        ),
        (
            &["cacertfile", "certfile", "keyfile", "ssloptions"],
            "Give certificates and keys under `tls`: `ca`, `cert`, `key`.",
        ),
        (&["servernameindication"], "Set the key `tls.server_name`."),
        (&["verify", "failifnopeercert"], "Remove it; certificates are always checked."),
        (&["authmechanism"], "Remove it; with `tls.cert` and no user, the certificate is the login."),
        (&["vhost", "virtualhost"], "Write the vhost behind the host: `/NAME`."),
    ],
    otherwise: "Set options by their own keys, such as `heartbeat` or `tls`.",
};

impl Config {
    /// Checks the settings.
    ///
    /// # Errors
    /// A setting that is wrong, or two that contradict each other.
    pub(crate) fn target(&self) -> Result<Target, Failure> {
        let address = self.address()?;
        let login = self.login(&address);
        Ok(Target {
            protocol: address.protocol,
            host: address.host,
            port: address.port.unwrap_or(match address.protocol {
                Protocol::Amqp => 5672,
                Protocol::Amqps => 5671,
            }),
            vhost: address.vhost,
            management: self.management(&login)?,
            login,
            heartbeat: heartbeat(self.heartbeat)?,
            connect_timeout: timeout("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT)?,
            publish_timeout: timeout("publish_timeout", self.publish_timeout, PUBLISH_TIMEOUT)?,
            channels: self.channels()?,
            body_bytes_max: self.max_message_size.map(|size| size.0.0),
            config: Arc::new(self.clone()),
        })
    }

    /// All settings that cannot be used.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        let address = self.address();
        let login = match &address {
            Ok(address) => self.login(address),
            // A broken address says nothing of the management API's.
            Err(_) => Login::Plain { username: String::new(), password: Secret::new("") },
        };
        let checks = [
            address.map(drop),
            self.management(&login).map(drop),
            heartbeat(self.heartbeat).map(drop),
            timeout("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT).map(drop),
            timeout("publish_timeout", self.publish_timeout, PUBLISH_TIMEOUT).map(drop),
            self.channels().map(drop),
        ];
        let own = checks.into_iter().filter_map(Result::err).map(Misfit::from);
        own.chain(self.tls.iter().flat_map(TlsSettings::faults)).collect()
    }

    fn channels(&self) -> Result<u16, Failure> {
        match self.channels.unwrap_or(CHANNELS) {
            channels @ 1..=CHANNELS_MAX => Ok(channels),
            _ => Err(wrong("channels", "it is not 1 to 64", "Leave it out for 4.")),
        }
    }

    fn login(&self, address: &Address) -> Login {
        let certificate = self.tls.as_ref().is_some_and(|tls| tls.cert.is_some());
        match (address.username.clone(), address.password.clone()) {
            (None, None) if certificate => Login::External,
            (username, password) => Login::Plain {
                username: username.unwrap_or_else(|| "guest".into()),
                password: password.unwrap_or_else(|| Secret::new("guest")),
            },
        }
    }

    fn address(&self) -> Result<Address, Failure> {
        let address = match &self.url {
            Some(url) => self.address_of_url(url.reveal())?,
            None => self.address_of_parts()?,
        };
        let place = |name| if self.url.is_some() { "url" } else { name };
        one_host(place("host"), &address.host)?;
        if address.port == Some(0) {
            return Err(wrong(place("port"), "the port is 0", "Give a port from 1 to 65535."));
        }
        if self.tls.is_some() && address.protocol == Protocol::Amqp {
            return Err(conflict(
                "tls",
                "`tls` is given, but the protocol is `amqp`, which is in the clear",
                "Use `amqps`, or take `tls` away.",
            ));
        }
        for (name, value) in [("vhost", Some(&address.vhost)), ("username", address.username.as_ref())] {
            if value.is_some_and(|value| value.len() > 255) {
                let detail = format!("the {name} is longer than 255 bytes");
                return Err(wrong(place(name), &detail, "Give a name of the broker's."));
            }
        }
        Ok(address)
    }

    fn address_of_parts(&self) -> Result<Address, Failure> {
        for (key, value) in [("host", &self.host), ("vhost", &self.vhost), ("username", &self.username)] {
            no_controls(&format!("`{key}`"), value.as_deref().unwrap_or_default())
                .map_err(|unusable| refused(key, &unusable))?;
        }
        no_line_break("`password`", self.password.as_ref().map_or("", Secret::reveal))
            .map_err(|unusable| refused("password", &unusable))?;
        Ok(Address {
            protocol: self.protocol.unwrap_or(Protocol::Amqp),
            host: self.host.clone().unwrap_or_else(|| "localhost".into()),
            port: self.port,
            vhost: self.vhost.clone().unwrap_or_else(|| "/".into()),
            username: self.username.clone(),
            password: self.password.clone(),
        })
    }

    fn address_of_url(&self, text: &str) -> Result<Address, Failure> {
        let parts: [(&str, bool); 6] = [
            ("protocol", self.protocol.is_some()),
            ("host", self.host.is_some()),
            ("port", self.port.is_some()),
            ("vhost", self.vhost.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
        ];
        if let Some((name, _)) = parts.iter().find(|(_, given)| *given) {
            return Err(conflict(
                name,
                &format!("`url` and `{name}` are both given"),
                "Give the whole address in `url`, or all of it in parts.",
            ));
        }
        const FORM: &str =
            "Write amqp://user:password@host:5672/vhost, with special characters percent-encoded.";
        // The text may contain a password, so an error never quotes it.
        let of_url = |unusable: Unusable| refused("url", &unusable);
        no_controls("`url`", text).map_err(of_url)?;
        if let Some(authority) =
            text.split_once("://").map(|(_, rest)| rest.split('/').next().unwrap_or(rest))
        {
            let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
            if hosts.contains(',') {
                return Err(several_hosts("url"));
            }
        }
        let url = Url::parse(text).map_err(|error| wrong("url", &error.to_string(), FORM))?;
        let protocol = match url.scheme() {
            "amqp" => Protocol::Amqp,
            "amqps" => Protocol::Amqps,
            other => return Err(wrong("url", &format!("`{other}` is neither amqp nor amqps"), FORM)),
        };
        PARAMETERS.check(text.split_once('?').map_or("", |(_, query)| query)).map_err(of_url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("url", "it has a `?` or a `#`", FORM));
        }
        let decode = |what: &str, text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| wrong("url", &format!("its {what} is not UTF-8"), FORM))
        };
        let vhost = url.path().strip_prefix('/').unwrap_or(url.path());
        if vhost.contains('/') {
            return Err(wrong("url", "its vhost has a `/` in it", "Write a `/` in a vhost's name as %2F."));
        }
        let vhost = decode("vhost", vhost)?;
        let host = decode("host", url.host_str().unwrap_or_default())?;
        let username = decode("user", url.username())?;
        let password = url.password().map(|password| decode("password", password)).transpose()?;
        // What was percent-encoded.
        for (part, value) in [("vhost", &vhost), ("host", &host), ("user", &username)] {
            no_controls(&format!("the {part} in `url`"), value).map_err(of_url)?;
        }
        no_zero_byte("the password in `url`", password.as_deref().unwrap_or_default().as_bytes())
            .map_err(of_url)?;
        Ok(Address {
            protocol,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port(),
            vhost: if vhost.is_empty() { "/".into() } else { vhost },
            username: Some(username).filter(|username| !username.is_empty()),
            password: password.map(Secret::new),
        })
    }

    fn management(&self, login: &Login) -> Result<Option<Management>, Failure> {
        const FORM: &str = "Write http://host:15672 or https://host:15671.";
        let Some(text) = &self.management_url else { return Ok(None) };
        no_controls("`management_url`", text.reveal())
            .map_err(|unusable| refused("management_url", &unusable))?;
        let mut url =
            Url::parse(text.reveal()).map_err(|error| wrong("management_url", &error.to_string(), FORM))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("management_url", "it is no http or https address", FORM));
        }
        one_host("management_url", url.host_str().unwrap_or_default())?;
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (username, password) = match (url.username(), url.password(), login) {
            ("", None, Login::Plain { username, password }) => (username.clone(), password.clone()),
            ("", None, Login::External) => {
                return Err(wrong(
                    "management_url",
                    "the management API has no login",
                    "Write the login into it: https://user:password@host:15671.",
                ));
            }
            (username, password, _) => (decode(username), Secret::new(decode(password.unwrap_or_default()))),
        };
        // Removed, so that no message contains it. Cannot fail for http.
        url.set_username("").ok();
        url.set_password(None).ok();
        url.set_query(None);
        url.set_fragment(None);
        let base = url.as_str().trim_end_matches('/').trim_end_matches("/api").to_owned();
        Ok(Some(Management { base, username, password }))
    }
}

struct Address {
    protocol: Protocol,
    host: String,
    port: Option<u16>,
    vhost: String,
    username: Option<String>,
    password: Option<Secret>,
}

/// Checks that a host is a single name or address, without port, login or a second host.
fn one_host(key: &str, host: &str) -> Result<(), Failure> {
    if host.is_empty() {
        return Err(wrong(key, "the host's name is empty", "Give the broker's host name or address."));
    }
    if host.contains([',', ';']) || host.contains(char::is_whitespace) {
        return Err(several_hosts(key));
    }
    let is_address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    if !is_address && host.contains([':', '/', '@']) {
        let detail = "it is not the name or address of a host alone";
        return Err(wrong(
            key,
            detail,
            "Give `port`, `username` and `password` by their own keys, or give a `url`.",
        ));
    }
    Ok(())
}

fn several_hosts(key: &str) -> Failure {
    wrong(
        key,
        "it names several hosts, and a broker has one",
        "Give one host. For failover use a name that resolves to all nodes, which are tried in turn, or a load balancer.",
    )
}

fn heartbeat(span: Option<Span>) -> Result<Duration, Failure> {
    let heartbeat = span.map_or(HEARTBEAT, |span| span.0);
    let whole = heartbeat.subsec_nanos() == 0 && u16::try_from(heartbeat.as_secs()).is_ok();
    if whole {
        Ok(heartbeat)
    } else {
        Err(wrong("heartbeat", "it is not a whole number of seconds up to 18h", "Write 15s."))
    }
}

fn timeout(name: &str, span: Option<Span>, default: Duration) -> Result<Duration, Failure> {
    match span.map_or(default, |span| span.0) {
        Duration::ZERO => Err(wrong(name, "it is zero", "Leave it out, or give a time such as 30s.")),
        timeout => Ok(timeout),
    }
}

fn refused(key: &str, unusable: &Unusable) -> Failure {
    wrong(key, &unusable.detail, &unusable.remedy)
}

fn wrong(name: &str, detail: &str, remedy: &str) -> Failure {
    fault(codes::INVALID_VALUE, &format!("read `{name}`"), detail, remedy).at(name)
}

fn conflict(name: &str, detail: &str, remedy: &str) -> Failure {
    fault(codes::CONFLICTING_KEYS, "read the broker's settings", detail, remedy).at(name)
}

fn fault(code: Code, what: &str, detail: &str, remedy: &str) -> Failure {
    Failure::new(FailureKind::Invalid, code, what).detail(detail).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<Target, Failure> {
        Config { url: Some(Secret::new(text)), ..Config::default() }.target()
    }

    #[test]
    fn urls_are_read() {
        let target = url("amqps://us%40er:p%2Fw@[::1]:7000/my%2Fhost").unwrap();
        assert_eq!(
            (target.protocol, &*target.host, target.port, &*target.vhost),
            (Protocol::Amqps, "::1", 7000, "my/host")
        );
        let Login::Plain { username, password } = target.login else { panic!() };
        assert_eq!((&*username, password.reveal()), ("us@er", "p/w"));
        for default in ["amqp://h", "amqp://h/", "amqp://h/%2F", "amqp://h/%2f"] {
            let target = url(default).unwrap();
            assert_eq!((&*target.vhost, target.port), ("/", 5672), "{default}");
        }
        assert_eq!(url("amqps://h").unwrap().port, 5671);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        for bad in [
            "http://u:swordfish@h",
            "amqp://u:swordfish@h/a/b",
            "amqp://u:swordfish@h/?heartbeat=5",
            "amqp://u:swordfish@:port",
            "amqp://u:swordfish@/v",
            "u:swordfish@h",
        ] {
            let failure = url(bad).unwrap_err();
            assert!(!format!("{failure:?}").contains("swordfish"), "{bad}: {failure:?}");
            assert!(failure.remedy.is_some(), "{bad}");
        }
    }

    #[test]
    fn a_parameter_of_a_url_is_named_with_a_hint() {
        for (query, name, hint) in [
            ("heartbeat=5", "heartbeat", "`heartbeat: 15s`"),
            ("connection_timeout=5", "connection_timeout", "`connect_timeout: 10s`"),
            ("cacertfile=/ca.pem", "cacertfile", "`ca`"),
            ("schema=x", "schema", "own keys"),
        ] {
            let failure = url(&format!("amqp://u:swordfish@h/v?{query}")).unwrap_err();
            assert_eq!((failure.code, failure.place.as_deref()), (codes::INVALID_VALUE, Some("url")));
            let (text, remedy) = (failure.to_string(), failure.remedy.as_deref().unwrap());
            assert!(text.contains(&format!("`{name}` is not a parameter of a RabbitMQ URL")), "{text}");
            assert!(remedy.contains(hint), "{failure:?}");
        }
        for text in [
            "amqp://u:1?swordfish@h",
            "amqp://u:1?swordfish=1@h",
            "amqp://u:1?swordfish#x@h",
            "amqp://u:1#swordfish@h",
        ] {
            let failure = url(text).unwrap_err();
            assert!(!format!("{failure:?}").contains("swordfish"), "{text}: {failure:?}");
        }
    }

    #[test]
    fn a_line_break_in_a_part_of_the_address_names_the_part() {
        let of_url = |text: &str| Config { url: Some(Secret::new(text)), ..Config::default() };
        let some = |text: &str| Some(text.to_owned());
        for (config, key, text) in [
            (of_url("amqp://u:swordfish@h/v\n"), "url", "`url` ends in a line break"),
            (of_url("amqp://u:sword\nfish@h/v"), "url", "`url` contains a line break"),
            (of_url("amqp://u:swordfish@h/v%0A"), "url", "the vhost in `url` ends in a line break"),
            (of_url("amqp://u%00:swordfish@h"), "url", "the user in `url` contains a control character"),
            (of_url("amqp://u:swordfish%00@h"), "url", "the password in `url` contains a zero byte"),
            (Config { host: some("h\n"), ..Config::default() }, "host", "`host` ends in a line break"),
            (Config { vhost: some("v\n"), ..Config::default() }, "vhost", "`vhost` ends in a line break"),
            (
                Config { username: some("u\n"), ..Config::default() },
                "username",
                "`username` ends in a line break",
            ),
            (
                Config { password: Some(Secret::new("swordfish\n")), ..Config::default() },
                "password",
                "`password` ends in a line break",
            ),
            (
                Config { management_url: Some(Secret::new("http://u:swordfish@h\n")), ..Config::default() },
                "management_url",
                "`management_url` ends in a line break",
            ),
        ] {
            let failure = config.target().unwrap_err();
            assert_eq!((failure.code, failure.place.as_deref()), (codes::INVALID_VALUE, Some(key)));
            assert!(failure.to_string().ends_with(text) && failure.remedy.is_some(), "{failure:?}");
            assert!(!format!("{failure:?}").contains("fish"), "{failure:?}");
        }
    }

    #[test]
    fn a_list_of_hosts_is_refused_as_one() {
        let host = |host: &str| Config { host: Some(host.to_owned()), ..Config::default() };
        let management = |url: &str| Config { management_url: Some(Secret::new(url)), ..Config::default() };
        let of_url = |text: &str| Config { url: Some(Secret::new(text)), ..Config::default() };
        for config in [
            of_url("amqp://h1,h2:5672/"),
            of_url("amqp://u:swordfish@h1:5672,h2:5672/v"),
            host("a,b"),
            host("a;b"),
            host("a b"),
            management("http://h1,h2:15672"),
        ] {
            let failure = config.target().unwrap_err();
            assert_eq!(failure.code, codes::INVALID_VALUE);
            assert!(failure.to_string().contains("several hosts"), "{failure}");
            assert!(!format!("{failure:?}").contains("swordfish"), "{failure:?}");
        }
        for config in [host("h:5672"), host("u@h"), host("h/v")] {
            assert!(config.target().unwrap_err().to_string().contains("alone"));
        }
        for config in [host("::1"), host("mq-1.example.com"), of_url("amqp://u:a,b@h/v")] {
            config.target().unwrap();
        }
    }

    #[test]
    fn contradictions_are_found() {
        let both = Config { url: Some(Secret::new("amqp://h")), port: Some(1), ..Config::default() };
        assert_eq!(both.target().unwrap_err().code, codes::CONFLICTING_KEYS);
        let tls = Config { tls: Some(TlsSettings::default()), ..Config::default() };
        assert_eq!(tls.target().unwrap_err().code, codes::CONFLICTING_KEYS);
        let zero = Config { publish_timeout: Some(Span(Duration::ZERO)), ..Config::default() };
        assert_eq!(zero.target().unwrap_err().code, codes::INVALID_VALUE);
    }

    #[test]
    fn the_management_login_is_taken_out_of_its_address() {
        let config = Config {
            management_url: Some(Secret::new("http://adm:p%40w@h:15672/api/")),
            ..Config::default()
        };
        let management = config.target().unwrap().management.unwrap();
        assert_eq!(management.base, "http://h:15672");
        assert_eq!((&*management.username, management.password.reveal()), ("adm", "p@w"));
    }
}
