//! Changes in batches for sending.

use crate::change::{Change, Op};
use crate::failure::Failure;
use crate::ports::ChangeSet;

/// Rows of a batch, in packed bytes, past which it is not filled further.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// A set of changes in batches. A set yields changes in pieces of its own, a partition of the baseline at a time, and small
/// pieces would leave the window half empty.
pub(super) struct Batches<'c> {
    pub(super) changes: &'c mut dyn ChangeSet,
    /// The beginning of the next batch.
    left: Vec<Change>,
}

impl<'c> Batches<'c> {
    pub(super) fn of(changes: &'c mut dyn ChangeSet) -> Batches<'c> {
        Batches { changes, left: Vec::new() }
    }

    /// The next changes, as many as make a batch: either removals, or rows added and changed. Empty at the end.
    pub(super) async fn next(&mut self, max: usize) -> Result<Vec<Change>, Failure> {
        let mut batch = std::mem::take(&mut self.left);
        let mut bytes = size(&batch);
        while batch.len() < max && bytes < BATCH_BYTES_MAX {
            let more = self.changes.next(max - batch.len()).await?;
            if more.is_empty() {
                break; // the next call gets an empty answer again
            }
            bytes += size(&more);
            batch.extend(more);
            if self.split(&mut batch) {
                break;
            }
        }
        Ok(batch)
    }

    /// Keeps for the next batch what may not go together with the first change. Returns whether there was such.
    fn split(&mut self, batch: &mut Vec<Change>) -> bool {
        let removals = |change: &Change| change.op == Op::Removed;
        let first = batch.first().is_some_and(removals);
        let Some(at) = batch.iter().position(|change| removals(change) != first) else { return false };
        self.left = batch.split_off(at);
        true
    }
}

fn size(changes: &[Change]) -> usize {
    changes.iter().map(|change| change.row.bytes.len()).sum()
}
