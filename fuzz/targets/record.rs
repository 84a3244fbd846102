//! The record of messages: its journal, and the packed blocks of messages and of rows. Checksums are not verified here, so that the fuzzer
//! reaches what lies behind them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    warren_store::messages::fuzz(bytes);
    warren_store::state::fuzz(bytes);
});
