//! The second pass: writes groups of segments anew, with what is kept.
//!
//! | what | goes when |
//! |---|---|
//! | a value | the map knows a later record of its key |
//! | a tombstone | the same, or its batch's delete horizon has passed |
//! | a record without key | at once |
//! | data of an aborted transaction | at once |
//! | a marker | no data of its transaction is left and its delete horizon has passed |
//! | a batch left empty | at once, unless it holds its producer's last sequence or is the last of its segment |
//!
//! Batches at or above the clean end are copied as they are. Source: `Cleaner.{cleanInto, shouldRetainRecord}`.

use std::collections::VecDeque;
use std::ops::Range;

use stonelog_protocol::Offset;
use stonelog_protocol::batch::{BatchHeader, Record, Retained, empty_batch, retain_records};

use super::offset_map::OffsetMap;
use super::output::{Output, remove_files};
use super::scan::{checked, open};
use super::transactions::Met;
use super::{CompactJob, DECOMPRESSED_BYTES_MAX, Pace, Replacement, Totals, WINDOW_BYTES};
use crate::Fault;
use crate::job::FileAccess;
use crate::segment::Segment;
use crate::segment::verified::{VerifiedSegment, is_gone};
use crate::segment::walk::Batches;

/// A compaction whose keys are mapped.
pub struct Rewriting {
    job: CompactJob,
    map: OffsetMap,
    clean_end: Offset,
    met: Met,
    groups: VecDeque<Range<usize>>,
    totals: Totals,
}

impl std::fmt::Debug for Rewriting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rewriting").field("replica", &self.job.replica).field("clean_end", &self.clean_end).finish()
    }
}

/// What one step came to.
#[derive(Debug)]
pub enum Step {
    /// A segment that takes the place of some: give it to the log, then take the next step.
    Replace(Replacement),
    /// All groups are done: the log is clean up to this offset.
    Done(Offset),
    /// The pace said stop, or files have gone meanwhile.
    Stopped,
    /// There is no room for the next group, which may take so many bytes.
    NoRoom(u64),
}

impl Rewriting {
    pub(super) fn new(
        job: CompactJob,
        map: OffsetMap,
        clean_end: Offset,
        met: Met,
        groups: Vec<Range<usize>>,
        totals: Totals,
    ) -> Rewriting {
        Rewriting { job, map, clean_end, met, groups: groups.into(), totals }
    }

    /// What was done so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes the next group that changes. After an error nothing more may be done with it.
    pub fn step(&mut self, access: &FileAccess, pace: &mut dyn Pace) -> Result<Step, Fault> {
        while let Some(group) = self.groups.pop_front() {
            // What it replaces goes only after the next checkpoint.
            let bytes = self.job.sources[group.clone()].iter().map(|source| source.bytes).sum();
            if !pace.has_room(bytes) {
                return Ok(Step::NoRoom(bytes));
            }
            let written = match self.rewrite(access, pace, group.clone()) {
                Err(fault) if is_gone(&fault) => Written::Stopped,
                written => written?,
            };
            match written {
                Written::Stopped => return Ok(Step::Stopped),
                Written::Unchanged => {}
                Written::Segment(segment) => {
                    let sources = &self.job.sources[group];
                    self.totals.bytes_replaced += sources.iter().map(|source| source.bytes).sum::<u64>();
                    let sources = sources.iter().map(Segment::name).collect();
                    return Ok(Step::Replace(Replacement { replica: self.job.replica, sources, segment }));
                }
            }
        }
        Ok(Step::Done(self.clean_end))
    }

    fn rewrite(&mut self, access: &FileAccess, pace: &mut dyn Pace, group: Range<usize>) -> Result<Written, Fault> {
        let sources = &self.job.sources[group.clone()];
        let (first, last) = (sources[0], sources[sources.len() - 1]);
        let created = sources.iter().map(|source| source.created).max().unwrap_or(first.created);
        let empty = Segment { version: first.version + 1, end: last.end, ..Segment::empty(first.base, created) };
        let id = empty.id(self.job.replica.partition);
        let mut output = Output::create(access, id.partition, empty, self.job.index_interval_bytes)?;
        let mut is_changed = group.len() > 1;
        let mut is_stopped = false;
        for at in group.clone() {
            let passed = self.job.passed[at].clone();
            let Some(file) = open(access, &self.job, at, &passed)? else {
                is_stopped = true;
                break;
            };
            let result = self.copy(&file, at + 1 == group.end, &mut output, pace);
            match result {
                Ok(Copied { changed, stopped }) => {
                    is_changed |= changed;
                    is_stopped |= stopped;
                }
                Err(fault) => {
                    // It names what failed; what is left on the disk is swept before the next compaction.
                    let _ = output.abandon();
                    return Err(fault);
                }
            }
            if is_stopped {
                break;
            }
        }
        if is_stopped || !is_changed {
            output.abandon()?;
            return Ok(if is_stopped { Written::Stopped } else { Written::Unchanged });
        }
        match output.finish() {
            Ok(segment) => {
                self.totals.bytes_written += segment.bytes;
                Ok(Written::Segment(segment))
            }
            Err(fault) => {
                if fault.is_out_of_space() {
                    remove_files(access, id)?;
                }
                Err(fault)
            }
        }
    }

    /// Copies what is kept of one source. `is_last`: no source of its group follows.
    fn copy(
        &mut self,
        file: &VerifiedSegment<'_>,
        is_last: bool,
        output: &mut Output<'_>,
        pace: &mut dyn Pace,
    ) -> Result<Copied, Fault> {
        let mut copied = Copied::default();
        let end = file.bytes();
        file.for_each_window(0, WINDOW_BYTES, |position, window| {
            let mut spent = window.len() as u64;
            self.totals.bytes_read += spent;
            for (at, header) in Batches::of(&window) {
                let batch = checked(file, &window, position, at, &header)?;
                let next = position + at as u64 + header.batch_bytes as u64;
                let kept = self
                    .retain(batch, &header, is_last && next == end)
                    .map_err(|detail| file.damage("batch", position + at as u64, &detail))?;
                spent += match kept {
                    Kept::AsItIs => output.push(&header, batch)?,
                    Kept::Anew(batch) => {
                        copied.changed = true;
                        let header = BatchHeader::read(&batch).expect("what was just written");
                        output.push(&header, &batch)?
                    }
                    Kept::No => {
                        copied.changed = true;
                        0
                    }
                };
            }
            copied.stopped = !pace.spent(spent);
            Ok(!copied.stopped)
        })?;
        Ok(copied)
    }

    /// What is kept of one batch, or what is wrong with it.
    fn retain(&mut self, batch: &[u8], header: &BatchHeader, is_last: bool) -> Result<Kept, String> {
        let count = u64::try_from(header.records_count).unwrap_or(0);
        if header.base_offset >= self.clean_end {
            self.totals.records_read += count;
            self.totals.records_kept += count;
            return Ok(Kept::AsItIs);
        }
        let horizon_passed = header.has_delete_horizon() && header.base_timestamp <= self.job.now;
        let is_empty_marker = header.is_control() && self.met.on_marker(header);
        let drops_all = match header.is_control() {
            true => is_empty_marker && self.may_drop_marker(horizon_passed),
            false => self.met.on_data(header),
        };
        let keeps_empty = is_last || self.holds_last_sequence(header);
        if header.records_count == 0 {
            return Ok(if keeps_empty { Kept::AsItIs } else { Kept::No });
        }
        let (map, totals) = (&self.map, &mut self.totals);
        let keep = |record: &Record<'_>| {
            totals.records_read += 1;
            let Some(key) = record.key.filter(|_| !drops_all) else { return header.is_control() && !drops_all };
            let offset = Offset(header.base_offset.0 + i64::from(record.offset_delta));
            let is_newest = map.get(key).is_none_or(|newest| offset >= newest);
            let is_kept = header.is_control() || (is_newest && (record.value.is_some() || !horizon_passed));
            totals.records_kept += u64::from(is_kept);
            is_kept
        };
        let horizon = self.job.delete_horizon;
        let retained = retain_records(batch, header, DECOMPRESSED_BYTES_MAX, horizon, is_empty_marker, keep);
        Ok(match retained.map_err(|error| error.to_string())? {
            Retained::Unchanged => Kept::AsItIs,
            Retained::Rewritten(batch) => Kept::Anew(batch),
            Retained::Nothing if keeps_empty => Kept::Anew(empty_batch(batch, header)),
            Retained::Nothing => Kept::No,
        })
    }

    fn may_drop_marker(&self, horizon_passed: bool) -> bool {
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::CompactionMarkerHorizon.is_off() {
            return true;
        }
        horizon_passed
    }

    /// Without this batch the log would not tell its producer's last sequence number.
    fn holds_last_sequence(&self, header: &BatchHeader) -> bool {
        let last = self.job.producers.get(&header.producer_id);
        last.is_some_and(|(offset, epoch)| *offset == header.last_offset() && *epoch == header.producer_epoch)
    }
}

enum Written {
    Segment(Segment),
    Unchanged,
    Stopped,
}

#[derive(Default)]
struct Copied {
    changed: bool,
    stopped: bool,
}

enum Kept {
    AsItIs,
    Anew(Vec<u8>),
    No,
}
