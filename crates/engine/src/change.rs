//! A change: a row added, changed or removed since the destination was last told.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::fingerprint::{KeyPrint, RowPrint};
use crate::row::Row;

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Its key is new.
    Added,
    /// Its key was there, and a column that counts differs.
    Changed,
    /// Its key is gone.
    Removed,
}

/// A row that was added, changed or removed.
#[derive(Debug, Clone)]
pub struct Change {
    /// What happened.
    pub op: Op,
    /// The key's print.
    pub key: KeyPrint,
    /// The row's print when the destination was last told; `None` for [`Op::Added`].
    pub before: Option<RowPrint>,
    /// The row's print now; `None` for [`Op::Removed`].
    pub after: Option<RowPrint>,
    /// How often the key's changes were accepted, modulo 2¹⁶; for an added row the count it begins with.
    pub version: u16,
    /// The row now; for a removed row the last one the destination was told of (only the key's columns
    /// where rows are not kept).
    pub row: Row,
    /// The row the destination was last told of; `None` for an added row, and where rows are not kept.
    pub previous: Option<Row>,
}

/// The name of a change: the same each time the same change is sent, so a consumer can tell a repetition.
///
/// A hash of the sync's name, the key, the prints before and after, and the key's version. The version is
/// there because a row may go from A to B, back, and to B again: these are three changes, and the third must not
/// look like a repetition of the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub u128);

impl ChangeId {
    /// The id of a change of a sync. `again` is empty, or tells deliberate repetitions apart (`--full`, replay).
    pub fn of(sync: &str, change: &Change, again: &str) -> ChangeId {
        let mut hash = Xxh3Default::new();
        hash.update(&(sync.len() as u64).to_le_bytes());
        hash.update(sync.as_bytes());
        hash.update(&change.key.0.to_le_bytes());
        for print in [change.before, change.after] {
            // A print has 112 bits, so all ones is none.
            hash.update(&print.map_or(u128::MAX, RowPrint::bits).to_le_bytes());
        }
        hash.update(&change.version.to_le_bytes());
        hash.update(again.as_bytes());
        ChangeId(hash.digest128())
    }
}

impl Change {
    /// A number for what a change is, to be summed over all changes of a run.
    pub fn digest(op: Op, key: KeyPrint, before: Option<RowPrint>, after: Option<RowPrint>) -> u128 {
        let mut bytes = [0; 49];
        bytes[..16].copy_from_slice(&key.0.to_le_bytes());
        bytes[16..32].copy_from_slice(&before.map_or(u128::MAX, RowPrint::bits).to_le_bytes());
        bytes[32..48].copy_from_slice(&after.map_or(u128::MAX, RowPrint::bits).to_le_bytes());
        bytes[48] = op as u8;
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChangeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(ChangeId)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Added => "added",
            Op::Changed => "changed",
            Op::Removed => "removed",
        })
    }
}

impl FromStr for Op {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "added" => Ok(Op::Added),
            "changed" => Ok(Op::Changed),
            "removed" => Ok(Op::Removed),
            _ => Err(()),
        }
    }
}
