//! Figures as people read them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `5,000,000`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`
pub fn counted(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {one}s", count(number)) }
}

/// `820 ms`, `3.2 s`, `4 min 10 s`
pub fn span(milliseconds: u64) -> String {
    let span = Duration::from_millis(milliseconds);
    match span.as_secs() {
        0 => format!("{milliseconds} ms"),
        1..120 => format!("{:.1} s", span.as_secs_f64()),
        seconds @ 120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `12,300/s`; nothing where the time is too short to tell.
pub fn rate(number: u64, milliseconds: u64) -> Option<String> {
    (milliseconds >= 10 && number > 0).then(|| format!("{}/s", count(number * 1000 / milliseconds)))
}

/// A time in the zone of this machine: `2026-11-21 22:07:03`.
pub fn time(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => milliseconds.to_string(),
    }
}

/// A time for programs: RFC 3339 in UTC.
pub fn time_rfc3339(milliseconds: i64) -> String {
    match Timestamp::from_millisecond(milliseconds) {
        Ok(time) => time.to_string(),
        Err(_) => milliseconds.to_string(),
    }
}

/// A text cut to a length, with a mark where something is missing.
pub fn cut(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(5_000_000), "5,000,000");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(span(820), "820 ms");
        assert_eq!(span(3210), "3.2 s");
        assert_eq!(span(250_000), "4 min 10 s");
        assert_eq!(rate(1000, 100), Some("10,000/s".into()));
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
