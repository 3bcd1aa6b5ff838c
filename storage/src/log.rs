//! One replica's log, as a lane sees it: offsets, the tail, producers, epochs, and what its segments hold.
//!
//! A `Log` touches no file, reads no clock and never waits. Its methods return what the lane must pass on:
//! journal entries (with the lane's ticket, by which completions come back) and jobs for the pools.
//!
//! ```text
//!  log_start          segments end        durable      written      log_end
//!      ├── in segments ────┼── in the journal ┼── page cache ┼── queued ──┤
//! ```
//!
//! Invariants: `log_start <= durable <= written <= log_end`; everything derived (producers, epochs) is a function of the
//! entries in order; [`covered`] holds the same state at the end of what segments and checkpoint cover, so that a
//! checkpoint and the journal behind it always make up the whole.
//! Source: `org.apache.kafka.storage.internals.log.UnifiedLog`, KIP-98, KIP-101.

mod append;
mod change;
mod checkpoint;
mod compact;
mod complete;
mod config;
mod covered;
mod epochs;
mod flush;
mod producers;
mod quarantine;
mod read;
mod repair;
mod replay;
mod retention;
pub(crate) mod tail;
#[cfg(test)]
pub(crate) mod test_batches;
mod unsynced;

use std::sync::Arc;

use stonelog_protocol::{LeaderEpoch, Offset, Timestamp};

pub use append::{AppendReject, Appended, FollowerReject};
pub use change::Truncation;
pub use config::LogConfig;
pub use epochs::{EpochEnd, EpochEntry, Epochs};
pub use flush::{FLUSH_AGE_MAX, FLUSH_BYTES_MAX};
pub use producers::{
    PRODUCER_BATCHES_COUNT, PRODUCERS_COUNT_MAX, ProducedBatch, ProducerState, Producers, Sequence, SequenceReject,
};
pub use read::{Lookup, Read};
pub use replay::{Contradiction, FIRST_TICKET};
pub(crate) use replay::{Replayed, TICKETS_COUNT};
pub use tail::{CommitSpan, Place};

use crate::checkpoint::ReplicaCheckpoint;
use crate::holes::{Hole, Holes};
use crate::index::SparseIndex;
use crate::journal::{Change, JournalEntry, JournalPosition};
use crate::segment::{Segment, SegmentName};
use crate::{LogGeneration, ReplicaKey};
use covered::CoveredState;
use tail::{FirstUncovered, Tail};
use unsynced::Unsynced;

/// One replica's log. See the module's comment.
#[derive(Debug)]
pub struct Log {
    key: ReplicaKey,
    config: LogConfig,
    strict: bool,
    log_start: Offset,
    /// What whoever leads has said to be committed, for the next start; may lie outside the log until it is read.
    high_watermark: Offset,
    /// The newest leader epoch in which that was so by what is known here. Never goes back.
    high_watermark_epoch: LeaderEpoch,
    /// The log's end when it became strict: what was committed below that was so by the relaxed rule, and need not be on
    /// any disk.
    relaxed_end: Offset,
    tail: Tail,
    producers: Producers,
    epochs: Epochs,
    /// What is damaged or missing; the covered part of it is in `covered` too.
    holes: Holes,
    covered: CoveredState,
    segments: Segments,
    flush_in_flight: bool,
    /// Ticket of a truncation, reset or drop that is not durable yet: until then nothing else may change the log.
    changing: Option<u64>,
    /// A truncation into the segments, or a reset, that is not durable yet: until then the checkpoint says what it
    /// said before.
    settling: Option<Box<Settling>>,
    dropped: bool,
}

/// What the log knows of its files.
#[derive(Debug, Default)]
struct Segments {
    /// Oldest first.
    list: Vec<Segment>,
    /// The last one is closed too; the next flush begins a new one.
    last_closed: bool,
    /// Where batches lie in the last one, as far as this process wrote it.
    active_index: Option<Arc<SparseIndex>>,
    /// Bytes of unknown origin may follow the last one's end: cut them off before writing.
    cut_first: bool,
    /// A cut into the segments is not in a durable checkpoint: until then their files stay as they are.
    hold_flush: bool,
    /// The last one's first timestamp was not read since the start.
    learn_first: bool,
    /// Up to where the last one's file has space reserved; 0 when that is not known.
    reserved: u64,
    /// What a checkpoint must sync before it may name it.
    unsynced: Unsynced,
    /// Files whose removal waits for a checkpoint that no longer names them.
    doomed: Vec<SegmentName>,
    /// Files that no checkpoint names any more.
    deletable: Vec<SegmentName>,
    /// Files that a [`crate::segment::delete::DeleteJob`] under way removes and that a flush might make anew: it waits.
    deleting: Vec<SegmentName>,
    /// Log start of the last durable checkpoint.
    checkpointed_start: Option<Offset>,
    /// Where segments end by the last durable checkpoint.
    checkpointed_end: Offset,
    /// Compaction has mapped every key below; what lies at or above it is dirty (`cleaner-offset-checkpoint`).
    clean_end: Offset,
    /// A compaction is under way: it reads sealed segments, which stay until it ends.
    compacting: bool,
    /// A compaction met damage that no hole explains: the next start may try again.
    uncleanable: bool,
    /// What earlier compactions left behind is looked for once a start.
    sweep: Sweep,
    checkpointing: Option<checkpoint::Checkpointing>,
}

/// See [`crate::compaction::SweepJob`].
#[derive(Clone, Copy, Debug, Default)]
enum Sweep {
    #[default]
    Wanted,
    /// After a cut it does not know what a flush would make.
    UnderWay {
        is_cut: bool,
    },
    Done,
}

/// See [`Log::settling`].
#[derive(Debug)]
struct Settling {
    before: Option<ReplicaCheckpoint>,
    after: CoveredState,
}

impl Log {
    /// A new, empty log that begins at `start`, and the entry that makes it. `ticket` as for every change.
    pub fn create(key: ReplicaKey, config: LogConfig, strict: bool, start: Offset, ticket: u64) -> (Log, JournalEntry) {
        let mut tail = Tail::starting_at(start);
        tail.push_control(Change::Create { start, strict }, key.generation, ticket);
        let log = Log {
            key,
            config,
            strict,
            log_start: start,
            high_watermark: start,
            high_watermark_epoch: LeaderEpoch::NONE,
            relaxed_end: start,
            tail,
            producers: Producers::default(),
            epochs: Epochs::default(),
            holes: Holes::default(),
            covered: CoveredState::nothing(key.generation, start),
            segments: Segments::default(),
            flush_in_flight: false,
            changing: None,
            settling: None,
            dropped: false,
        };
        let entry = log.entry(Change::Create { start, strict });
        (log, entry)
    }

    /// Whose log, in which generation. Completions of another generation change nothing.
    pub fn key(&self) -> ReplicaKey {
        self.key
    }

    /// Whether acknowledgements wait for durable positions (DESIGN §1).
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// The first offset that exists.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// What the log will begin at, should the power go now: not above [`Log::log_start`].
    pub fn durable_log_start(&self) -> Offset {
        self.tail.durable_log_starts().fold(self.covered.log_start, Offset::max).min(self.log_start)
    }

    /// End of what is known to be committed, for the next start: by a checkpoint, or by [`Log::set_high_watermark`].
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.max(self.log_start).min(self.log_end())
    }

    /// The leader epoch in which [`Log::high_watermark`] was known last: what somebody gave up as lost in a later one may
    /// lie below it.
    pub fn high_watermark_epoch(&self) -> LeaderEpoch {
        self.high_watermark_epoch
    }

    /// What is committed by now, by what is known in this leader epoch. The next checkpoint says it, so that a start need
    /// not believe that nothing is. Returns whether that is news to it.
    pub fn set_high_watermark(&mut self, high_watermark: Offset, epoch: LeaderEpoch) -> bool {
        self.high_watermark_epoch = self.high_watermark_epoch.max(epoch);
        let by_relaxed_rule = self.strict && high_watermark <= self.relaxed_end;
        if by_relaxed_rule && high_watermark > self.high_watermark {
            return false;
        }
        std::mem::replace(&mut self.high_watermark, high_watermark) != high_watermark
    }

    /// Of a high watermark that is known, what a strict log must keep: what was committed while the topic was relaxed was
    /// promised to nobody.
    pub fn promised_below(&self, high_watermark: Offset) -> Offset {
        if high_watermark > self.relaxed_end { high_watermark } else { high_watermark.min(self.high_watermark()) }
    }

    /// The offset the next record gets.
    pub fn log_end(&self) -> Offset {
        self.tail.log_end()
    }

    /// Everything below is in the journal and survives the end of the process.
    pub fn written(&self) -> Offset {
        self.tail.written()
    }

    /// Everything below is fsynced and survives a power cut.
    pub fn durable(&self) -> Offset {
        self.tail.durable()
    }

    /// The settings in effect.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings; what was planned keeps the old ones.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The idempotent producers, as of the log's end.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// The leader epochs, as of the log's end.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The newest leader epoch anything was written or begun in.
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(|entry| entry.epoch)
    }

    /// The epoch of the last record; [`LeaderEpoch::NONE`] in a log without any. Not that of an epoch which began at the
    /// end and in which nothing was written: no other replica need have heard of it.
    pub fn last_record_epoch(&self) -> LeaderEpoch {
        let last = Offset(self.log_end().0 - 1);
        self.epochs.epoch_at(last).filter(|_| last >= self.log_start).unwrap_or(LeaderEpoch::NONE)
    }

    /// Where a leader epoch ended (OffsetForLeaderEpoch), or the hole in which the answer is lost.
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Result<EpochEnd, Hole> {
        let known = self.epochs.end_offset_for(epoch, self.log_end());
        let unsure = |hole: &&Hole| hole.epoch_unsure && hole.end == known.end;
        match self.holes.list().iter().find(unsure) {
            Some(hole) => Err(*hole),
            None => Ok(known),
        }
    }

    /// What is damaged or missing, rising. A read inside fails; everything else is served.
    pub fn holes(&self) -> &[Hole] {
        self.holes.list()
    }

    /// Bytes of batches from the log's start to its end, whole segments counted whole.
    pub fn size_bytes(&self) -> u64 {
        let segments: u64 = self.segments.list.iter().map(|segment| segment.bytes).sum();
        segments + self.unflushed_bytes()
    }

    /// Bytes of batches that the journal holds and segments do not.
    pub fn unflushed_bytes(&self) -> u64 {
        self.tail.unflushed().map(|chunk| chunk.place.len()).sum()
    }

    /// Whether the journal holds anything of this log that a checkpoint does not cover yet.
    pub fn has_uncovered(&self) -> bool {
        self.tail.first_uncovered().is_some()
    }

    /// Whether it is this log, among others, that keeps the journal from being freed up to `position`.
    pub fn holds_journal_before(&self, position: JournalPosition) -> bool {
        match self.tail.first_uncovered() {
            Some(FirstUncovered::At(first)) => first < position,
            Some(FirstUncovered::Unknown) => true,
            Some(FirstUncovered::NotWritten) | None => false,
        }
    }

    /// Bytes of batches held in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.tail.memory_bytes()
    }

    /// Bytes among them of batches that are in segments too, and may be let go.
    pub fn flushed_memory_bytes(&self) -> u64 {
        self.tail.flushed_memory_bytes()
    }

    /// Lets go of batches that are in segments, oldest first, until at most `keep_bytes` of such stay in memory.
    /// Returns the bytes let go.
    pub fn evict(&mut self, keep_bytes: u64) -> u64 {
        self.tail.evict(keep_bytes)
    }

    /// Forgets producers that were not seen for `producer.id.expiration.ms`.
    pub fn expire_producers(&mut self, now: Timestamp) {
        self.producers.expire(now, self.config.producer_expiration);
        self.covered.producers.expire(now, self.config.producer_expiration);
    }

    /// Whether a truncation, reset or drop waits to become durable; until then nothing may be appended.
    pub fn is_changing(&self) -> bool {
        self.changing.is_some() || self.dropped
    }

    /// Whether its creation is in the journal, at least in the page cache: before that it can be reset by nothing.
    pub fn is_created(&self) -> bool {
        self.covered.exists || self.tail.first_uncovered() != Some(FirstUncovered::NotWritten)
    }

    /// Whether [`Log::drop_log`] was called and its entry is durable: the log may go out of the checkpoint.
    pub fn is_gone(&self) -> bool {
        self.dropped && self.changing.is_none()
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> &[Segment] {
        &self.segments.list
    }

    /// The segments that do not change any more and that a durable checkpoint covers, oldest first.
    pub fn sealed_segments(&self) -> impl Iterator<Item = &Segment> {
        let segments = &self.segments;
        let count = segments.list.len().saturating_sub(1);
        let is_kept = |segment: &&Segment| {
            let is_covered = segment.end <= segments.checkpointed_end && !segments.unsynced.has(segment.name());
            is_covered && segment.end > self.log_start
        };
        segments.list[..count].iter().filter(is_kept)
    }

    fn entry(&self, change: Change) -> JournalEntry {
        JournalEntry { replica: self.key, change }
    }

    fn next_generation(&self) -> LogGeneration {
        LogGeneration { counter: self.key.generation.counter + 1, ..self.key.generation }
    }

    /// The offset up to which segments hold the log.
    fn segments_end(&self) -> Offset {
        self.covered.end
    }
}
