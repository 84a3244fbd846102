//! Numbers as SQS takes them in attributes: up to 38 significant digits, from 10⁻¹²⁸ to 10¹²⁶ and zero.

/// The most significant digits.
const DIGITS_MAX: usize = 38;
/// The exponent of the smallest magnitude.
const EXPONENT_MIN: i64 = -128;
/// The exponent of the largest magnitude.
const EXPONENT_MAX: i64 = 126;

/// Which rule a text breaks as a number; `None` for a number that is fine.
pub fn fault(text: &str) -> Option<String> {
    let Some((whole, fraction, exponent)) = split(text) else { return Some("it is not a number".to_owned()) };
    let digits = || whole.bytes().chain(fraction.bytes());
    let first = digits().position(|digit| digit != b'0')?; // all of them: zero, which is fine
    let behind = digits().rev().position(|digit| digit != b'0').unwrap_or(0);
    let last = whole.len() + fraction.len() - 1 - behind;
    let significant = last - first + 1;
    if significant > DIGITS_MAX {
        return Some(format!("it has {significant} significant digits, and {DIGITS_MAX} are allowed"));
    }
    // The number is 0.d1d2… × 10^point.
    let point = whole.len() as i64 - first as i64 + exponent;
    let magnitude = point - 1;
    let is_power = significant == 1 && digits().nth(first) == Some(b'1');
    if magnitude < EXPONENT_MIN {
        return Some("it is closer to zero than 10^-128".to_owned());
    }
    if magnitude > EXPONENT_MAX || (magnitude == EXPONENT_MAX && !is_power) {
        return Some("it is larger than 10^126".to_owned());
    }
    None
}

/// Digits before and behind the point, and the exponent.
fn split(text: &str) -> Option<(&str, &str, i64)> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 9 || !all_digits(digits) {
                return None;
            }
            (mantissa, exponent.parse().ok()?)
        }
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let some = !whole.is_empty() || !fraction.is_empty();
    (some && all_digits(whole) && all_digits(fraction)).then_some((whole, fraction, exponent))
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bounds() {
        let digits = |count: usize| "1".repeat(count);
        for good in [
            "0",
            "-0.000",
            "1",
            "-1.5",
            "+2",
            ".5",
            "5.",
            "1e126",
            "1E-128",
            "123.4500e+10",
            "1e0126",
            "0.0000000000000000000000000000000000000000000000000000000000001",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        assert_eq!(fault(&digits(38)), None);
        assert_eq!(fault(&format!("{}000", digits(38))), None, "zeros at the end are no digits that count");
        for bad in
            ["", " ", "1 ", "abc", "1e", "1e999999999999", "--1", "1.2.3", "NaN", "inf", "0x1", "٣", "1_000"]
        {
            assert_eq!(fault(bad).as_deref(), Some("it is not a number"), "{bad}");
        }
        assert!(fault(&digits(39)).unwrap().contains("39 significant digits"));
        assert!(fault("1.1e126").unwrap().contains("10^126"));
        assert!(fault("1e127").unwrap().contains("10^126"));
        assert!(fault("9e-129").unwrap().contains("10^-128"));
        assert!(fault("0.09e-127").unwrap().contains("10^-128"));
    }
}
