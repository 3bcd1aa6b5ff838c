//! Self-test of the checker: each anomaly planted alone is found, each legal oddity passes.

use super::super::history::{Event, Header, Run};
use super::super::value::Content;
use super::super::verdict::{Anomaly, Verdict};
use super::Checker;

fn header(exclusive: bool) -> Header {
    Header::new("run".to_owned(), "t".to_owned(), 1, exclusive, vec!["g".to_owned()])
}

fn ours(sequence: u64) -> Content {
    Content::Ours { producer: 0, sequence }
}

fn send(id: u64, first: u64, count: u32) -> Event {
    Event::Send { id, producer: 0, partition: 0, first, count }
}

fn acked(id: u64, offset: i64) -> Event {
    Event::Acked { id, offset: Some(offset) }
}

fn unknown(id: u64) -> Event {
    Event::Unknown { id, error: "connection lost".to_owned() }
}

fn joined(position: i64, committed: Option<i64>) -> Event {
    let committed = committed.map(|offset| (0, offset)).into_iter().collect();
    Event::Joined { group: "g".to_owned(), member: 0, generation: 1, positions: vec![(0, position)], committed }
}

fn polled(offset: i64, count: u32, sequence: u64) -> Event {
    let runs = vec![Run { offset, count, producer: 0, sequence }];
    Event::Polled { group: "g".to_owned(), member: 0, partition: 0, runs, others: Vec::new() }
}

fn commit_asked(id: u64, offset: i64) -> Event {
    Event::CommitAsked { id, group: "g".to_owned(), offsets: vec![(0, offset)] }
}

fn commits_read(offset: Option<i64>) -> Event {
    Event::CommitsRead { group: "g".to_owned(), offsets: offset.map(|offset| (0, offset)).into_iter().collect() }
}

/// The verdict on a history and on a log that begins at `log_start` and holds `records`, each at its offset.
fn judge_at(exclusive: bool, events: &[Event], log_start: i64, records: &[(i64, Content)]) -> Verdict {
    let mut checker = Checker::new(&header(exclusive));
    events.iter().for_each(|event| checker.on_event(event));
    let end = records.iter().map(|(offset, _)| offset + 1).max().unwrap_or(log_start);
    checker.on_scan_start(0, log_start, end);
    records.iter().for_each(|(offset, content)| checker.on_scanned(0, *offset, *content));
    checker.verdict()
}

/// The verdict when the log holds `records` from offset 0 on.
fn judge(events: &[Event], records: &[Content]) -> Verdict {
    let placed: Vec<(i64, Content)> = (0..).zip(records.iter().copied()).collect();
    judge_at(true, events, 0, &placed)
}

/// Asserts that exactly this anomaly was found, so often.
fn assert_only(verdict: &Verdict, anomaly: Anomaly, count: u64) {
    let found: Vec<_> = verdict.anomalies.iter().map(|(kind, findings)| (*kind, findings.count)).collect();
    assert_eq!(found, [(anomaly, count)], "{verdict:?}");
}

fn two_batches() -> Vec<Event> {
    vec![send(0, 0, 2), acked(0, 0), send(1, 2, 1), acked(1, 2)]
}

#[test]
fn everything_in_place_is_sound() {
    let verdict = judge(&two_batches(), &[ours(0), ours(1), ours(2)]);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!((verdict.sent, verdict.acknowledged, verdict.scanned), (3, 3, 3));
}

#[test]
fn a_dropped_record_at_the_end_is_lost() {
    assert_only(&judge(&two_batches(), &[ours(0), ours(1)]), Anomaly::Lost, 1);
}

#[test]
fn a_dropped_record_in_the_middle_is_lost_and_its_offset_a_gap() {
    let verdict = judge_at(true, &two_batches(), 0, &[(0, ours(0)), (2, ours(2))]);
    assert_eq!((verdict.count(Anomaly::Lost), verdict.count(Anomaly::Gap)), (1, 1));
    assert_eq!(verdict.anomalies.len(), 2);
}

#[test]
fn a_log_that_begins_later_than_it_should_is_loss_in_a_topic_of_our_own() {
    assert_only(&judge_at(true, &two_batches(), 2, &[(2, ours(2))]), Anomaly::Lost, 2);
}

#[test]
fn what_retention_took_from_a_shared_topic_is_no_loss() {
    let verdict = judge_at(false, &two_batches(), 2, &[(2, ours(2))]);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!(verdict.expired, 2);
}

#[test]
fn a_record_lost_above_the_start_of_a_shared_topic_is_lost() {
    assert_only(&judge_at(false, &two_batches(), 1, &[(1, ours(1))]), Anomaly::Lost, 1);
}

#[test]
fn a_record_stored_twice_is_duplicated() {
    assert_only(&judge(&two_batches(), &[ours(0), ours(1), ours(2), ours(1)]), Anomaly::Duplicated, 1);
}

#[test]
fn a_record_at_another_offset_than_acknowledged_is_at_the_wrong_one() {
    let events = [send(0, 0, 1), acked(0, 1), send(1, 1, 1), Event::Acked { id: 1, offset: None }];
    let verdict = judge(&events, &[ours(0), ours(1)]);
    assert_eq!(verdict.count(Anomaly::WrongOffset), 1, "{verdict:?}");
}

#[test]
fn swapped_records_are_reordered_and_at_the_wrong_offset() {
    let verdict = judge(&two_batches(), &[ours(1), ours(0), ours(2)]);
    assert_eq!((verdict.count(Anomaly::Reordered), verdict.count(Anomaly::WrongOffset)), (1, 2));
}

#[test]
fn a_batch_before_one_acknowledged_earlier_is_reordered() {
    let events = [send(0, 0, 1), acked(0, 1), send(1, 1, 1), unknown(1)];
    assert_only(&judge(&events, &[ours(1), ours(0)]), Anomaly::Reordered, 1);
}

#[test]
fn two_batches_in_flight_together_may_land_either_way() {
    let mut events = vec![send(0, 0, 1), Event::Send { id: 1, producer: 1, partition: 0, first: 0, count: 1 }];
    events.extend([acked(0, 1), acked(1, 0)]);
    let verdict = judge(&events, &[Content::Ours { producer: 1, sequence: 0 }, ours(0)]);
    assert!(verdict.is_sound(), "{verdict:?}");
}

#[test]
fn changed_bytes_are_corrupted() {
    let mut events = two_batches();
    events.push(send(2, 3, 1));
    let verdict = judge(&events, &[ours(0), ours(1), ours(2), Content::Corrupt]);
    assert_only(&verdict, Anomaly::Corrupted, 1);
}

#[test]
fn a_strangers_record_is_corruption_only_in_a_topic_of_our_own() {
    let records = [(0, ours(0)), (1, ours(1)), (2, ours(2)), (3, Content::Foreign)];
    assert_only(&judge_at(true, &two_batches(), 0, &records), Anomaly::Corrupted, 1);
    let verdict = judge_at(false, &two_batches(), 0, &records);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!(verdict.foreign, 1);
}

#[test]
fn a_record_nobody_sent_is_a_phantom() {
    assert_only(&judge(&two_batches(), &[ours(0), ours(1), ours(2), ours(3)]), Anomaly::Phantom, 1);
    let stranger = Content::Ours { producer: 9, sequence: 0 };
    assert_only(&judge(&two_batches(), &[ours(0), ours(1), ours(2), stranger]), Anomaly::Phantom, 1);
}

#[test]
fn a_refused_record_that_is_there_is_found() {
    let events = [send(0, 0, 1), Event::Failed { id: 0, error: "too large".to_owned() }];
    assert!(judge(&events, &[]).is_sound());
    assert_only(&judge(&events, &[ours(0)]), Anomaly::RefusedButStored, 1);
}

#[test]
fn an_unanswered_batch_may_be_there_or_not_or_late() {
    let events = [send(0, 0, 2), unknown(0), send(1, 2, 1), acked(1, 0)];
    let absent = judge(&events, &[ours(2)]);
    assert!(absent.is_sound(), "{absent:?}");
    assert_eq!((absent.unknown_present, absent.unknown_absent), (0, 2));
    let late = judge(&events, &[ours(2), ours(0), ours(1)]);
    assert!(late.is_sound(), "{late:?}");
    assert_eq!((late.unknown_present, late.unknown_absent), (2, 0));
}

#[test]
fn half_of_an_unanswered_batch_is_torn() {
    let events = [send(0, 0, 2), unknown(0)];
    assert_only(&judge(&events, &[ours(0)]), Anomaly::Torn, 1);
}

#[test]
fn a_scan_that_goes_back_is_found() {
    let records = [(0, ours(0)), (1, ours(1)), (0, ours(2))];
    let verdict = judge_at(true, &[send(0, 0, 3), unknown(0)], 0, &records);
    assert_eq!(verdict.count(Anomaly::WentBackwards), 1, "{verdict:?}");
}

#[test]
fn nothing_below_the_end_is_a_gap() {
    let mut checker = Checker::new(&header(true));
    checker.on_scan_start(0, 0, 5);
    assert_only(&checker.verdict(), Anomaly::Gap, 5);
}

#[test]
fn what_a_member_read_must_still_be_there() {
    let mut events = vec![send(0, 0, 1), unknown(0), joined(0, None), polled(0, 1, 0)];
    assert!(judge(&events, &[ours(0)]).is_sound());
    assert_only(&judge(&events, &[]), Anomaly::Vanished, 1);
    events.extend([send(1, 1, 1), unknown(1)]);
    assert_only(&judge(&events, &[ours(1), ours(0)]), Anomaly::Changed, 1);
}

#[test]
fn a_member_that_is_not_given_a_record_has_skipped_it() {
    let mut events = two_batches();
    events.extend([joined(0, None), polled(0, 1, 0), polled(2, 1, 2)]);
    assert_only(&judge(&events, &[ours(0), ours(1), ours(2)]), Anomaly::Skipped, 1);
}

#[test]
fn a_member_that_is_given_a_record_again_went_backwards() {
    let mut events = two_batches();
    events.extend([joined(0, None), polled(0, 2, 0), polled(1, 1, 1)]);
    assert_only(&judge(&events, &[ours(0), ours(1), ours(2)]), Anomaly::WentBackwards, 1);
}

#[test]
fn after_a_rebalance_records_may_be_read_again() {
    let mut events = two_batches();
    events.extend([joined(0, None), polled(0, 2, 0), joined(0, None), polled(0, 3, 0)]);
    assert!(judge(&events, &[ours(0), ours(1), ours(2)]).is_sound());
}

#[test]
fn damage_seen_by_a_member_counts_even_if_the_scan_sees_none() {
    let mut events = vec![send(0, 0, 1), acked(0, 0), joined(0, None)];
    events.push(Event::Polled { group: "g".to_owned(), member: 0, partition: 0, runs: Vec::new(), others: vec![0] });
    assert_only(&judge(&events, &[ours(0)]), Anomaly::Corrupted, 1);
}

#[test]
fn an_acknowledged_commit_that_is_gone_went_back() {
    let committed = |then: Event| {
        let commits =
            [commit_asked(0, 1), Event::CommitAcked { id: 0 }, commit_asked(1, 2), Event::CommitAcked { id: 1 }];
        let mut events = two_batches();
        events.extend(commits);
        events.push(then);
        judge(&events, &[ours(0), ours(1), ours(2)])
    };
    assert!(committed(commits_read(Some(2))).is_sound());
    assert!(committed(joined(2, Some(2))).is_sound());
    assert_only(&committed(commits_read(Some(1))), Anomaly::CommitWentBack, 1);
    assert_only(&committed(commits_read(None)), Anomaly::CommitWentBack, 1);
    assert_only(&committed(joined(0, None)), Anomaly::CommitWentBack, 1);
    assert_only(&committed(commits_read(Some(3))), Anomaly::CommitPhantom, 1);
}

#[test]
fn an_unanswered_commit_may_count_or_not_and_may_arrive_late() {
    let unanswered = |asked: i64, acked: i64, read: Option<i64>| {
        let mut events = two_batches();
        events.extend([commit_asked(0, asked), Event::CommitUnknown { id: 0, error: "lost".to_owned() }]);
        events.extend([commit_asked(1, acked), Event::CommitAcked { id: 1 }, commits_read(read)]);
        judge(&events, &[ours(0), ours(1), ours(2)])
    };
    assert!(unanswered(3, 2, Some(3)).is_sound(), "a later one counted");
    assert!(unanswered(3, 2, Some(2)).is_sound(), "it did not");
    let late = unanswered(1, 2, Some(1));
    assert!(late.is_sound(), "an older one arrived late");
    assert_eq!(late.commits_overtaken, 1);
    assert_only(&unanswered(1, 2, None), Anomaly::CommitWentBack, 1);
}

#[test]
fn a_history_that_ends_in_mid_flight_is_judged_like_lost_answers() {
    let events = [send(0, 0, 1), commit_asked(0, 1), commits_read(Some(1))];
    let verdict = judge(&events, &[ours(0)]);
    assert!(verdict.is_sound(), "{verdict:?}");
    assert_eq!(verdict.unknown_present, 1);
}
