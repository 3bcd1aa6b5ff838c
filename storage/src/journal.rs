//! The journal: the one ordered history of a log directory.
//!
//! Every change of every replica's log in the directory is an entry here first; segments are written later, from
//! memory, and a checkpoint frees the journal behind them.
//!
//! [`recover`] opens a journal and hands out its parts, each for one thread: the [`JournalWriter`] appends commits, the
//! [`JournalFlusher`] makes them durable, [`JournalMaintenance`] prepares and recycles files behind their backs, and
//! the [`JournalReader`] serves recovered batches in place. The layout is in `docs/formats.md`.
//!
//! Invariants: an entry is durable when [`JournalFlusher::sync`] has returned a sequence at or after its commit's; after
//! any failed write or sync all parts refuse (rule 8); what recovery trusts it has first made durable (rule 7).

mod commit;
mod file;
mod flusher;
mod found;
mod inspect;
mod options;
mod reader;
mod recover;
mod recycle;
mod scan;
mod shared;
mod spare;
mod window;
mod writer;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset};

use crate::ReplicaKey;

pub use flusher::{Durable, JournalFlusher};
pub use inspect::{Inspection, JournalFile, JournalFileHeader, JournalFileState, inspect, inspect_file};
pub use options::JournalOptions;
pub use reader::JournalReader;
pub use recover::{
    Hurt, HurtRange, JournalDamage, Recovered, RecoveryEnd, ReplayFrom, ReplayedEntry, TornTail, recover,
};
pub use recycle::{JournalMaintenance, JournalUsage};
pub use writer::{CommitReceipt, JournalWriter};

/// A place in the journal: bytes since the journal was first made. Never goes back, also across files and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct JournalPosition(pub u64);

/// One change of one replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Whose log, in which generation.
    pub replica: ReplicaKey,
    /// The change.
    pub change: Change,
}

/// What an entry changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Whole batches appended at the log's end.
    Append {
        /// Base offset of the first batch.
        base_offset: Offset,
        /// The log end offset after the append.
        end_offset: Offset,
        /// The batches as they will lie in the segment.
        batches: Bytes,
    },
    /// The log was created, empty, starting at `start`. Makes a new generation.
    Create {
        /// The first offset.
        start: Offset,
        /// Whether the topic was strict then.
        strict: bool,
    },
    /// Everything from `end` on was cut off. Makes a new generation.
    Truncate {
        /// The new log end offset.
        end: Offset,
    },
    /// Everything was dropped and the log begins anew at `start`. Makes a new generation.
    Reset {
        /// The new log start and end offset.
        start: Offset,
    },
    /// The log start offset rose (retention or DeleteRecords).
    LogStart {
        /// The new log start offset.
        start: Offset,
    },
    /// A leader epoch began (KIP-101), also when nothing is appended in it.
    EpochStart {
        /// The epoch.
        epoch: LeaderEpoch,
        /// The log end offset when it began.
        offset: Offset,
    },
    /// The topic changed between strict and relaxed.
    Mode {
        /// Whether it is strict from here on.
        strict: bool,
    },
    /// The replica was removed from this directory.
    Drop,
}

impl Change {
    /// Whether nothing of its log can be covered before it is durable, so that the journal holds on to what the log has
    /// in it: until then the log's entries are neither flushed nor forgotten.
    pub fn holds_journal(&self) -> bool {
        matches!(self, Change::Truncate { .. } | Change::Reset { .. } | Change::Drop)
    }
}
