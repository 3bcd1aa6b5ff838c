//! One partition on its lane: the log, who leads it, and what is published of it.
//!
//! This is the shell around the deciders: it hands events to [`Log`] and [`Leader`] and publishes what comes out. Single
//! threaded; no borrow is held across an await.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, TopicPartition};
use stonelog_storage::log::{EpochEnd, Log};
use tokio::sync::oneshot;

use super::abort::AbortOnPanic;
use super::acks::{Settled, WaitingAcks};
use super::changed::Changed;
use super::cleaner::Stop;
use super::directory::Directory;
use super::lane::Appended;
use super::streams::{Led, Port};
use crate::metadata::record::LossAccepted;
use crate::metadata::topic::is_internal;
use crate::partition::leader::Positions;
use crate::partition::{Leader, Reject};
use crate::progress::{Progress, Role};
use crate::replica::{Follower, forget_committed};
use crate::settings::topic::TopicConfig;

/// A partition of which this broker holds a replica.
pub struct Partition {
    id: TopicPartition,
    topic: Arc<str>,
    is_internal: bool,
    directory: Arc<Directory>,
    replica: RefCell<Replica>,
    progress: Cell<Progress>,
    changed: Changed,
    acks: RefCell<WaitingAcks>,
    /// Whether events came since the last publication.
    pub(super) touched: Cell<bool>,
    /// Whether it is queued for a flush to segments.
    pub(super) dirty: Cell<bool>,
    /// Whether a flush to its segments is on its way: until it is back its files stay.
    pub(super) flushing: Cell<bool>,
    /// Stops the compaction that is on its way, if one is.
    pub(super) compacting: RefCell<Option<Stop>>,
    /// Whether its checkpoint state moved since the last checkpoint.
    pub(super) uncheckpointed: Cell<bool>,
    /// Whether somebody looks at one of its segments for damage.
    pub(super) surveying: Cell<bool>,
    /// Whether a cut into its segments is being prepared.
    pub(super) cutting: Cell<bool>,
    /// It is to lead, and a cut of its log is not durable yet.
    pub(super) deferred: Cell<bool>,
    /// Published when a follower has reported, when the own log's start is durable, and when it leads no more or anew.
    pub(super) reported: Changed,
    /// The log start that was durable at the last publication.
    deleted_to: Cell<Offset>,
}

/// A [`Replica`] being changed: a panic meanwhile ends the process, since nobody could tell what half was done.
pub struct ReplicaMut<'a> {
    replica: RefMut<'a, Replica>,
    _guard: AbortOnPanic,
}

/// The parts that change.
pub struct Replica {
    /// The log.
    pub log: Log,
    /// Set while this broker leads.
    pub leader: Option<Leader>,
    /// Set while it follows; boxed, since it is large and most of a lone broker's replicas lead.
    pub follower: Option<Box<Follower>>,
    /// End of what is known to be committed, by whoever led so far, before this start too. Never goes back on a strict
    /// topic, unless a loss is accepted.
    pub high_watermark: Offset,
    /// While it leads: the streams of its followers.
    pub(super) streams: BTreeMap<BrokerId, Led>,
    /// The newest number that followers are asked to repeat, and the newest that any was told.
    pub(super) probe: u64,
    pub(super) probe_said: u64,
    /// While it follows: the connection of its stream.
    pub(super) port: Option<Rc<Port>>,
    /// The topic's effective configuration.
    pub config: Rc<TopicConfig>,
    /// What it is doing.
    pub role: Role,
    /// The newest leader epoch in the metadata.
    pub leader_epoch: LeaderEpoch,
    /// Whether it is in the committed in-sync set, by the metadata.
    pub is_in_sync: bool,
}

impl Partition {
    /// A replica that neither leads nor follows yet.
    pub fn new(
        id: TopicPartition,
        topic: Arc<str>,
        directory: Arc<Directory>,
        log: Log,
        config: Rc<TopicConfig>,
    ) -> Rc<Partition> {
        let replica = Replica {
            leader: None,
            follower: None,
            high_watermark: log.high_watermark(),
            streams: BTreeMap::new(),
            probe: 0,
            probe_said: 0,
            port: None,
            log,
            config,
            role: Role::Follower,
            leader_epoch: LeaderEpoch::NONE,
            is_in_sync: false,
        };
        let progress = replica.progress(id);
        let deleted_to = replica.log.durable_log_start();
        Rc::new(Partition {
            id,
            is_internal: is_internal(&topic),
            topic,
            directory,
            replica: RefCell::new(replica),
            progress: Cell::new(progress),
            changed: Changed::default(),
            acks: RefCell::default(),
            touched: Cell::new(false),
            dirty: Cell::new(false),
            flushing: Cell::new(false),
            compacting: RefCell::new(None),
            uncheckpointed: Cell::new(false),
            surveying: Cell::new(false),
            cutting: Cell::new(false),
            deferred: Cell::new(false),
            reported: Changed::default(),
            deleted_to: Cell::new(deleted_to),
        })
    }

    /// Which log this is.
    pub fn id(&self) -> TopicPartition {
        self.id
    }

    /// The topic's name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Whether its topic is one of the cluster's own.
    pub fn is_internal(&self) -> bool {
        self.is_internal
    }

    /// The log directory it lies in.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Whether the cleaner is at work on it.
    pub fn is_compacting(&self) -> bool {
        self.compacting.borrow().is_some()
    }

    /// What was published last.
    pub fn progress(&self) -> Progress {
        self.progress.get()
    }

    /// Counts publications; waiters compare it.
    pub fn changed(&self) -> &Changed {
        &self.changed
    }

    /// The parts that change, for reading.
    pub fn replica(&self) -> Ref<'_, Replica> {
        self.replica.borrow()
    }

    /// The parts that change. Call [`Partition::publish`] afterwards.
    pub fn replica_mut(&self) -> ReplicaMut<'_> {
        let guard = AbortOnPanic { what: "a change of a partition" };
        ReplicaMut { replica: self.replica.borrow_mut(), _guard: guard }
    }

    /// Feeds the log's positions to the leader, publishes what changed, and lets streams say it.
    pub fn publish(&self) {
        let (progress, deleted_to) = {
            let mut replica = self.replica_mut();
            let replica = &mut *replica;
            let own = Positions { written: replica.log.written(), durable: replica.log.durable() };
            if let Some(leader) = &mut replica.leader {
                leader.on_own_positions(own);
                replica.high_watermark = leader.high_watermark();
                replica.mark_streams(self.id);
            }
            if let Some(follower) = &replica.follower {
                replica.high_watermark = follower.high_watermark();
                if let Some(port) = replica.port.as_ref().filter(|_| follower.may_speak()) {
                    port.mark(self.id);
                }
            }
            if replica.log.set_high_watermark(replica.high_watermark, replica.leader_epoch)
                && !self.uncheckpointed.replace(true)
            {
                // The next start is to know it, also if nothing more comes.
                self.directory.flushed.notify_one();
            }
            (replica.progress(self.id), replica.log.durable_log_start())
        };
        self.touched.set(false);
        let before = self.progress.replace(progress);
        if before != progress {
            self.acks.borrow_mut().settle(&before, &progress);
            self.changed.publish();
        }
        let is_deleted = self.deleted_to.replace(deleted_to) != deleted_to;
        if is_deleted || (before.role, before.leader_epoch) != (progress.role, progress.leader_epoch) {
            self.reported.publish();
        }
    }

    /// Tells what becomes of an append, as soon as that can be said.
    pub(super) fn tell_when_settled(&self, appended: Appended, told: oneshot::Sender<Settled>) {
        self.acks.borrow_mut().wait(appended, told, &self.progress.get());
    }
}

impl Deref for ReplicaMut<'_> {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl DerefMut for ReplicaMut<'_> {
    fn deref_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }
}

impl Replica {
    /// Where a reader's history parts from ours: set when the epoch of its last record ended here before its offset
    /// (`Partition.readRecords`, KIP-595). An epoch of which nothing is known here is out of range.
    pub fn diverging(
        &self,
        last_fetched_epoch: LeaderEpoch,
        fetch_offset: Offset,
    ) -> Result<Option<(LeaderEpoch, Offset)>, Reject> {
        if last_fetched_epoch == LeaderEpoch::NONE {
            return Ok(None);
        }
        let known = match self.log.end_offset_for_epoch(last_fetched_epoch) {
            Ok(known) => known,
            // The epoch ended in the hole or behind it, in any case not before the reader's offset.
            Err(hole) if fetch_offset <= hole.start => return Ok(None),
            Err(_) => return Err(Reject::Damaged),
        };
        if known == EpochEnd::UNKNOWN {
            return Err(Reject::OffsetOutOfRange);
        }
        let diverges = known.epoch < last_fetched_epoch || known.end < fetch_offset;
        Ok(diverges.then_some((known.epoch, known.end)))
    }

    /// What the metadata says was lost and accepted last: see [`forget_committed`]. Comes before the leader epoch of the
    /// same image, for what is known in that epoch counts again.
    pub(super) fn on_loss_accepted(&mut self, loss: Option<&LossAccepted>, me: BrokerId) {
        if forget_committed(&mut self.log, loss, me) {
            self.high_watermark = self.log.log_start();
            if let Some(follower) = &mut self.follower {
                follower.on_loss_accepted(&self.log);
            }
        }
    }

    /// Whether this broker, leading, sends to followers out of sync no faster than its rate.
    pub(super) fn is_leader_throttled(&self, id: TopicPartition, me: BrokerId) -> bool {
        self.config.leader_throttled.contains(id.partition, me)
    }

    /// Whether this broker, out of sync, fetches no faster than its rate.
    pub(super) fn is_follower_throttled(&self, id: TopicPartition, me: BrokerId) -> bool {
        self.config.follower_throttled.contains(id.partition, me)
    }

    /// Whether consumers may read here although it does not lead.
    pub fn serves_as_follower(&self) -> bool {
        let follower = self.follower.as_ref().filter(|_| self.role == Role::Follower);
        follower.is_some_and(|follower| follower.may_serve(&self.log, self.is_in_sync))
    }

    /// Where the epoch this broker leads in began.
    pub fn epoch_start(&self) -> Option<Offset> {
        let latest = self.log.epochs().latest()?;
        (latest.epoch == self.leader_epoch).then_some(latest.start)
    }

    fn progress(&self, partition: TopicPartition) -> Progress {
        let high_watermark = self.high_watermark.max(self.log.log_start()).min(self.log.log_end());
        let leadership = self.leader.as_ref().map(Leader::leadership);
        Progress {
            partition,
            generation: self.log.key().generation,
            role: self.role,
            leader_epoch: self.leader_epoch,
            log_start_offset: self.log.log_start(),
            written: self.log.written(),
            durable: self.log.durable(),
            log_end_offset: self.log.log_end(),
            high_watermark,
            last_stable_offset: high_watermark,
            isr_size: leadership.map_or(0, |leadership| leadership.isr_size()),
            min_isr: leadership.map_or(1, |leadership| leadership.min_isr),
            strict: self.config.is_strict(),
            serves_as_follower: self.serves_as_follower(),
        }
    }
}
