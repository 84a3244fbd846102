//! Filters on arrays. Arrays within arrays are unfolded first; any other value is an array of itself.

use std::cmp::Ordering;

use super::{Given, Refusal, Work};
use crate::compare::{equal, kind_of, order};
use crate::held::Held;
use crate::list;
use crate::number::Number;

type Result<'r> = std::result::Result<Held<'r>, Refusal>;

fn items<'r>(input: &Held<'r>, work: &mut Work<'_>) -> std::result::Result<Vec<Held<'r>>, Refusal> {
    if input.is_array() {
        work.charge(list::len(input))?;
    }
    let items = list::unfolded(input);
    work.charge(items.len())?;
    Ok(items)
}

pub(super) fn first<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    match input {
        Held::Str(text) => character(text.chars().next()),
        other => list::special(other, "first"),
    }
}

pub(super) fn last<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    match input {
        Held::Str(text) => character(text.chars().next_back()),
        other => list::special(other, "last"),
    }
}

fn character<'r>(c: Option<char>) -> Held<'r> {
    Held::own_str(c.map(String::from).unwrap_or_default())
}

pub(super) fn size<'r>(input: &Held<'r>, _: &Given<'r>) -> Held<'r> {
    match list::special(input, "size") {
        Held::Nil => Held::Int(0),
        size => size,
    }
}

pub(super) fn join<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let glue = given.get(0).map_or(" ".into(), Held::text);
    let mut out = Vec::new();
    for (i, item) in items(input, work)?.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(glue.as_bytes());
        }
        item.write_text(&mut out, 0);
        work.bytes(out.len())?;
    }
    Ok(Held::own_str(String::from_utf8_lossy(&out)))
}

pub(super) fn reverse<'r>(input: &Held<'r>, _: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut items = items(input, work)?;
    items.reverse();
    Ok(Held::list(items))
}

pub(super) fn concat<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let other = given.get(0).unwrap_or(&Held::Nil);
    if !other.is_array() {
        return Err(Refusal::Arguments(format!("`concat` takes an array, not {}", kind_of(other))));
    }
    let mut all = items(input, work)?;
    all.extend(items(other, work)?);
    Ok(Held::list(all))
}

/// What a filter that looks at a property finds in an item.
enum Property<'r> {
    Value(Held<'r>),
    /// Nil and booleans have no properties; the reference then answers nil to the whole filter.
    None,
}

fn property<'r>(item: &Held<'r>, name: &Held<'r>) -> std::result::Result<Property<'r>, Refusal> {
    match item {
        Held::Nil | Held::Bool(_) | Held::Blank | Held::Empty => Ok(Property::None),
        // Text has the texts in it for properties.
        Held::Str(text) => match name {
            Held::Str(part) if text.contains(&**part) => Ok(Property::Value(name.clone())),
            Held::Str(_) => Ok(Property::Value(Held::Nil)),
            _ => Err(cannot_select(name)),
        },
        _ if item.is_object() => Ok(Property::Value(match name {
            Held::Str(name) => list::member(item, name).unwrap_or(Held::Nil),
            _ => Held::Nil,
        })),
        _ => Err(cannot_select(name)),
    }
}

fn cannot_select(name: &Held<'_>) -> Refusal {
    Refusal::Cannot(format!("cannot select the property {:?}", name.text()))
}

/// The items a `where`, `find` or the like selects: one answer each. `None` as a whole when an item
/// has no properties.
fn selected<'r>(items: &[Held<'r>], given: &Given<'r>) -> std::result::Result<Option<Vec<bool>>, Refusal> {
    let name = given.get(0).unwrap_or(&Held::Nil);
    let mut answers = Vec::with_capacity(items.len());
    for item in items {
        let Property::Value(value) = property(item, name)? else {
            return Ok(None);
        };
        answers.push(match given.some(1) {
            Some(target) => equal(&value, target),
            None => value.is_truthy(),
        });
    }
    Ok(Some(answers))
}

fn filtered<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>, keep: bool) -> Result<'r> {
    let items = items(input, work)?;
    let Some(answers) = selected(&items, given)? else {
        return Ok(Held::Nil);
    };
    let kept = items.into_iter().zip(answers).filter(|(_, answer)| *answer == keep);
    Ok(Held::list(kept.map(|(item, _)| item).collect()))
}

pub(super) fn where_<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    filtered(input, given, work, true)
}

pub(super) fn reject<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    filtered(input, given, work, false)
}

fn position<'r>(items: &[Held<'r>], given: &Given<'r>) -> std::result::Result<Option<usize>, Refusal> {
    Ok(selected(items, given)?.and_then(|answers| answers.iter().position(|answer| *answer)))
}

pub(super) fn find<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let items = items(input, work)?;
    Ok(position(&items, given)?.map_or(Held::Nil, |i| items[i].clone()))
}

pub(super) fn find_index<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let items = items(input, work)?;
    Ok(position(&items, given)?.map_or(Held::Nil, |i| Held::Int(i as i128)))
}

pub(super) fn has<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let items = items(input, work)?;
    Ok(selected(&items, given)?.map_or(Held::Nil, |answers| Held::Bool(answers.contains(&true))))
}

pub(super) fn map<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let name = given.get(0).unwrap_or(&Held::Nil);
    let mut mapped = Vec::new();
    for item in items(input, work)? {
        mapped.push(match property(&item, name)? {
            Property::Value(value) => value,
            Property::None => Held::Nil,
        });
    }
    Ok(Held::list(mapped))
}

pub(super) fn sum<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut sum = Number::Int(0);
    for item in items(input, work)? {
        let value = match given.some(0) {
            None => item,
            Some(name) => match property(&item, name)? {
                Property::Value(value) => value,
                Property::None => Held::Nil,
            },
        };
        sum = sum.plus(Number::of(&value))?;
    }
    Ok(sum.held())
}

/// Each item with the value it is judged by: the property, or itself.
fn keyed<'r>(
    input: &Held<'r>,
    given: &Given<'r>,
    work: &mut Work<'_>,
) -> std::result::Result<Vec<(Held<'r>, Held<'r>)>, Refusal> {
    let mut keyed = Vec::new();
    for item in items(input, work)? {
        let key = match given.some(0) {
            None => item.clone(),
            Some(name) => match property(&item, name)? {
                Property::Value(value) => value,
                Property::None => Held::Nil,
            },
        };
        keyed.push((key, item));
    }
    Ok(keyed)
}

fn unkeyed<'r>(keyed: Vec<(Held<'r>, Held<'r>)>) -> Held<'r> {
    Held::list(keyed.into_iter().map(|(_, item)| item).collect())
}

pub(super) fn compact<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut keyed = keyed(input, given, work)?;
    keyed.retain(|(key, _)| !matches!(key, Held::Nil));
    Ok(unkeyed(keyed))
}

pub(super) fn uniq<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut kept: Vec<(Held<'r>, Held<'r>)> = Vec::new();
    for (key, item) in keyed(input, given, work)? {
        work.charge(kept.len() / 16)?;
        if !kept.iter().any(|(held, _)| equal(held, &key)) {
            kept.push((key, item));
        }
    }
    Ok(unkeyed(kept))
}

/// Nil comes last.
pub(super) fn sort<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut keyed = keyed(input, given, work)?;
    let mut refused = None;
    merge_sort(&mut keyed, &mut |(left, _), (right, _)| match (left, right) {
        (Held::Nil, Held::Nil) => Ordering::Equal,
        (Held::Nil, _) => Ordering::Greater,
        (_, Held::Nil) => Ordering::Less,
        _ => order(left, right).ok().flatten().unwrap_or_else(|| {
            refused = Some(format!("cannot sort {} among {}", kind_of(right), kind_of(left)));
            Ordering::Equal
        }),
    });
    match refused {
        Some(message) if !work.lax => Err(Refusal::Cannot(message)),
        _ => Ok(unkeyed(keyed)),
    }
}

/// By text, capitals and small letters alike; nil comes last.
pub(super) fn sort_natural<'r>(input: &Held<'r>, given: &Given<'r>, work: &mut Work<'_>) -> Result<'r> {
    let mut keyed = keyed(input, given, work)?;
    keyed.sort_by_cached_key(|(key, _)| (matches!(key, Held::Nil), key.text().to_ascii_lowercase()));
    Ok(unkeyed(keyed))
}

/// A stable sort that takes whatever the comparison says: the library's own may panic when values of
/// mixed kinds are in no consistent order.
fn merge_sort<T: Clone>(items: &mut [T], compare: &mut impl FnMut(&T, &T) -> Ordering) {
    if items.len() < 2 {
        return;
    }
    let (left, right) = items.split_at_mut(items.len() / 2);
    merge_sort(left, compare);
    merge_sort(right, compare);
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if compare(&left[i], &right[j]).is_gt() {
            merged.push(right[j].clone());
            j += 1;
        } else {
            merged.push(left[i].clone());
            i += 1;
        }
    }
    merged.extend_from_slice(&left[i..]);
    merged.extend_from_slice(&right[j..]);
    items.clone_from_slice(&merged);
}
