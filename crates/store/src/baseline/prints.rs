//! The prints of the rows of the run under way, divided by key into partitions.
//!
//! Of each row: the key's print, those of the row, and its number, which is its turn in the order of arrival. They collect
//! in a small buffer a partition; a full one goes to a temporary file. A record has no room for a number beside its prints but 16
//! spare bits of the first, which is enough while rows of one partition are at most 65,535 apart: where they are further
//! apart, a new chunk begins, and each chunk knows its first number.
//!
//! Memory: all buffers are one allocation, 12 MiB with the usual size, of which only what is touched is real, and which is
//! given back once all rows were read, unless it holds all of them; and 32 bytes a chunk.

use std::path::Path;

use warren_engine::failure::Failure;
use warren_engine::fingerprint::RowPrint;

use super::partition::{PARTITION_BITS, PARTITIONS, partition_of, sixteen};
use super::scratch::{Chunk, Scratch};

/// How far apart the numbers of neighbours in a chunk may be, and one more.
const APART: u64 = 1 << (u128::BITS - RowPrint::BITS);

/// The prints of one run.
pub(crate) struct Prints {
    /// Bytes of a partition's buffer.
    bytes: usize,
    /// Bytes of a record.
    record: usize,
    buffers: Vec<u8>,
    partitions: Vec<Partition>,
    scratch: Scratch,
}

#[derive(Default)]
struct Partition {
    /// Bytes in the buffer.
    length: usize,
    /// The numbers of the first and last row in the buffer.
    first: u64,
    last: u64,
    /// What is in the file, each with the number of its first row.
    chunks: Vec<(Chunk, u64)>,
}

/// The keys and prints of one partition. A row's ordinal is its turn within the partition.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    /// Sorted by key: the key and the row's ordinal.
    pub(crate) keys: Vec<(u128, u32)>,
    /// `width` prints for each ordinal.
    prints: Vec<u128>,
    width: usize,
    numbers: Vec<u64>,
    /// Room for sorting.
    places: Vec<u32>,
    dealt: Vec<(u128, u32)>,
}

impl Prints {
    /// Nothing yet: `prints` of each row, in buffers of `bytes` a partition.
    pub(crate) fn new(folder: &Path, prints: usize, bytes: usize) -> Prints {
        let record = 16 + 16 * prints;
        let bytes = bytes.max(record);
        let mut partitions = Vec::new();
        partitions.resize_with(PARTITIONS, Partition::default);
        // Hashes do not compress.
        let scratch = Scratch::new(folder, u64::MAX);
        Prints { bytes, record, buffers: vec![0; PARTITIONS * bytes], partitions, scratch }
    }

    /// Takes the key and the prints of a row; numbers ascend.
    pub(crate) fn push(&mut self, number: u64, key: u128, prints: &[u128]) -> Result<(), Failure> {
        let at = partition_of(key);
        let partition = &self.partitions[at];
        let full = partition.length + self.record > self.bytes;
        if full || (partition.length > 0 && number - partition.last >= APART) {
            self.spill(at)?;
        }
        let partition = &mut self.partitions[at];
        if partition.length == 0 {
            partition.first = number;
        }
        partition.last = number;
        let begin = at * self.bytes + partition.length;
        partition.length += self.record;
        let record = &mut self.buffers[begin..begin + self.record];
        let (into, rest) = record.split_at_mut(16);
        into.copy_from_slice(&key.to_le_bytes());
        for (into, print) in rest.chunks_exact_mut(16).zip(prints) {
            into.copy_from_slice(&(print & RowPrint::MASK).to_le_bytes());
        }
        rest[14..16].copy_from_slice(&(number as u16).to_le_bytes());
        Ok(())
    }

    /// Reads the keys and prints of a partition back, sorted by key, over what `fresh` held.
    pub(crate) fn fresh(&self, at: usize, fresh: &mut Fresh, room: &mut Vec<u8>) -> Result<(), Failure> {
        fresh.keys.clear();
        fresh.prints.clear();
        fresh.numbers.clear();
        fresh.width = self.record / 16 - 1;
        let partition = &self.partitions[at];
        for &(chunk, first) in &partition.chunks {
            // What is not compressed needs one buffer only.
            self.scratch.read(chunk, room, &mut Vec::new())?;
            fresh.take(room, first);
        }
        let begin = at * self.bytes;
        let rest = self.buffers.get(begin..begin + partition.length).unwrap_or_default();
        fresh.take(rest, partition.first);
        fresh.sort();
        Ok(())
    }

    /// All rows were taken: gives back the buffers, if most of the prints are in the file anyway.
    pub(crate) fn seal(&mut self) -> Result<(), Failure> {
        if self.scratch.length() == 0 {
            return Ok(());
        }
        for at in 0..PARTITIONS {
            if self.partitions[at].length > 0 {
                self.spill(at)?;
            }
        }
        self.buffers = Vec::new();
        Ok(())
    }

    /// Bytes in the temporary file.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.scratch.length()
    }

    fn spill(&mut self, at: usize) -> Result<(), Failure> {
        let partition = &mut self.partitions[at];
        let begin = at * self.bytes;
        let chunk = self.scratch.write(&self.buffers[begin..begin + partition.length])?;
        partition.chunks.push((chunk, partition.first));
        partition.length = 0;
        Ok(())
    }
}

impl Fresh {
    /// The prints of a row: the one in use first.
    pub(crate) fn prints(&self, ordinal: u32) -> &[u128] {
        let at = ordinal as usize * self.width;
        &self.prints[at..at + self.width]
    }

    /// The number of a row.
    pub(crate) fn number(&self, ordinal: u32) -> u64 {
        self.numbers[ordinal as usize]
    }

    fn take(&mut self, raw: &[u8], first: u64) {
        let mut number = first;
        for record in raw.chunks_exact(16 + 16 * self.width) {
            let ordinal = self.keys.len() as u32;
            self.keys.push((u128::from_le_bytes(sixteen(record, 0)), ordinal));
            let print = u128::from_le_bytes(sixteen(record, 16));
            let low = (print >> RowPrint::BITS) as u16;
            number += u64::from(low.wrapping_sub(number as u16));
            self.numbers.push(number);
            self.prints.push(print & RowPrint::MASK);
            for at in 1..self.width {
                self.prints.push(u128::from_le_bytes(sixteen(record, 16 + 16 * at)));
            }
        }
    }

    /// Sorts by key, rows of one key by ordinal.
    ///
    /// Prints are evenly spread, so a key's place is nearly known from its bits: keys are dealt out to as many
    /// places as there are keys, and what is left is to swap neighbours. That takes a third of the time of a sort that
    /// compares. Keys that are not spread (somebody chose them) are sorted the plain way.
    fn sort(&mut self) {
        let bits = usize::BITS - self.keys.len().leading_zeros();
        if !(6..=24).contains(&bits) {
            return self.keys.sort_unstable();
        }
        let place = |key: u128| (key << PARTITION_BITS >> (128 - bits)) as usize;
        self.places.clear();
        self.places.resize((1 << bits) + 1, 0);
        for &(key, _) in &self.keys {
            self.places[place(key) + 1] += 1;
        }
        let mut sum = 0;
        for count in &mut self.places {
            sum += *count;
            *count = sum;
        }
        self.dealt.clear();
        self.dealt.resize(self.keys.len(), (0, 0));
        for &one in &self.keys {
            let next = &mut self.places[place(one.0)];
            self.dealt[*next as usize] = one;
            *next += 1;
        }
        std::mem::swap(&mut self.keys, &mut self.dealt);
        let mut swaps_left = 4 * self.keys.len();
        for at in 1..self.keys.len() {
            let mut to = at;
            while to > 0 && self.keys[to - 1] > self.keys[to] {
                self.keys.swap(to - 1, to);
                to -= 1;
                swaps_left = swaps_left.saturating_sub(1);
            }
            if swaps_left == 0 {
                return self.keys.sort_unstable();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_128;

    fn sorted(keys: impl Iterator<Item = u128>) {
        let keys: Vec<_> = keys.zip(0..).collect();
        let mut fresh = Fresh { keys: keys.clone(), ..Fresh::default() };
        fresh.sort();
        let mut expected = keys;
        expected.sort_unstable();
        assert_eq!(fresh.keys, expected);
    }

    #[test]
    fn keys_are_sorted_however_they_are_spread() {
        let spread = |at: u128| xxh3_128(&at.to_le_bytes()) >> PARTITION_BITS;
        for count in [0, 1, 2, 31, 32, 33, 1000, 5000] {
            sorted((0..count).map(spread));
            sorted((0..count).map(|at| spread(at / 3)));
            sorted((0..count).rev());
            sorted((0..count).map(|_| 7));
        }
    }

    #[test]
    fn prints_and_numbers_come_back_however_far_apart() {
        let folder = tempfile::tempdir().unwrap();
        for width in [1, 2] {
            for bytes in [0, 100, 1 << 20] {
                let mut prints = Prints::new(folder.path(), width, bytes);
                let gaps = [1, 2, 65_534, 65_535, 65_536, 65_537, 131_072, 7, 1 << 40, 1];
                let numbers: Vec<u64> =
                    gaps.iter().scan(0, |at, gap| std::mem::replace(at, *at + gap).into()).collect();
                for (at, &number) in (0..).zip(&numbers) {
                    let taken = [RowPrint::MASK - at, 5 + at];
                    prints.push(number, 100 - at, &taken[..width]).unwrap();
                }
                let mut fresh = Fresh::default();
                for sealed in [false, true] {
                    if sealed {
                        prints.seal().unwrap();
                        assert_eq!(prints.buffers.is_empty(), prints.file_bytes() > 0);
                    }
                    prints.fresh(0, &mut fresh, &mut Vec::new()).unwrap();
                    assert_eq!(fresh.keys[0], (91, 9));
                    for (ordinal, &number) in (0..).zip(&numbers) {
                        assert_eq!(fresh.number(ordinal), number);
                        let at = u128::from(ordinal);
                        assert_eq!(fresh.prints(ordinal), &[RowPrint::MASK - at, 5 + at][..width]);
                    }
                }
                prints.fresh(1, &mut fresh, &mut Vec::new()).unwrap();
                assert!(fresh.keys.is_empty());
            }
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
