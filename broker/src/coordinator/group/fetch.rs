//! OffsetFetch: how far has a group read?
//!
//! *Behaviour.* A partition without a committed offset is answered -1, and so is every partition of a group that does
//! not exist. An offset that was committed for another incarnation of the topic is ignored, even before its tombstone
//! is written: an offset of a deleted topic would make consumers of the new one skip records.
//!
//! *Versions.* 2: all topics of the group. 7: `require_stable`, always satisfied while no transaction can commit
//! offsets. 8: several groups, which the handler asks for one by one.

use std::sync::Arc;

use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId};

use super::Groups;
use super::message::{FetchRequest, FetchedOffset, FetchedTopic};
use crate::coordinator::record::CommittedOffset;

/// Whether a stored offset is of the topic's present incarnation. Records of some versions do not say which they are
/// of; those are believed.
fn is_current(stored: &CommittedOffset, topic_id: Option<TopicId>) -> bool {
    stored.topic_id.is_zero() || topic_id == Some(stored.topic_id)
}

impl Groups {
    /// Reads one group's committed offsets. `topic_id_of` gives a topic's present incarnation, `None` if it has none.
    pub fn fetch_offsets(
        &self,
        request: &FetchRequest,
        topic_id_of: impl Fn(&str) -> Option<TopicId>,
    ) -> Vec<FetchedTopic> {
        let offsets = self.hard.offsets(&request.group);
        let Some(topics) = &request.topics else {
            let every = offsets.into_iter().flatten().map(|(name, partitions)| {
                let topic_id = topic_id_of(name);
                let current = partitions.iter().filter(|(_, stored)| is_current(stored, topic_id));
                let partitions = current.map(|(partition, stored)| fetched(*partition, Some(stored))).collect();
                FetchedTopic { name: name.clone(), partitions }
            });
            return every.filter(|topic| !topic.partitions.is_empty()).collect();
        };
        let asked = topics.iter().map(|(name, partitions)| {
            let stored = offsets.and_then(|offsets| offsets.get(name));
            let topic_id = topic_id_of(name);
            let one = |partition: &PartitionIndex| {
                let stored = stored.and_then(|partitions| partitions.get(partition));
                fetched(*partition, stored.filter(|stored| is_current(stored, topic_id)))
            };
            FetchedTopic { name: name.clone(), partitions: partitions.iter().map(one).collect() }
        });
        asked.collect()
    }
}

fn fetched(partition: PartitionIndex, stored: Option<&CommittedOffset>) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: stored.map_or(Offset::NONE, |stored| stored.offset),
        leader_epoch: stored.map_or(LeaderEpoch::NONE, |stored| stored.leader_epoch),
        metadata: stored.map_or_else(|| Arc::from(""), |stored| stored.metadata.clone()),
    }
}
