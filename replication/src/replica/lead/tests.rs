//! The leader's end, plan by plan.

use std::collections::{BTreeMap, BTreeSet};

use stonelog_protocol::peer::stream::{StreamGeneration, StreamReport};
use stonelog_protocol::{BrokerEpoch, BrokerId, PartitionEpoch, Uuid};
use stonelog_storage::holes::{Cause, Hole};

use super::super::test_log::{TestLog, id};
use super::*;
use crate::partition::leader::{Beginning, OwnLog, Positions, Wish};
use crate::partition::{Leadership, Member};

fn start() -> Instant {
    crate::runtime::clock::Clock.mono()
}

fn leader(log: &Log, epoch: i32) -> Leader {
    let member = |broker: i32| Member {
        broker_epoch: BrokerEpoch(100 + i64::from(broker)),
        directory: Uuid([broker as u8; 16]),
        is_active: true,
        is_adding: false,
        is_eligible: false,
    };
    let members: BTreeMap<_, _> = [1, 2].map(|broker| (BrokerId(broker), member(broker))).into();
    let leadership = Leadership {
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(1),
        isr: [BrokerId(1)].into(),
        elr: BTreeSet::new(),
        min_isr: 1,
        strict: true,
        image_index: 1,
        members,
    };
    let own = Positions { written: log.written(), durable: log.durable() };
    let at = Beginning { own, high_watermark: log.log_start(), epoch_start: log.log_end() };
    Leader::begin(BrokerId(1), leadership, at, start())
}

fn stamps(epoch: i32) -> Stamps {
    Stamps {
        partition: id(),
        leader_epoch: LeaderEpoch(epoch),
        leader: BrokerId(1),
        leader_broker_epoch: BrokerEpoch(101),
        follower: BrokerId(2),
        follower_broker_epoch: BrokerEpoch(102),
        follower_directory: Uuid([2; 16]),
        generation: StreamGeneration { recovery_epoch: 1, counter: 0 },
    }
}

fn opens(fetch_offset: i64, last_epoch: i32, credit: u32) -> OpenStream {
    let at = Offset(fetch_offset);
    let report = StreamReport { written: at, durable: at, probe: 0, log_start: Offset(0), is_whole: true };
    OpenStream {
        fetch_offset: at,
        last_fetched_epoch: LeaderEpoch(last_epoch),
        report,
        credit,
        batch_bytes_max: 1 << 20,
    }
}

fn answer(leader: &mut Leader, log: &Log, epoch: i32, open: OpenStream) -> StreamBody {
    super::open(leader, log, (StreamId(5), stamps(epoch)), &open, start()).answer.body
}

fn opened(leader: &mut Leader, log: &Log, epoch: i32, open: OpenStream) -> LeadStream {
    let opening = super::open(leader, log, (StreamId(5), stamps(epoch)), &open, start());
    assert!(matches!(opening.answer.body, StreamBody::Opened(_)), "{:?}", opening.answer);
    opening.stream.expect("it was opened")
}

/// Number, base and bytes of a push.
fn pushed(plan: PushPlan) -> (u64, i64, usize) {
    match plan {
        PushPlan::Push(StreamMessage { body: StreamBody::Push(push), .. }) => {
            (push.number, push.base.0, push.batches.iter().map(Bytes::len).sum())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_appended_is_pushed_before_it_is_written_here() {
    let mut log = TestLog::new(true);
    log.lead(1, 2).sync();
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(0, -1, 10_000));
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (0, 0, log.bytes(0, 2).len()));
    assert!(matches!(stream.plan(&mut leader, &log.log, 0), PushPlan::Nothing));
    log.lead(1, 1);
    assert_eq!(log.log.written(), Offset(2));
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (1, 2, log.bytes(2, 3).len()));
}

#[test]
fn no_more_is_pushed_than_there_is_credit_but_for_a_first_batch() {
    let mut log = TestLog::new(true);
    log.lead(1, 4).sync();
    let one = log.bytes(0, 1).len();
    let credit = u32::try_from(one * 2).expect("small");
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(0, -1, credit));
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (0, 0, one * 2));
    assert_eq!(asked(stream.plan(&mut leader, &log.log, 0)), Some(credit), "what it has, and no more");
    assert_eq!(asked(stream.plan(&mut leader, &log.log, 0)), None, "once");
    stream.on_credit(credit - 1);
    assert_eq!(asked(stream.plan(&mut leader, &log.log, 0)), None, "the rest is on its way");
    stream.on_credit(1);
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (1, 2, one * 2));
    log.lead(1, 1);
    stream.on_credit(credit / 2 - 1);
    assert_eq!(asked(stream.plan(&mut leader, &log.log, 0)), Some(credit / 2), "a batch is never split");
    stream.on_credit(1);
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (2, 4, one));
    log.lead(1, 2);
    stream.on_credit(credit - 1);
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (3, 5, one), "as far as it goes");
}

/// What credit a leader says it needs; `None` when it says nothing.
fn asked(plan: PushPlan) -> Option<u32> {
    match plan {
        PushPlan::Ask(StreamMessage { body: StreamBody::Wants(bytes), .. }) => Some(bytes),
        PushPlan::Nothing => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_longer_than_the_follower_takes_is_never_pushed() {
    let mut log = TestLog::new(true);
    log.lead(1, 1);
    log.append(1, 100);
    let (first, second) = (log.bytes(0, 1).len(), log.bytes(1, 101).len());
    let mut leader = leader(&log.log, 1);
    let open = OpenStream { batch_bytes_max: second as u32 - 1, ..opens(0, -1, first as u32 + 1) };
    let mut stream = opened(&mut leader, &log.log, 1, open);
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (0, 0, first));
    let plan = stream.plan(&mut leader, &log.log, 0);
    assert!(matches!(plan, PushPlan::Stuck(bytes) if bytes == second as i64), "{plan:?}");
    stream.on_credit(u32::MAX);
    assert_eq!(asked(stream.plan(&mut leader, &log.log, 0)), None);
}

#[test]
fn a_follower_whose_history_parts_is_told_where() {
    let mut log = TestLog::new(true);
    log.lead(1, 3).lead(4, 2).sync();
    let mut leader = leader(&log.log, 4);
    let told = |epoch, end| StreamBody::Diverging(Diverging { epoch: LeaderEpoch(epoch), end: Offset(end) });
    assert_eq!(answer(&mut leader, &log.log, 4, opens(5, 1, 9)), told(1, 3), "more of an epoch than it had");
    assert_eq!(answer(&mut leader, &log.log, 4, opens(2, 2, 9)), told(1, 3), "an epoch this log never had");
    assert!(matches!(answer(&mut leader, &log.log, 4, opens(3, 1, 9)), StreamBody::Opened(_)));
}

#[test]
fn a_follower_outside_the_log_is_told_its_range() {
    let mut log = TestLog::new(true);
    log.lead(1, 5).sync();
    log.delete_below(2);
    let mut leader = leader(&log.log, 1);
    let range = StreamBody::Refused(Refusal::OutOfRange { log_start: Offset(2), log_end: Offset(5) });
    assert_eq!(answer(&mut leader, &log.log, 1, opens(1, 1, 9)), range);
    assert_eq!(answer(&mut leader, &log.log, 1, opens(6, -1, 9)), range);
    // Nothing is left to begin with: the next batch comes at the log start.
    log.delete_below(5);
    let range = StreamBody::Refused(Refusal::OutOfRange { log_start: Offset(5), log_end: Offset(5) });
    assert_eq!(answer(&mut leader, &log.log, 1, opens(1, -1, 9)), range);
}

#[test]
fn stamps_are_judged_before_anything_else() {
    let mut log = TestLog::new(true);
    log.lead(1, 5).sync();
    let mut leader = leader(&log.log, 1);
    let opening = super::open(&mut leader, &log.log, (StreamId(5), stamps(3)), &opens(9, 1, 9), start());
    assert_eq!(opening.answer.body, StreamBody::Refused(Refusal::UnknownEpoch(LeaderEpoch(1))));
    assert!(opening.stream.is_none());
}

#[test]
fn news_is_told_once_and_only_when_it_is_news() {
    let mut log = TestLog::new(true);
    log.lead(1, 2);
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(2, 1, 9));
    assert_eq!(stream.news(&leader, &log.log, 0), None);
    log.sync();
    leader.on_own_positions(Positions { written: Offset(2), durable: Offset(2) });
    let news = StreamNews { high_watermark: Offset(2), log_start: Offset(0), probe: 0, is_whole: true };
    assert_eq!(stream.news(&leader, &log.log, 0).map(|message| message.body), Some(StreamBody::News(news)));
    assert_eq!(stream.news(&leader, &log.log, 0), None);
    let probed = StreamNews { probe: 7, ..news };
    assert_eq!(stream.news(&leader, &log.log, 7).map(|message| message.body), Some(StreamBody::News(probed)));
}

/// A stream that waits for a read of a log's first record.
fn reading(log: &Log) -> (Leader, LeadStream) {
    let mut leader = leader(log, 1);
    let stream = LeadStream { reading: true, ..opened(&mut leader, log, 1, opens(0, -1, 10_000)) };
    (leader, stream)
}

#[test]
fn a_read_that_found_nothing_goes_on_behind_and_what_was_compacted_away_is_left_out() {
    let mut log = TestLog::new(true);
    log.lead(1, 6).sync();
    let (mut leader, mut stream) = reading(&log.log);
    let nothing = ReadDone::Batches { batches: Vec::new(), bytes: 0, next: Offset(4) };
    assert!(matches!(stream.on_read(&mut leader, &log.log, nothing, 0), PushPlan::Nothing));
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (0, 0, log.bytes(4, 6).len()), "it begins at its end");
    let (mut leader, mut stream) = reading(&log.log);
    let batches = vec![log.bytes(0, 1), log.bytes(3, 4)];
    let compacted = ReadDone::Batches { bytes: batches.iter().map(Bytes::len).sum(), batches, next: Offset(4) };
    pushed(stream.on_read(&mut leader, &log.log, compacted, 0));
    assert_eq!(pushed(stream.plan(&mut leader, &log.log, 0)), (1, 4, log.bytes(4, 6).len()));
}

#[test]
fn a_read_of_what_moves_again_and_again_or_is_damaged_ends_the_stream() {
    let mut log = TestLog::new(true);
    log.lead(1, 6).sync();
    let (mut leader, mut stream) = reading(&log.log);
    for _ in 0..MOVES_COUNT_MAX {
        assert!(matches!(stream.on_read(&mut leader, &log.log, ReadDone::Moved, 0), PushPlan::Nothing));
        stream.reading = true;
    }
    let ended = stream.on_read(&mut leader, &log.log, ReadDone::Moved, 0);
    assert!(matches!(ended, PushPlan::End(StreamMessage { body: StreamBody::Close, .. })), "{ended:?}");
    let hole = Hole {
        start: Offset(0),
        end: Offset(1),
        why: Cause::Journal,
        newest: stonelog_protocol::Timestamp(0),
        bytes: None,
        epoch_unsure: false,
    };
    let (mut leader, mut stream) = reading(&log.log);
    let ended = stream.on_read(&mut leader, &log.log, ReadDone::Damaged(hole), 0);
    assert!(matches!(ended, PushPlan::End(_)), "{ended:?}");
}

#[test]
fn an_empty_follower_begins_with_the_batch_that_the_log_start_lies_in() {
    let mut own = TestLog::new(true);
    own.lead(1, 2);
    own.append(1, 4);
    own.append(1, 1);
    own.sync();
    let from_the_batch_on = own.bytes(2, 7).len();
    own.delete_below(4);
    // Whether it begins at nothing, at the log start, where the batch begins, or where another's log start was.
    for fetch_offset in [0, 4, 2, 5] {
        let mut leader = leader(&own.log, 1);
        let mut stream = opened(&mut leader, &own.log, 1, opens(fetch_offset, -1, 10_000));
        let (number, base, bytes) = pushed(stream.plan(&mut leader, &own.log, 0));
        assert_eq!((number, base, bytes), (0, 2, from_the_batch_on));
    }
    // Who holds something below the log start is told the range, as before.
    let mut leader = leader(&own.log, 1);
    let outside = answer(&mut leader, &own.log, 1, opens(2, 1, 10_000));
    let refusal = Refusal::OutOfRange { log_start: Offset(4), log_end: Offset(7) };
    assert_eq!(outside, StreamBody::Refused(refusal));
}

#[test]
fn a_read_that_this_stream_did_not_ask_for_ends_it() {
    let mut log = TestLog::new(true);
    log.lead(1, 2).sync();
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(0, -1, 10_000));
    let plan = stream.on_read(&mut leader, &log.log, ReadDone::Moved, 0);
    assert!(matches!(plan, PushPlan::End(StreamMessage { body: StreamBody::Close, .. })), "{plan:?}");
}

fn lacking(number: u64, from: i64, to: i64) -> Repair {
    Repair { number, from: Offset(from), to: Offset(to), cleaned_end: Offset(0) }
}

/// From where to where a range was sent, and its bytes.
fn sent(plan: PushPlan) -> (i64, i64, usize) {
    match plan {
        PushPlan::Push(StreamMessage { body: StreamBody::Filled(filled), .. }) => {
            (filled.from.0, filled.upto.0, filled.batches.iter().map(Bytes::len).sum())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_follower_is_sent_just_the_range_it_lacks_without_credit_and_nothing_that_is_damaged_here() {
    let mut log = TestLog::new(true);
    log.lead(1, 6).sync();
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(6, 1, 0));
    assert!(matches!(stream.plan_filling(&log.log), PushPlan::Nothing));
    stream.on_lacking(lacking(0, 2, 4));
    assert_eq!(sent(stream.plan_filling(&log.log)), (2, 4, log.bytes(2, 4).len()));
    assert!(matches!(stream.plan_filling(&log.log), PushPlan::Nothing), "once");
    stream.on_lacking(Repair { cleaned_end: Offset(6), ..lacking(1, 2, 4) });
    assert_eq!(sent(stream.plan_filling(&log.log)), (2, 2, 0), "what was compacted there is not compacted here");
    log.delete_below(3);
    stream.on_lacking(lacking(1, 2, 4));
    assert_eq!(sent(stream.plan_filling(&log.log)), (2, 2, 0), "it is deleted");
    log.sync();
    log.damage(4, 5);
    stream.on_lacking(lacking(2, 4, 5));
    assert_eq!(sent(stream.plan_filling(&log.log)), (4, 4, 0), "it is damaged here as well");
}

#[test]
fn what_was_read_for_an_earlier_request_answers_no_later_one() {
    let mut log = TestLog::new(true);
    log.lead(1, 6).sync();
    let all = log.bytes(0, 6);
    let access = log.flush_all();
    let mut leader = leader(&log.log, 1);
    let mut stream = opened(&mut leader, &log.log, 1, opens(6, 1, 0));
    let reads = |stream: &mut LeadStream, wanted: Repair| {
        stream.on_lacking(wanted);
        let PushPlan::Read(job) = stream.plan_filling(&log.log) else { panic!("it is not in memory") };
        assert_eq!(stream.is_read_for(), Some(wanted.number));
        job.run(&access).expect("it is whole")
    };
    // The first piece has come, the second is being read, and the follower begins once more.
    let late = reads(&mut stream, lacking(1, 4, 6));
    let done = reads(&mut stream, lacking(2, 0, 6));
    assert!(matches!(stream.on_filling_read(1, late.clone()), PushPlan::Nothing), "it lacks what lies before");
    assert!(matches!(stream.plan_filling(&log.log), PushPlan::Nothing), "the other read is under way");
    assert_eq!(sent(stream.on_filling_read(2, done)), (0, 6, all.len()));
    assert!(matches!(stream.on_filling_read(2, late), PushPlan::Nothing), "it was answered");
}

#[test]
fn a_follower_is_told_whether_it_may_be_elected_as_soon_as_it_is_proposed() {
    let mut log = TestLog::new(true);
    log.lead(1, 2).sync();
    let mut leader = leader(&log.log, 1);
    let now = start();
    let told = |leader: &mut Leader, stream: u64, is_whole: bool| {
        let mut open = opens(2, 1, 0);
        open.report.is_whole = is_whole;
        let opening = super::open(leader, &log.log, (StreamId(stream), stamps(1)), &open, now);
        match opening.answer.body {
            StreamBody::Opened(opened) => opened.counts,
            other => panic!("{other:?}"),
        }
    };
    assert!(!told(&mut leader, 5, true));
    let own_log = OwnLog { end: log.log.log_end(), log_start: log.log.durable_log_start(), is_whole: true };
    let wish = leader.wish(id(), own_log, std::time::Duration::from_secs(10), now);
    assert!(matches!(wish, Wish::Isr(_)), "it has all there is");
    assert!(told(&mut leader, 6, false), "what was proposed is not settled");
}
