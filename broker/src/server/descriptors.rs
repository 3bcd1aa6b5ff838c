//! How many file descriptors the process may have, and how many of them are for connections.
//!
//! Files come first: a connection that finds no place is closed at once, but a disk operation that finds no descriptor
//! holds up everybody.

use rustix::process::{Resource, getrlimit, setrlimit};
use stonelog_storage::segment::file_cache::open_files_count;

/// For what is neither a segment, a journal file nor a connection: listeners, pollers, the metadata log, small files.
const OTHERS_COUNT: u64 = 64;
/// For small files, directory syncs and jobs of one log directory.
const PER_DIRECTORY_COUNT: u64 = 32;

/// Raises the limit as far as the system allows, and says what it is.
pub(super) fn raise_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, wanted) {
            Ok(()) => limit = wanted,
            Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// How many connections there may be, of those `wanted`, when every directory has its files open.
pub(super) fn connections_max(limit: u64, wanted: u64, directories: u64, journal_files: u64) -> u64 {
    // A journal file is opened a second time for reads past the page cache.
    let per_directory = 2 * journal_files + PER_DIRECTORY_COUNT;
    let files = OTHERS_COUNT + open_files_count(limit) as u64 + directories * per_directory;
    // With a limit too small for that, half of it each: files that are not open are opened when they are needed.
    wanted.min(limit.saturating_sub(files.min(limit / 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_get_what_files_leave_and_never_less_than_half() {
        assert_eq!(connections_max(1 << 20, 10_000, 1, 18), 10_000);
        assert_eq!(connections_max(1024, u64::from(u32::MAX), 1, 18), 1024 - 64 - 256 - (36 + 32));
        assert_eq!(connections_max(4096, u64::from(u32::MAX), 2, 18), 4096 - 64 - 1024 - 2 * (36 + 32));
        assert_eq!(connections_max(64, 1000, 4, 18), 32);
    }

    #[test]
    fn the_limit_is_raised_to_what_the_system_allows() {
        let raised = raise_limit();
        assert_eq!(Some(raised), getrlimit(Resource::Nofile).current.or(Some(u64::MAX)));
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}
