//! Equality, order and `contains`, by the reference's rules.

use std::cmp::Ordering;

use crate::expression::Operator;
use crate::held::{DEPTH_MAX, Held};
use crate::json;
use crate::list;
use crate::number::Number;

/// The answer of an operator; `Err` tells why two values cannot be compared.
pub(crate) fn compare(left: &Held<'_>, operator: Operator, right: &Held<'_>) -> Result<bool, String> {
    let ordered = |accept: fn(Ordering) -> bool| Ok(order(left, right)?.is_some_and(accept));
    match operator {
        Operator::Equal => Ok(equal(left, right)),
        Operator::NotEqual => Ok(!equal(left, right)),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessEqual => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterEqual => ordered(Ordering::is_ge),
        Operator::Contains => Ok(contains(left, right)),
    }
}

pub(crate) fn equal(left: &Held<'_>, right: &Held<'_>) -> bool {
    equal_within(left, right, 0)
}

fn equal_within(left: &Held<'_>, right: &Held<'_>, depth: usize) -> bool {
    match (left, right) {
        (Held::Blank, Held::Blank) | (Held::Empty, Held::Empty) => return true,
        (Held::Blank, Held::Empty) | (Held::Empty, Held::Blank) => return false,
        (Held::Blank, other) | (other, Held::Blank) => return other.is_blank(),
        (Held::Empty, other) | (other, Held::Empty) => return other.is_empty(),
        (Held::Nil, Held::Nil) => return true,
        (Held::Bool(left), Held::Bool(right)) => return left == right,
        (Held::Str(left), Held::Str(right)) => return **left == **right,
        (Held::Int(left), Held::Int(right)) => return left == right,
        (Held::Nil | Held::Bool(_), _) | (_, Held::Nil | Held::Bool(_)) => return false,
        (Held::Range(a, b), Held::Range(c, d)) => return a == c && b == d,
        (Held::Timestamp(left, _), Held::Timestamp(right, _)) => return left == right,
        _ => {}
    }
    if let (Some(left), Some(right)) = (Number::exactly(left), Number::exactly(right)) {
        return left.compare(right) == Some(Ordering::Equal);
    }
    if depth >= DEPTH_MAX {
        return false;
    }
    if left.is_array() || right.is_array() {
        if !left.is_array() || !right.is_array() || list::len(left) != list::len(right) {
            return false;
        }
        let same = |i| equal_within(&list::at(left, i), &list::at(right, i), depth + 1);
        return match (left, right) {
            (Held::Json(_), _) | (_, Held::Json(_)) => {
                let (left, right) = (list::items(left), list::items(right));
                left.iter().zip(&right).all(|(left, right)| equal_within(left, right, depth + 1))
            }
            _ => (0..list::len(left)).all(same),
        };
    }
    if left.is_object() || right.is_object() {
        if !left.is_object() || !right.is_object() {
            return false;
        }
        let (left, right) = (list::entries(left), list::entries(right));
        return left.len() == right.len()
            && left.iter().all(|(name, value)| {
                let other = right.iter().find(|(held, _)| held == name);
                other.is_some_and(|(_, other)| equal_within(value, other, depth + 1))
            });
    }
    // Dates, identifiers and bytes are written as text, and are compared with text as such.
    textual(left) && textual(right) && left.text() == right.text()
}

/// Values that have a text of their own to be compared by.
fn textual(held: &Held<'_>) -> bool {
    match held {
        Held::Str(_)
        | Held::Written(_)
        | Held::Bytes(_)
        | Held::OwnBytes(_)
        | Held::Date(_)
        | Held::Time(_)
        | Held::DateTime(_)
        | Held::Timestamp(..)
        | Held::Uuid(_) => true,
        Held::Nil
        | Held::Bool(_)
        | Held::Int(_)
        | Held::Float(_)
        | Held::Decimal(_)
        | Held::Json(_)
        | Held::Array(_)
        | Held::Object(_)
        | Held::List(_)
        | Held::Map(_)
        | Held::Range(..)
        | Held::Blank
        | Held::Empty => false,
    }
}

/// `None` where the reference answers false to everything: nil, booleans, arrays and objects.
pub(crate) fn order(left: &Held<'_>, right: &Held<'_>) -> Result<Option<Ordering>, String> {
    if let (Some(left), Some(right)) = (Number::exactly(left), Number::exactly(right)) {
        return Ok(left.compare(right));
    }
    match (left, right) {
        (Held::Str(left), Held::Str(right)) => return Ok(Some((**left).cmp(&**right))),
        (Held::Date(left), Held::Date(right)) => return Ok(Some(left.cmp(right))),
        (Held::Timestamp(left, _), Held::Timestamp(right, _))
        | (Held::DateTime(left), Held::DateTime(right))
        | (Held::Time(left), Held::Time(right)) => return Ok(Some(left.cmp(right))),
        _ => {}
    }
    if textual(left) && textual(right) {
        return Ok(Some(left.text().cmp(&right.text())));
    }
    let known = |held: &Held<'_>| textual(held) || Number::exactly(held).is_some();
    if known(left) && known(right) {
        return Err(format!("cannot compare {} with {}", kind_of(left), kind_of(right)));
    }
    Ok(None)
}

fn contains(left: &Held<'_>, right: &Held<'_>) -> bool {
    if !left.is_truthy() || !right.is_truthy() {
        return false;
    }
    match left {
        Held::Str(text) => text.contains(&*right.text()),
        Held::Object(object) => object.get(&right.text()).is_some(),
        Held::Map(entries) => entries.iter().any(|(name, _)| **name == *right.text()),
        Held::Json(text) if left.is_object() => json::member(text, &right.text()).is_some(),
        Held::Range(from, to) => match Number::exactly(right) {
            Some(Number::Int(int)) => (i128::from(*from)..=i128::from(*to)).contains(&int),
            _ => false,
        },
        Held::List(_) | Held::Array(_) | Held::Json(_) => {
            list::items(left).iter().any(|item| equal(item, right))
        }
        _ => false,
    }
}

/// The kind of a value, for messages.
pub(crate) fn kind_of(held: &Held<'_>) -> &'static str {
    match held {
        Held::Nil => "nil",
        Held::Bool(_) => "a boolean",
        Held::Int(_) | Held::Float(_) | Held::Decimal(_) => "a number",
        Held::Str(_) | Held::Written(_) => "text",
        Held::Bytes(_) | Held::OwnBytes(_) => "bytes",
        Held::Date(_) | Held::Time(_) | Held::DateTime(_) | Held::Timestamp(..) => "a date or time",
        Held::Uuid(_) => "a uuid",
        Held::Array(_) | Held::List(_) | Held::Range(..) => "an array",
        Held::Json(_) if held.is_array() => "an array",
        Held::Object(_) | Held::Map(_) | Held::Json(_) => "an object",
        Held::Blank => "blank",
        Held::Empty => "empty",
    }
}
