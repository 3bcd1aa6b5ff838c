//! The coordinator's alarms: sessions, join phases, sync phases. An ordered set of moments, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::names::{GroupId, MemberId};

/// A moment on the monotonic clock of this process, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// This moment moved later.
    pub fn after(self, delay: Duration) -> MonoMillis {
        MonoMillis(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// What an alarm is about. There is at most one alarm of each name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A member, or one who has only been given an id, has been silent for too long.
    Session(GroupId, MemberId),
    /// The join phase has lasted long enough.
    Join(GroupId),
    /// The members have had long enough to ask for their assignment.
    Sync(GroupId),
}

/// The alarms that are set.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    /// Ordered by moment.
    due: BTreeSet<(MonoMillis, Alarm)>,
    /// The same alarms by name.
    by_alarm: BTreeMap<Alarm, MonoMillis>,
}

impl Timers {
    /// Sets an alarm, replacing one of the same name.
    pub(super) fn set(&mut self, alarm: Alarm, at: MonoMillis) {
        self.cancel(&alarm);
        self.by_alarm.insert(alarm.clone(), at);
        self.due.insert((at, alarm));
    }

    pub(super) fn cancel(&mut self, alarm: &Alarm) {
        if let Some((alarm, at)) = self.by_alarm.remove_entry(alarm) {
            self.due.remove(&(at, alarm));
        }
    }

    /// The earliest alarm's moment.
    pub(super) fn next(&self) -> Option<MonoMillis> {
        self.due.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub(super) fn is_set(&self, alarm: &Alarm) -> bool {
        self.by_alarm.contains_key(alarm)
    }

    /// Takes the earliest alarm if its moment has come.
    pub(super) fn pop_due(&mut self, now: MonoMillis) -> Option<Alarm> {
        if self.next()? > now {
            return None;
        }
        let (_, alarm) = self.due.pop_first()?;
        self.by_alarm.remove(&alarm);
        Some(alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_an_alarm_again_moves_it() {
        let group = GroupId::new("g").unwrap();
        let mut timers = Timers::default();
        timers.set(Alarm::Join(group.clone()), MonoMillis(5));
        timers.set(Alarm::Sync(group.clone()), MonoMillis(6));
        timers.set(Alarm::Join(group.clone()), MonoMillis(9));
        assert_eq!(timers.next(), Some(MonoMillis(6)));
        assert_eq!(timers.pop_due(MonoMillis(5)), None);
        assert_eq!(timers.pop_due(MonoMillis(9)), Some(Alarm::Sync(group.clone())));
        assert_eq!(timers.pop_due(MonoMillis(9)), Some(Alarm::Join(group.clone())));
        assert_eq!(timers.pop_due(MonoMillis(99)), None);
        timers.set(Alarm::Join(group.clone()), MonoMillis(1));
        timers.cancel(&Alarm::Join(group));
        assert_eq!(timers.next(), None);
    }
}
