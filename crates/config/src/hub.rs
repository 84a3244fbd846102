//! From the hub as written to its settings.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;
use warren_connectors::BrokerConfig;
use warren_connectors::http::config::{ClientConfig, ClientFor};
use warren_connectors::kit::guard::Allowed;
use warren_connectors::kit::setting::{Secret, Span as Time};
use warren_connectors::kit::users::UserConfig;
use warren_engine::codes;
use warren_engine::hub::callback;
use warren_engine::hub::params;
use warren_engine::hub::resource::DEFAULT_VHOST;
use warren_engine::hub::settings::{HubSettings, TopicRedirect, WebsubSettings};
use warren_engine::pipeline::outside::Hidden;
use warren_engine::statuses::Statuses;

use super::de;
use super::faults::Fault;
use super::model::unknown_name;
use super::raw::hub::{RawHub, RawHubListener, RawTopicRedirect, RawWebsub};
use super::text::Span;
use super::tree::Node;

/// The hub, with the names of what it connects.
#[derive(Debug, Clone)]
pub struct ProjectHub {
    /// The broker it stands in front of; one of [`Project::brokers`](super::project::Project::brokers).
    pub broker: String,
    /// What the operator decided.
    pub settings: HubSettings,
    /// The hub's own users; `None`: those of the broker.
    pub users: Option<BTreeMap<String, UserConfig>>,
    /// How callbacks are called.
    pub client: ClientConfig,
    /// The same for some of them.
    pub clients: Vec<ClientFor>,
    /// Where RabbitHub's own setting says to listen.
    pub listen: Option<SocketAddr>,
}

/// Compiles the hub.
pub struct HubReader<'r> {
    /// What is wrong.
    pub faults: &'r mut Vec<Fault>,
    /// The names under `brokers`, also of what is broken.
    pub broker_names: &'r [String],
    /// The brokers that were read.
    pub brokers: &'r BTreeMap<String, BrokerConfig>,
    /// The section.
    pub node: &'r Node,
    /// Where it begins.
    pub key: Span,
}

impl HubReader<'_> {
    /// The hub. `None`: something is wrong with it, and was told.
    pub fn hub(&mut self) -> Option<ProjectHub> {
        let raw: RawHub = match de::read(self.node, "hub") {
            Ok(raw) => raw,
            Err(fault) => {
                self.faults.push(fault);
                return None;
            }
        };
        let before = self.faults.len();
        self.broker(&raw);
        self.contradictions(&raw);
        let listen = raw.listener.as_ref().and_then(|listener| self.listener(listener));
        let settings = self.settings(&raw);
        let client = self.client(&raw);
        (self.faults[before..].iter().all(|fault| fault.severity != warren_engine::finding::Severity::Error))
            .then_some(ProjectHub {
                broker: raw.broker,
                settings,
                users: raw.users,
                client,
                clients: raw.http_client_options_for,
                listen,
            })
    }

    fn at(&self, key: &str) -> Span {
        self.node.get(key).map_or(self.key, |node| node.span)
    }

    fn wrong(&mut self, key: &str, message: String, remedy: &str) {
        self.faults.push(Fault::new(codes::INVALID_VALUE, self.at(key), message).remedy(remedy));
    }

    fn broker(&mut self, raw: &RawHub) {
        if !self.broker_names.contains(&raw.broker) {
            let fault = unknown_name("broker", &raw.broker, self.node, "broker", self.broker_names, self.key);
            self.faults.push(fault);
        }
        let Some(config) = self.brokers.get(&raw.broker) else { return };
        match config {
            BrokerConfig::Rabbitmq(config) if raw.users.is_none() && config.management_url.is_none() => {
                let message = format!(
                    "broker `{}` has no `management_url`, so nobody tells what its users may",
                    raw.broker
                );
                self.faults.push(Fault::new(codes::MISSING_KEY, self.at("broker"), message).remedy(
                    "give the broker a `management_url` with the login of an administrator, or name the hub's users \
                     under `hub.users`",
                ));
            }
            BrokerConfig::Embedded(_) if raw.users.is_none() => {
                self.faults.push(
                    Fault::new(
                        codes::MISSING_KEY,
                        self.key,
                        "the embedded broker has no users, and the hub neither",
                    )
                    .remedy(
                        "name them under `hub.users`; `warren hub hash-password` makes a `password_hash`",
                    ),
                );
            }
            BrokerConfig::Rabbitmq(_) | BrokerConfig::Embedded(_) => {}
            #[cfg(feature = "sqs")]
            BrokerConfig::Sqs(_) => {
                let message = format!("broker `{}` is of the type `sqs`, which has no exchanges", raw.broker);
                self.wrong("broker", message, "name a broker of the type rabbitmq or embedded");
            }
        }
        if let Some(users) = &raw.users
            && let Err(failure) = warren_connectors::kit::users::configured(users)
        {
            self.wrong("users", failure.to_string(), failure.remedy.as_deref().unwrap_or("correct it"));
        }
        if let (Some(users), Some(name)) = (&raw.users, &raw.default_username)
            && !users.contains_key(name)
        {
            let message = format!("there is no user `{name}` under `hub.users`");
            let fault = Fault::new(codes::UNKNOWN_NAME, self.at("default_username"), message);
            self.faults.push(fault.remedy("add the user, or leave out `default_username`"));
        }
    }

    /// What works and is not what somebody meant.
    fn contradictions(&mut self, raw: &RawHub) {
        let mut warn = |key: &str, message: String, remedy: &str| {
            let span = self.node.get(key).map_or(self.key, |node| node.span);
            self.faults.push(Fault::new(codes::CONFLICTING_KEYS, span, message).remedy(remedy).warning());
        };
        if raw.compat.is_none() {
            for (key, given) in [
                ("requeue_on_http_post_error", raw.requeue_on_http_post_error.is_some()),
                ("unsubscribe_on_http_post_error", raw.unsubscribe_on_http_post_error.is_some()),
                ("unsubscribe_on_http_post_error_limit", raw.unsubscribe_on_http_post_error_limit.is_some()),
            ] {
                if given {
                    let message = format!("`{key}` counts with `compat: rabbithub` only");
                    warn(
                        key,
                        message,
                        "add `compat: rabbithub`, or leave it out: messages are tried again by themselves",
                    );
                }
            }
        }
        if raw.compat.is_some() && raw.websub.is_none() && !raw.final_statuses.0.is_empty() {
            warn(
                "final_statuses",
                "`final_statuses` has no effect with `compat: rabbithub` and without `websub`".to_owned(),
                "use `requeue_on_http_post_error` and `unsubscribe_on_http_post_error`, or remove `compat`",
            );
        }
        let window = raw.unsubscribe_on_http_post_error_timeout_milliseconds.is_some()
            || raw.unsubscribe_on_http_post_error_timeout_microseconds.is_some();
        if raw.unsubscribe_on_http_post_error_limit.is_some() != window {
            warn(
                "unsubscribe_on_http_post_error_limit",
                "a limit of errors counts together with the time for it, and only one of them is given"
                    .to_owned(),
                "give `unsubscribe_on_http_post_error_limit` and \
                 `unsubscribe_on_http_post_error_timeout_milliseconds`, or neither",
            );
        }
        if raw.use_internal_queue_for_pseudo_queue == Some(true) {
            warn(
                "use_internal_queue_for_pseudo_queue",
                "subscriptions to exchanges have real queues, whatever this says".to_owned(),
                "leave it out",
            );
        }
        if raw.log_message_body == Some(true) && raw.log_published_messages != Some(true) {
            warn(
                "log_message_body",
                "bodies stand in the line of `log_published_messages`, which is off".to_owned(),
                "add `log_published_messages: true`",
            );
        }
        if let Some(name) = &raw.default_username {
            warn(
                "default_username",
                format!("whoever can reach the hub acts as `{name}`, without a password"),
                "leave it out unless only trusted machines reach the hub",
            );
        }
    }

    fn listener(&mut self, raw: &RawHubListener) -> Option<SocketAddr> {
        let Ok(ip) = raw.ip.as_deref().unwrap_or("0.0.0.0").parse() else {
            self.wrong("listener", "`hub.listener.ip` is no address".to_owned(), "write it as 127.0.0.1");
            return None;
        };
        Some(SocketAddr::new(ip, raw.port.unwrap_or(15670)))
    }

    fn settings(&mut self, raw: &RawHub) -> HubSettings {
        let compat = raw.compat.is_some();
        let defaults = HubSettings::new(compat);
        self.allow(&raw.allow_callbacks);
        if let Some(url) = &raw.public_url {
            self.base_url(url);
        }
        for (key, name) in
            [("set_message_id", &raw.set_message_id), ("set_correlation_id", &raw.set_correlation_id)]
        {
            if name.as_deref().is_some_and(|name| !is_header_name(name)) {
                self.wrong(
                    key,
                    format!("`hub.{key}` is no name of a header"),
                    "write a name such as x-message-id",
                );
            }
        }
        let final_statuses = self.final_statuses(&raw.final_statuses.0);
        HubSettings {
            final_statuses,
            public_url: raw.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            default_username: raw.default_username.clone(),
            canonical_scheme: raw.canonical_scheme.clone(),
            canonical_host: raw.canonical_host.clone(),
            instance_key: raw.instance_key.as_ref().map(hidden),
            signed_term_max_age: raw
                .signed_term_max_age_seconds
                .map_or(defaults.signed_term_max_age, Duration::from_secs),
            append_hub_topic_to_callback: raw.append_hub_topic_to_callback.unwrap_or(true),
            validate_callback_on_unsubscribe: raw.validate_callback_on_unsubscribe.unwrap_or(true),
            default_lease_seconds: raw.default_lease_seconds.unwrap_or(defaults.default_lease_seconds),
            requeue_on_http_post_error: raw.requeue_on_http_post_error.unwrap_or(true),
            unsubscribe_on_http_post_error: raw.unsubscribe_on_http_post_error.unwrap_or(true),
            unsubscribe_on_http_post_error_limit: raw.unsubscribe_on_http_post_error_limit,
            unsubscribe_on_http_post_error_timeout: self.either(
                "unsubscribe_on_http_post_error_timeout",
                raw.unsubscribe_on_http_post_error_timeout_milliseconds,
                raw.unsubscribe_on_http_post_error_timeout_microseconds,
            ),
            wait_for_consumer_restart: self.either(
                "wait_for_consumer_restart",
                raw.wait_for_consumer_restart_milliseconds,
                raw.wait_for_consumer_restart_microseconds,
            ),
            ha_mode: raw.ha_mode.map_or(defaults.ha_mode, |mode| mode.0),
            set_message_id: raw.set_message_id.clone(),
            set_correlation_id: raw.set_correlation_id.clone(),
            log_published_messages: raw.log_published_messages.unwrap_or(false),
            log_message_body: raw.log_message_body.unwrap_or(false),
            log_http_headers: raw.log_http_headers.clone(),
            log_http_post_request: raw.log_http_post_request.unwrap_or(false),
            log_maxtps_delay: raw.log_maxtps_delay.unwrap_or(false),
            log_subscription_expiration_days: raw.log_subscription_expiration,
            max_in_flight: raw.max_in_flight.unwrap_or(defaults.max_in_flight),
            dead_letter_queue: raw
                .dead_letter_queue
                .clone()
                .unwrap_or_else(|| defaults.dead_letter_queue.clone()),
            allow_callbacks: raw.allow_callbacks.clone(),
            subscriptions_per_user_max: raw
                .max_subscriptions_per_user
                .unwrap_or(defaults.subscriptions_per_user_max),
            subscriptions_per_host_max: raw
                .max_subscriptions_per_host
                .unwrap_or(defaults.subscriptions_per_host_max),
            verifications_per_minute_max: raw
                .max_verifications_per_minute
                .unwrap_or(defaults.verifications_per_minute_max),
            body_bytes_max: raw
                .max_body
                .map_or(defaults.body_bytes_max, |size| usize::try_from(size.0.0).unwrap_or(usize::MAX)),
            request_timeout: self.timeout(
                "timeout",
                raw.http_request_options.timeout,
                defaults.request_timeout,
            ),
            websub: raw.websub.as_ref().map(|websub| self.websub(websub, raw.public_url.as_deref())),
            ..defaults
        }
    }

    /// A time that is given in one of two units.
    fn either(
        &mut self,
        name: &str,
        milliseconds: Option<u64>,
        microseconds: Option<u64>,
    ) -> Option<Duration> {
        let (milliseconds, microseconds) =
            (milliseconds.map(Duration::from_millis), microseconds.map(Duration::from_micros));
        if let (Some(one), Some(other)) = (milliseconds, microseconds)
            && one != other
        {
            let key = format!("{name}_microseconds");
            let message = format!("`{name}_milliseconds` and `{key}` say different times");
            let fault = Fault::new(codes::CONFLICTING_KEYS, self.at(&key), message);
            self.faults.push(fault.remedy("keep one of them"));
        }
        milliseconds.or(microseconds)
    }

    fn timeout(&mut self, key: &str, given: Option<Time>, otherwise: Duration) -> Duration {
        let timeout = given.map_or(otherwise, |span| span.0);
        if timeout.is_zero() {
            let message = format!("`hub.http_request_options.{key}` is nothing");
            self.wrong("http_request_options", message, "give a delivery the time it needs, such as 30s");
        }
        timeout
    }

    fn final_statuses(&mut self, texts: &[String]) -> Statuses {
        let value = texts.iter().map(String::as_str).collect();
        params::final_statuses(&value).unwrap_or_else(|fault| {
            let message = fault.to_string().replacen("Bad hub.final_statuses", "`hub.final_statuses`", 1);
            self.wrong(
                "final_statuses",
                message,
                "write statuses from 300 to 599, such as `[400, 422]` or `4xx`",
            );
            Statuses::default()
        })
    }

    fn allow(&mut self, entries: &[String]) {
        for entry in entries {
            if let Some(why) = Allowed::fault(entry) {
                let message = format!("`{entry}` under `hub.allow_callbacks` {why}");
                let remedy =
                    "write a host, an address, a network such as 10.1.0.0/16, or the beginning of a URL";
                self.wrong("allow_callbacks", message, remedy);
            }
        }
    }

    fn base_url(&mut self, url: &str) {
        let good = Url::parse(url).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
        });
        if !good {
            self.wrong(
                "public_url",
                "`hub.public_url` is no http or https URL".to_owned(),
                "write it as https://hub.example",
            );
        }
    }

    fn client(&mut self, raw: &RawHub) -> ClientConfig {
        let mut client = raw.http_client_options.clone();
        if let Some(connect) = raw.http_request_options.connect_timeout {
            if client.connect_timeout.is_some_and(|other| other != connect) {
                let message = "`connect_timeout` is given twice, and differs";
                let fault = Fault::new(codes::CONFLICTING_KEYS, self.at("http_request_options"), message);
                self.faults.push(fault.remedy("keep one of them"));
            }
            self.timeout("connect_timeout", Some(connect), connect.0);
            client.connect_timeout = Some(connect);
        }
        if let Err(failure) = warren_connectors::http::callbacks(&client, &raw.http_client_options_for) {
            let key = if raw.http_client_options_for.is_empty() {
                "http_client_options"
            } else {
                "http_client_options_for"
            };
            let remedy = failure.remedy.clone().unwrap_or_else(|| "correct it".to_owned());
            self.faults.push(Fault::new(failure.code, self.at(key), failure.to_string()).remedy(remedy));
        }
        client
    }

    fn websub(&mut self, raw: &RawWebsub, public_url: Option<&str>) -> WebsubSettings {
        for url in &raw.topics {
            self.topics("topics", url);
        }
        for redirect in &raw.redirects {
            self.topics("redirects", &redirect.topics);
            if callback::parsed(&redirect.hub).is_err() {
                let message = format!("`{}` under `hub.websub.redirects` is no URL of a hub", redirect.hub);
                self.wrong("websub", message, "write it as https://other.example/hub");
            } else if public_url
                .is_some_and(|base| redirect.hub == format!("{}/hub", base.trim_end_matches('/')))
            {
                let message =
                    format!("`hub.websub.redirects` sends `{}` to this hub itself", redirect.topics);
                self.wrong("websub", message, "name another hub, or put them under `hub.websub.topics`");
            }
        }
        let vhost = |vhost: &Option<String>| vhost.clone().unwrap_or_else(|| DEFAULT_VHOST.to_owned());
        WebsubSettings {
            topics: raw.topics.clone(),
            exchanges: raw.exchanges.iter().map(|entry| (vhost(&entry.vhost), entry.name.clone())).collect(),
            redirects: raw.redirects.iter().map(redirect).collect(),
            vhost: vhost(&raw.vhost),
        }
    }

    /// The prefix of the URLs of topics.
    fn topics(&mut self, key: &str, url: &str) {
        if let Some(why) = Allowed::prefix_fault(url) {
            let message = format!("`{url}` under `hub.websub.{key}` {why}");
            self.wrong("websub", message, "write it as https://feeds.example/");
        }
    }
}

fn redirect(raw: &RawTopicRedirect) -> TopicRedirect {
    TopicRedirect { topics: raw.topics.clone(), hub: raw.hub.clone(), permanent: raw.permanent }
}

fn hidden(secret: &Secret) -> Hidden {
    Hidden(secret.reveal().to_owned())
}

fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
