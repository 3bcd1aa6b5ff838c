//! The broker's two throttles on replication, which all lanes share. Asked only for replicas that are throttled.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::metadata::ConfigValues;
use crate::replica::Throttle;

/// See [`Throttle`].
pub struct Throttles {
    leader: Mutex<Throttle>,
    follower: Mutex<Throttle>,
}

impl Throttles {
    pub(super) fn unlimited(now: Instant) -> Throttles {
        let throttle = || Mutex::new(Throttle::unlimited(now));
        Throttles { leader: throttle(), follower: throttle() }
    }

    /// What this broker sends to followers.
    pub(super) fn leader(&self) -> MutexGuard<'_, Throttle> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this broker fetches from leaders.
    pub(super) fn follower(&self) -> MutexGuard<'_, Throttle> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is set of the broker's keys, its own values and the cluster's.
    pub(super) fn set(&self, settings: &ConfigValues, now: Instant) {
        // The default is the greatest number there is: no limit.
        let rate = |key: &str| settings.get(key)?.trim().parse().ok().filter(|rate| *rate < i64::MAX as u64);
        self.leader().set_rate(rate("leader.replication.throttled.rate"), now);
        self.follower().set_rate(rate("follower.replication.throttled.rate"), now);
    }
}
