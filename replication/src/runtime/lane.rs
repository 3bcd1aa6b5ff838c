//! One lane: a thread that owns connections and partitions.
//!
//! The produce walk passes through here: [`Lane::append`] plans the append on the partition's log and queues its journal
//! entry; at the end of the lane's turn everything queued goes to the journal at once; its events come back, move the
//! logs, and each partition touched publishes its progress once.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{LeaderEpoch, Offset, Timestamp, TopicId, TopicPartition};
use stonelog_storage::journal::{Change, JournalEntry};
use stonelog_storage::log::{CommitSpan, FIRST_TICKET};
use stonelog_storage::{Fault, ReplicaKey};
use tokio::sync::oneshot;

use super::acks::Settled;
use super::changed::Changed;
use super::directory::Directory;
use super::journal::{JournalEvent, Submission};
use super::lanes::{Lanes, spawn_here, spawn_vital};
use super::node::Node;
use super::partition::Partition;
use super::streams::LaneStreams;
use crate::metadata::image::MetadataImage;
use crate::partition::{Acks, Receipt, Reject};
use crate::progress::{Progress, Role};
use crate::settings::topic::TopicConfig;

/// A thread's share of the broker.
pub struct Lane {
    index: usize,
    node: Arc<Node>,
    lanes: Lanes,
    pub(super) partitions: RefCell<HashMap<TopicPartition, Rc<Partition>>>,
    /// Partitions of this broker whose directory is not in use.
    pub(super) absent: RefCell<HashSet<TopicPartition>>,
    /// By the directory's place.
    journals: Vec<LaneJournal>,
    pub(super) image: RefCell<Arc<MetadataImage>>,
    pub(super) image_changed: Changed,
    /// Effective settings by topic, until they change.
    pub(super) topic_configs: RefCell<HashMap<TopicId, Rc<TopicConfig>>>,
    /// Partitions that left this broker and whose files are still there.
    pub(super) dropped: RefCell<Vec<Rc<Partition>>>,
    /// Replicas that left a directory, by its place, and whose files are to be removed from it: until they are, a new
    /// replica of the same partition would lose its files with them.
    pub(super) leaving: RefCell<HashSet<(TopicPartition, usize)>>,
    /// Published when something has moved to segments.
    pub(super) room: Changed,
    streams: LaneStreams,
}

/// A lane's end of one directory's journal.
pub(super) struct LaneJournal {
    pub(super) directory: Arc<Directory>,
    outgoing: RefCell<Outgoing>,
    in_flight: RefCell<InFlight>,
    /// Partitions of the directory that may have something for their segments.
    pub(super) dirty: RefCell<Vec<Rc<Partition>>>,
    pub(super) dirty_changed: Changed,
}

/// Entries of the present turn.
struct Outgoing {
    entries: Vec<JournalEntry>,
    next_ticket: u64,
    hurry_written: bool,
    scheduled: bool,
}

impl Default for Outgoing {
    fn default() -> Outgoing {
        Outgoing { entries: Vec::new(), next_ticket: FIRST_TICKET + 1, hurry_written: false, scheduled: false }
    }
}

/// Entries that the journal has and that are not durable yet, in ticket order.
#[derive(Default)]
struct InFlight {
    entries: VecDeque<Waiting>,
    /// How many of them, from the front, are known to be written.
    written: usize,
}

struct Waiting {
    ticket: u64,
    replica: ReplicaKey,
    partition: Rc<Partition>,
    durable: Option<oneshot::Sender<()>>,
}

/// A successful append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// What the acknowledgement waits for.
    pub receipt: Receipt,
    /// Offset of the first record.
    pub base_offset: Offset,
    /// The stamp when the topic uses LogAppendTime, else [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// The log start offset at the append.
    pub log_start_offset: Offset,
}

/// One batch to append, already validated.
pub struct Append {
    /// Where to.
    pub partition: TopicPartition,
    /// Exactly one batch.
    pub batch: BytesMut,
    /// Its header.
    pub header: BatchHeader,
    /// What to wait for.
    pub acks: Acks,
}

impl Lane {
    pub(super) fn new(index: usize, node: Arc<Node>, lanes: Lanes) -> Rc<Lane> {
        let journal = |directory: &Arc<Directory>| LaneJournal {
            directory: Arc::clone(directory),
            outgoing: RefCell::default(),
            in_flight: RefCell::default(),
            dirty: RefCell::default(),
            dirty_changed: Changed::default(),
        };
        Rc::new(Lane {
            index,
            journals: node.directories.iter().map(journal).collect(),
            node,
            lanes,
            partitions: RefCell::default(),
            absent: RefCell::default(),
            image: RefCell::new(Arc::default()),
            image_changed: Changed::default(),
            topic_configs: RefCell::default(),
            dropped: RefCell::default(),
            leaving: RefCell::default(),
            room: Changed::default(),
            streams: LaneStreams::default(),
        })
    }

    pub(super) fn start_tasks(self: &Rc<Self>) {
        for place in 0..self.journals.len() {
            spawn_vital("a lane's journal events", Rc::clone(self).follow_journal(place));
            spawn_vital("a lane's flushes", Rc::clone(self).flush_segments(place));
        }
        spawn_vital("a lane's retention", Rc::clone(self).check_retention());
    }

    /// Which lane this is.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What all lanes share.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// This lane's end of a directory's journal.
    pub(super) fn journal(&self, place: usize) -> &LaneJournal {
        &self.journals[place]
    }

    /// All lanes.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Streams to and from other brokers.
    pub(super) fn streams(&self) -> &LaneStreams {
        &self.streams
    }

    /// The newest metadata this lane has applied.
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.image.borrow())
    }

    /// The partition, if this lane owns a replica of it.
    pub fn partition(&self, id: TopicPartition) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(&id).cloned()
    }

    /// Whether any partition of this lane is such a one.
    pub(super) fn any_partition(&self, is_such: impl Fn(&Partition) -> bool) -> bool {
        self.partitions.borrow().values().any(|partition| is_such(partition))
    }

    /// Every partition of this lane.
    pub fn partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    pub(super) fn insert_partition(&self, partition: Rc<Partition>) {
        self.partitions.borrow_mut().insert(partition.id(), partition);
    }

    pub(super) fn remove_partition(&self, id: TopicPartition) -> Option<Rc<Partition>> {
        self.partitions.borrow_mut().remove(&id)
    }

    /// The partition, if this broker leads it in an epoch the request accepts.
    ///
    /// `current_leader_epoch` is what the client believes; [`LeaderEpoch::NONE`] is not checked
    /// (`Partition.checkCurrentLeaderEpoch`).
    pub fn leading(&self, id: TopicPartition, current_leader_epoch: LeaderEpoch) -> Result<Rc<Partition>, Reject> {
        let partition = self.held(id)?;
        crate::partition::leader::check_epoch(&partition.progress(), current_leader_epoch)?;
        Ok(partition)
    }

    /// The partition, if a replica of it is here and its directory is in use.
    pub(super) fn held(&self, id: TopicPartition) -> Result<Rc<Partition>, Reject> {
        let Some(partition) = self.partition(id) else {
            return Err(match self.image.borrow().partition(id) {
                _ if self.absent.borrow().contains(&id) => Reject::Offline,
                // It is somewhere else (`ReplicaManager.getPartitionOrError`).
                Some(registration) => Reject::NotLeader(registration.leader_epoch),
                None => Reject::UnknownPartition,
            });
        };
        if partition.directory().is_offline() || partition.progress().role == Role::Offline {
            return Err(Reject::Offline);
        }
        Ok(partition)
    }

    /// Plans an append and queues its journal entry. Nothing has been written when this returns.
    pub fn append(self: &Rc<Self>, append: Append) -> Result<Appended, Reject> {
        let partition = self.leading(append.partition, LeaderEpoch::NONE)?;
        if !partition.directory().admits(partition.is_internal()) {
            return Err(Reject::NoSpace);
        }
        if partition.directory().is_stuck() {
            return Err(Reject::Hangs);
        }
        let now = self.node.clock.wall();
        let ticket = self.next_ticket(partition.directory());
        let mut replica = partition.replica_mut();
        let replica = &mut *replica;
        let leader = replica.leader.as_ref().ok_or(Reject::NotLeader(replica.leader_epoch))?;
        let strict = replica.config.is_strict();
        if (append.acks == Acks::All || (strict && append.acks == Acks::Leader)) && !leader.has_enough_replicas() {
            return Err(Reject::NotEnoughReplicas);
        }
        if append.batch.len() as u64 > self.node.settings.entry_bytes_max {
            return Err(Reject::AboveJournalFile);
        }
        let leader_epoch = leader.leadership().leader_epoch;
        let done = replica
            .log
            .append_as_leader(append.batch, &append.header, leader_epoch, now, ticket)
            .map_err(Reject::Append)?;
        let receipt = Receipt {
            partition: append.partition,
            generation: replica.log.key().generation,
            leader_epoch,
            end: done.last_offset.next(),
            acks: append.acks,
        };
        if let Some(entry) = done.entry {
            self.enqueue(&partition, entry, !strict, None);
            // Followers get it while the journal here is still busy with it.
            replica.mark_streams(append.partition);
        }
        Ok(Appended {
            receipt,
            base_offset: done.base_offset,
            log_append_time: done.log_append_time,
            log_start_offset: done.log_start,
        })
    }

    /// Appends, and tells what becomes of it: at once that it is refused or that nothing was asked for, else when it is
    /// acknowledged or cannot be any more. Who has waited long enough stops listening; the records stay in the log.
    pub fn append_telling(self: &Rc<Self>, append: Append, told: oneshot::Sender<Settled>) {
        match self.append(append) {
            Err(reject) => drop(told.send(Err(reject))),
            Ok(appended) => self.tell_when_settled(appended, told),
        }
    }

    fn tell_when_settled(&self, appended: Appended, told: oneshot::Sender<Settled>) {
        if appended.receipt.acks == Acks::None {
            let _ = told.send(Ok((appended, Ok(()))));
            return;
        }
        match self.partition(appended.receipt.partition) {
            Some(partition) => partition.tell_when_settled(appended, told),
            None => drop(told.send(Ok((appended, Err(ErrorCode::NotLeaderOrFollower))))),
        }
    }

    /// Waits until the append is acknowledged; at the deadline REQUEST_TIMED_OUT (the records stay in the log).
    pub async fn acknowledged(self: Rc<Self>, appended: Appended, deadline: Instant) -> Result<(), ErrorCode> {
        let (told, settled) = oneshot::channel();
        self.tell_when_settled(appended, told);
        match tokio::time::timeout_at(deadline.into(), settled).await {
            Ok(Ok(Ok((_, result)))) => result,
            Ok(Ok(Err(reject))) => Err(reject.error_code()),
            Ok(Err(_)) | Err(_) => Err(ErrorCode::RequestTimedOut),
        }
    }

    /// Queues a change made outside an append; the receiver resolves once it is durable.
    pub fn enqueue_change(self: &Rc<Self>, partition: &Rc<Partition>, entry: JournalEntry) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(partition, entry, false, Some(sender));
        receiver
    }

    /// The ticket that the next queued entry of a directory gets.
    pub(super) fn next_ticket(&self, directory: &Directory) -> u64 {
        self.journals[directory.place].outgoing.borrow().next_ticket
    }

    pub(super) fn enqueue(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        entry: JournalEntry,
        hurry_written: bool,
        durable: Option<oneshot::Sender<()>>,
    ) {
        let place = partition.directory().place;
        let journal = &self.journals[place];
        let mut outgoing = journal.outgoing.borrow_mut();
        let ticket = outgoing.next_ticket;
        outgoing.next_ticket += 1;
        if journal.directory.is_offline() {
            // It goes nowhere, and its ticket is the log's all the same.
            return;
        }
        outgoing.hurry_written |= hurry_written;
        if let Change::Append { batches, .. } = &entry.change {
            journal.directory.unflushed_bytes.fetch_add(batches.len() as u64, Ordering::Relaxed);
        }
        journal.in_flight.borrow_mut().entries.push_back(Waiting {
            ticket,
            replica: entry.replica,
            partition: Rc::clone(partition),
            durable,
        });
        outgoing.entries.push(entry);
        if !outgoing.scheduled {
            outgoing.scheduled = true;
            let lane = Rc::clone(self);
            // Runs after the tasks that are ready now: everything this turn appends goes out together.
            spawn_here(async move { lane.journals[place].submit(lane.index) });
        }
        drop(outgoing);
        partition.uncheckpointed.set(true);
        self.mark_dirty(partition);
    }

    /// Queues the partition for a look at what can go to segments.
    pub(super) fn mark_dirty(&self, partition: &Rc<Partition>) {
        if !partition.dirty.replace(true) {
            let journal = &self.journals[partition.directory().place];
            journal.dirty.borrow_mut().push(Rc::clone(partition));
            journal.dirty_changed.publish();
        }
    }

    pub(super) fn forget_topic_config(&self, topic: TopicId) {
        self.topic_configs.borrow_mut().remove(&topic);
    }

    pub(super) fn forget_topic_configs(&self) {
        self.topic_configs.borrow_mut().clear();
    }

    /// Takes a journal's events and publishes every partition they touch, once.
    async fn follow_journal(self: Rc<Self>, place: usize) {
        let signal = Arc::clone(&self.journals[place].directory.lane_signals[self.index]);
        let mut events = Vec::new();
        let mut touched: Vec<Rc<Partition>> = Vec::new();
        loop {
            signal.take(&mut events).await;
            self.on_events(place, &mut events, &mut touched);
        }
    }

    /// Hears now what a directory's journal has left for this lane.
    pub(super) fn hear_journal(self: &Rc<Self>, place: usize) {
        let mut events = Vec::new();
        self.journals[place].directory.lane_signals[self.index].take_now(&mut events);
        self.on_events(place, &mut events, &mut Vec::new());
    }

    fn on_events(self: &Rc<Self>, place: usize, events: &mut Vec<JournalEvent>, touched: &mut Vec<Rc<Partition>>) {
        let journal = &self.journals[place];
        for event in events.drain(..) {
            match event {
                JournalEvent::Written { last_ticket, span } => journal.on_written(last_ticket, span, touched),
                JournalEvent::Durable { last_ticket } => journal.on_durable(last_ticket, touched),
                JournalEvent::Failed(fault) => self.on_failed(place, &fault),
            }
        }
        self.publish_all(touched);
    }

    /// Publishes each partition that events touched, once, and goes on with what waited for them.
    pub(super) fn publish_all(self: &Rc<Self>, touched: &mut Vec<Rc<Partition>>) {
        for partition in touched.drain(..) {
            partition.publish();
            if partition.deferred.get() && !partition.replica().log.is_changing() {
                self.reconcile_again(&partition);
            }
            let waits = partition.replica().follower.as_ref().is_some_and(|follower| follower.is_idle());
            if waits {
                self.try_open(&partition);
            }
        }
    }

    /// Notes that a partition is to be published.
    pub(super) fn touch(&self, partition: &Rc<Partition>, touched: &mut Vec<Rc<Partition>>) {
        touch(partition, touched);
    }

    /// A directory is gone for this process: whoever waits is told so.
    fn on_failed(&self, place: usize, fault: &Fault) {
        let journal = &self.journals[place];
        self.node.take_offline(&journal.directory, fault);
        journal.in_flight.borrow_mut().entries.clear();
        journal.in_flight.borrow_mut().written = 0;
        for partition in self.partitions() {
            if partition.directory().place == place {
                {
                    let mut replica = partition.replica_mut();
                    replica.role = Role::Offline;
                    replica.close_streams();
                    replica.follower = None;
                }
                partition.deferred.set(false);
                partition.publish();
            }
        }
        self.made_room();
    }

    /// Resolves when any of the partitions has published something other than what was seen.
    pub async fn any_changed(&self, seen: &[Progress]) {
        let mut partitions = Vec::with_capacity(seen.len());
        for seen in seen {
            match self.partition(seen.partition) {
                Some(partition) if !differs(&partition.progress(), seen) => partitions.push(partition),
                _ => return,
            }
        }
        let mut waits: Vec<_> =
            partitions.iter().map(|partition| partition.changed().after(partition.changed().version())).collect();
        std::future::poll_fn(|context| {
            for ((partition, wait), seen) in partitions.iter().zip(&mut waits).zip(seen) {
                while Pin::new(&mut *wait).poll(context).is_ready() {
                    if differs(&partition.progress(), seen) {
                        return Poll::Ready(());
                    }
                    *wait = partition.changed().after(partition.changed().version());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl LaneJournal {
    fn submit(&self, lane: usize) {
        let mut outgoing = self.outgoing.borrow_mut();
        outgoing.scheduled = false;
        let entries = std::mem::take(&mut outgoing.entries);
        if entries.is_empty() {
            return;
        }
        if self.directory.is_offline() {
            return;
        }
        let first_ticket = outgoing.next_ticket - entries.len() as u64;
        let hurry_written = std::mem::take(&mut outgoing.hurry_written);
        self.directory.space.on_written();
        self.directory.journal.submit(Submission { lane, first_ticket, entries, hurry_written });
    }

    fn on_written(&self, last_ticket: u64, span: CommitSpan, touched: &mut Vec<Rc<Partition>>) {
        let mut in_flight = self.in_flight.borrow_mut();
        let in_flight = &mut *in_flight;
        while let Some(entry) = in_flight.entries.get(in_flight.written)
            && entry.ticket <= last_ticket
        {
            entry.partition.replica_mut().log.on_written(entry.replica.generation, entry.ticket, span);
            touch(&entry.partition, touched);
            in_flight.written += 1;
        }
    }

    fn on_durable(&self, last_ticket: u64, touched: &mut Vec<Rc<Partition>>) {
        let mut in_flight = self.in_flight.borrow_mut();
        while let Some(entry) = in_flight.entries.pop_front_if(|entry| entry.ticket <= last_ticket) {
            assert!(in_flight.written > 0, "durable before written");
            in_flight.written -= 1;
            entry.partition.replica_mut().log.on_durable(entry.replica.generation, entry.ticket);
            touch(&entry.partition, touched);
            if let Some(durable) = entry.durable {
                let _ = durable.send(());
                // No flush follows such a change by itself, but a checkpoint must: for the journal, and for files to go.
                self.directory.flushed.notify_one();
            }
        }
    }
}

/// Whether a long poll should look again.
fn differs(now: &Progress, seen: &Progress) -> bool {
    now.high_watermark != seen.high_watermark
        || now.role != seen.role
        || now.leader_epoch != seen.leader_epoch
        || now.log_start_offset != seen.log_start_offset
        || now.generation != seen.generation
        || now.serves_as_follower != seen.serves_as_follower
}

fn touch(partition: &Rc<Partition>, touched: &mut Vec<Rc<Partition>>) {
    if !partition.touched.replace(true) {
        touched.push(Rc::clone(partition));
    }
}
