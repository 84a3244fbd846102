//! What a broker sends: frames, methods, headers and tables. What is read can be written, and reads as the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| warren_connectors::rabbitmq::fuzz_wire(bytes));
