//! What the interpreter does with values: arithmetic, indexing, slicing, updating.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::ops::Math;
use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Error, Exn, ValR, ValT, ValX};

use super::meter;
use super::number::Number;
use super::value::{List, Object, Val};

type Outcome = Result<Val, Error<Val>>;

const ITERABLE: &str = "array or object";

impl Add for Val {
    type Output = Outcome;

    fn add(self, other: Val) -> Outcome {
        match (self, other) {
            (Val::Null, other) | (other, Val::Null) => Ok(other),
            (Val::Num(one), Val::Num(two)) => {
                Ok(Val::Num(one.compute(&two, i64::checked_add, |one, two| one + two)))
            }
            (Val::Str(mut one), Val::Str(two)) => {
                let copied = if Rc::strong_count(&one) > 1 { one.len() } else { 0 };
                meter::charge(copied + two.len());
                Rc::make_mut(&mut one).push_str(&two);
                Ok(Val::Str(one))
            }
            (Val::Arr(mut one), Val::Arr(two)) => {
                let copied = if Rc::strong_count(&one) > 1 { one.items.len() } else { 0 };
                meter::charge((copied + two.items.len()) * 32);
                let list = Rc::make_mut(&mut one);
                list.items.extend(two.items.iter().cloned());
                list.took(Val::Arr(two).depth().saturating_sub(1));
                Ok(Val::Arr(one))
            }
            (Val::Obj(mut one), Val::Obj(two)) => {
                let copied = if Rc::strong_count(&one) > 1 { one.entries.len() } else { 0 };
                meter::charge(copied * 64);
                let object = Rc::make_mut(&mut one);
                for (name, value) in &two.entries {
                    object.set(name.clone(), value.clone());
                }
                Ok(Val::Obj(one))
            }
            (one, two) => Err(Error::math(one, Math::Add, two)),
        }
    }
}

impl Sub for Val {
    type Output = Outcome;

    fn sub(self, other: Val) -> Outcome {
        match (self, other) {
            (Val::Num(one), Val::Num(two)) => {
                Ok(Val::Num(one.compute(&two, i64::checked_sub, |one, two| one - two)))
            }
            (Val::Arr(one), Val::Arr(two)) => {
                let mut gone: Vec<&Val> = two.items.iter().collect();
                gone.sort();
                let kept = one.items.iter().filter(|item| gone.binary_search(item).is_err());
                Ok(Val::list(kept.cloned().collect()))
            }
            (one, two) => Err(Error::math(one, Math::Sub, two)),
        }
    }
}

impl Mul for Val {
    type Output = Outcome;

    fn mul(self, other: Val) -> Outcome {
        match (self, other) {
            (Val::Num(one), Val::Num(two)) => {
                Ok(Val::Num(one.compute(&two, i64::checked_mul, |one, two| one * two)))
            }
            (Val::Str(text), Val::Num(times)) | (Val::Num(times), Val::Str(text)) => {
                let times = times.as_f64();
                if times.is_nan() || times <= 0.0 {
                    return Ok(Val::Null);
                }
                let times = times as usize;
                let bytes = text.len().saturating_mul(times);
                meter::charge(bytes);
                Ok(Val::text(text.repeat(if text.is_empty() { 0 } else { times })))
            }
            (Val::Obj(one), Val::Obj(two)) => Ok(Val::Obj(merged(one, &two))),
            (one, two) => Err(Error::math(one, Math::Mul, two)),
        }
    }
}

/// Objects merged, and objects within them.
fn merged(mut one: Rc<Object>, two: &Object) -> Rc<Object> {
    let object = Rc::make_mut(&mut one);
    for (name, value) in &two.entries {
        meter::step();
        let value = match (object.entries.get_mut(name).map(|held| std::mem::replace(held, Val::Null)), value)
        {
            (Some(Val::Obj(held)), Val::Obj(more)) => Val::Obj(merged(held, more)),
            (_, value) => value.clone(),
        };
        object.set(name.clone(), value);
    }
    one
}

impl Div for Val {
    type Output = Outcome;

    fn div(self, other: Val) -> Outcome {
        match (self, other) {
            (Val::Num(one), Val::Num(two)) => match (&one, &two) {
                (Number::Int(above), Number::Int(below)) if above.checked_rem(*below) == Some(0) => {
                    Ok(Val::int(above / below))
                }
                _ => Ok(Val::from(one.as_f64() / two.as_f64())),
            },
            (Val::Str(one), Val::Str(two)) if one.is_empty() => {
                drop(two);
                Ok(Val::list(Vec::new()))
            }
            (Val::Str(one), Val::Str(two)) if two.is_empty() => {
                Ok(one.chars().map(String::from).map(Val::text).collect())
            }
            (Val::Str(one), Val::Str(two)) => Ok(one.split(two.as_str()).map(Val::text).collect()),
            (one, two) => Err(Error::math(one, Math::Div, two)),
        }
    }
}

impl Rem for Val {
    type Output = Outcome;

    fn rem(self, other: Val) -> Outcome {
        match (&self, &other) {
            (Val::Num(one), Val::Num(two)) => match (one.as_int(), two.as_int()) {
                (Some(_), Some(0)) => Err(Error::math(self, Math::Rem, other)),
                (Some(one), Some(two)) => Ok(Val::int(one.checked_rem(two).unwrap_or(0))),
                _ => Ok(Val::from(one.as_f64() % two.as_f64())),
            },
            _ => Err(Error::math(self, Math::Rem, other)),
        }
    }
}

impl Neg for Val {
    type Output = Outcome;

    fn neg(self) -> Outcome {
        match self {
            Val::Num(number) => Ok(Val::Num(match &number {
                Number::Int(whole) => {
                    whole.checked_neg().map_or(Number::Float(-number.as_f64()), Number::Int)
                }
                Number::Float(_) | Number::Digits(_) => Number::Float(-number.as_f64()),
            })),
            other => Err(Error::typ(other, "number")),
        }
    }
}

/// A place in a list of so many items; places from the end are negative.
fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
    usize::try_from(index).ok()
}

fn index_of(value: &Val) -> Result<i64, Error<Val>> {
    match value {
        Val::Num(number) => {
            let float = number.as_f64();
            // As jq does, a place between two items is the one before.
            number
                .as_int()
                .or_else(|| (float.abs() < 9e15).then(|| float.floor() as i64))
                .ok_or_else(|| Error::typ(value.clone(), "whole number"))
        }
        other => Err(Error::typ(other.clone(), "whole number")),
    }
}

/// Where a slice begins and ends.
fn bounds(range: &Range<&Val>, length: usize) -> Result<(usize, usize), Error<Val>> {
    let bound = |bound: Option<&Val>, default: usize| match bound {
        None | Some(Val::Null) => Ok(default),
        Some(value) => {
            let index = index_of(value)?;
            Ok(place(index, length).unwrap_or(0).min(length))
        }
    };
    let (start, end) = (bound(range.start, 0)?, bound(range.end, length)?);
    Ok((start, end.max(start)))
}

/// The bytes of the characters from `start` to `end`.
fn characters(text: &str, start: usize, end: usize) -> (usize, usize) {
    let byte = |nth: usize| text.char_indices().nth(nth).map_or(text.len(), |(at, _)| at);
    (byte(start), byte(end))
}

impl Val {
    /// The value at an index; `None` where there is none.
    pub(super) fn at(self, index: &Val) -> Result<Option<Val>, Error<Val>> {
        match (self, index) {
            (Val::Null, Val::Num(_) | Val::Str(_) | Val::Obj(_) | Val::Null) => Ok(None),
            (Val::Obj(object), Val::Str(name)) => Ok(object.entries.get(name.as_str()).cloned()),
            (Val::Arr(list), index @ Val::Num(_)) => {
                let index = place(index_of(index)?, list.items.len());
                Ok(index.and_then(|index| list.items.get(index)).cloned())
            }
            (Val::Arr(list), Val::Arr(part)) => Ok(Some(positions(&list, part))),
            (value @ (Val::Arr(_) | Val::Str(_)), Val::Obj(range)) => {
                let (start, end) = (range.entries.get("start"), range.entries.get("end"));
                value.range(start..end).map(Some)
            }
            (value, index) => Err(Error::index(value, index.clone())),
        }
    }
}

/// Where a list stands within another.
pub(super) fn positions(list: &List, part: &List) -> Val {
    if part.items.is_empty() {
        return Val::list(Vec::new());
    }
    let windows = list.items.windows(part.items.len()).enumerate();
    windows
        .filter(|(_, window)| {
            meter::step();
            *window == part.items.as_slice()
        })
        .map(|(index, _)| Val::from(index))
        .collect()
}

impl ValT for Val {
    fn from_num(text: &str) -> ValR<Val> {
        Ok(Val::Num(Number::of_text(text)))
    }

    fn from_map<I: IntoIterator<Item = (Val, Val)>>(entries: I) -> ValR<Val> {
        let mut object = Object::new();
        for (name, value) in entries {
            match name {
                Val::Str(name) => object.set(name.as_str().into(), value),
                other => return Err(Error::typ(other, "name in an object")),
            }
        }
        Ok(Val::object(object))
    }

    fn key_values(self) -> BoxIter<'static, ValR<(Val, Val), Val>> {
        match self {
            Val::Arr(list) => {
                meter::charge(list.items.len() * 32);
                let list = Rc::unwrap_or_clone(list);
                Box::new(list.items.into_iter().enumerate().map(|(index, item)| Ok((Val::from(index), item))))
            }
            Val::Obj(object) => {
                meter::charge(object.entries.len() * 64);
                let object = Rc::unwrap_or_clone(object);
                Box::new(object.entries.into_iter().map(|(name, value)| Ok((Val::text(&*name), value))))
            }
            other => box_once(Err(Error::typ(other, ITERABLE))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR<Val>>> {
        match self {
            Val::Arr(list) => {
                meter::charge(list.items.len() * 32);
                Box::new(Rc::unwrap_or_clone(list).items.into_iter().map(Ok))
            }
            Val::Obj(object) => {
                meter::charge(object.entries.len() * 64);
                Box::new(Rc::unwrap_or_clone(object).entries.into_iter().map(|(_, value)| Ok(value)))
            }
            other => box_once(Err(Error::typ(other, ITERABLE))),
        }
    }

    fn index(self, index: &Val) -> ValR<Val> {
        Ok(self.at(index)?.unwrap_or(Val::Null))
    }

    fn range(self, range: Range<&Val>) -> ValR<Val> {
        match self {
            Val::Null => Ok(Val::Null),
            Val::Arr(list) => {
                let (start, end) = bounds(&range, list.items.len())?;
                Ok(Val::list(list.items[start..end].to_vec()))
            }
            Val::Str(text) => {
                let (start, end) = bounds(&range, text.chars().count())?;
                let (start, end) = characters(&text, start, end);
                Ok(Val::text(&text[start..end]))
            }
            other => Err(Error::typ(other, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Val>>>(
        self,
        opt: Opt,
        f: impl Fn(Val) -> I,
    ) -> ValX<'a, Val> {
        match self {
            Val::Arr(list) => {
                let items = Rc::unwrap_or_clone(list).items.into_iter().flat_map(f);
                Ok(Val::list(items.collect::<Result<_, _>>()?))
            }
            Val::Obj(object) => {
                let mut mapped = Object::new();
                for (name, value) in Rc::unwrap_or_clone(object).entries {
                    if let Some(value) = f(value).next() {
                        mapped.set(name, value?);
                    }
                }
                Ok(Val::object(mapped))
            }
            other => opt.fail(other, |other| Exn::from(Error::typ(other, ITERABLE))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Val>>>(
        self,
        index: &Val,
        opt: Opt,
        f: impl Fn(Val) -> I,
    ) -> ValX<'a, Val> {
        match (self, index) {
            (value @ (Val::Arr(_) | Val::Str(_) | Val::Null), Val::Obj(range)) => {
                let (start, end) = (range.entries.get("start"), range.entries.get("end"));
                value.map_range(start..end, opt, f)
            }
            // As in jq, an update makes the object or array that is not there.
            (Val::Null, Val::Str(_)) => Val::object(Object::new()).map_index(index, opt, f),
            (Val::Null, Val::Num(_)) => Val::list(Vec::new()).map_index(index, opt, f),
            (Val::Obj(mut object), Val::Str(name)) => {
                let held = Rc::make_mut(&mut object);
                let old = held.entries.get_mut(name.as_str()).map(std::mem::take);
                match f(old.unwrap_or_default()).next().transpose()? {
                    Some(new) => held.set(name.as_str().into(), new),
                    None => drop(held.entries.shift_remove(name.as_str())),
                }
                Ok(Val::Obj(object))
            }
            (Val::Arr(mut list), index @ Val::Num(_)) => {
                let found = index_of(index).ok().and_then(|index| place(index, list.items.len()));
                // One item may be put behind the last; further places are holes, and a number out of a message could
                // make a great many of them.
                let Some(at) = found.filter(|at| *at <= list.items.len()) else {
                    let what = format!("index {index} is out of bounds");
                    return opt.fail(Val::Arr(list), |_| Exn::from(Error::str(what)));
                };
                let held = Rc::make_mut(&mut list);
                let old = held.items.get_mut(at).map(std::mem::take);
                match f(old.unwrap_or_default()).next().transpose()? {
                    Some(new) => {
                        meter::charge(32);
                        held.took(new.depth());
                        match held.items.get_mut(at) {
                            Some(item) => *item = new,
                            None => held.items.push(new),
                        }
                    }
                    None if at < held.items.len() => drop(held.items.remove(at)),
                    None => {}
                }
                Ok(Val::Arr(list))
            }
            (value @ (Val::Obj(_) | Val::Arr(_)), index) => {
                opt.fail(value, |value| Exn::from(Error::index(value, index.clone())))
            }
            (value, _) => opt.fail(value, |value| Exn::from(Error::typ(value, ITERABLE))),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Val>>>(
        self,
        range: Range<&Val>,
        opt: Opt,
        f: impl Fn(Val) -> I,
    ) -> ValX<'a, Val> {
        match self {
            Val::Arr(list) => {
                let (start, end) = match bounds(&range, list.items.len()) {
                    Ok(found) => found,
                    Err(error) => return opt.fail(Val::Arr(list), |_| Exn::from(error)),
                };
                let part = Val::list(list.items[start..end].to_vec());
                let new = match f(part).next().transpose()? {
                    None => Vec::new(),
                    Some(Val::Arr(new)) => new.items.clone(),
                    Some(other) => return Err(Exn::from(Error::typ(other, "array"))),
                };
                let mut items = Rc::unwrap_or_clone(list).items;
                items.splice(start..end, new);
                Ok(Val::list(items))
            }
            other => opt.fail(other, |other| Exn::from(Error::typ(other, "array"))),
        }
    }

    fn as_bool(&self) -> bool {
        self.is_true()
    }

    fn into_string(self) -> Val {
        match self {
            Val::Str(_) => self,
            other => Val::text(other.json_text()),
        }
    }
}

impl jaq_std::ValT for Val {
    fn into_seq<S: FromIterator<Val>>(self) -> Result<S, Val> {
        match self {
            Val::Arr(list) => {
                meter::charge(list.items.len() * 32);
                Ok(Rc::unwrap_or_clone(list).items.into_iter().collect())
            }
            other => Err(other),
        }
    }

    fn is_int(&self) -> bool {
        self.as_isize().is_some()
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Val::Num(number) => number.as_int().and_then(|whole| isize::try_from(whole).ok()),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        match self {
            Val::Num(number) => Some(number.as_f64()),
            _ => None,
        }
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Val::Str(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Val::Str(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    fn as_sub_str(&self, part: &[u8]) -> Val {
        Val::text(String::from_utf8_lossy(part))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Val {
        Val::text(String::from_utf8_lossy(bytes.as_ref()))
    }
}
