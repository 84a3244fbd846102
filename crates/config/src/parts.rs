//! What a sync to SQS says beside its message: group, deduplication, delay, attributes. And which keys are those of another kind of broker.

use warren_engine::codes;
use warren_engine::message::Properties;
use warren_engine::sqs::{self, rules};
use warren_engine::sync::plan::{
    AttributePlan, AttributeSource, Deduplication, Dynamic, PropertyPlan, RoutePlan, SqsPlan,
};
use warren_liquid::Format;

use super::faults::Fault;
use super::raw::attribute::{Attribute, AttributeValue};
use super::raw::sync::RawTrigger;
use super::template::Origin;
use super::trigger::TriggerReader;

/// `deduplication_id: content` leaves the id to the queue.
const CONTENT: &str = "content";
/// The kind of broker all this is for.
pub const SQS: &str = "sqs";

/// Keys that only SQS takes.
const OF_SQS: [&str; 4] = ["group_id", "deduplication_id", "delay_seconds", "attributes"];
/// Keys that only brokers of AMQP's kind take.
const OF_AMQP: [&str; 14] = [
    "exchange",
    "routing_key",
    "headers",
    "persistent",
    "priority",
    "expiration",
    "correlation_id",
    "reply_to",
    "type",
    "app_id",
    "user_id",
    "content_type",
    "content_encoding",
    "timestamp",
];

impl TriggerReader<'_> {
    /// Tells of keys that the broker's kind does not have. Nothing, where the kind is not known.
    pub(super) fn foreign_keys(&mut self) {
        let Some(kind) = self.kind else { return };
        let (foreign, own): (&[&str], &str) = if kind == SQS {
            (
                &OF_AMQP,
                "beside `queue` and `message` it has `message_id`, `group_id`, `deduplication_id`, `delay_seconds` and `attributes`",
            )
        } else {
            (
                &OF_SQS,
                "these are keys for a broker of type sqs; other brokers have `headers`, `message_id` and the like",
            )
        };
        for entry in self.node.entries().unwrap_or_default() {
            if foreign.contains(&entry.key.as_str()) {
                let message = format!("`{}` is no key of a sync to a broker of type {kind}", entry.key);
                self.faults.push(Fault::new(codes::UNKNOWN_KEY, entry.span, message).remedy(own));
            }
        }
    }

    /// The properties of a message to SQS.
    pub(super) fn sqs(&mut self, raw: &RawTrigger, route: Option<&RoutePlan>) -> PropertyPlan {
        let message_id = self.message_id(raw);
        let group_id = raw.group_id.as_ref().and_then(|varying| self.dynamic("group_id", varying));
        self.literal_id("group_id", group_id.as_ref());
        let deduplication_id = self.deduplication(raw);
        let delay_seconds =
            raw.delay_seconds.as_ref().and_then(|varying| self.dynamic("delay_seconds", varying));
        let queue = match route {
            Some(RoutePlan::Queue(Dynamic::Literal(queue))) => Some(queue.as_str()),
            Some(RoutePlan::Queue(_) | RoutePlan::Exchange { .. }) | None => None,
        };
        if let Some(queue) = queue.filter(|queue| sqs::is_fifo(queue)) {
            self.fifo(queue, raw, delay_seconds.as_ref());
        }
        let attributes = raw.attributes.iter().flat_map(|attributes| &attributes.0);
        let attributes: Vec<_> = attributes
            .filter_map(|(name, attribute)| Some((name.clone(), self.attribute(name, attribute)?)))
            .collect();
        if attributes.len() > sqs::ATTRIBUTES_MAX {
            let message =
                format!("{} attributes are given, and SQS takes {}", attributes.len(), sqs::ATTRIBUTES_MAX);
            let fault = Fault::new(codes::TOO_MANY_ATTRIBUTES, self.place("attributes"), message);
            self.faults.push(fault.remedy("move some of them into the message"));
        }
        let sqs = SqsPlan { group_id, deduplication_id, delay_seconds, attributes };
        PropertyPlan { message_id, sqs: Some(sqs), ..PropertyPlan::default() }
    }

    /// Which row a result is about: asked for, since SQS's own ids are nobody's.
    fn message_id(&mut self, raw: &RawTrigger) -> Option<Dynamic> {
        let Some(varying) = &raw.message_id else {
            let message = format!("`{}` does not say what its messages are known by", self.path);
            let fault = Fault::new(codes::MISSING_KEY, self.key, message);
            self.faults.push(
                fault.remedy("add `message_id: {column: …}`; it is reported with the result of each message"),
            );
            return None;
        };
        let dynamic = self.dynamic("message_id", varying)?;
        if let Dynamic::Literal(text) = &dynamic {
            let message = "all messages would be known by the same `message_id`";
            let fault = Fault::new(codes::INVALID_VALUE, self.place("message_id"), message);
            self.faults.push(fault.remedy(format!("write `{{column: {text}}}`, or a template")));
        }
        Some(dynamic)
    }

    fn deduplication(&mut self, raw: &RawTrigger) -> Deduplication {
        let Some(varying) = &raw.deduplication_id else { return Deduplication::ChangeId };
        match self.dynamic("deduplication_id", varying) {
            Some(Dynamic::Literal(text)) if text == CONTENT => Deduplication::Content,
            Some(Dynamic::Literal(_)) => {
                let message =
                    "all messages would have the same `deduplication_id`, and only the first would be taken";
                let fault = Fault::new(codes::INVALID_VALUE, self.place("deduplication_id"), message);
                self.faults.push(fault.remedy(
                    "write `{column: …}` or a template; `content` for a queue that makes the ids of the content; or leave it out to \
                     have the change id",
                ));
                Deduplication::ChangeId
            }
            Some(dynamic) => Deduplication::By(dynamic),
            None => Deduplication::ChangeId,
        }
    }

    fn fifo(&mut self, queue: &str, raw: &RawTrigger, delay: Option<&Dynamic>) {
        if raw.group_id.is_none() {
            let message = format!("`{queue}` is a FIFO queue, and its messages need a `group_id`");
            let fault = Fault::new(codes::MISSING_KEY, self.place("queue"), message);
            self.faults
                .push(fault.remedy("add `group_id: {column: …}`: the messages of a group keep their order"));
        }
        if delay.is_some_and(|delay| !matches!(delay, Dynamic::Literal(text) if text == "0")) {
            let message = format!("`{queue}` is a FIFO queue, which delays no single message");
            let fault = Fault::new(codes::CONFLICTING_KEYS, self.place("delay_seconds"), message);
            self.faults.push(fault.remedy(
                "remove `delay_seconds`; where the sync has it, write `delay_seconds: 0` in this trigger",
            ));
        }
    }

    fn literal_id(&mut self, key: &str, dynamic: Option<&Dynamic>) {
        if let Some(Dynamic::Literal(text)) = dynamic
            && let Some(fault) = rules::id_fault(text)
        {
            let fault = Fault::new(codes::INVALID_VALUE, self.place(key), format!("`{key}` {fault}"));
            self.faults
                .push(fault.remedy("use 1 to 128 letters, digits and punctuation of ASCII, and no space"));
        }
    }

    fn attribute(&mut self, name: &str, attribute: &Attribute) -> Option<AttributePlan> {
        let entry = self.node.get("attributes").and_then(|node| node.entry(name))?;
        if let Some(fault) = rules::name_fault(name) {
            let fault = Fault::new(codes::INVALID_ATTRIBUTE, entry.span, format!("the attribute {fault}"));
            self.faults.push(fault.remedy("choose another name"));
        }
        if let Some(kind) = &attribute.kind
            && let Some(fault) = rules::kind_fault(kind)
        {
            let span = entry.value.get("type").map_or(entry.span, |node| node.span);
            let fault = Fault::new(
                codes::INVALID_ATTRIBUTE,
                span,
                format!("the attribute has the type `{kind}`, {fault}"),
            );
            self.faults.push(fault.remedy("write `String`, `Number` or `Binary`"));
        }
        let value = match &attribute.value {
            AttributeValue::Literal(text) => {
                self.literal_attribute(name, attribute, text);
                AttributeSource::Literal(text.clone())
            }
            AttributeValue::Column(column) => {
                self.check_column(column, entry.value.get("column").map_or(entry.span, |node| node.span));
                AttributeSource::Column(column.clone())
            }
            AttributeValue::Template(text) => {
                let node = entry.value.get("template")?;
                let subject = format!("{}.attributes.{name}.template", self.path);
                let template =
                    self.templates().template(text, Format::Text, &subject, Origin::Value(node))?;
                self.check_reads(template.reads(), node.span);
                AttributeSource::Template(Box::new(template))
            }
        };
        Some(AttributePlan { kind: attribute.kind.clone(), value })
    }

    /// A literal that every row would be rejected for is told now.
    fn literal_attribute(&mut self, name: &str, attribute: &Attribute, text: &str) {
        use warren_engine::message::{HeaderValue, Message, Outbound, Route};
        let kind = attribute.kind.as_deref().unwrap_or("String");
        if rules::name_fault(name).is_some() || rules::kind_fault(kind).is_some() {
            return; // told already
        }
        let mut properties = Properties::default();
        let value = match kind.split('.').next() {
            Some("Binary") => HeaderValue::Bytes(text.as_bytes().to_vec()),
            _ => HeaderValue::Text(text.to_owned()),
        };
        sqs::set_attribute(&mut properties.headers, name, kind, value);
        let message = Message { body: "x".into(), properties };
        let outbound = Outbound { route: Route::Queue("queue".into()), message };
        if let Err(failure) = sqs::check(&outbound, sqs::MESSAGE_BYTES_MAX) {
            let span = self
                .node
                .get("attributes")
                .and_then(|node| node.entry(name))
                .map_or(self.key, |entry| entry.span);
            let fault = Fault::new(failure.code, span, failure.what.clone());
            self.faults.push(fault.remedy("give another value"));
        }
    }
}
