//! The values a template reads, borrowed from wherever they lie.
//!
//! A [`Val`] is a view: making one allocates nothing, so a row can be rendered straight from its
//! encoding. Containers are traits, because a row, an array of a row and a map in memory have
//! nothing in common but these questions.

/// One borrowed value of a row, or of anything else a template can see.
#[derive(Clone, Copy)]
pub enum Val<'a> {
    /// SQL NULL, JSON null, or nothing at all.
    Nil,
    Bool(bool),
    Int(i64),
    UInt(u64),
    /// NaN and the infinities have no JSON form: rendering one is an error of that row.
    Float(f64),
    /// Exact digits, such as `12.50`; they are written as they stand.
    Decimal(&'a str),
    Str(&'a str),
    /// Written as base64.
    Bytes(&'a [u8]),
    Date {
        /// Since 1970-01-01.
        days: i32,
    },
    Time {
        /// Since midnight.
        micros: i64,
    },
    /// A date and a time without offset.
    DateTime {
        /// Since 1970-01-01T00:00:00, on the same clock.
        micros: i64,
    },
    Timestamp {
        /// Since the epoch, UTC.
        micros: i64,
        /// Of the clock it is shown on.
        offset_minutes: i16,
    },
    Uuid([u8; 16]),
    /// JSON text: embedded as it is, and navigable (`row.payload.name`).
    Json(&'a str),
    Array(&'a dyn Array),
    Object(&'a dyn Object),
}

/// A sequence of values, possibly decoded on the fly.
pub trait Array {
    fn len(&self) -> usize;
    /// Hands element `i` to `f`, which may be a temporary. `f` is called once when `i < len()`, and
    /// not at all otherwise.
    fn get(&self, i: usize, f: &mut dyn FnMut(Val<'_>));
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Named values in a fixed order: a row, or a map.
pub trait Object {
    fn get(&self, name: &str) -> Option<Val<'_>>;
    fn len(&self) -> usize;
    fn entry(&self, i: usize) -> Option<(&str, Val<'_>)>;
    /// Where `name` stands. Templates remember the answer and try it first on the next row.
    fn index_of(&self, name: &str) -> Option<usize> {
        (0..self.len()).find(|i| self.entry(*i).is_some_and(|(held, _)| held == name))
    }
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a template can see: the names that stand first, such as `row` or `op`.
pub trait Globals {
    fn get(&self, name: &str) -> Option<Val<'_>>;
    /// Microseconds since the epoch, for `'now' | date: …`. Without an answer that is an error:
    /// a template has no clock of its own, so that rendering again gives the same message.
    fn now(&self) -> Option<i64> {
        None
    }
}

impl Array for [Val<'_>] {
    fn len(&self) -> usize {
        <[Val<'_>]>::len(self)
    }
    fn get(&self, i: usize, f: &mut dyn FnMut(Val<'_>)) {
        if let Some(val) = <[Val<'_>]>::get(self, i) {
            f(*val);
        }
    }
}

impl Array for Vec<Val<'_>> {
    fn len(&self) -> usize {
        Vec::len(self)
    }
    fn get(&self, i: usize, f: &mut dyn FnMut(Val<'_>)) {
        Array::get(self.as_slice(), i, f);
    }
}

impl Object for [(&str, Val<'_>)] {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        self.iter().find(|(held, _)| *held == name).map(|(_, val)| *val)
    }
    fn len(&self) -> usize {
        <[(&str, Val<'_>)]>::len(self)
    }
    fn entry(&self, i: usize) -> Option<(&str, Val<'_>)> {
        <[(&str, Val<'_>)]>::get(self, i).copied()
    }
}

impl Object for Vec<(&str, Val<'_>)> {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        Object::get(self.as_slice(), name)
    }
    fn len(&self) -> usize {
        Vec::len(self)
    }
    fn entry(&self, i: usize) -> Option<(&str, Val<'_>)> {
        Object::entry(self.as_slice(), i)
    }
}

impl Globals for [(&str, Val<'_>)] {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        Object::get(self, name)
    }
}

impl Globals for Vec<(&str, Val<'_>)> {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        Object::get(self.as_slice(), name)
    }
}
