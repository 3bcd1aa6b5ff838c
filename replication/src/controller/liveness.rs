//! Who is alive: sessions of brokers, as soft state of the active controller (KIP-631, Kafka's `BrokerHeartbeatManager`).
//!
//! Nothing of it is in the log; only fencing and unfencing are facts, and this file decides when a broker is to be
//! fenced, one at a time, so that each fencing is decided on what the one before left. A new controller has heard nobody
//! yet: it gives every unfenced broker a full session.
//!
//! A closed connection is no proof. The controller connects back: refused means the process is gone, and fences at once;
//! anything else waits for the session. Not here: sockets and clocks. `now` is the time since any fixed moment.

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

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum LivenessEvent<'a> {
    /// This node has become the active controller, with this image.
    Activated(&'a MetadataImage),
    /// A newer image was applied.
    Applied(&'a MetadataImage),
    /// A heartbeat is about to be decided.
    Heartbeat {
        /// Who sent it.
        id: BrokerId,
        /// Under which registration.
        epoch: BrokerEpoch,
        /// The index of the image it has applied.
        metadata_index: u64,
    },
    /// A heartbeat waited too long to be decided, for the controller is overloaded. Its sender lives all the same.
    HeartbeatTooLate {
        /// Who sent it.
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
    /// Nobody listens there: the process is gone.
    Refused,
    /// Somebody answered.
    Connected,
    /// No answer, no route, no name: nothing is known.
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
    /// Connecting back was asked for, and nothing has been heard of it since.
    closed: Option<u64>,
    is_refused: bool,
    /// The fencing was asked for and is not applied yet.
    is_being_fenced: bool,
}

impl Session {
    fn may_be_fenced(&self) -> bool {
        self.is_unfenced && !self.is_being_fenced
    }
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
            LivenessEvent::Heartbeat { id, epoch, metadata_index } => {
                if let Some(session) = self.heard(id, epoch, now) {
                    session.metadata_index = session.metadata_index.max(metadata_index);
                }
            }
            LivenessEvent::HeartbeatTooLate { id, epoch } => {
                self.heard(id, epoch, now);
            }
            LivenessEvent::ConnectionClosed { id, epoch } => {
                let attempt = self.attempts + 1;
                if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.epoch == epoch) {
                    self.attempts = attempt;
                    session.closed = Some(attempt);
                    if session.may_be_fenced() {
                        effects.push(LivenessEffect::ConnectBack { id, attempt });
                    }
                }
            }
            LivenessEvent::ConnectedBack { id, attempt, outcome } => {
                let asked = self.sessions.get_mut(&id).filter(|session| session.closed == Some(attempt));
                if let (Some(session), ConnectBack::Refused) = (asked, outcome) {
                    session.is_refused = true;
                }
            }
            LivenessEvent::Tick => {}
        }
        effects.extend(self.next_fencing(now));
        effects
    }

    /// When the next [`LivenessEvent::Tick`] may have something to do; `None` while only another event can.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.sessions.values().any(|session| session.is_being_fenced) {
            return None;
        }
        let waiting = self.sessions.values().filter(|session| session.may_be_fenced());
        waiting.map(|session| session.last_heard + self.session_timeout).min()
    }

    /// Whether every active broker has applied the entry in which a leaving broker handed over its last leadership: only
    /// then may it stop.
    pub fn moves_are_known(&self, leaving: BrokerId) -> bool {
        let Some(moved_at) = self.moved_at.get(&leaving) else { return true };
        let mut active =
            self.sessions.iter().filter(|(id, session)| **id != leaving && session.is_unfenced && !session.is_leaving);
        active.all(|(_, session)| session.metadata_index >= *moved_at)
    }

    /// Whether a new incarnation may take the place of the registered one: its connection is closed, or its session over.
    pub fn is_gone(&self, id: BrokerId, now: Duration) -> bool {
        self.sessions.get(&id).is_none_or(|session| {
            !session.is_unfenced || session.closed.is_some() || now >= session.last_heard + self.session_timeout
        })
    }

    fn heard(&mut self, id: BrokerId, epoch: BrokerEpoch, now: Duration) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&id).filter(|session| session.epoch == epoch)?;
        session.last_heard = session.last_heard.max(now);
        session.closed = None;
        session.is_refused = false;
        Some(session)
    }

    /// The refused before the silent, the longest silent first; nobody while a fencing is on its way.
    fn next_fencing(&mut self, now: Duration) -> Option<LivenessEffect> {
        if self.sessions.values().any(|session| session.is_being_fenced) {
            return None;
        }
        let timeout = self.session_timeout;
        let is_due =
            |session: &Session| session.may_be_fenced() && (session.is_refused || now >= session.last_heard + timeout);
        let due = self.sessions.iter_mut().filter(|(_, session)| is_due(session));
        let (id, session) = due.min_by_key(|(id, session)| (!session.is_refused, session.last_heard, **id))?;
        session.is_being_fenced = true;
        let reason = if session.is_refused { FenceReason::Refused } else { FenceReason::SessionExpired };
        Some(LivenessEffect::Fence { id: *id, epoch: session.epoch, reason })
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
                closed: None,
                is_refused: false,
                is_being_fenced: false,
            };
            let session = self.sessions.entry(broker.id).or_insert_with(|| fresh.clone());
            if session.epoch != broker.epoch {
                *session = fresh;
                continue;
            }
            if session.is_unfenced == broker.fenced {
                // Fenced or unfenced since: either way what came before is over.
                *session = Session { metadata_index: session.metadata_index, ..fresh };
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
