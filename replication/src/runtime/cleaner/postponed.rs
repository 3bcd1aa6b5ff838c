//! Logs that the cleaner leaves alone for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use stonelog_protocol::TopicPartition;

/// Which, and until when. At most one entry for each log of a directory.
#[derive(Debug, Default)]
pub(super) struct Postponed(BTreeMap<TopicPartition, Instant>);

impl Postponed {
    /// A log is left alone until then.
    pub(super) fn postpone(&mut self, id: TopicPartition, until: Instant) {
        self.0.insert(id, until);
    }

    /// The logs that are left alone at a moment; the others are forgotten.
    pub(super) fn at(&mut self, now: Instant) -> Arc<[TopicPartition]> {
        self.0.retain(|_, until| *until > now);
        self.0.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;
    use crate::runtime::clock::Clock;

    #[test]
    fn a_log_is_left_alone_until_its_time_has_come() {
        let id = |index| TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(index) };
        let start = Clock.mono();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut postponed = Postponed::default();
        postponed.postpone(id(0), after(60));
        postponed.postpone(id(1), after(90));
        assert_eq!(*postponed.at(after(59)), [id(0), id(1)]);
        assert_eq!(*postponed.at(after(60)), [id(1)]);
        postponed.postpone(id(1), after(200));
        assert_eq!(*postponed.at(after(100)), [id(1)]);
        assert_eq!(*postponed.at(after(200)), []);
    }
}
