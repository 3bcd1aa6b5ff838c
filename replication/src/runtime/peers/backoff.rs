//! When to dial again: pure.
//!
//! The first failure is forgiven quickly, for a restarted node is back soon; then the pause doubles up to a bound that is
//! below an election timeout, so that a node that returns is found before anybody stands for election over it.

use std::time::Duration;

/// The pause after the first failure.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause, before it is varied.
const PAUSE_MAX: Duration = Duration::from_millis(240);

/// The failures of one link. Times are since any fixed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    not_before: Duration,
}

impl Backoff {
    /// Whether a connection may be tried.
    pub fn may_dial(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// An attempt failed. `variation` is random; it makes the pause up to a quarter shorter or longer, so that nodes
    /// that lost each other together do not all dial together.
    pub fn on_failure(&mut self, now: Duration, variation: u8) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(8)).min(PAUSE_MAX);
        // From three quarters to five quarters.
        let varied = pause * (384 + u32::from(variation)) / 512;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + varied;
    }

    /// An attempt succeeded.
    pub fn on_success(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(backoff: &mut Backoff, now: Duration, variation: u8) -> Duration {
        backoff.on_failure(now, variation);
        backoff.not_before - now
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::default();
        assert!(backoff.may_dial(Duration::ZERO));
        let now = Duration::from_secs(5);
        let pauses: Vec<_> = (0..6).map(|_| pause(&mut backoff, now, 128).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 240, 240]);
        assert!(!backoff.may_dial(now + Duration::from_millis(239)));
        assert!(backoff.may_dial(now + Duration::from_millis(240)));
        backoff.on_success();
        assert!(backoff.may_dial(Duration::ZERO));
        assert_eq!(pause(&mut backoff, now, 128).as_millis(), 20);
    }

    #[test]
    fn pauses_vary_by_a_quarter() {
        let shortest = pause(&mut Backoff::default(), Duration::ZERO, 0);
        let longest = pause(&mut Backoff::default(), Duration::ZERO, 255);
        assert!(
            shortest == Duration::from_millis(15) && longest > Duration::from_millis(24),
            "{shortest:?} {longest:?}"
        );
    }

    #[test]
    fn a_long_outage_overflows_nothing() {
        let mut backoff = Backoff { failures: u32::MAX, ..Backoff::default() };
        backoff.on_failure(Duration::from_secs(1), 255);
        assert!(backoff.may_dial(Duration::from_secs(2)));
    }
}
