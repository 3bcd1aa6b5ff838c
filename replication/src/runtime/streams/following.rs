//! The following end of streams on a lane: what leaders say goes to the followers, and what those want done is done.
//!
//! Nothing is decided here: [`crate::replica::Follower`] says what is appended, where a log is cut and what is reported.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::peer::stream::{StreamId, StreamMessage};
use stonelog_protocol::{BrokerId, Offset, TopicPartition};
use stonelog_storage::log::{FollowerReject, Truncation};
use stonelog_storage::segment::rebuild::RebuildJob;

use super::bytes::Gathered;
use super::wire::Port;
use crate::replica::{CreditPool, Cut, Effect, Following, Stopped};
use crate::runtime::directory::Directory;
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;
use crate::runtime::partition::{Partition, Replica};

/// What is shorter is copied out of the buffer that it was read into, which is 64 KiB at least.
const KEPT_BYTES_MIN: usize = 128 << 10;
/// Bytes of one journal entry made of what a leader pushed, unless its first batch is larger.
const ENTRY_BYTES_MAX: usize = 256 << 10;

impl Lane {
    /// What leaders may send ahead into one directory.
    pub(in crate::runtime) fn credit_in(&self, directory: &Directory) -> Rc<CreditPool> {
        let node = self.node();
        self.streams().pool(directory, node.directories.len(), node.settings.entry_bytes_max)
    }

    /// What leaders at the other end of a connection said, in order.
    pub(super) fn on_leaders(self: &Rc<Self>, port: &Rc<Port>, messages: Vec<StreamMessage>) {
        let mut touched = Vec::new();
        for message in messages {
            if message.stamps.leader != port.wire.peer {
                tracing::warn!(node = %port.wire.peer, "it speaks for node {}", message.stamps.leader);
                continue;
            }
            let Some(partition) = self.partition(message.stamps.partition) else { continue };
            self.on_leader(&partition, &message);
            self.touch(&partition, &mut touched);
        }
        self.publish_all(&mut touched);
    }

    fn on_leader(self: &Rc<Self>, partition: &Rc<Partition>, message: &StreamMessage) {
        if partition.directory().is_offline() {
            return;
        }
        let now = self.node().clock.mono();
        let (effects, following) = {
            let mut replica = partition.replica_mut();
            if replica.is_follower_throttled(partition.id(), self.node().broker_id) {
                let bytes = message.batches().iter().map(Bytes::len).sum();
                self.node().throttles.follower().record(bytes, now);
            }
            let Replica { follower: Some(follower), log, .. } = &mut *replica else { return };
            (follower.on_message(message, log, now), *follower.following())
        };
        for effect in effects {
            self.carry_out(partition, &following, effect);
        }
        let is_idle = partition.replica().follower.as_ref().is_some_and(|follower| follower.is_idle());
        self.streams().set_idle(partition.id(), is_idle);
    }

    fn carry_out(self: &Rc<Self>, partition: &Rc<Partition>, following: &Following, effect: Effect) {
        match effect {
            Effect::Append(batches) => self.append_pushed(partition, following, batches),
            Effect::AdvanceLogStart(start) => {
                let ticket = self.next_ticket(partition.directory());
                let entry = {
                    let log = &mut partition.replica_mut().log;
                    log.advance_log_start(start.min(log.log_end()), ticket)
                };
                if let Some(entry) = entry {
                    drop(self.enqueue_change(partition, entry));
                }
            }
            Effect::Cut { cut, lost } => {
                if let Some((from, to)) = lost {
                    tracing::warn!(partition = %partition.id(), topic = %partition.topic(),
                        "offsets {from} to {to} of a relaxed topic were committed, and the new leader lacks them");
                }
                if let Some(compaction) = &*partition.compacting.borrow() {
                    compaction.stop();
                }
                match cut {
                    Cut::To(to) => self.cut(partition, *following, to),
                    Cut::Reset(start) => self.reset(partition, start),
                }
            }
            Effect::Widen(cleaned_end) => self.widen_damage(partition, cleaned_end),
            Effect::Mend(plan, fetched) => self.mend(partition, *following, plan, fetched),
            Effect::Stop(why) => self.on_stopped(partition, why),
        }
    }

    fn on_stopped(&self, partition: &Partition, why: Stopped) {
        tracing::error!(partition = %partition.id(), topic = %partition.topic(),
            "this replica does not follow on, for it would lose what may be acknowledged: {why:?}");
        self.streams().set_idle(partition.id(), false);
    }

    /// Appends what a leader pushed, in entries that a journal file can hold.
    fn append_pushed(self: &Rc<Self>, partition: &Rc<Partition>, following: &Following, mut batches: Bytes) {
        let (wall, mono) = (self.node().clock.wall(), self.node().clock.mono());
        let entry_bytes_max = self.node().settings.entry_bytes_max;
        let push_bytes = batches.len();
        while !batches.is_empty() {
            let part = batches.split_to(part_len(&batches, ENTRY_BYTES_MAX.min(entry_bytes_max as usize)));
            let part = kept_alone(part, push_bytes);
            let bytes = u32::try_from(part.len()).expect("a frame is shorter than 4 GiB");
            let ticket = self.next_ticket(partition.directory());
            let mut replica = partition.replica_mut();
            let Replica { follower: Some(follower), log, config, .. } = &mut *replica else { return };
            let appended = match u64::from(bytes) > entry_bytes_max {
                // A batch that no journal file here can hold.
                true => Err(FollowerReject::Malformed { at: 0 }),
                false => log.append_as_follower(part, following.leader_epoch, wall, ticket),
            };
            let hurry_written = !config.is_strict();
            match appended {
                Ok(entry) => {
                    follower.on_appended(Ok(bytes), log, mono);
                    drop(replica);
                    self.enqueue(partition, entry, hurry_written, None);
                }
                Err(reject) => {
                    tracing::error!(partition = %partition.id(), topic = %partition.topic(),
                        "what the leader {} pushed cannot be appended: {reject:?}", following.leader);
                    return follower.on_appended(Err(reject), log, mono);
                }
            }
        }
    }

    /// Drops everything; the log begins anew.
    fn reset(self: &Rc<Self>, partition: &Rc<Partition>, start: Offset) {
        let ticket = self.next_ticket(partition.directory());
        let entry = {
            let log = &mut partition.replica_mut().log;
            if log.is_changing() || !log.is_created() {
                return;
            }
            let before = log.unflushed_bytes();
            let entry = log.reset(start, ticket);
            partition.directory().unflushed_bytes.fetch_sub(before - log.unflushed_bytes(), Ordering::Relaxed);
            entry
        };
        tracing::info!(partition = %partition.id(), topic = %partition.topic(),
            "this replica begins anew at {start}: its leader has deleted all of it, or it is damaged and fetched again");
        drop(self.enqueue_change(partition, entry));
    }

    /// Cuts off what the leader does not have.
    fn cut(self: &Rc<Self>, partition: &Rc<Partition>, following: Following, to: Offset) {
        let ticket = self.next_ticket(partition.directory());
        let cut = {
            let log = &mut partition.replica_mut().log;
            if log.is_changing() || to < log.log_start() {
                return;
            }
            let before = log.unflushed_bytes();
            let cut = log.truncate_to(to, ticket);
            partition.directory().unflushed_bytes.fetch_sub(before - log.unflushed_bytes(), Ordering::Relaxed);
            cut
        };
        match cut {
            Truncation::Nothing => {}
            Truncation::Done(entry) => drop(self.enqueue_change(partition, entry)),
            Truncation::Rebuild(job) => {
                if !partition.cutting.replace(true) {
                    let (lane, partition) = (Rc::clone(self), Rc::clone(partition));
                    spawn_here(async move { lane.cut_into_segments(partition, following, to, job).await });
                }
            }
        }
    }

    async fn cut_into_segments(
        self: Rc<Self>,
        partition: Rc<Partition>,
        following: Following,
        to: Offset,
        job: RebuildJob,
    ) {
        let directory = Arc::clone(partition.directory());
        let access = Arc::clone(&directory.access);
        let rebuilt = directory.writers.run(move || job.run(&access)).await;
        partition.cutting.set(false);
        let rebuilt = match rebuilt {
            Ok(Ok(rebuilt)) => rebuilt,
            // The next open asks for it again.
            Ok(Err(fault)) => {
                tracing::error!(partition = %partition.id(), "cannot cut at {to}: {fault}");
                self.survey_at(&partition, &fault).await;
                let now = self.node().clock.mono();
                let stopped = match &mut partition.replica_mut().follower {
                    Some(follower) if *follower.following() == following => follower.on_cut_failed(to, now),
                    _ => None,
                };
                if let Some(why) = stopped {
                    self.on_stopped(&partition, why);
                }
                return;
            }
            Err(_) => return,
        };
        let ticket = self.next_ticket(&directory);
        let entry = {
            let mut replica = partition.replica_mut();
            // Meanwhile it may lead, and what it has is the truth; or another leader may want something else.
            if replica.follower.as_ref().is_none_or(|follower| *follower.following() != following) {
                return;
            }
            let before = replica.log.unflushed_bytes();
            if let Some(follower) = &mut replica.follower {
                follower.on_cut_done();
            }
            let entry = replica.log.truncate_into_segments(rebuilt, ticket);
            let gone = before.saturating_sub(replica.log.unflushed_bytes());
            directory.unflushed_bytes.fetch_sub(gone, Ordering::Relaxed);
            entry
        };
        if let Some(entry) = entry {
            drop(self.enqueue_change(&partition, entry));
            partition.publish();
        }
    }

    /// Opens the stream of a partition that has none, if it is time and there is a connection.
    pub(in crate::runtime) fn try_open(self: &Rc<Self>, partition: &Rc<Partition>) {
        if partition.cutting.get() || partition.directory().is_offline() {
            return;
        }
        let streams = self.streams();
        let now = self.node().clock.mono();
        let mut replica = partition.replica_mut();
        let Replica { follower: Some(follower), log, port, .. } = &mut *replica else { return };
        let to_leader = streams.port_to(follower.following().leader).filter(|_| !follower.is_stopped());
        let Some(to_leader) = to_leader else {
            // A connection opens the streams of all that follow over it.
            return streams.set_idle(partition.id(), false);
        };
        if follower.may_open(log, now) {
            // It is opened when the connection can take that.
            to_leader.mark(partition.id());
            *port = Some(to_leader);
        }
    }

    /// What one partition has for its leader.
    pub(super) fn say(self: &Rc<Self>, partition: &Rc<Partition>, port: &Rc<Port>, out: &mut Gathered) {
        let has_no_room = self.withholds_credit(partition);
        let mut replica = partition.replica_mut();
        let Replica { follower: Some(follower), log, port: own, .. } = &mut *replica else { return };
        if own.as_ref().is_none_or(|own| !Rc::ptr_eq(own, port)) {
            return;
        }
        for message in follower.say(log, has_no_room) {
            out.add(&message);
        }
        let now = self.node().clock.mono();
        if !partition.cutting.get()
            && !partition.directory().is_offline()
            && follower.may_open(log, now)
            && let Some(open) = follower.open(StreamId(self.streams().next_stream()), log, has_no_room, now)
        {
            out.add(&open);
        }
        if follower.owes_credit() {
            self.streams().withhold(partition.id());
        }
        drop(replica);
        self.pass_credit_on();
    }

    /// Whether a partition's leader gets no more credit for now: there is no room, or it is out of sync, and this broker
    /// has fetched as much for such as it may.
    pub(super) fn withholds_credit(&self, partition: &Partition) -> bool {
        let node = self.node();
        let may_wait = {
            let replica = partition.replica();
            !replica.is_in_sync && replica.is_follower_throttled(partition.id(), node.broker_id)
        };
        has_no_room(partition) || (may_wait && node.throttles.follower().is_exceeded(node.clock.mono()))
    }

    /// There is a connection to a leader, or there is none any more.
    pub(super) fn on_leaders_changed(self: &Rc<Self>, leader: BrokerId, is_there: bool) {
        let now = self.node().clock.mono();
        let follows: BTreeSet<TopicPartition> = self.following(leader);
        for partition in follows.iter().filter_map(|id| self.partition(*id)) {
            if let Some(follower) = &mut partition.replica_mut().follower {
                if !is_there {
                    follower.on_disconnected(now);
                }
                self.streams().set_idle(partition.id(), is_there && follower.is_idle());
            }
            // Whoever reads here goes back to the leader.
            partition.publish();
            if is_there {
                self.try_open(&partition);
            }
        }
    }

    /// Whether any partition of this lane follows a leader.
    pub(super) fn follows(&self, leader: BrokerId) -> bool {
        self.any_partition(|partition| {
            let replica = partition.replica();
            replica.follower.as_ref().is_some_and(|follower| follower.following().leader == leader)
        })
    }

    /// The partitions of this lane that follow a leader.
    pub(super) fn following(&self, leader: BrokerId) -> BTreeSet<TopicPartition> {
        let follows = |partition: &Rc<Partition>| {
            let replica = partition.replica();
            replica.follower.as_ref().is_some_and(|follower| follower.following().leader == leader)
        };
        self.partitions().into_iter().filter(follows).map(|partition| partition.id()).collect()
    }
}

/// Whether the directory takes no more records for now.
fn has_no_room(partition: &Partition) -> bool {
    let directory = partition.directory();
    directory.is_under_pressure() || directory.is_stuck() || !directory.admits(partition.is_internal())
}

/// A part of a push in memory that is not kept by much else: a log holds it for as long as it is in its tail, and
/// counts its own bytes only.
fn kept_alone(part: Bytes, push_bytes: usize) -> Bytes {
    match part.len() < KEPT_BYTES_MIN || part.len() < push_bytes / 2 {
        true => Bytes::copy_from_slice(&part),
        false => part,
    }
}

/// Bytes of the whole batches at the front, at most so many unless the first is larger.
fn part_len(batches: &[u8], bytes_max: usize) -> usize {
    if batches.len() <= bytes_max {
        return batches.len();
    }
    let mut len = 0;
    while len < batches.len() {
        let Ok(header) = BatchHeader::read(&batches[len..]) else {
            // No batch: the log says so.
            return if len == 0 { batches.len() } else { len };
        };
        if len > 0 && len + header.batch_bytes > bytes_max {
            break;
        }
        len = (len + header.batch_bytes).min(batches.len());
    }
    len
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Timestamp;
    use stonelog_protocol::batch::build::{BatchBuilder, NewRecord};

    use super::*;

    #[test]
    fn a_small_part_of_what_was_read_does_not_keep_the_rest_in_memory() {
        let read = Bytes::from(vec![7; 4 * KEPT_BYTES_MIN]);
        let is_apart = |part: &Bytes| !read.as_ptr_range().contains(&part.as_ptr());
        let small = kept_alone(read.slice(100..400), 300);
        assert!(small == read.slice(100..400) && is_apart(&small), "it came with other frames");
        let of_many = kept_alone(read.slice(..KEPT_BYTES_MIN), read.len());
        assert!(is_apart(&of_many), "the others leave the tail before it");
        assert!(!is_apart(&kept_alone(read.clone(), read.len())), "what fills its buffer is not copied");
    }

    #[test]
    fn pushed_batches_are_split_between_batches_only() {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(1), None, Some(b"value")));
        let one = builder.build().expect("a batch");
        let (len, three) = (one.len(), one.repeat(3));
        assert_eq!(part_len(&three, 3 * len), 3 * len);
        assert_eq!(part_len(&three, 3 * len - 1), 2 * len);
        assert_eq!(part_len(&three, 1), len, "a batch alone");
        assert_eq!(part_len(&three[..len + 20], 1), len);
        assert_eq!(part_len(b"no batch at all, and long enough", 1), 32, "the log says what is wrong with it");
    }
}
