//! The state machine of a consumer: whether messages flow, or which message probes, with every transition in [`Flow::on`].
//!
//! Nothing here does I/O or reads a clock: events come with their time, and what may be started follows from the mode ([`Flow::may`]).
//!
//! | mode | what is started | leaves when |
//! |---|---|---|
//! | flowing | everything | the destination fails, a crash suspect starts, the process stops |
//! | alone | nothing beside the crash suspect that runs | that one is over |
//! | paused | nothing until the next probe is due | a probe starts, anything works, the process stops |
//! | probing | nothing beside the probe | the probe is over, anything works, the process stops |
//! | draining | nothing | never |
//!
//! The destination counts as failed after ten failures in a row, or when half of the last twenty failed. From then on failures spend
//! no attempts, and one message at a time probes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::codes;
use crate::failure::{Disposition, Failure, FailureKind};
use crate::outcome::Outcome;

/// Failures in a row after which consuming pauses.
const IN_A_ROW: u32 = 10;
/// Outcomes that are looked back at.
const WINDOW: usize = 20;
/// Failures among them after which consuming pauses.
const OF_WINDOW: usize = 10;
/// The wait before the first probe, doubled after each probe that fails.
const PROBE_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two probes.
const PROBE_MAX: Duration = Duration::from_secs(60);
/// How long messages are held unsettled during a pause. Brokers take a message back that is not settled for long (RabbitMQ: 30
/// minutes, with all others of the channel).
pub(super) const HOLD_MAX: Duration = Duration::from_secs(10 * 60);
/// How long a message that others must not overtake is held while the destination answers and nothing else can probe. Without a bound
/// a message that fails by its own content would stop what is behind it for ever.
const BLOCKS_MAX: Duration = Duration::from_secs(60 * 60);

/// What an outcome says of the destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// It works.
    Works,
    /// It may be down.
    Down,
    /// An operator must act before it can work.
    Blocked,
    /// The same for a message that failed so before: it says nothing new, or a few messages that are tried again together would pause all
    /// others.
    StillBlocked,
    /// It refuses in a way that may be the destination's fault; the message is dead-lettered all the same.
    Denies,
    /// Nothing.
    None,
}

/// Statuses of HTTP that are about the message that was sent, not about the destination.
const ABOUT_THE_MESSAGE: [u16; 12] = [400, 406, 409, 410, 411, 412, 413, 414, 415, 422, 428, 431];

impl Sign {
    /// What an outcome says.
    pub fn of(outcome: &Outcome) -> Sign {
        match outcome {
            Outcome::Ok => Sign::Works,
            Outcome::Drop | Outcome::HandBack => Sign::None,
            Outcome::Reject(failure) => match failure.said.as_ref().and_then(|said| said.status) {
                Some(status) if status >= 300 && !ABOUT_THE_MESSAGE.contains(&status) => Sign::Denies,
                Some(_) | None => Sign::None,
            },
            Outcome::Retry(failure) => Sign::of_retry(failure),
        }
    }

    /// Whether an operator must act.
    pub fn is_blocked(self) -> bool {
        matches!(self, Sign::Blocked | Sign::StillBlocked)
    }

    fn of_retry(failure: &Failure) -> Sign {
        // A pipeline that fails on purpose has judged the message, and reached whatever it called.
        if failure.code == codes::FAILED_ON_PURPOSE || failure.of_message {
            return Sign::None;
        }
        if failure.disposition() == Disposition::Operator {
            return Sign::Blocked;
        }
        match failure.kind {
            FailureKind::Disconnected
            | FailureKind::Timeout
            | FailureKind::Unavailable
            | FailureKind::Throttled
            | FailureKind::Refused
            | FailureKind::NotFound
            | FailureKind::Unroutable => Sign::Down,
            FailureKind::Invalid | FailureKind::Internal if failure.said.is_some() => Sign::Down,
            FailureKind::Invalid | FailureKind::Internal => Sign::None,
        }
    }
}

/// As what a message was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// As any other.
    #[default]
    Usual,
    /// With no other beside it: the process died while it was handled.
    Alone,
    /// To see whether the destination works again.
    Probe,
}

/// What a consumer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Messages are taken and started.
    Flowing,
    /// A crash suspect runs, and nothing beside it.
    Alone,
    /// The destination does not work; the next probe is waited for.
    Paused(Pause),
    /// The destination did not work, and one message is being handled to see whether it does now.
    Probing(Pause),
    /// The process stops. What fails while `paused` goes back to its queue with no attempt spent.
    Draining {
        /// Whether the destination did not work before.
        paused: bool,
    },
}

/// A pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Whether an operator must act; else the destination is down.
    pub operator: bool,
    /// When it began.
    pub began: Instant,
    /// Since when messages are held, for [`HOLD_MAX`] at most.
    pub held_since: Instant,
    /// When the next probe may start.
    pub probe_at: Instant,
    /// Probes that failed.
    pub failed: u32,
}

/// Something that happened to a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A message was started.
    Started(Role),
    /// A handler ended.
    Handled {
        /// What its outcome says.
        sign: Sign,
        /// As what its message was started.
        role: Role,
        /// Whether its message holds up others, and the destination was there to answer.
        blocks: bool,
    },
    /// All work on a message is over, whether it ended or panicked.
    Over(Role),
    /// What was held for [`HOLD_MAX`] was let go.
    LetGo,
    /// The consumer was opened again after its connection was lost: the destination may be the same broker, and work again.
    Reconnected,
    /// The process stops.
    Stop,
}

/// What becomes of a message whose handler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is settled as its outcome says.
    Settle,
    /// It is held, and no attempt is spent.
    Hold,
    /// It is tried again later, and no attempt is spent.
    Defer,
}

/// What may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Anything.
    Any,
    /// One message, as a probe; and what is only to be settled.
    Probe,
    /// What is only to be settled.
    Settle,
    /// Nothing.
    Nothing,
}

/// The state machine.
#[derive(Debug)]
pub struct Flow {
    mode: Mode,
    in_a_row: u32,
    /// The last outcomes: whether each failed.
    window: VecDeque<bool>,
    /// How long the pauses before this one took together.
    paused_before: Duration,
}

impl Default for Flow {
    fn default() -> Flow {
        Flow { mode: Mode::Flowing, in_a_row: 0, window: VecDeque::new(), paused_before: Duration::ZERO }
    }
}

impl Flow {
    /// What the consumer does now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The pause, if there is one.
    pub fn pause(&self) -> Option<Pause> {
        match self.mode {
            Mode::Paused(pause) | Mode::Probing(pause) => Some(pause),
            Mode::Flowing | Mode::Alone | Mode::Draining { .. } => None,
        }
    }

    /// How long nothing could be started because the destination did not work, in all.
    pub fn paused_in_all(&self, now: Instant) -> Duration {
        self.paused_before + self.pause().map_or(Duration::ZERO, |pause| now - pause.began)
    }

    /// What may be started.
    pub fn may(&self, now: Instant) -> May {
        match self.mode {
            Mode::Flowing => May::Any,
            Mode::Alone | Mode::Draining { .. } => May::Nothing,
            Mode::Paused(pause) if now >= pause.probe_at && now < pause.held_since + HOLD_MAX => May::Probe,
            Mode::Paused(_) | Mode::Probing(_) => May::Settle,
        }
    }

    /// With which prefetch a consumer is opened: during a pause a single message is enough, since the others would wait unsettled.
    pub fn prefetch(&self, concurrency: u16) -> u16 {
        match self.mode {
            Mode::Flowing | Mode::Alone | Mode::Draining { .. } => concurrency.max(1),
            Mode::Paused(_) | Mode::Probing(_) => 1,
        }
    }

    /// The only place where the mode changes.
    pub fn on(&mut self, event: Event, now: Instant) -> Verdict {
        let (mode, verdict) = match (self.mode, event) {
            (mode, Event::Handled { sign: Sign::None, .. }) => (mode, Verdict::Settle),
            (mode, Event::Handled { sign: Sign::Works, .. }) => {
                self.worked(mode, now);
                let mode = match mode {
                    Mode::Paused(_) | Mode::Probing(_) | Mode::Flowing => Mode::Flowing,
                    Mode::Alone => Mode::Alone,
                    Mode::Draining { .. } => Mode::Draining { paused: false },
                };
                (mode, Verdict::Settle)
            }
            (mode @ (Mode::Flowing | Mode::Alone), Event::Handled { sign: Sign::StillBlocked, .. }) => {
                (mode, Verdict::Defer)
            }
            (mode @ (Mode::Flowing | Mode::Alone), Event::Handled { sign, .. }) => {
                let mode = if self.trips() { Mode::Paused(Pause::new(sign, now)) } else { mode };
                (mode, verdict(sign, mode))
            }
            (Mode::Paused(pause), Event::Handled { sign, role: Role::Usual | Role::Alone, blocks }) => {
                let mode = Mode::Paused(pause.after(sign));
                (mode, pause.verdict(sign, blocks, now))
            }
            (Mode::Probing(pause), Event::Handled { sign, role: Role::Usual | Role::Alone, blocks }) => {
                let mode = Mode::Probing(pause.after(sign));
                (mode, pause.verdict(sign, blocks, now))
            }
            (
                Mode::Paused(pause) | Mode::Probing(pause),
                Event::Handled { sign, role: Role::Probe, blocks },
            ) => {
                let failed = pause.failed.saturating_add(1);
                let next = Pause { failed, probe_at: now + wait(failed), ..pause.after(sign) };
                (Mode::Paused(next), pause.verdict(sign, blocks, now))
            }
            (mode @ Mode::Draining { paused }, Event::Handled { sign, .. }) => {
                let hold = sign.is_blocked() || (paused && sign == Sign::Down);
                (mode, if hold { Verdict::Hold } else { Verdict::Settle })
            }
            (Mode::Flowing, Event::Started(Role::Alone)) => (Mode::Alone, Verdict::Settle),
            (Mode::Alone, Event::Over(Role::Alone)) => (Mode::Flowing, Verdict::Settle),
            (Mode::Paused(pause), Event::Started(Role::Probe)) => (Mode::Probing(pause), Verdict::Settle),
            // The probe said nothing of the destination: the next one follows soon.
            (Mode::Probing(pause), Event::Over(Role::Probe)) => {
                (Mode::Paused(Pause { probe_at: now + PROBE_MIN, ..pause }), Verdict::Settle)
            }
            (Mode::Paused(pause), Event::LetGo) => {
                (Mode::Paused(Pause { held_since: now, ..pause }), Verdict::Settle)
            }
            (Mode::Probing(pause), Event::LetGo) => {
                (Mode::Probing(Pause { held_since: now, ..pause }), Verdict::Settle)
            }
            (Mode::Paused(pause), Event::Reconnected) => {
                let probe_at = pause.probe_at.min(now + PROBE_MIN);
                (Mode::Paused(Pause { probe_at, failed: 0, ..pause }), Verdict::Settle)
            }
            (Mode::Paused(_) | Mode::Probing(_), Event::Stop) => {
                (Mode::Draining { paused: true }, Verdict::Settle)
            }
            (Mode::Flowing | Mode::Alone, Event::Stop) => (Mode::Draining { paused: false }, Verdict::Settle),
            (mode, Event::Started(_) | Event::Over(_) | Event::LetGo | Event::Reconnected | Event::Stop) => {
                (mode, Verdict::Settle)
            }
        };
        self.mode = mode;
        verdict
    }

    fn worked(&mut self, mode: Mode, now: Instant) {
        if let Mode::Paused(pause) | Mode::Probing(pause) = mode {
            self.window.clear();
            self.paused_before += now - pause.began;
        }
        self.in_a_row = 0;
        self.remember(false);
    }

    /// Counts a failure; whether it is one too many.
    fn trips(&mut self) -> bool {
        self.in_a_row += 1;
        self.remember(true);
        let failed = self.window.iter().filter(|failed| **failed).count();
        let trips = self.in_a_row >= IN_A_ROW || (self.window.len() == WINDOW && failed >= OF_WINDOW);
        if trips {
            self.in_a_row = 0;
            self.window.clear();
        }
        trips
    }

    fn remember(&mut self, failed: bool) {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(failed);
    }
}

impl Pause {
    fn new(sign: Sign, now: Instant) -> Pause {
        let operator = sign.is_blocked();
        Pause { operator, began: now, held_since: now, probe_at: now + PROBE_MIN, failed: 0 }
    }

    /// After another failure, of which the last says best what is wrong.
    fn after(self, sign: Sign) -> Pause {
        Pause { operator: sign.is_blocked(), ..self }
    }

    fn verdict(&self, sign: Sign, blocks: bool, now: Instant) -> Verdict {
        match sign {
            Sign::Down if blocks && now >= self.began + BLOCKS_MAX => Verdict::Settle,
            Sign::Down | Sign::Blocked | Sign::StillBlocked => Verdict::Hold,
            Sign::Denies | Sign::Works | Sign::None => Verdict::Settle,
        }
    }
}

/// What becomes of a message that failed before or with the failure that began a pause.
fn verdict(sign: Sign, mode: Mode) -> Verdict {
    let paused = matches!(mode, Mode::Paused(_));
    match sign {
        Sign::Blocked | Sign::StillBlocked if paused => Verdict::Hold,
        Sign::Blocked | Sign::StillBlocked => Verdict::Defer,
        Sign::Down if paused => Verdict::Hold,
        Sign::Down | Sign::Denies | Sign::Works | Sign::None => Verdict::Settle,
    }
}

/// The wait before the next probe after so many failed.
fn wait(failed: u32) -> Duration {
    PROBE_MIN.saturating_mul(1 << failed.min(16)).min(PROBE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Said;

    /// A state machine with the time of its events.
    struct Run(Flow, Instant);

    impl Run {
        fn new() -> Run {
            Run(Flow::default(), Instant::now())
        }

        fn after(signs: impl IntoIterator<Item = Sign>) -> Run {
            let mut run = Run::new();
            for sign in signs {
                run.handled(sign);
            }
            run
        }

        fn on(&mut self, event: Event) -> Verdict {
            self.0.on(event, self.1)
        }

        fn handled(&mut self, sign: Sign) -> Verdict {
            self.on(Event::Handled { sign, role: Role::Usual, blocks: false })
        }

        fn passes(&mut self, time: Duration) {
            self.1 += time;
        }

        fn is_paused(&self) -> bool {
            self.0.pause().is_some()
        }

        /// Waits until a probe may start, and lets it end so; how many seconds that took.
        fn probe(&mut self, sign: Sign) -> u64 {
            let began = self.1;
            while self.0.may(self.1) != May::Probe {
                self.passes(Duration::from_millis(100));
                assert!(self.1 - began < Duration::from_secs(120), "{:?}", self.0);
            }
            let _ = self.on(Event::Started(Role::Probe));
            assert_eq!(self.0.may(self.1), May::Settle, "one at a time");
            let _ = self.on(Event::Handled { sign, role: Role::Probe, blocks: false });
            let _ = self.on(Event::Over(Role::Probe));
            (self.1 - began).as_secs()
        }
    }

    #[test]
    fn ten_failures_in_a_row_pause_and_the_tenth_is_held() {
        let mut run = Run::after([Sign::Down; 9]);
        assert_eq!(run.0.mode(), Mode::Flowing);
        assert_eq!(run.handled(Sign::Down), Verdict::Hold);
        assert!(run.is_paused());
    }

    #[test]
    fn half_of_twenty_pause() {
        let alternating = [Sign::Works, Sign::Down].repeat(10);
        assert!(!Run::after(alternating[..19].iter().copied()).is_paused());
        assert!(Run::after(alternating).is_paused());
    }

    #[test]
    fn what_says_nothing_of_the_destination_changes_nothing() {
        assert!(!Run::after([Sign::None; 100]).is_paused());
        let mixed = [[Sign::Down; 9].as_slice(), &[Sign::None; 5], &[Sign::Down]].concat();
        assert!(Run::after(mixed).is_paused());
    }

    #[test]
    fn probes_come_from_a_second_to_a_minute_apart_and_a_success_ends_the_pause() {
        let mut run = Run::after([Sign::Down; 10]);
        let waits: Vec<u64> = (0..8).map(|_| run.probe(Sign::Down)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        run.probe(Sign::Works);
        assert_eq!(run.0.mode(), Mode::Flowing);
        assert_eq!(run.handled(Sign::Down), Verdict::Settle, "it begins anew");
    }

    #[test]
    fn a_lost_connection_that_is_back_has_the_next_probe_start_soon() {
        let mut run = Run::after([Sign::Down; 10]);
        for _ in 0..8 {
            run.probe(Sign::Down);
        }
        run.on(Event::Reconnected);
        assert_eq!(run.probe(Sign::Down), 1);
        assert_eq!(run.probe(Sign::Down), 2, "and those after it as in a new pause");
        let mut run = Run::after([Sign::Works]);
        run.on(Event::Reconnected);
        assert_eq!(run.0.mode(), Mode::Flowing);
    }

    #[test]
    fn a_probe_that_says_nothing_or_panics_is_followed_by_another() {
        let mut run = Run::after([Sign::Down; 10]);
        assert_eq!(run.probe(Sign::None), 1);
        run.passes(PROBE_MIN);
        run.on(Event::Started(Role::Probe));
        run.on(Event::Over(Role::Probe));
        assert_eq!(run.probe(Sign::Works), 1);
        assert_eq!(run.0.mode(), Mode::Flowing);
    }

    #[test]
    fn each_failure_has_its_verdict_in_each_mode() {
        let flowing = Run::new;
        let alone = || {
            let mut run = Run::new();
            run.on(Event::Started(Role::Alone));
            run
        };
        let paused = || Run::after([Sign::Down; 10]);
        let probing = || {
            let mut run = paused();
            run.passes(PROBE_MIN);
            run.on(Event::Started(Role::Probe));
            run
        };
        let draining = |mut run: Run| {
            run.on(Event::Stop);
            run
        };
        let (settle, hold, defer) = (Verdict::Settle, Verdict::Hold, Verdict::Defer);
        let table = [
            // mode, down, blocked, denies
            ("flowing", flowing(), settle, defer, settle),
            ("alone", alone(), settle, defer, settle),
            ("paused", paused(), hold, hold, settle),
            ("probing", probing(), hold, hold, settle),
            ("draining", draining(flowing()), settle, hold, settle),
            ("draining from a pause", draining(paused()), hold, hold, settle),
        ];
        for (mode, mut run, down, blocked, denies) in table {
            assert_eq!(run.handled(Sign::Down), down, "{mode}");
            assert_eq!(run.handled(Sign::Blocked), blocked, "{mode}");
            assert_eq!(run.handled(Sign::Denies), denies, "{mode}");
            assert_eq!(run.handled(Sign::None), settle, "{mode}");
        }
    }

    #[test]
    fn what_blocks_others_is_held_for_an_hour_and_then_settled() {
        let mut run = Run::after([Sign::Down; 10]);
        let blocked = Event::Handled { sign: Sign::Down, role: Role::Usual, blocks: true };
        assert_eq!(run.on(blocked), Verdict::Hold);
        run.passes(BLOCKS_MAX);
        assert_eq!(run.on(blocked), Verdict::Settle);
        assert_eq!(run.handled(Sign::Down), Verdict::Hold, "others are held for as long as it takes");
    }

    #[test]
    fn a_suspect_runs_alone_and_a_stop_is_final() {
        let mut run = Run::new();
        run.on(Event::Started(Role::Alone));
        assert_eq!(run.0.may(run.1), May::Nothing);
        run.on(Event::Over(Role::Alone));
        assert_eq!(run.0.may(run.1), May::Any);
        run.on(Event::Stop);
        for event in [Event::Started(Role::Probe), Event::Over(Role::Probe), Event::LetGo] {
            run.on(event);
        }
        run.handled(Sign::Works);
        assert_eq!(run.0.may(run.1), May::Nothing);
    }

    #[test]
    fn messages_that_are_still_blocked_pause_nothing() {
        let mut run = Run::after([Sign::Blocked; 5]);
        for _ in 0..100 {
            assert_eq!(run.handled(Sign::StillBlocked), Verdict::Defer);
        }
        assert_eq!(run.0.mode(), Mode::Flowing);
        let mut run = Run::after([Sign::Blocked; 10]);
        assert_eq!(run.handled(Sign::StillBlocked), Verdict::Hold);
    }

    #[test]
    fn who_must_act_follows_the_last_failure() {
        let mut run = Run::after([Sign::Blocked; 10]);
        assert!(run.0.pause().is_some_and(|pause| pause.operator));
        run.probe(Sign::Down);
        assert!(run.0.pause().is_some_and(|pause| !pause.operator));
    }

    #[test]
    fn outcomes_say_what_they_say() {
        let failure = |kind, code| Failure::new(kind, code, "call it");
        let status = |status| Said { status: Some(status), ..Said::default() };
        let answered = |number| failure(FailureKind::Refused, codes::HTTP_STATUS).said(status(number));
        let table = [
            (Outcome::Ok, Sign::Works),
            (Outcome::Drop, Sign::None),
            (Outcome::HandBack, Sign::None),
            (Outcome::Retry(failure(FailureKind::Disconnected, codes::HTTP_FAILED)), Sign::Down),
            (Outcome::Retry(failure(FailureKind::Timeout, codes::STEP_TIMEOUT)), Sign::Down),
            (Outcome::Retry(failure(FailureKind::Refused, codes::FAILED_ON_PURPOSE)), Sign::None),
            (Outcome::Retry(failure(FailureKind::Internal, codes::INTERNAL)), Sign::None),
            (Outcome::Retry(failure(FailureKind::Refused, codes::BROKER_REFUSED_LOGIN)), Sign::Blocked),
            (Outcome::Retry(failure(FailureKind::NotFound, codes::NO_SUCH_QUEUE)), Sign::Blocked),
            (Outcome::Retry(failure(FailureKind::NotFound, codes::NO_SUCH_QUEUE).of_message()), Sign::None),
            (Outcome::Retry(answered(404)), Sign::Down),
            (Outcome::Reject(answered(404)), Sign::Denies),
            (Outcome::Reject(answered(401)), Sign::Denies),
            (Outcome::Reject(answered(302)), Sign::Denies),
            (Outcome::Reject(answered(422)), Sign::None),
            (Outcome::Reject(failure(FailureKind::Invalid, codes::NOT_VALID)), Sign::None),
        ];
        for (outcome, sign) in table {
            assert_eq!(Sign::of(&outcome), sign, "{outcome:?}");
        }
    }
}
