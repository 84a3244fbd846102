//! Arithmetic. What is no number counts as 0, and text with the digits it begins with.

use std::cmp::Ordering;

use super::{Given, Refusal, Work};
use crate::held::Held;
use crate::number::Number;

type Result<'r> = std::result::Result<Held<'r>, Refusal>;

fn operand(given: &Given<'_>) -> Number {
    given.get(0).map_or(Number::Int(0), Number::of)
}

pub(super) fn abs<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    Number::of(input).abs().held()
}

pub(super) fn plus<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).plus(operand(given))?.held())
}

pub(super) fn minus<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).plus(operand(given).negated()?)?.held())
}

pub(super) fn times<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).times(operand(given))?.held())
}

pub(super) fn divided_by<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).divided_by(operand(given))?.held())
}

pub(super) fn modulo<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).modulo(operand(given))?.held())
}

pub(super) fn round<'r>(input: &Held<'r>, given: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    let digits = match given.some(0) {
        Some(digits) => match Number::of(digits).floor()? {
            Number::Int(digits) => digits,
            Number::Decimal(_) | Number::Float(_) => 0,
        },
        None => 0,
    };
    Ok(Number::of(input).round(digits)?.held())
}

pub(super) fn ceil<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).ceil()?.held())
}

pub(super) fn floor<'r>(input: &Held<'r>, _: &Given<'r>, _: &mut Work<'_>) -> Result<'r> {
    Ok(Number::of(input).floor()?.held())
}

pub(super) fn at_least<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    let (number, least) = (Number::of(input), operand(given));
    let chosen = if number.compare(least) == Some(Ordering::Less) { least } else { number };
    chosen.held()
}

pub(super) fn at_most<'r>(input: &Held<'r>, given: &Given<'r>) -> Held<'r> {
    let (number, most) = (Number::of(input), operand(given));
    let chosen = if number.compare(most) == Some(Ordering::Greater) { most } else { number };
    chosen.held()
}
