//! A log that changes while it is compacted, or while what earlier compactions left is looked for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compaction_support;
mod support;

use std::sync::Arc;

use stonelog_protocol::Offset;
use stonelog_protocol::batch::Compression;
use stonelog_storage::disk::SimDisk;
use stonelog_storage::log::Truncation;
use stonelog_storage::recovery::Verdict;

use compaction_support::{append, compact, config, keyed, read, roll, settle};
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
    disk.kill();
    Lane::start(Arc::new(disk.clone()), config(400)).unwrap()
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
