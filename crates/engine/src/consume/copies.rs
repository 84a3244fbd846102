//! A message as it was first, how often it was tried, and the copies that are made of it.
//!
//! A copy for a later try carries two headers: how many attempts are spent ([`ATTEMPT`]) and a table of what publishing it
//! again would change or act on ([`ORIGIN`]): its exchange and routing key, when it was first received, and what a broker
//! obeys or overwrites (`user_id`, `expiration`, `CC`, earlier `x-death`). When the copy comes back the message is put
//! together again, so that a handler sees the same message in every attempt, and a dead letter is the message as it was.

use std::sync::Arc;

use crate::delivery::Job;
use crate::message::{HeaderValue, Headers, Message, Outbound, Route};

use super::policy::Reason;

/// The header with the number of attempts that are spent.
pub const ATTEMPT: &str = "x-warren-attempt";
/// The header with what a copy is to be put together from.
pub const ORIGIN: &str = "x-warren-origin";
/// The header with all that says why, as JSON, where a broker takes few headers.
pub const REASON: &str = "x-warren-dead-letter";
/// All delay queues' names begin so.
pub const DELAY_QUEUE_PREFIX: &str = "warren.delay.";

/// What a broker writes about a message's way, and overwrites in a copy's.
pub const WRITTEN_BY_BROKERS: [&str; 7] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];
/// What a broker counts; a copy begins anew.
const COUNTED_BY_BROKERS: [&str; 2] = ["x-delivery-count", "x-acquired-count"];
/// What a broker routes by, whatever the route says.
const ROUTED_BY: [&str; 2] = ["CC", "BCC"];

/// A message received, as it was first.
#[derive(Debug, Clone)]
pub struct Received {
    /// The message and its envelope, as at its first delivery but for `redelivered`, tags and counts.
    pub job: Arc<Job>,
    /// How many attempts are spent.
    pub spent: u32,
    /// Whether it was attempted before, whether that counted or not.
    pub again: bool,
    /// When it was first received, in milliseconds since the epoch.
    pub first_at_ms: i64,
    /// When it was received now.
    pub received_at_ms: i64,
    /// Why it is given up, where that was decided before and only the broker is still to be told.
    pub given_up: Option<String>,
}

/// What SQS calls its count of deliveries.
pub const RECEIVE_COUNT: &str = "ApproximateReceiveCount";

/// Reads a message that was received, perhaps a copy of ours. `uncounted`: the broker alone counts the attempts at this message, and so
/// many of the deliveries it counts are known to have been none.
pub fn receive(mut job: Job, now_ms: i64, uncounted: Option<u32>) -> Received {
    let own = job.message.properties.headers.remove(ATTEMPT);
    let own = own.as_ref().and_then(integer);
    let rejected = rejections(&job);
    let (mut first_at_ms, mut given_up) = (now_ms, None);
    if let Some(HeaderValue::Table(mut origin)) = job.message.properties.headers.remove(ORIGIN) {
        // Once it was rejected for that, whoever led it back here wants it tried again.
        given_up = text(&mut origin, "given-up").filter(|_| rejected == 0);
        first_at_ms = restore(&mut job, origin).unwrap_or(now_ms);
    }
    let spent = spent(&job, own, rejected, uncounted);
    let again = own.is_some() || spent > 0;
    Received { job: Arc::new(job), spent, again, first_at_ms, received_at_ms: now_ms, given_up }
}

/// How many attempts are spent: those our own header says, and every time this queue's consumer rejected the message since. What a
/// broker counts otherwise (`x-delivery-count`, `x-acquired-count`, other entries of `x-death`) also counts deliveries that were no attempt:
/// requeued, expired, overflown, handed back, or lost with a connection. It is believed only where it is the only count there is.
fn spent(job: &Job, own: Option<u64>, rejected: u64, uncounted: Option<u32>) -> u32 {
    let known = own.unwrap_or_else(|| delays(job)).saturating_add(rejected);
    let counted = uncounted.map_or(0, |uncounted| earlier_deliveries(job).saturating_sub(uncounted.into()));
    u32::try_from(known.max(counted)).unwrap_or(u32::MAX)
}

/// How many deliveries before this one the broker counts.
fn earlier_deliveries(job: &Job) -> u64 {
    let envelope = &job.envelope;
    let received = envelope.system.get(RECEIVE_COUNT).and_then(|count| count.parse::<u64>().ok());
    let counted = job.message.properties.headers.get("x-delivery-count").and_then(integer);
    let received = received.map_or(0, |count| count.saturating_sub(1));
    received.max(counted.unwrap_or(0)).max(envelope.delivery_count.unwrap_or(0))
}

/// How often the message was rejected by a consumer of this queue and led back here, by `x-death`. In a copy of ours, since the copy.
fn rejections(job: &Job) -> u64 {
    deaths(job, |queue, reason| queue == job.envelope.queue && reason == "rejected")
}

/// How often it came back from a delay queue of ours, for a copy that has lost its header.
fn delays(job: &Job) -> u64 {
    let prefix = format!("{DELAY_QUEUE_PREFIX}{}.", job.envelope.queue);
    deaths(job, |queue, reason| queue.starts_with(&prefix) && reason == "expired")
}

/// The sum of the counts in `x-death`, of entries with such a queue and reason.
fn deaths(job: &Job, counts: impl Fn(&str, &str) -> bool) -> u64 {
    let Some(HeaderValue::Array(deaths)) = job.message.properties.headers.get("x-death") else { return 0 };
    let counted = deaths.iter().filter_map(|death| match death {
        HeaderValue::Table(death) => match (death.get("queue"), death.get("reason")) {
            (Some(HeaderValue::Text(queue)), Some(HeaderValue::Text(reason))) if counts(queue, reason) => {
                death.get("count").and_then(integer)
            }
            _ => None,
        },
        _ => None,
    });
    counted.fold(0, u64::saturating_add)
}

/// A count, as whatever integer it comes; negative ones count nothing.
fn integer(value: &HeaderValue) -> Option<u64> {
    match value {
        HeaderValue::I8(value) => u64::try_from(*value).ok(),
        HeaderValue::U8(value) => Some((*value).into()),
        HeaderValue::I16(value) => u64::try_from(*value).ok(),
        HeaderValue::U16(value) => Some((*value).into()),
        HeaderValue::I32(value) => u64::try_from(*value).ok(),
        HeaderValue::U32(value) => Some((*value).into()),
        HeaderValue::I64(value) => u64::try_from(*value).ok(),
        HeaderValue::Text(text) => text.parse().ok(),
        HeaderValue::Void
        | HeaderValue::Bool(_)
        | HeaderValue::F32(_)
        | HeaderValue::F64(_)
        | HeaderValue::Decimal { .. }
        | HeaderValue::Bytes(_)
        | HeaderValue::Timestamp(_)
        | HeaderValue::Array(_)
        | HeaderValue::Table(_) => None,
    }
}

/// Puts a message together again; yields when it was first received.
fn restore(job: &mut Job, mut origin: Headers) -> Option<i64> {
    if let Some(exchange) = text(&mut origin, "exchange") {
        job.envelope.exchange = exchange;
    }
    if let Some(routing_key) = text(&mut origin, "routing-key") {
        job.envelope.routing_key = routing_key;
    }
    let properties = &mut job.message.properties;
    properties.user_id = text(&mut origin, "user-id");
    properties.expiration = text(&mut origin, "expiration");
    if origin.remove("transient").is_some() {
        properties.persistent = false;
    }
    for name in WRITTEN_BY_BROKERS {
        properties.headers.remove(name);
    }
    let first = match origin.remove("first-received") {
        Some(HeaderValue::I64(at)) => Some(at),
        _ => None,
    };
    if let Some(HeaderValue::Table(kept)) = origin.remove("headers") {
        for (name, value) in kept.iter() {
            properties.headers.set(name, value.clone());
        }
    }
    first
}

fn text(origin: &mut Headers, name: &str) -> Option<String> {
    match origin.remove(name) {
        Some(HeaderValue::Text(text)) => Some(text),
        _ => None,
    }
}

/// The copy that goes back to the queue only to be rejected there: of a parked message, whose original was acked, where the
/// broker keeps the dead letters.
pub fn given_up_copy(received: &Received, spent: u32, reason: &Reason) -> Outbound {
    let route = Route::Queue(received.job.envelope.queue.clone());
    let mut outbound = retry_copy(received, spent, route);
    let headers = &mut outbound.message.properties.headers;
    if let Some(HeaderValue::Table(mut origin)) = headers.remove(ORIGIN) {
        origin.set("given-up", HeaderValue::Text(short(&reason.text).to_owned()));
        headers.set(ORIGIN, HeaderValue::Table(origin));
    }
    outbound
}

/// The copy for a later try, of a message of which `spent` attempts are spent.
pub fn retry_copy(received: &Received, spent: u32, route: Route) -> Outbound {
    let job = &*received.job;
    let mut message = job.message.clone();
    message.properties.headers.set(ATTEMPT, HeaderValue::I64(spent.into()));
    let mut origin = set_apart(&mut message);
    origin.set("exchange", HeaderValue::Text(job.envelope.exchange.clone()));
    origin.set("routing-key", HeaderValue::Text(job.envelope.routing_key.clone()));
    origin.set("first-received", HeaderValue::I64(received.first_at_ms));
    message.properties.headers.set(ORIGIN, HeaderValue::Table(origin));
    Outbound { route, message }
}

/// The copy for a later try without the headers it can do without, for a broker that does not take the whole: without the history that
/// brokers wrote, and with a short reason. What puts the message together again stays.
pub fn bare_retry_copy(mut copy: Outbound) -> Outbound {
    let headers = &mut copy.message.properties.headers;
    if let Some(HeaderValue::Table(mut origin)) = headers.remove(ORIGIN) {
        if let Some(HeaderValue::Table(mut kept)) = origin.remove("headers") {
            for name in WRITTEN_BY_BROKERS {
                kept.remove(name);
            }
            if !kept.is_empty() {
                origin.set("headers", HeaderValue::Table(kept));
            }
        }
        if origin.remove("given-up").is_some() {
            origin.set("given-up", HeaderValue::Text("dead-lettered".into()));
        }
        headers.set(ORIGIN, HeaderValue::Table(origin));
    }
    copy
}

/// A dead letter with nothing but the message's own properties and headers, for a broker that does not take the reason as well. The reason
/// is on record.
pub fn bare_dead_letter_copy(received: &Received) -> Message {
    let mut message = received.job.message.clone();
    set_apart(&mut message);
    message
}

/// Takes out of a message what a broker would obey or overwrite in a copy.
fn set_apart(message: &mut Message) -> Headers {
    let properties = &mut message.properties;
    let mut origin = Headers::default();
    // RabbitMQ refuses a user other than the connection's own.
    if let Some(user_id) = properties.user_id.take() {
        origin.set("user-id", HeaderValue::Text(user_id));
    }
    // A copy that expired would be lost without a word.
    if let Some(expiration) = properties.expiration.take() {
        origin.set("expiration", HeaderValue::Text(expiration));
    }
    if !std::mem::replace(&mut properties.persistent, true) {
        origin.set("transient", HeaderValue::Bool(true));
    }
    let mut kept = Headers::default();
    for name in WRITTEN_BY_BROKERS.into_iter().chain(ROUTED_BY) {
        if let Some(value) = properties.headers.remove(name) {
            kept.set(name, value);
        }
    }
    for name in COUNTED_BY_BROKERS {
        properties.headers.remove(name);
    }
    if !kept.is_empty() {
        origin.set("headers", HeaderValue::Table(kept));
    }
    origin
}

/// The copy for the dead-letter queue: body, properties and headers as they were, and why it is there.
///
/// Three things are moved into [`ORIGIN`] because a broker would act on them: `user_id`, `expiration` (the dead letter would
/// vanish), and the headers `CC` and `BCC`.
pub fn dead_letter_copy(received: &Received, reason: &Reason, attempts: u32, now_ms: i64) -> Message {
    let job = &*received.job;
    let mut message = job.message.clone();
    let mut origin = set_apart(&mut message);
    let headers = &mut message.properties.headers;
    // These say how it came here before; nothing overwrites them in a queue that only keeps.
    if let Some(HeaderValue::Table(mut kept)) = origin.remove("headers") {
        for name in WRITTEN_BY_BROKERS {
            if let Some(value) = kept.remove(name) {
                headers.set(name, value);
            }
        }
        if !kept.is_empty() {
            origin.set("headers", HeaderValue::Table(kept));
        }
    }
    // SQS takes neither an empty value nor a control character: with one a dead letter would never be taken.
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            headers.set(name, HeaderValue::Text(printable(value)));
        }
    };
    text("x-warren-reason", short(&reason.text));
    text("x-warren-class", reason.class.as_str());
    text("x-warren-queue", &job.envelope.queue);
    text("x-warren-exchange", &job.envelope.exchange);
    text("x-warren-routing-key", &job.envelope.routing_key);
    if let Some(failure) = &reason.failure {
        text("x-warren-code", failure.code.as_str());
        if let Some(answer) = failure.said.as_ref().and_then(|said| said.answer.as_ref()) {
            text("x-warren-answer", short(answer));
        }
    }
    let mut number = |name: &str, value: i64| headers.set(name, HeaderValue::I64(value));
    number("x-warren-attempts", attempts.into());
    number("x-warren-first-at", received.first_at_ms);
    number("x-warren-last-at", now_ms);
    if let Some(said) = reason.failure.as_ref().and_then(|failure| failure.said.as_ref()) {
        if let Some(status) = said.status {
            number("x-warren-status", status.into());
        }
        if let Some(exit_code) = said.exit_code {
            number("x-warren-exit-code", exit_code.into());
        }
    }
    if !origin.is_empty() {
        headers.set(ORIGIN, HeaderValue::Table(origin));
    }
    message
}

/// Puts what says why into one header, [`REASON`], as JSON, where a broker takes fewer headers than there are. Where even one is too many
/// the message goes without: it is worth more than its reason, which is on record.
pub fn within(mut message: Message, headers_max: Option<usize>) -> Message {
    let Some(max) = headers_max.filter(|max| message.properties.headers.len() > *max) else { return message };
    let (ours, theirs): (Vec<_>, Vec<_>) = message
        .properties
        .headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .partition(|(name, _)| name.starts_with("x-warren-"));
    let mut reason = serde_json::Map::new();
    for (name, value) in ours {
        let value = match value {
            HeaderValue::Text(text) => text.into(),
            HeaderValue::I64(number) => number.into(),
            other => serde_json::to_value(other).unwrap_or_default(),
        };
        reason.insert(name.trim_start_matches("x-warren-").to_owned(), value);
    }
    let mut headers: Headers = theirs.into_iter().collect();
    if headers.len() < max {
        headers.set(REASON, HeaderValue::Text(serde_json::Value::Object(reason).to_string()));
    }
    message.properties.headers = headers;
    message
}

/// A text without what XML 1.0, and so SQS, has no character for.
fn printable(text: &str) -> String {
    let fits = |c: char| c >= ' ' && c != '\u{fffe}' && c != '\u{ffff}' || matches!(c, '\t' | '\n' | '\r');
    text.chars().map(|c| if fits(c) { c } else { '\u{fffd}' }).collect()
}

/// The first 2 KiB of a text.
fn short(text: &str) -> &str {
    let mut end = text.len().min(crate::failure::Said::ANSWER_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What a message is told by where nothing else tells it: body, properties and headers, without what brokers write.
pub fn print(job: &Job) -> u128 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let properties = &job.message.properties;
    hash.update(&(job.message.body.len() as u64).to_le_bytes());
    hash.update(&job.message.body);
    for text in [
        Some(&job.envelope.queue),
        properties.message_id.as_ref(),
        properties.correlation_id.as_ref(),
        properties.kind.as_ref(),
        properties.reply_to.as_ref(),
    ] {
        hash.update(&[u8::from(text.is_some())]);
        let text = text.map_or("", String::as_str);
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.update(&properties.timestamp.unwrap_or(0).to_le_bytes());
    // Zero stands for "none" wherever prints are kept.
    hash.digest128().max(1)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::consume::policy::Class;
    use crate::delivery::Envelope;
    use crate::message::Properties;

    fn job(properties: Properties) -> Job {
        let envelope = Envelope {
            queue: "orders".into(),
            exchange: "events".into(),
            routing_key: "order.made".into(),
            ..Envelope::default()
        };
        Job { message: Message { body: Bytes::from_static(b"\x00\xffbody"), properties }, envelope }
    }

    /// What comes back from a delay queue: RabbitMQ writes its deaths and takes the expiration away.
    fn back(copy: Outbound, queue: &str) -> Job {
        let mut message = copy.message;
        message.properties.expiration = None;
        let death: Headers = [
            ("queue".to_owned(), HeaderValue::Text(format!("{DELAY_QUEUE_PREFIX}{queue}.10000"))),
            ("count".to_owned(), HeaderValue::I64(1)),
        ]
        .into_iter()
        .collect();
        message.properties.headers.set("x-death", HeaderValue::Array(vec![HeaderValue::Table(death)]));
        message.properties.headers.set("x-first-death-reason", HeaderValue::Text("expired".into()));
        let envelope = Envelope { queue: queue.into(), routing_key: queue.into(), ..Envelope::default() };
        Job { message, envelope }
    }

    fn full() -> Properties {
        Properties {
            content_type: Some("text/plain".into()),
            persistent: false,
            priority: Some(3),
            expiration: Some("60000".into()),
            user_id: Some("shop".into()),
            message_id: Some("m1".into()),
            headers: [
                ("a".to_owned(), HeaderValue::Decimal { scale: 2, value: 314 }),
                ("CC".to_owned(), HeaderValue::Array(vec![HeaderValue::Text("other".into())])),
                (
                    "x-death".to_owned(),
                    HeaderValue::Array(vec![HeaderValue::Table(death("orders", "rejected", 2))]),
                ),
            ]
            .into_iter()
            .collect(),
            ..Properties::default()
        }
    }

    fn sorted(message: &Message) -> Vec<(String, HeaderValue)> {
        let mut headers: Vec<_> =
            message.properties.headers.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        headers.sort_by(|one, other| one.0.cmp(&other.0));
        headers
    }

    #[test]
    fn what_comes_back_is_the_message_as_it_was_first() {
        let first = receive(job(full()), 1000, None);
        assert_eq!(first.spent, 2, "rejections count");
        let mut received = first.clone();
        for spent in 3..6 {
            let copy = retry_copy(&received, spent, Route::Queue("delay".into()));
            // Nothing that a broker would refuse, route by or expire.
            let properties = &copy.message.properties;
            assert!(properties.user_id.is_none() && properties.expiration.is_none() && properties.persistent);
            assert!(properties.headers.get("CC").is_none() && properties.headers.get("x-death").is_none());
            received = receive(back(copy, "orders"), 5000, None);
            assert_eq!((received.spent, received.first_at_ms), (spent, 1000));
            let (one, other) = (&first.job.message, &received.job.message);
            assert_eq!(sorted(one), sorted(other));
            let headless = |message: &Message| Message {
                properties: Properties { headers: Headers::default(), ..message.properties.clone() },
                ..message.clone()
            };
            assert_eq!(headless(one), headless(other));
            assert_eq!(received.job.envelope.exchange, "events");
            assert_eq!(received.job.envelope.routing_key, "order.made");
        }
    }

    #[test]
    fn a_dead_letter_says_nothing_that_a_broker_would_not_take() {
        let mut job = job(Properties::default());
        job.envelope.exchange = String::new();
        let reason = Reason { class: Class::Rejected, text: "a\u{0}b\u{16}c\n".into(), failure: None };
        let dead = dead_letter_copy(&receive(job, 1000, None), &reason, 1, 2000);
        let headers = &dead.properties.headers;
        assert_eq!(headers.get("x-warren-exchange"), None);
        assert_eq!(headers.get("x-warren-reason"), Some(&HeaderValue::Text("a\u{fffd}b\u{fffd}c\n".into())));
    }

    #[test]
    fn a_dead_letter_is_the_message_with_a_reason() {
        let properties = Properties { expiration: None, user_id: None, persistent: true, ..full() };
        let mut properties = properties;
        properties.headers.remove("CC");
        let first = receive(job(properties), 1000, None);
        let copy = retry_copy(&first, 3, Route::Queue("delay".into()));
        let received = receive(back(copy, "orders"), 2000, None);
        let reason = Reason { class: Class::Exhausted, text: "failed 4 times".into(), failure: None };
        let dead = dead_letter_copy(&received, &reason, 4, 9000);
        assert_eq!(dead.body, first.job.message.body);
        let (ours, theirs): (Vec<_>, Vec<_>) =
            sorted(&dead).into_iter().partition(|(name, _)| name.starts_with("x-warren-"));
        assert_eq!(theirs, sorted(&first.job.message));
        let bare = |properties: &Properties| Properties { headers: Headers::default(), ..properties.clone() };
        assert_eq!(bare(&dead.properties), bare(&first.job.message.properties));
        let names: Vec<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "x-warren-attempts",
                "x-warren-class",
                "x-warren-exchange",
                "x-warren-first-at",
                "x-warren-last-at",
                "x-warren-queue",
                "x-warren-reason",
                "x-warren-routing-key",
            ]
        );
        assert_eq!(dead.properties.headers.get("x-warren-attempts"), Some(&HeaderValue::I64(4)));
        assert_eq!(dead.properties.headers.get("x-warren-first-at"), Some(&HeaderValue::I64(1000)));
    }

    #[test]
    fn a_dead_letter_neither_expires_nor_goes_astray() {
        let reason = Reason { class: Class::Rejected, text: "no".into(), failure: None };
        let dead = dead_letter_copy(&receive(job(full()), 1, None), &reason, 1, 2);
        assert!(dead.properties.expiration.is_none() && dead.properties.user_id.is_none());
        assert!(dead.properties.headers.get("CC").is_none() && dead.properties.persistent);
        let Some(HeaderValue::Table(origin)) = dead.properties.headers.get(ORIGIN) else {
            panic!("kept apart")
        };
        assert_eq!(origin.get("expiration"), Some(&HeaderValue::Text("60000".into())));
    }

    fn death(queue: &str, reason: &str, count: i64) -> Headers {
        let text = |text: &str| HeaderValue::Text(text.to_owned());
        let death = [("queue", text(queue)), ("reason", text(reason)), ("count", HeaderValue::I64(count))];
        death.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn only_our_own_retries_and_rejections_are_attempts() {
        let spent = |own: Option<i64>, deaths: &[(&str, &str, i64)], delivered: Option<u64>| {
            let mut properties = Properties::default();
            if let Some(own) = own {
                properties.headers.set(ATTEMPT, HeaderValue::I64(own));
            }
            if let Some(delivered) = delivered {
                properties.headers.set("x-delivery-count", HeaderValue::I64(delivered as i64));
                properties.headers.set("x-acquired-count", HeaderValue::I64(delivered as i64));
            }
            let deaths = deaths.iter().map(|(queue, reason, count)| death(queue, reason, *count));
            properties.headers.set("x-death", HeaderValue::Array(deaths.map(HeaderValue::Table).collect()));
            let mut job = job(properties);
            job.envelope.delivery_count = delivered;
            receive(job, 0, None).spent
        };
        let delay = "warren.delay.orders.12000";
        assert_eq!(spent(None, &[], None), 0);
        assert_eq!(spent(Some(4), &[], None), 4);
        assert_eq!(spent(Some(-7), &[], None), 0);
        // Nine queues that lead one into the other, and this one.
        let hops: Vec<String> = (0..9).map(|hop| format!("hop.{hop}")).collect();
        let hops: Vec<(&str, &str, i64)> = hops.iter().map(|hop| (hop.as_str(), "expired", 1)).collect();
        assert_eq!(spent(None, &hops, None), 0);
        for reason in ["expired", "maxlen", "delivery_limit"] {
            assert_eq!(spent(None, &[("orders", reason, 5)], None), 0, "{reason}");
            assert_eq!(spent(Some(1), &[("other", reason, 5)], None), 1, "{reason}");
        }
        assert_eq!(spent(None, &[("other", "rejected", 5)], None), 0, "another consumer's");
        assert_eq!(spent(None, &[("orders", "rejected", 2)], None), 2);
        assert_eq!(spent(Some(3), &[("orders", "rejected", 2)], None), 5, "since the copy was made");
        assert_eq!(spent(Some(3), &[(delay, "expired", 3)], None), 3, "our header says it already");
        assert_eq!(spent(None, &[(delay, "expired", 3)], None), 3);
        assert_eq!(spent(None, &[("warren.delay.other.12000", "expired", 3)], None), 0);
        // Requeued, handed back, or lost with a connection.
        assert_eq!(spent(None, &[], Some(20)), 0);
        assert_eq!(spent(Some(1), &[], Some(20)), 1);
        assert_eq!(spent(Some(1), &[("orders", "rejected", i64::MAX)], None), u32::MAX);
    }

    #[test]
    fn where_only_the_broker_counts_deliveries_that_were_no_attempt_are_taken_off() {
        let spent = |received: &str, delivered: Option<u64>, uncounted: u32| {
            let mut job = job(Properties::default());
            job.envelope.delivery_count = delivered;
            job.envelope.system.insert(RECEIVE_COUNT.to_owned(), received.to_owned());
            receive(job, 0, Some(uncounted)).spent
        };
        assert_eq!(spent("1", None, 0), 0);
        assert_eq!(spent("4", None, 0), 3);
        assert_eq!(spent("4", None, 2), 1);
        assert_eq!(spent("4", None, 9), 0);
        assert_eq!(spent("x", Some(3), 1), 2);
    }

    #[test]
    fn a_message_that_was_given_up_and_led_back_is_tried_again() {
        let mut properties = Properties::default();
        let origin: Headers =
            [("given-up".to_owned(), HeaderValue::Text("failed 9 times".into()))].into_iter().collect();
        properties.headers.set(ORIGIN, HeaderValue::Table(origin));
        let given_up = |properties: &Properties| receive(job(properties.clone()), 0, None).given_up;
        assert_eq!(given_up(&properties).as_deref(), Some("failed 9 times"));
        let rejected = HeaderValue::Table(death("orders", "rejected", 1));
        properties.headers.set("x-death", HeaderValue::Array(vec![rejected]));
        assert_eq!(given_up(&properties), None);
    }

    #[test]
    fn where_headers_are_few_the_reason_is_one_of_them() {
        let mut properties = Properties::default();
        for at in 0..9 {
            properties.headers.set(format!("h{at}"), HeaderValue::I64(at));
        }
        let reason = Reason { class: Class::Rejected, text: "no".into(), failure: None };
        let dead = |properties: &Properties| {
            within(dead_letter_copy(&receive(job(properties.clone()), 1, None), &reason, 1, 2), Some(10))
        };
        let copy = dead(&properties);
        assert_eq!(copy.properties.headers.len(), 10);
        let Some(HeaderValue::Text(text)) = copy.properties.headers.get(REASON) else {
            panic!("it is there")
        };
        let told: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!((&told["reason"], &told["attempts"]), (&"no".into(), &1.into()));
        properties.headers.set("h9", HeaderValue::I64(9));
        assert_eq!(dead(&properties).properties.headers, properties.headers);
        let few = Properties::default();
        assert!(
            within(dead_letter_copy(&receive(job(few), 1, None), &reason, 1, 2), None)
                .properties
                .headers
                .get(REASON)
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange_to_be_received(
            own in any::<i64>(), origin in proptest::collection::vec((".{0,8}", any::<i64>()), 0..5),
        ) {
            let mut properties = Properties::default();
            properties.headers.set(ATTEMPT, HeaderValue::I64(own));
            let origin: Headers =
                origin.into_iter().map(|(name, value)| (name, HeaderValue::I64(value))).collect();
            properties.headers.set(ORIGIN, HeaderValue::Table(origin));
            let received = receive(job(properties), 3, None);
            prop_assert!(received.job.message.properties.headers.is_empty());
        }
    }
}
