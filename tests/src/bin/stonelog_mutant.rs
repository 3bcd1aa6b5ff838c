//! The broker with guards that environment variables switch off: what a test must notice. See `stonelog_storage::mutants`.

use std::process::ExitCode;

fn main() -> ExitCode {
    stonelog::cli::main()
}
