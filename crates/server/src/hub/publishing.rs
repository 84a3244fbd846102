//! Publishing, and what the broker's receipt is to the one who asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::resource::Resource;
use warren_engine::message::{Outbound, Receipt, Route};

use super::Web;

/// How long an exchange that was seen counts as being there.
const SEEN_FOR: Duration = Duration::from_secs(30);
/// So many exchanges are remembered; after that all are forgotten.
const SEEN_MAX: usize = 10_000;

/// What became of a publish.
#[derive(Debug)]
pub(super) enum Published {
    /// The broker has it.
    Accepted,
    /// The exchange is there and no queue takes it.
    Unroutable,
    /// The queue or exchange is not there.
    NotThere,
    /// The message is wrong, and will be wrong again.
    Unfit(Failure),
    /// It is not there, or nobody knows whether it is. [`super::answer::meaning`] says who can do something about it.
    Failed(Failure),
}

/// Exchanges that were seen a moment ago. A publish to one that is not there makes a broker close the channel with all that is under way
/// on it; so others' typing errors are found out by asking first.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<HashMap<(String, String), Instant>>);

impl Known {
    fn seen(&self, key: &(String, String)) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(key).is_some_and(|at| at.elapsed() < SEEN_FOR)
    }

    fn note(&self, key: (String, String)) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SEEN_MAX {
            seen.clear();
        }
        seen.insert(key, Instant::now());
    }

    pub(super) fn forget(&self, vhost: &str, exchange: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(&(vhost.to_owned(), exchange.to_owned()));
    }
}

/// Publishes one message and waits for the broker's word.
pub(super) async fn publish(web: &Web, vhost: &str, outbound: Outbound) -> Published {
    match told(web, vhost, outbound).await {
        Ok(published) => published,
        Err(failure) if failure.kind == FailureKind::NotFound => Published::NotThere,
        Err(failure) => Published::Failed(failure),
    }
}

async fn told(web: &Web, vhost: &str, outbound: Outbound) -> Result<Published, Failure> {
    if let Route::Exchange { exchange, .. } = &outbound.route
        && !exchange.is_empty()
    {
        let key = (vhost.to_owned(), exchange.clone());
        if !web.known.seen(&key) {
            if web.hub.estate().look(&Resource::exchange(vhost, exchange)).await?.is_none() {
                return Ok(Published::NotThere);
            }
            web.known.note(key);
        }
    }
    let to_queue = matches!(outbound.route, Route::Queue(_));
    let broker = web.hub.estate().broker(vhost).await?;
    let receipt = broker.publish(std::slice::from_ref(&outbound)).await.into_iter().next();
    let published = match receipt {
        Some(Receipt::Accepted(_)) => Published::Accepted,
        Some(Receipt::Refused(failure)) => match failure.kind {
            FailureKind::Unroutable if to_queue => Published::NotThere,
            FailureKind::Unroutable => Published::Unroutable,
            FailureKind::NotFound => Published::NotThere,
            FailureKind::Invalid => Published::Unfit(failure),
            FailureKind::Disconnected
            | FailureKind::Timeout
            | FailureKind::Unavailable
            | FailureKind::Throttled
            | FailureKind::Refused
            | FailureKind::Internal => Published::Failed(failure),
        },
        Some(Receipt::Unknown(failure)) => Published::Failed(failure),
        None => Published::Failed(Failure::internal("publish").detail("the broker gave no receipt")),
    };
    if let (Published::NotThere, Route::Exchange { exchange, .. }) = (&published, &outbound.route) {
        web.known.forget(vhost, exchange);
    }
    Ok(published)
}
