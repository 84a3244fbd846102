//! The first pass over what was read: counts, so that guards can judge before anything is sent, and which
//! partitions have something to send. Rows themselves are not touched, but for samples of duplicate keys.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use warren_engine::change::{Change, Op};
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::Picker;
use warren_engine::key::key_text_at;
use warren_engine::ports::RowFault;
use warren_engine::row::RowRef;
use warren_engine::run::PerOp;

use super::arrived::Wanted;
use super::doubts::{Doubts, judge_in_doubt};
use super::keys::KeysFile;
use super::merge::{Difference, Rules, Verdict};
use super::partition::PARTITIONS;
use super::read::SAMPLES_MAX;
use super::spill::{Fresh, RowWalk, Spill};

/// What the first pass found.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    pub(crate) planned: PerOp,
    /// The sum of all changes' digests.
    pub(crate) digest: u128,
    pub(crate) duplicate_rows: u64,
    /// Entries whose print is of other columns than those in use, and whose row is the same.
    pub(crate) reprints: u64,
    /// Partitions with changes, in order.
    pub(crate) partitions: Vec<Different>,
    /// Rows with duplicate keys, by partition and number.
    duplicates: Vec<(usize, u64)>,
}

/// A partition with changes, and these, if they were kept.
#[derive(Debug)]
pub(crate) struct Different {
    pub(crate) partition: u16,
    /// How many rows of it were removed.
    pub(crate) removals: u32,
    /// How many rows of it were added or changed.
    pub(crate) others: u32,
    pub(crate) differences: Option<Vec<Difference>>,
}

/// What is compared, and how.
#[derive(Clone, Copy)]
pub(crate) struct Comparing<'c> {
    pub(crate) keys: Option<&'c KeysFile>,
    pub(crate) spill: &'c Spill,
    pub(crate) doubts: &'c Doubts,
    pub(crate) rules: Rules,
    /// Receives the rows that will be looked at.
    pub(crate) wanted: &'c Wanted,
    /// Differences that are kept from this pass to the walk. The others are found again, which costs little next to
    /// sending so many.
    pub(crate) kept_max: usize,
}

/// Compares every partition, on as many threads as there are cores, up to four.
pub(crate) fn count(compare: &Comparing<'_>) -> Result<Counted, Failure> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
    let turn = Turn::default();
    let work = || {
        let result = count_some(compare, &turn);
        turn.failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mine = work();
        let joined = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Failure::internal("compare rows with the baseline")))
        });
        std::iter::once(mine).chain(joined.collect::<Vec<_>>()).collect()
    });
    let mut all = Counted::default();
    for counted in results {
        let counted = counted?;
        all.digest = all.digest.wrapping_add(counted.digest);
        all.planned.added += counted.planned.added;
        all.planned.changed += counted.planned.changed;
        all.planned.removed += counted.planned.removed;
        all.duplicate_rows += counted.duplicate_rows;
        all.reprints += counted.reprints;
        all.partitions.extend(counted.partitions);
        all.duplicates.extend(counted.duplicates);
    }
    all.partitions.sort_unstable_by_key(|different| different.partition);
    all.duplicates.sort_unstable();
    all.duplicates.truncate(SAMPLES_MAX);
    all.duplicates.iter().for_each(|&(_, number)| compare.wanted.add(number));
    Ok(all)
}

/// What the threads share.
#[derive(Default)]
struct Turn {
    /// The next partition.
    next: AtomicUsize,
    /// Differences kept so far.
    kept: AtomicUsize,
    failed: AtomicBool,
}

fn count_some(compare: &Comparing<'_>, turn: &Turn) -> Result<Counted, Failure> {
    let &Comparing { keys, spill, doubts, rules, wanted, kept_max } = compare;
    let mut counted = Counted::default();
    let (mut base, mut fresh, mut scratch) = (Vec::new(), Fresh::default(), Vec::new());
    while !turn.failed.load(Ordering::Relaxed) {
        let partition = turn.next.fetch_add(1, Ordering::Relaxed);
        if partition >= PARTITIONS {
            break;
        }
        base.clear();
        if let Some(keys) = keys {
            keys.partition(partition, &mut base, &mut scratch)?;
        }
        spill.fresh(partition, &mut fresh, &mut scratch)?;
        let mut differences = Vec::new();
        judge_in_doubt(&base, &fresh, doubts.of(partition), rules, |verdict| match verdict {
            Verdict::Differs(difference) => {
                let Difference { op, key, .. } = difference;
                *counted.planned.of(op) += 1;
                let digest = Change::digest(op, key, difference.before(), difference.after());
                counted.digest = counted.digest.wrapping_add(digest);
                if let Some(number) = difference.number() {
                    wanted.add(number);
                }
                differences.push(difference);
            }
            Verdict::Reprint(_) => counted.reprints += 1,
            Verdict::Twice { number } => {
                counted.duplicate_rows += 1;
                // Partitions come in order to each thread, so the first of each are enough.
                if counted.duplicates.len() < SAMPLES_MAX {
                    counted.duplicates.push((partition, number));
                }
            }
        });
        if !differences.is_empty() {
            let kept = turn.kept.fetch_add(differences.len(), Ordering::Relaxed) + differences.len();
            let removals = differences.iter().filter(|one: &&Difference| one.op == Op::Removed).count();
            let others = differences.len() - removals;
            differences.shrink_to_fit();
            counted.partitions.push(Different {
                partition: partition as u16,
                removals: removals as u32,
                others: others as u32,
                differences: (kept <= kept_max).then_some(differences),
            });
        }
    }
    Ok(counted)
}

impl Counted {
    /// The first rows with duplicate keys.
    pub(crate) fn samples(&self, spill: &Spill, key: &Picker) -> Result<Vec<RowFault>, Failure> {
        let mut faults = Vec::new();
        let (mut at, mut walk) = (0, RowWalk::of(0));
        for &(partition, number) in &self.duplicates {
            if partition != at {
                (at, walk) = (partition, RowWalk::of(partition));
            }
            let row = RowRef::new(walk.row(spill.dealt(), number)?);
            faults.push(RowFault { code: codes::DUPLICATE_KEY, key: key_text_at(row, key.indexes()) });
        }
        Ok(faults)
    }
}
