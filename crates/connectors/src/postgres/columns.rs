//! How each column of a query is read, decided from the types of the prepared query.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::types::{Kind, Type};
use warren_engine::codes;
use warren_engine::failure::{Failure, FailureKind};
use warren_engine::model::{Column, ColumnType, Schema};

use super::cell::Cell;
use super::sql::{self, Around};

/// The columns of a query: what they are called, what they are, and how their fields are read.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) schema: Arc<Schema>,
    pub(super) cells: Vec<Cell>,
    casts: Vec<Option<String>>,
}

/// How a type is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    cell: Cell,
    /// The type it is cast to by the server first, if its own binary form will not do.
    cast: Option<String>,
}

impl Columns {
    pub(super) fn of(statement: &Statement, what: &str) -> Result<Columns, Failure> {
        let refused = || Failure::new(FailureKind::Invalid, codes::QUERY_FAILED, what);
        if !statement.params().is_empty() {
            return Err(refused().detail("the query has parameters such as `$1`").remedy(
                "Write the value into the query, by a variable of the configuration if it must vary.",
            ));
        }
        if statement.columns().is_empty() {
            return Err(refused()
                .detail("the query yields no columns")
                .remedy("Give a query that reads: SELECT, WITH … SELECT, TABLE or VALUES."));
        }
        let columns = statement.columns().iter();
        let readings =
            columns.map(|column| (column.name().to_owned(), Reading::of(column.type_()))).collect();
        Columns::new(readings, what)
    }

    /// Columns by name, and how each is read.
    pub(super) fn new(readings: Vec<(String, Reading)>, what: &str) -> Result<Columns, Failure> {
        let mut columns = Vec::new();
        let mut cells = Vec::new();
        let mut casts = Vec::new();
        for (name, reading) in readings {
            columns.push(Column { name, kind: reading.cell.kind() });
            cells.push(reading.cell);
            casts.push(reading.cast);
        }
        let schema = Schema::new(columns).map_err(|duplicate| {
            Failure::new(FailureKind::Invalid, codes::DUPLICATE_COLUMN, what)
                .detail(duplicate.to_string())
                .remedy(format!("Give one of them another name: … AS another_{}.", duplicate.0))
        })?;
        Ok(Columns { schema, cells, casts })
    }

    /// The statement that copies the rows out, so that [`cells`](Self::cells) can read them.
    pub(super) fn copy(&self, query: &str) -> Around {
        sql::copy(query, &self.names_and_casts())
    }

    /// The statement that starts the query and reads no row.
    pub(super) fn cursor(&self, query: &str) -> Around {
        sql::cursor(query, &self.names_and_casts())
    }

    fn names_and_casts(&self) -> Vec<(&str, Option<&str>)> {
        self.schema.names().zip(self.casts.iter().map(Option::as_deref)).collect()
    }
}

/// How a column is read whose type cannot be cast any more; `None` where it would have to be.
pub(super) fn uncast(kind: &Type) -> Option<Cell> {
    let Reading { cell, cast } = Reading::of(kind);
    cast.is_none().then_some(cell)
}

impl Reading {
    /// As the text that the server writes.
    pub(super) fn as_text() -> Reading {
        Reading { cell: Cell::Text, cast: Some("text".into()) }
    }

    /// As an array of the texts that the server writes.
    pub(super) fn as_texts() -> Reading {
        Reading { cell: Cell::Array(Box::new(Cell::Text)), cast: Some("text[]".into()) }
    }

    pub(super) fn of(kind: &Type) -> Reading {
        let plain = |cell| Reading { cell, cast: None };
        let cast = |cell, to: &str| Reading { cell, cast: Some(to.to_owned()) };
        match *kind {
            Type::BOOL => plain(Cell::Bool),
            Type::INT2 => plain(Cell::Int2),
            Type::INT4 => plain(Cell::Int4),
            Type::INT8 => plain(Cell::Int8),
            Type::OID => plain(Cell::Oid),
            Type::NUMERIC => plain(Cell::Numeric),
            Type::FLOAT4 => plain(Cell::Float4),
            Type::FLOAT8 => plain(Cell::Float8),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::XML | Type::UNKNOWN => {
                plain(Cell::Text)
            }
            Type::CHAR => plain(Cell::Char),
            Type::BYTEA => plain(Cell::Bytea),
            Type::DATE => plain(Cell::Date),
            Type::TIME => plain(Cell::Time),
            Type::TIMESTAMP => plain(Cell::Timestamp),
            Type::TIMESTAMPTZ => plain(Cell::TimestampTz),
            Type::INTERVAL => plain(Cell::Interval),
            Type::INET | Type::CIDR => plain(Cell::Inet),
            Type::UUID => plain(Cell::Uuid),
            Type::JSON => plain(Cell::Json),
            Type::JSONB => plain(Cell::Jsonb),
            Type::VOID => plain(Cell::Text),
            // Its binary form is a count of units whose size only the server's locale tells.
            Type::MONEY => cast(Cell::Numeric, "numeric"),
            _ => match kind.kind() {
                Kind::Enum(_) => plain(Cell::Text),
                Kind::Domain(base) => Reading::of(base),
                Kind::Array(element) => Reading::of_array(element),
                Kind::Simple if kind.name() == "citext" => plain(Cell::Text),
                _ => cast(Cell::Text, "text"),
            },
        }
    }

    fn of_array(element: &Type) -> Reading {
        let Reading { cell, cast } = Reading::of(element);
        match cast {
            None => Reading { cell: Cell::Array(Box::new(cell)), cast: None },
            // `text[][]` is `text[]` to the server: an array of arrays whose elements need a cast has only its text.
            Some(cast) if cast.ends_with("[]") => Reading { cell: Cell::Text, cast: Some("text".into()) },
            Some(cast) => Reading { cell: Cell::Array(Box::new(cell)), cast: Some(format!("{cast}[]")) },
        }
    }
}

impl Cell {
    fn kind(&self) -> ColumnType {
        match self {
            Cell::Bool => ColumnType::Bool,
            Cell::Int2 | Cell::Int4 | Cell::Int8 | Cell::Oid => ColumnType::Int,
            Cell::Numeric => ColumnType::Decimal,
            Cell::Float4 | Cell::Float8 => ColumnType::Float,
            Cell::Text | Cell::Char | Cell::Interval | Cell::Inet => ColumnType::Text,
            Cell::Bytea => ColumnType::Bytes,
            Cell::Date => ColumnType::Date,
            Cell::Time => ColumnType::Time,
            Cell::Timestamp => ColumnType::DateTime,
            Cell::TimestampTz => ColumnType::Timestamp,
            Cell::Uuid => ColumnType::Uuid,
            Cell::Json | Cell::Jsonb => ColumnType::Json,
            Cell::Array(_) => ColumnType::Array,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_use_outside_the_server_is_cast() {
        let reading = |kind: &Type| {
            let reading = Reading::of(kind);
            (reading.cell, reading.cast)
        };
        assert_eq!(reading(&Type::INT4_ARRAY), (Cell::Array(Box::new(Cell::Int4)), None));
        assert_eq!(reading(&Type::INT4_RANGE), (Cell::Text, Some("text".into())));
        assert_eq!(reading(&Type::MACADDR_ARRAY), (Cell::Array(Box::new(Cell::Text)), Some("text[]".into())));
        assert_eq!(
            reading(&Type::MONEY_ARRAY),
            (Cell::Array(Box::new(Cell::Numeric)), Some("numeric[]".into()))
        );
        assert_eq!(reading(&Type::RECORD), (Cell::Text, Some("text".into())));
        let ranges =
            Type::new("ranges".into(), 90_001, Kind::Domain(Type::INT4_RANGE_ARRAY), "public".into());
        let lists = Type::new("_ranges".into(), 90_002, Kind::Array(ranges), "public".into());
        assert_eq!(reading(&lists), (Cell::Text, Some("text".into())));
    }
}
