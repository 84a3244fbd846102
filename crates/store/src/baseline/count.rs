//! The first pass over what was read: counts, so that guards can judge before anything is sent, and which
//! partitions have something to send. Rows themselves are not touched, but for samples of duplicate keys.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use warren_engine::change::Change;
use warren_engine::codes;
use warren_engine::failure::Failure;
use warren_engine::fingerprint::Picker;
use warren_engine::key::key_text_at;
use warren_engine::ports::RowFault;
use warren_engine::row::RowRef;
use warren_engine::run::PerOp;

use super::keys::KeysFile;
use super::merge::{Difference, Rules, Verdict, judge};
use super::partition::PARTITIONS;
use super::read::SAMPLES_MAX;
use super::spill::{Fresh, Spill};

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
    pub(crate) partitions: Vec<u16>,
    /// Rows with duplicate keys, by partition and ordinal.
    duplicates: Vec<(usize, u32)>,
}

/// Compares every partition, on as many threads as there are cores, up to four.
pub(crate) fn count(keys: Option<&KeysFile>, spill: &Spill, rules: Rules) -> Result<Counted, Failure> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let result = count_some(keys, spill, rules, &next, &failed);
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
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
    all.partitions.sort_unstable();
    all.duplicates.sort_unstable();
    all.duplicates.truncate(SAMPLES_MAX);
    Ok(all)
}

fn count_some(
    keys: Option<&KeysFile>,
    spill: &Spill,
    rules: Rules,
    next: &AtomicUsize,
    failed: &AtomicBool,
) -> Result<Counted, Failure> {
    let mut counted = Counted::default();
    let (mut base, mut fresh, mut scratch) = (Vec::new(), Fresh::default(), Vec::new());
    while !failed.load(Ordering::Relaxed) {
        let partition = next.fetch_add(1, Ordering::Relaxed);
        if partition >= PARTITIONS {
            break;
        }
        base.clear();
        if let Some(keys) = keys {
            keys.partition(partition, &mut base, &mut scratch)?;
        }
        spill.fresh(partition, &mut fresh, &mut scratch)?;
        let before = counted.planned;
        judge(&base, &fresh, rules, |verdict| match verdict {
            Verdict::Differs(Difference { op, key, before, after, .. }) => {
                *counted.planned.of(op) += 1;
                counted.digest = counted.digest.wrapping_add(Change::digest(op, key, before, after));
            }
            Verdict::Reprint(_) => counted.reprints += 1,
            Verdict::Twice { ordinal } => {
                counted.duplicate_rows += 1;
                // Partitions come in order to each thread, so the first of each are enough.
                if counted.duplicates.len() < SAMPLES_MAX {
                    counted.duplicates.push((partition, ordinal));
                }
            }
        });
        if counted.planned != before {
            counted.partitions.push(partition as u16);
        }
    }
    Ok(counted)
}

impl Counted {
    /// The first rows with duplicate keys.
    pub(crate) fn samples(&self, spill: &Spill, key: &Picker) -> Result<Vec<RowFault>, Failure> {
        let mut faults = Vec::new();
        let (mut at, mut walk) = (0, spill.walk(0));
        for &(partition, ordinal) in &self.duplicates {
            if partition != at {
                (at, walk) = (partition, spill.walk(partition));
            }
            let row = RowRef::new(walk.row(spill, ordinal)?);
            faults.push(RowFault { code: codes::DUPLICATE_KEY, key: key_text_at(row, key.indexes()) });
        }
        Ok(faults)
    }
}
