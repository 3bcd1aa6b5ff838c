//! A quorum of one on a real directory: agreement, restarts, snapshots.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::entry::RaftEntry as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _, RaftStateMachine as _};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, RaftLogReader as _, StorageError};
use stonelog_protocol::Timestamp;
use stonelog_storage::disk::{Disk, RealDisk};
use tempfile::TempDir;

use super::log_store::{LogStore, LogThread};
use super::publisher::Publisher;
use super::snapshot_store::{SnapshotStore, decode_snapshot, encode_snapshot};
use super::state_machine::StateMachine;
use super::type_config::{Entry, LogId, Membership, Proposal, SnapshotMeta, StoredMembership, TypeConfig, Vote, Voter};
use crate::metadata::record::ConfigRecord;
use crate::metadata::{ConfigResource, MetadataImage, MetadataRecord, RecordBatch};

mod asking;
mod cluster;
mod forming;
mod hostile;
mod observing;
mod own_log;
mod power;
mod sweep;

/// Stores in fresh directories.
struct Fresh;

/// Ends the log's thread before its directory goes.
struct Guard {
    store: LogStore,
    thread: Option<LogThread>,
    _dir: TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.store.stop(self.thread.take().unwrap());
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Fresh {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (store, thread, machine) = open(&dir.path().join("metadata"));
        Ok((Guard { store: store.clone(), thread: Some(thread), _dir: dir }, store, machine))
    }
}

fn open(directory: &Path) -> (LogStore, LogThread, StateMachine) {
    let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
    let (store, thread) = LogStore::open(&disk, directory).unwrap();
    let snapshots = SnapshotStore::new(disk, directory.to_owned());
    let machine = StateMachine::new(Arc::new(Publisher::default()), snapshots, Arc::new(AtomicU64::new(0)));
    (store, thread, machine)
}

#[test]
fn store_passes_openrafts_own_suite() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(Suite::test_all(Fresh)).unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// An entry with so many bytes of settings.
fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let record = MetadataRecord::Config(ConfigRecord {
        resource: ConfigResource::Group("g".into()),
        key: "k".to_owned(),
        value: Some("x".repeat(bytes)),
    });
    let batch = RecordBatch { base_index: 0, controller_term: term, created: Timestamp(0), records: vec![record] };
    Entry::new(id(term, index), EntryPayload::Normal(Proposal(Arc::new(batch))))
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    let (done, durable) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(done)).await.unwrap();
    durable.await.unwrap().unwrap();
}

/// Vote, purged and last id, committed, entries.
type Contents = (Option<Vote>, Option<LogId>, Option<LogId>, Option<LogId>, Vec<Entry>);

async fn contents(store: &mut LogStore) -> Contents {
    let state = store.get_log_state().await.unwrap();
    let entries = store.try_get_log_entries(..).await.unwrap();
    let vote = store.read_vote().await.unwrap();
    (vote, state.last_purged_log_id, state.last_log_id, store.read_committed().await.unwrap(), entries)
}

#[test]
fn reopened_log_holds_votes_entries_truncations_and_purges_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata");
    let vote = Vote::new_committed(2, 7);
    let written = block_on(async {
        let (mut store, thread, _) = open(&path);
        append(&mut store, (0..10).map(|index| entry(1, index, 8)).collect()).await;
        store.save_vote(&vote).await.unwrap();
        store.truncate_after(Some(id(1, 6))).await.unwrap();
        append(&mut store, vec![entry(2, 7, 9), entry(2, 8, 9)]).await;
        store.save_committed(Some(id(2, 7))).await.unwrap();
        store.purge(id(1, 2)).await.unwrap();
        append(&mut store, vec![entry(2, 9, 1)]).await;
        let written = contents(&mut store).await;
        store.stop(thread);
        written
    });
    assert_eq!(
        (written.0, written.1, written.2, written.3),
        (Some(vote), Some(id(1, 2)), Some(id(2, 9)), Some(id(2, 7)))
    );
    assert_eq!(written.4.len(), 7);
    block_on(async {
        let (mut store, thread, _) = open(&path);
        assert_eq!(contents(&mut store).await, written);
        store.stop(thread);
    });
}

#[test]
fn long_journal_is_written_anew_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata");
    let vote = Vote::new(3, 1);
    let held = || std::fs::read_dir(&path).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    let written = block_on(async {
        let (mut store, thread, _) = open(&path);
        store.save_vote(&vote).await.unwrap();
        for round in 0..3 {
            for index in 0..40 {
                append(&mut store, vec![entry(3, 40 * round + index, 1 << 20)]).await;
            }
            store.purge(id(3, 40 * round + 37)).await.unwrap();
        }
        append(&mut store, vec![entry(3, 120, 1)]).await;
        let written = contents(&mut store).await;
        store.stop(thread);
        written
    });
    // Files that are given back are kept for their next use: the log is as long as it was at its longest, and no longer.
    let bytes = held();
    assert!(bytes <= 80 << 20, "{bytes} bytes are left of three times 40 MiB of purged entries and their files");
    assert!(path.join("metadata.checkpoint").exists());
    for _ in 0..2 {
        block_on(async {
            let (mut store, thread, _) = open(&path);
            assert_eq!(contents(&mut store).await, written);
            store.stop(thread);
        });
    }
}

fn image(index: u64, key: &str) -> MetadataImage {
    let record = MetadataRecord::Config(ConfigRecord {
        resource: ConfigResource::Group("g".into()),
        key: key.to_owned(),
        value: Some("v".to_owned()),
    });
    MetadataImage::from_records(index, &[record]).unwrap()
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(id(1, index)), last_membership: StoredMembership::default() }
}

#[test]
fn crash_while_a_snapshot_is_written_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
    let snapshots = SnapshotStore::new(disk, dir.path().to_owned());
    let whole = |index| encode_snapshot(&meta(index), &image(index, "k"));
    snapshots.save(&meta(5), &whole(5)).unwrap();
    // Every point before the rename: the file aside exists in some length.
    let next = whole(9);
    for len in (0..=next.len()).step_by(7) {
        std::fs::write(dir.path().join("snapshot-00000000000000000009-1.snap.tmp"), &next[..len]).unwrap();
        let (found, image, _) = snapshots.newest().unwrap().unwrap();
        assert_eq!((found, image.index()), (meta(5), 5));
    }
    snapshots.save(&meta(9), &next).unwrap();
    assert_eq!(snapshots.newest().unwrap().unwrap().0, meta(9));
    // The newest one rots: the one before is still there.
    let name = dir.path().join("snapshot-00000000000000000009-1.snap");
    let mut bytes = std::fs::read(&name).unwrap();
    for place in 0..bytes.len() {
        bytes[place] ^= 0x10;
        std::fs::write(&name, &bytes).unwrap();
        let found = snapshots.newest().unwrap().unwrap().0;
        // Four bytes behind the envelope's head are padding and carry nothing.
        let is_padding = (36..40).contains(&place);
        assert_eq!(found, if is_padding { meta(9) } else { meta(5) }, "byte {place}");
        bytes[place] ^= 0x10;
    }
}

#[test]
fn only_two_snapshots_stay() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotStore::new(Arc::new(RealDisk), dir.path().to_owned());
    for index in [1, 2, 10] {
        snapshots.save(&meta(index), &encode_snapshot(&meta(index), &image(index, "k"))).unwrap();
    }
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["snapshot-00000000000000000002-1.snap", "snapshot-00000000000000000010-1.snap"]);
}

#[test]
fn snapshot_reads_back_with_its_membership() {
    let voter = Voter { directory: [9; 16], host: "h".to_owned(), port: 1 };
    let membership =
        Membership::new(vec![[1].into(), [1, 2].into()], BTreeMap::from([(1, voter.clone()), (2, voter)])).unwrap();
    let meta = SnapshotMeta {
        last_log_id: Some(id(4, 44)),
        last_membership: StoredMembership::new(Some(id(3, 3)), membership),
    };
    let (found, read) = decode_snapshot(&encode_snapshot(&meta, &image(40, "k"))).unwrap();
    assert_eq!((found, read), (meta, image(40, "k")));
}

#[test]
fn batch_decided_on_another_image_or_by_another_leader_changes_nothing_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk) as Arc<dyn Disk>;
    let publisher = Arc::new(Publisher::default());
    let stale = Arc::new(AtomicU64::new(0));
    let snapshots = SnapshotStore::new(disk, dir.path().to_owned());
    let mut machine = StateMachine::new(publisher.clone(), snapshots, stale.clone());
    let by_other_leader = Entry { log_id: id(2, 2), ..entry(1, 2, 1) };
    let entries = [entry(1, 1, 1), by_other_leader, entry(1, 3, 1)].map(|entry| Ok((entry, None)));
    block_on(machine.apply(futures_util::stream::iter(entries))).unwrap();
    assert_eq!((stale.load(Ordering::Relaxed), publisher.image().index()), (2, 1));
    let (applied, _) = block_on(machine.applied_state()).unwrap();
    assert_eq!(applied, Some(id(1, 3)));
}
