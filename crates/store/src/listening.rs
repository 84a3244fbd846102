//! Where the processes of a state folder listen: a locked file each, in `listening/`.
//!
//! The kernel drops the lock when its process ends, however it ends. A record without a lock is that of a dead process and counts for
//! nothing; the next process that listens removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

/// The version of a record.
const VERSION: u32 = 1;
/// A record is shorter than this, in bytes.
const BYTES_MAX: u64 = 4096;
/// How the name of a record ends. It has no other name while it is not locked.
const ENDING: &str = ".json";

/// Where a process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The process.
    pub process: u32,
    /// The address it bound.
    pub address: SocketAddr,
    /// Whether it serves HTTPS.
    pub secure: bool,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(flatten)]
    listener: Listener,
}

/// The record of this process, for as long as it is held.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    _locked: File,
}

impl Listening {
    /// Records where this process listens, and removes the records of processes that have ended.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn record(folder: &Path, address: SocketAddr, secure: bool) -> Result<Listening, Failure> {
        let folder = folder.join("listening");
        let failed = |error: io::Error| {
            Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, "record the address of the listener")
                .at(folder.display().to_string())
                .detail(error.to_string())
                .remedy(
                    "make the state folder writable for the user Warren runs as, on a disk with space left",
                )
                .because(error)
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        remove_dead(&folder).map_err(failed)?;
        let process = std::process::id();
        // A later process may have the same number.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = folder.join(format!("{process}-{:x}{ENDING}", now.as_nanos()));
        let stored = Stored { version: VERSION, listener: Listener { process, address, secure } };
        let text = serde_json::to_vec(&stored).map_err(|error| failed(error.into()))?;
        let unlocked = path.with_extension("tmp");
        let written =
            lock_and_write(&unlocked, &text).and_then(|file| fs::rename(&unlocked, &path).map(|()| file));
        match written {
            Ok(locked) => Ok(Listening { path, _locked: locked }),
            Err(error) => {
                fs::remove_file(&unlocked).ok(); // it may not be there
                Err(failed(error))
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // What stays counts for nothing.
        fs::remove_file(&self.path).ok();
    }
}

fn lock_and_write(path: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.try_lock()?;
    file.write_all(text)?;
    Ok(file)
}

/// The records in a folder.
fn records(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let is_record = |path: &PathBuf| path.to_string_lossy().ends_with(ENDING);
    paths.filter(|path| path.as_ref().map_or(true, is_record)).collect()
}

/// A record whose process lives; `None`: it has ended, or the record is gone.
fn living(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(file)),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn remove_dead(folder: &Path) -> io::Result<()> {
    for path in records(folder)? {
        if living(&path)?.is_none() {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Where the processes of a state folder listen that are alive. Changes nothing.
///
/// # Errors
/// The folder cannot be read, or a newer version wrote it.
pub fn listeners(folder: &Path) -> Result<Vec<Listener>, Failure> {
    let folder = folder.join("listening");
    let what = "read the addresses of the listeners";
    let failed = |error: io::Error| {
        Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
            .at(folder.display().to_string())
            .detail(error.to_string())
            .because(error)
    };
    let mut found = Vec::new();
    for path in records(&folder).map_err(failed)? {
        let Some(file) = living(&path).map_err(failed)? else { continue };
        let mut text = String::new();
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        found.push(read(&text).map_err(|failure| failure.at(path.display().to_string()))?);
    }
    found.sort_by_key(|listener| listener.process);
    Ok(found)
}

fn read(text: &str) -> Result<Listener, Failure> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let what = "read the address of a listener";
    let damaged = |error: serde_json::Error| {
        Failure::new(FailureKind::Internal, codes::STATE_DAMAGED, what)
            .detail(error.to_string())
            .remedy("restart the process that listens")
    };
    let Versioned { version } = serde_json::from_str(text).map_err(damaged)?;
    if version != VERSION {
        return Err(Failure::new(FailureKind::Internal, codes::STATE_TOO_NEW, what)
            .detail(format!("it has version {version}, and this program reads {VERSION}"))
            .remedy("use the version of Warren that runs"));
    }
    let Stored { listener, .. } = serde_json::from_str(text).map_err(damaged)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_one_is_read_and_a_newer_one_is_not() {
        let listener = read(r#"{"version":1,"process":7,"address":"[::1]:15780","secure":true}"#).unwrap();
        assert_eq!(listener, Listener { process: 7, address: "[::1]:15780".parse().unwrap(), secure: true });
        let code = |text: &str| read(text).unwrap_err().code;
        assert_eq!(code(r#"{"version":2,"process":{}}"#), codes::STATE_TOO_NEW);
        assert_eq!(code(""), codes::STATE_DAMAGED);
        assert_eq!(code(r#"{"version":1,"process":7}"#), codes::STATE_DAMAGED);
    }

    #[test]
    fn only_records_of_living_processes_count() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(listeners(folder.path()).unwrap(), []);
        let address = "127.0.0.1:15780".parse().unwrap();
        let held = Listening::record(folder.path(), address, false).unwrap();
        let expected = [Listener { process: std::process::id(), address, secure: false }];
        assert_eq!(listeners(folder.path()).unwrap(), expected);
        // As a process that was killed leaves it.
        let dead = folder.path().join("listening/1-0.json");
        fs::copy(&held.path, &dead).unwrap();
        assert_eq!(listeners(folder.path()).unwrap(), expected);
        let other = Listening::record(folder.path(), address, true).unwrap();
        assert!(!dead.exists() && held.path.exists(), "the dead one is removed");
        assert_eq!(listeners(folder.path()).unwrap().len(), 2);
        drop((held, other));
        assert_eq!(fs::read_dir(folder.path().join("listening")).unwrap().count(), 0);
    }
}
