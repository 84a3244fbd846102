//! Rows and globals made from JSON text, with `{"$decimal": "1.50"}` and the like for what JSON lacks.

use warren_liquid::{Array, Globals, Object, Val};

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Decimal(String),
    Str(String),
    Bytes(Vec<u8>),
    Date(i32),
    Time(i64),
    DateTime(i64),
    Timestamp(i64, i16),
    Uuid([u8; 16]),
    Json(String),
    List(Items),
    Map(Entries),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Items(pub Vec<Data>);

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Entries(pub Vec<(String, Data)>);

impl Array for Items {
    fn len(&self) -> usize {
        self.0.len()
    }
    fn get(&self, i: usize, f: &mut dyn FnMut(Val<'_>)) {
        if let Some(data) = self.0.get(i) {
            f(data.val());
        }
    }
}

impl Object for Entries {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, data)| data.val())
    }
    fn len(&self) -> usize {
        self.0.len()
    }
    fn entry(&self, i: usize) -> Option<(&str, Val<'_>)> {
        self.0.get(i).map(|(name, data)| (name.as_str(), data.val()))
    }
}

impl Globals for Entries {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        Object::get(self, name)
    }
    fn now(&self) -> Option<i64> {
        match Object::get(self, "$now") {
            Some(Val::Int(seconds)) => Some(seconds * 1_000_000),
            _ => None,
        }
    }
}

impl Data {
    pub fn val(&self) -> Val<'_> {
        match self {
            Self::Nil => Val::Nil,
            Self::Bool(on) => Val::Bool(*on),
            Self::Int(int) => Val::Int(*int),
            Self::UInt(int) => Val::UInt(*int),
            Self::Float(float) => Val::Float(*float),
            Self::Decimal(digits) => Val::Decimal(digits),
            Self::Str(text) => Val::Str(text),
            Self::Bytes(bytes) => Val::Bytes(bytes),
            Self::Date(days) => Val::Date { days: *days },
            Self::Time(micros) => Val::Time { micros: *micros },
            Self::DateTime(micros) => Val::DateTime { micros: *micros },
            Self::Timestamp(micros, offset) => Val::Timestamp { micros: *micros, offset_minutes: *offset },
            Self::Uuid(uuid) => Val::Uuid(*uuid),
            Self::Json(text) => Val::Json(text),
            Self::List(items) => Val::Array(items),
            Self::Map(entries) => Val::Object(entries),
        }
    }

    /// The data a JSON text spells; `$decimal`, `$date` (days), `$time`, `$datetime`, `$timestamp`
    /// (microseconds and minutes), `$bytes`, `$uuid` (one byte for all) and `$json` make the rest.
    pub fn parse(text: &str) -> Self {
        Self::from_json(&serde_json::from_str(text).expect("the data is JSON"))
    }

    fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value;
        match json {
            Value::Null => Self::Nil,
            Value::Bool(on) => Self::Bool(*on),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Self::Int(int),
                (None, Some(int)) => Self::UInt(int),
                (None, None) => Self::Float(number.as_f64().expect("a number")),
            },
            Value::String(text) => Self::Str(text.clone()),
            Value::Array(items) => Self::List(Items(items.iter().map(Self::from_json).collect())),
            Value::Object(map) => match map.iter().next() {
                Some((kind, value)) if kind.starts_with('$') && kind != "$now" => special(kind, value),
                _ => {
                    let entries = map.iter().map(|(name, value)| (name.clone(), Self::from_json(value)));
                    Self::Map(Entries(entries.collect()))
                }
            },
        }
    }
}

fn special(kind: &str, value: &serde_json::Value) -> Data {
    let text = || value.as_str().expect("text").to_owned();
    let int = |value: &serde_json::Value| value.as_i64().expect("a whole number");
    match kind {
        "$decimal" => Data::Decimal(text()),
        "$bytes" => Data::Bytes(text().into_bytes()),
        "$json" => Data::Json(text()),
        "$date" => Data::Date(int(value) as i32),
        "$time" => Data::Time(int(value)),
        "$datetime" => Data::DateTime(int(value)),
        "$timestamp" => Data::Timestamp(int(&value[0]), int(&value[1]) as i16),
        "$uuid" => Data::Uuid([int(value) as u8; 16]),
        "$float" => Data::Float(text().parse().expect("a float")),
        other => panic!("unknown kind of data {other}"),
    }
}
