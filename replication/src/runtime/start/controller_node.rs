//! The start of a node that is a controller alone: identity, the way into the quorum, and nothing of the data plane.
//!
//! It registers no broker, so no broker epoch says how far its metadata log had come. What it records instead is the index
//! of an entry that it had applied, in `meta.properties`, when its own log holds that entry for certain: a log that ends
//! before it is of an earlier time and must not vote.

use std::path::PathBuf;
use std::time::Duration;

use stonelog_protocol::ClusterId;
use stonelog_storage::Fault;
use stonelog_storage::log_dir::LogDir;

use super::directories::{self, OpenDirectories, OpenDirectory};
use super::registration::catch_up;
use super::{StartError, StartOptions, metadata_plane};
use crate::controller::{ControllerError, MetadataHandle};

/// How often a controller records how far it has come, if it has: what a copy of its log may lack unnoticed.
const RECORD_EVERY: Duration = Duration::from_secs(10);

/// A started controller.
pub struct StartedController {
    /// The metadata plane.
    pub metadata: MetadataHandle,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Whether it was formed by this start.
    pub is_new_cluster: bool,
    open: OpenDirectory,
}

/// Starts the metadata plane of a node that is no broker, in the one log directory it is given. Returns when somebody leads
/// and everything that was committed before is applied here.
pub async fn start_controller(mut options: StartOptions) -> Result<StartedController, StartError> {
    let found = directories::find_all(&options)?;
    if let Some(directory) = found.of_a_broker()? {
        return Err(StartError::OfABroker { directory });
    }
    let (opened, entering, _) = metadata_plane::enter(&mut options, found).await?;
    let OpenDirectories { open, cluster_id, is_new_cluster, .. } = opened;
    let open = open.into_iter().find(|directory| directory.holds_metadata);
    let open = open.expect("without the metadata's directory the start has ended before");
    // Nobody follows partitions here.
    let (metadata, _) = entering.entered().await?;
    catch_up(&metadata).await?;
    let started = StartedController { metadata, cluster_id, is_new_cluster, open };
    started.record().await?;
    Ok(started)
}

impl StartedController {
    /// The directory that the metadata log is in.
    pub fn directory(&self) -> PathBuf {
        self.open.log_dir.path().to_owned()
    }

    /// Records again and again how far this node has come; returns only when that fails for more than a time.
    pub async fn keep_recording(&self) -> StartError {
        loop {
            tokio::time::sleep(RECORD_EVERY).await;
            match self.record().await {
                // Without its log there is nothing to record; whoever ends the node says why.
                Ok(()) | Err(StartError::Registration(ControllerError::Stopped)) => {}
                Err(error) => return error,
            }
        }
    }

    async fn record(&self) -> Result<(), StartError> {
        let index = self.metadata.image().index();
        // A directory that names an entry behind the end of its voter's log would be one that was put back from a copy.
        self.metadata.keeps_what_it_applied().await?;
        Ok(record_index(&self.open.log_dir, index)?)
    }

    /// Leaves the quorum in order: one that leads sees to it that another one does.
    pub fn stop(self) {
        self.metadata.shut_down();
    }
}

/// A full disk, or a lack of descriptors, is said and no fault (rule 8): what is recorded only notices a log of an earlier
/// time, and the next turn tries again.
fn record_index(log_dir: &LogDir, index: u64) -> Result<(), Fault> {
    match log_dir.record_metadata_index(index) {
        Err(fault) if fault.is_temporary() => {
            let seconds = RECORD_EVERY.as_secs();
            tracing::error!("how far this controller has come is not recorded: {fault}; tried again in {seconds} s");
            Ok(())
        }
        recorded => recorded,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use stonelog_protocol::{BrokerId, Uuid};
    use stonelog_storage::disk::{Disk, SimDisk};
    use stonelog_storage::log_dir::MetaProperties;

    use super::*;

    #[test]
    fn full_disk_ends_no_controller_and_is_recorded_on_when_there_is_room() {
        let (disk, path) = (SimDisk::new(), Path::new("/d"));
        let (log_dir, _) = LogDir::open(Arc::new(disk.clone()) as Arc<dyn Disk>, path).unwrap();
        let meta = MetaProperties {
            cluster_id: ClusterId("c".into()),
            node_id: BrokerId(1),
            directory_id: Uuid([1; 16]),
            broker_epoch: None,
            follows_epoch: None,
            metadata_index: None,
        };
        log_dir.format(&meta).unwrap();
        let recorded = || MetaProperties::read(&disk, path).unwrap().unwrap().value.metadata_index;
        disk.set_capacity(Some(disk.used_bytes()));
        assert!(log_dir.record_metadata_index(7).unwrap_err().is_temporary());
        record_index(&log_dir, 7).unwrap();
        assert_eq!(recorded(), None);
        disk.set_capacity(None);
        record_index(&log_dir, 7).unwrap();
        assert_eq!(recorded(), Some(7));
    }
}
