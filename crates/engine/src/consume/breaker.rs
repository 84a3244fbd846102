//! A circuit breaker: when the destination as a whole is down, consuming pauses and one message at a time probes.
//!
//! It opens after ten failures in a row, or when half of the last twenty failed; it closes with the first success. What is
//! open holds messages back: their attempts are not spent.

use std::collections::VecDeque;
use std::time::Duration;

use crate::codes;
use crate::failure::FailureKind;
use crate::outcome::Outcome;

/// So many in a row open it.
const IN_A_ROW: u32 = 10;
/// Of so many ...
const WINDOW: usize = 20;
/// ... so many open it.
const OF_WINDOW: usize = 10;
/// The pause before the first probe, doubled after each that fails.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause between probes.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What an outcome says of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Works,
    /// It may be down.
    Down,
    /// Nothing.
    None,
}

impl Sign {
    /// What an outcome says. A rejection is an answer, so somebody is there; a fault of the message or of ours says nothing.
    pub fn of(outcome: &Outcome) -> Sign {
        match outcome {
            Outcome::Ok => Sign::Works,
            Outcome::Drop | Outcome::HandBack => Sign::None,
            Outcome::Reject(_) => Sign::None,
            // A pipeline that says so itself has judged the message, and reached whatever it asked.
            Outcome::Retry(failure) if failure.code == codes::FAILED_ON_PURPOSE => Sign::None,
            Outcome::Retry(failure) => match failure.kind {
                FailureKind::Disconnected
                | FailureKind::Timeout
                | FailureKind::Unavailable
                | FailureKind::Throttled
                | FailureKind::Refused
                | FailureKind::NotFound
                | FailureKind::Unroutable => Sign::Down,
                FailureKind::Invalid | FailureKind::Internal => Sign::None,
            },
        }
    }
}

/// The breaker of one consumer.
#[derive(Debug, Default)]
pub struct Breaker {
    in_a_row: u32,
    window: VecDeque<bool>,
    /// Failed probes since it opened; `None` while it is closed.
    open: Option<u32>,
}

/// What is to be done with a message after its outcome was noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It is settled as its outcome says.
    Settle,
    /// It is held, and its attempt is not spent.
    Hold,
}

impl Breaker {
    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How long to wait before the next probe.
    pub fn pause(&self) -> Duration {
        let failed = self.open.unwrap_or(0).min(16);
        PAUSE_MIN.saturating_mul(1 << failed).min(PAUSE_MAX)
    }

    /// Notes what an outcome says of the destination.
    pub fn note(&mut self, sign: Sign) -> Noted {
        match (sign, self.open) {
            (Sign::None, _) => Noted::Settle,
            (Sign::Works, _) => {
                if self.open.take().is_some() {
                    self.window.clear();
                }
                self.in_a_row = 0;
                self.remember(false);
                Noted::Settle
            }
            (Sign::Down, Some(_)) => Noted::Hold,
            (Sign::Down, None) => {
                self.in_a_row += 1;
                self.remember(true);
                let failed = self.window.iter().filter(|failed| **failed).count();
                let full = self.window.len() == WINDOW;
                if self.in_a_row < IN_A_ROW && !(full && failed >= OF_WINDOW) {
                    return Noted::Settle;
                }
                self.open = Some(0);
                Noted::Hold
            }
        }
    }

    /// Notes that a probe failed: the next pause is longer.
    pub fn probe_failed(&mut self) {
        if let Some(failed) = &mut self.open {
            *failed = failed.saturating_add(1);
        }
    }

    fn remember(&mut self, failed: bool) {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(signs: impl IntoIterator<Item = Sign>) -> Breaker {
        let mut breaker = Breaker::default();
        for sign in signs {
            breaker.note(sign);
        }
        breaker
    }

    #[test]
    fn ten_in_a_row_open_it_and_the_tenth_is_held() {
        let mut breaker = after([Sign::Down; 9]);
        assert!(!breaker.is_open());
        assert_eq!(breaker.note(Sign::Down), Noted::Hold);
        assert!(breaker.is_open());
    }

    #[test]
    fn half_of_twenty_open_it() {
        let alternating = [Sign::Works, Sign::Down].repeat(10);
        assert!(!after(alternating[..19].iter().copied()).is_open());
        assert!(after(alternating).is_open());
    }

    #[test]
    fn what_says_nothing_of_the_destination_changes_nothing() {
        assert!(!after([Sign::None; 100]).is_open());
        let mixed = [[Sign::Down; 9].as_slice(), &[Sign::None; 5], &[Sign::Down]].concat();
        assert!(after(mixed).is_open());
    }

    #[test]
    fn probes_come_from_a_second_to_a_minute_apart_and_a_success_closes() {
        let mut breaker = after([Sign::Down; 10]);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(breaker.pause().as_secs());
            breaker.note(Sign::Down);
            breaker.probe_failed();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(breaker.note(Sign::Works), Noted::Settle);
        assert!(!breaker.is_open());
        assert_eq!(breaker.note(Sign::Down), Noted::Settle, "it begins anew");
    }
}
