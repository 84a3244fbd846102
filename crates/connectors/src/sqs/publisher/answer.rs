//! What SQS answered to a request, message by message.

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::SdkError;
use aws_sdk_sqs::operation::RequestId as _;
use aws_sdk_sqs::operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput};
use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchResultEntry};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind, Remedy};
use warren_engine::message::{Answer, Receipt};

use super::Answers;
use super::entry::Entry;
use super::window::Went;
use crate::sqs::failures::{fault, meaning, short_name};
use crate::sqs::queues::{OLD_BYTES_MAX, Queue};

/// The receipts of a request's messages, in their order, and what the request says about the rate.
pub(super) fn receipts(
    queue: &Queue,
    entries: &[Entry<'_>],
    answered: Result<SendMessageBatchOutput, SdkError<SendMessageBatchError, HttpResponse>>,
) -> (Answers, Went) {
    match answered {
        Ok(output) => of_answer(queue, entries, &output),
        Err(error) => of_error(queue, entries, &error),
    }
}

fn of_answer(queue: &Queue, entries: &[Entry<'_>], output: &SendMessageBatchOutput) -> (Answers, Went) {
    let place = |id: &str| id.parse::<usize>().ok().filter(|place| *place < entries.len());
    let mut receipts: Vec<Option<Receipt>> = entries.iter().map(|_| None).collect();
    let mut went = Went::Through;
    let request = output.request_id();
    for stored in output.successful() {
        if let Some(place) = place(stored.id()) {
            receipts[place] = Some(accepted(queue, &entries[place], stored, request));
        }
    }
    for failed in output.failed() {
        if let Some(place) = place(failed.id()) {
            let failure = refused(queue, &entries[place], failed);
            if failure.code == codes::BROKER_THROTTLED {
                went = Went::Throttled;
            }
            receipts[place] = Some(Receipt::Refused(failure));
        }
    }
    let unanswered = |entry: &Entry<'_>| {
        let failure = Failure::new(FailureKind::Disconnected, codes::PROTOCOL_ERROR, what(queue, entry));
        Receipt::Unknown(failure.detail("the answer does not say what became of this message"))
    };
    let answers = receipts.into_iter().zip(entries);
    let answers = answers.map(|(receipt, entry)| (entry.at, receipt.unwrap_or_else(|| unanswered(entry))));
    (answers.collect(), went)
}

fn accepted(
    queue: &Queue,
    entry: &Entry<'_>,
    stored: &SendMessageBatchResultEntry,
    request: Option<&str>,
) -> Receipt {
    if let Some(fault) = entry.digest_fault(stored) {
        let failure = Failure::new(FailureKind::Disconnected, codes::DIGEST_MISMATCH, what(queue, entry));
        let failure = failure.detail(format!("{fault} (message {})", stored.message_id()));
        return Receipt::Unknown(
            failure.remedy("look for what changes requests on the way to SQS, such as a proxy"),
        );
    }
    let mut text = String::new();
    if let Some(id) = entry.message_id() {
        text.push_str(id);
        text.push_str(" is ");
    }
    text.push_str("message ");
    text.push_str(stored.message_id());
    let more = [
        (", sequence number ", stored.sequence_number()),
        (", MD5 ", Some(stored.md5_of_message_body())),
        (", request ", request),
    ];
    for (name, value) in more {
        if let Some(value) = value {
            text.push_str(name);
            text.push_str(value);
        }
    }
    Receipt::Accepted(Answer(text.into()))
}

/// A message that was refused while others of its request may have gone. What SQS calls our fault stays as it is; all else is
/// tried again.
fn refused(queue: &Queue, entry: &Entry<'_>, failed: &BatchResultErrorEntry) -> Failure {
    let (kind, code) = meaning(failed.code(), 400);
    let is_ours = failed.sender_fault() && kind.for_message() == Remedy::Reject;
    let kind = match kind.for_message() {
        Remedy::Reject if !is_ours => FailureKind::Throttled,
        Remedy::Reject | Remedy::Retry => kind,
    };
    let said = match failed.message() {
        Some(message) => format!("{}: {message}", short_name(failed.code())),
        None => short_name(failed.code()).to_owned(),
    };
    Failure::new(kind, code, what(queue, entry)).detail(said)
}

fn of_error(
    queue: &Queue,
    entries: &[Entry<'_>],
    error: &SdkError<SendMessageBatchError, HttpResponse>,
) -> (Answers, Went) {
    let fault = fault(format!("publish to queue `{}`", queue.name), error);
    if fault.name == "BatchRequestTooLong" {
        return (too_long(queue, entries, &fault.failure), Went::Through);
    }
    let went = match (fault.failure.kind, fault.certain) {
        (FailureKind::Throttled, _) => Went::Throttled,
        (FailureKind::Disconnected | FailureKind::Timeout | FailureKind::Unavailable, _) => Went::Astray,
        (
            FailureKind::Refused
            | FailureKind::NotFound
            | FailureKind::Unroutable
            | FailureKind::Invalid
            | FailureKind::Internal,
            _,
        ) => Went::Through,
    };
    let receipt = || {
        if fault.certain {
            Receipt::Refused(fault.failure.clone())
        } else {
            Receipt::Unknown(fault.failure.clone())
        }
    };
    (entries.iter().map(|entry| (entry.at, receipt())).collect(), went)
}

/// The whole request was refused for its length. By what is known of the queue it was not too long, so it is an old one that
/// does not tell: what is too long for it by itself is refused, the rest is packed anew.
fn too_long(queue: &Queue, entries: &[Entry<'_>], failure: &Failure) -> Answers {
    let news = queue.is_old();
    let together: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let again = news || together > queue.bytes_max();
    let answers = entries.iter().map(|entry| {
        let fits = entry.bytes <= OLD_BYTES_MAX.min(queue.bytes_max());
        let failure = if again && fits && entries.len() > 1 {
            Failure { kind: FailureKind::Throttled, ..failure.clone() }
        } else {
            Failure { what: what(queue, entry), ..failure.clone() }.remedy("send less of the row")
        };
        (entry.at, Receipt::Refused(failure))
    });
    answers.collect()
}

fn what(queue: &Queue, entry: &Entry<'_>) -> String {
    match entry.message_id() {
        Some(id) => {
            let id: String = id.chars().take(128).collect();
            format!("publish message `{id}` to queue `{}`", queue.name)
        }
        None => format!("publish to queue `{}`", queue.name),
    }
}
