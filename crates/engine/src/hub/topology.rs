//! The queue of a subscription: the one it names, or one of ours bound to the exchange it names.

use serde::{Deserialize, Serialize};

use super::ports::{Estate, HubBinding};
use super::resource::{Resource, ResourceKind};
use super::settings::HubSettings;
use super::subscription::{Protocol, Subscription, SubscriptionId, SubscriptionState, WhyInactive};
use super::websub;
use crate::failure::Failure;

/// What stands before a subscription's short name in the name of its queue.
pub const QUEUE_PREFIX: &str = "warren.hub.";

/// The name of the queue that a subscription to an exchange has.
pub fn queue_name(id: SubscriptionId) -> String {
    format!("{QUEUE_PREFIX}{id}")
}

/// The binding that leads messages into the queue of a subscription to an exchange.
pub fn binding(subscription: &Subscription) -> Option<HubBinding> {
    let Subscription { key, pseudo_queue, .. } = subscription;
    let routing_key = match subscription.protocol {
        Protocol::Rabbithub => key.topic.clone(),
        Protocol::Websub => websub::binding_key(key),
    };
    Some(HubBinding {
        vhost: key.resource.vhost.clone(),
        exchange: key.resource.name.clone(),
        queue: pseudo_queue.clone()?,
        routing_key,
        arguments: subscription.arguments.clone(),
    })
}

/// Makes and binds the queue of a subscription to an exchange, unless it is there and bound. A queue that somebody else made is left to
/// them.
///
/// # Errors
/// [`NotFound`](crate::failure::FailureKind::NotFound): the exchange is not there. It may not be made, or the broker cannot be
/// reached.
pub async fn prepare(estate: &dyn Estate, subscription: &Subscription) -> Result<(), Failure> {
    let Some(binding) = binding(subscription) else { return Ok(()) };
    if binding.exchange == websub::EXCHANGE && subscription.protocol == Protocol::Websub {
        estate.create_exchange(&binding.vhost, websub::EXCHANGE, "topic").await?;
    }
    estate.create_queue(&binding.vhost, &binding.queue).await?;
    estate.bind(&binding).await
}

/// What becomes of the queue of ours when its subscription is not delivered to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// It stays bound, and keeps what comes.
    Bound,
    /// It keeps what it has; nothing comes any more.
    Unbound,
    /// It goes, with what it holds.
    Deleted,
}

/// What becomes of the queue of a subscription in that state.
///
/// A lease that ran out or a receiver that failed loses nothing: whoever subscribes again has what came meanwhile. One who said that
/// he wants no more gets no more, except in compatibility mode, where RabbitHub's queues went on filling. A WebSub subscription that
/// ended is over.
pub fn rest(settings: &HubSettings, subscription: &Subscription) -> Rest {
    match (&subscription.state, subscription.protocol) {
        (SubscriptionState::Active, _) => Rest::Bound,
        (
            SubscriptionState::Inactive(WhyInactive::Unsubscribed | WhyInactive::Gone | WhyInactive::Expired),
            Protocol::Websub,
        ) => Rest::Deleted,
        (SubscriptionState::Inactive(WhyInactive::Failed | WhyInactive::Imported), Protocol::Websub) => {
            Rest::Bound
        }
        (SubscriptionState::Inactive(_), Protocol::Rabbithub) if settings.compat => Rest::Bound,
        (SubscriptionState::Inactive(WhyInactive::Unsubscribed | WhyInactive::Gone), Protocol::Rabbithub) => {
            Rest::Unbound
        }
        (
            SubscriptionState::Inactive(WhyInactive::Expired | WhyInactive::Failed | WhyInactive::Imported),
            Protocol::Rabbithub,
        ) => Rest::Bound,
    }
}

/// Does to the queue of a subscription what its state asks for. Doing it again changes nothing.
///
/// # Errors
/// As the broker's.
pub async fn put_to_rest(estate: &dyn Estate, binding: &HubBinding, rest: Rest) -> Result<(), Failure> {
    match rest {
        Rest::Bound => Ok(()),
        Rest::Unbound => estate.unbind(binding).await,
        Rest::Deleted => {
            estate.delete(&Resource::queue(&binding.vhost, &binding.queue)).await?;
            Ok(())
        }
    }
}

/// Whether it has a queue of ours.
pub fn has_own_queue(subscription: &Subscription) -> bool {
    subscription.key.resource.kind == ResourceKind::Exchange
}
