//! What SQLite says, in our words.

use std::path::Path;

use rusqlite::{Error, ErrorCode};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

/// Why a step of a transaction did not go through.
#[derive(Debug)]
pub(super) enum Fault {
    /// The file would not do it; the transaction is rolled back.
    Sql(Error),
    /// The file holds what we did not write; the transaction is rolled back.
    Damaged(Box<Failure>),
    /// A rule of ours; nothing was written by the step.
    Refused(Box<Failure>),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Sql(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        if failure.code == codes::STATE_DAMAGED {
            return Fault::Damaged(Box::new(failure));
        }
        Fault::Refused(Box::new(failure))
    }
}

impl Fault {
    /// As a failure of what was tried on the broker's file.
    pub(super) fn failure(self, what: &str, path: &Path) -> Failure {
        match self {
            Fault::Sql(error) => translate(error, what, path),
            Fault::Damaged(failure) => Failure { place: Some(path.display().to_string()), ..*failure },
            Fault::Refused(failure) => *failure,
        }
    }
}

/// Translates an error of SQLite. The kind says whether waiting may help; the code and remedy what a person can do.
pub(super) fn translate(error: Error, what: &str, path: &Path) -> Failure {
    let place = path.display().to_string();
    let code = error.sqlite_error_code();
    let detail = error.to_string();
    let (kind, code, remedy) = match code {
        Some(ErrorCode::DiskFull) => (
            FailureKind::Throttled,
            codes::STATE_UNWRITABLE,
            "free space on the disk of this file; what was accepted before is safe",
        ),
        Some(ErrorCode::SystemIoFailure) => (
            FailureKind::Disconnected,
            codes::STATE_UNWRITABLE,
            "look at the disk of this file: it is full, over quota, or failing",
        ),
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            FailureKind::Refused,
            codes::STATE_UNWRITABLE,
            "make the folder of this file exist and writable for this user, or set the broker's `path`",
        ),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => (
            FailureKind::Throttled,
            codes::BROKER_BLOCKED,
            "find the process that holds this file's write lock (a tool that left a transaction open?) and end it",
        ),
        // Whatever else SQLite objects to, it found something other than what we wrote.
        _ => (
            FailureKind::Internal,
            codes::STATE_DAMAGED,
            "stop all processes that use this file, keep a copy, and restore it from a backup or salvage it with \
             `sqlite3 FILE .recover`; or move it away to begin with an empty broker",
        ),
    };
    Failure::new(kind, code, what).at(place).detail(detail).remedy(remedy).because(error)
}

/// A file that holds something we did not write.
pub(super) fn damaged(what: &str, detail: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_DAMAGED, what).detail(detail).remedy(
        "keep a copy of the broker's file and restore it from a backup, or move it away to begin anew",
    )
}
