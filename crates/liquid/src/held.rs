//! Values while a template runs: those of the row, still borrowed, and those made on the way.

use std::rc::Rc;

use crate::calendar;
use crate::expression::Literal;
use crate::json::{self, Kind};
use crate::value::{Array, Object, Val};

/// How deep containers are copied, compared and flattened.
pub(crate) const DEPTH_MAX: usize = 64;

#[derive(Clone)]
pub(crate) enum Held<'r> {
    Nil,
    Bool(bool),
    Int(i128),
    Float(f64),
    Decimal(Text<'r>),
    Str(Text<'r>),
    Bytes(&'r [u8]),
    OwnBytes(Rc<[u8]>),
    Date(i32),
    Time(i64),
    DateTime(i64),
    Timestamp(i64, i16),
    Uuid([u8; 16]),
    /// The JSON text of an array or an object.
    Json(Text<'r>),
    /// What the `json` filter made: JSON text that is embedded where a value stands.
    Written(Text<'r>),
    Array(&'r dyn Array),
    Object(&'r dyn Object),
    List(Rc<Vec<Held<'r>>>),
    Map(Rc<Vec<(Rc<str>, Held<'r>)>>),
    /// Both ends belong to it.
    Range(i64, i64),
    Blank,
    Empty,
}

#[derive(Clone)]
pub(crate) enum Text<'r> {
    Borrowed(&'r str),
    Own(Rc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Own(text) => text,
        }
    }
}

impl<'r> From<Val<'r>> for Held<'r> {
    fn from(val: Val<'r>) -> Self {
        match val {
            Val::Nil => Self::Nil,
            Val::Bool(on) => Self::Bool(on),
            Val::Int(int) => Self::Int(int.into()),
            Val::UInt(int) => Self::Int(int.into()),
            Val::Float(float) => Self::Float(float),
            Val::Decimal(digits) => Self::Decimal(Text::Borrowed(digits)),
            Val::Str(text) => Self::Str(Text::Borrowed(text)),
            Val::Bytes(bytes) => Self::Bytes(bytes),
            Val::Date { days } => Self::Date(days),
            Val::Time { micros } => Self::Time(micros),
            Val::DateTime { micros } => Self::DateTime(micros),
            Val::Timestamp { micros, offset_minutes } => Self::Timestamp(micros, offset_minutes),
            Val::Uuid(uuid) => Self::Uuid(uuid),
            Val::Json(text) => Self::from_json(Text::Borrowed(text)),
            Val::Array(array) => Self::Array(array),
            Val::Object(object) => Self::Object(object),
        }
    }
}

impl<'r> Held<'r> {
    pub fn own_str(text: impl Into<Rc<str>>) -> Self {
        Self::Str(Text::Own(text.into()))
    }

    pub fn list(items: Vec<Held<'r>>) -> Self {
        Self::List(Rc::new(items))
    }

    pub fn literal(literal: &'r Literal) -> Self {
        match literal {
            Literal::Nil => Self::Nil,
            Literal::Bool(on) => Self::Bool(*on),
            Literal::Int(int) => Self::Int((*int).into()),
            Literal::Float(float) => Self::Float(*float),
            Literal::Str(text) => Self::Str(Text::Borrowed(text)),
            Literal::Blank => Self::Blank,
            Literal::Empty => Self::Empty,
        }
    }

    /// Scalars in JSON text become plain values; arrays and objects stay text, and so does what is no
    /// JSON after all, for the place that writes it to refuse.
    pub fn from_json(text: Text<'r>) -> Self {
        let kind = json::kind(&text);
        let scalar = !matches!(kind, Kind::Array | Kind::Object);
        if scalar && (json::validate(text.as_bytes()).is_err() || text.contains("\\u")) {
            // A lone surrogate is JSON but has no text; only a full reader can tell.
            return match serde_json::from_str::<String>(&text) {
                Ok(text) => Self::own_str(text),
                Err(_) => Self::Json(text),
            };
        }
        match kind {
            Kind::Null => Self::Nil,
            Kind::Bool(on) => Self::Bool(on),
            Kind::Array | Kind::Object => Self::Json(text),
            Kind::Number => match text.trim().parse::<i128>() {
                Ok(int) => Self::Int(int),
                Err(_) => Self::Decimal(text),
            },
            Kind::String => match text {
                Text::Borrowed(text) => match json::unescape(text) {
                    std::borrow::Cow::Borrowed(text) => Self::Str(Text::Borrowed(text)),
                    std::borrow::Cow::Owned(text) => Self::own_str(text),
                },
                Text::Own(text) => Self::own_str(&*json::unescape(&text)),
            },
        }
    }

    /// A slice of JSON text that lies in `whole`, without a copy when that is borrowed.
    pub fn json_part(
        whole: &Text<'r>,
        part: impl for<'t> FnOnce(&'t str) -> Option<&'t str>,
    ) -> Option<Self> {
        Some(match whole {
            Text::Borrowed(text) => Self::from_json(Text::Borrowed(part(text)?)),
            Text::Own(text) => Self::from_json(Text::Own(Rc::from(part(text)?))),
        })
    }

    /// A copy of a value that is about to go away, as the elements of an array do.
    pub fn copy(val: Val<'_>, depth: usize) -> Held<'static> {
        match val {
            Val::Nil => Held::Nil,
            Val::Bool(on) => Held::Bool(on),
            Val::Int(int) => Held::Int(int.into()),
            Val::UInt(int) => Held::Int(int.into()),
            Val::Float(float) => Held::Float(float),
            Val::Decimal(digits) => Held::Decimal(Text::Own(digits.into())),
            Val::Str(text) => Held::own_str(text),
            Val::Bytes(bytes) => Held::OwnBytes(bytes.into()),
            Val::Date { days } => Held::Date(days),
            Val::Time { micros } => Held::Time(micros),
            Val::DateTime { micros } => Held::DateTime(micros),
            Val::Timestamp { micros, offset_minutes } => Held::Timestamp(micros, offset_minutes),
            Val::Uuid(uuid) => Held::Uuid(uuid),
            Val::Json(text) => Held::from_json(Text::Own(text.into())),
            // Deeper than anything sensible: what is left out would only be looked at by hand.
            Val::Array(_) | Val::Object(_) if depth >= DEPTH_MAX => Held::Nil,
            Val::Array(array) => {
                let mut items = Vec::with_capacity(array.len().min(1024));
                for i in 0..array.len() {
                    array.get(i, &mut |val| items.push(Held::copy(val, depth + 1)));
                }
                Held::list(items)
            }
            Val::Object(object) => {
                let entries = (0..object.len()).filter_map(|i| object.entry(i));
                let copied = entries.map(|(name, val)| (Rc::from(name), Held::copy(val, depth + 1)));
                Held::Map(Rc::new(copied.collect()))
            }
        }
    }

    pub fn is_truthy(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// Zero-length text, arrays and objects.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Str(text) => text.is_empty(),
            Self::Json(text) => json::elements(text).next().is_none(),
            Self::Array(array) => array.is_empty(),
            Self::Object(object) => object.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Map(entries) => entries.is_empty(),
            Self::Range(from, to) => from > to,
            _ => false,
        }
    }

    /// Empty, nil, false, or nothing but white space.
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Nil | Self::Bool(false) => true,
            Self::Str(text) => text.chars().all(char::is_whitespace),
            other => other.is_empty(),
        }
    }

    pub fn is_array(&self) -> bool {
        match self {
            Self::Array(_) | Self::List(_) | Self::Range(..) => true,
            Self::Json(text) => json::kind(text) == Kind::Array,
            _ => false,
        }
    }

    pub fn is_object(&self) -> bool {
        match self {
            Self::Object(_) | Self::Map(_) => true,
            Self::Json(text) => json::kind(text) == Kind::Object,
            _ => false,
        }
    }

    /// The value as text, the way the reference prints it.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Str(text) | Self::Written(text) | Self::Json(text) | Self::Decimal(text) => {
                (&**text).into()
            }
            Self::Nil | Self::Blank | Self::Empty => "".into(),
            _ => {
                let mut out = Vec::new();
                self.write_text(&mut out, 0);
                String::from_utf8_lossy(&out).into_owned().into()
            }
        }
    }

    /// Like [`text`](Self::text), into a buffer.
    pub fn write_text(&self, out: &mut Vec<u8>, depth: usize) {
        match self {
            Self::Nil | Self::Blank | Self::Empty => {}
            Self::Bool(on) => out.extend_from_slice(if *on { b"true" } else { b"false" }),
            Self::Int(int) => json::write_int(*int, out),
            Self::Float(float) => write_float(*float, out),
            Self::Str(text) | Self::Written(text) | Self::Json(text) | Self::Decimal(text) => {
                out.extend_from_slice(text.as_bytes());
            }
            Self::Bytes(bytes) => json::write_base64(bytes, out),
            Self::OwnBytes(bytes) => json::write_base64(bytes, out),
            Self::Date(days) => calendar::write_date((*days).into(), out),
            Self::Time(micros) => calendar::write_time(*micros, out),
            Self::DateTime(micros) => calendar::write_date_time(*micros, out),
            Self::Timestamp(micros, offset) => calendar::write_timestamp(*micros, *offset, out),
            Self::Uuid(uuid) => json::write_uuid(*uuid, out),
            Self::Array(array) if depth < DEPTH_MAX => {
                for i in 0..array.len() {
                    array.get(i, &mut |val| Held::from(val).write_text(out, depth + 1));
                }
            }
            Self::List(items) if depth < DEPTH_MAX => {
                items.iter().for_each(|item| item.write_text(out, depth + 1));
            }
            Self::Array(_) | Self::List(_) => {}
            Self::Range(from, to) => out.extend_from_slice(format!("{from}..{to}").as_bytes()),
            Self::Object(_) | Self::Map(_) => {
                let start = out.len();
                if self.write_json(out).is_err() {
                    out.truncate(start);
                }
            }
        }
    }

    /// The value as one JSON value.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), json::ValueError> {
        let val = match self {
            Self::Nil => Val::Nil,
            Self::Bool(on) => Val::Bool(*on),
            Self::Int(int) => {
                json::write_int(*int, out);
                return Ok(());
            }
            Self::Float(float) => Val::Float(*float),
            Self::Decimal(digits) => Val::Decimal(digits),
            Self::Str(text) => Val::Str(text),
            Self::Blank | Self::Empty => Val::Str(""),
            Self::Bytes(bytes) => Val::Bytes(bytes),
            Self::OwnBytes(bytes) => Val::Bytes(bytes),
            Self::Date(days) => Val::Date { days: *days },
            Self::Time(micros) => Val::Time { micros: *micros },
            Self::DateTime(micros) => Val::DateTime { micros: *micros },
            Self::Timestamp(micros, offset) => Val::Timestamp { micros: *micros, offset_minutes: *offset },
            Self::Uuid(uuid) => Val::Uuid(*uuid),
            Self::Json(text) => Val::Json(text),
            Self::Written(text) => {
                out.extend_from_slice(text.as_bytes());
                return Ok(());
            }
            Self::Array(array) => Val::Array(*array),
            Self::Object(object) => Val::Object(*object),
            Self::List(items) => return write_items(items.iter(), out),
            Self::Range(from, to) => {
                return write_items((*from..=*to).map(|i| Held::Int(i.into())), out);
            }
            Self::Map(entries) => {
                out.push(b'{');
                for (i, (name, value)) in entries.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    json::write_string(name, out);
                    out.push(b':');
                    value.write_json(out)?;
                }
                out.push(b'}');
                return Ok(());
            }
        };
        json::write_value(val, out)
    }
}

fn write_items<'r: 'i, 'i, I>(
    items: impl Iterator<Item = I>,
    out: &mut Vec<u8>,
) -> Result<(), json::ValueError>
where
    I: std::borrow::Borrow<Held<'r>> + 'i,
{
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item.borrow().write_json(out)?;
    }
    out.push(b']');
    Ok(())
}

/// As Ruby prints a float: `1.0`, `1.0e+20`, `1.0e-05`.
fn write_float(float: f64, out: &mut Vec<u8>) {
    if !float.is_finite() {
        let text = if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let point = if mantissa.contains('.') { "" } else { ".0" };
        out.extend_from_slice(format!("{mantissa}{point}e{exponent:+03}").as_bytes());
        return;
    }
    let text = format!("{float:?}");
    out.extend_from_slice(text.as_bytes());
}
