//! Opening the file: its settings, its version, and the way from older versions to this one.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::fault::Fault;

/// What makes version n+1 of version n; the first makes version 1 of nothing. Never changed once released.
const MIGRATIONS: &[&str] = &[include_str!("migrations/001.sql")];

/// Marks a file as ours: `WARN`.
const APPLICATION_ID: i64 = 0x5741_524e;

/// Written when the file is made. Blocks are some tens of kilobytes long; of 4 KiB pages they would need twice as many.
const PAGE_BYTES: i64 = 8192;

/// How long a lock of another process is waited for. Ours are held for milliseconds.
const BUSY: Duration = Duration::from_secs(30);

/// The log is cut back to this when it has grown, in bytes.
const LOG_BYTES_KEPT: i64 = 16 << 20;

/// Makes the folder, for this user alone: what was sent may be anything.
pub(super) fn make_folder(folder: &Path) -> Result<(), Failure> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|error| unwritable("make the state folder", folder, error))
}

/// Opens the file to write, makes it where it is missing, and brings it up to date.
pub(super) fn open(path: &Path, file_bytes_max: Option<u64>) -> Result<Connection, Fault> {
    make_file(path)?;
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    // Both hold only in a file that has no page yet.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let before = version(&connection)?;
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !journal.eq_ignore_ascii_case("wal") {
        return Err(Fault::Damaged(
            "the file system of the state folder cannot share memory between processes",
        ));
    }
    // The log is not forced to the disk at each commit: a killed process loses nothing, see `SqliteState`.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    if before < MIGRATIONS.len() as i64 {
        migrate(&mut connection)?;
    }
    if let Some(bytes) = file_bytes_max {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Opens the file, which is there and up to date, to read.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Makes the file, for this user alone. SQLite gives its log the same rights.
fn make_file(path: &Path) -> Result<(), Fault> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unwritable("make the state's file", path, error).into()),
    }
}

/// The version of the file, 0 where it is empty.
fn version(connection: &Connection) -> Result<i64, Fault> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    match (application, version) {
        (APPLICATION_ID, 1..) if version > known => Err(Fault::TooNew { found: version, known }),
        (APPLICATION_ID, 1..) if tables > 0 => Ok(version),
        (0, 0) if tables == 0 => Ok(0),
        _ => Err(Fault::Damaged("the file is not a state of Warren")),
    }
}

/// All steps in one transaction: a process that dies in it leaves the old version.
fn migrate(connection: &mut Connection) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = version(&transaction)?; // again, now that nobody else can write
    for migration in MIGRATIONS.iter().skip(from as usize) {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

fn unwritable(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Internal, codes::STATE_UNWRITABLE, what)
        .at(path.display().to_string())
        .detail(error.to_string())
        .remedy("name a state folder that the user Warren runs as may write, on a disk with space left")
        .because(error)
}
