//! Moving durable batches into segments: what to write where, and when a new segment begins.

use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{Offset, Timestamp};

use super::tail::Chunk;
use super::{Log, Segments, Sweep};
use crate::LogGeneration;
use crate::index::SparseIndex;
use crate::segment::flush::{BatchPlace, FlushDone, FlushJob, FlushPart, FlushedPart, SealFirst};
use crate::segment::{Segment, SegmentName};

/// A flush job takes no more than this, unless one commit alone is larger: bounds the journal it keeps a pool
/// thread from releasing.
pub const FLUSH_BYTES_MAX: u64 = 4 << 20;

/// Durable batches older than this are flushed even when they are few, so that journal files become free.
pub const FLUSH_AGE_MAX: Duration = Duration::from_secs(5);

/// Index entries are 8 bytes in Kafka, by which `segment.index.bytes` counts.
const KAFKA_INDEX_ENTRY_BYTES: u64 = 8;

impl Log {
    /// Bytes that could be flushed now.
    pub fn flushable_bytes(&self) -> u64 {
        self.tail.flushable_bytes()
    }

    /// Plans the next write to segments: whole durable commits, when there are `min_bytes` of them, or the oldest is
    /// [`FLUSH_AGE_MAX`] old, or `force`. One job at a time; `None` while one is in flight.
    pub fn plan_flush(&mut self, now: Timestamp, force: bool, min_bytes: u64) -> Option<FlushJob> {
        let flushable = self.tail.flushable_bytes();
        if flushable == 0 || self.flush_in_flight || self.segments.are_held() || self.is_changing() {
            return None;
        }
        let oldest = self.tail.oldest_unflushed()?;
        if !force && flushable < min_bytes && oldest.saturating_add(FLUSH_AGE_MAX) > now {
            return None;
        }
        let (mut chunks, mut controls, mut bytes, mut through) = (0, 0, 0, 0);
        while let Some((group, group_controls)) = self.tail.group_after(chunks, controls) {
            if chunks > 0 && bytes + group.bytes > FLUSH_BYTES_MAX {
                break;
            }
            chunks += group.chunks_count;
            controls += group_controls;
            bytes += group.bytes;
            through = group.last_ticket;
        }
        if chunks == 0 {
            return None;
        }
        self.flush_in_flight = true;
        Some(self.flush_job(chunks, through))
    }

    fn flush_job(&mut self, chunks: usize, through: u64) -> FlushJob {
        let mut seal_first = None;
        let mut parts: Vec<FlushPart> = Vec::new();
        let mut index_entries = self.segments.active_index.as_ref().map_or(0, |index| index.entries().len() as u64);
        let mut open = self.segments.list.last().filter(|_| !self.segments.last_closed).copied();
        let mut cut_first = self.segments.cut_first;
        if self.segments.last_closed
            && let Some(segment) = self.segments.list.last().copied()
        {
            seal_first = Some(SealFirst { segment, index: self.segments.whole_index() });
        }
        for chunk in self.tail.unflushed().take(chunks) {
            if let Some(segment) = open
                && self.must_roll(&segment, index_entries, chunk)
            {
                match parts.last_mut() {
                    Some(part) => part.seal = true,
                    None => seal_first = Some(SealFirst { segment, index: self.segments.whole_index() }),
                }
                open = None;
                cut_first = false;
            }
            if open.is_none() || parts.is_empty() {
                let create = open.is_none();
                if create {
                    index_entries = 0;
                }
                let before = open.unwrap_or(Segment::empty(chunk.base, chunk.appended));
                parts.push(FlushPart {
                    before,
                    after: before,
                    create,
                    cut: cut_first && !create,
                    reserve_bytes: if self.config.preallocate { u64::from(self.config.segment_bytes) } else { 0 },
                    reserved: if create { 0 } else { self.segments.reserved },
                    learn_first: self.segments.learn_first && !create,
                    seal: false,
                    pieces: Vec::new(),
                    batches: Vec::new(),
                });
            }
            let part = parts.last_mut().expect("just pushed");
            add(part, chunk);
            index_entries += 1 + chunk.place.len() / u64::from(self.config.index_interval_bytes.max(1));
            open = Some(part.after);
        }
        FlushJob { replica: self.key, through, seal_first, parts }
    }

    /// Kafka's `LogSegment.shouldRoll`.
    fn must_roll(&self, segment: &Segment, index_entries: u64, chunk: &Chunk) -> bool {
        let waited = if segment.first_timestamp.0 >= 0 && chunk.max_timestamp.0 >= 0 {
            chunk.max_timestamp - segment.first_timestamp
        } else {
            chunk.appended - segment.created
        };
        segment.bytes + chunk.place.len() > u64::from(self.config.segment_bytes)
            || u128::try_from(waited).is_ok_and(|waited| waited > self.segment_ms(segment))
            || index_entries * KAFKA_INDEX_ENTRY_BYTES >= u64::from(self.config.segment_index_bytes)
            || chunk.end - segment.base > i64::from(i32::MAX)
    }

    /// `segment.ms` less the segment's share of `segment.jitter.ms`, so that logs that began together do not all roll
    /// together. It follows from the segment, and so is the same each time it is asked for.
    fn segment_ms(&self, segment: &Segment) -> u128 {
        let whole = self.config.segment_ms.as_millis();
        let bound = self.config.segment_jitter.as_millis().min(whole);
        let of = self.key.partition;
        let seed = crc32c::crc32c_append(crc32c::crc32c(&of.topic_id.0), &of.partition.0.to_le_bytes());
        let share = u128::from(crc32c::crc32c_append(seed, &segment.base.0.to_le_bytes()));
        whole - if bound == 0 { 0 } else { (share * bound) >> 32 }
    }

    /// A flush is done: its batches are in segments (not yet fsynced). Of an older generation it changes nothing, save
    /// that what it wrote is cut off by the next. Returns whether it counted.
    pub fn on_flushed(&mut self, done: FlushDone) -> bool {
        assert!(self.flush_in_flight, "one flush at a time");
        self.flush_in_flight = false;
        let is_abandonable = done.replica != self.key || self.dropped;
        assert!(!done.abandoned || is_abandonable, "the journal keeps what is not in segments");
        if done.replica != self.key {
            self.segments.cut_first = true;
            return false;
        }
        if self.settling.is_some() || self.dropped {
            return false;
        }
        // One that was written anew meanwhile is durable.
        let is_there = |name: &SegmentName| self.segments.list.iter().any(|segment| segment.name() == *name);
        if let Some(name) = done.sealed_first.filter(is_there) {
            self.segments.unsynced.add(name, false);
        }
        for part in done.parts {
            self.segments.on_part_flushed(part, self.config.index_interval_bytes);
        }
        self.cover(done.through);
        self.cover_controls();
        // The log start may have passed it while the flush was on its way.
        self.close_deleted_segment();
        let last = self.segments.list.last().map(|last| last.end);
        assert!(last <= Some(self.covered.end), "segments hold no more than is covered");
        true
    }

    /// The flush in flight could not be done for want of space ([`crate::Fault::is_out_of_space`]): it may be planned
    /// again. Whatever it wrote is cut off then.
    pub fn on_flush_deferred(&mut self, _generation: LogGeneration) {
        self.flush_in_flight = false;
        self.segments.cut_first = true;
    }
}

fn add(part: &mut FlushPart, chunk: &Chunk) {
    let after = &mut part.after;
    chunk.for_each_batch(|at, header| {
        part.batches.push(BatchPlace {
            base_offset: header.base_offset,
            position: after.bytes + at as u64,
            bytes: header.batch_bytes as u64,
            max_timestamp: header.max_timestamp,
        });
    });
    if after.bytes == 0 {
        after.first_timestamp = chunk.first_timestamp;
    }
    after.bytes += chunk.place.len();
    after.end = chunk.end;
    after.max_timestamp = after.max_timestamp.max(chunk.max_timestamp);
    part.pieces.push(chunk.place.clone());
}

impl Segments {
    /// Whether a file made now might be taken for one that is to go.
    fn are_held(&self) -> bool {
        let is_swept = matches!(self.sweep, Sweep::UnderWay { is_cut: true });
        self.hold_flush || !self.deleting.is_empty() || is_swept
    }

    fn whole_index(&self) -> Option<Arc<SparseIndex>> {
        self.active_index.clone().filter(|index| index.known_from() == 0)
    }

    fn on_part_flushed(&mut self, part: FlushedPart, interval_bytes: u32) {
        let FlushedPart { segment, created, reserved, batches } = part;
        if created {
            self.list.push(segment);
            self.active_index = None;
        } else {
            *self.list.last_mut().expect("the active segment") = segment;
        }
        (self.last_closed, self.cut_first, self.learn_first) = (false, false, false);
        self.reserved = reserved;
        self.unsynced.add(segment.name(), created);
        let Some(first) = batches.first() else { return };
        let before = if created { Timestamp::NONE } else { segment.max_timestamp };
        let index = self
            .active_index
            .get_or_insert_with(|| Arc::new(SparseIndex::starting(segment.base, first.position, before)));
        let index = Arc::make_mut(index);
        for batch in &batches {
            index.push(batch.base_offset, batch.position, batch.bytes, batch.max_timestamp, interval_bytes);
        }
    }

    /// Keeps the segments of a cut log; all others are doomed.
    pub(super) fn cut_to(&mut self, kept: Vec<Segment>, end: Offset) {
        // The next segment to be written will have this name.
        let next = Segment::empty(end, Timestamp::NONE).name();
        let is_kept = |name: &SegmentName| *name == next || kept.iter().any(|segment| segment.name() == *name);
        self.doomed.extend(self.list.iter().map(Segment::name).filter(|name| !is_kept(name)));
        self.checkpointed_end = self.checkpointed_end.min(end);
        self.clean_end = self.clean_end.min(end);
        if let Sweep::UnderWay { is_cut } = &mut self.sweep {
            *is_cut = true;
        }
        // What is unsynced stays so: until the cut is durable the checkpoint names segments as they were.
        self.list = kept;
        self.last_closed = true;
        self.active_index = None;
        self.cut_first = false;
        self.learn_first = false;
    }
}
