//! A received message as a job: attributes are headers, what SQS itself says of it is the envelope's.

use aws_sdk_sqs::types::{Message as Received, MessageAttributeValue, MessageSystemAttributeName};
use warren_engine::delivery::{Envelope, Job};
use warren_engine::message::{HeaderValue, Headers, Message, Properties};
use warren_engine::sqs;

/// The job of a message from a queue.
pub(super) fn job(queue: &str, received: &Received, tag: u64) -> Job {
    let system = |name: MessageSystemAttributeName| {
        received.attributes().and_then(|attributes| attributes.get(&name)).map(String::as_str)
    };
    let count = system(MessageSystemAttributeName::ApproximateReceiveCount);
    let earlier = count.and_then(|count| count.parse::<u64>().ok()).map(|count| count.saturating_sub(1));
    let mut headers = headers(received);
    if let Some(group) = system(MessageSystemAttributeName::MessageGroupId) {
        headers.set(sqs::GROUP_ID, HeaderValue::Text(group.to_owned()));
        // A copy is another message, and must not be taken for the one that is here; the copy of a copy neither.
        if let (true, Some(id)) = (sqs::is_fifo(queue), received.message_id()) {
            headers.set(sqs::DEDUPLICATION_ID, HeaderValue::Text(id.to_owned()));
        }
    }
    let sent = system(MessageSystemAttributeName::SentTimestamp).and_then(|text| text.parse::<u64>().ok());
    let properties = Properties {
        message_id: received.message_id().map(str::to_owned),
        timestamp: sent.map(|milliseconds| milliseconds / 1000),
        headers,
        ..Properties::default()
    };
    let attributes = received.attributes().into_iter().flatten();
    let envelope = Envelope {
        queue: queue.to_owned(),
        routing_key: queue.to_owned(),
        redelivered: earlier.is_some_and(|earlier| earlier > 0),
        delivery_count: earlier,
        delivery_tag: tag,
        system: attributes.map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect(),
        ..Envelope::default()
    };
    let body = received.body().unwrap_or_default().to_owned();
    Job { message: Message { body: body.into(), properties }, envelope }
}

/// Attributes in the order of their names; SQS keeps none.
fn headers(received: &Received) -> Headers {
    let mut headers = Headers::default();
    let mut sorted: Vec<_> = received.message_attributes().into_iter().flatten().collect();
    sorted.sort_by_key(|(name, _)| name.as_str());
    for (name, attribute) in sorted {
        sqs::set_attribute(&mut headers, name, attribute.data_type(), value(attribute));
    }
    headers
}

/// Numbers that a header holds exactly are numbers, others keep their digits as text.
fn value(attribute: &MessageAttributeValue) -> HeaderValue {
    if let Some(bytes) = attribute.binary_value() {
        return HeaderValue::Bytes(bytes.as_ref().to_vec());
    }
    let text = attribute.string_value().unwrap_or_default();
    if attribute.data_type().split('.').next() == Some("Number") {
        if let Ok(whole) = text.parse::<i64>()
            && whole.to_string() == text
        {
            return HeaderValue::I64(whole);
        }
        if let Ok(float) = text.parse::<f64>()
            && format!("{float:?}") == text
        {
            return HeaderValue::F64(float);
        }
    }
    HeaderValue::Text(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_engine::sqs::Parts;

    #[test]
    fn a_copy_has_the_same_attributes() {
        let attribute = |kind: &str, text: &str| {
            MessageAttributeValue::builder().data_type(kind).string_value(text).build().unwrap()
        };
        let sent = [
            ("a", "Number", "42"),
            ("b", "Number", "1.50"),
            ("c", "Number.float", "2.5"),
            ("d", "String", "x"),
            ("e", "String.label", "y"),
            ("f", "Number", "12345678901234567890123456789012345678"),
        ];
        let mut received = Received::builder().message_id("id").body("body");
        for (name, kind, text) in sent {
            received = received.message_attributes(name, attribute(kind, text));
        }
        let received = received
            .attributes(MessageSystemAttributeName::ApproximateReceiveCount, "3")
            .attributes(MessageSystemAttributeName::MessageGroupId, "g")
            .build();
        let job = job("q.fifo", &received, 1);
        assert_eq!(job.message.properties.headers.get("a"), Some(&HeaderValue::I64(42)));
        assert_eq!((job.envelope.delivery_count, job.envelope.redelivered), (Some(2), true));
        assert_eq!(job.envelope.system["MessageGroupId"], "g");
        let parts = Parts::of(&job.message);
        assert_eq!((parts.group_id, parts.deduplication_id), (Some("g"), Some("id")));
        let again: Vec<(&str, &str, &str)> = parts
            .attributes
            .iter()
            .map(|attribute| {
                (attribute.name, &*attribute.kind, std::str::from_utf8(attribute.value.bytes()).unwrap())
            })
            .collect();
        assert_eq!(again, sent);
    }
}
