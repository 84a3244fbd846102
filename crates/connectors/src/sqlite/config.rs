//! The settings of a SQLite source.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::setting::Span;

/// A SQLite database file.
///
/// It is opened for reading only. In the journal modes other than WAL a query under way keeps writers waiting; switch the
/// database to WAL (`PRAGMA journal_mode = WAL`) where others write while Warren reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path of the file, relative to the file this stands in. It must exist; a database in WAL mode also needs the right to write in its folder, unless
    /// another process has it open.
    #[schemars(extend("format" = "path"))]
    pub path: PathBuf,
    /// How long to wait for a writer that has the database locked. Default: 5 s. Too short and a run fails because of a long
    /// write beside it.
    #[serde(default)]
    pub busy_timeout: Option<Span>,
    /// The longest a query may take, its reading included, unless its model says otherwise. Default: no limit.
    #[serde(default)]
    #[schemars(extend("x-least" = "1ms"))]
    pub statement_timeout: Option<Span>,
}
