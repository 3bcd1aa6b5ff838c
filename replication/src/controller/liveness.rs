//! Who is alive: sessions of brokers, as soft state of the active controller (KIP-631, Kafka's `BrokerHeartbeatManager`).
//!
//! Nothing of it is in the log; only fencing and unfencing are facts, and this file decides when a broker is to be
//! fenced, one at a time, so that each fencing is decided on what the one before left. A new controller has heard nobody
//! yet: it gives every unfenced broker a full session.
//!
//! A broker is heard when its heartbeat arrives, not when it is decided: a controller whose entries take their time must
//! not take its own slowness for the silence of others. Who is due is looked for only by [`LivenessEvent::Tick`], before
//! which the carrier says everything that has arrived.
//!
//! A closed connection is no proof. The controller connects back: refused means the process is gone, and fences at once;
//! anything else waits for the session, and is looked at again meanwhile: the kernel closes what a killed process had open
//! one after the other, newest first, and while its listener is still to come it takes connections for nobody.
//!
//! Not here: sockets and clocks. `now` is the time since any fixed moment.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, BrokerId};

use crate::metadata::MetadataImage;

/// `broker.session.timeout.ms`, unless somebody sets it.
pub const SESSION_TIMEOUT_DEFAULT: Duration = Duration::from_secs(9);
/// How often a broker says that it is alive (`broker.heartbeat.interval.ms`).
pub const HEARTBEAT_INTERVAL_DEFAULT: Duration = Duration::from_secs(2);
/// How often preferred leaders are put back (`leader.imbalance.check.interval.seconds`).
pub const BALANCE_INTERVAL: Duration = Duration::from_secs(300);
/// Before a broker that has not refused is connected to again; twice as long each time.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// The longest pause between two such looks.
const LOOK_AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum LivenessEvent<'a> {
    /// This node has become the active controller, with this image.
    Activated(&'a MetadataImage),
    /// A newer image was applied.
    Applied(&'a MetadataImage),
    /// A heartbeat has arrived, whenever it is decided.
    Heard {
        /// Who sent it.
        id: BrokerId,
        /// Under which registration.
        epoch: BrokerEpoch,
        /// Over which connection: they are numbered from 1 as they are made. 0 is this node itself.
        connection: u64,
        /// When it arrived.
        at: Duration,
    },
    /// A heartbeat is about to be decided.
    Heartbeat {
        /// Who sent it.
        id: BrokerId,
        /// Under which registration.
        epoch: BrokerEpoch,
        /// The index of the image it has applied.
        metadata_index: u64,
    },
    /// A fencing that was asked for is over: decided and applied, or refused.
    FencingEnded {
        /// Whose.
        id: BrokerId,
        /// Under which registration.
        epoch: BrokerEpoch,
    },
    /// The connection a broker spoke over was closed.
    ConnectionClosed {
        /// Whose.
        id: BrokerId,
        /// Under which registration it spoke.
        epoch: BrokerEpoch,
        /// Which: the end of one that it does not speak over any more says nothing.
        connection: u64,
    },
    /// What connecting back to it came to.
    ConnectedBack {
        /// To whom.
        id: BrokerId,
        /// As [`LivenessEffect::ConnectBack`] had it.
        attempt: u64,
        /// What came of it.
        outcome: ConnectBack,
    },
    /// Time has passed.
    Tick,
}

/// What connecting back to a broker came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectBack {
    /// Nobody listens there, or another process does: the one that has registered is gone.
    Refused,
    /// Somebody took the connection, and has not proved who it is.
    Connected,
    /// No answer, no route, no name; or it is the process itself, and its connection was lost on the way.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessEffect {
    /// Connect to a broker's listener and say what came of it.
    ConnectBack {
        /// To whom.
        id: BrokerId,
        /// To be given back.
        attempt: u64,
    },
    /// Have the fencing of a broker decided.
    Fence {
        /// Which.
        id: BrokerId,
        /// The registration that ended.
        epoch: BrokerEpoch,
        /// Why, for the log.
        reason: FenceReason,
    },
}

/// Why a broker is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceReason {
    /// Nothing was heard of it for a whole session.
    SessionExpired,
    /// Its connection was closed and its listener refuses.
    Refused,
}

/// One broker's session.
#[derive(Clone, Debug)]
struct Session {
    epoch: BrokerEpoch,
    last_heard: Duration,
    /// The newest image it is known to have applied.
    metadata_index: u64,
    is_unfenced: bool,
    is_leaving: bool,
    /// The newest connection it was heard over.
    connection: u64,
    /// That was closed, and nothing has been heard of it since.
    closed: Option<Closed>,
    /// Its fencing was asked for and is not over.
    is_being_fenced: bool,
}

/// What is known of a broker whose connection was closed.
#[derive(Clone, Copy, Debug)]
struct Closed {
    /// The number that connecting back was asked for with, the last time.
    attempt: u64,
    /// What came of it, or of the time before.
    outcome: Option<ConnectBack>,
    /// When it is connected to again; `None` while that is under way, and once it has refused.
    again_at: Option<Duration>,
    /// How long after the next answer that is.
    pause: Duration,
}

impl Closed {
    fn asked(attempt: u64) -> Closed {
        Closed { attempt, outcome: None, again_at: None, pause: LOOK_AGAIN_AFTER }
    }
}

impl Session {
    fn may_be_fenced(&self) -> bool {
        self.is_unfenced && !self.is_being_fenced
    }

    fn is_closed_with(&self, outcome: ConnectBack) -> bool {
        self.closed.is_some_and(|closed| closed.outcome == Some(outcome))
    }
}

/// What an incarnation that wants to take the place of another has in common with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// One of its directories is one that the registered incarnation had online: it holds that directory's lock.
    pub has_its_directory: bool,
    /// It is reached where the registered incarnation was: whoever answers there may be itself.
    pub has_its_address: bool,
}

/// The sessions of all registered brokers.
#[derive(Clone, Debug)]
pub struct Liveness {
    session_timeout: Duration,
    sessions: BTreeMap<BrokerId, Session>,
    /// For each broker that is handing over: the index of the entry after which it led nothing.
    moved_at: BTreeMap<BrokerId, u64>,
    attempts: u64,
}

impl Liveness {
    /// Nobody is known until [`LivenessEvent::Activated`].
    pub fn new(session_timeout: Duration) -> Liveness {
        Liveness { session_timeout, sessions: BTreeMap::new(), moved_at: BTreeMap::new(), attempts: 0 }
    }

    /// Takes an event in. At most one effect is a fencing.
    pub fn on_event(&mut self, event: LivenessEvent<'_>, now: Duration) -> Vec<LivenessEffect> {
        let mut effects = Vec::new();
        match event {
            LivenessEvent::Activated(image) => {
                self.sessions.clear();
                self.moved_at.clear();
                self.on_image(image, now);
            }
            LivenessEvent::Applied(image) => self.on_image(image, now),
            LivenessEvent::Heard { id, epoch, connection, at } => {
                if let Some(session) = self.session(id, epoch) {
                    session.last_heard = session.last_heard.max(at);
                    session.connection = session.connection.max(connection);
                    session.closed = None;
                }
            }
            LivenessEvent::Heartbeat { id, epoch, metadata_index } => {
                if let Some(session) = self.session(id, epoch) {
                    session.metadata_index = session.metadata_index.max(metadata_index);
                }
            }
            LivenessEvent::FencingEnded { id, epoch } => {
                // Not the next image's word: one entry can fence a broker and unfence it again.
                if let Some(session) = self.session(id, epoch) {
                    session.is_being_fenced = false;
                }
            }
            LivenessEvent::ConnectionClosed { id, epoch, connection } => {
                let attempt = self.attempts + 1;
                let speaks_over = |session: &&mut Session| connection >= session.connection;
                if let Some(session) = self.session(id, epoch).filter(speaks_over) {
                    session.closed = Some(Closed::asked(attempt));
                    if session.may_be_fenced() {
                        effects.push(LivenessEffect::ConnectBack { id, attempt });
                    }
                    self.attempts = attempt;
                }
            }
            LivenessEvent::ConnectedBack { id, attempt, outcome } => {
                let session = self.sessions.get_mut(&id);
                if let Some(closed) = session.and_then(|session| session.closed.as_mut())
                    && closed.attempt == attempt
                {
                    closed.outcome = Some(outcome);
                    closed.again_at = (outcome != ConnectBack::Refused).then(|| now + closed.pause);
                    closed.pause = LOOK_AGAIN_AFTER_MAX.min(closed.pause * 2);
                }
            }
            LivenessEvent::Tick => {
                effects.extend(self.next_fencing(now));
                self.look_again(now, &mut effects);
            }
        }
        effects
    }

    /// When the next [`LivenessEvent::Tick`] may have something to do; `None` while only another event can.
    pub fn wake_at(&self) -> Option<Duration> {
        let waiting = || self.sessions.values().filter(|session| session.may_be_fenced());
        let again = waiting().filter_map(|session| session.closed?.again_at).min();
        if self.sessions.values().any(|session| session.is_being_fenced) {
            return again;
        }
        waiting().map(|session| self.due_at(session)).chain(again).min()
    }

    /// Those of some brokers that are not fenced and not known to have applied an image.
    pub fn behind(&self, index: u64, brokers: &[BrokerId]) -> Vec<BrokerId> {
        let is_behind = |id: &BrokerId| {
            self.sessions.get(id).is_some_and(|session| session.is_unfenced && session.metadata_index < index)
        };
        brokers.iter().copied().filter(is_behind).collect()
    }

    /// Whether every active broker has applied the entry in which a leaving broker handed over its last leadership: only
    /// then may it stop.
    pub fn moves_are_known(&self, leaving: BrokerId) -> bool {
        let Some(moved_at) = self.moved_at.get(&leaving) else { return true };
        let mut active =
            self.sessions.iter().filter(|(id, session)| **id != leaving && session.is_unfenced && !session.is_leaving);
        active.all(|(_, session)| session.metadata_index >= *moved_at)
    }

    /// Whether a new incarnation may take the place of the registered one: that one's session is over, or nobody listens
    /// where it did. Somebody answering there is no contradiction if that can be the new one itself, and it holds a
    /// directory that the old one would have to hold.
    pub fn is_gone(&self, id: BrokerId, newcomer: Newcomer, now: Duration) -> bool {
        let Newcomer { has_its_directory, has_its_address } = newcomer;
        self.sessions.get(&id).is_none_or(|session| {
            !session.is_unfenced
                || now >= self.due_at(session)
                || has_its_directory && has_its_address && session.is_closed_with(ConnectBack::Connected)
        })
    }

    /// Whether a broker has had a whole session in which nothing was heard of it, since it registered or was fenced too.
    pub fn is_silent(&self, id: BrokerId, now: Duration) -> bool {
        self.sessions.get(&id).is_none_or(|session| now >= self.due_at(session))
    }

    fn session(&mut self, id: BrokerId, epoch: BrokerEpoch) -> Option<&mut Session> {
        self.sessions.get_mut(&id).filter(|session| session.epoch == epoch)
    }

    /// When a session is over; that of a broker whose process is gone, at once.
    fn due_at(&self, session: &Session) -> Duration {
        match session.is_closed_with(ConnectBack::Refused) {
            true => Duration::ZERO,
            false => session.last_heard + self.session_timeout,
        }
    }

    /// The refused before the silent, the longest silent first; nobody while a fencing is on its way.
    fn next_fencing(&mut self, now: Duration) -> Option<LivenessEffect> {
        if self.sessions.values().any(|session| session.is_being_fenced) {
            return None;
        }
        let due = self.sessions.iter().filter(|(_, session)| session.may_be_fenced() && now >= self.due_at(session));
        let (id, _) = due.min_by_key(|(id, session)| (self.due_at(session), **id))?;
        let id = *id;
        let session = self.sessions.get_mut(&id).expect("found a moment ago");
        session.is_being_fenced = true;
        let is_refused = session.is_closed_with(ConnectBack::Refused);
        let reason = if is_refused { FenceReason::Refused } else { FenceReason::SessionExpired };
        Some(LivenessEffect::Fence { id, epoch: session.epoch, reason })
    }

    /// Connects again to those that had not refused.
    fn look_again(&mut self, now: Duration, effects: &mut Vec<LivenessEffect>) {
        for (id, session) in self.sessions.iter_mut().filter(|(_, session)| session.may_be_fenced()) {
            if let Some(closed) = session.closed.as_mut().filter(|closed| closed.again_at.is_some_and(|at| now >= at)) {
                self.attempts += 1;
                (closed.attempt, closed.again_at) = (self.attempts, None);
                effects.push(LivenessEffect::ConnectBack { id: *id, attempt: self.attempts });
            }
        }
    }

    fn on_image(&mut self, image: &MetadataImage, now: Duration) {
        self.sessions.retain(|id, _| image.broker(*id).is_some());
        for broker in image.brokers() {
            let fresh = Session {
                epoch: broker.epoch,
                last_heard: now,
                metadata_index: 0,
                is_unfenced: !broker.fenced,
                is_leaving: broker.in_controlled_shutdown,
                connection: 0,
                closed: None,
                is_being_fenced: false,
            };
            let session = self.sessions.entry(broker.id).or_insert_with(|| fresh.clone());
            if session.epoch != broker.epoch {
                *session = fresh;
                continue;
            }
            if session.is_unfenced == broker.fenced {
                // Fenced or unfenced since: either way what came before is over.
                let (metadata_index, connection) = (session.metadata_index, session.connection);
                *session = Session { metadata_index, connection, ..fresh };
            }
            session.is_leaving = broker.in_controlled_shutdown;
        }
        let leaving = |id: &BrokerId| image.broker(*id).is_some_and(|b| b.in_controlled_shutdown && !b.fenced);
        self.moved_at.retain(|id, _| leaving(id));
        for broker in image.brokers().filter(|broker| leaving(&broker.id)) {
            let still_leads =
                || image.partitions_with_member(broker.id).any(|(_, _, partition)| partition.leader == Some(broker.id));
            if !self.moved_at.contains_key(&broker.id) || still_leads() {
                self.moved_at.insert(broker.id, image.index());
            }
        }
    }
}

#[cfg(test)]
pub(in crate::controller) mod tests;
