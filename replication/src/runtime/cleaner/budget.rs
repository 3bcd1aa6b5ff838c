//! What the cleaner may spend: bytes per second, and at most half of its thread's time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stonelog_storage::compaction::Pace;

use crate::runtime::clock::Clock;
use crate::runtime::directory::Directory;
use crate::runtime::space::Room;

/// How long one rest may be before it is looked whether to stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// A compaction rests as long as it worked, so that the disk and a core are free half of the time, but for one stretch of
/// work no longer than this: a device that is slow already is not made to wait for it.
const REST_MAX: Duration = Duration::from_millis(200);

/// Tells one compaction to stop at its next step.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// It stops soon, and changes nothing more.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// See the module's comment.
pub(super) struct Budget {
    directory: Arc<Directory>,
    stop: Stop,
    clock: Clock,
    bytes_per_second: f64,
    worked_since: Instant,
}

impl Budget {
    pub(super) fn new(directory: Arc<Directory>, stop: Stop, clock: Clock, bytes_per_second: f64) -> Budget {
        Budget { directory, stop, clock, bytes_per_second: bytes_per_second.max(1.0), worked_since: clock.mono() }
    }

    fn must_stop(&self) -> bool {
        let is_short = self.directory.space.room() != Room::Ample;
        self.stop.is_stopped() || is_short || self.directory.is_offline() || self.directory.is_stopping()
    }
}

impl Pace for Budget {
    fn spent(&mut self, bytes: u64) -> bool {
        let worked = self.clock.mono().duration_since(self.worked_since);
        let mut rest = rest_after(bytes, worked, self.bytes_per_second);
        while !rest.is_zero() && !self.must_stop() {
            let nap = rest.min(NAP_MAX);
            std::thread::sleep(nap);
            rest -= nap;
        }
        self.worked_since = self.clock.mono();
        !self.must_stop()
    }

    fn has_room(&mut self, bytes: u64) -> bool {
        room(&self.directory) >= bytes
    }
}

/// Bytes that may be written beside what there is: what is free must stay above the watermark, or producers would be
/// refused for a log that got smaller. A measurement that fails says nothing.
pub(super) fn room(directory: &Directory) -> u64 {
    let space = directory.disk.space(&directory.path);
    space.map_or(u64::MAX, |space| space.usable_bytes.saturating_sub(directory.space.enough()))
}

/// How long to rest after so much work.
fn rest_after(bytes: u64, worked: Duration, bytes_per_second: f64) -> Duration {
    let due = Duration::try_from_secs_f64(bytes as f64 / bytes_per_second).unwrap_or(Duration::MAX);
    due.saturating_sub(worked).max(worked.min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_make_up_for_the_bytes_and_are_never_shorter_than_the_work() {
        let ms = Duration::from_millis;
        assert_eq!(rest_after(1_000_000, ms(10), 1e6), ms(990));
        assert_eq!(rest_after(1_000_000, ms(10), f64::MAX), ms(10));
        assert_eq!(rest_after(1_000_000, ms(3_000), 1e6), REST_MAX);
        assert_eq!(rest_after(0, Duration::ZERO, 1.0), Duration::ZERO);
    }
}
