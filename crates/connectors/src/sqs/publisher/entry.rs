//! A message as an entry of a batch, and the digests that SQS answers with.

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry, SendMessageBatchResultEntry};
use md5::{Digest, Md5};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::Outbound;
use warren_engine::sqs::{self, AttributeValue, Parts};

use crate::sqs::queues::Queue;

/// A message on its way.
pub(super) struct Entry<'b> {
    /// Its place in the batch.
    pub(super) at: usize,
    outbound: &'b Outbound,
    parts: Parts<'b>,
    /// What counts against the largest batch.
    pub(super) bytes: u64,
}

impl<'b> Entry<'b> {
    /// The entry of a message, if it keeps the rules.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub(super) fn of(at: usize, outbound: &'b Outbound, queue: &Queue) -> Result<Entry<'b>, Failure> {
        sqs::check(outbound, queue.bytes_max())?;
        let parts = Parts::of(&outbound.message);
        if queue.is_fifo && parts.deduplication_id.is_none() && queue.content_based == Some(false) {
            return Err(Failure::new(
                FailureKind::Invalid,
                codes::MISSING_DEDUPLICATION_ID,
                format!(
                    "`deduplication_id` is missing, and queue `{}` makes none of the content",
                    queue.name
                ),
            )
            .remedy("leave `deduplication_id` out to have the change id, or set the queue's ContentBasedDeduplication"));
        }
        let bytes = parts.bytes(&outbound.message.body);
        Ok(Entry { at, outbound, parts, bytes })
    }

    /// The group, where the queue keeps order.
    pub(super) fn group(&self) -> Option<&'b str> {
        self.parts.group_id
    }

    /// What is sent, under an id that only serves to match the answer: a user's own id may break the rules for it.
    pub(super) fn request(&self, id: usize, is_fifo: bool) -> SendMessageBatchRequestEntry {
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(id.to_string())
            // The rules were checked: it is UTF-8.
            .message_body(String::from_utf8_lossy(&self.outbound.message.body))
            .set_message_group_id(self.parts.group_id.map(str::to_owned));
        if is_fifo {
            entry = entry.set_message_deduplication_id(self.parts.deduplication_id.map(str::to_owned));
        } else {
            // Within 0 to 900 by the rules.
            entry =
                entry.set_delay_seconds(self.parts.delay_seconds.and_then(|delay| i32::try_from(delay).ok()));
        }
        for attribute in &self.parts.attributes {
            let value = MessageAttributeValue::builder().data_type(&*attribute.kind);
            let value = match &attribute.value {
                AttributeValue::Text(text) => value.string_value(&**text),
                AttributeValue::Bytes(bytes) => value.binary_value(Blob::new(*bytes)),
            };
            entry = entry.message_attributes(attribute.name, value.build().expect("the type is set"));
        }
        entry.build().expect("id and body are set")
    }

    /// Whether SQS stored what was sent; else what differs.
    pub(super) fn digest_fault(&self, stored: &SendMessageBatchResultEntry) -> Option<String> {
        let body = hex(&Md5::digest(&self.outbound.message.body));
        if stored.md5_of_message_body() != body {
            return Some(format!("the body's MD5 is {body}, and SQS has {}", stored.md5_of_message_body()));
        }
        let attributes = attributes_digest(&self.parts)?;
        match stored.md5_of_message_attributes() {
            Some(theirs) if theirs == attributes => None,
            Some(theirs) => Some(format!("the attributes' MD5 is {attributes}, and SQS has {theirs}")),
            None => Some("SQS has no attributes".to_owned()),
        }
    }

    /// The message's own id, for people.
    pub(super) fn message_id(&self) -> Option<&str> {
        self.outbound.message.properties.message_id.as_deref()
    }
}

/// The digest of attributes: sorted by name; of each the lengths (four bytes, big-endian) and bytes of name, type and value,
/// with a byte between type and value that is 1 for text and 2 for bytes.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
fn attributes_digest(parts: &Parts<'_>) -> Option<String> {
    if parts.attributes.is_empty() {
        return None;
    }
    let mut sorted: Vec<_> = parts.attributes.iter().collect();
    sorted.sort_by_key(|attribute| attribute.name);
    let mut digest = Md5::new();
    let mut part = |prefix: &[u8], bytes: &[u8]| {
        digest.update(prefix);
        digest.update((bytes.len() as u32).to_be_bytes());
        digest.update(bytes);
    };
    for attribute in sorted {
        part(&[], attribute.name.as_bytes());
        part(&[], attribute.kind.as_bytes());
        let transport = match attribute.value {
            AttributeValue::Text(_) => 1,
            AttributeValue::Bytes(_) => 2,
        };
        part(&[transport], attribute.value.bytes());
    }
    Some(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_engine::message::{HeaderValue, Headers, Message, Properties};

    #[test]
    fn digests_are_those_of_the_reference() {
        let mut headers = Headers::default();
        sqs::set_attribute(&mut headers, "b", "Binary", HeaderValue::Bytes(vec![1, 2]));
        sqs::set_attribute(&mut headers, "a", "String", HeaderValue::Text("x".into()));
        let message =
            Message { body: "x".into(), properties: Properties { headers, ..Properties::default() } };
        let parts = Parts::of(&message);
        let mut bytes = Vec::new();
        for (name, kind, transport, value) in [("a", "String", 1u8, &b"x"[..]), ("b", "Binary", 2, &[1, 2])] {
            for part in [name.as_bytes(), kind.as_bytes()] {
                bytes.extend((part.len() as u32).to_be_bytes());
                bytes.extend(part);
            }
            bytes.push(transport);
            bytes.extend((value.len() as u32).to_be_bytes());
            bytes.extend(value);
        }
        assert_eq!(attributes_digest(&parts), Some(hex(&Md5::digest(&bytes))));
        assert_eq!(hex(&Md5::digest(b"hello")), "5d41402abc4b2a76b9719d911017c592");
    }
}
