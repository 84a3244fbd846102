//! Finds the rows that the destination was last told of, in the row files.
//!
//! The newest file that has a key's row of the version its entry names has the right one. Files are searched
//! partition by partition: first their entries, which are small, then only those blocks that hold a row wanted.

use warren_engine::failure::Failure;
use warren_engine::row;

use super::folder::{Folder, damaged};
use super::manifest::Manifest;
use super::partition::Entry;
use super::partition::PARTITION_BITS;
use super::segment::{BlockRef, Segment, StoredSchema, Trust, Unpacking};

/// The row files of the baseline, oldest first.
#[derive(Debug)]
pub(crate) struct RowStore {
    pub(crate) segments: Vec<Segment>,
}

/// Where a row is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    segment: u32,
    block: BlockRef,
    /// Where in the block's rows it begins.
    start: u32,
    /// Its length.
    pub(crate) length: u32,
}

impl RowStore {
    /// Opens the row files that the manifest names.
    pub(crate) fn open(folder: &Folder, manifest: &Manifest) -> Result<RowStore, Failure> {
        let open = |info: &super::manifest::SegmentInfo| {
            Segment::open(folder, info.number, Trust::Named(info.bytes))
        };
        Ok(RowStore { segments: manifest.segments.iter().map(open).collect::<Result<_, _>>()? })
    }

    /// Finds the rows of entries of one partition, which are sorted by key. `None` where no file has it.
    pub(crate) fn locate(&self, partition: usize, wanted: &[Entry]) -> Result<Vec<Option<Located>>, Failure> {
        let mut found = vec![None; wanted.len()];
        let mut missing = wanted.len();
        let filter = Filter::of(wanted);
        let mut bytes = Vec::new();
        for (at, segment) in self.segments.iter().enumerate().rev() {
            for &block in segment.blocks_of(partition).iter().rev() {
                if missing == 0 {
                    return Ok(found);
                }
                let mut start = 0_u32;
                // What was announced and not told is there too: a doubt may name it, an entry cannot.
                for record in segment.records(block, &mut bytes)? {
                    let begins = start;
                    // A block's rows have a length of 32 bits; a record that says otherwise finds no row.
                    start = start.saturating_add(record.length);
                    if !filter.may_have(record.entry.key()) {
                        continue;
                    }
                    let place = wanted.binary_search_by_key(&record.entry.key(), |entry| entry.key());
                    let Ok(place) = place else { continue };
                    let right = !record.removed() && record.entry.version() == wanted[place].version();
                    if right && found[place].is_none() {
                        let located =
                            Located { segment: at as u32, block, start: begins, length: record.length };
                        found[place] = Some(located);
                        missing -= 1;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Reads rows and hands each over with its columns and the number it came with. The order is that of the files.
    pub(crate) fn read(
        &self,
        located: &mut [(usize, Located)],
        mut take: impl FnMut(usize, &StoredSchema, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if located.is_empty() {
            return Ok(()); // without a decompressor, which takes longer to make than most partitions to read
        }
        located.sort_unstable_by_key(|(_, located)| (located.segment, located.block.offset, located.start));
        let (mut rows, mut unpacking) = (Vec::new(), Unpacking::new()?);
        let mut open = None;
        for (number, located) in located.iter() {
            let segment = &self.segments[located.segment as usize];
            let block = (located.segment, located.block.offset);
            if open != Some(block) {
                segment.rows(located.block, &mut rows, &mut unpacking)?;
                open = Some(block);
            }
            let stored = &segment.schemas[usize::from(located.block.schema)];
            let start = located.start as usize;
            let bytes = rows.get(start..start + located.length as usize).ok_or_else(|| {
                segment.damaged(located.block.offset, "a block holds fewer rows than it says")
            })?;
            row::check(bytes, stored.schema.len()).map_err(|error| {
                segment.damaged(located.block.offset, "a kept row is damaged").because(error)
            })?;
            take(*number, stored, bytes)?;
        }
        Ok(())
    }
}

/// Says quickly of most keys that they are not wanted: most of a partition's keys are not, where little changed.
struct Filter([u64; 64]);

impl Filter {
    fn of(wanted: &[Entry]) -> Filter {
        let mut bits = [0; 64];
        for entry in wanted {
            let (word, bit) = Filter::place(entry.key());
            bits[word] |= bit;
        }
        Filter(bits)
    }

    fn may_have(&self, key: u128) -> bool {
        let (word, bit) = Filter::place(key);
        self.0[word] & bit != 0
    }

    /// The twelve bits behind those that name the partition.
    fn place(key: u128) -> (usize, u64) {
        let bits = (key << PARTITION_BITS >> 116) as usize;
        (bits >> 6, 1 << (bits & 63))
    }
}

/// A key of the baseline whose row no file has.
pub(crate) fn missing_row(folder: &Folder) -> Failure {
    damaged(folder.path(), 0, "the row of a key is in none of the row files")
}
