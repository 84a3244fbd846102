//! What the broker was told, and is still to be told, about the deliveries of one channel.
//!
//! Delivery tags count up from 1. All that is settled up to the first unsettled tag (the watermark) is acknowledged with one
//! frame (`multiple`); what is settled beyond it with a frame each, so that one slow message never holds up the news of the
//! others. Rejected and requeued tags are told first, so that no `multiple` ever covers one of them before the broker has
//! heard otherwise; a tag that is not settled is never covered.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::wire::method::Call;

pub(crate) struct Ledger {
    channel: u16,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Every tag up to here is settled, and the broker told of it.
    told: u64,
    /// The tags after `told`, in order.
    marks: VecDeque<Mark>,
    /// Tags acknowledged and not told.
    acked: usize,
    /// Tags rejected and not told, and whether they go back to the queue.
    rejected: Vec<(u64, bool)>,
    /// When it was told the last time.
    told_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Unsettled,
    Acked,
    /// Settled, and the broker told, or in `rejected` and told before the next acknowledgement.
    Told,
}

/// What the broker is to be told about a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Ack,
    Reject { requeue: bool },
}

impl Ledger {
    pub(crate) fn new(channel: u16) -> Ledger {
        Ledger { channel, state: Mutex::default() }
    }

    /// Notes what became of a delivery; yields how many wait to be told. Each tag is settled once.
    pub(crate) fn settle(&self, tag: u64, told: Told) -> usize {
        let mut state = self.state();
        let Some(at) = tag.checked_sub(state.told + 1) else { return state.waiting() };
        let at = at as usize;
        if at >= state.marks.len() {
            state.marks.resize(at + 1, Mark::Unsettled);
        }
        if state.marks[at] == Mark::Unsettled {
            match told {
                Told::Ack => {
                    state.marks[at] = Mark::Acked;
                    state.acked += 1;
                }
                Told::Reject { requeue } => {
                    state.marks[at] = Mark::Told;
                    state.rejected.push((tag, requeue));
                }
            }
        }
        state.waiting()
    }

    /// Whether the broker is to be told now, where all up to a tag is at work and nothing else is here: because all of it is settled, or
    /// it was told the last time so long ago.
    pub(crate) fn is_to_be_told(&self, up_to: u64, after: Duration) -> bool {
        let state = self.state();
        if state.waiting() == 0 {
            return false;
        }
        let all_are_settled = || {
            state.told + state.marks.len() as u64 >= up_to
                && state.marks.iter().all(|mark| *mark != Mark::Unsettled)
        };
        state.told_at.is_none_or(|at| at.elapsed() >= after) || all_are_settled()
    }

    /// Writes all that waits to be told.
    pub(crate) fn collect(&self, out: &mut Vec<u8>) {
        let mut state = self.state();
        if state.waiting() == 0 {
            return;
        }
        state.told_at = Some(Instant::now());
        let put = |out: &mut Vec<u8>, call: Call<'_>| {
            call.put(out, self.channel).expect("acknowledgements have no text that could be too long");
        };
        for (tag, requeue) in std::mem::take(&mut state.rejected) {
            put(out, if requeue { Call::Requeue { tag } } else { Call::Reject { tag } });
        }
        // The watermark: the broker must know the tag it is given, so it is the last acknowledged one.
        let (mut last_acked, mut covered) = (None, 0);
        while let Some(mark) = state.marks.front().copied() {
            match mark {
                Mark::Unsettled => break,
                Mark::Acked => {
                    last_acked = Some(state.told + 1);
                    covered += 1;
                }
                Mark::Told => {}
            }
            state.marks.pop_front();
            state.told += 1;
        }
        if let Some(tag) = last_acked {
            put(out, Call::Ack { tag, multiple: covered > 1 });
        }
        let mut beyond = state.acked - covered;
        let first = state.told + 1;
        for (mark, tag) in state.marks.iter_mut().zip(first..) {
            if beyond == 0 {
                break;
            }
            if *mark == Mark::Acked {
                put(out, Call::Ack { tag, multiple: false });
                *mark = Mark::Told;
                beyond -= 1;
            }
        }
        state.acked = 0;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.acked + self.rejected.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::super::wire::field::Reader;
    use super::super::super::wire::frame;
    use super::*;

    /// What a broker makes of the frames: which tags are outstanding, and what became of the others.
    #[derive(Default)]
    struct Broker {
        outstanding: BTreeSet<u64>,
        settled: BTreeMap<u64, Told>,
        frames: usize,
    }

    impl Broker {
        fn hear(&mut self, bytes: &[u8]) {
            let mut at = 0;
            while let Some((frame, taken)) = frame::first(&bytes[at..], 4096).unwrap() {
                at += taken;
                self.frames += 1;
                let mut reader = Reader::new(frame.payload);
                let (_, id) = (reader.u16().unwrap(), reader.u16().unwrap());
                let (tag, flags) = (reader.u64().unwrap(), reader.u8().unwrap());
                let flag = flags & 1 != 0;
                assert!(self.outstanding.contains(&tag), "unknown delivery tag {tag}");
                let told = match id {
                    90 => Told::Reject { requeue: flag },
                    120 => Told::Reject { requeue: flags & 2 != 0 },
                    _ => Told::Ack,
                };
                let covered: Vec<u64> = if id == 80 && flag {
                    self.outstanding.range(..=tag).copied().collect()
                } else {
                    vec![tag]
                };
                for tag in covered {
                    self.outstanding.remove(&tag);
                    self.settled.insert(tag, told);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_broker_hears_of_each_tag_what_became_of_it(
            order in proptest::collection::vec((0u64..40, 0u8..8, any::<bool>()), 0..80),
        ) {
            let ledger = Ledger::new(1);
            let mut broker = Broker { outstanding: (1..=40).collect(), ..Broker::default() };
            let mut truth = BTreeMap::new();
            let flush = |broker: &mut Broker| {
                let mut out = Vec::new();
                ledger.collect(&mut out);
                broker.hear(&out);
            };
            for (tag, what, now) in order {
                let told = match what {
                    0 => Told::Reject { requeue: true },
                    1 => Told::Reject { requeue: false },
                    _ => Told::Ack,
                };
                truth.entry(tag + 1).or_insert(told);
                ledger.settle(tag + 1, told);
                if now {
                    flush(&mut broker);
                    prop_assert_eq!(&broker.settled, &truth);
                }
            }
            flush(&mut broker);
            prop_assert_eq!(&broker.settled, &truth);
        }
    }

    #[test]
    fn a_run_of_acks_is_one_frame() {
        let ledger = Ledger::new(1);
        let mut broker = Broker { outstanding: (1..=100).collect(), ..Broker::default() };
        for tag in (1..=100).rev() {
            ledger.settle(tag, Told::Ack);
        }
        let mut out = Vec::new();
        ledger.collect(&mut out);
        broker.hear(&out);
        assert_eq!((broker.frames, broker.outstanding.len()), (1, 0));
        assert_eq!(ledger.settle(7, Told::Ack), 0, "a tag is settled once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_broker_is_told_when_all_is_settled_or_after_a_while() {
        const WHILE: Duration = Duration::from_micros(250);
        let ledger = Ledger::new(1);
        let tell = || ledger.collect(&mut Vec::new());
        assert!(!ledger.is_to_be_told(3, WHILE), "nothing is settled");
        ledger.settle(1, Told::Ack);
        assert!(ledger.is_to_be_told(3, WHILE), "it was never told");
        tell();
        assert!(!ledger.is_to_be_told(3, WHILE), "it knows all there is");
        ledger.settle(3, Told::Ack);
        assert!(!ledger.is_to_be_told(3, WHILE), "one is at work");
        tokio::time::advance(WHILE).await;
        assert!(ledger.is_to_be_told(3, WHILE));
        tell();
        ledger.settle(2, Told::Reject { requeue: false });
        assert!(ledger.is_to_be_told(3, WHILE), "all are settled");
    }
}
