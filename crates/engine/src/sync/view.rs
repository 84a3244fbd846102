//! A row as a template sees it: straight from its packed bytes, without a tree of values.

use warren_liquid::{Array, Globals, Object, Val};

use crate::canonical;
use crate::change::{Change, Op};
use crate::row::{ArrayRef, Row, Value};

/// One row, as an object of its columns.
pub struct RowView<'r> {
    row: &'r Row,
    offsets: Vec<u32>,
    arrays: Vec<(usize, ArrayView<'r>)>,
    nan_as_null: bool,
}

impl<'r> RowView<'r> {
    /// Looks at a row; `nan_as_null` shows NaN and the infinities as nil.
    pub fn new(row: &'r Row, nan_as_null: bool) -> RowView<'r> {
        let mut offsets = Vec::with_capacity(row.schema.len() + 1);
        row.as_ref().offsets(&mut offsets);
        // An array is shown by reference, so its view must lie somewhere: here.
        let arrays = row
            .as_ref()
            .values()
            .enumerate()
            .filter_map(|(index, value)| match value {
                Value::Array(array) => Some((index, ArrayView { array, nan_as_null })),
                _ => None,
            })
            .collect();
        RowView { row, offsets, arrays, nan_as_null }
    }

    fn val(&self, index: usize) -> Val<'_> {
        if index + 1 >= self.offsets.len() {
            return Val::Nil;
        }
        match self.row.as_ref().value_at(self.offsets[index]) {
            Value::Array(_) => {
                let view = self.arrays.iter().find(|(at, _)| *at == index);
                view.map_or(Val::Nil, |(_, view)| Val::Array(view))
            }
            value => scalar(value, self.nan_as_null),
        }
    }
}

impl Object for RowView<'_> {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        self.row.schema.index_of(name).map(|index| self.val(index))
    }

    fn len(&self) -> usize {
        self.row.schema.len()
    }

    fn entry(&self, index: usize) -> Option<(&str, Val<'_>)> {
        let column = self.row.schema.columns().get(index)?;
        Some((column.name.as_str(), self.val(index)))
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.row.schema.index_of(name)
    }
}

/// An array cell.
#[derive(Clone, Copy)]
pub struct ArrayView<'r> {
    array: ArrayRef<'r>,
    nan_as_null: bool,
}

impl Array for ArrayView<'_> {
    fn len(&self) -> usize {
        self.array.len()
    }

    fn get(&self, index: usize, f: &mut dyn FnMut(Val<'_>)) {
        let Some(value) = self.array.values().nth(index) else { return };
        match value {
            Value::Array(array) => f(Val::Array(&ArrayView { array, nan_as_null: self.nan_as_null })),
            value => f(scalar(value, self.nan_as_null)),
        }
    }
}

/// A value as templates know it. An array needs a place to lie and is nil here.
pub fn scalar(value: Value<'_>, nan_as_null: bool) -> Val<'_> {
    match value {
        Value::Null | Value::Array(_) => Val::Nil,
        Value::Bool(value) => Val::Bool(value),
        Value::Int(value) => Val::Int(value),
        Value::UInt(value) => Val::UInt(value),
        Value::Float(value) if nan_as_null && !value.is_finite() => Val::Nil,
        Value::Float(value) => Val::Float(value),
        Value::Decimal(digits) => Val::Decimal(digits),
        Value::Text(text) => Val::Str(text),
        Value::Bytes(bytes) => Val::Bytes(bytes),
        Value::Date(days) => Val::Date { days },
        Value::Time(micros) => Val::Time { micros },
        Value::DateTime(micros) => Val::DateTime { micros },
        Value::Timestamp(micros, offset_minutes) => Val::Timestamp { micros, offset_minutes },
        Value::Uuid(bytes) => Val::Uuid(bytes),
        Value::Json(text) => Val::Json(text),
    }
}

/// Calls `f` with any value, arrays included.
pub fn with_val<R>(value: Value<'_>, nan_as_null: bool, f: impl FnOnce(Val<'_>) -> R) -> R {
    match value {
        Value::Array(array) => f(Val::Array(&ArrayView { array, nan_as_null })),
        value => f(scalar(value, nan_as_null)),
    }
}

/// Names that a template of a sync can see.
pub const GLOBALS: [&str; 8] = ["row", "previous", "changed", "op", "key", "sync", "run", "change_id"];

/// A change as a template sees it.
pub struct ChangeView<'r> {
    row: RowView<'r>,
    previous: Option<RowView<'r>>,
    changed: Vec<Val<'r>>,
    op: Op,
    key: Vec<(&'r str, usize)>,
    sync: &'r str,
    run: i64,
    change_id: &'r str,
    now_ms: i64,
}

/// What a [`ChangeView`] is made of besides the change.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'r> {
    /// The sync's name.
    pub sync: &'r str,
    /// The run's number.
    pub run: i64,
    /// When the run began, in milliseconds since the epoch.
    pub now_ms: i64,
    /// The key's columns.
    pub key: &'r [String],
    /// Whether NaN and the infinities are shown as nil.
    pub nan_as_null: bool,
    /// The columns that count, for `changed`.
    pub compared: &'r [String],
}

impl<'r> ChangeView<'r> {
    /// Looks at a change.
    pub fn new(change: &'r Change, change_id: &'r str, around: &Surroundings<'r>) -> ChangeView<'r> {
        let row = RowView::new(&change.row, around.nan_as_null);
        let key = around
            .key
            .iter()
            .filter_map(|name| change.row.schema.index_of(name).map(|index| (name.as_str(), index)))
            .collect();
        let changed = match (&change.previous, change.op) {
            (Some(previous), Op::Changed) => changed_columns(&change.row, previous, around.compared),
            _ => Vec::new(),
        };
        ChangeView {
            row,
            previous: change.previous.as_ref().map(|previous| RowView::new(previous, around.nan_as_null)),
            changed: changed.into_iter().map(Val::Str).collect(),
            op: change.op,
            key,
            sync: around.sync,
            run: around.run,
            change_id,
            now_ms: around.now_ms,
        }
    }
}

impl Globals for ChangeView<'_> {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        Some(match name {
            "row" => Val::Object(&self.row),
            "previous" => match &self.previous {
                Some(previous) => Val::Object(previous),
                None => Val::Nil,
            },
            "changed" => Val::Array(&self.changed),
            "op" => Val::Str(match self.op {
                Op::Added => "added",
                Op::Changed => "changed",
                Op::Removed => "removed",
            }),
            // A key of one column is its value; of several, an object.
            "key" => match &self.key[..] {
                [(_, index)] => self.row.val(*index),
                _ => Val::Object(self),
            },
            "sync" => Val::Str(self.sync),
            "run" => Val::Int(self.run),
            "change_id" => Val::Str(self.change_id),
            _ => return None,
        })
    }

    /// When the run began: every message of a run says the same `now`.
    fn now(&self) -> Option<i64> {
        self.now_ms.checked_mul(1000)
    }
}

/// The key of several columns, as an object.
impl Object for ChangeView<'_> {
    fn get(&self, name: &str) -> Option<Val<'_>> {
        let (_, index) = self.key.iter().find(|(column, _)| *column == name)?;
        Some(self.row.val(*index))
    }

    fn len(&self) -> usize {
        self.key.len()
    }

    fn entry(&self, index: usize) -> Option<(&str, Val<'_>)> {
        let (name, index) = self.key.get(index)?;
        Some((name, self.row.val(*index)))
    }
}

/// The columns of `compared` whose values differ, in the order of `compared`.
pub fn changed_columns<'r>(row: &Row, previous: &Row, compared: &'r [String]) -> Vec<&'r str> {
    compared
        .iter()
        .map(String::as_str)
        .filter(|name| match (row.schema.index_of(name), previous.schema.index_of(name)) {
            (Some(now), Some(then)) => !canonical::same(row.as_ref().cell(now), previous.as_ref().cell(then)),
            // A column that the previous row did not have is not said to have changed: nobody knows.
            _ => false,
        })
        .collect()
}
