//! What a failed delivery means for its message and its subscription: our default, and RabbitHub's table. Pure.
//!
//! RabbitHub's table (compatibility mode) is that of its README and code in one reading: a transport failure never loses a message,
//! and no consumer is stuck. So where RabbitHub dropped a message that never reached anybody, and where it left one unacknowledged for
//! ever, the message is tried again.

use std::time::Duration;

use super::settings::HubSettings;
use crate::codes;
use crate::failure::{Failure, FailureKind, Said};
use crate::pipeline::http::retry_after;
use crate::pipeline::outside::HttpAnswer;

/// RabbitHub's settings of error management.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// `requeue_on_http_post_error`
    pub requeue: bool,
    /// `unsubscribe_on_http_post_error`
    pub unsubscribe: bool,
    /// So many errors are borne in so much time, where both settings are there.
    pub limits: Option<(u64, Duration)>,
}

/// How a delivery failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With a status that is not 2xx: somebody was there.
    Status,
    /// Refused, reset, DNS, TLS, timeout: perhaps nobody was.
    Transport,
}

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays in its queue, to be delivered again.
    Stays,
    /// It is rejected: it goes where its queue sends what is rejected, or nowhere. The settings say so.
    Rejected,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// For the message.
    pub message: Fate,
    /// Whether the subscription ends.
    pub ends: bool,
}

impl Rules {
    /// The rules of a hub.
    pub fn of(settings: &HubSettings) -> Rules {
        let limit = settings.unsubscribe_on_http_post_error_limit;
        Rules {
            requeue: settings.requeue_on_http_post_error,
            unsubscribe: settings.unsubscribe_on_http_post_error,
            limits: limit.zip(settings.unsubscribe_on_http_post_error_timeout),
        }
    }

    /// What a failure means that is the `count`th of its window, from 1.
    pub fn judge(self, kind: Kind, count: u64) -> Verdict {
        let message = match kind {
            Kind::Transport => Fate::Stays,
            Kind::Status if self.requeue => Fate::Stays,
            Kind::Status => Fate::Rejected,
        };
        let ends = match self.limits {
            // `unsubscribe_on_http_post_error` counts for nothing where there are limits.
            Some((limit, _)) => count > limit,
            None => self.unsubscribe,
        };
        Verdict { message, ends }
    }
}

/// What our default makes of an answer that is not 2xx.
#[derive(Debug)]
pub enum Answered {
    /// It may work another time.
    Again(Failure),
    /// It will not.
    Never(Failure),
    /// The receiver is gone for good (410): neither will any other.
    Gone(Failure),
}

/// An answer that is not 2xx, as consuming has it: 408, 425, 429 and 5xx are tried again, all others, redirects included, are not.
pub fn answered(what: &str, answer: &HttpAnswer) -> Answered {
    let status = answer.status;
    let told = (!answer.body.is_empty()).then(|| Said::beginning(&answer.body));
    let failure = |kind| {
        let failure = Failure::new(kind, codes::HTTP_STATUS, what).detail(format!("the answer was {status}"));
        failure.said(Said { status: Some(status), exit_code: None, answer: told.clone() })
    };
    match status {
        408 | 425 | 429 | 500..=599 => {
            let kind = if status == 429 { FailureKind::Throttled } else { FailureKind::Disconnected };
            Answered::Again(Failure { retry_after: retry_after(answer), ..failure(kind) })
        }
        410 => Answered::Gone(failure(FailureKind::NotFound)),
        300..=399 => Answered::Never(
            failure(FailureKind::Refused).remedy("redirects are not followed: subscribe the URL itself"),
        ),
        404 => Answered::Never(failure(FailureKind::NotFound)),
        _ => Answered::Never(failure(FailureKind::Refused)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const STAYS: Fate = Fate::Stays;
    const REJECTED: Fate = Fate::Rejected;

    /// The rows of the table: limits and count, requeue, unsubscribe; then for a status and for a transport failure whether the
    /// message stays and the subscription ends.
    #[test]
    fn each_row_of_rabbithubs_table() {
        let within = (Some(5), 5);
        let above = (Some(5), 6);
        let unset = (None, 1);
        let late = (None, 1_000_000);
        let rows = [
            (unset, true, true, (STAYS, true), (STAYS, true)),
            (unset, true, false, (STAYS, false), (STAYS, false)), // RabbitHub: stuck for ever, and lost
            (unset, false, true, (REJECTED, true), (STAYS, true)),
            (unset, false, false, (REJECTED, false), (STAYS, false)),
            (late, true, false, (STAYS, false), (STAYS, false)),
            (within, true, true, (STAYS, false), (STAYS, false)),
            (within, true, false, (STAYS, false), (STAYS, false)),
            (within, false, true, (REJECTED, false), (STAYS, false)),
            (within, false, false, (REJECTED, false), (STAYS, false)),
            (above, true, true, (STAYS, true), (STAYS, true)),
            (above, true, false, (STAYS, true), (STAYS, true)),
            (above, false, true, (REJECTED, true), (STAYS, true)),
            (above, false, false, (REJECTED, true), (STAYS, true)),
            ((Some(0), 1), true, false, (STAYS, true), (STAYS, true)), // a limit of 0 bears none
        ];
        for ((limit, count), requeue, unsubscribe, status, transport) in rows {
            let limits = limit.map(|limit| (limit, Duration::from_secs(60)));
            let rules = Rules { requeue, unsubscribe, limits };
            for (kind, (message, ends)) in [(Kind::Status, status), (Kind::Transport, transport)] {
                assert_eq!(rules.judge(kind, count), Verdict { message, ends }, "{rules:?} {kind:?} {count}");
            }
        }
    }

    #[test]
    fn one_limit_alone_is_none() {
        let mut settings = HubSettings::new(true);
        settings.unsubscribe_on_http_post_error_limit = Some(3);
        assert_eq!(Rules::of(&settings).limits, None);
        settings.unsubscribe_on_http_post_error_timeout = Some(Duration::from_secs(9));
        assert_eq!(Rules::of(&settings).limits, Some((3, Duration::from_secs(9))));
    }

    #[test]
    fn what_each_status_is_by_default() {
        for status in 300..600u16 {
            let answer = HttpAnswer {
                status,
                headers: vec![("retry-after".into(), "7".into())],
                body: Bytes::from_static(b"no"),
            };
            let word = match answered("POST x", &answer) {
                Answered::Again(failure) => {
                    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
                    assert_eq!(failure.said.unwrap().status, Some(status));
                    "again"
                }
                Answered::Never(_) => "never",
                Answered::Gone(_) => "gone",
            };
            let expected = match status {
                408 | 425 | 429 | 500.. => "again",
                410 => "gone",
                _ => "never",
            };
            assert_eq!(word, expected, "{status}");
        }
    }
}
