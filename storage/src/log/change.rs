//! Changes other than appends: epochs, log start, mode, truncation, reset, drop.
//!
//! Truncation and reset make a new generation and rebuild everything derived before the next append (rule 10). Until
//! their entry is durable nothing else changes the log, and the checkpoint says what it said before.

use stonelog_protocol::{LeaderEpoch, Offset};

use super::covered::CoveredState;
use super::tail::Uncovered;
use super::{Epochs, Log, Producers, Settling};
use crate::journal::{Change, JournalEntry};
use crate::segment::Segment;
use crate::segment::rebuild::{RebuildJob, Rebuilt};

/// What a truncation needs.
#[derive(Debug)]
pub enum Truncation {
    /// The log does not reach beyond the offset: nothing changed.
    Nothing,
    /// Done; pass the entry to the journal. The log ends at the offset asked for, or where the batch begins that
    /// holds it.
    Done(JournalEntry),
    /// The offset lies in segments: run the job, then call [`Log::truncate_into_segments`].
    Rebuild(RebuildJob),
}

impl Log {
    /// A leader epoch begins at the log's end, before anything is appended in it.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch, ticket: u64) -> JournalEntry {
        assert!(!self.is_changing(), "an epoch begins when the log is settled");
        let change = Change::EpochStart { epoch, offset: self.log_end() };
        self.epochs.assign(epoch, self.log_end());
        self.control(change, ticket)
    }

    /// The topic became strict or relaxed. `None` when it was that already.
    pub fn set_mode(&mut self, strict: bool, ticket: u64) -> Option<JournalEntry> {
        if strict == self.strict || self.is_changing() {
            return None;
        }
        self.strict = strict;
        if strict {
            (self.high_watermark, self.relaxed_end) = (self.log_start, self.log_end());
        }
        Some(self.control(Change::Mode { strict }, ticket))
    }

    /// Everything below `to` is deleted; `to` is not above what is committed. `None` when it was deleted already.
    /// The files go after the next checkpoint ([`Log::plan_deletes`]).
    pub fn advance_log_start(&mut self, to: Offset, ticket: u64) -> Option<JournalEntry> {
        assert!(to <= self.log_end(), "the log start does not pass the log's end");
        if to <= self.log_start || self.is_changing() {
            return None;
        }
        self.log_start = to;
        self.epochs.truncate_from_start(to);
        self.holes.cut_below(to);
        self.close_deleted_segment();
        Some(self.control(Change::LogStart { start: to }, ticket))
    }

    /// The replica leaves this directory. Once the entry is durable ([`Log::is_gone`]) it leaves the checkpoint; once
    /// that is durable, its files go.
    pub fn drop_log(&mut self, ticket: u64) -> JournalEntry {
        self.dropped = true;
        self.changing = Some(ticket);
        self.control(Change::Drop, ticket)
    }

    /// Cuts off everything from `end` on. What lies in memory is cut at once; deeper cuts need a job first.
    pub fn truncate_to(&mut self, end: Offset, ticket: u64) -> Truncation {
        assert!(!self.is_changing(), "one truncation at a time");
        assert!(end >= self.log_start, "below the log start there is nothing to keep: reset");
        if end >= self.log_end() {
            return Truncation::Nothing;
        }
        if end < self.segments_end() {
            return Truncation::Rebuild(self.rebuild_job(end));
        }
        let end = self.tail.batch_end_at(end).max(self.log_start);
        self.high_watermark = self.high_watermark.min(end);
        self.key.generation = self.next_generation();
        self.tail.truncate(end, ticket);
        self.holes.cut_from(end);
        self.rebuild_from_covered(end);
        self.changing = Some(ticket);
        Truncation::Done(self.control(Change::Truncate { end }, ticket))
    }

    /// Cuts into the segments, with the state that the job found at the cut. `None` when the log has changed since the
    /// job was planned: plan again.
    pub fn truncate_into_segments(&mut self, rebuilt: Rebuilt, ticket: u64) -> Option<JournalEntry> {
        if rebuilt.replica != self.key || self.is_changing() || rebuilt.end < self.log_start {
            return None;
        }
        let Rebuilt { end: kept_end, wanted, mut segments, producers, .. } = rebuilt;
        // A compaction may have taken their place meanwhile, or the log start have passed them.
        let is_there = |kept: &Segment| {
            self.segments.list.iter().any(|segment| segment.name() == kept.name() && segment.bytes >= kept.bytes)
        };
        if segments.iter().any(|kept| kept.end > self.log_start && !is_there(kept)) {
            return None;
        }
        segments.retain(is_there);
        // What was damaged right before the cut stays a hole: the log ends where it was cut.
        let end = if self.holes.cover(kept_end, wanted) { wanted } else { kept_end };
        let mut epochs = self.epochs.clone();
        epochs.truncate_from_end(end);
        let mut holes = self.holes.clone();
        holes.cut_from(end);
        holes.without_bytes_from(kept_end);
        let (log_start, strict) = (self.log_start, self.strict);
        let after = CoveredState { end, producers, epochs, holes, log_start, strict, ..self.at_change() };
        Some(self.begin_settling(Change::Truncate { end }, after, segments, ticket))
    }

    /// Drops everything; the log begins anew at `start`, without producers and epochs.
    pub fn reset(&mut self, start: Offset, ticket: u64) -> JournalEntry {
        assert!(!self.is_changing(), "one reset at a time");
        let after = CoveredState {
            end: start,
            log_start: start,
            producers: Producers::default(),
            epochs: Epochs::default(),
            strict: self.strict,
            ..self.at_change()
        };
        self.begin_settling(Change::Reset { start }, after, Vec::new(), ticket)
    }

    fn rebuild_job(&self, end: Offset) -> RebuildJob {
        let list = &self.segments.list;
        RebuildJob {
            replica: self.key,
            end,
            log_start: self.log_start,
            segments: list
                .iter()
                .enumerate()
                .filter(|(_, segment)| segment.end > self.log_start)
                .map(|(at, segment)| (*segment, at + 1 < list.len(), self.holes.in_segment(segment.name())))
                .collect(),
            seen: list.last().map_or(stonelog_protocol::Timestamp::NONE, |last| last.created),
        }
    }

    pub(super) fn at_change(&self) -> CoveredState {
        CoveredState { exists: true, ..CoveredState::nothing(self.next_generation(), self.log_start) }
    }

    fn begin_settling(
        &mut self,
        change: Change,
        after: CoveredState,
        segments: Vec<Segment>,
        ticket: u64,
    ) -> JournalEntry {
        assert!(self.is_created(), "a log is reset when its creation is in the journal");
        let before = self.covered_checkpoint(None);
        self.key.generation = after.generation;
        self.producers = after.producers.clone();
        self.epochs = after.epochs.clone();
        self.holes = after.holes.clone();
        self.log_start = after.log_start;
        // What takes the place of what goes is not committed by what was said of that.
        self.high_watermark = self.high_watermark.min(after.end);
        self.tail.reset(after.end);
        self.segments.cut_to(segments, after.end);
        self.settling = Some(Box::new(Settling { before, after }));
        self.segments.hold_flush = true;
        self.changing = Some(ticket);
        self.control(change, ticket)
    }

    /// The change is durable: from here on the checkpoint says so.
    pub(super) fn settle(&mut self, settling: Settling) {
        let span = self.tail.settle();
        self.covered = settling.after;
        self.covered.position = span.end;
    }

    fn rebuild_from_covered(&mut self, end: Offset) {
        let mut producers = self.covered.producers.clone();
        let mut epochs = self.covered.epochs.clone();
        self.tail.for_each_uncovered(|item| match item {
            Uncovered::Chunk(chunk) => chunk.for_each_batch(|_, header| {
                producers.apply(header, chunk.appended);
                epochs.on_batch(header.leader_epoch, header.base_offset);
            }),
            Uncovered::Control(control) => match control.change {
                Change::EpochStart { epoch, offset } => epochs.assign(epoch, offset),
                Change::LogStart { start } => epochs.truncate_from_start(start),
                Change::Truncate { end } => epochs.truncate_from_end(end),
                _ => {}
            },
        });
        epochs.truncate_from_end(end);
        self.producers = producers;
        self.epochs = epochs;
    }

    pub(super) fn control(&mut self, change: Change, ticket: u64) -> JournalEntry {
        self.tail.push_control(change.clone(), self.key.generation, ticket);
        self.entry(change)
    }
}
