//! A disk that failed: what was done, where, and what the system said.

use std::io;
use std::path::PathBuf;

/// A failed disk operation or damaged bytes. The log directory it happened in is not trusted again (rule 8).
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The operating system refused an operation.
    #[error("{operation} {path}{}: {source}", position.map(|p| format!(" at byte {p}")).unwrap_or_default())]
    Io {
        /// What was attempted: `write`, `fdatasync`, `rename`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Byte position in the file, where there is one.
        position: Option<u64>,
        /// The system's error.
        source: io::Error,
    },
    /// Bytes that fail their check.
    #[error("damaged {what} in {path} at byte {position}: {detail}")]
    Damage {
        /// What the bytes should have been: `journal file header`, `batch`, `checkpoint`, …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Where the damaged structure begins.
        position: u64,
        /// What does not match.
        detail: String,
    },
    /// A file or directory that should exist does not, or belongs to someone else.
    #[error("{path}: {detail}")]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
}

impl Fault {
    /// Whether space ran out while allocating: no fault of the device; retry later (rule 8).
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Fault::Io { operation: "allocate", source, .. }
            if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded)
    }
}
