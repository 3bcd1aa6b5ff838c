//! The metadata log of a voter that was taken out of the quorum while it was away, and is back.
//!
//! It must not vote, and nothing in it is needed any more but its vote: that a term was voted in stays so. On the word of
//! whoever leads that this directory is no member, it is put aside for good, by a file beside it; every later start follows
//! without opening it, whatever memberships of earlier times say. When the node is added anew its log begins behind the
//! snapshot it has made by then. An end of the log that nobody committed would else stand where the snapshot is.

use std::path::Path;

use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::small_file::{read_small_file, remove_small_file, write_small_file};

use super::log_store::LogStore;
use super::node::{QuorumOptions, StartError, refused};
use super::snapshot_store::SnapshotStore;

/// The file's name, in `metadata/`.
const REPLACED_NAME: &str = "metadata.replaced";
const REPLACED: &[u8] = b"the leader of the metadata quorum has named members, and this directory was none of them\n";

/// Whether the log in a directory was put aside.
pub fn is_put_aside(disk: &dyn Disk, directory: &Path) -> Result<bool, Fault> {
    Ok(read_small_file(disk, &directory.join(REPLACED_NAME))?.is_some())
}

/// Puts the log aside, durably.
pub fn put_aside(disk: &dyn Disk, directory: &Path) -> Result<(), Fault> {
    write_small_file(disk, directory, REPLACED_NAME, REPLACED)
}

/// Before this node votes anew: a log that was put aside keeps its vote, and begins behind the newest snapshot. Nothing
/// else is changed, and nothing at all where no log was.
pub async fn begin_anew(options: &QuorumOptions) -> Result<(), StartError> {
    let QuorumOptions { disk, directory, .. } = options;
    if !is_put_aside(&**disk, directory)? {
        return Ok(());
    }
    if !off!(LogPutAside) {
        let newest = SnapshotStore::new(disk.clone(), directory.clone()).newest()?;
        let last = newest.and_then(|(meta, _, _)| meta.last_log_id);
        let last = last.ok_or_else(|| refused("no snapshot can be read that this node's log could begin behind"))?;
        let (store, thread) = LogStore::open(disk, directory)?;
        let begun = store.begin_behind(last).await;
        store.stop(thread);
        begun.map_err(refused)?;
    }
    remove_small_file(&**disk, directory, REPLACED_NAME)?;
    Ok(())
}
