//! Bytes become a template and a row; parsing, checking and rendering must neither panic nor pass
//! their limits, and what is written must be JSON.
//!
//! The same function is driven by random bytes in the tests of the library, where it needs no fuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/liquid/tests/it/data.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod data;
#[path = "../../crates/liquid/tests/it/drive.rs"]
mod drive;

fuzz_target!(|bytes: &[u8]| drive::drive_bytes(bytes));
