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

/// Whether the baseline remembers which messages are under way.
///
/// It does not yet: when a process dies (or a run ends) before the answer to B is on record, and the row is A again, as
/// the baseline says, before the next run, then nothing differs and the destination is left with B. Once that is
/// closed this becomes `true`, and the test asserts it.
pub const ANSWERS_OUTSTANDING_ARE_REMEMBERED: bool = false;

/// Whether an added row whose answer is outstanding keeps its change id through runs that send others, removals among them.
///
/// It does not yet: the id of an added row has the baseline's epoch in it.
pub const IDS_OF_ADDED_ROWS_OUTLIVE_OTHER_RUNS: bool = false;

/// Whether the baseline remembers which columns the prints of rows are of that could not be told when the columns changed.
///
/// It does not yet: a row that was rejected, or whose key occurred twice, in the first run with other columns keeps its old
/// print, and the baseline forgets which columns that is of. Later it is sent as changed, though it may be what was told.
pub const OLD_COLUMNS_ARE_REMEMBERED: bool = false;

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
    heard: usize,
    removals: usize,
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
            let settled =
                self.settled.contains(&message.key) && (self.constant || OLD_COLUMNS_ARE_REMEMBERED);
            assert!(full || !settled, "nothing differed: {message:?}");
            let said = self.said.entry(message.key).or_default();
            if let Some(last) = said.last().filter(|last| last.heard.row == message.row) {
                if last.run == run {
                    assert_eq!(last.heard, *message, "sent again in one run under another id");
                    repeated += 1;
                } else if self.constant && !full && !last.full {
                    assert!(last.unrecorded, "sent again without need: {message:?} after {last:?}");
                    assert_eq!(last.heard.op, message.op);
                    let between = &self.runs[last.run..];
                    let calm = between[1..].iter().all(|run| run.heard == 0) && between[0].removals == 0;
                    if calm || message.op != Op::Added || IDS_OF_ADDED_ROWS_OUTLIVE_OTHER_RUNS {
                        assert_eq!(last.heard.id, message.id, "sent again under another id: {last:?}");
                    }
                    self.sent_again += 1;
                }
            }
            let unrecorded = unrecorded.contains(&message.key);
            said.push(Said { heard: message.clone(), run, full, unrecorded });
        }
        self.duplicates += repeated;
        self.check_duplicates(heard, ended, unrecorded, repeated);
        let removals = heard.iter().filter(|message| message.row.is_none()).count();
        self.runs.push(Run { heard: heard.len(), removals });
        if let Some(RunRecord { state: RunState::Success | RunState::Warning, .. }) = ended {
            self.settle(full, refused && ended.is_some_and(|run| run.state == RunState::Warning));
        }
    }

    /// A message is what the row is, or the removal of one that is gone.
    fn check_content(&self, message: &Heard, full: bool) {
        let key = message.key;
        assert_ne!(self.twice, Some(key), "which row is meant cannot be told: {message:?}");
        match (&message.row, self.source.get(&key)) {
            (Some(heard), Some(row)) => assert_eq!((&heard.0, heard.1), (&row.name, row.size)),
            (None, None) => {
                assert!(!full, "in full nothing is removed");
                assert!(self.said.contains_key(&key), "removed and never told: {message:?}");
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
            } else if !refused {
                self.explain(key);
            }
        }
    }

    /// At the end of all runs.
    pub fn every_key_is_told(&mut self, name_only: bool) {
        let keys: BTreeSet<i64> = self.source.keys().chain(self.said.keys()).copied().collect();
        for key in keys {
            if !self.is_told(key, name_only || !self.constant) {
                self.explain(key);
            }
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

    /// The one excuse for a key whose last message is not its row.
    fn explain(&mut self, key: i64) {
        let said = self.said.get(&key).map_or(&[][..], |said| said);
        let recorded = said.iter().rev().find(|said| !said.unrecorded);
        let went_back = said.last().is_some_and(|last| last.unrecorded)
            && self.is_row(key, recorded, !self.constant)
            && !ANSWERS_OUTSTANDING_ARE_REMEMBERED;
        assert!(went_back, "key {key} is {:?} and was told as {said:#?}", self.source.get(&key));
        self.went_back += 1;
    }
}
