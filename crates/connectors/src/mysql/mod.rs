//! Rows from mysql.
