//! A small SQLite file of ours: opened, marked with what it is, brought up to date; and its faults in Warren's words.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::packed::Damaged;

/// How long a lock of another process is waited for. Ours are held for milliseconds.
const BUSY: Duration = Duration::from_secs(30);

/// What kind of file it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// What is lost with it, for the way out of a damaged one.
    pub what: &'static str,
    /// SQLite's mark for whose file it is.
    pub application_id: i64,
    /// What makes version n+1 of version n; never changed once released.
    pub migrations: &'static [&'static str],
    /// Whether each commit is forced to the disk.
    pub forced: bool,
}

/// What goes wrong below, before it is known what was tried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(&'static str),
    /// Of another file than the one that was asked for.
    #[error("{1}")]
    Of(PathBuf, Box<Fault>),
    #[error("the file's version is {found}; this Warren knows versions up to {known}")]
    TooNew { found: i64, known: i64 },
}

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Fault {
        Fault::Damaged(damaged.0)
    }
}

/// Opens the file to write, makes it where it is missing, for this user alone, and brings it up to date.
pub(crate) fn open(path: &Path, kind: Kind) -> Result<Connection, Failure> {
    let opened = try_open(path, kind);
    opened.map_err(|fault| fault.into_failure("open the state", path, kind))
}

fn try_open(path: &Path, kind: Kind) -> Result<Connection, Fault> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "page_size", 8192)?; // holds only in a file that has no page yet
    let before = version(&connection, kind)?;
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !journal.eq_ignore_ascii_case("wal") {
        return Err(Fault::Damaged(
            "the file system of the state folder cannot share memory between processes",
        ));
    }
    connection.pragma_update(None, "synchronous", if kind.forced { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "journal_size_limit", 16 << 20)?;
    if before < kind.migrations.len() as i64 {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let from = version(&transaction, kind)?; // again, now that nobody else can write
        for migration in kind.migrations.iter().skip(from as usize) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "application_id", kind.application_id)?;
        transaction.pragma_update(None, "user_version", kind.migrations.len() as i64)?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens a file that is there to read; `None` where it is not.
pub(crate) fn open_to_read(path: &Path, kind: Kind) -> Result<Option<Connection>, Fault> {
    if !path.try_exists()? {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok((version(&connection, kind)? > 0).then_some(connection))
}

fn version(connection: &Connection, kind: Kind) -> Result<i64, Fault> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let known = kind.migrations.len() as i64;
    match (application, version) {
        (id, 1..) if id == kind.application_id && version > known => {
            Err(Fault::TooNew { found: version, known })
        }
        (id, 1..) if id == kind.application_id && tables > 0 => Ok(version),
        (0, 0) if tables == 0 => Ok(0),
        _ => Err(Fault::Damaged("the file is not one of Warren's")),
    }
}

impl Fault {
    /// As a failure of what was tried.
    pub(crate) fn into_failure(self, what: &str, path: &Path, kind: Kind) -> Failure {
        let failure = |code| Failure::new(FailureKind::Internal, code, what).at(path.display().to_string());
        let damaged = || {
            failure(codes::STATE_DAMAGED).remedy(format!(
                "stop every Warren that uses this folder, move the file and those beside it (`-wal`, `-shm`) away and start \
                 again: {} is lost with it",
                kind.what
            ))
        };
        let unwritable = || {
            failure(codes::STATE_UNWRITABLE).remedy(
                "make room on the disk of the state folder, and the folder writable for Warren's user",
            )
        };
        match self {
            Fault::Of(path, fault) => fault.into_failure(what, &path, kind),
            Fault::Sqlite(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    damaged().detail("the file is damaged").because(error)
                }
                _ => unwritable().detail(error.to_string()).because(error),
            },
            Fault::Io(error) => unwritable().detail(error.to_string()).because(error),
            Fault::Json(error) => damaged().detail("what it holds cannot be read").because(error),
            Fault::Damaged(detail) => damaged().detail(detail),
            Fault::TooNew { .. } => failure(codes::STATE_TOO_NEW)
                .detail(self.to_string())
                .remedy("use the newer Warren that wrote it, or another state folder"),
        }
    }
}
