//! How runs are told: bars for people on a terminal, a JSON line per event for programs, and the summary at the end.

pub mod bars;
pub mod errors;
pub mod events;
pub mod figures;
pub mod summary;

use std::io::{IsTerminal, Write};

use serde_json::Value;
use warren_engine::redact::scrub;

/// How a command tells what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// For a person: text on stdout, bars on stderr where that is a terminal.
    Person,
    /// For a program: JSON on stdout.
    Json,
}

/// Writes a line to stdout. A reader that has gone away is no error of ours.
pub fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // The pipe's reader may be gone (`warren runs | head`): there is nobody to tell.
    writeln!(out, "{text}").ok();
}

/// Writes a document for a program to stdout, as one line with its name as `event`.
pub fn event(name: &str, mut document: Value) {
    document["event"] = name.into();
    line(&document.to_string());
}

/// Writes a line to stderr, without what came from variables.
pub fn note(text: &str) {
    let mut out = std::io::stderr().lock();
    // As above.
    writeln!(out, "{}", scrub(text)).ok();
}

/// Whether a person watches stderr.
pub fn watched() -> bool {
    std::io::stderr().is_terminal()
}
