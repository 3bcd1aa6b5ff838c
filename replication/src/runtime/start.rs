//! The start walk: lock, identity, recovery, verdict, registration, lanes, unfencing.
//!
//! Each step calls only the next. A broker leads nothing before its own registration is applied (rule 4), and serves
//! nothing before its epoch is durable in its directory (rule 11).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, TopicPartition, Uuid};
use stonelog_storage::disk::Disk;
use stonelog_storage::journal::{JournalOptions, RecoveryEnd};
use stonelog_storage::log::{Log, LogConfig};
use stonelog_storage::log_dir::{DirectoryState, LastStop, LogDir, MetaProperties, Tenure};
use stonelog_storage::recovery::{self, RecoveredLogDir, RecoveryOptions};
use stonelog_storage::segment::file_cache::{INDEX_BYTES_MAX, OPEN_FILES_COUNT};
use stonelog_storage::{Fault, recovery::Verdict as Recovered};

use super::checkpointer::Checkpointer;
use super::clock::Clock;
use super::follow_image;
use super::journal::{JournalThreads, LaneSignal};
use super::lanes::{LaneThreads, Lanes, spawn_vital};
use super::node::{Node, NodeParts, NodeSettings};
use super::pool::Pool;
use super::priority::Granted;
use crate::controller::{
    self, BrokerHeartbeat, ConfigRules, ControllerError, ControllerRequest, ControllerResponse, Defaults,
    MetadataHandle, MetadataOptions, RegisterBrokerRequest, RegisteredBroker,
};
use crate::metadata::broker::ReplicaReport;
use crate::metadata::{DirectoryRegistration, Endpoint, Verdict};
use crate::quorum::node::StartError as QuorumError;

/// Threads for reads that are not in memory.
const READER_THREADS: usize = 4;
/// Threads for segment writes and checkpoints.
const WRITER_THREADS: usize = 4;

/// What a broker is started with.
pub struct StartOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The log directory.
    pub log_dir: PathBuf,
    /// `node.id`.
    pub node_id: BrokerId,
    /// The cluster id somebody asked for.
    pub cluster_id: Option<ClusterId>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// Where the listeners are reached.
    pub endpoints: Vec<Endpoint>,
    /// Sizes of the journal.
    pub journal: JournalOptions,
    /// How many lanes.
    pub lanes: usize,
    /// Settings of the data plane.
    pub node: NodeSettings,
    /// The rules of topic settings.
    pub rules: Arc<dyn ConfigRules>,
    /// What CreateTopics may leave unset.
    pub defaults: Defaults,
    /// Random bytes for new identities: cluster, directory, incarnation.
    pub random: [[u8; 16]; 3],
    /// The kernel boot and mount the directory is used under.
    pub tenure: Tenure,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory, or what is in it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The metadata quorum.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The controller refused the registration.
    #[error("the controller refused this broker's registration: {0}")]
    Registration(#[from] ControllerError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A started broker's data plane.
pub struct Started {
    /// What all lanes share.
    pub node: Arc<Node>,
    /// The lanes.
    pub lanes: Lanes,
    /// The metadata plane.
    pub metadata: MetadataHandle,
    /// What happened on the way.
    pub report: StartReport,
    lane_threads: LaneThreads,
    journal_threads: JournalThreads,
    directory: LogDir,
    tenure: Tenure,
}

/// What happened during the start.
#[derive(Clone, Debug)]
pub struct StartReport {
    /// Whether the directory was formatted: this is a new cluster.
    pub is_new_cluster: bool,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The directory.
    pub directory_id: DirectoryId,
    /// This incarnation.
    pub broker_epoch: BrokerEpoch,
    /// How the journal ended.
    pub journal_end: RecoveryEnd,
    /// Journal entries replayed.
    pub replayed: u64,
    /// What the registration found of partitions that may lack records.
    pub registered: RegisteredBroker,
    /// Logs of topics that no longer exist, put aside.
    pub strays: Vec<PathBuf>,
    /// The scheduling class of the journal's flusher.
    pub journal_priority: Granted,
}

/// Starts the data plane and the metadata plane of a lone node. Returns when every partition it leads is led.
pub async fn start(options: StartOptions) -> Result<Started, StartError> {
    let (directory, meta, is_new_cluster) = open_directory(&options)?;
    let last_stop = directory.begin(&options.tenure)?;
    let recovered = recover(&options, last_stop)?;
    let metadata = controller::start(MetadataOptions {
        defaults: options.defaults.clone(),
        ..MetadataOptions::new(
            Arc::clone(&options.disk),
            directory.metadata_path(),
            options.node_id,
            meta.cluster_id.clone(),
            meta.directory_id,
            Arc::clone(&options.rules),
        )
    })?;
    let registered = register(&options, &meta, &metadata, &recovered).await?;
    directory.record_broker_epoch(registered.epoch)?;
    directory.record_tenure(&options.tenure)?;

    let RecoveredLogDir { logs, writer, flusher, maintenance, access, recovery_epoch, .. } = recovered;
    let signals: Vec<_> = (0..options.lanes).map(|_| Arc::new(LaneSignal::default())).collect();
    let (journal_threads, journal) = JournalThreads::start(writer, flusher, Arc::new(maintenance), signals.clone())?;
    let node = Node::new(NodeParts {
        broker_id: options.node_id,
        directory_id: meta.directory_id,
        log_dir: options.log_dir.clone(),
        disk: Arc::clone(&options.disk),
        access,
        journal,
        lane_signals: signals,
        readers: Pool::start("read", READER_THREADS)?,
        writers: Pool::start("segment", WRITER_THREADS)?,
        settings: options.node.clone(),
    });
    let (lane_threads, lanes) = Lanes::start(Arc::clone(&node))?;
    let directory_is_whole = recovered.journal_end.damage.is_empty();
    let logs = logs.into_iter().map(|found| found.log).collect();
    let strays = adopt(&lanes, &metadata, logs, recovery_epoch, directory_is_whole).await;
    let strays = put_aside(&directory, &strays)?;
    unfence(&options.node_id, registered.epoch, &metadata, &lanes).await?;
    keep_checkpoints(&node, &lanes, recovery_epoch, recovered.checkpoint_version, recovered.dropped).await;

    let report = StartReport {
        is_new_cluster,
        cluster_id: meta.cluster_id,
        directory_id: meta.directory_id,
        broker_epoch: registered.epoch,
        journal_end: recovered.journal_end,
        replayed: recovered.entries_count,
        registered,
        strays,
        journal_priority: journal_threads.granted(),
    };
    Ok(Started { node, lanes, metadata, report, lane_threads, journal_threads, directory, tenure: options.tenure })
}

impl Started {
    /// Stops in order: lanes, then the journal with everything queued, then metadata; then says that the stop was clean.
    /// Blocks; nobody may hold a lane's future any more.
    pub fn stop(self) -> Result<(), Fault> {
        self.lane_threads.stop();
        let journal = self.journal_threads.stop();
        self.node.readers.stop();
        self.node.writers.stop();
        self.metadata.shut_down();
        if self.node.is_offline() {
            return Ok(());
        }
        journal?;
        self.directory.mark_clean_stop(&self.tenure)
    }
}

/// Locks the directory, and formats it when it is empty (rule 12).
fn open_directory(options: &StartOptions) -> Result<(LogDir, MetaProperties, bool), Fault> {
    let (directory, state) = LogDir::open(Arc::clone(&options.disk), &options.log_dir)?;
    match state {
        DirectoryState::Ours(meta) => {
            meta.require(&options.log_dir, options.cluster_id.as_ref(), options.node_id)?;
            Ok((directory, meta, false))
        }
        DirectoryState::Empty => {
            let fresh = || ClusterId(Uuid::from_random(options.random[0]).to_string().into());
            let meta = MetaProperties {
                cluster_id: options.cluster_id.clone().unwrap_or_else(fresh),
                node_id: options.node_id,
                directory_id: Uuid::from_random(options.random[1]),
                broker_epoch: None,
            };
            directory.format(&meta)?;
            Ok((directory, meta, true))
        }
    }
}

fn recover(options: &StartOptions, last_stop: LastStop) -> Result<RecoveredLogDir, Fault> {
    let recovery = RecoveryOptions {
        journal_name: "journal",
        journal: options.journal,
        config: LogConfig::default(),
        relaxed_survived: last_stop != LastStop::Unknown,
        open_files_count: OPEN_FILES_COUNT,
        index_bytes_max: INDEX_BYTES_MAX,
    };
    recovery::recover_log_dir(&options.disk, &options.log_dir, &recovery, Clock.wall())
}

/// Registers this incarnation with what recovery proved.
async fn register(
    options: &StartOptions,
    meta: &MetaProperties,
    metadata: &MetadataHandle,
    recovered: &RecoveredLogDir,
) -> Result<RegisteredBroker, StartError> {
    let verdict = match &recovered.journal_end {
        end if !end.damage.is_empty() => Verdict::Lost,
        end if end.torn_tail.is_some() => Verdict::Cut,
        _ => Verdict::Proved,
    };
    let differing = recovered
        .logs
        .iter()
        .map(|found| ReplicaReport {
            partition: found.log.key().partition,
            verdict: match found.verdict {
                Recovered::Proved => Verdict::Proved,
                Recovered::Cut => Verdict::Cut,
                Recovered::Lost(loss) => {
                    tracing::warn!(partition = %found.log.key().partition, "replica may lack records: {loss:?}");
                    Verdict::Lost
                }
            },
            last_epoch: found.log.latest_epoch().unwrap_or(stonelog_protocol::LeaderEpoch::NONE),
            log_end_offset: found.log.log_end(),
        })
        .filter(|report| report.verdict != verdict)
        .collect();
    let request = RegisterBrokerRequest {
        id: options.node_id,
        cluster_id: meta.cluster_id.clone(),
        incarnation: Uuid::from_random(options.random[2]),
        endpoints: options.endpoints.clone(),
        rack: options.rack.clone(),
        directories: vec![DirectoryRegistration { id: meta.directory_id, verdict }],
        differing,
        // The directory's lock is ours, so the incarnation before is no more.
        previous_is_gone: true,
    };
    match metadata.submit(ControllerRequest::RegisterBroker(request)).await? {
        ControllerResponse::RegisterBroker(registered) => Ok(registered),
        _ => unreachable!("the answer's variant is the request's"),
    }
}

/// Gives every lane its logs and the first image. Returns the logs that no topic claims.
async fn adopt(
    lanes: &Lanes,
    metadata: &MetadataHandle,
    logs: Vec<Log>,
    recovery_epoch: u32,
    directory_is_whole: bool,
) -> Vec<TopicPartition> {
    let mut by_lane: Vec<HashMap<TopicPartition, Log>> = (0..lanes.count()).map(|_| HashMap::new()).collect();
    for log in logs {
        let partition = log.key().partition;
        by_lane[lanes.owner(partition)].insert(partition, log);
    }
    let mut strays = Vec::new();
    for (lane, logs) in by_lane.into_iter().enumerate() {
        let images = metadata.subscribe();
        let recovered = follow_image::Recovered { logs, recovery_epoch, directory_is_whole };
        strays.extend(lanes.call(lane, move |lane| lane.follow_images(images, recovered)).await);
    }
    strays
}

/// Renames the directories of logs that no topic claims; they are left for a person to look at.
fn put_aside(directory: &LogDir, strays: &[TopicPartition]) -> Result<Vec<PathBuf>, Fault> {
    let mut kept = Vec::new();
    for stray in strays {
        let from = directory.replica_path(stray);
        let to = from.with_extension("stray");
        let io = |operation, path: &PathBuf| {
            let path = path.clone();
            move |source| Fault::Io { operation, path, position: None, source }
        };
        if directory.disk().exists(&from).map_err(io("stat", &from))? {
            directory.disk().rename(&from, &to).map_err(io("rename", &from))?;
            tracing::warn!("no topic claims {}: it is kept as {}", from.display(), to.display());
            kept.push(to);
        }
    }
    if !kept.is_empty() {
        let path = directory.path().to_owned();
        directory.disk().sync_dir(&path).map_err(|source| Fault::Io {
            operation: "fsync directory",
            path,
            position: None,
            source,
        })?;
    }
    Ok(kept)
}

/// Says that this broker is ready, and waits until every lane knows that it is unfenced.
async fn unfence(
    node_id: &BrokerId,
    epoch: BrokerEpoch,
    metadata: &MetadataHandle,
    lanes: &Lanes,
) -> Result<(), StartError> {
    let heartbeat = BrokerHeartbeat {
        id: *node_id,
        epoch,
        metadata_index: metadata.image().index(),
        want_fence: false,
        want_shutdown: false,
        online_directories: None,
    };
    metadata.submit(ControllerRequest::Heartbeat(heartbeat)).await?;
    let index = metadata.image().index();
    for lane in 0..lanes.count() {
        lanes.call(lane, move |lane| lane.applied(index)).await;
    }
    Ok(())
}

async fn keep_checkpoints(
    node: &Arc<Node>,
    lanes: &Lanes,
    recovery_epoch: u32,
    version: u64,
    dropped: Vec<TopicPartition>,
) {
    let (node, all) = (Arc::clone(node), lanes.clone());
    lanes
        .call(0, move |_| {
            let checkpointer = Checkpointer::new(node, all, recovery_epoch, version, dropped);
            spawn_vital("the checkpoints", checkpointer.run());
            std::future::ready(())
        })
        .await;
}
