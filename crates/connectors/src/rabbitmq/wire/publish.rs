//! A publish in full: the method, the header and the body's frames; written without an allocation of its own, and read
//! again from the written bytes when the broker's answer must be matched to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use warren_engine::message::{Message, Properties, Route};

use super::content;
use super::field::{Reader, put_short, put_u16};
use super::frame::{self, BODY, HEADER, METHOD, OVERHEAD};
use super::method::{BASIC, BASIC_PUBLISH};
use super::{Malformed, Unsayable};

const MANDATORY: u8 = 1;
/// The pseudo-queue of RabbitMQ's direct reply-to; a requester's own has a token after a dot.
pub(crate) const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// The exchange and the routing key of a route. The default exchange takes a queue's name as routing key.
pub(crate) fn address(route: &Route) -> (&str, &str) {
    match route {
        Route::Queue(queue) => ("", queue),
        Route::Exchange { exchange, routing_key } => (exchange, routing_key),
    }
}

/// How many bytes of properties and headers a connection's frames take.
pub(crate) fn header_bytes_max(frame_max: usize) -> usize {
    frame_max.saturating_sub(OVERHEAD + content::FIXED)
}

/// Whether the default exchange hands a message with this routing key to a requester that waits for a direct reply.
pub(crate) fn is_direct_reply(exchange: &str, routing_key: &str) -> bool {
    exchange.is_empty()
        && routing_key
            .strip_prefix(DIRECT_REPLY)
            .is_some_and(|token| token.is_empty() || token.starts_with('.'))
}

/// Whether RabbitMQ can read the token of a direct reply. It takes the first of two parts for the id of a process, and closes the
/// connection, with all that others have on it, where that cannot be decoded.
pub(crate) fn is_readable_reply_token(routing_key: &str) -> bool {
    let token = routing_key.strip_prefix(DIRECT_REPLY).unwrap_or_default();
    let parts: Vec<&str> = token.split('.').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [process, _] => STANDARD.decode(process).is_ok_and(|bytes| is_process_id(&bytes)),
        _ => true, // it is not taken for a token
    }
}

/// Whether bytes are the id of a process in Erlang's external term format: version, tag, the node's name, and the numbers.
fn is_process_id(bytes: &[u8]) -> bool {
    const VERSION: u8 = 131;
    let (numbers, rest) = match bytes {
        [VERSION, 88, rest @ ..] => (12, rest), // NEW_PID_EXT
        [VERSION, 103, rest @ ..] => (9, rest), // PID_EXT
        _ => return false,
    };
    let (length, rest) = match rest {
        [100 | 118, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        [115 | 119, length, rest @ ..] => (usize::from(*length), rest),
        _ => return false,
    };
    let name = rest.get(..length).unwrap_or_default();
    rest.len() == length + numbers && (1..=255).contains(&length) && name.is_ascii() && name.contains(&b'@')
}

/// Writes a publish, mandatory except to direct reply-to: RabbitMQ delivers a mandatory message there and returns it as unroutable
/// all the same. What cannot be said leaves nothing behind in `out`.
pub(crate) fn put_publish(
    out: &mut Vec<u8>,
    channel: u16,
    frame_max: usize,
    route: &Route,
    message: &Message,
) -> Result<(), Unsayable> {
    let start = out.len();
    let written = put_frames(out, channel, frame_max, route, message);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn put_frames(
    out: &mut Vec<u8>,
    channel: u16,
    frame_max: usize,
    route: &Route,
    message: &Message,
) -> Result<(), Unsayable> {
    let (exchange, routing_key) = address(route);
    frame::put(out, METHOD, channel, |out| {
        put_u16(out, BASIC);
        put_u16(out, BASIC_PUBLISH);
        put_u16(out, 0); // reserved
        put_short(out, "the exchange's name", exchange)?;
        let what = if exchange.is_empty() { "the queue's name" } else { "the routing key" };
        put_short(out, what, routing_key)?;
        // Never `immediate`, which RabbitMQ no longer has.
        out.push(if is_direct_reply(exchange, routing_key) { 0 } else { MANDATORY });
        Ok(())
    })?;
    let header_at = out.len();
    frame::put(out, HEADER, channel, |out| {
        content::put_header(out, &message.properties, message.body.len() as u64)
    })?;
    let header_bytes = out.len() - header_at;
    if header_bytes > frame_max {
        let fixed = OVERHEAD + content::FIXED;
        return Err(Unsayable::HeadersTooLarge {
            bytes: header_bytes - fixed,
            allowed: header_bytes_max(frame_max),
        });
    }
    for piece in message.body.chunks(frame_max - OVERHEAD) {
        frame::put_whole(out, BODY, channel, piece);
    }
    Ok(())
}

/// A publish, read again from the bytes that [`put_publish`] wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
    header: &'a [u8],
    body: &'a [u8],
}

impl<'a> Sent<'a> {
    /// Reads one publish, given exactly its bytes.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Sent<'a>, Malformed> {
        let (method, taken) = whole(bytes)?;
        let mut reader = Reader::new(method.payload);
        reader.take(6)?;
        let exchange = reader.short()?;
        let routing_key = reader.short()?;
        let bytes = &bytes[taken..];
        let (header, taken) = whole(bytes)?;
        Ok(Sent { exchange, routing_key, header: header.payload, body: &bytes[taken..] })
    }

    /// The properties.
    pub(crate) fn properties(&self) -> Result<Properties, Malformed> {
        content::header(self.header).map(|(_, properties)| properties)
    }

    /// The body's size.
    pub(crate) fn body_bytes(&self) -> Result<u64, Malformed> {
        let mut reader = Reader::new(self.header);
        reader.take(4)?;
        reader.u64()
    }

    /// Whether this is the message that came back: same exchange, key, message id and body. The other properties are not
    /// compared, as a broker may add to them.
    pub(crate) fn is(&self, returned: &Returned) -> bool {
        self.exchange == returned.exchange.as_bytes()
            && self.routing_key == returned.routing_key.as_bytes()
            && self.body_bytes() == Ok(returned.body.len() as u64)
            && content::message_id(self.header)
                .is_ok_and(|id| id == returned.message_id.as_deref().map(str::as_bytes))
            && self.has_body(&returned.body)
    }

    fn has_body(&self, body: &[u8]) -> bool {
        let (mut frames, mut rest) = (self.body, body);
        while !frames.is_empty() {
            let Ok((frame, taken)) = whole(frames) else { return false };
            let Some(after) = rest.strip_prefix(frame.payload) else { return false };
            (frames, rest) = (&frames[taken..], after);
        }
        rest.is_empty()
    }
}

/// A message that the broker gave back as unroutable.
#[derive(Debug, Clone)]
pub(crate) struct Returned {
    pub(crate) code: u16,
    pub(crate) text: String,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) message_id: Option<String>,
    pub(crate) body: Bytes,
}

fn whole(bytes: &[u8]) -> Result<(frame::Frame<'_>, usize), Malformed> {
    frame::first(bytes, usize::MAX)?.ok_or(Malformed("a frame is cut short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(body: usize, frame_max: usize) -> (Vec<u8>, Message) {
        let mut message = Message { body: Bytes::from(vec![b'x'; body]), properties: Properties::default() };
        message.properties.message_id = Some("m1".into());
        message.properties.content_type = Some("text/plain".into());
        let mut out = Vec::new();
        put_publish(&mut out, 3, frame_max, &Route::Queue("orders".into()), &message).unwrap();
        (out, message)
    }

    fn returned(body: Bytes) -> Returned {
        Returned {
            code: 312,
            text: "NO_ROUTE".into(),
            exchange: String::new(),
            routing_key: "orders".into(),
            message_id: Some("m1".into()),
            body,
        }
    }

    #[test]
    fn a_return_is_known_again_by_key_id_and_body() {
        for size in [0, 1, 91, 92, 93, 184, 500] {
            let (bytes, message) = written(size, 100);
            let sent = Sent::read(&bytes).unwrap();
            assert_eq!(sent.properties().unwrap(), message.properties);
            assert!(sent.is(&returned(message.body.clone())), "{size}");
            assert!(!sent.is(&Returned { message_id: None, ..returned(message.body.clone()) }));
            assert!(!sent.is(&Returned { routing_key: "other".into(), ..returned(message.body.clone()) }));
            assert!(!sent.is(&returned(Bytes::from(vec![b'y'; size + 1]))));
            if size > 0 {
                let mut other = message.body.to_vec();
                other[size - 1] = b'y';
                assert!(!sent.is(&returned(other.into())));
            }
        }
    }

    #[test]
    fn only_direct_replies_are_not_mandatory() {
        let flag = |route: Route| {
            let message = Message { body: Bytes::new(), properties: Properties::default() };
            let mut out = Vec::new();
            put_publish(&mut out, 1, 4096, &route, &message).unwrap();
            let (method, _) = whole(&out).unwrap();
            *method.payload.last().unwrap()
        };
        let queue = |name: &str| Route::Queue(name.to_owned());
        let exchange = |exchange: &str, key: &str| Route::Exchange {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
        };
        for direct in [
            queue(DIRECT_REPLY),
            queue("amq.rabbitmq.reply-to.g1=.x"),
            exchange("", "amq.rabbitmq.reply-to.t"),
        ] {
            assert_eq!(flag(direct.clone()), 0, "{direct:?}");
        }
        for other in [
            queue("orders"),
            queue("amq.rabbitmq.reply-to-all"),
            queue("amq.rabbitmq.reply"),
            exchange("x", "amq.rabbitmq.reply-to.t"),
        ] {
            assert_eq!(flag(other.clone()), MANDATORY, "{other:?}");
        }
    }

    #[test]
    fn reply_tokens_that_close_the_connection_are_known() {
        let token = |token: &str| is_readable_reply_token(&format!("{DIRECT_REPLY}{token}"));
        for good in [
            "",
            ".zzz",
            ".a.b.c",
            // Of RabbitMQ 4.0 and 3.10.
            ".g1h2AA9yZXBseUAxMzEwNjA2NjAAAAaQAAAAAGsN9xE=.e/NJLM1fe9Is+s/B9yYNWA==",
            ".g1h2AA5yZXBseUA4NDcyOTU0MAAABqwAAAAAaw32Iw==.GpTz1EMQC++HLpdjqMnpRQ==",
        ] {
            assert!(token(good), "{good}");
        }
        for bad in [".AAAA.x", "..AAAA..x", ".g1h2AA=.gone", ".g1h2AA==.gone", ".not base64.x", ".g1hkAAFh.x"]
        {
            assert!(!token(bad), "{bad}");
        }
        let cut = "g1h2AA9yZXBseUAxMzEwNjA2NjAAAAaQAAAAAGsN9xE=";
        let bytes = STANDARD.decode(cut).unwrap();
        assert!(is_process_id(&bytes));
        for length in 0..bytes.len() {
            assert!(!is_process_id(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn what_cannot_be_said_leaves_nothing_behind() {
        let mut out = vec![1, 2, 3];
        let message = Message { body: Bytes::new(), properties: Properties::default() };
        let long = Route::Queue("q".repeat(256));
        assert!(matches!(
            put_publish(&mut out, 1, 4096, &long, &message),
            Err(Unsayable::TooLong { what: "the queue's name", bytes: 256 })
        ));
        let mut wide = message.clone();
        wide.properties.headers.set("h", warren_engine::message::HeaderValue::Bytes(vec![0; 5000]));
        assert!(matches!(
            put_publish(&mut out, 1, 4096, &Route::Queue("q".into()), &wide),
            Err(Unsayable::HeadersTooLarge { bytes: 5012, allowed: 4074 })
        ));
        assert_eq!(out, [1, 2, 3]);
    }
}
