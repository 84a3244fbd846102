//! What goes wrong with the file, in Warren's words.

use std::io;
use std::path::Path;

use rusqlite::ErrorCode;
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::packed::Damaged;

/// What goes wrong below, before it is known what was tried.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Block(#[from] Damaged),
    #[error("{0}")]
    Damaged(&'static str),
    #[error("the file's version is {found}; this Warren knows versions up to {known}")]
    TooNew { found: i64, known: i64 },
    #[error("run {0} is not on record")]
    NoSuchRun(i64),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error("rows cannot be packed")]
    Pack(#[source] io::Error),
    #[error(transparent)]
    Failure(#[from] Failure),
}

const DAMAGED_REMEDY: &str = "stop every Warren that uses this folder, move `state.db`, `state.db-wal` and \
    `state.db-shm` away and start again: only the record of past runs is lost, no message is sent twice for it";

impl Fault {
    /// As a failure of what was tried.
    pub(super) fn into_failure(self, what: &str, path: &Path) -> Failure {
        let failure = |code| Failure::new(FailureKind::Internal, code, what).at(path.display().to_string());
        let damaged = |detail: &str| failure(codes::STATE_DAMAGED).detail(detail).remedy(DAMAGED_REMEDY);
        match self {
            Fault::Sqlite(error) => of_sqlite(error, what, path),
            Fault::Block(error) => damaged("a block of recorded rows is damaged").because(error),
            Fault::Damaged(detail) => damaged(detail),
            Fault::Json(error) => damaged("what is recorded of a run cannot be read").because(error),
            Fault::TooNew { .. } => failure(codes::STATE_TOO_NEW)
                .detail(self.to_string())
                .remedy("use the newer Warren that wrote it, or another state folder"),
            Fault::NoSuchRun(_) => {
                Failure::internal(what).at(path.display().to_string()).detail(self.to_string())
            }
            Fault::Pack(error) => Failure::internal(what).detail("rows cannot be packed").because(error),
            Fault::Failure(failure) => failure,
        }
    }
}

fn of_sqlite(error: rusqlite::Error, what: &str, path: &Path) -> Failure {
    let folder = path.parent().unwrap_or(path).display();
    let (code, detail, remedy) = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => {
            (codes::STATE_DAMAGED, "the file is damaged", DAMAGED_REMEDY.to_owned())
        }
        Some(ErrorCode::NotADatabase) => {
            (codes::STATE_DAMAGED, "the file is not a state of Warren", DAMAGED_REMEDY.to_owned())
        }
        Some(ErrorCode::DiskFull) => (
            codes::STATE_UNWRITABLE,
            "the disk is full",
            format!("make room on the disk that holds {folder}, or keep less (retention)"),
        ),
        Some(
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            codes::STATE_UNWRITABLE,
            "the file or its folder is read only",
            format!("make {folder} and what is in it writable for the user Warren runs as"),
        ),
        Some(ErrorCode::CannotOpen) => (
            codes::STATE_UNWRITABLE,
            "the file cannot be opened",
            format!(
                "make {folder} a folder that the user Warren runs as may write, and `state.db` in it a file"
            ),
        ),
        Some(ErrorCode::SystemIoFailure) => (
            codes::STATE_UNWRITABLE,
            "the disk does not read or write",
            format!("look at the disk that holds {folder}: its health, its space, its mount"),
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            codes::STATE_UNWRITABLE,
            "another process has kept it locked",
            format!(
                "end what holds {folder}/state.db open for writing, such as a database shell or a backup"
            ),
        ),
        _ => return Failure::internal(what).at(path.display().to_string()).because(error),
    };
    Failure::new(FailureKind::Internal, code, what)
        .at(path.display().to_string())
        .detail(detail)
        .remedy(remedy)
        .because(error)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn each_answer_of_sqlite_becomes_a_code_with_a_way_out() {
        for (answer, code, detail) in [
            (ffi::SQLITE_FULL, codes::STATE_UNWRITABLE, "the disk is full"),
            (ffi::SQLITE_READONLY, codes::STATE_UNWRITABLE, "read only"),
            (ffi::SQLITE_READONLY_DIRECTORY, codes::STATE_UNWRITABLE, "read only"),
            (ffi::SQLITE_CANTOPEN, codes::STATE_UNWRITABLE, "cannot be opened"),
            (ffi::SQLITE_IOERR_WRITE, codes::STATE_UNWRITABLE, "does not read or write"),
            (ffi::SQLITE_BUSY, codes::STATE_UNWRITABLE, "locked"),
            (ffi::SQLITE_CORRUPT, codes::STATE_DAMAGED, "damaged"),
            (ffi::SQLITE_NOTADB, codes::STATE_DAMAGED, "not a state"),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(answer), None);
            let failure = Fault::from(error).into_failure("record", Path::new("/data/state.db"));
            assert_eq!(failure.code, code, "{answer}");
            assert_eq!(failure.place.as_deref(), Some("/data/state.db"));
            assert!(failure.detail.as_deref().is_some_and(|told| told.contains(detail)), "{failure:?}");
            assert!(failure.remedy.is_some() && failure.cause.is_some());
        }
    }
}
