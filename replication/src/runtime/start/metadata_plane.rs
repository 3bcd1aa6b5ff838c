//! The step of the start that brings the metadata plane up: alone, or with the other nodes of a cluster.

use std::sync::Arc;

use stonelog_protocol::{ClusterId, DirectoryId, Uuid};

use super::directories::{self, FoundDirectories, OpenDirectories, RecoveredDirectory};
use super::{StartError, StartOptions};
use crate::controller::member::{self, Entering, FoundCluster, JoinOptions, StreamLinks};
use crate::controller::{self, MetadataHandle, MetadataOptions};

/// Recovered directories, and the metadata plane over one of them.
pub(super) struct Up {
    pub(super) recovered: Vec<RecoveredDirectory>,
    pub(super) absent: Vec<super::AbsentDirectory>,
    pub(super) cluster_id: ClusterId,
    pub(super) is_new_cluster: bool,
    pub(super) metadata: MetadataHandle,
    /// Where other brokers' streams come from and go to; `None` for a lone node.
    pub(super) links: Option<(StreamLinks, Arc<str>)>,
}

/// Opens and recovers the directories and starts the quorum of one, unless somebody keeps one already. Returns when it
/// leads.
pub(super) fn alone(options: &StartOptions, kept: Option<MetadataHandle>) -> Result<Up, StartError> {
    let opened = directories::find_all(options)?.open(options, None)?;
    let OpenDirectories { open, mut absent, cluster_id, is_new_cluster } = opened;
    let recovered = directories::recover_all(options, open, &mut absent)?;
    if let Some(metadata) = kept {
        return Ok(Up { recovered, absent, cluster_id, is_new_cluster, metadata, links: None });
    }
    let home = recovered.iter().find(|directory| directory.open.holds_metadata);
    let home = home.expect("without the metadata's directory the start has ended before");
    let metadata = controller::start(metadata_options(
        options,
        home.open.log_dir.metadata_path(),
        cluster_id.clone(),
        home.open.meta.directory_id,
    ))?;
    Ok(Up { recovered, absent, cluster_id, is_new_cluster, metadata, links: None })
}

/// Finds the cluster, or forms it with the others; takes part in its quorum while the directories are recovered. Returns
/// when somebody leads.
pub(super) async fn with_others(options: &mut StartOptions) -> Result<Up, StartError> {
    let found = directories::find_all(options)?;
    let (opened, entering, listener) = enter(options, found).await?;
    let OpenDirectories { open, mut absent, cluster_id, is_new_cluster } = opened;
    let recovered = directories::recover_all(options, open, &mut absent)?;
    let (metadata, links) = entering.entered().await?;
    Ok(Up { recovered, absent, cluster_id, is_new_cluster, metadata, links: Some((links, listener)) })
}

/// Finds the cluster, or forms it with the others, and takes part in its quorum from here on. The directories are those of
/// that cluster; whether it is new is known as well.
pub(super) async fn enter(
    options: &mut StartOptions,
    found: FoundDirectories,
) -> Result<(OpenDirectories, Entering, Arc<str>), StartError> {
    // Its sockets are this step's alone.
    let cluster = options.cluster.take().expect("it was asked for");
    let listener = Arc::clone(&cluster.listener);
    let options = &*options;
    let directory_id = found.voting_identity(options)?;
    let log_dir = found.metadata_home();
    let mut joining = member::join(JoinOptions {
        disk: Arc::clone(&options.disk),
        log_dir: log_dir.clone(),
        node_id: options.node_id,
        directory_id,
        incarnation: Uuid::from_random(options.random.incarnation),
        cluster_id: found.cluster_id(options),
        has_been_used: found.has_been_used()?,
        newest_epoch: found.newest_epoch(),
        fresh_cluster_id: ClusterId(Uuid::from_random(options.random.cluster).to_string().into()),
        cluster,
    })?;
    let FoundCluster { id, is_new: is_new_cluster } = joining.found().await?;
    let opened = OpenDirectories { is_new_cluster, ..found.open(options, Some(id))? };
    let metadata = metadata_options(options, log_dir.join("metadata"), opened.cluster_id.clone(), directory_id);
    Ok((opened, joining.enter(metadata), listener))
}

fn metadata_options(
    options: &StartOptions,
    dir: std::path::PathBuf,
    cluster_id: ClusterId,
    directory_id: DirectoryId,
) -> MetadataOptions {
    let (disk, rules) = (Arc::clone(&options.disk), Arc::clone(&options.rules));
    MetadataOptions {
        defaults: options.defaults.clone(),
        ..MetadataOptions::new(disk, dir, options.node_id, cluster_id, directory_id, rules)
    }
}
