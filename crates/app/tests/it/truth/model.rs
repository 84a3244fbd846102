//! The truth as it can be seen from outside: what the source has, and what arrived, in order.
//!
//! Asserted of each message: it is what the row is in that run, or the removal of a key that the result lacks and that was
//! told before; it is no repetition, unless it is one of the same change id whose first sending was not on record, and
//! of these there are never more than were under way. Asserted after each run that came to its end: the last message of each key
//! is its row, or a removal; and what was settled so is not touched again until the row is.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use warren_engine::change::Op;
use warren_engine::run::{RunRecord, RunState};

use super::world::{Cells, Heard, QUEUE};

/// A message, and the run it came in.
#[derive(Debug, Clone)]
struct Said {
    heard: Heard,
    run: usize,
    full: bool,
    /// It arrived, and the baseline does not know.
    unrecorded: bool,
}

/// How a run went, as far as it matters later.
struct Run {
    /// Of some messages it did not know what became of them.
    left_doubts: bool,
}

pub struct Model {
    source: BTreeMap<i64, Cells>,
    nulls: usize,
    twice: Option<i64>,
    /// All columns count in all runs.
    constant: bool,
    in_flight_max: usize,
    said: BTreeMap<i64, Vec<Said>>,
    runs: Vec<Run>,
    /// Keys of which nothing may be said until their row is written.
    settled: BTreeSet<i64>,
    duplicates: usize,
    sent_again: usize,
    went_back: usize,
}

impl Model {
    pub fn new(constant: bool, in_flight_max: usize) -> Model {
        Model {
            source: BTreeMap::new(),
            nulls: 0,
            twice: None,
            constant,
            in_flight_max,
            said: BTreeMap::new(),
            runs: Vec::new(),
            settled: BTreeSet::new(),
            duplicates: 0,
            sent_again: 0,
            went_back: 0,
        }
    }

    /// A write to the source.
    pub fn write(&mut self, key: i64, row: Option<&Cells>) {
        let before = match row {
            Some(row) => self.source.insert(key, row.clone()),
            None => self.source.remove(&key),
        };
        if before.as_ref() != row {
            self.settled.remove(&key);
        }
    }

    /// Rows of the next result that take no part: so many with NULL for a key, and a key that occurs twice more.
    pub fn result(&mut self, nulls: usize, twice: Option<i64>) {
        (self.nulls, self.twice) = (nulls, twice);
    }

    /// The next result, in any order.
    pub fn rows(&self, rng: &mut Rng) -> Vec<(Option<i64>, Cells)> {
        let mut rows: Vec<_> = self.source.iter().map(|(&key, row)| (Some(key), row.clone())).collect();
        rows.extend((0..self.nulls).map(|_| (None, Cells::random(rng))));
        for key in [self.twice, self.twice].into_iter().flatten() {
            rows.push((Some(key), Cells::random(rng)));
        }
        rng.shuffle(&mut rows);
        rows
    }

    /// Writes after which every row can be sent.
    pub fn mended(&self) -> Vec<(i64, Option<Cells>)> {
        let bad = self.source.iter().filter(|(_, row)| row.queue != QUEUE);
        bad.map(|(&key, row)| (key, Some(Cells { queue: QUEUE, ..row.clone() }))).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.source.is_empty() && self.nulls == 0 && self.twice.is_none()
    }

    pub fn len(&self) -> usize {
        self.source.len()
    }

    pub fn messages(&self) -> usize {
        self.said.values().map(Vec::len).sum()
    }

    pub fn removals(&self) -> usize {
        self.said.values().flatten().filter(|said| said.heard.row.is_none()).count()
    }

    /// Messages that arrived again in the same run.
    pub fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// Messages that arrived again in a later run.
    pub fn sent_again(&self) -> usize {
        self.sent_again
    }

    /// Messages of a row that went back, or nearly: it was told before, and something else may have been told since.
    pub fn went_back(&self) -> usize {
        self.went_back
    }

    /// Takes what arrived in a run. `unrecorded`: keys that the baseline says still differ. `refused`: rows may have been
    /// rejected although they are sound.
    pub fn after(
        &mut self,
        heard: &[Heard],
        ended: Option<&RunRecord>,
        unrecorded: &BTreeSet<i64>,
        full: bool,
        refused: bool,
    ) {
        let run = self.runs.len();
        let mut repeated = 0;
        for message in heard {
            self.check_content(message, full);
            let settled = !full && self.settled.contains(&message.key);
            assert!(!settled || self.may_differ(message), "nothing differed: {message:?}");
            let said = self.said.entry(message.key).or_default();
            if let Some(last) = said.last().filter(|last| last.heard.row == message.row) {
                if last.run == run {
                    assert_eq!(last.heard, *message, "sent again in one run under another id");
                    repeated += 1;
                } else if self.constant && !full && !last.full {
                    // In such a run the key may have been about to be told something else.
                    let in_doubt = self.runs[last.run + 1..].iter().any(|run| run.left_doubts);
                    if !in_doubt {
                        assert!(last.unrecorded, "sent again without need: {message:?} after {last:?}");
                        assert_eq!(last.heard.op, message.op);
                        assert_eq!(last.heard.id, message.id, "sent again under another id: {last:?}");
                    } else if !last.unrecorded {
                        assert_ne!(last.heard.id, message.id, "another change has another id: {last:?}");
                        self.went_back += 1;
                    }
                    self.sent_again += 1;
                }
            }
            let unrecorded = unrecorded.contains(&message.key);
            said.push(Said { heard: message.clone(), run, full, unrecorded });
        }
        self.duplicates += repeated;
        self.check_duplicates(heard, ended, unrecorded, repeated);
        let left_doubts = ended.is_none_or(|run| run.counts.unanswered > 0 || run.state == RunState::Failed);
        self.runs.push(Run { left_doubts });
        if let Some(RunRecord { state: RunState::Success | RunState::Warning, .. }) = ended {
            self.settle(full, refused && ended.is_some_and(|run| run.state == RunState::Warning));
        }
    }

    /// What may differ of a row that was settled while the columns that count change: what did not count when it was told. Or
    /// it was about to be told in full, by other columns, and nobody knows.
    fn may_differ(&self, message: &Heard) -> bool {
        let Some(last) = self.said.get(&message.key).and_then(|said| said.last()) else { return false };
        if last.run == self.runs.len() {
            return true; // once more in the same run: that is looked at elsewhere
        }
        let in_doubt = || self.runs[last.run..].iter().any(|run| run.left_doubts);
        !self.constant && (last.heard.row != message.row || in_doubt())
    }

    /// A message is what the row is, or the removal of one that is gone.
    fn check_content(&self, message: &Heard, full: bool) {
        let key = message.key;
        assert_ne!(self.twice, Some(key), "which row is meant cannot be told: {message:?}");
        match (&message.row, self.source.get(&key)) {
            (Some(heard), Some(row)) => assert_eq!((&heard.0, heard.1), (&row.name, row.size)),
            (None, None) => {
                assert!(!full, "in full nothing is removed");
                // Of a key in doubt nobody knows whether it was told.
                let known = self.said.contains_key(&key) || self.runs.iter().any(|run| run.left_doubts);
                assert!(known, "removed and never told: {message:?}");
            }
            (heard, row) => panic!("key {key} is {row:?} and was told as {heard:?}"),
        }
        assert_eq!(message.op == Op::Removed, message.row.is_none());
    }

    /// No more can be sent twice than was under way, and what a run knows of it, it says.
    fn check_duplicates(
        &self,
        heard: &[Heard],
        ended: Option<&RunRecord>,
        unrecorded: &BTreeSet<i64>,
        repeated: usize,
    ) {
        let keys: BTreeSet<i64> = heard.iter().map(|message| message.key).collect();
        let unrecorded = keys.intersection(unrecorded).count();
        let Some(record) = ended else {
            assert!(unrecorded <= self.in_flight_max, "{unrecorded} arrived and are not on record");
            return;
        };
        let counts = &record.counts;
        assert!(
            repeated + unrecorded <= counts.possible_duplicates as usize + self.failed_max(record),
            "{record:?}"
        );
        assert!(unrecorded <= counts.unanswered as usize + self.failed_max(record), "{record:?}");
    }

    /// What was accepted and could not be taken note of, at most.
    fn failed_max(&self, record: &RunRecord) -> usize {
        if record.state == RunState::Failed { self.in_flight_max } else { 0 }
    }

    /// A run came to its end: what it leaves is told.
    fn settle(&mut self, full: bool, refused: bool) {
        let keys: BTreeSet<i64> = self.source.keys().chain(self.said.keys()).copied().collect();
        for key in keys {
            let sound = self.source.get(&key).is_none_or(|row| row.queue == QUEUE);
            let gone = !self.source.contains_key(&key);
            if self.twice == Some(key) || !sound || (full && gone) {
                continue;
            }
            if self.is_told(key, !self.constant) {
                self.settled.insert(key);
            } else {
                assert!(refused, "{}", self.story(key));
            }
        }
    }

    /// At the end of all runs.
    pub fn every_key_is_told(&mut self, name_only: bool) {
        let keys: BTreeSet<i64> = self.source.keys().chain(self.said.keys()).copied().collect();
        for key in keys {
            assert!(self.is_told(key, name_only || !self.constant), "{}", self.story(key));
        }
    }

    /// Whether the last message of a key is its row, or where it has none, a removal.
    fn is_told(&self, key: i64, name_only: bool) -> bool {
        let last = self.said.get(&key).and_then(|said| said.last());
        self.is_row(key, last, name_only)
    }

    fn is_row(&self, key: i64, said: Option<&Said>, name_only: bool) -> bool {
        let told = said.and_then(|said| said.heard.row.as_ref());
        match (self.source.get(&key), told) {
            (None, None) => true,
            (Some(row), Some(told)) => row.name == told.0 && (name_only || row.size == told.1),
            _ => false,
        }
    }

    fn story(&self, key: i64) -> String {
        format!("key {key} is {:?} and was told as {:#?}", self.source.get(&key), self.said.get(&key))
    }
}
