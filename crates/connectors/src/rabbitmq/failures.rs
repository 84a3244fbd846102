//! How a connection or channel ended, and the failure a person reads about it.

use std::fmt;

use warren_engine::codes::{self, Code};
use warren_engine::failure::{Failure, FailureKind};

use super::wire::Unsayable;
use super::wire::method::Close;

/// How a connection or channel ended.
#[derive(Debug, Clone)]
pub(crate) enum Gone {
    /// The broker closed the connection, with a reason.
    Connection(Close),
    /// The broker closed the channel, with a reason.
    Channel(Close),
    /// The connection broke.
    Lost(String),
    /// Nothing came for two heartbeats.
    Silent,
    /// The broker did not answer a question in time.
    Late,
    /// The broker spoke against the protocol.
    Protocol(String),
    /// The broker ended the consumer.
    Cancelled,
    /// We closed it.
    Ended,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gone::Connection(close) => write!(f, "the broker closed the connection: {}", text(close)),
            Gone::Channel(close) => write!(f, "the broker closed the channel: {}", text(close)),
            Gone::Lost(why) => write!(f, "the connection was lost: {why}"),
            Gone::Silent => f.write_str("the connection was given up: nothing came for two heartbeats"),
            Gone::Late => f.write_str("the broker did not answer in time"),
            Gone::Protocol(why) => write!(f, "the broker spoke against the protocol: {why}"),
            Gone::Cancelled => f.write_str(
                "the broker ended the consumer: its queue was deleted, or the queue's node is down",
            ),
            Gone::Ended => f.write_str("the connection was closed by Warren"),
        }
    }
}

/// The broker's words, which begin with a name for the number.
pub(crate) fn text(close: &Close) -> String {
    format!("{} {}", close.code, close.text)
}

impl Gone {
    /// The failure of something that was tried on what is gone.
    pub(crate) fn failure(&self, what: impl Into<String>) -> Failure {
        let (kind, code, remedy) = match self {
            Gone::Connection(close) | Gone::Channel(close) => of_close(close),
            Gone::Lost(_) | Gone::Silent | Gone::Ended => {
                (FailureKind::Disconnected, codes::CONNECTION_LOST, None)
            }
            Gone::Late => (FailureKind::Timeout, codes::CONNECTION_LOST, None),
            Gone::Protocol(_) => (FailureKind::Disconnected, codes::PROTOCOL_ERROR, None),
            Gone::Cancelled => {
                (FailureKind::NotFound, codes::NO_SUCH_QUEUE, Some("Create the queue again if it is gone."))
            }
        };
        let failure = Failure::new(kind, code, what).detail(self.to_string());
        match remedy {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

/// The one table from a close code to what it means once a vhost is open.
fn of_close(close: &Close) -> (FailureKind, Code, Option<&'static str>) {
    match close.code {
        311 => (FailureKind::Invalid, codes::MESSAGE_TOO_LARGE, Some("Send less in one message.")),
        403 if is_for_nobody(&close.text) => (
            FailureKind::Refused,
            codes::NOT_ALLOWED,
            Some("Use another exchange or queue: the broker allows this to no user."),
        ),
        403 => (
            FailureKind::Refused,
            codes::ACCESS_REFUSED,
            Some("Give the user the permission with `rabbitmqctl set_permissions`, or use another user."),
        ),
        404 if close.text.contains("exchange") => (
            FailureKind::NotFound,
            codes::NO_SUCH_EXCHANGE,
            Some("Create the exchange, or correct its name."),
        ),
        404 => (FailureKind::NotFound, codes::NO_SUCH_QUEUE, Some("Create the queue, or correct its name.")),
        405 => (
            FailureKind::Refused,
            codes::NOT_ALLOWED,
            Some("Another connection has the queue for itself; end it, or use another queue."),
        ),
        406 => (FailureKind::Invalid, codes::PROTOCOL_ERROR, None),
        506 => (FailureKind::Throttled, codes::PROTOCOL_ERROR, None),
        530 => (FailureKind::Refused, codes::ACCESS_REFUSED, None),
        // 320: an operator or a shutdown. The rest: the broker's own errors. Both may be over when it is tried again.
        320 => (FailureKind::Disconnected, codes::CONNECTION_LOST, None),
        _ => (FailureKind::Disconnected, codes::PROTOCOL_ERROR, None),
    }
}

/// Whether the broker refuses it to every user. Where a permission is missing, it says `access to … refused for user …`. Names of queues and
/// exchanges stand behind these words and can hold anything.
fn is_for_nobody(text: &str) -> bool {
    let said = text.strip_prefix("ACCESS_REFUSED - ").unwrap_or(text);
    let begins = [
        "cannot publish to internal ",
        "deletion of system ",
        "operation not permitted on the default exchange",
    ];
    begins.iter().any(|begin| said.starts_with(begin))
        || ["exchange name '", "queue name '"].iter().any(|begin| said.starts_with(begin))
            && said.contains("reserved prefix")
}

/// Why a question to the broker has no answer.
#[derive(Debug, Clone)]
pub(crate) enum CallFault {
    /// It cannot be asked.
    Unsayable(Unsayable),
    /// The channel or the connection ended.
    Gone(std::sync::Arc<Gone>),
    /// The connection has no channel left.
    NoChannel,
    /// The answer does not fit the question.
    Unexpected,
}

impl CallFault {
    /// The failure of what was asked.
    pub(crate) fn failure(&self, what: impl Into<String>) -> Failure {
        match self {
            CallFault::Unsayable(fault) => unsayable(fault, what),
            CallFault::Gone(gone) => gone.failure(what),
            CallFault::NoChannel => Failure::new(FailureKind::Throttled, codes::PROTOCOL_ERROR, what)
                .detail("the connection has no channel left")
                .remedy("Raise the broker's `channel_max`, or consume from fewer queues."),
            CallFault::Unexpected => Failure::new(FailureKind::Disconnected, codes::PROTOCOL_ERROR, what)
                .detail("the broker gave an answer that does not fit the question"),
        }
    }
}

impl From<Unsayable> for CallFault {
    fn from(fault: Unsayable) -> Self {
        CallFault::Unsayable(fault)
    }
}

/// The failure of a value that AMQP cannot say.
pub(crate) fn unsayable(fault: &Unsayable, what: impl Into<String>) -> Failure {
    let (code, remedy) = match fault {
        Unsayable::TooLong { .. } => (codes::VALUE_TOO_LONG, "Shorten it to 255 bytes of UTF-8."),
        Unsayable::HeadersTooLarge { .. } => {
            (codes::HEADERS_TOO_LARGE, "Move what is large from the headers into the body.")
        }
        Unsayable::TooDeep(_) => (codes::INVALID_PROPERTY, "Send what is nested in the body instead."),
        Unsayable::NotFinite => (codes::INVALID_PROPERTY, "Send a finite number, or the value as text."),
    };
    Failure::new(FailureKind::Invalid, code, what).detail(fault.to_string()).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_allows_to_nobody_is_no_missing_permission() {
        let code = |code, text: &str| {
            let close = Close { code, text: text.to_owned(), class: 60, method: 40 };
            Gone::Channel(close).failure("try").code
        };
        for text in [
            "ACCESS_REFUSED - cannot publish to internal exchange 'refused for user' in vhost '/'",
            "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
            "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'",
            "ACCESS_REFUSED - operation not permitted on the default exchange",
            "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed",
        ] {
            assert_eq!(code(403, text), codes::NOT_ALLOWED, "{text}");
        }
        for text in [
            "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'",
            "ACCESS_REFUSED - access to exchange 'cannot publish to internal ' in vhost '/' refused for user 'u'",
            "ACCESS_REFUSED - access to topic 'reserved prefix' in exchange 'x' in vhost '/' refused for user 'u'",
            "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use",
        ] {
            assert_eq!(code(403, text), codes::ACCESS_REFUSED, "{text}");
        }
        let locked = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q' in vhost '/'";
        assert_eq!(code(405, locked), codes::NOT_ALLOWED);
    }
}
