//! The folder of one baseline: every file operation goes through here, so that each failure names its file, and a
//! test can make any single step fail.
//!
//! What is written here is named: `manifest.json`, `keys-N`, `rows-N`, `doubts-N`, and `*.tmp` for what is not yet whole.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

/// Asked before each step that changes the folder, with the step's name and the file's; an error is that step's
/// failure. For tests of full disks and sudden deaths.
pub type Faults = Arc<dyn Fn(&'static str, &str) -> io::Result<()> + Send + Sync>;

/// The folder of one baseline.
#[derive(Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    faults: Option<Faults>,
}

/// A file being written.
pub(crate) struct Writing {
    file: File,
    name: String,
    folder: Folder,
}

/// A file being read.
#[derive(Debug)]
pub(crate) struct Reading {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Folder {
    pub(crate) fn new(path: PathBuf, faults: Option<Faults>) -> Folder {
        Folder { path, faults }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder if it is not there.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        self.step("make", "", || fs::create_dir_all(&self.path))
    }

    /// The names of the files in it; none where the folder does not exist.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.path, error))?;
            names.extend(entry.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file, or says that there is none.
    pub(crate) fn open_if_there(&self, name: &str) -> Result<Option<Reading>, Failure> {
        let path = self.at(name);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((length, file)) => Ok(Some(Reading { file, path, length })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Opens a file that must be there.
    pub(crate) fn open(&self, name: &str) -> Result<Reading, Failure> {
        self.open_if_there(name)?
            .ok_or_else(|| damaged(&self.at(name), 0, "the file is missing, and the manifest names it"))
    }

    /// Creates a file, or empties it, for writing.
    pub(crate) fn create(&self, name: &str) -> Result<Writing, Failure> {
        let path = self.at(name);
        let file = self.step("create", name, || {
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)
        })?;
        Ok(Writing { file, name: name.to_owned(), folder: self.clone() })
    }

    /// Cuts a file to a length.
    pub(crate) fn cut(&self, name: &str, length: u64) -> Result<(), Failure> {
        let path = self.at(name);
        self.step("cut", name, || {
            let file = OpenOptions::new().write(true).open(&path)?;
            file.set_len(length)?;
            file.sync_data()
        })
    }

    /// Gives a file that is whole and synced its name, for good once this returns.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.step("rename", to, || fs::rename(self.at(from), self.at(to)))?;
        self.step("sync folder", "", || File::open(&self.path)?.sync_all())
    }

    /// Removes a file; one that is not there is removed already.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Failure> {
        self.step("remove", name, || match fs::remove_file(self.at(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }

    fn step<T>(
        &self,
        step: &'static str,
        name: &str,
        run: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Failure> {
        let asked = self.faults.as_ref().map_or(Ok(()), |faults| faults(step, name));
        asked.and_then(|()| run()).map_err(|error| unwritable(&self.at(name), error))
    }
}

impl Writing {
    /// Writes all of `bytes` at a place.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        self.folder.step("write", &self.name, || self.file.write_all_at(bytes, offset))
    }

    /// Makes what was written outlive a loss of power.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        self.folder.step("sync", &self.name, || self.file.sync_data())
    }

    /// Sets the length, dropping what stands behind it.
    pub(crate) fn set_length(&self, length: u64) -> Result<(), Failure> {
        self.folder.step("cut", &self.name, || self.file.set_len(length))
    }

    /// Syncs the file and gives it its name. It stays open under the new one.
    pub(crate) fn publish_as(&mut self, name: &str) -> Result<(), Failure> {
        self.sync()?;
        self.folder.rename(&self.name, name)?;
        name.clone_into(&mut self.name);
        Ok(())
    }
}

impl Reading {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` from a place.
    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged(offset, "the file ends too early"),
            _ => unreadable(&self.path, error),
        })
    }

    /// What is wrong with this file, and where.
    pub(crate) fn damaged(&self, offset: u64, what: &str) -> Failure {
        damaged(&self.path, offset, what)
    }
}

/// A file whose content cannot be right.
pub(crate) fn damaged(path: &Path, offset: u64, what: &str) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_DAMAGED, "read the baseline")
        .at(format!("{}, byte {offset}", path.display()))
        .detail(what)
        .remedy("restore the folder from a backup; or move it away and run `warren sync SYNC --reset-baseline`, which takes the rows of now as told without sending them")
}

/// A file that a newer version wrote.
pub(crate) fn too_new(path: &Path, version: u64, newest: u64) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_TOO_NEW, "read the baseline")
        .at(path.display().to_string())
        .detail(format!("the file has format version {version}; this version of Warren reads up to {newest}"))
        .remedy("use the version of Warren that wrote it, or a newer one")
}

/// A file that cannot be written.
pub(crate) fn unwritable(path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, "write the baseline")
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy("free space or give the right to write there; the baseline stays what it was and the next run goes on from it")
        .because(error)
}

fn unreadable(path: &Path, error: io::Error) -> Failure {
    let (code, remedy) = if error.kind() == io::ErrorKind::PermissionDenied {
        (codes::STATE_UNWRITABLE, "give the user Warren runs as the right to read and write there")
    } else {
        (codes::STATE_DAMAGED, "check the disk; restore the folder from a backup where it cannot be read")
    };
    Failure::new(FailureKind::Internal, code, "read the baseline")
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy(remedy)
        .because(error)
}
