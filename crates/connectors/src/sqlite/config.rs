//! The settings of a SQLite source.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kit::address::path_fault;
use crate::kit::setting::{Misfit, Span};

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

impl Config {
    /// All settings that cannot be used. The file may come later, and numbers have their ranges in the schema.
    pub(crate) fn faults(&self) -> Vec<Misfit> {
        path_fault("path", &self.path).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_ends_in_a_line_break_is_a_fault() {
        let of = |path: &str| Config { path: path.into(), ..Config::default() }.faults();
        assert!(of("shop.db").is_empty());
        let faults = of("shop.db\n");
        assert_eq!(faults[0].key, "path");
        assert!(faults[0].failure.to_string().contains("`path` ends in a line break"), "{faults:?}");
    }
}
