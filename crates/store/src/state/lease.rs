//! Leases of one machine: a locked file each.
//!
//! The kernel's lock on an open file (`flock`) is exclusive between processes and between two openings in one
//! process, and goes when its holder does, however it dies. Beside it one file, the gate, is locked for the moments in
//! which a lease is taken or looked at, so that somebody who only looks is never mistaken for a holder, and the
//! holder's name is always that of the present one.
//!
//! Lock files are never deleted: who deletes a locked file lets two hold the same name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::ports::{Holder, Lease};
use xxhash_rust::xxh3::xxh3_128;

/// The longest file name we make of a name; file systems allow 255 bytes.
const ESCAPED_BYTES_MAX: usize = 180;

/// How long the gate is waited for: longer than a migration of the state takes.
const GATE_MAX: Duration = Duration::from_secs(60);

/// How often the gate is looked at.
const GATE_LOOK: Duration = Duration::from_millis(2);

/// The leases of a folder.
#[derive(Debug)]
pub(super) struct LeaseFolder {
    folder: PathBuf,
    owner: Owner,
    gate_max: Duration,
}

/// Who holds a lease or runs a run: a process, told apart from a later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner(String);

impl Owner {
    /// This process, now.
    fn this() -> Owner {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Owner(format!("{}-{:x}", std::process::id(), since.as_nanos()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn holder(&self) -> Holder {
        let pid = self.0.split('-').next().filter(|pid| !pid.is_empty());
        Holder { who: pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")) }
    }
}

/// A held lease: the open, locked file.
struct FileLease {
    _locked: File,
}

impl Lease for FileLease {}

impl LeaseFolder {
    /// The leases in a folder, which is made where it is missing.
    pub(super) fn open(folder: PathBuf) -> Result<LeaseFolder, Failure> {
        fs::create_dir_all(&folder)
            .map_err(|error| unwritable("make the folder of leases", &folder, error))?;
        Ok(LeaseFolder { folder, owner: Owner::this(), gate_max: GATE_MAX })
    }

    /// This process's own name.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Takes a lease, or says who holds it.
    pub(super) fn take(&self, name: &str) -> Result<Result<Box<dyn Lease>, Holder>, Failure> {
        let path = self.path(name);
        let failed = |error| unwritable(&format!("take the lease of `{name}`"), &path, error);
        let _gate = self.gate()?;
        let mut file = writable(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(read_owner(&mut file).map_err(failed)?.holder())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| file.write_all(self.owner.0.as_bytes())).map_err(failed)?;
        Ok(Ok(Box::new(FileLease { _locked: file })))
    }

    /// Who holds a lease, if anybody does.
    pub(super) fn owner_of(&self, name: &str) -> Result<Option<Owner>, Failure> {
        let path = self.path(name);
        let failed = |error| unwritable(&format!("look at the lease of `{name}`"), &path, error);
        let _gate = self.gate()?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None), // and unlocked again when the file is closed, before the gate opens
            Err(TryLockError::WouldBlock) => read_owner(&mut file).map(Some).map_err(failed),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// As [`LeaseFolder::owner_of`], for people.
    pub(super) fn holder_of(&self, name: &str) -> Result<Option<Holder>, Failure> {
        Ok(self.owner_of(name)?.map(|owner| owner.holder()))
    }

    /// Waits for the gate, which nobody holds for longer than a few file operations (or a migration of the state). A process that
    /// was stopped while it held it is not waited for longer than [`GATE_MAX`].
    pub(super) fn gate(&self) -> Result<File, Failure> {
        let path = self.folder.join(".gate");
        let gate = writable(&path).map_err(|error| unwritable("open the gate of leases", &path, error))?;
        let failed = |error| unwritable("lock the gate of leases", &path, error);
        let since = Instant::now();
        loop {
            match gate.try_lock() {
                Ok(()) => return Ok(gate),
                Err(TryLockError::WouldBlock) if since.elapsed() < self.gate_max => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "a lock with a time-out; on threads that may block"
                    )]
                    std::thread::sleep(GATE_LOOK);
                }
                Err(TryLockError::WouldBlock) => {
                    let what =
                        format!("another process has held it for {:?}; is one stopped?", self.gate_max);
                    return Err(failed(io::Error::new(io::ErrorKind::TimedOut, what)));
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.lock", escape(name)))
    }
}

/// A name as a file's name: letters, digits, `-` and `_` as they are, everything else as `%xx`. Different names
/// have different file names, also in a file system that does not tell upper from lower case.
fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    let escape = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") };
    let mut escaped: String = name.bytes().map(escape).collect();
    if escaped.len() > ESCAPED_BYTES_MAX {
        escaped.truncate(ESCAPED_BYTES_MAX - 33);
        escaped = format!("{escaped}+{:032x}", xxh3_128(name.as_bytes()));
    }
    escaped
}

fn writable(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn read_owner(file: &mut File) -> io::Result<Owner> {
    let mut text = String::new();
    file.take(200).read_to_string(&mut text)?;
    Ok(Owner(text.trim().to_owned()))
}

fn unwritable(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy("make the state folder writable for the user Warren runs as, on a disk with space left")
        .because(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(escape("crm-customers_2"), "crm-customers_2");
        assert_eq!(escape("../Etc"), "%2e%2e%2f%45tc");
        let long = "ü".repeat(100);
        assert!(escape(&long).len() <= ESCAPED_BYTES_MAX);
        assert_ne!(escape(&long), escape(&format!("{long}x")));
    }

    #[test]
    fn one_holder_at_a_time_also_within_a_process() {
        let folder = tempfile::tempdir().unwrap();
        let leases = LeaseFolder::open(folder.path().join("leases")).unwrap();
        assert_eq!(leases.holder_of("orders").unwrap(), None);
        let held = leases.take("orders").unwrap().expect("free");
        let who = Holder { who: format!("process {}", std::process::id()) };
        assert_eq!(leases.take("orders").unwrap().err(), Some(who.clone()));
        assert_eq!(leases.holder_of("orders").unwrap(), Some(who));
        assert!(leases.take("customers").unwrap().is_ok());
        drop(held);
        assert_eq!(leases.holder_of("orders").unwrap(), None);
        assert!(leases.take("orders").unwrap().is_ok());
    }

    #[test]
    fn who_only_looks_is_never_taken_for_a_holder() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Arc::new(LeaseFolder::open(folder.path().join("leases")).unwrap());
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let looking = {
            let (leases, done) = (leases.clone(), done.clone());
            std::thread::spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    leases.owner_of("orders").unwrap();
                }
            })
        };
        let refused = (0..2000).filter(|_| leases.take("orders").unwrap().is_err()).count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        looking.join().unwrap();
        assert_eq!(refused, 0);
    }

    #[test]
    fn a_gate_that_is_held_for_too_long_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let stopped = LeaseFolder::open(folder.path().to_owned()).unwrap();
        let mut leases = LeaseFolder::open(folder.path().to_owned()).unwrap();
        leases.gate_max = Duration::from_millis(20);
        let held = stopped.gate().unwrap();
        for failure in [leases.take("orders").err().unwrap(), leases.holder_of("orders").unwrap_err()] {
            assert_eq!(failure.code, codes::STATE_UNWRITABLE);
            assert!(failure.to_string().contains("another process has held it"), "{failure}");
        }
        drop(held);
        assert!(leases.take("orders").unwrap().is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let failure = LeaseFolder::open(file.join("leases")).unwrap_err();
        assert_eq!(failure.code, codes::STATE_UNWRITABLE);
        assert!(failure.place.unwrap().ends_with("file/leases"));
        assert!(failure.remedy.is_some());
    }
}
