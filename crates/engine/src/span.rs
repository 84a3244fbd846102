//! Durations as configuration and rows spell them: a number with its unit.

use std::fmt;
use std::time::Duration;

/// The longest duration: a thousand years. Longer ones overflow what timers take.
const MILLISECONDS_MAX: f64 = 3.2e13;

/// Why a text is not a duration. It does not hold the text, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanError {
    /// A number without a unit: `60` could be seconds or milliseconds.
    NoUnit,
    /// Less than zero.
    Negative,
    /// Longer than a thousand years.
    TooLong,
    /// Anything else.
    Malformed,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SpanError::NoUnit => "a number without a unit",
            SpanError::Negative => "less than zero",
            SpanError::TooLong => "longer than a thousand years",
            SpanError::Malformed => "not a number with the unit ms, s, m, h or d",
        })
    }
}

impl std::error::Error for SpanError {}

/// Reads a duration: `500ms`, `30s`, `5m`, `2h` or `7d`, with or without a fraction.
///
/// # Errors
/// The text is anything else. A number without a unit is refused too, also `0`: it would mean one thousandth of what most people
/// mean by it.
pub fn parse_span(text: &str) -> Result<Duration, SpanError> {
    let text = text.trim();
    let letters = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(letters);
    let milliseconds = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ if text.parse::<f64>().is_ok_and(f64::is_finite) => return Err(SpanError::NoUnit),
        _ => return Err(SpanError::Malformed),
    };
    let number = number.trim_end();
    let plain = number.strip_prefix('-').unwrap_or(number);
    if !plain.starts_with(|c: char| c.is_ascii_digit())
        || !plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Err(SpanError::Malformed);
    }
    let span = number.parse::<f64>().map_err(|_| SpanError::Malformed)? * milliseconds;
    if span < 0.0 || number.starts_with('-') {
        Err(SpanError::Negative)
    } else if span > MILLISECONDS_MAX {
        Err(SpanError::TooLong)
    } else {
        Ok(Duration::from_millis(span.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_a_unit_are_durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("1.5h", 5_400_000),
            ("2 min", 120_000),
            ("5m", 300_000),
            (" 7d ", 604_800_000),
            ("0s", 0),
            ("0ms", 0),
        ] {
            assert_eq!(parse_span(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        for text in ["60", "0", "1.5", "1e3", "-5", "300000", " 60 ", "+5", "1E3", ".5"] {
            assert_eq!(parse_span(text), Err(SpanError::NoUnit), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            " ",
            "s",
            "5 fortnights",
            "1e3s",
            "+5s",
            ".5s",
            "1.2.3s",
            "5s5s",
            "NaN",
            "inf",
            "infs",
            "0x10s",
            "٣s",
            "5S",
        ] {
            assert_eq!(parse_span(text), Err(SpanError::Malformed), "{text}");
        }
        assert_eq!(parse_span("-5s"), Err(SpanError::Negative));
        assert_eq!(parse_span("-0s"), Err(SpanError::Negative));
        assert_eq!(parse_span("99999999999d"), Err(SpanError::TooLong));
    }
}
