//! What all lanes of a broker share: identity, clock, disk, journal, threads for jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stonelog_protocol::{BrokerId, DirectoryId};
use stonelog_storage::disk::Disk;
use stonelog_storage::job::FileAccess;
use tokio::sync::{Notify, watch};

use super::clock::Clock;
use super::journal::{JournalQueue, LaneSignal};
use super::pool::Pool;

/// Settings of the data plane that are fixed while the broker runs.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Static values of broker keys, from which topic defaults come.
    pub broker_defaults: BTreeMap<String, String>,
    /// Memory for recent batches, over all lanes.
    pub tail_bytes_max: usize,
    /// Bytes of unflushed batches, over all lanes, past which producers wait.
    pub unflushed_bytes_max: usize,
    /// The largest batch: one that a journal file can hold.
    pub entry_bytes_max: u64,
    /// How long appended batches wait to be merged before they are written to segments.
    pub flush_after: Duration,
    /// How often segments written since are made durable and the journal freed.
    pub checkpoint_after: Duration,
    /// How often retention is looked at.
    pub retention_check_every: Duration,
    /// Producers without a batch for this long are forgotten.
    pub producer_id_expiration: Duration,
}

/// What all lanes share.
pub struct Node {
    /// This broker.
    pub broker_id: BrokerId,
    /// Its log directory's identity.
    pub directory_id: DirectoryId,
    /// The log directory.
    pub log_dir: PathBuf,
    /// Clocks.
    pub clock: Clock,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Segment files, and the journal for batches that are not in one yet.
    pub access: Arc<FileAccess>,
    /// The way into the journal.
    pub journal: JournalQueue,
    /// Where the journal leaves word for each lane.
    pub lane_signals: Vec<Arc<LaneSignal>>,
    /// Threads for reads that would block.
    pub readers: Pool,
    /// Threads for segment writes and checkpoints.
    pub writers: Pool,
    /// Fixed settings.
    pub settings: NodeSettings,
    /// Bytes that the journal holds and segments do not, over all lanes.
    pub unflushed_bytes: AtomicU64,
    /// Notified when a flush has moved batches to segments.
    pub flushed: Notify,
    offline: AtomicBool,
    offline_reason: Mutex<Option<String>>,
    offline_seen: watch::Sender<bool>,
}

/// The parts of a [`Node`] that its maker provides.
pub struct NodeParts {
    /// See [`Node::broker_id`].
    pub broker_id: BrokerId,
    /// See [`Node::directory_id`].
    pub directory_id: DirectoryId,
    /// See [`Node::log_dir`].
    pub log_dir: PathBuf,
    /// See [`Node::disk`].
    pub disk: Arc<dyn Disk>,
    /// See [`Node::access`].
    pub access: Arc<FileAccess>,
    /// See [`Node::journal`].
    pub journal: JournalQueue,
    /// See [`Node::lane_signals`].
    pub lane_signals: Vec<Arc<LaneSignal>>,
    /// See [`Node::readers`].
    pub readers: Pool,
    /// See [`Node::writers`].
    pub writers: Pool,
    /// See [`Node::settings`].
    pub settings: NodeSettings,
}

impl Node {
    /// Puts the parts together.
    pub fn new(parts: NodeParts) -> Arc<Node> {
        Arc::new(Node {
            broker_id: parts.broker_id,
            directory_id: parts.directory_id,
            log_dir: parts.log_dir,
            clock: Clock,
            disk: parts.disk,
            access: parts.access,
            journal: parts.journal,
            lane_signals: parts.lane_signals,
            readers: parts.readers,
            writers: parts.writers,
            settings: parts.settings,
            unflushed_bytes: AtomicU64::new(0),
            flushed: Notify::new(),
            offline: AtomicBool::new(false),
            offline_reason: Mutex::new(None),
            offline_seen: watch::Sender::new(false),
        })
    }

    /// The directory failed (rule 8): nothing is acknowledged, appended or served from it any more.
    pub fn take_offline(&self, reason: &str) {
        if self.offline.swap(true, Ordering::SeqCst) {
            return;
        }
        tracing::error!("log directory {} is offline: {reason}", self.log_dir.display());
        *self.offline_reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        self.offline_seen.send_replace(true);
    }

    /// Whether the directory has failed.
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::SeqCst)
    }

    /// Why it is offline.
    pub fn offline_reason(&self) -> Option<String> {
        self.offline_reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Turns true when the directory fails.
    pub fn watch_offline(&self) -> watch::Receiver<bool> {
        self.offline_seen.subscribe()
    }

    /// Whether producers must wait until segments have caught up with the journal.
    pub fn is_under_pressure(&self) -> bool {
        self.unflushed_bytes.load(Ordering::Relaxed) as usize >= self.settings.unflushed_bytes_max
    }

    /// Whether segments should be written although little has gathered: the journal or memory is filling up.
    pub fn wants_room(&self) -> bool {
        let usage = self.journal.maintenance().usage();
        let unflushed = self.unflushed_bytes.load(Ordering::Relaxed) as usize;
        usage.bytes_live * 2 >= usage.bytes_max || unflushed * 2 >= self.settings.unflushed_bytes_max
    }

    /// Waits as long as appended batches may gather before they are written to segments.
    pub async fn until_flush(&self) {
        self.wait_unless_room_is_wanted(self.settings.flush_after).await;
    }

    /// Waits as long as written segments may gather before a checkpoint.
    pub async fn until_checkpoint(&self) {
        self.wait_unless_room_is_wanted(self.settings.checkpoint_after).await;
    }

    async fn wait_unless_room_is_wanted(&self, longest: Duration) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let until = tokio::time::Instant::now() + longest;
        while tokio::time::Instant::now() < until && !self.wants_room() {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + LOOK_EVERY)).await;
        }
    }
}
