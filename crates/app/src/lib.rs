//! The binary: reads the configuration, builds the parts, talks to people.

pub mod config;
