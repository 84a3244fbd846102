//! The `warren` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    warren_app::main()
}
