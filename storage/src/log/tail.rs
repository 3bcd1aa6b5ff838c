//! The newest part of a log: appended, and not yet (or only just) in segments.
//!
//! ```text
//!            flushed           durable        written        appended
//!   ├──────────┼─────────────────┼──────────────┼───────────────┤
//!   │ in segments; kept for      │ in the journal, fsynced      │ queued for the journal
//!   │ readers of the tail        │              │ in the journal│
//! ```
//!
//! Data ([`Chunk`]) and other changes ([`Control`]) are two queues with one order: their tickets, which rise across both.
//! Everything of one commit is covered together, so that a checkpoint never splits a commit.

use std::collections::VecDeque;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{Offset, Timestamp};

use crate::LogGeneration;
use crate::journal::{Change, JournalPosition};
use crate::segment::walk::Batches;

/// Where a chunk's batches can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory.
    Memory(Bytes),
    /// Only in the journal: recovered, and not yet in a segment.
    Journal {
        /// Where the batches begin.
        position: JournalPosition,
        /// Their length in bytes.
        len: u32,
    },
}

impl Place {
    /// Length of the batches in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Journal { len, .. } => u64::from(*len),
        }
    }

    /// Whether there are no batches; never so in a tail.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where in the journal a write of one or several commits lies: what a lane hears of it at once, and what a checkpoint
/// covers at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CommitSpan {
    /// Where the first commit begins.
    pub start: JournalPosition,
    /// Where the last commit ends.
    pub end: JournalPosition,
}

/// Whole batches that were appended together.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) place: Place,
    pub(crate) ticket: u64,
    /// Where it is in the journal; meaningful once written.
    pub(crate) span: CommitSpan,
    /// Its place was learnt from a later commit, so it may lie before `span`.
    pub(crate) inexact: bool,
    pub(crate) appended: Timestamp,
    pub(crate) first_timestamp: Timestamp,
    pub(crate) max_timestamp: Timestamp,
    /// The headers, when the bytes are not in memory.
    pub(crate) headers: Option<Box<[BatchHeader]>>,
}

impl Chunk {
    /// Calls `visit` with each batch: where it begins in the chunk, and its header.
    pub(crate) fn for_each_batch(&self, mut visit: impl FnMut(usize, &BatchHeader)) {
        match (&self.place, &self.headers) {
            (_, Some(headers)) => {
                let mut at = 0;
                for header in headers {
                    visit(at, header);
                    at += header.batch_bytes;
                }
            }
            (Place::Memory(bytes), None) => {
                for (at, header) in Batches::of(bytes) {
                    visit(at, &header);
                }
            }
            (Place::Journal { .. }, None) => unreachable!("a chunk in the journal carries its headers"),
        }
    }

    /// Cuts off the batches that end above `end`, maybe all.
    fn cut(&mut self, end: Offset) {
        let (mut len, mut max_timestamp, mut kept, mut kept_end) = (0, Timestamp::NONE, 0, self.base);
        self.for_each_batch(|at, header| {
            if header.next_offset() <= end {
                kept_end = header.next_offset();
                len = at + header.batch_bytes;
                max_timestamp = max_timestamp.max(header.max_timestamp);
                kept += 1;
            }
        });
        match &mut self.place {
            Place::Memory(bytes) => bytes.truncate(len),
            Place::Journal { len: bytes, .. } => *bytes = len as u32,
        }
        if let Some(headers) = &mut self.headers {
            *headers = headers[..kept].into();
        }
        self.max_timestamp = max_timestamp;
        self.end = kept_end;
    }
}

/// A change other than an append, in its place among the appends.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) ticket: u64,
    pub(crate) span: CommitSpan,
    pub(crate) change: Change,
    /// The log's generation from this change on.
    pub(crate) generation: LogGeneration,
}

impl Control {
    /// Whether it is known where in the journal it lies.
    fn is_placed(&self) -> bool {
        self.span != CommitSpan::default()
    }
}

/// Chunks and controls of one commit, next to be covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) chunks_count: usize,
    pub(crate) bytes: u64,
    pub(crate) last_ticket: u64,
    pub(crate) oldest: Timestamp,
}

/// The tail of one log.
#[derive(Debug)]
pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
    /// How many chunks at the front are in segments already.
    flushed_count: usize,
    controls: VecDeque<Control>,
    /// Bytes of all chunks in memory, and of those among them that are flushed.
    memory_bytes: u64,
    flushed_memory_bytes: u64,
    log_end: Offset,
    written: Offset,
    durable: Offset,
    written_ticket: u64,
    durable_ticket: u64,
    /// How many chunks at the front are written, and durable.
    written_count: usize,
    durable_count: usize,
    /// Bytes of the chunks that are durable and not in segments.
    flushable_bytes: u64,
    /// Everything up to this ticket is covered at once: a truncation and what it left before itself. Between them lie
    /// journal entries that it cut off, which replay must see either with the truncation or not at all.
    covered_at_once: u64,
}

impl Tail {
    /// An empty tail of a log that ends at `end`, all of it durable. Tickets rise from above 0.
    pub(crate) fn starting_at(end: Offset) -> Tail {
        Tail {
            chunks: VecDeque::new(),
            flushed_count: 0,
            controls: VecDeque::new(),
            memory_bytes: 0,
            flushed_memory_bytes: 0,
            log_end: end,
            written: end,
            durable: end,
            written_ticket: 0,
            durable_ticket: 0,
            written_count: 0,
            durable_count: 0,
            flushable_bytes: 0,
            covered_at_once: 0,
        }
    }

    pub(crate) fn log_end(&self) -> Offset {
        self.log_end
    }

    pub(crate) fn written(&self) -> Offset {
        self.written
    }

    pub(crate) fn durable(&self) -> Offset {
        self.durable
    }

    /// The log starts that are durable and not covered yet.
    pub(crate) fn durable_log_starts(&self) -> impl Iterator<Item = Offset> {
        let durable = self.controls.iter().take_while(|control| control.ticket <= self.durable_ticket);
        durable.filter_map(|control| match control.change {
            Change::LogStart { start } => Some(start),
            _ => None,
        })
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Bytes in memory of batches that are in segments too.
    pub(crate) fn flushed_memory_bytes(&self) -> u64 {
        self.flushed_memory_bytes
    }

    /// The first offset that the tail can serve.
    pub(crate) fn start(&self) -> Offset {
        self.chunks.front().map_or(self.log_end, |chunk| chunk.base)
    }

    pub(crate) fn chunks(&self) -> &VecDeque<Chunk> {
        &self.chunks
    }

    /// The chunks that are not in segments yet.
    pub(crate) fn unflushed(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().skip(self.flushed_count)
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        assert_eq!(chunk.base, self.log_end, "an append begins at the log's end");
        assert!(chunk.end > chunk.base && chunk.ticket > self.last_ticket(), "appends move the end and the ticket");
        self.log_end = chunk.end;
        if let Place::Memory(bytes) = &chunk.place {
            self.memory_bytes += bytes.len() as u64;
        }
        self.chunks.push_back(chunk);
    }

    pub(crate) fn push_control(&mut self, change: Change, generation: LogGeneration, ticket: u64) {
        assert!(ticket > self.last_ticket(), "tickets rise");
        self.controls.push_back(Control { ticket, span: CommitSpan::default(), change, generation });
    }

    /// What lies between the end and `begins` is lost: the log goes on behind the gap.
    pub(crate) fn skip_to(&mut self, begins: Offset) {
        assert!(begins > self.log_end, "a gap lies ahead");
        (self.log_end, self.written, self.durable) = (begins, begins, begins);
    }

    /// The newest control, if it is the newest item, begins this generation.
    pub(crate) fn set_last_generation(&mut self, generation: LogGeneration) {
        let last_chunk = self.chunks.back().map_or(0, |chunk| chunk.ticket);
        if let Some(control) = self.controls.back_mut().filter(|control| control.ticket > last_chunk) {
            control.generation = generation;
        }
    }

    fn last_ticket(&self) -> u64 {
        let chunk = self.chunks.back().map_or(0, |chunk| chunk.ticket);
        let control = self.controls.back().map_or(0, |control| control.ticket);
        chunk.max(control).max(self.written_ticket)
    }

    /// The write at `span` holds everything up to `ticket` that was not written before.
    pub(crate) fn on_written(&mut self, ticket: u64, span: CommitSpan) {
        if ticket <= self.written_ticket {
            return;
        }
        while let Some(chunk) = self.chunks.get_mut(self.written_count)
            && chunk.ticket <= ticket
        {
            chunk.span = span;
            self.written = chunk.end;
            self.written_count += 1;
        }
        for control in self.controls.iter_mut().rev() {
            if control.ticket <= self.written_ticket {
                break;
            }
            if control.ticket <= ticket && !control.is_placed() {
                control.span = span;
            }
        }
        self.written_ticket = ticket;
    }

    /// The write at `span` ends with `ticket`, of an older generation; the log's creation may be in it.
    pub(crate) fn on_creation_written(&mut self, ticket: u64, span: CommitSpan) {
        if let Some(first) = self.controls.front_mut()
            && matches!(first.change, Change::Create { .. })
            && first.ticket <= ticket
            && !first.is_placed()
        {
            first.span = span;
        }
    }

    /// Everything up to `ticket` is durable, which was reported written before.
    pub(crate) fn on_durable(&mut self, ticket: u64) {
        assert!(ticket <= self.written_ticket, "durable before written");
        if ticket <= self.durable_ticket {
            return;
        }
        self.durable_ticket = ticket;
        while let Some(chunk) = self.chunks.get(self.durable_count)
            && chunk.ticket <= ticket
        {
            self.durable = chunk.end;
            self.flushable_bytes += chunk.place.len();
            self.durable_count += 1;
        }
    }

    /// Bytes that are durable and not in segments.
    pub(crate) fn flushable_bytes(&self) -> u64 {
        self.flushable_bytes
    }

    /// When the oldest bytes that are not in segments were appended.
    pub(crate) fn oldest_unflushed(&self) -> Option<Timestamp> {
        self.chunks.get(self.flushed_count).map(|chunk| chunk.appended)
    }

    /// The next durable commit to cover, after skipping `chunks` and `controls` that earlier groups hold.
    pub(crate) fn group_after(&self, chunks: usize, controls: usize) -> Option<(Group, usize)> {
        let mut chunk_at = self.flushed_count + chunks;
        let mut control_at = controls;
        let mut group = Group { chunks_count: 0, bytes: 0, last_ticket: 0, oldest: Timestamp(i64::MAX) };
        let mut position = None;
        loop {
            let chunk = self.chunks.get(chunk_at);
            let control = self.controls.get(control_at);
            let chunk_is_next = match (chunk, control) {
                (None, None) => break,
                (Some(chunk), Some(control)) => chunk.ticket < control.ticket,
                (chunk, _) => chunk.is_some(),
            };
            let (ticket, at) = match (chunk_is_next, chunk, control) {
                (true, Some(chunk), _) => (chunk.ticket, chunk.span.start),
                (_, _, Some(control)) => (control.ticket, control.span.start),
                _ => unreachable!("one of them is next"),
            };
            if ticket > self.durable_ticket {
                // Written but not durable and of the same commit: the group is not whole. Else it ends here.
                let same = ticket <= self.written_ticket && position == Some(at);
                if same || (ticket <= self.covered_at_once && position.is_some()) {
                    return None;
                }
                break;
            }
            if *position.get_or_insert(at) != at && ticket > self.covered_at_once {
                break;
            }
            position = Some(at);
            group.last_ticket = ticket;
            if chunk_is_next {
                let chunk = &self.chunks[chunk_at];
                group.chunks_count += 1;
                group.bytes += chunk.place.len();
                group.oldest = group.oldest.min(chunk.appended);
                chunk_at += 1;
            } else {
                control_at += 1;
            }
        }
        (group.last_ticket > 0).then_some((group, control_at - controls))
    }

    /// Whether what is to be covered next is not a batch.
    pub(crate) fn control_is_next(&self) -> bool {
        let chunk = self.chunks.get(self.flushed_count).map_or(u64::MAX, |chunk| chunk.ticket);
        self.controls.front().is_some_and(|control| control.ticket < chunk)
    }

    /// Takes the next item to cover if its ticket is at most `through`. A chunk in memory stays for readers.
    pub(crate) fn cover_next(&mut self, through: u64) -> Option<Covered> {
        let chunk = self.chunks.get(self.flushed_count).filter(|chunk| chunk.ticket <= through);
        let control = self.controls.front().filter(|control| control.ticket <= through);
        let chunk_is_next = match (chunk, control) {
            (None, None) => return None,
            (Some(chunk), Some(control)) => chunk.ticket < control.ticket,
            (chunk, _) => chunk.is_some(),
        };
        if !chunk_is_next {
            let control = self.controls.pop_front();
            if self.controls.is_empty() {
                // Rare, and thousands of logs would each keep the room of their first one.
                self.controls = VecDeque::new();
            }
            return control.map(Covered::Control);
        }
        let at = self.flushed_count;
        let chunk = self.chunks[at].clone();
        self.flushable_bytes -= chunk.place.len();
        match &chunk.place {
            Place::Memory(bytes) => {
                self.flushed_memory_bytes += bytes.len() as u64;
                self.flushed_count += 1;
            }
            Place::Journal { .. } => {
                // Nothing to keep for readers; and what lies before it must not stay alone, or the tail had a hole.
                while self.flushed_count > 0 {
                    self.pop_flushed();
                }
                self.chunks.pop_front();
                self.written_count -= 1;
                self.durable_count -= 1;
            }
        }
        Some(Covered::Chunk(chunk))
    }

    /// Where replay would have to begin for what is not covered, once everything below `head` was reported.
    pub(crate) fn first_uncovered(&self) -> Option<FirstUncovered> {
        let chunk = self.chunks.get(self.flushed_count).map(|c| (c.ticket, c.span.start, c.inexact));
        let control = self.controls.front().map(|c| (c.ticket, c.span.start, false));
        let (ticket, position, inexact) = match (chunk, control) {
            (Some(chunk), Some(control)) => chunk.min(control),
            (chunk, control) => chunk.or(control)?,
        };
        // What a truncation cut off may lie before what is left.
        let inexact = inexact || ticket <= self.covered_at_once;
        Some(match (inexact, ticket <= self.written_ticket) {
            (true, _) => FirstUncovered::Unknown,
            (false, true) => FirstUncovered::At(position),
            (false, false) => FirstUncovered::NotWritten,
        })
    }

    /// Where the log's creation is written, while it is the first item not covered.
    pub(crate) fn creation(&self) -> Option<JournalPosition> {
        let first = self.controls.front().filter(|control| control.is_placed())?;
        matches!(first.change, Change::Create { .. }).then_some(first.span.start)
    }

    /// Drops flushed chunks, oldest first, until at most `keep_bytes` of them stay in memory.
    pub(crate) fn evict(&mut self, keep_bytes: u64) -> u64 {
        let before = self.memory_bytes;
        while self.flushed_memory_bytes > keep_bytes && self.flushed_count > 0 {
            self.pop_flushed();
        }
        // What a burst needed for its chunks is not kept for ever.
        if self.chunks.len() < self.chunks.capacity() / 8 {
            self.chunks.shrink_to(self.chunks.len() * 2);
        }
        before - self.memory_bytes
    }

    fn pop_flushed(&mut self) {
        let chunk = self.chunks.pop_front().expect("a flushed chunk");
        self.flushed_count -= 1;
        self.written_count -= 1;
        self.durable_count -= 1;
        self.memory_bytes -= chunk.place.len();
        self.flushed_memory_bytes -= chunk.place.len();
    }

    /// Where each item that is not covered lies.
    pub(crate) fn for_each_span(&mut self, mut visit: impl FnMut(&mut CommitSpan)) {
        self.chunks.iter_mut().skip(self.flushed_count).for_each(|chunk| visit(&mut chunk.span));
        self.controls.iter_mut().for_each(|control| visit(&mut control.span));
    }

    /// The items that are not covered, in order.
    pub(crate) fn for_each_uncovered(&self, mut visit: impl FnMut(Uncovered<'_>)) {
        let mut controls = self.controls.iter().peekable();
        for chunk in self.unflushed() {
            while let Some(control) = controls.next_if(|control| control.ticket < chunk.ticket) {
                visit(Uncovered::Control(control));
            }
            visit(Uncovered::Chunk(chunk));
        }
        controls.for_each(|control| visit(Uncovered::Control(control)));
    }

    /// The last end of a batch that is not above `end`, which lies in the part that is not in segments.
    pub(crate) fn batch_end_at(&self, end: Offset) -> Offset {
        let at = self.chunks.partition_point(|chunk| chunk.end < end);
        let Some(chunk) = self.chunks.get(at) else { return end.min(self.log_end) };
        let mut boundary = chunk.base.min(end);
        chunk.for_each_batch(|_, header| {
            if header.next_offset() <= end {
                boundary = header.next_offset();
            }
        });
        boundary
    }

    /// Cuts off everything from `end` on, which ends a batch and is not below what is in segments. `ticket` is the
    /// truncation's.
    pub(crate) fn truncate(&mut self, end: Offset, ticket: u64) {
        self.covered_at_once = ticket;
        let flushed = self.flushed_count.checked_sub(1).map(|at| self.chunks[at].end);
        assert!(
            end <= self.log_end && flushed.is_none_or(|flushed| end >= flushed),
            "cuts only what is not in segments"
        );
        while let Some(last) = self.chunks.back_mut()
            && last.end > end
        {
            let len = last.place.len();
            let in_memory = matches!(last.place, Place::Memory(_));
            let mut left = 0;
            if last.base >= end {
                self.chunks.pop_back();
            } else {
                last.cut(end);
                left = last.place.len();
                if left == 0 {
                    self.chunks.pop_back();
                }
            }
            if in_memory {
                self.memory_bytes -= len - left;
            }
            if self.durable_count > self.chunks.len() || (left > 0 && self.durable_count == self.chunks.len()) {
                self.flushable_bytes -= len - left;
                self.durable_count = self.durable_count.min(self.chunks.len());
            }
        }
        self.written_count = self.written_count.min(self.chunks.len());
        for chunk in self.chunks.iter_mut().skip(self.written_count) {
            chunk.inexact = true;
        }
        self.log_end = end;
        self.written = self.written.min(end);
        self.durable = self.durable.min(end);
    }

    /// A change that settled as a whole is durable: forgets its control, the only one there is, and returns its commit.
    pub(crate) fn settle(&mut self) -> CommitSpan {
        assert!(self.chunks.is_empty() && self.controls.len() == 1, "nothing changes a log that is settling");
        self.controls.pop_front().expect("the change").span
    }

    /// Forgets everything; the log ends at `end`, durably.
    pub(crate) fn reset(&mut self, end: Offset) {
        let tickets = (self.written_ticket, self.durable_ticket);
        *self = Tail::starting_at(end);
        (self.written_ticket, self.durable_ticket) = tickets;
    }
}

/// Where the first item lies that segments do not cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstUncovered {
    /// In the commit that begins there.
    At(JournalPosition),
    /// Somewhere after what was covered last.
    Unknown,
    /// Not in the journal yet, as far as was reported.
    NotWritten,
}

/// Something that is not covered yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Uncovered<'a> {
    Chunk(&'a Chunk),
    Control(&'a Control),
}

/// What was just covered.
#[derive(Debug)]
pub(crate) enum Covered {
    Chunk(Chunk),
    Control(Control),
}
