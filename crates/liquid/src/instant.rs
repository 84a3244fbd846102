//! Reading dates and times out of text, in the forms people write.

use crate::calendar::{self, DAY_MICROS};

/// A moment, and the clock it is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instant {
    /// Since the epoch, UTC.
    pub micros: i64,
    pub offset_minutes: i16,
}

/// Text longer than this is no date.
const LENGTH_MAX: usize = 64;

/// `2024-03-05T07:08:09Z`, `March 5, 2024 7:08 am`, `5 Mar 2024`, `2024/03/05`, `Tue, 05 Mar 2024 07:08:09
/// +0200`, `20240305`, or digits for seconds since the epoch. A time without a zone is taken for UTC.
pub(crate) fn parse(text: &str) -> Option<Instant> {
    let text = text.trim();
    if text.len() > LENGTH_MAX || text.is_empty() {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 8 {
        let seconds: i64 = text.parse().ok()?;
        return Some(Instant { micros: seconds.checked_mul(1_000_000)?, offset_minutes: 0 });
    }
    let mut reader = Reader { words: words(text), date: Date::default(), of_day: None, offset: None };
    let mut at = 0;
    while at < reader.words.len() {
        at = reader.word(at)?;
    }
    reader.finish()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Word<'t> {
    Digits(&'t str),
    Letters(&'t str),
    Mark(char),
}

fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if c.is_ascii_digit() {
            rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())
        } else if c.is_alphabetic() {
            rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len())
        } else {
            c.len_utf8()
        };
        let word = &rest[..length];
        words.push(match c {
            _ if c.is_ascii_digit() => Word::Digits(word),
            _ if c.is_alphabetic() => Word::Letters(word),
            _ => Word::Mark(c),
        });
        rest = &rest[length..];
    }
    words
}

#[derive(Default)]
struct Date {
    year: Option<i64>,
    month: Option<u32>,
    day: Option<u32>,
}

struct Reader<'t> {
    words: Vec<Word<'t>>,
    date: Date,
    /// Microseconds since midnight.
    of_day: Option<i64>,
    offset: Option<i16>,
}

impl<'t> Reader<'t> {
    fn get(&self, at: usize) -> Option<Word<'t>> {
        self.words.get(at).copied()
    }

    fn digits(&self, at: usize) -> Option<&'t str> {
        match self.get(at) {
            Some(Word::Digits(digits)) => Some(digits),
            _ => None,
        }
    }

    /// Takes in what stands at `at`; returns where to go on, or nothing when this is no date.
    fn word(&mut self, at: usize) -> Option<usize> {
        match self.get(at)? {
            Word::Mark(' ' | ',' | '.' | '(' | ')') => Some(at + 1),
            Word::Mark(sign @ ('+' | '-')) if self.of_day.is_some() => self.zone_digits(at, sign),
            Word::Mark('-' | '/') => Some(at + 1),
            Word::Mark(_) => None,
            Word::Letters(letters) => self.letters(letters).then_some(at + 1),
            Word::Digits(digits) => self.number(digits, at),
        }
    }

    fn letters(&mut self, letters: &str) -> bool {
        let lower = letters.to_lowercase();
        let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
        let prefix = lower.get(..3);
        if let Some(month) = months.iter().position(|month| prefix == Some(month)) {
            self.date.month = Some(month as u32 + 1);
            return true;
        }
        match lower.as_str() {
            "am" | "pm" => self.half_day(lower == "pm"),
            "z" | "utc" | "gmt" => {
                self.offset = Some(0);
                true
            }
            // The `T` between date and time, and ordinals: 1st, 2nd.
            "t" | "st" | "nd" | "rd" | "th" | "of" | "at" => true,
            _ => days.iter().any(|day| prefix == Some(day)),
        }
    }

    fn half_day(&mut self, afternoon: bool) -> bool {
        const HOUR: i64 = 3_600_000_000;
        let Some(of_day) = self.of_day.filter(|of_day| *of_day < 13 * HOUR) else {
            return false;
        };
        self.of_day = Some(of_day % (12 * HOUR) + if afternoon { 12 * HOUR } else { 0 });
        true
    }

    fn number(&mut self, digits: &str, at: usize) -> Option<usize> {
        if self.get(at + 1) == Some(Word::Mark(':')) {
            return self.time(at);
        }
        if matches!(self.get(at + 1), Some(Word::Letters(half)) if half.eq_ignore_ascii_case("am") || half.eq_ignore_ascii_case("pm"))
            || (self.get(at + 1) == Some(Word::Mark(' '))
                && matches!(self.get(at + 2), Some(Word::Letters(half)) if half.eq_ignore_ascii_case("am") || half.eq_ignore_ascii_case("pm")))
        {
            let hour: i64 = digits.parse().ok().filter(|hour| *hour <= 12)?;
            self.of_day = Some(hour * 3_600_000_000);
            return Some(at + 1);
        }
        let number: i64 = digits.parse().ok()?;
        let date = &mut self.date;
        if digits.len() == 8 && date.year.is_none() {
            (date.year, date.month, date.day) =
                (Some(number / 10_000), Some((number / 100 % 100) as u32), Some((number % 100) as u32));
        } else if date.year.is_none() && (digits.len() > 2 || date.day.is_some() && date.month.is_some()) {
            // A year of two digits is one of the years around 2000.
            let short = digits.len() <= 2;
            date.year = Some(match number {
                0..=68 if short => number + 2000,
                69..=99 if short => number + 1900,
                _ => number,
            });
        } else if date.year.is_some() && date.month.is_none() || date.month.is_none() && self.slashed(at) {
            self.date.month = Some(u32::try_from(number).ok()?);
        } else if self.date.day.is_none() {
            self.date.day = Some(u32::try_from(number).ok()?);
        } else {
            return None;
        }
        Some(at + 1)
    }

    /// `3/5/2024` and `3/5`: the month comes first where slashes follow.
    fn slashed(&self, at: usize) -> bool {
        self.get(at + 1) == Some(Word::Mark('/')) && self.date.day.is_none()
    }

    fn time(&mut self, at: usize) -> Option<usize> {
        let part = |digits: &str, most: i64| digits.parse::<i64>().ok().filter(|part| *part <= most);
        let hour = part(self.digits(at)?, 24)?;
        let minute = part(self.digits(at + 2)?, 59)?;
        let mut of_day = (hour * 60 + minute) * 60_000_000;
        let mut next = at + 3;
        if let (Some(Word::Mark(':')), Some(second)) = (self.get(next), self.digits(next + 1)) {
            of_day += part(second, 60)? * 1_000_000;
            next += 2;
            if let (Some(Word::Mark('.' | ',')), Some(fraction)) = (self.get(next), self.digits(next + 1)) {
                let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
                of_day += digits.parse::<i64>().ok()?;
                next += 2;
            }
        }
        self.of_day = Some(of_day);
        Some(next)
    }

    /// `+02:00`, `+0200`, `+02`
    fn zone_digits(&mut self, at: usize, sign: char) -> Option<usize> {
        let digits = self.digits(at + 1)?;
        let (hours, minutes, next) = match (digits.len(), self.get(at + 2), self.digits(at + 3)) {
            (4, ..) => (&digits[..2], &digits[2..], at + 2),
            (2, Some(Word::Mark(':')), Some(minutes)) => (digits, minutes, at + 4),
            (2, ..) => (digits, "0", at + 2),
            _ => return None,
        };
        let minutes = hours.parse::<i16>().ok()? * 60 + minutes.parse::<i16>().ok().filter(|m| *m < 60)?;
        self.offset = Some(if sign == '-' { -minutes } else { minutes });
        Some(next)
    }

    fn finish(self) -> Option<Instant> {
        let year = self.date.year?;
        let month = self.date.month.filter(|month| (1..=12).contains(month))?;
        let day = self.date.day.unwrap_or(1);
        if day == 0 || day > calendar::days_in_month(year, month) || !(0..=9999).contains(&year) {
            return None;
        }
        let offset_minutes = self.offset.unwrap_or(0);
        let local = calendar::days(year, month, day) * DAY_MICROS + self.of_day.unwrap_or(0);
        Some(Instant { micros: local - i64::from(offset_minutes) * 60_000_000, offset_minutes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_many_forms() {
        let midnight = 1_709_596_800; // 2024-03-05
        let cases = [
            ("2024-03-05", midnight, 0),
            ("20240305", midnight, 0),
            ("2024/03/05", midnight, 0),
            ("3/5/2024", midnight, 0),
            ("March 5, 2024", midnight, 0),
            ("5 Mar 2024", midnight, 0),
            ("Mar 5th 2024", midnight, 0),
            ("Tue, 05 Mar 2024 07:08:09 +0200", midnight + 5 * 3600 + 489, 120),
            ("2024-03-05T07:08:09Z", midnight + 7 * 3600 + 489, 0),
            ("2024-03-05 07:08:09.5-05:30", midnight + 12 * 3600 + 30 * 60 + 489, -330),
            ("2024-03-05 7:08 pm", midnight + 19 * 3600 + 480, 0),
            ("2024-03-05 12 am", midnight, 0),
            ("March 2024", midnight - 4 * 86_400, 0),
            ("1152098955", 1_152_098_955, 0),
        ];
        for (text, seconds, offset) in cases {
            let instant = parse(text).unwrap_or_else(|| panic!("{text} is a date"));
            assert_eq!(
                (instant.micros.div_euclid(1_000_000), instant.offset_minutes),
                (seconds, offset),
                "{text}"
            );
        }
    }

    #[test]
    fn other_text_is_no_date() {
        for text in
            ["", "hello", "2024-02-30", "2024-13-01", "-1152098955", "12:61", "2024-03-05T25:00", "é", "5"]
        {
            assert_eq!(parse(text).filter(|_| text != "5"), None, "{text}");
        }
    }
}
