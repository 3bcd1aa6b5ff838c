//! A follower's damaged segments, mended from its leader: only the damaged offsets are asked for (rule 9).
//!
//! One segment at a time, one range of it after the other, piece by piece; what was fetched is held in memory until the
//! segment is written anew, so that what a segment may lack has a limit. Beyond it, and where offsets are missing of which
//! no segment has the place, the whole log is fetched again once others suffice ([`super::Follower::set_spare`]).

use bytes::Bytes;
use stonelog_protocol::Offset;
use stonelog_protocol::peer::stream::Filled;
use stonelog_storage::compaction::repair::RepairPlan;
use stonelog_storage::log::Log;

/// Damaged bytes of one segment that are fetched for it, at most: they are held in memory.
pub const REPAIR_BYTES_MAX: u64 = 16 << 20;
/// Repairs that came to nothing under one leader, before it is left.
const FAILURES_MAX: u32 = 3;

/// What one follower has of a repair.
#[derive(Debug, Default)]
pub(super) struct Repair {
    under_way: Option<UnderWay>,
    failures: u32,
    /// All that was ever fetched.
    fetched_bytes: u64,
}

#[derive(Debug)]
struct UnderWay {
    plan: RepairPlan,
    /// For each range what was fetched; the last one's is not complete.
    fetched: Vec<Vec<Bytes>>,
    bytes: u64,
    /// What to ask for next.
    at: Offset,
    is_asked: bool,
}

impl UnderWay {
    /// Whether the next piece begins there. While the segment is written nothing is awaited.
    fn is_awaiting(&self, from: Offset) -> bool {
        self.is_asked && self.at == from && !self.fetched.is_empty()
    }
}

/// What a piece that arrived leads to.
#[derive(Debug)]
pub(super) enum Step {
    /// The next one is to be asked for.
    Ask,
    /// All is here: write the segment.
    Write(RepairPlan, Vec<Vec<Bytes>>),
    /// It came to nothing.
    Failed,
    /// It belongs to nothing that is asked for.
    Stale,
}

/// What of a log can be mended, if anything.
pub(super) fn plan(log: &Log) -> Option<RepairPlan> {
    log.plan_repair().filter(|plan| plan.damaged_bytes <= REPAIR_BYTES_MAX)
}

impl Repair {
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether it is tried no more under this leader.
    pub(super) fn is_given_up(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// Another leader may have what this one had not.
    pub(super) fn on_another_leader(&mut self) {
        *self = Repair { fetched_bytes: self.fetched_bytes, ..Repair::default() };
    }

    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Begins with what is damaged first. Whether there is anything.
    pub(super) fn begin(&mut self, log: &Log) -> bool {
        if self.is_under_way() || self.is_given_up() {
            return false;
        }
        let Some(plan) = plan(log) else { return false };
        let at = plan.ranges[0].0;
        self.under_way = Some(UnderWay { plan, fetched: vec![Vec::new()], bytes: 0, at, is_asked: false });
        true
    }

    /// The range to ask for now, once.
    pub(super) fn ask(&mut self) -> Option<(Offset, Offset)> {
        let under_way = self.under_way.as_mut().filter(|under_way| !under_way.is_asked)?;
        under_way.is_asked = true;
        let (_, end) = under_way.plan.ranges[under_way.fetched.len() - 1];
        Some((under_way.at, end))
    }

    /// A piece has arrived.
    pub(super) fn on_filled(&mut self, filled: &Filled) -> Step {
        let Some(under_way) = self.under_way.as_mut().filter(|one| one.is_awaiting(filled.from)) else {
            return Step::Stale;
        };
        let (_, end) = under_way.plan.ranges[under_way.fetched.len() - 1];
        let bytes = filled.batches.iter().map(|piece| piece.len() as u64).sum::<u64>();
        under_way.bytes += bytes;
        self.fetched_bytes += bytes;
        // The leader's batches of these offsets may be a little longer, where it has not compacted them.
        let is_too_much = under_way.bytes > 2 * REPAIR_BYTES_MAX;
        if filled.upto <= under_way.at || filled.upto > end || is_too_much {
            self.fail();
            return Step::Failed;
        }
        let pieces = filled.batches.iter().filter(|piece| !piece.is_empty()).cloned();
        under_way.fetched.last_mut().expect("a range is being fetched").extend(pieces);
        under_way.at = filled.upto;
        if under_way.at < end {
            under_way.is_asked = false;
            return Step::Ask;
        }
        if let Some((start, _)) = under_way.plan.ranges.get(under_way.fetched.len()) {
            under_way.at = *start;
            under_way.fetched.push(Vec::new());
            under_way.is_asked = false;
            return Step::Ask;
        }
        // It stays under way, with nothing to ask for, until it is written.
        Step::Write(under_way.plan.clone(), std::mem::take(&mut under_way.fetched))
    }

    /// What became of it.
    pub(super) fn on_written(&mut self, is_mended: bool) {
        match is_mended {
            true => self.under_way = None,
            false => self.fail(),
        }
    }

    /// The stream is over: what was fetched on it is forgotten, and asked for again on the next.
    pub(super) fn on_stream_over(&mut self) {
        if self.under_way.as_ref().is_some_and(|under_way| !under_way.fetched.is_empty()) {
            self.under_way = None;
        }
    }

    fn fail(&mut self) {
        self.under_way = None;
        self.failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use stonelog_storage::segment::SegmentName;

    use super::*;

    fn begun(ranges: &[(i64, i64)]) -> Repair {
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| (Offset(*start), Offset(*end))).collect();
        let at = ranges[0].0;
        let plan = RepairPlan { segment: SegmentName { base: Offset(0), version: 0 }, ranges, damaged_bytes: 100 };
        let under_way = UnderWay { plan, fetched: vec![Vec::new()], bytes: 0, at, is_asked: false };
        Repair { under_way: Some(under_way), ..Repair::default() }
    }

    fn filled(from: i64, upto: i64, bytes: &'static [u8]) -> Filled {
        Filled { from: Offset(from), upto: Offset(upto), batches: vec![Bytes::from_static(bytes)] }
    }

    #[test]
    fn each_range_is_asked_for_piece_by_piece_and_all_of_it_is_written_together() {
        let mut repair = begun(&[(10, 20), (30, 35)]);
        assert_eq!(repair.ask(), Some((Offset(10), Offset(20))));
        assert_eq!(repair.ask(), None, "one piece at a time");
        assert!(matches!(repair.on_filled(&filled(11, 20, b"x")), Step::Stale), "nobody asked for that");
        assert!(matches!(repair.on_filled(&filled(10, 14, b"a")), Step::Ask));
        assert_eq!(repair.ask(), Some((Offset(14), Offset(20))));
        assert!(matches!(repair.on_filled(&filled(14, 20, b"")), Step::Ask), "compacted away");
        assert_eq!(repair.ask(), Some((Offset(30), Offset(35))));
        match repair.on_filled(&filled(30, 35, b"b")) {
            Step::Write(_, fetched) => assert_eq!(fetched, [vec![Bytes::from("a")], vec![Bytes::from("b")]]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(repair.on_filled(&filled(35, 36, b"c")), Step::Stale));
        repair.on_stream_over();
        assert!(repair.is_under_way(), "it is being written");
        repair.on_written(true);
        assert!(!repair.is_under_way() && !repair.is_given_up());
    }

    #[test]
    fn a_leader_that_has_it_no_more_is_asked_a_few_times_only() {
        let mut repair = Repair::default();
        for failures in 0..FAILURES_MAX {
            assert!(!repair.is_given_up());
            repair = Repair { failures, ..begun(&[(10, 20)]) };
            repair.ask();
            assert!(matches!(repair.on_filled(&filled(10, 10, b"")), Step::Failed));
        }
        assert!(repair.is_given_up());
        repair.on_another_leader();
        assert!(!repair.is_given_up());
    }

    #[test]
    fn what_was_fetched_on_a_stream_that_is_over_is_asked_for_again() {
        let mut repair = begun(&[(10, 20)]);
        repair.ask();
        repair.on_filled(&filled(10, 14, b"a"));
        repair.on_stream_over();
        assert!(!repair.is_under_way() && !repair.is_given_up());
    }

    #[test]
    fn a_piece_beyond_what_was_asked_for_is_refused() {
        let mut repair = begun(&[(10, 20)]);
        repair.ask();
        assert!(matches!(repair.on_filled(&filled(10, 21, b"a")), Step::Failed));
    }
}
