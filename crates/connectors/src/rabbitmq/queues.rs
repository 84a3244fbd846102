//! The queues of a trigger: those it may make (delay queues, its dead-letter queue), and whether the one it consumes fits.

use std::time::Duration;

use warren_engine::codes;
use warren_engine::consume::retry::DelayQueue;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::{Finding, Severity};
use warren_engine::message::{HeaderValue, Headers};
use warren_engine::ports::Wanted;

use super::Rabbit;
use super::config::Login;
use super::losses::{DeadLetters, losses};
use super::management::{Api, Permission, QueueNature};
use super::rights;
use super::topology::QueueKind;
use super::wire::method::QueueSpec;

/// How long RabbitMQ waits for an acknowledgement unless it is told otherwise.
const ACK_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// RabbitMQ looks for late acknowledgements once a minute.
const ACK_TIMEOUT_MARGIN: Duration = Duration::from_secs(60);
/// The delivery limit of quorum queues since RabbitMQ 4.0.
const DELIVERY_LIMIT: i64 = 20;

/// Makes a delay queue unless one of that name is there.
///
/// A quorum queue, because only that hands an expired message on with a confirm: a classic queue forgets it first, and loses
/// it when it cannot be delivered. A broker that has none gets a classic queue.
pub(super) async fn declare_delay(rabbit: &Rabbit, queue: &DelayQueue) -> Result<(), Failure> {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    let longest = i64::try_from(queue.longest.as_millis()).unwrap_or(i64::MAX);
    let common = [
        ("x-message-ttl", HeaderValue::I64(longest)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text(&queue.back_to)),
    ];
    let quorum = [
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ];
    declare(rabbit, &queue.name, arguments(common.clone().into_iter().chain(quorum)), arguments(common)).await
}

/// Makes a durable queue unless one of that name is there, whatever its settings. Of which type, the vhost's default says.
pub(super) async fn ensure(rabbit: &Rabbit, queue: &str) -> Result<(), Failure> {
    match rabbit.queue_state(queue).await {
        Err(failure) if failure.kind == FailureKind::NotFound => {}
        other => return other.map(|_| ()),
    }
    rabbit.declare_queue(&spec(queue, Headers::default())).await.map(|_| ())
}

fn arguments<'a>(entries: impl IntoIterator<Item = (&'a str, HeaderValue)>) -> Headers {
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn spec(name: &str, arguments: Headers) -> QueueSpec {
    QueueSpec { name: name.to_owned(), durable: true, exclusive: false, auto_delete: false, arguments }
}

async fn declare(rabbit: &Rabbit, name: &str, best: Headers, plain: Headers) -> Result<(), Failure> {
    let failure = match rabbit.declare_queue(&spec(name, best)).await {
        Ok(_) => return Ok(()),
        Err(failure) if failure.kind == FailureKind::Invalid => failure,
        Err(failure) => return Err(failure),
    };
    // Either the broker does not know these settings, or a queue of others is there: the plain one, made before the broker knew them,
    // does as well; any other may lead nowhere, and what waits in it would wait for ever.
    rabbit.declare_queue(&spec(name, plain)).await.map(|_| ()).map_err(|_| failure)
}

/// Whether a queue fits what a trigger wants of it.
pub(super) async fn check(rabbit: &Rabbit, wanted: &Wanted) -> Vec<Finding> {
    let subject = format!("queue `{}`", wanted.queue);
    if let Err(failure) = rabbit.queue_state(&wanted.queue).await {
        return vec![Finding::from_failure(subject, &failure)];
    }
    let Ok(api) = Api::new(&rabbit.target, &rabbit.tls) else {
        // AMQP tells the type of a queue, and no other setting.
        let kind = rabbit.queue_kind(&wanted.queue).await;
        let refusal = kind.unwrap_or(QueueKind::Unknown).refusal(&wanted.queue);
        return match refusal {
            Some(refusal) => vec![Finding::from_failure(subject, &refusal)],
            None => Vec::from_iter(overdue(wanted, None)),
        };
    };
    let mut findings = Vec::new();
    match api.nature(&wanted.queue).await {
        Ok(nature) => {
            if let Some(refusal) = QueueKind::of_name(&nature.kind).refusal(&wanted.queue) {
                return vec![Finding::from_failure(subject, &refusal)];
            }
            let dead_letters = DeadLetters::of(rabbit, &nature).await;
            findings.extend(rejected(wanted, &nature, &dead_letters));
            findings.extend(losses(&subject, &wanted.queue, &nature, &dead_letters));
            findings.extend(delivery_limit(wanted, &nature, has_delivery_limit(rabbit).await));
            findings.extend(unordered(wanted, &nature));
            findings.extend(overdue(wanted, Some(&nature)));
        }
        Err(failure) => {
            let finding = Finding::from_failure(subject.clone(), &failure);
            findings.push(Finding { severity: Severity::Warning, ..finding });
        }
    }
    if let Login::Plain { username, .. } = &rabbit.target.login
        && let Ok(permission) = api.permission(username).await
    {
        let dead_letters_are_there = match &wanted.dead_letter_queue {
            Some(queue) => {
                !matches!(rabbit.queue_state(queue).await, Err(failure) if failure.kind == FailureKind::NotFound)
            }
            None => true,
        };
        let none = Permission::none(username, &rabbit.target.vhost);
        findings.extend(rights::of_consumer(&permission.unwrap_or(none), wanted, dead_letters_are_there));
    }
    findings
}

/// Whether quorum queues of the broker have a delivery limit that nobody set.
async fn has_delivery_limit(rabbit: &Rabbit) -> bool {
    let version = rabbit.server().await.map(|(_, version)| version).unwrap_or_default();
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_none_or(|major| major >= 4)
}

/// What becomes of messages that the trigger rejects, where the broker dead-letters them.
fn rejected(wanted: &Wanted, nature: &QueueNature, dead_letters: &DeadLetters) -> Option<Finding> {
    if !wanted.dead_letters_by_broker {
        return None;
    }
    let subject = format!("queue `{}`", wanted.queue);
    if let Some(why) = dead_letters.dropped() {
        let what = format!("queue `{}` drops what the trigger rejects: {why}", wanted.queue);
        return Some(
            Finding::error(codes::QUEUE_MISFIT, subject, what)
                .detail("`dead_letter: broker` rejects a message that is dead-lettered")
                .remedy(
                    "Set a policy with a `dead-letter-exchange` that exists, or give the trigger `dead_letter: {queue: NAME}`.",
                ),
        );
    }
    let waits = nature.text("dead-letter-strategy") == Some("at-least-once")
        && nature.text("overflow") == Some("reject-publish");
    if nature.kind == "quorum" && waits {
        return None;
    }
    let what = format!("queue `{}` dead-letters at most once", wanted.queue);
    Some(
        Finding::warning(codes::QUEUE_MISFIT, subject, what)
            .detail("it removes a message before the dead-letter queue has it: one that cannot be delivered there is lost")
            .remedy(
                "Give the trigger `dead_letter: {queue: NAME}`, whose copies are confirmed, or use a quorum queue with \
                 `dead-letter-strategy: at-least-once` and `overflow: reject-publish`.",
            ),
    )
}

/// A queue with priorities has another order than that of arrival.
fn unordered(wanted: &Wanted, nature: &QueueNature) -> Option<Finding> {
    let priorities = nature.number("max-priority").filter(|highest| *highest > 0)?;
    if !wanted.ordered {
        return None;
    }
    let what = format!(
        "queue `{}` delivers messages of higher priority before older ones, and the trigger has `ordering`",
        wanted.queue
    );
    Some(
        Finding::warning(codes::QUEUE_MISFIT, format!("queue `{}`", wanted.queue), what)
            .detail(format!("its `max-priority` is {priorities}; `ordering` keeps the order of delivery"))
            .remedy("Consume from a queue without `x-max-priority`, or publish with one priority."),
    )
}

fn delivery_limit(wanted: &Wanted, nature: &QueueNature, by_default: bool) -> Option<Finding> {
    if nature.kind != "quorum" {
        return None;
    }
    let limit = nature.number("delivery-limit").or(by_default.then_some(DELIVERY_LIMIT))?;
    let attempts = i64::from(wanted.attempts_max);
    if limit < 0 || limit >= attempts {
        return None;
    }
    let kept = nature.setting("dead-letter-exchange").is_some();
    let what = format!(
        "queue `{}` gives a message up after {limit} deliveries, before its {attempts} attempts are spent",
        wanted.queue
    );
    let finding = if kept {
        Finding::warning(codes::QUEUE_MISFIT, format!("queue `{}`", wanted.queue), what)
            .detail("it then goes to the queue's dead-letter exchange, without our reason")
    } else {
        Finding::error(codes::QUEUE_MISFIT, format!("queue `{}`", wanted.queue), what)
            .detail("it has no dead-letter exchange, so the message is dropped then")
    };
    Some(
        finding.remedy(
            "Raise the queue's `delivery-limit` by a policy, or give the trigger fewer `retry.delays`.",
        ),
    )
}

fn overdue(wanted: &Wanted, nature: Option<&QueueNature>) -> Option<Finding> {
    let told =
        nature.and_then(|nature| nature.setting("consumer-timeout")).and_then(serde_json::Value::as_u64);
    let timeout = told.map_or(ACK_TIMEOUT, Duration::from_millis);
    if wanted.deadline + ACK_TIMEOUT_MARGIN <= timeout {
        return None;
    }
    let what = format!(
        "the broker waits {} s for an acknowledgement, and a message may take {} s",
        timeout.as_secs(),
        wanted.deadline.as_secs()
    );
    let finding = match told {
        Some(_) => Finding::error(codes::QUEUE_MISFIT, format!("queue `{}`", wanted.queue), what),
        // The broker's own setting cannot be asked for; this is what it is unless somebody changed it.
        None => Finding::warning(codes::QUEUE_MISFIT, format!("queue `{}`", wanted.queue), what),
    };
    Some(
        finding
            .detail("it then takes the message back, with all others of the consumer, and gives it out again")
            .remedy(
                "Lower the trigger's `max_timeout`, or raise `consumer_timeout` of the broker or the queue.",
            ),
    )
}
