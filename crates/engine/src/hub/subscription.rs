//! A subscription: which callback hears of which messages, until when, and how that goes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::resource::Resource;
use crate::failure::FailureName;
use crate::message::Headers;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

/// What tells one subscription from another, byte for byte. Two topics on one queue are two subscriptions that compete for its
/// messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionKey {
    /// What is subscribed to.
    pub resource: Resource,
    /// The binding key of an exchange, a label of a queue, the URL of a WebSub topic.
    pub topic: String,
    /// Where messages are posted, as it was given.
    pub callback: String,
}

/// A short name of a subscription for records, metrics and leases: 32 hexadecimal digits made of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u128);

/// A subscription, with what became of it so far. This is also how it is written down, but for its secrets, which have no written form:
/// whoever stores it seals them apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Who it is.
    pub key: SubscriptionKey,
    /// By which protocol it came, and so how its requests look.
    pub protocol: Protocol,
    /// Whether it is delivered to.
    pub state: SubscriptionState,
    /// The lease, in seconds, as granted.
    pub lease_seconds: u64,
    /// When the lease ends, in milliseconds since the epoch.
    pub expires_at_ms: i64,
    /// Requests a second over all consumers; 0: as many as go.
    #[serde(default)]
    pub max_tps: u32,
    /// Requests at once; `None`: what the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u16>,
    /// The answers after which a message is dead-lettered at once; `None`: what the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_statuses: Option<Statuses>,
    /// RabbitHub's `ha_mode`, kept for exports. One process delivers, whatever it says.
    pub ha_mode: HaMode,
    /// What stands behind `Basic ` in `Authorization` of each request to the callback.
    #[serde(skip)]
    pub basic_auth: Option<Hidden>,
    /// The key of signatures.
    #[serde(skip)]
    pub secret: Option<Hidden>,
    /// How deliveries are signed when there is a secret.
    pub signing: Signing,
    /// Whom to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The arguments of the binding, for a headers exchange.
    #[serde(default, skip_serializing_if = "Headers::is_empty")]
    pub arguments: Headers,
    /// The queue of ours that is bound to the exchange subscribed to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pseudo_queue: Option<String>,
    /// The user who made it, where somebody logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When it was made, in milliseconds since the epoch.
    pub created_at_ms: i64,
    /// When the callback last agreed, in milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at_ms: Option<i64>,
    /// What went wrong with deliveries.
    #[serde(default)]
    pub errors: DeliveryErrors,
}

/// By which protocol a subscription came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RabbitHub's routes, or our own API: `hub.topic` is a routing key.
    Rabbithub,
    /// The W3C WebSub hub: `hub.topic` is a URL, deliveries carry `Link`.
    Websub,
}

/// Whether a subscription is delivered to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// It is.
    Active,
    /// It is not, until somebody subscribes again.
    Inactive(WhyInactive),
}

/// Why a subscription is not delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyInactive {
    /// The subscriber or an operator ended it.
    Unsubscribed,
    /// Its lease ended.
    Expired,
    /// Deliveries failed, and the settings say that this ends it.
    Failed,
    /// The callback answered 410.
    Gone,
    /// It was imported so.
    Imported,
}

/// RabbitHub's `ha_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HaMode {
    /// `none`
    None,
    /// `all`
    All,
    /// So many.
    Count(u32),
}

/// How deliveries are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signing {
    /// `X-Hub-Signature: sha1=…`
    Sha1,
    /// `X-Hub-Signature: sha256=…`
    Sha256,
    /// `X-Hub-Signature: sha384=…`
    Sha384,
    /// `X-Hub-Signature: sha512=…`
    Sha512,
    /// The headers of Standard Webhooks (<https://www.standardwebhooks.com>).
    Standard,
}

/// Whom to ask about a subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contact {
    /// The application; there is no contact without it.
    pub app_name: String,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_name: Option<String>,
    /// Where to call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Where to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What went wrong with deliveries since the subscription was made or renewed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryErrors {
    /// Errors in the present window (see `unsubscribe_on_http_post_error_limit`); without one, all of them.
    pub count: u64,
    /// When the window began, in milliseconds since the epoch.
    pub first_at_ms: i64,
    /// When the last one was, in milliseconds since the epoch.
    pub last_at_ms: i64,
    /// The kind of the last failure. `None` where an older version stored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_kind: Option<FailureName>,
    /// What it was.
    pub last_message: String,
}

impl SubscriptionKey {
    /// Its short name.
    pub fn id(&self) -> SubscriptionId {
        let mut text = Vec::new();
        let Resource { vhost, kind, name } = &self.resource;
        for part in [vhost.as_str(), kind.as_str(), name, &self.topic, &self.callback] {
            // The length in front: no two keys make the same bytes.
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        SubscriptionId(xxhash_rust::xxh3::xxh3_128(&text))
    }
}

impl Subscription {
    /// An active subscription that asks for nothing in particular, made now, with a lease that is over.
    pub fn new(key: SubscriptionKey, protocol: Protocol, now_ms: i64) -> Subscription {
        Subscription {
            key,
            protocol,
            state: SubscriptionState::Active,
            lease_seconds: 0,
            expires_at_ms: now_ms,
            max_tps: 0,
            max_in_flight: None,
            final_statuses: None,
            ha_mode: HaMode::None,
            basic_auth: None,
            secret: None,
            signing: Signing::Sha256,
            contact: None,
            arguments: Headers::default(),
            pseudo_queue: None,
            user: None,
            created_at_ms: now_ms,
            verified_at_ms: None,
            errors: DeliveryErrors::default(),
        }
    }

    /// Its short name.
    pub fn id(&self) -> SubscriptionId {
        self.key.id()
    }

    /// The queue its messages come from.
    pub fn queue(&self) -> &str {
        self.pseudo_queue.as_deref().unwrap_or(&self.key.resource.name)
    }

    /// Whether it is delivered to.
    pub fn is_active(&self) -> bool {
        self.state == SubscriptionState::Active
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
