//! What a directory's threads ask of its device at this moment, and since when.
//!
//! A device that hangs returns no error: it shows itself by an operation that does not end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::clock::Clock;

/// What has begun and not ended, at most one operation for each thread.
#[derive(Debug, Default)]
pub struct UnderWay {
    begun: Mutex<Begun>,
}

#[derive(Debug, Default)]
struct Begun {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// One operation; it ends when this is dropped.
#[must_use = "the operation ends when this is dropped"]
pub struct Operation<'a> {
    all: &'a UnderWay,
    number: u64,
}

impl Operation<'_> {
    /// The device has done a part of it: it counts from now on.
    pub fn goes_on(&mut self) {
        let mut begun = self.all.lock();
        begun.since.remove(&self.number);
        self.number = begun.begin();
    }
}

impl Begun {
    fn begin(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.since.insert(number, Clock.mono());
        number
    }
}

impl UnderWay {
    /// An operation begins.
    pub fn begin(&self) -> Operation<'_> {
        let number = self.lock().begin();
        Operation { all: self, number }
    }

    /// Does `operation` as one.
    pub fn during<T>(&self, operation: impl FnOnce() -> T) -> T {
        let _operation = self.begin();
        operation()
    }

    /// Since when the oldest operation has been under way.
    pub fn oldest(&self) -> Option<Instant> {
        self.lock().since.first_key_value().map(|(_, since)| *since)
    }

    fn lock(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.all.lock().since.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_operation_is_the_one_that_began_first_and_has_not_ended() {
        let all = UnderWay::default();
        assert_eq!(all.oldest(), None);
        let first = all.begin();
        let since = all.oldest().unwrap();
        let second = all.begin();
        assert_eq!(all.oldest(), Some(since));
        drop(first);
        assert!(all.oldest().unwrap() >= since);
        let mut third = all.begin();
        let before = all.oldest().unwrap();
        drop(second);
        let since = all.oldest().unwrap();
        assert!(since >= before);
        let fourth = all.begin();
        third.goes_on();
        drop(fourth);
        assert!(all.oldest().unwrap() >= since, "what goes on began later than what was begun before");
        drop(third);
        assert_eq!(all.oldest(), None);
    }
}
