//! Where batches lie in a segment: sparse, in memory, a cache that can always be rebuilt from the `.log` file.
//!
//! One entry serves both questions, by offset and by time: it carries the largest timestamp of all batches *before* it,
//! so a batch with an equal or later timestamp is the first such one only at or after the last entry that is below.

pub mod file;

use stonelog_protocol::{Offset, Timestamp};

/// One batch's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// The batch's base offset, relative to the segment's.
    pub relative_offset: u32,
    /// Where it begins in the `.log` file.
    pub position: u32,
    /// Largest timestamp of the segment's batches before it; [`Timestamp::NONE`] for the first.
    pub max_timestamp_before: Timestamp,
}

/// Bytes of an entry, in memory and on disk.
pub const ENTRY_BYTES: usize = 16;

/// The sparse index of one segment, or of a stretch of one from [`SparseIndex::known_from`] on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SparseIndex {
    base: Offset,
    known_from: u64,
    entries: Vec<IndexEntry>,
    bytes_since_entry: u64,
    max_timestamp: Timestamp,
}

impl SparseIndex {
    /// An index of the segment that begins at `base`, to be fed the batches from byte `known_from` on; the batches
    /// before have `max_timestamp` as their largest.
    pub fn starting(base: Offset, known_from: u64, max_timestamp: Timestamp) -> SparseIndex {
        SparseIndex { base, known_from, entries: Vec::new(), bytes_since_entry: u64::MAX, max_timestamp }
    }

    /// The segment's base offset.
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The first byte this index knows about; 0 when it is whole.
    pub fn known_from(&self) -> u64 {
        self.known_from
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Notes the next batch. At most one entry per `interval_bytes` is kept.
    /// The caller ends the segment before offsets or positions outgrow an entry.
    pub fn push(
        &mut self,
        base_offset: Offset,
        position: u64,
        bytes: u64,
        max_timestamp: Timestamp,
        interval_bytes: u32,
    ) {
        if self.bytes_since_entry > u64::from(interval_bytes) {
            let relative_offset = u32::try_from(base_offset - self.base).expect("segment ends before 2^31 offsets");
            let position = u32::try_from(position).expect("segment ends before 2^32 bytes");
            let max_timestamp_before = self.max_timestamp;
            self.entries.push(IndexEntry { relative_offset, position, max_timestamp_before });
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += bytes;
        self.max_timestamp = self.max_timestamp.max(max_timestamp);
    }

    /// Where to begin looking for the batch that holds `offset`; `None` when that lies before what is known.
    pub fn position_of(&self, offset: Offset) -> Option<u64> {
        let relative = u32::try_from(offset - self.base).unwrap_or(if offset < self.base { 0 } else { u32::MAX });
        let after = self.entries.partition_point(|entry| entry.relative_offset <= relative);
        self.floor(after)
    }

    /// Where to begin looking for the first batch with a timestamp of at least `timestamp`; `None` when that may lie
    /// before what is known.
    pub fn position_of_time(&self, timestamp: Timestamp) -> Option<u64> {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < timestamp);
        self.floor(after)
    }

    fn floor(&self, after: usize) -> Option<u64> {
        match after.checked_sub(1) {
            Some(at) => Some(u64::from(self.entries[at].position)),
            None if self.known_from == 0 => Some(0),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(known_from: u64) -> SparseIndex {
        let base = if known_from == 0 { Offset(100) } else { Offset(50) };
        let mut index = SparseIndex::starting(base, known_from, Timestamp::NONE);
        for n in 0..10_u32 {
            let time = Timestamp([10, 50, 20, 30, 40, 60, 5, 5, 5, 90][n as usize]);
            index.push(Offset(100 + i64::from(n) * 5), known_from + u64::from(n) * 60, 60, time, 100);
        }
        index
    }

    #[test]
    fn an_entry_is_kept_for_each_interval_of_bytes() {
        let positions: Vec<u32> = index(0).entries().iter().map(|entry| entry.position).collect();
        assert_eq!(positions, [0, 120, 240, 360, 480]);
    }

    #[test]
    fn an_offset_is_found_at_or_after_the_entry_before_it() {
        let given = index(0);
        assert_eq!(given.position_of(Offset(100)), Some(0));
        assert_eq!(given.position_of(Offset(109)), Some(0));
        assert_eq!(given.position_of(Offset(110)), Some(120));
        assert_eq!(given.position_of(Offset(9_999)), Some(480));
    }

    #[test]
    fn a_time_is_looked_for_from_the_last_entry_with_only_earlier_times_before_it() {
        let given = index(0);
        assert_eq!(given.position_of_time(Timestamp(10)), Some(0));
        assert_eq!(given.position_of_time(Timestamp(50)), Some(0), "the second batch carries 50");
        assert_eq!(given.position_of_time(Timestamp(55)), Some(240));
        assert_eq!(given.position_of_time(Timestamp(61)), Some(480));
    }

    #[test]
    fn what_lies_before_the_known_stretch_is_not_guessed() {
        let given = index(6000);
        assert_eq!(given.position_of(Offset(100)), Some(6000));
        assert_eq!(given.position_of(Offset(99)), None);
    }
}
