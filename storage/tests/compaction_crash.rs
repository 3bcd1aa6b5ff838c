//! The power is cut at every change to the disk that a compaction makes, from its first file to the removal of what it
//! replaced: after the restart every key has its newest record, the log goes on, and no file is left over.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod compaction_support;
mod support;

use std::sync::Arc;

use stonelog_protocol::Timestamp;
use stonelog_storage::Fault;
use stonelog_storage::disk::{SimDisk, Tearing};
use stonelog_storage::log::{LogConfig, Producers};
use stonelog_storage::recovery::Verdict;

use compaction_support::{DELETE_RETENTION, Model, Writer, compact, config, nameless_files, read, settle};
use support::{Lane, NOW, new_disk};

/// Some segments of keyed records, everything durable and under a checkpoint.
fn prepared(seed: u64, with_transactions: bool) -> (SimDisk, Lane, Writer) {
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), settings()).unwrap();
    lane.create(0);
    let mut writer = Writer::new(seed, 9, with_transactions);
    for round in 0..60 {
        writer.append(&mut lane, 0);
        if round % 4 == 3 {
            writer.end_transaction(&mut lane, 0);
        }
        if round % 9 == 8 {
            settle(&mut lane, 0).unwrap();
        }
    }
    while writer.last_stable(lane.logs[0].log_end()) < lane.logs[0].log_end() {
        writer.end_transaction(&mut lane, 0);
    }
    settle(&mut lane, 0).unwrap();
    (disk, lane, writer)
}

fn settings() -> LogConfig {
    config(1_800)
}

/// Two compactions with their checkpoints, appends between them: the second meets segments of the first, and tombstones
/// whose horizon has passed.
fn two_compactions(lane: &mut Lane, writer: &mut Writer) -> Result<(), Fault> {
    compact(lane, 0, NOW)?;
    lane.checkpoint()?;
    for _ in 0..25 {
        writer.append(lane, 0);
        writer.end_transaction(lane, 0);
    }
    while writer.last_stable(lane.logs[0].log_end()) < lane.logs[0].log_end() {
        writer.end_transaction(lane, 0);
    }
    settle(lane, 0)?;
    compact(lane, 0, NOW.saturating_add(DELETE_RETENTION))?;
    lane.checkpoint()
}

/// What a log must be that ends at `end`, by everything that was ever appended.
fn check(lane: &mut Lane, model: &Model, producers: &Producers, what: &str) {
    assert_eq!(lane.logs.len(), 1, "{what}");
    let is_whole = |verdict: &Verdict| matches!(verdict, Verdict::Proved | Verdict::Cut);
    assert!(lane.verdicts.iter().all(is_whole), "{what}: {:?}", lane.verdicts);
    let seen = read(lane, 0).unwrap_or_else(|fault| panic!("{what}: {fault}; {:?}", lane.logs[0].segments()));
    let (end, clean) = (lane.logs[0].log_end().0, lane.logs[0].clean_end().0);
    assert_eq!(model.difference(&seen, end, clean, true), None, "{what}");
    for (id, state) in producers.iter() {
        let found = lane.logs[0].producers().get(id).unwrap_or_else(|| panic!("{what}: producer {id:?} is forgotten"));
        assert_eq!(found.batches(), state.batches(), "{what}: producer {id:?}");
    }
}

/// Cuts the power in every change; the number of cuts.
fn cut_everywhere(seed: u64, with_transactions: bool) -> u64 {
    let (disk, mut lane, mut writer) = prepared(seed, with_transactions);
    let before = disk.changes();
    two_compactions(&mut lane, &mut writer).unwrap();
    let after = disk.changes();
    let whole = writer.model.clone();
    check(&mut lane, &whole, &Producers::default(), "without a crash");
    assert!(lane.logs[0].segments().iter().any(|segment| segment.version > 1), "seed {seed}: compacted twice");
    assert!(after - before > 40, "seed {seed}: {} changes", after - before);
    for cut in before..after {
        let what = format!("seed {seed} power cut in change {cut} of {before}..{after}");
        let (disk, mut lane, mut writer) = prepared(seed, with_transactions);
        let (producers, durable) = (lane.logs[0].producers().clone(), lane.logs[0].durable());
        disk.cut_power_at(cut);
        assert!(two_compactions(&mut lane, &mut writer).is_err(), "{what}: the same calls change the same");
        drop(lane);
        let tearing = if cut % 2 == 0 { Tearing::Blocks } else { Tearing::Sectors };
        disk.crash(cut ^ seed, tearing);
        let mut lane = Lane::start(Arc::new(disk.clone()), settings()).unwrap();
        assert!(lane.logs[0].log_end() >= durable, "{what}");
        // Of the appends between the compactions those at the end may be lost.
        let mut model = whole.clone();
        let end = lane.logs[0].log_end().0;
        model.committed.retain(|offset, _| *offset < end);
        model.uncommitted.retain(|offset| *offset < end);
        let producers = if end == durable.0 { producers } else { Producers::default() };
        check(&mut lane, &model, &producers, &what);
        // Compaction goes on from there, and whatever the crash left over is gone then.
        for round in 0..3 {
            let value = [round; 1_700];
            let key = format!("after-{round}");
            let batch =
                compaction_support::keyed(&[(&key, Some(&value))], stonelog_protocol::batch::Compression::None, NOW.0);
            compaction_support::append(&mut lane, 0, batch);
            settle(&mut lane, 0).unwrap();
            compact(&mut lane, 0, Timestamp(NOW.0 + 60_000)).unwrap();
            lane.checkpoint().unwrap();
        }
        let left = nameless_files(&lane, 0);
        assert!(left.is_empty(), "{what}: {left:?}");
        drop(lane);
        disk.crash(cut, tearing);
        let mut lane = Lane::start(Arc::new(disk), settings()).unwrap();
        let seen = read(&mut lane, 0).unwrap();
        for round in 0..3 {
            let key = format!("after-{round}").into_bytes();
            assert!(seen.iter().any(|record| record.key == key), "{what}: second start, {round}");
        }
    }
    after - before
}

/// Seeds per test; `COMPACTION_CRASH_SEEDS` asks for more.
fn seeds_count(usual: u64) -> u64 {
    std::env::var("COMPACTION_CRASH_SEEDS")
        .map_or(usual, |count| count.parse().expect("COMPACTION_CRASH_SEEDS is a number"))
}

#[test]
fn every_key_keeps_its_newest_record_wherever_the_power_is_cut() {
    let cuts: u64 = (0..seeds_count(1)).map(|seed| cut_everywhere(seed, false)).sum();
    println!("{cuts} power cuts");
}

#[test]
fn every_key_keeps_its_newest_committed_record_wherever_the_power_is_cut() {
    let cuts: u64 = (50..50 + seeds_count(1)).map(|seed| cut_everywhere(seed, true)).sum();
    println!("{cuts} power cuts");
}
