//! One log directory of a running broker: its journal, its files, its threads, and whether it still works.
//!
//! Directories share nothing: each has its own journal with its own threads, its own pools for jobs and its own
//! checkpoints, so that one that fails, fills up or hangs leaves the others as they are. A partition belongs to one directory for as long as it is on this broker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, DirectoryId};
use stonelog_storage::disk::Disk;
use stonelog_storage::job::FileAccess;
use stonelog_storage::journal::JournalPosition;
use tokio::sync::{Notify, watch};

use super::clock::Clock;
use super::journal::{JournalQueue, LaneSignal};
use super::pool::Pool;
use super::scrubber::ScrubCounters;
use super::space::{Room, Space};

/// While room is wanted, the newest part of the journal that still gathers: the limit over this. Less than what makes
/// room wanted, so that there is always something to write.
const GATHERING_SHARE: u64 = 8;

/// Beyond the bytes past which producers wait there is this share of them for internal topics.
const INTERNAL_SHARE: usize = 4;

/// A log directory in use, or that was until it failed.
pub struct Directory {
    /// Its place in [`super::node::Node::directories`].
    pub place: usize,
    /// Its identity.
    pub id: DirectoryId,
    /// Where it lies.
    pub path: PathBuf,
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// Segment files, and the journal for batches that are not in one yet.
    pub access: Arc<FileAccess>,
    /// The way into its journal.
    pub journal: JournalQueue,
    /// Where its journal leaves word for each lane.
    pub lane_signals: Vec<Arc<LaneSignal>>,
    /// Threads for reads that would block.
    pub readers: Pool,
    /// Threads for segment writes and checkpoints.
    pub writers: Pool,
    /// The scrub's thread: a device that takes long over a bad block holds up nobody else.
    pub scrubbers: Pool,
    /// What the scrub has done.
    pub scrub: ScrubCounters,
    /// The thread that compacts.
    pub cleaner: Pool,
    /// This start's recovery epoch, of which new logs' generations are made.
    pub recovery_epoch: u32,
    /// The epoch of markers about it, should it fail.
    pub failure_epoch: BrokerEpoch,
    /// Whether it proved whole, so that a replica it does not hold was never written.
    pub is_whole: bool,
    /// Whether the metadata quorum's log lies in it: then the broker cannot go on without it.
    pub holds_metadata: bool,
    /// Bytes of unflushed batches past which producers wait.
    pub unflushed_bytes_max: usize,
    /// `replica.lag.time.max.ms`: an operation of its device under way for longer hangs.
    pub hangs_after: Duration,
    /// What it has room for.
    pub space: Arc<Space>,
    /// Bytes that the journal holds and segments do not, over all lanes.
    pub unflushed_bytes: AtomicU64,
    /// Notified when a flush has moved batches to segments.
    pub flushed: Notify,
    /// The position up to which removed journal files are still needed; 0 when there are none.
    removed_journal: AtomicU64,
    /// Whether it works.
    pub health: Health,
    stopping: AtomicBool,
}

/// The parts of a [`Directory`] that its maker provides; see there.
#[allow(missing_docs, reason = "the fields are those of Directory")]
pub struct DirectoryParts {
    pub place: usize,
    pub id: DirectoryId,
    pub path: PathBuf,
    pub disk: Arc<dyn Disk>,
    pub access: Arc<FileAccess>,
    pub journal: JournalQueue,
    pub lane_signals: Vec<Arc<LaneSignal>>,
    pub readers: Pool,
    pub writers: Pool,
    pub scrubbers: Pool,
    pub cleaner: Pool,
    pub recovery_epoch: u32,
    pub failure_epoch: BrokerEpoch,
    pub is_whole: bool,
    pub holds_metadata: bool,
    pub unflushed_bytes_max: usize,
    pub hangs_after: Duration,
    pub space: Arc<Space>,
}

/// A configured directory that this start could not use: what it holds is absent, not gone (rule 12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsentDirectory {
    /// Where it should be.
    pub path: PathBuf,
    /// Its identity, when that could be read.
    pub id: Option<DirectoryId>,
    /// Why it is not in use, and what to do.
    pub reason: String,
}

/// Whether a directory works; it goes offline once and for the life of the process (rule 8).
#[derive(Default)]
pub struct Health {
    offline: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Health {
    /// Notes the failure; whether it is the first.
    pub(super) fn fail(&self, reason: &str) -> bool {
        let mut first = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() {
            return false;
        }
        *first = Some(reason.to_owned());
        self.offline.store(true, Ordering::SeqCst);
        true
    }

    /// Why it is offline.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Directory {
    /// Puts the parts together.
    pub fn new(parts: DirectoryParts) -> Directory {
        Directory {
            place: parts.place,
            id: parts.id,
            path: parts.path,
            disk: parts.disk,
            access: parts.access,
            journal: parts.journal,
            lane_signals: parts.lane_signals,
            readers: parts.readers,
            writers: parts.writers,
            scrubbers: parts.scrubbers,
            scrub: ScrubCounters::default(),
            cleaner: parts.cleaner,
            recovery_epoch: parts.recovery_epoch,
            failure_epoch: parts.failure_epoch,
            is_whole: parts.is_whole,
            holds_metadata: parts.holds_metadata,
            unflushed_bytes_max: parts.unflushed_bytes_max,
            hangs_after: parts.hangs_after,
            space: parts.space,
            unflushed_bytes: AtomicU64::new(0),
            flushed: Notify::new(),
            removed_journal: AtomicU64::new(0),
            health: Health::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Whether it has failed.
    pub fn is_offline(&self) -> bool {
        self.health.offline.load(Ordering::SeqCst)
    }

    /// Ends its threads: reads and writes that are queued are done, a compaction stops at its next step.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.cleaner.stop();
        self.readers.stop();
        self.writers.stop();
        self.scrubbers.stop();
    }

    /// Whether long jobs are to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether producers must wait until segments have caught up with the journal. Where there is no space they are
    /// refused instead: nobody knows when there will be some.
    pub fn is_under_pressure(&self) -> bool {
        !self.is_offline() && self.space.room() == Room::Ample && self.is_filled() && !self.hangs()
    }

    /// Whether nothing more fits in because the device does not answer: nobody knows whether it ever will, so producers
    /// are refused.
    pub fn is_stuck(&self) -> bool {
        self.is_filled() && self.hangs()
    }

    fn is_filled(&self) -> bool {
        self.unflushed() >= self.unflushed_bytes_max || self.space.journal_waits()
    }

    fn hangs(&self) -> bool {
        let oldest = self.space.under_way.oldest();
        oldest.is_some_and(|since| Clock.mono().duration_since(since) > self.hangs_after)
    }

    /// Whether a batch may be appended: a refusal stores nothing. Internal topics go on where producers wait or are
    /// refused, but not without bound: what segments and the journal do not take stays in memory.
    pub fn admits(&self, is_internal: bool) -> bool {
        let internal_max = self.unflushed_bytes_max + self.unflushed_bytes_max / INTERNAL_SHARE;
        self.space.admits(is_internal) && !(is_internal && self.unflushed() >= internal_max)
    }

    fn unflushed(&self) -> usize {
        self.unflushed_bytes.load(Ordering::Relaxed) as usize
    }

    /// Journal files up to `end` were removed by somebody, or `None` is. What only they hold goes to segments and into a
    /// checkpoint at once, after which they are not needed any more.
    pub(super) fn on_journal_looked_at(&self, end: Option<JournalPosition>) {
        let before = self.removed_journal.swap(end.map_or(0, |end| end.0), Ordering::Relaxed);
        match end {
            Some(end) => {
                if before < end.0 {
                    tracing::error!(
                        "journal files of {} were removed while the broker was using them: what only they held is being \
                         written to segments; nothing is lost unless the broker dies before this is said to be done",
                        self.path.display()
                    );
                }
                self.journal.want_roll();
                self.journal.want_spare();
                self.flushed.notify_one();
            }
            None if before > 0 => tracing::warn!(
                "what the removed journal files of {} held is in segments: nothing was lost",
                self.path.display()
            ),
            None => {}
        }
    }

    /// Whether removed journal files are still needed.
    pub fn lacks_journal_files(&self) -> bool {
        self.removed_journal.load(Ordering::Relaxed) > 0
    }

    /// Whether segments should be written although little has gathered: the journal or memory is filling up, or a part
    /// of the journal will not be there for the next start.
    pub fn wants_room(&self) -> bool {
        if self.lacks_journal_files() {
            return true;
        }
        let usage = self.journal.maintenance().usage();
        usage.bytes_live * 2 >= usage.bytes_max || self.unflushed() * 2 >= self.unflushed_bytes_max
    }

    /// While room is wanted: the journal before this position is to be freed soon, so what it holds goes to segments
    /// however little it is. What is newer keeps gathering, or many partitions would be written bit by bit.
    pub fn journal_unwanted(&self) -> Option<JournalPosition> {
        let kept = self.journal.maintenance().usage().bytes_max / GATHERING_SHARE;
        let old = || self.journal.reported().0.saturating_sub(kept);
        let removed = self.removed_journal.load(Ordering::Relaxed);
        self.wants_room().then(|| JournalPosition(old().max(removed)))
    }

    /// Waits so long, or until room is wanted.
    pub async fn wait_unless_room_is_wanted(&self, longest: Duration) {
        self.wait_unless(longest, || self.wants_room()).await;
    }

    /// Waits so long, or until something is so.
    pub(super) async fn wait_unless(&self, longest: Duration, is_so: impl Fn() -> bool) {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let until = tokio::time::Instant::now() + longest;
        while tokio::time::Instant::now() < until && !is_so() {
            tokio::time::sleep_until(until.min(tokio::time::Instant::now() + LOOK_EVERY)).await;
        }
    }
}

/// Publishes how many directories have failed so far.
pub(super) struct Failures(watch::Sender<usize>);

impl Default for Failures {
    fn default() -> Failures {
        Failures(watch::Sender::new(0))
    }
}

impl Failures {
    /// Failures that have happened already are news too.
    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        let mut failures = self.0.subscribe();
        if *failures.borrow() > 0 {
            failures.mark_changed();
        }
        failures
    }

    pub(super) fn add(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}
