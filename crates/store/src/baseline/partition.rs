//! The smallest parts: an entry of the baseline, and the partition its key belongs to.
//!
//! Keys are known by their prints, which are evenly spread, so the top bits of a print divide keys into parts of like
//! size. All work is done partition by partition: that bounds memory however many rows there are, and lets
//! two sorted lists be merged without sorting everything at once.

use warren_engine::fingerprint::{KeyPrint, RowPrint};

/// How many of a key print's top bits name its partition. Part of the format of every file.
pub(crate) const PARTITION_BITS: u32 = 10;

/// How many partitions there are. At 10⁸ rows one holds about 100,000 keys.
pub(crate) const PARTITIONS: usize = 1 << PARTITION_BITS;

/// The partition of a key.
pub(crate) fn partition_of(key: u128) -> usize {
    (key >> (128 - PARTITION_BITS)) as usize
}

/// What the destination was told of one key: 32 bytes on disk, big-endian, so that bytes sort as keys do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    key: u128,
    /// The row's print in the upper 112 bits, the version in the lower 16.
    rest: u128,
}

impl Entry {
    pub(crate) const SIZE: usize = 32;

    pub(crate) fn new(key: KeyPrint, print: RowPrint, version: u16) -> Entry {
        Entry { key: key.0, rest: print.bits() << 16 | u128::from(version) }
    }

    /// The bits of the key's print.
    pub(crate) fn key(self) -> u128 {
        self.key
    }

    /// The print of the row that was last accepted.
    pub(crate) fn print(self) -> RowPrint {
        RowPrint::new(self.rest >> 16)
    }

    /// How often the key's changes were accepted (see [`warren_engine::change::Change::version`]).
    pub(crate) fn version(self) -> u16 {
        self.rest as u16
    }

    /// The same key and version with another print of the same row.
    pub(crate) fn with_print(self, print: RowPrint) -> Entry {
        Entry::new(KeyPrint(self.key), print, self.version())
    }

    pub(crate) fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key.to_be_bytes());
        out.extend_from_slice(&self.rest.to_be_bytes());
    }

    /// Reads an entry from the first 32 of `bytes`.
    pub(crate) fn read(bytes: &[u8]) -> Entry {
        Entry { key: u128::from_be_bytes(sixteen(bytes, 0)), rest: u128::from_be_bytes(sixteen(bytes, 16)) }
    }
}

/// Sixteen bytes from a place; the caller has checked that they are there.
pub(crate) fn sixteen(bytes: &[u8], at: usize) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[at..at + 16]);
    out
}

/// A little-endian number from a place; the caller has checked that it is there.
pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

/// A little-endian number from a place; the caller has checked that it is there.
pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_back_from_its_bytes() {
        let entry = Entry::new(KeyPrint(u128::MAX - 5), RowPrint::new(u128::MAX), 65_535);
        let mut bytes = Vec::new();
        entry.write_to(&mut bytes);
        assert_eq!(bytes.len(), Entry::SIZE);
        assert_eq!(Entry::read(&bytes), entry);
        assert_eq!((entry.print(), entry.version()), (RowPrint::new(u128::MAX), 65_535));
        let other = entry.with_print(RowPrint::new(7));
        assert_eq!((other.key(), other.print().bits(), other.version()), (u128::MAX - 5, 7, 65_535));
    }

    #[test]
    fn partitions_follow_the_order_of_keys() {
        assert_eq!(partition_of(0), 0);
        assert_eq!(partition_of(u128::MAX), PARTITIONS - 1);
        assert_eq!(partition_of(1 << 118), 1);
    }
}
