//! What a broker of several says of itself to the controller, and what it makes of the answers: pure.
//!
//! Every couple of seconds it says that it is alive, and at once when its directories change or it wants to stop. One
//! heartbeat is under way at a time. A broker whose id is registered under a later epoch than its own has been replaced:
//! another process acts in its name, and it must end. So must one that was forgotten while it could not be heard: it can
//! register anew only by starting. Times are since any fixed moment.

use std::time::Duration;

use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId};

use crate::controller::{BrokerHeartbeat, HeartbeatState};
use crate::metadata::MetadataImage;

/// How soon the next heartbeat of a broker that hands over follows an answer.
const LEAVING_EVERY: Duration = Duration::from_millis(200);
/// How soon a heartbeat that came to nothing is followed by another.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// A broker that wants to stop and has heard no controller for this long stops without handing over: a new controller
/// is there sooner, or there is no majority to have one, as for the last of a cluster that is being stopped.
const UNHEARD_MAX: Duration = Duration::from_secs(4);

/// What happened.
#[derive(Clone, Copy, Debug)]
pub enum PresenceEvent<'a> {
    /// Every lane has applied this image.
    Applied(&'a MetadataImage),
    /// That image, or one before it, changed settings: somebody may wait to hear that they are in force here.
    SettingsChanged,
    /// These directories are online now.
    Directories(&'a [DirectoryId]),
    /// Somebody wants the broker to stop.
    WantsToLeave,
    /// The answer to the last heartbeat; `None` when there is none.
    Answered(Option<HeartbeatState>),
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceEffect {
    /// Send this, and say what was answered.
    Send(BrokerHeartbeat),
    /// The controller has heard that the broker leaves, and it leads nothing that another could lead; or there is no
    /// controller.
    MayStop,
    /// This process has been replaced: by the registration of this epoch.
    Replaced(BrokerEpoch),
    /// The registration was removed (UnregisterBroker), and there is no other.
    Forgotten,
}

/// One registered broker, from its own side.
#[derive(Clone, Debug)]
pub struct Presence {
    id: BrokerId,
    epoch: BrokerEpoch,
    every: Duration,
    metadata_index: u64,
    /// What the controller has to hear, until it has.
    directories: Option<Vec<DirectoryId>>,
    /// Whether it wants to stop, and when it last heard the controller since then.
    leaving: Option<Duration>,
    /// The directories that the heartbeat under way tells, if one is under way.
    under_way: Option<Option<Vec<DirectoryId>>>,
    next_at: Duration,
    is_over: bool,
}

impl Presence {
    /// A broker under its registration; it has just said that it is ready.
    pub fn new(id: BrokerId, epoch: BrokerEpoch, every: Duration, now: Duration) -> Presence {
        Presence {
            id,
            epoch,
            every,
            metadata_index: 0,
            directories: None,
            leaving: None,
            under_way: None,
            next_at: now + every,
            is_over: false,
        }
    }

    /// Takes an event in.
    pub fn on_event(&mut self, event: PresenceEvent<'_>, now: Duration) -> Option<PresenceEffect> {
        if self.is_over {
            return None;
        }
        match event {
            PresenceEvent::Applied(image) => {
                self.metadata_index = self.metadata_index.max(image.index());
                let knows_of_it = u64::try_from(self.epoch.0).is_ok_and(|epoch| image.index() >= epoch);
                let end = match image.broker(self.id) {
                    Some(other) if other.epoch > self.epoch => Some(PresenceEffect::Replaced(other.epoch)),
                    None if knows_of_it && !off!(ForgottenEnds) => Some(PresenceEffect::Forgotten),
                    _ => None,
                };
                if end.is_some() {
                    self.is_over = true;
                    return end;
                }
            }
            PresenceEvent::SettingsChanged => self.next_at = now,
            PresenceEvent::Directories(online) => {
                self.directories = Some(online.to_vec());
                self.next_at = now;
            }
            PresenceEvent::WantsToLeave => {
                if self.leaving.is_none() {
                    self.leaving = Some(now);
                    self.next_at = now;
                }
            }
            PresenceEvent::Answered(answer) => {
                let told = self.under_way.take().flatten();
                match answer {
                    Some(state) if self.leaving.is_some() && state.should_shut_down => {
                        self.is_over = true;
                        return Some(PresenceEffect::MayStop);
                    }
                    Some(_) => {
                        if let Some(heard) = &mut self.leaving {
                            *heard = now;
                        }
                        let rest = if self.leaving.is_some() { LEAVING_EVERY } else { self.every };
                        self.next_at = self.next_at.min(now + rest);
                        if self.directories == told {
                            self.directories = None;
                        }
                    }
                    None => self.next_at = now + AGAIN_AFTER,
                }
            }
            PresenceEvent::Tick => {}
        }
        if self.gives_up_at().is_some_and(|at| now >= at) {
            self.is_over = true;
            return Some(PresenceEffect::MayStop);
        }
        self.next_beat(now)
    }

    /// When the next [`PresenceEvent::Tick`] is due; `None` while an answer is awaited for as long as it takes.
    pub fn wake_at(&self) -> Option<Duration> {
        let next_beat = self.under_way.is_none().then_some(self.next_at);
        next_beat.into_iter().chain(self.gives_up_at()).min().filter(|_| !self.is_over)
    }

    fn gives_up_at(&self) -> Option<Duration> {
        self.leaving.map(|heard| heard + UNHEARD_MAX)
    }

    fn next_beat(&mut self, now: Duration) -> Option<PresenceEffect> {
        if self.under_way.is_some() || now < self.next_at {
            return None;
        }
        self.under_way = Some(self.directories.clone());
        self.next_at = now + self.every;
        Some(PresenceEffect::Send(BrokerHeartbeat {
            id: self.id,
            epoch: self.epoch,
            metadata_index: self.metadata_index,
            want_fence: false,
            want_shutdown: self.leaving.is_some(),
            online_directories: self.directories.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::*;
    use crate::metadata::MetadataRecord;
    use crate::metadata::record::RegisterBroker;

    const EVERY: Duration = Duration::from_secs(2);
    const ID: BrokerId = BrokerId(4);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn presence() -> Presence {
        Presence::new(ID, BrokerEpoch(10), EVERY, at(0))
    }

    fn beat(index: u64, leaving: bool, directories: Option<Vec<DirectoryId>>) -> Option<PresenceEffect> {
        Some(PresenceEffect::Send(BrokerHeartbeat {
            id: ID,
            epoch: BrokerEpoch(10),
            metadata_index: index,
            want_fence: false,
            want_shutdown: leaving,
            online_directories: directories,
        }))
    }

    fn answer(should_shut_down: bool) -> PresenceEvent<'static> {
        let state = HeartbeatState { is_caught_up: true, is_fenced: false, should_shut_down };
        PresenceEvent::Answered(Some(state))
    }

    /// An image at an index in which the broker is registered under an epoch.
    fn image(index: u64, epoch: i64) -> MetadataImage {
        let record = RegisterBroker {
            id: ID,
            incarnation: Uuid([1; 16]),
            epoch: Some(BrokerEpoch(epoch)),
            endpoints: Vec::new(),
            rack: None,
            fenced: false,
            in_controlled_shutdown: false,
            directories: Vec::new(),
            differing: Vec::new(),
            unfenced_with: Vec::new(),
        };
        MetadataImage::from_records(index, &[MetadataRecord::RegisterBroker(record)]).unwrap()
    }

    #[test]
    fn heartbeats_follow_each_other_in_time_and_one_is_under_way() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::Applied(&image(12, 10)), at(5)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(1_999)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_000)), beat(12, false, None));
        // The answer takes longer than the interval.
        assert_eq!(presence.wake_at(), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(4_500)), None);
        assert_eq!(presence.on_event(answer(false), at(4_600)), beat(12, false, None));
        assert_eq!(presence.on_event(answer(false), at(4_601)), None);
        assert_eq!(presence.wake_at(), Some(at(6_600)));
    }

    #[test]
    fn changed_settings_are_told_to_be_in_force_at_once() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::Applied(&image(12, 10)), at(5)), None);
        assert_eq!(presence.on_event(PresenceEvent::SettingsChanged, at(5)), beat(12, false, None));
        // What is under way does not say it.
        assert_eq!(presence.on_event(PresenceEvent::Applied(&image(13, 10)), at(6)), None);
        assert_eq!(presence.on_event(PresenceEvent::SettingsChanged, at(6)), None);
        assert_eq!(presence.on_event(answer(false), at(7)), beat(13, false, None));
    }

    #[test]
    fn heartbeat_without_an_answer_is_followed_soon() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_000)), beat(0, false, None));
        assert_eq!(presence.on_event(PresenceEvent::Answered(None), at(2_100)), None);
        assert_eq!(presence.wake_at(), Some(at(2_300)));
    }

    #[test]
    fn changed_directories_are_told_at_once_and_until_they_were_heard() {
        let mut presence = presence();
        let (two, one) = (vec![Uuid([1; 16]), Uuid([2; 16])], vec![Uuid([1; 16])]);
        assert_eq!(presence.on_event(PresenceEvent::Directories(&two), at(1)), beat(0, false, Some(two.clone())));
        // Another one fails before the answer.
        assert_eq!(presence.on_event(PresenceEvent::Directories(&one), at(2)), None);
        assert_eq!(presence.on_event(answer(false), at(3)), beat(0, false, Some(one.clone())));
        assert_eq!(presence.on_event(PresenceEvent::Answered(None), at(4)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(300)), beat(0, false, Some(one)));
        assert_eq!(presence.on_event(answer(false), at(301)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_300)), beat(0, false, None));
    }

    #[test]
    fn leaving_broker_asks_until_it_may_stop() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::WantsToLeave, at(1)), beat(0, true, None));
        assert_eq!(presence.on_event(answer(false), at(2)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(202)), beat(0, true, None));
        assert_eq!(presence.on_event(answer(true), at(203)), Some(PresenceEffect::MayStop));
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(9_000)), None);
    }

    #[test]
    fn leaving_broker_that_hears_no_controller_stops_after_a_while() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::WantsToLeave, at(1)), beat(0, true, None));
        assert_eq!(presence.wake_at(), Some(at(4_001)), "an answer that never comes is not waited for");
        assert_eq!(presence.on_event(answer(false), at(2_000)), None);
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_200)), beat(0, true, None));
        assert_eq!(presence.on_event(PresenceEvent::Answered(None), at(5_900)), None);
        assert_eq!(presence.wake_at(), Some(at(6_000)));
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(6_000)), Some(PresenceEffect::MayStop));
        assert_eq!(presence.wake_at(), None);
    }

    #[test]
    fn answer_to_an_earlier_heartbeat_does_not_let_a_broker_stop_that_did_not_ask_yet() {
        let mut presence = presence();
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_000)), beat(0, false, None));
        assert_eq!(presence.on_event(PresenceEvent::WantsToLeave, at(2_001)), None);
        assert_eq!(presence.on_event(answer(false), at(2_002)), beat(0, true, None));
    }

    #[test]
    fn process_whose_broker_was_forgotten_ends() {
        let mut presence = presence();
        let nobody = |index| MetadataImage::from_records(index, &[]).unwrap();
        assert_eq!(presence.on_event(PresenceEvent::Applied(&nobody(9)), at(1)), None, "it is registered by entry 10");
        assert_eq!(presence.on_event(PresenceEvent::Applied(&image(10, 10)), at(2)), None);
        let forgotten = presence.on_event(PresenceEvent::Applied(&nobody(11)), at(3));
        assert_eq!(forgotten, Some(PresenceEffect::Forgotten));
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_000)), None);
    }

    #[test]
    fn process_that_was_replaced_ends() {
        let mut presence = presence();
        let replaced = presence.on_event(PresenceEvent::Applied(&image(30, 30)), at(1));
        assert_eq!(replaced, Some(PresenceEffect::Replaced(BrokerEpoch(30))));
        assert_eq!(presence.on_event(PresenceEvent::Tick, at(2_000)), None);
    }
}
