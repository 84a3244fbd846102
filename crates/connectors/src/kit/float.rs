//! Floats of four bytes, where rows have only floats of eight.

use std::fmt::Write as _;

/// The double that has the digits of the float: 0.1 stays 0.1 and does not become 0.10000000149011612.
pub(crate) fn widen(value: f32, scratch: &mut String) -> f64 {
    // Whole numbers below 2^24 are the same in both, and common.
    if !value.is_finite() || (value.fract() == 0.0 && value.abs() < 16_777_216.0) {
        return f64::from(value);
    }
    scratch.clear();
    write!(scratch, "{value:e}").expect("writing to a String never fails");
    scratch.parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_four_bytes_keep_their_digits() {
        let mut scratch = String::new();
        let table =
            [(0.1, "0.1"), (-3.4e-38, "-3.4e-38"), (16_777_216.0, "16777216.0"), (f32::INFINITY, "inf")];
        for (value, expected) in table {
            assert_eq!(format!("{:?}", widen(value, &mut scratch)), expected);
        }
        assert!(widen(f32::NAN, &mut scratch).is_nan());
    }
}
