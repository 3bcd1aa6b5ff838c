//! Compaction as the log sees it: when it is due, and what a new segment takes the place of.
//!
//! A replacement changes which files the log reads; what offsets exist does not change, and neither does anything derived.
//! The files it replaces are doomed, as after a truncation: they go when a durable checkpoint no longer names them.

use stonelog_protocol::{Offset, Timestamp};

use super::{Log, Sweep};
use crate::ReplicaKey;
use crate::compaction::plan::{Dirt, survey};
use crate::compaction::{CompactJob, CompactionLimits, Replacement, SweepJob};
use crate::segment::Segment;

impl Log {
    /// How dirty the log is, if it is to be compacted now. `last_stable` as the leader knows it, `now` wall-clock time.
    pub fn compaction_due(&self, now: Timestamp, last_stable: Offset) -> Option<Dirt> {
        let config = self.config.compaction.as_ref()?;
        let segments = &self.segments;
        // What was replaced last, or cut off, is still in the checkpoint.
        let is_waiting = self.is_changing() || self.settling.is_some() || !segments.doomed.is_empty();
        // A hole may hold what another record's removal depends on: such a log is compacted when it is whole again.
        if is_waiting || segments.compacting || segments.uncleanable || !self.holes.is_empty() {
            return None;
        }
        let bound = last_stable.min(segments.checkpointed_end);
        #[cfg(feature = "mutants")]
        let bound = match crate::mutants::Guard::CompactionBound.is_off() {
            true => self.log_end(),
            false => bound,
        };
        let dirt = survey(&segments.list, self.log_start, self.clean_end(), bound, config, now);
        dirt.is_due(config).then_some(dirt)
    }

    /// What earlier compactions may have left is to be looked for once, before the first compaction that is due.
    pub fn plan_sweep(&mut self, now: Timestamp, last_stable: Offset) -> Option<SweepJob> {
        if !matches!(self.segments.sweep, Sweep::Wanted) {
            return None;
        }
        self.compaction_due(now, last_stable)?;
        self.segments.sweep = Sweep::UnderWay { is_cut: false };
        Some(SweepJob { replica: self.key, segments: self.segments.list.clone() })
    }

    /// The sweep is over, also when the log has changed since; `done`: nothing failed.
    pub fn on_swept(&mut self, done: bool) {
        if matches!(self.segments.sweep, Sweep::UnderWay { .. }) {
            self.segments.sweep = if done { Sweep::Done } else { Sweep::Wanted };
        }
    }

    /// Plans the next compaction, if one is due, after [`Log::plan_sweep`]. One at a time: until
    /// [`Log::on_compaction_ended`] the segments stay.
    pub fn plan_compaction(
        &mut self,
        now: Timestamp,
        last_stable: Offset,
        limits: CompactionLimits,
    ) -> Option<CompactJob> {
        let dirt = self.compaction_due(now, last_stable).filter(|_| matches!(self.segments.sweep, Sweep::Done))?;
        let config = self.config.compaction.as_ref()?;
        self.segments.compacting = true;
        let sources = self.segments.list[dirt.taken_start..dirt.taken_end].to_vec();
        Some(CompactJob {
            replica: self.key,
            // There are no others than those that the log start has passed.
            passed: sources.iter().map(|source| self.holes.in_segment(source.name())).collect(),
            sources,
            clean_end: self.clean_end(),
            now,
            delete_horizon: now.saturating_add(config.delete_retention),
            segment_bytes: self.config.segment_bytes,
            segment_index_bytes: self.config.segment_index_bytes,
            index_interval_bytes: self.config.index_interval_bytes,
            limits,
            producers: self
                .producers
                .iter()
                .filter_map(|(id, state)| Some((id, (state.batches().last()?.last_offset, state.epoch))))
                .collect(),
        })
    }

    /// A new segment is durable: from here on it is read instead of those it replaces. `false` when the log has changed
    /// since: then nobody names the new one, and its files may go ([`crate::segment::delete::DeleteJob`]).
    pub fn on_compacted(&mut self, done: &Replacement) -> bool {
        // What a hole says of segments' bytes would not be true of the new one.
        if done.replica != self.key || self.dropped || self.settling.is_some() || !self.holes.is_empty() {
            return false;
        }
        assert!(self.segments.compacting, "a replacement belongs to the compaction under way");
        let list = &mut self.segments.list;
        let Some(first) = done.sources.first() else { return false };
        let Some(start) = list.iter().position(|segment| segment.name() == *first) else { return false };
        let end = start + done.sources.len();
        let is_there = end < list.len() && list[start..end].iter().map(Segment::name).eq(done.sources.iter().copied());
        if !is_there {
            return false;
        }
        assert_eq!((done.segment.base, done.segment.end), (list[start].base, list[end - 1].end), "no offset moves");
        list.splice(start..end, [done.segment]);
        self.segments.unsynced.forget(&done.sources);
        #[cfg(feature = "mutants")]
        if crate::mutants::Guard::CompactionCheckpoint.is_off() {
            self.segments.deletable.extend_from_slice(&done.sources);
            return true;
        }
        self.segments.doomed.extend_from_slice(&done.sources);
        true
    }

    /// The compaction is over: with all of it done the log is clean up to an offset. `failed`: it met damage, and the log
    /// is not compacted again until the next start, unless a hole is found that explains it: then as soon as the log start
    /// has passed that, or it is whole again.
    pub fn on_compaction_ended(&mut self, replica: ReplicaKey, clean_end: Option<Offset>, failed: bool) {
        self.segments.compacting = false;
        self.segments.uncleanable |= failed && self.holes.is_empty();
        if let Some(clean_end) = clean_end.filter(|_| replica == self.key) {
            self.segments.clean_end = clean_end.max(self.segments.clean_end);
        }
    }

    /// Below it compaction has removed what later records replace, and maybe tombstones; 0 when it has taken nothing from
    /// what the log holds.
    pub fn cleaned_end(&self) -> Offset {
        let cleaned = self.segments.clean_end.min(self.segments_end());
        if cleaned > self.log_start { cleaned } else { Offset::ZERO }
    }

    /// Up to where every key is mapped; not above what segments hold.
    pub fn clean_end(&self) -> Offset {
        self.segments.clean_end.max(self.log_start).min(self.segments_end())
    }
}
