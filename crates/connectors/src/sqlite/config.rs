//! The settings of a SQLite source.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::setting::Span;

/// A SQLite database file.
///
/// It is opened read-only. In journal modes other than WAL, a running query blocks writers. Switch the
/// database to WAL (`PRAGMA journal_mode = WAL`) if others write while Warren reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The path of the file, relative to this configuration file. The file must exist. A database in WAL mode
    /// also needs write permission in its folder, unless another process has it open.
    #[schemars(extend("format" = "path"))]
    pub path: PathBuf,
    /// How long to wait for a writer that has locked the database. Default: 5 s. If it is too short, a long
    /// write makes a run fail.
    #[serde(default)]
    pub busy_timeout: Option<Span>,
    /// The maximum duration of a query, including reading its rows, unless its model sets another. Default:
    /// no limit.
    #[serde(default)]
    #[schemars(extend("x-least" = "1ms"))]
    pub statement_timeout: Option<Span>,
}
