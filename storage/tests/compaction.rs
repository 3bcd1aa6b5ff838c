//! Kafka's rules of compaction, each as a test, and random histories against a plain map.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compaction_support;
mod support;

use std::sync::Arc;

use stonelog_protocol::batch::{BatchHeader, Compression};
use stonelog_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};
use stonelog_storage::Fault;
use stonelog_storage::compaction::CompactionLimits;
use stonelog_storage::disk::SimDisk;
use stonelog_storage::log::{LogConfig, Lookup, Read};
use stonelog_storage::segment::read::{LookupDone, ReadDone};

use compaction_support::{
    DELETE_RETENTION, LIMITS, Model, Room, Unpaced, Until, Writer, append, compact, compact_up_to, config,
    in_transaction, keyed, marker, nameless_files, read, roll, settle, values,
};
use support::{Lane, NOW, new_disk};

const LATER: Timestamp = Timestamp(NOW.0 + 10_000);

fn lane_with(config: LogConfig) -> (SimDisk, Lane) {
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), config).unwrap();
    lane.create(0);
    lane.commit().unwrap();
    (disk, lane)
}

fn lane() -> (SimDisk, Lane) {
    lane_with(config(4_000))
}

fn put(lane: &mut Lane, key: &str, value: &str) -> i64 {
    append(lane, 0, keyed(&[(key, Some(value.as_bytes()))], Compression::None, NOW.0))
}

fn delete(lane: &mut Lane, key: &str) -> i64 {
    append(lane, 0, keyed(&[(key, None)], Compression::None, NOW.0))
}

fn row(offset: i64, key: &str, value: &str) -> (i64, String, Option<String>) {
    (offset, key.to_owned(), Some(value.to_owned()))
}

fn all(lane: &mut Lane) -> Vec<(i64, String, Option<String>)> {
    values(&read(lane, 0).unwrap())
}

#[test]
fn of_each_key_the_newest_record_stays_at_its_offset() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "b", "1");
    put(&mut lane, "a", "2");
    append(&mut lane, 0, keyed(&[("c", Some(b"1")), ("a", Some(b"3")), ("b", Some(b"2"))], Compression::Zstd, NOW.0));
    roll(&mut lane, 0);
    let before = lane.logs[0].size_bytes();
    let totals = compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [row(3, "c", "1"), row(4, "a", "3"), row(5, "b", "2")]);
    assert_eq!((totals.records_read, totals.records_kept, totals.keys_count), (6, 3, 3));
    assert!(lane.logs[0].size_bytes() < before);
    assert_eq!((lane.logs[0].log_start(), lane.logs[0].log_end()), (Offset(0), Offset(7)), "offsets stay");
    assert!(lane.logs[0].compaction_due(NOW, Offset(7)).is_none(), "nothing is dirty");
}

#[test]
fn the_active_segment_is_never_compacted() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "a", "2");
    settle(&mut lane, 0).unwrap();
    assert_eq!(compact(&mut lane, 0, NOW).unwrap(), None);
    assert_eq!(all(&mut lane).len(), 2);
}

#[test]
fn nothing_beyond_the_last_stable_offset_is_compacted() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "a", "2");
    roll(&mut lane, 0);
    let done = compact_up_to(&mut lane, 0, NOW, Offset(1), LIMITS, &mut Unpaced).unwrap();
    assert_eq!((done, all(&mut lane).len()), (None, 2));
    assert!(compact_up_to(&mut lane, 0, NOW, Offset(2), LIMITS, &mut Unpaced).unwrap().is_some());
    assert_eq!(all(&mut lane).len(), 1);
}

#[test]
fn nothing_beyond_the_checkpoint_is_compacted() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "a", "2");
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    append(&mut lane, 0, keyed(&[("filler", Some(&[1; 3_800]))], Compression::None, NOW.0));
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    assert_eq!(lane.logs[0].segments().len(), 2);
    assert_eq!(compact(&mut lane, 0, NOW).unwrap(), None);
    lane.checkpoint().unwrap();
    assert!(compact(&mut lane, 0, NOW).unwrap().is_some());
}

#[test]
fn a_tombstone_stays_until_its_delete_horizon_and_goes_then() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    delete(&mut lane, "a");
    put(&mut lane, "b", "1");
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [(1, "a".into(), None), row(2, "b", "1")], "the first time it is only marked");
    let horizon = NOW.saturating_add(DELETE_RETENTION);
    for (now, is_there) in [(Timestamp(horizon.0 - 1), true), (horizon, false)] {
        put(&mut lane, "c", "1");
        roll(&mut lane, 0);
        compact(&mut lane, 0, now).unwrap().unwrap();
        assert_eq!(all(&mut lane).iter().any(|(_, key, _)| key == "a"), is_there, "{now:?}");
    }
}

#[test]
fn a_marked_tombstone_keeps_its_time() {
    let (_, mut lane) = lane();
    append(&mut lane, 0, keyed(&[("a", None), ("b", Some(b"1"))], Compression::Gzip, NOW.0 - 77));
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    let times: Vec<i64> = read(&mut lane, 0).unwrap().iter().map(|record| record.timestamp).collect();
    assert_eq!(times[..2], [NOW.0 - 77; 2]);
}

#[test]
fn records_without_key_are_dropped() {
    let (_, mut lane) = lane();
    let mut batch = keyed(&[("a", Some(b"1"))], Compression::None, NOW.0);
    batch.push(stonelog_protocol::batch::NewRecord::new(NOW, None, Some(b"x")));
    append(&mut lane, 0, batch);
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [row(0, "a", "1")]);
}

#[test]
fn an_empty_batch_keeps_its_producers_last_sequence() {
    let (_, mut lane) = lane();
    let of = |sequence, key| {
        keyed(&[(key, Some(b"1"))], Compression::None, NOW.0).by_producer(ProducerId(5), ProducerEpoch(2), sequence)
    };
    append(&mut lane, 0, of(0, "a"));
    append(&mut lane, 0, of(1, "b"));
    put(&mut lane, "a", "2");
    put(&mut lane, "b", "2");
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [row(2, "a", "2"), row(3, "b", "2")]);
    let bytes = lane.read_all(0, Offset(0), 10_000).unwrap();
    let first = BatchHeader::read(&bytes).unwrap();
    let kept = (first.base_offset, first.producer_id, first.producer_epoch, first.last_sequence(), first.records_count);
    assert_eq!(kept, (Offset(1), ProducerId(5), ProducerEpoch(2), 1, 0));
}

#[test]
fn an_aborted_transaction_supersedes_nothing_and_goes() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "b", "1");
    in_transaction(&mut lane, 0, 9, 0, &[("a", Some(b"aborted"))]);
    in_transaction(&mut lane, 0, 8, 0, &[("b", Some(b"committed"))]);
    marker(&mut lane, 0, 9, false);
    marker(&mut lane, 0, 8, true);
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [row(0, "a", "1"), row(3, "b", "committed")]);
}

#[test]
fn an_open_transaction_ends_what_is_compacted() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "a", "2");
    in_transaction(&mut lane, 0, 9, 0, &[("a", Some(b"open"))]);
    put(&mut lane, "b", "1");
    put(&mut lane, "b", "2");
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    let expected = [row(1, "a", "2"), row(2, "a", "open"), row(3, "b", "1"), row(4, "b", "2")];
    assert_eq!(all(&mut lane), expected);
    assert_eq!(lane.logs[0].clean_end(), Offset(2));
    marker(&mut lane, 0, 9, true);
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(all(&mut lane), [row(2, "a", "open"), row(4, "b", "2")]);
}

/// Markers by producer and offset.
fn markers(lane: &mut Lane) -> Vec<i64> {
    read(lane, 0).unwrap().iter().filter(|record| record.is_control).map(|record| record.offset).collect()
}

#[test]
fn markers_are_never_merged_and_stay_until_their_data_is_gone_and_the_horizon_has_passed() {
    let (_, mut lane) = lane();
    in_transaction(&mut lane, 0, 9, 0, &[("a", Some(b"1"))]);
    in_transaction(&mut lane, 0, 8, 0, &[("b", Some(b"1"))]);
    marker(&mut lane, 0, 9, true);
    marker(&mut lane, 0, 8, true);
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [2, 3], "two markers of one kind");
    put(&mut lane, "a", "2");
    roll(&mut lane, 0);
    compact(&mut lane, 0, LATER).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [2, 3], "its data went in this round");
    // The data of producer 9 is kept as an empty batch with its last sequence: it is data all the same.
    for n in 0..3 {
        let sequence = 1 + n;
        in_transaction(&mut lane, 0, 9, sequence, &[("c", Some(b"1"))]);
        marker(&mut lane, 0, 9, true);
        roll(&mut lane, 0);
        let now = LATER.saturating_add(DELETE_RETENTION * (n as u32 + 1));
        compact(&mut lane, 0, now).unwrap().unwrap();
        let kept = markers(&mut lane);
        assert_eq!(kept.contains(&2), n < 2, "round {n}: met without data, marked, then gone: {kept:?}");
        assert!(kept.contains(&3), "its data is there");
    }
}

#[test]
fn a_marker_outlives_the_horizon_only_once_it_was_met_without_data() {
    let (_, mut lane) = lane();
    in_transaction(&mut lane, 0, 9, 0, &[("a", Some(b"aborted"))]);
    marker(&mut lane, 0, 9, false);
    in_transaction(&mut lane, 0, 9, 1, &[("b", Some(b"1"))]);
    marker(&mut lane, 0, 9, true);
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [1, 3]);
    put(&mut lane, "x", "1");
    roll(&mut lane, 0);
    compact(&mut lane, 0, LATER).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [1, 3], "the first round without its data only marks it");
    put(&mut lane, "x", "2");
    roll(&mut lane, 0);
    compact(&mut lane, 0, LATER).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [1, 3], "the horizon lies ahead");
    put(&mut lane, "x", "3");
    roll(&mut lane, 0);
    compact(&mut lane, 0, LATER.saturating_add(DELETE_RETENTION)).unwrap().unwrap();
    assert_eq!(markers(&mut lane), [3]);
}

#[test]
fn a_full_map_cleans_as_far_as_it_goes_and_the_next_round_goes_on() {
    let (_, mut lane) = lane();
    for n in 0..60 {
        put(&mut lane, &format!("key-{}", n % 30), &format!("{n}"));
    }
    roll(&mut lane, 0);
    let small = CompactionLimits { map_bytes_max: 24 * 24, ..LIMITS };
    let mut ends = Vec::new();
    while let Some(_totals) = compact_up_to(&mut lane, 0, NOW, Offset(60), small, &mut Unpaced).unwrap() {
        ends.push(lane.logs[0].clean_end().0);
        lane.checkpoint().unwrap();
    }
    assert!(ends.len() >= 3 && ends.is_sorted() && ends.last() == Some(&60), "{ends:?}");
    let kept = all(&mut lane);
    assert_eq!(kept.len(), 30, "{kept:?}");
    assert!(kept.iter().all(|(offset, _, value)| *offset >= 30 && value.as_ref() == Some(&offset.to_string())));
}

#[test]
fn a_map_that_fills_up_within_a_transaction_leaves_all_of_it_to_the_next_round() {
    let (_, mut lane) = lane();
    put(&mut lane, "deleted", "1");
    for n in 1..11 {
        put(&mut lane, &format!("filler-{n}"), "1");
    }
    let keys: Vec<String> = (0..15).map(|n| format!("key-{n}")).collect();
    let mut records: Vec<(&str, Option<&[u8]>)> = keys.iter().map(|key| (&key[..], Some(&b"1"[..]))).collect();
    records.push(("deleted", None));
    in_transaction(&mut lane, 0, 9, 0, &records);
    marker(&mut lane, 0, 9, true);
    roll(&mut lane, 0);
    let small = CompactionLimits { map_bytes_max: 24 * 24, ..LIMITS };
    let end = lane.logs[0].log_end();
    let mut ends = Vec::new();
    for round in 0..6 {
        let now = LATER.saturating_add(DELETE_RETENTION * round);
        while compact_up_to(&mut lane, 0, now, end, small, &mut Unpaced).unwrap().is_some() {
            ends.push(lane.logs[0].clean_end().0);
            lane.checkpoint().unwrap();
        }
        put(&mut lane, "filler-1", "2");
        roll(&mut lane, 0);
    }
    assert_eq!(ends[0], 11, "nothing of the transaction is clean: {ends:?}");
    let alive: Vec<_> = all(&mut lane).into_iter().filter(|(_, key, _)| key == "deleted").collect();
    assert!(alive.iter().all(|(_, _, value)| value.is_none()), "it was deleted: {alive:?}");
}

#[test]
fn a_batch_with_more_keys_than_the_map_takes_stops_this_logs_compaction() {
    let (_, mut lane) = lane();
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let records: Vec<(&str, Option<&[u8]>)> = keys.iter().map(|key| (&key[..], Some(&b"1"[..]))).collect();
    append(&mut lane, 0, keyed(&records, Compression::None, NOW.0));
    roll(&mut lane, 0);
    let small = CompactionLimits { map_bytes_max: 24 * 24, ..LIMITS };
    let stuck = compact_up_to(&mut lane, 0, NOW, Offset(40), small, &mut Unpaced);
    assert!(stuck.unwrap_err().to_string().contains("log.cleaner.dedupe.buffer.size"));
    assert!(lane.logs[0].compaction_due(NOW, Offset(40)).is_none(), "not tried again and again");
}

#[test]
fn a_batch_that_loses_nothing_stays_as_it_is_to_the_byte() {
    let (_, mut lane) = lane();
    append(&mut lane, 0, keyed(&[("a", Some(b"1")), ("b", Some(b"1"))], Compression::Gzip, NOW.0));
    put(&mut lane, "c", "1");
    put(&mut lane, "c", "2");
    roll(&mut lane, 0);
    let before = lane.read_all(0, Offset(0), 10_000).unwrap();
    let batch = BatchHeader::read(&before).unwrap().batch_bytes;
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    lane.logs[0].evict(0);
    let after = lane.read_all(0, Offset(0), 10_000).unwrap();
    assert!(after.len() < before.len());
    assert_eq!(after[..batch], before[..batch]);
}

#[test]
fn a_segment_in_which_nothing_changes_is_not_replaced() {
    let (_, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "b", "1");
    roll(&mut lane, 0);
    let totals = compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert_eq!((totals.bytes_replaced, lane.logs[0].segments()[0].version), (0, 0));
    assert_eq!(lane.logs[0].clean_end(), Offset(2));
    assert_eq!(nameless_files(&lane, 0), Vec::<String>::new());
}

#[test]
fn small_segments_become_one() {
    let (_, mut lane) = lane();
    for round in 0..6 {
        for key in 0..20 {
            put(&mut lane, &format!("key-{key}"), &format!("{round}"));
        }
        roll(&mut lane, 0);
    }
    let before = lane.logs[0].segments().len();
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    lane.checkpoint().unwrap();
    compact(&mut lane, 0, NOW).unwrap();
    put(&mut lane, "last", "1");
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    let after = lane.logs[0].segments().len();
    assert!(after * 2 <= before, "{before} segments became {after}");
    assert_eq!(all(&mut lane).len(), 21);
}

#[test]
fn damage_stops_the_compaction_of_its_log_and_changes_nothing() {
    let (disk, mut lane) = lane();
    put(&mut lane, "a", "1");
    put(&mut lane, "a", "2");
    roll(&mut lane, 0);
    let path = lane.access.path(std::path::Path::new(&format!("{}/{:020}.log", lane.logs[0].key().partition, 0)));
    let file = stonelog_storage::disk::Disk::open(&disk, &path, stonelog_storage::disk::Open::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(70, &mut byte).unwrap();
    file.write_at(70, &[std::io::IoSlice::new(&[byte[0] ^ 4])]).unwrap();
    let before = lane.logs[0].segments().to_vec();
    assert!(matches!(compact(&mut lane, 0, NOW), Err(Fault::Damage { .. })));
    assert_eq!(lane.logs[0].segments(), before);
    assert_eq!(nameless_files(&lane, 0), Vec::<String>::new());
    assert!(lane.logs[0].compaction_due(NOW, Offset(2)).is_none());
    file.write_at(70, &[std::io::IoSlice::new(&byte)]).unwrap();
}

#[test]
fn a_stopped_compaction_leaves_no_file_and_may_be_planned_again() {
    let (_, mut lane) = lane();
    for n in 0..60 {
        put(&mut lane, &format!("key-{}", n % 7), &format!("{n}"));
    }
    roll(&mut lane, 0);
    for calls in 1..5 {
        let end = lane.logs[0].durable();
        compact_up_to(&mut lane, 0, NOW, end, LIMITS, &mut Until(calls)).unwrap().unwrap();
        lane.checkpoint().unwrap();
        assert_eq!(nameless_files(&lane, 0), Vec::<String>::new(), "{calls}");
    }
    compact(&mut lane, 0, NOW).unwrap();
    lane.checkpoint().unwrap();
    assert_eq!(all(&mut lane).len(), 7);
}

#[test]
fn a_reader_of_a_replaced_segment_reads_it_to_the_end_or_asks_again() {
    let (_, mut lane) = lane();
    for n in 0..20 {
        put(&mut lane, "a", &format!("{n}"));
    }
    roll(&mut lane, 0);
    lane.logs[0].evict(0);
    let Read::Job(planned) = lane.logs[0].read(Offset(0), Offset(20), 400, true) else { panic!("on disk") };
    let again = planned.clone();
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    assert!(matches!(planned.run(&lane.access).unwrap(), ReadDone::Batches { batches, .. } if !batches.is_empty()));
    lane.checkpoint().unwrap();
    assert_eq!(again.run(&lane.access).unwrap(), ReadDone::Moved, "the files are gone");
    assert_eq!(all(&mut lane), [row(19, "a", "19")]);
}

#[test]
fn a_time_is_found_in_a_compacted_log_and_never_in_an_empty_batch() {
    let (_, mut lane) = lane();
    let at = |key, time, sequence| {
        let batch = keyed(&[(key, Some(&b"1"[..]))], Compression::None, time);
        batch.by_producer(ProducerId(1), ProducerEpoch(0), sequence)
    };
    append(&mut lane, 0, keyed(&[("a", Some(b"1"))], Compression::None, 100));
    append(&mut lane, 0, at("b", 900, 0));
    append(&mut lane, 0, keyed(&[("b", Some(b"2"))], Compression::None, 300));
    append(&mut lane, 0, keyed(&[("c", Some(b"1"))], Compression::None, 950));
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    lane.logs[0].evict(0);
    let found = |time| match lane.logs[0].lookup_timestamp(Timestamp(time), Offset(5)) {
        Lookup::Damaged(hole) => panic!("{hole}"),
        Lookup::Job(job) => match job.run(&lane.access).unwrap() {
            LookupDone::Found(batch) => Some(BatchHeader::read(&batch).unwrap().base_offset.0),
            _ => None,
        },
        Lookup::Ready(batch) => batch.map(|batch| BatchHeader::read(&batch).unwrap().base_offset.0),
    };
    assert_eq!([found(50), found(200), found(400)], [Some(0), Some(2), Some(3)]);
}

#[test]
fn what_there_is_no_room_for_is_not_begun_and_the_log_stays_as_it_is() {
    let (_, mut lane) = lane();
    (0..20).for_each(|n| _ = put(&mut lane, "a", &format!("{n}")));
    roll(&mut lane, 0);
    let (before, files, end) = (all(&mut lane), lane.logs[0].segments().to_vec(), lane.logs[0].durable());
    let bytes: u64 = files[..files.len() - 1].iter().map(|segment| segment.bytes).sum();
    compact_up_to(&mut lane, 0, NOW, end, LIMITS, &mut Room(bytes - 1)).unwrap().unwrap();
    assert_eq!((all(&mut lane), lane.logs[0].segments()), (before, &files[..]));
    let totals = compact_up_to(&mut lane, 0, NOW, end, LIMITS, &mut Room(bytes)).unwrap().unwrap();
    assert_eq!(totals.bytes_replaced, bytes);
}

#[test]
fn a_truncation_meanwhile_wins_over_the_compaction() {
    let (_, mut lane) = lane();
    for n in 0..20 {
        put(&mut lane, "a", &format!("{n}"));
    }
    roll(&mut lane, 0);
    let end = lane.logs[0].durable();
    assert!(lane.logs[0].plan_sweep(NOW, end).is_some());
    lane.logs[0].on_swept(true);
    let job = lane.logs[0].plan_compaction(NOW, end, LIMITS).unwrap();
    let replica = job.replica;
    let access = Arc::clone(&lane.access);
    let stonelog_storage::compaction::Mapped::Ready(mut rewriting) = job.map_keys(&access, &mut Unpaced).unwrap()
    else {
        panic!("nothing stops it")
    };
    let stonelog_storage::compaction::Step::Replace(done) = rewriting.step(&access, &mut Unpaced).unwrap() else {
        panic!("there is something to drop")
    };
    lane.truncate(0, Offset(10)).unwrap();
    lane.commit().unwrap();
    assert!(!lane.logs[0].on_compacted(&done), "another generation");
    lane.logs[0].on_compaction_ended(replica, Some(Offset(20)), false);
    assert_eq!(lane.logs[0].clean_end(), Offset(0));
    lane.checkpoint().unwrap();
    assert_eq!(all(&mut lane).len(), 10);
}

#[test]
fn retention_deletes_whole_compacted_segments() {
    let policy = LogConfig { delete: true, retention_bytes: Some(9_000), retention_ms: None, ..config(4_000) };
    let (_, mut lane) = lane_with(policy);
    for n in 0..8 {
        put(&mut lane, &format!("{n}"), "1");
        put(&mut lane, "same", "1");
        roll(&mut lane, 0);
    }
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    lane.checkpoint().unwrap();
    let mut filler = 0;
    while lane.logs[0].plan_retention(NOW, lane.logs[0].log_end()).is_none() {
        filler += 1;
        let value = vec![filler; 3_700];
        append(&mut lane, 0, keyed(&[(&format!("big-{filler}"), Some(&value))], Compression::None, NOW.0));
        settle(&mut lane, 0).unwrap();
    }
    let start = lane.logs[0].plan_retention(NOW, lane.logs[0].log_end()).unwrap();
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(start, ticket).unwrap();
    lane.push(ticket, entry);
    settle(&mut lane, 0).unwrap();
    assert_eq!(lane.logs[0].segments()[0].base, start);
    assert_eq!(nameless_files(&lane, 0), Vec::<String>::new());
    assert!(lane.logs[0].clean_end() >= start);
}

#[test]
fn compaction_survives_a_clean_restart_with_its_clean_end() {
    let (disk, mut lane) = lane();
    for n in 0..20 {
        put(&mut lane, &format!("{}", n % 3), &format!("{n}"));
    }
    roll(&mut lane, 0);
    compact(&mut lane, 0, NOW).unwrap().unwrap();
    lane.checkpoint().unwrap();
    let before = (all(&mut lane), lane.logs[0].segments()[0].name(), lane.logs[0].clean_end());
    let producers = lane.logs[0].producers().clone();
    drop(lane);
    let mut lane = Lane::start(Arc::new(disk), config(4_000)).unwrap();
    assert_eq!((all(&mut lane), lane.logs[0].segments()[0].name(), lane.logs[0].clean_end()), before);
    assert_eq!(lane.logs[0].producers(), &producers);
    assert_eq!(before.1.version, 1);
}

/// Seeds per test; `COMPACTION_SEEDS` asks for more.
fn seeds_count(usual: u64) -> u64 {
    std::env::var("COMPACTION_SEEDS").map_or(usual, |count| count.parse().expect("COMPACTION_SEEDS is a number"))
}

fn random_history(seed: u64, with_transactions: bool, map_bytes_max: u64) {
    let (disk, mut lane) = lane_with(config(2_500));
    let mut writer = Writer::new(seed, 12, with_transactions);
    let mut now = NOW;
    let mut rounds = 0;
    for _ in 0..400 {
        match writer.random.below(20) {
            0..=10 => writer.append(&mut lane, 0),
            11..=13 => writer.end_transaction(&mut lane, 0),
            14 | 15 => settle(&mut lane, 0).unwrap(),
            16 => now = now.saturating_add(DELETE_RETENTION / 2),
            17 => {
                drop(lane);
                disk.crash(seed, stonelog_storage::disk::Tearing::Blocks);
                lane = Lane::start(Arc::new(disk.clone()), config(2_500)).unwrap();
            }
            _ => {
                lane.commit().unwrap();
                let last_stable = writer.last_stable(lane.logs[0].durable());
                let limits = CompactionLimits { map_bytes_max, ..LIMITS };
                let done = compact_up_to(&mut lane, 0, now, last_stable, limits, &mut Unpaced).unwrap();
                rounds += u32::from(done.is_some());
            }
        }
        lane.commit().unwrap();
        let seen = read(&mut lane, 0).unwrap();
        let (end, clean) = (lane.logs[0].log_end().0, lane.logs[0].clean_end().0);
        assert_eq!(writer.model.difference(&seen, end, clean, true), None, "seed {seed}");
    }
    assert!(rounds > 5, "seed {seed}: {rounds} compactions");
    settle(&mut lane, 0).unwrap();
    compact(&mut lane, 0, now).unwrap();
    settle(&mut lane, 0).unwrap();
    if compact(&mut lane, 0, now).unwrap().is_none() {
        let seen = read(&mut lane, 0).unwrap();
        let repeated = Model::repeated(&seen, lane.logs[0].clean_end().0);
        assert!(with_transactions || map_bytes_max < 1_000 || repeated.is_empty(), "seed {seed}: {repeated:?}");
    }
}

#[test]
fn random_histories_keep_the_newest_of_each_key() {
    for seed in 0..seeds_count(5) {
        random_history(seed, false, 1 << 20);
    }
}

#[test]
fn random_histories_keep_the_newest_of_each_key_with_a_map_for_eight_keys() {
    for seed in 100..100 + seeds_count(4) {
        random_history(seed, false, 24 * 16);
    }
}

#[test]
fn random_histories_with_transactions_keep_the_newest_committed_of_each_key() {
    for seed in 200..200 + seeds_count(6) {
        random_history(seed, true, 1 << 20);
    }
}
