//! What went wrong: one type, a small closed set of kinds, and the table from kind to what is done.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codes::{self, Code};
use crate::redact::scrub;

/// What kind of failure it is; decides what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The connection is not there, or was lost.
    Disconnected,
    /// No answer in time.
    Timeout,
    /// The other side answered that it cannot serve this now, such as HTTP 503.
    Unavailable,
    /// Too much at once, or blocked; later it will do.
    Throttled,
    /// The other side understood and will not: rights, login, policy.
    Refused,
    /// What was named does not exist.
    NotFound,
    /// The exchange exists and no queue takes the message.
    Unroutable,
    /// What was given is wrong, and will be wrong again.
    Invalid,
    /// A bug of ours, or a state that cannot be used.
    Internal,
}

/// What is done about a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// It is sent again, after a pause.
    Retry,
    /// It is rejected; the others go on.
    Reject,
}

/// What is done about a failure of a message that is consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The message is tried again, after a pause.
    Retry,
    /// It is rejected; the others continue.
    Reject,
    /// An operator must act. What is affected pauses, no attempt is spent, and it resumes by itself.
    Operator,
}

/// What no retry and no other message can cure: logins, permissions, missing queues, certificates, disks.
const OPERATOR: [Code; 14] = [
    codes::BROKER_REFUSED_LOGIN,
    codes::SOURCE_REFUSED_LOGIN,
    codes::ACCESS_REFUSED,
    codes::NOT_ALLOWED,
    codes::UNKNOWN_VHOST,
    codes::UNKNOWN_DATABASE,
    codes::NO_SUCH_QUEUE,
    codes::NO_SUCH_EXCHANGE,
    codes::UNROUTABLE,
    codes::QUEUE_MISFIT,
    codes::TLS_FAILED,
    codes::STATE_UNWRITABLE,
    codes::STATE_DAMAGED,
    codes::STATE_TOO_NEW,
];

impl FailureKind {
    /// The one table from kind to what is done about a message.
    pub fn for_message(self) -> Remedy {
        match self {
            FailureKind::Disconnected
            | FailureKind::Timeout
            | FailureKind::Unavailable
            | FailureKind::Throttled => Remedy::Retry,
            FailureKind::Refused
            | FailureKind::NotFound
            | FailureKind::Unroutable
            | FailureKind::Invalid
            | FailureKind::Internal => Remedy::Reject,
        }
    }
}

/// The name of a failure in `on_error`, records, the API and metrics. It is finer than [`FailureKind`], which decides what is done.
/// Records store its position in [`FailureName::ALL`]: add new names at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureName {
    /// The connection is not there, was reset, or was lost.
    Disconnected,
    /// Nothing listens on the port.
    ConnectionRefused,
    /// The host name has no address.
    NameNotResolved,
    /// The certificate was refused, or TLS could not be agreed on.
    TlsFailed,
    /// No answer in time.
    Timeout,
    /// The HTTP status 408.
    RequestTimeout,
    /// The HTTP status 425.
    TooEarly,
    /// Too much at once, such as the HTTP status 429.
    Throttled,
    /// An HTTP status from 500 to 599, or what means the same elsewhere.
    Unavailable,
    /// The other side understood and refused.
    Refused,
    /// What was named does not exist.
    NotFound,
    /// No queue takes the message.
    Unroutable,
    /// The input is wrong.
    Invalid,
    /// An internal error.
    Internal,
}

impl FailureName {
    /// All of them.
    pub const ALL: [FailureName; 14] = [
        FailureName::Disconnected,
        FailureName::ConnectionRefused,
        FailureName::NameNotResolved,
        FailureName::TlsFailed,
        FailureName::Timeout,
        FailureName::RequestTimeout,
        FailureName::TooEarly,
        FailureName::Throttled,
        FailureName::Unavailable,
        FailureName::Refused,
        FailureName::NotFound,
        FailureName::Unroutable,
        FailureName::Invalid,
        FailureName::Internal,
    ];

    /// The name as text. Pipelines and dashboards compare it; it is never changed.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureName::Disconnected => "disconnected",
            FailureName::ConnectionRefused => "connection_refused",
            FailureName::NameNotResolved => "name_not_resolved",
            FailureName::TlsFailed => "tls_failed",
            FailureName::Timeout => "timeout",
            FailureName::RequestTimeout => "request_timeout",
            FailureName::TooEarly => "too_early",
            FailureName::Throttled => "throttled",
            FailureName::Unavailable => "unavailable",
            FailureName::Refused => "refused",
            FailureName::NotFound => "not_found",
            FailureName::Unroutable => "unroutable",
            FailureName::Invalid => "invalid",
            FailureName::Internal => "internal",
        }
    }
}

/// Something that went wrong: the kind, a stable code, what was tried, where, and what the other side said.
///
/// Its texts hold no value that came from a variable or a file: the constructors replace them ([`crate::redact`]).
///
/// `Display` is one sentence without the cause; the causes hang on [`Error::source`] and are printed once, at the edge.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What kind it is.
    pub kind: FailureKind,
    /// Which failure it is.
    pub code: Code,
    /// What was tried, with its object, such as "publish to queue `orders`".
    pub what: String,
    /// What the other side said, or which rule was broken.
    pub detail: Option<String>,
    /// Where: file and line, row key, message id.
    pub place: Option<String>,
    /// The way out, as an instruction.
    pub remedy: Option<String>,
    /// When the other side wants to be asked again.
    pub retry_after: Option<Duration>,
    /// What the other side answered, where a message was handed to somebody: for dead letters and records.
    pub said: Option<Arc<Said>>,
    /// What caused it.
    pub cause: Option<Arc<dyn Error + Send + Sync>>,
    /// Whether the message itself is the cause, such as a queue's name that was made from it: then no operator can act, and other
    /// messages are not affected.
    pub of_message: bool,
}

/// What somebody answered who was given a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The status of an HTTP answer.
    pub status: Option<u16>,
    /// The exit code of a program.
    pub exit_code: Option<i32>,
    /// How the answer begins, [`Said::ANSWER_BYTES_MAX`] bytes at most.
    pub answer: Option<String>,
}

impl Said {
    /// How much of an answer is kept, in bytes.
    pub const ANSWER_BYTES_MAX: usize = 2048;

    /// The beginning of an answer, as text; what is not UTF-8 is replaced.
    pub fn beginning(answer: &[u8]) -> String {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(Self::ANSWER_BYTES_MAX)]);
        let mut end = text.len().min(Self::ANSWER_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text[..end].to_owned()
    }
}

/// A text without what came from variables.
fn clean(text: impl Into<String>) -> String {
    scrub(text.into()).into_owned()
}

impl Failure {
    /// A failure of a kind, with its code and what was tried.
    pub fn new(kind: FailureKind, code: Code, what: impl Into<String>) -> Failure {
        Failure {
            kind,
            code,
            what: clean(what),
            detail: None,
            place: None,
            remedy: None,
            retry_after: None,
            said: None,
            cause: None,
            of_message: false,
        }
    }

    /// A bug of ours.
    pub fn internal(what: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Internal, codes::INTERNAL, what)
    }

    /// The name of the failure, from its kind, its code and the HTTP status.
    pub fn name(&self) -> FailureName {
        let status = self.said.as_ref().and_then(|said| said.status);
        match self.kind {
            FailureKind::Disconnected if self.code == codes::CONNECTION_REFUSED => {
                FailureName::ConnectionRefused
            }
            FailureKind::Disconnected if self.code == codes::NAME_NOT_RESOLVED => {
                FailureName::NameNotResolved
            }
            FailureKind::Disconnected => FailureName::Disconnected,
            FailureKind::Timeout => FailureName::Timeout,
            FailureKind::Unavailable if status == Some(408) => FailureName::RequestTimeout,
            FailureKind::Unavailable if status == Some(425) => FailureName::TooEarly,
            FailureKind::Unavailable => FailureName::Unavailable,
            FailureKind::Throttled => FailureName::Throttled,
            FailureKind::Refused if self.code == codes::TLS_FAILED => FailureName::TlsFailed,
            FailureKind::Refused => FailureName::Refused,
            FailureKind::NotFound => FailureName::NotFound,
            FailureKind::Unroutable => FailureName::Unroutable,
            FailureKind::Invalid => FailureName::Invalid,
            FailureKind::Internal => FailureName::Internal,
        }
    }

    /// The failure in one line, with the way out.
    pub fn line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{self}; {remedy}"),
            None => self.to_string(),
        }
    }

    /// What is done about it where a message that is consumed fails with it.
    pub fn disposition(&self) -> Disposition {
        // A statement that a database refuses to this user lacks a permission.
        let is_denied = self.code == codes::QUERY_FAILED && self.kind == FailureKind::Refused;
        if !self.of_message && (is_denied || OPERATOR.contains(&self.code)) {
            return Disposition::Operator;
        }
        match self.kind.for_message() {
            Remedy::Retry => Disposition::Retry,
            Remedy::Reject => Disposition::Reject,
        }
    }

    /// Whether an operator must act.
    pub fn needs_operator(&self) -> bool {
        self.disposition() == Disposition::Operator
    }

    /// The message itself is the cause.
    #[must_use]
    pub fn of_message(mut self) -> Failure {
        self.of_message = true;
        self
    }

    /// With what the other side said, or the rule that was broken.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Failure {
        self.detail = Some(clean(detail));
        self
    }

    /// With the place.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Failure {
        self.place = Some(clean(place));
        self
    }

    /// With the way out.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Failure {
        self.remedy = Some(clean(remedy));
        self
    }

    /// With what the other side answered.
    #[must_use]
    pub fn said(mut self, said: Said) -> Failure {
        let answer = said.answer.map(clean);
        self.said = Some(Arc::new(Said { answer, ..said }));
        self
    }

    /// With the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Failure {
        self.cause = Some(Arc::new(cause));
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_and_serialized_as_they_are_listed() {
        for (at, name) in FailureName::ALL.into_iter().enumerate() {
            assert_eq!(name as usize, at);
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
    }

    #[test]
    fn each_reason_for_a_failed_call_has_a_name_of_its_own() {
        let failed = |kind, code| Failure::new(kind, code, "call");
        let answered = |kind, status| {
            failed(kind, codes::HTTP_STATUS).said(Said { status: Some(status), ..Said::default() })
        };
        let named = [
            (answered(FailureKind::Unavailable, 408), "request_timeout"),
            (answered(FailureKind::Unavailable, 425), "too_early"),
            (answered(FailureKind::Throttled, 429), "throttled"),
            (answered(FailureKind::Unavailable, 500), "unavailable"),
            (answered(FailureKind::Unavailable, 503), "unavailable"),
            (failed(FailureKind::Disconnected, codes::CONNECTION_REFUSED), "connection_refused"),
            (failed(FailureKind::Disconnected, codes::HTTP_FAILED), "disconnected"),
            (failed(FailureKind::Timeout, codes::HTTP_FAILED), "timeout"),
            (failed(FailureKind::Refused, codes::TLS_FAILED), "tls_failed"),
            (failed(FailureKind::Disconnected, codes::NAME_NOT_RESOLVED), "name_not_resolved"),
            (answered(FailureKind::Refused, 403), "refused"),
        ];
        for (failure, name) in named {
            assert_eq!(failure.name().as_str(), name, "{failure:?}");
        }
    }
}
