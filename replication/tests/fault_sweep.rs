//! Faults swept over every class of files in a log directory, on the simulated disk with the real threads: an EIO (or an
//! fsync that loses bytes and says OK the next time), an allocation that finds no space, and a file or directory that
//! cannot be opened for want of descriptors.
//!
//! After an EIO nothing is acknowledged any more, and what was is there after a power cut, in order and once. After a
//! full disk, and after too many open files, service resumes without a restart. `STONELOG_SWEEP=1000` sets how many faults of each class have to strike,
//! `STONELOG_SWEEP_FROM` the first seed; `tests/sweep` runs this beside the sweeps of flipped bits and of the metadata
//! log (`quorum/tests/sweep.rs`), and makes one table of the lines that begin with `swept`.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use stonelog_protocol::TopicId;
use stonelog_replication::runtime::space::Room;
use stonelog_replication::runtime::start::{self, StartError, StartOptions, Started};
use stonelog_storage::disk::{Disk as _, SimDisk, SimFault, SimOperation, Tearing};
use stonelog_storage::log_dir::{LogDir, OFFLINE_NAME, Tenure};
use support::*;

const D: &str = "/d";
const ROUNDS: i64 = 12;

/// Runs that go on at the same time: most of a run is waiting.
const AT_ONCE: usize = 12;
/// Runs for each fault that is to strike: what is armed may meet nobody.
const TRIES: u64 = 30;

/// What the table calls a disk that has no room for anything.
const WHOLE_DISK: &str = "whole disk";

/// When the fault is armed.
#[derive(Clone, Copy, PartialEq)]
enum When {
    /// Under load.
    Load,
    /// Before a start.
    Start,
    /// Before a stop.
    Stop,
}

/// A class of files: part of their paths, and what is done to them.
struct Class {
    name: &'static str,
    path: &'static str,
    when: When,
    /// What fails with an EIO.
    operations: &'static [SimOperation],
    /// What finds no space.
    allocations: &'static [SimOperation],
    /// Whether segments are small, so that many are closed and indexed.
    rolls: bool,
}

impl Class {
    /// Rounds of appends: before a start or a stop only as many as leave something behind.
    fn rounds(&self) -> i64 {
        match self.when {
            When::Load if self.rolls => 2 * ROUNDS,
            When::Load => ROUNDS,
            When::Start | When::Stop => 3,
        }
    }
}

/// What there is none of for a moment.
#[derive(Clone, Copy, PartialEq)]
enum Lack {
    Space,
    Descriptors,
}

impl Lack {
    fn name(self) -> &'static str {
        match self {
            Lack::Space => "no space",
            Lack::Descriptors => "no descriptors",
        }
    }

    fn fault(self) -> SimFault {
        match self {
            Lack::Space => SimFault::StorageFull,
            Lack::Descriptors => SimFault::TooManyOpen,
        }
    }

    /// What fails for the lack of it.
    fn operations(self, class: &Class) -> Vec<SimOperation> {
        let opens =
            |of: &&SimOperation| matches!(of, SimOperation::Create | SimOperation::Open | SimOperation::SyncDir);
        match self {
            Lack::Space => class.allocations.to_vec(),
            Lack::Descriptors => class.operations.iter().filter(opens).copied().collect(),
        }
    }
}

const CLASSES: [Class; 14] = {
    use SimOperation::{Allocate, Create, Open, Read, ReadDevice, Rename, SyncData, SyncDir, Write};
    use When::{Load, Start, Stop};
    const fn class(
        name: &'static str,
        path: &'static str,
        when: When,
        operations: &'static [SimOperation],
        allocations: &'static [SimOperation],
    ) -> Class {
        Class { name, path, when, operations, allocations, rolls: false }
    }
    let replace: &[SimOperation] = &[Create, Write, SyncData, Rename];
    [
        class("journal", "/d/journal/", Load, &[Write, SyncData], &[Allocate]),
        class("journal, spare", "/d/journal/*.new", Load, &[Create, Write, SyncData, Rename], &[Create, Allocate]),
        class("journal, names", "/d/journal", Load, &[SyncDir], &[Rename]),
        class("journal, at start", "/d/journal/", Start, &[Open, SyncData, ReadDevice], &[Create, Allocate]),
        class("segments", ".log", Load, &[Create, Write, SyncData], &[Create, Allocate]),
        class("segments, names", "/d/*-", Load, &[Create, SyncDir], &[Create]),
        class("block checksums", ".sum", Load, &[Create, Write, SyncData], &[Create, Allocate]),
        Class { rolls: true, ..class("indexes", ".index", Load, &[Create, Write], &[Create, Allocate]) },
        class("checkpoint", "/d/checkpoint", Load, replace, &[Create, Allocate, Rename]),
        class("checkpoint, at start", "/d/checkpoint", Start, &[Open, Read], &[]),
        class("meta.properties", "/d/meta.properties", Start, replace, &[Create, Allocate, Rename]),
        class("names", "/d", Load, &[SyncDir], &[]),
        class("tenure", "/d/.stonelog_tenure", Start, replace, &[Create, Allocate, Rename]),
        class("clean stop", "/d/.stonelog_clean_stop", Stop, replace, &[Create, Allocate]),
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

async fn try_start(disk: &SimDisk, start_number: u8) -> Result<Started, StartError> {
    let options = options(Arc::new(disk.clone()), vec![PathBuf::from(D)], Upkeep::AtOnce, start_number);
    // Another boot after the first start: a tenure that is the same is not written again.
    let tenure_of = |_: &Path| Ok(Tenure { boot_id: [2; 16], mount_id: Some(1) });
    let tenure_of = if start_number == 1 { options.tenure_of } else { tenure_of };
    start::start(StartOptions { tenure_of, ..options }).await
}

async fn start_on(disk: &SimDisk, start_number: u8) -> Started {
    try_start(disk, start_number).await.unwrap()
}

async fn topic_for(started: &Started, class: &Class) -> TopicId {
    let configs: &[(&str, &str)] = if class.rolls { &[("segment.index.bytes", "8")] } else { &[] };
    create_topic_with(started, "t", configs).await
}

/// Segments and checkpoints are written behind the acknowledgements: lets some happen.
async fn behind() {
    tokio::time::sleep(Duration::from_millis(2)).await;
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

/// The power goes, or only the process.
fn cut(disk: &SimDisk, random: &mut Random) {
    match random.below(3) {
        0 => disk.kill(),
        1 => disk.crash(random.below(u64::MAX), Tearing::Sectors),
        _ => disk.crash(random.below(u64::MAX), Tearing::Blocks),
    }
}

/// The power goes, or only the process; then a start on what is left.
async fn restart(disk: &SimDisk, random: &mut Random, start_number: u8) -> Started {
    cut(disk, random);
    start_on(disk, start_number).await
}

/// What one fault did.
#[derive(Clone, Copy, Default)]
struct Done {
    /// It met an operation.
    struck: bool,
    /// The directory went offline, or the start or stop was refused.
    stopped: bool,
    /// Something was refused for want of space.
    refused: bool,
}

/// One EIO.
async fn input_output_error(class: &Class, seed: u64) -> Done {
    let context = format!("EIO, class {}, seed {seed}", class.name);
    let mut random = Random(seed);
    let disk = SimDisk::new();
    let started = start_on(&disk, 1).await;
    let topic = topic_for(&started, class).await;
    let mut model = Model::default();
    let operation = class.operations[random.below(class.operations.len() as u64) as usize];
    let loses = operation == SimOperation::SyncData && random.below(2) == 0;
    let fault = if loses { SimFault::LosesBytes } else { SimFault::InputOutput };
    let at = random.below(4) as i64;
    for round in 0..class.rounds() {
        if class.when == When::Load && round == at {
            disk.fail(operation, class.path, random.below(4) as u32, fault);
        }
        model.round(&started, topic).await;
        if !class.name.starts_with("journal") {
            behind().await;
        }
    }
    let mut done = Done { stopped: started.node.must_stop().is_some(), ..Done::default() };
    if done.stopped {
        assert_eq!(model.round(&started, topic).await, 0, "{context}");
    }
    if class.when == When::Stop {
        disk.fail(operation, class.path, random.below(2) as u32, fault);
    }
    done.stopped |= started.stop().is_err();
    if class.when == When::Start {
        cut(&disk, &mut random);
        disk.fail(operation, class.path, random.below(3) as u32, fault);
        match try_start(&disk, 2).await {
            Err(_) => done.stopped = true,
            Ok(started) => {
                model.round(&started, topic).await;
                done.stopped = started.node.must_stop().is_some();
                drop(started.stop());
            }
        }
    }
    done.struck = disk.waiting_faults() == 0;
    disk.kill();
    if disk.exists(&Path::new(D).join(OFFLINE_NAME)).unwrap() {
        let (directory, _) = LogDir::open(Arc::new(disk.clone()), Path::new(D)).unwrap();
        directory.reread(&mut |_| {}).unwrap();
        directory.settle_failure().unwrap();
    }
    let again = restart(&disk, &mut random, 3).await;
    model.check(&again, topic, &context).await;
    assert_eq!(model.round(&again, topic).await, PARTITIONS as usize, "{context}");
    drop(again.stop());
    // What a recovery has published is durable.
    let once_more = restart(&disk, &mut random, 4).await;
    model.check(&once_more, topic, &context).await;
    drop(once_more.stop());
    done
}

/// An operation fails for the lack of something, or, without a class, the whole disk is full.
async fn without(lack: Lack, class: Option<&Class>, seed: u64) -> Done {
    let name = class.map_or(WHOLE_DISK, |class| class.name);
    let context = format!("{}, class {name}, seed {seed}", lack.name());
    let mut random = Random(seed);
    let disk = SimDisk::new();
    let mut started = start_on(&disk, 1).await;
    let topic = match class {
        Some(class) => topic_for(&started, class).await,
        None => create_topic(&started, "t").await,
    };
    let mut model = Model::default();
    let when = class.map_or(When::Load, |class| class.when);
    let at = random.below(4) as i64;
    // Twice: what is reserved ahead of need is tried again with less.
    let arm = |class: &Class, random: &mut Random| {
        let operations = lack.operations(class);
        let operation = operations[random.below(operations.len() as u64) as usize];
        let skip = random.below(3) as u32;
        disk.fail(operation, class.path, skip, lack.fault());
        disk.fail(operation, class.path, skip, lack.fault());
    };
    let mut done = Done { struck: class.is_none(), ..Done::default() };
    for round in 0..class.map_or(ROUNDS, Class::rounds) {
        if when == When::Load && round == at {
            match class {
                Some(class) => arm(class, &mut random),
                None => {
                    disk.set_capacity(Some(u64::MAX));
                    let space = disk.space(Path::new(D)).unwrap();
                    let left = if random.below(2) == 0 { 2 << 20 } else { random.below(600 << 10) };
                    disk.set_capacity(Some(space.total_bytes - space.usable_bytes + left));
                }
            }
        }
        done.refused |= model.round(&started, topic).await < PARTITIONS as usize;
        if class.map_or(random.below(2) == 0, |class| !class.name.starts_with("journal")) {
            behind().await;
        }
        done.refused |= started.node.directories[0].space.room() > Room::Ample;
    }
    if let Some(class) = class.filter(|_| when != When::Load) {
        if when == When::Stop {
            arm(class, &mut random);
        }
        done.refused |= started.stop().is_err();
        cut(&disk, &mut random);
        if when == When::Start {
            arm(class, &mut random);
        }
        // A start that finds no room is refused, and is tried again.
        started = match try_start(&disk, 2).await {
            Ok(started) => started,
            Err(_) => {
                done.refused = true;
                start_when_there_is_room(&disk, &context).await
            }
        };
    }
    done.struck |= disk.waiting_faults() < 2;
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
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(resumed, "{context}: service does not resume");
    model.check(&started, topic, &context).await;
    drop(started.stop());
    // What has not struck by now is of no concern.
    let again = restart(&disk, &mut random, 3).await;
    model.check(&again, topic, &context).await;
    drop(again.stop());
    done
}

async fn start_when_there_is_room(disk: &SimDisk, context: &str) -> Started {
    for _ in 0..4 {
        match try_start(disk, 2).await {
            Ok(started) => return started,
            Err(error) => println!("{context}: {error}"),
        }
    }
    panic!("{context}: no start, though there is room again");
}

/// Runs until so many faults have struck; what they did.
async fn sweep<F: Future<Output = Done>>(name: &str, fault: &str, count: u64, from: u64, run: impl Fn(u64) -> F) {
    let mut seeds = from..from + count * TRIES;
    let mut under_way = FuturesUnordered::new();
    let (mut runs, mut struck, mut stopped, mut refused) = (0, 0, 0, 0);
    loop {
        while under_way.len() < AT_ONCE && struck + (under_way.len() as u64) < count {
            let Some(seed) = seeds.next() else { break };
            under_way.push(run(seed));
        }
        let Some(done) = under_way.next().await else { break };
        runs += 1;
        struck += u64::from(done.struck);
        stopped += u64::from(done.struck && done.stopped);
        refused += u64::from(done.struck && done.refused);
    }
    let effects = if fault == "EIO" {
        format!("{stopped} stopped the directory, {} cost nothing", struck - stopped)
    } else {
        format!("{refused} were felt, {} cost nothing", struck - refused)
    };
    println!("swept | {name} | {fault} | {struck} | {effects}; {runs} runs");
    assert!(struck >= count, "{name}: {fault} struck only {struck} times");
    assert!(fault != "EIO" || stopped > 0, "{name}: nobody has noticed");
}

#[tokio::test]
async fn after_an_input_output_error_in_any_file_nothing_is_acknowledged_and_nothing_lost() {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    for class in chosen() {
        sweep(class.name, "EIO", count, from, |seed| input_output_error(class, seed)).await;
    }
}

#[tokio::test]
async fn after_a_full_disk_nothing_is_lost_and_service_resumes() {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    for class in chosen().filter(|class| !class.allocations.is_empty()) {
        sweep(class.name, "no space", count, from, |seed| without(Lack::Space, Some(class), seed)).await;
    }
    if std::env::var("STONELOG_SWEEP_CLASS").map_or(true, |name| name == WHOLE_DISK) {
        sweep(WHOLE_DISK, "no space", count, from, |seed| without(Lack::Space, None, seed)).await;
    }
}

#[tokio::test]
async fn after_too_many_open_files_nothing_is_lost_and_service_resumes() {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    for class in chosen().filter(|class| !Lack::Descriptors.operations(class).is_empty()) {
        sweep(class.name, "no descriptors", count, from, |seed| without(Lack::Descriptors, Some(class), seed)).await;
    }
}

/// All classes, or the one that `STONELOG_SWEEP_CLASS` names.
fn chosen() -> impl Iterator<Item = &'static Class> {
    let name = std::env::var("STONELOG_SWEEP_CLASS").ok();
    CLASSES.iter().filter(move |class| name.as_deref().is_none_or(|name| name == class.name))
}
