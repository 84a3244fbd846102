//! The `warren` program.

use std::process::ExitCode;

/// Returns memory sooner than the system's allocator does when many threads take turns.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    warren_app::main()
}
