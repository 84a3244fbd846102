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

/// A date with a time zone by a name whose offset is not known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownZone(pub String);

/// The zones that Ruby's `Time.parse` knows by name, with their offsets in minutes.
const ZONES: [(&str, i16); 12] = [
    ("z", 0),
    ("utc", 0),
    ("ut", 0),
    ("gmt", 0),
    ("est", -300),
    ("edt", -240),
    ("cst", -360),
    ("cdt", -300),
    ("mst", -420),
    ("mdt", -360),
    ("pst", -480),
    ("pdt", -420),
];

/// `2024-03-05T07:08:09Z`, `March 5, 2024 7:08 am`, `5 Mar 2024`, `2024/03/05`, `5/3/2024`, `5.3.2024`, `Tue, 05 Mar 2024 07:08:09
/// +0200`, `20240305`, `20240305T070809Z`, `2024-065`, or digits for seconds since the epoch. A time without a zone is taken for UTC.
/// `None`: it is not a date.
///
/// # Errors
/// It is a date with a time zone that is not known.
pub(crate) fn parse(text: &str) -> Result<Option<Instant>, UnknownZone> {
    let text = text.trim();
    if text.len() > LENGTH_MAX || text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() != 8 {
        let seconds = text.parse::<i64>().ok().and_then(|seconds| seconds.checked_mul(1_000_000));
        return Ok(seconds.map(|micros| Instant { micros, offset_minutes: 0 }));
    }
    let mut reader =
        Reader { words: words(text), date: Date::default(), of_day: None, offset: None, unknown: None };
    let mut at = 0;
    while at < reader.words.len() {
        match reader.word(at) {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    let unknown = reader.unknown.take();
    match (reader.finish(), unknown) {
        (Some(_), Some(zone)) => Err(UnknownZone(zone)),
        (found, _) => Ok(found),
    }
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
    /// The name of a time zone that is not known.
    unknown: Option<String>,
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
            Word::Mark(sign @ ('+' | '-')) if self.of_day.is_some() && self.date.year.is_some() => {
                self.zone_digits(at, sign)
            }
            Word::Mark('-' | '/') => Some(at + 1),
            Word::Mark(_) => None,
            Word::Letters(letters) if self.letters(letters) => Some(at + 1),
            Word::Letters(letters) => self.zone_name(letters, at),
            Word::Digits(digits) => {
                self.day_of_year(at).or_else(|| self.three(at)).or_else(|| self.number(digits, at))
            }
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
            // The `T` between date and time, and ordinals: 1st, 2nd.
            "t" | "st" | "nd" | "rd" | "th" | "of" | "at" => true,
            _ => match ZONES.iter().find(|(name, _)| *name == lower && self.of_day.is_some()) {
                Some((_, offset)) => {
                    self.offset = Some(*offset);
                    true
                }
                None => days.iter().any(|day| prefix == Some(day)),
            },
        }
    }

    /// A zone by another name, such as `CET` or `Europe/Berlin`, behind a date and a time.
    fn zone_name(&mut self, letters: &str, at: usize) -> Option<usize> {
        let city = match (self.get(at + 1), self.get(at + 2)) {
            (Some(Word::Mark('/')), Some(Word::Letters(city))) => Some(city),
            _ => None,
        };
        let short = letters.len() <= 5 && letters.bytes().all(|byte| byte.is_ascii_uppercase());
        if self.of_day.is_none()
            || self.date.year.is_none()
            || self.unknown.is_some()
            || !(short || city.is_some())
        {
            return None;
        }
        self.unknown = Some(city.map_or(letters.to_owned(), |city| format!("{letters}/{city}")));
        Some(if city.is_some() { at + 3 } else { at + 1 })
    }

    fn nothing_yet(&self) -> bool {
        self.date.year.is_none() && self.date.month.is_none() && self.date.day.is_none()
    }

    /// `2024-060`: the day of the year.
    fn day_of_year(&mut self, at: usize) -> Option<usize> {
        let (year, day) = (self.digits(at)?, self.digits(at + 2)?);
        let alone = self.get(at + 1) == Some(Word::Mark('-')) && self.get(at + 3) != Some(Word::Mark('-'));
        if !(self.nothing_yet() && alone && year.len() == 4 && day.len() == 3) {
            return None;
        }
        let (year, day): (i64, i64) = (year.parse().ok()?, day.parse().ok()?);
        let last = if calendar::is_leap(year) { 366 } else { 365 };
        let day = Some(day).filter(|day| (1..=last).contains(day))?;
        let (year, month, day) = calendar::civil(calendar::days(year, 1, 1) + day - 1);
        self.date = Date { year: Some(year), month: Some(month), day: Some(day) };
        Some(at + 3)
    }

    /// Three numbers with one mark between them, as Ruby reads them: `2024-02-29` and `99/12/31` begin with the year, `29.2.2024` and
    /// `29/02/2024` with the day.
    fn three(&mut self, at: usize) -> Option<usize> {
        let (first, second, third) = (self.digits(at)?, self.digits(at + 2)?, self.digits(at + 4)?);
        let mark = self.get(at + 1)?;
        let marked = matches!(mark, Word::Mark('-' | '/' | '.')) && self.get(at + 3) == Some(mark);
        if !(self.nothing_yet() && marked && first.len() <= 4 && second.len() <= 2 && third.len() <= 4) {
            return None;
        }
        let (year, day) = if first.len() <= 2 && third.len() > 2 { (third, first) } else { (first, third) };
        let number: i64 = year.parse().ok()?;
        self.date = Date {
            year: Some(if year.len() <= 2 { of_two_digits(number) } else { number }),
            month: Some(second.parse().ok()?),
            day: Some(day.parse().ok()?),
        };
        Some(at + 5)
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
        let after_t = at > 0 && matches!(self.get(at - 1), Some(Word::Letters("T" | "t")));
        if after_t && self.of_day.is_none() && matches!(digits.len(), 4 | 6) {
            return self.compact_time(digits, at);
        }
        let number: i64 = digits.parse().ok()?;
        let date = &mut self.date;
        if digits.len() == 8 && date.year.is_none() {
            (date.year, date.month, date.day) =
                (Some(number / 10_000), Some((number / 100 % 100) as u32), Some((number % 100) as u32));
        } else if date.year.is_none() && (digits.len() > 2 || date.day.is_some() && date.month.is_some()) {
            // A year of two digits is one of the years around 2000.
            let short = digits.len() <= 2;
            date.year = Some(if short { of_two_digits(number) } else { number });
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

    /// `130509` and `1305` behind a `T`.
    fn compact_time(&mut self, digits: &str, at: usize) -> Option<usize> {
        let part = |from: usize, most: i64| {
            let part: i64 = digits.get(from..from + 2).unwrap_or("00").parse().ok()?;
            (part <= most).then_some(part)
        };
        let (hour, minute, second) = (part(0, 24)?, part(2, 59)?, part(4, 60)?);
        self.of_day = Some(((hour * 60 + minute) * 60 + second) * 1_000_000);
        Some(at + 1)
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

/// A year of two digits is one of the years around 2000.
fn of_two_digits(year: i64) -> i64 {
    if year < 69 { year + 2000 } else { year + 1900 }
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
            ("5/3/2024", midnight, 0),
            ("5.3.2024", midnight, 0),
            ("5-3-2024", midnight, 0),
            ("24-03-05", midnight, 0),
            ("24/3/5", midnight, 0),
            ("2024-065", midnight, 0),
            ("20240305T070809Z", midnight + 7 * 3600 + 489, 0),
            ("2024-03-05T0708", midnight + 7 * 3600 + 480, 0),
            ("07:08 2024-03-05", midnight + 7 * 3600 + 480, 0),
            ("2024-03-05 07:08 EST", midnight + 12 * 3600 + 480, -300),
            ("2024-03-05 07:08 pdt", midnight + 14 * 3600 + 480, -420),
            ("2024-03-05 07:08 UTC", midnight + 7 * 3600 + 480, 0),
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
            let instant = parse(text).unwrap().unwrap_or_else(|| panic!("{text} is a date"));
            assert_eq!(
                (instant.micros.div_euclid(1_000_000), instant.offset_minutes),
                (seconds, offset),
                "{text}"
            );
        }
    }

    #[test]
    fn other_text_is_no_date() {
        for text in [
            "",
            "hello",
            "2024-02-30",
            "2024-13-01",
            "-1152098955",
            "12:61",
            "2024-03-05T25:00",
            "é",
            "5",
            "02/29/2024",
            "2023-366",
            "20240305T250000",
        ] {
            assert_eq!(parse(text).map(|found| found.filter(|_| text != "5")), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_zone_that_is_not_known_is_told() {
        for (text, zone) in [
            ("2020-06-15 12:00 CET", "CET"),
            ("2020-06-15 12:00 JST", "JST"),
            ("2020-06-15 12:00:00 A", "A"),
            ("2020-06-15T12:00 Europe/Berlin", "Europe/Berlin"),
            ("12:00 2020-06-15 AEST", "AEST"),
        ] {
            assert_eq!(parse(text), Err(UnknownZone(zone.to_owned())), "{text}");
        }
        // Not a date, whatever follows.
        assert_eq!(parse("2020-13-15 12:00 CET"), Ok(None));
        assert_eq!(parse("12:00 CET"), Ok(None));
    }
}
