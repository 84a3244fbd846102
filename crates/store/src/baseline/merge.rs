//! The comparison itself: sorted keys of now against sorted entries of the baseline.

use warren_engine::change::Op;
use warren_engine::fingerprint::{KeyPrint, RowPrint};

use super::partition::Entry;
use super::spill::Fresh;

/// How rows are judged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether every row is reported as added and none as removed.
    pub(crate) full: bool,
    /// The version that an added key begins with.
    pub(crate) epoch: u16,
}

/// What is to be said of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The row differs.
    Differs(Difference),
    /// The row is the same, and its entry has the print of other columns than those in use now.
    Reprint(Entry),
    /// The row's key occurs more than once; one verdict for each row.
    Twice {
        /// The row's turn in the order of arrival.
        number: u64,
    },
}

/// A key whose row was added, changed or removed. Kept small, since a backfill has one for every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) key: KeyPrint,
    before: RowPrint,
    after: RowPrint,
    number: u64,
    pub(crate) version: u16,
    pub(crate) op: Op,
}

impl Difference {
    /// A difference as it is to be told. Of a row that is not there `after` and `number` are not looked at.
    pub(crate) fn of(
        key: u128,
        op: Op,
        before: Option<RowPrint>,
        after: Option<RowPrint>,
        number: u64,
        version: u16,
    ) -> Difference {
        let print = |print: Option<RowPrint>| print.unwrap_or(RowPrint::new(0));
        Difference { key: KeyPrint(key), before: print(before), after: print(after), number, version, op }
    }

    fn added(key: u128, after: RowPrint, number: u64, version: u16) -> Difference {
        let before = RowPrint::new(0);
        Difference { key: KeyPrint(key), before, after, number, version, op: Op::Added }
    }

    fn changed(entry: Entry, after: RowPrint, number: u64) -> Difference {
        let (key, before, version) = (KeyPrint(entry.key()), entry.print(), entry.version());
        Difference { key, before, after, number, version, op: Op::Changed }
    }

    fn removed(entry: Entry) -> Difference {
        Difference { op: Op::Removed, ..Difference::changed(entry, RowPrint::new(0), 0) }
    }

    /// The print of the row that was last accepted, if there was one.
    pub(crate) fn before(self) -> Option<RowPrint> {
        (self.op != Op::Added).then_some(self.before)
    }

    /// The print of the row now, if there is one.
    pub(crate) fn after(self) -> Option<RowPrint> {
        (self.op != Op::Removed).then_some(self.after)
    }

    /// The row's turn in the order of arrival, if there is one.
    pub(crate) fn number(self) -> Option<u64> {
        (self.op != Op::Removed).then_some(self.number)
    }
}

/// Says of each key of a partition what is to be said, in the order of keys.
pub(crate) fn judge(base: &[Entry], fresh: &Fresh, rules: Rules, mut say: impl FnMut(Verdict)) {
    let (mut b, mut f) = (0, 0);
    while b < base.len() || f < fresh.keys.len() {
        let Some(&(key, ordinal)) = fresh.keys.get(f) else {
            gone(base[b], rules, &mut say);
            b += 1;
            continue;
        };
        let entry = base.get(b).copied();
        if let Some(entry) = entry.filter(|entry| entry.key() < key) {
            gone(entry, rules, &mut say);
            b += 1;
            continue;
        }
        let entry = entry.filter(|entry| entry.key() == key);
        let same = fresh.keys[f..].iter().take_while(|(other, _)| *other == key).count();
        if same > 1 {
            for &(_, ordinal) in &fresh.keys[f..f + same] {
                say(Verdict::Twice { number: fresh.number(ordinal) });
            }
        } else {
            here(entry, key, fresh, ordinal, rules, &mut say);
        }
        f += same;
        b += usize::from(entry.is_some());
    }
}

fn gone(entry: Entry, rules: Rules, say: &mut impl FnMut(Verdict)) {
    if !rules.full {
        say(Verdict::Differs(Difference::removed(entry)));
    }
}

fn here(
    entry: Option<Entry>,
    key: u128,
    fresh: &Fresh,
    ordinal: u32,
    rules: Rules,
    say: &mut impl FnMut(Verdict),
) {
    let prints = fresh.prints(ordinal);
    let print = RowPrint::new(prints[0]);
    let number = || fresh.number(ordinal);
    let Some(entry) = entry else {
        return say(Verdict::Differs(Difference::added(key, print, number(), rules.epoch)));
    };
    if rules.full {
        let version = entry.version().wrapping_add(1);
        return say(Verdict::Differs(Difference::added(key, print, number(), version)));
    }
    if entry.print() == print {
        return;
    }
    if prints[1..].iter().any(|&old| RowPrint::new(old) == entry.print()) {
        return say(Verdict::Reprint(entry.with_print(print)));
    }
    say(Verdict::Differs(Difference::changed(entry, print, number())));
}
