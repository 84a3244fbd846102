//! Where things are: the environment that `./test` sets, the repository, and folders for a test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The value of an environment variable that `./test` sets.
///
/// # Panics
/// When it is missing.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with ./test"))
}

/// The root of the repository.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder `scripts`.
#[must_use]
pub fn scripts() -> PathBuf {
    PathBuf::from(variable("WARREN_TEST_SCRIPTS"))
}

/// Whether the long tests do all their rounds (`./test --soak`).
#[must_use]
pub fn soak() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}

/// A name no other test has, in this run or in one before: letters, digits and underscores.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    format!("{prefix}_{}_{}_{next}", std::process::id(), now.as_micros())
}

/// An empty folder of one's own below the scratch folder of the run, removed when dropped.
#[must_use]
pub fn scratch(prefix: &str) -> Scratch {
    let path = Path::new(&variable("WARREN_TEST_DIR")).join(unique(prefix));
    std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
    Scratch { path }
}

/// See [`scratch`].
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file in the folder and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whatever stays is deleted with the run's folder.
        std::fs::remove_dir_all(&self.path).ok();
    }
}
