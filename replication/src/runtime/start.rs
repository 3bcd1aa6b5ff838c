//! The start walk: lock, identity, recovery, verdict, registration, lanes, unfencing.
//!
//! Each step calls only the next. A broker leads nothing before its own registration is applied (rule 4), and serves
//! nothing before its epoch is durable in its directory (rule 11).

mod controller_node;
mod directories;
mod metadata_plane;
mod registration;
mod strays;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, TopicPartition};
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::holes::Hole;
use stonelog_storage::journal::{JournalOptions, RecoveryEnd};
use stonelog_storage::log::Log;
use stonelog_storage::log_dir::{self, Tenure};
use stonelog_storage::recovery::{Loss, RecoveredLog, RecoveryProgress, Verdict as Recovered};

use super::checkpointer::Checkpointer;
use super::cleaner::Cleaner;
use super::directory::{AbsentDirectory, Directory, DirectoryParts};
use super::follow_image;
use super::heartbeats::{self, Leaving};
use super::homes;
use super::journal::{JournalThreads, LaneSignal};
use super::lanes::{LaneThreads, Lanes, spawn_vital};
use super::node::{Node, NodeParts, NodeSettings};
use super::pool::Pool;
use super::scrubber::Scrubber;
use super::space::{self, Space};
use super::streams::{self, StreamsOptions};
use crate::controller::member::{ClusterOptions, JoinError, StreamLinks};
use crate::controller::{
    BrokerHeartbeat, ConfigRules, ControllerError, ControllerRequest, Defaults, MetadataHandle, RegisteredBroker,
};
use crate::metadata::Endpoint;
use crate::quorum::node::StartError as QuorumError;
pub use controller_node::{StartedController, start_controller};
use directories::{OpenDirectory, RecoveredDirectory};
use metadata_plane::Up;
use registration::{catch_up, leave_out_old_copies, record_epoch, register, until_answered};

/// Threads of a directory for reads that are not in memory.
const READER_THREADS: usize = 4;
/// Threads of a directory for segment writes and checkpoints.
const WRITER_THREADS: usize = 4;
/// Threads of a directory for compaction: one log at a time.
const CLEANER_THREADS: usize = 1;
/// How long after the controller did not hear of a failed directory it is told again.
const TELL_AGAIN: Duration = Duration::from_millis(200);

/// How long a broker that stops waits until others lead what it led (Kafka tries three times, five seconds apart).
const HAND_OVER_WITHIN: Duration = Duration::from_secs(15);

/// What a broker is started with.
pub struct StartOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The log directories, each once, in the order of the configuration.
    pub log_dirs: Vec<PathBuf>,
    /// The one of them that a new cluster's metadata log begins in; later it is found where it is.
    pub metadata_place: usize,
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
    /// Random bytes for new identities.
    pub random: Random,
    /// The kernel boot and mount a directory is used under.
    pub tenure_of: fn(&Path) -> io::Result<Tenure>,
    /// Where recovery says how far it has come.
    pub progress: Arc<RecoveryProgress>,
    /// The cluster it is to be part of; `None` for a lone node.
    pub cluster: Option<ClusterOptions>,
}

/// Random bytes for new identities.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// A new cluster's.
    pub cluster: [u8; 16],
    /// New directories'.
    pub directory: [u8; 16],
    /// This process's.
    pub incarnation: [u8; 16],
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A directory, or what is in it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// None of the configured log directories can be used.
    #[error("no log directory can be used: {}", list(.0))]
    AllAbsent(Vec<AbsentDirectory>),
    /// The metadata log is in none of the directories that can be used.
    #[error(
        "the metadata log is in none of the usable log directories ({}), and without it nothing can be served{}",
        looked_in.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        if absent.is_empty() {
            "; restore its directory `metadata` from a backup, or empty all log directories to begin anew".to_owned()
        } else {
            format!("; it may be in one of these, which are to be mended, or taken out of log.dirs: {}", list(absent))
        }
    )]
    MetadataAbsent {
        /// Where it was looked for.
        looked_in: Vec<PathBuf>,
        /// What could not be used.
        absent: Vec<AbsentDirectory>,
    },
    /// Two directories hold a metadata log.
    #[error(
        "log directories {} and {} both hold a metadata log (in `metadata`): one of them is of an earlier time or of \
         another node. Take the wrong one out of log.dirs",
        one.display(), other.display()
    )]
    TwoMetadataLogs {
        /// One.
        one: PathBuf,
        /// Another.
        other: PathBuf,
    },
    /// Two directories have one identity.
    #[error(
        "log directories {} and {} have the same directory id: one is a copy of the other. Take the copy out of log.dirs",
        one.display(), other.display()
    )]
    SameDirectory {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A lone node was given a directory that was part of a cluster of several.
    #[error(
        "log directory {} is that of one node of several, whose metadata the others keep: alone it would be a second \
         cluster. Set controller.quorum.voters as before, or name an empty directory",
        directory.display()
    )]
    OneOfSeveral {
        /// Which.
        directory: PathBuf,
    },
    /// A node that is a controller alone was given a directory that a broker's records lie in.
    #[error(
        "log directory {} is that of a broker, and this node is to be a controller alone (process.roles): what lies there \
         would be served by nobody. Name an empty directory for the controller, with a node.id of its own, or leave \
         `broker` in process.roles",
        directory.display()
    )]
    OfABroker {
        /// Which.
        directory: PathBuf,
    },
    /// The metadata quorum.
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    /// The way into the cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
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
    keeps_metadata: bool,
    /// How a broker of several says that it wants to stop.
    leaving: Option<Leaving>,
    lane_threads: LaneThreads,
    journal_threads: Vec<JournalThreads>,
    locked: Vec<OpenDirectory>,
}

/// What happened during the start.
#[derive(Clone, Debug)]
pub struct StartReport {
    /// Whether the directories were formatted: this is a new cluster.
    pub is_new_cluster: bool,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This incarnation.
    pub broker_epoch: BrokerEpoch,
    /// The directories in use.
    pub directories: Vec<DirectoryReport>,
    /// The directories that are not.
    pub absent: Vec<AbsentDirectory>,
    /// What the registration found of partitions that may lack records.
    pub registered: RegisteredBroker,
    /// Logs of topics that no longer exist, put aside.
    pub strays: Vec<PathBuf>,
}

/// How a directory was found.
#[derive(Clone, Debug)]
pub struct DirectoryReport {
    /// Where it lies.
    pub path: PathBuf,
    /// Its identity.
    pub id: DirectoryId,
    /// How its journal ended.
    pub journal_end: RecoveryEnd,
    /// Journal entries replayed.
    pub replayed: u64,
    /// It was not there for the last incarnation that was in use with it (rule 11).
    pub is_old_copy: bool,
    /// How many replicas were proved, cut, damaged and lost, by what the directory alone can tell.
    pub verdicts: Verdicts,
    /// What is damaged or missing in its replicas, also from before: at most [`HOLES_TOLD_MAX`].
    pub holes: Vec<(TopicPartition, Hole)>,
    /// Replicas that may lack something that no hole names: at most [`HOLES_TOLD_MAX`].
    pub lost: Vec<(TopicPartition, Loss)>,
}

/// Holes and losses told one by one for each directory.
pub const HOLES_TOLD_MAX: usize = 100;

/// How many replicas of a directory got which verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Everything is there.
    pub proved: usize,
    /// The same, up to a torn tail.
    pub cut: usize,
    /// Everything but what their holes name.
    pub damaged: usize,
    /// Something else may be missing.
    pub lost: usize,
}

impl Verdicts {
    fn count(logs: &[RecoveredLog]) -> Verdicts {
        let mut counted = Verdicts::default();
        for found in logs {
            *match found.verdict {
                Recovered::Proved => &mut counted.proved,
                Recovered::Cut => &mut counted.cut,
                Recovered::Damaged => &mut counted.damaged,
                Recovered::Lost(_) => &mut counted.lost,
            } += 1;
        }
        counted
    }
}

/// Starts the data plane and the metadata plane. Returns when every partition it leads is led.
pub async fn start(options: StartOptions) -> Result<Started, StartError> {
    start_with(options, None).await
}

/// Starts the data plane alone, on a metadata plane that somebody else keeps and stops.
pub async fn start_on(options: StartOptions, metadata: MetadataHandle) -> Result<Started, StartError> {
    start_with(options, Some(metadata)).await
}

async fn start_with(mut options: StartOptions, kept: Option<MetadataHandle>) -> Result<Started, StartError> {
    let heartbeat_every = options.cluster.as_ref().map(|cluster| cluster.heartbeat_every);
    let keeps_metadata = kept.is_none();
    let Up { recovered, mut absent, cluster_id, is_new_cluster, metadata, links } = match &options.cluster {
        None => metadata_plane::alone(&options, kept)?,
        Some(_) => metadata_plane::with_others(&mut options).await?,
    };
    catch_up(&metadata).await?;
    let recovered = leave_out_old_copies(options.node_id, &metadata.image(), recovered, &mut absent);
    let registered = register(&options, &cluster_id, &metadata, &recovered).await?;
    // A directory that names an epoch behind the end of its voter's log would be one that was put back from a copy.
    metadata.keeps_what_it_applied().await?;
    for (RecoveredDirectory { open, .. }, known) in recovered.iter().zip(&registered.directories) {
        let recorded = record_epoch(open, registered.epoch, known);
        recorded.and_then(|()| open.log_dir.record_tenure(&open.tenure)).inspect_err(|fault| {
            directories::mark_if_device_failed(&options, open, &recovered, fault);
        })?;
    }

    let mut reports = Vec::new();
    let mut running = Vec::new();
    let mut journal_threads = Vec::new();
    let mut logs = Vec::new();
    let mut checkpoints = Vec::new();
    let mut locked = Vec::new();
    for (place, RecoveredDirectory { open, recovered }) in recovered.into_iter().enumerate() {
        let signals: Vec<_> = (0..options.lanes).map(|_| Arc::new(LaneSignal::default())).collect();
        let maintenance = Arc::new(recovered.maintenance);
        let space = Arc::new(Space::new(options.node.free_bytes_min));
        let (threads, journal) = JournalThreads::start(
            recovered.writer,
            recovered.flusher,
            maintenance,
            signals.clone(),
            Arc::clone(&space),
        )?;
        reports.push(DirectoryReport {
            path: open.log_dir.path().to_owned(),
            id: open.meta.directory_id,
            replayed: recovered.entries_count,
            journal_end: recovered.journal_end.clone(),
            is_old_copy: registered.directories[place].is_old_copy,
            verdicts: Verdicts::count(&recovered.logs),
            holes: told(recovered.logs.iter().flat_map(holes_of)),
            lost: told(recovered.logs.iter().filter_map(loss_of)),
        });
        running.push(Arc::new(Directory::new(DirectoryParts {
            place,
            id: open.meta.directory_id,
            path: open.log_dir.path().to_owned(),
            disk: Arc::clone(&options.disk),
            access: recovered.access,
            journal,
            lane_signals: signals,
            readers: Pool::start("read", READER_THREADS)?,
            writers: Pool::start("segment", WRITER_THREADS)?,
            scrubbers: Pool::start("scrub", 1)?,
            cleaner: Pool::start("cleaner", CLEANER_THREADS)?,
            recovery_epoch: recovered.recovery_epoch,
            failure_epoch: log_dir::failure_epoch(&*options.disk, open.log_dir.path(), registered.epoch)?,
            is_whole: !recovered.journal_end.hurts_everyone(),
            holds_metadata: open.holds_metadata,
            unflushed_bytes_max: options.node.unflushed_bytes_max,
            hangs_after: options.node.hangs_after,
            space,
        })));
        logs.extend(recovered.logs.into_iter().map(|found| (found.log, place)));
        checkpoints.push((recovered.checkpoint_version, recovered.dropped));
        journal_threads.push(threads);
        locked.push(open);
    }
    let node = Node::new(NodeParts {
        broker_id: options.node_id,
        broker_epoch: registered.epoch,
        disk: Arc::clone(&options.disk),
        directories: running,
        absent: absent.clone(),
        settings: options.node.clone(),
        lane_count: options.lanes,
    });
    let (lane_threads, lanes) = Lanes::start(Arc::clone(&node))?;
    let dropped = checkpoints.iter().enumerate();
    let dropped = dropped.flat_map(|(place, (_, dropped))| dropped.iter().map(move |partition| (*partition, place)));
    let strays = adopt(&lanes, &metadata, logs, dropped.collect()).await;
    let keep = match reports.iter().any(|directory| directory.is_old_copy) {
        true => strays::Kept::ForGood,
        false => strays::Kept::ForADay,
    };
    let strays = strays::put_aside(&node, strays, keep);
    if let Some((StreamLinks { dialer, accepted }, listener)) = links {
        // Before unfencing: who is in sync from its first moment on must follow from then on.
        streams::start(&lanes, StreamsOptions { dialer, listener, accepted, metadata: metadata.clone() }).await;
    }
    unfence(&options.node_id, registered.epoch, &metadata, &lanes).await?;
    for (directory, (version, dropped)) in node.directories.iter().zip(checkpoints) {
        keep_checkpoints(&node, directory, &lanes, version, dropped).await;
        keep_clean(&node, directory, &lanes).await;
    }
    for directory in &node.directories {
        keep_scrubbing(&node, directory, &lanes).await?;
    }
    let leaving = match heartbeat_every {
        Some(every) => {
            homes::begin(&node, &lanes, &metadata).await;
            Some(heartbeats::begin(&node, &lanes, &metadata, every).await)
        }
        None => {
            tell_of_failures(&node, &lanes, &metadata).await;
            None
        }
    };

    let broker_epoch = registered.epoch;
    let report =
        StartReport { is_new_cluster, cluster_id, broker_epoch, directories: reports, absent, registered, strays };
    Ok(Started { node, lanes, metadata, report, keeps_metadata, leaving, lane_threads, journal_threads, locked })
}

fn holes_of(found: &RecoveredLog) -> impl Iterator<Item = (TopicPartition, Hole)> + '_ {
    let partition = found.log.key().partition;
    found.log.holes().iter().map(move |hole| (partition, *hole))
}

fn loss_of(found: &RecoveredLog) -> Option<(TopicPartition, Loss)> {
    match found.verdict {
        Recovered::Lost(loss) => Some((found.log.key().partition, loss)),
        _ => None,
    }
}

/// In order, as many as are told.
fn told<T: Ord>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    all.sort_unstable();
    all.truncate(HOLES_TOLD_MAX);
    all
}

impl Started {
    /// Hands over what this broker leads, if others can lead it. Returns when it may stop, or when the time is up.
    pub async fn hand_over(&self) {
        let Some(leaving) = &self.leaving else { return };
        if tokio::time::timeout(HAND_OVER_WITHIN, leaving.leave()).await.is_err() {
            tracing::warn!("this broker has not handed over in time and stops all the same");
        }
    }

    /// Stops in order: lanes, then the journals with everything queued, then metadata; then says that the stop was clean
    /// in every directory that still works. Blocks; nobody may hold a lane's future any more.
    pub fn stop(self) -> Result<(), Fault> {
        self.lane_threads.stop();
        let stopped: Vec<_> = self.journal_threads.into_iter().map(JournalThreads::stop).collect();
        for directory in &self.node.directories {
            directory.stop();
        }
        let mut result = Ok(());
        let is_clean: Vec<bool> = stopped.iter().map(Result::is_ok).collect();
        for (directory, journal) in self.node.directories.iter().zip(stopped) {
            if let Err(fault) = journal
                && !directory.is_offline()
            {
                // Running out of space is no fault of the device, but its stop is not clean either.
                if !fault.is_temporary() {
                    self.node.take_offline(directory, &fault);
                }
                result = result.and(Err(fault));
            }
        }
        if self.keeps_metadata {
            self.metadata.shut_down();
        }
        self.node.wait_for_markers();
        for ((directory, open), is_clean) in self.node.directories.iter().zip(&self.locked).zip(is_clean) {
            if is_clean && !directory.is_offline() {
                let marked = open.log_dir.mark_clean_stop(&open.tenure);
                result = result.and(marked);
            }
        }
        result
    }
}

/// Gives every lane its logs and the first image. Returns the logs that are no replica, each with its directory's place.
async fn adopt(
    lanes: &Lanes,
    metadata: &MetadataHandle,
    logs: Vec<(Log, usize)>,
    dropped: Vec<(TopicPartition, usize)>,
) -> Vec<(Log, usize)> {
    let mut by_lane: Vec<follow_image::Recovered> = (0..lanes.count()).map(|_| Default::default()).collect();
    for (log, place) in logs {
        let partition = log.key().partition;
        by_lane[lanes.owner(partition)].logs.insert((partition, place), log);
    }
    for (partition, place) in dropped {
        by_lane[lanes.owner(partition)].dropped.push((partition, place));
    }
    let mut strays = Vec::new();
    for (lane, recovered) in by_lane.into_iter().enumerate() {
        let images = metadata.subscribe();
        strays.extend(lanes.call(lane, move |lane| lane.follow_images(images, recovered)).await);
    }
    strays
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
    until_answered(metadata, || ControllerRequest::Heartbeat(heartbeat.clone())).await?;
    let index = metadata.image().index();
    for lane in 0..lanes.count() {
        lanes.call(lane, move |lane| lane.applied(index)).await;
    }
    Ok(())
}

async fn keep_checkpoints(
    node: &Arc<Node>,
    directory: &Arc<Directory>,
    lanes: &Lanes,
    version: u64,
    dropped: Vec<TopicPartition>,
) {
    let (node, directory, all) = (Arc::clone(node), Arc::clone(directory), lanes.clone());
    let (monitored, measured) = (Arc::clone(&node), Arc::clone(&directory));
    let strays = strays::remove_in_time(Arc::clone(&node), Arc::clone(&directory));
    lanes
        .call(0, move |_| {
            let checkpointer = Checkpointer::new(node, directory, all, version, dropped);
            spawn_vital("the checkpoints", checkpointer.run());
            spawn_vital("the measuring of free space", space::monitor(monitored, measured));
            spawn_vital("the removal of strays", strays);
            std::future::ready(())
        })
        .await;
}

async fn keep_scrubbing(node: &Arc<Node>, directory: &Arc<Directory>, lanes: &Lanes) -> Result<(), Fault> {
    let Some(pace) = node.settings.scrub else { return Ok(()) };
    let scrubber = Scrubber::new(Arc::clone(node), Arc::clone(directory), lanes.clone(), pace)?;
    lanes
        .call(0, move |_| {
            spawn_vital("the scrub", scrubber.run());
            std::future::ready(())
        })
        .await;
    Ok(())
}

async fn keep_clean(node: &Arc<Node>, directory: &Arc<Directory>, lanes: &Lanes) {
    let cleaner = Cleaner::new(Arc::clone(node), Arc::clone(directory), lanes.clone());
    lanes
        .call(0, move |_| {
            spawn_vital("the cleaner", cleaner.run());
            std::future::ready(())
        })
        .await;
}

/// Tells the controller which directories are left whenever one fails, until it has heard.
async fn tell_of_failures(node: &Arc<Node>, lanes: &Lanes, metadata: &MetadataHandle) {
    let (node, metadata) = (Arc::clone(node), metadata.clone());
    let mut failures = node.watch_failures();
    let telling = async move {
        while failures.changed().await.is_ok() {
            loop {
                let heartbeat = BrokerHeartbeat {
                    id: node.broker_id,
                    epoch: node.broker_epoch,
                    metadata_index: metadata.image().index(),
                    want_fence: false,
                    want_shutdown: false,
                    online_directories: Some(node.online().map(|directory| directory.id).collect()),
                };
                match metadata.submit(ControllerRequest::Heartbeat(heartbeat)).await {
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!("the controller has not heard of a failed log directory: {error}");
                        tokio::time::sleep(TELL_AGAIN).await;
                    }
                }
            }
        }
    };
    lanes
        .call(0, move |_| {
            spawn_vital("telling of failed directories", telling);
            std::future::ready(())
        })
        .await;
}

fn list(absent: &[AbsentDirectory]) -> String {
    let each = absent.iter().map(|directory| format!("{}: {}", directory.path.display(), directory.reason));
    each.collect::<Vec<_>>().join("; ")
}
