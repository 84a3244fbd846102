//! The request of one delivery: RabbitHub's URL and headers, or a WebSub hub's.

use std::fmt::Write as _;

use crate::delivery::Job;
use crate::hub::callback;
use crate::hub::publish::{QUEUE_TOPIC, write_headers};
use crate::hub::settings::HubSettings;
use crate::hub::sign;
use crate::hub::subscription::{Protocol, Subscription};
use crate::message::{HeaderValue, Headers};
use crate::pipeline::document;
use crate::pipeline::outside::{CallOptions, Hidden, HttpRequest};

/// The most that is read of an answer. More of it is left unread.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// The type of a body of which nobody said another.
const BYTES: &str = "application/octet-stream";

/// What a delivery is made of.
pub struct Told<'t> {
    /// What the operator decided.
    pub settings: &'t HubSettings,
    /// To whom it goes.
    pub subscription: &'t Subscription,
    /// What.
    pub job: &'t Job,
    /// Whether we tried before.
    pub again: bool,
    /// The time, in seconds since the epoch.
    pub now_s: i64,
    /// The id of a message that has none of its own: the same in each attempt.
    pub fresh_id: &'t str,
}

/// How a message came here, as its receiver is told: for one that was rejected elsewhere before, how it came there.
struct Came {
    routing_key: String,
    queue: String,
    exchange: String,
    redelivered: bool,
    /// How often it was rejected.
    count: Option<String>,
}

/// The request. No message is too strange for it: what a header cannot hold is percent-encoded.
pub fn made(told: &Told<'_>) -> HttpRequest {
    let Told { settings, subscription, job, .. } = told;
    let message = &job.message;
    let properties = &message.properties;
    let mut headers = Vec::new();
    let mut set = |name: &str, value: &str| headers.push((name.to_owned(), sendable(value)));
    set("content-type", properties.content_type.as_deref().unwrap_or(BYTES));
    let mut url = callback::without_fragment(&subscription.key.callback).to_owned();
    match subscription.protocol {
        Protocol::Rabbithub => {
            let came = came(job, told.again);
            if settings.append_hub_topic_to_callback {
                url = callback::with_parameters(&url, [("hub.topic", came.routing_key.as_str())]);
            }
            set("x-amqp-routing-key", &came.routing_key);
            set("x-amqp-redelivered", if came.redelivered { "true" } else { "false" });
            if let Some(count) = &came.count {
                set("x-amqp-redelivered-count", count);
            }
            set("x-amqp-queue", &came.queue);
            set("x-amqp-exchange", &came.exchange);
            if properties.headers.iter().any(|(name, _)| name != QUEUE_TOPIC) {
                set("x-rabbithub-msg_header", &write_headers(&properties.headers));
            }
        }
        Protocol::Websub => {
            let hub = settings.hub_url();
            let hub = hub.map(|url| format!("<{}>; rel=\"hub\"", linkable(&url)));
            let topic = Some(format!("<{}>; rel=\"self\"", linkable(&subscription.key.topic)));
            set("link", &hub.into_iter().chain(topic).collect::<Vec<_>>().join(", "));
        }
    }
    let named = [
        (&settings.set_message_id, &properties.message_id),
        (&settings.set_correlation_id, &properties.correlation_id),
    ];
    for (name, value) in named {
        if let (Some(name), Some(value)) = (name, value) {
            set(name, value);
        }
    }
    // RabbitHub left it out.
    let tells_encoding = !settings.compat || subscription.protocol == Protocol::Websub;
    if let Some(encoding) = properties.content_encoding.as_deref().filter(|_| tells_encoding) {
        set("content-encoding", encoding);
    }
    if let Some(secret) = &subscription.secret {
        let id = properties.message_id.as_deref().unwrap_or(told.fresh_id);
        let signed = sign::headers(subscription.signing, &secret.0, &sendable(id), told.now_s, &message.body);
        headers.extend(signed);
    }
    let authorization = subscription.basic_auth.as_ref();
    HttpRequest {
        method: "POST".to_owned(),
        url,
        headers,
        authorization: authorization.map(|basic| Hidden(format!("Basic {}", sendable(&basic.0)))),
        body: message.body.clone(),
        guard: Some(callback::guard(&settings.allow_callbacks)),
        answer_bytes_max: ANSWER_BYTES_MAX,
        options: CallOptions {
            connect_timeout: None,
            timeout: Some(settings.request_timeout),
            cut_answer: true,
            again_if_stale: true,
        },
    }
}

fn came(job: &Job, again: bool) -> Came {
    let envelope = &job.envelope;
    let mut came = Came {
        routing_key: envelope.routing_key.clone(),
        queue: envelope.queue.clone(),
        exchange: envelope.exchange.clone(),
        redelivered: envelope.redelivered || again,
        count: None,
    };
    // The topic that was given when it was published straight to the queue.
    if came.exchange.is_empty()
        && let Some(topic) = job.message.properties.headers.get(QUEUE_TOPIC)
    {
        came.routing_key = text(topic);
    }
    let Some(death) = rejected(&job.message.properties.headers) else { return came };
    came.redelivered = true;
    came.count = death.get("count").map(text);
    let routing_key = match death.get("routing-keys") {
        Some(HeaderValue::Array(keys)) => keys.first().map(text),
        _ => None,
    };
    let held = [
        (&mut came.routing_key, routing_key),
        (&mut came.queue, death.get("queue").map(text)),
        (&mut came.exchange, death.get("exchange").map(text)),
    ];
    for (held, recorded) in held {
        if let Some(recorded) = recorded {
            *held = recorded;
        }
    }
    came
}

/// The record of a death by rejection, if there is one.
fn rejected(headers: &Headers) -> Option<&Headers> {
    let Some(HeaderValue::Array(deaths)) = headers.get("x-death") else { return None };
    deaths.iter().find_map(|death| match death {
        HeaderValue::Table(death) if death.get("reason").map(text).as_deref() == Some("rejected") => {
            Some(death)
        }
        _ => None,
    })
}

/// A value as text: a string as it is, anything else as JSON.
fn text(value: &HeaderValue) -> String {
    match document::header(value) {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// A text as the value of an HTTP header: what is not visible ASCII is percent-encoded.
fn sendable(value: &str) -> String {
    let mut sendable = String::with_capacity(value.len());
    for char in value.chars() {
        if matches!(char, ' '..='~') {
            sendable.push(char);
        } else {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                write!(sendable, "%{byte:02X}").ok(); // writing to a String does not fail
            }
        }
    }
    sendable
}

/// A URL within the angle brackets of `Link`.
fn linkable(url: &str) -> String {
    url.replace('<', "%3C").replace('>', "%3E")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::Envelope;
    use crate::hub::resource::Resource;
    use crate::hub::subscription::{Signing, SubscriptionKey};
    use crate::message::{Message, Properties};

    fn subscription(protocol: Protocol) -> Subscription {
        let resource = Resource::queue("/", "orders");
        let topic = "https://t.example/a".to_owned();
        let key = SubscriptionKey { resource, topic, callback: "http://h/cb?own=1".into() };
        Subscription::new(key, protocol, 0)
    }

    fn job(headers: Headers) -> Job {
        let envelope = Envelope {
            queue: "orders".into(),
            exchange: "events".into(),
            routing_key: "order made".into(),
            ..Envelope::default()
        };
        let properties = Properties {
            message_id: Some("m1".into()),
            correlation_id: Some("c1".into()),
            content_type: Some("text/plain; charset=latin1".into()),
            headers,
            ..Properties::default()
        };
        Job { message: Message { body: Bytes::from_static(b"\x00\xffbody"), properties }, envelope }
    }

    fn request(settings: &HubSettings, subscription: &Subscription, job: &Job) -> HttpRequest {
        made(&Told { settings, subscription, job, again: false, now_s: 1, fresh_id: "fresh" })
    }

    fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
        let found = request.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn table(entries: &[(&str, HeaderValue)]) -> Headers {
        entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn words(text: &str) -> HeaderValue {
        HeaderValue::Text(text.into())
    }

    fn death(reason: &str) -> HeaderValue {
        HeaderValue::Table(table(&[
            ("reason", words(reason)),
            ("count", HeaderValue::I64(3)),
            ("queue", words("first")),
            ("exchange", words("ex")),
            ("routing-keys", HeaderValue::Array(vec![words("key"), words("cc")])),
        ]))
    }

    #[test]
    fn the_headers_of_rabbithub() {
        let mut settings = HubSettings::new(true);
        settings.set_message_id = Some("x-id".into());
        settings.set_correlation_id = Some("x-correlation".into());
        let mut subscription = subscription(Protocol::Rabbithub);
        subscription.basic_auth = Some(Hidden("dTpw".into()));
        let headers = table(&[
            ("a", words("1")),
            ("n", HeaderValue::I32(7)),
            ("t", HeaderValue::Table(table(&[("x", HeaderValue::Bool(true))]))),
        ]);
        let request = request(&settings, &subscription, &job(headers));
        assert_eq!(request.url, "http://h/cb?own=1&hub.topic=order+made");
        assert_eq!(&request.body[..], b"\x00\xffbody");
        assert_eq!(request.authorization, Some(Hidden("Basic dTpw".into())));
        let expected = [
            ("content-type", Some("text/plain; charset=latin1")),
            ("x-amqp-routing-key", Some("order made")),
            ("x-amqp-redelivered", Some("false")),
            ("x-amqp-redelivered-count", None),
            ("x-amqp-queue", Some("orders")),
            ("x-amqp-exchange", Some("events")),
            ("x-rabbithub-msg_header", Some("a = 1, n = 7, t = {\"x\":true}")),
            ("x-id", Some("m1")),
            ("x-correlation", Some("c1")),
            ("x-hub-signature", None),
            ("link", None),
        ];
        for (name, value) in expected {
            assert_eq!(header(&request, name), value, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_sent() {
        let mut settings = HubSettings::new(true);
        settings.append_hub_topic_to_callback = false;
        let mut job = job(Headers::default());
        job.message.properties = Properties::default();
        settings.set_message_id = Some("x-id".into());
        let request = request(&settings, &subscription(Protocol::Rabbithub), &job);
        assert_eq!(request.url, "http://h/cb?own=1");
        assert_eq!(header(&request, "content-type"), Some("application/octet-stream"));
        assert_eq!(header(&request, "x-id"), None);
        assert_eq!(header(&request, "x-rabbithub-msg_header"), None);
    }

    #[test]
    fn the_topic_of_what_was_published_to_a_queue_is_told() {
        let mut job = job(table(&[(QUEUE_TOPIC, words("blue"))]));
        job.envelope.exchange = String::new();
        job.envelope.routing_key = "orders".into();
        let request = request(&HubSettings::new(true), &subscription(Protocol::Rabbithub), &job);
        assert!(request.url.ends_with("hub.topic=blue"), "{}", request.url);
        assert_eq!(header(&request, "x-amqp-routing-key"), Some("blue"));
        assert_eq!(header(&request, "x-rabbithub-msg_header"), None);
    }

    #[test]
    fn a_death_by_rejection_is_told_of_and_any_other_is_not() {
        let settings = HubSettings::new(true);
        let subscription = subscription(Protocol::Rabbithub);
        let told =
            |deaths: HeaderValue| request(&settings, &subscription, &job(table(&[("x-death", deaths)])));
        let rejected = told(HeaderValue::Array(vec![death("expired"), death("rejected")]));
        let expected = [
            ("x-amqp-routing-key", Some("key")),
            ("x-amqp-redelivered", Some("true")),
            ("x-amqp-redelivered-count", Some("3")),
            ("x-amqp-queue", Some("first")),
            ("x-amqp-exchange", Some("ex")),
            ("x-rabbithub-msg_header", Some("")),
        ];
        for (name, value) in expected {
            assert_eq!(header(&rejected, name), value, "{name}");
        }
        assert!(rejected.url.ends_with("hub.topic=key"));
        // RabbitHub crashed with these, again and again.
        for deaths in [
            HeaderValue::Array(vec![death("expired")]),
            HeaderValue::Array(vec![death("maxlen")]),
            HeaderValue::Array(vec![HeaderValue::I64(1), HeaderValue::Table(Headers::default())]),
            HeaderValue::Array(Vec::new()),
            words("nonsense"),
        ] {
            let request = told(deaths);
            assert_eq!(header(&request, "x-amqp-queue"), Some("orders"));
            assert_eq!(header(&request, "x-amqp-redelivered"), Some("false"));
        }
    }

    #[test]
    fn a_websub_delivery_has_links_and_the_exact_callback() {
        let mut settings = HubSettings::new(false);
        settings.public_url = Some("https://hub.example/".into());
        let mut subscription = subscription(Protocol::Websub);
        let bare = request(&settings, &subscription, &job(Headers::default()));
        assert_eq!(bare.url, "http://h/cb?own=1");
        let link = "<https://hub.example/hub>; rel=\"hub\", <https://t.example/a>; rel=\"self\"";
        assert_eq!(header(&bare, "link"), Some(link));
        assert_eq!(header(&bare, "content-type"), Some("text/plain; charset=latin1"));
        assert_eq!(header(&bare, "x-hub-signature"), None, "without a secret there is none");
        subscription.secret = Some(Hidden("s".into()));
        let signed = request(&settings, &subscription, &job(Headers::default()));
        assert!(header(&signed, "x-hub-signature").unwrap().starts_with("sha256="));
        subscription.signing = Signing::Standard;
        let signed = request(&settings, &subscription, &job(Headers::default()));
        assert_eq!(header(&signed, "webhook-id"), Some("m1"));
        assert_eq!(header(&signed, "webhook-timestamp"), Some("1"));
    }

    fn any_value() -> impl Strategy<Value = HeaderValue> {
        let leaf = prop_oneof![
            Just(HeaderValue::Void),
            any::<bool>().prop_map(HeaderValue::Bool),
            any::<i8>().prop_map(HeaderValue::I8),
            any::<u64>().prop_map(HeaderValue::Timestamp),
            any::<f64>().prop_map(HeaderValue::F64),
            (any::<u8>(), any::<i32>()).prop_map(|(scale, value)| HeaderValue::Decimal { scale, value }),
            ".*".prop_map(HeaderValue::Text),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(HeaderValue::Bytes),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(HeaderValue::Array),
                proptest::collection::vec((".{0,6}", inner), 0..4)
                    .prop_map(|entries| HeaderValue::Table(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange_to_be_sent(
            key in ".*", name in ".{0,8}", value in any_value(), deaths in any_value(), id in ".*",
        ) {
            let mut settings = HubSettings::new(true);
            settings.set_message_id = Some("x-id".into());
            let mut job = job(table(&[("x-death", deaths), (&name, value)]));
            job.envelope.routing_key = key;
            job.message.properties.message_id = Some(id);
            let request = request(&settings, &subscription(Protocol::Rabbithub), &job);
            prop_assert!(url::Url::parse(&request.url).is_ok());
            for (_, value) in &request.headers {
                prop_assert!(value.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            }
        }
    }
}
