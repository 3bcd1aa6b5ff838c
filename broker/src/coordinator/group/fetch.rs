//! OffsetFetch: how far has a group read?
//!
//! *Behaviour.* A partition without a committed offset is answered -1, and so is every partition of a group that does
//! not exist. An offset that was committed for another incarnation of the topic is ignored, even before its tombstone
//! is written: an offset of a deleted topic would make consumers of the new one skip records. A partition that is named
//! twice is answered once; Kafka repeats it.
//!
//! *Versions.* 2: all topics of the group. 7: `require_stable`, always satisfied while no transaction can commit
//! offsets. 8: several groups, which the handler asks for one by one.

use std::collections::HashSet;
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
        // Each partition is answered once: what was committed may be a thousand times as long as its number.
        let mut seen = HashSet::new();
        let asked = topics.iter().map(|(name, partitions)| {
            let stored = offsets.and_then(|offsets| offsets.get(name));
            let topic_id = topic_id_of(name);
            let one = |partition: &PartitionIndex| {
                let stored = stored.and_then(|partitions| partitions.get(partition));
                fetched(*partition, stored.filter(|stored| is_current(stored, topic_id)))
            };
            let first = partitions.iter().filter(|partition| seen.insert((name, **partition)));
            FetchedTopic { name: name.clone(), partitions: first.map(one).collect() }
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

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::super::message::{CommitRequest, CommitTopic};
    use super::super::names::MemberId;
    use super::super::testing::{TOPIC_ID, World, commit_request, group};
    use super::*;

    #[test]
    fn a_partition_that_is_named_twice_is_answered_once() {
        let world = committed();
        let asked: Vec<(Arc<str>, Vec<PartitionIndex>)> = vec![
            (Arc::from("t"), vec![PartitionIndex(0), PartitionIndex(1), PartitionIndex(0)]),
            (Arc::from("t"), vec![PartitionIndex(0)]),
        ];
        let request = FetchRequest { group: group("g"), topics: Some(asked) };
        let fetched = world.groups.fetch_offsets(&request, |_| Some(TOPIC_ID));
        assert_eq!(fetched.iter().map(|topic| topic.partitions.len()).collect::<Vec<_>>(), [2, 0]);
    }

    fn committed() -> World {
        let mut world = World::new();
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        let other = CommitTopic { name: Arc::from("u"), topic_id: Uuid([8; 16]), ..request.topics[0].clone() };
        request.topics[0].partitions[0].metadata = Some(Arc::from("note"));
        request.topics.push(other);
        world.commit(request);
        world
    }

    #[test]
    fn what_was_committed_is_fetched_and_what_was_not_is_minus_one() {
        let world = committed();
        let partitions = vec![PartitionIndex(0), PartitionIndex(1)];
        let topics = vec![(Arc::from("t"), partitions.clone()), (Arc::from("v"), partitions[..1].to_vec())];
        let request = FetchRequest { group: group("g"), topics: Some(topics) };
        let fetched = world.groups.fetch_offsets(&request, |_| Some(TOPIC_ID));
        let none = |partition| FetchedOffset {
            partition: PartitionIndex(partition),
            offset: Offset(-1),
            leader_epoch: LeaderEpoch(-1),
            metadata: Arc::from(""),
        };
        let stored =
            FetchedOffset { offset: Offset(3), leader_epoch: LeaderEpoch(1), metadata: Arc::from("note"), ..none(0) };
        assert_eq!(
            fetched,
            [
                FetchedTopic { name: Arc::from("t"), partitions: vec![stored, none(1)] },
                FetchedTopic { name: Arc::from("v"), partitions: vec![none(0)] },
            ]
        );
        let nobody = FetchRequest { group: group("nobody"), ..request };
        let fetched = world.groups.fetch_offsets(&nobody, |_| Some(TOPIC_ID));
        assert_eq!(fetched[0].partitions, [none(0), none(1)]);
    }

    #[test]
    fn everything_is_fetched_when_no_topic_is_named() {
        let world = committed();
        let request = FetchRequest { group: group("g"), topics: None };
        let ids = |name: &str| Some(if name == "t" { TOPIC_ID } else { Uuid([8; 16]) });
        let fetched = world.groups.fetch_offsets(&request, ids);
        assert_eq!(fetched.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), ["t", "u"]);
        let nobody = FetchRequest { group: group("nobody"), topics: None };
        assert!(world.groups.fetch_offsets(&nobody, ids).is_empty());
    }

    #[test]
    fn an_offset_of_another_incarnation_of_the_topic_is_ignored() {
        let world = committed();
        let named = FetchRequest { group: group("g"), topics: Some(vec![(Arc::from("t"), vec![PartitionIndex(0)])]) };
        for present in [Some(Uuid([6; 16])), None] {
            assert_eq!(world.groups.fetch_offsets(&named, |_| present)[0].partitions[0].offset, Offset::NONE);
            let all = FetchRequest { group: group("g"), topics: None };
            assert!(world.groups.fetch_offsets(&all, |_| present).is_empty());
        }
    }

    #[test]
    fn an_offset_that_does_not_say_its_incarnation_is_believed() {
        let mut world = World::new();
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        request.topics[0].topic_id = TopicId::ZERO;
        world.commit(request);
        assert_eq!(world.fetch(), Offset(3));
    }

    #[test]
    fn an_offset_with_a_retention_time_of_its_own_is_of_one_incarnation_too() {
        let mut world = World::new();
        world.commit(CommitRequest { retention_ms: Some(1_000), ..commit_request(-1, &MemberId::unknown(), 3) });
        assert_eq!(world.fetch(), Offset(3));
        let named = FetchRequest { group: group("g"), topics: Some(vec![(Arc::from("t"), vec![PartitionIndex(0)])]) };
        let successor = Some(Uuid([6; 16]));
        assert_eq!(world.groups.fetch_offsets(&named, |_| successor)[0].partitions[0].offset, Offset::NONE);
    }
}
