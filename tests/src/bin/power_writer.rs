//! The process that `power` takes the power from when the storage crate alone is tested. See `power::writer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match stonelog_tests::power::writer::main() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
