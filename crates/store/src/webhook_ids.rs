//! The ids of deliveries that were made and not acknowledged: a file of slots, `inflight/%hub.ids`.
//!
//! Storing one is a copy into a slot of the mapped file, so it outlives the death of the process and costs no system call. Slots that nobody
//! uses are zero. They are 64 bytes: the message's fingerprint (16), the id (16), the hash of the subscription (8), when it was made in seconds
//! since the epoch (4), whether a receiver took the message (4), nothing (8), a checksum (8), all little-endian. The file begins with `WARNWID` and
//! the version, 1.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::hub::push::ids::{IdSlots, StoredId};
use xxhash_rust::xxh3::xxh3_64;

use crate::mapped::Mapped;

const HEADER: &[u8; 8] = b"WARNWID\x01";
const HEADER_BYTES: usize = 16;
const SLOT_BYTES: usize = 64;
/// Slots of a new file; doubled when they are all in use.
const SLOTS_MIN: usize = 128;

/// The ids of a hub. One process at a time has the file open: the one that runs the hub.
pub struct FileWebhookIds {
    path: PathBuf,
    file: Mutex<Mapped>,
}

impl FileWebhookIds {
    /// Opens the file of a folder, and creates it if it is missing.
    ///
    /// # Errors
    /// It cannot be read or written, or belongs to a newer version.
    pub fn open(folder: &Path) -> Result<FileWebhookIds, Failure> {
        let path = folder.join("%hub.ids");
        let opened = open(folder, &path).map_err(|error| unwritable(&path, error))?;
        let Some(file) = opened else {
            return Err(foreign(&path));
        };
        Ok(FileWebhookIds { path, file: Mutex::new(file) })
    }
}

/// Looks whether the file of a folder can be read, and makes nothing.
///
/// # Errors
/// It cannot be read, or belongs to a newer version.
pub fn look(folder: &Path) -> Result<(), Failure> {
    let path = folder.join("%hub.ids");
    let file = match fs::File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|error| unwritable(&path, error))?,
    };
    let mut header = [0; HEADER.len()];
    match file.read_exact_at(&mut header, 0) {
        // A file that is as short as that is begun anew.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(unwritable(&path, error)),
        Ok(()) if header == *HEADER => Ok(()),
        Ok(()) => Err(foreign(&path)),
    }
}

fn foreign(path: &Path) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_TOO_NEW, "open the ids of deliveries")
        .at(path.display().to_string())
        .detail("the file is not one that this version of Warren writes")
        .remedy("use the newer Warren that wrote it, or move the file away: retried messages then get a new `webhook-id`")
}

/// `None`: the file is of another version.
fn open(folder: &Path, path: &Path) -> io::Result<Option<Mapped>> {
    fs::create_dir_all(folder)?;
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length >= HEADER_BYTES {
        let mut header = [0; HEADER.len()];
        file.read_exact_at(&mut header, 0)?;
        if header != *HEADER {
            return Ok(None);
        }
    } else {
        file.write_all_at(HEADER, 0)?;
    }
    let slots = (length.saturating_sub(HEADER_BYTES) / SLOT_BYTES).max(SLOTS_MIN);
    Mapped::map(file, at(slots)).map(Some)
}

fn unwritable(path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, "store the id of a delivery")
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy("name a state folder that the user Warren runs as may write, on a disk with space left")
        .because(error)
}

fn at(slot: usize) -> usize {
    HEADER_BYTES + slot * SLOT_BYTES
}

fn encoded(id: &StoredId) -> [u8; SLOT_BYTES] {
    let StoredId { fingerprint, id, owner, made_at_s, taken } = id;
    let mut bytes = [0; SLOT_BYTES];
    bytes[..16].copy_from_slice(&fingerprint.to_le_bytes());
    bytes[16..32].copy_from_slice(id);
    bytes[32..40].copy_from_slice(&owner.to_le_bytes());
    bytes[40..44].copy_from_slice(&made_at_s.to_le_bytes());
    bytes[44..48].copy_from_slice(&u32::from(*taken).to_le_bytes());
    let sum = xxh3_64(&bytes[..56]);
    bytes[56..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// `None`: nothing is stored, or what is was not written to its end.
fn decoded(bytes: &[u8; SLOT_BYTES]) -> Option<StoredId> {
    let (content, sum) = bytes.split_at(56);
    if xxh3_64(content).to_le_bytes() != sum {
        return None;
    }
    Some(StoredId {
        fingerprint: u128::from_le_bytes(content[..16].try_into().ok()?),
        id: content[16..32].try_into().ok()?,
        owner: u64::from_le_bytes(content[32..40].try_into().ok()?),
        made_at_s: u32::from_le_bytes(content[40..44].try_into().ok()?),
        taken: content[44] != 0,
    })
}

impl IdSlots for FileWebhookIds {
    fn all(&self) -> Vec<(usize, StoredId)> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (slots, _) = file.map[HEADER_BYTES..].as_chunks::<SLOT_BYTES>();
        slots.iter().enumerate().filter_map(|(slot, bytes)| Some((slot, decoded(bytes)?))).collect()
    }

    fn set(&self, slot: usize, id: Option<&StoredId>) -> Result<(), Failure> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (at(slot), at(slot + 1));
        if end > file.map.len() {
            let slots = (file.map.len() - HEADER_BYTES) / SLOT_BYTES;
            let more = at((slots * 2).max(slot + 1));
            file.grow(more).map_err(|error| unwritable(&self.path, error))?;
        }
        file.map[start..end].copy_from_slice(&id.map_or([0; SLOT_BYTES], encoded));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> StoredId {
        StoredId {
            fingerprint: u128::MAX - u128::from(n),
            id: [n; 16],
            owner: u64::from(n) << 40,
            made_at_s: 1_767_225_600,
            taken: n.is_multiple_of(2),
        }
    }

    #[test]
    fn what_is_stored_is_there_after_a_death() {
        let folder = tempfile::tempdir().unwrap();
        let ids = FileWebhookIds::open(folder.path()).unwrap();
        assert_eq!(ids.all(), []);
        for n in 0..200 {
            ids.set(usize::from(n), Some(&id(n))).unwrap();
        }
        ids.set(7, None).unwrap();
        drop(ids); // as a killed process leaves it
        let found = FileWebhookIds::open(folder.path()).unwrap().all();
        let wanted = (0..200).filter(|n| *n != 7).map(|n| (usize::from(n), id(n)));
        assert_eq!(found, wanted.collect::<Vec<_>>());
    }

    #[test]
    fn a_torn_slot_is_nothing_and_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let ids = FileWebhookIds::open(folder.path()).unwrap();
        ids.set(0, Some(&id(1))).unwrap();
        ids.set(1, Some(&id(2))).unwrap();
        drop(ids);
        let path = folder.path().join("%hub.ids");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[9], at(0) as u64 + 20).unwrap();
        assert_eq!(FileWebhookIds::open(folder.path()).unwrap().all(), [(1, id(2))]);
        file.write_all_at(b"WARNWID\x02", 0).unwrap();
        assert_eq!(FileWebhookIds::open(folder.path()).err().unwrap().code, codes::STATE_TOO_NEW);
    }
}
