//! What a voter's own journal holds of that which a majority has made durable without it.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::type_config::TypeConfigExt as _;
use stonelog_storage::disk::{Disk, SimDisk, Survival};

use super::{append, block_on, entry};
use crate::quorum::log_store::LogStore;
use crate::quorum::type_config::TypeConfig;

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
