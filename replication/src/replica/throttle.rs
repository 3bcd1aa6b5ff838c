//! How fast replicas that are not in sync are fed: Kafka's replication quotas (`ReplicationQuotaManager`).
//!
//! Pure: time is an argument. What has passed is owed and paid off at the rate; while more than a moment's worth is owed,
//! nothing more passes. So over any time no more passes than the rate allows in it, and a moment's worth, and one message.
//! Everything throttled is recorded, that of replicas in sync too, which nothing ever holds up.

use std::time::{Duration, Instant};

/// What may be owed while more passes, as time at the rate: who asks again only now and then does not fall below the rate.
pub const MOMENT: Duration = Duration::from_millis(100);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// One direction of a broker: what it sends as a leader, or fetches as a follower.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Bytes in a second; `None` throttles nothing.
    rate: Option<u64>,
    /// Bytes that have passed and are not paid off by `paid_at`.
    owed: u64,
    paid_at: Instant,
}

impl Throttle {
    /// One that throttles nothing.
    pub fn unlimited(now: Instant) -> Throttle {
        Throttle { rate: None, owed: 0, paid_at: now }
    }

    /// The rate is another one from now on; what is owed is paid at that.
    pub fn set_rate(&mut self, rate: Option<u64>, now: Instant) {
        if rate != self.rate {
            self.pay(now);
            self.rate = rate;
        }
    }

    /// Whether nothing more passes for now. At a rate of 0 nothing ever does.
    pub fn is_exceeded(&mut self, now: Instant) -> bool {
        self.pay(now);
        let Some(rate) = self.rate else { return false };
        let moment = u128::from(rate) * MOMENT.as_nanos() / NANOS_PER_SECOND;
        rate == 0 || u128::from(self.owed) > moment
    }

    /// So many bytes pass, allowed or not.
    pub fn record(&mut self, bytes: usize, now: Instant) {
        self.pay(now);
        if self.rate.is_some() {
            self.owed = self.owed.saturating_add(bytes as u64);
        }
    }

    fn pay(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.paid_at);
        let Some(rate) = self.rate else {
            self.owed = 0;
            self.paid_at = self.paid_at.max(now);
            return;
        };
        let paid = elapsed.as_nanos() * u128::from(rate) / NANOS_PER_SECOND;
        match u64::try_from(paid) {
            Ok(paid) if paid < self.owed => {
                self.owed -= paid;
                // Only the time that whole bytes took: the rest counts next time.
                let nanos = (u128::from(paid) * NANOS_PER_SECOND).div_ceil(u128::from(rate.max(1)));
                self.paid_at += Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(elapsed);
            }
            _ => {
                self.owed = 0;
                self.paid_at = self.paid_at.max(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 64 << 10;

    fn start() -> Instant {
        crate::runtime::clock::Clock.mono()
    }

    /// Passes messages whenever it may, asked every `look`; the bytes that passed within `time`.
    fn passed(throttle: &mut Throttle, from: Instant, time: Duration, look: Duration) -> u64 {
        let (mut now, mut passed) = (from, 0);
        while now < from + time {
            while !throttle.is_exceeded(now) && passed < 1 << 40 {
                throttle.record(MESSAGE, now);
                passed += MESSAGE as u64;
            }
            now += look;
        }
        passed
    }

    fn limited(rate: u64, now: Instant) -> Throttle {
        let mut throttle = Throttle::unlimited(now);
        throttle.set_rate(Some(rate), now);
        throttle
    }

    #[test]
    fn over_any_time_no_more_passes_than_the_rate_and_a_moments_worth_and_one_message() {
        for rate in [10_000, 1 << 20, 100 << 20] {
            for look in [1, 20, 50].map(Duration::from_millis) {
                let now = start();
                let time = Duration::from_secs(60);
                let passed = passed(&mut limited(rate, now), now, time, look);
                let allowed = rate * 60 + rate / 10 + MESSAGE as u64;
                assert!(passed <= allowed, "{passed} of {allowed} at {rate}, looked at every {look:?}");
                assert!(passed + MESSAGE as u64 >= rate * 59, "{passed} at {rate}, looked at every {look:?}");
            }
        }
    }

    #[test]
    fn what_is_due_is_paid_however_often_it_is_looked_at() {
        let now = start();
        let mut slow = limited(1, now);
        slow.record(3, now);
        let looks = (1..=3_000).map(|ms| now + Duration::from_millis(ms));
        let free = looks.clone().find(|look| !slow.is_exceeded(*look));
        assert_eq!(free, Some(now + Duration::from_secs(3)));
        assert!(!looks.clone().any(|look| slow.is_exceeded(look)));
    }

    #[test]
    fn nothing_saved_up_while_nothing_passes_is_spent_at_once() {
        let now = start();
        let mut throttle = limited(1 << 20, now);
        let later = now + Duration::from_secs(3_600);
        assert!(!throttle.is_exceeded(later));
        let second = Duration::from_secs(1);
        assert!(
            passed(&mut throttle, later, second, Duration::from_millis(1))
                <= (1 << 20) + (1 << 20) / 10 + MESSAGE as u64
        );
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_pass_and_no_rate_everything() {
        let now = start();
        assert!(limited(0, now).is_exceeded(now));
        let mut throttle = Throttle::unlimited(now);
        throttle.record(1 << 30, now);
        assert!(!throttle.is_exceeded(now));
        throttle.set_rate(Some(1), now);
        assert!(!throttle.is_exceeded(now), "what passed before there was a rate is not owed");
        throttle.record(1_000, now);
        assert!(throttle.is_exceeded(now + Duration::from_secs(10)));
        throttle.set_rate(Some(1_000), now + Duration::from_secs(10));
        assert!(!throttle.is_exceeded(now + Duration::from_secs(11)), "what is owed is paid at the new rate");
        throttle.record(1 << 30, now);
        throttle.set_rate(None, now + Duration::from_secs(12));
        assert!(!throttle.is_exceeded(now + Duration::from_secs(12)));
    }
}
