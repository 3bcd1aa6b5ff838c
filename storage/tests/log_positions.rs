//! What a log remembers for those who lead it: where it begins for certain, and what was committed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_storage::disk::{SimDisk, Tearing};
use stonelog_storage::log::LogConfig;

use support::{Batch, Lane, new_disk};

fn lane_on(disk: &SimDisk) -> Lane {
    Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap()
}

/// A lane with one log of so many durable records.
fn lane(records: i32) -> (SimDisk, Lane) {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    lane.create(0);
    for _ in 0..records {
        lane.append(0, &Batch::of(1), 0);
    }
    lane.commit().unwrap();
    (disk, lane)
}

#[test]
fn a_log_start_is_durable_when_its_entry_is() {
    let (disk, mut lane) = lane(5);
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(3), ticket).unwrap();
    lane.push(ticket, entry);
    lane.write().unwrap();
    assert_eq!((lane.logs[0].log_start(), lane.logs[0].durable_log_start()), (Offset(3), Offset(0)));
    lane.sync().unwrap();
    assert_eq!(lane.logs[0].durable_log_start(), Offset(3));
    drop(lane);
    disk.crash(7, Tearing::Sectors);
    assert_eq!(lane_on(&disk).logs[0].durable_log_start(), Offset(3));
}

#[test]
fn what_the_checkpoint_says_to_be_committed_is_so_after_a_crash() {
    let (disk, mut lane) = lane(5);
    assert!(lane.logs[0].set_high_watermark(Offset(4), LeaderEpoch(3)), "that is news");
    assert!(!lane.logs[0].set_high_watermark(Offset(4), LeaderEpoch(0)));
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    // Later than the checkpoint.
    lane.append(0, &Batch::of(1), 0);
    lane.commit().unwrap();
    lane.logs[0].set_high_watermark(Offset(6), LeaderEpoch(4));
    drop(lane);
    disk.crash(7, Tearing::Sectors);
    let lane = lane_on(&disk);
    assert_eq!((lane.logs[0].high_watermark(), lane.logs[0].log_end()), (Offset(4), Offset(6)));
    assert_eq!(lane.logs[0].high_watermark_epoch(), LeaderEpoch(3), "in which that was known last");
}

#[test]
fn nothing_is_committed_beyond_the_end_of_the_log_that_is_found() {
    let (disk, mut lane) = lane(5);
    lane.flush(0).unwrap();
    // Written here, durable elsewhere.
    lane.append(0, &Batch::of(1), 0);
    lane.write().unwrap();
    lane.logs[0].set_high_watermark(Offset(6), LeaderEpoch(0));
    lane.checkpoint().unwrap();
    drop(lane);
    disk.crash(7, Tearing::Sectors);
    let lane = lane_on(&disk);
    let log = &lane.logs[0];
    assert_eq!(log.high_watermark(), log.log_end());
}

#[test]
fn what_is_cut_off_is_not_committed_when_something_else_takes_its_place() {
    let (disk, mut lane) = lane(5);
    lane.logs[0].set_high_watermark(Offset(5), LeaderEpoch(0));
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    lane.truncate(0, Offset(2)).unwrap();
    lane.commit().unwrap();
    assert_eq!(lane.logs[0].high_watermark(), Offset(2));
    lane.append(0, &Batch::of(4), 1);
    lane.commit().unwrap();
    assert_eq!(lane.logs[0].high_watermark(), Offset(2));
    drop(lane);
    disk.crash(7, Tearing::Sectors);
    let lane = lane_on(&disk);
    assert_eq!((lane.logs[0].high_watermark(), lane.logs[0].log_end()), (Offset(2), Offset(6)));
}

#[test]
fn what_was_committed_by_the_relaxed_rule_is_not_said_of_a_strict_log() {
    let (_, mut lane) = lane(5);
    for strict in [false, true] {
        let ticket = lane.next_ticket();
        let entry = lane.logs[0].set_mode(strict, ticket).unwrap();
        lane.push(ticket, entry);
        assert!(!strict || !lane.logs[0].set_high_watermark(Offset(5), LeaderEpoch(0)), "no power cut need leave it");
        assert!(strict || lane.logs[0].set_high_watermark(Offset(5), LeaderEpoch(0)));
    }
    assert_eq!(lane.logs[0].high_watermark(), Offset(0));
    lane.append(0, &Batch::of(1), 0);
    assert!(lane.logs[0].set_high_watermark(Offset(6), LeaderEpoch(0)));
    assert_eq!(lane.logs[0].high_watermark(), Offset(6));
}
