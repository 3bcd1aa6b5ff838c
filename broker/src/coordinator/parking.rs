//! Answers that wait until what they rest on is committed (DESIGN.md §2 rule 15).
//!
//! A coordinator applies records when they are appended, so its state is ahead of what is committed. Whatever it says,
//! reads included, therefore waits until the high watermark has passed every record applied before it was said; at
//! most `offsets.commit.timeout.ms`, after which the client is told COORDINATOR_NOT_AVAILABLE and asks again.
//!
//! Invariants: positions and deadlines never go down from front to back, so both ends of waiting look at the front
//! only.

use std::collections::VecDeque;
use std::time::Duration;

use stonelog_protocol::Offset;

use super::group::MonoMillis;

/// Answers one coordinator partition may have waiting. Each belongs to a request whose bytes were paid for when its
/// frame was read; this only keeps a log that has stopped from gathering them for ever.
pub const PARKED_MAX: usize = 100_000;

/// Things that wait for the high watermark.
#[derive(Debug)]
pub struct Parking<T> {
    timeout: Duration,
    waiting: VecDeque<Parked<T>>,
}

#[derive(Debug)]
struct Parked<T> {
    /// End of the last record it rests on.
    end: Offset,
    deadline: MonoMillis,
    what: T,
}

impl<T> Parking<T> {
    /// Nothing waits yet; what will, waits at most `timeout`.
    pub fn new(timeout: Duration) -> Parking<T> {
        Parking { timeout, waiting: VecDeque::new() }
    }

    /// Parks `what` until the high watermark reaches `end`, the end of the last record that was applied.
    ///
    /// # Errors
    /// Gives `what` back when too much waits already.
    ///
    /// # Panics
    /// If `end` or `now` is before that of something parked earlier.
    pub fn park(&mut self, end: Offset, now: MonoMillis, what: T) -> Result<(), T> {
        if self.waiting.len() >= PARKED_MAX {
            return Err(what);
        }
        let deadline = now.after(self.timeout);
        if let Some(last) = self.waiting.back() {
            assert!(last.end <= end && last.deadline <= deadline, "what is applied, and time, only grow");
        }
        self.waiting.push_back(Parked { end, deadline, what });
        Ok(())
    }

    /// What may be said now that everything below `high_watermark` is committed, oldest first.
    pub fn on_high_watermark(&mut self, high_watermark: Offset) -> Vec<T> {
        self.take_while(|parked| parked.end <= high_watermark)
    }

    /// What has waited for too long, oldest first.
    pub fn on_time(&mut self, now: MonoMillis) -> Vec<T> {
        self.take_while(|parked| parked.deadline <= now)
    }

    /// When [`Parking::on_time`] has something to give.
    pub fn next_deadline(&self) -> Option<MonoMillis> {
        self.waiting.front().map(|parked| parked.deadline)
    }

    /// Everything that waits, when the log is not ours any more.
    pub fn drain(&mut self) -> Vec<T> {
        self.take_while(|_| true)
    }

    fn take_while(&mut self, may_go: impl Fn(&Parked<T>) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        while let Some(parked) = self.waiting.pop_front_if(|parked| may_go(parked)) {
            gone.push(parked.what);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked() -> Parking<char> {
        let mut parking = Parking::new(Duration::from_millis(5_000));
        for (end, now, what) in [(3, 10, 'a'), (3, 11, 'b'), (5, 11, 'c')] {
            parking.park(Offset(end), MonoMillis(now), what).unwrap();
        }
        parking
    }

    #[test]
    fn answers_wait_for_the_end_of_what_they_rest_on() {
        let mut parking = parked();
        assert_eq!(parking.on_high_watermark(Offset(2)), []);
        assert_eq!(parking.on_high_watermark(Offset(3)), ['a', 'b']);
        assert_eq!(parking.on_high_watermark(Offset(9)), ['c']);
        assert_eq!(parking.next_deadline(), None);
    }

    #[test]
    fn answers_that_wait_too_long_are_given_up() {
        let mut parking = parked();
        assert_eq!(parking.next_deadline(), Some(MonoMillis(5_010)));
        assert_eq!(parking.on_time(MonoMillis(5_009)), []);
        assert_eq!(parking.on_time(MonoMillis(5_010)), ['a']);
        assert_eq!(parking.drain(), ['b', 'c']);
    }

    #[test]
    fn no_more_wait_than_the_limit() {
        let mut parking = Parking::new(Duration::ZERO);
        for at in 0..PARKED_MAX {
            assert_eq!(parking.park(Offset(1), MonoMillis(0), at), Ok(()));
        }
        assert_eq!(parking.park(Offset(1), MonoMillis(0), 7), Err(7));
    }

    #[test]
    #[should_panic(expected = "only grow")]
    fn a_position_before_the_last_is_a_bug() {
        let _ = parked().park(Offset(4), MonoMillis(11), 'd');
    }
}
