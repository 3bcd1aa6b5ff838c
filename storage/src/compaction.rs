//! Compaction: of each key only the newest record stays, at its offset and in its order.
//!
//! ```text
//!   log start        clean_end              bound: last stable offset, checkpoint, active segment, lag
//!       ├── clean ───────┼──── dirty ─────────────┼──── not yet ────┤
//!       pass 2: rewritten, group by group         │
//!                        pass 1: keys into the map│
//! ```
//!
//! [`plan`] decides (pure), [`CompactJob`] reads the dirty part into a bounded [`offset_map`], [`Rewriting`] writes groups of
//! segments anew, each as one [`Replacement`] that [`crate::log::Log::on_compacted`] takes. Nothing is renamed: the new
//! segment has its own name (base and next version) and is durable before the log names it; the next checkpoint swaps one
//! for the other; only when that is durable the old files go. A crash anywhere leaves one of the two whole, and files
//! that nobody names, which a [`SweepJob`] removes before the log's next compaction.
//!
//! Damage stops the job and changes nothing. Source: `org.apache.kafka.storage.internals.log.{LogCleaner, Cleaner}`, KIP-534.

pub mod offset_map;
mod output;
pub mod plan;
pub mod repair;
mod rewrite;
mod scan;
mod sweep;
mod transactions;

use std::collections::HashMap;

use stonelog_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};

pub use rewrite::{Rewriting, Step};
pub use scan::Mapped;
pub use sweep::SweepJob;

use crate::ReplicaKey;
use crate::holes::HoleBytes;
use crate::segment::{Segment, SegmentName};

/// What a compressed batch may open to; produce lets in no larger one.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// How much is read at once, and so the longest stretch between two calls of [`Pace::spent`].
const WINDOW_BYTES: u64 = 1 << 20;

/// When a log is compacted, and what of it; Kafka's topic settings of the same names.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactionConfig {
    /// `min.cleanable.dirty.ratio`: compaction waits until more than this share of the log is dirty.
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: records younger than this are left alone.
    pub lag_min: std::time::Duration,
    /// `max.compaction.lag.ms`: records older than this are compacted whatever the ratio; `None` sets no limit.
    pub lag_max: Option<std::time::Duration>,
    /// `delete.retention.ms`: how long a tombstone or marker stays after it was first met.
    pub delete_retention: std::time::Duration,
}

impl Default for CompactionConfig {
    /// Kafka's defaults.
    fn default() -> CompactionConfig {
        CompactionConfig {
            dirty_ratio_min: 0.5,
            lag_min: std::time::Duration::ZERO,
            lag_max: None,
            delete_retention: std::time::Duration::from_secs(24 * 3600),
        }
    }
}

/// What one compaction may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionLimits {
    /// `log.cleaner.dedupe.buffer.size`: bytes of the offset map.
    pub map_bytes_max: u64,
    /// `log.cleaner.io.buffer.load.factor`: how full the map may be.
    pub map_load_factor: f64,
    /// Random numbers that nobody outside knows, so that nobody can make keys that collide.
    pub hash_seeds: [u64; 2],
}

/// Holds a job to its budget.
pub trait Pace {
    /// So many bytes were read or written; may wait. `false` ends the job, which then changes nothing more.
    fn spent(&mut self, bytes: u64) -> bool;

    /// Whether so much may be written beside what there is. `false` ends the job before it writes any of it.
    fn has_room(&mut self, _bytes: u64) -> bool {
        true
    }
}

/// One compaction of one log. Planned by [`crate::log::Log::plan_compaction`]; begin with [`CompactJob::map_keys`].
#[derive(Debug)]
pub struct CompactJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// Sealed and covered segments one after the other, the first ones clean.
    pub(crate) sources: Vec<Segment>,
    /// Of each source the bytes that are damaged and lie below the log start: no pass looks at them.
    pub(crate) passed: Vec<Vec<HoleBytes>>,
    pub(crate) clean_end: Offset,
    pub(crate) now: Timestamp,
    pub(crate) delete_horizon: Timestamp,
    pub(crate) segment_bytes: u32,
    pub(crate) segment_index_bytes: u32,
    pub(crate) index_interval_bytes: u32,
    pub(crate) limits: CompactionLimits,
    /// The last batch's last offset of each producer, and its epoch.
    pub(crate) producers: HashMap<ProducerId, (Offset, ProducerEpoch)>,
}

/// One segment that takes the place of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// The segments it replaces, in order.
    pub sources: Vec<SegmentName>,
    /// The new one; its files are durable.
    pub segment: Segment,
}

/// What a compaction did, for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of batches read in both passes.
    pub bytes_read: u64,
    /// Bytes of batches written.
    pub bytes_written: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_replaced: u64,
    /// Records met in the second pass.
    pub records_read: u64,
    /// Records that were kept.
    pub records_kept: u64,
    /// Distinct keys in the map.
    pub keys_count: u64,
}
