//! From a request that publishes to an [`Outbound`]; and RabbitHub's header that carries headers, both ways.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::resource::{Resource, ResourceKind};
use crate::message::{HeaderValue, Headers, Message, Outbound, Properties, Route};
use crate::pipeline::document;

/// The header that carries message headers as `a = 1, b = 2`.
pub const MESSAGE_HEADERS: &str = "x-rabbithub-msg_header";

/// The message header that holds `hub.topic` of what was published straight to a queue. AMQP 0-9-1 reaches a queue by the default
/// exchange, whose routing key is the queue's name; RabbitHub wrote into the queue from inside of the broker, with the topic as the
/// routing key. Deliveries show this in its place.
pub const QUEUE_TOPIC: &str = "x-warren-hub-topic";

/// The longest routing key and the longest short property of AMQP 0-9-1, in bytes.
pub const SHORT_BYTES_MAX: usize = 255;

/// What a request says beside the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said<'r> {
    /// `hub.topic`
    pub topic: Option<&'r str>,
    /// `hub.persistmsg`
    pub persist: Option<&'r str>,
    /// `Content-Type`
    pub content_type: Option<&'r str>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'r str>,
    /// [`MESSAGE_HEADERS`]
    pub message_headers: Option<&'r str>,
    /// The id made for the message.
    pub message_id: Option<&'r str>,
    /// The value of the header that `set_correlation_id` names.
    pub correlation_id: Option<&'r str>,
}

/// Why a request cannot be published: a sentence for the one who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit(pub String);

/// The message that a request makes, with its route.
///
/// In compatibility mode a message is transient unless `hub.persistmsg` is `1` or `true`, as RabbitHub had it; else it is persistent
/// unless that is `0` or `false`.
///
/// # Errors
/// A part does not fit into a message.
pub fn outbound(resource: &Resource, said: &Said<'_>, body: Bytes, compat: bool) -> Result<Outbound, Unfit> {
    let topic = short("hub.topic", said.topic)?.unwrap_or_default();
    let mut properties = Properties {
        persistent: persistent(said.persist, compat)?,
        content_type: short("Content-Type", said.content_type)?,
        // RabbitHub did not look at it.
        content_encoding: if compat { None } else { short("Content-Encoding", said.content_encoding)? },
        message_id: short("the message id", said.message_id)?,
        correlation_id: short("the correlation id", said.correlation_id)?,
        ..Properties::default()
    };
    let route = match resource.kind {
        ResourceKind::Queue => {
            if !topic.is_empty() && topic != resource.name {
                properties.headers.set(QUEUE_TOPIC, HeaderValue::Text(topic));
            }
            Route::Queue(resource.name.clone())
        }
        ResourceKind::Exchange => {
            if let Some(text) = said.message_headers {
                // What a subscription delivers has them, and its callback may be an endpoint.
                let sent = read_headers(text, compat)?;
                properties.headers = sent.iter().filter(|(name, _)| !is_reserved(name)).map(owned).collect();
            }
            Route::Exchange { exchange: resource.name.clone(), routing_key: topic }
        }
    };
    check(&properties)?;
    Ok(Outbound { route, message: Message { body, properties } })
}

fn owned((name, value): (&str, &HeaderValue)) -> (String, HeaderValue) {
    (name.to_owned(), value.clone())
}

/// Headers by which RabbitMQ sends a message to more queues. Whoever may write to one queue could reach all with them: the broker checks the
/// permissions of Warren's login, not those of the publisher.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];
/// Headers that brokers set when a message was delivered or dead-lettered before.
const BROKER_HEADERS: [&str; 3] = ["x-death", "x-delivery-count", "x-acquired-count"];
/// The prefixes of headers that Warren and brokers set.
const RESERVED_PREFIXES: [&str; 3] = ["x-warren-", "x-first-death-", "x-last-death-"];
/// The longest expiration that RabbitMQ takes, in milliseconds; it closes the channel over a longer one.
const EXPIRATION_MS_MAX: u64 = u32::MAX as u64;
/// The queue that stands for the channel that publishes: RabbitMQ closes a channel that names it without consuming from it.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether a header, in upper or lower case, is one that only Warren or a broker sets. They count the attempts at a message, say where it
/// came from and mark copies, so a publisher could have its messages dead-lettered, or pass one off as another.
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    BROKER_HEADERS.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Checks that none of the headers of a request is [reserved](is_reserved).
///
/// # Errors
/// One of them is.
pub fn check_names(headers: &Headers) -> Result<(), Unfit> {
    match headers.iter().find(|(name, _)| is_reserved(name)) {
        Some((name, _)) => {
            Err(Unfit(format!("the header {name} can be set only by Warren or the broker: remove it")))
        }
        None => Ok(()),
    }
}

/// What a broker would close the channel for, with all that others have under way on it; and what leads past permissions.
///
/// # Errors
/// A property that no request may have.
pub fn check(properties: &Properties) -> Result<(), Unfit> {
    let routes = |name: &str| ROUTING_HEADERS.iter().any(|routing| name.eq_ignore_ascii_case(routing));
    if let Some((name, _)) = properties.headers.iter().find(|(name, _)| routes(name)) {
        return Err(Unfit(format!(
            "the header {name} is not taken; publish to each queue, or to an exchange"
        )));
    }
    let Properties { expiration, reply_to, .. } = properties;
    if let Some(text) = expiration {
        let digits = text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || text.parse::<u64>().is_ok_and(|ms| ms > EXPIRATION_MS_MAX) || text.is_empty() {
            let rule = format!("expiration is not a whole number of milliseconds up to {EXPIRATION_MS_MAX}");
            return Err(Unfit(rule));
        }
    }
    if reply_to.as_deref() == Some(DIRECT_REPLY_TO) {
        return Err(Unfit(format!("reply_to cannot be {DIRECT_REPLY_TO}: name a queue")));
    }
    let names = properties.headers.iter().map(|(name, _)| ("a header's name", Some(name)));
    let shorts = [
        ("content_type", properties.content_type.as_deref()),
        ("content_encoding", properties.content_encoding.as_deref()),
        ("correlation_id", properties.correlation_id.as_deref()),
        ("reply_to", properties.reply_to.as_deref()),
        ("message_id", properties.message_id.as_deref()),
        ("type", properties.kind.as_deref()),
        ("user_id", properties.user_id.as_deref()),
        ("app_id", properties.app_id.as_deref()),
    ];
    for (name, text) in shorts.into_iter().chain(names) {
        short(name, text)?;
    }
    Ok(())
}

fn persistent(text: Option<&str>, compat: bool) -> Result<bool, Unfit> {
    match text {
        Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        None => Ok(!compat),
        Some(_) if compat => Ok(false),
        Some(_) => Err(Unfit("hub.persistmsg is none of 1, true, 0, false".to_owned())),
    }
}

fn short(name: &str, text: Option<&str>) -> Result<Option<String>, Unfit> {
    match text {
        Some(text) if text.len() > SHORT_BYTES_MAX => {
            Err(Unfit(format!("{name} is longer than {SHORT_BYTES_MAX} bytes")))
        }
        other => Ok(other.map(str::to_owned)),
    }
}

/// Headers of a text such as `a = 1, b = 2`; all are texts. In compatibility mode white space goes, inside of values too.
///
/// # Errors
/// An item is no `name = value`.
pub fn read_headers(text: &str, compat: bool) -> Result<Headers, Unfit> {
    let mut headers = Headers::default();
    for item in text.split(',').filter(|item| !item.trim().is_empty()) {
        let Some((name, value)) = item.split_once('=') else {
            return Err(Unfit(format!("{MESSAGE_HEADERS} is not of the form `name = value, name = value`")));
        };
        let part = |text: &str| {
            if compat { text.split_whitespace().collect() } else { text.trim().to_owned() }
        };
        let (name, value): (String, String) = (part(name), part(value));
        if name.is_empty() {
            return Err(Unfit(format!("{MESSAGE_HEADERS} has a value without a name")));
        }
        if name.len() > SHORT_BYTES_MAX {
            return Err(Unfit(format!(
                "{MESSAGE_HEADERS} has a name that is longer than {SHORT_BYTES_MAX} bytes"
            )));
        }
        headers.set(name, HeaderValue::Text(value));
    }
    Ok(headers)
}

/// The other way: headers as such a text, without `x-death` and what Warren put there. A value that is no text stands as
/// JSON has it.
pub fn write_headers(headers: &Headers) -> String {
    let items =
        headers.iter().filter(|(name, _)| *name != "x-death" && *name != QUEUE_TOPIC).map(|(name, value)| {
            match value {
                HeaderValue::Text(text) => format!("{name} = {text}"),
                other => match document::header(other) {
                    serde_json::Value::String(text) => format!("{name} = {text}"),
                    value => format!("{name} = {value}"),
                },
            }
        });
    items.collect::<Vec<_>>().join(", ")
}

/// The id of a message, of 16 random bytes.
pub fn message_id(random: [u8; 16]) -> String {
    format!("rabbithub_msgid-{}", URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&str, HeaderValue)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn a_request_becomes_a_message() {
        let said = Said {
            topic: Some("blue"),
            content_type: Some("text/plain; charset=utf-8"),
            message_headers: Some("key1 = A,key2 = B"),
            correlation_id: Some("c"),
            ..Said::default()
        };
        let exchange = Resource::exchange("/", "fx");
        let made = outbound(&exchange, &said, Bytes::from_static(b"x"), true).unwrap();
        assert_eq!(made.route, Route::Exchange { exchange: "fx".to_owned(), routing_key: "blue".to_owned() });
        let properties = made.message.properties;
        assert!(!properties.persistent, "RabbitHub's messages were transient");
        assert_eq!(properties.content_type.as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(properties.correlation_id.as_deref(), Some("c"));
        assert_eq!(write_headers(&properties.headers), "key1 = A, key2 = B");
        assert!(outbound(&exchange, &said, Bytes::new(), false).unwrap().message.properties.persistent);
    }

    #[test]
    fn a_message_for_a_queue_keeps_its_topic() {
        let queue = Resource::queue("/", "q");
        let said = Said { topic: Some("blue"), ..Said::default() };
        let made = outbound(&queue, &said, Bytes::new(), false).unwrap();
        assert_eq!(made.route, Route::Queue("q".to_owned()));
        let kept = made.message.properties.headers;
        assert_eq!(kept.get(QUEUE_TOPIC), Some(&HeaderValue::Text("blue".to_owned())));
        assert_eq!(write_headers(&kept), "");
    }

    #[test]
    fn persistmsg_as_it_is_said() {
        for (text, compat, expected) in [
            (Some("1"), true, Ok(true)),
            (Some("true"), false, Ok(true)),
            (Some("false"), false, Ok(false)),
            (None, true, Ok(false)),
            (None, false, Ok(true)),
            (Some("x"), true, Ok(false)),
        ] {
            assert_eq!(persistent(text, compat), expected);
        }
        assert!(persistent(Some("x"), false).is_err());
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let exchange = Resource::exchange("/", "fx");
        let long = "t".repeat(256);
        let unfit = |said| outbound(&exchange, &said, Bytes::new(), false).is_err();
        assert!(unfit(Said { topic: Some(&long), ..Said::default() }));
        assert!(unfit(Said { message_headers: Some("novalue"), ..Said::default() }));
        assert!(unfit(Said { message_headers: Some("=x"), ..Said::default() }));
        assert!(unfit(Said { message_headers: Some("CC = other"), ..Said::default() }));
        let expires =
            |text: &str| check(&Properties { expiration: Some(text.to_owned()), ..Properties::default() });
        assert!(expires("60000").is_ok() && expires("soon").is_err() && expires("").is_err());
        assert!(expires("4294967295").is_ok() && expires("4294967296").is_err() && expires("+1").is_err());
        let reply_to = Some("amq.rabbitmq.reply-to".to_owned());
        assert!(check(&Properties { reply_to, ..Properties::default() }).is_err());
    }

    #[test]
    fn headers_of_warren_and_of_brokers_are_reserved_in_any_case() {
        for name in [
            "x-warren-attempt",
            "X-Warren-Attempts",
            "X-WARREN-",
            "x-warren-hub-topic",
            "x-death",
            "X-Death",
            "x-first-death-queue",
            "X-First-Death-Reason",
            "x-last-death-exchange",
            "x-delivery-count",
            "X-DELIVERY-COUNT",
            "x-acquired-count",
        ] {
            assert!(is_reserved(name), "{name}");
            assert!(check_names(&headers(&[(name, HeaderValue::Void)])).is_err(), "{name}");
            let exchange = Resource::exchange("/", "fx");
            let text = format!("a = 1, {name} = 2");
            for compat in [true, false] {
                let said = Said { message_headers: Some(&text), ..Said::default() };
                let made = outbound(&exchange, &said, Bytes::new(), compat).unwrap();
                assert_eq!(write_headers(&made.message.properties.headers), "a = 1", "{name} is dropped");
            }
        }
        for name in ["x-warren", "x-my-death", "x-deaths", "death", "x-delay", "delivery-count", "x-match"] {
            assert!(!is_reserved(name), "{name}");
        }
        for name in ["CC", "cc", "Bcc", "BCC"] {
            let properties =
                Properties { headers: headers(&[(name, HeaderValue::Void)]), ..Properties::default() };
            assert!(check(&properties).is_err(), "{name}");
        }
        let spaced = Said { message_headers: Some("x - death = 1, b = 2"), ..Said::default() };
        let made = outbound(&Resource::exchange("/", "fx"), &spaced, Bytes::new(), true).unwrap();
        assert_eq!(write_headers(&made.message.properties.headers), "b = 2", "compat removes blanks first");
    }

    #[test]
    fn values_keep_what_they_hold() {
        // A value with `=` once dropped the connection.
        assert_eq!(
            read_headers("a = x=y , b = two words,", false),
            Ok(headers(&[
                ("a", HeaderValue::Text("x=y".to_owned())),
                ("b", HeaderValue::Text("two words".to_owned()))
            ]))
        );
        assert_eq!(
            read_headers("b = two words", true),
            Ok(headers(&[("b", HeaderValue::Text("twowords".to_owned()))]))
        );
    }

    #[test]
    fn values_that_are_no_text_once_crashed_the_consumer() {
        let mixed = headers(&[
            ("x-death", HeaderValue::Array(vec![HeaderValue::Table(Headers::default())])),
            ("n", HeaderValue::I32(-1)),
            ("list", HeaderValue::Array(vec![HeaderValue::Bool(true), HeaderValue::Void])),
            ("raw", HeaderValue::Bytes(vec![0xff])),
            ("lines", HeaderValue::Text("a\r\nX: y".to_owned())),
        ]);
        assert_eq!(write_headers(&mixed), "n = -1, list = [true,null], raw = /w==, lines = a\r\nX: y");
    }

    #[test]
    fn an_id_has_22_characters() {
        assert_eq!(message_id([7; 16]).len(), "rabbithub_msgid-".len() + 22);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*", compat: bool) {
            read_headers(&text, compat).ok();
        }

        #[test]
        fn headers_come_back(pairs in proptest::collection::btree_map("[a-z]{1,8}", "[a-zA-Z0-9=/ ]{0,12}", 0..6)) {
            let sent: Headers = pairs.iter()
                .map(|(name, value)| (name.clone(), HeaderValue::Text(value.trim().to_owned()))).collect();
            prop_assert_eq!(read_headers(&write_headers(&sent), false), Ok(sent));
        }
    }
}
