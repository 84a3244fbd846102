//! Tests of the application from outside of it.

mod config;
