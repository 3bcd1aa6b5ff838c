//! Applying the journal's entries to a log again, at start.
//!
//! Replay goes by position (rule 6): the caller passes exactly the entries that the checkpoint does not cover. What is
//! replayed is durable, since recovery has made it so.

use bytes::Bytes;
use stonelog_protocol::{Offset, Timestamp};

use super::tail::{CommitSpan, Place};
use super::{Log, LogConfig};
use crate::holes::{Cause, Hole};
use crate::job::FileAccess;
use crate::journal::{Change, JournalEntry, JournalPosition};
use crate::segment::SegmentId;
use crate::segment::walk::Batches;
use crate::{Fault, LogGeneration};

/// A lane's tickets begin here; those below belong to replay.
pub const FIRST_TICKET: u64 = 1 << 40;

/// Tickets that an entry takes in replay.
pub(crate) const TICKETS_COUNT: u64 = 3;

/// An entry as replay sees it.
#[derive(Debug)]
pub(crate) struct Replayed<'a> {
    pub(crate) entry: &'a JournalEntry,
    pub(crate) commit_position: JournalPosition,
    pub(crate) payload_position: JournalPosition,
    /// Its batches are damaged and not given.
    pub(crate) batches_damaged: bool,
    /// Rises with every entry by at least [`TICKETS_COUNT`]: those before it are for a cut and a gap that it shows.
    pub(crate) ticket: u64,
    pub(crate) now: Timestamp,
}

/// An entry that does not fit the log it is for: something between was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contradiction {
    /// It belongs to a generation before the log's.
    Generation,
    /// It begins below the log's end: the entry that cut the log before is missing.
    Overlap {
        /// The log's end.
        log_end: Offset,
        /// Where the entry begins.
        begins: Offset,
    },
    /// It belongs to a later generation, and the entry that began that one is missing.
    GenerationMissing,
    /// Its bytes are not the batches it says.
    Batches,
    /// It cuts off what was deleted.
    BelowStart,
}

impl Log {
    /// A log whose creation is replayed.
    pub(crate) fn replay_create(replayed: &Replayed<'_>, config: LogConfig, start: Offset, strict: bool) -> Log {
        let (mut log, _) = Log::create(replayed.entry.replica, config, strict, start, replayed.ticket);
        log.replay_durable(replayed);
        log
    }

    /// Applies any other entry. The outer error is the disk's.
    pub(crate) fn replay(
        &mut self,
        replayed: &Replayed<'_>,
        access: &FileAccess,
    ) -> Result<Result<(), Contradiction>, Fault> {
        let generation = replayed.entry.replica.generation;
        if generation < self.key.generation {
            return Ok(Err(Contradiction::Generation));
        }
        let mut result = Ok(());
        let begins_generation = matches!(replayed.entry.change, Change::Truncate { .. } | Change::Reset { .. });
        let expected = self.generation_after(generation, begins_generation);
        if generation != expected {
            result = Err(Contradiction::GenerationMissing);
        }
        match &replayed.entry.change {
            Change::Append { base_offset, end_offset, batches } => {
                result = result.and(self.replay_missing_cut(replayed, *base_offset, access)?);
                result = result.and(self.replay_append(replayed, *base_offset, *end_offset, batches));
            }
            Change::Truncate { end } => {
                return Ok(self.replay_truncate(replayed, *end, access)?.and(result));
            }
            Change::Reset { start } => {
                // The generation is raised by one, then set to what the entry says.
                self.reset(*start, replayed.ticket);
            }
            Change::LogStart { start } if *start <= self.log_end() => {
                self.advance_log_start(*start, replayed.ticket);
            }
            Change::LogStart { .. } => result = Err(Contradiction::BelowStart),
            Change::EpochStart { epoch, offset } => {
                // It began at the log's end.
                result = result.and(self.replay_missing_cut(replayed, *offset, access)?);
                if self.log_end() < *offset {
                    self.replay_gap(replayed, *offset);
                    // So may others have, in what is lost.
                    self.doubt_epoch_at(*offset);
                }
                self.epochs.assign(*epoch, *offset);
                self.control(replayed.entry.change.clone(), replayed.ticket);
            }
            Change::Mode { strict } => {
                self.set_mode(*strict, replayed.ticket);
            }
            Change::Create { .. } | Change::Drop => unreachable!("the caller makes and drops logs"),
        }
        self.replay_generation(generation);
        self.replay_durable(replayed);
        Ok(result)
    }

    /// Replay is over: this start's generation begins, and what holds nothing for the segments is covered.
    /// `commits` is where the commits replayed begin, rising; the last one ends at `journal_end`.
    pub(crate) fn finish_replay(
        &mut self,
        recovery_epoch: u32,
        commits: &[JournalPosition],
        journal_end: JournalPosition,
    ) {
        // A checkpoint names places where a commit may begin; replay knew only that each ends after its start.
        let covered = self.covered.position;
        let boundary = |inside: JournalPosition| {
            let next = commits.partition_point(|start| *start < inside);
            commits.get(next).copied().unwrap_or(journal_end.max(covered))
        };
        if covered.0.checked_sub(1).is_some_and(|start| commits.binary_search(&JournalPosition(start)).is_ok()) {
            self.covered.position = boundary(covered);
        }
        self.tail.for_each_span(|span| span.end = boundary(span.end));
        assert!(recovery_epoch > self.key.generation.recovery_epoch, "every start is a later epoch");
        self.key.generation = LogGeneration { recovery_epoch, counter: 0 };
        self.cover_controls();
    }

    fn replay_append(
        &mut self,
        replayed: &Replayed<'_>,
        begins: Offset,
        ends: Offset,
        batches: &Bytes,
    ) -> Result<(), Contradiction> {
        if replayed.batches_damaged {
            if begins >= ends {
                return Err(Contradiction::Batches);
            }
            self.replay_gap(replayed, begins);
            self.replay_lost(replayed, begins, ends, replayed.ticket);
            return Ok(());
        }
        let mut end = begins;
        let mut walk = Batches::of(batches);
        let fits = walk.by_ref().all(|(_, header)| {
            // What a follower was sent of a compacted log has gaps.
            let fits = header.base_offset >= end && header.last_offset_delta >= 0;
            end = header.next_offset();
            fits
        });
        let len = u32::try_from(batches.len()).map_err(|_| Contradiction::Batches)?;
        if !fits || walk.rest() != (batches.len(), None) || end != ends || begins == ends {
            return Err(Contradiction::Batches);
        }
        self.replay_gap(replayed, begins);
        let first_epoch = Batches::of(batches).next().map(|(_, header)| header.leader_epoch);
        if first_epoch > self.latest_epoch() {
            // Where nobody wrote down that the epoch began, its first batch says so; unless that is lost.
            self.doubt_epoch_at(begins);
        }
        let place = Place::Journal { position: replayed.payload_position, len };
        self.push_batches(begins, place, batches, replayed.now, replayed.ticket);
        Ok(())
    }

    /// An entry that begins at `begins`, below the log's end, shows that the log was cut before, and that the entry that
    /// did it is lost. What lies there is not the log's any more: it goes, before something else takes its place.
    fn replay_missing_cut(
        &mut self,
        replayed: &Replayed<'_>,
        begins: Offset,
        access: &FileAccess,
    ) -> Result<Result<(), Contradiction>, Fault> {
        let log_end = self.log_end();
        if begins >= log_end {
            return Ok(Ok(()));
        }
        let ticket = replayed.ticket - 2;
        if begins < self.log_start {
            self.reset(begins, ticket);
        } else {
            self.cut(begins, ticket, access)?;
        }
        // It came before this entry's commit.
        self.replay_generation(replayed.entry.replica.generation);
        self.settle_replayed(ticket, CommitSpan { start: replayed.commit_position, end: replayed.commit_position });
        Ok(Err(Contradiction::Overlap { log_end, begins }))
    }

    fn doubt_epoch_at(&mut self, end: Offset) {
        let known = self.epochs.latest().map_or(self.log_start, |latest| latest.start);
        self.holes.doubt_epoch_at(end, known);
    }

    /// An entry that begins at `begins` shows that everything between is lost.
    fn replay_gap(&mut self, replayed: &Replayed<'_>, begins: Offset) {
        let log_end = self.log_end();
        if begins > log_end {
            self.replay_lost(replayed, log_end, begins, replayed.ticket - 1);
        }
    }

    /// The log goes on behind what is lost.
    fn replay_lost(&mut self, replayed: &Replayed<'_>, start: Offset, end: Offset, ticket: u64) {
        self.tail.skip_to(end);
        self.holes.insert(Hole {
            start,
            end,
            why: Cause::Journal,
            newest: replayed.now,
            bytes: None,
            epoch_unsure: false,
        });
        let change = Change::Append { base_offset: start, end_offset: end, batches: Bytes::new() };
        self.tail.push_control(change, self.key.generation, ticket);
    }

    /// The generation an entry should carry.
    fn generation_after(&self, found: LogGeneration, begins_one: bool) -> LogGeneration {
        let last = self.key.generation;
        // A start begins a generation and writes nothing.
        let counter = if found.recovery_epoch > last.recovery_epoch { 0 } else { last.counter };
        LogGeneration { recovery_epoch: found.recovery_epoch, counter: counter + u32::from(begins_one) }
    }

    fn replay_truncate(
        &mut self,
        replayed: &Replayed<'_>,
        end: Offset,
        access: &FileAccess,
    ) -> Result<Result<(), Contradiction>, Fault> {
        if end < self.log_start {
            return Ok(Err(Contradiction::BelowStart));
        }
        self.replay_gap(replayed, end);
        if !self.cut(end, replayed.ticket, access)? {
            // It was cut to here and then lost what the entry cut off; the generation is what counts.
            self.control(replayed.entry.change.clone(), replayed.ticket);
        }
        self.replay_generation(replayed.entry.replica.generation);
        self.replay_durable(replayed);
        Ok(Ok(()))
    }

    /// Truncates, also into the segments. Whether there was anything to cut off.
    fn cut(&mut self, end: Offset, ticket: u64, access: &FileAccess) -> Result<bool, Fault> {
        loop {
            let job = match self.truncate_to(end, ticket) {
                super::Truncation::Nothing => return Ok(false),
                super::Truncation::Done(_) => return Ok(true),
                super::Truncation::Rebuild(job) => job,
            };
            match job.run(access) {
                Ok(rebuilt) => {
                    let done = self.truncate_into_segments(rebuilt, ticket);
                    done.expect("nothing else changes a log in replay");
                    return Ok(true);
                }
                // Nobody had read those bytes before: what is damaged is quarantined, and the cut is tried again.
                Err(fault) if self.look_at(&fault, access)? => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Quarantines what is damaged in the segment that a fault names; whether anything is known now that was not.
    fn look_at(&mut self, fault: &Fault, access: &FileAccess) -> Result<bool, Fault> {
        let (Fault::Damage { path, .. } | Fault::Foreign { path, .. }) = fault else { return Ok(false) };
        let Some(survey) = SegmentId::of_log(path).and_then(|id| self.plan_survey(id.base)) else { return Ok(false) };
        let surveyed = survey.run(access)?;
        Ok(!self.on_surveyed(&surveyed).is_empty() || surveyed.sums_rewritten > 0)
    }

    fn replay_generation(&mut self, generation: LogGeneration) {
        self.key.generation = generation;
        if let Some(settling) = &mut self.settling {
            settling.after.generation = generation;
        }
        self.tail.set_last_generation(generation);
    }

    fn replay_durable(&mut self, replayed: &Replayed<'_>) {
        let start = replayed.commit_position;
        self.settle_replayed(replayed.ticket, CommitSpan { start, end: JournalPosition(start.0 + 1) });
    }

    fn settle_replayed(&mut self, ticket: u64, span: CommitSpan) {
        self.tail.on_written(ticket, span);
        self.tail.on_durable(ticket);
        self.changing = None;
        if let Some(settling) = self.settling.take() {
            self.settle(*settling);
        }
    }
}
