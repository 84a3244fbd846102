//! What a measured program writes to stderr: kept in a file, because it would drown the figures, and printed if the benchmark fails.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// The file with a program's stderr. Printed when it is dropped, unless [`discard`](ErrorLog::discard) was called before.
pub struct ErrorLog {
    path: PathBuf,
    is_wanted: bool,
}

impl ErrorLog {
    /// Creates the file in a folder. The second value is for the program.
    pub fn create(folder: &Path) -> io::Result<(ErrorLog, Stdio)> {
        let path = folder.join("stderr.log");
        let file = File::create(&path)?;
        Ok((ErrorLog { path, is_wanted: true }, file.into()))
    }

    /// Drops what was written: the program did its work.
    pub fn discard(&mut self) {
        self.is_wanted = false;
    }
}

impl Drop for ErrorLog {
    fn drop(&mut self) {
        if self.is_wanted {
            // The log is a help only: the failure itself is reported by the caller.
            let text = std::fs::read(&self.path).unwrap_or_default();
            eprint!("{}", String::from_utf8_lossy(&text));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn stderr_of_a_program_is_in_the_file_and_not_on_the_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, stderr) = ErrorLog::create(folder.path()).unwrap();
        let output =
            Command::new("sh").args(["-c", "echo figure; echo WARN >&2"]).stderr(stderr).output().unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"figure\n"[..], &b""[..]));
        assert_eq!(std::fs::read_to_string(&log.path).unwrap(), "WARN\n");
        log.discard();
    }
}
