//! `warren init --from-rabbithub`: from the old `rabbitmq.config` to a configuration with a hub in compatibility mode.

use std::fmt::Write as _;
use std::path::Path;

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
    let mut writer = Writer::default();
    for (name, value) in pairs(settings) {
        writer.setting(name, value);
    }
    if pairs(settings).is_empty() {
        writer.notes.push("`rabbithub` has no settings: everything is at RabbitHub's defaults".to_owned());
    }
    writer.also();
    Ok(writer.finish(
        port(of("rabbit"), "tcp_listeners").unwrap_or(5672),
        management_port(of("rabbitmq_management")),
    ))
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

#[derive(Default)]
struct Writer {
    /// Keys under `hub`, in their order, each with its value in YAML.
    hub: Vec<(String, String)>,
    client: Vec<(String, String)>,
    client_tls: Vec<(String, String)>,
    request: Vec<(String, String)>,
    listen: Option<String>,
    listen_tls: Vec<(String, String)>,
    notes: Vec<String>,
}

impl Writer {
    fn setting(&mut self, name: &str, value: &Term) {
        let known = |names: &[&str]| names.contains(&name);
        let written = if known(&BOOLEANS) {
            boolean(value)
        } else if known(&NUMBERS) {
            number(value)
        } else if known(&TEXTS) {
            plain(value).map(|text| quoted(&text))
        } else {
            match name {
                "listener" => return self.listener(value),
                "http_client_options" => return self.client_options(value),
                "http_request_options" => return self.request_options(value),
                "use_internal_queue_for_pseudo_queue" => {
                    if boolean(value).as_deref() == Some("true") {
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
                    let mode = number(value).or_else(|| plain(value).map(|text| quoted(&text)));
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
                    let parts: Option<Vec<String>> = parts.iter().map(number).collect();
                    if let Some(parts) = parts.filter(|parts| parts.len() == 4) {
                        ip = parts.join(".");
                    }
                }
                ("ip", value) => ip = plain(value).unwrap_or(ip),
                ("ssl", Term::Atom(_)) => {}
                ("ssl_opts", options) => {
                    for (name, value) in pairs(options) {
                        match (name, plain(value)) {
                            ("certfile", Some(path)) => self.listen_tls.push(("cert".into(), quoted(&path))),
                            ("keyfile", Some(path)) => self.listen_tls.push(("key".into(), quoted(&path))),
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
            .any(|(name, value)| *name == "ssl" && boolean(value).as_deref() == Some("true"));
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
                "keep_alive_timeout" => self.client.extend(number(value).map(|time| (name.to_owned(), format!("{time}ms")))),
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
        self.client.push((name.to_owned(), quoted(&format!("http://{host}:{port}"))));
        if !direct.is_empty() && self.client.iter().all(|(key, _)| key != "no_proxy") {
            let direct: Vec<String> = direct.iter().map(|host| quoted(host)).collect();
            self.client.push(("no_proxy".to_owned(), format!("[{}]", direct.join(", "))));
        }
    }

    fn request_options(&mut self, value: &Term) {
        for (name, value) in pairs(value) {
            match (name, value) {
                ("timeout" | "connect_timeout", Term::Number(time)) if *time > 0 => {
                    self.request.push((name.to_owned(), format!("{time}ms")));
                }
                ("ssl", options) => self.client_ssl(options),
                ("autoredirect", value) if boolean(value).as_deref() == Some("false") => {}
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
                ("cacertfile", Some(path)) => self.client_tls.push(("ca".into(), quoted(&path))),
                ("certfile", Some(path)) => self.client_tls.push(("cert".into(), quoted(&path))),
                ("keyfile", Some(path)) => self.client_tls.push(("key".into(), quoted(&path))),
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

    fn finish(self, amqp: u16, management: u16) -> Migrated {
        let mut yaml = String::from(
            "# Made of RabbitHub's configuration by `warren init --from-rabbithub`. docs/migration-rabbithub.md has the other steps.\n",
        );
        if !self.notes.is_empty() {
            yaml.push_str("#\n# Not taken over, or otherwise than before:\n");
            for note in &self.notes {
                // A name of the old file may have anything in it, and a comment ends with its line.
                let plain = |c: char| {
                    if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c }
                };
                let note: String = note.chars().map(plain).collect();
                writeln!(yaml, "# - {note}").ok(); // a text takes all that is written to it
            }
        }
        let listen = quoted(self.listen.as_deref().unwrap_or("0.0.0.0:15670"));
        write!(yaml, "\nhttp:\n  listen: {listen}\n").ok();
        if !self.listen_tls.is_empty() {
            yaml.push_str("  tls:\n");
            entries(&mut yaml, 4, &self.listen_tls);
        }
        write!(
            yaml,
            "\nbrokers:\n  rabbit:\n    type: rabbitmq\n    \
             # The login must have rights in all vhosts, and the tag `administrator` for the management API.\n    \
             url: \"${{RABBIT_URL:-amqp://guest:guest@localhost:{amqp}}}\"\n    \
             management_url: \"${{RABBIT_MANAGEMENT_URL:-http://localhost:{management}}}\"\n\n\
             hub:\n  broker: rabbit\n  compat: rabbithub\n  \
             # Where callbacks may lead besides public addresses:\n  \
             # allow_callbacks: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \"http://localhost:8080/\"]\n"
        )
        .ok();
        entries(&mut yaml, 2, &self.hub);
        if !self.client.is_empty() || !self.client_tls.is_empty() {
            yaml.push_str("  http_client_options:\n");
            entries(&mut yaml, 4, &self.client);
            if !self.client_tls.is_empty() {
                yaml.push_str("    tls:\n");
                entries(&mut yaml, 6, &self.client_tls);
            }
        }
        if !self.request.is_empty() {
            yaml.push_str("  http_request_options:\n");
            entries(&mut yaml, 4, &self.request);
        }
        Migrated { yaml, notes: self.notes }
    }
}

/// Each key once: the last one counted.
fn entries(yaml: &mut String, indent: usize, entries: &[(String, String)]) {
    for (at, (key, value)) in entries.iter().enumerate() {
        if entries[at + 1..].iter().all(|(later, _)| later != key) {
            writeln!(yaml, "{:indent$}{key}: {value}", "").ok();
        }
    }
}

fn boolean(term: &Term) -> Option<String> {
    match term {
        Term::Atom(atom) if atom == "true" || atom == "false" => Some(atom.clone()),
        _ => None,
    }
}

fn number(term: &Term) -> Option<String> {
    match term {
        Term::Number(number @ 0..) => Some(number.to_string()),
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

fn names(term: &Term) -> Option<String> {
    let Term::List(items) = term else { return None };
    let names: Vec<String> = items.iter().filter_map(plain).map(|name| quoted(&name)).collect();
    (!names.is_empty()).then(|| format!("[{}]", names.join(", ")))
}

/// A text as YAML takes it in any place: as JSON, with what would be filled in doubled.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{self, Environment, Project};

    const FULL: &str = r#"
%% The sample of the documentation, and everything else there is.
[
 {rabbit, [{tcp_listeners, [{"127.0.0.1", 5673}]}, {vm_memory_high_watermark, 0.4}]},
 {rabbitmq_management, [{listener, [{port, 15673}]}]},
 {rabbithub, [
   {listener, [{port, 15671}, {ip, {127,0,0,1}}, {backlog, 64}]},
   {default_username, "guest"},
   {canonical_scheme, "https"}, {canonical_host, 'hub.example'}, {canonical_basepath, "rabbithub"},
   {instance_key, <<"a ${key}">>},
   {signed_term_max_age_seconds, 600},
   {http_client_options, [{proxy, {{"proxy", 3128}, ["localhost", "*.corp.example"]}}, {https_proxy, {{"proxy", 3129}, []}},
      {max_sessions, 4}, {max_keep_alive_length, 0}, {max_pipeline_length, 0}]},
   {http_request_options, [{timeout, 60000}, {connect_timeout, 2000}, {autoredirect, true},
      {ssl, [{verify, verify_none}, {depth, 2}]}]},
   {append_hub_topic_to_callback, false},
   {validate_callback_on_unsubscribe, false},
   {default_lease_seconds, 86400},
   {use_internal_queue_for_pseudo_queue, true},
   {requeue_on_http_post_error, true},
   {unsubscribe_on_http_post_error, false},
   {unsubscribe_on_http_post_error_limit, 5},
   {unsubscribe_on_http_post_error_timeout_microseconds, 60000000},
   {wait_for_consumer_restart_milliseconds, 10000},
   {ha_mode, all},
   {include_servername_in_consumer_tag, true},
   {set_message_id, 'x-message-id'}, {set_correlation_id, 'x-correlation-id'},
   {log_published_messages, true}, {log_message_body, true}, {log_http_headers, ["user-agent", 'host']},
   {log_http_post_request, true}, {log_maxtps_delay, true},
   {log_subscription_expiration, 30},
   {something_new, [1, 2]}
 ]}
].
"#;

    fn loaded(yaml: &str) -> Project {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("warren.yaml");
        std::fs::write(&path, yaml).unwrap();
        match config::load_with(&path, &Environment::default()) {
            Ok(project) => project,
            Err(faults) => panic!("{}\n{yaml}", faults.render(config::Colours::Off)),
        }
    }

    #[test]
    fn all_settings_are_taken_over() {
        use std::time::Duration;
        use warren_engine::hub::subscription::HaMode;

        let migrated = migrate(FULL).unwrap();
        let project = loaded(&migrated.yaml);
        assert_eq!(project.listen.to_string(), "127.0.0.1:15671");
        let hub = project.hub.unwrap();
        let settings = hub.settings;
        assert!(settings.compat && !settings.append_hub_topic_to_callback);
        assert!(!settings.validate_callback_on_unsubscribe && settings.requeue_on_http_post_error);
        assert!(
            !settings.unsubscribe_on_http_post_error
                && settings.log_message_body
                && settings.log_maxtps_delay
        );
        assert_eq!(settings.default_username.as_deref(), Some("guest"));
        assert_eq!(settings.canonical_host.as_deref(), Some("hub.example"));
        assert_eq!(settings.instance_key.unwrap().0, "a ${key}");
        assert_eq!(settings.signed_term_max_age, Duration::from_secs(600));
        assert_eq!(settings.default_lease_seconds, 86400);
        assert_eq!(settings.unsubscribe_on_http_post_error_limit, Some(5));
        assert_eq!(settings.unsubscribe_on_http_post_error_timeout, Some(Duration::from_secs(60)));
        assert_eq!(settings.wait_for_consumer_restart, Some(Duration::from_secs(10)));
        assert_eq!((settings.ha_mode, settings.max_in_flight), (HaMode::All, 1));
        assert_eq!(settings.set_message_id.as_deref(), Some("x-message-id"));
        assert_eq!(settings.log_http_headers, ["user-agent", "host"]);
        assert_eq!(settings.log_subscription_expiration_days, Some(30));
        assert_eq!(settings.request_timeout, Duration::from_secs(60));
        assert_eq!(hub.client.connect_timeout.unwrap().0, Duration::from_secs(2));
        assert_eq!(hub.client.proxy.unwrap().reveal(), "http://proxy:3128");
        assert_eq!(hub.client.https_proxy.unwrap().reveal(), "http://proxy:3129");
        assert_eq!(hub.client.no_proxy, ["localhost", "*.corp.example"]);
        assert_eq!(hub.client.max_sessions, Some(4));
        assert!(migrated.yaml.contains("localhost:5673") && migrated.yaml.contains("localhost:15673"));
        for left_out in [
            "something_new",
            "max_keep_alive_length",
            "max_pipeline_length",
            "backlog",
            "ssl.verify",
            "ssl.depth",
            "autoredirect",
            "use_internal_queue",
            "timeout_microseconds",
            "log_subscription_expiration",
            "allow_callbacks",
        ] {
            assert!(
                migrated.notes.iter().any(|note| note.contains(left_out)),
                "{left_out}: {:?}",
                migrated.notes
            );
            assert!(migrated.yaml.contains(left_out), "{left_out}");
        }
    }

    #[test]
    fn small_configurations_work_and_others_are_refused() {
        let project = loaded(&migrate("[{rabbithub, []}].").unwrap().yaml);
        assert_eq!(project.listen.to_string(), "0.0.0.0:15670");
        let odd = "[{rabbithub, [{default_lease_seconds, never}, {ha_consumers, 2}, {set_message_id, undefined}, junk]}].";
        let migrated = migrate(odd).unwrap();
        assert!(migrated.notes.iter().any(|note| note.contains("default_lease_seconds")));
        assert_eq!(migrated.notes.iter().filter(|note| note.contains("set_message_id")).count(), 0);
        let hub = loaded(&migrated.yaml).hub.unwrap();
        assert_eq!(hub.settings.ha_mode, warren_engine::hub::subscription::HaMode::Count(2));
        for bad in ["[{rabbit, []}].", "[]", "listeners.tcp.default = 5672"] {
            let failure = migrate(bad).err().unwrap();
            assert!(failure.remedy.is_some(), "{bad}");
        }
        // With certificates of its own, they are taken over.
        let tls = "[{rabbithub, [{listener, [{port, 1}, {ssl, true}, {ssl_opts, [{certfile, \"/c.pem\"}, {keyfile, \"/k.pem\"}]}]}]}].";
        let yaml = migrate(tls).unwrap().yaml;
        assert!(yaml.contains("cert: \"/c.pem\"") && yaml.contains("key: \"/k.pem\""), "{yaml}");
    }

    proptest! {
        #[test]
        fn whatever_stands_in_it_what_is_written_is_yaml(name in any::<String>(), value in any::<String>()) {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'").replace('"', "\\\"");
            let text = format!(
                "[{{rabbithub, [{{default_username, \"{}\"}}, {{'{}', \"{}\"}}]}}].",
                quoted(&value), quoted(&name), quoted(&value)
            );
            let migrated = migrate(&text).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("warren.yaml");
            std::fs::write(&path, &migrated.yaml).unwrap();
            // A value may be one that its key does not take; it never breaks out of its place.
            match config::load_with(&path, &Environment::default()) {
                Ok(project) => prop_assert_eq!(project.hub.unwrap().settings.default_username, Some(value)),
                Err(faults) => prop_assert!(!faults.render(config::Colours::Off).contains("config-syntax")),
            }
        }
    }
}
