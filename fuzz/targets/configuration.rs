//! A configuration file. It loads, or every error has its place; no text makes the reader panic or take all memory.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use warren_config::{Colours, Environment, load_with};

/// On a file system in memory where there is one.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = PathBuf::from("/dev/shm");
    let parent = if shared.is_dir() { shared } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("warren-fuzz-").tempdir_in(parent).expect("a folder can be made");
    folder.keep().join("warren.yaml")
});

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).expect("the file can be written");
    let environment = Environment::from_iter([("A", "value"), ("N", "3"), ("BREAK", "a\nb: c")]);
    if let Err(faults) = load_with(&FILE, &environment) {
        assert!(!faults.render(Colours::Off).is_empty(), "an error says what is wrong");
    }
});
