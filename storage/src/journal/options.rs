//! The journal's named limits.

use super::commit::{BLOCK_BYTES, HEAD_BYTES, HEADER_FIXED_BYTES};
use super::file::FILE_HEADER_BYTES;

/// Sizes of a journal. All are multiples of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// Length of each file, written once with zeroes and then recycled.
    pub file_bytes: u64,
    /// Length of the first file of a new journal, and of one made at start when no spare is left: small, so that
    /// start-up does not wait for zeroes.
    pub first_file_bytes: u64,
    /// A commit larger than this is split, so that one flush stays short; a single larger entry is its own commit.
    pub commit_bytes_max: usize,
    /// The live files together; a write that would need more answers "out of space" until files are recycled. As much
    /// again is for [`super::JournalWriter::write_beyond_limit`].
    pub bytes_max: u64,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            file_bytes: 64 << 20,
            first_file_bytes: 1 << 20,
            commit_bytes_max: 4 << 20,
            bytes_max: 1 << 30,
        }
    }
}

impl JournalOptions {
    /// The largest batches one entry may carry: an entry never spans files.
    pub fn entry_bytes_max(&self) -> u64 {
        let overhead = FILE_HEADER_BYTES + (HEADER_FIXED_BYTES + HEAD_BYTES) as u64;
        self.file_bytes - overhead
    }

    pub(super) fn assert_legal(&self) {
        for bytes in [self.file_bytes, self.first_file_bytes] {
            assert!(bytes.is_multiple_of(BLOCK_BYTES), "journal files consist of whole blocks");
            assert!(bytes >= FILE_HEADER_BYTES + 2 * BLOCK_BYTES, "a journal file holds a header and two commits");
            assert!(bytes <= u64::from(u32::MAX), "lengths inside a journal file fit 32 bits");
        }
        assert!(self.bytes_max >= self.file_bytes + self.first_file_bytes, "a journal has room for two files");
    }
}
