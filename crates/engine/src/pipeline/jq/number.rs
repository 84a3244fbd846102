//! Numbers: whole ones of 64 bits, floating-point ones, and digits that neither can hold.
//!
//! A number that no expression computes with keeps the digits it was written with (`12.50`, `18446744073709551615`). Computing
//! with one that does not fit 64 bits makes a floating-point number of it, as a result that overflows does.

use std::cmp::Ordering;
use std::rc::Rc;

/// The largest whole number below which every floating-point whole number is exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A number.
#[derive(Debug, Clone)]
pub enum Number {
    /// A whole number.
    Int(i64),
    /// Any other number that was computed.
    Float(f64),
    /// As it was written.
    Digits(Rc<str>),
}

impl Number {
    /// The number of a text in JSON's form (or jq's, which also has `.5`).
    pub fn of_text(text: &str) -> Number {
        match text.parse() {
            Ok(whole) => Number::Int(whole),
            Err(_) => Number::Digits(text.into()),
        }
    }

    /// As floating point; very large ones are infinite.
    pub fn as_f64(&self) -> f64 {
        match self {
            Number::Int(whole) => *whole as f64,
            Number::Float(float) => *float,
            Number::Digits(digits) => digits.parse().unwrap_or(f64::NAN),
        }
    }

    /// As a whole number, where it is one and exact.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Number::Int(whole) => Some(*whole),
            Number::Float(_) | Number::Digits(_) => {
                let float = self.as_f64();
                (float.fract() == 0.0 && float.abs() < EXACT_MAX).then_some(float as i64)
            }
        }
    }

    /// Adds, subtracts or multiplies: whole numbers stay whole while they fit.
    pub fn compute(
        &self,
        other: &Number,
        whole: fn(i64, i64) -> Option<i64>,
        float: fn(f64, f64) -> f64,
    ) -> Number {
        if let (Number::Int(one), Number::Int(two)) = (self, other)
            && let Some(result) = whole(*one, *two)
        {
            return Number::Int(result);
        }
        Number::Float(float(self.as_f64(), other.as_f64()))
    }

    /// The number as JSON writes it; `None` for NaN and the infinities.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Number::Int(whole) => Some(whole.to_string()),
            // jq takes `.5` and `5.`, which JSON does not have.
            Number::Digits(digits) if serde_json::from_str::<serde_json::Number>(digits).is_ok() => {
                Some(digits.to_string())
            }
            Number::Float(_) | Number::Digits(_) => {
                let float = self.as_f64();
                match self.as_int() {
                    Some(whole) => Some(whole.to_string()),
                    None => serde_json::Number::from_f64(float).map(|number| number.to_string()),
                }
            }
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            // NaN is not itself.
            (Number::Float(one), _) | (_, Number::Float(one)) if one.is_nan() => false,
            _ => self.cmp(other) == Ordering::Equal,
        }
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    /// NaN is below all others and equal to itself here, so that sorting is sound.
    fn cmp(&self, other: &Number) -> Ordering {
        match (self, other) {
            (Number::Int(one), Number::Int(two)) => one.cmp(two),
            (Number::Digits(one), Number::Digits(two)) if one == two => Ordering::Equal,
            _ => {
                let (one, two) = (self.as_f64(), other.as_f64());
                one.partial_cmp(&two).unwrap_or_else(|| two.is_nan().cmp(&one.is_nan()))
            }
        }
    }
}
