//! Looks for what would fail later: connection, rights, queues, exchanges, alarms. Changes nothing.

use std::collections::BTreeSet;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::hub::ports::Right;
use warren_engine::message::Route;

use super::config::Login;
use super::losses::{DeadLetters, losses};
use super::management::{Api, Permission};
use super::{Rabbit, wire};
use crate::kit::users::DEFAULT_EXCHANGE;

/// The findings about a broker and routes. The subject of each is the route it is about, in words, or the broker's name:
/// where that stands in the configuration, the caller knows.
pub(super) async fn check(rabbit: &Rabbit, routes: &[Route]) -> Vec<Finding> {
    let subject = rabbit.name.as_str();
    let (amqp, management) = tokio::join!(rabbit.side(), management(rabbit));
    if let Err(failure) = amqp {
        let down = failure.kind == FailureKind::Disconnected || failure.kind == FailureKind::Timeout;
        // A server that is down is one fault, although two addresses lead to it.
        let management = management.filter(|other| !down || other.kind == FailureKind::Refused);
        let management = management.map(|failure| Finding::from_failure(MANAGEMENT, &failure));
        return [Finding::from_failure(subject, &failure)].into_iter().chain(management).collect();
    }
    let mut findings = Vec::new();
    let asked = management.is_none();
    findings.extend(management.map(|failure| Finding::from_failure(MANAGEMENT, &failure)));
    let mut exchanges = BTreeSet::new();
    let mut queues = BTreeSet::new();
    for route in routes {
        match route {
            Route::Queue(queue) => queues.insert(queue.as_str()),
            Route::Exchange { exchange, .. } => exchanges.insert(exchange.as_str()),
        };
    }
    let api = Api::new(&rabbit.target, &rabbit.tls).ok();
    for queue in &queues {
        match (queue_finding(rabbit, queue).await, &api) {
            (Some(finding), _) => findings.push(finding),
            (None, Some(api)) => findings.extend(queue_losses(rabbit, api, queue).await),
            (None, None) => {}
        }
    }
    for exchange in exchanges.iter().filter(|exchange| !exchange.is_empty()) {
        let looked = rabbit.find_exchange(exchange).await;
        findings.extend(looked.err().map(|failure| found(format!("exchange `{exchange}`"), &failure)));
    }
    if asked {
        findings.extend(alarms_and_rights(rabbit, !queues.is_empty(), &exchanges).await);
    } else {
        findings.extend(rabbit.publisher.blocked().map(|reason| blocked(rabbit, &reason)));
    }
    findings
}

/// The subject of what is wrong with the address or login of the management API.
const MANAGEMENT: &str = "management_url";

/// Why the management API cannot be used, where one is configured: address, login, or a user without the tag `management`.
async fn management(rabbit: &Rabbit) -> Option<Failure> {
    rabbit.target.management.as_ref()?;
    match Api::new(&rabbit.target, &rabbit.tls) {
        Ok(api) => api.whoami().await.err(),
        Err(failure) => Some(failure),
    }
}

async fn queue_finding(rabbit: &Rabbit, queue: &str) -> Option<Finding> {
    match rabbit.queue_state(queue).await {
        Ok(_) => None,
        // Another connection has it for itself: it is there, and takes messages.
        Err(failure) if failure.detail.as_deref().is_some_and(|text| text.contains(": 405 ")) => None,
        Err(failure) => Some(found(format!("queue `{queue}`"), &failure)),
    }
}

/// How a queue that messages are published to loses them. What the management API does not tell is left out: that it does not is
/// a finding of its own.
async fn queue_losses(rabbit: &Rabbit, api: &Api, queue: &str) -> Vec<Finding> {
    if wire::publish::is_direct_reply("", queue) {
        return Vec::new(); // not a queue
    }
    let Ok(nature) = api.nature(queue).await else { return Vec::new() };
    let dead_letters = DeadLetters::of(rabbit, &nature).await;
    losses(&format!("queue `{queue}`"), queue, &nature, &dead_letters)
}

/// A refusal of the passive question is no proof that publishing is refused: a warning.
fn found(subject: String, failure: &Failure) -> Finding {
    let finding = Finding::from_failure(subject, failure);
    match failure.kind {
        FailureKind::Refused => Finding { severity: warren_engine::finding::Severity::Warning, ..finding },
        FailureKind::Disconnected
        | FailureKind::Timeout
        | FailureKind::Unavailable
        | FailureKind::Throttled
        | FailureKind::NotFound
        | FailureKind::Unroutable
        | FailureKind::Invalid
        | FailureKind::Internal => finding,
    }
}

async fn alarms_and_rights(rabbit: &Rabbit, to_queues: bool, exchanges: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(reason) = rabbit.publisher.blocked() {
        findings.push(blocked(rabbit, &reason));
    }
    let Ok(api) = Api::new(&rabbit.target, &rabbit.tls) else {
        return findings; // none is configured: these checks are not made
    };
    match api.alarms().await {
        Ok(alarms) if findings.is_empty() => {
            findings.extend(alarms.first().map(|_| blocked(rabbit, &alarms.join(", "))));
        }
        Ok(_) => {}
        // A user of the tag `management` may not see nodes; that alone is no finding.
        Err(failure) if failure.kind == FailureKind::Refused => {}
        Err(failure) => findings.push(unasked(rabbit, &failure)),
    }
    let Login::Plain { username, .. } = &rabbit.target.login else { return findings };
    match api.permission(username).await {
        Ok(permission) => {
            let permission = permission.unwrap_or_else(|| Permission::none(username, &rabbit.target.vhost));
            let names = to_queues.then_some("").into_iter().chain(exchanges.iter().copied());
            for exchange in names.collect::<BTreeSet<_>>() {
                let name = if exchange.is_empty() { DEFAULT_EXCHANGE } else { exchange };
                findings.extend(permission.missing(Right::Write, "exchange", name, &rabbit.name));
            }
        }
        // Only administrators may look at rights.
        Err(failure) if failure.kind == FailureKind::Refused => {}
        Err(failure) if findings.is_empty() => findings.push(unasked(rabbit, &failure)),
        Err(_) => {}
    }
    findings
}

fn blocked(rabbit: &Rabbit, reason: &str) -> Finding {
    Finding::warning(
        codes::BROKER_BLOCKED,
        rabbit.name.as_str(),
        "the broker holds publishers back: nothing is sent until that ends",
    )
    .detail(reason)
    .remedy("Free memory or disk of the broker's machine; `rabbitmq-diagnostics alarms` names them.")
}

fn unasked(rabbit: &Rabbit, failure: &Failure) -> Finding {
    let finding = Finding::from_failure(rabbit.name.as_str(), failure);
    Finding { severity: warren_engine::finding::Severity::Warning, ..finding }
}
