//! The rules of SQS that the scriptable endpoint keeps, so that a sender who breaks one hears of it, and the digests of what is stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::Value;

use super::queue::{Arrival, QueueSettings};

/// A request as a whole: the name of the error and its sentence.
pub(super) fn request_fault(
    arrivals: &[Arrival],
    settings: &QueueSettings,
) -> Option<(&'static str, String)> {
    if arrivals.is_empty() {
        return Some((
            "AWS.SimpleQueueService.EmptyBatchRequest",
            "There should be at least one entry.".to_owned(),
        ));
    }
    if arrivals.len() > 10 {
        return Some((
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            format!("{} entries", arrivals.len()),
        ));
    }
    let bytes: u64 = arrivals.iter().map(Arrival::bytes).sum();
    if bytes > settings.bytes_max {
        let text = format!(
            "Batch requests cannot be longer than {} bytes. You have sent {bytes} bytes.",
            settings.bytes_max
        );
        return Some(("AWS.SimpleQueueService.BatchRequestTooLong", text));
    }
    let allowed = |id: &str| {
        (1..=80).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if let Some(arrival) = arrivals.iter().find(|arrival| !allowed(&arrival.id)) {
        return Some(("AWS.SimpleQueueService.InvalidBatchEntryId", arrival.id.clone()));
    }
    let repeated =
        |(at, arrival): (usize, &Arrival)| arrivals[..at].iter().any(|other| other.id == arrival.id);
    if arrivals.iter().enumerate().any(repeated) {
        return Some((
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            "Two entries have one id.".to_owned(),
        ));
    }
    None
}

/// One entry: what its sender did wrong.
pub(super) fn entry_fault(
    arrival: &Arrival,
    settings: &QueueSettings,
    is_fifo: bool,
) -> Option<(&'static str, String)> {
    let invalid = |text: &str| Some(("InvalidParameterValue", text.to_owned()));
    if arrival.body.is_empty() {
        return Some(("MissingParameter", "The request must contain the parameter MessageBody.".to_owned()));
    }
    let forbidden = |character: char| matches!(character, '\u{0}'..='\u{8}' | '\u{B}' | '\u{C}' | '\u{E}'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}');
    if arrival.body.chars().any(forbidden) {
        return Some(("InvalidMessageContents", "Invalid characters found.".to_owned()));
    }
    let attributes = arrival.attributes.as_object().map_or(0, serde_json::Map::len);
    if attributes > 10 {
        return invalid("Number of message attributes exceeds the allowed maximum [10].");
    }
    if arrival.delay.is_some_and(|delay| !(0..=900).contains(&delay)) {
        return invalid("Value for parameter DelaySeconds is invalid. Reason: Must be >= 0 and <= 900.");
    }
    if !is_fifo {
        return match arrival.deduplication {
            Some(_) => invalid(
                "The request includes a parameter that is not valid for this queue type: MessageDeduplicationId",
            ),
            None => None,
        };
    }
    if arrival.group.is_none() {
        return Some((
            "MissingParameter",
            "The request must contain the parameter MessageGroupId.".to_owned(),
        ));
    }
    if arrival.delay.is_some_and(|delay| delay > 0) {
        return invalid(
            "The request includes a parameter that is not valid for this queue type: DelaySeconds",
        );
    }
    if arrival.deduplication.is_none() && !settings.content_based {
        return invalid(
            "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
        );
    }
    None
}

pub(super) fn body_digest(arrival: &Arrival) -> String {
    hex(&Md5::digest(arrival.body.as_bytes()))
}

/// Of the attributes sorted by name: lengths and bytes of name, type and value, the kind of value in one byte.
pub(super) fn attributes_digest(arrival: &Arrival) -> Option<String> {
    let attributes = arrival.attributes.as_object().filter(|attributes| !attributes.is_empty())?;
    let mut names: Vec<&String> = attributes.keys().collect();
    names.sort();
    let mut digest = Md5::new();
    for name in names {
        let attribute = &attributes[name];
        let kind = attribute["DataType"].as_str().unwrap_or_default();
        let mut part = |bytes: &[u8]| {
            digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            digest.update(bytes);
        };
        part(name.as_bytes());
        part(kind.as_bytes());
        let (transport, value) = match &attribute["BinaryValue"] {
            Value::String(text) => (2u8, STANDARD.decode(text).unwrap_or_default()),
            _ => (1, attribute["StringValue"].as_str().unwrap_or_default().as_bytes().to_vec()),
        };
        digest.update([transport]);
        digest.update(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(&value);
    }
    Some(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
