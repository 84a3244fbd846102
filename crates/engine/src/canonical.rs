//! Cells by value: equal decimals are equal, however many zeros a source writes behind the point.
//!
//! A row keeps decimals as the source writes them, since a message shows them so. Where rows are compared, `1.0`, `1.00` and
//! `1` are one number: a column that gets another scale is not a column whose every value changed.

use crate::row::{Cells, RowRef, Tag, Value};

/// The digits of a decimal without what does not change its value: `12.50` is `12.5`, `-0.0` is `0`.
pub fn decimal(digits: &str) -> &str {
    let plain = digits.contains('.') && !digits.contains(['e', 'E']);
    let digits = if plain { digits.trim_end_matches('0').trim_end_matches('.') } else { digits };
    if digits == "-0" { "0" } else { digits }
}

/// Whether a packed cell is what it would be compared as.
pub fn is_canonical(cell: &[u8]) -> bool {
    match cell.first() {
        Some(&tag) if tag == Tag::Decimal as u8 => is_canonical_decimal(&cell[5..]),
        Some(&tag) if tag == Tag::Array as u8 => is_canonical_value(RowRef::new(cell).get(0)),
        _ => true,
    }
}

/// As [`is_canonical`] of the digits of a decimal, in a hot loop.
fn is_canonical_decimal(digits: &[u8]) -> bool {
    match digits.last() {
        Some(b'0') => digits == b"0" || !(digits == b"-0" || digits.contains(&b'.')) || has_exponent(digits),
        Some(b'.') => false,
        _ => true,
    }
}

fn has_exponent(digits: &[u8]) -> bool {
    digits.iter().any(|byte| matches!(byte, b'e' | b'E'))
}

fn is_canonical_value(value: Value<'_>) -> bool {
    match value {
        Value::Decimal(digits) => decimal(digits).len() == digits.len(),
        Value::Array(array) => array.values().all(is_canonical_value),
        _ => true,
    }
}

/// Appends a packed cell as it is compared.
pub fn append(cell: &[u8], out: &mut Vec<u8>) {
    if is_canonical(cell) {
        out.extend_from_slice(cell);
    } else {
        put(RowRef::new(cell).get(0), &mut Cells::new(out));
    }
}

fn put(value: Value<'_>, cells: &mut Cells<'_>) {
    match value {
        Value::Decimal(digits) => cells.decimal(decimal(digits)),
        Value::Array(array) => {
            cells.array(array.len() as u32, |cells| array.values().for_each(|value| put(value, cells)));
        }
        value => cells.value(value),
    }
}

/// Whether two packed cells hold the same value.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    if is_canonical(one) && is_canonical(other) {
        return false;
    }
    let (mut left, mut right) = (Vec::new(), Vec::new());
    append(one, &mut left);
    append(other, &mut right);
    left == right
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(fill: impl FnOnce(&mut Cells<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        fill(&mut Cells::new(&mut bytes));
        bytes
    }

    #[test]
    fn zeros_that_change_nothing_go() {
        let table = [
            ("0", "0"),
            ("-0", "0"),
            ("0.00", "0"),
            ("-0.000", "0"),
            ("1", "1"),
            ("10", "10"),
            ("100.0", "100"),
            ("12.50", "12.5"),
            ("-12.50", "-12.5"),
            ("12.05", "12.05"),
            ("0.10", "0.1"),
            ("1.", "1"),
            ("1.0e10", "1.0e10"),
            ("", ""),
        ];
        for (digits, expected) in table {
            assert_eq!(decimal(digits), expected, "{digits}");
            let packed = cell(|cells| cells.decimal(digits));
            assert_eq!(is_canonical(&packed), digits == expected, "{digits}");
            let mut out = Vec::new();
            append(&packed, &mut out);
            assert_eq!(out, cell(|cells| cells.decimal(expected)), "{digits}");
        }
    }

    #[test]
    fn decimals_in_arrays_are_compared_too_and_nothing_else_is_touched() {
        let nested = |digits: &'static str, text: &'static str| {
            cell(|cells| {
                cells.array(2, |cells| {
                    cells.array(1, |cells| cells.decimal(digits));
                    cells.text(text);
                });
            })
        };
        assert!(same(&nested("1.00", "1.0"), &nested("1.0", "1.0")));
        assert!(!same(&nested("1.00", "1.0"), &nested("1.0", "1.00")));
        assert!(!same(&nested("1.00", "a"), &nested("1.01", "a")));
        assert!(!same(&cell(|cells| cells.text("1.0")), &cell(|cells| cells.text("1.00"))));
        assert!(!same(&cell(|cells| cells.decimal("1")), &cell(|cells| cells.int(1))));
    }
}
