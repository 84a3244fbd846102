//! What the operator of a hub decides: RabbitHub's settings under their own names, and ours.

use std::time::Duration;

use super::subscription::HaMode;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

/// The longest lease in compatibility mode: 1,000 years.
pub const LEASE_SECONDS_MAX_COMPAT: u64 = 31_536_000_000;
/// The lease of RabbitHub's routes when none is asked: 30 days.
pub const LEASE_SECONDS: u64 = 2_592_000;
/// The lease of a WebSub subscription when none is asked: 10 days.
pub const WEBSUB_LEASE_SECONDS: u64 = 864_000;
/// The longest lease of a WebSub subscription: a year.
pub const WEBSUB_LEASE_SECONDS_MAX: u64 = 31_536_000;
/// Where messages go that are given up, unless the settings say otherwise.
pub const DEAD_LETTER_QUEUE: &str = "warren.hub.dead";
/// Active subscriptions of one user, and to one host, unless the settings say otherwise.
pub const SUBSCRIPTIONS_MAX: u32 = 10_000;
/// Questions to one host in a minute, unless the settings say otherwise: a hundred a second.
pub const VERIFICATIONS_PER_MINUTE_MAX: u32 = 6_000;
/// The largest request body, unless the settings say otherwise.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The target of what the settings ask to be logged (`log_…`): it is logged, whatever else is.
pub const LOG_TARGET: &str = "hub_log";

/// The settings of a hub.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Whether it behaves as RabbitHub did where that was a decision (rows marked Q), and in what becomes of failed deliveries.
    pub compat: bool,
    /// Where the hub is reached from outside, such as `https://hub.example`; `None`: what the request's `Host` says.
    pub public_url: Option<String>,
    /// The user of requests that name none. RabbitHub's `default_username`.
    pub default_username: Option<String>,
    /// Scheme of `Location`.
    pub canonical_scheme: Option<String>,
    /// Host of `Location` for a request without one.
    pub canonical_host: Option<String>,
    /// The key of tokens; `None`: one made once and kept in the state.
    pub instance_key: Option<Hidden>,
    /// How long a token is good for.
    pub signed_term_max_age: Duration,
    /// Whether `hub.topic` is appended to a callback.
    pub append_hub_topic_to_callback: bool,
    /// Whether a callback is asked before it is unsubscribed.
    pub validate_callback_on_unsubscribe: bool,
    /// The lease when none or a bad one is asked, in seconds.
    pub default_lease_seconds: u64,
    /// Whether a message whose delivery failed stays in its queue (compatibility mode).
    pub requeue_on_http_post_error: bool,
    /// Whether a failed delivery ends the subscription (compatibility mode).
    pub unsubscribe_on_http_post_error: bool,
    /// So many errors are borne within the window below (compatibility mode; both or none).
    pub unsubscribe_on_http_post_error_limit: Option<u64>,
    /// The window in which errors count.
    pub unsubscribe_on_http_post_error_timeout: Option<Duration>,
    /// The pause before a consumer that was lost is opened again.
    pub wait_for_consumer_restart: Option<Duration>,
    /// The `ha_mode` of those who say none. Kept and answered; one process delivers.
    pub ha_mode: HaMode,
    /// The header in which a publisher is told the id made for its message, and a subscriber gets it.
    pub set_message_id: Option<String>,
    /// The header that carries the correlation id, both ways.
    pub set_correlation_id: Option<String>,
    /// Whether each publish is logged.
    pub log_published_messages: bool,
    /// Whether the body stands in that line.
    pub log_message_body: bool,
    /// Which request headers stand in that line. Those that hold secrets are shown as `***`.
    pub log_http_headers: Vec<String>,
    /// Whether each delivery is logged, without its secrets.
    pub log_http_post_request: bool,
    /// Whether each pause for `max_tps` is logged.
    pub log_maxtps_delay: bool,
    /// Deliveries to subscriptions whose lease ends within so many days are logged as warnings.
    pub log_subscription_expiration_days: Option<u32>,
    /// Requests to one callback at once, unless the subscription says otherwise. 1 keeps the queue's order.
    pub max_in_flight: u16,
    /// Where messages go that are given up, in the virtual host they came from. In compatibility mode only WebSub's: RabbitHub rejected
    /// them, and the queue's own settings decided.
    pub dead_letter_queue: String,
    /// The answers after which a message is dead-lettered at once instead of being retried, unless the subscription has its own. 410 is one
    /// of them in any case. Compatibility mode has RabbitHub's table instead, for all but WebSub.
    pub final_statuses: Statuses,
    /// Which addresses callbacks and topics may lead to besides public ones: hosts, networks in CIDR form, URL prefixes.
    pub allow_callbacks: Vec<String>,
    /// So many active subscriptions one user may have; all who did not log in count as one.
    pub subscriptions_per_user_max: u32,
    /// So many active subscriptions may lead to one host.
    pub subscriptions_per_host_max: u32,
    /// So many times a minute one host is asked whether it agrees.
    pub verifications_per_minute_max: u32,
    /// The largest request body, in bytes.
    pub body_bytes_max: usize,
    /// The deadline of one delivery.
    pub request_timeout: Duration,
    /// What `/hub` serves; `None`: it is off.
    pub websub: Option<WebsubSettings>,
}

/// What the WebSub hub serves.
#[derive(Debug, Clone, Default)]
pub struct WebsubSettings {
    /// URLs of foreign topics begin with one of these.
    pub topics: Vec<String>,
    /// Exchanges that may be followed without a login, as vhost and name.
    pub exchanges: Vec<(String, String)>,
    /// Topics that another hub has.
    pub redirects: Vec<TopicRedirect>,
    /// The vhost that holds the exchange and the queues of foreign topics.
    pub vhost: String,
}

/// Topics that another hub has: who asks for them here is sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRedirect {
    /// URLs of the topics begin so.
    pub topics: String,
    /// The URL of the other hub.
    pub hub: String,
    /// Whether it is for good.
    pub permanent: bool,
}

impl HubSettings {
    /// The settings of a hub of which nothing is said; in compatibility mode as RabbitHub had them.
    pub fn new(compat: bool) -> HubSettings {
        HubSettings {
            compat,
            public_url: None,
            default_username: None,
            canonical_scheme: None,
            canonical_host: None,
            instance_key: None,
            signed_term_max_age: Duration::from_secs(300),
            append_hub_topic_to_callback: true,
            validate_callback_on_unsubscribe: true,
            default_lease_seconds: LEASE_SECONDS,
            requeue_on_http_post_error: true,
            unsubscribe_on_http_post_error: true,
            unsubscribe_on_http_post_error_limit: None,
            unsubscribe_on_http_post_error_timeout: None,
            wait_for_consumer_restart: None,
            ha_mode: HaMode::None,
            set_message_id: None,
            set_correlation_id: None,
            log_published_messages: false,
            log_message_body: false,
            log_http_headers: Vec::new(),
            log_http_post_request: false,
            log_maxtps_delay: false,
            log_subscription_expiration_days: None,
            max_in_flight: if compat { 1 } else { 10 },
            dead_letter_queue: DEAD_LETTER_QUEUE.to_owned(),
            final_statuses: Statuses::default(),
            allow_callbacks: Vec::new(),
            subscriptions_per_user_max: SUBSCRIPTIONS_MAX,
            subscriptions_per_host_max: SUBSCRIPTIONS_MAX,
            verifications_per_minute_max: VERIFICATIONS_PER_MINUTE_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            request_timeout: Duration::from_secs(30),
            websub: None,
        }
    }

    /// The URL of the WebSub hub, where it is known.
    pub fn hub_url(&self) -> Option<String> {
        self.public_url.as_deref().map(|base| format!("{}/hub", base.trim_end_matches('/')))
    }
}
