//! Block checksums that are computed and not yet in their `.sum` files.
//!
//! A flush leaves them here; the sync before a checkpoint writes them out, merged, and makes them durable. So a block's
//! checksum is here, or in the file, or (for a moment) in both; readers ask here first. What is here after a crash is
//! lost together with the segment bytes that no checkpoint covers. Bounded by the journal: four bytes per block that it
//! holds and no checkpoint covers.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stonelog_protocol::TopicPartition;

use super::{SegmentFile, SegmentId};
use crate::Fault;
use crate::job::FileAccess;

/// Bytes of one checksum in a `.sum` file.
pub(super) const SUM_BYTES: u64 = 4;

/// See the module's comment. A keeper used by several threads; the lock is held for look-ups only.
#[derive(Debug, Default)]
pub(crate) struct PendingSums {
    runs: Mutex<HashMap<SegmentId, Run>>,
}

/// Checksums of consecutive blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    first: u64,
    sums: Vec<u32>,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + self.sums.len() as u64
    }

    /// Drops the blocks from `end` on.
    fn cut(&mut self, end: u64) {
        let keep = usize::try_from(end.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.sums.truncate(keep);
    }
}

impl PendingSums {
    /// Adds the checksums of the blocks from `first` on; what was known of them, or behind them, is of another history.
    pub(super) fn put(&self, id: SegmentId, first: u64, sums: &[u32]) {
        let mut runs = self.runs();
        let run = runs.entry(id).or_insert_with(|| Run { first, sums: Vec::new() });
        assert!(first <= run.end(), "blocks are written one after the other");
        run.first = run.first.min(first);
        run.cut(first);
        run.sums.extend_from_slice(sums);
    }

    /// Forgets the blocks from `end` on.
    pub(super) fn cut(&self, id: SegmentId, end: u64) {
        if let Some(run) = self.runs().get_mut(&id) {
            run.cut(end);
        }
    }

    /// The checksums known here of the blocks in `first..first + count`: from which block on, and all that follow.
    pub(super) fn get(&self, id: SegmentId, first: u64, count: u64) -> Option<(u64, Vec<u32>)> {
        let runs = self.runs();
        let run = runs.get(&id)?;
        let (from, to) = (first.max(run.first), (first + count).min(run.end()));
        if from >= to {
            return None;
        }
        let at = |block: u64| usize::try_from(block - run.first).expect("within the run");
        Some((from, run.sums[at(from)..at(to)].to_vec()))
    }

    /// Whether any checksum of the segment is here.
    pub(crate) fn has(&self, id: SegmentId) -> bool {
        self.runs().get(&id).is_some_and(|run| !run.sums.is_empty())
    }

    /// Forgets a segment.
    pub(super) fn forget(&self, id: SegmentId) {
        self.runs().remove(&id);
    }

    /// Forgets all segments of a log.
    pub(super) fn forget_all(&self, partition: TopicPartition) {
        self.runs().retain(|id, _| id.partition != partition);
    }

    /// Writes a segment's checksums to its `.sum` file and makes them durable. Says whether the file's name may not be:
    /// so it is while its first block is written, also when the file is there, since a process that ended before it
    /// synced the directory may have made it.
    pub(super) fn write_out(&self, access: &FileAccess, id: SegmentId) -> Result<bool, Fault> {
        let Some(run) = self.runs().get(&id).filter(|run| !run.sums.is_empty()).cloned() else { return Ok(false) };
        let path = id.path(SegmentFile::Sums);
        let (file, _) = access.files().open_or_create(access, id, SegmentFile::Sums)?;
        let bytes: Vec<u8> = run.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        let (position, len) = (run.first * SUM_BYTES, bytes.len() as u64);
        let fault = |operation, source| access.fault(operation, &path, Some(position), source);
        file.allocate(position, len).map_err(|source| fault("allocate", source))?;
        file.write_at(position, &[IoSlice::new(&bytes)]).map_err(|source| fault("write", source))?;
        file.sync_data().map_err(|source| fault("fdatasync", source))?;
        self.written(id, &run);
        Ok(run.first == 0)
    }

    /// Forgets what is durable now, unless it was replaced meanwhile.
    fn written(&self, id: SegmentId, done: &Run) {
        let mut runs = self.runs();
        let Some(run) = runs.get_mut(&id) else { return };
        if run.first != done.first || !run.sums.starts_with(&done.sums) {
            return;
        }
        run.first = done.end();
        run.sums.drain(..done.sums.len());
        if run.sums.is_empty() {
            runs.remove(&id);
        }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<SegmentId, Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use stonelog_protocol::{Offset, PartitionIndex, Uuid};

    use super::*;
    use crate::disk::{Disk, SimDisk};

    fn id() -> SegmentId {
        let partition = TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) };
        SegmentId { partition, base: Offset(0), version: 0 }
    }

    fn access() -> FileAccess {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        FileAccess::without_journal(disk, PathBuf::from("/"))
    }

    fn stored(access: &FileAccess) -> Vec<u8> {
        let file = access.files().open_existing(access, id(), SegmentFile::Sums).unwrap().unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_out_is_in_the_file_and_not_here() {
        let access = access();
        // Only the `.log` makes the directory.
        access.files().open_or_create(&access, id(), SegmentFile::Log).unwrap();
        let pending = access.pending_sums();
        pending.put(id(), 0, &[1, 2]);
        pending.put(id(), 2, &[3]);
        assert_eq!(pending.get(id(), 1, 9), Some((1, vec![2, 3])));
        assert!(pending.write_out(&access, id()).unwrap(), "the name is new");
        assert_eq!(pending.get(id(), 0, 9), None);
        pending.put(id(), 3, &[4]);
        assert!(!pending.write_out(&access, id()).unwrap());
        assert_eq!(stored(&access), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    }

    #[test]
    fn blocks_written_again_replace_what_was_known_behind_them() {
        let pending = PendingSums::default();
        pending.put(id(), 4, &[1, 2, 3]);
        pending.put(id(), 5, &[9]);
        assert_eq!(pending.get(id(), 0, 100), Some((4, vec![1, 9])));
        pending.put(id(), 3, &[8]);
        assert_eq!(pending.get(id(), 0, 100), Some((3, vec![8])));
        pending.cut(id(), 3);
        assert_eq!(pending.get(id(), 0, 100), None);
    }

    #[test]
    fn checksums_that_changed_while_they_were_written_stay() {
        let pending = PendingSums::default();
        pending.put(id(), 0, &[1, 2]);
        let writing = Run { first: 0, sums: vec![1, 2] };
        pending.put(id(), 1, &[7, 8]);
        pending.written(id(), &writing);
        assert_eq!(pending.get(id(), 0, 9), Some((0, vec![1, 7, 8])));
    }
}
