//! Whether a statement is a query, by its first word.
//!
//! A read-only transaction refuses what writes to tables; `ANALYZE TABLE` and its like end the transaction instead, and yield
//! rows. So only statements that begin as queries do are run.

/// What a query may begin with.
const QUERIES: &[&str] = &["SELECT", "WITH", "VALUES", "TABLE", "SHOW", "DESCRIBE", "EXPLAIN"];

/// Whether a statement begins as a query does, behind comments and parentheses.
pub(super) fn is_query(sql: &str) -> bool {
    let mut rest = sql;
    loop {
        rest = rest.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '(');
        if let Some(comment) = rest.strip_prefix("/*") {
            // `/*!` and `/*M!` are no comments: the server runs what they hold.
            if comment.starts_with(['!', 'M']) {
                return false;
            }
            match comment.split_once("*/") {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        } else if rest.starts_with('#') || is_line_comment(rest) {
            match rest.split_once('\n') {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        } else {
            let end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
            return QUERIES.iter().any(|query| query.eq_ignore_ascii_case(&rest[..end]));
        }
    }
}

/// `--` is a comment only before a space, a line's end or a control character.
fn is_line_comment(rest: &str) -> bool {
    rest.strip_prefix("--")
        .is_some_and(|behind| behind.is_empty() || behind.starts_with(|letter: char| letter <= ' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_told_from_other_statements() {
        for sql in [
            "select 1",
            "\n(SELECT 1)",
            "-- a\n# b\n/* c */ With x AS (SELECT 1) SELECT * FROM x",
            "SHOW TABLES",
        ] {
            assert!(is_query(sql), "{sql}");
        }
        for sql in [
            "ANALYZE TABLE t",
            "/*! ANALYZE TABLE t */",
            "/*M!100000 DROP TABLE t*/",
            "SELECTED",
            "",
            "-- a",
            "/* a",
            "--SELECT 1",
        ] {
            assert!(!is_query(sql), "{sql}");
        }
    }
}
