//! What a checkpoint says of one log, and what a durable checkpoint allows.

use stonelog_protocol::{Offset, Timestamp};

use super::covered::CoveredState;
use super::tail::{FirstUncovered, Tail};
use super::{Epochs, Log, LogConfig, ProducedBatch, ProducerState, Producers, Segments};
use crate::checkpoint::{
    EpochStart, PartialBlock, ProducerBatch, ProducerSnapshot, ReplicaCheckpoint, SegmentCheckpoint,
};
use crate::holes::Holes;
use crate::journal::JournalPosition;
use crate::segment::sync::SyncJob;
use crate::segment::{BLOCK_BYTES, Segment, SegmentName};
use crate::{LogGeneration, ReplicaKey};

/// What the checkpoint being written says, as far as files may be deleted for it.
#[derive(Clone, Debug)]
pub(super) struct Checkpointing {
    log_start: Offset,
    generation: LogGeneration,
    settled: bool,
    doomed: Vec<SegmentName>,
    end: Offset,
}

impl Log {
    /// What a checkpoint says of this log, and the files to make durable before it may be written; `None` for a log
    /// that does not exist at that point. Until [`Log::on_checkpointed`] every plan names the same files again. `reported` is the checkpoint's `covered_default`: where a durable commit ends
    /// (`journal::Durable::position`), up to which every lane has been told of every write and sync.
    pub fn plan_checkpoint(&mut self, reported: JournalPosition) -> Option<(ReplicaCheckpoint, Option<SyncJob>)> {
        if self.is_gone() {
            return None;
        }
        let state = match &self.settling {
            Some(settling) => settling.before.clone()?,
            None => {
                // Never back: the journal before it may be gone after this checkpoint.
                self.covered.position = self.needed_from(reported);
                self.covered_checkpoint(Some(reported))?
            }
        };
        self.segments.checkpointing = Some(Checkpointing {
            settled: self.settling.is_none(),
            log_start: state.log_start,
            end: state.end,
            generation: self.key.generation,
            doomed: if self.settling.is_some() { Vec::new() } else { self.segments.doomed.clone() },
        });
        let sync = self.segments.unsynced.plan();
        let sync = sync.map(|(segments, new_names)| SyncJob { replica: self.key, segments, new_names });
        Some((state, sync))
    }

    /// Whether a checkpoint was planned that is not durable, as far as the log knows: it may have failed before its syncs
    /// were done. The log must be planned anew before any other checkpoint is written, also one that says nothing else
    /// of it.
    pub fn is_checkpoint_open(&self) -> bool {
        self.segments.checkpointing.is_some()
    }

    /// A checkpoint whose default position is `reported` says of this log what the one before it said, since nothing
    /// of the log was queued in between. What it says next must not go back behind that: the journal may be gone.
    pub fn on_passed_over(&mut self, reported: JournalPosition) {
        assert!(self.tail.first_uncovered().is_none(), "a log with something uncovered is planned anew");
        assert!(!self.is_checkpoint_open(), "a log whose last checkpoint did not come about is planned anew");
        self.covered.position = self.covered.position.max(reported);
    }

    /// The checkpoint planned last is durable: files it no longer names may go ([`Log::plan_deletes`]).
    pub fn on_checkpointed(&mut self, generation: LogGeneration) -> bool {
        let Some(done) = self.segments.checkpointing.take_if(|planned| planned.generation == generation) else {
            return false;
        };
        self.segments.unsynced.on_synced();
        if generation != self.key.generation {
            return false;
        }
        self.segments.hold_flush &= !done.settled;
        self.segments.checkpointed_start = Some(done.log_start);
        if done.settled {
            self.segments.checkpointed_end = done.end;
        }
        self.segments.doomed.retain(|name| !done.doomed.contains(name));
        self.segments.deletable.extend(done.doomed);
        true
    }

    /// The covered state as a checkpoint says it. Without `reported` it names its own position.
    pub(super) fn covered_checkpoint(&self, reported: Option<JournalPosition>) -> Option<ReplicaCheckpoint> {
        let state = &self.covered;
        if !state.exists {
            return self.uncovered_creation(reported);
        }
        let segments = &self.segments.list;
        let last_block = segments.last().map_or(PartialBlock::default(), |last| PartialBlock {
            bytes: (last.bytes % BLOCK_BYTES) as u32,
            checksum: last.partial_crc,
        });
        Some(ReplicaCheckpoint {
            replica: ReplicaKey { partition: self.key.partition, generation: state.generation },
            strict: state.strict,
            log_start: state.log_start.min(state.end),
            end: state.end,
            covered: Some(state.position).filter(|position| Some(*position) != reported),
            clean_end: self.segments.clean_end.min(state.end),
            high_watermark: self.high_watermark(),
            high_watermark_epoch: self.high_watermark_epoch,
            segments: segments.iter().map(segment_checkpoint).collect(),
            last_block,
            epochs: state.epochs.entries().iter().map(|e| EpochStart { epoch: e.epoch, offset: e.start }).collect(),
            producers: producer_snapshots(&state.producers),
            holes: self.holes_to_remember(),
        })
    }

    fn holes_to_remember(&self) -> Holes {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::HolesRemembered.is_off() {
            return Holes::default();
        }
        self.covered.holes.clone()
    }

    /// A log whose creation is not covered is named all the same if its entry may lie below `reported`, so that the
    /// entry is kept; replay then begins with the creation.
    fn uncovered_creation(&self, reported: Option<JournalPosition>) -> Option<ReplicaCheckpoint> {
        let position = self.tail.creation()?;
        if reported.is_some_and(|reported| reported <= position) {
            return None;
        }
        let start = self.covered.end;
        Some(ReplicaCheckpoint {
            replica: ReplicaKey { partition: self.key.partition, generation: self.covered.generation },
            strict: self.strict,
            log_start: start,
            end: start,
            covered: Some(position),
            clean_end: start,
            high_watermark: self.high_watermark(),
            high_watermark_epoch: self.high_watermark_epoch,
            segments: Vec::new(),
            last_block: PartialBlock::default(),
            epochs: Vec::new(),
            producers: Vec::new(),
            holes: Holes::default(),
        })
    }

    /// From which position on the journal is needed: any between the last covered commit and the first that is not,
    /// the checkpoint's default if that is one.
    fn needed_from(&self, default: JournalPosition) -> JournalPosition {
        let lowest = self.covered.position;
        // Nothing of a log lies before its creation.
        if let Some(creation) = self.tail.creation() {
            return default.min(creation).max(lowest);
        }
        let highest = match self.tail.first_uncovered() {
            // What a truncation cut off is still the log's until the truncation is durable.
            _ if self.changing.is_some() => lowest,
            Some(FirstUncovered::At(position)) => position,
            Some(FirstUncovered::Unknown) => lowest,
            Some(FirstUncovered::NotWritten) | None => default.max(lowest),
        };
        default.clamp(lowest, highest.max(lowest))
    }

    /// What stands in for a log whose line in the checkpoint makes no sense: empty, at the end that the line names.
    pub(crate) fn unusable(state: &ReplicaCheckpoint, covered: JournalPosition, config: LogConfig) -> Log {
        let bare = ReplicaCheckpoint {
            log_start: state.end,
            segments: Vec::new(),
            last_block: PartialBlock::default(),
            epochs: Vec::new(),
            producers: Vec::new(),
            holes: Holes::default(),
            ..*state
        };
        Log::from_checkpoint(&bare, covered, config, Timestamp::NONE).expect("an empty log contradicts nothing")
    }

    /// A log as a checkpoint says it, before anything is replayed onto it. `None` when the checkpoint contradicts
    /// itself. Segments' times count from `now`, since the checkpoint does not keep them.
    pub(crate) fn from_checkpoint(
        state: &ReplicaCheckpoint,
        covered: JournalPosition,
        config: LogConfig,
        now: Timestamp,
    ) -> Option<Log> {
        let mut segments: Vec<Segment> = Vec::with_capacity(state.segments.len());
        let mut deletable = Vec::new();
        for (at, segment) in state.segments.iter().enumerate() {
            let end = state.segments.get(at + 1).map_or(state.end, |next| next.base);
            if segment.base >= end || segment.bytes == 0 || segment.bytes > u64::from(u32::MAX) {
                return None;
            }
            if end <= state.log_start {
                // This checkpoint allowed its removal, which may have happened.
                deletable.push(SegmentName { base: segment.base, version: segment.version });
                continue;
            }
            segments.push(Segment {
                version: segment.version,
                end,
                bytes: segment.bytes,
                first_timestamp: segment.first_timestamp,
                max_timestamp: segment.largest_timestamp,
                ..Segment::empty(segment.base, now)
            });
        }
        if let Some(last) = segments.last_mut() {
            if last.bytes % BLOCK_BYTES != u64::from(state.last_block.bytes) {
                return None;
            }
            last.partial_crc = state.last_block.checksum;
        }
        let producers = restored_producers(&state.producers)?;
        let mut epochs = Epochs::default();
        for start in &state.epochs {
            epochs.assign(start.epoch, start.offset);
        }
        let key = state.replica;
        Some(Log {
            key,
            config,
            strict: state.strict,
            log_start: state.log_start,
            high_watermark: state.high_watermark,
            high_watermark_epoch: state.high_watermark_epoch,
            relaxed_end: state.log_start,
            tail: Tail::starting_at(state.end),
            producers: producers.clone(),
            epochs: epochs.clone(),
            holes: state.holes.clone(),
            covered: CoveredState {
                exists: true,
                generation: key.generation,
                position: covered,
                log_start: state.log_start,
                end: state.end,
                strict: state.strict,
                producers,
                epochs,
                holes: state.holes.clone(),
            },
            segments: Segments {
                cut_first: !segments.is_empty(),
                learn_first: segments.last().is_some_and(|last| last.first_timestamp == Timestamp::NONE),
                checkpointed_end: state.end,
                clean_end: state.clean_end,
                list: segments,
                deletable,
                ..Segments::default()
            },
            flush_in_flight: false,
            changing: None,
            settling: None,
            dropped: false,
        })
    }
}

fn segment_checkpoint(segment: &Segment) -> SegmentCheckpoint {
    SegmentCheckpoint {
        base: segment.base,
        version: segment.version,
        bytes: segment.bytes,
        largest_timestamp: segment.max_timestamp,
        first_timestamp: segment.first_timestamp,
    }
}

fn producer_snapshots(producers: &Producers) -> Vec<ProducerSnapshot> {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::ProducersInCheckpoint.is_off() {
        return Vec::new();
    }
    // By id, so that the same log makes the same bytes.
    let mut all: Vec<_> = producers.iter().collect();
    all.sort_unstable_by_key(|(producer_id, _)| *producer_id);
    all.into_iter()
        .map(|(producer_id, state)| ProducerSnapshot {
            producer_id,
            epoch: state.epoch,
            coordinator_epoch: -1,
            last_timestamp: state.last_seen,
            transaction_first_offset: None,
            batches: state
                .batches()
                .iter()
                .map(|batch| ProducerBatch {
                    first_sequence: batch.first_sequence,
                    last_sequence: batch.last_sequence,
                    last_offset: batch.last_offset,
                    offset_delta: i32::try_from(batch.last_offset - batch.base_offset).expect("a batch's delta"),
                    timestamp: batch.max_timestamp,
                })
                .collect(),
        })
        .collect()
}

fn restored_producers(snapshots: &[ProducerSnapshot]) -> Option<Producers> {
    let mut producers = Producers::default();
    for snapshot in snapshots {
        let batches: Vec<ProducedBatch> = snapshot
            .batches
            .iter()
            .map(|batch| ProducedBatch {
                first_sequence: batch.first_sequence,
                last_sequence: batch.last_sequence,
                base_offset: batch.last_offset + -i64::from(batch.offset_delta),
                last_offset: batch.last_offset,
                max_timestamp: batch.timestamp,
            })
            .collect();
        let state = ProducerState::from_batches(snapshot.epoch, snapshot.last_timestamp, &batches)?;
        producers.restore(snapshot.producer_id, state);
    }
    Some(producers)
}
