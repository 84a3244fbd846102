//! Outcome and attempt to decision: pure, and the only place where it is decided.

use std::time::Duration;

use super::flow::Sign;
use super::plan::Retry;
use crate::failure::Failure;
use crate::outcome::Outcome;

/// The longest pause somebody may ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a pause may be from the schedule's, as a share of it.
pub const JITTER: f64 = 0.2;

/// The longest pause after an attempt that does not count, unless the other side asks for a longer one.
const UNCOUNTED_MAX: Duration = Duration::from_secs(60);
/// The pause after an attempt that an operator's action is needed for.
pub(super) const BLOCKED: Duration = Duration::from_secs(30);

/// What is done about an outcome.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The message is done with.
    Ack,
    /// It is thrown away on purpose.
    Drop,
    /// It is tried again.
    Retry {
        /// After this long.
        after: Duration,
        /// Why.
        failure: Failure,
    },
    /// It is given up.
    DeadLetter(Reason),
    /// It goes back to its queue as it came.
    HandBack,
}

/// Why a message is given up.
#[derive(Debug, Clone)]
pub struct Reason {
    /// Which kind of reason it is.
    pub class: Class,
    /// In words.
    pub text: String,
    /// What failed, where something did.
    pub failure: Option<Failure>,
}

/// The kinds of reasons to give a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The handler said that it will never work, or the message is not what the consumer takes.
    Rejected,
    /// It failed as often as it may.
    Exhausted,
    /// It waited longer than it may.
    Expired,
    /// The process died with it too often.
    Crashed,
    /// It failed, and may not run again.
    Error,
    /// It may have run before, nobody knows how that ended, and it may not run again.
    Unknown,
    /// More messages wait behind a failing one of its key than may be parked.
    Backlog,
}

impl Class {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Rejected => "rejected",
            Class::Exhausted => "exhausted",
            Class::Expired => "expired",
            Class::Crashed => "crashed",
            Class::Error => "error",
            Class::Unknown => "unknown",
            Class::Backlog => "backlog",
        }
    }

    /// The class of a word of [`Class::as_str`].
    pub fn of(word: &str) -> Option<Class> {
        let all = [
            Class::Rejected,
            Class::Exhausted,
            Class::Expired,
            Class::Crashed,
            Class::Error,
            Class::Unknown,
            Class::Backlog,
        ];
        all.into_iter().find(|class| class.as_str() == word)
    }
}

/// Why a message was dead-lettered that is still here, since no broker takes its copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLettered {
    /// The kind of the reason.
    pub class: Class,
    /// The reason in words.
    pub text: String,
}

impl From<DeadLettered> for Reason {
    fn from(DeadLettered { class, text }: DeadLettered) -> Reason {
        Reason { class, text, failure: None }
    }
}

/// What is done about the outcome of attempt `number` (from 1). `dice` is a number from 0 to 1 that spreads retries.
pub fn decide(outcome: Outcome, number: u32, retry: &Retry, allow_redelivery: bool, dice: f64) -> Decision {
    let failure = match outcome {
        Outcome::Ok => return Decision::Ack,
        Outcome::Drop => return Decision::Drop,
        Outcome::HandBack => return Decision::HandBack,
        Outcome::Reject(failure) => return give_up(Class::Rejected, failure.to_string(), failure),
        Outcome::Retry(failure) => failure,
    };
    if !allow_redelivery {
        let text = format!("error, and it may not run again: {failure}");
        return give_up(Class::Error, text, failure);
    }
    let step = retry.delays.get(number.saturating_sub(1) as usize);
    let Some(step) = step.or(retry.delays.last().filter(|_| retry.forever)) else {
        let text = format!("failed {number} {}: {failure}", if number == 1 { "time" } else { "times" });
        return give_up(Class::Exhausted, text, failure);
    };
    let scheduled = jittered(*step, dice);
    let after = match failure.retry_after {
        Some(asked) if asked > *step => asked.min(RETRY_AFTER_MAX).max(scheduled),
        Some(_) | None => scheduled,
    };
    Decision::Retry { after, failure }
}

/// How long a message waits, where it cannot be held, after attempt `number` that does not count.
pub fn uncounted_pause(failure: &Failure, sign: Sign, number: u32, retry: &Retry, dice: f64) -> Duration {
    let step = retry.delays.get(number.saturating_sub(1) as usize).or(retry.delays.last());
    let step = match (sign, step) {
        (Sign::Blocked | Sign::StillBlocked, _) => BLOCKED,
        (_, Some(step)) => (*step).min(UNCOUNTED_MAX),
        (_, None) => UNCOUNTED_MAX,
    };
    let asked = failure.retry_after.map_or(Duration::ZERO, |asked| asked.min(RETRY_AFTER_MAX));
    jittered(step, dice).max(asked)
}

fn give_up(class: Class, text: String, failure: Failure) -> Decision {
    Decision::DeadLetter(Reason { class, text, failure: Some(failure) })
}

/// A pause spread by [`JITTER`] to both sides.
pub fn jittered(step: Duration, dice: f64) -> Duration {
    step.mul_f64(1.0 - JITTER + 2.0 * JITTER * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codes;
    use crate::failure::FailureKind;

    fn failure(retry_after: Option<u64>) -> Failure {
        let failure = Failure::new(FailureKind::Throttled, codes::BROKER_BLOCKED, "call it");
        Failure { retry_after: retry_after.map(Duration::from_secs), ..failure }
    }

    fn shown(decision: &Decision) -> String {
        match decision {
            Decision::Ack => "ack".into(),
            Decision::Drop => "drop".into(),
            Decision::HandBack => "hand back".into(),
            Decision::Retry { after, .. } => format!("retry {}", after.as_secs_f64()),
            Decision::DeadLetter(reason) => reason.class.as_str().into(),
        }
    }

    #[test]
    fn each_outcome_has_its_decision() {
        use Outcome::{Drop, HandBack, Ok, Reject, Retry as Again};
        let table: [(Outcome, u32, bool, &str); 15] = [
            (HandBack, 99, false, "hand back"),
            (Ok, 1, true, "ack"),
            (Ok, 99, false, "ack"),
            (Drop, 1, true, "drop"),
            (Reject(failure(None)), 1, true, "rejected"),
            (Reject(failure(Some(60))), 1, false, "rejected"),
            (Again(failure(None)), 1, true, "retry 10"),
            (Again(failure(None)), 2, true, "retry 30"),
            (Again(failure(None)), 8, true, "retry 14400"),
            (Again(failure(None)), 9, true, "exhausted"),
            (Again(failure(None)), u32::MAX, true, "exhausted"),
            (Again(failure(None)), 1, false, "error"),
            // Shorter than the step: the step. Longer: as asked. Longer than a day: a day.
            (Again(failure(Some(5))), 1, true, "retry 10"),
            (Again(failure(Some(60))), 1, true, "retry 60"),
            (Again(failure(Some(1_000_000))), 1, true, "retry 86400"),
        ];
        for (outcome, number, again, expected) in table {
            let decision = decide(outcome.clone(), number, &Retry::default(), again, 0.5);
            assert_eq!(shown(&decision), expected, "{outcome:?} of attempt {number}");
        }
    }

    #[test]
    fn without_delays_the_first_failure_is_the_last() {
        let retry = Retry { delays: Vec::new(), ..Retry::default() };
        let decision = decide(Outcome::Retry(failure(None)), 1, &retry, true, 0.5);
        assert_eq!(shown(&decision), "exhausted");
    }

    #[test]
    fn what_is_retried_for_ever_is_never_given_up() {
        let delays = vec![Duration::from_secs(1), Duration::from_secs(5)];
        let retry = Retry { delays, forever: true, ..Retry::default() };
        for (number, expected) in [(1, "retry 1"), (2, "retry 5"), (3, "retry 5"), (u32::MAX, "retry 5")] {
            assert_eq!(
                shown(&decide(Outcome::Retry(failure(None)), number, &retry, true, 0.5)),
                expected,
                "{number}"
            );
        }
        let none = Retry { delays: Vec::new(), ..retry };
        assert_eq!(shown(&decide(Outcome::Retry(failure(None)), 1, &none, true, 0.5)), "exhausted");
    }

    #[test]
    fn an_attempt_that_does_not_count_waits_for_a_minute_at_most_unless_more_is_asked_for() {
        let retry = |delays: &[u64]| Retry {
            delays: delays.iter().map(|delay| Duration::from_secs(*delay)).collect(),
            ..Retry::default()
        };
        let table = [
            // delays, attempt, asked, seconds
            (&[][..], 1, None, 60),
            (&[1], 1, None, 1),
            (&[1], 9, None, 1),
            (&[10, 600], 2, None, 60),
            (&[10], 1, Some(95), 95),
            (&[10], 1, Some(5), 10),
        ];
        for (delays, number, asked, seconds) in table {
            let pause = uncounted_pause(&failure(asked), Sign::Down, number, &retry(delays), 0.5);
            assert_eq!(pause, Duration::from_secs(seconds), "{delays:?} {number} {asked:?}");
        }
        assert_eq!(uncounted_pause(&failure(None), Sign::Blocked, 1, &retry(&[3600]), 0.5), BLOCKED);
    }

    proptest! {
        #[test]
        fn a_pause_is_the_step_give_or_take_a_fifth_and_never_less_than_asked(
            number in 1u32..9, dice in 0.0f64..=1.0, asked in proptest::option::of(0u64..200_000),
        ) {
            let retry = Retry::default();
            let step = retry.delays[number as usize - 1];
            let Decision::Retry { after, .. } =
                decide(Outcome::Retry(failure(asked)), number, &retry, true, dice)
            else { panic!("it is tried again") };
            prop_assert!(after >= step.mul_f64(0.799));
            let asked = Duration::from_secs(asked.unwrap_or(0)).min(RETRY_AFTER_MAX);
            prop_assert!(after >= asked || asked <= step);
            prop_assert!(after <= step.mul_f64(1.201).max(asked));
        }
    }
}
