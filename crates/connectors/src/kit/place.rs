//! Where in a query a fault is, as people count: lines and columns.

/// Where in a query character `position` (from 1) is: line and column (from 1), and the line's text, cut to a
/// readable length.
pub(crate) fn place(sql: &str, position: usize) -> Option<(usize, usize, String)> {
    let mut left = position.checked_sub(1)?;
    let lines = sql.split('\n').count();
    for (index, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if left < length || (left == length && index + 1 == lines) {
            let start = left.saturating_sub(LINE_CHARS_MAX / 2);
            let shown: String = line.chars().skip(start).take(LINE_CHARS_MAX).collect();
            return Some((index + 1, left + 1, shown.trim().to_owned()));
        }
        left = left.checked_sub(length + 1)?;
    }
    None
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
