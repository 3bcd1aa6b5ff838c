//! A disk that changes bytes behind everybody's back: what is served is right or refused, what is hurt is named, and
//! nothing beside it is lost.

use std::path::{Path, PathBuf};

use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk, SimFault, SimOperation, Survival};
use stonelog_storage::log::Read;
use stonelog_storage::recovery::{Loss, Verdict};
use stonelog_storage::segment::SegmentId;

use super::model::{State, Stored};
use super::process::Process;
use super::{ROOT, World, find_cut};

/// Bit flips tried on the disk that a seed ends with.
const FLIPS_COUNT: u64 = 3;

/// Classes of files: how their names end or begin, and the marks of a flip that was found and one that hurt nobody.
const CLASSES: [(&str, &str); 5] = [
    (".journal", "flipped bit in the journal"),
    (".log", "flipped bit in a segment"),
    (".sum", "flipped bit in block checksums"),
    (".index", "flipped bit in an index"),
    ("checkpoint", "flipped bit in a checkpoint"),
];

/// Marks of the experiments.
pub const MARKS: [&str; 10] = [
    "flipped bit in the journal",
    "flipped bit in a segment",
    "flipped bit in block checksums",
    "flipped bit in an index",
    "flipped bit in a checkpoint",
    "flipped bit: harmless",
    "flipped bit: found",
    "lost write",
    "misdirected write",
    "lie: found",
];

/// At the end of a seed: flips on copies of its disk, then a disk that loses or misplaces a write.
pub fn experiments(world: &mut World) {
    // Something that only the journal holds.
    for _ in 0..world.below(12) {
        world.append();
    }
    world.commit_all().unwrap_or_else(|fault| panic!("seed {}: {fault}", world.seed));
    for _ in 0..FLIPS_COUNT {
        flip(world);
    }
    lie(world);
}

/// What was found on a damaged disk.
struct Judged {
    /// Logs with something that cannot be read, and what that is.
    unreadable: Vec<(TopicPartition, Vec<Stored>)>,
    is_named: bool,
}

fn flip(world: &mut World) {
    let disk = world.disk.fork();
    disk.crash_to(Survival::Nothing);
    let (ending, mark) = CLASSES[world.below(CLASSES.len() as u64) as usize];
    let files = files(&disk, ending);
    if files.is_empty() {
        return;
    }
    let path = files[world.below(files.len() as u64) as usize].clone();
    let bytes = disk.contents(&path);
    if bytes.is_empty() {
        return;
    }
    // Mostly bytes that mean something: journals and allocated ends are full of zeroes.
    let mut byte = world.below(bytes.len() as u64);
    for _ in 0..30 {
        if bytes[byte as usize] != 0 {
            break;
        }
        byte = world.below(bytes.len() as u64);
    }
    let bit = world.below(8) as u8;
    disk.flip_bit(&path, byte, bit);
    world.coverage.hit(mark);
    let what = format!("seed {}: bit {bit} of byte {byte} of {}", world.seed, path.display());
    let mut process = match Process::start(&disk, world.options.journal, &world.options.config, false) {
        Ok(process) => process,
        Err(fault) => panic!("{what}: no start: {fault}"),
    };
    let all = world.model.queued;
    let judged = judge(world, &mut process, all, all, &what);
    let is_hurt = !judged.unreadable.is_empty() || judged.is_named;
    world.coverage.hit(if is_hurt { "flipped bit: found" } else { "flipped bit: harmless" });
    for (id, lost) in &judged.unreadable {
        let log = process.ids().contains(id).then(|| process.log(*id));
        match ending {
            ".log" => {
                // One block of one segment.
                let segment = |batch: &Stored| {
                    log.and_then(|log| log.segments().iter().find(|s| s.base.0 <= batch.base && batch.base < s.end.0))
                };
                let first = segment(&lost[0]).map(|segment| segment.base);
                assert!(first.is_some(), "{what}: {id} at {} is in no segment", lost[0].base);
                assert!(lost.iter().all(|batch| segment(batch).map(|s| s.base) == first), "{what}: another segment");
                if world.model.now(*id).keyed {
                    // What a hole of a compacted segment spans was more before.
                    continue;
                }
                let inner: usize = lost.iter().skip(1).rev().skip(1).map(|batch| batch.bytes.len()).sum();
                assert!(inner <= 64 << 10, "{what}: {id}: {inner} bytes within one block's batches");
            }
            ".journal" => {
                let in_segments = log.and_then(|log| log.segments().last()).map_or(0, |last| last.end.0);
                assert!(
                    lost.iter().all(|batch| batch.base >= in_segments),
                    "{what}: {id} has it in segments up to {in_segments}: {:?}",
                    lost.iter().map(|batch| batch.base).collect::<Vec<_>>()
                );
            }
            // Where compaction has left gaps between offsets nothing but its checksum shows that a block is right.
            ".sum" if world.model.now(*id).keyed => {}
            _ => panic!("{what}: {id} lost {}..", lost[0].base),
        }
    }
}

fn lie(world: &mut World) {
    let (fault, mark) = match world.below(2) {
        0 => (SimFault::Lost, "lost write"),
        _ => (SimFault::Misdirected { blocks: 1 + world.below(6) }, "misdirected write"),
    };
    let place = ["journal", ".log", ".sum", "checkpoint"][world.below(4) as usize];
    let skip = world.below(8) as u32;
    world.disk.fail(SimOperation::Write, place, skip, fault);
    let mut is_settled = true;
    for _ in 0..600 {
        if world.disk.waiting_faults() == 0 && world.below(20) == 0 {
            break;
        }
        // What it cannot go on from is found while it runs.
        if world.step().is_err() {
            is_settled = false;
            break;
        }
    }
    if world.disk.waiting_faults() > 0 {
        return;
    }
    world.coverage.hit(mark);
    is_settled = is_settled && world.commit_all().is_ok();
    let what = format!("seed {}: {mark} to {place}", world.seed);
    world.bury();
    world.disk.crash_to(Survival::Nothing);
    let mut process = match Process::start(&world.disk, world.options.journal, &world.options.config, false) {
        Ok(process) => process,
        Err(fault) => panic!("{what}: no start: {fault}"),
    };
    // Without the commit that follows the last one nothing shows that it was durable (rule 6).
    let (least, most) = (if is_settled { world.model.durable } else { 0 }, world.model.attempted);
    let judged = judge(world, &mut process, least, most, &what);
    world.coverage.hit_if(judged.is_named || !judged.unreadable.is_empty(), "lie: found");
}

/// Holds what a damaged disk serves against the model.
fn judge(world: &World, process: &mut Process, least: u64, most: u64, what: &str) -> Judged {
    let has_damage = !process.journal_end.damage.is_empty();
    let is_certain = |verdict: &Verdict| {
        matches!(verdict, Verdict::Proved | Verdict::Cut) || (!has_damage && *verdict == Verdict::Lost(Loss::Relaxed))
    };
    let is_named = has_damage || !process.verdicts.values().all(is_certain);
    if !is_named && find_cut(&world.model, process, least, most, world.seed).is_ok() {
        return Judged { unreadable: Vec::new(), is_named };
    }
    let mut unreadable = Vec::new();
    for id in world.model.existing() {
        let state = world.model.now(id);
        if !process.ids().contains(&id) {
            assert!(has_damage || least == 0, "{what}: {id} is gone, and nobody says so");
            unreadable.push((id, state.live().cloned().collect()));
            continue;
        }
        let (lost, is_refused) = match state.keyed {
            true => missing_keyed(process, state, id, what),
            false => missing(process, state, id, what),
        };
        if lost.is_empty() {
            continue;
        }
        let is_said = is_refused || !is_certain(&process.verdicts[&id]) || least == 0;
        assert!(is_said, "{what}: {id} lacks {:?}, and nobody says so", lost[0].base);
        unreadable.push((id, lost));
    }
    Judged { unreadable, is_named }
}

/// The batches of a log that are not served, and whether each of them is refused as damaged. Any other byte than was
/// appended is a failure.
fn missing(process: &mut Process, state: &State, id: TopicPartition, what: &str) -> (Vec<Stored>, bool) {
    let log_start = process.log(id).log_start().0;
    let mut lost = Vec::new();
    let mut is_refused = true;
    for batch in state.live().filter(|batch| batch.next > log_start) {
        let from = batch.base.max(log_start);
        let refused = loop {
            let log = process.log(id);
            let read = match log.read(Offset(from), log.log_end(), 1, true) {
                Read::OutOfRange | Read::Empty => break Some(false),
                Read::Damaged(_) => break Some(true),
                read => process.run_read(read),
            };
            match read {
                Ok(Some(runs)) => match state.follow(from, &runs) {
                    Ok(next) if next > from => break None,
                    Ok(_) => break Some(false),
                    Err(difference) => panic!("{what}: {id} at {from}: {difference}"),
                },
                Ok(None) => break Some(false),
                // One look at the whole segment, as a lane has; then only what is hurt is refused.
                Err(Fault::Damage { path, .. }) if survey(process, id, &path, what) => {}
                Err(Fault::Damage { .. }) => break Some(true),
                Err(fault) => panic!("{what}: {id} at {from}: {fault}"),
            }
        };
        if let Some(refused) = refused {
            is_refused &= refused;
            lost.push(batch.clone());
        }
    }
    (lost, is_refused)
}

/// As [`missing`], for a log that may be compacted: what holes span, and what lies beyond its end.
fn missing_keyed(process: &mut Process, state: &State, id: TopicPartition, what: &str) -> (Vec<Stored>, bool) {
    let mut from = process.log(id).log_start().0.max(state.log_start);
    let (mut lost, mut is_refused) = (Vec::new(), true);
    while from < state.end {
        let log = process.log(id);
        let read = log.read(Offset(from), Offset(state.end), 4_000, true);
        let hole = log.holes().iter().find(|hole| hole.start.0 <= from && from < hole.end.0).copied();
        let (to, refused) = match (read, hole) {
            (Read::Damaged(hole), _) => (hole.end.0, true),
            (Read::OutOfRange | Read::Empty, _) => (state.end, false),
            (read, hole) => match process.run_read(read) {
                Ok(Some(runs)) => match state.follow_keyed(from, &runs) {
                    Ok(next) if next > from => {
                        from = next;
                        continue;
                    }
                    Ok(_) => (state.end, false),
                    Err(difference) => panic!("{what}: {id} at {from}: {difference}"),
                },
                Ok(None) => (state.end, false),
                Err(Fault::Damage { path, .. }) if survey(process, id, &path, what) => continue,
                Err(Fault::Damage { .. }) => (hole.map_or(from + 1, |hole| hole.end.0), true),
                Err(fault) => panic!("{what}: {id} at {from}: {fault}"),
            },
        };
        is_refused &= refused;
        lost.extend(state.live().filter(|batch| batch.next > from && batch.base < to).cloned());
        from = to;
    }
    (lost, is_refused)
}

/// Looks at the segment that a read found damaged; whether anything is known now that was not before.
fn survey(process: &mut Process, id: TopicPartition, path: &Path, what: &str) -> bool {
    let Some(segment) = SegmentId::of_log(path) else { return false };
    let access = process.access.clone();
    let log = &mut process.hosted(id).log;
    let Some(job) = log.plan_survey(segment.base) else { return false };
    let surveyed = job.run(&access).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    surveyed.sums_rewritten > 0 || !log.on_surveyed(&surveyed).is_empty()
}

fn files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![PathBuf::from(ROOT)];
    while let Some(directory) = directories.pop() {
        for entry in disk.list(&directory).expect("the power is on") {
            let path = directory.join(&entry.name);
            if entry.is_dir {
                directories.push(path);
            } else if entry.name.ends_with(ending) || entry.name.starts_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
