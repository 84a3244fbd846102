//! What somebody asks of a subscription, read and not yet judged; and what may be wrong with it.

use super::subscription::{Contact, HaMode, Protocol, Signing, SubscriptionKey, SubscriptionState};
use crate::failure::Failure;
use crate::message::Headers;
use crate::pipeline::outside::Hidden;
use crate::statuses::Statuses;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// To be told, or told on.
    Subscribe,
    /// To be told no more.
    Unsubscribe,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Subscribe => "subscribe",
            Mode::Unsubscribe => "unsubscribe",
        }
    }
}

/// When the callback is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Before the request is answered.
    Sync,
    /// After it, and again for up to six hours.
    Async,
}

/// A request to subscribe or to unsubscribe. The one who asks may read the resource; that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct SubscribeRequest {
    /// Which subscription.
    pub key: SubscriptionKey,
    /// By which protocol it came.
    pub protocol: Protocol,
    /// What is asked.
    pub mode: Mode,
    /// When the callback is asked.
    pub verify: Verify,
    /// What the subscriber wants to hear back in the verification.
    pub verify_token: Option<String>,
    /// The lease that is asked for, in seconds; more than 0.
    pub lease_seconds: Option<u64>,
    /// Requests a second; 0: as many as go.
    pub max_tps: u32,
    /// Requests at once.
    pub max_in_flight: Option<u16>,
    /// The answers after which a message is dead-lettered at once; `None`: what the settings say.
    pub final_statuses: Option<Statuses>,
    /// RabbitHub's `ha_mode`; `None`: that of the settings.
    pub ha_mode: Option<HaMode>,
    /// What stands behind `Basic `.
    pub basic_auth: Option<Hidden>,
    /// The key of signatures.
    pub secret: Option<Hidden>,
    /// How deliveries are signed.
    pub signing: Signing,
    /// Whom to ask.
    pub contact: Option<Contact>,
    /// The arguments of the binding.
    pub arguments: Headers,
    /// Who asks, where somebody logged in.
    pub user: Option<String>,
}

/// An entry of a batch import.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportEntry {
    /// The subscription as if somebody subscribed; mode and verify do not count.
    pub request: SubscribeRequest,
    /// The state it is to have: active ones are verified first.
    pub state: SubscriptionState,
}

/// What an operator changes of a subscription. `None`: it stays as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// Whether it is delivered to.
    pub state: Option<SubscriptionState>,
    /// How deliveries are signed.
    pub signing: Option<Signing>,
    /// The key of signatures; `Some(None)`: none.
    pub secret: Option<Option<Hidden>>,
    /// The answers after which a message is dead-lettered at once; `Some(None)`: what the settings say.
    pub final_statuses: Option<Option<Statuses>>,
}

impl Change {
    /// A change of the state alone.
    pub fn state(state: SubscriptionState) -> Change {
        Change { state: Some(state), ..Change::default() }
    }
}

/// How a request ended that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It is done.
    Done,
    /// The callback is asked later.
    Later,
}

/// Why a request was not granted.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The queue or exchange is not there.
    NoSuchResource,
    /// There is no such subscription.
    NoSuchSubscription,
    /// The callback is no URL that may be called: why.
    BadCallback(String),
    /// A parameter has a value that it does not take: which, and what it takes.
    BadParameter(&'static str, String),
    /// The callback did not agree.
    NotVerified(NotVerified),
    /// Something of ours or of the broker's failed.
    Failed(Failure),
}

/// Why a callback counts as not having agreed.
#[derive(Debug, Clone)]
pub enum NotVerified {
    /// It answered 2xx with something else than the challenge.
    ChallengeMismatch,
    /// It answered with this status.
    Status(u16),
    /// No answer came.
    Unreachable(Failure),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NoSuchResource => f.write_str("the queue or exchange is not there"),
            Refusal::NoSuchSubscription => f.write_str("there is no such subscription"),
            Refusal::BadCallback(why) => write!(f, "the callback will not do: {why}"),
            Refusal::BadParameter(name, rule) => write!(f, "{name}: {rule}"),
            Refusal::NotVerified(why) => write!(f, "the callback did not agree: {why}"),
            Refusal::Failed(failure) => write!(f, "{failure}"),
        }
    }
}
