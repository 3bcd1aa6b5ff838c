//! Making a damaged range whole again from what a replica sent: planned, checked and taken over here, written by a job.
//!
//! A hole lies in a segment, with bytes of it or, when a journal commit was lost, without; or between two, or before the
//! first one. Segments that are sealed are written anew with what was fetched in its place; where none has the place of
//! a hole, one is made. The segment that is being written is closed first, so that the next flush begins another.

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::build::BatchBuilder;
use stonelog_protocol::{LeaderEpoch, Offset, Timestamp};

use super::Log;
use crate::compaction::repair::{FetchedRules, RepairJob, RepairPlan, RepairReject, Repaired, check_fetched};
use crate::holes::{Cause, Hole};
use crate::segment::walk::Batches;
use crate::segment::{Segment, SegmentName};

impl Log {
    /// The first damage that can be mended now: in a sealed segment or in none, covered by a durable checkpoint. `None`
    /// when there is none, or the log is busy.
    pub fn plan_repair(&self) -> Option<RepairPlan> {
        self.plans().next()
    }

    fn plans(&self) -> impl Iterator<Item = RepairPlan> {
        let is_busy = self.is_changing() || self.settling.is_some() || self.dropped || self.segments.compacting;
        self.holes.list().iter().filter(move |_| !is_busy).filter_map(|hole| self.plan_for(hole))
    }

    fn plan_for(&self, hole: &Hole) -> Option<RepairPlan> {
        let (list, checkpointed) = (&self.segments.list, self.segments.checkpointed_end);
        let at = list.partition_point(|segment| segment.end <= hole.start);
        let is_written = |at: usize| at + 1 == list.len() && !self.segments.last_closed;
        if let Some(segment) = list.get(at).filter(|segment| segment.base <= hole.start) {
            let name = segment.name();
            let is_covered = segment.end <= checkpointed && !self.segments.unsynced.has(name);
            let skip = self.holes.in_segment(name);
            return (is_covered && !is_written(at)).then(|| RepairPlan {
                segment: name,
                is_new: false,
                ranges: self.holes.within(segment.base, segment.end),
                damaged_bytes: skip.iter().map(|bytes| u64::from(bytes.to - bytes.from)).sum(),
            });
        }
        let end = list.get(at).map_or(hole.end, |next| hole.end.min(next.base));
        // The last segment takes in what lies behind it, when it is closed.
        let is_behind_all = at > 0 && at == list.len();
        (end <= checkpointed && !is_behind_all).then(|| RepairPlan {
            segment: self.unused_name(hole.start),
            is_new: true,
            ranges: vec![(hole.start, end)],
            damaged_bytes: 0,
        })
    }

    /// A name that no file has which anybody may still name or remove.
    fn unused_name(&self, base: Offset) -> SegmentName {
        let segments = &self.segments;
        let named = segments.list.iter().map(Segment::name);
        let going = segments.doomed.iter().chain(&segments.deletable).chain(&segments.deleting).copied();
        let used = named.chain(going).filter(|name| name.base == base).map(|name| name.version).max();
        SegmentName { base, version: used.unwrap_or(0) + 1 }
    }

    /// Nothing more is written to the last segment when there is damage in it or behind it, so that this can be mended. It
    /// has the place of all up to the next one, which is not begun yet, as after a start.
    pub fn close_damaged_segment(&mut self) {
        let is_busy = self.is_changing() || self.settling.is_some() || self.dropped || self.flush_in_flight;
        let Some(last) = self.segments.list.last_mut().filter(|_| !is_busy) else { return };
        let mut newest = self.holes.list().iter().rev().take_while(|hole| hole.end > last.base);
        if newest.any(|hole| hole.end <= self.covered.end) {
            last.end = self.covered.end;
            self.segments.last_closed = true;
        }
    }

    /// Whoever sends what is damaged has compacted its log up to `cleaned_end`, and this one was compacted otherwise: what
    /// either has removed depends on what it has kept. All that either has cleaned is to be fetched again with it, and is
    /// as clean then as there.
    pub fn widen_damage(&mut self, cleaned_end: Offset) {
        let end = self.segments.clean_end.max(cleaned_end);
        let known = self.holes.clone();
        for segment in self.segments.list.clone().iter().filter(|segment| segment.base < end) {
            let (mut from, to) = (segment.base.max(self.log_start), segment.end.min(end));
            let mut whole = Vec::new();
            for (start, behind) in known.within(from, to) {
                whole.push((from, start));
                from = behind;
            }
            whole.push((from, to));
            for (start, end) in whole.into_iter().filter(|(start, end)| start < end) {
                let (why, newest) = (Cause::Compacted, segment.max_timestamp);
                self.quarantine_hole(Hole { start, end, why, newest, bytes: None, epoch_unsure: false });
            }
        }
        // What it has not in segments yet comes as it was written, or is cleaned here.
        self.segments.clean_end = cleaned_end.min(self.segments_end());
    }

    /// Whether compaction may have taken records out of what the log holds, here or at whom it was copied from.
    fn may_have_gaps(&self) -> bool {
        self.config.compaction.is_some() || self.cleaned_end() > Offset::ZERO
    }

    /// Checks what was fetched for each range of a plan and makes the job of it. Until [`Log::on_repair_ended`] the
    /// segments stay. Of what was planned the last ranges, or the end of one, may be left out: they stay damaged.
    pub fn begin_repair(&mut self, plan: &RepairPlan, fetched: Vec<Vec<Bytes>>) -> Result<RepairJob, RepairReject> {
        let now = self.plans().find(|now| now.segment == plan.segment && now.is_new == plan.is_new);
        let is_as_planned = |now: &RepairPlan| {
            let Some((last, before)) = plan.ranges.split_last() else { return false };
            let is_part = |whole: &(Offset, Offset)| whole.0 == last.0 && last.0 < last.1 && last.1 <= whole.1;
            now.ranges.starts_with(before) && now.ranges.get(before.len()).is_some_and(is_part)
        };
        if !now.is_some_and(|now| is_as_planned(&now)) || fetched.len() != plan.ranges.len() {
            return Err(RepairReject::Changed);
        }
        for (range, batches) in plan.ranges.iter().zip(&fetched) {
            let rules =
                FetchedRules { may_begin_below: range.0 == self.log_start, may_have_gaps: self.may_have_gaps() };
            let mut last = self.epochs.epoch_at(range.0).unwrap_or(LeaderEpoch::NONE);
            let is_unsure = self.holes.at(range.0).is_some_and(may_hide_epoch);
            // Behind the log's end nothing says which epoch it was by then.
            let behind = self.holes.behind(range.0);
            let most = self.epochs.epoch_at(behind).filter(|_| behind < self.log_end());
            check_fetched(batches, *range, rules, |offset, epoch| {
                // Where the epochs of a range are lost with it, they rise from the one before to the one behind it.
                let fits = last <= epoch && most.is_none_or(|most| epoch <= most);
                last = epoch;
                if is_unsure { fits } else { self.epochs.epoch_at(offset) == Some(epoch) }
            })?;
        }
        let list = &self.segments.list;
        let at = list.iter().position(|segment| segment.name() == plan.segment);
        let segment = match at {
            Some(at) => list[at],
            None => self.new_segment(plan, &fetched),
        };
        // Positions in a segment are of 32 bits: what has outgrown them comes with the whole log.
        let fetched_bytes: u64 = fetched.iter().flatten().map(|piece| piece.len() as u64).sum();
        if segment.bytes + fetched_bytes > u64::from(u32::MAX) {
            return Err(RepairReject::Unfit { at: plan.ranges[0].0 });
        }
        let last = segment.end + -1;
        let filler = BatchBuilder::new().at(last, self.epochs.epoch_at(last).unwrap_or(LeaderEpoch::NONE)).build();
        self.segments.compacting = true;
        Ok(RepairJob {
            replica: self.key,
            segment,
            is_new: plan.is_new,
            closed: at.is_some_and(|at| self.is_closed(at)),
            skip: self.holes.in_segment(segment.name()),
            known: self.holes.within(segment.base, segment.end),
            ranges: plan.ranges.clone(),
            filler: filler.map(Bytes::from).unwrap_or_default(),
            fetched: fetched.into_iter().flatten().collect(),
            index_interval_bytes: self.config.index_interval_bytes,
        })
    }

    fn new_segment(&self, plan: &RepairPlan, fetched: &[Vec<Bytes>]) -> Segment {
        let (start, end) = plan.ranges[0];
        let first = fetched.iter().flatten().find_map(|piece| BatchHeader::read(piece).ok());
        let list = &self.segments.list;
        let at = list.partition_point(|segment| segment.end <= start);
        let beside = list.get(at).or(list.last()).map(|segment| segment.created);
        // It counts as appended when what lies beside it was.
        let created = beside.or(self.holes.at(start).map(|hole| hole.newest)).unwrap_or(Timestamp::NONE);
        let base = first.map_or(start, |header| header.base_offset.min(start));
        Segment { version: plan.segment.version, end, ..Segment::empty(base, created) }
    }

    /// The whole segment is durable: from here on it is read instead of the damaged one. `false` when the log has changed
    /// since, or more of the segment is known to be damaged: then nobody names the new one, and its files may go
    /// ([`Repaired::leftover`]).
    pub fn on_repaired(&mut self, done: &Repaired) -> bool {
        let new = done.segment;
        let is_known = |range: &(Offset, Offset)| done.known.iter().any(|one| one.0 <= range.0 && range.1 <= one.1);
        let is_same = done.replica == self.key
            && self.holes.in_segment(done.source) == done.skip
            && self.holes.within(new.base, new.end).iter().all(is_known);
        if !is_same || self.dropped || self.settling.is_some() || !self.take_over(done) {
            return false;
        }
        for (start, end) in &done.ranges {
            self.learn(*start, *end, &done.fetched);
        }
        self.holes.mend(done.source, &done.ranges);
        self.covered.holes.mend(done.source, &done.ranges);
        self.segments.uncleanable &= !self.holes.is_empty();
        true
    }

    /// The new segment takes its place among the others, if that is still there.
    fn take_over(&mut self, done: &Repaired) -> bool {
        let (new, segments) = (done.segment, &mut self.segments);
        let list = &mut segments.list;
        let at = if done.is_new {
            let at = list.partition_point(|segment| segment.end <= new.base);
            let is_behind_all = at > 0 && at == list.len();
            if list.get(at).is_some_and(|next| next.base < new.end) || is_behind_all {
                return false;
            }
            list.insert(at, new);
            at
        } else {
            let Some(at) = list.iter().position(|segment| segment.name() == done.source) else { return false };
            assert_eq!((new.base, new.end), (list[at].base, list[at].end), "no offset moves");
            list[at] = new;
            segments.unsynced.forget(&[done.source]);
            segments.doomed.push(done.source);
            at
        };
        if at + 1 == list.len() {
            // Of the old one, or of none.
            segments.active_index = None;
            segments.last_closed = true;
        }
        true
    }

    /// What was derived from a log without these batches is made up for.
    fn learn(&mut self, start: Offset, end: Offset, fetched: &[Bytes]) {
        let lost: Vec<Hole> =
            self.holes.list().iter().filter(|hole| hole.start < end && hole.end > start).copied().collect();
        let seen = self.segments.list.last().map_or(Timestamp::NONE, |last| last.created);
        for (_, header) in fetched.iter().flat_map(|piece| Batches::of(piece)) {
            let of = |hole: &&Hole| hole.start < header.next_offset() && header.base_offset < hole.end;
            let Some(hole) = lost.iter().find(of) else { continue };
            if hole.why == Cause::Journal {
                self.producers.learn(&header, seen);
                self.covered.producers.learn(&header, seen);
            }
            if may_hide_epoch(hole) {
                self.epochs.learn(header.leader_epoch, header.base_offset);
                self.covered.epochs.learn(header.leader_epoch, header.base_offset);
            }
        }
    }

    /// The repair is over, whatever came of it.
    pub fn on_repair_ended(&mut self) {
        self.segments.compacting = false;
    }
}

/// Whether a leader epoch may have begun in it of which nothing else tells where.
fn may_hide_epoch(hole: &Hole) -> bool {
    hole.epoch_unsure || hole.why == Cause::Journal
}
