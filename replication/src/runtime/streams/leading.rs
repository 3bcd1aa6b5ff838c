//! The leading end of streams on a lane: what followers say goes to the leader, what is new goes out to them.
//!
//! Nothing is decided here: [`crate::replica::lead`] answers opens and plans pushes, [`crate::partition::Leader`] judges
//! reports. A push is planned when its connection can take it, whether the leader's own journal has it or not.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::TopicPartition;
use stonelog_protocol::peer::stream::{OpenStream, Refusal, Stamps, StreamBody, StreamId, StreamMessage};
use stonelog_storage::segment::read::{ReadDone, ReadJob};
use tokio::sync::OwnedSemaphorePermit;

use super::bytes::Gathered;
use super::wire::Port;
use crate::progress::Role;
use crate::replica::{LeadStream, PushPlan, lead};
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;
use crate::runtime::partition::{Partition, Replica};

/// Bytes gathered for one write to a connection, unless the last push is larger.
pub(super) const WRITE_BYTES_MAX: usize = 1 << 20;
/// Partitions whose followers are out of sync and throttled, and that may send something again in one tick.
const THROTTLED_PER_TICK_MAX: usize = 100;

/// One follower's stream, and the connection it is on.
pub(in crate::runtime) struct Led {
    stream: LeadStream,
    pub(in crate::runtime) port: Rc<Port>,
    /// What was read for its next push.
    found: Option<Found>,
    /// What was read for a range that the follower lacks, and asked for by this number.
    filling: Option<(u64, Found)>,
}

impl Led {
    /// Whether what is read for this is wanted still.
    fn wants(&self, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Push => true,
            Purpose::Fill(number) => self.stream.is_read_for() == Some(number),
        }
    }
}

/// What is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Push,
    /// The range that the follower asked for by this number.
    Fill(u64),
}

/// What a read came to; it holds its turn until it is pushed.
struct Found {
    done: ReadDone,
    _turn: OwnedSemaphorePermit,
}

impl Replica {
    /// Followers' streams may have something to say.
    pub(in crate::runtime) fn mark_streams(&self, partition: TopicPartition) {
        self.streams.values().for_each(|led| led.port.mark(partition));
    }

    /// The streams of followers end: it leads no more, or in another epoch.
    pub(in crate::runtime) fn close_streams(&mut self) {
        for (_, led) in std::mem::take(&mut self.streams) {
            led.port.answer(close_of(&led.stream));
            if let Some(leader) = &mut self.leader {
                leader.on_closed(led.stream.id(), led.stream.stamps());
            }
        }
    }
}

fn close_of(stream: &LeadStream) -> StreamMessage {
    StreamMessage { stream: stream.id(), stamps: *stream.stamps(), body: StreamBody::Close }
}

impl Lane {
    /// What followers at the other end of a connection said, in order.
    pub(super) fn on_followers(self: &Rc<Self>, port: &Rc<Port>, messages: Vec<StreamMessage>) {
        let mut touched = Vec::new();
        for message in messages {
            if message.stamps.follower != port.wire.peer {
                tracing::warn!(node = %port.wire.peer, "it speaks for node {}", message.stamps.follower);
                continue;
            }
            let Some(partition) = self.partition(message.stamps.partition) else {
                if matches!(message.body, StreamBody::Open(_)) {
                    refuse(port, &message, Refusal::NotLeader);
                }
                continue;
            };
            if self.on_follower(&partition, port, &message) {
                self.touch(&partition, &mut touched);
            }
        }
        self.publish_all(&mut touched);
    }

    /// Returns whether the partition's progress may have moved.
    fn on_follower(self: &Rc<Self>, partition: &Rc<Partition>, port: &Rc<Port>, message: &StreamMessage) -> bool {
        if let StreamBody::Open(open) = &message.body {
            return self.on_open(partition, port, message, open);
        }
        let now = self.node().clock.mono();
        let mut replica = partition.replica_mut();
        let Replica { leader, streams, .. } = &mut *replica;
        let follower = message.stamps.follower;
        match &message.body {
            StreamBody::Report(report) => {
                let reported = match leader {
                    Some(leader) => leader.on_report(message.stream, &message.stamps, report, now).ok(),
                    None => None,
                };
                let Some(moved) = reported else {
                    // It may not have heard that its stream is over.
                    port.answer(StreamMessage { body: StreamBody::Close, ..message.clone() });
                    if streams.get(&follower).is_some_and(|led| led.stream.is_of(message)) {
                        streams.remove(&follower);
                    }
                    return false;
                };
                self.look_soon(partition.id(), follower, leader.as_ref());
                partition.reported.publish();
                moved
            }
            StreamBody::Credit(bytes) => {
                if let Some(led) = streams.get_mut(&follower).filter(|led| led.stream.is_of(message)) {
                    led.stream.on_credit(*bytes);
                    led.port.mark(partition.id());
                }
                false
            }
            StreamBody::Repair(wanted) => {
                if let Some(led) = streams.get_mut(&follower).filter(|led| led.stream.is_of(message)) {
                    // As often as a follower asks.
                    tracing::debug!(partition = %partition.id(), topic = %partition.topic(), node = %follower,
                        "offsets {} to {} are damaged there and sent once more", wanted.from, wanted.to);
                    led.stream.on_lacking(*wanted);
                    led.port.mark(partition.id());
                }
                false
            }
            StreamBody::Close => {
                if streams.get(&follower).is_some_and(|led| led.stream.is_of(message)) {
                    streams.remove(&follower);
                }
                if let Some(leader) = leader {
                    leader.on_closed(message.stream, &message.stamps);
                }
                false
            }
            _ => {
                tracing::warn!(node = %port.wire.peer, "a follower says what only leaders say");
                false
            }
        }
    }

    fn on_open(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        port: &Rc<Port>,
        message: &StreamMessage,
        open: &OpenStream,
    ) -> bool {
        let now = self.node().clock.mono();
        let mut replica = partition.replica_mut();
        let is_offline = replica.role == Role::Offline || partition.directory().is_offline();
        let Replica { leader, log, streams, .. } = &mut *replica;
        let Some(leader) = leader.as_mut().filter(|_| !is_offline) else {
            let refusal = if is_offline { Refusal::Offline } else { Refusal::NotLeader };
            refuse(port, message, refusal);
            return false;
        };
        let opening = lead::open(leader, log, (message.stream, message.stamps), open, now);
        port.answer(opening.answer);
        let Some(stream) = opening.stream else { return false };
        let follower = message.stamps.follower;
        streams.insert(follower, Led { stream, port: Rc::clone(port), found: None, filling: None });
        port.mark(partition.id());
        self.look_soon(partition.id(), follower, Some(leader));
        opening.watermark_moved
    }

    /// What one partition has for the follower at the other end.
    pub(super) fn push(self: &Rc<Self>, partition: &Rc<Partition>, port: &Rc<Port>, out: &mut Gathered) {
        let follower = port.wire.peer;
        let mut replica = partition.replica_mut();
        let is_throttled = replica.is_leader_throttled(partition.id(), self.node().broker_id);
        let Replica { leader, log, streams, probe, probe_said, .. } = &mut *replica;
        let (Some(leader), Some(led)) = (leader.as_mut(), streams.get_mut(&follower)) else { return };
        if !Rc::ptr_eq(&led.port, port) {
            return;
        }
        let may_wait = is_throttled && !leader.may_be_in_sync(follower);
        let probe = *probe;
        *probe_said = probe;
        loop {
            if out.len() >= WRITE_BYTES_MAX {
                port.mark(partition.id());
                return;
            }
            if may_wait && led.found.is_none() && self.is_sending_exceeded() {
                // It is looked at again with the next tick.
                self.streams().throttle(partition.id());
                break;
            }
            let (plan, was_read) = match led.found.take() {
                Some(Found { done, .. }) => (led.stream.on_read(leader, log, done, probe), true),
                None => (led.stream.plan(leader, log, probe), false),
            };
            match plan {
                PushPlan::Push(message) | PushPlan::Ask(message) => {
                    if is_throttled {
                        self.on_sent(&message);
                    }
                    out.add(&message);
                }
                PushPlan::Stuck(bytes) => {
                    tracing::error!(partition = %partition.id(), topic = %partition.topic(), node = %follower,
                        "a batch of {bytes} bytes is longer than that node's journal takes: it cannot follow on");
                    break;
                }
                PushPlan::Read(job) => {
                    self.read_for(partition, port, (led.stream.id(), *led.stream.stamps()), job, Purpose::Push);
                    break;
                }
                PushPlan::Nothing if was_read => {}
                PushPlan::Nothing => break,
                PushPlan::End(close) => {
                    out.add(&close);
                    leader.on_closed(led.stream.id(), led.stream.stamps());
                    streams.remove(&follower);
                    return;
                }
            }
        }
        loop {
            let plan = match led.filling.take() {
                Some((number, Found { done, .. })) => match led.stream.on_filling_read(number, done) {
                    PushPlan::Nothing => led.stream.plan_filling(log),
                    plan => plan,
                },
                None => led.stream.plan_filling(log),
            };
            match plan {
                PushPlan::Push(filled) => out.add(&filled),
                PushPlan::Read(job) => {
                    let number = led.stream.is_read_for().expect("it has just been planned");
                    self.read_for(partition, port, (led.stream.id(), *led.stream.stamps()), job, Purpose::Fill(number));
                    break;
                }
                PushPlan::Nothing | PushPlan::Ask(_) | PushPlan::Stuck(_) | PushPlan::End(_) => break,
            }
        }
        if let Some(news) = led.stream.news(leader, log, probe) {
            out.add(&news);
        }
    }

    fn is_sending_exceeded(&self) -> bool {
        let node = self.node();
        node.throttles.leader().is_exceeded(node.clock.mono())
    }

    fn on_sent(&self, message: &StreamMessage) {
        let node = self.node();
        let bytes = message.batches().iter().map(Bytes::len).sum();
        node.throttles.leader().record(bytes, node.clock.mono());
    }

    /// Those whose followers had to wait for the rate are asked again.
    pub(super) fn push_throttled(&self) {
        if self.streams().throttled.borrow().is_empty() || self.is_sending_exceeded() {
            return;
        }
        for id in self.streams().throttled.borrow_mut().take(THROTTLED_PER_TICK_MAX) {
            if let Some(partition) = self.partition(id) {
                partition.replica().mark_streams(id);
            }
        }
    }

    /// Reads what is not in memory for a follower that catches up.
    fn read_for(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        port: &Rc<Port>,
        stream: (StreamId, Stamps),
        job: ReadJob,
        purpose: Purpose,
    ) {
        let (lane, partition, port) = (Rc::clone(self), Rc::clone(partition), Rc::clone(port));
        spawn_here(async move {
            let Ok(turn) = port.turns_in(partition.directory().place).acquire_owned().await else { return };
            // The disk reads for nobody whose stream ended while it waited, or who has asked for something else.
            if led_on(&mut partition.replica_mut(), &port, &stream).is_none_or(|led| !led.wants(purpose)) {
                return;
            }
            let access = Arc::clone(&partition.directory().access);
            let read = partition.directory().readers.run_wanted(move || job.run(&access)).await;
            let done = match read {
                Ok(Ok(done)) => done,
                Ok(Err(fault)) => {
                    tracing::error!(partition = %partition.id(), "cannot read for a follower: {fault}");
                    lane.survey_at(&partition, &fault).await;
                    // Whatever is known of it now, the log says it when it is asked again.
                    ReadDone::Moved
                }
                // The broker is stopping.
                Err(_) => return,
            };
            let mut replica = partition.replica_mut();
            if let Some(led) = led_on(&mut replica, &port, &stream).filter(|led| led.wants(purpose)) {
                let found = Found { done, _turn: turn };
                match purpose {
                    Purpose::Push => led.found = Some(found),
                    Purpose::Fill(number) => led.filling = Some((number, found)),
                }
                port.mark(partition.id());
            }
        });
    }

    /// The connection of followers is gone.
    pub(super) fn on_followers_gone(self: &Rc<Self>, port: &Rc<Port>) {
        port.end_turns();
        for partition in self.partitions() {
            let mut replica = partition.replica_mut();
            let is_gone = |led: &Led| Rc::ptr_eq(&led.port, port);
            if replica.streams.get(&port.wire.peer).is_some_and(is_gone)
                && let Some(led) = replica.streams.remove(&port.wire.peer)
                && let Some(leader) = &mut replica.leader
            {
                leader.on_closed(led.stream.id(), led.stream.stamps());
            }
        }
    }
}

/// That stream on that connection, if it is open still. A peer may use a stream's number again, in another epoch.
fn led_on<'a>(replica: &'a mut Replica, port: &Rc<Port>, (id, stamps): &(StreamId, Stamps)) -> Option<&'a mut Led> {
    let is_it = |led: &&mut Led| led.stream.id() == *id && led.stream.stamps() == stamps && Rc::ptr_eq(&led.port, port);
    replica.streams.get_mut(&port.wire.peer).filter(is_it)
}

fn refuse(port: &Port, message: &StreamMessage, refusal: Refusal) {
    port.answer(StreamMessage { body: StreamBody::Refused(refusal), ..message.clone() });
}
