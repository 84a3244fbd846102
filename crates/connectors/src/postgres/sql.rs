//! A query as text: without its trailing semicolon, and put inside `COPY` or a cursor.
//!
//! The server has parsed the query as one statement (it is prepared first) before it is put between parentheses, so
//! what stands here need not guard against a query that closes the parenthesis itself.

use std::fmt::Write as _;

/// Blanks out trailing semicolons, so that every other character keeps its place.
pub(super) fn without_trailing_semicolons(sql: &str) -> String {
    let mut text = sql.as_bytes().to_vec();
    for at in trailing_semicolons(sql.as_bytes()) {
        text[at] = b' ';
    }
    // Only ASCII was replaced by ASCII; the fallback is never taken.
    String::from_utf8(text).unwrap_or_else(|_| sql.to_owned())
}

/// The semicolons after the last other token, outside of literals and comments.
fn trailing_semicolons(sql: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < sql.len() {
        let rest = &sql[at..];
        let length = match rest[0] {
            b';' => {
                found.push(at);
                1
            }
            byte if byte.is_ascii_whitespace() => 1,
            b'-' if rest.starts_with(b"--") => until(rest, b"\n"),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            _ => {
                found.clear();
                token(sql, at)
            }
        };
        at += length;
    }
    found
}

/// The length of what begins at `at`: a word, a literal, a quoted name, or one byte of anything else.
fn token(sql: &[u8], at: usize) -> usize {
    let rest = &sql[at..];
    match rest[0] {
        // A word takes its `$` with it: `a$b$` begins no literal.
        byte if is_word(byte) => {
            rest.iter().position(|&byte| !is_word(byte) && byte != b'$').unwrap_or(rest.len())
        }
        b'\'' => {
            let escapes = at > 0
                && matches!(sql[at - 1], b'e' | b'E')
                && !at.checked_sub(2).is_some_and(|before| is_word(sql[before]));
            quoted(rest, b'\'', escapes)
        }
        b'"' => quoted(rest, b'"', false),
        b'$' => match dollar_tag(rest) {
            Some(tag) => tag.len() + until(&rest[tag.len()..], tag),
            None => 1,
        },
        _ => 1,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn quoted(rest: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while at < rest.len() {
        if escapes && rest[at] == b'\\' {
            at += 2;
        } else if rest[at] == quote {
            if rest.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn dollar_tag(rest: &[u8]) -> Option<&[u8]> {
    let end = 1 + rest[1..].iter().position(|&byte| !is_word(byte))?;
    (rest[end] == b'$' && !rest[1].is_ascii_digit()).then(|| &rest[..=end])
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn until(rest: &[u8], end: &[u8]) -> usize {
    rest.windows(end.len()).position(|window| window == end).map_or(rest.len(), |at| at + end.len())
}

/// A statement with a query in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Around {
    pub(super) text: String,
    /// Characters before the query in `text`; what the server says of places counts from there.
    pub(super) chars_before: usize,
}

/// The statement that copies the rows of `sql`. `columns` are each column's name and the cast it needs; with no cast at all
/// the query stands as it is.
pub(super) fn copy(sql: &str, columns: &[(&str, Option<&str>)]) -> Around {
    around("COPY (", sql, columns, ") TO STDOUT (FORMAT binary)")
}

/// The statement that starts the same query and reads no row: a cursor, which takes the statements that `COPY` takes.
pub(super) fn cursor(sql: &str, columns: &[(&str, Option<&str>)]) -> Around {
    around("DECLARE warren_check NO SCROLL CURSOR FOR ", sql, columns, "")
}

fn around(before: &str, sql: &str, columns: &[(&str, Option<&str>)], after: &str) -> Around {
    let mut text = String::from(before);
    if columns.iter().any(|(_, cast)| cast.is_some()) {
        text.push_str("SELECT ");
        for (index, (name, cast)) in columns.iter().enumerate() {
            if index > 0 {
                text.push_str(", ");
            }
            let name = name.replace('"', "\"\"");
            write!(text, "q.\"{name}\"").expect("writing to a String never fails");
            if let Some(cast) = cast {
                write!(text, "::{cast}").expect("writing to a String never fails");
            }
        }
        text.push_str(" FROM (\n");
        let chars_before = text.chars().count();
        text.push_str(&without_trailing_semicolons(sql));
        text.push_str("\n) AS q");
        text.push_str(after);
        return Around { text, chars_before };
    }
    text.push('\n');
    let chars_before = text.chars().count();
    text.push_str(&without_trailing_semicolons(sql));
    // A line of its own: the query may end in a `-- comment`.
    text.push('\n');
    text.push_str(after);
    Around { text, chars_before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_semicolons_go_and_nothing_else() {
        let table = [
            ("SELECT 1", "SELECT 1"),
            ("SELECT 1;", "SELECT 1 "),
            ("SELECT 1 ; ; -- the end;\n", "SELECT 1     -- the end;\n"),
            ("SELECT 1; /* a /* nested */ ; */", "SELECT 1  /* a /* nested */ ; */"),
            ("SELECT ';'", "SELECT ';'"),
            ("SELECT 'it''s;';", "SELECT 'it''s;' "),
            (r"SELECT E'\';';", r"SELECT E'\';' "),
            (r"SELECT '\';", r"SELECT '\' "),
            (r#"SELECT 1 AS ";""#, r#"SELECT 1 AS ";""#),
            ("SELECT $$;$$;", "SELECT $$;$$ "),
            ("SELECT $a$ $$; $a$;", "SELECT $a$ $$; $a$ "),
            ("SELECT 1; SELECT 2;", "SELECT 1; SELECT 2 "),
            ("SELECT a$b$;c$b$;", "SELECT a$b$;c$b$ "),
            ("SELECT 'ü;' ;", "SELECT 'ü;'  "),
            ("SELECT '", "SELECT '"),
            ("/* ", "/* "),
            ("$", "$"),
            ("", ""),
        ];
        for (sql, expected) in table {
            assert_eq!(without_trailing_semicolons(sql), expected, "{sql}");
        }
    }

    #[test]
    fn columns_are_cast_around_the_query_only_where_one_needs_it() {
        let plain = copy("SELECT a FROM t;", &[("a", None)]);
        assert_eq!(plain.text, "COPY (\nSELECT a FROM t \n) TO STDOUT (FORMAT binary)");
        assert_eq!(plain.chars_before, 7);
        let started = cursor("SELECT a FROM t; -- x", &[("a", None)]);
        assert_eq!(started.text, "DECLARE warren_check NO SCROLL CURSOR FOR \nSELECT a FROM t  -- x\n");
        let cast = copy("SELECT 1 AS \"a\"\"b\", x", &[("a\"b", None), ("x", Some("text"))]);
        assert_eq!(
            cast.text,
            "COPY (SELECT q.\"a\"\"b\", q.\"x\"::text FROM (\nSELECT 1 AS \"a\"\"b\", x\n) AS q) TO STDOUT (FORMAT binary)"
        );
    }
}
