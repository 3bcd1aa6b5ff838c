//! The directory checkpoint: per replica, how far its segments are durable and the state that goes with that point.
//!
//! It frees the journal behind it: recovery reads it, then replays the journal from the *positions* it names, never by
//! comparing offsets (rule 6). Kept in two copies by [`crate::small_file`]. The layout is in `docs/formats.md`.
//! Not here: when a checkpoint is taken, and what recovery does with it.

use std::path::Path;

use stonelog_protocol::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Timestamp, TopicPartition, Uuid,
};

use crate::disk::Disk;
use crate::fields::{FieldReader, Short};
use crate::holes::{Cause, Hole, HoleBytes, Holes};
use crate::journal::JournalPosition;
use crate::segment::SegmentName;
use crate::small_file::{self, Envelope, EnvelopeError, EnvelopeKind, TwoCopies};
use crate::{Fault, LogGeneration, ReplicaKey};

/// The checkpoint's name in the log directory.
pub const CHECKPOINT_NAME: &str = "checkpoint";

/// The envelope of a checkpoint file.
pub const CHECKPOINT_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLCHKPNT", format: 4, what: "checkpoint" };

/// Batches remembered per producer, as Kafka does (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`).
pub const PRODUCER_BATCHES_MAX: usize = 5;

const REPLICA_BYTES: usize = 100;
const SEGMENT_BYTES: usize = 40;
const EPOCH_BYTES: usize = 12;
const PRODUCER_BYTES: usize = 32;
const BATCH_BYTES: usize = 28;
const HOLE_BYTES: usize = 48;

const FLAG_STRICT: u8 = 1;
const FLAG_COVERED: u8 = 2;

const HOLE_HAS_BYTES: u8 = 1;
const HOLE_EPOCH_UNSURE: u8 = 2;

/// Everything recovery needs besides the segments and the journal.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The recovery epoch it was written in; the next start's is greater.
    pub recovery_epoch: u32,
    /// Journal entries before this position are covered for every replica that names no position of its own.
    pub covered_default: JournalPosition,
    /// The replicas that existed, in no order.
    pub replicas: Vec<ReplicaCheckpoint>,
}

/// One replica's durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCheckpoint {
    /// Whose log, in the generation it had at the covered position.
    pub replica: ReplicaKey,
    /// Whether the topic was strict at that position.
    pub strict: bool,
    /// First offset kept. `log_start <= end`.
    pub log_start: Offset,
    /// The end of what is durable in segments (exclusive).
    pub end: Offset,
    /// Journal entries of this replica before this position are in the state below; `None` is the directory's default.
    pub covered: Option<JournalPosition>,
    /// Compaction has mapped every key below it. `clean_end <= end`.
    pub clean_end: Offset,
    /// What is below was committed when it was written, as far as the log reached; an older value is as true.
    pub high_watermark: Offset,
    /// The leader epoch in which that was known; [`LeaderEpoch::NONE`] when in none. What was lost and accepted in a later one
    /// may lie below it.
    pub high_watermark_epoch: LeaderEpoch,
    /// The segments, oldest first; the last one is the active one.
    pub segments: Vec<SegmentCheckpoint>,
    /// The last, partial checksum block of the active segment; full blocks' checksums are in its side file.
    pub last_block: PartialBlock,
    /// Where each leader epoch began, oldest first.
    pub epochs: Vec<EpochStart>,
    /// The idempotent producers.
    pub producers: Vec<ProducerSnapshot>,
    /// What is damaged or missing below `end`.
    pub holes: Holes,
}

impl ReplicaCheckpoint {
    /// Base offset of the segment that was being appended to; `None` while nothing has left the journal.
    pub fn active_segment_base(&self) -> Option<Offset> {
        self.segments.last().map(|segment| segment.base)
    }
}

/// One segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentCheckpoint {
    /// Its base offset, which names it.
    pub base: Offset,
    /// How often compaction has written it anew, which names it too.
    pub version: u32,
    /// Durable bytes of its `.log` file.
    pub bytes: u64,
    /// The largest record timestamp in it; [`Timestamp::NONE`] when empty.
    pub largest_timestamp: Timestamp,
    /// The largest timestamp of its first batch, from which its age counts; [`Timestamp::NONE`] when not known.
    pub first_timestamp: Timestamp,
}

/// The bytes after the last full 64 KiB block of the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PartialBlock {
    /// How many (0 when the segment ends on a block's end).
    pub bytes: u32,
    /// Their CRC-32C.
    pub checksum: u32,
}

/// A leader epoch's beginning (KIP-101).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log end offset when it began.
    pub offset: Offset,
}

/// What is remembered of one idempotent producer (Kafka's `ProducerStateEntry`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its newest epoch seen.
    pub epoch: ProducerEpoch,
    /// Epoch of the transaction coordinator that wrote its last marker; -1 before the first.
    pub coordinator_epoch: i32,
    /// When it last wrote, by its records' timestamps; the expiry clock.
    pub last_timestamp: Timestamp,
    /// First offset of its open transaction.
    pub transaction_first_offset: Option<Offset>,
    /// Its newest batches, oldest first, at most [`PRODUCER_BATCHES_MAX`].
    pub batches: Vec<ProducerBatch>,
}

/// A remembered batch of a producer (Kafka's `BatchMetadata`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence number of its first record.
    pub first_sequence: i32,
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Last offset minus first offset.
    pub offset_delta: i32,
    /// Its largest timestamp.
    pub timestamp: Timestamp,
}

/// Why bytes are no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The file around it is damaged or another release's.
    #[error("{0}")]
    Envelope(#[from] EnvelopeError),
    /// They end early, or a count promises more than follows.
    #[error("the bytes end before the checkpoint does")]
    Short,
    /// Bytes follow the last replica.
    #[error("{0} bytes follow the last replica")]
    Trailing(usize),
    /// A field holds what no writer writes.
    #[error("replica {index}: {what}")]
    Illegal {
        /// Which replica, from 0.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl From<Short> for CheckpointError {
    fn from(_: Short) -> CheckpointError {
        CheckpointError::Short
    }
}

impl Checkpoint {
    /// The lowest position replay must begin at.
    pub fn replay_from(&self) -> JournalPosition {
        self.replicas.iter().filter_map(|r| r.covered).fold(self.covered_default, JournalPosition::min)
    }

    /// The payload bytes, without the envelope.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + self.replicas.len() * (REPLICA_BYTES + SEGMENT_BYTES + EPOCH_BYTES));
        out.extend_from_slice(&self.recovery_epoch.to_le_bytes());
        out.extend_from_slice(&count(self.replicas.len()).to_le_bytes());
        out.extend_from_slice(&self.covered_default.0.to_le_bytes());
        for replica in &self.replicas {
            encode_replica(replica, &mut out);
        }
        out
    }

    /// Reads what [`Checkpoint::encode`] wrote; every count is checked against the bytes at hand.
    pub fn decode(payload: &[u8]) -> Result<Checkpoint, CheckpointError> {
        let mut reader = FieldReader::new(payload);
        let recovery_epoch = reader.u32()?;
        let replica_count = reader.u32()? as usize;
        let covered_default = JournalPosition(reader.u64()?);
        if replica_count > reader.remaining() / REPLICA_BYTES {
            return Err(CheckpointError::Short);
        }
        let mut replicas = Vec::with_capacity(replica_count);
        for index in 0..replica_count {
            replicas.push(decode_replica(&mut reader, index)?);
        }
        match reader.remaining() {
            0 => Ok(Checkpoint { recovery_epoch, covered_default, replicas }),
            rest => Err(CheckpointError::Trailing(rest)),
        }
    }

    /// Writes both copies durably. `version` is one more than the last written or read one's.
    pub fn write(&self, disk: &dyn Disk, directory: &Path, version: u64) -> Result<(), Fault> {
        let bytes = Envelope::seal(&CHECKPOINT_KIND, version, &self.encode());
        small_file::write_two_copies(disk, directory, CHECKPOINT_NAME, &bytes)
    }

    /// The newest intact copy as it is now, for tools: nothing is repaired.
    pub fn read_only(disk: &dyn Disk, directory: &Path) -> Option<Checkpoint> {
        let names = [CHECKPOINT_NAME.to_owned(), small_file::copy_name(CHECKPOINT_NAME)];
        let copies = names.iter().filter_map(|name| {
            let bytes = small_file::read_small_file(disk, &directory.join(name)).ok()??;
            let (envelope, payload) = Envelope::open(&CHECKPOINT_KIND, &bytes).ok()?;
            Some((envelope.version, Checkpoint::decode(payload).ok()?))
        });
        copies.max_by_key(|(version, _)| *version).map(|(_, checkpoint)| checkpoint)
    }

    /// Reads the newest intact copy, with its version; `None` when there is no checkpoint yet.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<TwoCopies<Checkpoint>>, Fault> {
        small_file::read_two_copies(disk, directory, CHECKPOINT_NAME, |bytes| {
            let (envelope, payload) = Envelope::open(&CHECKPOINT_KIND, bytes)?;
            Ok::<_, CheckpointError>((envelope.version, Checkpoint::decode(payload)?))
        })
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a checkpoint counts in 32 bits")
}

fn encode_replica(replica: &ReplicaCheckpoint, out: &mut Vec<u8>) {
    let key = &replica.replica;
    let flags = if replica.strict { FLAG_STRICT } else { 0 } | if replica.covered.is_some() { FLAG_COVERED } else { 0 };
    out.extend_from_slice(&key.partition.topic_id.0);
    out.extend_from_slice(&key.partition.partition.0.to_le_bytes());
    out.extend_from_slice(&key.generation.recovery_epoch.to_le_bytes());
    out.extend_from_slice(&key.generation.counter.to_le_bytes());
    out.extend_from_slice(&[flags, 0, 0, 0]);
    out.extend_from_slice(&replica.log_start.0.to_le_bytes());
    out.extend_from_slice(&replica.end.0.to_le_bytes());
    out.extend_from_slice(&replica.covered.unwrap_or_default().0.to_le_bytes());
    out.extend_from_slice(&replica.last_block.bytes.to_le_bytes());
    out.extend_from_slice(&replica.last_block.checksum.to_le_bytes());
    out.extend_from_slice(&count(replica.holes.list().len()).to_le_bytes());
    out.extend_from_slice(&count(replica.segments.len()).to_le_bytes());
    out.extend_from_slice(&count(replica.epochs.len()).to_le_bytes());
    out.extend_from_slice(&count(replica.producers.len()).to_le_bytes());
    out.extend_from_slice(&replica.clean_end.0.to_le_bytes());
    out.extend_from_slice(&replica.high_watermark.0.to_le_bytes());
    out.extend_from_slice(&replica.high_watermark_epoch.0.to_le_bytes());
    for segment in &replica.segments {
        out.extend_from_slice(&segment.base.0.to_le_bytes());
        out.extend_from_slice(&segment.bytes.to_le_bytes());
        out.extend_from_slice(&segment.largest_timestamp.0.to_le_bytes());
        out.extend_from_slice(&segment.first_timestamp.0.to_le_bytes());
        out.extend_from_slice(&segment.version.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
    for epoch in &replica.epochs {
        out.extend_from_slice(&epoch.epoch.0.to_le_bytes());
        out.extend_from_slice(&epoch.offset.0.to_le_bytes());
    }
    for producer in &replica.producers {
        encode_producer(producer, out);
    }
    for hole in replica.holes.list() {
        encode_hole(hole, out);
    }
}

fn encode_hole(hole: &Hole, out: &mut Vec<u8>) {
    let cause = match hole.why {
        Cause::Journal => 1,
        Cause::Segment => 2,
        Cause::Missing => 3,
        Cause::Compacted => 4,
    };
    let flags =
        if hole.bytes.is_some() { HOLE_HAS_BYTES } else { 0 } | if hole.epoch_unsure { HOLE_EPOCH_UNSURE } else { 0 };
    let bytes =
        hole.bytes.unwrap_or(HoleBytes { segment: SegmentName { base: Offset::ZERO, version: 0 }, from: 0, to: 0 });
    out.extend_from_slice(&hole.start.0.to_le_bytes());
    out.extend_from_slice(&hole.end.0.to_le_bytes());
    out.extend_from_slice(&hole.newest.0.to_le_bytes());
    out.extend_from_slice(&bytes.segment.base.0.to_le_bytes());
    out.extend_from_slice(&bytes.from.to_le_bytes());
    out.extend_from_slice(&bytes.to.to_le_bytes());
    out.extend_from_slice(&[cause, flags, 0, 0]);
    out.extend_from_slice(&bytes.segment.version.to_le_bytes());
}

fn encode_producer(producer: &ProducerSnapshot, out: &mut Vec<u8>) {
    assert!(producer.batches.len() <= PRODUCER_BATCHES_MAX, "a producer is remembered by at most five batches");
    out.extend_from_slice(&producer.producer_id.0.to_le_bytes());
    out.extend_from_slice(&producer.epoch.0.to_le_bytes());
    out.extend_from_slice(&[producer.batches.len() as u8, 0]);
    out.extend_from_slice(&producer.coordinator_epoch.to_le_bytes());
    out.extend_from_slice(&producer.last_timestamp.0.to_le_bytes());
    out.extend_from_slice(&producer.transaction_first_offset.unwrap_or(Offset::NONE).0.to_le_bytes());
    for batch in &producer.batches {
        out.extend_from_slice(&batch.first_sequence.to_le_bytes());
        out.extend_from_slice(&batch.last_sequence.to_le_bytes());
        out.extend_from_slice(&batch.last_offset.0.to_le_bytes());
        out.extend_from_slice(&batch.offset_delta.to_le_bytes());
        out.extend_from_slice(&batch.timestamp.0.to_le_bytes());
    }
}

fn decode_replica(reader: &mut FieldReader<'_>, index: usize) -> Result<ReplicaCheckpoint, CheckpointError> {
    let illegal = |what| CheckpointError::Illegal { index, what };
    let topic_id = Uuid(reader.array()?);
    let partition = PartitionIndex(reader.i32()?);
    let generation = LogGeneration { recovery_epoch: reader.u32()?, counter: reader.u32()? };
    let [flags, ..] = reader.array::<4>()?;
    let log_start = Offset(reader.i64()?);
    let end = Offset(reader.i64()?);
    let covered = reader.u64()?;
    let last_block = PartialBlock { bytes: reader.u32()?, checksum: reader.u32()? };
    let hole_count = reader.count(HOLE_BYTES)?;
    let segment_count = reader.count(SEGMENT_BYTES)?;
    let epoch_count = reader.count(EPOCH_BYTES)?;
    let producer_count = reader.count(PRODUCER_BYTES)?;
    let clean_end = Offset(reader.i64()?);
    let high_watermark = Offset(reader.i64()?);
    let high_watermark_epoch = LeaderEpoch(reader.i32()?);
    if flags & !(FLAG_STRICT | FLAG_COVERED) != 0 {
        return Err(illegal("an unknown flag is set"));
    }
    if log_start < Offset::ZERO || log_start > end {
        return Err(illegal("its start lies outside 0..=end"));
    }
    if clean_end < Offset::ZERO || clean_end > end {
        return Err(illegal("its clean part lies outside 0..=end"));
    }
    if high_watermark < Offset::ZERO {
        return Err(illegal("its high watermark is negative"));
    }
    let mut segments: Vec<SegmentCheckpoint> = Vec::with_capacity(segment_count);
    for _ in 0..segment_count {
        let base = Offset(reader.i64()?);
        let bytes = reader.u64()?;
        let (largest_timestamp, first_timestamp) = (Timestamp(reader.i64()?), Timestamp(reader.i64()?));
        let version = reader.u32()?;
        reader.u32()?;
        let segment = SegmentCheckpoint { base, version, bytes, largest_timestamp, first_timestamp };
        if segments.last().is_some_and(|last| last.base >= segment.base) {
            return Err(illegal("its segments are out of order"));
        }
        segments.push(segment);
    }
    let mut epochs: Vec<EpochStart> = Vec::with_capacity(epoch_count);
    for _ in 0..epoch_count {
        let start = EpochStart { epoch: LeaderEpoch(reader.i32()?), offset: Offset(reader.i64()?) };
        if epochs.last().is_some_and(|last| last.epoch >= start.epoch || last.offset > start.offset) {
            return Err(illegal("its epochs are out of order"));
        }
        epochs.push(start);
    }
    let mut producers = Vec::with_capacity(producer_count);
    for _ in 0..producer_count {
        producers.push(decode_producer(reader, index)?);
    }
    let mut list = Vec::with_capacity(hole_count);
    for _ in 0..hole_count {
        list.push(decode_hole(reader, index)?);
    }
    let in_range = list.last().is_none_or(|last: &Hole| last.end <= end);
    let Some(holes) = Holes::from_list(list).filter(|_| in_range) else {
        return Err(illegal("its holes are out of order"));
    };
    Ok(ReplicaCheckpoint {
        replica: ReplicaKey { partition: TopicPartition { topic_id, partition }, generation },
        strict: flags & FLAG_STRICT != 0,
        log_start,
        end,
        covered: (flags & FLAG_COVERED != 0).then_some(JournalPosition(covered)),
        clean_end,
        high_watermark,
        high_watermark_epoch,
        segments,
        last_block,
        epochs,
        producers,
        holes,
    })
}

fn decode_hole(reader: &mut FieldReader<'_>, index: usize) -> Result<Hole, CheckpointError> {
    let illegal = |what| CheckpointError::Illegal { index, what };
    let (start, end) = (Offset(reader.i64()?), Offset(reader.i64()?));
    let newest = Timestamp(reader.i64()?);
    let (base, from, to) = (Offset(reader.i64()?), reader.u32()?, reader.u32()?);
    let [cause, flags, ..] = reader.array::<4>()?;
    let bytes = HoleBytes { segment: SegmentName { base, version: reader.u32()? }, from, to };
    let why = match cause {
        1 => Cause::Journal,
        2 => Cause::Segment,
        3 => Cause::Missing,
        4 => Cause::Compacted,
        _ => return Err(illegal("a hole's cause is unknown")),
    };
    if flags & !(HOLE_HAS_BYTES | HOLE_EPOCH_UNSURE) != 0 {
        return Err(illegal("an unknown flag of a hole is set"));
    }
    let bytes = (flags & HOLE_HAS_BYTES != 0).then_some(bytes);
    Ok(Hole { start, end, why, newest, bytes, epoch_unsure: flags & HOLE_EPOCH_UNSURE != 0 })
}

fn decode_producer(reader: &mut FieldReader<'_>, index: usize) -> Result<ProducerSnapshot, CheckpointError> {
    let producer_id = ProducerId(reader.i64()?);
    let epoch = ProducerEpoch(reader.i16()?);
    let [batch_count, _] = reader.array::<2>()?;
    let coordinator_epoch = reader.i32()?;
    let last_timestamp = Timestamp(reader.i64()?);
    let transaction_first_offset = Some(Offset(reader.i64()?)).filter(|offset| *offset != Offset::NONE);
    let batch_count = usize::from(batch_count);
    if batch_count > PRODUCER_BATCHES_MAX {
        return Err(CheckpointError::Illegal { index, what: "a producer has more than five batches" });
    }
    if reader.remaining() < batch_count * BATCH_BYTES {
        return Err(CheckpointError::Short);
    }
    let mut batches = Vec::with_capacity(batch_count);
    for _ in 0..batch_count {
        batches.push(ProducerBatch {
            first_sequence: reader.i32()?,
            last_sequence: reader.i32()?,
            last_offset: Offset(reader.i64()?),
            offset_delta: reader.i32()?,
            timestamp: Timestamp(reader.i64()?),
        });
    }
    Ok(ProducerSnapshot { producer_id, epoch, coordinator_epoch, last_timestamp, transaction_first_offset, batches })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(index: i32, batches: usize) -> ReplicaCheckpoint {
        ReplicaCheckpoint {
            replica: ReplicaKey {
                partition: TopicPartition { topic_id: Uuid([index as u8; 16]), partition: PartitionIndex(index) },
                generation: LogGeneration { recovery_epoch: 3, counter: 7 },
            },
            strict: index % 2 == 0,
            log_start: Offset(5),
            end: Offset(500),
            covered: (index % 3 == 0).then_some(JournalPosition(40_960)),
            clean_end: Offset(400),
            high_watermark: Offset(510),
            high_watermark_epoch: LeaderEpoch(6),
            segments: vec![
                SegmentCheckpoint {
                    base: Offset(5),
                    version: 3,
                    bytes: 70_000,
                    largest_timestamp: Timestamp(9),
                    first_timestamp: Timestamp(2),
                },
                SegmentCheckpoint {
                    base: Offset(400),
                    version: 0,
                    bytes: 65_636,
                    largest_timestamp: Timestamp::NONE,
                    first_timestamp: Timestamp::NONE,
                },
            ],
            last_block: PartialBlock { bytes: 100, checksum: 0xdead_beef },
            epochs: vec![
                EpochStart { epoch: LeaderEpoch(1), offset: Offset(0) },
                EpochStart { epoch: LeaderEpoch(4), offset: Offset(0) },
            ],
            producers: vec![ProducerSnapshot {
                producer_id: ProducerId(1000),
                epoch: ProducerEpoch(2),
                coordinator_epoch: -1,
                last_timestamp: Timestamp(77),
                transaction_first_offset: (index % 2 == 1).then_some(Offset(450)),
                batches: (0..batches as i32)
                    .map(|n| ProducerBatch {
                        first_sequence: n * 10,
                        last_sequence: n * 10 + 9,
                        last_offset: Offset(450 + i64::from(n) * 10),
                        offset_delta: 9,
                        timestamp: Timestamp(70 + i64::from(n)),
                    })
                    .collect(),
            }],
            holes: Holes::from_list((0..i64::from(index)).map(hole).collect()).unwrap(),
        }
    }

    fn hole(n: i64) -> Hole {
        let segment = SegmentName { base: Offset(5), version: 6 };
        let bytes = HoleBytes { segment, from: 0x0102 + n as u32, to: 0x0304 };
        let (start, end) = (Offset(100 + n * 10), Offset(105 + n * 10));
        let why = [Cause::Journal, Cause::Segment, Cause::Missing, Cause::Compacted][n as usize % 4];
        let bytes = (n % 2 == 0).then_some(bytes);
        Hole { start, end, why, newest: Timestamp(9), bytes, epoch_unsure: n % 3 == 1 }
    }

    fn sample() -> Checkpoint {
        Checkpoint {
            recovery_epoch: 3,
            covered_default: JournalPosition(81_920),
            replicas: (0..7).map(|index| replica(index, index as usize % 6)).collect(),
        }
    }

    #[test]
    fn checkpoint_round_trips() {
        let checkpoint = sample();
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint.clone()));
        assert_eq!(Checkpoint::decode(&Checkpoint::default().encode()), Ok(Checkpoint::default()));
        assert_eq!(checkpoint.replay_from(), JournalPosition(40_960));
        assert_eq!(checkpoint.replicas[0].active_segment_base(), Some(Offset(400)));
    }

    #[test]
    fn layout_is_the_documented_one() {
        let checkpoint =
            Checkpoint { recovery_epoch: 2, covered_default: JournalPosition(0x1122), replicas: vec![replica(1, 1)] };
        let bytes = checkpoint.encode();
        assert_eq!(bytes[0..16], [2, 0, 0, 0, 1, 0, 0, 0, 0x22, 0x11, 0, 0, 0, 0, 0, 0]);
        let expected = 16 + REPLICA_BYTES + 2 * SEGMENT_BYTES + 2 * EPOCH_BYTES + PRODUCER_BYTES + BATCH_BYTES;
        assert_eq!(bytes.len(), expected + HOLE_BYTES);
        assert_eq!(bytes[16 + 64], 1, "holes");
        let hole = &bytes[expected..];
        assert_eq!((hole[0], hole[8], hole[16], hole[24]), (100, 105, 9, 5));
        assert_eq!(hole[32..48], [2, 1, 0, 0, 4, 3, 0, 0, 1, 1, 0, 0, 6, 0, 0, 0]);
        assert_eq!(bytes[16 + 28], 0, "flags: neither strict nor a position of its own");
        assert_eq!(bytes[16 + 56..16 + 64], [100, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde]);
        assert_eq!(bytes[16 + 80..16 + 88], [0x90, 1, 0, 0, 0, 0, 0, 0], "the clean part");
        assert_eq!(bytes[16 + 88..16 + 96], [0xfe, 1, 0, 0, 0, 0, 0, 0], "the high watermark");
        assert_eq!(bytes[16 + 96..16 + 100], [6, 0, 0, 0], "the epoch in which that was known");
        assert_eq!(bytes[16 + 100 + 32..16 + 100 + 40], [3, 0, 0, 0, 0, 0, 0, 0], "the first segment's version");
    }

    #[test]
    fn every_cut_is_refused() {
        let bytes = sample().encode();
        for len in 0..bytes.len() {
            assert!(Checkpoint::decode(&bytes[..len]).is_err(), "{len} of {} bytes decoded", bytes.len());
        }
        let mut longer = bytes;
        longer.push(0);
        assert_eq!(Checkpoint::decode(&longer), Err(CheckpointError::Trailing(1)));
    }

    #[test]
    fn promised_counts_never_size_an_allocation() {
        let mut bytes = sample().encode();
        bytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes), Err(CheckpointError::Short));
        let mut bytes = sample().encode();
        bytes[16 + 68..16 + 72].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Checkpoint::decode(&bytes), Err(CheckpointError::Short));
    }

    #[test]
    fn disorder_is_refused() {
        let mut checkpoint = sample();
        checkpoint.replicas[2].segments.reverse();
        assert!(matches!(Checkpoint::decode(&checkpoint.encode()), Err(CheckpointError::Illegal { index: 2, .. })));
        let mut checkpoint = sample();
        checkpoint.replicas[1].clean_end = Offset(501);
        assert!(matches!(Checkpoint::decode(&checkpoint.encode()), Err(CheckpointError::Illegal { index: 1, .. })));
        let mut checkpoint = sample();
        checkpoint.replicas[3].end = Offset(120);
        checkpoint.replicas[3].clean_end = Offset(5);
        assert!(matches!(Checkpoint::decode(&checkpoint.encode()), Err(CheckpointError::Illegal { index: 3, .. })));
        let mut checkpoint = sample();
        checkpoint.replicas[1].log_start = Offset(501);
        assert!(matches!(Checkpoint::decode(&checkpoint.encode()), Err(CheckpointError::Illegal { index: 1, .. })));
    }
}
