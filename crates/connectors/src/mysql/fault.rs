//! What the driver and the server say, as failures with a code and a way out.

use mysql_async::{DriverError, Error, IoError, ServerError};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::redact;

use super::config::Settings;
use crate::kit::limit::Limit;
use crate::kit::place::{answered, caused, place, quoted};

/// A query under way, as far as failures are concerned.
#[derive(Debug, Clone)]
pub(super) struct Query {
    /// Such as "run the query of model `customers`".
    pub(super) what: String,
    /// The query as written.
    pub(super) sql: String,
    /// Whether rows have come.
    pub(super) rows_came: bool,
    /// How long it may take.
    pub(super) limit: Option<Limit>,
}

/// A connection that could not be made.
pub(super) fn connect(error: Error, settings: &Settings) -> Failure {
    let what = format!("connect to MySQL at {}", settings.address);
    let failure = |kind, code| Failure::new(kind, code, &what);
    let found = match &error {
        Error::Server(refusal) => match refusal.code {
            // ER_BAD_DB_ERROR
            1049 => failure(FailureKind::NotFound, codes::UNKNOWN_DATABASE)
                .remedy("Check the database's name; SHOW DATABASES lists what the user may see."),
            // ER_DBACCESS_DENIED_ERROR
            1044 => failure(FailureKind::Refused, codes::SOURCE_REFUSED_LOGIN)
                .remedy("Check the database's name, and let the user in: GRANT SELECT ON database.* TO user."),
            // ER_ACCESS_DENIED_ERROR, ER_HOST_NOT_PRIVILEGED, ER_ACCESS_DENIED_NO_PASSWORD_ERROR, ER_ACCOUNT_HAS_BEEN_LOCKED
            1045 | 1130 | 1698 | 3118 => failure(FailureKind::Refused, codes::SOURCE_REFUSED_LOGIN).remedy(
                "Check user and password, that the user may come from this machine, and whether it must use TLS (`tls`). A password in `url` must be percent-encoded.",
            ),
            // ER_SECURE_TRANSPORT_REQUIRED
            3159 => failure(FailureKind::Refused, codes::TLS_FAILED)
                .remedy("The server takes connections with TLS only: give `tls`."),
            // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
            1040 | 1203 | 1226 => failure(FailureKind::Throttled, codes::SOURCE_UNREACHABLE)
                .remedy("Try again when there are fewer connections, or raise max_connections."),
            _ => failure(FailureKind::Refused, codes::SOURCE_UNREACHABLE)
                .remedy("Try with the mysql client and the same settings; the server's log tells more."),
        }
        .detail(said(refusal)),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => failure(FailureKind::Refused, codes::TLS_FAILED)
            .detail("the server does not speak TLS")
            .remedy("Switch TLS on in the server, or take `tls` and `require_ssl` out of the settings."),
        Error::Io(fault) if speaks_of_tls(fault) => failure(FailureKind::Refused, codes::TLS_FAILED)
            .detail(cause(&error))
            .remedy("Name the authority that signed the server's certificate in `tls.ca`, and the certificate's name in `tls.server_name` if it is not the host's."),
        _ => failure(FailureKind::Disconnected, codes::SOURCE_UNREACHABLE)
            .detail(cause(&error))
            .remedy("Check host and port, that the server runs, and that a firewall lets this machine through."),
    };
    found.because(error)
}

/// A server that did not answer in time.
pub(super) fn connect_timeout(settings: &Settings) -> Failure {
    Failure::new(
        FailureKind::Timeout,
        codes::SOURCE_UNREACHABLE,
        format!("connect to MySQL at {}", settings.address),
    )
    .detail(format!("no answer within {:?}", settings.connect_timeout))
    .remedy("Check host and port and the firewalls between, or raise `connect_timeout`.")
}

/// A query that the server refused or broke off, or whose connection was lost.
pub(super) fn query(error: Error, query: &Query) -> Failure {
    let Error::Server(refusal) = &error else {
        return lost(query).detail(format!("the connection was lost: {}", cause(&error))).because(error);
    };
    let said = if redact::is_filled(&query.sql) { without_quotation(said(refusal)) } else { said(refusal) };
    let said = answered(&query.sql, &said);
    let failure = refused(refusal, query);
    if failure.code == codes::QUERY_TIMEOUT && query.limit.is_some() {
        return caused(failure, &query.sql, error);
    }
    let failure = match line_of(refusal, &query.sql) {
        Some((line, text)) => failure.at(format!("line {line} of the query")).detail(said + &quoted(&text)),
        None => failure.detail(said),
    };
    caused(failure, &query.sql, error)
}

/// A server that sent all rows and then fell silent.
pub(super) fn unended(query: &Query) -> Failure {
    lost(query).detail("the server does not answer to the end of the transaction")
}

fn lost(query: &Query) -> Failure {
    let code = if query.rows_came { codes::QUERY_INTERRUPTED } else { codes::SOURCE_UNREACHABLE };
    Failure::new(FailureKind::Disconnected, code, &query.what)
        .remedy("Run again; if it keeps happening, the server's log and the network between tell why.")
}

/// The kind, the code and the way out.
fn refused(refusal: &ServerError, query: &Query) -> Failure {
    let code = if query.rows_came { codes::QUERY_INTERRUPTED } else { codes::QUERY_FAILED };
    let failure = |kind, code| Failure::new(kind, code, &query.what);
    match refusal.code {
        // ER_QUERY_TIMEOUT (MySQL), ER_STATEMENT_TIMEOUT (MariaDB)
        3024 | 1969 => timeout(query),
        // ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
        1792 => failure(FailureKind::Refused, code)
            .remedy("Warren only reads: take what writes out of the query, also out of functions it calls."),
        // Denied: table, column, a privilege, a routine
        1142 | 1143 | 1227 | 1370 => failure(FailureKind::Refused, code)
            .remedy("Let the user read: GRANT SELECT ON database.table TO user."),
        // ER_NO_DB_ERROR
        1046 => failure(FailureKind::Invalid, code)
            .remedy("Name the database in the source's settings, or before each table."),
        // No such database, table
        1049 | 1146 => failure(FailureKind::NotFound, code)
            .remedy("Check the name, and the database it is looked up in."),
        // ER_BAD_FIELD_ERROR
        1054 => failure(FailureKind::NotFound, code).remedy("Check the column's name."),
        // ER_QUERY_INTERRUPTED, ER_CONNECTION_KILLED, ER_SERVER_SHUTDOWN, and time-outs of the network
        1317 | 1927 | 1053 | 1159 | 1161 | 4031 => lost(query),
        // ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, ER_TABLE_DEF_CHANGED: later it will do
        1205 | 1213 | 1412 => failure(FailureKind::Disconnected, code)
            .remedy("Run again; something else changed or held what the query reads."),
        _ => failure(FailureKind::Invalid, code)
            .remedy("Run the query with the mysql client as the same user, and mend it there."),
    }
}

/// A query that took too long.
pub(super) fn timeout(query: &Query) -> Failure {
    Limit::passed(query.limit, &query.what)
}

/// A syntax error without the piece of the query that the server quotes.
fn without_quotation(said: String) -> String {
    match (said.find(" near '"), said.rfind("' at line ")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &said[..from], &said[to + 1..]),
        _ => said,
    }
}

fn said(refusal: &ServerError) -> String {
    format!("{} (error {}, SQLSTATE {})", refusal.message, refusal.code, refusal.state)
}

/// The server tells a line only, and only for syntax errors, at the end of its message.
fn line_of(refusal: &ServerError, sql: &str) -> Option<(usize, String)> {
    // ER_PARSE_ERROR
    if refusal.code != 1064 {
        return None;
    }
    let (_, line) = refusal.message.rsplit_once(" at line ")?;
    let line: usize = line.trim().parse().ok()?;
    let before: usize = sql.split('\n').take(line.checked_sub(1)?).map(|line| line.chars().count() + 1).sum();
    let (line, _, text) = place(sql, before + 1)?;
    Some((line, text))
}

fn speaks_of_tls(error: &IoError) -> bool {
    match error {
        IoError::Tls(_) => true,
        IoError::Io(error) => {
            error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).is_some()
        }
    }
}

/// The innermost cause: the driver's own words say less than what we tried.
fn cause(error: &Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(deeper) = innermost.source() {
        innermost = deeper;
    }
    innermost.to_string()
}
