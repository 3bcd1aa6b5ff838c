//! The log's state at the end of what its segments hold: what the next checkpoint says.
//!
//! It follows the live state through the same changes, one flush behind. Recovery starts from it and replays the journal
//! from [`CoveredState::position`] on, so nothing it covers is ever scanned.

use stonelog_protocol::Offset;

use super::tail::{Chunk, Control, Covered};
use super::{Epochs, Log, Producers};
use crate::LogGeneration;
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
            self.epochs.assign(header.leader_epoch, header.base_offset);
        });
        self.end = chunk.end;
    }

    fn apply_control(&mut self, control: &Control) {
        self.generation = control.generation;
        match control.change {
            Change::Append { .. } => unreachable!("appends are chunks"),
            Change::Create { start, strict } => {
                self.exists = true;
                self.strict = strict;
                (self.log_start, self.end) = (start, start);
            }
            Change::Truncate { end } => {
                // May lie above the last batch kept: a batch that straddles the log start goes as a whole.
                self.end = end;
                self.epochs.truncate_from_end(end);
            }
            Change::Reset { .. } => unreachable!("a reset settles as a whole"),
            Change::LogStart { start } => {
                self.log_start = self.log_start.max(start);
                self.epochs.truncate_from_start(start);
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
            self.covered.apply(&item);
        }
    }

    /// Covers commits that hold nothing for the segments.
    pub(super) fn cover_controls(&mut self) {
        while let Some((group, _)) = self.tail.group_after(0, 0)
            && group.chunks_count == 0
        {
            self.cover(group.last_ticket);
        }
    }
}
