//! Replica streams on lanes: what carries partitions' records from the brokers that lead them to those that follow.
//!
//! Each lane dials every broker that leads a partition the lane follows: one connection for each such pair, with all of
//! that pair's partitions on it. The accepting broker hands what arrives to the lanes that own the partitions. Images say
//! who is dialed, [`crate::replica`] and [`crate::partition`] say what is said; here are only sockets, queues and clocks.
//!
//! A lone broker follows nobody and nobody follows it: nothing here runs then, and no timer ticks.

mod accept;
mod bytes;
mod confirm;
mod converse;
mod dial;
mod following;
mod leading;
mod mending;
mod turns;
mod wire;
mod wishes;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use ::bytes::Bytes;
use stonelog_protocol::{BrokerId, TopicPartition};
use tokio::sync::mpsc;

use super::changed::Changed;
use super::directory::Directory;
use super::lane::Lane;
use super::lanes::{Lanes, spawn_vital};
use super::peers::TcpDialer;
use crate::controller::MetadataHandle;
use crate::isr_proposal::IsrProposals;
use crate::replica::CreditPool;
pub(super) use leading::Led;
use turns::Turns;
pub(super) use wire::Port;

/// A connection whose dialer has proved itself, and said that it is for streams.
pub struct ProvedSocket {
    /// The socket, non-blocking, taken out of the runtime it was proved on.
    pub socket: std::net::TcpStream,
    /// What was read behind the proof.
    pub ahead: Bytes,
    /// Who dialed.
    pub from: BrokerId,
}

/// Proved connections that wait to be taken over; who comes later is closed, and dials again.
pub const PROVED_LEN_MAX: usize = 256;

/// What leaders may send ahead to one lane's followers, together; each of several directories has an equal part of it.
const LANE_CREDIT_BYTES: usize = 64 << 20;

/// What streams are started with.
pub struct StreamsOptions {
    /// Dials and proves.
    pub dialer: TcpDialer,
    /// `inter.broker.listener.name`: the listener of a broker's registration that its peers dial.
    pub listener: Arc<str>,
    /// Connections that others have dialed.
    pub accepted: mpsc::Receiver<ProvedSocket>,
    /// Where in-sync sets are asked for.
    pub metadata: MetadataHandle,
}

/// Starts streams on every lane: dialing, accepting, and asking for in-sync sets. Before it nothing is followed.
pub async fn start(lanes: &Lanes, options: StreamsOptions) {
    let StreamsOptions { dialer, listener, accepted, metadata } = options;
    for lane in 0..lanes.count() {
        let setup = Setup { dialer: dialer.clone(), listener: Arc::clone(&listener), metadata: metadata.clone() };
        let started = lanes.call(lane, move |lane| {
            lane.start_streams(setup);
            std::future::ready(())
        });
        started.await;
    }
    lanes
        .call(0, move |lane| {
            spawn_vital("accepted streams", accept::accept(lane, accepted));
            std::future::ready(())
        })
        .await;
}

/// What a lane dials and asks with.
struct Setup {
    dialer: TcpDialer,
    listener: Arc<str>,
    metadata: MetadataHandle,
}

/// One lane's streams.
#[derive(Default)]
pub(super) struct LaneStreams {
    setup: OnceCell<Setup>,
    /// This lane's ends of connections, by their number.
    ports: RefCell<HashMap<u64, Rc<Port>>>,
    /// The brokers that are dialed, or were.
    dialed: RefCell<BTreeMap<BrokerId, Rc<dial::Dialed>>>,
    /// Partitions that follow, have no stream, and could have one: there is a connection to their leader.
    idle: RefCell<Turns>,
    /// Followers whose leaders get no credit for now.
    withheld: RefCell<Turns>,
    /// Partitions led here whose followers wait for the rate at which those out of sync are sent to.
    throttled: RefCell<Turns>,
    /// Partitions led here that others follow.
    led: RefCell<Turns>,
    /// Those of them to look at before their time: a follower may join.
    soon: RefCell<BTreeSet<TopicPartition>>,
    /// Followers whose logs have damage in them, and who of them is being mended.
    damaged: RefCell<Turns>,
    repairing: Cell<Option<TopicPartition>>,
    /// What leaders may send ahead, by the directory's place.
    pools: RefCell<HashMap<usize, Rc<CreditPool>>>,
    proposals: RefCell<IsrProposals>,
    last_stream: Cell<u64>,
    /// Published when there is something to tick for.
    work: Changed,
}

impl LaneStreams {
    /// A number above every earlier one of this process for the partitions of this lane.
    fn next_stream(&self) -> u64 {
        self.last_stream.set(self.last_stream.get() + 1);
        self.last_stream.get()
    }

    /// The connection to a leader, while there is one.
    fn port_to(&self, leader: BrokerId) -> Option<Rc<Port>> {
        self.dialed.borrow().get(&leader)?.port()
    }

    fn port(&self, wire: u64) -> Option<Rc<Port>> {
        self.ports.borrow().get(&wire).cloned()
    }

    /// Whether a partition follows without a stream.
    pub(super) fn set_idle(&self, partition: TopicPartition, is_idle: bool) {
        if is_idle {
            if self.idle.borrow_mut().insert(partition) {
                self.work.publish();
            }
        } else {
            self.idle.borrow_mut().remove(partition);
        }
    }

    /// Whether a partition is led here, and others follow it.
    pub(super) fn set_led(&self, partition: TopicPartition, is_led: bool) {
        if is_led {
            if self.led.borrow_mut().insert(partition) {
                self.work.publish();
            }
        } else {
            self.led.borrow_mut().remove(partition);
            self.soon.borrow_mut().remove(&partition);
            self.proposals.borrow_mut().forget(partition);
        }
    }

    fn withhold(&self, partition: TopicPartition) {
        if self.withheld.borrow_mut().insert(partition) {
            self.work.publish();
        }
    }

    fn throttle(&self, partition: TopicPartition) {
        if self.throttled.borrow_mut().insert(partition) {
            self.work.publish();
        }
    }

    fn look_soon(&self, partition: TopicPartition) {
        if self.soon.borrow_mut().insert(partition) {
            self.work.publish();
        }
    }

    /// What leaders may send ahead into one directory.
    pub(super) fn pool(&self, directory: &Directory, directories: usize, batch_bytes_max: u64) -> Rc<CreditPool> {
        let new = || {
            let bytes = LANE_CREDIT_BYTES / directories.max(1);
            CreditPool::new(bytes, u32::try_from(batch_bytes_max).unwrap_or(u32::MAX))
        };
        Rc::clone(self.pools.borrow_mut().entry(directory.place).or_insert_with(new))
    }

    /// Whether anybody waits for credit that others hold.
    fn is_credit_wanted(&self) -> bool {
        self.pools.borrow().values().any(|pool| pool.is_wanted())
    }

    /// Who has waited longest for credit, in each directory, and can have it now.
    fn due_for_credit(&self) -> Vec<TopicPartition> {
        self.pools.borrow().values().filter_map(|pool| pool.due()).collect()
    }

    /// Whether something waits for the next look, and not only for time to pass.
    fn is_pressed(&self) -> bool {
        let nothing_waits =
            self.idle.borrow().is_empty() && self.withheld.borrow().is_empty() && self.soon.borrow().is_empty();
        let is_throttled = !self.throttled.borrow().is_empty();
        !nothing_waits || is_throttled || self.is_credit_wanted() || self.repairing.get().is_some()
    }

    /// Whether nothing needs a look now and then.
    fn rests(&self) -> bool {
        let nothing_waits =
            self.idle.borrow().is_empty() && self.withheld.borrow().is_empty() && self.led.borrow().is_empty();
        nothing_waits && !self.is_credit_wanted() && self.damaged.borrow().is_empty()
    }
}

impl Lane {
    fn start_streams(self: Rc<Self>, setup: Setup) {
        assert!(self.streams().setup.set(setup).is_ok(), "streams are started once");
        spawn_vital("a lane's streams", Rc::clone(&self).keep_streams());
        for leader in self.leaders_followed() {
            self.dial(leader);
        }
    }

    /// The brokers that lead what this lane follows.
    fn leaders_followed(&self) -> BTreeSet<BrokerId> {
        let leader = |partition: Rc<super::partition::Partition>| {
            partition.replica().follower.as_ref().map(|follower| follower.following().leader)
        };
        self.partitions().into_iter().filter_map(leader).collect()
    }
}
