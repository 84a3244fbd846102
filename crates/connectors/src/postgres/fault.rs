//! What the driver and the server say, as failures with a code and a way out.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition, SqlState};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};

use super::config::Settings;
use crate::kit::limit::Limit;
use crate::kit::place::{self, answered, caused, quoted};

/// A query under way, as far as failures are concerned.
#[derive(Debug, Clone)]
pub(super) struct Query {
    /// Such as "run the query of model `customers`".
    pub(super) what: String,
    /// The query as written.
    pub(super) sql: String,
    /// Characters the statement sent has before it.
    pub(super) chars_before: usize,
    /// Whether rows have come.
    pub(super) rows_came: bool,
    /// How long it may take.
    pub(super) limit: Option<Limit>,
}

/// A connection that could not be made.
pub(super) fn connect(error: Error, settings: &Settings) -> Failure {
    let what = format!("connect to PostgreSQL at {}", settings.address);
    let failure = |kind, code| Failure::new(kind, code, &what);
    let Some(refusal) = error.as_db_error() else {
        // The driver has no other word for its kinds of errors than their texts.
        return match error.to_string().as_str() {
            "error performing TLS handshake" => tls(failure(FailureKind::Refused, codes::TLS_FAILED), &error),
            "authentication error" | "invalid configuration" => failure(
                FailureKind::Refused,
                codes::SOURCE_REFUSED_LOGIN,
            )
            .detail(cause(&error))
            .remedy(
                "Give the user and password the server asks for, in `url` or in `username` and `password`.",
            ),
            _ if speaks_of_tls(&error) => tls(failure(FailureKind::Refused, codes::TLS_FAILED), &error),
            _ => failure(FailureKind::Disconnected, codes::SOURCE_UNREACHABLE).detail(cause(&error)).remedy(
                "Check host and port, that the server runs, and that a firewall lets this machine through.",
            ),
        }
        .because(error);
    };
    let failure = match *refusal.code() {
        SqlState::INVALID_PASSWORD => failure(FailureKind::Refused, codes::SOURCE_REFUSED_LOGIN)
            .remedy("Check user and password. A password in `url` must be percent-encoded."),
        SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            failure(FailureKind::Refused, codes::SOURCE_REFUSED_LOGIN).remedy(
                "Check that the user exists, and that pg_hba.conf lets it in from this machine, with TLS if it asks for it.",
            )
        }
        SqlState::INVALID_CATALOG_NAME => failure(FailureKind::NotFound, codes::UNKNOWN_DATABASE)
            .remedy("Check the database's name; `psql -l` lists what the server has."),
        SqlState::INSUFFICIENT_PRIVILEGE => failure(FailureKind::Refused, codes::SOURCE_REFUSED_LOGIN)
            .remedy("Let the user in: GRANT CONNECT ON DATABASE … TO ….") ,
        SqlState::TOO_MANY_CONNECTIONS => failure(FailureKind::Throttled, codes::SOURCE_UNREACHABLE)
            .remedy("Try again when there are fewer connections, or raise max_connections."),
        _ => failure(FailureKind::Disconnected, codes::SOURCE_UNREACHABLE)
            .remedy("Try again once the server takes connections; its log tells more."),
    };
    failure.detail(said(refusal)).because(error)
}

/// A server that did not answer in time.
pub(super) fn connect_timeout(settings: &Settings) -> Failure {
    Failure::new(
        FailureKind::Timeout,
        codes::SOURCE_UNREACHABLE,
        format!("connect to PostgreSQL at {}", settings.address),
    )
    .detail(format!("no answer within {:?}", settings.connect_timeout))
    .remedy("Check host and port and the firewalls between, or raise `connect_timeout`.")
}

/// A query that the server refused or broke off, or whose connection was lost. `lost` is why, where the
/// connection knows more than that it is closed.
pub(super) fn query(error: Error, lost: Option<Error>, query: &Query) -> Failure {
    let error = match lost {
        Some(lost) if error.is_closed() => lost,
        _ => error,
    };
    let Some(refusal) = error.as_db_error() else {
        let code = if query.rows_came { codes::QUERY_INTERRUPTED } else { codes::SOURCE_UNREACHABLE };
        return Failure::new(FailureKind::Disconnected, code, &query.what)
            .detail(format!("the connection was lost: {}", cause(&error)))
            .remedy("Run again; if it keeps happening, the server's log and the network between tell why.")
            .because(error);
    };
    let failure = refused(refusal, query);
    if failure.code == codes::QUERY_TIMEOUT && query.limit.is_some() {
        return caused(failure, &query.sql, error);
    }
    let failure = failure.detail(answered(&query.sql, &said(refusal)));
    let failure = match place_of(refusal, query) {
        Some((line, column, text)) => failure
            .at(format!("line {line}, column {column} of the query"))
            .detail(answered(&query.sql, &said(refusal)) + &quoted(&text)),
        None => failure,
    };
    caused(failure, &query.sql, error)
}

/// A server that sent all rows and then fell silent.
pub(super) fn unended(query: &Query) -> Failure {
    Failure::new(FailureKind::Disconnected, codes::QUERY_INTERRUPTED, &query.what)
        .detail("the server does not answer to the end of the transaction")
        .remedy("Run again; if it keeps happening, the server's log and the network between tell why.")
}

/// The kind, the code and the way out.
fn refused(refusal: &DbError, query: &Query) -> Failure {
    let code = if query.rows_came { codes::QUERY_INTERRUPTED } else { codes::QUERY_FAILED };
    let failure = |kind, code| Failure::new(kind, code, &query.what);
    match *refusal.code() {
        SqlState::QUERY_CANCELED => Limit::passed(query.limit, &query.what),
        SqlState::READ_ONLY_SQL_TRANSACTION => failure(FailureKind::Refused, code)
            .remedy("Warren only reads: take what writes (INSERT, UPDATE, DELETE, nextval, …) out of the query."),
        SqlState::INSUFFICIENT_PRIVILEGE => failure(FailureKind::Refused, code)
            .remedy("Let the user read: GRANT SELECT ON … TO …, GRANT USAGE ON SCHEMA … TO …, or GRANT EXECUTE ON FUNCTION … TO …."),
        SqlState::UNDEFINED_TABLE | SqlState::INVALID_SCHEMA_NAME => failure(FailureKind::NotFound, code)
            .remedy("Check the name; write the schema before it if it is not on the user's search_path."),
        SqlState::UNDEFINED_COLUMN => failure(FailureKind::NotFound, code).remedy("Check the column's name."),
        SqlState::T_R_SERIALIZATION_FAILURE => failure(FailureKind::Disconnected, code).remedy(
            "Run again. On a standby, raise max_standby_streaming_delay or switch hot_standby_feedback on.",
        ),
        SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER => {
            failure(FailureKind::Invalid, code).remedy(
                "Correct the row that has these bytes, or read the column as bytes: convert_to(column, current_setting('server_encoding')).",
            )
        }
        // Later it will do.
        SqlState::T_R_DEADLOCK_DETECTED | SqlState::LOCK_NOT_AVAILABLE => {
            failure(FailureKind::Disconnected, code)
                .remedy("Run again; something else held what the statement locks. Those that lock rows in one order do not hold up each other.")
        }
        ref state if ends_the_connection(state) => {
            let code = if query.rows_came { codes::QUERY_INTERRUPTED } else { codes::SOURCE_UNREACHABLE };
            failure(FailureKind::Disconnected, code).remedy(if refusal.message() == PGBOUNCER_STATEMENT_POOLING {
                "Set `pool_mode` of PgBouncer to `transaction` or `session` for this database."
            } else {
                "Run again; the server ended the connection, and its log tells why."
            })
        }
        _ => failure(FailureKind::Invalid, code).remedy("Run the query with psql as the same user, and mend it there."),
    }
}

/// How PgBouncer ends a connection that begins a transaction while its `pool_mode` is `statement`.
const PGBOUNCER_STATEMENT_POOLING: &str = "transaction blocks not allowed in statement pooling mode";

/// Class 08 is the connection's, 57P what an operator or a crash does, 53 what runs out, 25P03 and 25P04 are limits on idling and whole
/// transactions.
fn ends_the_connection(state: &SqlState) -> bool {
    let code = state.code();
    code.starts_with("08")
        || code.starts_with("57P")
        || code.starts_with("53")
        || matches!(code, "25P03" | "25P04")
}

fn said(refusal: &DbError) -> String {
    let mut text = format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code());
    for more in [refusal.detail(), refusal.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    text
}

fn place_of(refusal: &DbError, query: &Query) -> Option<(usize, usize, String)> {
    match refusal.position()? {
        ErrorPosition::Original(position) => {
            place::place(&query.sql, (*position as usize).checked_sub(query.chars_before)?)
        }
        // A place inside a function's own query.
        ErrorPosition::Internal { .. } => None,
    }
}

fn tls(failure: Failure, error: &Error) -> Failure {
    failure.detail(cause(error)).remedy(
        "Name the authority that signed the server's certificate in `tls.ca`, and the certificate's name in `tls.server_name` if it is not the host's; `sslmode=disable` speaks without TLS.",
    )
}

/// A certificate of ours that the server refused shows only when something is read.
fn speaks_of_tls(error: &Error) -> bool {
    let inner = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    inner.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
}

/// The innermost cause: the driver's own words ("error connecting to server") say less than what we tried.
fn cause(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(deeper) = innermost.source() {
        innermost = deeper;
    }
    innermost.to_string()
}
