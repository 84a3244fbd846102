//! Arrays and objects of every make, seen alike.

use std::rc::Rc;

use crate::held::{DEPTH_MAX, Held, Text};
use crate::json::{self, Kind};

/// How many items an array has, or entries an object.
pub(crate) fn len(held: &Held<'_>) -> usize {
    match held {
        Held::Array(array) => array.len(),
        Held::List(items) => items.len(),
        Held::Range(from, to) => range_len(*from, *to),
        Held::Object(object) => object.len(),
        Held::Map(entries) => entries.len(),
        Held::Json(text) => json::elements(text).count(),
        _ => 0,
    }
}

pub(crate) fn range_len(from: i64, to: i64) -> usize {
    let count = i128::from(to) - i128::from(from) + 1;
    usize::try_from(count.max(0)).unwrap_or(usize::MAX)
}

/// Item `i` of an array; nil past its end.
pub(crate) fn at<'r>(held: &Held<'r>, i: usize) -> Held<'r> {
    match held {
        Held::Array(array) => {
            let mut item = Held::Nil;
            array.get(i, &mut |val| item = Held::copy(val, 0));
            item
        }
        Held::List(items) => items.get(i).cloned().unwrap_or(Held::Nil),
        Held::Range(from, to) if i < range_len(*from, *to) => Held::Int(i128::from(*from) + i as i128),
        Held::Json(text) if json::kind(text) == Kind::Array => {
            Held::json_part(text, |text| json::elements(text).nth(i).map(|(_, value)| value))
                .unwrap_or(Held::Nil)
        }
        _ => Held::Nil,
    }
}

/// Item `i`, counted from the end when negative.
pub(crate) fn index<'r>(held: &Held<'r>, i: i128) -> Held<'r> {
    if !held.is_array() {
        return Held::Nil;
    }
    let i = if i < 0 { i + len(held) as i128 } else { i };
    usize::try_from(i).map_or(Held::Nil, |i| at(held, i))
}

/// All items of an array; nothing of anything else.
pub(crate) fn items<'r>(held: &Held<'r>) -> Vec<Held<'r>> {
    match held {
        Held::List(items) => items.to_vec(),
        Held::Json(text) if json::kind(text) == Kind::Array => {
            parts(text).into_iter().map(|(_, value)| value).collect()
        }
        Held::Array(_) | Held::Range(..) => (0..len(held)).map(|i| at(held, i)).collect(),
        _ => Vec::new(),
    }
}

/// All entries of an object; nothing of anything else.
pub(crate) fn entries<'r>(held: &Held<'r>) -> Vec<(Rc<str>, Held<'r>)> {
    match held {
        Held::Object(object) => {
            let object = *object;
            let entries = (0..object.len()).filter_map(|i| object.entry(i));
            entries.map(|(name, val)| (Rc::from(name), Held::from(val))).collect()
        }
        Held::Map(entries) => entries.to_vec(),
        Held::Json(text) if json::kind(text) == Kind::Object => parts(text),
        _ => Vec::new(),
    }
}

/// The elements or members of JSON text.
fn parts<'r>(text: &Text<'r>) -> Vec<(Rc<str>, Held<'r>)> {
    match text {
        Text::Borrowed(text) => json::elements(text)
            .map(|(name, value)| (Rc::from(&*json::unescape(name)), Held::from_json(Text::Borrowed(value))))
            .collect(),
        Text::Own(text) => json::elements(text)
            .map(|(name, value)| {
                (Rc::from(&*json::unescape(name)), Held::from_json(Text::Own(Rc::from(value))))
            })
            .collect(),
    }
}

/// An entry as loops and `first` hand it out: name and value.
pub(crate) fn pair(name: Rc<str>, value: Held<'_>) -> Held<'_> {
    Held::list(vec![Held::Str(Text::Own(name)), value])
}

/// The member `name` of an object.
pub(crate) fn member<'r>(held: &Held<'r>, name: &str) -> Option<Held<'r>> {
    match held {
        Held::Object(object) => {
            let object = *object;
            object.get(name).map(Held::from)
        }
        Held::Map(entries) => {
            entries.iter().find(|(held, _)| **held == *name).map(|(_, value)| value.clone())
        }
        Held::Json(text) => Held::json_part(text, |text| json::member(text, name)),
        _ => None,
    }
}

/// `size`, `first` and `last` behind a dot.
pub(crate) fn special<'r>(held: &Held<'r>, name: &str) -> Held<'r> {
    match name {
        "size" => match held {
            Held::Str(text) => Held::Int(text.chars().count() as i128),
            _ if held.is_array() || held.is_object() => Held::Int(len(held) as i128),
            _ => Held::Nil,
        },
        "first" if held.is_object() => {
            entries(held).into_iter().next().map_or(Held::Nil, |(name, value)| pair(name, value))
        }
        "first" => index(held, 0),
        "last" => index(held, -1),
        _ => Held::Nil,
    }
}

/// What array filters go through: the items with arrays within them unfolded, an object as itself,
/// nothing for nil, and any other value as the only item.
pub(crate) fn unfolded<'r>(held: &Held<'r>) -> Vec<Held<'r>> {
    let mut all = Vec::new();
    match held {
        Held::Nil | Held::Blank | Held::Empty => {}
        _ if held.is_array() => unfold(held, &mut all, 0),
        other => all.push(other.clone()),
    }
    all
}

fn unfold<'r>(held: &Held<'r>, all: &mut Vec<Held<'r>>, depth: usize) {
    for item in items(held) {
        if item.is_array() && depth < DEPTH_MAX {
            unfold(&item, all, depth + 1);
        } else {
            all.push(item);
        }
    }
}
