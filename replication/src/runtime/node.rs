//! What all lanes of a broker share: identity, clock, settings, and its log directories.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId};
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::log_dir;
use stonelog_storage::scrub::ScrubPace;
use tokio::sync::watch;

use super::clock::Clock;
use super::directory::{AbsentDirectory, Directory, Failures};
use super::throttles::Throttles;

/// How long a stop waits for the marker of a failed directory.
const MARKER_WAIT_MAX: Duration = Duration::from_secs(5);

/// Settings of the data plane that are fixed while the broker runs.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Static values of broker keys, from which topic defaults come.
    pub broker_defaults: BTreeMap<String, String>,
    /// Memory for recent batches, over all lanes.
    pub tail_bytes_max: usize,
    /// Bytes of unflushed batches of one directory, over all lanes, past which producers wait.
    pub unflushed_bytes_max: usize,
    /// `replica.lag.time.max.ms`: for a write or sync that takes longer the directory counts as hanging.
    pub hangs_after: Duration,
    /// Free bytes of a directory below which producers are refused.
    pub free_bytes_min: u64,
    /// The largest batch: one that a journal file can hold.
    pub entry_bytes_max: u64,
    /// How long appended batches wait to be merged before they are written to segments.
    pub flush_after: Duration,
    /// A lane to which nothing has been appended for this long lets go of batches that are in segments.
    pub rest_after: Duration,
    /// How often segments written since are made durable and the journal freed.
    pub checkpoint_after: Duration,
    /// How often retention is looked at.
    pub retention_check_every: Duration,
    /// Producers without a batch for this long are forgotten.
    pub producer_id_expiration: Duration,
    /// How the scrub reads; `None` for no scrub.
    pub scrub: Option<ScrubPace>,
}

/// What all lanes share.
pub struct Node {
    /// This broker.
    pub broker_id: BrokerId,
    /// This incarnation.
    pub broker_epoch: BrokerEpoch,
    /// Clocks.
    pub clock: Clock,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The log directories in use, those that have failed since included.
    pub directories: Vec<Arc<Directory>>,
    /// Configured directories that this start could not use.
    pub absent: Vec<AbsentDirectory>,
    /// Fixed settings.
    pub settings: NodeSettings,
    /// How many lanes there are.
    pub lane_count: usize,
    /// What it may send and fetch for replicas that are not in sync.
    pub throttles: Throttles,
    failures: Failures,
    /// By the registration with this epoch, or by none: see [`Node::on_forgotten`].
    superseded: OnceLock<Option<BrokerEpoch>>,
    /// Markers of failed directories that are being written.
    markers: Mutex<Vec<Receiver<()>>>,
}

/// The parts of a [`Node`] that its maker provides.
pub struct NodeParts {
    /// See [`Node::broker_id`].
    pub broker_id: BrokerId,
    /// See [`Node::broker_epoch`].
    pub broker_epoch: BrokerEpoch,
    /// See [`Node::disk`].
    pub disk: Arc<dyn Disk>,
    /// See [`Node::directories`].
    pub directories: Vec<Arc<Directory>>,
    /// See [`Node::absent`].
    pub absent: Vec<AbsentDirectory>,
    /// See [`Node::settings`].
    pub settings: NodeSettings,
    /// See [`Node::lane_count`].
    pub lane_count: usize,
}

impl Node {
    /// Puts the parts together.
    pub fn new(parts: NodeParts) -> Arc<Node> {
        Arc::new(Node {
            broker_id: parts.broker_id,
            broker_epoch: parts.broker_epoch,
            clock: Clock,
            disk: parts.disk,
            directories: parts.directories,
            absent: parts.absent,
            settings: parts.settings,
            lane_count: parts.lane_count,
            throttles: Throttles::unlimited(Clock.mono()),
            failures: Failures::default(),
            superseded: OnceLock::new(),
            markers: Mutex::default(),
        })
    }

    /// The directory of that identity, if it is in use or was since the start.
    pub fn directory(&self, id: DirectoryId) -> Option<&Arc<Directory>> {
        self.directories.iter().find(|directory| directory.id == id)
    }

    /// A directory failed (rule 8): nothing is acknowledged, appended or served from it any more. The first failure
    /// counts; every lane hears of it through its signal.
    pub fn take_offline(&self, directory: &Directory, fault: &Fault) {
        if !directory.health.fail(&fault.to_string()) {
            return;
        }
        tracing::error!("log directory {} is offline: {fault}", directory.path.display());
        directory.journal.fail(fault.repeat());
        self.failures.add();
        self.mark(directory, &fault.to_string());
    }

    /// Another process has registered this broker with a later epoch: whatever this one does from here on is refused.
    pub fn on_superseded(&self, by: BrokerEpoch) {
        if self.superseded.set(Some(by)).is_ok() {
            tracing::error!("another process has registered broker {} with epoch {by}", self.broker_id);
            self.failures.add();
        }
    }

    /// The broker's registration was removed, while nobody heard it: only a start makes another.
    pub fn on_forgotten(&self) {
        if self.superseded.set(None).is_ok() {
            tracing::error!("broker {} is not registered any more", self.broker_id);
            self.failures.add();
        }
    }

    /// Leaves markers that keep the directory out of use after a restart too. On a thread of its own: the device may
    /// take any time.
    fn mark(&self, failed: &Directory, reason: &str) {
        let neighbours: Vec<_> = self.online().map(Arc::clone).collect();
        let (disk, path, id, reason) = (Arc::clone(&self.disk), failed.path.clone(), failed.id, reason.to_owned());
        let epoch = failed.failure_epoch;
        let (sender, written) = channel();
        let write = move || {
            let mut marked = neighbours
                .iter()
                .filter(|at| log_dir::mark_peer_offline(&*disk, &at.path, id, epoch, &reason).is_ok())
                .count();
            match log_dir::mark_offline(&*disk, &path, &reason) {
                Ok(()) => marked += 1,
                Err(fault) => {
                    tracing::error!("{} does not take the marker that it is offline: {fault}", path.display())
                }
            }
            if marked == 0 {
                tracing::error!(
                    "nothing will keep {} from being used again: have its device checked before the next start",
                    path.display()
                );
            }
            let _ = sender.send(());
        };
        match std::thread::Builder::new().name("offline-marker".into()).spawn(write) {
            Ok(_) => self.markers.lock().unwrap_or_else(PoisonError::into_inner).push(written),
            Err(error) => tracing::error!("no thread to mark {} as offline: {error}", failed.path.display()),
        }
    }

    /// Waits until markers are written, but not for ever.
    pub(super) fn wait_for_markers(&self) {
        for written in self.markers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = written.recv_timeout(MARKER_WAIT_MAX);
        }
    }

    /// Why the broker cannot go on: its last directory, or the one with the metadata log, has failed, or another process
    /// has taken its place.
    pub fn must_stop(&self) -> Option<String> {
        match self.superseded.get() {
            Some(Some(by)) => {
                return Some(format!(
                    "another process has registered broker {} (with epoch {by}; this one's is {}): two processes have \
                     the same node.id",
                    self.broker_id, self.broker_epoch
                ));
            }
            Some(None) => {
                return Some(format!(
                    "broker {} was unregistered (its registration's epoch was {}): start it to have it registered anew",
                    self.broker_id, self.broker_epoch
                ));
            }
            None => {}
        }
        let failed = |directory: &Directory| {
            let reason = directory.health.reason()?;
            Some(format!("{}: {reason}", directory.path.display()))
        };
        if let Some(directory) = self.directories.iter().find(|directory| directory.holds_metadata)
            && self.directories.iter().any(|directory| !directory.is_offline())
        {
            return failed(directory)
                .map(|failed| format!("the log directory with the metadata log has failed, {failed}"));
        }
        let all: Option<Vec<String>> = self.directories.iter().map(|directory| failed(directory)).collect();
        all.map(|all| format!("the last log directory has failed, {}", all.join("; ")))
    }

    /// Changes whenever a directory fails, or another process takes this one's place.
    pub fn watch_failures(&self) -> watch::Receiver<usize> {
        self.failures.watch()
    }

    /// The directories that work.
    pub fn online(&self) -> impl Iterator<Item = &Arc<Directory>> {
        self.directories.iter().filter(|directory| !directory.is_offline())
    }
}
