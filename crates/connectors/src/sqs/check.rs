//! Looks for what would fail later: credentials, rights, queues. Changes nothing.

use std::collections::BTreeSet;

use aws_sdk_sqs::types::QueueAttributeName;
use futures_util::stream::{self, StreamExt};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::finding::Finding;
use warren_engine::message::Route;
use warren_engine::ports::QueueInfo;
use warren_engine::sqs::is_fifo;

use super::Sqs;
use super::connection::Connected;
use super::failures::{Fault, fault};
use super::queues::{Named, url};

/// Queues asked about at once.
const ASKED_AT_ONCE: usize = 16;

/// Whether SQS is there and knows us. A right that is missing is none of the concerns here.
///
/// # Errors
/// There are no credentials, they are refused, or SQS cannot be reached.
pub(super) async fn reach(sqs: &Sqs) -> Result<(), Failure> {
    match may_list(sqs).await {
        Err(failure) if failure.code == codes::ACCESS_REFUSED => Ok(()),
        answered => answered,
    }
}

async fn may_list(sqs: &Sqs) -> Result<(), Failure> {
    let connected = sqs.link.get().await?;
    connected.identify().await?;
    let listed = connected.client.list_queues().max_results(1).send().await;
    listed
        .map(|_| ())
        .map_err(|error| fault(format!("reach SQS in region {}", connected.region), &error).failure)
}

/// All queues of the account in the region, by name.
///
/// # Errors
/// SQS cannot be reached, or the right to list is missing.
pub(super) async fn list(sqs: &Sqs) -> Result<Vec<QueueInfo>, Failure> {
    let connected = sqs.link.get().await?;
    let mut urls: Vec<String> = Vec::new();
    let mut next = None;
    loop {
        let listed = connected.client.list_queues().max_results(1000).set_next_token(next).send().await;
        let listed = listed.map_err(|error| {
            let failure = fault("list queues", &error).failure;
            if failure.code == codes::ACCESS_REFUSED {
                failure.remedy(allow("sqs:ListQueues"))
            } else {
                failure
            }
        })?;
        urls.extend(listed.queue_urls.unwrap_or_default());
        next = listed.next_token;
        if next.is_none() {
            break;
        }
    }
    let asked = stream::iter(urls).map(|url| info(connected, url)).buffer_unordered(ASKED_AT_ONCE);
    let mut queues: Vec<QueueInfo> = asked.collect().await;
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(queues)
}

/// What can be known of a queue; the number of its messages only where we may ask.
async fn info(connected: &Connected, url: String) -> QueueInfo {
    let name = url.rsplit('/').next().unwrap_or(&url).to_owned();
    let asked = connected.client.get_queue_attributes().queue_url(&url);
    let answered = asked.attribute_names(QueueAttributeName::ApproximateNumberOfMessages).send().await.ok();
    let messages = answered.as_ref().and_then(|answer| {
        let all = answer.attributes()?;
        all.get(&QueueAttributeName::ApproximateNumberOfMessages)?.parse().ok()
    });
    let kind = if is_fifo(&name) { "fifo" } else { "standard" };
    QueueInfo { name, kind: kind.to_owned(), messages, consumers: None, durable: true }
}

/// The findings about the broker and routes. The subject of each is the route it is about, in words, or the broker's name:
/// where that stands in the configuration, the caller knows.
pub(super) async fn check(sqs: &Sqs, routes: &[Route]) -> Vec<Finding> {
    let broker = sqs.name.as_str();
    let listed = may_list(sqs).await;
    let mut findings = Vec::new();
    match &listed {
        Ok(()) => {}
        Err(failure) if failure.code == codes::ACCESS_REFUSED => {
            findings.push(missing(broker, "sqs:ListQueues", "`warren queues` cannot list queues", failure));
        }
        Err(failure) => return vec![Finding::from_failure(broker, failure)],
    }
    let connected = match sqs.link.get().await {
        Ok(connected) => connected,
        Err(failure) => return vec![Finding::from_failure(broker, &failure)],
    };
    let mut queues = BTreeSet::new();
    for route in routes {
        match route {
            Route::Queue(queue) => drop(queues.insert(queue.as_str())),
            Route::Exchange { exchange, .. } => findings.push(
                Finding::error(
                    codes::NO_SUCH_EXCHANGE,
                    format!("exchange `{exchange}`"),
                    format!("there is no exchange `{exchange}`: SQS has queues only"),
                )
                .remedy("name a queue"),
            ),
        }
    }
    // In the order of their kinds as other brokers tell them: queues first.
    let mut of_queues = Vec::new();
    for queue in queues {
        of_queues.extend(queue_findings(sqs, connected, queue).await);
    }
    of_queues.extend(findings);
    of_queues
}

async fn queue_findings(sqs: &Sqs, connected: &Connected, queue: &str) -> Vec<Finding> {
    let subject = format!("queue `{queue}`");
    let url = match url(&sqs.link, connected, queue).await {
        Ok(url) => url,
        Err(failure) => return vec![Finding::from_failure(subject, &failure)],
    };
    let mut findings = Vec::new();
    if let Some(failure) = refused_url(connected, queue).await {
        let hurts = format!("queue `{queue}` is found by another way");
        findings.push(missing(&subject, "sqs:GetQueueUrl", &hurts, &failure));
    }
    let asked = connected.client.get_queue_attributes().queue_url(&url);
    match asked.attribute_names(QueueAttributeName::All).send().await {
        Ok(_) => {}
        Err(error) => match fault(format!("ask for queue `{queue}`"), &error) {
            Fault { failure, .. } if failure.code == codes::ACCESS_REFUSED => {
                let hurts = format!("what queue `{queue}` takes is not known before it refuses");
                findings.push(missing(&subject, "sqs:GetQueueAttributes", &hurts, &failure));
            }
            Fault { failure, .. } => {
                findings.push(Finding::from_failure(subject, &failure));
                return findings;
            }
        },
    }
    // A request with nothing in it is refused for that, after it was asked whether we may send.
    if let Err(error) =
        connected.client.send_message_batch().queue_url(&url).set_entries(Some(Vec::new())).send().await
    {
        let Fault { failure, name, .. } = fault(format!("send to queue `{queue}`"), &error);
        if failure.code == codes::ACCESS_REFUSED && !name.starts_with("Kms") {
            let message = format!("`sqs:SendMessage` is not allowed for queue `{queue}`");
            let finding = Finding::error(codes::ACCESS_REFUSED, subject, message);
            findings
                .push(finding.detail(failure.detail.unwrap_or_default()).remedy(allow("sqs:SendMessage")));
        } else if matches!(failure.kind, FailureKind::NotFound | FailureKind::Refused) {
            findings.push(Finding::from_failure(subject, &failure));
        }
    }
    findings
}

/// The refusal to tell a queue's URL, where one is asked for.
async fn refused_url(connected: &Connected, queue: &str) -> Option<Failure> {
    let asked = connected.client.get_queue_url();
    let asked = match Named::of(queue) {
        Named::Url(_) => return None,
        Named::Name(name) => asked.queue_name(name),
        Named::Arn { account, name, .. } => asked.queue_name(name).queue_owner_aws_account_id(account),
    };
    let failure = fault(format!("find queue `{queue}`"), &asked.send().await.err()?).failure;
    (failure.code == codes::ACCESS_REFUSED).then_some(failure)
}

fn missing(subject: &str, permission: &str, hurts: &str, failure: &Failure) -> Finding {
    Finding::warning(codes::ACCESS_REFUSED, subject, format!("`{permission}` is not allowed: {hurts}"))
        .detail(failure.detail.clone().unwrap_or_default())
        .remedy(allow(permission))
}

fn allow(permission: &str) -> String {
    format!("allow {permission} in the policy of the user or role")
}
