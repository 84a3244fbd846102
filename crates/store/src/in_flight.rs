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
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
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

/// The journal of one consumer. One process at a time has it open: who opens it holds the consumer's lease.
pub struct FileInFlight {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    slots: Slots,
    free: Vec<usize>,
    /// How many slots were ever used.
    count: usize,
    suspects: Suspects,
    suspects_path: PathBuf,
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
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
    let inner = Mutex::new(Inner { slots, free: Vec::new(), count: 0, suspects, suspects_path });
    Ok(Some(FileInFlight { path: path.to_owned(), inner }))
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
        while self.crashed.len() > SUSPECTS_MAX {
            let oldest =
                self.crashed.iter().min_by_key(|(_, (_, opened))| *opened).map(|(print, _)| print.clone());
            self.crashed.remove(&oldest.unwrap_or_default());
        }
        while self.unstarted.len() > SUSPECTS_MAX {
            let oldest =
                self.unstarted.iter().min_by_key(|(_, opened)| **opened).map(|(print, _)| print.clone());
            self.unstarted.remove(&oldest.unwrap_or_default());
        }
    }

    /// Whole or not at all.
    fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("suspects.new");
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(&beside, path)
    }
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
        let mut inner = self.inner();
        // A slot that was set is mapped; if it were not, the worst that follows is a message that runs alone once after a crash.
        inner.slots.set(slot, &[0; SLOT_BYTES]).ok();
        inner.free.push(slot);
        if !inner.suspects.crashed.is_empty() && inner.suspects.crashed.remove(&key(print)).is_some() {
            inner.suspects.write(&inner.suspects_path).ok(); // as above
        }
    }

    fn unstarted(&self, print: u128) {
        let mut inner = self.inner();
        let opened = inner.suspects.opened;
        inner.suspects.unstarted.insert(key(print), opened);
        inner.suspects.forget_old();
        // If this fails, the message is dead-lettered as one of unknown outcome after a restart, and not lost.
        inner.suspects.write(&inner.suspects_path).ok();
    }

    fn take_unstarted(&self, print: u128) -> bool {
        let mut inner = self.inner();
        let taken = inner.suspects.unstarted.remove(&key(print)).is_some();
        if taken {
            inner.suspects.write(&inner.suspects_path).ok(); // as above: it may run once more than wanted only after two deaths
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

    #[test]
    fn what_was_never_started_is_known_after_a_restart_once() {
        let folder = tempfile::tempdir().unwrap();
        journal(folder.path()).unstarted(9);
        let again = journal(folder.path());
        assert!(again.take_unstarted(9) && !again.take_unstarted(9));
        assert!(!journal(folder.path()).take_unstarted(9));
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
