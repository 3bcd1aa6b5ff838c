//! Deleting old records: by time, by size, and below a log start that DeleteRecords raised.
//!
//! Two steps, because only what a checkpoint covers may go: first the log start rises (a journal entry), then, when a
//! checkpoint that says so is durable, the files below it are removed.
//! Source: `UnifiedLog.deleteOldSegments`.

use stonelog_protocol::{Offset, Timestamp};

use super::Log;
use crate::segment::SegmentName;
use crate::segment::delete::DeleteJob;

impl Log {
    /// The log start that retention asks for, if it is above the present one; pass it to
    /// [`Log::advance_log_start`]. Only whole segments below `high_watermark` go. `now` is wall-clock time.
    pub fn plan_retention(&self, now: Timestamp, high_watermark: Offset) -> Option<Offset> {
        if !self.config.delete || self.is_changing() {
            return None;
        }
        let mut excess = match self.config.retention_bytes {
            Some(limit) => self.size_bytes().saturating_sub(limit),
            None => 0,
        };
        let mut start = None;
        for segment in &self.segments.list {
            let expired = self.config.retention_ms.is_some_and(|keep| segment.newest().saturating_add(keep) < now);
            let too_much = self.config.retention_bytes.is_some() && excess >= segment.bytes;
            if segment.end > high_watermark || !(expired || too_much || segment.end <= self.log_start) {
                break;
            }
            excess = excess.saturating_sub(segment.bytes);
            start = Some(segment.end);
        }
        start.filter(|start| *start > self.log_start)
    }

    /// The files that may be removed now: below the log start of a durable checkpoint, or cut off before it. Nothing is
    /// flushed to where they lay until [`Log::on_deleted`].
    pub fn plan_deletes(&mut self) -> Option<DeleteJob> {
        let segments = &mut self.segments;
        if self.flush_in_flight {
            return None;
        }
        let checkpointed = segments.checkpointed_start.unwrap_or(Offset::ZERO);
        let last = segments.list.len().saturating_sub(usize::from(!segments.last_closed));
        let count = match segments.compacting || segments.hold_flush {
            // They are being read, or the durable checkpoint names them as they were before a cut; the checkpoint after
            // that is the next occasion.
            true => 0,
            false => segments.list[..last].iter().take_while(|segment| segment.end <= checkpointed).count(),
        };
        let mut gone: Vec<SegmentName> = segments.list.drain(..count).map(|segment| segment.name()).collect();
        segments.unsynced.forget(&gone);
        gone.extend(segments.deletable.drain(..).filter(|name| segments.list.iter().all(|kept| kept.name() != *name)));
        // A cut log may come to the same bases again.
        segments.deleting.extend(gone.iter().filter(|name| name.base >= self.covered.end));
        self.holes.forget_passed(|name| gone.contains(&name));
        self.covered.holes.forget_passed(|name| gone.contains(&name));
        (!gone.is_empty()).then_some(DeleteJob { partition: self.key.partition, segments: gone })
    }

    /// The files of a job planned before are gone, also when the log has changed since.
    pub fn on_deleted(&mut self, done: &DeleteJob) {
        assert_eq!(done.partition, self.key.partition, "a log hears of its own files");
        self.segments.deleting.retain(|name| !done.segments.contains(name));
    }

    /// When everything in the active segment is deleted, it is not written to any more, so that its file can go.
    pub(super) fn close_deleted_segment(&mut self) {
        if !self.flush_in_flight && self.segments.list.last().is_some_and(|last| last.end <= self.log_start) {
            self.segments.last_closed = true;
        }
    }
}
