//! The start of a node that is a controller alone: identity, the way into the quorum, and nothing of the data plane.
//!
//! It registers no broker, so no broker epoch says how far its metadata log had come. What it records instead is the index
//! of an entry that it had applied, in `meta.properties`, when its own log holds that entry for certain: a log that ends
//! before it is of an earlier time and must not vote.

use std::path::PathBuf;
use std::time::Duration;

use stonelog_protocol::ClusterId;

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

    /// Records again and again how far this node has come; returns only when that fails.
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
        self.open.log_dir.record_metadata_index(index)?;
        Ok(())
    }

    /// Leaves the quorum in order: one that leads sees to it that another one does.
    pub fn stop(self) {
        self.metadata.shut_down();
    }
}
