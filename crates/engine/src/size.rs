//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes; written `16MiB`, `500kB`, `1 GiB` or a bare number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a number of bytes or one with a unit, such as 16MiB or 500kB")]
pub struct NotASize(pub String);

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let fault = || NotASize(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let unit = unit.trim();
        let factor = if unit.is_empty() {
            1
        } else {
            UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(fault)?.1
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(ByteSize).ok_or_else(fault);
        }
        let number: f64 = number.parse().map_err(|_| fault())?;
        let bytes = number * factor as f64;
        if bytes.is_finite() && (0.0..1e18).contains(&bytes) {
            Ok(ByteSize(bytes as u64))
        } else {
            Err(fault())
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in UNITS.iter().filter(|(name, _)| name.contains('i')) {
            if self.0 >= *factor {
                return if self.0.is_multiple_of(*factor) {
                    write!(f, "{} {name}", self.0 / factor)
                } else {
                    write!(f, "{:.1} {name}", self.0 as f64 / *factor as f64)
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        assert_eq!("16MiB".parse(), Ok(ByteSize(16 << 20)));
        assert_eq!("1.5 kB".parse(), Ok(ByteSize(1500)));
        assert_eq!("42".parse(), Ok(ByteSize(42)));
        assert!("16 megs".parse::<ByteSize>().is_err());
        assert!("".parse::<ByteSize>().is_err());
        assert!("99999999999999999999".parse::<ByteSize>().is_err());
        assert_eq!(ByteSize(16 << 20).to_string(), "16 MiB");
        assert_eq!(ByteSize(20_971_521).to_string(), "20.0 MiB");
        assert_eq!(ByteSize(12).to_string(), "12 B");
    }
}
