//! Queues by name, URL or ARN: where they are and what they take, asked once a minute at most.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind, Remedy};
use warren_engine::sqs;

use super::connection::{Connected, Link};
use super::failures::{Fault, fault};

/// Changes of a queue's attributes take up to a minute to count everywhere, so this is no later.
const FRESH: Duration = Duration::from_secs(60);
/// How long a queue that is not there is not asked for again; a run may name it in every row.
const MISSING_FRESH: Duration = Duration::from_secs(5);
/// The largest message before August 2025, which queues from before may still have.
pub(crate) const OLD_BYTES_MAX: u64 = 262_144;

/// A queue that is there.
#[derive(Debug)]
pub(crate) struct Queue {
    /// As it was asked for.
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) is_fifo: bool,
    /// Its largest message and batch. Where it does not tell, what SQS said about a batch that was too long.
    bytes_max: AtomicU64,
    /// Whether it makes deduplication ids of bodies, where it tells.
    pub(crate) content_based: Option<bool>,
    /// Whether it moves what was received too often to another queue, where it tells.
    pub(crate) redrives: Option<bool>,
}

impl Queue {
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// SQS said that a batch was too long, although it was not by what we know: it is an old queue that does not tell.
    /// Whether that is news.
    pub(crate) fn is_old(&self) -> bool {
        self.bytes_max.fetch_min(OLD_BYTES_MAX, Ordering::Relaxed) > OLD_BYTES_MAX
    }
}

/// The name of a queue, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named<'n> {
    /// A name in our own account.
    Name(&'n str),
    /// An address.
    Url(&'n str),
    /// A queue of any account.
    Arn { region: &'n str, account: &'n str, name: &'n str },
}

impl Named<'_> {
    /// How a queue is named.
    pub(crate) fn of(text: &str) -> Named<'_> {
        if text.starts_with("https://") || text.starts_with("http://") {
            return Named::Url(text);
        }
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["arn", _, "sqs", region, account, name] => Named::Arn { region, account, name },
            _ => Named::Name(text),
        }
    }
}

/// The queues that were asked for.
#[derive(Default)]
pub(crate) struct Queues {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

struct Slot {
    since: Instant,
    looked_up: OnceCell<Result<Arc<Queue>, Failure>>,
}

impl Slot {
    fn is_fresh(&self) -> bool {
        let fresh = match self.looked_up.get() {
            Some(Err(_)) => MISSING_FRESH,
            Some(Ok(_)) | None => FRESH,
        };
        self.since.elapsed() < fresh
    }
}

impl Queues {
    /// The queue of a name, URL or ARN.
    ///
    /// # Errors
    /// It does not exist, may not be used, or SQS cannot be reached.
    pub(crate) async fn get(&self, link: &Link, name: &str) -> Result<Arc<Queue>, Failure> {
        let slot = self.slot(name);
        let looked_up = slot.looked_up.get_or_init(|| async {
            let connected = link.get().await?;
            look_up(link, connected, name).await.map(Arc::new)
        });
        let found = looked_up.await.clone();
        if let Err(failure) = &found
            && failure.kind.for_message() == Remedy::Retry
        {
            self.forget(name); // it may be there the next time
        }
        found
    }

    /// Asks again the next time: the queue was said to be gone.
    pub(crate) fn forget(&self, name: &str) {
        self.lock().remove(name);
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get(name)
            && slot.is_fresh()
        {
            return slot.clone();
        }
        // Names may come from rows: what is no longer fresh must not pile up.
        if slots.len() > 1_000 {
            slots.retain(|_, slot| slot.is_fresh());
        }
        let slot = Arc::new(Slot { since: Instant::now(), looked_up: OnceCell::new() });
        slots.insert(name.to_owned(), slot.clone());
        slot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(link: &Link, connected: &Connected, name: &str) -> Result<Queue, Failure> {
    let url = url(link, connected, name).await?;
    let asked = connected
        .client
        .get_queue_attributes()
        .queue_url(&url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await;
    let mut queue = Queue {
        name: name.to_owned(),
        is_fifo: sqs::is_fifo(&url),
        url,
        bytes_max: AtomicU64::new(sqs::MESSAGE_BYTES_MAX),
        content_based: None,
        redrives: None,
    };
    match asked {
        Ok(answer) => {
            let text = |name: QueueAttributeName| answer.attributes().and_then(|all| all.get(&name));
            if let Some(bytes) =
                text(QueueAttributeName::MaximumMessageSize).and_then(|text| text.parse().ok())
            {
                queue.bytes_max = AtomicU64::new(bytes);
            }
            let content = text(QueueAttributeName::ContentBasedDeduplication);
            queue.content_based = Some(content.is_some_and(|text| text == "true"));
            queue.redrives =
                Some(text(QueueAttributeName::RedrivePolicy).is_some_and(|text| !text.is_empty()));
            Ok(queue)
        }
        Err(error) => match fault(format!("ask for queue `{name}`"), &error) {
            // We may not look: SQS will say what it does not take.
            Fault { failure, .. } if failure.code == codes::ACCESS_REFUSED => Ok(queue),
            Fault { failure, .. } => Err(failure),
        },
    }
}

/// The queue's URL.
///
/// # Errors
/// It does not exist, may not be asked for, or SQS cannot be reached.
pub(crate) async fn url(link: &Link, connected: &Connected, name: &str) -> Result<String, Failure> {
    match Named::of(name) {
        Named::Url(url) => Ok(url.to_owned()),
        Named::Name(plain) => match ask_url(connected, name, plain, None).await {
            Err(failure) if failure.code == codes::ACCESS_REFUSED => by_list(connected, name, failure).await,
            answered => answered,
        },
        Named::Arn { region, account, name: plain } => {
            if region != connected.region && link.target.endpoint.is_none() {
                return Err(Failure::new(
                    FailureKind::NotFound,
                    codes::NO_SUCH_QUEUE,
                    format!("find queue `{name}`"),
                )
                .detail(format!("it is in region {region}, and the broker is that of {}", connected.region))
                .remedy("configure a broker for that region"));
            }
            match ask_url(connected, name, plain, Some(account)).await {
                // URLs are made by rule; where we may not ask, the rule will do.
                Err(failure) if failure.code == codes::ACCESS_REFUSED => {
                    let base = link.target.endpoint.clone().unwrap_or_else(|| amazons(region));
                    Ok(format!("{base}/{account}/{plain}"))
                }
                answered => answered,
            }
        }
    }
}

fn amazons(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://sqs.{region}.{suffix}")
}

async fn ask_url(
    connected: &Connected,
    shown: &str,
    name: &str,
    owner: Option<&str>,
) -> Result<String, Failure> {
    let ask = connected.client.get_queue_url().queue_name(name);
    let answered = ask.set_queue_owner_aws_account_id(owner.map(str::to_owned)).send().await;
    let what = || format!("find queue `{shown}`");
    match answered {
        Ok(answer) => answer.queue_url.ok_or_else(|| {
            Failure::new(FailureKind::Disconnected, codes::PROTOCOL_ERROR, what())
                .detail("the answer has no URL")
        }),
        Err(error) => {
            let failure = fault(what(), &error).failure;
            // A name that breaks the rules for names is that of no queue.
            if failure.kind == FailureKind::Invalid {
                return Err(Failure { kind: FailureKind::NotFound, code: codes::NO_SUCH_QUEUE, ..failure }
                    .remedy("correct the queue's name: letters, digits, `-` and `_`, up to 80, with `.fifo` at the end of a FIFO queue's"));
            }
            Err(failure)
        }
    }
}

/// Where a queue may not be asked for, it may be listed.
async fn by_list(connected: &Connected, name: &str, refused: Failure) -> Result<String, Failure> {
    let listed = connected.client.list_queues().queue_name_prefix(name).send().await;
    let Ok(listed) = listed else {
        return Err(refused.remedy(
            "allow sqs:GetQueueUrl (or sqs:ListQueues) in the policy of the user or role, or write the queue's URL instead of its name",
        ));
    };
    let found = listed.queue_urls().iter().find(|url| url.rsplit('/').next() == Some(name));
    found.cloned().ok_or_else(|| {
        Failure::new(FailureKind::NotFound, codes::NO_SUCH_QUEUE, format!("find queue `{name}`"))
            .detail("it is not among the queues of this account and region")
            .remedy("create the queue, or correct its name, region or account")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(Named::of("orders.fifo"), Named::Name("orders.fifo"));
        assert_eq!(Named::of("http://h/1/q"), Named::Url("http://h/1/q"));
        let arn = Named::Arn { region: "eu-west-1", account: "123456789012", name: "orders" };
        assert_eq!(Named::of("arn:aws:sqs:eu-west-1:123456789012:orders"), arn);
        assert_eq!(
            Named::of("arn:aws:sns:eu-west-1:1:orders"),
            Named::Name("arn:aws:sns:eu-west-1:1:orders")
        );
    }
}
