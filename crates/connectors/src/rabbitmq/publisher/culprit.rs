//! Which message made the broker close a channel, and what that says of the others in flight.
//!
//! The broker handles a channel's messages in order and stops at the one it objects to. So what came before the culprit was
//! handled, though its confirm is lost (unsure), and what came after was thrown away (unsent). Which one it was, the broker
//! says only in words; where they fit several, or none, nothing is claimed and the messages are sent again, one at a
//! time (see [`suspects`](super::suspects)).

use std::sync::Arc;

use super::super::failures::Gone;
use super::super::wire::method::Close;
use super::super::wire::publish::Sent;
use super::fate::{Blamed, Fate, blamed};

/// A message in flight when the channel ended.
pub(super) struct Waiting<'a> {
    /// The number of its parcel's first message, and its place there.
    pub(super) place: (u64, usize),
    pub(super) sent: Option<Sent<'a>>,
    /// The socket had not taken all of it.
    pub(super) unwritten: bool,
}

/// The fate of each message in flight, which stand in the order of sending.
pub(super) fn fates(gone: &Arc<Gone>, waiting: &[Waiting<'_>]) -> Vec<Fate> {
    let blame = match &**gone {
        Gone::Channel(close) => blame(close, waiting),
        // It closed all, and blames something that was sent.
        Gone::Connection(close) if close.code >= 500 => Blame::Any,
        Gone::Connection(_)
        | Gone::Lost(_)
        | Gone::Silent
        | Gone::Late
        | Gone::Protocol(_)
        | Gone::Cancelled
        | Gone::Ended => Blame::Nobody,
    };
    let fate = |at: usize| {
        let after = match blame {
            Blame::One(culprit) if at == culprit => return Fate::Culprit(gone.clone()),
            Blame::One(culprit) => at > culprit,
            Blame::UpTo(last) => at > last,
            Blame::Any | Blame::Nobody => false,
        };
        if after || waiting[at].unwritten {
            Fate::Unsent(gone.clone())
        } else if blame == Blame::Any {
            Fate::Suspect(gone.clone())
        } else {
            Fate::Unsure(gone.clone())
        }
    };
    (0..waiting.len()).map(fate).collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Blame {
    /// This one, for certain.
    One(usize),
    /// One of those up to this one, all of which are known by what the broker named.
    UpTo(usize),
    /// Any of them.
    Any,
    Nobody,
}

fn blame(close: &Close, waiting: &[Waiting<'_>]) -> Blame {
    let written: Vec<usize> = (0..waiting.len()).filter(|at| !waiting[*at].unwritten).collect();
    if let [only] = written[..] {
        return Blame::One(only);
    }
    let kind = blamed(close);
    let mut fitting = written
        .into_iter()
        .filter(|at| waiting[*at].sent.as_ref().is_some_and(|sent| fits(kind, close, sent)));
    match kind {
        // These do not change with time: if an earlier one fitted, the broker would have stopped there.
        Blamed::Size { .. } | Blamed::UserId | Blamed::Expiration | Blamed::Topic => {
            fitting.next().map_or(Blame::Any, Blame::One)
        }
        // An exchange may have been there a moment ago, so that earlier ones were taken.
        Blamed::Exchange => match (fitting.next(), fitting.next_back()) {
            (Some(only), None) => Blame::One(only),
            (Some(_), Some(last)) => Blame::UpTo(last),
            (None, _) => Blame::Any,
        },
        Blamed::Unclear => Blame::Any,
    }
}

fn fits(kind: Blamed, close: &Close, sent: &Sent<'_>) -> bool {
    match kind {
        Blamed::Size { bytes, .. } => sent.body_bytes() == Ok(bytes),
        Blamed::Exchange => names_exchange(close, &String::from_utf8_lossy(sent.exchange)),
        Blamed::UserId => sent.properties().is_ok_and(|properties| {
            // The words also quote the login, which other messages may have as their user.
            properties.user_id.is_some_and(|id| quotes(close, "property set to '", &id, "' but "))
        }),
        Blamed::Expiration => sent.properties().is_ok_and(|properties| {
            properties.expiration.is_some_and(|text| quotes(close, "expiration '", &text, "': "))
        }),
        Blamed::Topic => {
            names_exchange(close, &String::from_utf8_lossy(sent.exchange))
                && names_topic(close, &String::from_utf8_lossy(sent.routing_key))
        }
        Blamed::Unclear => false,
    }
}

/// Whether the broker's words have this text between these. They are cut at 255 bytes, within a long text perhaps.
fn quotes(close: &Close, before: &str, text: &str, after: &str) -> bool {
    let Some((_, quoted)) = close.text.split_once(before) else { return false };
    quoted.strip_prefix(text).is_some_and(|rest| rest.starts_with(after))
        || (close.text.len() >= 250 && text.starts_with(quoted.trim_end_matches('.')))
}

/// Whether the broker's words are about this routing key.
pub(super) fn names_topic(close: &Close, routing_key: &str) -> bool {
    quotes(close, "access to topic '", routing_key, "' in exchange ")
}

/// Whether the broker's words are about this exchange. The default one it calls `amq.default`.
pub(super) fn names_exchange(close: &Close, exchange: &str) -> bool {
    let exchange = if exchange.is_empty() { "amq.default" } else { exchange };
    // A text is cut at 255 bytes, within a long name perhaps.
    match close.text.split_once("exchange '") {
        Some((_, named)) => {
            named.strip_prefix(exchange).is_some_and(|rest| rest.starts_with('\''))
                || (close.text.len() >= 250 && exchange.starts_with(named.trim_end_matches('.')))
        }
        None => false,
    }
}
