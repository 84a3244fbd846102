//! A temporary file, written and read back in chunks.
//!
//! It is opened when the first chunk is written and has no name once it is open, so it cannot outlive the process.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use xxhash_rust::xxh3::xxh3_64;

use super::folder::{damaged, unwritable};

/// Bytes from which on a file is closed by a thread of its own: with the last of a file without a name its pages go, which
/// takes the system 0.1 ms a MiB, and nobody has to wait for it.
const CLOSED_ASIDE_FROM: u64 = 16 << 20;

/// A temporary file.
pub(crate) struct Scratch {
    folder: PathBuf,
    file: Option<File>,
    length: u64,
    /// The length from which on chunks are compressed: before that, writing to the page cache costs less.
    compress_from: u64,
    room: Vec<u8>,
}

/// A piece of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    offset: u64,
    stored: u32,
    /// The length before compression; the same as `stored` where there was none.
    raw: u32,
    /// Half of the xxh3-64 of what is stored.
    sum: u32,
}

impl Scratch {
    /// Nothing yet; `folder` is where the file may be made, and is there.
    pub(crate) fn new(folder: &Path, compress_from: u64) -> Scratch {
        Scratch { folder: folder.to_owned(), file: None, length: 0, compress_from, room: Vec::new() }
    }

    /// Bytes in the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Writes a chunk behind those before it.
    pub(crate) fn write(&mut self, raw: &[u8]) -> Result<Chunk, Failure> {
        let length = u32::try_from(raw.len()).map_err(|_| too_large())?;
        let mut stored = raw;
        if self.length >= self.compress_from {
            self.room.resize(lz4_flex::block::get_maximum_output_size(raw.len()), 0);
            let compressed = lz4_flex::block::compress_into(raw, &mut self.room)
                .map_err(|error| Failure::internal("compress rows").because(error))?;
            if compressed < raw.len() {
                stored = &self.room[..compressed];
            }
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(open_unnamed(&self.folder)?),
        };
        file.write_all_at(stored, self.length).map_err(|error| unwritable(&self.folder, error))?;
        let sum = xxh3_64(stored) as u32;
        let chunk = Chunk { offset: self.length, stored: stored.len() as u32, raw: length, sum };
        self.length += stored.len() as u64;
        Ok(chunk)
    }

    /// Reads a chunk back over what `raw` held.
    pub(crate) fn read(&self, chunk: Chunk, raw: &mut Vec<u8>, room: &mut Vec<u8>) -> Result<(), Failure> {
        let compressed = chunk.stored != chunk.raw;
        let into = if compressed { &mut *room } else { &mut *raw };
        into.resize(chunk.stored as usize, 0);
        let file = self.file.as_ref().ok_or_else(|| Failure::internal("read rows that were not spilled"))?;
        let fault = |what: &str| damaged(&self.folder.join("spill"), chunk.offset, what);
        file.read_exact_at(into, chunk.offset)
            .map_err(|error| fault("the temporary file cannot be read").because(error))?;
        if xxh3_64(into) as u32 != chunk.sum {
            return Err(fault("the temporary file does not hold what was written"));
        }
        if compressed {
            raw.resize(chunk.raw as usize, 0);
            lz4_flex::block::decompress_into(room, raw)
                .map_err(|error| fault("the temporary file does not decompress").because(error))?;
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let file = self.file.take().filter(|_| self.length >= CLOSED_ASIDE_FROM);
        if let Some(file) = file {
            // Where there is no thread to be had, the file is closed here.
            std::thread::Builder::new().name("warren-close".into()).spawn(move || drop(file)).ok();
        }
    }
}

/// A row, or rows, whose length 32 bits do not hold.
pub(crate) fn too_large() -> Failure {
    Failure::new(FailureKind::Invalid, codes::VALUE_TOO_LONG, "read a row")
        .detail("the row has 4 GiB or more")
        .remedy("leave the large column out of the query")
}

/// A file without a name: it is gone when it is closed, however the process ends.
fn open_unnamed(folder: &Path) -> Result<File, Failure> {
    let path = folder.join(format!("spill-{}-{}.tmp", std::process::id(), spill_number()));
    let opened = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = opened.map_err(|error| unwritable(&path, error))?;
    fs::remove_file(&path).map_err(|error| unwritable(&path, error))?;
    Ok(file)
}

/// A number that no other file of this process has now.
fn spill_number() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
