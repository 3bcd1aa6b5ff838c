//! A follower's damaged segments, mended from its leader: only the damaged offsets are asked for (rule 9).
//!
//! One segment at a time, one range of it after the other, piece by piece; what was fetched is held in memory until the
//! segment is written anew, which it is in several steps where it lacks much. What is damaged where the log is being
//! written, or in the journal, waits until a checkpoint covers it and the segment is closed. Where the leader's log was
//! compacted otherwise, all that either has compacted is fetched. What fails again and again ends with the whole log
//! fetched anew once others suffice ([`super::Follower::set_standing`]).

use std::time::{Duration, Instant};

use bytes::Bytes;
use stonelog_protocol::Offset;
use stonelog_protocol::peer::stream::{self, Filled};
use stonelog_storage::compaction::repair::RepairPlan;
use stonelog_storage::log::Log;

/// What is fetched for one segment is written to it when it is so much, though more is lacking: it is held in memory.
pub const REPAIR_BYTES_MAX: u64 = 16 << 20;
/// What an answer counts at least against that, so that a leader that answers an offset at a time comes to an end.
const ANSWER_BYTES_MIN: u64 = 4 << 10;
/// Repairs that came to nothing under one leader, before it is left.
const FAILURES_MAX: u32 = 3;
/// How long after that it is tried again, where the log cannot be fetched whole.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// How long one piece may take, or the writing of a segment, before the next partition has its turn.
pub const PIECE_TIME_MAX: Duration = Duration::from_secs(60);

/// What one follower has of a repair.
#[derive(Debug, Default)]
pub(super) struct Repair {
    under_way: Option<UnderWay>,
    /// What was asked for last; rising, so that no answer to an earlier question is taken.
    number: u64,
    failures: u32,
    failed_at: Option<Instant>,
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
    /// The log's cleaned end when that was asked.
    cleaned_end: Offset,
    /// When it began, or the last piece came.
    moved_at: Instant,
}

impl UnderWay {
    fn begin(plan: RepairPlan, now: Instant) -> UnderWay {
        let at = plan.ranges[0].0;
        UnderWay {
            plan,
            fetched: vec![Vec::new()],
            bytes: 0,
            at,
            is_asked: false,
            cleaned_end: Offset::ZERO,
            moved_at: now,
        }
    }

    /// Whether the next piece begins there. While the segment is written nothing is awaited.
    fn is_awaiting(&self, from: Offset) -> bool {
        self.is_asked && self.at == from && !self.is_being_written()
    }

    fn is_being_written(&self) -> bool {
        self.fetched.is_empty()
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
    /// So it did because the leader's log was compacted otherwise, up to there.
    Incompatible(Offset),
    /// It belongs to nothing that is asked for.
    Stale,
}

impl Repair {
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether it is tried no more under this leader.
    pub(super) fn is_given_up(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// What stood in the way is to be fetched as well.
    pub(super) fn on_widened(&mut self) {
        (self.failures, self.failed_at) = (0, None);
    }

    #[cfg(test)]
    pub(super) fn give_up(&mut self, now: Instant) {
        (self.failures, self.failed_at) = (FAILURES_MAX, Some(now));
    }

    /// Another leader may have what this one had not.
    pub(super) fn on_another_leader(&mut self) {
        *self = Repair { fetched_bytes: self.fetched_bytes, number: self.number, ..Repair::default() };
    }

    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Begins with what is damaged first. Whether there is anything.
    pub(super) fn begin(&mut self, log: &mut Log, now: Instant) -> bool {
        if self.is_under_way() {
            return false;
        }
        if self.is_given_up() {
            if self.failed_at.is_some_and(|failed| now.saturating_duration_since(failed) < TRIED_AGAIN_AFTER) {
                return false;
            }
            self.failures = 0;
        }
        log.close_damaged_segment();
        let Some(plan) = log.plan_repair() else { return false };
        self.under_way = Some(UnderWay::begin(plan, now));
        true
    }

    /// Whether another partition may have its turn. What its leader has not sent for so long is not awaited any longer,
    /// and asked for again another time; that it is slow says nothing against it. What is being written goes on.
    pub(super) fn may_pass_on(&mut self, now: Instant) -> bool {
        let Some(under_way) = &self.under_way else { return true };
        if now.saturating_duration_since(under_way.moved_at) < PIECE_TIME_MAX {
            return false;
        }
        if off!(SlowIsNoFailure) {
            self.fail(now);
        } else if !under_way.is_being_written() {
            self.under_way = None;
        }
        true
    }

    /// The range to ask for now, once. `cleaned_end` is the log's ([`Log::cleaned_end`]).
    pub(super) fn ask(&mut self, cleaned_end: Offset) -> Option<stream::Repair> {
        let under_way = self.under_way.as_mut().filter(|one| !one.is_asked && !one.is_being_written())?;
        (under_way.is_asked, under_way.cleaned_end) = (true, cleaned_end);
        self.number += 1;
        let (_, to) = under_way.plan.ranges[under_way.fetched.len() - 1];
        Some(stream::Repair { number: self.number, from: under_way.at, to, cleaned_end })
    }

    /// A piece has arrived.
    pub(super) fn on_filled(&mut self, filled: &Filled, now: Instant) -> Step {
        let is_newest = filled.number == self.number || off!(RepairNumber);
        let Some(under_way) = self.under_way.as_mut().filter(|one| one.is_awaiting(filled.from) && is_newest) else {
            return Step::Stale;
        };
        under_way.moved_at = now;
        let (_, end) = under_way.plan.ranges[under_way.fetched.len() - 1];
        let bytes = filled.batches.iter().map(|piece| piece.len() as u64).sum::<u64>();
        under_way.bytes += bytes.max(ANSWER_BYTES_MIN);
        self.fetched_bytes += bytes;
        // The leader's batches of these offsets may be a little longer, where it has not compacted them.
        let is_too_much = under_way.bytes > 2 * REPAIR_BYTES_MAX;
        if filled.upto <= under_way.at || filled.upto > end || is_too_much {
            let (from, cleaned_end) = (under_way.at, under_way.cleaned_end);
            let asked = stream::Repair { number: self.number, from, to: end, cleaned_end };
            let is_otherwise = filled.upto == from && !is_compatible(&asked, filled.cleaned_end);
            self.fail(now);
            return if is_otherwise { Step::Incompatible(filled.cleaned_end) } else { Step::Failed };
        }
        // Copied, for a slice would keep all that was read with it.
        let pieces = filled.batches.iter().filter(|piece| !piece.is_empty()).map(|piece| Bytes::copy_from_slice(piece));
        under_way.fetched.last_mut().expect("a range is being fetched").extend(pieces);
        under_way.at = filled.upto;
        if under_way.bytes >= REPAIR_BYTES_MAX {
            // What is lacking yet is fetched another time.
            under_way.plan.ranges.truncate(under_way.fetched.len());
            under_way.plan.ranges.last_mut().expect("one is being fetched").1 = filled.upto;
        } else if under_way.at < end {
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
    pub(super) fn on_written(&mut self, is_mended: bool, now: Instant) {
        match is_mended {
            true => self.under_way = None,
            false => self.fail(now),
        }
    }

    /// The stream is over: what was fetched on it is forgotten, and asked for again on the next.
    pub(super) fn on_stream_over(&mut self) {
        if self.under_way.as_ref().is_some_and(|under_way| !under_way.is_being_written()) {
            self.under_way = None;
        }
    }

    fn fail(&mut self, now: Instant) {
        self.under_way = None;
        self.failures += 1;
        self.failed_at = Some(now);
    }
}

/// Whether a leader's batches of a range go with what compaction has left of the rest of the follower's log. Each
/// compacts by itself, and what replaces a record may lie anywhere below a cleaned end: a tombstone too, which goes after
/// a while. So
///
/// - what the follower has removed the leader must have removed: else a deleted key comes back with the range, and the
///   tombstone behind it is there no more;
/// - what the leader has removed from the range the follower must have acted on: else a deleted key stays before it, and
///   the tombstone in the range is there no more.
pub(super) fn is_compatible(wanted: &stream::Repair, own_cleaned_end: Offset) -> bool {
    let (from, to) = (wanted.from, wanted.to);
    let (leader, follower) = (own_cleaned_end, wanted.cleaned_end);
    let leader_has_removed_it = follower <= from || leader >= follower;
    let follower_has_acted_on_it = leader <= from || follower >= leader.min(to);
    (leader_has_removed_it && follower_has_acted_on_it) || off!(RepairCleaned)
}

#[cfg(test)]
mod tests {
    use stonelog_storage::segment::SegmentName;

    use super::super::test_log::TestLog;
    use super::*;

    fn start() -> Instant {
        crate::runtime::clock::Clock.mono()
    }

    fn begun(ranges: &[(i64, i64)]) -> Repair {
        let ranges: Vec<_> = ranges.iter().map(|(start, end)| (Offset(*start), Offset(*end))).collect();
        let plan = RepairPlan {
            segment: SegmentName { base: Offset(0), version: 0 },
            is_new: false,
            ranges,
            damaged_bytes: 100,
        };
        Repair { under_way: Some(UnderWay::begin(plan, start())), ..Repair::default() }
    }

    fn filled(number: u64, from: i64, upto: i64, bytes: &'static [u8]) -> Filled {
        let batches = vec![Bytes::from_static(bytes)];
        Filled { number, from: Offset(from), upto: Offset(upto), cleaned_end: Offset(7), batches }
    }

    fn asked(repair: &mut Repair) -> Option<(u64, i64, i64)> {
        repair.ask(Offset(7)).map(|asked| (asked.number, asked.from.0, asked.to.0))
    }

    #[test]
    fn each_range_is_asked_for_piece_by_piece_and_all_of_it_is_written_together() {
        let now = start();
        let mut repair = begun(&[(10, 20), (30, 35)]);
        assert_eq!(asked(&mut repair), Some((1, 10, 20)));
        assert_eq!(asked(&mut repair), None, "one piece at a time");
        assert!(matches!(repair.on_filled(&filled(1, 11, 20, b"x"), now), Step::Stale), "nobody asked for that");
        assert!(matches!(repair.on_filled(&filled(1, 10, 14, b"a"), now), Step::Ask));
        assert_eq!(asked(&mut repair), Some((2, 14, 20)));
        assert!(matches!(repair.on_filled(&filled(2, 14, 20, b""), now), Step::Ask), "compacted away");
        assert_eq!(asked(&mut repair), Some((3, 30, 35)));
        match repair.on_filled(&filled(3, 30, 35, b"b"), now) {
            Step::Write(_, fetched) => assert_eq!(fetched, [vec![Bytes::from("a")], vec![Bytes::from("b")]]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(repair.on_filled(&filled(3, 35, 36, b"c"), now), Step::Stale));
        repair.on_stream_over();
        assert!(repair.is_under_way(), "it is being written");
        repair.on_written(true, now);
        assert!(!repair.is_under_way() && !repair.is_given_up());
    }

    #[test]
    fn a_leader_that_has_it_no_more_is_asked_a_few_times_only_and_again_after_minutes() {
        let mut log = TestLog::new(true);
        log.lead(1, 6).sync();
        let now = start();
        let mut repair = Repair::default();
        for failures in 0..FAILURES_MAX {
            assert!(!repair.is_given_up());
            repair = Repair { failures, ..begun(&[(10, 20)]) };
            repair.ask(Offset(7));
            assert!(matches!(repair.on_filled(&filled(1, 10, 10, b""), now), Step::Failed));
        }
        assert!(repair.is_given_up() && !repair.begin(&mut log.log, now));
        assert!(!repair.begin(&mut log.log, now + TRIED_AGAIN_AFTER), "nothing can be mended");
        assert!(!repair.is_given_up(), "but it was looked at again");
        let mut repair = Repair { failures: FAILURES_MAX, ..Repair::default() };
        repair.on_another_leader();
        assert!(!repair.is_given_up());
    }

    #[test]
    fn what_was_fetched_on_a_stream_that_is_over_is_asked_for_again() {
        let mut repair = begun(&[(10, 20)]);
        repair.ask(Offset(7));
        repair.on_filled(&filled(1, 10, 14, b"a"), start());
        repair.on_stream_over();
        assert!(!repair.is_under_way() && !repair.is_given_up());
    }

    #[test]
    fn an_answer_to_an_earlier_question_is_not_taken() {
        let now = start();
        let mut repair = begun(&[(10, 20)]);
        assert_eq!(asked(&mut repair), Some((1, 10, 20)));
        assert!(repair.may_pass_on(start() + PIECE_TIME_MAX));
        repair = Repair { number: repair.number, ..begun(&[(10, 20)]) };
        assert_eq!(asked(&mut repair), Some((2, 10, 20)));
        assert!(matches!(repair.on_filled(&filled(1, 10, 20, b"what lies behind"), now), Step::Stale));
        assert!(matches!(repair.on_filled(&filled(2, 10, 20, b"all"), now), Step::Write(..)));
    }

    #[test]
    fn a_slow_leader_loses_the_turn_and_nothing_else_and_what_is_written_goes_on() {
        let now = start();
        let late = now + PIECE_TIME_MAX;
        for _ in 0..=FAILURES_MAX {
            let mut repair = begun(&[(10, 20)]);
            repair.ask(Offset(7));
            assert!(!repair.may_pass_on(late - Duration::from_millis(1)));
            assert!(matches!(repair.on_filled(&filled(1, 10, 14, b"a"), late), Step::Ask), "each piece has its time");
            assert!(!repair.may_pass_on(late + Duration::from_secs(1)));
            assert!(repair.may_pass_on(late + PIECE_TIME_MAX));
            assert!(!repair.is_under_way() && !repair.is_given_up());
        }
        let mut repair = begun(&[(10, 20)]);
        repair.ask(Offset(7));
        assert!(matches!(repair.on_filled(&filled(1, 10, 20, b"a"), now), Step::Write(..)));
        assert!(!repair.may_pass_on(now));
        assert!(repair.may_pass_on(late) && repair.is_under_way(), "others have their turn meanwhile");
        assert_eq!(asked(&mut repair), None);
        repair.on_written(true, late);
        assert!(!repair.is_under_way() && repair.failures == 0);
    }

    #[test]
    fn what_is_kept_of_an_answer_keeps_nothing_else_and_is_written_when_it_is_much() {
        let read = Bytes::from(vec![7; 64 << 10]);
        let mut repair = begun(&[(0, i64::MAX), (i64::MAX, i64::MAX)]);
        loop {
            let (number, from, _) = asked(&mut repair).expect("the next piece");
            let (from, upto, batches) = (Offset(from), Offset(from + 1), vec![read.slice(..100)]);
            match repair.on_filled(&Filled { number, from, upto, cleaned_end: Offset(7), batches }, start()) {
                Step::Ask => {}
                Step::Write(plan, fetched) => {
                    // However little each answer brings, it counts.
                    let count = REPAIR_BYTES_MAX / ANSWER_BYTES_MIN;
                    assert_eq!((plan.ranges, fetched.len()), (vec![(Offset(0), Offset(count as i64))], 1));
                    break assert_eq!(fetched[0].len() as u64, count);
                }
                other => panic!("{other:?}"),
            }
            let kept = repair.under_way.as_ref().expect("it goes on").fetched[0].last().expect("a piece");
            assert!(!read.as_ptr_range().contains(&kept.as_ptr()), "the buffer it was read into is free");
        }
    }

    #[test]
    fn a_piece_beyond_what_was_asked_for_is_refused() {
        let mut repair = begun(&[(10, 20)]);
        repair.ask(Offset(7));
        assert!(matches!(repair.on_filled(&filled(1, 10, 21, b"a"), start()), Step::Failed));
    }

    #[test]
    fn a_range_is_mended_only_from_a_log_that_is_compacted_as_far_as_it_matters() {
        let may = |leader: i64, follower: i64| {
            let wanted = stream::Repair { number: 1, from: Offset(10), to: Offset(20), cleaned_end: Offset(follower) };
            is_compatible(&wanted, Offset(leader))
        };
        assert!(may(0, 0) && may(10, 10) && may(0, 5), "nobody has removed anything from there");
        assert!(may(30, 30) && may(40, 30), "what was removed here is removed there");
        assert!(!may(0, 30), "a deleted key comes back");
        assert!(!may(20, 30), "its tombstone at 25, which has gone here, has not been seen there");
        assert!(!may(30, 0) && !may(15, 10), "the tombstone of a key that is alive here has gone there");
        assert!(may(30, 20), "what follows the range is here");
        assert!(!may(20, 15) && !may(12, 15) && may(15, 15), "in its middle");
    }
}
