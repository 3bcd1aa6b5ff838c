//! How much one entry of the metadata log may hold, for deciders whose facts may be too many for one.

use crate::metadata::MetadataRecord;
use crate::metadata::codec::Writer;
use crate::quorum::ENTRY_BYTES_MAX;

/// Records of one entry (Kafka's `MAX_RECORDS_PER_BATCH`).
pub const RECORDS_PER_ENTRY_MAX: usize = 10_000;
/// What is left for the batch's own fields, and for the facts a decider adds at the end.
const BYTES_KEPT: usize = 64 << 10;

/// How many records an entry holds; tests make it fewer.
fn records_max() -> usize {
    #[cfg(test)]
    return tests::RECORDS_MAX.get();
    #[cfg(not(test))]
    RECORDS_PER_ENTRY_MAX
}

/// As many of these as fit one entry that has room for `kept` more, and whether all do.
pub(super) fn fitting(records: impl IntoIterator<Item = MetadataRecord>, kept: usize) -> (Vec<MetadataRecord>, bool) {
    let mut entry = Entry::new(kept);
    let all_fit = records.into_iter().all(|record| entry.push(record));
    (entry.finish().0, all_fit)
}

/// Collects records while they fit one entry.
pub(super) struct Entry {
    records: Vec<MetadataRecord>,
    bytes: usize,
    records_max: usize,
    is_full: bool,
}

impl Entry {
    /// Room for the records of one entry, and `kept` more that the decider adds in any case.
    pub(super) fn new(kept: usize) -> Entry {
        Entry { records: Vec::new(), bytes: 0, records_max: records_max().saturating_sub(kept), is_full: false }
    }

    /// Takes a record if it still fits. Once one does not, none does.
    pub(super) fn push(&mut self, record: MetadataRecord) -> bool {
        let mut out = Writer::new();
        record.encode(&mut out);
        let bytes = out.finish().len();
        self.is_full |= self.records.len() == self.records_max || self.bytes + bytes > ENTRY_BYTES_MAX - BYTES_KEPT;
        if !self.is_full {
            self.bytes += bytes;
            self.records.push(record);
        }
        !self.is_full
    }

    /// The records, and whether some did not fit.
    pub(super) fn finish(self) -> (Vec<MetadataRecord>, bool) {
        (self.records, self.is_full)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// See [`records_max`].
        pub(in crate::controller) static RECORDS_MAX: Cell<usize> = const { Cell::new(RECORDS_PER_ENTRY_MAX) };
    }

    #[test]
    fn an_entry_is_full_when_one_record_did_not_fit() {
        RECORDS_MAX.set(3);
        let some = |count| std::iter::repeat_n(MetadataRecord::NoOp, count);
        assert_eq!(fitting(some(2), 1), (some(2).collect(), true));
        assert_eq!(fitting(some(3), 1), (some(2).collect(), false));
        assert_eq!(fitting(some(1), 9), (Vec::new(), false));
    }
}
