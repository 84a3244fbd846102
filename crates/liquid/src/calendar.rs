//! Days to dates and back, and RFC 3339 text. Proleptic Gregorian, no time zones but offsets.

pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Year, month and day of a count of days since 1970-01-01.
pub(crate) fn civil(days: i64) -> (i64, u32, u32) {
    // Counted from 0000-03-01, so that the leap day ends a year (Howard Hinnant's method).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_shifted + 2) / 5 + 1) as u32;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days since 1970-01-01; the day is not checked against the month.
pub(crate) fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_shifted = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_shifted + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

pub(crate) fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

pub(crate) fn days_in_month(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    let year = year.unsigned_abs();
    if year > 9999 {
        out.extend_from_slice(year.to_string().as_bytes());
    } else {
        two((year / 100) as u32, out);
        two((year % 100) as u32, out);
    }
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(day, out);
}

/// `micros` since midnight; a fraction is written with three or six digits, when there is one.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros.div_euclid(1_000_000);
    let fraction = micros.rem_euclid(1_000_000) as u32;
    let hours = seconds.div_euclid(3600);
    two(hours.clamp(0, 99) as u32, out);
    out.push(b':');
    two((seconds.rem_euclid(3600) / 60) as u32, out);
    out.push(b':');
    two(seconds.rem_euclid(60) as u32, out);
    if fraction == 0 {
        return;
    }
    out.push(b'.');
    let milli = fraction / 1000;
    out.push(b'0' + (milli / 100) as u8);
    two(milli % 100, out);
    let micro = fraction % 1000;
    if micro != 0 {
        out.push(b'0' + (micro / 100) as u8);
        two(micro % 100, out);
    }
}

pub(crate) fn write_date_time(micros: i64, out: &mut Vec<u8>) {
    write_date(micros.div_euclid(DAY_MICROS), out);
    out.push(b'T');
    write_time(micros.rem_euclid(DAY_MICROS), out);
}

pub(crate) fn write_timestamp(micros: i64, offset_minutes: i16, out: &mut Vec<u8>) {
    write_date_time(micros.saturating_add(i64::from(offset_minutes) * 60_000_000), out);
    if offset_minutes == 0 {
        out.push(b'Z');
    } else {
        write_offset(offset_minutes, true, out);
    }
}

pub(crate) fn write_offset(offset_minutes: i16, colon: bool, out: &mut Vec<u8>) {
    out.push(if offset_minutes < 0 { b'-' } else { b'+' });
    let minutes = u32::from(offset_minutes.unsigned_abs());
    two(minutes / 60, out);
    if colon {
        out.push(b':');
    }
    two(minutes % 60, out);
}

fn two(number: u32, out: &mut Vec<u8>) {
    out.push(b'0' + (number / 10 % 10) as u8);
    out.push(b'0' + (number % 10) as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_are_inverse() {
        for day in [-1_000_000, -719_469, -1, 0, 1, 10_957, 19_782, 2_932_896, 5_000_000] {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day, "{year}-{month}-{date}");
        }
        assert_eq!(civil(19_782), (2024, 2, 29));
    }

    #[test]
    fn instants_are_written_as_rfc_3339() {
        let write = |micros, offset| {
            let mut out = Vec::new();
            write_timestamp(micros, offset, &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(write(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(write(1_700_000_000_123_456, 120), "2023-11-15T00:13:20.123456+02:00");
        assert_eq!(write(-1_000, -330), "1969-12-31T18:29:59.999-05:30");
    }
}
