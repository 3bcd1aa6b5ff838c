//! Damage that a read or the scrub met while the log is in use: what to look at, and what becomes of it.
//!
//! A read fails on the first bad byte it meets. [`Log::plan_survey`] then looks at the whole segment once, and
//! [`Log::on_surveyed`] quarantines what it found, to the batch. The next checkpoint makes that durable; until then a
//! restart finds it again as the read did. Recovery adds holes by itself.

use stonelog_protocol::{Offset, Timestamp};

use super::Log;
use crate::holes::{Cause, Hole};
use crate::segment::survey::{SurveyJob, Surveyed};

impl Log {
    /// Takes a range out of service: reads inside fail from now on, and the checkpoint says so. What is not in segments
    /// is left out, since recovery judges the journal. Returns whether anything is new; then the log wants a checkpoint.
    pub fn quarantine(&mut self, start: Offset, end: Offset, why: Cause) -> bool {
        let newest = Timestamp(i64::MAX);
        self.quarantine_hole(Hole { start, end, why, newest, bytes: None, epoch_unsure: false })
    }

    pub(super) fn quarantine_hole(&mut self, hole: Hole) -> bool {
        if self.dropped || self.settling.is_some() {
            return false;
        }
        if hole.end <= self.log_start {
            let is_new = self.holes.pass(&hole);
            self.segments.uncleanable &= !is_new;
            return is_new;
        }
        let hole = Hole {
            start: hole.start.max(self.log_start),
            end: hole.end.min(self.segments_end()).min(self.log_end()),
            ..hole
        };
        self.covered.holes.insert(hole);
        let is_new = self.holes.insert(hole);
        self.segments.uncleanable &= !is_new;
        is_new
    }

    /// A look at the whole segment that holds `offset`; `None` when none does.
    pub fn plan_survey(&self, offset: Offset) -> Option<SurveyJob> {
        let list = &self.segments.list;
        let at = list.partition_point(|segment| segment.end <= offset);
        let segment = list.get(at).filter(|segment| segment.base <= offset)?;
        Some(SurveyJob {
            replica: self.key,
            segment: *segment,
            closed: self.is_closed(at),
            epochs: self.epochs.entries().to_vec(),
            log_start: self.log_start,
        })
    }

    /// Quarantines what a survey found. Returns the holes that are new; then the log wants a checkpoint. Of another
    /// generation, or of a segment that is not the same any more, it changes nothing.
    pub fn on_surveyed(&mut self, surveyed: &Surveyed) -> Vec<Hole> {
        if surveyed.replica != self.key {
            return Vec::new();
        }
        let looked_at = &surveyed.segment;
        let position = self.segments.list.iter().position(|segment| segment.name() == looked_at.name());
        let Some(at) = position else { return Vec::new() };
        let (segment, is_last) = (self.segments.list[at], at + 1 == self.segments.list.len());
        let same = segment.bytes == looked_at.bytes || (!surveyed.closed && segment.bytes > looked_at.bytes);
        if !same {
            return Vec::new();
        }
        if is_last && surveyed.file_is_short && !self.flush_in_flight {
            // Nothing may be written behind what is missing: the next flush begins a segment.
            self.segments.last_closed = true;
            self.segments.active_index = None;
        }
        surveyed.holes.iter().filter(|hole| self.quarantine_hole(**hole)).copied().collect()
    }
}
