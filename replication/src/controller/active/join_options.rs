//! What a node of several looks for its cluster with, and why it may not become part of one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, Uuid};
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use tokio::sync::mpsc;

use crate::controller::duties::DutySettings;
use crate::quorum::bootstrap::BootstrapError;
use crate::quorum::node::StartError as QuorumError;
use crate::runtime::peers::{ClusterSecret, HandedOver};

/// How a node of several reaches the others, and what it knows of them.
pub struct ClusterOptions {
    /// The voters by configuration; none where `servers` are named instead.
    pub voters: Vec<ListedVoter>,
    /// Where to ask who votes. A node with servers forms no cluster.
    pub servers: Vec<(String, u16)>,
    /// Whether this node may be a member of the quorum: it is a controller.
    pub may_vote: bool,
    /// The cluster's secret. Without one nodes speak over the loopback interface only.
    pub secret: Option<ClusterSecret>,
    /// Sockets for other nodes alone: listening, non-blocking.
    pub sockets: Vec<std::net::TcpListener>,
    /// What listeners for clients found to come from other nodes.
    pub handed_over: Option<mpsc::Receiver<HandedOver>>,
    /// `inter.broker.listener.name`: where brokers that follow others' partitions find them, by their registrations.
    pub listener: Arc<str>,
    /// What the active controller does unasked.
    pub duties: DutySettings,
    /// How long a voter may take to make entries durable (`controller.quorum.request.timeout.ms`).
    pub request_within: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_every: Duration,
}

/// What a node starts to look for a cluster with.
pub struct JoinOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The log directory with the metadata log.
    pub log_dir: PathBuf,
    /// This node.
    pub node_id: BrokerId,
    /// That directory's identity, durable.
    pub directory_id: DirectoryId,
    /// This process, as it registers.
    pub incarnation: Uuid,
    /// Its cluster, by `meta.properties` or by somebody's wish.
    pub cluster_id: Option<ClusterId>,
    /// Whether there are replicas or recorded broker epochs in any log directory.
    pub has_been_used: bool,
    /// The newest broker epoch recorded in any log directory.
    pub newest_epoch: Option<BrokerEpoch>,
    /// The id of a cluster that this node forms.
    pub fresh_cluster_id: ClusterId,
    /// The others.
    pub cluster: ClusterOptions,
}

/// Why a node did not become part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It must not.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// It votes by the quorum's membership, and must not by its configuration.
    #[error(
        "node {0} is a voter of the metadata quorum, and process.roles leaves out `controller`: the quorum would count on a \
         vote that it never gets. Start it with the role, and have it removed from the voters first"
    )]
    Votes(BrokerId),
    /// Its member of the quorum did not start.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// Its disk.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A socket, or the thread.
    #[error("cannot take part in the cluster: {0}")]
    Io(#[from] std::io::Error),
    /// The thread ended, having said why.
    #[error("the metadata thread ended")]
    Ended,
}
