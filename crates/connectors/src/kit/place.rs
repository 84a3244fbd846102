//! Where in a query a fault is, as people count: lines and columns.

use std::error::Error;

use warren_engine::failure::Failure;
use warren_engine::redact;

/// Where in a query character `position` (from 1) is: line and column (from 1), and the line's text, cut to a
/// readable length. A query into which a variable was filled is not quoted: its line is empty.
pub(crate) fn place(sql: &str, position: usize) -> Option<(usize, usize, String)> {
    let mut left = position.checked_sub(1)?;
    let lines = sql.split('\n').count();
    for (index, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if left < length || (left == length && index + 1 == lines) {
            if redact::is_filled(sql) {
                return Some((index + 1, left + 1, String::new()));
            }
            let start = left.saturating_sub(LINE_CHARS_MAX / 2);
            let shown: String = line.chars().skip(start).take(LINE_CHARS_MAX).collect();
            return Some((index + 1, left + 1, shown.trim().to_owned()));
        }
        left = left.checked_sub(length + 1)?;
    }
    None
}

/// The end of a sentence that quotes a query's line, if it may be quoted.
pub(crate) fn quoted(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(", in `{line}`") }
}

/// What the database said of a query, without any part of a value that was filled into the query.
pub(crate) fn answered(sql: &str, said: &str) -> String {
    redact::scrub_answer(sql, said)
}

/// Attaches the driver's error, which may quote the query; not where a variable was filled into it.
pub(crate) fn caused(failure: Failure, sql: &str, error: impl Error + Send + Sync + 'static) -> Failure {
    if redact::is_filled(sql) { failure } else { failure.because(error) }
}

/// Characters of a query's line shown in a message.
const LINE_CHARS_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_lines() {
        let sql = "SELECT ä,\n  nope\nFROM t";
        assert_eq!(place(sql, 8), Some((1, 8, "SELECT ä,".into())));
        assert_eq!(place(sql, 13), Some((2, 3, "nope".into())));
        assert_eq!(place(sql, 24), Some((3, 7, "FROM t".into())));
        assert_eq!(place(sql, 99), None);
        assert_eq!(place(sql, 0), None);
    }
}
