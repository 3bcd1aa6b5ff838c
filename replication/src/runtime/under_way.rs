//! What a directory's threads ask of its device at this moment, and since when.
//!
//! A device that hangs returns no error: it shows itself by an operation that does not end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::clock::Clock;

/// Writes and syncs that have begun and not ended, at most one for each thread.
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

impl UnderWay {
    /// An operation begins.
    pub fn begin(&self) -> Operation<'_> {
        let mut begun = self.lock();
        let number = begun.next;
        begun.next += 1;
        begun.since.insert(number, Clock.mono());
        Operation { all: self, number }
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
        drop(second);
        assert_eq!(all.oldest(), None);
    }
}
