//! Reading: from the tail at once, without copying; from segments and the journal by a job.

use bytes::Bytes;
use stonelog_protocol::{Offset, Timestamp};

use super::Log;
use super::tail::{Chunk, Place};
use crate::holes::Hole;
use crate::segment::Segment;
use crate::segment::read::{LookupJob, ReadJob, Source, first_batch};
use crate::segment::walk::Batches;

/// Chunks that one job reads from the journal in place.
const JOURNAL_PIECES_COUNT_MAX: usize = 256;

/// What a read came to.
#[derive(Clone, Debug)]
pub enum Read {
    /// Whole batches from memory, and their bytes. The first may begin below the offset asked for.
    Ready(Vec<Bytes>, usize),
    /// They are on disk: run the job.
    Job(ReadJob),
    /// Nothing to read there yet, or not even one batch fits.
    Empty,
    /// The offset lies in a hole (CORRUPT_MESSAGE).
    Damaged(Hole),
    /// The offset is below the log start or above the log's end (OFFSET_OUT_OF_RANGE).
    OutOfRange,
}

/// What a look-up by time came to.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The first batch that holds a record at or after the time; `None` when there is none.
    Ready(Option<Bytes>),
    /// It is on disk: run the job.
    Job(LookupJob),
    /// There is none before a hole, which may hold it (CORRUPT_MESSAGE).
    Damaged(Hole),
}

impl Log {
    /// Whole batches from the one that holds `from` on, below `up_to`, at most `max_bytes`; with `at_least_one` the
    /// first comes whatever its size.
    pub fn read(&self, from: Offset, up_to: Offset, max_bytes: usize, at_least_one: bool) -> Read {
        if from < self.log_start || from > self.log_end() {
            return Read::OutOfRange;
        }
        let up_to = up_to.min(self.log_end());
        if from >= up_to || (max_bytes == 0 && !at_least_one) {
            return Read::Empty;
        }
        let hole = self.holes.at_or_after(from).filter(|hole| hole.start < up_to).copied();
        let up_to = match hole {
            Some(hole) if hole.start <= from => return Read::Damaged(hole),
            Some(hole) => hole.start,
            None => up_to,
        };
        let job = |source| {
            let replica = self.key;
            Read::Job(ReadJob { replica, source, from, up_to, max_bytes, at_least_one, hole })
        };
        if from < self.tail.start() {
            return self.segment_source(from).map_or(Read::OutOfRange, job);
        }
        let chunks = self.tail.chunks();
        let first = chunks.partition_point(|chunk| chunk.end <= from);
        if matches!(chunks[first].place, Place::Journal { .. }) {
            return job(Source::Journal(journal_pieces(chunks.range(first..), up_to, max_bytes)));
        }
        let mut batches = Vec::new();
        let mut total = 0;
        for chunk in chunks.range(first..) {
            let Place::Memory(bytes) = &chunk.place else { break };
            let room = max_bytes.saturating_sub(total);
            // Most chunks are taken whole without a look inside.
            if chunk.base >= from && chunk.end <= up_to && bytes.len() <= room {
                total += bytes.len();
                batches.push(bytes.clone());
                continue;
            }
            let (part, to_the_end) = part_of(bytes, from, up_to, room, at_least_one && total == 0);
            if !part.is_empty() {
                total += part.len();
                batches.push(part);
            }
            if !to_the_end {
                break;
            }
        }
        if batches.is_empty() { Read::Empty } else { Read::Ready(batches, total) }
    }

    /// The first batch below `up_to` that holds a record at or after `timestamp` (ListOffsets by time). The record is
    /// found in the batch by whoever decodes it.
    pub fn lookup_timestamp(&self, timestamp: Timestamp, up_to: Offset) -> Lookup {
        let hole = self.holes.list().iter().find(|hole| hole.newest >= timestamp && hole.start < up_to).copied();
        let up_to = hole.map_or(up_to, |hole| hole.start);
        let mut sources: Vec<Source> = Vec::new();
        for (at, segment) in self.segments.list.iter().enumerate() {
            if segment.max_timestamp >= timestamp && segment.end > self.log_start && segment.base < up_to {
                let start = self.active_start(at, |index| index.position_of_time(timestamp));
                let skip = self.holes.in_segment(segment.name());
                sources.push(Source::Segment { segment: *segment, closed: self.is_closed(at), start, skip });
            }
        }
        for chunk in self.tail.unflushed().filter(|chunk| chunk.max_timestamp >= timestamp && chunk.base < up_to) {
            match &chunk.place {
                Place::Memory(bytes) => {
                    let found = first_batch(bytes, |header| {
                        header.max_timestamp >= timestamp
                            && header.next_offset() <= up_to
                            && header.next_offset() > self.log_start
                    });
                    if found.is_some() && sources.is_empty() {
                        return Lookup::Ready(found);
                    }
                    if let Some(batch) = found {
                        sources.push(Source::Memory(batch));
                        break;
                    }
                }
                Place::Journal { position, len } => sources.push(Source::Journal(vec![(*position, *len)])),
            }
            if sources.len() > JOURNAL_PIECES_COUNT_MAX + self.segments.list.len() {
                break;
            }
        }
        if sources.is_empty() {
            return hole.map_or(Lookup::Ready(None), Lookup::Damaged);
        }
        Lookup::Job(LookupJob { replica: self.key, sources, timestamp, from: self.log_start, up_to, hole })
    }

    /// The largest record timestamp below `up_to`, by whole segments and batches. [`Log::lookup_timestamp`] finds its
    /// first batch, unless it lies in a segment that reaches beyond `up_to`, behind it.
    pub fn max_timestamp(&self, up_to: Offset) -> Option<Timestamp> {
        let live = self.segments.list.iter().filter(|segment| segment.end > self.log_start && segment.base < up_to);
        let segments = live.map(|segment| segment.max_timestamp);
        let tail = self.tail.unflushed().filter(|chunk| chunk.end > self.log_start && chunk.end <= up_to);
        segments.chain(tail.map(|chunk| chunk.max_timestamp)).max().filter(|timestamp| timestamp.0 >= 0)
    }

    fn segment_source(&self, from: Offset) -> Option<Source> {
        let list = &self.segments.list;
        let at = list.partition_point(|segment| segment.end <= from);
        let segment: Segment = *list.get(at)?;
        let start = if from <= segment.base { Some(0) } else { self.active_start(at, |index| index.position_of(from)) };
        let skip = self.holes.in_segment(segment.name());
        Some(Source::Segment { segment, closed: self.is_closed(at), start, skip })
    }

    fn active_start(&self, at: usize, find: impl Fn(&crate::index::SparseIndex) -> Option<u64>) -> Option<u64> {
        if at + 1 < self.segments.list.len() {
            return None;
        }
        self.segments.active_index.as_ref().and_then(|index| find(index))
    }

    pub(super) fn is_closed(&self, at: usize) -> bool {
        // The last one's partial block is known here; its `.sum` file has it only after the next one was begun.
        at + 1 < self.segments.list.len()
    }
}

/// The batches of a run that a read asked for, a slice of it, and whether that reaches to the run's end.
fn part_of(bytes: &Bytes, from: Offset, up_to: Offset, room: usize, at_least_one: bool) -> (Bytes, bool) {
    let mut part: Option<(usize, usize)> = None;
    for (at, header) in Batches::of(bytes) {
        if header.next_offset() <= from {
            continue;
        }
        let end = at + header.batch_bytes;
        let start = part.map_or(at, |(start, _)| start);
        let fits = end - start <= room || (at_least_one && part.is_none());
        if header.next_offset() > up_to || !fits {
            break;
        }
        part = Some((start, end));
    }
    part.map_or((Bytes::new(), false), |(start, end)| (bytes.slice(start..end), end == bytes.len()))
}

fn journal_pieces<'a>(
    chunks: impl Iterator<Item = &'a Chunk>,
    up_to: Offset,
    max_bytes: usize,
) -> Vec<(crate::journal::JournalPosition, u32)> {
    let mut pieces = Vec::new();
    let mut total = 0;
    for chunk in chunks.take(JOURNAL_PIECES_COUNT_MAX) {
        let Place::Journal { position, len } = chunk.place else { break };
        if chunk.base >= up_to || (total > 0 && total + len as usize > max_bytes) {
            break;
        }
        total += len as usize;
        pieces.push((position, len));
    }
    pieces
}
