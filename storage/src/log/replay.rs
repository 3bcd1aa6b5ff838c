//! Applying the journal's entries to a log again, at start.
//!
//! Replay goes by position (rule 6): the caller passes exactly the entries that the checkpoint does not cover. What is
//! replayed is durable, since recovery has made it so.

use bytes::Bytes;
use stonelog_protocol::{Offset, Timestamp};

use super::tail::{CommitSpan, Place};
use super::{Log, LogConfig};
use crate::job::FileAccess;
use crate::journal::{Change, JournalEntry, JournalPosition};
use crate::segment::walk::Batches;
use crate::{Fault, LogGeneration};

/// A lane's tickets begin here; those below belong to replay.
pub const FIRST_TICKET: u64 = 1 << 40;

/// An entry as replay sees it.
#[derive(Debug)]
pub(crate) struct Replayed<'a> {
    pub(crate) entry: &'a JournalEntry,
    pub(crate) commit_position: JournalPosition,
    pub(crate) payload_position: JournalPosition,
    /// Rises with every entry.
    pub(crate) ticket: u64,
    pub(crate) now: Timestamp,
}

/// An entry that does not fit the log it is for: something between was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// It belongs to a generation before the log's.
    Generation,
    /// It begins below the log's end, so the log holds what its journal does not know.
    Overlap {
        /// The log's end.
        log_end: Offset,
        /// Where the entry begins.
        begins: Offset,
    },
    /// It begins above the log's end: what lies between is lost. It was appended behind the gap.
    Gap {
        /// The log's end before.
        log_end: Offset,
        /// Where the entry begins.
        begins: Offset,
    },
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
        match &replayed.entry.change {
            Change::Append { base_offset, end_offset, batches } => {
                result = self.replay_append(replayed, *base_offset, *end_offset, batches);
            }
            Change::Truncate { end } => return self.replay_truncate(replayed, *end, access),
            Change::Reset { start } => {
                // The generation is raised by one, then set to what the entry says.
                self.reset(*start, replayed.ticket);
            }
            Change::LogStart { start } if *start <= self.log_end() => {
                self.advance_log_start(*start, replayed.ticket);
            }
            Change::LogStart { .. } => result = Err(Contradiction::BelowStart),
            Change::EpochStart { epoch, offset } => {
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
        let log_end = self.log_end();
        if begins < log_end {
            return Err(Contradiction::Overlap { log_end, begins });
        }
        let mut end = begins;
        let mut walk = Batches::of(batches);
        let fits = walk.by_ref().all(|(_, header)| {
            let fits = header.base_offset == end && header.last_offset_delta >= 0;
            end = header.next_offset();
            fits
        });
        let len = u32::try_from(batches.len()).map_err(|_| Contradiction::Batches)?;
        if !fits || walk.rest() != (batches.len(), None) || end != ends || begins == ends {
            return Err(Contradiction::Batches);
        }
        if begins > log_end {
            self.tail.skip_to(begins);
        }
        let place = Place::Journal { position: replayed.payload_position, len };
        self.push_batches(begins, place, batches, replayed.now, replayed.ticket);
        if begins > log_end { Err(Contradiction::Gap { log_end, begins }) } else { Ok(()) }
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
        match self.truncate_to(end, replayed.ticket) {
            // It was cut to here and then lost what the entry cut off; the generation is what counts.
            super::Truncation::Nothing => {
                self.control(replayed.entry.change.clone(), replayed.ticket);
            }
            super::Truncation::Done(_) => {}
            super::Truncation::Rebuild(job) => {
                let rebuilt = job.run(access)?;
                self.truncate_into_segments(rebuilt, replayed.ticket).expect("nothing else changes a log in replay");
            }
        }
        self.replay_generation(replayed.entry.replica.generation);
        self.replay_durable(replayed);
        Ok(Ok(()))
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
        let span = CommitSpan { start, end: JournalPosition(start.0 + 1) };
        self.tail.on_written(replayed.ticket, span);
        self.tail.on_durable(replayed.ticket);
        self.changing = None;
        if let Some(settling) = self.settling.take() {
            self.settle(*settling);
        }
    }
}
