//! A change in doubt: the destination may have been told of it, and nobody knows. The answer was lost, or the process died
//! before it was on record.
//!
//! The baseline still holds what was told before it. Were that all that is compared, a row that goes back in time would be
//! no difference, and the destination would keep what it was told in between. So a key in doubt is always told
//! something: the same change again, or one that goes on from it.

use crate::change::{Change, Op};
use crate::fingerprint::RowPrint;

/// The last change of a key that the destination may have been told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// What was, perhaps, said.
    pub op: Op,
    /// As in [`Change::before`].
    pub before: Option<RowPrint>,
    /// As in [`Change::after`].
    pub after: Option<RowPrint>,
    /// As in [`Change::version`].
    pub version: u16,
}

impl Doubt {
    /// The doubt that is there while a change is under way.
    pub fn of(change: &Change) -> Doubt {
        Doubt { op: change.op, before: change.before, after: change.after, version: change.version }
    }

    /// The version of the key once the change is known to have been told.
    pub fn version_after(&self) -> u16 {
        version_after(self.op, self.version)
    }

    /// What to say of the key whose row's print is `now` (`None`: there is no row): op, print before and version.
    ///
    /// The same change once more, with the same id, if it still says what is; else a change that goes on from it, whose id
    /// is new. A row is then called changed only where the destination has one whatever became of the doubt, and
    /// added otherwise.
    pub fn next(&self, now: Option<RowPrint>) -> (Op, Option<RowPrint>, u16) {
        if now == self.after {
            return (self.op, self.before, self.version);
        }
        match (now, self.op) {
            (None, _) => (Op::Removed, self.after, self.version_after()),
            (Some(_), Op::Changed) => (Op::Changed, self.after, self.version_after()),
            (Some(_), Op::Added | Op::Removed) => (Op::Added, None, self.version.wrapping_add(1)),
        }
    }
}

/// The version of a key once a change of it was told.
pub fn version_after(op: Op, version: u16) -> u16 {
    match op {
        Op::Added | Op::Removed => version,
        Op::Changed => version.wrapping_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_said_again_while_it_is_true() {
        let [one, two] = [1, 2].map(|bits| Some(RowPrint::new(bits)));
        for (op, before, after) in [(Op::Added, None, two), (Op::Changed, one, two), (Op::Removed, one, None)]
        {
            let doubt = Doubt { op, before, after, version: 7 };
            assert_eq!(doubt.next(after), (op, before, 7));
        }
    }

    #[test]
    fn what_is_not_true_any_more_is_gone_on_from() {
        let [one, two] = [1, 2].map(|bits| Some(RowPrint::new(bits)));
        let added = Doubt { op: Op::Added, before: None, after: two, version: 7 };
        assert_eq!(added.next(one), (Op::Added, None, 8));
        assert_eq!(added.next(None), (Op::Removed, two, 7));
        let changed = Doubt { op: Op::Changed, before: one, after: two, version: u16::MAX };
        assert_eq!(changed.next(one), (Op::Changed, two, 0));
        assert_eq!(changed.next(None), (Op::Removed, two, 0));
        let removed = Doubt { op: Op::Removed, before: one, after: None, version: 7 };
        assert_eq!(removed.next(one), (Op::Added, None, 8));
    }
}
