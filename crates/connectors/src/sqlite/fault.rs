//! What SQLite says, as failures with a code and a way out.

use std::path::Path;

use rusqlite::{Error, ErrorCode};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use crate::kit::place::{answered, caused, place, quoted};

/// A file that could not be opened.
pub(super) fn open(error: Error, path: &Path) -> Failure {
    // Where there is no current folder, a relative path is all there is to say.
    let tried = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let what = format!("open the SQLite database {}", tried.display());
    let failure = |kind, code| Failure::new(kind, code, &what);
    if !path.exists() {
        return failure(FailureKind::NotFound, codes::UNKNOWN_DATABASE)
            .detail("there is no such file")
            .remedy("Check `path`; a relative one starts at the folder of the configuration file.");
    }
    let failure = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => failure(FailureKind::Invalid, codes::UNKNOWN_DATABASE)
            .remedy("Give the path of a SQLite file; an encrypted one cannot be read."),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            failure(FailureKind::Throttled, codes::SOURCE_UNREACHABLE).remedy(LOCKED)
        }
        _ => failure(FailureKind::Refused, codes::SOURCE_UNREACHABLE).remedy(
            "Let Warren's user read the file, and write in its folder if the database is in WAL mode.",
        ),
    };
    failure.detail(said(&error)).because(error)
}

const LOCKED: &str =
    "Raise `busy_timeout`, or switch the database to WAL, where writers do not lock readers out.";

/// A query that SQLite refused or broke off.
pub(super) fn query(error: Error, what: &str, sql: &str, rows_came: bool) -> Failure {
    let code = if rows_came { codes::QUERY_INTERRUPTED } else { codes::QUERY_FAILED };
    let failure = |kind| Failure::new(kind, code, what);
    if let Error::SqlInputError { offset, .. } = &error {
        let failure =
            failure(FailureKind::Invalid).remedy("Run the query with the sqlite3 shell, and mend it there.");
        let before = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset));
        let failure = match before.and_then(|before| place(sql, before.chars().count() + 1)) {
            Some((line, column, text)) => failure
                .at(format!("line {line}, column {column} of the query"))
                .detail(answered(sql, &said(&error)) + &quoted(&text)),
            None => failure.detail(answered(sql, &said(&error))),
        };
        return caused(failure, sql, error);
    }
    if matches!(error, Error::MultipleStatement) {
        return failure(FailureKind::Invalid)
            .detail("the query is several statements")
            .remedy("Give one SELECT; WITH can name the parts of a long one.");
    }
    let failure = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            failure(FailureKind::Throttled).remedy(LOCKED)
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => failure(FailureKind::Invalid)
            .remedy("Check the file with `PRAGMA integrity_check`, and restore it from a backup."),
        Some(ErrorCode::ReadOnly) => failure(FailureKind::Refused).remedy(READ_ONLY),
        _ => failure(FailureKind::Invalid).remedy("Run the query with the sqlite3 shell, and mend it there."),
    };
    let failure = failure.detail(answered(sql, &said(&error)));
    caused(failure, sql, error)
}

const READ_ONLY: &str = "Warren only reads: give a SELECT.";

/// A statement that would write.
pub(super) fn writes(what: &str) -> Failure {
    Failure::new(FailureKind::Refused, codes::QUERY_FAILED, what)
        .detail("the statement would write")
        .remedy(READ_ONLY)
}

fn said(error: &Error) -> String {
    match error {
        Error::SqlInputError { msg, .. } => msg.clone(),
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}
