//! The `stonelog` binary: the broker and the command line that speaks to it.

use std::process::ExitCode;

fn main() -> ExitCode {
    stonelog::cli::main()
}
