//! The values that expressions compute with.
//!
//! JSON values with shared parts. Text is always UTF-8, an object's keys are texts and keep their order, and every container
//! knows how deep it is, so that nothing deeper than the meter allows is ever made, compared or dropped.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value;

use super::meter;
use super::number::Number;

/// Bytes of a value beside its content.
const VALUE_BYTES: usize = 32;
/// Characters of a value in an error.
const SHOWN_CHARS_MAX: usize = 80;

/// A value.
#[derive(Debug, Clone, Default)]
pub enum Val {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Num(Number),
    /// A text.
    Str(Rc<String>),
    /// Values in order.
    Arr(Rc<List>),
    /// Values by name.
    Obj(Rc<Object>),
}

/// Values in order.
#[derive(Debug, Clone)]
pub struct List {
    /// The values.
    pub(super) items: Vec<Val>,
    depth: u32,
}

/// Values by name, in order.
#[derive(Debug, Clone)]
pub struct Object {
    /// The values.
    pub(super) entries: IndexMap<Rc<str>, Val>,
    depth: u32,
}

impl List {
    /// A list; ends the evaluation where it would be too deep.
    pub fn new(items: Vec<Val>) -> List {
        meter::charge(items.len() * VALUE_BYTES);
        let depth = items.iter().map(Val::depth).max().unwrap_or(0) + 1;
        meter::deepen(depth);
        List { items, depth }
    }

    /// Notes a value that was put into it.
    pub(super) fn took(&mut self, depth: u32) {
        self.depth = self.depth.max(depth + 1);
        meter::deepen(self.depth);
    }
}

impl Object {
    /// An empty object.
    pub fn new() -> Object {
        Object { entries: IndexMap::new(), depth: 1 }
    }

    /// Sets a value.
    pub fn set(&mut self, name: Rc<str>, value: Val) {
        meter::charge(VALUE_BYTES * 2);
        self.depth = self.depth.max(value.depth() + 1);
        meter::deepen(self.depth);
        self.entries.insert(name, value);
    }
}

impl Val {
    /// A text.
    pub fn text(text: impl Into<String>) -> Val {
        let text = text.into();
        meter::charge(text.len());
        Val::Str(Rc::new(text))
    }

    /// A whole number.
    pub fn int(number: i64) -> Val {
        Val::Num(Number::Int(number))
    }

    /// A list.
    pub fn list(items: Vec<Val>) -> Val {
        Val::Arr(Rc::new(List::new(items)))
    }

    /// An object.
    pub fn object(object: Object) -> Val {
        Val::Obj(Rc::new(object))
    }

    /// How many containers it is, in depth.
    pub fn depth(&self) -> u32 {
        match self {
            Val::Null | Val::Bool(_) | Val::Num(_) | Val::Str(_) => 0,
            Val::Arr(list) => list.depth,
            Val::Obj(object) => object.depth,
        }
    }

    /// Whether it counts as true.
    pub fn is_true(&self) -> bool {
        !matches!(self, Val::Null | Val::Bool(false))
    }

    /// From JSON. Deeper JSON than the meter allows ends the evaluation.
    pub fn of_json(json: &Value) -> Val {
        match json {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(*value),
            Value::Number(number) => Val::Num(match number.as_i64() {
                Some(whole) => Number::Int(whole),
                None => Number::of_text(&number.to_string()),
            }),
            Value::String(text) => Val::text(text.as_str()),
            Value::Array(items) => Val::list(items.iter().map(Val::of_json).collect()),
            Value::Object(entries) => {
                let mut object = Object::new();
                for (name, value) in entries {
                    object.set(name.as_str().into(), Val::of_json(value));
                }
                Val::object(object)
            }
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// It holds NaN or an infinity, which JSON cannot hold.
    pub fn to_json(&self) -> Result<Value, NotFinite> {
        Ok(match self {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(*value),
            Val::Num(number) => {
                let text = number.to_text().ok_or(NotFinite)?;
                Value::Number(serde_json::from_str(&text).map_err(|_| NotFinite)?)
            }
            Val::Str(text) => {
                meter::charge(text.len());
                Value::String(text.as_ref().clone())
            }
            Val::Arr(list) => {
                meter::charge(list.items.len() * VALUE_BYTES);
                Value::Array(list.items.iter().map(Val::to_json).collect::<Result<_, _>>()?)
            }
            Val::Obj(object) => {
                let mut entries = serde_json::Map::new();
                for (name, value) in &object.entries {
                    meter::charge(name.len() + 2 * VALUE_BYTES);
                    entries.insert(name.to_string(), value.to_json()?);
                }
                Value::Object(entries)
            }
        })
    }

    /// As JSON text; NaN and the infinities as jq writes them.
    pub fn write(&self, out: &mut String, bytes_max: usize) {
        if out.len() >= bytes_max {
            return;
        }
        match self {
            Val::Null => out.push_str("null"),
            Val::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Val::Num(number) => match number.to_text() {
                Some(text) => out.push_str(&text),
                None if number.as_f64().is_nan() => out.push_str("null"),
                None if number.as_f64() > 0.0 => out.push_str("1.7976931348623157e+308"),
                None => out.push_str("-1.7976931348623157e+308"),
            },
            Val::Str(text) => write_text(text, out),
            Val::Arr(list) => {
                out.push('[');
                for (index, item) in list.items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out, bytes_max);
                    if out.len() >= bytes_max {
                        return;
                    }
                }
                out.push(']');
            }
            Val::Obj(object) => {
                out.push('{');
                for (index, (name, value)) in object.entries.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(out, bytes_max);
                    if out.len() >= bytes_max {
                        return;
                    }
                }
                out.push('}');
            }
        }
    }

    /// The whole of it as JSON text.
    pub fn json_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, usize::MAX);
        meter::charge(out.len());
        out
    }
}

/// NaN or an infinity where JSON is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite;

fn write_text(text: &str, out: &mut String) {
    match serde_json::to_string(text) {
        Ok(quoted) => out.push_str(&quoted),
        // A text is always serialised.
        Err(_) => out.push_str("\"\""),
    }
}

impl fmt::Display for Val {
    /// For errors: cut where it is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Val::Str(text) = self
            && text.chars().nth(SHOWN_CHARS_MAX).is_none()
        {
            return write!(f, "{text}");
        }
        let mut out = String::new();
        self.write(&mut out, SHOWN_CHARS_MAX * 4);
        match out.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((at, _)) => write!(f, "{}…", &out[..at]),
            None => f.write_str(&out),
        }
    }
}

/// The order of kinds: null, false and true, numbers, texts, lists, objects.
fn rank(value: &Val) -> u8 {
    match value {
        Val::Null => 0,
        Val::Bool(_) => 1,
        Val::Num(_) => 2,
        Val::Str(_) => 3,
        Val::Arr(_) => 4,
        Val::Obj(_) => 5,
    }
}

impl Ord for Val {
    fn cmp(&self, other: &Val) -> Ordering {
        match (self, other) {
            (Val::Bool(one), Val::Bool(two)) => one.cmp(two),
            (Val::Num(one), Val::Num(two)) => one.cmp(two),
            (Val::Str(one), Val::Str(two)) => one.cmp(two),
            (Val::Arr(one), Val::Arr(two)) => one.items.cmp(&two.items),
            (Val::Obj(one), Val::Obj(two)) => {
                let sorted = |object: &Object| {
                    let mut entries: Vec<(Rc<str>, Val)> =
                        object.entries.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                    entries.sort_by(|one, two| one.0.cmp(&two.0));
                    entries
                };
                let (one, two) = (sorted(one), sorted(two));
                let names = one.iter().map(|entry| &entry.0).cmp(two.iter().map(|entry| &entry.0));
                names.then_with(|| one.iter().map(|entry| &entry.1).cmp(two.iter().map(|entry| &entry.1)))
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl PartialOrd for Val {
    fn partial_cmp(&self, other: &Val) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Val {
    fn eq(&self, other: &Val) -> bool {
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(one), Val::Bool(two)) => one == two,
            (Val::Num(one), Val::Num(two)) => one == two,
            (Val::Str(one), Val::Str(two)) => one == two,
            (Val::Arr(one), Val::Arr(two)) => one.items == two.items,
            (Val::Obj(one), Val::Obj(two)) => one.entries == two.entries,
            _ => false,
        }
    }
}

impl Eq for Val {}

impl From<bool> for Val {
    fn from(value: bool) -> Val {
        Val::Bool(value)
    }
}

impl From<isize> for Val {
    fn from(number: isize) -> Val {
        Val::int(number as i64)
    }
}

impl From<usize> for Val {
    fn from(number: usize) -> Val {
        Val::Num(i64::try_from(number).map_or(Number::Float(number as f64), Number::Int))
    }
}

impl From<f64> for Val {
    fn from(number: f64) -> Val {
        Val::Num(Number::Float(number))
    }
}

impl From<String> for Val {
    fn from(text: String) -> Val {
        Val::text(text)
    }
}

impl From<jaq_core::val::Range<Val>> for Val {
    fn from(range: jaq_core::val::Range<Val>) -> Val {
        let mut object = Object::new();
        for (name, bound) in [("start", range.start), ("end", range.end)] {
            if let Some(bound) = bound {
                object.set(name.into(), bound);
            }
        }
        Val::object(object)
    }
}

impl FromIterator<Val> for Val {
    fn from_iter<I: IntoIterator<Item = Val>>(items: I) -> Val {
        let mut list = Vec::new();
        for item in items {
            meter::charge(VALUE_BYTES);
            list.push(item);
        }
        Val::list(list)
    }
}
