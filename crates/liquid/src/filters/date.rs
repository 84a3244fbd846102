//! The `date` filter: what counts as a date, and Ruby's `strftime`.

use super::{Given, Refusal, Work};
use crate::calendar::{self, DAY_MICROS};
use crate::held::Held;
use crate::instant::{Instant, UnknownZone, parse};
use crate::number::Number;

/// Wider padding than any date needs.
const WIDTH_MAX: usize = 64;

pub(super) fn date<'r>(
    input: &Held<'r>,
    given: &Given<'r>,
    work: &mut Work<'_>,
) -> Result<Held<'r>, Refusal> {
    let format = given.text(0);
    if format.is_empty() {
        return Ok(input.clone());
    }
    let Some(instant) = instant(input, work)? else {
        return Ok(input.clone());
    };
    let mut out = String::new();
    strftime(&format, instant, &mut out, 0);
    work.bytes(out.len())?;
    Ok(Held::own_str(out))
}

/// `None` when the value is no date, which is then handed on as it is.
fn instant(input: &Held<'_>, work: &Work<'_>) -> Result<Option<Instant>, Refusal> {
    let utc = |micros| Some(Instant { micros, offset_minutes: 0 });
    Ok(match input {
        Held::Date(days) => i64::from(*days).checked_mul(DAY_MICROS).and_then(utc),
        Held::DateTime(micros) | Held::Time(micros) => utc(*micros),
        Held::Timestamp(micros, offset) => Some(Instant { micros: *micros, offset_minutes: *offset }),
        Held::Int(_) | Held::Float(_) | Held::Decimal(_) => {
            let micros = Number::of(input).to_float() * 1e6;
            if micros.abs() < 9e18 { utc(micros as i64) } else { None }
        }
        Held::Str(text) => match text.trim() {
            "now" | "today" => {
                if let Some(micros) = work.globals.now() {
                    utc(micros)
                } else {
                    let message = "the time is not known here, so that a message stays the same when it \
                               is rendered again";
                    return Err(Refusal::Cannot(message.to_owned()));
                }
            }
            text => match parse(text) {
                Ok(found) => found,
                Err(UnknownZone(_)) if work.lax => None,
                Err(UnknownZone(zone)) => {
                    return Err(Refusal::Cannot(format!(
                        "the time zone `{zone}` is not known; an offset such as `+01:00` is needed"
                    )));
                }
            },
        },
        _ => None,
    })
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// How a directive is padded.
#[derive(Clone, Copy, Default)]
struct Style {
    /// `-`, `0`, `_`
    pad: Option<char>,
    upper: bool,
    swap: bool,
    colon: bool,
    width: Option<usize>,
}

/// The fields of an instant on its own clock.
struct Fields {
    year: i64,
    month: u32,
    day: u32,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    weekday: i64,
    year_day: i64,
}

fn fields(instant: Instant) -> Fields {
    let local = instant.micros.saturating_add(i64::from(instant.offset_minutes) * 60_000_000);
    let days = local.div_euclid(DAY_MICROS);
    let of_day = local.rem_euclid(DAY_MICROS);
    let (year, month, day) = calendar::civil(days);
    Fields {
        year,
        month,
        day,
        hour: of_day / 3_600_000_000,
        minute: of_day / 60_000_000 % 60,
        second: of_day / 1_000_000 % 60,
        micros: of_day % 1_000_000,
        weekday: (days + 4).rem_euclid(7),
        year_day: days - calendar::days(year, 1, 1) + 1,
    }
}

fn strftime(format: &str, instant: Instant, out: &mut String, depth: usize) {
    let fields = fields(instant);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let whole = chars.as_str();
        let mut style = Style::default();
        let directive = loop {
            match chars.next() {
                Some(pad @ ('-' | '0' | '_')) if style.width.is_none() => style.pad = Some(pad),
                Some('^') => style.upper = true,
                Some('#') => style.swap = true,
                Some(':') => style.colon = true,
                Some(digit @ '0'..='9') => {
                    let digit = digit as usize - '0' as usize;
                    style.width = Some((style.width.unwrap_or(0) * 10 + digit).min(WIDTH_MAX));
                }
                other => break other,
            }
        };
        if !directive.is_some_and(|directive| field(directive, style, &fields, instant, out, depth)) {
            // What is no directive is written as it stands.
            out.push('%');
            chars = whole.chars();
        }
    }
}

fn field(
    directive: char,
    style: Style,
    fields: &Fields,
    instant: Instant,
    out: &mut String,
    depth: usize,
) -> bool {
    let hour12 = if fields.hour % 12 == 0 { 12 } else { fields.hour % 12 };
    let (iso_year, iso_week) = iso_week(fields);
    let from_monday = (fields.weekday + 6) % 7;
    let mut number = |value: i64, width, pad| push_number(value, width, pad, style, out);
    match directive {
        'Y' => number(fields.year, 4, '0'),
        'C' => number(fields.year.div_euclid(100), 2, '0'),
        'y' => number(fields.year.rem_euclid(100), 2, '0'),
        'm' => number(fields.month.into(), 2, '0'),
        'd' => number(fields.day.into(), 2, '0'),
        'e' => number(fields.day.into(), 2, ' '),
        'j' => number(fields.year_day, 3, '0'),
        'H' => number(fields.hour, 2, '0'),
        'k' => number(fields.hour, 2, ' '),
        'I' => number(hour12, 2, '0'),
        'l' => number(hour12, 2, ' '),
        'M' => number(fields.minute, 2, '0'),
        'S' => number(fields.second, 2, '0'),
        'u' => number(from_monday + 1, 1, '0'),
        'w' => number(fields.weekday, 1, '0'),
        'U' => number((fields.year_day + 6 - fields.weekday) / 7, 2, '0'),
        'W' => number((fields.year_day + 6 - from_monday) / 7, 2, '0'),
        'V' => number(iso_week, 2, '0'),
        'G' => number(iso_year, 4, '0'),
        'g' => number(iso_year.rem_euclid(100), 2, '0'),
        's' => number(instant.micros.div_euclid(1_000_000), 1, '0'),
        'L' | 'N' => {
            let width = style.width.unwrap_or(if directive == 'L' { 3 } else { 9 }).clamp(1, 24);
            let digits = format!("{:06}{}", fields.micros, "0".repeat(18));
            out.push_str(&digits[..width]);
        }
        'A' => push_text(DAYS[fields.weekday as usize], style, out),
        'a' => push_text(&DAYS[fields.weekday as usize][..3], style, out),
        'B' => push_text(MONTHS[fields.month as usize - 1], style, out),
        'b' | 'h' => push_text(&MONTHS[fields.month as usize - 1][..3], style, out),
        'p' if style.swap => out.push_str(if fields.hour < 12 { "am" } else { "pm" }),
        'p' => push_text(if fields.hour < 12 { "AM" } else { "PM" }, style, out),
        'P' => push_text(if fields.hour < 12 { "am" } else { "pm" }, style, out),
        'z' => {
            let mut offset = Vec::new();
            calendar::write_offset(instant.offset_minutes, style.colon, &mut offset);
            out.push_str(&String::from_utf8_lossy(&offset));
        }
        'Z' if instant.offset_minutes == 0 => push_text("UTC", style, out),
        'Z' => {}
        '%' => out.push('%'),
        'n' => out.push('\n'),
        't' => out.push('\t'),
        _ => {
            let combined = match directive {
                'D' | 'x' => "%m/%d/%y",
                'F' => "%Y-%m-%d",
                'T' | 'X' => "%H:%M:%S",
                'R' => "%H:%M",
                'r' => "%I:%M:%S %p",
                'c' => "%a %b %e %H:%M:%S %Y",
                'v' => "%e-%^b-%Y",
                '+' => "%a %b %e %H:%M:%S %Z %Y",
                _ => return false,
            };
            // Combined directives hold no others that combine.
            assert!(depth == 0, "a combined directive within a combined one");
            let mut text = String::new();
            strftime(combined, instant, &mut text, depth + 1);
            push_text(&text, style, out);
        }
    }
    true
}

fn push_number(value: i64, width: usize, pad: char, style: Style, out: &mut String) {
    let pad = match style.pad {
        Some('-') => None,
        Some('_') => Some(' '),
        Some(_) => Some('0'),
        None => Some(pad),
    };
    let width = style.width.unwrap_or(width);
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    let missing = width.saturating_sub(digits.len() + sign.len());
    match pad {
        Some(' ') => {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(sign);
        }
        Some(_) => {
            out.push_str(sign);
            out.extend(std::iter::repeat_n('0', missing));
        }
        None => out.push_str(sign),
    }
    out.push_str(&digits);
}

fn push_text(text: &str, style: Style, out: &mut String) {
    if let Some(width) = style.width {
        let pad = if style.pad == Some('0') { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(pad, width.saturating_sub(text.len())));
    }
    if style.upper || style.swap {
        out.push_str(&text.to_uppercase());
    } else {
        out.push_str(text);
    }
}

/// The year and week by ISO 8601: weeks begin on Monday, and the first holds the year's first Thursday.
fn iso_week(fields: &Fields) -> (i64, i64) {
    let weekday = (fields.weekday + 6) % 7 + 1;
    let week = (fields.year_day - weekday + 10) / 7;
    let weeks_in = |year: i64| {
        let first = (calendar::days(year, 1, 1) + 4).rem_euclid(7);
        if first == 4 || (first == 3 && calendar::is_leap(year)) { 53 } else { 52 }
    };
    if week < 1 {
        (fields.year - 1, weeks_in(fields.year - 1))
    } else if week > weeks_in(fields.year) {
        (fields.year + 1, 1)
    } else {
        (fields.year, week)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(text: &str, format: &str) -> String {
        let mut out = String::new();
        strftime(format, parse(text).ok().flatten().expect("a date"), &mut out, 0);
        out
    }

    #[test]
    fn directives_follow_ruby() {
        let at = "2024-03-05 07:08:09.012345 +02:00";
        let cases = [
            ("%Y-%m-%d %H:%M:%S", "2024-03-05 07:08:09"),
            ("%-d/%-m/%y %e|%k|%l %I %p %P", "5/3/24  5| 7| 7 07 AM am"),
            ("%a %A %b %B %^a %#p", "Tue Tuesday Mar March TUE am"),
            ("%j %U %W %V %G %g %u %w", "065 09 10 10 2024 24 2 2"),
            ("%L %N %3N %6N", "012 012345000 012 012345"),
            ("%z %:z %s %%", "+0200 +02:00 1709615289 %"),
            ("%D %F %T %R %r %c", "03/05/24 2024-03-05 07:08:09 07:08 07:08:09 AM Tue Mar  5 07:08:09 2024"),
            ("%10Y %03d %_5m %-H %q %", "0000002024 005     3 7 %q %"),
        ];
        for (directives, expected) in cases {
            assert_eq!(format(at, directives), expected, "{directives}");
        }
    }

    #[test]
    fn iso_weeks_at_the_edges_of_years() {
        for (date, week) in [
            ("2021-01-03", "2020-W53"),
            ("2024-12-30", "2025-W01"),
            ("2020-12-31", "2020-W53"),
            ("2023-01-01", "2022-W52"),
        ] {
            assert_eq!(format(date, "%G-W%V"), week, "{date}");
        }
    }
}
