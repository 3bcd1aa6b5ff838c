//! One member of the metadata quorum: opens its log, gets it a leader, proposes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::network::{NetSnapshot, RaftNetworkFactory};
use openraft::{Config, Raft, SnapshotPolicy};
use stonelog_protocol::{BrokerId, Uuid};
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use tokio::time::Instant;

use super::alone::NoPeers;
use super::journal_thread::{ENTRY_BYTES_MAX, die};
use super::log_store::{self, LogStore, LogThread};
use super::owner::Owner;
use super::publisher::Publisher;
use super::snapshot_store::SnapshotStore;
use super::standing::Standing;
use super::state_machine::StateMachine;
use super::tending::Wished;
use super::type_config::{Outcome, Proposal, TypeConfig, Voter};
use super::wire;
use crate::metadata::RecordBatch;

/// Entries between snapshots; bytes are watched by [`QuorumNode::propose`].
const SNAPSHOT_EVERY_ENTRIES: u64 = 5_000;
/// Proposed bytes between snapshots (KRaft's `metadata.log.max.record.bytes.between.snapshots`).
const SNAPSHOT_EVERY_BYTES: u64 = 20 << 20;
/// Entries kept behind a snapshot, for observers that lag.
const ENTRIES_KEPT: u64 = 1_000;
/// Entries in one message: with the largest entries still below what a peer takes in one frame.
const ENTRIES_PER_MESSAGE_MAX: u64 = 8;

/// A lone voter that does not lead by then never will; starting fails instead of hanging.
const LEADERSHIP_WITHIN: Duration = Duration::from_secs(60);

/// [`QuorumOptions::request_within`], unless somebody sets it: Kafka's.
pub const REQUEST_WITHIN_DEFAULT: Duration = Duration::from_secs(2);

/// Why the quorum's node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its disk failed, or what is on it cannot be trusted.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The log belongs to a quorum with other voters, or to another incarnation of this directory.
    #[error(
        "the metadata log in {directory} belongs to voters {voters:?}; this node is configured as the only voter {own}"
    )]
    OtherVoters {
        /// The log's directory.
        directory: PathBuf,
        /// Who votes, by the log.
        voters: Vec<u64>,
        /// This node.
        own: u64,
    },
    /// The log belongs to another cluster.
    #[error("the metadata log belongs to cluster {found}, not {expected}")]
    OtherCluster {
        /// By the log.
        found: String,
        /// By `meta.properties`.
        expected: String,
    },
    /// openraft refused; what it says names the inconsistency.
    #[error("the metadata quorum did not start: {0}")]
    Refused(String),
    /// The log names this node's voters, and this directory is none of them.
    #[error("the metadata log in {directory} names members, and node {own} with this directory is none of them")]
    NotMember {
        /// The log's directory.
        directory: PathBuf,
        /// This node.
        own: u64,
    },
    /// The quorum counts on the vote of a node that follows without voting.
    #[error(
        "the metadata quorum counts on the vote of node {own} with the log directory of {directory}, and the node follows \
         without voting: what is in that log directory is of a time before it voted. Put back the newest state of it, or \
         empty it, so that the node joins anew"
    )]
    VoteForgotten {
        /// The log's directory.
        directory: PathBuf,
        /// This node.
        own: u64,
    },
    /// The log is another directory's: a copy.
    #[error(
        "the metadata log in {directory} was begun by node {} in log directory {}, and is now in that of node {} ({}): \
         a copy must not vote. Put back the log that belongs here; if it is lost, remove everything in the log \
         directory, the hidden files (.stonelog_*) included, and the node joins anew",
        found.node, found.directory, own.node, own.directory
    )]
    OtherOwner {
        /// The log's directory.
        directory: PathBuf,
        /// Who began it.
        found: Owner,
        /// This node.
        own: Owner,
    },
    /// Nothing says whose log it is.
    #[error(
        "the metadata log in {directory} does not say whose it is (metadata.owner is missing): it may be another node's. \
         Put back all of the log; if it is lost, remove everything in the log directory, the hidden files (.stonelog_*) \
         included, and the node joins anew"
    )]
    NoOwner {
        /// The log's directory.
        directory: PathBuf,
    },
    /// A lone node was given a log that one of several began and wrote nothing into.
    #[error(
        "the metadata log in {directory} is that of one node of several: alone it would be a second cluster. Set \
         controller.quorum.voters as before, or name an empty log directory"
    )]
    OfSeveral {
        /// The log's directory.
        directory: PathBuf,
    },
    /// The system gave no thread.
    #[error("the metadata thread did not start: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a proposal was not applied, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead; nothing was written.
    #[error("this node is not the active controller")]
    NotLeader(Option<BrokerId>),
    /// Leadership was lost on the way: it may yet be applied.
    #[error("the outcome is not known")]
    Unknown,
    /// The quorum's node has ended.
    #[error("the metadata quorum has ended")]
    Ended,
}

/// Where a node keeps its things.
#[derive(Clone)]
pub struct QuorumOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// `<log dir>/metadata`; its parent exists.
    pub directory: PathBuf,
    /// This node.
    pub node_id: BrokerId,
    /// How the membership records it.
    pub voter: Voter,
    /// How long another voter has to make entries durable and say so (`controller.quorum.request.timeout.ms`).
    pub request_within: Duration,
}

impl QuorumOptions {
    pub(super) fn owner(&self, is_of_several: bool) -> Owner {
        Owner { directory: Uuid(self.voter.directory), node: self.node_id, is_of_several }
    }

    /// Refuses the log of another directory, and makes one that is to be begun this one's. `None` for a log that does
    /// not say whose it is.
    pub(super) fn claim(&self, is_of_several: bool) -> Result<Option<Owner>, StartError> {
        let own = self.owner(is_of_several);
        let found = Owner::read(&*self.disk, &self.directory)?;
        let has_log = log_store::exists(&*self.disk, &self.directory)?;
        match found {
            Some(found) if found.directory != own.directory && has_log => {
                Err(StartError::OtherOwner { directory: self.directory.clone(), found, own })
            }
            Some(found) if has_log => Ok(Some(found)),
            None if has_log => Ok(None),
            _ => {
                own.write(&*self.disk, &self.directory)?;
                Ok(Some(own))
            }
        }
    }
}

/// A running member.
pub struct QuorumNode {
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) store: LogStore,
    /// Until it is stopped.
    thread: Mutex<Option<LogThread>>,
    pub(super) node_id: u64,
    stale_batches: Arc<AtomicU64>,
    bytes_since_snapshot: AtomicU64,
    /// Whether what the log began with is known to be durable.
    has_kept_its_first: OnceLock<()>,
    /// How far the others have come.
    pub(super) standing: Mutex<Standing>,
    /// What times in it are since.
    pub(super) opened: Instant,
    /// What somebody wants of the membership.
    pub(super) wished: Mutex<Option<Wished>>,
}

impl QuorumNode {
    /// Starts the only voter and returns once it leads and has applied everything committed.
    pub async fn start_alone(options: QuorumOptions, publisher: Arc<Publisher>) -> Result<QuorumNode, StartError> {
        let known = options.claim(false)?;
        let node = QuorumNode::open(&options, publisher, config()?, NoPeers).await?;
        let led = match node.become_leader(&options, known).await {
            // Its only member is this directory: so says the log of an earlier build as well.
            Ok(()) if known.is_none() => {
                options.owner(false).write(&*options.disk, &options.directory).map_err(Into::into)
            }
            led => led,
        };
        match led {
            Ok(()) => Ok(node),
            Err(error) => {
                node.stop().await;
                Err(error)
            }
        }
    }

    /// Opens the log and starts openraft on it.
    pub(super) async fn open(
        options: &QuorumOptions,
        publisher: Arc<Publisher>,
        config: Config,
        network: impl RaftNetworkFactory<TypeConfig, Network: NetSnapshot<TypeConfig, SnapshotData = Bytes>>,
    ) -> Result<QuorumNode, StartError> {
        let node_id = wire::node(options.node_id);
        let (store, thread) = LogStore::open(&options.disk, &options.directory)?;
        let stale_batches = Arc::new(AtomicU64::new(0));
        let snapshots = SnapshotStore::new(options.disk.clone(), options.directory.clone());
        let machine = StateMachine::new(publisher, snapshots, stale_batches.clone());
        let raft = match Raft::new(node_id, Arc::new(config), network, store.clone(), machine).await {
            Ok(raft) => raft,
            Err(error) => {
                store.stop(thread);
                return Err(refused(error));
            }
        };
        let (thread, bytes_since_snapshot) = (Mutex::new(Some(thread)), AtomicU64::new(0));
        let (has_kept_its_first, standing, opened) = (OnceLock::new(), Mutex::default(), Instant::now());
        Ok(QuorumNode {
            raft,
            store,
            thread,
            node_id,
            stale_batches,
            bytes_since_snapshot,
            has_kept_its_first,
            standing,
            opened,
            wished: Mutex::default(),
        })
    }

    async fn become_leader(&self, options: &QuorumOptions, owner: Option<Owner>) -> Result<(), StartError> {
        let is_initialized = self.raft.is_initialized().await.map_err(refused)?;
        if !is_initialized && owner.is_some_and(|owner| owner.is_of_several) {
            return Err(StartError::OfSeveral { directory: options.directory.clone() });
        }
        if is_initialized {
            self.check_voters(options).await?;
            // The stored vote may name this node as leader of its term; that leadership ended with its process.
            self.raft.trigger().elect(false).await.map_err(refused)?;
        } else {
            // Whoever initializes stands for election at once.
            let members = BTreeMap::from([(self.node_id, options.voter.clone())]);
            self.raft.initialize(members).await.map_err(refused)?;
        }
        // Leading and having applied all that the log holds: the entry that begins the term included.
        let wait = self.raft.wait(Some(LEADERSHIP_WITHIN));
        let leads = wait.metrics(
            |metrics| {
                metrics.running_state.is_err()
                    || (metrics.current_leader == Some(self.node_id)
                        && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
                        && metrics.last_applied.map(|id| id.leader_id.term) == Some(metrics.current_term))
            },
            "lone voter leads",
        );
        let metrics = leads.await.map_err(refused)?;
        metrics.running_state.map_err(refused)
    }

    async fn check_voters(&self, options: &QuorumOptions) -> Result<(), StartError> {
        let membership = self
            .raft
            .with_raft_state(|state| state.membership_state.effective().membership().clone())
            .await
            .map_err(refused)?;
        let voters: Vec<u64> = membership.voter_ids().collect();
        let is_ours =
            membership.get_node(&self.node_id).is_some_and(|voter| voter.directory == options.voter.directory);
        if voters == [self.node_id] && is_ours {
            return Ok(());
        }
        Err(StartError::OtherVoters { directory: options.directory.clone(), voters, own: self.node_id })
    }

    /// The term this node leads in, if it does.
    pub fn leading_term(&self) -> Option<u64> {
        self.raft.as_leader().ok().map(|leader| leader.term())
    }

    /// Returns when what this node has applied is durable in its own log. A follower applies what a majority has made
    /// durable, which need not count itself: its own journal may be behind, or wait for room.
    pub async fn has_kept_what_it_applied(&self) -> Result<(), std::io::Error> {
        self.store.flushed().await
    }

    /// Whether what this node's log began with is durable; returns when it is. Before that the first membership may be
    /// forgotten again, and nobody else is to rest on it.
    pub(super) async fn has_kept_its_first(&self) -> bool {
        if self.has_kept_its_first.get().is_none() && self.store.flushed().await.is_ok() {
            // Who looks at the same time says the same.
            let _ = self.has_kept_its_first.set(());
        }
        self.has_kept_its_first.get().is_some()
    }

    /// Batches that were ignored because they were decided on another image. Anything but 0 is a bug.
    pub fn stale_batches(&self) -> u64 {
        self.stale_batches.load(Ordering::Relaxed)
    }

    /// Proposes a batch as leader of its term; returns when it is committed, applied and published, with its index.
    pub async fn propose(&self, batch: RecordBatch) -> Result<(u64, Outcome), ProposeError> {
        let term = batch.controller_term;
        let bytes = batch.encode().len();
        assert!(bytes <= ENTRY_BYTES_MAX, "a batch of {bytes} bytes does not fit the log");
        let (responder, answer) = ProgressResponder::complete_only();
        let request = self.raft.write(Proposal(Arc::new(batch))).with_leader(term).responder(responder);
        request.await.map_err(|_| ProposeError::Ended)?;
        let answer = answer.await.map_err(|_| ProposeError::Ended)?;
        self.count_bytes(bytes as u64).await;
        match answer {
            Ok(response) => Ok((response.log_id.index, response.data)),
            Err(ClientWriteError::ForwardToLeader(forward)) => {
                let leader = forward.leader_id.and_then(|id| i32::try_from(id).ok()).map(BrokerId);
                Err(ProposeError::NotLeader(leader))
            }
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// A snapshot by bytes; openraft itself counts entries.
    async fn count_bytes(&self, bytes: u64) {
        let before = self.bytes_since_snapshot.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes >= SNAPSHOT_EVERY_BYTES {
            self.bytes_since_snapshot.store(0, Ordering::Relaxed);
            // A node that has ended is noticed by whoever proposes next.
            drop(self.raft.trigger().snapshot().await);
        }
    }

    /// Returns when the node has failed; the process must end then.
    pub async fn failed(&self) -> String {
        let ended = self.raft.wait(None).metrics(|metrics| metrics.running_state.is_err(), "quorum failed").await;
        match ended {
            Ok(metrics) => metrics.running_state.err().map(|fatal| fatal.to_string()).unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// Takes a snapshot and drops the log it covers, now.
    pub async fn compact(&self) -> Result<(), StartError> {
        let upto = self.raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index);
        self.raft.trigger().snapshot().await.map_err(refused)?;
        let covers = |id: Option<u64>| id.is_some_and(|index| index >= upto);
        let wait = self.raft.wait(None);
        wait.metrics(|metrics| covers(metrics.snapshot.map(|id| id.index)), "snapshot").await.map_err(refused)?;
        self.raft.trigger().purge_log(upto).await.map_err(refused)?;
        let wait = self.raft.wait(None);
        wait.metrics(|metrics| covers(metrics.purged.map(|id| id.index)), "purge").await.map_err(refused)?;
        Ok(())
    }

    /// Ends the node; everything acknowledged is durable already.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            die(&error);
        }
        if let Some(thread) = self.thread.lock().expect("no holder panics").take() {
            self.store.stop(thread);
        }
    }
}

/// A lone voter needs no clock: nobody can take its leadership and it has nobody to convince.
fn config() -> Result<Config, StartError> {
    let config = Config { enable_tick: false, enable_heartbeat: false, enable_elect: false, ..common_config() };
    config.validate().map_err(refused)
}

/// What holds for any number of voters.
pub(super) fn common_config() -> Config {
    Config {
        cluster_name: "stonelog".to_owned(),
        heartbeat_interval: 100,
        election_timeout_min: 300,
        election_timeout_max: 600,
        max_payload_entries: ENTRIES_PER_MESSAGE_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: 2 * SNAPSHOT_EVERY_ENTRIES,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        ..Config::default()
    }
}

pub(super) fn refused(error: impl std::fmt::Display) -> StartError {
    StartError::Refused(error.to_string())
}
