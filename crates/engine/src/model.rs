//! A model: a query with its key over a source, and the schema its rows have.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A query and its key. Checked: the key names at least one column, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The name it has in the configuration.
    pub name: String,
    /// The statement, run in full for each run. Read only.
    pub sql: String,
    /// The columns that make the primary key, in the order given.
    pub key: Vec<String>,
    /// The longest the query may take in the source, its reading included. `None`: no limit.
    pub timeout: Option<Duration>,
}

/// The columns of a query's rows, in the order the source gives them.
///
/// Names are unique: a source refuses a query that yields one name twice, since a template could not
/// tell which is meant.
#[derive(Clone)]
pub struct Schema {
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
}

/// One column of a schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// The name as the source gives it.
    pub name: String,
    /// What its values are.
    pub kind: ColumnType,
}

/// What a column's values are. A value may be NULL whatever the type; under [`ColumnType::Any`]
/// (SQLite, where a type belongs to the value) it may be of any type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// The type belongs to each value.
    Any,
    /// True or false.
    Bool,
    /// Whole numbers of up to 64 bits, signed or not.
    Int,
    /// Binary floating point.
    Float,
    /// Decimal numbers, all digits kept.
    Decimal,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A day of the calendar.
    Date,
    /// A time of day.
    Time,
    /// A date and time without offset.
    DateTime,
    /// A point in time, with offset.
    Timestamp,
    /// A UUID.
    Uuid,
    /// JSON.
    Json,
    /// An array.
    Array,
}

/// Two columns of one name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query yields two columns named `{0}`")]
pub struct DuplicateColumn(pub String);

impl Schema {
    /// Makes a schema of columns in the order of the source.
    ///
    /// # Errors
    /// Two columns have one name.
    pub fn new(columns: Vec<Column>) -> Result<Arc<Schema>, DuplicateColumn> {
        let mut by_name = HashMap::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            if by_name.insert(column.name.clone(), index).is_some() {
                return Err(DuplicateColumn(column.name.clone()));
            }
        }
        Ok(Arc::new(Schema { columns, by_name }))
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The place of a column.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.columns == other.columns
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.columns).finish()
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnType::Any => "any",
            ColumnType::Bool => "boolean",
            ColumnType::Int => "integer",
            ColumnType::Float => "float",
            ColumnType::Decimal => "decimal",
            ColumnType::Text => "text",
            ColumnType::Bytes => "bytes",
            ColumnType::Date => "date",
            ColumnType::Time => "time",
            ColumnType::DateTime => "date and time",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Uuid => "uuid",
            ColumnType::Json => "json",
            ColumnType::Array => "array",
        })
    }
}
