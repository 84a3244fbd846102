//! Who has the file open. Each opening makes a small file beside the broker's and holds its lock until it closes or its
//! process dies, however it dies. Whoever can take that lock knows that the holder is gone, and puts back the messages
//! it held. No clock and no heartbeat: a process that is stopped for an hour loses nothing.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

/// Our own lock.
#[derive(Debug)]
pub(super) struct Presence {
    folder: PathBuf,
    /// The lock file's name.
    pub name: String,
    /// Held, not read.
    _lock: File,
    /// The lock files of others, opened once.
    others: HashMap<i64, File>,
}

/// A holder that is gone. Its lock is ours as long as this lives, so that one process at a time puts back its messages.
#[derive(Debug)]
pub(super) struct Gone {
    pub holder: i64,
    path: PathBuf,
    _lock: Option<File>,
}

impl Gone {
    /// Removes its lock file, after its messages were put back.
    pub(super) fn bury(self) {
        // A file that stays costs a name in a folder and nothing else.
        std::fs::remove_file(&self.path).ok();
    }
}

impl Presence {
    /// Takes a lock of our own, before we are entered in the file.
    pub(super) fn take(broker_file: &Path) -> Result<Presence, Failure> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut folder = broker_file.as_os_str().to_owned();
        folder.push(".holders");
        let folder = PathBuf::from(folder);
        let fault = |error: std::io::Error| {
            Failure::new(FailureKind::Refused, codes::STATE_UNWRITABLE, "lock the embedded broker's file")
                .at(folder.display().to_string())
                .detail(error.to_string())
                .remedy("make this folder writable, on a local disk with free space")
                .because(error)
        };
        std::fs::create_dir_all(&folder).map_err(fault)?;
        // Unique among processes that live and, by the time, among those that died with the same number.
        let name = format!(
            "{}-{}-{}.lock",
            std::process::id(),
            super::now_ms(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lock = OpenOptions::new().create_new(true).write(true).open(folder.join(&name)).map_err(fault)?;
        lock.lock().map_err(fault)?;
        Ok(Presence { folder, name, _lock: lock, others: HashMap::new() })
    }

    /// The other holders that are gone.
    pub(super) fn find_gone(&mut self, conn: &Connection, own: i64) -> rusqlite::Result<Vec<Gone>> {
        let mut statement = conn.prepare_cached("SELECT id, lock FROM holder WHERE id <> ?1")?;
        let mut rows = statement.query([own])?;
        let mut gone = Vec::new();
        let mut seen = Vec::new();
        while let Some(row) = rows.next()? {
            let (holder, name): (i64, String) = (row.get(0)?, row.get(1)?);
            let path = self.folder.join(&name);
            seen.push(holder);
            let lock = match self.others.remove(&holder) {
                Some(lock) => Ok(lock),
                None => OpenOptions::new().write(true).open(&path),
            };
            match lock {
                Ok(lock) => match lock.try_lock() {
                    Ok(()) => gone.push(Gone { holder, path, _lock: Some(lock) }),
                    Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {
                        self.others.insert(holder, lock);
                    }
                },
                // Only what was locked and entered is looked for, so a file that is not there was removed.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    gone.push(Gone { holder, path, _lock: None });
                }
                // Such as too many open files: nothing is known, so the holder lives.
                Err(_) => {}
            }
        }
        self.others.retain(|holder, _| seen.contains(holder));
        Ok(gone)
    }

    /// Removes our lock file; the lock goes with it.
    pub(super) fn leave(self) {
        std::fs::remove_file(self.folder.join(&self.name)).ok(); // one that stays is removed by the next to look
    }
}
