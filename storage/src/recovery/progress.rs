//! How far a recovery has come, for whoever shows it to a person. Counters only: they decide nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the recoveries of all log directories and whoever looks on.
#[derive(Debug, Default)]
pub struct RecoveryProgress {
    journal_bytes: AtomicU64,
    journal_bytes_read: AtomicU64,
    entries_count: AtomicU64,
    replicas_count: AtomicU64,
    replicas_checked: AtomicU64,
}

/// What [`RecoveryProgress`] says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// Bytes of the journal files that were found; those that the checkpoint covers are not read.
    pub journal_bytes: u64,
    /// How far behind the checkpoint the journal has been replayed, in bytes.
    pub journal_bytes_read: u64,
    /// Entries replayed.
    pub entries_count: u64,
    /// Replicas found, once the journal has been replayed.
    pub replicas_count: u64,
    /// Replicas of which the segment files have been looked at.
    pub replicas_checked: u64,
}

impl RecoveryProgress {
    /// What it says now.
    pub fn counts(&self) -> RecoveryCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RecoveryCounts {
            journal_bytes: get(&self.journal_bytes),
            journal_bytes_read: get(&self.journal_bytes_read),
            entries_count: get(&self.entries_count),
            replicas_count: get(&self.replicas_count),
            replicas_checked: get(&self.replicas_checked),
        }
    }

    pub(super) fn found_journal(&self, bytes: u64) {
        self.journal_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn replayed(&self, bytes: u64) {
        self.journal_bytes_read.fetch_add(bytes, Ordering::Relaxed);
        self.entries_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn found_replicas(&self, count: usize) {
        self.replicas_count.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn checked_replica(&self) {
        self.replicas_checked.fetch_add(1, Ordering::Relaxed);
    }
}
