//! The log's state at the end of what its segments hold: what the next checkpoint says.
//!
//! It follows the live state through the same changes, one flush behind. Recovery starts from it and replays the journal
//! from [`CoveredState::position`] on, so nothing it covers is ever scanned.

use stonelog_protocol::{Offset, Timestamp};

use super::tail::{Chunk, Control, Covered};
use super::{Epochs, Log, Producers};
use crate::LogGeneration;
use crate::holes::{Cause, Hole, Holes};
use crate::journal::{Change, JournalPosition};

/// See the module's comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CoveredState {
    /// Whether the log exists at that point.
    pub(super) exists: bool,
    /// The log's generation at that point.
    pub(super) generation: LogGeneration,
    /// All commits of this replica that begin below are covered, none at or above.
    pub(super) position: JournalPosition,
    pub(super) log_start: Offset,
    /// Where the segments end.
    pub(super) end: Offset,
    pub(super) strict: bool,
    pub(super) producers: Producers,
    pub(super) epochs: Epochs,
    /// Those below `end`.
    pub(super) holes: Holes,
}

impl CoveredState {
    /// Before the log's creation.
    pub(super) fn nothing(generation: LogGeneration, start: Offset) -> CoveredState {
        CoveredState {
            exists: false,
            generation,
            position: JournalPosition::default(),
            log_start: start,
            end: start,
            strict: false,
            producers: Producers::default(),
            epochs: Epochs::default(),
            holes: Holes::default(),
        }
    }

    fn apply(&mut self, item: &Covered) {
        let span = match item {
            Covered::Chunk(chunk) => {
                self.apply_chunk(chunk);
                chunk.span
            }
            Covered::Control(control) => {
                self.apply_control(control);
                control.span
            }
        };
        assert!(span.end >= self.position, "commits are covered in order");
        self.position = span.end;
    }

    fn apply_chunk(&mut self, chunk: &Chunk) {
        chunk.for_each_batch(|_, header| {
            self.producers.apply(header, chunk.appended);
            self.epochs.on_batch(header.leader_epoch, header.base_offset);
        });
        self.end = chunk.end;
    }

    fn apply_control(&mut self, control: &Control) {
        self.generation = control.generation;
        match control.change {
            // Its batches are lost, and a hole says so: nothing of it goes to the segments.
            Change::Append { end_offset, .. } => self.end = end_offset,
            Change::Create { start, strict } => {
                self.exists = true;
                self.strict = strict;
                (self.log_start, self.end) = (start, start);
            }
            Change::Truncate { end } => {
                // May lie above the last batch kept: a batch that straddles the log start goes as a whole.
                self.end = end;
                self.epochs.truncate_from_end(end);
                self.holes.cut_from(end);
            }
            Change::Reset { .. } => unreachable!("a reset settles as a whole"),
            Change::LogStart { start } => {
                self.log_start = self.log_start.max(start);
                self.epochs.truncate_from_start(start);
                self.holes.cut_below(start);
            }
            Change::EpochStart { epoch, offset } => self.epochs.assign(epoch, offset),
            Change::Mode { strict } => self.strict = strict,
            Change::Drop => self.exists = false,
        }
    }
}

impl Log {
    /// Moves everything up to `through` under cover.
    pub(super) fn cover(&mut self, through: u64) {
        while let Some(item) = self.tail.cover_next(through) {
            if let Covered::Control(control) = &item
                && let Change::Append { base_offset, end_offset, .. } = control.change
            {
                self.cover_lost(base_offset, end_offset);
            }
            self.covered.apply(&item);
        }
    }

    /// A lost append comes under cover: from here on the checkpoint knows the hole.
    fn cover_lost(&mut self, start: Offset, end: Offset) {
        // What a log start has passed meanwhile stays a hole until that is covered too.
        let known = self.holes.at_or_after(start).filter(|hole| hole.start < end);
        let hole = known.copied().unwrap_or(Hole {
            start,
            end,
            why: Cause::Journal,
            newest: Timestamp(i64::MAX),
            bytes: None,
            epoch_unsure: false,
        });
        self.covered.holes.insert(Hole { start, end, ..hole });
    }

    /// Covers commits that hold nothing for the segments.
    pub(super) fn cover_controls(&mut self) {
        // The first look is cheap, for this is called for each durable batch.
        while self.tail.control_is_next()
            && let Some((group, _)) = self.tail.group_after(0, 0)
            && group.chunks_count == 0
        {
            self.cover(group.last_ticket);
        }
    }
}
