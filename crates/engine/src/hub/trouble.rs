//! What a failed delivery means for its message and its subscription: our default, and RabbitHub's table. Pure.
//!
//! RabbitHub's table (compatibility mode) is that of its README and code in one reading: a transport failure never loses a message,
//! and no consumer is stuck. So where RabbitHub dropped a message that never reached anybody, and where it left one unacknowledged for
//! ever, the message is tried again.

use std::time::Duration;

use super::settings::HubSettings;
use crate::failure::{Failure, FailureKind};
use crate::pipeline::http::{of_status, retry_after};
use crate::pipeline::outside::HttpAnswer;
use crate::statuses::Statuses;

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

/// What an answer that is not 2xx means by default.
#[derive(Debug)]
pub enum Answered {
    /// The message is retried.
    Again(Failure),
    /// The settings say that a retry cannot succeed: the message is dead-lettered.
    Final(Failure),
    /// The receiver is gone for good (410): the message is dead-lettered and the subscription ends.
    Gone(Failure),
}

impl Answered {
    /// The failure, whatever it means.
    pub fn into_failure(self) -> Failure {
        match self {
            Answered::Again(failure) | Answered::Final(failure) | Answered::Gone(failure) => failure,
        }
    }
}

/// What an answer that is not 2xx means: 410 ends the subscription, a status of `final_statuses` is final, and every other one may be that of
/// a receiver being deployed, a proxy without its certificate or a login that is being replaced, so the message is retried.
pub fn answered(what: &str, answer: &HttpAnswer, final_statuses: &Statuses) -> Answered {
    let status = answer.status;
    let failure = of_status(what, answer);
    let failure = match status {
        300..=399 => {
            failure.remedy("redirects are not followed: subscribe with the URL that it redirects to")
        }
        _ => failure,
    };
    match status {
        410 => Answered::Gone(failure),
        status if final_statuses.contains(status) => Answered::Final(failure),
        _ => Answered::Again(Failure { retry_after: retry_after(answer), ..failure }),
    }
}

/// The failure of a request that was not answered, of a kind that counts for the breaker. A request is made of its subscription and of what
/// every message has, so one that cannot be sent at all says nothing of its message.
pub fn not_posted(failure: Failure) -> Failure {
    let kind = match failure.kind {
        FailureKind::Invalid | FailureKind::Internal => FailureKind::Refused,
        other => other,
    };
    Failure { kind, ..failure }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::consume::flow::Sign;
    use crate::outcome::Outcome;

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
    fn every_status_but_410_and_the_final_ones_is_retried_and_counts_for_the_breaker() {
        for (listed, set) in [("none", Statuses::default()), ("4xx", Statuses::parse("4xx").unwrap())] {
            for status in (300..600u16).chain([100, 199, 600, 999]) {
                let answer = HttpAnswer {
                    status,
                    headers: vec![("retry-after".into(), "7".into())],
                    body: Bytes::from_static(b"no"),
                };
                let word = match answered("POST x", &answer, &set) {
                    Answered::Again(failure) => {
                        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
                        assert_eq!(failure.said.as_ref().unwrap().status, Some(status));
                        assert_eq!(Sign::of(&Outcome::Retry(failure)), Sign::Down, "{status}");
                        "again"
                    }
                    Answered::Final(_) => "final",
                    Answered::Gone(_) => "gone",
                };
                let expected = match status {
                    410 => "gone",
                    400..=499 if listed == "4xx" => "final",
                    _ => "again",
                };
                assert_eq!(word, expected, "{status}, final: {listed}");
            }
        }
    }
}
