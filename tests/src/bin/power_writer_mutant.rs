//! The same writer with guards that environment variables switch off: what the power cuts must notice.

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
