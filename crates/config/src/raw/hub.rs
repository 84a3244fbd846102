//! The hub as written: RabbitHub's settings under their own names, and Warren's.

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

/// HTTP access to the exchanges and queues of a broker: publishing, subscriptions whose messages are posted
/// to callbacks, and a W3C WebSub hub; see [docs/hub.md](hub.md). Every setting of RabbitHub has a key here,
/// with RabbitHub's name and meaning.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "Hub")]
pub struct RawHub {
    /// The broker: a name under `brokers`, of the type `rabbitmq` or `embedded`. Request paths name the
    /// virtual host, so the broker's user needs permissions in every virtual host that is used. The virtual
    /// host in the broker's `url` does not matter.
    pub broker: String,
    /// `rabbithub`: where RabbitHub and Warren differ, the hub behaves like RabbitHub, and failed deliveries
    /// are handled as RabbitHub documents ([migration](migration-rabbithub.md)). Default: Warren's own
    /// behaviour: a message that cannot be delivered is retried and then dead-lettered, and its subscription
    /// stays.
    pub compat: Option<RawCompat>,
    /// The URL at which clients reach the hub, such as `https://hub.example`. Default: taken from the `Host`
    /// of each request. The hub sends this URL to subscribers, so set it behind a proxy.
    #[schemars(extend("x-public" = true))]
    pub public_url: Option<String>,
    /// The hub's users. Required with the embedded broker, which has no users. Default: the users of
    /// RabbitMQ, for which the broker needs a `management_url` with the login of an administrator.
    pub users: Option<BTreeMap<String, UserConfig>>,
    /// The destinations that callbacks may have in addition to public addresses: hosts, addresses, networks
    /// (`10.1.0.0/16`) and URL prefixes (`http://intern.example:8080/hooks/`). Default: none, so a subscriber
    /// cannot make the hub call servers that only the hub can reach.
    #[serde(default)]
    pub allow_callbacks: Vec<String>,
    /// The maximum number of concurrent requests to one callback. A subscription may ask for another number.
    /// Default: 10, with `compat: rabbithub` 1. Only 1 keeps the order of the queue.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<u16>,
    /// The queue for dead letters, in the virtual host that they came from. It is declared when it is needed.
    /// Default: `warren.hub.dead`. With `compat: rabbithub` it is used for WebSub only: every other rejected
    /// message goes where its queue's own settings say.
    pub dead_letter_queue: Option<String>,
    /// The answers of a receiver after which a message is dead-lettered at once instead of being retried:
    /// statuses, classes and ranges, such as `[400, 422]` or `4xx`. A subscription can have its own list.
    /// Default: none, so every answer except 2xx is retried. 410 ends the subscription in any case. With
    /// `compat: rabbithub` the list applies to WebSub only.
    #[serde(default)]
    pub final_statuses: Statuses,
    /// The maximum size of a request body; a larger one is answered with 413. Default: `1MiB`.
    pub max_body: Option<Size>,
    /// The maximum number of active subscriptions of one user. All subscribers without a login count as one
    /// user. Beyond the limit a subscription is refused with 403. Subscriptions that an administrator imports
    /// or activates are always accepted. Default: 10000, far above any observed need, and low enough that one
    /// login cannot fill the disk with subscriptions or the broker with queues.
    #[schemars(range(min = 1))]
    pub max_subscriptions_per_user: Option<u32>,
    /// The maximum number of active subscriptions to one callback host, of all users together. A user with
    /// less than a hundredth of this number is always accepted. Default: 10000.
    #[schemars(range(min = 1))]
    pub max_subscriptions_per_host: Option<u32>,
    /// The maximum number of requests per minute to one host that verify callbacks or deny subscriptions, for
    /// all users together. Beyond the limit, a client that waits for the result is refused with 429 and
    /// `Retry-After`; with asynchronous verification the request is sent later. A user with less than a
    /// hundredth of this number is not refused. Default: 6000, which is 100 per second. If the number is too
    /// high, clients can use the hub to overload a host.
    #[schemars(range(min = 1))]
    pub max_verifications_per_minute: Option<u32>,
    /// The W3C WebSub hub at `/hub`. Default: off.
    pub websub: Option<RawWebsub>,

    /// The address to listen on. `http.listen` has the same meaning; use it in new configurations.
    pub listener: Option<RawHubListener>,
    /// The user of requests without a login, **which then need no password**. Default: none: such requests
    /// are refused.
    pub default_username: Option<String>,
    /// The scheme in `Location` if `public_url` is not set. Default: `http`; with `http.tls`: `https`.
    pub canonical_scheme: Option<String>,
    /// The host in `Location` for a request without a `Host`, if `public_url` is not set. Default:
    /// `localhost`.
    pub canonical_host: Option<String>,
    /// No effect: the style sheet of descriptions is at `/static/`. The key is accepted so that a RabbitHub
    /// configuration can be reused.
    pub canonical_basepath: Option<String>,
    /// The key of verification tokens. Hubs that accept each other's tokens need the same key. Default: a key
    /// is generated and stored in the state folder.
    pub instance_key: Option<Secret>,
    /// How long a verification token is valid, in seconds. Default: 300.
    #[schemars(range(min = 1, max = 31_536_000))]
    pub signed_term_max_age_seconds: Option<u64>,
    /// How the hub connects to callbacks.
    #[serde(default)]
    pub http_client_options: ClientConfig,
    /// Other client settings for some callbacks, selected by the prefix of their URL: for example a proxy or
    /// a client certificate.
    #[serde(default)]
    pub http_client_options_for: Vec<ClientFor>,
    /// The timeouts of a delivery.
    #[serde(default)]
    pub http_request_options: RawRequestOptions,
    /// Whether `hub.topic=…` is appended to a callback's URL. Default: true.
    pub append_hub_topic_to_callback: Option<bool>,
    /// Whether the hub verifies with the callback that it is to be unsubscribed. Default: true. Then a
    /// subscriber that is down cannot be unsubscribed by `POST`, only removed by `DELETE`.
    pub validate_callback_on_unsubscribe: Option<bool>,
    /// The lease of a subscription that requests none, in seconds. Default: 2592000, which is 30 days.
    #[schemars(range(min = 1, max = 31_536_000_000_u64))]
    pub default_lease_seconds: Option<u64>,
    /// No effect: a subscription to an exchange always binds a durable queue. RabbitHub's default, `true`,
    /// loses messages.
    pub use_internal_queue_for_pseudo_queue: Option<bool>,
    /// Whether a message whose delivery failed stays in its queue. Applies with `compat: rabbithub`. Default:
    /// true. **With false it is rejected: it is lost unless the queue has a dead-letter exchange.** A message
    /// whose receiver cannot be reached stays in any case.
    pub requeue_on_http_post_error: Option<bool>,
    /// Whether a failed delivery ends the subscription. Applies with `compat: rabbithub`. Default: true.
    pub unsubscribe_on_http_post_error: Option<bool>,
    /// The maximum number of errors within `unsubscribe_on_http_post_error_timeout_milliseconds`. One more
    /// error ends the subscription, whatever `unsubscribe_on_http_post_error` says. Applies with
    /// `compat: rabbithub`, and only if that time is set too. Default: no limit.
    pub unsubscribe_on_http_post_error_limit: Option<u64>,
    /// The time window in which errors are counted, in milliseconds. It starts with the first error.
    pub unsubscribe_on_http_post_error_timeout_milliseconds: Option<u64>,
    /// The same time window in microseconds. RabbitHub's documentation has this name, but its program did not
    /// read it.
    pub unsubscribe_on_http_post_error_timeout_microseconds: Option<u64>,
    /// The pause before a lost consumer is opened again, in milliseconds. Default: the engine's backoff, from
    /// 1 s up.
    pub wait_for_consumer_restart_milliseconds: Option<u64>,
    /// The same pause in microseconds.
    pub wait_for_consumer_restart_microseconds: Option<u64>,
    /// The `ha_mode` of subscriptions that name none: `none`, `all` or a number. It is stored and shown. One
    /// process delivers, and another takes over when it ends. Default: `none`.
    pub ha_mode: Option<RawHaMode>,
    /// No effect: consumers are identified by the connection's name, which contains the broker's name. The
    /// key is accepted so that a RabbitHub configuration can be reused.
    pub include_servername_in_consumer_tag: Option<bool>,
    /// The name of the header that returns the generated message id to a publisher, and that carries the
    /// message id to a subscriber. Default: none.
    pub set_message_id: Option<String>,
    /// The name of the header that carries the correlation id, in both directions. Default: none.
    pub set_correlation_id: Option<String>,
    /// Whether each publish is logged. Default: false.
    pub log_published_messages: Option<bool>,
    /// Whether the log line of a publish contains the body. Default: false.
    pub log_message_body: Option<bool>,
    /// The request headers that the log line of a publish contains; headers with secrets are masked. Default:
    /// none.
    #[serde(default)]
    pub log_http_headers: Vec<String>,
    /// Whether each delivery is logged, without its secrets. Default: false.
    pub log_http_post_request: Option<bool>,
    /// Whether each pause because of `max_tps` is logged. Default: false.
    pub log_maxtps_delay: Option<bool>,
    /// If the lease of a subscription ends within this number of days, its deliveries are logged as warnings.
    /// Default: never.
    pub log_subscription_expiration: Option<u32>,
}

/// The hub whose behaviour applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "HubCompat")]
pub enum RawCompat {
    /// The behaviour of RabbitHub.
    Rabbithub,
}

/// The address to listen on, as in RabbitHub.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "HubListener")]
pub struct RawHubListener {
    /// The address. Default: `0.0.0.0`, all addresses of this machine, as in RabbitHub.
    #[schemars(extend("x-public" = true))]
    pub ip: Option<String>,
    /// The port. Default: 15670.
    pub port: Option<u16>,
}

/// The timeouts of a delivery.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "HubRequestOptions")]
pub struct RawRequestOptions {
    /// The maximum duration of a delivery, from connecting to the end of the answer. Default: `30s`.
    /// RabbitHub had no limit. A callback that takes longer receives the message again.
    pub timeout: Option<Span>,
    /// The maximum time for connecting. Default: `5s`.
    pub connect_timeout: Option<Span>,
}

/// The W3C WebSub hub. It accepts subscriptions without a login, so this section lists the topics that are
/// open to them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "Websub")]
pub struct RawWebsub {
    /// External topics: clients may subscribe to URLs that begin with one of these prefixes. The hub fetches
    /// such a URL when its publisher pings. Default: none.
    pub topics: Vec<String>,
    /// Exchanges that clients may subscribe to without a login, by the URL of their topics. Default: none.
    pub exchanges: Vec<RawTopicExchange>,
    /// Topics of another hub. A client that asks for one here is redirected to that hub. Default: none. A
    /// subscription that already exists here stays until the end of its lease, and can be ended here.
    pub redirects: Vec<RawTopicRedirect>,
    /// The virtual host for the exchange and the queues of external topics. Default: `/`.
    pub vhost: Option<String>,
}

/// An exchange that clients may subscribe to without a login.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "TopicExchange")]
pub struct RawTopicExchange {
    /// The virtual host. Default: `/`.
    pub vhost: Option<String>,
    /// The name of the exchange.
    pub name: String,
}

/// Topics of another hub.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[schemars(rename = "TopicRedirect")]
pub struct RawTopicRedirect {
    /// The prefix of the topics' URLs.
    pub topics: String,
    /// The URL of the other hub, such as `https://other.example/hub`.
    pub hub: String,
    /// Whether the redirect is permanent: requests are answered with 308 instead of 307, and clients may
    /// store it. Default: false.
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
