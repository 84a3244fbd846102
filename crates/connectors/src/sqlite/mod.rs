//! Rows from sqlite.
