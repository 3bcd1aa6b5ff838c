//! Faults swept over the files of the metadata log, on the simulated disk: an EIO, an allocation that finds no space, one
//! flipped bit. `STONELOG_SWEEP` sets how many of each have to strike, as in `replication/tests/fault_sweep.rs`.
//!
//! After an EIO nothing is reported any more, and what was is there after a power cut. Without space everything waits, and
//! goes on when there is some. A flipped bit changes no entry: the log is refused with the place that is damaged, or is
//! whole, or lacks its last commit, as after a power cut; a snapshot that was hit is passed over for the one before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk, SimFault, SimOperation, Tearing};

use super::{Contents, block_on, contents, entry, id, image, meta};
use crate::quorum::log_store::{LogStore, LogThread};
use crate::quorum::snapshot_store::{SnapshotStore, encode_snapshot};
use crate::quorum::type_config::{Entry, TypeConfig, Vote};

const DIRECTORY: &str = "/d/metadata";
/// Runs for each fault that is to strike.
const TRIES: u64 = 30;
/// Entries of a run; so long that they go to a second file.
const ENTRIES: u64 = 12;
const ENTRY_BYTES: usize = 40_000;
/// The journal is written anew, and a checkpoint with it, when it has gone to a second file.
const REWRITE_ABOVE_BYTES: u64 = 1 << 20;

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

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn shared(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn open(disk: &SimDisk) -> Result<(LogStore, LogThread), Fault> {
    LogStore::open_with(&shared(disk), Path::new(DIRECTORY), REWRITE_ABOVE_BYTES, |_| {})
}

fn snapshots(disk: &SimDisk) -> SnapshotStore {
    SnapshotStore::new(shared(disk), PathBuf::from(DIRECTORY))
}

/// Whether it was reported as durable.
async fn reports(store: &mut LogStore, entries: Vec<Entry>) -> bool {
    let (done, durable) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(done)).await.is_ok() && durable.await.is_ok_and(|result| result.is_ok())
}

fn found(disk: &SimDisk) -> Result<Contents, Fault> {
    let (mut store, thread) = open(disk)?;
    let found = block_on(contents(&mut store));
    store.stop(thread);
    Ok(found)
}

/// A class of files and what fails in them.
struct Class {
    name: &'static str,
    path: &'static str,
    operations: &'static [SimOperation],
    allocations: &'static [SimOperation],
}

const JOURNAL: Class = Class {
    name: "metadata log",
    path: "/d/metadata/0",
    operations: &[SimOperation::Write, SimOperation::SyncData, SimOperation::Create, SimOperation::Rename],
    allocations: &[SimOperation::Create, SimOperation::Allocate, SimOperation::Rename],
};
const CHECKPOINT: Class = Class {
    name: "metadata checkpoint",
    path: "/d/metadata/metadata.checkpoint",
    operations: &[SimOperation::Create, SimOperation::Write, SimOperation::SyncData, SimOperation::Rename],
    allocations: &[SimOperation::Create, SimOperation::Allocate, SimOperation::Rename],
};
const SNAPSHOT: Class = Class { name: "metadata snapshot", path: ".snap", ..CHECKPOINT };

impl Class {
    fn arm(&self, disk: &SimDisk, random: &mut Random, fault: Option<SimFault>) {
        let of = if fault.is_none() { self.operations } else { self.allocations };
        let operation = of[random.below(of.len() as u64) as usize];
        let loses = operation == SimOperation::SyncData && random.below(2) == 0;
        let fault = fault.unwrap_or(if loses { SimFault::LosesBytes } else { SimFault::InputOutput });
        let skip = random.below(if self.name == JOURNAL.name && operation == SimOperation::Write { 12 } else { 2 });
        disk.fail(operation, self.path, skip as u32, fault);
    }
}

/// What a run did.
struct Done {
    struck: bool,
    stopped: bool,
}

/// Entries, a vote and, for a checkpoint, a purge of a long log, with one fault on the way; then a power cut and a start.
fn log_run(class: &Class, seed: u64, fault: Option<SimFault>) -> Done {
    let context = format!("{}, {fault:?}, seed {seed}", class.name);
    let mut random = Random(seed);
    let disk = disk();
    let (mut store, thread) = open(&disk).unwrap();
    let is_purged = class.name == CHECKPOINT.name;
    let mut reported = 0;
    let mut written = Vec::new();
    let mut failed = false;
    block_on(async {
        if !is_purged {
            class.arm(&disk, &mut random, fault);
        }
        for index in 0..ENTRIES {
            let next = entry(1, index, ENTRY_BYTES);
            written.push(next.clone());
            let is_reported = reports(&mut store, vec![next]).await;
            assert!(!is_reported || !failed, "{context}: entry {index} was reported after a failure");
            failed |= !is_reported;
            reported += u64::from(is_reported);
        }
        if is_purged {
            class.arm(&disk, &mut random, fault);
            store.purge(id(1, 6)).await.unwrap();
            // It is behind the purge in the queue, and is not reported when the checkpoint has failed.
            failed |= store.save_vote(&Vote::new(2, 1)).await.is_err();
            assert!(fault.is_none() || !failed, "{context}");
        }
    });
    if fault.is_some() {
        assert_eq!((reported, failed), (ENTRIES, false), "{context}: everything goes on when there is space");
    }
    let struck = disk.waiting_faults() == 0;
    store.stop(thread);
    match random.below(3) {
        0 => disk.kill(),
        1 => disk.crash(random.below(u64::MAX), Tearing::Sectors),
        _ => disk.crash(random.below(u64::MAX), Tearing::Blocks),
    }
    for _ in 0..2 {
        let (vote, purged, last, _, entries) = found(&disk).unwrap_or_else(|fault| panic!("{context}: {fault}"));
        let first = purged.map_or(0, |id| id.index + 1);
        assert!(last.map_or(0, |id| id.index + 1) >= reported, "{context}: {last:?}, reported {reported}");
        assert_eq!(entries[..], written[first as usize..first as usize + entries.len()], "{context}");
        assert!(!is_purged || failed || vote == Some(Vote::new(2, 1)), "{context}: a vote was forgotten");
        disk.kill();
    }
    Done { struck, stopped: failed }
}

/// Three snapshots, one of which meets the fault; a start finds the newest that was reported.
fn snapshot_run(seed: u64, fault: Option<SimFault>) -> Done {
    let context = format!("snapshot, {fault:?}, seed {seed}");
    let mut random = Random(seed);
    let disk = disk();
    disk.create_dir(Path::new(DIRECTORY)).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    let at = random.below(3);
    let (mut saved, mut stopped) = (None, false);
    for (turn, index) in [3, 6, 9].into_iter().enumerate() {
        if turn as u64 == at {
            SNAPSHOT.arm(&disk, &mut random, fault);
        }
        match snapshots(&disk).save(&meta(index), &encode_snapshot(&meta(index), &image(index, "k"))) {
            Ok(()) => saved = Some(index),
            // The process ends; without space the next snapshot is tried when more has been applied.
            Err(refused) => {
                stopped = true;
                assert_eq!(refused.is_out_of_space(), fault.is_some(), "{context}: {refused}");
                if fault.is_none() {
                    break;
                }
            }
        }
    }
    let struck = disk.waiting_faults() == 0;
    match random.below(2) {
        0 => disk.crash(random.below(u64::MAX), Tearing::Sectors),
        _ => disk.crash(random.below(u64::MAX), Tearing::Blocks),
    }
    let newest = snapshots(&disk).newest().unwrap().map(|(meta, found, _)| {
        let index = meta.last_log_id.unwrap().index;
        assert_eq!(found.to_records(), image(index, "k").to_records(), "{context}");
        index
    });
    assert!(newest >= saved, "{context}: {newest:?}, saved {saved:?}");
    Done { struck, stopped }
}

fn sweep(class: &Class, fault: Option<SimFault>, run: impl Fn(u64) -> Done) {
    let (count, from) = (number("STONELOG_SWEEP", 3), number("STONELOG_SWEEP_FROM", 0));
    let (mut runs, mut struck, mut stopped) = (0, 0, 0);
    for seed in from..from + count * TRIES {
        let done = run(seed);
        runs += 1;
        struck += u64::from(done.struck);
        stopped += u64::from(done.struck && done.stopped);
        if struck == count {
            break;
        }
    }
    let name = if fault.is_none() { "EIO" } else { "no space" };
    let what = if fault.is_none() { "ended the process" } else { "were refused, the rest waited" };
    println!("swept | {} | {name} | {struck} | {stopped} {what}; {runs} runs", class.name);
    assert_eq!(struck, count, "{}: {name} struck too seldom", class.name);
}

#[test]
fn after_an_input_output_error_in_the_metadata_log_nothing_is_reported_and_nothing_lost() {
    sweep(&JOURNAL, None, |seed| log_run(&JOURNAL, seed, None));
    sweep(&CHECKPOINT, None, |seed| log_run(&CHECKPOINT, seed, None));
    sweep(&SNAPSHOT, None, |seed| snapshot_run(seed, None));
}

#[test]
fn the_metadata_log_waits_for_space_and_goes_on() {
    let full = Some(SimFault::StorageFull);
    sweep(&JOURNAL, full, |seed| log_run(&JOURNAL, seed, full));
    sweep(&CHECKPOINT, full, |seed| log_run(&CHECKPOINT, seed, full));
    sweep(&SNAPSHOT, full, |seed| snapshot_run(seed, full));
}

/// A log with a checkpoint, and two snapshots beside it.
fn world() -> (SimDisk, Contents) {
    let disk = disk();
    let (mut store, thread) = open(&disk).unwrap();
    block_on(async {
        for index in 0..9 {
            assert!(reports(&mut store, vec![entry(1, index, ENTRY_BYTES)]).await);
        }
        store.purge(id(1, 7)).await.unwrap();
        store.save_vote(&Vote::new(2, 1)).await.unwrap();
        for index in 9..30 {
            assert!(reports(&mut store, vec![entry(2, index, 2_000 + index as usize * 60)]).await);
        }
    });
    for index in [5, 8] {
        snapshots(&disk).save(&meta(index), &encode_snapshot(&meta(index), &image(index, "k"))).unwrap();
    }
    store.stop(thread);
    disk.kill();
    let truth = found(&disk).unwrap();
    (disk, truth)
}

fn files(disk: &SimDisk, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut names: Vec<_> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
    names.retain(|name| is_one(name));
    names.sort();
    names.into_iter().map(|name| Path::new(DIRECTORY).join(name)).collect()
}

/// Bits spread over the files, most of them in the last one.
fn flips(disk: &SimDisk, files: &[PathBuf]) -> Vec<(PathBuf, u64, u8)> {
    let count = number("STONELOG_SWEEP", 20);
    let mut random = Random(count);
    let mut flips = Vec::new();
    for n in 0..count {
        let path = if n % 5 == 0 { &files[n as usize / 5 % files.len()] } else { &files[files.len() - 1] };
        // Up to where anything was ever written.
        let written = disk.contents(path).iter().rposition(|byte| *byte != 0).map_or(1, |last| last as u64 + 1);
        flips.push((path.clone(), random.below(written), random.below(8) as u8));
    }
    flips
}

#[test]
fn a_flipped_bit_in_the_metadata_log_changes_no_entry_and_is_named() {
    let (disk, truth) = world();
    let mut journal = files(&disk, |name| name.ends_with(".journal"));
    // In the order of their generations: what counts is in the last one.
    journal.sort_by_key(|path| u64::from_le_bytes(disk.contents(path)[8..16].try_into().unwrap()));
    let (mut refused, mut torn, mut harmless) = (0, 0, 0);
    let all = flips(&disk, &journal);
    for (path, byte, bit) in &all {
        let context = format!("{} byte {byte} bit {bit}", path.display());
        let flipped = disk.fork();
        flipped.flip_bit(path, *byte, *bit);
        match found(&flipped) {
            Err(Fault::Damage { .. }) => refused += 1,
            Err(fault) => panic!("{context}: {fault}"),
            Ok(found) if found == truth => harmless += 1,
            Ok((vote, purged, last, _, entries)) => {
                assert_eq!((vote, purged), (truth.0, truth.1), "{context}");
                assert_eq!(last.map(|id| id.index), truth.2.map(|id| id.index - 1), "{context}: the last commit alone");
                assert_eq!(entries[..], truth.4[..truth.4.len() - 1], "{context}");
                torn += 1;
            }
        }
    }
    println!(
        "swept | metadata log | flipped bit | {} | {refused} refused and named, {torn} torn tails, {harmless} in bytes \
         that nobody needs",
        all.len()
    );
    assert!(refused > 0);
    let copies = files(&disk, |name| name.starts_with("metadata.checkpoint"));
    assert_eq!(copies.len(), 2);
    let all = flips(&disk, &copies);
    for (path, byte, bit) in &all {
        let flipped = disk.fork();
        flipped.flip_bit(path, *byte, *bit);
        assert_eq!(found(&flipped).unwrap(), truth, "{} byte {byte} bit {bit}", path.display());
        // Reserved bytes are not read.
        let is_repaired = flipped.contents(&copies[0]) == flipped.contents(&copies[1]);
        assert!(is_repaired || (36..40).contains(byte), "{} byte {byte} bit {bit}", path.display());
    }
    println!("swept | metadata checkpoint | flipped bit | {} | all repaired from the other copy", all.len());
}

#[test]
fn a_flipped_bit_in_a_snapshot_makes_the_one_before_the_newest() {
    let (disk, _) = world();
    let saved = files(&disk, |name| name.ends_with(".snap"));
    assert_eq!(saved.len(), 2);
    let all = flips(&disk, &saved);
    let mut passed_over = 0;
    for (path, byte, bit) in &all {
        let context = format!("{} byte {byte} bit {bit}", path.display());
        let flipped = disk.fork();
        flipped.flip_bit(path, *byte, *bit);
        let (found_meta, found, _) = snapshots(&flipped).newest().unwrap().expect("one of the two is whole");
        let index = found_meta.last_log_id.unwrap().index;
        assert_eq!(found.to_records(), image(index, "k").to_records(), "{context}");
        assert_eq!(found_meta, meta(index), "{context}");
        let is_newest_hit = *path == saved[1] && !(36..40).contains(byte);
        assert_eq!(index, if is_newest_hit { 5 } else { 8 }, "{context}");
        passed_over += u64::from(is_newest_hit);
    }
    println!(
        "swept | metadata snapshot | flipped bit | {} | {passed_over} passed over, the others not needed",
        all.len()
    );
}
