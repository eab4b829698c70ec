//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    crossfade::cli::main()
}
