//! Making a damaged segment whole again from what a replica sent: planned, checked and taken over here, written by a job.

use bytes::Bytes;
use stonelog_protocol::Offset;

use super::Log;
use crate::compaction::repair::{FetchedRules, RepairJob, RepairPlan, RepairReject, Repaired, check_fetched};
use crate::segment::Segment;

impl Log {
    /// The first segment that can be made whole: sealed, covered by a durable checkpoint, and each of its holes known to
    /// the byte and within it. `None` when there is none, or the log is busy.
    pub fn plan_repair(&self) -> Option<RepairPlan> {
        let is_busy = self.is_changing() || self.settling.is_some() || self.dropped || self.segments.compacting;
        if is_busy || self.holes.is_empty() {
            return None;
        }
        self.sealed_segments().find_map(|segment| self.repair_of(segment))
    }

    fn repair_of(&self, segment: &Segment) -> Option<RepairPlan> {
        let mut ranges = Vec::new();
        let touches = |start: Offset, end: Offset| start < segment.end && end > segment.base;
        for hole in self.holes.list().iter().filter(|hole| touches(hole.start, hole.end)) {
            let is_within = hole.start >= segment.base && hole.end <= segment.end;
            let has_bytes = hole.bytes.is_some_and(|bytes| bytes.segment == segment.name());
            if !is_within || !has_bytes || hole.epoch_unsure {
                return None;
            }
            ranges.push((hole.start, hole.end));
        }
        let skip = self.holes.in_segment(segment.name());
        let damaged_bytes = skip.iter().map(|bytes| u64::from(bytes.to - bytes.from)).sum();
        (!ranges.is_empty()).then(|| RepairPlan { segment: segment.name(), ranges, damaged_bytes })
    }

    /// Whether compaction may have taken records out of what the log holds, here or at whom it was copied from.
    fn may_have_gaps(&self) -> bool {
        self.config.compaction.is_some() || self.cleaned_end() > Offset::ZERO
    }

    /// Checks what was fetched for each range of a plan and makes the job of it. Until [`Log::on_repair_ended`] the
    /// segments stay.
    pub fn begin_repair(&mut self, plan: &RepairPlan, fetched: Vec<Vec<Bytes>>) -> Result<RepairJob, RepairReject> {
        if self.plan_repair().as_ref() != Some(plan) || fetched.len() != plan.ranges.len() {
            return Err(RepairReject::Changed);
        }
        let list = &self.segments.list;
        let found = list.iter().find(|segment| segment.name() == plan.segment);
        let segment = *found.ok_or(RepairReject::Changed)?;
        for (range, batches) in plan.ranges.iter().zip(&fetched) {
            let rules =
                FetchedRules { may_begin_below: range.0 == self.log_start, may_have_gaps: self.may_have_gaps() };
            check_fetched(batches, *range, rules, |offset| self.epochs.epoch_at(offset))?;
        }
        self.segments.compacting = true;
        Ok(RepairJob {
            replica: self.key,
            segment,
            skip: self.holes.in_segment(segment.name()),
            fetched: fetched.into_iter().flatten().collect(),
            index_interval_bytes: self.config.index_interval_bytes,
        })
    }

    /// The whole segment is durable: from here on it is read instead of the damaged one. `false` when the log has changed
    /// since, or more of the segment is known to be damaged: then nobody names the new one.
    pub fn on_repaired(&mut self, done: &Repaired) -> bool {
        let is_same = done.replica == self.key && self.holes.in_segment(done.source) == done.skip;
        if !is_same || self.dropped || self.settling.is_some() {
            return false;
        }
        let list = &mut self.segments.list;
        let Some(segment) = list.iter_mut().find(|segment| segment.name() == done.source) else { return false };
        assert_eq!((done.segment.base, done.segment.end), (segment.base, segment.end), "no offset moves");
        *segment = done.segment;
        self.segments.unsynced.forget(&[done.source]);
        self.segments.doomed.push(done.source);
        self.holes.mend(done.source);
        self.covered.holes.mend(done.source);
        self.segments.uncleanable &= !self.holes.is_empty();
        true
    }

    /// The repair is over, whatever came of it.
    pub fn on_repair_ended(&mut self) {
        self.segments.compacting = false;
    }
}
