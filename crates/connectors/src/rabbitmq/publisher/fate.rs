//! What became of one message, and the receipt that says so.

use std::borrow::Cow;
use std::sync::Arc;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::message::{Answer, Outbound, Receipt, Route};

use super::super::failures::{Gone, text};
use super::super::wire::method::Close;

/// What became of one message that was appended to a connection.
#[derive(Debug, Clone)]
pub(super) enum Fate {
    /// Nothing yet.
    Waiting,
    /// Confirmed.
    Accepted,
    /// Refused by a negative confirm.
    Nacked,
    /// Given back as unroutable, and, if `confirmed`, the broker's last word on it heard.
    Returned { why: Arc<NoRoute>, confirmed: bool },
    /// The message that made the broker close the channel.
    Culprit(Arc<Gone>),
    /// Certainly not there: never handed to the socket, or behind the message that closed the channel.
    Unsent(Arc<Gone>),
    /// It may be there.
    Unsure(Arc<Gone>),
    /// It may be there, and it may be what the broker objects to.
    Suspect(Arc<Gone>),
}

/// Why a message was given back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoute {
    pub(super) code: u16,
    pub(super) text: String,
}

/// What a person reads of a message that was accepted.
const CONFIRMED: Answer = Answer(Cow::Borrowed("confirmed"));

impl Fate {
    /// The receipt. `late` says what to tell of a message that is still waiting.
    pub(super) fn receipt(self, outbound: &Outbound, late: impl FnOnce() -> Failure) -> Receipt {
        let what = || what(&outbound.route);
        match self {
            Fate::Accepted => Receipt::Accepted(CONFIRMED),
            Fate::Waiting => Receipt::Unknown(late()),
            Fate::Nacked => Receipt::Refused(
                Failure::new(FailureKind::Throttled, codes::BROKER_REFUSED_MESSAGE, what())
                    .detail("the broker answered with basic.nack")
                    .remedy("See whether the queue is full (`max-length` with `reject-publish`) or not available."),
            ),
            Fate::Returned { why, .. } => Receipt::Refused(no_route(&outbound.route, &why)),
            Fate::Culprit(gone) => Receipt::Refused(culprit(&outbound.route, &gone)),
            Fate::Unsent(gone) => Receipt::Refused(
                Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what())
                    .detail(format!("not sent: {gone}")),
            ),
            Fate::Unsure(gone) | Fate::Suspect(gone) => Receipt::Unknown(
                Failure::new(FailureKind::Disconnected, codes::CONNECTION_LOST, what())
                    .detail(format!("no answer: {gone}")),
            ),
        }
    }
}

/// What was tried, with its object.
pub(super) fn what(route: &Route) -> String {
    format!("publish to {route}")
}

fn no_route(route: &Route, why: &NoRoute) -> Failure {
    let (kind, code, remedy) = match route {
        Route::Queue(_) => {
            (FailureKind::NotFound, codes::NO_SUCH_QUEUE, "Create the queue, or correct its name.")
        }
        Route::Exchange { .. } => (
            FailureKind::Unroutable,
            codes::UNROUTABLE,
            "Bind a queue to the exchange for this routing key, or give the exchange an alternate one.",
        ),
    };
    Failure::new(kind, code, what(route))
        .detail(format!("the broker gave the message back: {} {}", why.code, why.text))
        .remedy(remedy)
}

/// The failure of the message that made the broker close the channel or connection.
pub(super) fn culprit(route: &Route, gone: &Gone) -> Failure {
    let (Gone::Channel(close) | Gone::Connection(close)) = gone else { return gone.failure(what(route)) };
    let (kind, code, remedy) = match blamed(close) {
        Blamed::Exchange | Blamed::Topic => return gone.failure(what(route)),
        Blamed::Size { .. } => (
            FailureKind::Invalid,
            codes::MESSAGE_TOO_LARGE,
            "Send less in one message, or raise the broker's `max_message_size`.",
        ),
        // Not in the broker's words, which name the login: whoever publishes through us may not know it.
        Blamed::UserId => {
            return Failure::new(FailureKind::Invalid, codes::INVALID_PROPERTY, what(route))
                .detail("the broker does not let this login set `user_id` to another name")
                .remedy(
                    "Leave `user_id` out, or set it to the name the connection logs in with, or give that login the tag \
                     `impersonator`.",
                );
        }
        Blamed::Expiration => (
            FailureKind::Invalid,
            codes::INVALID_PROPERTY,
            "Give `expiration` as a whole number of milliseconds.",
        ),
        Blamed::Unclear => (
            FailureKind::Invalid,
            codes::BROKER_REFUSED_MESSAGE,
            "Correct what the broker objects to; each time it is sent it closes the channel.",
        ),
    };
    Failure::new(kind, code, what(route)).detail(text(close)).remedy(remedy)
}

/// What the broker's words blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blamed {
    /// The exchange named: it is not there, or may not be written to.
    Exchange,
    /// The routing key named: this login may not publish with it to the exchange named.
    Topic,
    /// The body's size, and the most that is taken.
    Size { bytes: u64, allowed: u64 },
    /// The property `user_id`.
    UserId,
    /// The property `expiration`.
    Expiration,
    /// Something else.
    Unclear,
}

/// Reads the broker's words. They are no protocol: what is not known is [`Blamed::Unclear`], and found by sending one
/// message at a time.
pub(super) fn blamed(close: &Close) -> Blamed {
    let text = close.text.as_str();
    match close.code {
        403 if text.contains("access to topic '") => Blamed::Topic,
        404 | 403 if text.contains("exchange") => Blamed::Exchange,
        406 | 311 if text.contains("message size") => {
            let numbers: Vec<u64> =
                text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
            match numbers[..] {
                [bytes, allowed, ..] if bytes > allowed => Blamed::Size { bytes, allowed },
                _ => Blamed::Unclear,
            }
        }
        406 if text.contains("user_id") => Blamed::UserId,
        406 if text.contains("expiration") => Blamed::Expiration,
        _ => Blamed::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: u16, text: &str) -> Blamed {
        blamed(&Close { code, text: text.to_owned(), class: 60, method: 40 })
    }

    #[test]
    fn the_brokers_words_are_understood() {
        assert_eq!(said(404, "NOT_FOUND - no exchange 'x' in vhost '/'"), Blamed::Exchange);
        assert_eq!(
            said(403, "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'"),
            Blamed::Exchange
        );
        assert_eq!(
            said(
                403,
                "ACCESS_REFUSED - access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'u'"
            ),
            Blamed::Topic
        );
        assert_eq!(
            said(
                406,
                "PRECONDITION_FAILED - message size 20971520 is larger than configured max size 16777216"
            ),
            Blamed::Size { bytes: 20_971_520, allowed: 16_777_216 }
        );
        assert_eq!(
            said(406, "PRECONDITION_FAILED - user_id property set to 'x' but authenticated user was 'guest'"),
            Blamed::UserId
        );
        assert_eq!(said(406, "PRECONDITION_FAILED - invalid expiration 'x': no_integer"), Blamed::Expiration);
        assert_eq!(said(406, "PRECONDITION_FAILED - message size"), Blamed::Unclear);
        assert_eq!(said(541, "INTERNAL_ERROR"), Blamed::Unclear);
    }
}
