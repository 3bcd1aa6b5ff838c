//! What a voter's own journal holds of that which a majority has made durable without it, and what is left of the log of
//! one that was taken out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use stonelog_protocol::BrokerId;
use stonelog_storage::disk::{Disk, RealDisk, SimDisk, Survival};

use super::forming::Unreachable;
use super::{append, block_on, contents, entry, id};
use crate::metadata::MetadataImage;
use crate::quorum::log_store::LogStore;
use crate::quorum::node::{QuorumNode, QuorumOptions, REQUEST_WITHIN_DEFAULT};
use crate::quorum::replaced::{begin_anew, is_put_aside, put_aside};
use crate::quorum::snapshot_store::{SnapshotStore, encode_snapshot};
use crate::quorum::type_config::{Membership, SnapshotMeta, StoredMembership, TypeConfig, Vote, Voter};

#[test]
fn what_a_full_disk_has_no_room_for_is_kept_only_when_there_is_some() {
    let directory = Path::new("/d/metadata");
    let disk = SimDisk::new();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let (mut store, thread) = LogStore::open(&(Arc::new(disk.clone()) as Arc<dyn Disk>), directory).unwrap();
    let left = block_on(async {
        append(&mut store, vec![entry(1, 0, 100)]).await;
        store.flushed().await.unwrap();
        // The journal's first file takes no more of it, and there is no other.
        disk.set_capacity(Some(disk.used_bytes()));
        let (done, _durable) = TypeConfig::oneshot();
        let large = (1..=4).map(|index| entry(1, index, 100_000)).collect::<Vec<_>>();
        store.append(large, IOFlushed::signal(done)).await.unwrap();
        let log = store.clone();
        let mut kept = std::pin::pin!(log.flushed());
        assert!(kept.as_mut().now_or_never().is_none());
        disk.set_capacity(None);
        kept.await.unwrap();
        disk.fork()
    });
    left.crash_to(Survival::Nothing);
    store.stop(thread);
    let (mut store, thread) = LogStore::open(&(Arc::new(left) as Arc<dyn Disk>), directory).unwrap();
    let state = block_on(store.get_log_state()).unwrap();
    assert_eq!(state.last_log_id.map(|last| last.index), Some(4));
    store.stop(thread);
}

#[test]
fn old_log_that_was_put_aside_leaves_its_vote_alone() {
    let dir = tempfile::tempdir().unwrap();
    let voter = Voter { directory: [3; 16], host: "h".to_owned(), port: 1 };
    let options = QuorumOptions {
        disk: Arc::new(RealDisk) as Arc<dyn Disk>,
        directory: dir.path().join("metadata"),
        node_id: BrokerId(3),
        voter: voter.clone(),
        request_within: REQUEST_WITHIN_DEFAULT,
    };
    options.claim(true).unwrap();
    let (disk, directory) = (&options.disk, &options.directory);
    // It led in term 1, nobody else had its last entries, and it voted in term 7.
    let vote = Vote::new(7, 2);
    let (mut store, thread) = LogStore::open(disk, directory).unwrap();
    block_on(async {
        append(&mut store, (0..=20).map(|index| entry(1, index, 10)).collect()).await;
        store.save_vote(&vote).await.unwrap();
    });
    store.stop(thread);
    put_aside(&**disk, directory).unwrap();
    // It has followed as far as to an entry that adds it.
    let membership = Membership::new(vec![[1, 2].into()], BTreeMap::from([1, 2, 3].map(|id| (id, voter.clone()))));
    let last_membership = StoredMembership::new(Some(id(8, 10)), membership.unwrap());
    let meta = SnapshotMeta { last_log_id: Some(id(8, 10)), last_membership };
    let snapshot = encode_snapshot(&meta, &MetadataImage::empty());
    SnapshotStore::new(disk.clone(), directory.clone()).save(&meta, &snapshot).unwrap();

    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        begin_anew(&options).await.unwrap();
        assert!(!is_put_aside(&**disk, directory).unwrap());
        let node = QuorumNode::start_voter(options.clone(), Arc::default(), Unreachable).await.unwrap();
        assert_eq!(node.last_log_index().await.unwrap(), Some(10));
        node.stop().await;
    });
    let (mut store, thread) = LogStore::open(disk, directory).unwrap();
    let (found, purged, last, _, entries) = block_on(contents(&mut store));
    assert_eq!((found, purged, last, entries), (Some(vote), Some(id(8, 10)), Some(id(8, 10)), vec![]));
    store.stop(thread);
}
