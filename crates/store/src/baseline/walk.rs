//! Walks through the changes of a run and fetches their rows: first the removals of all partitions, then what was added
//! or changed, partition by partition.
//!
//! The counts of the first pass say which partitions have removals, so the walk for removals opens no other.
//! A partition whose differences were not kept and that has both is compared once for each.
//!
//! Memory stays bounded for wide rows too: rows of now are read chunk by chunk, rows of before in rounds of a bounded size,
//! and the rows of one batch are copied together, so that a change in flight does not hold on to a whole chunk.

use std::sync::Arc;

use bytes::Bytes;
use warren_engine::change::{Change, Op};
use warren_engine::failure::Failure;
use warren_engine::model::Schema;
use warren_engine::row::Row;

use super::changes::Found;
use super::count::Different;
use super::doubts::judge_in_doubt;
use super::merge::{Difference, Verdict};
use super::partition::Entry;
use super::previous::{Located, RowStore, missing_row};
use super::segment::StoredSchema;
use super::spill::{Fresh, RowWalk};

/// Rows of one batch of changes, together.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Where a run is in its changes.
///
/// Room that a partition takes is kept for the next one: rooms of some megabytes that come and go on several threads
/// leave holes in the heap of each, which was 30 MiB at 10⁷ rows.
#[derive(Default)]
pub(crate) struct Walk {
    /// The changes that are handed out now.
    part: Part,
    /// The next of the partitions with changes.
    next: usize,
    current: PartitionWalk,
    rows: Option<RowStore>,
    finding: Finding,
}

/// The two parts of a run's changes, in the order in which they are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    /// Removed rows.
    #[default]
    Removals,
    /// Added and changed rows.
    Others,
}

impl Part {
    fn has(self, difference: &Difference) -> bool {
        (difference.op == Op::Removed) == (self == Part::Removals)
    }

    /// Whether a partition has changes of this part.
    fn is_in(self, different: &Different) -> bool {
        match self {
            Part::Removals => different.removals > 0,
            Part::Others => different.others > 0,
        }
    }
}

/// Room to compare a partition again.
#[derive(Default)]
struct Finding {
    base: Vec<Entry>,
    fresh: Fresh,
    scratch: Vec<u8>,
    wanted: Vec<Entry>,
}

impl Walk {
    /// The next changes, at most `max`; none at the end. Removals are never handed out together with others.
    pub(crate) fn next(&mut self, found: &Found, max: usize) -> Result<Vec<Change>, Failure> {
        loop {
            let changes = self.current.take(found, self.rows.as_ref(), max.max(1))?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            let Some(different) = found.partitions.get(self.next) else {
                match self.part {
                    Part::Removals => (self.part, self.next) = (Part::Others, 0),
                    Part::Others => return Ok(Vec::new()),
                }
                continue;
            };
            self.next += 1;
            if !self.part.is_in(different) {
                continue;
            }
            let rows = match &self.rows {
                Some(rows) => rows,
                None => self.rows.insert(RowStore::open(&found.folder, &found.manifest)?),
            };
            self.current.open(found, rows, different, self.part, &mut self.finding)?;
        }
    }
}

/// The changes of one partition that belong to one part, in the order their rows were read (removed ones by key).
#[derive(Default)]
struct PartitionWalk {
    /// Each with the place of its previous row, where it has one.
    differences: Vec<(Difference, Option<Located>)>,
    at: usize,
    walk: RowWalk,
    round: Round,
}

/// Previous rows of some differences, in memory.
#[derive(Default)]
struct Round {
    from: usize,
    /// For each difference from `from` on: its place in `bytes`, and its columns.
    rows: Vec<Option<(usize, usize, usize)>>,
    bytes: Vec<u8>,
    schemas: Vec<StoredSchema>,
}

impl Round {
    fn clear(&mut self, from: usize) {
        self.from = from;
        self.rows.clear();
        self.bytes.clear();
        self.schemas.clear();
    }
}

impl PartitionWalk {
    /// Continues with another partition.
    fn open(
        &mut self,
        found: &Found,
        rows: &RowStore,
        different: &Different,
        part: Part,
        finding: &mut Finding,
    ) -> Result<(), Failure> {
        let partition = usize::from(different.partition);
        self.at = 0;
        self.walk.begin(partition);
        self.round.clear(0);
        self.differences.clear();
        match &different.differences {
            Some(kept) => {
                self.differences.extend(kept.iter().filter(|one| part.has(one)).map(|&one| (one, None)));
            }
            None => finding.again(found, partition, part, &mut self.differences)?,
        }
        // `wanted` has the order of `differences`, that of keys, without those added.
        finding.wanted.clear();
        // Looking up a previous row costs a block of the row file, so only those somebody will look at.
        let wants = |one: &Difference| found.previous || one.op == Op::Removed;
        for (one, _) in self.differences.iter().filter(|(one, _)| wants(one)) {
            finding.wanted.extend(one.before().map(|before| Entry::new(one.key, before, one.version)));
        }
        if !finding.wanted.is_empty() {
            let mut places = rows.locate(partition, &finding.wanted)?.into_iter();
            for (one, located) in &mut self.differences {
                if one.before().is_some() && wants(one) {
                    let place = places.next().flatten().ok_or_else(|| missing_row(&found.folder))?;
                    *located = Some(place);
                }
            }
        }
        self.differences.sort_unstable_by_key(|(one, _)| (one.number(), one.key));
        Ok(())
    }

    fn take(&mut self, found: &Found, rows: Option<&RowStore>, max: usize) -> Result<Vec<Change>, Failure> {
        if self.at == self.round.from + self.round.rows.len() {
            self.next_round(found, rows)?;
        }
        let ready = self.round.from + self.round.rows.len();
        let end = ready.min(self.at.saturating_add(max));
        let (mut arena, mut places) = (Vec::new(), Vec::new());
        let from = self.at;
        while self.at < end && arena.len() < BATCH_BYTES_MAX {
            let now = match self.differences[self.at].0.number() {
                Some(number) => Some(append(&mut arena, self.walk.row(found.spill.dealt(), number)?)),
                None => None,
            };
            let previous = self.round.rows[self.at - self.round.from].map(|(start, end, schema)| {
                (append(&mut arena, &self.round.bytes[start..end]), &self.round.schemas[schema])
            });
            places.push((now, previous));
            self.at += 1;
        }
        let arena = Bytes::from(arena);
        let row = |schema: &Arc<Schema>, (start, end): (usize, usize)| Row {
            schema: Arc::clone(schema),
            bytes: arena.slice(start..end),
        };
        let mut changes = Vec::with_capacity(places.len());
        for ((difference, _), (now, previous)) in self.differences[from..].iter().zip(places) {
            let kept = previous.map(|(place, stored)| (row(&stored.schema, place), stored.whole));
            let previous = kept.as_ref().filter(|(_, whole)| *whole).map(|(row, _)| row.clone());
            let current = match now {
                Some(place) => Some(row(&found.schema, place)),
                None => kept.map(|(row, _)| row),
            };
            changes.push(Change {
                op: difference.op,
                key: difference.key,
                before: difference.before(),
                after: difference.after(),
                version: difference.version,
                row: current.ok_or_else(|| missing_row(&found.folder))?,
                previous: previous.filter(|_| difference.op != Op::Added),
            });
        }
        Ok(changes)
    }

    /// Fetches the previous rows of the next differences, as many as fit.
    fn next_round(&mut self, found: &Found, rows: Option<&RowStore>) -> Result<(), Failure> {
        let from = self.at;
        let (mut to, mut bytes, mut located) = (from, 0, Vec::new());
        while to < self.differences.len() && bytes < found.sizes.previous_bytes {
            if let Some(place) = self.differences[to].1 {
                bytes += place.length as usize;
                located.push((to - from, place));
            }
            to += 1;
        }
        let round = &mut self.round;
        round.clear(from);
        round.rows.resize(to - from, None);
        let Some(rows) = rows else { return Ok(()) };
        rows.read(&mut located, |at, stored, bytes| {
            let known = round.schemas.iter().position(|known| Arc::ptr_eq(&known.schema, &stored.schema));
            let schema = known.unwrap_or(round.schemas.len());
            if known.is_none() {
                round.schemas.push(stored.clone());
            }
            let (start, end) = append(&mut round.bytes, bytes);
            round.rows[at] = Some((start, end, schema));
            Ok(())
        })
    }
}

impl Finding {
    /// The differences of a partition that belong to one part, as the first pass found them.
    fn again(
        &mut self,
        found: &Found,
        partition: usize,
        part: Part,
        differences: &mut Vec<(Difference, Option<Located>)>,
    ) -> Result<(), Failure> {
        self.base.clear();
        if let Some(keys) = &found.keys {
            keys.partition(partition, &mut self.base, &mut self.scratch)?;
        }
        found.spill.fresh(partition, &mut self.fresh, &mut self.scratch)?;
        judge_in_doubt(&self.base, &self.fresh, found.doubts.of(partition), found.rules, |verdict| {
            if let Verdict::Differs(difference) = verdict
                && part.has(&difference)
            {
                differences.push((difference, None));
            }
        });
        Ok(())
    }
}

fn append(arena: &mut Vec<u8>, bytes: &[u8]) -> (usize, usize) {
    let start = arena.len();
    arena.extend_from_slice(bytes);
    (start, arena.len())
}
