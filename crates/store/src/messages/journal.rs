//! The newest attempts, one after another in a file, until there are enough of them for a block.
//!
//! `messages-N.journal` in the state folder, N being the number of its first attempt: a head, and an entry for each attempt, with its length
//! and checksum; zeros follow. An entry is copied into the mapped file, so it is with the operating system when [`Journal::append`] returns,
//! without a system call. A file is locked for as long as a
//! process adds to it; one that is not locked was left by a process that died, and whoever opens the record next goes on with it. Once its
//! attempts are in a block it is used again under another number, since new pages cost more than all that is written to them, or removed. So
//! of a file whose block is there nothing needs to be read, and what still stands behind the last entry of a file is nobody's: the sums of
//! entries say to which number they belong.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use warren_engine::consume::record::MessageRunId;
use xxhash_rust::xxh3::xxh3_64;

use super::attempt::{Written, status_byte};
use super::block::{ATTEMPTS_MAX, BYTES_MAX, Gathered};
use crate::database::Fault;
use crate::mapped::Mapped;
use crate::packed::Damaged;
use crate::packed::bytes::{Reader, put_bytes, put_signed};

/// Whose file it is, and its version. In version 1 the sums did not say to which number an entry belongs.
const MAGIC: [u8; 8] = *b"WARNMSG\x02";
/// The largest number that a journal may begin with: far more than are ever given out.
const NUMBER_MAX: i64 = i64::MAX / 2;
/// A file that is being made, or was when its process died.
const UNFINISHED: &str = "journal.new";
/// One that nobody has been making for so long was left.
const UNFINISHED_MAX: Duration = Duration::from_secs(60);
const HEAD_BYTES: usize = 24;
/// Length and checksum of an entry.
const ENTRY_HEAD_BYTES: usize = 12;
/// Bytes that a file has from the start; more where one attempt is large.
const MAPPED_BYTES: usize = BYTES_MAX + (64 << 10);
const ATTEMPT: u8 = 1;
const LATE: u8 = 2;

/// The file of one process, locked.
pub(super) struct Journal {
    file: Mapped,
    path: PathBuf,
    /// How much of it is written.
    length: usize,
    first: i64,
    mark: Mark,
    count: usize,
    /// When the first of its attempts ended.
    oldest: Option<i64>,
}

/// An attempt as it is appended.
pub(super) struct Entry {
    bytes: Vec<u8>,
    ended_at: i64,
}

impl Entry {
    pub(super) fn of(written: &Written<'_>) -> Entry {
        let mut attempt = Vec::with_capacity(512);
        written.put(&mut attempt);
        let body = written.body.unwrap_or_default();
        let mut bytes = Vec::with_capacity(ENTRY_HEAD_BYTES + 8 + attempt.len() + body.len());
        bytes.resize(ENTRY_HEAD_BYTES, 0);
        bytes.extend_from_slice(&[ATTEMPT, status_byte(written.status)]);
        put_bytes(&mut bytes, &attempt);
        bytes.extend_from_slice(body);
        finish(&mut bytes);
        Entry { bytes, ended_at: written.ended_at }
    }
}

/// What the sums of the entries of a file are mixed with, so that none is taken for one of another number.
#[derive(Debug, Clone, Copy)]
struct Mark(u64);

impl Mark {
    fn of(version: u8, first: i64) -> Mark {
        Mark(if version == 1 { 0 } else { xxh3_64(&first.to_le_bytes()) })
    }

    fn set(self, sum: &mut [u8; 8]) {
        *sum = (u64::from_le_bytes(*sum) ^ self.0).to_le_bytes();
    }
}

fn head(first: i64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&first.to_le_bytes());
    let sum = xxh3_64(&head[..16]);
    head[16..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// Writes length and checksum before what they are of.
fn finish(bytes: &mut [u8]) {
    let (head, payload) = bytes.split_at_mut(ENTRY_HEAD_BYTES);
    head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&xxh3_64(payload).to_le_bytes());
}

impl Journal {
    /// Makes a file for attempts from a number on. Nobody else has that number.
    pub(super) fn create(folder: &Path, first: i64) -> io::Result<Journal> {
        let path = folder.join(name(first));
        let beside = path.with_extension(UNFINISHED);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.lock()?;
        file.write_all_at(&head(first), 0)?;
        // Locked and with its head from the moment anybody sees it.
        fs::rename(&beside, &path)?;
        Ok(Journal::empty(Mapped::map(file, MAPPED_BYTES)?, path, first))
    }

    fn empty(file: Mapped, path: PathBuf, first: i64) -> Journal {
        let mark = Mark::of(MAGIC[7], first);
        Journal { file, path, length: HEAD_BYTES, first, mark, count: 0, oldest: None }
    }

    /// Makes the file of this one, whose attempts are elsewhere, one for attempts from another number on.
    pub(super) fn renew(self, first: i64) -> io::Result<Journal> {
        let Journal { mut file, path, .. } = self;
        let renewed = path.with_file_name(name(first));
        let beside = renewed.with_extension(UNFINISHED);
        // Nobody is to find it with half a head.
        fs::rename(&path, &beside)?;
        file.map[..HEAD_BYTES].copy_from_slice(&head(first));
        fs::rename(&beside, &renewed)?;
        Ok(Journal::empty(file, renewed, first))
    }

    /// Whether its file is one to use again. One that a large attempt was put in is larger than others need.
    pub(super) fn is_renewable(&self) -> bool {
        self.file.map.len() == MAPPED_BYTES
    }

    /// Goes on with a file that a process left. `None`: another process has it, or it is gone meanwhile.
    pub(super) fn adopt(path: &Path) -> Result<Option<Journal>, Fault> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        if !is_at(&file, path)? {
            return Ok(None); // its attempts were packed between opening and locking it
        }
        let Contents { gathered, length, mark } =
            contents(&file).map_err(|fault| Fault::Of(path.to_owned(), fault.into()))?;
        // An entry that was not written to its end was not recorded, and its message not settled.
        file.set_len(length as u64)?;
        let file = Mapped::map(file, MAPPED_BYTES.max(length))?;
        let (first, count, oldest) = (gathered.first, gathered.count(), gathered.oldest());
        Ok(Some(Journal { file, path: path.to_owned(), length, first, mark, count, oldest }))
    }

    pub(super) fn first(&self) -> i64 {
        self.first
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// When the first of its attempts ended, if there is one.
    pub(super) fn oldest(&self) -> Option<i64> {
        self.oldest
    }

    /// Whether there is enough for a block.
    pub(super) fn is_full(&self) -> bool {
        self.count >= ATTEMPTS_MAX || self.length >= BYTES_MAX
    }

    /// What is in it.
    pub(super) fn gathered(&self) -> Result<Gathered, Fault> {
        Ok(entries(&self.file.map[..self.length])?.gathered)
    }

    /// Adds an attempt; it outlives the process when this returns.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<MessageRunId, Fault> {
        self.write(&entry.bytes)?;
        let id = MessageRunId(self.first + self.count as i64);
        self.count += 1;
        self.oldest = Some(self.oldest.map_or(entry.ended_at, |oldest| oldest.min(entry.ended_at)));
        Ok(id)
    }

    /// Notes that the result of an attempt came late; `false` where it is none of these.
    pub(super) fn late(&mut self, id: MessageRunId) -> io::Result<bool> {
        if id.0 < self.first || id.0 - self.first >= self.count as i64 {
            return Ok(false);
        }
        let mut bytes = vec![0; ENTRY_HEAD_BYTES];
        bytes.push(LATE);
        put_signed(&mut bytes, id.0);
        finish(&mut bytes);
        self.write(&bytes)?;
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.length + bytes.len();
        if end > self.file.map.len() {
            self.file.grow(end.next_power_of_two())?;
        }
        let entry = &mut self.file.map[self.length..end];
        entry.copy_from_slice(bytes);
        if let Some(sum) = entry.get_mut(4..).and_then(<[u8]>::first_chunk_mut) {
            self.mark.set(sum);
        }
        self.length = end;
        Ok(())
    }

    /// Removes the file, whose attempts are elsewhere.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// The attempts of a file that somebody may be adding to. `None` where it is gone: they are in a block.
pub(super) fn read(path: &Path) -> Result<Option<Gathered>, Fault> {
    match File::open(path) {
        Ok(file) => match contents(&file) {
            Ok(contents) => Ok(Some(contents.gathered)),
            Err(_) if !is_at(&file, path)? => Ok(None),
            Err(fault) => Err(Fault::Of(path.to_owned(), fault.into())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files of a folder, those with the lower numbers first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    named(folder, "journal")
}

/// Removes files of a folder that a process left while it made them.
pub(super) fn tidy(folder: &Path) -> io::Result<()> {
    for path in named(folder, UNFINISHED)? {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_old = file.metadata()?.modified()?.elapsed().is_ok_and(|age| age > UNFINISHED_MAX);
        if is_old && file.try_lock().is_ok() {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn name(first: i64) -> String {
    format!("messages-{first}.journal")
}

/// The files of a folder that have a number and end so, those with the lower numbers first.
fn named(folder: &Path, end: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number =
            name.and_then(|name| name.strip_prefix("messages-")?.strip_suffix(end)?.strip_suffix('.'));
        if let Some(first) = number.and_then(|number| number.parse::<i64>().ok()) {
            files.push((first, path));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// Whether a file is still the one of that name. Otherwise its attempts were packed meanwhile.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is in a file.
struct Contents {
    gathered: Gathered,
    /// Where the first entry begins that is not whole, or not of this number.
    length: usize,
    mark: Mark,
}

fn contents(mut file: &File) -> Result<Contents, Fault> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    entries(&bytes)
}

/// Reads bytes as a journal; what is in it, if it is one.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) -> Option<Gathered> {
    entries(bytes).ok().map(|contents| contents.gathered)
}

fn entries(bytes: &[u8]) -> Result<Contents, Fault> {
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(Damaged("a journal has no head"))?;
    if head[..7] != MAGIC[..7] {
        return Err(Damaged("a journal is not one of Warren's").into());
    }
    if head[7] > MAGIC[7] {
        return Err(Fault::TooNew { found: head[7].into(), known: MAGIC[7].into() });
    }
    let mut rest = Reader(&head[8..]);
    let (first, sum) = (i64::from_le_bytes(rest.array()?), u64::from_le_bytes(rest.array()?));
    if sum != xxh3_64(&head[..16]) && !cfg!(fuzzing) {
        return Err(Damaged("the head of a journal is not what was written").into());
    }
    // The numbers of the attempts follow, and must not pass the largest.
    if !(0..=NUMBER_MAX).contains(&first) {
        return Err(Damaged("the first number of a journal is out of range").into());
    }
    let mark = Mark::of(head[7], first);
    let mut gathered = Gathered::new(first);
    gathered.reserve(bytes.len());
    let mut at = HEAD_BYTES;
    while let Some(payload) = entry(&bytes[at..], mark) {
        at += ENTRY_HEAD_BYTES + payload.len();
        let mut reader = Reader(payload);
        match reader.byte()? {
            ATTEMPT => {
                let status = reader.byte()?;
                let attempt = reader.bytes()?;
                gathered.add(status, attempt, reader.0)?;
            }
            LATE => drop(gathered.late(MessageRunId(reader.signed()?))),
            _ => return Err(Damaged("an entry of a journal is of no known kind").into()),
        }
    }
    Ok(Contents { gathered, length: at, mark })
}

/// The next entry, if it is there whole.
fn entry(bytes: &[u8], mark: Mark) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let payload = rest.get(..u32::from_le_bytes(*length) as usize)?;
    let mut sum = *sum;
    mark.set(&mut sum);
    let right = cfg!(fuzzing) || xxh3_64(payload) == u64::from_le_bytes(sum);
    (!payload.is_empty() && right).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_whose_numbers_would_overflow_is_damaged() {
        for first in [i64::MIN, -1, NUMBER_MAX + 1, i64::MAX] {
            assert!(matches!(entries(&head(first)), Err(Fault::Damaged(_))), "{first}");
        }
        for first in [0, 1, NUMBER_MAX] {
            assert!(entries(&head(first)).is_ok(), "{first}");
        }
    }
}
