//! A log that changes while it is compacted, or while what earlier compactions left is looked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compaction_support;
mod support;

use std::sync::Arc;

use stonelog_protocol::Offset;
use stonelog_protocol::batch::Compression;
use stonelog_storage::Fault;
use stonelog_storage::disk::SimDisk;
use stonelog_storage::log::Truncation;
use stonelog_storage::recovery::Verdict;
use stonelog_storage::segment::SegmentFile;

use compaction_support::{append, compact, config, keyed, nameless_files, read, roll, settle};
use support::{Lane, NOW, new_disk};

/// Nine keys once, among them another, in several segments, then that other one many times and a new segment.
fn lane() -> (SimDisk, Lane) {
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), config(400)).unwrap();
    lane.create(0);
    for n in 0..30 {
        let key = if n < 10 && n != 3 { format!("{n}") } else { "a".to_owned() };
        put(&mut lane, &key);
        settle(&mut lane, 0).unwrap();
    }
    roll(&mut lane, 0);
    (disk, lane)
}

fn put(lane: &mut Lane, key: &str) {
    append(lane, 0, keyed(&[(key, Some(b"value"))], Compression::None, NOW.0));
}

fn again(disk: &SimDisk) -> Lane {
    again_with(disk, 400)
}

fn again_with(disk: &SimDisk, segment_bytes: u32) -> Lane {
    disk.kill();
    Lane::start(Arc::new(disk.clone()), config(segment_bytes)).unwrap()
}

#[test]
fn a_cut_into_segments_that_were_compacted_meanwhile_is_planned_again() {
    let (disk, mut lane) = lane();
    let ticket = lane.next_ticket();
    let Truncation::Rebuild(job) = lane.logs[0].truncate_to(Offset(10), ticket) else { panic!("it is in segments") };
    let rebuilt = job.run(&lane.access).unwrap();
    compact(&mut lane, 0, NOW).unwrap().expect("it is due");
    lane.checkpoint().unwrap();
    assert!(lane.logs[0].truncate_into_segments(rebuilt, ticket).is_none(), "its segments are gone");
    lane.truncate(0, Offset(10)).unwrap();
    lane.commit().unwrap();
    lane.checkpoint().unwrap();
    let mut lane = again(&disk);
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Proved, Offset(10)));
    assert_eq!(read(&mut lane, 0).unwrap().len(), 9);
}

#[test]
fn a_sweep_takes_nothing_that_a_log_cut_meanwhile_makes() {
    let (disk, mut lane) = lane();
    let last_stable = lane.logs[0].durable();
    let sweep = lane.logs[0].plan_sweep(NOW, last_stable).expect("a compaction is due");
    lane.truncate(0, Offset(7)).unwrap();
    lane.commit().unwrap();
    lane.checkpoint().unwrap();
    put(&mut lane, "new");
    lane.commit().unwrap();
    assert!(!lane.flush(0).unwrap(), "the sweep does not know what it would make");
    sweep.run(&lane.access).unwrap();
    lane.logs[0].on_swept(true);
    assert!(lane.flush(0).unwrap());
    lane.checkpoint().unwrap();
    let mut lane = again(&disk);
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Proved, Offset(8)));
    assert_eq!(read(&mut lane, 0).unwrap().len(), 8);
}

/// Records of 10 KB under one key in one large segment, a block of which decays.
fn lane_with_a_bad_block() -> (SimDisk, Lane) {
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), config(300_000)).unwrap();
    lane.create(0);
    for _ in 0..24 {
        append(&mut lane, 0, keyed(&[("a", Some(&[7; 10_000]))], Compression::None, NOW.0));
        settle(&mut lane, 0).unwrap();
    }
    // It does not fit the segment any more.
    append(&mut lane, 0, keyed(&[("filler", Some(&[1; 100_000]))], Compression::None, NOW.0));
    settle(&mut lane, 0).unwrap();
    assert_eq!(lane.logs[0].segments().len(), 2);
    let partition = lane.logs[0].key().partition;
    let first = lane.logs[0].segments()[0].name().of(partition);
    let path = lane.access.path(&first.path(SegmentFile::Log));
    disk.flip_bit(&path, (64 << 10) + 100, 3);
    lane.access.files().forget_all(partition);
    (disk, lane)
}

fn survey(lane: &mut Lane, offset: i64) -> usize {
    let surveyed = lane.logs[0].plan_survey(Offset(offset)).unwrap().run(&lane.access).unwrap();
    lane.logs[0].on_surveyed(&surveyed).len()
}

fn advance_log_start(lane: &mut Lane, to: i64) {
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(to), ticket).unwrap();
    lane.push(ticket, entry);
    settle(lane, 0).unwrap();
}

#[test]
fn damage_that_the_log_start_has_passed_stops_no_compaction() {
    // Found before the compaction, by it, or only after the log start had passed it.
    for order in 0..3 {
        let (disk, mut lane) = lane_with_a_bad_block();
        if order == 0 {
            assert_eq!(survey(&mut lane, 7), 1);
            assert!(compact(&mut lane, 0, NOW).unwrap().is_none(), "not as long as it has a hole");
        } else {
            assert!(matches!(compact(&mut lane, 0, NOW), Err(Fault::Damage { .. })));
            if order == 1 {
                assert_eq!(survey(&mut lane, 7), 1);
            }
        }
        advance_log_start(&mut lane, 15);
        if order == 2 {
            assert!(compact(&mut lane, 0, NOW).unwrap().is_none(), "nobody knows yet where the damage lies");
            survey(&mut lane, 16);
        }
        let totals = compact(&mut lane, 0, NOW).unwrap().expect("it is due");
        assert!(totals.bytes_written > 0, "{totals:?}");
        lane.checkpoint().unwrap();
        lane.checkpoint().unwrap();
        assert_eq!(nameless_files(&lane, 0), Vec::<String>::new());
        let mut lane = again_with(&disk, 300_000);
        assert_eq!(lane.verdicts[0], Verdict::Proved, "order {order}");
        let left: Vec<i64> = read(&mut lane, 0).unwrap().iter().map(|record| record.offset).collect();
        assert_eq!(left, [23, 24], "order {order}: the newest record of each key");
    }
}
