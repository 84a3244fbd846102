//! A key file: the entries of every key, sorted, with a checksum for each block.
//!
//! ```text
//! header   magic 8 | version u32 | partition bits u32 | generation u64 | xxh3-64 of these
//! blocks   512 entries of 32 bytes (the last may be shorter) | xxh3-64, seeded with generation and place
//! footer   count u64 | first entry of each partition and the end, u64 each | xxh3-64 of these
//! ```
//! Numbers are little-endian, entries big-endian. The file is written once, front to back, and never changed.

use warren_engine::failure::Failure;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::folder::{Folder, Reading, Writing, too_new};
use super::manifest::keys_name;
use super::partition::{Entry, PARTITION_BITS, PARTITIONS, le32, le64, partition_of};

const MAGIC: &[u8; 8] = b"WarrenK\n";
const VERSION: u32 = 1;
const HEADER: usize = 32;
const BLOCK_ENTRIES: usize = 512;
const BLOCK: usize = BLOCK_ENTRIES * Entry::SIZE + 8;
const FOOTER: usize = 8 * (PARTITIONS + 3);
/// How much is collected before it is written.
const WRITE_BYTES: usize = 1 << 20;

/// A key file for reading.
#[derive(Debug)]
pub(crate) struct KeysFile {
    file: Reading,
    generation: u64,
    count: u64,
    /// The place of each partition's first entry, and at the end the count.
    starts: Vec<u64>,
}

/// A key file being written.
pub(crate) struct KeysWriter {
    file: Writing,
    generation: u64,
    written: u64,
    pending: Vec<u8>,
    block: Vec<u8>,
    blocks: u64,
    count: u64,
    starts: Vec<u64>,
}

impl KeysFile {
    /// Opens the key file of a generation.
    ///
    /// # Errors
    /// It is missing, newer, damaged, or not of the count expected.
    pub(crate) fn open(folder: &Folder, generation: u64, count: u64) -> Result<KeysFile, Failure> {
        let file = folder.open(&keys_name(generation))?;
        let mut header = [0; HEADER];
        file.read_at(&mut header, 0)?;
        if &header[..8] != MAGIC {
            return Err(file.damaged(0, "this is not a key file"));
        }
        let version = le32(&header, 8);
        if version > VERSION {
            return Err(too_new(file.path(), u64::from(version), u64::from(VERSION)));
        }
        if header != Self::header(generation) {
            return Err(file.damaged(8, "the header is not that of this generation"));
        }
        let data = count / BLOCK_ENTRIES as u64 * BLOCK as u64
            + match count % BLOCK_ENTRIES as u64 {
                0 => 0,
                rest => rest * Entry::SIZE as u64 + 8,
            };
        if file.length() != (HEADER + FOOTER) as u64 + data {
            let what = format!("the file has {} bytes, which {count} keys do not take", file.length());
            return Err(file.damaged(file.length(), &what));
        }
        let at = HEADER as u64 + data;
        let mut footer = vec![0; FOOTER];
        file.read_at(&mut footer, at)?;
        let sum = xxh3_64_with_seed(&footer[..FOOTER - 8], generation);
        if sum != le64(&footer, FOOTER - 8) {
            return Err(file.damaged(at, "the footer's checksum does not match"));
        }
        let starts: Vec<u64> = (0..=PARTITIONS).map(|index| le64(&footer, 8 + index * 8)).collect();
        if le64(&footer, 0) != count || starts[PARTITIONS] != count || !starts.is_sorted() {
            return Err(file.damaged(at, "the footer does not fit the count of keys"));
        }
        Ok(KeysFile { file, generation, count, starts })
    }

    /// Reads the entries of a partition over what `entries` held, sorted by key.
    pub(crate) fn partition(
        &self,
        partition: usize,
        entries: &mut Vec<Entry>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        entries.clear();
        let (from, to) = (self.starts[partition], self.starts[partition + 1]);
        if from == to {
            return Ok(());
        }
        let each = BLOCK_ENTRIES as u64;
        let (first, last) = (from / each, (to - 1) / each);
        let offset = HEADER as u64 + first * BLOCK as u64;
        let last_entries = (self.count - last * each).min(each) as usize;
        let length = (last - first) as usize * BLOCK + last_entries * Entry::SIZE + 8;
        scratch.resize(length, 0);
        self.file.read_at(scratch, offset)?;
        for (at, block) in scratch.chunks(BLOCK).enumerate() {
            let index = first + at as u64;
            let (content, sum) = block.split_at(block.len() - 8);
            if block_sum(content, self.generation, index) != le64(sum, 0) && !cfg!(fuzzing) {
                let at = HEADER as u64 + index * BLOCK as u64;
                return Err(self.file.damaged(at, "the checksum of a block of keys does not match"));
            }
            let begin = from.saturating_sub(index * each) as usize;
            let end = ((to - index * each) as usize).min(content.len() / Entry::SIZE);
            let wanted = &content[begin * Entry::SIZE..end * Entry::SIZE];
            entries.extend(wanted.chunks_exact(Entry::SIZE).map(Entry::read));
        }
        Ok(())
    }

    /// Reads blocks from the front, as many as that many bytes, and compares their checksums.
    ///
    /// # Errors
    /// One does not match.
    pub(crate) fn verify(&self, bytes_max: u64) -> Result<(), Failure> {
        let (mut entries, mut scratch) = (Vec::new(), Vec::new());
        let keys_max = bytes_max / Entry::SIZE as u64;
        let partitions = (0..PARTITIONS).take_while(|partition| self.starts[*partition] < keys_max);
        for partition in partitions {
            self.partition(partition, &mut entries, &mut scratch)?;
        }
        Ok(())
    }

    fn header(generation: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&PARTITION_BITS.to_le_bytes());
        header[16..24].copy_from_slice(&generation.to_le_bytes());
        let sum = xxh3_64_with_seed(&header[..24], 0);
        header[24..].copy_from_slice(&sum.to_le_bytes());
        header
    }
}

impl KeysWriter {
    /// Begins the key file of a generation, under a name that is not its own yet.
    pub(crate) fn create(folder: &Folder, generation: u64) -> Result<KeysWriter, Failure> {
        Ok(KeysWriter {
            file: folder.create(&format!("{}.tmp", keys_name(generation)))?,
            generation,
            written: 0,
            pending: KeysFile::header(generation).to_vec(),
            block: Vec::with_capacity(BLOCK),
            blocks: 0,
            count: 0,
            starts: Vec::with_capacity(PARTITIONS + 1),
        })
    }

    /// Adds an entry; keys come in ascending order.
    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), Failure> {
        while self.starts.len() <= partition_of(entry.key()) {
            self.starts.push(self.count);
        }
        entry.write_to(&mut self.block);
        self.count += 1;
        if self.block.len() == BLOCK_ENTRIES * Entry::SIZE {
            self.end_block();
            if self.pending.len() >= WRITE_BYTES {
                self.write()?;
            }
        }
        Ok(())
    }

    /// Completes the file, syncs it and gives it its name; returns how many keys it has.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        if !self.block.is_empty() {
            self.end_block();
        }
        self.starts.resize(PARTITIONS + 1, self.count);
        let mut footer = Vec::with_capacity(FOOTER);
        footer.extend_from_slice(&self.count.to_le_bytes());
        for start in &self.starts {
            footer.extend_from_slice(&start.to_le_bytes());
        }
        let sum = xxh3_64_with_seed(&footer, self.generation);
        footer.extend_from_slice(&sum.to_le_bytes());
        self.pending.extend_from_slice(&footer);
        self.write()?;
        self.file.publish_as(&keys_name(self.generation))?;
        Ok(self.count)
    }

    fn end_block(&mut self) {
        let sum = block_sum(&self.block, self.generation, self.blocks);
        self.pending.extend_from_slice(&self.block);
        self.pending.extend_from_slice(&sum.to_le_bytes());
        self.block.clear();
        self.blocks += 1;
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.file.write_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

fn block_sum(content: &[u8], generation: u64, index: u64) -> u64 {
    xxh3_64_with_seed(content, generation.rotate_left(32) ^ index)
}
