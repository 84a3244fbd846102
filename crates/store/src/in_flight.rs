//! Which messages were being handled when the process died: a file of slots for each consumer, `inflight/NAME.slots`.
//!
//! Noting a message is a copy into a slot of the mapped file: it is with the operating system at once, so it outlives the death of the
//! process, and costs no system call. When the file is opened, what stands in its slots was being handled: these are
//! suspects, which are written to `NAME.suspects` before the slots are cleared. The order makes a death in between harmless: a
//! slot says how often its message had crashed before, so it is counted once however often it is read.
//!
//! Slots that nobody uses are zero. They are 32 bytes: the message's print (16), its crashes before (4), nothing (4), a checksum (8), all little-endian.
//! The file begins with `WARNFLT` and the version, 1.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::{InFlight, Noted};
use xxhash_rust::xxh3::xxh3_64;

use crate::mapped::Mapped;

const HEADER: &[u8; 8] = b"WARNFLT\x01";
const HEADER_BYTES: u64 = 16;
const SLOT_BYTES: usize = 32;
/// Slots of a new file; doubled when they are all in use.
const SLOTS_MIN: usize = 128;
/// Suspects that never came back (another process had them) are forgotten, the oldest first.
const SUSPECTS_MAX: usize = 10_000;

/// The file of suspects is written when more than this share of the messages that were not started has come back.
const TAKEN_SHARE: usize = 8;

/// The journal of one consumer. One process at a time has it open: who opens it holds the consumer's lease.
pub struct FileInFlight {
    path: PathBuf,
    state: Arc<JournalState>,
}

/// What the threads that write the file of suspects share with those that note messages. `writing` is taken before `inner`.
struct JournalState {
    inner: Mutex<Inner>,
    /// Held while the file of suspects is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
}

struct Inner {
    slots: Slots,
    free: Vec<usize>,
    /// How many slots were ever used.
    count: usize,
    suspects: Suspects,
    suspects_path: PathBuf,
    /// Messages that were taken out of `unstarted` since it was written.
    taken: usize,
}

/// What outlives the process beside the slots.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Suspects {
    version: u32,
    /// Counts openings, to tell old suspects.
    opened: u64,
    /// By print: how often the process died with it, and at which opening it was last seen.
    crashed: BTreeMap<String, (u32, u64)>,
    /// Messages that went back without having been started, and at which opening.
    unstarted: BTreeMap<String, u64>,
}

impl FileInFlight {
    /// Opens the journal of a consumer in a folder, and makes what is missing. `name` must do as a file's name.
    ///
    /// # Errors
    /// It cannot be read or written, or belongs to a newer version.
    pub fn open(folder: &Path, name: &str) -> Result<FileInFlight, Failure> {
        let path = folder.join(format!("{name}.slots"));
        let suspects_path = folder.join(format!("{name}.suspects"));
        let opened = open(folder, &path, suspects_path);
        opened.map_err(|error| unwritable("open the journal of messages in flight", &path, error)).and_then(
            |opened| {
                opened.ok_or_else(|| {
                    Failure::new(FailureKind::Internal, codes::STATE_TOO_NEW, "open the journal of messages in flight")
                        .at(path.display().to_string())
                        .detail("the file is not one that this version of Warren writes")
                        .remedy("use the newer Warren that wrote it, or move the file away: crash suspects are then forgotten")
                })
            },
        )
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.state.inner()
    }

    /// Writes the file of suspects, on a thread meant for that. If that fails, a message of which it says too little is dead-lettered as
    /// one of unknown outcome after a restart, and not lost.
    async fn write(&self) {
        let state = self.state.clone();
        spawn_blocking(move || state.write().ok()).await.ok();
    }
}

impl JournalState {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file of suspects as they are now. Messages can be noted meanwhile.
    fn write(&self) -> io::Result<()> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (bytes, path) = {
            let mut inner = self.inner();
            inner.taken = 0;
            (serde_json::to_vec(&inner.suspects)?, inner.suspects_path.clone())
        };
        write_whole(&path, &bytes)
    }
}

impl Drop for FileInFlight {
    fn drop(&mut self) {
        if self.inner().taken > 0 {
            self.state.write().ok(); // as in `write`
        }
    }
}

/// What the journal of a consumer says, as [`look`] finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looked {
    /// Messages that are being handled; or were, where nobody runs the consumer.
    pub in_hand: usize,
    /// Messages that the process died with, and that have not ended since.
    pub suspects: usize,
    /// The most deaths with one of them.
    pub crashes_max: u32,
}

/// Looks at the journal of a consumer, and changes nothing.
///
/// # Errors
/// It cannot be read.
pub fn look(folder: &Path, name: &str) -> Result<Looked, Failure> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unwritable("look at the journal of messages in flight", &path, error)),
    };
    let slots = read(folder.join(format!("{name}.slots")))?;
    let slots = slots.get(HEADER_BYTES as usize..).unwrap_or_default();
    let (slots, _) = slots.as_chunks::<SLOT_BYTES>();
    let suspects = read(folder.join(format!("{name}.suspects")))?;
    let suspects: Suspects = serde_json::from_slice(&suspects).unwrap_or_default();
    Ok(Looked {
        in_hand: slots.iter().filter(|slot| decoded(slot).is_some()).count(),
        suspects: suspects.crashed.len(),
        crashes_max: suspects.crashed.values().map(|(crashes, _)| *crashes).max().unwrap_or(0),
    })
}

/// `None`: the files are of another version.
fn open(folder: &Path, path: &Path, suspects_path: PathBuf) -> io::Result<Option<FileInFlight>> {
    fs::create_dir_all(folder)?;
    let slots =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = slots.metadata()?.len();
    if length >= HEADER_BYTES {
        let mut header = [0; HEADER.len()];
        slots.read_exact_at(&mut header, 0)?;
        if header != *HEADER {
            return Ok(None);
        }
    }
    let mut suspects: Suspects = match fs::read(&suspects_path) {
        // A damaged file of suspects is no reason not to work: they are forgotten.
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Suspects::default(),
        Err(error) => return Err(error),
    };
    if suspects.version > 1 {
        return Ok(None);
    }
    suspects.version = 1;
    suspects.opened += 1;
    let count = (length.saturating_sub(HEADER_BYTES) / SLOT_BYTES as u64) as usize;
    for slot in 0..count {
        let mut bytes = [0; SLOT_BYTES];
        slots.read_exact_at(&mut bytes, at(slot))?;
        if let Some((print, before)) = decoded(&bytes) {
            let crashed = suspects.crashed.entry(key(print)).or_default();
            *crashed = (crashed.0.max(before.saturating_add(1)), suspects.opened);
        }
    }
    suspects.forget_old();
    suspects.write(&suspects_path)?;
    // Only now: what was in flight is known elsewhere.
    slots.set_len(0)?;
    slots.write_all_at(HEADER, 0)?;
    slots.set_len(HEADER_BYTES)?;
    let slots = Slots::map(slots, SLOTS_MIN)?;
    let inner = Inner { slots, free: Vec::new(), count: 0, suspects, suspects_path, taken: 0 };
    let state = Arc::new(JournalState { inner: Mutex::new(inner), writing: Mutex::default() });
    Ok(Some(FileInFlight { path: path.to_owned(), state }))
}

/// The slots of the file.
struct Slots {
    file: Mapped,
    count: usize,
}

impl Slots {
    fn map(file: File, count: usize) -> io::Result<Slots> {
        Ok(Slots { file: Mapped::map(file, at(count) as usize)?, count })
    }

    fn set(&mut self, slot: usize, bytes: &[u8; SLOT_BYTES]) -> io::Result<()> {
        if slot >= self.count {
            self.file.grow(at(self.count * 2) as usize)?;
            self.count *= 2;
        }
        let start = at(slot) as usize;
        self.file.map[start..start + SLOT_BYTES].copy_from_slice(bytes);
        Ok(())
    }
}

impl Suspects {
    fn forget_old(&mut self) {
        forget_oldest(&mut self.crashed, |(_, opened)| *opened);
        forget_oldest(&mut self.unstarted, |opened| *opened);
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        write_whole(path, &serde_json::to_vec(self)?)
    }
}

/// Forgets the oldest of more than [`SUSPECTS_MAX`].
fn forget_oldest<T>(entries: &mut BTreeMap<String, T>, opened: impl Fn(&T) -> u64) {
    let excess = entries.len().saturating_sub(SUSPECTS_MAX);
    if excess == 0 {
        return;
    }
    let mut by_age: Vec<(u64, String)> =
        entries.iter().map(|(print, entry)| (opened(entry), print.clone())).collect();
    by_age.sort_unstable();
    for (_, print) in by_age.into_iter().take(excess) {
        entries.remove(&print);
    }
}

/// Whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("suspects.new");
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path)
}

fn at(slot: usize) -> u64 {
    HEADER_BYTES + (slot * SLOT_BYTES) as u64
}

fn key(print: u128) -> String {
    format!("{print:032x}")
}

fn encoded(print: u128, crashes: u32) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..16].copy_from_slice(&print.to_le_bytes());
    bytes[16..20].copy_from_slice(&crashes.to_le_bytes());
    let sum = xxh3_64(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None`: nothing is noted, or what is was not written to its end.
fn decoded(bytes: &[u8; SLOT_BYTES]) -> Option<(u128, u32)> {
    let (content, sum) = bytes.split_at(24);
    if xxh3_64(content).to_le_bytes() != sum {
        return None;
    }
    let print = u128::from_le_bytes(content[..16].try_into().ok()?);
    let crashes = u32::from_le_bytes(content[16..20].try_into().ok()?);
    (print != 0).then_some((print, crashes))
}

fn unwritable(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy("name a state folder that the user Warren runs as may write, on a disk with space left")
        .because(error)
}

#[async_trait]
impl InFlight for FileInFlight {
    fn crashes(&self, print: u128) -> u32 {
        let inner = self.inner();
        if inner.suspects.crashed.is_empty() {
            return 0;
        }
        inner.suspects.crashed.get(&key(print)).map_or(0, |(crashes, _)| *crashes)
    }

    fn enter(&self, print: u128) -> Result<Noted, Failure> {
        let crashes = self.crashes(print);
        let mut inner = self.inner();
        let slot = inner.free.pop().unwrap_or(inner.count);
        if let Err(error) = inner.slots.set(slot, &encoded(print, crashes)) {
            if slot < inner.count {
                inner.free.push(slot);
            }
            return Err(unwritable("note a message as in flight", &self.path, error));
        }
        inner.count = inner.count.max(slot + 1);
        Ok(Noted { slot, print })
    }

    fn leave(&self, noted: Noted) {
        let Noted { slot, print } = noted;
        let was_suspect = {
            let mut inner = self.inner();
            // A slot that was set is mapped; if it were not, the worst that follows is a message that runs alone once after a crash.
            inner.slots.set(slot, &[0; SLOT_BYTES]).ok();
            inner.free.push(slot);
            !inner.suspects.crashed.is_empty() && inner.suspects.crashed.remove(&key(print)).is_some()
        };
        if was_suspect {
            self.state.write().ok(); // as above
        }
    }

    async fn unstarted(&self, prints: &[u128]) {
        {
            let mut inner = self.inner();
            let opened = inner.suspects.opened;
            inner.suspects.unstarted.extend(prints.iter().map(|print| (key(*print), opened)));
            inner.suspects.forget_old();
        }
        self.write().await;
    }

    async fn take_unstarted(&self, print: u128) -> bool {
        let (taken, is_to_be_written) = {
            let mut inner = self.inner();
            let taken = inner.suspects.unstarted.remove(&key(print)).is_some();
            inner.taken += usize::from(taken);
            // Not for each of many, since the whole file is written. A message that the file still names may run once more than wanted,
            // after the loss of a connection followed by the death of the process.
            (taken, inner.taken > inner.suspects.unstarted.len() / TAKEN_SHARE)
        };
        if taken && is_to_be_written {
            self.write().await;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &Path) -> FileInFlight {
        FileInFlight::open(folder, "orders").unwrap()
    }

    #[test]
    fn what_was_in_flight_is_suspect_after_a_death_and_counted_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let first = journal(folder.path());
        let (done, _died) = (first.enter(7).unwrap(), first.enter(8).unwrap());
        first.leave(done);
        drop(first); // as a killed process leaves it
        let second = journal(folder.path());
        assert_eq!((second.crashes(7), second.crashes(8)), (0, 1));
        let looked = look(folder.path(), "orders").unwrap();
        assert_eq!(looked, Looked { in_hand: 0, suspects: 1, crashes_max: 1 });
        // It did not come back before the next death: nothing more is counted.
        drop(second);
        let third = journal(folder.path());
        assert_eq!(third.crashes(8), 1);
        third.enter(8).unwrap();
        drop(third);
        let fourth = journal(folder.path());
        assert_eq!(fourth.crashes(8), 2);
        let noted = fourth.enter(8).unwrap();
        fourth.leave(noted);
        drop(fourth);
        assert_eq!(journal(folder.path()).crashes(8), 0, "it ended well");
    }

    #[test]
    fn a_death_between_suspects_and_slots_counts_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let first = journal(folder.path());
        first.enter(8).unwrap();
        drop(first);
        let slots = fs::read(folder.path().join("orders.slots")).unwrap();
        drop(journal(folder.path()));
        fs::write(folder.path().join("orders.slots"), slots).unwrap();
        assert_eq!(journal(folder.path()).crashes(8), 1);
    }

    #[test]
    fn slots_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        for print in 1..1000 {
            let (one, other) = (journal.enter(print).unwrap(), journal.enter(print + 1).unwrap());
            journal.leave(one);
            journal.leave(other);
        }
        let length = fs::metadata(folder.path().join("orders.slots")).unwrap().len();
        assert_eq!((length, journal.inner().count), (at(SLOTS_MIN), 2));
    }

    #[test]
    fn there_are_as_many_slots_as_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let first = journal(folder.path());
        let noted: Vec<_> = (1..=1000).map(|print| first.enter(print).unwrap()).collect();
        for (at, noted) in noted.into_iter().enumerate() {
            if at % 2 == 0 {
                first.leave(noted);
            }
        }
        drop(first);
        let second = journal(folder.path());
        assert!((1..=1000).all(|print| second.crashes(print) == u32::from(print % 2 == 0)));
    }

    #[tokio::test]
    async fn what_was_never_started_is_known_after_a_restart_once() {
        let folder = tempfile::tempdir().unwrap();
        journal(folder.path()).unstarted(&[9, 10]).await;
        let again = journal(folder.path());
        assert!(again.take_unstarted(9).await && !again.take_unstarted(9).await);
        let third = journal(folder.path());
        assert!(!third.take_unstarted(9).await && third.take_unstarted(10).await);
    }

    /// The file has ten thousand entries: it is written once for all that are handed back together, and a few times while they come
    /// back, not for each of them.
    #[tokio::test]
    async fn the_file_is_not_written_for_each_message() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(folder.path());
        let prints: Vec<u128> = (1..=SUSPECTS_MAX as u128).collect();
        journal.unstarted(&prints).await;
        let path = folder.path().join("orders.suspects");
        // Each writing makes another file.
        let written = |path: &Path| fs::metadata(path).map(|file| (file.ino(), file.mtime_nsec())).unwrap();
        let (mut last, mut times) = (written(&path), 0);
        for print in &prints {
            assert!(journal.take_unstarted(*print).await);
            let now = written(&path);
            times += usize::from(now != last);
            last = now;
        }
        assert!(times < 200, "{times} times");
        drop(journal);
        let suspects: Suspects = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(suspects.unstarted.is_empty());
    }

    #[tokio::test]
    async fn of_too_many_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        journal(folder.path()).unstarted(&[1]).await;
        let again = journal(folder.path());
        let prints: Vec<u128> = (2..=SUSPECTS_MAX as u128 + 1).collect();
        again.unstarted(&prints).await;
        assert!(!again.take_unstarted(1).await && again.take_unstarted(2).await);
    }

    #[test]
    fn a_slot_half_written_is_no_suspect() {
        let folder = tempfile::tempdir().unwrap();
        let first = journal(folder.path());
        first.enter(8).unwrap();
        first.inner().slots.file.map[at(0) as usize] ^= 1;
        drop(first);
        assert_eq!(journal(folder.path()).crashes(8), 0);
    }

    #[test]
    fn a_file_of_another_version_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.slots");
        fs::write(&path, b"WARNFLT\x02 something new").unwrap();
        let failure = FileInFlight::open(folder.path(), "orders").err().unwrap();
        assert_eq!(failure.code, codes::STATE_TOO_NEW);
        assert_eq!(fs::read(path).unwrap(), b"WARNFLT\x02 something new");
    }
}
