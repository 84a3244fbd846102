//! The files of a baseline: manifest, row files (the journal of a run is one), key files and doubts. Checksums of what is inside a block are
//! not verified here, so that the fuzzer reaches what lies behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| warren_store::baseline::fuzz(bytes));
