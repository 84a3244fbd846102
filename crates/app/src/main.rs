//! The `warren` program.

use std::process::ExitCode;

/// Returns memory sooner than the system's allocator does when many threads take turns.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for pages of 2 MiB, of which many stay nearly empty: a large sync then takes twice the memory, for a
    // few per cent of speed. Where this cannot be had, it is only that.
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
    warren_app::main()
}
