//! Reading batches from segments, or in place from the journal, each byte checked on the way.
//!
//! Two checks by two routes: the block checksums, which cover base offsets and leader epochs too, and each batch's own
//! CRC. A job reads from one segment; the caller asks again for the next.

use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::{HeaderError, crc_matches};
use stonelog_protocol::{Offset, Timestamp};

use super::Segment;
use super::verified::{VerifiedSegment, is_gone};
use super::walk::Batches;
use crate::holes::{Hole, HoleBytes};
use crate::job::FileAccess;
use crate::journal::JournalPosition;
use crate::{Fault, ReplicaKey};

/// A read takes at least this much from the file at once, to find a batch between two index entries.
const WINDOW_BYTES_MIN: u64 = 64 * 1024;

/// Reads whole batches. Planned by [`crate::log::Log::read`].
#[derive(Clone, Debug)]
pub struct ReadJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) source: Source,
    pub(crate) from: Offset,
    pub(crate) up_to: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) at_least_one: bool,
    /// Ends the range, when `up_to` is its start.
    pub(crate) hole: Option<Hole>,
}

/// Where a job reads from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Segment {
        segment: Segment,
        /// It does not grow any more, so all its checksums are in its `.sum` file or on their way there, and its index may be kept.
        closed: bool,
        /// Where to begin looking, when the log knows.
        start: Option<u64>,
        /// What is damaged in it, rising.
        skip: Vec<HoleBytes>,
    },
    /// Chunks one after the other, each within one commit.
    Journal(Vec<(JournalPosition, u32)>),
    Memory(Bytes),
}

/// What a [`ReadJob`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadDone {
    /// Whole batches, one after the other.
    Batches {
        /// Runs of batches; none when the range holds none.
        batches: Vec<Bytes>,
        /// Their bytes.
        bytes: usize,
        /// The offset to go on from.
        next: Offset,
    },
    /// Nothing before a hole: what follows is damaged or missing.
    Damaged(Hole),
    /// What was to be read is elsewhere by now, or deleted: ask the log again.
    Moved,
}

impl ReadJob {
    /// Reads and checks. [`Fault::Damage`] names bytes that fail their check.
    pub fn run(self, access: &FileAccess) -> Result<ReadDone, Fault> {
        match self.read(access) {
            Err(fault) if is_gone(&fault) => Ok(ReadDone::Moved),
            done => done,
        }
    }

    fn read(self, access: &FileAccess) -> Result<ReadDone, Fault> {
        let mut found = self.begin();
        match self.source {
            Source::Segment { segment, closed, start, skip } => {
                let id = segment.id(self.replica.partition);
                let Some(file) = VerifiedSegment::open(access, id, segment, closed, &skip)? else {
                    return Ok(ReadDone::Moved);
                };
                found.read_segment(&file, segment, start)?;
                let is_empty = found.batches.is_empty() && !found.is_full;
                if let Some(hole) = self.hole.filter(|hole| is_empty && hole.start < segment.end) {
                    return Ok(ReadDone::Damaged(hole));
                }
            }
            Source::Journal(pieces) => {
                for (position, len) in pieces {
                    let bytes = match access.read_journal(position, len) {
                        Err(fault) if is_recycled(&fault) => return Ok(ReadDone::Moved),
                        result => result?,
                    };
                    match found.take(&bytes) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(at) => return Err(journal_damage(access, position, at)),
                    }
                }
            }
            Source::Memory(bytes) => {
                found.take(&bytes).expect("batches in memory were checked when they came");
            }
        }
        Ok(found.done())
    }

    /// The same without waiting for the device, checked just so: `None` when something is not in memory, and when
    /// anything is wrong or known to be, which is for [`ReadJob::run`] to find out and say. Nor does it read more than
    /// `bytes_left`: what lies between an index entry and the offset asked for may be much, and so may one batch. What it
    /// does read is taken off, whatever comes of it.
    pub fn try_now(&self, access: &FileAccess, bytes_left: &mut u64) -> Option<ReadDone> {
        let left = Cell::new(*bytes_left);
        let done = self.read_now(access, &left);
        *bytes_left = left.get();
        done
    }

    fn read_now(&self, access: &FileAccess, bytes_left: &Cell<u64>) -> Option<ReadDone> {
        let Source::Segment { segment, closed, start, skip } = &self.source else { return None };
        if self.hole.is_some() || !skip.is_empty() {
            return None;
        }
        let id = segment.id(self.replica.partition);
        let file = VerifiedSegment::already_open(access, id, *segment, *closed, bytes_left)?;
        let mut found = self.begin();
        found.read_segment(&file, *segment, *start).ok()?;
        Some(found.done())
    }

    /// About how many bytes it reads.
    pub fn bytes_max(&self) -> usize {
        self.max_bytes.max(WINDOW_BYTES_MIN as usize)
    }

    fn begin(&self) -> Found {
        Found {
            from: self.from,
            up_to: self.up_to,
            max_bytes: self.max_bytes,
            at_least_one: self.at_least_one,
            batches: Vec::new(),
            bytes: 0,
            next: self.from,
            is_full: false,
        }
    }
}

/// Collects the batches that a read asked for.
struct Found {
    from: Offset,
    up_to: Offset,
    max_bytes: usize,
    at_least_one: bool,
    batches: Vec<Bytes>,
    bytes: usize,
    next: Offset,
    /// A batch in the range did not fit.
    is_full: bool,
}

impl Found {
    /// Takes what was asked for out of one segment. `start` is where to begin looking, when that is known.
    fn read_segment(&mut self, file: &VerifiedSegment<'_>, segment: Segment, start: Option<u64>) -> Result<(), Fault> {
        let start = match start {
            Some(start) => start,
            None => file.index()?.position_of(self.from).unwrap_or(0),
        };
        file.for_each_window(start, (self.max_bytes as u64).max(WINDOW_BYTES_MIN), |position, window| {
            self.take(&window).map_err(|at| file.damage("batch", position + at as u64, "its CRC does not match"))
        })?;
        // Nothing from there on is left in it, as compaction may leave it. A batch that does not fit is no reason.
        if self.batches.is_empty() && !self.is_full && self.up_to >= segment.end {
            self.next = segment.end;
        }
        Ok(())
    }

    fn done(self) -> ReadDone {
        ReadDone::Batches { batches: self.batches, bytes: self.bytes, next: self.next }
    }

    /// Takes what fits of a run of whole batches. Whether more may follow, or where a batch is damaged.
    fn take(&mut self, window: &Bytes) -> Result<bool, usize> {
        let mut run: Option<(usize, usize)> = None;
        let mut more = true;
        for (at, header) in Batches::of(window) {
            if header.next_offset() <= self.from {
                continue;
            }
            let fits = self.bytes + header.batch_bytes <= self.max_bytes || (self.at_least_one && self.bytes == 0);
            if header.next_offset() > self.up_to || !fits {
                self.is_full |= !fits;
                more = false;
                break;
            }
            let end = at + header.batch_bytes;
            if !crc_matches(&window[at..end]) {
                return Err(at);
            }
            run = Some((run.map_or(at, |(start, _)| start), end));
            self.bytes += header.batch_bytes;
            self.next = header.next_offset();
        }
        if let Some((start, end)) = run {
            self.batches.push(window.slice(start..end));
        }
        Ok(more && self.bytes < self.max_bytes)
    }
}

/// Finds the first batch with a record at or after a time. Planned by [`crate::log::Log::lookup_timestamp`].
#[derive(Clone, Debug)]
pub struct LookupJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) sources: Vec<Source>,
    pub(crate) timestamp: Timestamp,
    pub(crate) from: Offset,
    pub(crate) up_to: Offset,
    /// Ends the range, when `up_to` is its start, and may hold what is looked for.
    pub(crate) hole: Option<Hole>,
}

/// What a [`LookupJob`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupDone {
    /// The first batch whose largest timestamp is at or after the one asked for; the record is in it.
    Found(Bytes),
    /// There is none.
    NotFound,
    /// There is none before a hole, which may hold it.
    Damaged(Hole),
    /// Files have moved: ask the log again.
    Moved,
}

impl LookupJob {
    /// Searches the places in order.
    pub fn run(self, access: &FileAccess) -> Result<LookupDone, Fault> {
        match self.search(access) {
            Err(fault) if is_gone(&fault) => Ok(LookupDone::Moved),
            done => done,
        }
    }

    fn search(self, access: &FileAccess) -> Result<LookupDone, Fault> {
        let matches = |header: &BatchHeader| {
            // Compaction leaves batches without records.
            header.records_count > 0
                && header.max_timestamp >= self.timestamp
                && header.next_offset() > self.from
                && header.next_offset() <= self.up_to
        };
        for source in &self.sources {
            let mut found = None;
            match source {
                Source::Segment { segment, closed, start, skip } => {
                    let id = segment.id(self.replica.partition);
                    let Some(file) = VerifiedSegment::open(access, id, *segment, *closed, skip)? else {
                        return Ok(LookupDone::Moved);
                    };
                    let start = match start {
                        Some(start) => *start,
                        None => file.index()?.position_of_time(self.timestamp).unwrap_or(0),
                    };
                    file.for_each_window(start, WINDOW_BYTES_MIN, |_, window| {
                        found = first_batch(&window, matches);
                        Ok(found.is_none())
                    })?;
                }
                Source::Journal(pieces) => {
                    for (position, len) in pieces {
                        let bytes = match access.read_journal(*position, *len) {
                            Err(fault) if is_recycled(&fault) => return Ok(LookupDone::Moved),
                            result => result?,
                        };
                        found = first_batch(&bytes, matches);
                        if found.is_some() {
                            break;
                        }
                    }
                }
                Source::Memory(bytes) => found = first_batch(bytes, matches),
            }
            if let Some(batch) = found {
                return Ok(LookupDone::Found(batch));
            }
        }
        Ok(self.hole.map_or(LookupDone::NotFound, LookupDone::Damaged))
    }
}

pub(crate) fn first_batch(bytes: &Bytes, matches: impl Fn(&BatchHeader) -> bool) -> Option<Bytes> {
    Batches::of(bytes).find(|(_, header)| matches(header)).map(|(at, header)| bytes.slice(at..at + header.batch_bytes))
}

/// The journal file was freed after the read was planned: its batches are in segments by now.
pub(super) fn is_recycled(fault: &Fault) -> bool {
    matches!(fault, Fault::Damage { what: "journal range", .. })
}

fn journal_damage(access: &FileAccess, position: JournalPosition, at: usize) -> Fault {
    Fault::Damage {
        what: "batch",
        path: access.path(std::path::Path::new("journal")),
        position: position.0 + at as u64,
        detail: "its CRC does not match".to_owned(),
    }
}

impl VerifiedSegment<'_> {
    /// Calls `visit` with one window of whole batches after the other, from the batch that begins at `position` on,
    /// until it returns `false` or the segment ends.
    pub(crate) fn for_each_window(
        &self,
        mut position: u64,
        window_bytes: u64,
        mut visit: impl FnMut(u64, Bytes) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut want = window_bytes;
        loop {
            let (at, end) = self.stretch(position);
            position = at;
            if position == end {
                return Ok(());
            }
            let window = self.read(position, want.min(end - position))?;
            let mut walk = Batches::of(&window);
            walk.by_ref().for_each(drop);
            match walk.rest() {
                (whole, None | Some(HeaderError::Short)) if whole > 0 => {
                    if !visit(position, window.slice(..whole))? {
                        return Ok(());
                    }
                    position += whole as u64;
                    want = window_bytes;
                }
                (_, Some(HeaderError::Short)) => {
                    // One batch is longer than the window.
                    let batch =
                        BatchHeader::read_without_records(&window).map_or(u64::MAX, |header| header.batch_bytes as u64);
                    if batch > end - position {
                        return Err(self.damage("batch", position, "it reaches beyond the segment's end"));
                    }
                    want = batch;
                }
                _ => return Err(self.damage("batch", position, "no batch begins here")),
            }
        }
    }
}

/// An empty buffer of a length that was checked against the file's.
pub(super) fn buffer(len: u64) -> BytesMut {
    BytesMut::zeroed(usize::try_from(len).expect("a segment's size fits in memory's address space"))
}
