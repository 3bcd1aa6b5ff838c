//! The broker, built together with the tests that start it as a child.

use std::process::ExitCode;

fn main() -> ExitCode {
    stonelog::cli::main()
}
