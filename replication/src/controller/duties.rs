//! What the active controller does unasked, for as long as it is active: pure.
//!
//! It keeps the sessions of brokers ([`Liveness`]) and has those fenced that are gone, entry by entry until they are;
//! puts preferred leaders back; gives internal topics their replicas when a third broker is up. Everything it wants is a
//! request like any other, decided and proposed in turn. A tenure begins knowing nobody's last word, and ends without a
//! trace: all of this is soft state.
//!
//! Not here: who is active (the quorum says so), sockets, timers. Times are since any fixed moment.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, BrokerId};

use super::liveness::{ConnectBack, Liveness, LivenessEffect, LivenessEvent, Newcomer};
use super::loss::starting_instead;
use super::request::{ControllerRequest, CreateTopics, FenceBroker, RegisterBrokerRequest};
use super::response::ControllerResponse;
use super::rules::Defaults;
use super::waiting::{awaited_brokers, waits_for_brokers};
use crate::metadata::MetadataImage;

/// Before something that came to nothing is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The attempt to connect to a broker that a new controller has not heard: whoever died with the controller before it
/// should not be waited for. Later attempts are numbered from 1.
const FIRST_LOOK: u64 = 0;
/// Brokers that must be up for internal topics to have all their replicas.
const BROKERS_FOR_INTERNAL_TOPICS: usize = 3;

/// What configuration says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DutySettings {
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `leader.imbalance.check.interval.seconds`; `None` with `auto.leader.rebalance.enable=false`.
    pub balance_every: Option<Duration>,
    /// The listed voters that are brokers too: a new cluster waits for them.
    pub listed: Vec<BrokerId>,
}

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum DutyEvent<'a> {
    /// This node has become the active controller, with this image.
    Activated(&'a MetadataImage),
    /// It is not active any more, or cannot be sure.
    SteppedDown,
    /// A newer image was applied.
    Applied(&'a MetadataImage),
    /// A heartbeat has arrived; it may be decided later, or never.
    Heard(Heartbeat),
    /// A request is about to be decided.
    Asked(&'a ControllerRequest),
    /// What came of a [`DutyEffect::Ask`].
    Done(&'a ControllerRequest, Came<'a>),
    /// The connection a broker's heartbeats came over was closed.
    ConnectionClosed {
        /// Whose.
        id: BrokerId,
        /// Under which registration it spoke.
        epoch: BrokerEpoch,
        /// Which connection that was.
        connection: u64,
    },
    /// What connecting back to it came to.
    ConnectedBack {
        /// To whom.
        id: BrokerId,
        /// As [`DutyEffect::ConnectBack`] had it.
        attempt: u64,
        /// What came of it.
        outcome: ConnectBack,
    },
    /// Time has passed.
    Tick,
}

/// A heartbeat that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who sent it.
    pub id: BrokerId,
    /// Under which registration.
    pub epoch: BrokerEpoch,
    /// Over which connection, numbered as they are made; 0 for this node's own.
    pub connection: u64,
    /// When.
    pub at: Duration,
}

/// What came of something that was asked for.
#[derive(Clone, Copy, Debug)]
pub enum Came<'a> {
    /// It is decided and applied.
    Decided(&'a ControllerResponse),
    /// It was refused: the image is another one by now.
    Refused,
    /// Nothing is known.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DutyEffect {
    /// Have this decided, and say what came of it.
    Ask(ControllerRequest),
    /// Connect to a broker's listeners and say what came of it.
    ConnectBack {
        /// To whom.
        id: BrokerId,
        /// To be given back.
        attempt: u64,
    },
}

/// What a decision rests on besides the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoftFacts {
    /// See [`super::Inputs::moves_are_known`].
    pub moves_are_known: bool,
    /// See [`super::Inputs::previous_is_gone`].
    pub previous_is_gone: bool,
    /// See [`super::Inputs::brokers_to_come`].
    pub brokers_to_come: usize,
    /// The answer to a [`ControllerRequest::WhoIsBehind`].
    pub behind: Vec<BrokerId>,
}

impl SoftFacts {
    /// Those of a lone node. Its broker hands over to nobody, and nobody else is to come; the locks of the directories
    /// are this process's, so the incarnation before is no more.
    pub const ALONE: SoftFacts =
        SoftFacts { moves_are_known: true, previous_is_gone: true, brokers_to_come: 0, behind: Vec::new() };
}

/// The duties of one node that may be the active controller.
#[derive(Clone, Debug)]
pub struct Duties {
    settings: DutySettings,
    liveness: Liveness,
    tenure: Option<Tenure>,
}

#[derive(Clone, Debug)]
struct Tenure {
    begun_at: Duration,
    balance_at: Option<Duration>,
    /// The fencing on its way, and when it is asked for again if it came to nothing.
    fencing: Option<(FenceBroker, Option<Duration>)>,
    active_brokers: usize,
    /// Unfenced brokers that this tenure has not heard yet, each with its registration.
    unheard: BTreeMap<BrokerId, BrokerEpoch>,
}

impl Duties {
    /// None, until it is active.
    pub fn new(settings: DutySettings) -> Duties {
        let liveness = Liveness::new(settings.session_timeout);
        Duties { settings, liveness, tenure: None }
    }

    /// Takes an event in.
    pub fn on_event(&mut self, event: DutyEvent<'_>, now: Duration) -> Vec<DutyEffect> {
        let mut effects = Vec::new();
        match event {
            DutyEvent::Activated(image) => {
                let balance_at = self.settings.balance_every.map(|every| now + every);
                let unfenced = image.brokers().filter(|broker| !broker.fenced);
                let unheard: BTreeMap<_, _> = unfenced.map(|broker| (broker.id, broker.epoch)).collect();
                let (fencing, active_brokers) = (None, 0);
                let known = unheard.clone();
                self.tenure = Some(Tenure { begun_at: now, balance_at, fencing, active_brokers, unheard: known });
                self.live(LivenessEvent::Activated(image), now, &mut effects);
                effects.extend(unheard.into_keys().map(|id| DutyEffect::ConnectBack { id, attempt: FIRST_LOOK }));
                self.on_image(image, &mut effects);
            }
            DutyEvent::SteppedDown => self.tenure = None,
            // What is heard between two tenures is nobody's.
            _ if self.tenure.is_none() => {}
            DutyEvent::Applied(image) => {
                self.live(LivenessEvent::Applied(image), now, &mut effects);
                self.on_image(image, &mut effects);
            }
            DutyEvent::Heard(Heartbeat { id, epoch, connection, at }) => {
                if let Some(tenure) = &mut self.tenure {
                    tenure.unheard.remove(&id);
                }
                self.live(LivenessEvent::Heard { id, epoch, connection, at }, now, &mut effects);
            }
            DutyEvent::Asked(request) => {
                if let ControllerRequest::Heartbeat(beat) = request {
                    let (id, epoch, metadata_index) = (beat.id, beat.epoch, beat.metadata_index);
                    self.live(LivenessEvent::Heartbeat { id, epoch, metadata_index }, now, &mut effects);
                }
            }
            DutyEvent::Done(request, came) => self.on_done(request, came, now, &mut effects),
            DutyEvent::ConnectedBack { id, attempt: FIRST_LOOK, outcome } => {
                let epoch = self.tenure.as_ref().and_then(|tenure| tenure.unheard.get(&id).copied());
                if let (Some(epoch), ConnectBack::Refused) = (epoch, outcome) {
                    // As if it had been connected before; the next look fences.
                    self.live(LivenessEvent::ConnectionClosed { id, epoch, connection: 0 }, now, &mut effects);
                }
            }
            DutyEvent::ConnectionClosed { id, epoch, connection } => {
                self.live(LivenessEvent::ConnectionClosed { id, epoch, connection }, now, &mut effects);
            }
            DutyEvent::ConnectedBack { id, attempt, outcome } => {
                self.live(LivenessEvent::ConnectedBack { id, attempt, outcome }, now, &mut effects);
            }
            DutyEvent::Tick => self.on_tick(now, &mut effects),
        }
        effects
    }

    /// When the next [`DutyEvent::Tick`] may have something to do; `None` while only another event can.
    pub fn wake_at(&self) -> Option<Duration> {
        let tenure = self.tenure.as_ref()?;
        let again_at = tenure.fencing.as_ref().and_then(|(_, again_at)| *again_at);
        [self.liveness.wake_at(), tenure.balance_at, again_at].into_iter().flatten().min()
    }

    /// What a decision on a request rests on besides the image.
    pub fn facts(&self, request: &ControllerRequest, image: &MetadataImage, now: Duration) -> SoftFacts {
        SoftFacts {
            moves_are_known: match request {
                ControllerRequest::Heartbeat(beat) => self.liveness.moves_are_known(beat.id),
                _ => false,
            },
            previous_is_gone: match request {
                ControllerRequest::RegisterBroker(request) => {
                    self.liveness.is_gone(request.id, newcomer(request, image), now)
                }
                ControllerRequest::UnregisterBroker(request) => self.liveness.is_silent(request.id, now),
                ControllerRequest::AcceptLoss(request) => {
                    starting_instead(image, request).all(|broker| self.liveness.is_silent(broker, now))
                }
                _ => false,
            },
            brokers_to_come: self.brokers_to_come(image, now),
            behind: match request {
                ControllerRequest::WhoIsBehind(asked) => self.liveness.behind(asked.index, &asked.brokers),
                _ => Vec::new(),
            },
        }
    }

    /// Whether a request should wait for brokers that are still to come.
    pub fn waits(&self, request: &CreateTopics, image: &MetadataImage, defaults: &Defaults, now: Duration) -> bool {
        let to_come = self.brokers_to_come(image, now);
        to_come > 0 && waits_for_brokers(image, request, defaults, to_come)
    }

    /// A tenure gives those that were listed and never came the time a new cluster has; whether an earlier one did is
    /// not known.
    fn brokers_to_come(&self, image: &MetadataImage, now: Duration) -> usize {
        let Some(tenure) = &self.tenure else { return 0 };
        awaited_brokers(image, &self.settings.listed, now.saturating_sub(tenure.begun_at))
    }

    fn live(&mut self, event: LivenessEvent<'_>, now: Duration, effects: &mut Vec<DutyEffect>) {
        for effect in self.liveness.on_event(event, now) {
            match effect {
                LivenessEffect::ConnectBack { id, attempt } => effects.push(DutyEffect::ConnectBack { id, attempt }),
                LivenessEffect::Fence { id, epoch, reason } => {
                    tracing::warn!(broker = %id, ?reason, "a broker is to be fenced");
                    let fence = FenceBroker { id, epoch };
                    if let Some(tenure) = &mut self.tenure {
                        tenure.fencing = Some((fence, None));
                    }
                    effects.push(DutyEffect::Ask(ControllerRequest::FenceBroker(fence)));
                }
            }
        }
    }

    fn on_image(&mut self, image: &MetadataImage, effects: &mut Vec<DutyEffect>) {
        let Some(tenure) = &mut self.tenure else { return };
        let active = image.brokers().filter(|broker| broker.is_active()).count();
        if active >= BROKERS_FOR_INTERNAL_TOPICS && tenure.active_brokers < BROKERS_FOR_INTERNAL_TOPICS {
            effects.push(DutyEffect::Ask(ControllerRequest::RaiseInternalTopics));
        }
        tenure.active_brokers = active;
    }

    fn on_done(&mut self, request: &ControllerRequest, came: Came<'_>, now: Duration, effects: &mut Vec<DutyEffect>) {
        let Some(tenure) = &mut self.tenure else { return };
        match (request, came) {
            (ControllerRequest::FenceBroker(fence), came) => match came {
                // Some of its in-sync sets are left.
                Came::Decided(ControllerResponse::FenceBroker { is_fenced: false }) => {
                    effects.push(DutyEffect::Ask(ControllerRequest::FenceBroker(*fence)));
                }
                Came::Decided(_) | Came::Refused => {
                    tenure.fencing = None;
                    let FenceBroker { id, epoch } = *fence;
                    self.live(LivenessEvent::FencingEnded { id, epoch }, now, effects);
                }
                Came::Unknown => tenure.fencing = Some((*fence, Some(now + ASK_AGAIN_AFTER))),
            },
            (ControllerRequest::BalanceLeaders, Came::Decided(ControllerResponse::BalanceLeaders(done)))
                if done.has_more =>
            {
                effects.push(DutyEffect::Ask(ControllerRequest::BalanceLeaders));
            }
            _ => {}
        }
    }

    fn on_tick(&mut self, now: Duration, effects: &mut Vec<DutyEffect>) {
        self.live(LivenessEvent::Tick, now, effects);
        let Some(tenure) = &mut self.tenure else { return };
        if let Some((fence, again_at)) = &mut tenure.fencing
            && again_at.is_some_and(|at| now >= at)
        {
            *again_at = None;
            effects.push(DutyEffect::Ask(ControllerRequest::FenceBroker(*fence)));
        }
        if let (Some(at), Some(every)) = (tenure.balance_at, self.settings.balance_every)
            && now >= at
        {
            tenure.balance_at = Some(now + every);
            effects.push(DutyEffect::Ask(ControllerRequest::BalanceLeaders));
        }
    }
}

/// What the sender of a registration has in common with the incarnation that is registered.
fn newcomer(request: &RegisterBrokerRequest, image: &MetadataImage) -> Newcomer {
    let registered = image.broker(request.id);
    let has = |id| registered.is_some_and(|registered| registered.has_directory(id));
    Newcomer {
        has_its_directory: request.directories.iter().any(|directory| has(directory.id)),
        has_its_address: registered.is_some_and(|registered| registered.endpoints == request.endpoints),
    }
}

#[cfg(test)]
mod tests;
