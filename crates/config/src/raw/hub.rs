//! The hub as written: RabbitHub's settings under their own names, and ours.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use warren_connectors::http::config::{ClientConfig, ClientFor};
use warren_connectors::kit::setting::{Secret, Size, Span};
use warren_connectors::kit::users::UserConfig;
use warren_engine::hub::subscription::HaMode;

use super::expression::Statuses;

/// HTTP in front of the exchanges and queues of a broker: publishing, subscriptions whose messages are posted to callbacks, and a W3C
/// WebSub hub; see [docs/hub.md](hub.md). Every setting of RabbitHub has its key here, with RabbitHub's name and meaning.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Hub")]
pub struct RawHub {
    /// The broker: a name under `brokers`, of the type `rabbitmq` or `embedded`. Paths name the virtual host, so the broker's login
    /// must have rights in all that are used; which one its `url` names does not matter.
    pub broker: String,
    /// `rabbithub`: what RabbitHub decided otherwise is as it was there, and failed deliveries are treated as it documents
    /// ([migration](migration-rabbithub.md)). Default: Warren's own ways, in which a message that cannot be delivered is tried again, and
    /// then dead-lettered, and its subscription stays.
    pub compat: Option<RawCompat>,
    /// Where the hub is reached from outside, such as `https://hub.example`. Default: what each request's `Host` says. Subscribers are
    /// told by it, so set it where a proxy stands in front.
    #[schemars(extend("x-public" = true))]
    pub public_url: Option<String>,
    /// The hub's users. Needed with the embedded broker, which has none. Default: the users of RabbitMQ, for which the broker needs a
    /// `management_url` with the login of an administrator.
    pub users: Option<BTreeMap<String, UserConfig>>,
    /// Where callbacks may lead besides public addresses: hosts, addresses, networks (`10.1.0.0/16`) and beginnings of URLs
    /// (`http://intern.example:8080/hooks/`). Default: nowhere, so that a subscriber cannot make the hub call what only the hub can
    /// reach.
    #[serde(default)]
    pub allow_callbacks: Vec<String>,
    /// How many requests to one callback are under way at once; a subscription may ask for another number. Default: 10, with
    /// `compat: rabbithub` 1. Only 1 keeps the order of the queue.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<u16>,
    /// The queue for messages that are given up, in the virtual host they came from; it is made when it is needed. Default:
    /// `warren.hub.dead`. With `compat: rabbithub` only for WebSub: a message that RabbitHub rejected goes where its queue's own
    /// settings say.
    pub dead_letter_queue: Option<String>,
    /// The answers of a receiver after which a message is dead-lettered at once instead of being retried: statuses, classes and ranges, such as
    /// `[400, 422]` or `4xx`. A subscription can have its own. Default: none, so every answer but 2xx is retried; 410 ends the subscription in
    /// any case. With `compat: rabbithub` it applies to WebSub only.
    #[serde(default)]
    pub final_statuses: Statuses,
    /// The largest body of a request; a larger one is answered with 413. Default: `1MiB`.
    pub max_body: Option<Size>,
    /// How many active subscriptions one user may have; all who subscribe without a login count as one. One more is refused with 403.
    /// What an administrator imports or activates is taken in any case. Default: 10000, far above what anybody was seen to need and low
    /// enough that one login cannot fill the disk, or the broker with queues.
    #[schemars(range(min = 1))]
    pub max_subscriptions_per_user: Option<u32>,
    /// How many active subscriptions may lead to one host, whoever made them; a user with less than a hundredth of them is taken in any case.
    /// Default: 10000.
    #[schemars(range(min = 1))]
    pub max_subscriptions_per_host: Option<u32>,
    /// How often in a minute one host is asked whether its callbacks agree, or told that they will hear nothing. Whoever waits for the
    /// answer is refused with 429 and told when to come again; what is asked later waits. A user with less than a hundredth of them is not
    /// refused. Default: 6000, a hundred a second; too high a number lets others use the hub to trouble that host.
    #[schemars(range(min = 1))]
    pub max_verifications_per_minute: Option<u32>,
    /// The W3C WebSub hub at `/hub`. Default: off.
    pub websub: Option<RawWebsub>,

    /// Where to listen; `http.listen` says the same, and is the one to use in new configurations.
    pub listener: Option<RawHubListener>,
    /// The user of requests without a login, **who need no password then**. Default: none, such requests are refused.
    pub default_username: Option<String>,
    /// The scheme of `Location` where `public_url` is not set. Default: `http`, with `http.tls` `https`.
    pub canonical_scheme: Option<String>,
    /// The host of `Location` for a request without a `Host`, where `public_url` is not set. Default: `localhost`.
    pub canonical_host: Option<String>,
    /// Nothing: the style sheet of descriptions is at `/static/`. It is read so that a RabbitHub configuration can be taken over.
    pub canonical_basepath: Option<String>,
    /// The key of verification tokens; the same on all hubs that are to take each other's. Default: one is made and kept in the state.
    pub instance_key: Option<Secret>,
    /// How long a verification token is good for, in seconds. Default: 300.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub signed_term_max_age_seconds: Option<u64>,
    /// How callbacks are connected to.
    #[serde(default)]
    pub http_client_options: ClientConfig,
    /// The same for some callbacks, by the beginning of their URL: their proxy, our certificate for them.
    #[serde(default)]
    pub http_client_options_for: Vec<ClientFor>,
    /// How long a delivery may take.
    #[serde(default)]
    pub http_request_options: RawRequestOptions,
    /// Whether `hub.topic=…` is appended to a callback's URL. Default: true.
    pub append_hub_topic_to_callback: Option<bool>,
    /// Whether a callback is asked before it is unsubscribed. Default: true; then a subscriber that is down cannot be unsubscribed by
    /// `POST`, only removed by `DELETE`.
    pub validate_callback_on_unsubscribe: Option<bool>,
    /// The lease of a subscription that asks for none, in seconds. Default: 2592000, 30 days.
    #[schemars(range(min = 1, max = 31_536_000_000_u64))]
    pub default_lease_seconds: Option<u64>,
    /// `false`, and nothing else: subscribing to an exchange binds a durable queue. RabbitHub's default, `true`, loses messages.
    pub use_internal_queue_for_pseudo_queue: Option<bool>,
    /// Whether a message whose delivery failed stays in its queue; counts with `compat: rabbithub`. Default: true. **With false it is
    /// rejected: it is lost unless the queue has a dead-letter exchange.** One whose receiver could not be reached stays in any case.
    pub requeue_on_http_post_error: Option<bool>,
    /// Whether a failed delivery ends the subscription; counts with `compat: rabbithub`. Default: true.
    pub unsubscribe_on_http_post_error: Option<bool>,
    /// How many errors within the time below are borne; the next one ends the subscription, whatever `unsubscribe_on_http_post_error`
    /// says. Counts with `compat: rabbithub`, and together with that time only. Default: no limit.
    pub unsubscribe_on_http_post_error_limit: Option<u64>,
    /// The time in which errors are counted, from the first one, in milliseconds.
    pub unsubscribe_on_http_post_error_timeout_milliseconds: Option<u64>,
    /// The same in microseconds. RabbitHub's documentation has this name, and its program did not read it.
    pub unsubscribe_on_http_post_error_timeout_microseconds: Option<u64>,
    /// The pause before a consumer that was lost is opened again, in milliseconds. Default: as the engine waits, from 1 s up.
    pub wait_for_consumer_restart_milliseconds: Option<u64>,
    /// The same in microseconds.
    pub wait_for_consumer_restart_microseconds: Option<u64>,
    /// The `ha_mode` of subscriptions that name none: `none`, `all` or a number. It is kept and shown; one process delivers, and another
    /// takes over when it ends. Default: `none`.
    pub ha_mode: Option<RawHaMode>,
    /// Nothing: consumers are known by the connection's name, which has the broker's name in it. It is read so that a RabbitHub
    /// configuration can be taken over.
    pub include_servername_in_consumer_tag: Option<bool>,
    /// The name of the header in which a publisher is told the id made for its message, and a subscriber gets it. Default: none.
    pub set_message_id: Option<String>,
    /// The name of the header that carries the correlation id, both ways. Default: none.
    pub set_correlation_id: Option<String>,
    /// Whether each publish is logged. Default: false.
    pub log_published_messages: Option<bool>,
    /// Whether the body stands in that line. Default: false.
    pub log_message_body: Option<bool>,
    /// Which headers of the request stand in that line; those that hold secrets are covered. Default: none.
    #[serde(default)]
    pub log_http_headers: Vec<String>,
    /// Whether each delivery is logged, without what is secret in it. Default: false.
    pub log_http_post_request: Option<bool>,
    /// Whether each pause for `max_tps` is logged. Default: false.
    pub log_maxtps_delay: Option<bool>,
    /// Deliveries to subscriptions whose lease ends within so many days are logged as warnings. Default: never.
    pub log_subscription_expiration: Option<u32>,
}

/// What to behave like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HubCompat")]
pub enum RawCompat {
    /// RabbitHub.
    Rabbithub,
}

/// RabbitHub's listener.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "HubListener")]
pub struct RawHubListener {
    /// The address. Default: `0.0.0.0`, all of this machine, as RabbitHub had it.
    #[schemars(extend("x-public" = true))]
    pub ip: Option<String>,
    /// The port. Default: 15670.
    pub port: Option<u16>,
}

/// How long a delivery may take.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "HubRequestOptions")]
pub struct RawRequestOptions {
    /// How long a delivery may take, from connecting to the end of the answer. Default: `30s`. RabbitHub had no limit; a callback that
    /// takes longer hears the message again.
    pub timeout: Option<Span>,
    /// How long connecting may take. Default: `5s`.
    pub connect_timeout: Option<Span>,
}

/// The W3C WebSub hub. It takes subscriptions without a login, so it says what may be followed.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Websub")]
pub struct RawWebsub {
    /// Topics elsewhere: URLs that begin with one of these may be followed, and are fetched when their publisher pings. Default: none.
    pub topics: Vec<String>,
    /// Exchanges that may be followed without a login, by the URL of their topics. Default: none.
    pub exchanges: Vec<RawTopicExchange>,
    /// Topics that another hub has: who asks for one here is sent there. Default: none. A subscription that is here already stays to the end
    /// of its lease, and can be ended here.
    pub redirects: Vec<RawTopicRedirect>,
    /// The virtual host for the exchange and the queues of topics elsewhere. Default: `/`.
    pub vhost: Option<String>,
}

/// An exchange that may be followed.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "TopicExchange")]
pub struct RawTopicExchange {
    /// The virtual host. Default: `/`.
    pub vhost: Option<String>,
    /// Its name.
    pub name: String,
}

/// Topics that another hub has.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "TopicRedirect")]
pub struct RawTopicRedirect {
    /// The beginning of the topics' URLs.
    pub topics: String,
    /// The URL of the other hub, such as `https://other.example/hub`.
    pub hub: String,
    /// Whether it is for good: requests are answered with 308 instead of 307, and clients may remember it. Default: false.
    #[serde(default)]
    pub permanent: bool,
}

/// `none`, `all` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHaMode(pub HaMode);

struct HaModeVisitor;

impl Visitor<'_> for HaModeVisitor {
    type Value = RawHaMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`none`, `all` or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<RawHaMode, E> {
        match text {
            "none" => Ok(RawHaMode(HaMode::None)),
            "all" => Ok(RawHaMode(HaMode::All)),
            number => match number.parse() {
                Ok(count) => Ok(RawHaMode(HaMode::Count(count))),
                Err(_) => Err(E::custom("`ha_mode` takes `none`, `all` or a number")),
            },
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<RawHaMode, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<RawHaMode, E> {
        self.visit_str(&number.to_string())
    }
}

impl<'de> Deserialize<'de> for RawHaMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HaModeVisitor)
    }
}

impl JsonSchema for RawHaMode {
    fn schema_name() -> Cow<'static, str> {
        "HaMode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            {"enum": ["none", "all"]},
            {"type": "integer", "minimum": 0},
        ] })
    }
}
