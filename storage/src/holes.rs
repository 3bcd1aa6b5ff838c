//! Ranges of a log that were durable here and are damaged or missing: quarantined, never cut off, never served.
//!
//! A log's holes are part of its state: found by recovery (a damaged journal commit, a segment file that is missing or
//! short) or by a read or scrub that met a bad block; kept in the checkpoint; gone when the log start passes them, when
//! a leader's truncation cuts them off, or with the replica. Everything beside them is served.
//! Invariants: no hole is empty, none overlap, they rise.

use std::fmt;

use stonelog_protocol::{Offset, Timestamp};

use crate::segment::SegmentName;

/// Holes of one log kept apart. Beyond, the two that lie nearest to each other become one: a disk that bad loses more
/// than it must rather than the broker its memory.
pub const HOLES_COUNT_MAX: usize = 4096;

/// Why a range cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A journal commit that held it fails its checksum, or is gone.
    Journal,
    /// Bytes of a segment fail their check.
    Segment,
    /// A segment's file is missing, or ends too early.
    Missing,
    /// It is whole, and compacted otherwise than what was damaged beside it is where that comes from: it is fetched again
    /// with it.
    Compacted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Journal => "a damaged journal commit",
            Cause::Segment => "damaged segment bytes",
            Cause::Missing => "a missing or short segment file",
            Cause::Compacted => "compacted otherwise than the copy that mends it",
        })
    }
}

/// Where in a segment's `.log` the bytes of a hole lie. Reads go around them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HoleBytes {
    /// The segment.
    pub segment: SegmentName,
    /// Where the first batch in the hole begins.
    pub from: u32,
    /// Where the first batch behind the hole begins, or the segment ends.
    pub to: u32,
}

/// One range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hole {
    /// Its first offset: a batch begins or began there.
    pub start: Offset,
    /// The first offset behind it.
    pub end: Offset,
    /// What happened.
    pub why: Cause,
    /// No record in it is newer than this; beyond that a look-up by time need not mind it.
    pub newest: Timestamp,
    /// Its bytes, where a segment holds some.
    pub bytes: Option<HoleBytes>,
    /// A leader epoch may have begun in it, and nobody knows where.
    pub epoch_unsure: bool,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offsets {}..{} ({})", self.start, self.end, self.why)
    }
}

/// The holes of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes {
    list: Vec<Hole>,
    /// Bytes of holes that the log start has passed, in segments that are still read. Not kept in the checkpoint: whoever
    /// meets them again looks again.
    passed: Vec<HoleBytes>,
}

impl Holes {
    /// Holes read from a checkpoint; `None` when they are not what [`Holes`] always are.
    pub fn from_list(list: Vec<Hole>) -> Option<Holes> {
        let legal = list.iter().all(|hole| hole.start < hole.end)
            && list.windows(2).all(|pair| pair[0].end <= pair[1].start)
            && list.iter().filter_map(|hole| hole.bytes).all(|bytes| bytes.from <= bytes.to);
        legal.then_some(Holes { list, passed: Vec::new() })
    }

    /// All of them, rising.
    pub fn list(&self) -> &[Hole] {
        &self.list
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The hole that holds `offset`, or else the first behind it.
    pub fn at_or_after(&self, offset: Offset) -> Option<&Hole> {
        self.list.get(self.list.partition_point(|hole| hole.end <= offset))
    }

    /// The hole that holds `offset`.
    pub fn at(&self, offset: Offset) -> Option<&Hole> {
        self.at_or_after(offset).filter(|hole| hole.start <= offset)
    }

    /// Whether all of a range is known to be damaged.
    pub fn cover(&self, start: Offset, end: Offset) -> bool {
        let mut at = start;
        while at < end {
            match self.at(at) {
                Some(hole) => at = hole.end,
                None => return false,
            }
        }
        true
    }

    /// The byte ranges of one segment that hold holes, rising.
    pub fn in_segment(&self, segment: SegmentName) -> Vec<HoleBytes> {
        let all = self.list.iter().filter_map(|hole| hole.bytes).chain(self.passed.iter().copied());
        let mut found: Vec<_> = all.filter(|bytes| bytes.segment == segment).collect();
        found.sort_unstable();
        found
    }

    /// Adds a hole. What it shares with others becomes one with them. Whether anything is new.
    pub fn insert(&mut self, new: Hole) -> bool {
        if new.start >= new.end {
            return false;
        }
        let from = self.list.partition_point(|hole| hole.end <= new.start);
        let to = self.list.partition_point(|hole| hole.start < new.end);
        if self.cover(new.start, new.end) {
            // The offsets are known; more bytes around them may be bad by now.
            let widened: Vec<Hole> = self.list[from..to].iter().map(|old| joined(old, &new, false)).collect();
            let changed = widened != self.list[from..to];
            self.list.splice(from..to, widened);
            return changed;
        }
        let whole = self.list[from..to].iter().fold(new, |whole, old| joined(&whole, old, true));
        self.list.splice(from..to, [whole]);
        if self.list.len() > HOLES_COUNT_MAX {
            self.join_nearest();
        }
        true
    }

    /// Marks the hole that ends at `end`, and those right before it: a leader epoch was first seen behind them. Not below
    /// `known`, where the newest epoch before it began.
    pub(crate) fn doubt_epoch_at(&mut self, end: Offset, known: Offset) {
        let mut begins = end;
        for hole in self.list.iter_mut().rev().skip_while(|hole| hole.end > end) {
            if hole.end != begins || hole.start < known {
                return;
            }
            (hole.epoch_unsure, begins) = (true, hole.start);
        }
    }

    /// Where the first offset lies from `offset` on that is in no hole.
    pub(crate) fn behind(&self, offset: Offset) -> Offset {
        let mut end = offset;
        while let Some(hole) = self.at(end) {
            end = hole.end;
        }
        end
    }

    /// The log begins at `start` now.
    pub(crate) fn cut_below(&mut self, start: Offset) {
        let passed = self.list.partition_point(|hole| hole.end <= start);
        for hole in self.list.drain(..passed).collect::<Vec<_>>() {
            self.pass(&hole);
        }
        if let Some(first) = self.list.first_mut() {
            first.start = first.start.max(start);
        }
    }

    /// Notes the bytes of a hole below the log start. Whether that is new.
    pub(crate) fn pass(&mut self, hole: &Hole) -> bool {
        let Some(bytes) = hole.bytes.filter(|bytes| !self.passed.contains(bytes)) else { return false };
        self.passed.push(bytes);
        true
    }

    /// What of them lies between two offsets.
    pub(crate) fn within(&self, start: Offset, end: Offset) -> Vec<(Offset, Offset)> {
        let from = self.list.partition_point(|hole| hole.end <= start);
        let touching = self.list[from..].iter().take_while(|hole| hole.start < end);
        touching.map(|hole| (hole.start.max(start), hole.end.min(end))).collect()
    }

    /// A segment was written anew with these ranges in it: nothing of it is damaged any more.
    pub(crate) fn mend(&mut self, segment: SegmentName, ranges: &[(Offset, Offset)]) {
        for (start, end) in ranges {
            let is_left = |hole: &Hole| hole.start < hole.end;
            let left = self.list.drain(..).flat_map(|hole| {
                let before = Hole { end: hole.end.min(*start), ..hole };
                let behind = Hole { start: hole.start.max(*end), ..hole };
                [before, behind].into_iter().filter(is_left)
            });
            self.list = left.collect();
        }
        for hole in &mut self.list {
            hole.bytes = hole.bytes.filter(|bytes| bytes.segment != segment);
        }
        self.passed.retain(|bytes| bytes.segment != segment);
    }

    /// Forgets what was passed in segments that are gone.
    pub(crate) fn forget_passed(&mut self, is_gone: impl Fn(SegmentName) -> bool) {
        self.passed.retain(|bytes| !is_gone(bytes.segment));
    }

    /// The log was cut at `end`.
    pub(crate) fn cut_from(&mut self, end: Offset) {
        self.list.retain(|hole| hole.start < end);
        if let Some(last) = self.list.last_mut() {
            last.end = last.end.min(end);
        }
    }

    /// Segments end with the batch before `end` now.
    pub(crate) fn without_bytes_from(&mut self, end: Offset) {
        self.list.iter_mut().filter(|hole| hole.start >= end).for_each(|hole| hole.bytes = None);
    }

    fn join_nearest(&mut self) {
        // One that knows its bytes in two segments is not to be had: such neighbours become one last of all.
        let are_apart = |at: usize| match (self.list[at - 1].bytes, self.list[at].bytes) {
            (Some(before), Some(behind)) => before.segment != behind.segment,
            _ => false,
        };
        let nearest =
            (1..self.list.len()).min_by_key(|at| (are_apart(*at), self.list[*at].start - self.list[at - 1].end));
        if let Some(at) = nearest {
            let whole = joined(&self.list[at - 1], &self.list[at], true);
            self.list.splice(at - 1..=at, [whole]);
        }
    }
}

/// Both as one; the offsets stay `a`'s unless `offsets`.
fn joined(a: &Hole, b: &Hole, offsets: bool) -> Hole {
    let bytes = match (a.bytes, b.bytes) {
        (Some(x), Some(y)) if x.segment == y.segment => {
            Some(HoleBytes { segment: x.segment, from: x.from.min(y.from), to: x.to.max(y.to) })
        }
        (x, y) => x.or(y),
    };
    Hole {
        start: if offsets { a.start.min(b.start) } else { a.start },
        end: if offsets { a.end.max(b.end) } else { a.end },
        // What was in the journal only has left no trace in what is derived.
        why: if b.why == Cause::Journal { b.why } else { a.why },
        newest: a.newest.max(b.newest),
        bytes,
        epoch_unsure: a.epoch_unsure || b.epoch_unsure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hole(start: i64, end: i64) -> Hole {
        let (start, end) = (Offset(start), Offset(end));
        Hole { start, end, why: Cause::Segment, newest: Timestamp(1), bytes: None, epoch_unsure: false }
    }

    fn holes(ranges: &[(i64, i64)]) -> Holes {
        Holes::from_list(ranges.iter().map(|&(start, end)| hole(start, end)).collect()).expect("legal")
    }

    fn ranges(holes: &Holes) -> Vec<(i64, i64)> {
        holes.list().iter().map(|hole| (hole.start.0, hole.end.0)).collect()
    }

    #[test]
    fn an_offset_finds_the_hole_around_it_or_the_next_one() {
        let given = holes(&[(10, 20), (30, 31)]);
        assert_eq!(given.at(Offset(9)), None);
        assert_eq!(given.at(Offset(10)), Some(&hole(10, 20)));
        assert_eq!(given.at(Offset(20)), None);
        assert_eq!(given.at_or_after(Offset(20)), Some(&hole(30, 31)));
        assert_eq!(given.at_or_after(Offset(31)), None);
        assert!(given.cover(Offset(12), Offset(20)) && !given.cover(Offset(12), Offset(21)));
    }

    #[test]
    fn holes_that_overlap_become_one_and_neighbours_stay_apart() {
        let mut given = holes(&[(10, 20), (30, 40)]);
        assert!(given.insert(hole(15, 35)));
        assert_eq!(ranges(&given), [(10, 40)]);
        assert!(!given.insert(hole(12, 30)), "known already");
        assert!(given.insert(hole(40, 41)));
        assert!(!given.insert(hole(50, 50)), "nothing");
        assert_eq!(ranges(&given), [(10, 40), (40, 41)]);
    }

    #[test]
    fn the_bytes_of_a_segment_grow_together() {
        let name = |base| SegmentName { base: Offset(base), version: 0 };
        let at = |from, to| Some(HoleBytes { segment: name(5), from, to });
        let mut given = Holes::default();
        assert!(given.insert(Hole { bytes: at(100, 200), ..hole(10, 20) }));
        assert!(given.insert(Hole { bytes: at(150, 300), ..hole(15, 30) }));
        assert_eq!(given.in_segment(name(5)), [HoleBytes { segment: name(5), from: 100, to: 300 }]);
        assert!(given.in_segment(name(6)).is_empty());
        assert!(given.insert(Hole { bytes: at(90, 300), ..hole(10, 30) }), "the bytes are news");
        assert!(!given.insert(Hole { bytes: at(90, 300), ..hole(10, 30) }));
    }

    #[test]
    fn cutting_a_log_cuts_its_holes() {
        let mut given = holes(&[(10, 20), (30, 40), (50, 60)]);
        given.cut_below(Offset(15));
        given.cut_from(Offset(55));
        assert_eq!(ranges(&given), [(15, 20), (30, 40), (50, 55)]);
        given.cut_below(Offset(40));
        given.cut_from(Offset(50));
        assert!(given.is_empty());
    }

    #[test]
    fn beyond_the_limit_the_nearest_become_one() {
        let mut given = Holes::default();
        for n in 0..HOLES_COUNT_MAX as i64 {
            assert!(given.insert(hole(n * 10, n * 10 + 1)));
        }
        assert!(given.insert(hole(15, 16)));
        assert_eq!(given.list().len(), HOLES_COUNT_MAX);
        assert_eq!(ranges(&given)[1], (10, 16), "the nearest two");
    }

    #[test]
    fn what_is_mended_is_cut_out_of_the_holes_around_it() {
        let name = |base| SegmentName { base: Offset(base), version: 0 };
        let at = |base| Some(HoleBytes { segment: name(base), from: 1, to: 2 });
        let mut given = Holes::default();
        for hole in [Hole { bytes: at(0), ..hole(5, 20) }, hole(25, 40), Hole { bytes: at(30), ..hole(50, 60) }] {
            assert!(given.insert(hole));
        }
        assert_eq!(given.within(Offset(10), Offset(30)), [(Offset(10), Offset(20)), (Offset(25), Offset(30))]);
        given.mend(name(0), &[(Offset(5), Offset(15)), (Offset(25), Offset(30))]);
        assert_eq!(ranges(&given), [(15, 20), (30, 40), (50, 60)]);
        assert_eq!(given.list()[0].bytes, None, "its segment is not there any more");
        assert_eq!(given.list()[2].bytes, at(30));
    }

    #[test]
    fn a_list_that_overlaps_or_holds_nothing_is_refused() {
        assert_eq!(Holes::from_list(vec![hole(1, 3), hole(2, 4)]), None);
        assert_eq!(Holes::from_list(vec![hole(3, 3)]), None);
    }
}
