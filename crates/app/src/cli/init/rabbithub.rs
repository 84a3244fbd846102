//! `warren init --from-rabbithub`: from the old `rabbitmq.config` to a configuration with a hub in compatibility mode.
//!
//! What the old settings mean is read here; how that is written stands in `yaml`.

mod yaml;

use std::path::Path;

use serde_json::Value;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::erlang::{Term, parse};

/// A configuration, and what of the old one is not in it.
pub(super) struct Migrated {
    /// The text of `warren.yaml`.
    pub(super) yaml: String,
    /// What has no counterpart, or works otherwise, as sentences.
    pub(super) notes: Vec<String>,
}

/// Settings that are taken over as they are: RabbitHub's name is ours.
const BOOLEANS: [&str; 9] = [
    "append_hub_topic_to_callback",
    "validate_callback_on_unsubscribe",
    "requeue_on_http_post_error",
    "unsubscribe_on_http_post_error",
    "include_servername_in_consumer_tag",
    "log_published_messages",
    "log_message_body",
    "log_http_post_request",
    "log_maxtps_delay",
];
const NUMBERS: [&str; 8] = [
    "signed_term_max_age_seconds",
    "default_lease_seconds",
    "unsubscribe_on_http_post_error_limit",
    "unsubscribe_on_http_post_error_timeout_milliseconds",
    "unsubscribe_on_http_post_error_timeout_microseconds",
    "wait_for_consumer_restart_milliseconds",
    "wait_for_consumer_restart_microseconds",
    "log_subscription_expiration",
];
const TEXTS: [&str; 7] = [
    "default_username",
    "canonical_scheme",
    "canonical_host",
    "canonical_basepath",
    "instance_key",
    "set_message_id",
    "set_correlation_id",
];

/// Reads the old configuration.
///
/// # Errors
/// The file cannot be read, is not of Erlang terms, or has no `rabbithub` in it.
pub(super) fn migrate_file(path: &Path) -> Result<Migrated, Failure> {
    let what = format!("read {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(FailureKind::Invalid, codes::CONFIG_UNREADABLE, what.clone()).detail(error.to_string())
    })?;
    migrate(&text).map_err(|failure| Failure { what, ..failure })
}

fn migrate(text: &str) -> Result<Migrated, Failure> {
    let wrong = |detail: String, remedy: &str| {
        Failure::new(FailureKind::Invalid, codes::CONFIG_SYNTAX, "read the configuration of RabbitHub")
            .detail(detail)
            .remedy(remedy)
    };
    let term = parse(text).map_err(|unreadable| {
        let remedy = "give the classic `rabbitmq.config`, which is of Erlang terms; `rabbitmq.conf` never held RabbitHub's settings";
        wrong(format!("line {}: {}", unreadable.line, unreadable.why), remedy)
    })?;
    let applications = pairs(&term);
    let of =
        |name: &str| applications.iter().find(|(other, _)| *other == name).map(|(_, settings)| *settings);
    let Some(settings) = of("rabbithub") else {
        return Err(wrong(
            "it has no settings of `rabbithub`".to_owned(),
            "give the file in which `{rabbithub, […]}` stands; one without it ran on defaults: `warren init` and `hub: {compat: rabbithub}`",
        ));
    };
    let mut taken = Taken {
        amqp_port: port(of("rabbit"), "tcp_listeners").unwrap_or(5672),
        management_port: management_port(of("rabbitmq_management")),
        ..Taken::default()
    };
    for (name, value) in pairs(settings) {
        taken.setting(name, value);
    }
    if pairs(settings).is_empty() {
        taken.notes.push("`rabbithub` has no settings: everything is at RabbitHub's defaults".to_owned());
    }
    taken.also();
    Ok(Migrated { yaml: yaml::written(&taken), notes: taken.notes })
}

/// The entries `{name, value}` of a list.
fn pairs<'t>(term: &'t Term) -> Vec<(&'t str, &'t Term)> {
    let Term::List(items) = term else { return Vec::new() };
    let pair = |item: &'t Term| match item {
        Term::Tuple(parts) => match parts.as_slice() {
            [Term::Atom(name), value] => Some((name.as_str(), value)),
            _ => None,
        },
        _ => None,
    };
    items.iter().filter_map(pair).collect()
}

/// The first port of a list of listeners: a number, or an address with one.
fn port(settings: Option<&Term>, name: &str) -> Option<u16> {
    let settings = pairs(settings?);
    let (_, listeners) = settings.iter().find(|(other, _)| *other == name)?;
    let Term::List(listeners) = listeners else { return None };
    let number = match listeners.first()? {
        Term::Number(number) => *number,
        Term::Tuple(parts) => match parts.get(1)? {
            Term::Number(number) => *number,
            _ => return None,
        },
        _ => return None,
    };
    u16::try_from(number).ok()
}

fn management_port(settings: Option<&Term>) -> u16 {
    let of = || {
        let settings = pairs(settings?);
        let (_, listener) = settings.iter().find(|(name, _)| *name == "listener")?;
        let listener = pairs(listener);
        match listener.iter().find(|(name, _)| *name == "port")?.1 {
            Term::Number(port) => u16::try_from(*port).ok(),
            _ => None,
        }
    };
    of().unwrap_or(15672)
}

/// What is taken over: keys of ours with their values, in their order; of a key that is there twice the last one counts.
#[derive(Default)]
struct Taken {
    /// Under `hub`.
    hub: Entries,
    /// Under `hub.http_client_options`.
    client: Entries,
    client_tls: Entries,
    /// Under `hub.http_request_options`.
    request: Entries,
    listen: Option<String>,
    listen_tls: Entries,
    amqp_port: u16,
    management_port: u16,
    /// What has no counterpart, or works otherwise.
    notes: Vec<String>,
}

type Entries = Vec<(String, Value)>;

impl Taken {
    fn setting(&mut self, name: &str, value: &Term) {
        let known = |names: &[&str]| names.contains(&name);
        let written = if known(&BOOLEANS) {
            boolean(value)
        } else if known(&NUMBERS) {
            number(value)
        } else if known(&TEXTS) {
            plain(value).map(Value::from)
        } else {
            match name {
                "listener" => return self.listener(value),
                "http_client_options" => return self.client_options(value),
                "http_request_options" => return self.request_options(value),
                "use_internal_queue_for_pseudo_queue" => {
                    if boolean(value) == Some(Value::Bool(true)) {
                        self.notes.push(
                            "`use_internal_queue_for_pseudo_queue`: subscriptions to exchanges have durable queues of their own now; \
                             what was published while nobody was connected is delivered later"
                                .to_owned(),
                        );
                    }
                    return;
                }
                "ha_mode" | "ha_consumers" => {
                    if name == "ha_consumers" {
                        self.notes
                            .push("`ha_consumers` was read by nobody; it is taken as `ha_mode`".to_owned());
                    }
                    let mode = number(value).or_else(|| plain(value).map(Value::from));
                    if let Some(mode) = mode {
                        self.hub.push(("ha_mode".to_owned(), mode));
                    }
                    return;
                }
                "log_http_headers" => names(value),
                _ => {
                    self.notes.push(format!("`{name}` is not known: it is left out"));
                    return;
                }
            }
        };
        match written {
            Some(written) => self.hub.push((name.to_owned(), written)),
            None if matches!(value, Term::Atom(atom) if atom == "undefined") => {}
            None => self.notes.push(format!("`{name}` has a value that it does not take: it is left out")),
        }
    }

    fn listener(&mut self, value: &Term) {
        let (mut ip, mut port) = ("0.0.0.0".to_owned(), 15670);
        for (name, value) in pairs(value) {
            match (name, value) {
                ("port", Term::Number(number)) => port = *number,
                ("ip", Term::Tuple(parts)) => {
                    let parts: Option<Vec<String>> =
                        parts.iter().map(|part| number(part).map(|part| part.to_string())).collect();
                    if let Some(parts) = parts.filter(|parts| parts.len() == 4) {
                        ip = parts.join(".");
                    }
                }
                ("ip", value) => ip = plain(value).unwrap_or(ip),
                ("ssl", Term::Atom(_)) => {}
                ("ssl_opts", options) => {
                    for (name, value) in pairs(options) {
                        match (name, plain(value)) {
                            ("certfile", Some(path)) => self.listen_tls.push(("cert".into(), path.into())),
                            ("keyfile", Some(path)) => self.listen_tls.push(("key".into(), path.into())),
                            _ => self.notes.push(format!("`listener.ssl_opts.{name}` has no counterpart")),
                        }
                    }
                }
                (name, _) => self.notes.push(format!(
                    "`listener.{name}` has no counterpart: connections are limited by themselves"
                )),
            }
        }
        let secure = pairs(value)
            .iter()
            .any(|(name, value)| *name == "ssl" && boolean(value) == Some(Value::Bool(true)));
        if secure && self.listen_tls.len() < 2 {
            self.notes.push(
                "the listener used TLS with the broker's own certificate: give its files in `http.tls`"
                    .to_owned(),
            );
        }
        if !secure || self.listen_tls.len() < 2 {
            self.listen_tls.clear();
        }
        let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
        self.listen = Some(format!("{ip}:{port}"));
    }

    fn client_options(&mut self, value: &Term) {
        for (name, value) in pairs(value) {
            match name {
                "proxy" | "https_proxy" => self.proxy(name, value),
                "max_sessions" => self.client.extend(number(value).map(|count| (name.to_owned(), count))),
                "keep_alive_timeout" => self.client.extend(number(value).map(|time| (name.to_owned(), format!("{time}ms").into()))),
                "max_keep_alive_length" | "max_pipeline_length" | "pipeline_timeout" => self.notes.push(format!(
                    "`http_client_options.{name}` has no counterpart, and no need: a connection that the receiver closed is replaced"
                )),
                _ => self.notes.push(format!("`http_client_options.{name}` has no counterpart")),
            }
        }
    }

    /// `{{Host, Port}, [NoProxy]}`
    fn proxy(&mut self, name: &str, value: &Term) {
        let read = || {
            let Term::Tuple(parts) = value else { return None };
            let [Term::Tuple(address), Term::List(direct)] = parts.as_slice() else { return None };
            let [host, Term::Number(port)] = address.as_slice() else { return None };
            Some((plain(host)?, *port, direct.iter().filter_map(plain).collect::<Vec<_>>()))
        };
        let Some((host, port, direct)) = read() else {
            self.notes.push(format!(
                "`http_client_options.{name}` has a value that it does not take: it is left out"
            ));
            return;
        };
        self.client.push((name.to_owned(), format!("http://{host}:{port}").into()));
        if !direct.is_empty() && self.client.iter().all(|(key, _)| key != "no_proxy") {
            self.client.push(("no_proxy".to_owned(), direct.into()));
        }
    }

    fn request_options(&mut self, value: &Term) {
        for (name, value) in pairs(value) {
            match (name, value) {
                ("timeout" | "connect_timeout", Term::Number(time)) if *time > 0 => {
                    self.request.push((name.to_owned(), format!("{time}ms").into()));
                }
                ("ssl", options) => self.client_ssl(options),
                ("autoredirect", value) if boolean(value) == Some(Value::Bool(false)) => {}
                ("autoredirect", _) => {
                    self.notes
                        .push("`http_request_options.autoredirect`: redirects are never followed".to_owned());
                }
                (name, _) => self.notes.push(format!("`http_request_options.{name}` has no counterpart")),
            }
        }
    }

    fn client_ssl(&mut self, options: &Term) {
        for (name, value) in pairs(options) {
            match (name, plain(value)) {
                ("cacertfile", Some(path)) => self.client_tls.push(("ca".into(), path.into())),
                ("certfile", Some(path)) => self.client_tls.push(("cert".into(), path.into())),
                ("keyfile", Some(path)) => self.client_tls.push(("key".into(), path.into())),
                ("verify", Some(how)) if how == "verify_peer" => {}
                ("verify", _) => self.notes.push(
                    "`http_request_options.ssl.verify`: certificates of callbacks are always checked; name an authority of \
                     your own in `hub.http_client_options.tls.ca`"
                        .to_owned(),
                ),
                _ => self.notes.push(format!("`http_request_options.ssl.{name}` has no counterpart")),
            }
        }
    }

    /// What somebody should know whose settings are all taken over.
    fn also(&mut self) {
        let has = |key: &str| self.hub.iter().any(|(other, _)| other == key);
        if has("unsubscribe_on_http_post_error_timeout_microseconds") {
            self.notes.push(
                "`unsubscribe_on_http_post_error_timeout_microseconds` was read by nobody, so the limit never applied; now it does"
                    .to_owned(),
            );
        }
        if has("log_subscription_expiration") {
            self.notes.push(
                "`log_subscription_expiration`: a day is a day now, not a quarter of an hour".to_owned(),
            );
        }
        if self.client_tls.is_empty() {
            self.notes.push(
                "certificates of https callbacks are checked now; name an authority of your own in \
                 `hub.http_client_options.tls.ca`"
                    .to_owned(),
            );
        }
        self.notes.push(
            "callbacks on private addresses are refused unless `hub.allow_callbacks` names them; RabbitHub called anything".to_owned(),
        );
    }
}

fn boolean(term: &Term) -> Option<Value> {
    match term {
        Term::Atom(atom) if atom == "true" || atom == "false" => Some(Value::Bool(atom == "true")),
        _ => None,
    }
}

fn number(term: &Term) -> Option<Value> {
    match term {
        Term::Number(number @ 0..) => Some(Value::from(*number)),
        _ => None,
    }
}

/// An atom or a text. A list of bytes is a text too.
fn plain(term: &Term) -> Option<String> {
    match term {
        Term::Atom(text) if text == "undefined" => None,
        Term::Atom(text) | Term::Text(text) => Some(text.clone()),
        _ => None,
    }
}

fn names(term: &Term) -> Option<Value> {
    let Term::List(items) = term else { return None };
    let names: Vec<String> = items.iter().filter_map(plain).collect();
    (!names.is_empty()).then(|| names.into())
}

#[cfg(test)]
mod tests;
