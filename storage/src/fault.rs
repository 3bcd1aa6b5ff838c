//! A disk that failed: what was done, where, and what the system said.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::real::is_out_of_descriptors;

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
    /// A failed operation on a whole file or directory.
    pub fn io(operation: &'static str, path: &Path, source: io::Error) -> Fault {
        Fault::Io { operation, path: path.to_owned(), position: None, source }
    }

    /// A failed operation at a byte of a file.
    pub fn io_at(operation: &'static str, path: &Path, position: u64, source: io::Error) -> Fault {
        Fault::Io { operation, path: path.to_owned(), position: Some(position), source }
    }

    /// Whether space ran out while allocating, for bytes or for a new name (XFS has no room for an inode when it is full):
    /// no fault of the device; retry later (rule 8).
    pub fn is_out_of_space(&self) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::FullIsNoFault.is_off() {
            return false;
        }
        matches!(self, Fault::Io { operation: "allocate" | "create" | "mkdir" | "rename", source, .. } if is_no_space(source))
    }

    /// Whether there was no file descriptor left: nothing has happened to any file; retry later.
    pub fn is_out_of_descriptors(&self) -> bool {
        matches!(self, Fault::Io { source, .. } if is_out_of_descriptors(source))
    }

    /// Whether it may go away by itself, and nothing is wrong with the device.
    pub fn is_temporary(&self) -> bool {
        self.is_out_of_space() || self.is_out_of_descriptors()
    }

    /// Whether the device itself failed: its bytes are not to be believed until they have been read from it again.
    pub fn is_device_failure(&self) -> bool {
        // What the block layer and file systems report: EIO, ENOLINK, ENODATA (a bad sector), EILSEQ (a protection
        // check), EUCLEAN (the file system is damaged), ETIMEDOUT, EREMOTEIO.
        const DEVICE: [i32; 7] = [5, 67, 61, 84, 117, 110, 121];
        matches!(self, Fault::Io { source, .. } if source.raw_os_error().is_some_and(|code| DEVICE.contains(&code)))
    }

    /// The same fault once more, for whoever asks a keeper that has already failed.
    pub fn repeat(&self) -> Fault {
        match self {
            Fault::Io { operation, path, position, source } => Fault::Io {
                operation,
                path: path.clone(),
                position: *position,
                source: match source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
            Fault::Damage { what, path, position, detail } => {
                Fault::Damage { what, path: path.clone(), position: *position, detail: detail.clone() }
            }
            Fault::Foreign { path, detail } => Fault::Foreign { path: path.clone(), detail: detail.clone() },
        }
    }
}

/// Whether an error says that a file system, or a quota, has no room.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_allocation_runs_out_of_space() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(Fault::io("allocate", Path::new("f"), full()).is_out_of_space());
        assert!(Fault::io("create", Path::new("f"), full()).is_out_of_space());
        assert!(Fault::io("mkdir", Path::new("f"), full()).is_out_of_space());
        assert!(Fault::io("rename", Path::new("f"), full()).is_out_of_space());
        assert!(!Fault::io("write", Path::new("f"), full()).is_out_of_space());
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(!Fault::io("allocate", Path::new("f"), other).is_out_of_space());
    }

    #[test]
    fn a_repeated_fault_says_the_same() {
        let fault = Fault::io_at("fdatasync", Path::new("a/b"), 4096, io::Error::from_raw_os_error(5));
        assert_eq!(fault.repeat().to_string(), fault.to_string());
        assert!(fault.to_string().starts_with("fdatasync a/b at byte 4096: "));
    }
}
