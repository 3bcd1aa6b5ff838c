//! Every change to the disk is a place to crash, enumerated: the scenarios run once, keeping the disk as it was in each
//! change, and each of these images is a power cut, for several kinds of what survives.
//!
//! Of append, roll, checkpoint, truncation, deletion, journal recycle and start-up; a crash during the recovery after a
//! crash is enumerated for some images, and two points are combined by seed. Compaction has its own file.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;
mod world;

use std::collections::BTreeMap;

use stonelog_storage::disk::{SimImage, SimOperation, Survival, Tearing};
use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log::LogConfig;

use support::Random;
use world::options::{Action, Options};
use world::process::Process;
use world::{World, find_cut};

/// What survives each crash.
fn survivals(seed: u64) -> [Survival; 6] {
    [
        Survival::Nothing,
        Survival::Everything,
        Survival::Names,
        Survival::Bytes,
        Survival::Some { seed, tearing: Tearing::Blocks },
        Survival::Some { seed: seed ^ 0xabc, tearing: Tearing::Sectors },
    ]
}

/// A run without faults: its images, and what was durable and attempted when each began.
struct Run {
    world: World,
    images: Vec<SimImage>,
    /// The first change at which it held, then durable and attempted.
    promises: Vec<(u64, u64, u64)>,
}

impl Run {
    fn promised(&self, change: u64) -> (u64, u64) {
        let at = self.promises.partition_point(|(from, ..)| *from <= change);
        let (_, durable, attempted) = self.promises[at - 1];
        (durable, attempted)
    }
}

fn options(usual: &[(Action, u64)], segment_bytes: u32, logs: usize) -> Options {
    let journal = JournalOptions {
        file_bytes: 48 << 10,
        first_file_bytes: 24 << 10,
        commit_bytes_max: 8 << 10,
        bytes_max: 240 << 10,
    };
    let config = LogConfig { segment_bytes, index_interval_bytes: 512, ..LogConfig::default() };
    let steps = [
        (Action::Write, 12),
        (Action::Tell, 14),
        (Action::Sync, 10),
        (Action::Hear, 14),
        (Action::Flush, 24),
        (Action::Checkpoint, 20),
        (Action::Empty, 2),
        (Action::Spare, 1),
    ];
    let mut options = Options::with(journal, config, logs, 900, [usual, &steps].concat());
    options.keeps_history = true;
    options.crash_in_recovery = false;
    options
}

fn run(seed: u64, options: Options, steps: u64) -> Run {
    let mut world = World::with(seed, Random(seed), options);
    world.disk.record_images();
    let mut promises = vec![(0, 0, world.model.attempted)];
    for _ in 0..steps {
        let before = world.disk.changes();
        let attempted = world.model.attempted;
        world.step().unwrap();
        if world.model.attempted > attempted {
            // While the write is under way, any of it may be there.
            promises.push((before, world.model.durable, world.model.attempted));
        }
        promises.push((world.disk.changes(), world.model.durable, world.model.attempted));
    }
    let images = world.disk.take_images();
    Run { world, images, promises }
}

/// Starts on a crashed disk and holds it against the model.
fn check(run: &Run, image: &SimImage, survival: Survival, what: &str) {
    let disk = image.after(survival);
    check_disk(run, &disk, image.change, what);
}

fn check_disk(run: &Run, disk: &stonelog_storage::disk::SimDisk, change: u64, what: &str) {
    let options = &run.world.options;
    let process = Process::start(disk, options.journal, &options.config, false);
    let process = process.unwrap_or_else(|fault| panic!("{what}: no start: {fault}"));
    assert!(process.journal_end.damage.is_empty(), "{what}: {:?}", process.journal_end);
    let (durable, attempted) = run.promised(change);
    if let Err(difference) = find_cut(&run.world.model, &process, durable, attempted, change) {
        panic!("{what}: {difference}");
    }
}

/// Crashes at every image; returns how many crashes that was, by kind of operation.
fn crash_everywhere(run: &Run) -> BTreeMap<SimOperation, u64> {
    let mut counts = BTreeMap::new();
    for image in &run.images {
        for survival in survivals(image.change) {
            let path = image.path.display();
            let what = format!("change {} ({:?} {path}), {survival:?}", image.change, image.operation);
            check(run, image, survival, &what);
            *counts.entry(image.operation).or_default() += 1;
        }
    }
    counts
}

fn report(name: &str, run: &Run, counts: &BTreeMap<SimOperation, u64>, marks: &[&str]) {
    let crashes: u64 = counts.values().sum();
    println!("{name}: {} crash points, {crashes} crashes, by operation {counts:?}", run.images.len());
    for mark in marks {
        assert!(run.world.coverage.count(mark) > 0, "{name} never comes to: {mark}");
    }
}

#[test]
fn a_crash_at_any_point_of_append_roll_checkpoint_and_recycle_loses_nothing_durable() {
    let run = run(1, options(&[(Action::Append, 24), (Action::Epoch, 2)], 3_000, 3), 420);
    let counts = crash_everywhere(&run);
    report(
        "append, roll, checkpoint, recycle",
        &run,
        &counts,
        &["append as leader", "append as follower", "segment rolled", "checkpoint written", "journal file recycled"],
    );
}

#[test]
fn a_crash_at_any_point_of_truncation_and_reset_loses_nothing_durable() {
    let usual =
        [(Action::Append, 20), (Action::Truncate, 5), (Action::Rebuild, 8), (Action::Reset, 1), (Action::Epoch, 2)];
    let run = run(4, options(&usual, 3_000, 3), 420);
    let counts = crash_everywhere(&run);
    report("truncation and reset", &run, &counts, &["truncation in memory", "truncation into segments", "reset"]);
}

#[test]
fn a_crash_at_any_point_of_deletion_and_drop_loses_nothing_durable() {
    let usual =
        [(Action::Append, 24), (Action::LogStart, 5), (Action::Mode, 1), (Action::Drop, 1), (Action::Create, 2)];
    let run = run(3, options(&usual, 2_000, 3), 800);
    let counts = crash_everywhere(&run);
    report(
        "deletion and drop",
        &run,
        &counts,
        &[
            "log start raised",
            "segment files deleted",
            "log dropped",
            "dropped log's directory deleted",
            "made relaxed",
        ],
    );
}

#[test]
fn a_crash_at_any_point_of_the_start_after_a_crash_loses_nothing_durable() {
    let usual = [(Action::Append, 20), (Action::Truncate, 3), (Action::Rebuild, 6), (Action::LogStart, 2)];
    let run = run(2, options(&usual, 3_000, 3), 300);
    let (mut points, mut crashes) = (0, 0);
    // Every so many images; at each of them every change of the recovery.
    for image in run.images.iter().step_by(run.images.len() / 24) {
        for first in survivals(image.change) {
            let disk = image.after(first);
            disk.record_images();
            let options = &run.world.options;
            drop(Process::start(&disk, options.journal, &options.config, false).unwrap());
            let again = disk.take_images();
            points += again.len();
            for inner in &again {
                for second in survivals(inner.change ^ image.change).into_iter().step_by(2) {
                    let what =
                        format!("change {}, {first:?}, then {} of the start, {second:?}", image.change, inner.change);
                    check_disk(&run, &inner.after(second), image.change, &what);
                    crashes += 1;
                }
            }
        }
    }
    println!("start-up: {points} crash points, {crashes} crashes");
    assert!(points > 500, "a start changes the disk: {points} changes");
}

#[test]
fn two_crashes_at_any_two_points_lose_nothing_durable() {
    // The second one in the life after the first, sampled.
    let seeds = std::env::var("CRASH_PAIRS").map_or(40, |count| count.parse().expect("CRASH_PAIRS is a number"));
    for seed in 0..seeds {
        let mut random = Random(seed);
        let usual = [
            (Action::Append, 20),
            (Action::Truncate, 2),
            (Action::Rebuild, 4),
            (Action::LogStart, 2),
            (Action::Reset, 1),
        ];
        let mut options = options(&usual, 3_000, 3);
        options.keeps_history = false;
        options.crash_in_recovery = true;
        let mut world = World::with(seed, Random(seed), options);
        for _ in 0..2 {
            let at = world.disk.changes() + 20 + random.below(150);
            world.disk.cut_power_at(at);
            while !world.disk.is_dead() {
                let stepped = world.step();
                assert!(stepped.is_ok() || world.disk.is_dead(), "seed {seed}: a fault of its own");
            }
            world.disk.crash_to(survivals(random.next())[random.below(6) as usize]);
            world.restart(world::Left::Power);
        }
    }
}
