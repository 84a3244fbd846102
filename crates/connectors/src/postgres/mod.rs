//! Rows from postgres.
