//! Damage in the segment that is being written, in journal commits, before the first segment and behind the last one: it
//! is mended in place with what another replica sends, and everything derived from the log is as if nothing had been lost.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{LeaderEpoch, Offset, ProducerId};
use stonelog_storage::Fault;
use stonelog_storage::compaction::repair::RepairReject;
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::log::{LogConfig, ProducerState, Read};

use support::{Batch, Lane, ROOT, new_disk, partition};

fn lane_on(disk: &SimDisk) -> Lane {
    disk.kill();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    Lane::start(shared, LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() }).unwrap()
}

fn journal() -> PathBuf {
    Path::new(ROOT).join("journal").join(format!("{:020}.journal", 1))
}

fn flip(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let all = disk.contents(path);
    let at = all.windows(bytes.len()).position(|window| window == bytes).expect("they are there");
    disk.flip_bit(path, (at + bytes.len() / 2) as u64, 3);
}

/// A batch of one record.
fn batch(n: usize) -> Batch {
    Batch { seed: n as u64, filler_bytes: 900, ..Batch::of(1) }
}

/// Appends batches, each committed alone.
fn append(lane: &mut Lane, written: &mut Vec<Bytes>, count: usize, epoch: i32) {
    for _ in 0..count {
        let bytes = lane.append(0, &batch(written.len()), epoch);
        lane.commit().unwrap();
        written.push(bytes);
    }
}

/// So, by one of three producers each.
fn produce(lane: &mut Lane, written: &mut Vec<Bytes>, count: usize) {
    for _ in 0..count {
        let n = written.len();
        let producer = ((n % 3) as i64, 0, (n / 3) as i32);
        let bytes = lane.append(0, &Batch { producer, ..batch(n) }, 0);
        lane.commit().unwrap();
        written.push(bytes);
    }
}

fn lane_with(count: usize) -> (SimDisk, Lane, Vec<Bytes>) {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    lane.create(0);
    lane.commit().unwrap();
    let mut written = Vec::new();
    produce(&mut lane, &mut written, count);
    (disk, lane, written)
}

fn to_segments(lane: &mut Lane) {
    while lane.flush(0).unwrap() {}
    lane.checkpoint().unwrap();
}

/// What another replica sends for ranges: batches have one record each.
fn fetched(ranges: &[(Offset, Offset)], written: &[Bytes]) -> Vec<Vec<Bytes>> {
    ranges.iter().map(|(start, end)| written[start.0 as usize..end.0 as usize].to_vec()).collect()
}

/// Mends what can be mended now; how many times anything was.
fn mend(lane: &mut Lane, written: &[Bytes]) -> usize {
    let mut count = 0;
    loop {
        lane.logs[0].close_damaged_segment();
        let Some(plan) = lane.logs[0].plan_repair() else { return count };
        let job = lane.logs[0].begin_repair(&plan, fetched(&plan.ranges, written)).unwrap();
        assert_eq!(lane.logs[0].plan_repair(), None, "one at a time");
        let repaired = job.run(&lane.access).unwrap();
        assert!(lane.logs[0].on_repaired(&repaired));
        lane.logs[0].on_repair_ended();
        count += 1;
    }
}

/// Everything is there, and what is derived from it is what a log knows that never lost anything.
fn assert_whole(lane: &Lane, written: &[Bytes]) {
    assert_eq!(lane.logs[0].holes(), []);
    for max_bytes in [1, usize::MAX] {
        assert!(lane.read_all(0, Offset(0), max_bytes).unwrap() == written.concat(), "every byte as it was written");
    }
    for (offset, batch) in written.iter().enumerate() {
        let log = &lane.logs[0];
        let read = match log.read(Offset(offset as i64), log.log_end(), 1, true) {
            Read::Ready(batches, _) => batches.concat(),
            Read::Job(job) => match job.run(&lane.access).unwrap() {
                stonelog_storage::segment::read::ReadDone::Batches { batches, .. } => batches.concat(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?} at {offset}"),
        };
        assert!(read == *batch, "offset {offset}");
    }
    let by: Vec<i64> = written.iter().map(|batch| BatchHeader::read(batch).unwrap().producer_id.0).collect();
    for producer in 0..3 {
        let state = lane.logs[0].producers().get(ProducerId(producer)).unwrap();
        let offsets =
            |state: &ProducerState| -> Vec<i64> { state.batches().iter().map(|batch| batch.base_offset.0).collect() };
        let all: Vec<i64> = (0..by.len()).filter(|at| by[*at] == producer).map(|at| at as i64).collect();
        assert_eq!(offsets(state), all[all.len().saturating_sub(5)..], "of producer {producer}");
    }
}

fn meet_damage(lane: &mut Lane, offset: i64) {
    let Read::Job(job) = lane.logs[0].read(Offset(offset), Offset(offset + 1), 1, true) else { panic!("in memory") };
    assert!(matches!(job.run(&lane.access), Err(Fault::Damage { .. })));
    let surveyed = lane.logs[0].plan_survey(Offset(offset)).unwrap().run(&lane.access).unwrap();
    assert!(!lane.logs[0].on_surveyed(&surveyed).is_empty());
}

#[test]
fn damage_in_the_segment_being_written_is_mended_and_the_log_goes_on_in_another() {
    // Whether batches are flushed before, while and after it is mended.
    for (before, meanwhile) in [(0, 0), (7, 0), (0, 7), (7, 7)] {
        let (disk, mut lane, mut written) = lane_with(200);
        to_segments(&mut lane);
        lane.logs[0].evict(0);
        let path = Path::new(ROOT).join(partition(0).to_string()).join(format!("{:020}.log", 0));
        flip(&disk, &path, &written[100]);
        lane = lane_on(&disk);
        meet_damage(&mut lane, 100);
        assert_eq!(lane.logs[0].plan_repair(), None, "it is being written");
        append(&mut lane, &mut written, before, 0);
        to_segments(&mut lane);
        lane.logs[0].close_damaged_segment();
        let plan = lane.logs[0].plan_repair().expect("it is closed");
        assert!(plan.damaged_bytes > 60_000 && plan.damaged_bytes < 70_000, "{plan:?}");
        let job = lane.logs[0].begin_repair(&plan, fetched(&plan.ranges, &written)).unwrap();
        append(&mut lane, &mut written, meanwhile, 0);
        while lane.flush(0).unwrap() {}
        let repaired = job.run(&lane.access).unwrap();
        assert!(lane.logs[0].on_repaired(&repaired));
        lane.logs[0].on_repair_ended();
        assert_whole(&lane, &written);
        // Until a checkpoint names it, a start finds the damage again.
        let mut again = lane_on(&disk);
        assert_eq!((again.logs[0].holes().len(), again.logs[0].log_end()), (1, Offset(written.len() as i64)));
        assert_eq!(mend(&mut again, &written), 1);
        assert_whole(&again, &written);
        append(&mut again, &mut written, 10, 0);
        to_segments(&mut again);
        assert_whole(&again, &written);
        let again = lane_on(&disk);
        assert_whole(&again, &written);
    }
}

#[test]
fn what_the_journal_lost_is_mended_once_segments_hold_what_is_beside_it() {
    // Before everything, between, at the end, two beside each other, and everything.
    for lost in [&[0][..], &[4], &[8], &[3, 4], &[0, 1, 7, 8], &[0, 1, 2, 3, 4, 5, 6, 7, 8]] {
        for more in [0, 5] {
            let (disk, lane, mut written) = lane_with(9);
            drop(lane);
            drop(lane_on(&disk));
            lost.iter().for_each(|offset| flip(&disk, &journal(), &written[*offset]));
            let mut lane = lane_on(&disk);
            assert_eq!(lane.logs[0].holes().len(), lost.len());
            assert_eq!((lane.logs[0].plan_repair(), mend(&mut lane, &written)), (None, 0), "no checkpoint knows it");
            to_segments(&mut lane);
            append(&mut lane, &mut written, more, 0);
            assert!(mend(&mut lane, &written) > 0);
            assert_whole(&lane, &written);
            append(&mut lane, &mut written, more, 0);
            to_segments(&mut lane);
            assert_whole(&lane, &written);
            let mut lane = lane_on(&disk);
            assert_whole(&lane, &written);
            append(&mut lane, &mut written, 3, 0);
            to_segments(&mut lane);
            assert_whole(&lane_on(&disk), &written);
        }
    }
}

#[test]
fn what_the_journal_lost_is_mended_also_when_only_the_checkpoint_knows_of_it() {
    for lost in [0, 4, 8] {
        let (disk, lane, written) = lane_with(9);
        drop(lane);
        drop(lane_on(&disk));
        flip(&disk, &journal(), &written[lost]);
        to_segments(&mut lane_on(&disk));
        let mut lane = lane_on(&disk);
        assert_eq!(mend(&mut lane, &written), 1, "offset {lost}");
        assert_whole(&lane, &written);
        to_segments(&mut lane);
        assert_whole(&lane_on(&disk), &written);
    }
}

#[test]
fn epochs_that_began_in_what_was_lost_are_known_again() {
    let (disk, mut lane, mut written) = lane_with(3);
    // As a follower: nothing but the batches says that an epoch began.
    append(&mut lane, &mut written, 2, 4);
    append(&mut lane, &mut written, 2, 7);
    drop(lane);
    drop(lane_on(&disk));
    [3, 4, 5].iter().for_each(|offset: &usize| flip(&disk, &journal(), &written[*offset]));
    let mut lane = lane_on(&disk);
    to_segments(&mut lane);
    lane.logs[0].close_damaged_segment();
    assert!(lane.logs[0].end_offset_for_epoch(LeaderEpoch(0)).is_err(), "nobody knows");
    let plan = lane.logs[0].plan_repair().unwrap();
    let mut wrong = fetched(&plan.ranges, &written);
    // A leader epoch lies outside of a batch's own checksum.
    let last = wrong.last_mut().unwrap().last_mut().unwrap();
    *last = [&last[..12], &9_i32.to_be_bytes(), &last[16..]].concat().into();
    assert!(matches!(lane.logs[0].begin_repair(&plan, wrong), Err(RepairReject::Unfit { .. })));
    assert!(mend(&mut lane, &written) > 0);
    for lane in [lane, lane_on(&disk)] {
        let mut lane = lane;
        if !lane.logs[0].holes().is_empty() {
            mend(&mut lane, &written);
        }
        let ends = [(0, 3), (4, 5), (7, 7)].map(|(epoch, end)| {
            let found = lane.logs[0].end_offset_for_epoch(LeaderEpoch(epoch)).unwrap();
            (found.epoch.0, found.end.0) == (epoch, end)
        });
        assert_eq!(ends, [true; 3], "{:?}", lane.logs[0].epochs());
        assert_whole(&lane, &written);
    }
}

/// What is left of batches where every other one was compacted away below an offset.
fn compacted(written: &[Bytes], below: usize) -> Vec<Bytes> {
    let is_kept = |(at, _): &(usize, &Bytes)| *at >= below || at % 2 == 0;
    written.iter().enumerate().filter(is_kept).map(|(_, batch)| batch.clone()).collect()
}

#[test]
fn what_another_replica_has_compacted_otherwise_is_fetched_with_the_damage_in_steps() {
    // What it has cleaned; below the second one nothing at all is left there.
    for (cleaned, gone) in [(150, 0), (90, 0), (150, 80)] {
        let disk = new_disk();
        disk.kill();
        let config = LogConfig { segment_bytes: 80_000, ..LogConfig::default() };
        let start = |disk: &SimDisk| {
            disk.kill();
            Lane::start(Arc::new(disk.clone()), config.clone()).unwrap()
        };
        let mut lane = start(&disk);
        lane.create(0);
        lane.commit().unwrap();
        let mut written = Vec::new();
        append(&mut lane, &mut written, 200, 0);
        to_segments(&mut lane);
        assert_eq!(lane.logs[0].segments().len(), 3);
        lane.logs[0].evict(0);
        let path = Path::new(ROOT).join(partition(0).to_string()).join(format!("{:020}.log", 0));
        lane = start(&disk);
        flip(&disk, &path, &written[20]);
        meet_damage(&mut lane, 20);
        lane.logs[0].widen_damage(Offset(cleaned));
        assert_eq!((lane.logs[0].holes()[0].start, lane.logs[0].cleaned_end()), (Offset(0), Offset(cleaned)));
        let left: Vec<Bytes> = compacted(&written, cleaned as usize).into_iter().skip(gone / 2).collect();
        let of = |(from, to): &(Offset, Offset)| -> Vec<Bytes> {
            let is_in = |batch: &&Bytes| (*from..*to).contains(&BatchHeader::read(batch).unwrap().base_offset);
            left.iter().filter(is_in).cloned().collect()
        };
        let mut steps = 0;
        while let Some(mut plan) = {
            lane.logs[0].close_damaged_segment();
            lane.logs[0].plan_repair()
        } {
            // Never more than 20 offsets of one range at once.
            plan.ranges.truncate(1);
            plan.ranges[0].1 = plan.ranges[0].1.min(Offset(plan.ranges[0].0.0 + 20));
            let fetched = plan.ranges.iter().map(of).collect();
            let job = lane.logs[0].begin_repair(&plan, fetched).unwrap();
            let repaired = job.run(&lane.access).unwrap();
            assert!(lane.logs[0].on_repaired(&repaired));
            lane.logs[0].on_repair_ended();
            to_segments(&mut lane);
            steps += 1;
        }
        assert!(steps > cleaned / 20, "{steps}");
        for lane in [lane, start(&disk)] {
            assert_eq!(lane.logs[0].holes(), []);
            let read = lane.read_all(0, Offset(0), usize::MAX).unwrap();
            let is_filler = |batch: &BatchHeader| batch.records_count == 0;
            let (mut at, mut records) = (0, Vec::new());
            while at < read.len() {
                let header = BatchHeader::read_without_records(&read[at..]).unwrap();
                if !is_filler(&header) {
                    records.extend_from_slice(&read[at..at + header.batch_bytes]);
                }
                at += header.batch_bytes;
            }
            assert!(records == left.concat(), "cleaned to {cleaned}, gone below {gone}");
        }
    }
}

#[test]
fn what_comes_after_a_leaders_cleaning_is_known_of_does_not_count_as_cleaned() {
    let (disk, mut lane, mut written) = lane_with(200);
    to_segments(&mut lane);
    lane.logs[0].evict(0);
    let path = Path::new(ROOT).join(partition(0).to_string()).join(format!("{:020}.log", 0));
    flip(&disk, &path, &written[100]);
    meet_damage(&mut lane, 100);
    let end = lane.logs[0].segments().last().unwrap().end;
    lane.logs[0].widen_damage(end + 100);
    append(&mut lane, &mut written, 200, 0);
    to_segments(&mut lane);
    assert!(lane.logs[0].segments().last().unwrap().end > end, "more of it is in segments now");
    assert_eq!(lane.logs[0].cleaned_end(), end);
}
