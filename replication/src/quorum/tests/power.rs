//! The metadata log and its snapshots on a simulated disk whose power is cut: in every change, with every kind of loss,
//! at every byte of a commit; and a process whose fsync fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftLogStorage as _;
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk, SimFault, SimImage, SimOperation, Survival, Tearing};

use super::{Contents, append, block_on, contents, entry, id, image, meta};
use crate::quorum::log_store::{LogStore, LogThread};
use crate::quorum::snapshot_store::{SnapshotStore, encode_snapshot};
use crate::quorum::type_config::Vote;

const DIRECTORY: &str = "/d/metadata";

/// What may be left, for each image.
fn survivals() -> Vec<Survival> {
    let mut all = vec![Survival::Nothing, Survival::Everything, Survival::Names, Survival::Bytes];
    all.extend([Tearing::Blocks, Tearing::Sectors].map(|tearing| Survival::Some { seed: 1, tearing }));
    all
}

fn disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn try_open(disk: &SimDisk) -> Result<(LogStore, LogThread), Fault> {
    LogStore::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), Path::new(DIRECTORY))
}

/// What is durable: how far entries are known to be committed is written with the next of them, not before.
fn durable((vote, purged, last, _, entries): Contents) -> Contents {
    (vote, purged, last, None, entries)
}

/// What a start finds on a disk.
fn recovered(disk: &SimDisk) -> Result<Contents, Fault> {
    let (mut store, thread) = try_open(disk)?;
    let found = block_on(contents(&mut store));
    store.stop(thread);
    Ok(durable(found))
}

/// The states a log went through, and from which change of the disk on each of them had been reported as durable.
#[derive(Default)]
struct History {
    states: Vec<Contents>,
    /// (changes of the disk when it was reported, place of the state).
    reported: Vec<(u64, usize)>,
}

impl History {
    /// A state that is on its way.
    async fn passes(&mut self, store: &mut LogStore) {
        self.states.push(durable(contents(store).await));
    }

    /// The newest state has been reported as durable.
    fn is_reported(&mut self, disk: &SimDisk) {
        self.reported.push((disk.changes(), self.states.len() - 1));
    }

    /// A power cut in a change leaves a state that is not older than the newest one reported before.
    fn allows(&self, change: u64, found: &Contents) -> bool {
        let reported = self.reported.iter().rev().find(|(changes, _)| *changes <= change);
        let oldest = reported.map_or(0, |(_, state)| *state);
        self.states[oldest..].contains(found)
    }
}

/// Votes, entries, a truncation with new entries behind it, a purge: each reported before the next begins.
async fn live(disk: &SimDisk, store: &mut LogStore) -> History {
    let mut history = History::default();
    history.passes(store).await;
    history.is_reported(disk);
    for term in 1..=2u64 {
        let vote = Vote::new(term, 1);
        store.save_vote(&vote).await.unwrap();
        history.passes(store).await;
        history.is_reported(disk);
        let first = store.get_log_state().await.unwrap().last_log_id.map_or(0, |last| last.index + 1);
        for index in first..first + 3 {
            append(store, vec![entry(term, index, 3_000)]).await;
            history.passes(store).await;
            history.is_reported(disk);
        }
        store.save_committed(Some(id(term, first))).await.unwrap();
        // The last entry gives way to two of the next term's leader.
        store.truncate_after(Some(id(term, first + 1))).await.unwrap();
        history.passes(store).await;
        append(store, vec![entry(term + 1, first + 2, 100), entry(term + 1, first + 3, 100)]).await;
        history.passes(store).await;
        history.is_reported(disk);
    }
    store.purge(id(1, 1)).await.unwrap();
    history.passes(store).await;
    history.is_reported(disk);
    history
}

#[test]
fn power_cut_in_any_change_takes_back_nothing_that_was_reported() {
    let disk = disk();
    disk.record_images();
    let (mut store, thread) = try_open(&disk).unwrap();
    let history = block_on(live(&disk, &mut store));
    store.stop(thread);
    let images = disk.take_images();
    let mut tried = 0;
    for image in &images {
        for survival in survivals() {
            let left = image.after(survival);
            let found = recovered(&left).unwrap_or_else(|fault| panic!("{}: {fault}", what(image, survival)));
            assert!(history.allows(image.change, &found), "{}: {:?}", what(image, survival), found);
            // And what a start has found it finds again.
            left.crash_to(Survival::Nothing);
            assert_eq!(recovered(&left).unwrap(), found, "{}", what(image, survival));
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried} power cuts");
}

fn what(image: &SimImage, survival: Survival) -> String {
    format!("change {}, {:?} of {}, {survival:?}", image.change, image.operation, image.path.display())
}

/// The journal's file, and its bytes before and after one more entry.
fn last_commit() -> (SimDisk, PathBuf, Vec<u8>, Vec<u8>, Contents, Contents) {
    let disk = disk();
    let (mut store, thread) = try_open(&disk).unwrap();
    let files = || -> Vec<PathBuf> {
        let mut names: Vec<_> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        names.into_iter().map(|name| Path::new(DIRECTORY).join(name)).collect()
    };
    let (before, (path, old), after) = block_on(async {
        store.save_vote(&Vote::new(1, 1)).await.unwrap();
        append(&mut store, vec![entry(1, 0, 64), entry(1, 1, 64)]).await;
        let before = durable(contents(&mut store).await);
        let old: Vec<_> = files().into_iter().map(|path| (path.clone(), disk.contents(&path))).collect();
        append(&mut store, vec![entry(1, 2, 64), entry(1, 3, 64)]).await;
        let changed = old.into_iter().find(|(path, old)| disk.contents(path) != *old).unwrap();
        (before, changed, durable(contents(&mut store).await))
    });
    let new = disk.contents(&path);
    let left = disk.fork();
    store.stop(thread);
    (left, path, old, new, before, after)
}

#[test]
fn commit_that_is_torn_at_any_byte_is_there_whole_or_not_at_all() {
    let (disk, path, old, new, before, after) = last_commit();
    let first = old.iter().zip(&new).position(|(old, new)| old != new).unwrap();
    let end = new.len() - old.iter().rev().zip(new.iter().rev()).position(|(old, new)| old != new).unwrap();
    assert!(end - first > 200, "{first}..{end}");
    for cut in first..end {
        let torn = disk.fork();
        torn.overwrite(&path, cut as u64, &old[cut..end]);
        let found = recovered(&torn).unwrap_or_else(|fault| panic!("cut at {cut}: {fault}"));
        // Bytes behind the cut may be zero in the whole commit too.
        let expected = if old[cut..end] == new[cut..end] { &after } else { &before };
        assert_eq!(&found, expected, "cut at {cut} of {first}..{end}");
    }
}

#[test]
fn damage_in_front_of_what_was_durable_is_refused_and_not_cut_away() {
    let (disk, path, old, new, _, after) = last_commit();
    assert_eq!(recovered(&disk.fork()).unwrap(), after);
    let end = old.iter().zip(&new).position(|(old, new)| old != new).unwrap();
    let begins = old[..end].iter().rposition(|byte| *byte == b'x').unwrap();
    // In a setting's value of the commit before, which the last one names as durable.
    for bit in 0..8 {
        let damaged = disk.fork();
        damaged.flip_bit(&path, begins as u64, bit);
        let refused = recovered(&damaged);
        assert!(matches!(refused, Err(Fault::Damage { .. })), "bit {bit}: {refused:?}");
    }
}

#[test]
fn snapshot_is_durable_before_what_it_covers_is_gone_whenever_the_power_is_cut() {
    let disk = disk();
    let (mut store, thread) = try_open(&disk).unwrap();
    let snapshots = |disk: &SimDisk| SnapshotStore::new(Arc::new(disk.clone()), PathBuf::from(DIRECTORY));
    let mut saved = Vec::new();
    disk.record_images();
    block_on(async {
        append(&mut store, (0..12).map(|index| entry(1, index, 2_000)).collect()).await;
        for index in [3, 6, 9] {
            snapshots(&disk).save(&meta(index), &encode_snapshot(&meta(index), &image(index, "k"))).unwrap();
            saved.push((disk.changes(), index));
            store.purge(id(1, index)).await.unwrap();
        }
    });
    store.stop(thread);
    for image in disk.take_images() {
        for survival in survivals() {
            let left = image.after(survival);
            let newest = snapshots(&left).newest().unwrap();
            let covers = newest.and_then(|(meta, _, _)| meta.last_log_id).map(|id| id.index);
            let oldest = saved.iter().rev().find(|(changes, _)| *changes <= image.change).map(|(_, index)| *index);
            assert!(covers >= oldest, "{}: {covers:?}, saved {oldest:?}", what(&image, survival));
            let (_, purged, last, _, entries) = recovered(&left).unwrap();
            assert!(covers >= purged.map(|id| id.index), "{}: {covers:?}, {purged:?}", what(&image, survival));
            // Nothing is missing between the snapshot and the log's end.
            let first = purged.map_or(0, |id| id.index + 1);
            assert_eq!(entries.len() as u64, last.map_or(0, |id| id.index + 1) - first, "{}", what(&image, survival));
        }
    }
}

/// Set in the process that is to fail.
const FAILING: &str = "STONELOG_TEST_FAILING_METADATA_LOG";

#[test]
fn failed_fsync_or_panic_ends_the_process_before_anything_is_reported() {
    if let Ok(fault) = std::env::var(FAILING) {
        let disk = disk();
        let (mut store, _thread) = try_open(&disk).unwrap();
        let (operation, fault) = match fault.as_str() {
            // No journal takes an entry of that size: an assertion of its writer.
            "panic" => {
                block_on(super::append(&mut store, vec![super::entry(1, 0, 9 << 20)]));
                println!("it was reported");
                return;
            }
            "sync" => (SimOperation::SyncData, SimFault::LosesBytes),
            _ => (SimOperation::Write, SimFault::Short),
        };
        disk.fail(operation, DIRECTORY, 0, fault);
        if block_on(store.save_vote(&Vote::new(1, 1))).is_ok() {
            println!("it was reported");
        }
        // An error comes first, or the end.
        std::thread::park_timeout(Duration::from_secs(60));
        println!("it went on");
        return;
    }
    for fault in ["sync", "write", "panic"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "--nocapture",
            "quorum::tests::power::failed_fsync_or_panic_ends_the_process_before_anything_is_reported",
        ]);
        let output = command.env(FAILING, fault).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.code().is_none() && !said.contains("it was") && !said.contains("it went"),
            "{fault}: {said}"
        );
        assert!(said.contains("running 1 test"), "{said}");
    }
}
