//! What a seed's faults are, and the whole life of a seed: at least so many appends and faults, then a quiet end.

use stonelog_storage::disk::{SimFault, SimOperation, Survival, Tearing};

use super::{Left, World, damage};
use crate::support::Random;

/// A seed has at least so many.
pub const APPENDS_MIN: u64 = 500;
/// A seed has at least so many: power cuts, deaths of the process, failed operations, full disks.
pub const FAULTS_MIN: u64 = 10;

/// What a power cut leaves, at random.
pub fn survival(random: &mut Random) -> Survival {
    match random.below(10) {
        0 => Survival::Nothing,
        1 => Survival::Everything,
        2 => Survival::Names,
        3 => Survival::Bytes,
        4..=6 => Survival::Some { seed: random.next(), tearing: Tearing::Blocks },
        _ => Survival::Some { seed: random.next(), tearing: Tearing::Sectors },
    }
}

/// An operation that fails: kind, what its path contains, how, and the mark.
const FAILURES: [(SimOperation, &str, SimFault, &str); 9] = [
    (SimOperation::Write, "journal", SimFault::InputOutput, "EIO from a journal write"),
    (SimOperation::Write, "journal", SimFault::Short, "short journal write"),
    (SimOperation::SyncData, "journal", SimFault::LosesBytes, "journal fsync that lost bytes"),
    (SimOperation::SyncDir, "journal", SimFault::InputOutput, "EIO from a journal directory fsync"),
    (SimOperation::Write, ".log", SimFault::Short, "short segment write"),
    (SimOperation::SyncData, ".log", SimFault::LosesBytes, "segment fsync that lost bytes"),
    (SimOperation::SyncData, ".sum", SimFault::LosesBytes, "checksum file's fsync that lost bytes"),
    (SimOperation::SyncData, "checkpoint", SimFault::LosesBytes, "checkpoint fsync that lost bytes"),
    (SimOperation::Rename, "checkpoint", SimFault::InputOutput, "EIO from a checkpoint's rename"),
];

/// Marks of what must have come up over a run, beside those of [`FAILURES`].
pub const MARKS: [&str; 49] = [
    "append as leader",
    "append as follower",
    "duplicate answered",
    "read from memory",
    "read from files",
    "read of what has moved",
    "flush",
    "flush that came too late",
    "segment rolled",
    "segment of several blocks",
    "checkpoint written",
    "journal file recycled",
    "segment files deleted",
    "dropped log's directory deleted",
    "log dropped",
    "log start raised",
    "retention",
    "made strict",
    "made relaxed",
    "reset",
    "truncation in memory",
    "truncation of durable records",
    "truncation into segments",
    "truncation under a flush in flight",
    "cut planned again",
    "sync of an untold commit",
    "empty commit",
    "power cut between steps",
    "power cut in a change",
    "power cut in recovery",
    "power cut in a checkpoint",
    "process killed",
    "killed after a fault",
    "disk full",
    "no space for a commit",
    "no space for segments",
    "no space for a checkpoint",
    "no space for a spare journal file",
    "torn tail",
    "verdict proved",
    "verdict cut",
    "verdict lost",
    "queued entries lost",
    "un-synced entries kept",
    "sweep",
    "segment compacted",
    "compaction that came too late",
    "compaction ended",
    "no space for a compaction",
];

/// All marks.
pub fn marks() -> impl Iterator<Item = &'static str> {
    MARKS.into_iter().chain(damage::MARKS).chain(FAILURES.iter().map(|(.., mark)| *mark))
}

/// Lives a whole seed; panics when a promise is broken.
pub fn live(seed: u64) -> World {
    let mut world = World::new(seed);
    while world.appends_count < APPENDS_MIN || world.faults_count < FAULTS_MIN {
        episode(&mut world);
    }
    world.settle().unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    world.check_live();
    damage::experiments(&mut world);
    world
}

fn episode(world: &mut World) {
    let steps = 60 + world.below(500);
    match world.below(9) {
        0 | 1 => {
            run(world, steps);
            world.coverage.hit("power cut between steps");
            cut_power(world);
        }
        2..=4 => {
            run(world, steps);
            let at = world.disk.changes() + world.below(30);
            world.disk.cut_power_at(at);
            let mut checkpointing = false;
            while !world.disk.is_dead() {
                checkpointing = world.process().is_checkpointing();
                if world.step().is_err() {
                    assert!(world.disk.is_dead(), "seed {}: a fault of its own", world.seed);
                }
            }
            world.coverage.hit("power cut in a change");
            world.coverage.hit_if(checkpointing, "power cut in a checkpoint");
            cut_power(world);
        }
        5 => {
            run(world, steps);
            world.coverage.hit("process killed");
            world.disk.kill();
            world.restart(Left::Process);
        }
        6 | 7 => fail(world, steps),
        _ => fill(world, steps),
    }
}

/// So many steps, in which nothing fails.
fn run(world: &mut World, steps: u64) {
    for _ in 0..steps {
        if let Err(fault) = world.step() {
            panic!("seed {}: a fault of its own: {fault}", world.seed);
        }
    }
}

fn cut_power(world: &mut World) {
    let survival = survival(&mut world.random);
    world.disk.crash_to(survival);
    world.restart(Left::Power);
}

/// One operation fails; the directory is offline, and the process ends one way or the other.
fn fail(world: &mut World, steps: u64) {
    let (operation, path, fault, mark) = FAILURES[world.below(FAILURES.len() as u64) as usize];
    run(world, steps / 2);
    let skip = world.below(6) as u32;
    world.disk.fail(operation, path, skip, fault);
    for _ in 0..2_000 {
        if world.step().is_err() {
            world.coverage.hit(mark);
            if world.below(2) == 0 {
                return cut_power(world);
            }
            world.coverage.hit("killed after a fault");
            world.disk.kill();
            return world.restart(Left::ProcessAfterFault);
        }
    }
    // It never came to that.
    world.disk.kill();
    world.restart(Left::Process);
}

/// The disk is full for a while. Nothing is a fault, and afterwards everything goes on.
fn fill(world: &mut World, steps: u64) {
    run(world, steps / 2);
    let room = world.below(200_000);
    let used = world.disk.used_bytes();
    world.disk.set_capacity(Some(used + room));
    world.coverage.hit("disk full");
    world.faults_count += 1;
    run(world, steps);
    world.disk.set_capacity(None);
    run(world, 20);
    world.settle().unwrap_or_else(|fault| panic!("seed {}: with space again: {fault}", world.seed));
    let (left, said) = (world.process().queued_count(), world.process().describe());
    assert_eq!(left, 0, "seed {}: what was queued is written: {said}", world.seed);
    world.check_live();
}
