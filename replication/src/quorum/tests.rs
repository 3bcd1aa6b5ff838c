use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use stonelog_storage::disk::{Disk, RealDisk};
use tempfile::TempDir;

use super::log_store::{LogStore, LogThread};
use super::publisher::Publisher;
use super::snapshot_store::SnapshotStore;
use super::state_machine::StateMachine;
use super::type_config::TypeConfig;

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
