//! Logs that the cleaner leaves alone for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stonelog_protocol::TopicPartition;

/// How long a log is left alone that had no room to be written anew, whatever room there is.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How long it is left alone while there is less room than it wanted: it is read whole to find that out anew, and may want
/// less by then.
const READ_AGAIN: Duration = Duration::from_secs(3600);

/// Which logs, and until when. At most one entry for each log of a directory.
#[derive(Debug, Default)]
pub(super) struct Postponed(BTreeMap<TopicPartition, Wait>);

#[derive(Debug)]
struct Wait {
    since: Instant,
    /// Room that it would have needed.
    bytes: u64,
}

impl Postponed {
    /// A log that would have needed so much room is left alone for a while.
    pub(super) fn postpone(&mut self, id: TopicPartition, bytes: u64, now: Instant) {
        self.0.insert(id, Wait { since: now, bytes });
    }

    /// The logs that are left alone at a moment, with so much room; the others are forgotten.
    pub(super) fn at(&mut self, now: Instant, room: u64) -> Arc<[TopicPartition]> {
        self.0.retain(|_, wait| {
            let waited = now.duration_since(wait.since);
            waited < LOOK_AGAIN || (room < wait.bytes && waited < READ_AGAIN)
        });
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn a_log_without_room_is_read_again_when_there_is_room_or_after_an_hour() {
        let id = |index| TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(index) };
        let start = Clock.mono();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut postponed = Postponed::default();
        postponed.postpone(id(0), 1_000, start);
        postponed.postpone(id(1), 5_000, start);
        assert_eq!(*postponed.at(after(59), u64::MAX), [id(0), id(1)]);
        assert_eq!(*postponed.at(after(60), 1_000), [id(1)]);
        postponed.postpone(id(0), 1_000, after(100));
        assert_eq!(*postponed.at(after(3_599), 999), [id(0), id(1)]);
        assert_eq!(*postponed.at(after(3_600), 999), [id(0)]);
        assert_eq!(*postponed.at(after(3_700), 999), []);
    }
}
