//! Damage to a log directory and what stays of the logs in it: exactly what was hit is out of service, durably, and
//! everything beside it is served.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset, Timestamp};
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::holes::{Cause, Hole};
use stonelog_storage::journal::Hurt;
use stonelog_storage::log::{LogConfig, Lookup, Read};
use stonelog_storage::recovery::{Contradiction, Loss, Verdict};
use stonelog_storage::segment::read::{LookupDone, ReadDone};

use support::{Batch, Lane, NOW, ROOT, new_disk, partition};

fn lane_on(disk: &SimDisk) -> Lane {
    disk.kill();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    Lane::start(shared, config()).unwrap()
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1 << 20, ..LogConfig::default() }
}

/// Batches of one record, each filled differently.
fn batch(n: u64) -> Batch {
    Batch { seed: n, filler_bytes: 900, max_timestamp: NOW.0 + n as i64, ..Batch::of(1) }
}

fn path_of(at: i32, name: &str) -> PathBuf {
    Path::new(ROOT).join(partition(at).to_string()).join(name)
}

fn journal_file(generation: u64) -> PathBuf {
    Path::new(ROOT).join("journal").join(format!("{generation:020}.journal"))
}

/// Flips a bit in the middle of where `bytes` lie in a file.
fn flip(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let all = disk.contents(path);
    let at = all.windows(bytes.len()).position(|window| window == bytes).expect("they are there");
    disk.flip_bit(path, (at + bytes.len() / 2) as u64, 3);
}

/// What one offset reads as: the batch that holds it, or the hole.
fn read_at(lane: &mut Lane, at: usize, offset: i64) -> Result<Bytes, Hole> {
    loop {
        let log = &lane.logs[at];
        let job = match log.read(Offset(offset), log.log_end(), 1, true) {
            Read::Ready(batches, _) => return Ok(batches.concat().into()),
            Read::Damaged(hole) => return Err(hole),
            Read::Job(job) => job,
            other => panic!("{other:?} at {offset}"),
        };
        match job.run(&lane.access) {
            Ok(ReadDone::Batches { batches, .. }) => return Ok(batches.concat().into()),
            Ok(ReadDone::Damaged(hole)) => return Err(hole),
            Ok(ReadDone::Moved) => panic!("nothing moves"),
            Err(Fault::Damage { .. }) => {
                let surveyed = lane.logs[at].plan_survey(Offset(offset)).unwrap().run(&lane.access).unwrap();
                let found = lane.logs[at].on_surveyed(&surveyed);
                assert!(!found.is_empty() || surveyed.sums_rewritten > 0, "each look finds something");
            }
            Err(fault) => panic!("{fault}"),
        }
    }
}

/// Every offset of a log reads as it was written, but those in the ranges.
fn assert_served(lane: &mut Lane, at: usize, written: &[Bytes], lost: &[(i64, i64)]) {
    for (offset, batch) in written.iter().enumerate() {
        let offset = offset as i64;
        let is_lost = lost.iter().any(|&(start, end)| (start..end).contains(&offset));
        match read_at(lane, at, offset) {
            Ok(read) => assert!(!is_lost && read == batch, "offset {offset}"),
            Err(hole) => {
                assert!(is_lost && hole.start.0 <= offset && offset < hole.end.0, "offset {offset}: {hole}");
            }
        }
    }
    let holes: Vec<_> = lane.logs[at].holes().iter().map(|hole| (hole.start.0, hole.end.0)).collect();
    assert_eq!(holes, lost);
}

/// A log of which `count` batches were each committed alone, then an empty commit's worth of evidence.
fn committed(count: u64) -> (SimDisk, Lane, Vec<Bytes>) {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    lane.create(0);
    lane.commit().unwrap();
    let written = append(&mut lane, 0..count);
    (disk, lane, written)
}

fn append(lane: &mut Lane, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
    numbers
        .map(|n| {
            let bytes = lane.append(0, &batch(n), 0);
            lane.commit().unwrap();
            bytes
        })
        .collect()
}

fn to_segments(lane: &mut Lane) {
    while lane.flush(0).unwrap() {}
    lane.checkpoint().unwrap();
}

#[test]
fn damaged_batches_of_a_commit_are_a_hole_for_good_and_all_else_is_served() {
    let (disk, _, mut written) = committed(5);
    flip(&disk, &journal_file(1), &written[2]);
    let mut lane = lane_on(&disk);
    let Hurt::Ranges(ranges) = &lane.journal_end.damage[0].hurt else { panic!("{:?}", lane.journal_end) };
    assert_eq!((ranges[0].start, ranges[0].end), (Offset(2), Offset(3)));
    assert_eq!(lane.journal_end.damage[0].place.as_ref().unwrap().0, journal_file(1));
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(5)));
    assert_eq!(lane.logs[0].holes()[0].why, Cause::Journal);
    assert_served(&mut lane, 0, &written, &[(2, 3)]);
    // Again from the journal, from segments, and from the checkpoint alone.
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(2, 3)]);
    written.extend(append(&mut lane, 5..7));
    to_segments(&mut lane);
    assert_served(&mut lane, 0, &written, &[(2, 3)]);
    let mut lane = lane_on(&disk);
    assert_eq!(lane.journal_end.damage, [], "the checkpoint covers it");
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(7)));
    assert_served(&mut lane, 0, &written, &[(2, 3)]);
}

#[test]
fn a_hole_at_the_end_is_not_appended_over() {
    let (disk, _, mut written) = committed(3);
    drop(lane_on(&disk));
    flip(&disk, &journal_file(1), &written[2]);
    let mut lane = lane_on(&disk);
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(3)));
    to_segments(&mut lane);
    let mut lane = lane_on(&disk);
    assert_eq!(lane.logs[0].log_end(), Offset(3), "also when nothing but the checkpoint knows");
    written.extend(append(&mut lane, 3..5));
    to_segments(&mut lane);
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(2, 3)]);
}

#[test]
fn changes_in_a_commit_with_damaged_batches_are_replayed() {
    let (disk, mut lane, mut written) = committed(3);
    let bytes = lane.append(0, &batch(3), 0);
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].begin_epoch(LeaderEpoch(4), ticket);
    lane.push(ticket, entry);
    lane.commit().unwrap();
    flip_and_note(&disk, &mut written, bytes);
    written.push(lane.append(0, &batch(4), 4));
    lane.commit().unwrap();
    lane.append(0, &batch(5), 4);
    lane.commit().unwrap();
    let lane = lane_on(&disk);
    assert_eq!(lane.logs[0].holes().len(), 1);
    let end = lane.logs[0].end_offset_for_epoch(LeaderEpoch(0)).unwrap();
    assert_eq!((end.epoch, end.end), (LeaderEpoch(0), Offset(4)), "the epoch's start is in the intact header");
}

fn flip_and_note(disk: &SimDisk, written: &mut Vec<Bytes>, bytes: Bytes) {
    flip(disk, &journal_file(1), &bytes);
    written.push(bytes);
}

#[test]
fn an_epoch_that_may_have_begun_in_a_hole_is_not_guessed() {
    let (disk, mut lane, written) = committed(3);
    // As a follower: nothing but the batches says that an epoch began.
    lane.append(0, &batch(3), 7);
    lane.commit().unwrap();
    drop(lane);
    drop(lane_on(&disk));
    flip(&disk, &journal_file(1), &written[2]);
    let mut lane = lane_on(&disk);
    for _ in 0..2 {
        let hole = lane.logs[0].end_offset_for_epoch(LeaderEpoch(0)).unwrap_err();
        assert_eq!((hole.start, hole.end), (Offset(2), Offset(3)));
        assert_eq!(lane.logs[0].end_offset_for_epoch(LeaderEpoch(7)).unwrap().end, Offset(4));
        to_segments(&mut lane);
        lane = lane_on(&disk);
    }
}

#[test]
fn an_unreadable_header_makes_holes_where_a_later_entry_shows_them_and_losses_elsewhere() {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    for index in 0..3 {
        lane.create(index);
    }
    lane.commit().unwrap();
    let first = lane.append(0, &batch(0), 0);
    lane.append(2, &batch(1), 0);
    lane.commit().unwrap();
    let lost = lane.append(0, &batch(2), 0);
    lane.append(1, &batch(3), 0);
    lane.commit().unwrap();
    let last = lane.append(0, &batch(4), 0);
    lane.append(2, &batch(5), 0);
    lane.commit().unwrap();
    lane.append(2, &batch(6), 0);
    lane.commit().unwrap();
    drop(lane);
    let file = journal_file(1);
    let all = disk.contents(&file);
    let at = all.windows(lost.len()).position(|window| window == lost).unwrap() as u64;
    disk.flip_bit(&file, at / 4096 * 4096 + 20, 0);
    let mut lane = lane_on(&disk);
    assert_eq!(lane.journal_end.damage[0].hurt, Hurt::All);
    let lost_end = Verdict::Lost(Loss::JournalDamage);
    assert_eq!(lane.verdicts, [Verdict::Damaged, lost_end, Verdict::Proved]);
    assert_served(&mut lane, 0, &[first, lost, last], &[(1, 2)]);
}

/// Eight batches, a cut to five whose commit is damaged, and what `after` did then; as the next start finds it.
fn lost_cut(in_segments: bool, after: impl FnOnce(&mut Lane, &mut Vec<Bytes>)) -> (SimDisk, Lane, Vec<Bytes>) {
    let (disk, mut lane, mut written) = committed(8);
    if in_segments {
        to_segments(&mut lane);
    }
    lane.truncate(0, Offset(5)).unwrap();
    lane.commit().unwrap();
    let cut = lane.written_spans.last().unwrap().span.start.0;
    written.truncate(5);
    after(&mut lane, &mut written);
    drop(lane);
    disk.flip_bit(&journal_file(1), cut + 20, 0);
    let lane = lane_on(&disk);
    assert_eq!(lane.journal_end.damage[0].hurt, Hurt::All);
    let missing = Loss::Contradiction(Contradiction::GenerationMissing);
    assert_eq!(lane.verdicts, [Verdict::Lost(missing)]);
    (disk, lane, written)
}

#[test]
fn a_cut_that_the_journal_lost_shows_in_the_append_behind_it() {
    for in_segments in [false, true] {
        let (disk, mut lane, mut written) =
            lost_cut(in_segments, |lane, written| written.extend(append(lane, 100..103)));
        assert_served(&mut lane, 0, &written, &[]);
        assert_eq!(lane.logs[0].log_end(), Offset(8));
        // Again from the journal, then from segments and the checkpoint alone.
        let mut lane = lane_on(&disk);
        assert_served(&mut lane, 0, &written, &[]);
        written.extend(append(&mut lane, 103..105));
        to_segments(&mut lane);
        assert_served(&mut lane, 0, &written, &[]);
        let mut lane = lane_on(&disk);
        assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Proved, Offset(10)));
        assert_served(&mut lane, 0, &written, &[]);
    }
}

#[test]
fn a_cut_that_the_journal_lost_shows_in_the_epoch_behind_it() {
    for in_segments in [false, true] {
        let (_, mut lane, written) = lost_cut(in_segments, |lane, _| {
            for epoch in 3..5 {
                let ticket = lane.next_ticket();
                let entry = lane.logs[0].begin_epoch(LeaderEpoch(epoch), ticket);
                lane.push(ticket, entry);
                lane.commit().unwrap();
            }
        });
        assert_eq!((lane.logs[0].log_end(), lane.logs[0].latest_epoch()), (Offset(5), Some(LeaderEpoch(4))));
        assert_served(&mut lane, 0, &written, &[]);
    }
}

#[test]
fn an_append_lost_with_the_cut_before_it_is_a_hole_also_where_a_cut_off_batch_lay() {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    lane.create(0);
    for _ in 0..2 {
        lane.append(0, &Batch::of(4), 0);
        lane.commit().unwrap();
    }
    lane.truncate(0, Offset(4)).unwrap();
    lane.commit().unwrap();
    append(&mut lane, 1..2);
    let written = append(&mut lane, 2..4);
    for lost in &lane.written_spans[2..4] {
        disk.flip_bit(&journal_file(1), lost.span.start.0 + 20, 0);
    }
    drop(lane);
    let mut lane = lane_on(&disk);
    let holes: Vec<_> = lane.logs[0].holes().iter().map(|hole| (hole.start.0, hole.end.0)).collect();
    assert_eq!(holes, [(4, 5)]);
    assert_eq!(read_at(&mut lane, 0, 5), Ok(written[0].clone()));
    assert_eq!(lane.logs[0].log_end(), Offset(7));
}

#[test]
fn a_bad_block_takes_the_batches_that_touch_it_and_no_others() {
    let (disk, mut lane, mut written) = committed(200);
    to_segments(&mut lane);
    let log = path_of(0, "00000000000000000000.log");
    let size = written[0].len() as u64;
    disk.flip_bit(&log, 70_000, 1);
    let (first, last) = (65_536 / size, 131_072_u64.div_ceil(size));
    let lost = [(first as i64, last as i64)];
    let mut lane = lane_on(&disk);
    assert_eq!(lane.verdicts[0], Verdict::Proved, "nobody has read it yet");
    assert_served(&mut lane, 0, &written, &lost);
    assert_eq!(lane.logs[0].holes()[0].why, Cause::Segment);
    written.extend(append(&mut lane, 200..210));
    to_segments(&mut lane);
    let mut lane = lane_on(&disk);
    assert_eq!(lane.verdicts[0], Verdict::Damaged, "known without a read");
    assert_served(&mut lane, 0, &written, &lost);
    // A read of many batches ends before the hole and one from behind it reads on.
    let log = &lane.logs[0];
    let Read::Job(job) = log.read(Offset(0), log.log_end(), 1 << 20, true) else { panic!("in a segment") };
    let Ok(ReadDone::Batches { next, .. }) = job.run(&lane.access) else { panic!("batches") };
    assert_eq!(next, Offset(first as i64));
    let all = lane.read_all(0, Offset(last as i64), 1 << 20).unwrap();
    assert_eq!(all, written[last as usize..].concat());
}

#[test]
fn damage_in_the_last_block_and_in_several_blocks_is_bounded_too() {
    let (disk, mut lane, written) = committed(300);
    to_segments(&mut lane);
    let log = path_of(0, "00000000000000000000.log");
    let size = written[0].len() as u64;
    let bytes = 300 * size;
    assert!(bytes > 4 * 65_536 && bytes % 65_536 > size);
    disk.flip_bit(&log, 3, 1);
    disk.flip_bit(&log, 140_000, 1);
    disk.flip_bit(&log, bytes - 5, 1);
    let mut lane = lane_on(&disk);
    let block = |n: u64| ((n * 65_536 / size) as i64, ((n + 1) * 65_536).div_ceil(size).min(300) as i64);
    assert_served(&mut lane, 0, &written, &[block(0), block(2), block(4)]);
}

#[test]
fn the_right_bytes_in_the_wrong_place_are_not_served() {
    let (disk, mut lane, written) = committed(300);
    to_segments(&mut lane);
    let log = path_of(0, "00000000000000000000.log");
    let size = written[0].len();
    // A batch lands on its neighbour's place: each of its bytes is right, and so is its own checksum.
    let all = disk.contents(&log);
    let at = 100 * size;
    disk.overwrite(&log, at as u64, &all[at + size..at + 2 * size]);
    let block = at as u64 / 65_536;
    let lost = (block * 65_536 / size as u64, ((block + 1) * 65_536).div_ceil(size as u64));
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(lost.0 as i64, lost.1 as i64)]);
}

#[test]
fn checksums_that_are_missing_or_wrong_cost_nothing() {
    for kind in 0..3 {
        let (disk, mut lane, written) = committed(200);
        to_segments(&mut lane);
        let sums = path_of(0, "00000000000000000000.sum");
        match kind {
            0 => disk.flip_bit(&sums, 5, 1),
            1 => disk.overwrite(&sums, 0, &[0; 8]),
            _ => disk.remove_file(&sums).unwrap(),
        }
        let mut lane = lane_on(&disk);
        assert_served(&mut lane, 0, &written, &[]);
        let mut lane = lane_on(&disk);
        let all = lane.read_all(0, Offset(0), 1 << 20).unwrap();
        assert_eq!(all, written.concat(), "written anew, so nobody looks again");
        // What they guard is guarded again: base offsets lie outside a batch's own checksum.
        disk.flip_bit(&path_of(0, "00000000000000000000.log"), 7, 0);
        let size = written[0].len() as u64;
        assert_served(&mut lane, 0, &written, &[(0, 65_536_u64.div_ceil(size) as i64)]);
    }
}

#[test]
fn a_wrong_checksum_costs_nothing_where_a_cut_took_the_batch_that_the_log_start_straddles() {
    let disk = new_disk();
    let mut lane = lane_on(&disk);
    lane.create(0);
    for _ in 0..2 {
        lane.append(0, &Batch::of(3), 0);
        lane.commit().unwrap();
    }
    let ticket = lane.next_ticket();
    let entry = lane.logs[0].advance_log_start(Offset(4), ticket).unwrap();
    lane.push(ticket, entry);
    lane.truncate(0, Offset(4)).unwrap();
    lane.commit().unwrap();
    let written = append(&mut lane, 0..80);
    to_segments(&mut lane);
    drop(lane);
    disk.flip_bit(&path_of(0, "00000000000000000000.sum"), 1, 1);
    let mut lane = lane_on(&disk);
    assert_eq!(lane.logs[0].segments()[0].base, Offset(0), "with the batches below the log start");
    for (n, batch) in written.iter().enumerate() {
        assert_eq!(read_at(&mut lane, 0, 4 + n as i64).as_ref(), Ok(batch));
    }
}

#[test]
fn missing_and_short_files_are_found_at_start_and_written_around() {
    let config = LogConfig { segment_bytes: 80_000, ..LogConfig::default() };
    for (base, cut) in [(0, None), (0, Some(50_000)), (1, None), (1, Some(50_000))] {
        let disk = new_disk();
        let start = |disk: &SimDisk| {
            disk.kill();
            Lane::start(Arc::new(disk.clone()), config.clone()).unwrap()
        };
        let mut lane = start(&disk);
        lane.create(0);
        lane.commit().unwrap();
        let mut written = append(&mut lane, 0..150);
        to_segments(&mut lane);
        let segments: Vec<_> = lane.logs[0].segments().to_vec();
        assert_eq!(segments.len(), 2);
        drop(lane);
        disk.kill();
        let segment = segments[base];
        let path = path_of(0, &format!("{:020}.log", segment.base.0));
        let size = written[0].len() as i64;
        let lost = match cut {
            None => {
                disk.remove_file(&path).unwrap();
                (segment.base.0, segment.end.0)
            }
            Some(len) => {
                let file = disk.open(&path, stonelog_storage::disk::Open::ReadWrite).unwrap();
                file.set_len(len).unwrap();
                // The last whole block before the cut is not whole any more.
                let block = len as i64 / 65_536 * 65_536;
                (segment.base.0 + block / size, segment.end.0)
            }
        };
        let mut lane = start(&disk);
        assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(150)), "{base} {cut:?}");
        assert_served(&mut lane, 0, &written, &[lost]);
        written.extend(append(&mut lane, 150..200));
        to_segments(&mut lane);
        let mut lane = start(&disk);
        assert_served(&mut lane, 0, &written, &[lost]);
    }
}

#[test]
fn a_hole_goes_with_its_range() {
    let (disk, mut lane, written) = committed(200);
    to_segments(&mut lane);
    disk.flip_bit(&path_of(0, "00000000000000000000.log"), 70_000, 1);
    let size = written[0].len() as u64;
    let (first, last) = ((65_536 / size) as i64, 131_072_u64.div_ceil(size) as i64);
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(first, last)]);
    let raise = |lane: &mut Lane, to: i64| {
        let ticket = lane.next_ticket();
        let entry = lane.logs[0].advance_log_start(Offset(to), ticket).unwrap();
        lane.push(ticket, entry);
        lane.commit().unwrap();
    };
    raise(&mut lane, first + 10);
    assert_eq!(lane.logs[0].holes()[0].start, Offset(first + 10));
    raise(&mut lane, last);
    assert_eq!(lane.logs[0].holes(), []);
    lane.checkpoint().unwrap();
    let mut lane = lane_on(&disk);
    assert_eq!((lane.verdicts[0], lane.logs[0].holes()), (Verdict::Proved, &[][..]));
    assert!(read_at(&mut lane, 0, last).is_ok());
}

#[test]
fn a_truncation_below_a_hole_passes_over_the_damage_before_the_cut() {
    let (disk, mut lane, written) = committed(300);
    to_segments(&mut lane);
    let log = path_of(0, "00000000000000000000.log");
    disk.flip_bit(&log, 70_000, 1);
    disk.flip_bit(&log, 70_000 + 2 * 65_536, 1);
    let size = written[0].len() as u64;
    let block = |n: u64| ((n * 65_536 / size) as i64, ((n + 1) * 65_536).div_ceil(size) as i64);
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[block(1), block(3)]);
    let end = block(2).0 + 10;
    lane.truncate(0, Offset(end)).unwrap();
    lane.commit().unwrap();
    assert_eq!(lane.logs[0].log_end(), Offset(end));
    assert_served(&mut lane, 0, &written[..end as usize], &[block(1)]);
    let mut lane = lane_on(&disk);
    assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(end)));
    assert_served(&mut lane, 0, &written[..end as usize], &[block(1)]);
}

#[test]
fn a_truncation_into_damage_leaves_a_hole_up_to_the_cut() {
    let (disk, mut lane, mut written) = committed(200);
    to_segments(&mut lane);
    disk.flip_bit(&path_of(0, "00000000000000000000.log"), 70_000, 1);
    let size = written[0].len() as u64;
    let first = (65_536 / size) as i64;
    let end = first + 3;
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(first, 131_072_u64.div_ceil(size) as i64)]);
    lane.truncate(0, Offset(end)).unwrap();
    lane.commit().unwrap();
    // Before any checkpoint says so, and after.
    for _ in 0..2 {
        lane = lane_on(&disk);
        assert_eq!((lane.verdicts[0], lane.logs[0].log_end()), (Verdict::Damaged, Offset(end)));
        assert_served(&mut lane, 0, &written[..end as usize], &[(first, end)]);
        lane.checkpoint().unwrap();
    }
    written.truncate(end as usize);
    written.extend(append(&mut lane, 200..210));
    to_segments(&mut lane);
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(first, end)]);
}

#[test]
fn a_time_that_a_hole_may_hold_is_not_answered_from_behind_it() {
    let (disk, mut lane, written) = committed(200);
    to_segments(&mut lane);
    disk.flip_bit(&path_of(0, "00000000000000000000.log"), 70_000, 1);
    let size = written[0].len() as u64;
    let (first, last) = ((65_536 / size) as i64, 131_072_u64.div_ceil(size) as i64);
    let mut lane = lane_on(&disk);
    assert_served(&mut lane, 0, &written, &[(first, last)]);
    let find = |lane: &Lane, n: i64| match lane.logs[0].lookup_timestamp(Timestamp(NOW.0 + n), Offset(200)) {
        Lookup::Job(job) => job.run(&lane.access).unwrap(),
        Lookup::Damaged(hole) => LookupDone::Damaged(hole),
        Lookup::Ready(Some(batch)) => LookupDone::Found(batch),
        Lookup::Ready(None) => LookupDone::NotFound,
    };
    assert_eq!(find(&lane, first - 1), LookupDone::Found(written[first as usize - 1].clone()));
    assert!(matches!(find(&lane, first), LookupDone::Damaged(_)));
    assert!(matches!(find(&lane, last), LookupDone::Damaged(_)), "an earlier record may be in the hole");
    assert_eq!(find(&lane, 200), LookupDone::NotFound, "the segment holds nothing that new");
}

#[test]
fn what_a_journal_hole_may_hold_is_bounded_by_when_it_was_found() {
    let (disk, _, written) = committed(5);
    flip(&disk, &journal_file(1), &written[2]);
    let lane = lane_on(&disk);
    let find = |time: i64| lane.logs[0].lookup_timestamp(Timestamp(time), Offset(5));
    assert!(matches!(find(NOW.0), Lookup::Job(_)));
    let Lookup::Job(job) = find(NOW.0 + 3) else { panic!("in the journal") };
    let LookupDone::Found(found) = job.run(&lane.access).unwrap() else { panic!("nothing found") };
    assert_eq!(found, written[3], "later than the recovery that found the hole");
}
