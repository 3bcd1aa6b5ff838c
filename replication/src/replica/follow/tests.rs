//! The follower's end, message by message.

use stonelog_protocol::peer::stream::{Diverging, StreamGeneration};
use stonelog_protocol::{BrokerEpoch, BrokerId, Uuid};

use super::super::test_log::{TestLog, id};
use super::*;

mod serving;
const CREDIT: u32 = 1 << 20;

fn pool() -> Rc<CreditPool> {
    CreditPool::new(64 << 20, 16 << 20)
}

pub(super) fn start() -> Instant {
    crate::runtime::clock::Clock.mono()
}

pub(super) fn following(epoch: i32) -> Following {
    Following {
        partition: id(),
        leader_epoch: LeaderEpoch(epoch),
        leader: BrokerId(1),
        leader_broker_epoch: BrokerEpoch(101),
        me: BrokerId(2),
        my_broker_epoch: BrokerEpoch(102),
        my_directory: Uuid([2; 16]),
    }
}

pub(super) fn follower(epoch: i32, high_watermark: i64, now: Instant) -> Follower {
    Follower::begin(following(epoch), Offset(high_watermark), &pool(), now)
}

/// A leader's log of that many records in epoch 1, and another log with the first `held` of them, durable.
pub(super) fn logs(count: usize, held: i64) -> (TestLog, TestLog) {
    let (mut leader, mut own) = (TestLog::new(true), TestLog::new(true));
    leader.lead(1, count).sync();
    if held > 0 {
        own.follow(1, leader.bytes(0, held)).expect("it begins there");
        own.sync();
    }
    (leader, own)
}

pub(super) fn news(high_watermark: i64) -> StreamNews {
    StreamNews { high_watermark: Offset(high_watermark), log_start: Offset(0), probe: 0, is_whole: true }
}

/// Opens stream 5 and has it answered.
pub(super) fn streaming(follower: &mut Follower, log: &Log, now: Instant) -> StreamMessage {
    let open = follower.open(StreamId(5), log, false, now).expect("it is time");
    let opened = StreamMessage { body: StreamBody::Opened(Opened { news: news(0), counts: false }), ..open.clone() };
    assert_eq!(follower.on_message(&opened, log, now), []);
    assert!(follower.is_streaming());
    opened
}

/// A follower whose fair part of the pool is nothing, and three batches that its leader has to ask for.
struct Asking {
    pool: Rc<CreditPool>,
    follower: Follower,
    stream: StreamMessage,
    batches: Bytes,
    bytes: u32,
}

fn asking(own: &Log, now: Instant) -> Asking {
    let batches = logs(6, 0).0.bytes(0, 3);
    let bytes = u32::try_from(batches.len()).expect("small");
    let pool = CreditPool::new(1_000, 16 << 20);
    let mut follower = Follower::begin(following(1), Offset(0), &pool, now);
    let stream = streaming(&mut follower, own, now);
    Asking { pool, follower, stream, batches, bytes }
}

fn push(of: &StreamMessage, number: u64, base: i64, batches: Bytes, high_watermark: i64) -> StreamMessage {
    let push = Push { number, base: Offset(base), news: news(high_watermark), batches: vec![batches] };
    StreamMessage { body: StreamBody::Push(push), ..of.clone() }
}

pub(super) fn with(of: &StreamMessage, body: StreamBody) -> StreamMessage {
    StreamMessage { body, ..of.clone() }
}

#[test]
fn a_stream_opens_where_the_log_ends_with_what_of_it_is_written_and_durable() {
    let now = start();
    let (leader, mut own) = logs(6, 2);
    own.follow(1, leader.bytes(2, 4)).expect("at the end");
    own.write();
    own.follow(1, leader.bytes(4, 5)).expect("at the end");
    let mut follower = follower(1, 0, now);
    let open = follower.open(StreamId(5), &own.log, false, now).expect("it is time");
    let report =
        StreamReport { written: Offset(4), durable: Offset(2), probe: 0, log_start: Offset(0), is_whole: true };
    let expected = OpenStream {
        fetch_offset: Offset(5),
        last_fetched_epoch: LeaderEpoch(1),
        report,
        credit: CREDIT,
        batch_bytes_max: 16 << 20,
    };
    assert_eq!((open.stream, open.body), (StreamId(5), StreamBody::Open(expected)));
    assert_eq!(open.stamps, following(1).stamps(own.log.key().generation));
    assert_eq!(open.stamps.follower_directory, Uuid([2; 16]));
}

#[test]
fn an_open_without_an_answer_is_repeated_after_its_time_only() {
    let now = start();
    let (_, own) = logs(1, 0);
    let mut follower = follower(1, 0, now);
    assert!(follower.open(StreamId(5), &own.log, false, now).is_some());
    assert_eq!(follower.open(StreamId(6), &own.log, false, now + OPEN_TIME_MAX), None);
    assert!(follower.open(StreamId(6), &own.log, false, now + OPEN_TIME_MAX + RETRY_AFTER).is_some());
}

#[test]
fn nothing_is_opened_before_a_cut_or_the_creation_is_in_the_journal() {
    let now = start();
    let (_, mut own) = logs(4, 4);
    own.cut(2);
    let mut follower = follower(1, 0, now);
    assert_eq!(follower.open(StreamId(5), &own.log, false, now), None, "the old end may come back");
    own.sync();
    assert!(follower.open(StreamId(5), &own.log, false, now).is_some());

    let mut fresh = TestLog::just_made(true);
    let mut another = Follower::begin(following(1), Offset(0), &pool(), now);
    assert_eq!(another.open(StreamId(6), &fresh.log, false, now), None, "nothing could reset it");
    fresh.write();
    assert!(another.open(StreamId(6), &fresh.log, false, now).is_some());
}

#[test]
fn pushes_are_appended_in_their_order_and_a_missing_one_ends_the_stream() {
    let now = start();
    let (leader, mut own) = logs(6, 0);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    let batches = leader.bytes(0, 2);
    let effects = follower.on_message(&push(&stream, 0, 0, batches.clone(), 1), &own.log, now);
    assert_eq!(effects, [Effect::Append(batches.clone())]);
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(10), &own.log, now);
    let third = push(&stream, 2, 2, leader.bytes(2, 4), 1);
    assert_eq!(follower.on_message(&third, &own.log, now), [], "number 1 is missing");
    assert!(!follower.is_streaming());
    assert_eq!(follower.open(StreamId(6), &own.log, false, now), None);
    assert!(follower.open(StreamId(6), &own.log, false, now + RETRY_AFTER).is_some());
}

#[test]
fn a_push_that_does_not_begin_at_the_logs_end_ends_the_stream() {
    let now = start();
    let (leader, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    assert_eq!(follower.on_message(&push(&stream, 0, 3, leader.bytes(3, 4), 0), &own.log, now), []);
    assert!(!follower.is_streaming());
}

#[test]
fn a_message_of_another_stream_or_with_another_stamp_changes_nothing_and_is_counted() {
    let now = start();
    let (leader, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    let good = push(&stream, 0, 2, leader.bytes(2, 4), 2);
    let stamps = good.stamps;
    let other = |stamps| StreamMessage { stamps, ..good.clone() };
    let wrong = [
        StreamMessage { stream: StreamId(4), ..good.clone() },
        other(Stamps { leader_epoch: LeaderEpoch(0), ..stamps }),
        other(Stamps { leader_broker_epoch: BrokerEpoch(9), ..stamps }),
        other(Stamps { follower_broker_epoch: BrokerEpoch(9), ..stamps }),
        other(Stamps { follower_directory: Uuid([9; 16]), ..stamps }),
        other(Stamps { generation: StreamGeneration { recovery_epoch: 1, counter: 9 }, ..stamps }),
    ];
    for (place, message) in wrong.iter().enumerate() {
        assert_eq!(follower.on_message(message, &own.log, now), []);
        assert_eq!(follower.fenced_count(), place as u64 + 1);
    }
    assert!(follower.is_streaming());
    assert_eq!(follower.on_message(&good, &own.log, now).len(), 1);
}

#[test]
fn a_new_epoch_of_the_leader_ends_the_stream_and_the_next_opens_at_once() {
    let now = start();
    let (leader, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    follower.on_following(following(1), now);
    assert!(follower.is_streaming(), "nothing new");
    follower.on_following(following(2), now);
    assert_eq!(follower.on_message(&push(&stream, 0, 2, leader.bytes(2, 4), 2), &own.log, now), []);
    let open = follower.open(StreamId(6), &own.log, false, now).expect("it is time");
    assert_eq!(open.stamps.leader_epoch, LeaderEpoch(2));
}

#[test]
fn each_position_is_reported_once_and_credit_comes_back_for_what_is_written() {
    let now = start();
    let (leader, mut own) = logs(6, 0);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    let batches = leader.bytes(0, 3);
    let bytes = u32::try_from(batches.len()).expect("small");
    follower.on_message(&push(&stream, 0, 0, batches.clone(), 0), &own.log, now);
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(bytes), &own.log, now);
    let say = |follower: &mut Follower, log: &Log, withhold: bool| -> Vec<StreamBody> {
        follower.say(log, withhold).into_iter().map(|message| message.body).collect()
    };
    assert_eq!(say(&mut follower, &own.log, false), [], "nothing is written");
    own.write();
    let report = |durable: i64| StreamReport {
        written: Offset(3),
        durable: Offset(durable),
        probe: 0,
        log_start: Offset(0),
        is_whole: true,
    };
    assert_eq!(say(&mut follower, &own.log, true), [StreamBody::Report(report(0))], "no room for more");
    assert_eq!(say(&mut follower, &own.log, false), [StreamBody::Credit(bytes)]);
    own.sync();
    assert_eq!(say(&mut follower, &own.log, false), [StreamBody::Report(report(3))]);
    assert_eq!(say(&mut follower, &own.log, false), []);
}

#[test]
fn a_log_that_parts_from_the_leaders_is_cut_where_both_agree() {
    let now = start();
    let (_, mut own) = logs(4, 2);
    own.lead(2, 3).sync();
    assert_eq!(own.log.log_end(), Offset(5));
    let mut follower = follower(3, 2, now);
    let open = follower.open(StreamId(5), &own.log, false, now).expect("it is time");
    let diverging = Diverging { epoch: LeaderEpoch(1), end: Offset(4) };
    let effects = follower.on_message(&with(&open, StreamBody::Diverging(diverging)), &own.log, now);
    assert_eq!(effects, [Effect::Cut { cut: Cut::To(Offset(2)), lost: None }]);
}

#[test]
fn a_strict_follower_stops_rather_than_cut_below_its_high_watermark_and_a_relaxed_one_reports() {
    let now = start();
    let cut_at_one = |strict: bool| {
        let mut own = TestLog::new(strict);
        own.lead(1, 4).sync();
        let mut follower = follower(3, 3, now);
        let open = follower.open(StreamId(5), &own.log, false, now).expect("it is time");
        let diverging = StreamBody::Diverging(Diverging { epoch: LeaderEpoch(1), end: Offset(1) });
        let effects = follower.on_message(&with(&open, diverging), &own.log, now);
        let later = follower.open(StreamId(6), &own.log, false, now + OPEN_TIME_MAX * 10);
        (effects, follower.high_watermark(), later.is_some())
    };
    let stopped = Stopped::BelowWatermark { to: Offset(1), high_watermark: Offset(3) };
    assert_eq!(cut_at_one(true), (vec![Effect::Stop(stopped)], Offset(3), false));
    let lost = Some((Offset(1), Offset(3)));
    assert_eq!(cut_at_one(false), (vec![Effect::Cut { cut: Cut::To(Offset(1)), lost }], Offset(1), true));
}

/// What a follower does that knows of a high watermark, when its leader ends at an offset in epoch 1.
fn diverging_at(follower: &mut Follower, log: &Log, end: i64, now: Instant) -> Vec<Effect> {
    let open = follower.open(StreamId(5), log, false, now).expect("it is time");
    let diverging = StreamBody::Diverging(Diverging { epoch: LeaderEpoch(1), end: Offset(end) });
    follower.on_message(&with(&open, diverging), log, now)
}

#[test]
fn what_was_committed_while_the_topic_was_relaxed_keeps_nobody_from_following_on() {
    let (now, mut own) = (start(), TestLog::new(false));
    own.lead(1, 4).sync();
    own.log.set_high_watermark(Offset(3), LeaderEpoch(1));
    own.tighten();
    let lost = Some((Offset(1), Offset(3)));
    let cut = Effect::Cut { cut: Cut::To(Offset(1)), lost };
    assert_eq!(diverging_at(&mut follower(3, 3, now), &own.log, 1, now), [cut]);
    own.lead(1, 2).sync();
    let stopped = Stopped::BelowWatermark { to: Offset(5), high_watermark: Offset(6) };
    assert_eq!(
        diverging_at(&mut follower(3, 6, now), &own.log, 5, now),
        [Effect::Stop(stopped)],
        "and this was promised"
    );
}

#[test]
fn a_loss_that_was_accepted_keeps_nobody_from_following_on() {
    let (now, mut own) = (start(), TestLog::new(true));
    own.lead(1, 4).sync();
    let mut follower = follower(3, 3, now);
    follower.on_loss_accepted(&own.log);
    let cut = Effect::Cut { cut: Cut::To(Offset(1)), lost: None };
    assert_eq!(diverging_at(&mut follower, &own.log, 1, now), [cut]);
    assert_eq!(follower.high_watermark(), Offset(0), "what it knew of before may be lost");
}

#[test]
fn what_the_leader_has_deleted_goes_and_a_log_wholly_below_begins_anew() {
    let now = start();
    let (_, own) = logs(4, 3);
    let mut follower = follower(1, 1, now);
    let stream = streaming(&mut follower, &own.log, now);
    let moved = StreamNews { log_start: Offset(2), ..news(3) };
    let effects = follower.on_message(&with(&stream, StreamBody::News(moved)), &own.log, now);
    assert_eq!(effects, [Effect::AdvanceLogStart(Offset(2))]);
    // What it is about to append reaches beyond that: the leader does not say it again.
    let (leader, _) = logs(6, 0);
    let moved = StreamNews { log_start: Offset(4), ..news(3) };
    let push = Push { number: 0, base: Offset(3), news: moved, batches: vec![leader.bytes(3, 5)] };
    let effects = follower.on_message(&with(&stream, StreamBody::Push(push)), &own.log, now);
    assert_eq!(effects, [Effect::Append(leader.bytes(3, 5)), Effect::AdvanceLogStart(Offset(4))]);
    follower.on_disconnected(now);
    let open = follower.open(StreamId(6), &own.log, false, now).expect("it is time");
    let refused = StreamBody::Refused(Refusal::OutOfRange { log_start: Offset(9), log_end: Offset(12) });
    let effects = follower.on_message(&with(&open, refused), &own.log, now);
    assert_eq!(effects, [Effect::Cut { cut: Cut::Reset(Offset(9)), lost: None }]);
    assert_eq!(follower.high_watermark(), Offset(9));
}

#[test]
fn the_high_watermark_stays_within_the_log_and_never_goes_back() {
    let now = start();
    let (_, own) = logs(6, 3);
    let mut follower = follower(1, 2, now);
    let stream = streaming(&mut follower, &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(2), "the leader knew less");
    follower.on_message(&with(&stream, StreamBody::News(news(5))), &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(3), "what is not here is not known to be the leader's");
    follower.on_message(&with(&stream, StreamBody::News(news(1))), &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(3));
}

#[test]
fn streams_that_end_again_and_again_are_opened_less_and_less_often_until_records_come() {
    let now = start();
    let (leader, mut own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let mut at = now;
    for pause in [50, 100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis) {
        let stream = streaming(&mut follower, &own.log, at);
        follower.on_message(&with(&stream, StreamBody::Close), &own.log, at);
        assert_eq!(
            follower.open(StreamId(5), &own.log, false, at + pause - Duration::from_millis(1)),
            None,
            "{pause:?}"
        );
        at += pause;
    }
    let (stream, batches) = (streaming(&mut follower, &own.log, at), leader.bytes(2, 3));
    follower.on_message(&push(&stream, 0, 2, batches.clone(), 0), &own.log, at);
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(10), &own.log, at);
    follower.on_message(&with(&stream, StreamBody::Close), &own.log, at);
    assert!(follower.open(StreamId(5), &own.log, false, at + RETRY_AFTER).is_some());
}

#[test]
fn what_one_leader_asked_is_not_repeated_to_the_next() {
    let now = start();
    let (_, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    let asked = StreamBody::News(StreamNews { probe: 7, ..news(0) });
    follower.on_message(&with(&stream, asked), &own.log, now);
    let probe_of = |messages: Vec<StreamMessage>| match &messages[..] {
        [StreamMessage { body: StreamBody::Report(report), .. }] => report.probe,
        other => panic!("{other:?}"),
    };
    assert_eq!(probe_of(follower.say(&own.log, false)), 7);
    follower.on_following(following(2), now);
    let open = follower.open(StreamId(6), &own.log, false, now).expect("it is time");
    let StreamBody::Open(open) = open.body else { panic!("{open:?}") };
    assert_eq!(open.report.probe, 0);
}

#[test]
fn batches_that_the_log_refuses_end_the_stream() {
    let now = start();
    let (_, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    streaming(&mut follower, &own.log, now);
    follower.on_appended(Err(FollowerReject::Malformed { at: 0 }), &own.log, now);
    assert!(!follower.is_streaming());
    assert_eq!(follower.open(StreamId(6), &own.log, false, now), None);
}

#[test]
fn an_empty_log_begins_where_the_first_push_does_and_another_goes_on_at_its_end() {
    let (now, mut leader) = (start(), TestLog::new(true));
    leader.lead(1, 2);
    leader.append(1, 4);
    leader.sync();
    let mut own = TestLog::new(true);
    own.reset(Offset(4));
    own.sync();
    let mut follower = follower(1, 4, now);
    let stream = streaming(&mut follower, &own.log, now);
    // The leader's log start, 4, lies within the batch from 2 to 6.
    let first = push(&stream, 0, 2, leader.bytes(2, 6), 4);
    let begins_anew = Effect::Cut { cut: Cut::Reset(Offset(2)), lost: None };
    assert_eq!(follower.on_message(&first, &own.log, now), [begins_anew]);
    own.reset(Offset(2));
    own.sync();
    let stream = streaming(&mut follower, &own.log, now);
    let again = push(&stream, 0, 2, leader.bytes(2, 6), 4);
    assert_eq!(follower.on_message(&again, &own.log, now), [Effect::Append(leader.bytes(2, 6))]);
    own.follow(1, leader.bytes(2, 6)).expect("it begins there");
    own.sync();
    follower.on_appended(Ok(1), &own.log, now);
    // With records in it, a push elsewhere ends the stream and cuts nothing.
    let elsewhere = push(&stream, 1, 2, leader.bytes(2, 6), 4);
    assert_eq!(follower.on_message(&elsewhere, &own.log, now), []);
    assert!(!follower.is_streaming());
}

fn credit_of(open: Option<StreamMessage>) -> u32 {
    match open.map(|open| open.body) {
        Some(StreamBody::Open(open)) => open.credit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_stream_gives_no_credit_for_what_is_not_written_yet() {
    let now = start();
    let (leader, mut own) = logs(6, 0);
    let mut follower = follower(1, 0, now);
    let stream = streaming(&mut follower, &own.log, now);
    for (number, (from, to)) in [(0, 3), (3, 4)].into_iter().enumerate() {
        let batches = leader.bytes(from, to);
        follower.on_message(&push(&stream, number as u64, from, batches.clone(), 0), &own.log, now);
        own.follow(1, batches).expect("at the end");
        follower.on_appended(Ok(300), &own.log, now);
    }
    follower.on_disconnected(now);
    assert_eq!(credit_of(follower.open(StreamId(6), &own.log, false, now)), CREDIT - 600, "both are in memory");
    follower.on_disconnected(now);
    own.write();
    assert_eq!(credit_of(follower.open(StreamId(7), &own.log, false, now)), CREDIT);
    assert!(!follower.owes_credit());
}

#[test]
fn a_stream_opened_without_room_is_given_its_credit_when_there_is_some() {
    let now = start();
    let (_, own) = logs(6, 2);
    let mut follower = follower(1, 0, now);
    let open = follower.open(StreamId(5), &own.log, true, now);
    assert_eq!(credit_of(open.clone()), 0);
    assert!(follower.owes_credit());
    let opened = with(&open.expect("it is time"), StreamBody::Opened(Opened { news: news(0), counts: false }));
    follower.on_message(&opened, &own.log, now);
    assert_eq!(follower.say(&own.log, true), []);
    assert_eq!(follower.say(&own.log, false), [with(&opened, StreamBody::Credit(CREDIT))]);
    assert!(!follower.owes_credit());
    assert_eq!(follower.say(&own.log, false), []);
}

#[test]
fn the_high_watermark_said_with_the_last_push_covers_what_that_push_brought() {
    let now = start();
    let (leader, mut own) = logs(6, 0);
    let mut follower = follower(1, 0, now);
    let (stream, batches) = (streaming(&mut follower, &own.log, now), leader.bytes(0, 3));
    follower.on_message(&push(&stream, 0, 0, batches.clone(), 5), &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(0), "nothing of it is here");
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(300), &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(3), "the leader does not say it again");
}

#[test]
fn a_cut_that_fails_is_asked_for_again_after_pauses_that_grow() {
    let mut at = start();
    let (_, own) = logs(4, 4);
    let mut follower = follower(2, 0, at);
    for (stream, pause) in [(5, RETRY_AFTER), (6, RETRY_AFTER * 2), (7, RETRY_AFTER * 4)] {
        let open = follower.open(StreamId(stream), &own.log, false, at).expect("it is time");
        let diverging = Diverging { epoch: LeaderEpoch(1), end: Offset(2) };
        let effects = follower.on_message(&with(&open, StreamBody::Diverging(diverging)), &own.log, at);
        assert_eq!(effects, [Effect::Cut { cut: Cut::To(Offset(2)), lost: None }]);
        assert_eq!(follower.on_cut_failed(Offset(2), at), None);
        assert_eq!(follower.open(StreamId(9), &own.log, false, at + pause - Duration::from_millis(1)), None);
        at += pause;
    }
}

#[test]
fn a_push_beyond_the_credit_ends_the_stream_and_nothing_of_it_is_kept() {
    let now = start();
    let (leader, own) = logs(6, 0);
    let pool = CreditPool::new(4_000, 16 << 20);
    let mut follower = Follower::begin(following(1), Offset(0), &pool, now);
    let stream = streaming(&mut follower, &own.log, now);
    assert_eq!(pool.given_bytes(), 0, "its part is too small to be worth a message");
    assert_eq!(follower.on_message(&push(&stream, 0, 0, leader.bytes(0, 2), 0), &own.log, now), []);
    assert!(!follower.is_streaming());
    assert!(follower.may_speak());
    assert_eq!(follower.say(&own.log, false), [with(&stream, StreamBody::Close)], "its leader hears of it");
    assert_eq!(follower.say(&own.log, false), [], "once");
}

#[test]
fn what_a_leader_asks_for_is_given_once_what_is_in_memory_is_written() {
    let (now, mut own) = (start(), TestLog::new(true));
    let Asking { pool, mut follower, stream, batches, bytes } = asking(&own.log, now);
    let credit = |follower: &mut Follower, log: &Log| -> Vec<u32> {
        let said = follower.say(log, false).into_iter();
        said.filter_map(|message| if let StreamBody::Credit(bytes) = message.body { Some(bytes) } else { None })
            .collect()
    };
    follower.on_message(&with(&stream, StreamBody::Wants(bytes)), &own.log, now);
    assert_eq!(credit(&mut follower, &own.log), [bytes]);
    assert_eq!(credit(&mut follower, &own.log), [0u32; 0]);
    follower.on_message(&push(&stream, 0, 0, batches.clone(), 0), &own.log, now);
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(bytes), &own.log, now);
    follower.on_message(&with(&stream, StreamBody::Wants(2 << 20)), &own.log, now);
    // The question before, once more.
    follower.on_message(&with(&stream, StreamBody::Wants(bytes)), &own.log, now);
    assert_eq!(credit(&mut follower, &own.log), [0u32; 0], "there is something in memory");
    assert_eq!(pool.given_bytes(), i64::from(bytes));
    own.sync();
    assert_eq!(credit(&mut follower, &own.log), [2 << 20], "one batch may be larger than the pool");
    drop(follower);
    assert_eq!(pool.given_bytes(), 0);
}

#[test]
fn an_epoch_that_the_leader_does_not_know_yet_is_asked_about_again_without_growing_pauses() {
    let mut at = start();
    let (_, own) = logs(6, 2);
    let mut follower = follower(2, 0, at);
    for stream in 5..12 {
        let open = follower.open(StreamId(stream), &own.log, false, at).expect("it is time");
        let refused = StreamBody::Refused(Refusal::UnknownEpoch(LeaderEpoch(1)));
        assert_eq!(follower.on_message(&with(&open, refused), &own.log, at), []);
        at += RETRY_AFTER;
    }
}

#[test]
fn a_cut_that_fails_again_and_again_stops_the_follower_until_another_leads() {
    let mut at = start();
    let (_, own) = logs(4, 4);
    let mut follower = follower(2, 0, at);
    let failed: Vec<_> = (0..CUTS_FAILED_MAX)
        .map(|stream| {
            let open = follower.open(StreamId(u64::from(stream)), &own.log, false, at).expect("it is time");
            let diverging = Diverging { epoch: LeaderEpoch(1), end: Offset(2) };
            follower.on_message(&with(&open, StreamBody::Diverging(diverging)), &own.log, at);
            let stopped = follower.on_cut_failed(Offset(2), at);
            at += RETRY_AFTER_MAX;
            stopped
        })
        .collect();
    assert!(failed[..failed.len() - 1].iter().all(Option::is_none));
    assert_eq!(failed.last(), Some(&Some(Stopped::CutFailed { to: Offset(2) })));
    assert!(follower.is_stopped() && !follower.may_open(&own.log, at));
    follower.on_following(following(3), at);
    assert!(follower.may_open(&own.log, at));
}

#[test]
fn who_may_not_ask_yet_stands_in_nobodys_way() {
    let (now, mut own) = (start(), TestLog::new(true));
    let Asking { pool, mut follower, stream, batches, bytes } = asking(&own.log, now);
    let mut other = Follower::begin(following(1), Offset(0), &pool, now);
    let others = streaming(&mut other, &own.log, now);
    // The other one has all there is, and more.
    other.on_message(&with(&others, StreamBody::Wants(1 << 20)), &own.log, now);
    other.say(&own.log, false);
    follower.on_message(&with(&stream, StreamBody::Wants(bytes)), &own.log, now);
    follower.say(&own.log, false);
    assert!(pool.is_wanted(), "it waits");
    // Its leader has pushed what was not paid for, or something else is not written yet.
    own.follow(1, batches).expect("at the end");
    follower.on_appended(Ok(bytes), &own.log, now);
    follower.on_message(&with(&stream, StreamBody::Wants(2 << 20)), &own.log, now);
    follower.say(&own.log, false);
    assert!(!pool.is_wanted(), "it may not ask before that is written");
}
