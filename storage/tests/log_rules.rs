//! What a log promises its lane, one rule per test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{LeaderEpoch, Offset, ProducerEpoch, Timestamp};
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk, Tearing};
use stonelog_storage::holes::Cause;
use stonelog_storage::journal::JournalPosition;
use stonelog_storage::log::{
    AppendReject, Appended, CommitSpan, EpochEnd, FollowerReject, LogConfig, Lookup, Read, Truncation,
};
use stonelog_storage::recovery::{Loss, Verdict};
use stonelog_storage::segment::read::{LookupDone, ReadDone};

use support::{Batch, Lane, NOW, ROOT, new_disk, partition};

fn lane_on(disk: &SimDisk, config: LogConfig) -> Lane {
    Lane::start(Arc::new(disk.clone()), config).unwrap()
}

/// A lane with one log whose creation is durable.
fn lane() -> (SimDisk, Lane) {
    lane_with(LogConfig::default())
}

fn lane_with(config: LogConfig) -> (SimDisk, Lane) {
    let disk = new_disk();
    let mut lane = lane_on(&disk, config);
    lane.create(0);
    lane.commit().unwrap();
    (disk, lane)
}

fn of_producer(epoch: i16, sequence: i32, records: i32) -> Batch {
    Batch { producer: (7, epoch, sequence), ..Batch::of(records) }
}

fn try_append(lane: &mut Lane, batch: &Batch) -> Result<Appended, AppendReject> {
    let bytes = batch.bytes();
    let header = BatchHeader::read(&bytes).unwrap();
    let ticket = lane.next_ticket();
    lane.logs[0].append_as_leader(bytes, &header, LeaderEpoch(0), NOW, ticket)
}

fn span(start: u64) -> CommitSpan {
    CommitSpan { start: JournalPosition(start), end: JournalPosition(start + 4096) }
}

#[test]
fn a_duplicate_is_answered_with_its_original_offsets_and_appends_nothing() {
    let (_, mut lane) = lane();
    lane.append(0, &of_producer(0, 0, 3), 0);
    lane.append(0, &of_producer(0, 3, 2), 0);
    let again = try_append(&mut lane, &of_producer(0, 0, 3)).unwrap();
    let expected = Appended {
        base_offset: Offset(0),
        last_offset: Offset(2),
        log_append_time: Timestamp::NONE,
        log_start: Offset(0),
        duplicate: true,
        entry: None,
    };
    assert_eq!(again, expected);
    assert_eq!(lane.logs[0].log_end(), Offset(5));
}

#[test]
fn a_gap_in_sequence_and_an_old_producer_epoch_are_refused_and_change_nothing() {
    let (_, mut lane) = lane();
    lane.append(0, &of_producer(1, 0, 3), 0);
    let gap = try_append(&mut lane, &of_producer(1, 4, 1));
    assert_eq!(gap, Err(AppendReject::OutOfOrderSequence { last_sequence: 2 }));
    let old = try_append(&mut lane, &of_producer(0, 3, 1));
    assert_eq!(old, Err(AppendReject::InvalidProducerEpoch { current: ProducerEpoch(1) }));
    assert_eq!(lane.logs[0].log_end(), Offset(3));
}

#[test]
fn a_batch_larger_than_a_segment_is_refused() {
    let (_, mut lane) = lane_with(LogConfig { segment_bytes: 90, ..LogConfig::default() });
    let refused = try_append(&mut lane, &Batch::of(1));
    assert_eq!(refused, Err(AppendReject::LargerThanSegment { segment_bytes: 90 }));
}

#[test]
fn log_append_time_stamps_the_batch_and_keeps_it_intact() {
    let (_, mut lane) = lane_with(LogConfig { log_append_time: true, ..LogConfig::default() });
    let batch = lane.append(0, &Batch { max_timestamp: 5, ..Batch::of(1) }, 0);
    let header = BatchHeader::read(&batch).unwrap();
    assert_eq!((header.max_timestamp, header.is_log_append_time()), (NOW, true));
    assert!(stonelog_protocol::batch::header::crc_matches(&batch));
}

#[test]
fn completions_move_written_and_durable_apart() {
    let (_, mut lane) = lane();
    lane.append(0, &Batch::of(2), 0);
    lane.write().unwrap();
    lane.append(0, &Batch::of(3), 0);
    let log = &lane.logs[0];
    assert_eq!((log.durable(), log.written(), log.log_end()), (Offset(0), Offset(2), Offset(5)));
    lane.sync().unwrap();
    assert_eq!((lane.logs[0].durable(), lane.logs[0].written()), (Offset(2), Offset(2)));
}

#[test]
fn a_completion_of_an_older_generation_changes_nothing() {
    let (_, mut lane) = lane();
    lane.append(0, &Batch::of(2), 0);
    lane.append(0, &Batch::of(2), 0);
    let old = lane.logs[0].key().generation;
    let ticket = lane.next_ticket();
    let Truncation::Done(entry) = lane.logs[0].truncate_to(Offset(2), ticket) else { panic!("in memory") };
    assert!(entry.replica.generation > old);
    assert!(!lane.logs[0].on_written(old, ticket, span(1 << 20)));
    assert!(!lane.logs[0].on_durable(old, ticket));
    assert_eq!((lane.logs[0].written(), lane.logs[0].durable()), (Offset(0), Offset(0)));
    assert_eq!(try_append(&mut lane, &Batch::of(1)), Err(AppendReject::Changing), "not durable yet");
    let new = lane.logs[0].key().generation;
    assert!(lane.logs[0].on_written(new, ticket, span(1 << 20)) && lane.logs[0].on_durable(new, ticket));
    assert_eq!(lane.logs[0].durable(), Offset(2));
    assert!(try_append(&mut lane, &Batch::of(1)).is_ok());
}

#[test]
fn a_flush_that_was_under_way_when_the_log_was_truncated_does_not_count() {
    let (disk, mut lane) = lane();
    let kept = lane.append(0, &Batch { seed: 1, ..Batch::of(2) }, 0);
    lane.append(0, &Batch { seed: 2, filler_bytes: 500, ..Batch::of(2) }, 0);
    lane.commit().unwrap();
    let job = lane.logs[0].plan_flush(NOW, true, 0).expect("something is durable");
    lane.truncate(0, Offset(2)).unwrap();
    lane.commit().unwrap();
    let replaced = lane.append(0, &Batch { seed: 3, ..Batch::of(1) }, 1);
    lane.commit().unwrap();
    assert!(lane.logs[0].plan_flush(NOW, true, 0).is_none(), "one flush at a time");
    let done = job.run(&lane.access).unwrap();
    assert!(!lane.logs[0].on_flushed(done));
    assert!(lane.logs[0].segments().is_empty());
    assert!(lane.flush(0).unwrap());
    lane.logs[0].evict(0);
    let expected = [&kept[..], &replaced[..]].concat();
    assert_eq!(lane.read_all(0, Offset(0), 10_000).unwrap(), expected);
    assert_eq!(disk.contents(&log_file(0)), expected, "nothing of the old history is left behind it");
}

#[test]
fn a_flush_takes_whole_commits_only() {
    let (_, mut lane) = lane();
    lane.append(0, &Batch::of(1), 0);
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    lane.append(0, &Batch::of(1), 0);
    lane.write().unwrap();
    assert!(lane.flush(0).unwrap());
    assert_eq!(lane.logs[0].segments()[0].end, Offset(2), "what is not durable stays in the journal");
    assert!(!lane.flush(0).unwrap());
}

#[test]
fn few_bytes_wait_until_they_are_old_or_wanted() {
    let (_, mut lane) = lane();
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    assert!(lane.logs[0].plan_flush(NOW, false, 1 << 16).is_none());
    let later = NOW.saturating_add(stonelog_storage::log::FLUSH_AGE_MAX);
    assert!(lane.logs[0].plan_flush(later, false, 1 << 16).is_some());
}

#[test]
fn a_follower_takes_batches_exactly_at_its_end_and_checks_them_again() {
    let (_, mut lane) = lane();
    let (_, mut leader) = self::lane();
    let first = leader.append(0, &Batch::of(2), 3);
    let second = leader.append(0, &Batch::of(1), 4);
    let both = Bytes::from([&first[..], &second[..]].concat());
    let log = &mut lane.logs[0];
    let mut take = |bytes: Bytes, epoch: i32, ticket: u64| {
        log.append_as_follower(bytes, LeaderEpoch(epoch), NOW, (1 << 41) + ticket).map(|_| log.log_end())
    };
    assert_eq!(take(both.clone(), 3, 2), Err(FollowerReject::LaterEpoch { epoch: LeaderEpoch(4) }));
    assert_eq!(take(both.slice(..both.len() - 1), 4, 3), Err(FollowerReject::Malformed { at: first.len() }));
    let mut damaged = both.to_vec();
    damaged[first.len() + 70] ^= 1;
    assert_eq!(take(damaged.into(), 4, 4), Err(FollowerReject::Corrupt { base_offset: Offset(2) }));
    assert_eq!(take(both, 4, 5), Ok(Offset(3)));
    assert_eq!(take(second.clone(), 4, 6), Err(FollowerReject::NotAtEnd { log_end: Offset(3) }), "it is there");
    assert_eq!(lane.logs[0].epochs(), leader.logs[0].epochs());
}

#[test]
fn a_follower_takes_what_compaction_left_and_has_it_after_a_crash() {
    let (disk, mut lane) = lane();
    let (_, mut leader) = self::lane();
    let batches: Vec<_> = (0..6).map(|_| leader.append(0, &Batch::of(1), 3)).collect();
    let left = Bytes::from([&batches[1][..], &batches[4][..], &batches[5][..]].concat());
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].append_as_follower(left.clone(), LeaderEpoch(3), NOW, ticket).unwrap();
    lane.push(ticket, entry);
    lane.commit().unwrap();
    drop(lane);
    disk.crash(4, Tearing::Blocks);
    let mut again = lane_on(&disk, LogConfig::default());
    assert_eq!((again.verdicts[0], again.logs[0].log_end()), (Verdict::Proved, Offset(6)));
    assert_eq!(again.read_all(0, Offset(0), 1 << 20).unwrap(), left);
    assert!(again.flush(0).unwrap());
    assert_eq!(again.read_all(0, Offset(2), 1 << 20).unwrap(), left.slice(batches[1].len()..));
}

#[test]
fn the_tail_is_read_in_whole_batches_without_a_job() {
    let (_, mut lane) = lane();
    let batches: Vec<Bytes> = (0..4).map(|_| lane.append(0, &Batch::of(3), 0)).collect();
    let one = batches[0].len();
    let log = &lane.logs[0];
    let read = |from: i64, up_to: i64, max: usize, at_least_one: bool| match log.read(
        Offset(from),
        Offset(up_to),
        max,
        at_least_one,
    ) {
        Read::Ready(found, total) => {
            assert_eq!(found.iter().map(Bytes::len).sum::<usize>(), total);
            total / one
        }
        Read::Empty => 0,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(0, 12, 10_000, false), 4);
    assert_eq!(read(4, 12, 10_000, false), 3, "from the batch that holds the offset");
    assert_eq!(read(0, 7, 10_000, false), 2, "no batch reaches beyond the limit");
    assert_eq!(read(0, 12, 2 * one + 1, false), 2);
    assert_eq!((read(0, 12, 1, false), read(0, 12, 1, true)), (0, 1));
    assert_eq!(read(12, 12, 10_000, true), 0);
    assert!(matches!(log.read(Offset(13), Offset(13), 1, true), Read::OutOfRange));
}

#[test]
fn what_is_evicted_is_read_from_segments_and_what_was_recovered_from_the_journal() {
    let (disk, mut lane) = lane_with(LogConfig { segment_bytes: 300, ..LogConfig::default() });
    let batches: Vec<Bytes> = (0..6).map(|_| lane.append(0, &Batch::of(1), 0)).collect();
    lane.commit().unwrap();
    let all = batches.concat();
    assert!(lane.flush(0).unwrap());
    assert_eq!(lane.logs[0].segments().len(), 3, "two batches of 101 bytes each");
    let held = lane.logs[0].memory_bytes();
    assert_eq!(lane.logs[0].evict(0), held);
    assert!(matches!(lane.logs[0].read(Offset(3), Offset(6), 500, true), Read::Job(_)));
    assert_eq!(lane.read_all(0, Offset(0), 10_000).unwrap(), all);
    drop(lane);
    disk.crash(3, Tearing::Blocks);
    let mut lane = lane_on(&disk, LogConfig::default());
    assert_eq!(lane.logs[0].durable(), Offset(6));
    assert!(lane.logs[0].segments().is_empty(), "no checkpoint names them");
    assert_eq!(lane.read_all(0, Offset(0), 150).unwrap(), all, "from the journal, in place");
    assert!(lane.flush(0).unwrap());
    assert_eq!(lane.read_all(0, Offset(0), 150).unwrap(), all);
}

#[test]
fn largest_time_is_that_of_what_may_be_read() {
    let (_, mut lane) = lane();
    for time in [10, 90, 50] {
        lane.append(0, &Batch { max_timestamp: time, ..Batch::of(1) }, 0);
    }
    let largest = |lane: &Lane, up_to| lane.logs[0].max_timestamp(Offset(up_to));
    assert_eq!(
        [0, 1, 2, 3].map(|up_to| largest(&lane, up_to)),
        [None, Some(10), Some(90), Some(90)].map(|time| time.map(Timestamp))
    );
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    assert_eq!(largest(&lane, 3), Some(Timestamp(90)));
}

#[test]
fn a_time_is_found_in_memory_in_segments_and_after_a_restart() {
    let (disk, mut lane) = lane_with(LogConfig { segment_bytes: 250, ..LogConfig::default() });
    let times = [10, 50, 20, 60, 30, 90];
    let batches: Vec<Bytes> =
        times.iter().map(|time| lane.append(0, &Batch { max_timestamp: *time, ..Batch::of(1) }, 0)).collect();
    lane.commit().unwrap();
    let find = |lane: &Lane, time: i64, up_to: i64| match lane.logs[0].lookup_timestamp(Timestamp(time), Offset(up_to))
    {
        Lookup::Ready(found) => found,
        Lookup::Damaged(hole) => panic!("{hole}"),
        Lookup::Job(job) => match job.run(&lane.access).unwrap() {
            LookupDone::Found(batch) => Some(batch),
            LookupDone::NotFound => None,
            other => panic!("{other:?}"),
        },
    };
    let check = |lane: &Lane| {
        assert_eq!(find(lane, 5, 6).as_ref(), Some(&batches[0]));
        assert_eq!(find(lane, 15, 6).as_ref(), Some(&batches[1]));
        assert_eq!(find(lane, 55, 6).as_ref(), Some(&batches[3]));
        assert_eq!(find(lane, 61, 6).as_ref(), Some(&batches[5]));
        assert_eq!(find(lane, 61, 5), None, "not above the limit");
        assert_eq!(find(lane, 91, 6), None);
        assert_eq!(lane.logs[0].max_timestamp(Offset(6)), Some(Timestamp(90)));
    };
    check(&lane);
    lane.flush(0).unwrap();
    check(&lane);
    lane.checkpoint().unwrap();
    drop(lane);
    disk.crash(1, Tearing::Blocks);
    check(&lane_on(&disk, LogConfig::default()));
}

#[test]
fn retention_moves_the_start_and_files_go_only_after_a_checkpoint() {
    let keep = LogConfig { segment_bytes: 250, retention_ms: Some(Duration::from_millis(100)), ..LogConfig::default() };
    let (disk, mut lane) = lane_with(keep);
    for time in [10, 20, 30, 500, 510] {
        lane.append(0, &Batch { max_timestamp: time, ..Batch::of(1) }, 0);
    }
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    let log = &lane.logs[0];
    assert_eq!(log.plan_retention(Timestamp(540), Offset(1)), None, "nothing above the high watermark");
    assert_eq!(log.plan_retention(Timestamp(540), Offset(5)), Some(Offset(2)), "30 and 500 share a segment");
    assert_eq!(log.plan_retention(Timestamp(1_000), Offset(5)), Some(Offset(5)), "the active one too");
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(2), ticket).expect("rises");
    lane.push(ticket, entry);
    lane.commit().unwrap();
    assert!(lane.logs[0].plan_deletes().is_none(), "no checkpoint says so yet");
    assert!(matches!(lane.logs[0].read(Offset(1), Offset(5), 100, true), Read::OutOfRange));
    assert!(disk.exists(&log_file(0)).unwrap());
    lane.checkpoint().unwrap();
    assert!(!disk.exists(&log_file(0)).unwrap());
    assert_eq!(lane.logs[0].segments()[0].base, Offset(2));
}

#[test]
fn retention_by_size_keeps_at_least_the_limit() {
    let (_, mut lane) = lane_with(LogConfig {
        segment_bytes: 250,
        retention_ms: None,
        retention_bytes: Some(450),
        ..LogConfig::default()
    });
    (0..6).for_each(|_| drop(lane.append(0, &Batch::of(1), 0)));
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    assert_eq!(lane.logs[0].size_bytes(), 606);
    assert_eq!(lane.logs[0].plan_retention(NOW, Offset(6)), None, "404 would be left");
    lane.logs[0].set_config(LogConfig { retention_ms: None, retention_bytes: Some(404), ..LogConfig::default() });
    assert_eq!(lane.logs[0].plan_retention(NOW, Offset(6)), Some(Offset(2)));
}

#[test]
fn segments_roll_by_the_time_of_their_records() {
    let (_, mut lane) = lane_with(LogConfig { segment_ms: Duration::from_millis(100), ..LogConfig::default() });
    for time in [1_000, 1_100, 1_101] {
        lane.append(0, &Batch { max_timestamp: time, ..Batch::of(1) }, 0);
        lane.commit().unwrap();
        lane.flush(0).unwrap();
    }
    let bases: Vec<i64> = lane.logs[0].segments().iter().map(|segment| segment.base.0).collect();
    assert_eq!(bases, [0, 2]);
}

#[test]
fn an_epoch_begun_without_a_record_survives() {
    let (disk, mut lane) = lane();
    lane.append(0, &Batch::of(4), 2);
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].begin_epoch(LeaderEpoch(5), ticket);
    lane.push(ticket, entry);
    lane.commit().unwrap();
    drop(lane);
    disk.crash(9, Tearing::Sectors);
    let lane = lane_on(&disk, LogConfig::default());
    let end = |epoch| lane.logs[0].end_offset_for_epoch(LeaderEpoch(epoch));
    assert_eq!(end(2), Ok(EpochEnd { epoch: LeaderEpoch(2), end: Offset(4) }));
    assert_eq!(end(5), Ok(EpochEnd { epoch: LeaderEpoch(5), end: Offset(4) }));
    assert_eq!(lane.logs[0].latest_epoch(), Some(LeaderEpoch(5)));
}

#[test]
fn a_reset_begins_anew_and_its_old_files_go_after_a_checkpoint() {
    let (disk, mut lane) = lane();
    lane.append(0, &of_producer(0, 0, 4), 2);
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].reset(Offset(100), ticket);
    lane.push(ticket, entry);
    lane.commit().unwrap();
    lane.append(0, &Batch::of(1), 3);
    lane.commit().unwrap();
    assert!(!lane.flush(0).unwrap(), "files stay as they are until a checkpoint says so");
    lane.checkpoint().unwrap();
    assert!(!disk.exists(&log_file(0)).unwrap());
    assert!(lane.flush(0).unwrap());
    drop(lane);
    disk.crash(4, Tearing::Blocks);
    let lane = lane_on(&disk, LogConfig::default());
    let log = &lane.logs[0];
    assert_eq!((log.log_start(), log.log_end()), (Offset(100), Offset(101)));
    assert!(log.producers().is_empty());
}

#[test]
fn nothing_is_flushed_to_where_files_are_being_deleted() {
    let (disk, mut lane) = lane_with(LogConfig { segment_bytes: 300, ..LogConfig::default() });
    let fill = |lane: &mut Lane| {
        while lane.logs[0].log_end() < Offset(12) {
            lane.append(0, &Batch::of(1), 0);
            lane.commit().unwrap();
        }
    };
    fill(&mut lane);
    while lane.flush(0).unwrap() {}
    lane.checkpoint().unwrap();
    let before: Vec<_> = lane.logs[0].segments().iter().map(|segment| segment.base).collect();
    lane.truncate(0, before[1]).unwrap();
    lane.commit().unwrap();
    fill(&mut lane);
    let (durable, generation) = (lane.durable(), lane.logs[0].key().generation);
    lane.logs[0].plan_checkpoint(durable).unwrap();
    lane.logs[0].on_checkpointed(generation);
    let job = lane.logs[0].plan_deletes().expect("what was cut off");
    assert!(job.segments.iter().any(|name| name.base == before[2]));
    assert!(!lane.flush(0).unwrap(), "its files are not gone");
    job.run(&lane.access).unwrap();
    lane.logs[0].on_deleted(&job);
    while lane.flush(0).unwrap() {}
    let after: Vec<_> = lane.logs[0].segments().iter().map(|segment| segment.base).collect();
    assert_eq!(after, before);
    assert!(after.iter().all(|base| disk.exists(&log_file(base.0)).unwrap()));
}

#[test]
fn a_dropped_log_stays_dropped() {
    let (disk, mut lane) = lane();
    lane.append(0, &Batch::of(4), 0);
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].drop_log(ticket);
    lane.push(ticket, entry);
    assert!(!lane.logs[0].is_gone());
    lane.commit().unwrap();
    disk.kill();
    let lane = lane_on(&disk, LogConfig::default());
    assert!(lane.logs.is_empty());
    drop(lane);
    disk.kill();
    let mut lane = lane_on(&disk, LogConfig::default());
    lane.create(0);
    lane.commit().unwrap();
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    assert_eq!(lane.logs[0].size_bytes(), 101, "of the old log's file nothing is left");
    assert_eq!(lane.read_all(0, Offset(0), 1).unwrap().len(), 101);
}

#[test]
fn a_flipped_bit_in_a_segment_is_found_when_it_is_read() {
    for byte in [3, 14, 70, 150] {
        let (disk, mut lane) = lane();
        lane.append(0, &Batch::of(1), 0);
        lane.append(0, &Batch::of(1), 0);
        lane.commit().unwrap();
        lane.flush(0).unwrap();
        lane.logs[0].evict(0);
        disk.flip_bit(&log_file(0), byte, 2);
        let Read::Job(job) = lane.logs[0].read(Offset(0), Offset(2), 1_000, true) else { panic!("on disk") };
        assert_eq!(job.try_now(&lane.access, &mut plenty()), None, "what is wrong is for the job to say");
        assert!(matches!(job.run(&lane.access), Err(Fault::Damage { what: "segment block", position: 0, .. })));
    }
}

/// What a read may cost that is not to be refused for it.
fn plenty() -> u64 {
    u64::MAX
}

#[test]
fn a_read_on_the_lane_pays_for_what_it_passes_on_the_way_and_ends_when_that_is_too_much() {
    let (_, mut lane) = lane_with(LogConfig { index_interval_bytes: 1 << 30, ..LogConfig::default() });
    for seed in 0..40 {
        lane.append(0, &Batch { filler_bytes: 10 << 10, seed, ..Batch::of(1) }, 0);
    }
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.logs[0].evict(0);
    let read = |from: i64| match lane.logs[0].read(Offset(from), Offset(40), 1000, true) {
        Read::Job(job) => job,
        other => panic!("on disk: {other:?}"),
    };
    // The files are open once a job has read.
    let done = read(39).run(&lane.access).unwrap();
    let (mut enough, mut little) = (1 << 20, 128 << 10);
    assert!(read(39).try_now(&lane.access, &mut enough) == Some(done));
    assert!(enough < 624 << 10, "all of 400 KiB was passed: {enough} are left");
    assert!(read(39).try_now(&lane.access, &mut little).is_none());
    assert!(little < 64 << 10, "what was read for nothing counts: {little} are left");
    let mut small = 128 << 10;
    assert!(read(0).try_now(&lane.access, &mut small).is_some());
}

#[test]
fn segment_in_the_page_cache_is_read_without_waiting_and_one_that_is_not_by_a_job() {
    let (disk, mut lane) = lane_with(LogConfig { segment_bytes: 300, ..LogConfig::default() });
    let batches: Vec<Bytes> = (0..6).map(|_| lane.append(0, &Batch::of(1), 0)).collect();
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.logs[0].evict(0);
    let read = |lane: &Lane| match lane.logs[0].read(Offset(1), Offset(6), 10_000, true) {
        Read::Job(job) => job,
        other => panic!("on disk: {other:?}"),
    };
    let done = read(&lane).run(&lane.access).unwrap();
    let ReadDone::Batches { batches: found, .. } = &done else { panic!("it is there") };
    assert_eq!(found.concat(), batches[1], "one segment at a time");
    assert_eq!(read(&lane).try_now(&lane.access, &mut plenty()), Some(done.clone()));
    disk.seed_page_cache(3);
    let answers: Vec<_> = (0..32).map(|_| read(&lane).try_now(&lane.access, &mut plenty())).collect();
    assert!(answers.contains(&None) && answers.contains(&Some(done)));
    lane.access.files().forget_all(lane.logs[0].key().partition);
    assert_eq!(read(&lane).try_now(&lane.access, &mut plenty()), None, "opening a file is a job's work");
}

#[test]
fn a_read_planned_before_its_file_was_deleted_is_asked_again() {
    let (_, mut lane) = lane();
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.logs[0].evict(0);
    let Read::Job(job) = lane.logs[0].read(Offset(0), Offset(1), 1_000, true) else { panic!("on disk") };
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(1), ticket).expect("rises");
    lane.push(ticket, entry);
    lane.commit().unwrap();
    lane.checkpoint().unwrap();
    assert_eq!(job.run(&lane.access).unwrap(), ReadDone::Moved);
}

#[test]
fn a_segment_whose_last_record_is_deleted_while_a_flush_writes_it_goes_too() {
    let (disk, mut lane) = lane();
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    let job = lane.logs[0].plan_flush(NOW, true, 0).expect("there is something");
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(1), ticket).expect("rises");
    lane.push(ticket, entry);
    lane.commit().unwrap();
    let done = job.run(&lane.access).unwrap();
    assert!(lane.logs[0].on_flushed(done));
    assert!(disk.exists(&log_file(0)).unwrap());
    lane.checkpoint().unwrap();
    assert!(!disk.exists(&log_file(0)).unwrap());
}

#[test]
fn a_replica_without_its_directory_is_damaged_and_a_relaxed_one_may_lack_records() {
    let (disk, mut lane) = lane();
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    lane.create(1);
    let ticket = lane.next_ticket();
    let entry = lane.logs[1].set_mode(false, ticket).expect("was strict");
    lane.push(ticket, entry);
    lane.commit().unwrap();
    drop(lane);
    disk.crash(1, Tearing::Blocks);
    let lane = lane_on(&disk, LogConfig::default());
    assert_eq!(lane.verdicts, [Verdict::Proved, Verdict::Lost(Loss::Relaxed)]);
    drop(lane);
    let directory = PathBuf::from(ROOT).join(partition(0).to_string());
    disk.rename(&directory, &PathBuf::from(ROOT).join("elsewhere")).unwrap();
    let lane = lane_on(&disk, LogConfig::default());
    assert_eq!(lane.verdicts[0], Verdict::Damaged);
    let [hole] = lane.logs[0].holes() else { panic!("one hole: {:?}", lane.logs[0].holes()) };
    assert_eq!((hole.start, hole.end, hole.why), (Offset(0), Offset(1), Cause::Missing));
}

fn log_file(base: i64) -> PathBuf {
    PathBuf::from(ROOT).join(partition(0).to_string()).join(format!("{base:020}.log"))
}
