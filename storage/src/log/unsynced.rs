//! Which segment files must be made durable before a checkpoint may name them.
//!
//! They stay known until a checkpoint planned with them is durable: one that fails halfway, for want of space, leaves
//! everything to the next, whatever its carrier remembers.

use crate::segment::SegmentName;

/// See the module's comment.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Written since the last checkpoint was planned.
    written: Files,
    /// Planned to be synced before the checkpoint that was planned last.
    planned: Files,
}

#[derive(Debug, Default)]
struct Files {
    segments: Vec<SegmentName>,
    /// Files were made: their directory has names that may not be durable.
    new_names: bool,
}

impl Files {
    fn is_empty(&self) -> bool {
        self.segments.is_empty() && !self.new_names
    }
}

impl Unsynced {
    /// A segment was written; `is_new`: its file was made.
    pub(super) fn add(&mut self, segment: SegmentName, is_new: bool) {
        self.written.segments.push(segment);
        self.written.new_names |= is_new;
    }

    /// Whether a segment waits to be synced.
    pub(super) fn has(&self, segment: SegmentName) -> bool {
        self.written.segments.contains(&segment) || self.planned.segments.contains(&segment)
    }

    /// Segments whose files go need no sync.
    pub(super) fn forget(&mut self, gone: &[SegmentName]) {
        for files in [&mut self.written, &mut self.planned] {
            files.segments.retain(|name| !gone.contains(name));
        }
    }

    /// What is to be synced before the checkpoint that is planned now: the segments, and whether their directory has
    /// new names.
    pub(super) fn plan(&mut self) -> Option<(Vec<SegmentName>, bool)> {
        // What was planned before did not come about. The directory may have got names, also of checksum files, before
        // that failed, and none of them counts before all are durable.
        self.planned.new_names |= self.written.new_names || !self.planned.is_empty();
        self.planned.segments.append(&mut self.written.segments);
        self.planned.segments.sort_unstable();
        self.planned.segments.dedup();
        self.written.new_names = false;
        (!self.planned.is_empty()).then(|| (self.planned.segments.clone(), self.planned.new_names))
    }

    /// What was planned last is durable.
    pub(super) fn on_synced(&mut self) {
        self.planned = Files::default();
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Offset;

    use super::*;

    fn name(base: i64) -> SegmentName {
        SegmentName { base: Offset(base), version: 0 }
    }

    #[test]
    fn what_was_planned_is_planned_again_until_it_is_durable() {
        let mut unsynced = Unsynced::default();
        assert_eq!(unsynced.plan(), None);
        unsynced.add(name(0), false);
        assert_eq!(unsynced.plan(), Some((vec![name(0)], false)));
        unsynced.add(name(9), false);
        assert_eq!(unsynced.plan(), Some((vec![name(0), name(9)], true)), "the first may have made names");
        unsynced.add(name(9), false);
        unsynced.on_synced();
        assert!(unsynced.has(name(9)) && !unsynced.has(name(0)));
        assert_eq!(unsynced.plan(), Some((vec![name(9)], false)), "written again while the others were synced");
        unsynced.on_synced();
        assert_eq!(unsynced.plan(), None);
    }

    #[test]
    fn names_stay_new_when_the_segments_that_made_them_are_gone() {
        let mut unsynced = Unsynced::default();
        unsynced.add(name(0), true);
        unsynced.forget(&[name(0)]);
        assert_eq!(unsynced.plan(), Some((vec![], true)));
        unsynced.on_synced();
        assert_eq!(unsynced.plan(), None);
    }
}
