//! Spans of time, as people write them.

use std::time::Duration;

/// Reads a span of time: `500ms`, `30s`, `5m`, `2h`, `7d`, or a bare number of milliseconds.
///
/// # Errors
/// The sentence a person sees.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let fault = || format!("`{text}` is not a span of time: write 500ms, 30s, 5m, 2h or 7d");
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let milliseconds = match unit.trim() {
        "" | "ms" => 1.0,
        "s" => 1e3,
        "m" | "min" => 60e3,
        "h" => 3_600e3,
        "d" => 86_400e3,
        _ => return Err(fault()),
    };
    let number: f64 = number.parse().map_err(|_| fault())?;
    let span = number * milliseconds;
    // A thousand years; longer ones overflow what timers take.
    if span.is_finite() && (0.0..=3.2e13).contains(&span) {
        Ok(Duration::from_millis(span.round() as u64))
    } else {
        Err(fault())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_span("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("250"), Ok(Duration::from_millis(250)));
        assert!(parse_span("5 fortnights").is_err());
        assert!(parse_span("").is_err());
        assert!(parse_span("1e999h").is_err());
    }
}
