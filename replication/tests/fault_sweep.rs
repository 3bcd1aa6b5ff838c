//! Faults swept over the file classes of a log directory, on the simulated disk with the real threads: an EIO (or an
//! fsync that loses bytes and says OK the next time), and an allocation that finds no space.
//!
//! After an EIO nothing is acknowledged any more, and what was is there after a power cut, in order and once. After a
//! full disk service resumes without a restart. `STONELOG_SWEEP=1000` sets the count per class, `STONELOG_SWEEP_FROM`
//! the first seed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::TopicId;
use stonelog_replication::runtime::space::Room;
use stonelog_replication::runtime::start::{self, Started};
use stonelog_storage::disk::{SimDisk, SimFault, SimOperation, Tearing};
use stonelog_storage::log_dir::LogDir;
use support::*;

const D: &str = "/d";
const ROUNDS: i64 = 12;

/// A class of files: part of their paths, and what is done to them.
struct Class {
    name: &'static str,
    path: &'static str,
    operations: &'static [SimOperation],
}

const CLASSES: [Class; 5] = {
    use SimOperation::{Create, Rename, SyncData, SyncDir, Write};
    [
        Class { name: "journal", path: "/d/journal", operations: &[Write, SyncData, SyncDir, Rename, Create] },
        Class { name: "segments", path: ".log", operations: &[Write, SyncData, Create] },
        Class { name: "checksums", path: ".sum", operations: &[Write, SyncData, Create] },
        Class { name: "checkpoint", path: "/d/checkpoint", operations: &[Write, SyncData, Create, Rename] },
        Class { name: "directory", path: "/d", operations: &[SyncDir] },
    ]
};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

async fn start_on(disk: &SimDisk, start_number: u8) -> Started {
    let options = options(Arc::new(disk.clone()), vec![PathBuf::from(D)], Upkeep::AtOnce, start_number);
    start::start(options).await.unwrap()
}

/// What was acknowledged, partition by partition; numbers rise with every attempt.
#[derive(Default)]
struct Model {
    acknowledged: [Vec<i64>; PARTITIONS as usize],
    next: i64,
}

fn bytes_of(number: i64) -> usize {
    100 + (number as usize * 7919) % (24 << 10)
}

impl Model {
    /// One record to every partition; how many were acknowledged.
    async fn round(&mut self, started: &Started, topic: TopicId) -> usize {
        let mut count = 0;
        for index in 0..PARTITIONS {
            let number = self.next;
            self.next += 1;
            let had_failed = started.node.must_stop().is_some();
            let done = produce(started, partition(topic, index), value(index, number, bytes_of(number))).await;
            if done.is_ok() {
                assert!(!had_failed, "record {number} was acknowledged after the failure");
                self.acknowledged[index as usize].push(number);
                count += 1;
            }
        }
        count
    }

    /// Everything acknowledged is there, in order and once, and nothing that nobody sent.
    async fn check(&self, started: &Started, topic: TopicId, context: &str) {
        for index in 0..PARTITIONS {
            let mut found = Vec::new();
            for read in read_values(started, partition(topic, index)).await {
                let text = String::from_utf8(read.clone()).unwrap();
                let number: i64 = text.split('/').nth(1).unwrap().parse().unwrap();
                assert!(read == value(index, number, bytes_of(number)), "{context}: another value");
                assert!(found.last().is_none_or(|last| *last < number), "{context}: {number} out of order or twice");
                found.push(number);
            }
            for number in &self.acknowledged[index as usize] {
                assert!(found.contains(number), "{context}: record {number} of partition {index} is lost");
            }
        }
    }
}

/// The power goes, or only the process; then a start on what is left.
async fn restart(disk: &SimDisk, random: &mut Random, start_number: u8) -> Started {
    match random.below(3) {
        0 => disk.kill(),
        1 => disk.crash(random.below(u64::MAX), Tearing::Sectors),
        _ => disk.crash(random.below(u64::MAX), Tearing::Blocks),
    }
    start_on(disk, start_number).await
}

/// One EIO; whether it took the directory offline.
async fn input_output_error(class: &Class, seed: u64) -> bool {
    let context = format!("EIO, class {}, seed {seed}", class.name);
    let mut random = Random(seed);
    let disk = SimDisk::new();
    let started = start_on(&disk, 1).await;
    let topic = create_topic(&started, "t").await;
    let mut model = Model::default();
    let operation = class.operations[random.below(class.operations.len() as u64) as usize];
    let loses = operation == SimOperation::SyncData && random.below(2) == 0;
    let fault = if loses { SimFault::LosesBytes } else { SimFault::InputOutput };
    let at = random.below(4) as i64;
    for round in 0..ROUNDS {
        if round == at {
            disk.fail(operation, class.path, random.below(4) as u32, fault);
        }
        model.round(&started, topic).await;
        if class.name != "journal" {
            // Segments and checkpoints are written behind the acknowledgements: let some happen.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
    let failed = started.node.must_stop().is_some();
    if failed {
        assert_eq!(model.round(&started, topic).await, 0, "{context}");
    }
    drop(started.stop());

    if failed {
        disk.kill();
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(D)).unwrap();
        directory.reread(&mut |_| {}).unwrap();
        directory.settle_failure().unwrap();
    }
    let again = restart(&disk, &mut random, 2).await;
    model.check(&again, topic, &context).await;
    assert_eq!(model.round(&again, topic).await, PARTITIONS as usize, "{context}");
    drop(again.stop());
    // What a recovery has published is durable.
    let once_more = restart(&disk, &mut random, 3).await;
    model.check(&once_more, topic, &context).await;
    drop(once_more.stop());
    failed
}

/// An allocation fails for want of space, or the whole disk is full; whether anything was refused for it.
async fn no_space(class: Option<&Class>, seed: u64) -> bool {
    let name = class.map_or("whole disk", |class| class.name);
    let context = format!("no space, class {name}, seed {seed}");
    let mut random = Random(seed);
    let disk = SimDisk::new();
    let started = start_on(&disk, 1).await;
    let topic = create_topic(&started, "t").await;
    let mut model = Model::default();
    let at = random.below(4) as i64;
    let mut refused = false;
    for round in 0..ROUNDS {
        if round == at {
            match class {
                Some(class) => {
                    // Twice: what is reserved ahead of need is tried again with less.
                    let skip = random.below(3) as u32;
                    disk.fail(SimOperation::Allocate, class.path, skip, SimFault::StorageFull);
                    disk.fail(SimOperation::Allocate, class.path, skip, SimFault::StorageFull);
                }
                None => {
                    use stonelog_storage::disk::Disk as _;
                    disk.set_capacity(Some(u64::MAX));
                    let space = disk.space(Path::new(D)).unwrap();
                    disk.set_capacity(Some(
                        space.total_bytes - space.usable_bytes
                            + if random.below(2) == 0 { 2 << 20 } else { random.below(600 << 10) },
                    ));
                }
            }
        }
        refused |= model.round(&started, topic).await < PARTITIONS as usize;
        if class.map_or(random.below(2) == 0, |class| class.name != "journal") {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        refused |= started.node.directories[0].space.room() > Room::Ample;
    }
    disk.set_capacity(None);
    assert_eq!(started.node.must_stop(), None, "{context}: no fault");
    let node = Arc::clone(&started.node);
    eventually(move || node.directories[0].space.room() == Room::Ample).await;
    // A lane may just have met it once more.
    let mut resumed = false;
    for _ in 0..100 {
        resumed = model.round(&started, topic).await == PARTITIONS as usize;
        if resumed {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(resumed, "{context}: service does not resume");
    model.check(&started, topic, &context).await;
    drop(started.stop());
    let again = restart(&disk, &mut random, 2).await;
    model.check(&again, topic, &context).await;
    drop(again.stop());
    refused
}

#[tokio::test]
async fn after_an_input_output_error_in_any_file_nothing_is_acknowledged_and_nothing_lost() {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    for class in &CLASSES {
        let mut hits = 0;
        for seed in from..from + count {
            hits += u64::from(input_output_error(class, seed).await);
        }
        println!("EIO in {}: {count} runs from seed {from}, {hits} took the directory offline", class.name);
        assert!(hits > 0, "the sweep of {} never met its files", class.name);
    }
}

#[tokio::test]
async fn after_a_full_disk_nothing_is_lost_and_service_resumes() {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    let with_space = CLASSES.iter().filter(|class| class.name != "directory").map(Some);
    for class in with_space.chain([None]) {
        let mut hits = 0;
        for seed in from..from + count {
            hits += u64::from(no_space(class, seed).await);
        }
        let name = class.map_or("the whole disk", |class| class.name);
        println!("no space for {name}: {count} runs from seed {from}, {hits} were felt");
        assert!(hits > 0, "the sweep of {name} never met its files");
    }
}
