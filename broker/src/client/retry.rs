//! How long to go on trying, and how long to wait between tries.

use std::time::{Duration, Instant};

use super::clock;

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_000);

/// A bounded series of tries with pauses that double from 20 ms to 1 s.
#[derive(Debug)]
pub struct Retry {
    deadline: Instant,
    next_pause: Duration,
}

impl Retry {
    /// Tries until `limit` from now.
    pub fn within(limit: Duration) -> Retry {
        Retry { deadline: clock::now() + limit, next_pause: FIRST_PAUSE }
    }

    /// Whether the deadline has passed.
    pub fn is_over(&self) -> bool {
        clock::now() >= self.deadline
    }

    /// Pauses and answers true, or answers false at once when no time is left for another try.
    pub async fn pause(&mut self) -> bool {
        match self.plan_pause(clock::now()) {
            Some(pause) => {
                tokio::time::sleep(pause).await;
                true
            }
            None => false,
        }
    }

    /// The pause before the next try, cut at the deadline; `None` after it.
    fn plan_pause(&mut self, now: Instant) -> Option<Duration> {
        let remaining = self.deadline.saturating_duration_since(now);
        if remaining.is_zero() {
            return None;
        }
        let pause = self.next_pause.min(remaining);
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_deadline() {
        let start = clock::now();
        let mut retry = Retry { deadline: start + Duration::from_millis(100), next_pause: FIRST_PAUSE };
        let mut now = start;
        let mut pauses = Vec::new();
        while let Some(pause) = retry.plan_pause(now) {
            pauses.push(pause.as_millis());
            now += pause;
        }
        assert_eq!(pauses, [20, 40, 40]);
    }
}
