//! What the log of one `__consumer_offsets` partition says: committed offsets and stored group metadata.
//!
//! [`HardState::apply`] is the only writer, so that the state always equals its replay, compacted or not. Everything
//! else about a group (who is joining, who was heard of when) is soft and lives in [`super::live`].

use std::collections::BTreeMap;
use std::sync::Arc;

use stonelog_protocol::PartitionIndex;

use super::names::GroupId;
use crate::coordinator::record::{CommittedOffset, GroupMetadata, Record};

/// Committed offsets by topic name and partition.
pub type Offsets = BTreeMap<Arc<str>, BTreeMap<PartitionIndex, CommittedOffset>>;

/// What the log says about one group. At least one of the two is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardGroup {
    /// The newest group record; `None` for a group that has only committed offsets.
    pub metadata: Option<GroupMetadata>,
    /// What the group has committed.
    pub offsets: Offsets,
}

/// What the log says about every group of the partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    groups: BTreeMap<GroupId, HardGroup>,
}

impl HardState {
    /// Applies one record of the log.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Offset { group, topic, partition, value: Some(value) } => {
                let offsets = &mut self.groups.entry(group.clone()).or_default().offsets;
                match offsets.get_mut(topic) {
                    Some(partitions) => {
                        partitions.insert(*partition, value.clone());
                    }
                    None => {
                        offsets.insert(topic.clone(), BTreeMap::from([(*partition, value.clone())]));
                    }
                }
            }
            Record::Offset { group, topic, partition, value: None } => {
                let Some(hard) = self.groups.get_mut(group) else { return };
                if let Some(partitions) = hard.offsets.get_mut(topic) {
                    partitions.remove(partition);
                    if partitions.is_empty() {
                        hard.offsets.remove(topic);
                    }
                }
                self.drop_if_gone(group);
            }
            Record::Group { group, value: Some(value) } => {
                self.groups.entry(group.clone()).or_default().metadata = Some(value.clone());
            }
            Record::Group { group, value: None } => {
                let Some(hard) = self.groups.get_mut(group) else { return };
                hard.metadata = None;
                self.drop_if_gone(group);
            }
        }
    }

    fn drop_if_gone(&mut self, group: &GroupId) {
        if self.groups.get(group).is_some_and(|hard| hard.metadata.is_none() && hard.offsets.is_empty()) {
            self.groups.remove(group);
        }
    }

    /// What the log says about one group.
    pub fn get(&self, group: &GroupId) -> Option<&HardGroup> {
        self.groups.get(group)
    }

    /// Every group of the log, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupId, &HardGroup)> {
        self.groups.iter()
    }

    pub(super) fn metadata(&self, group: &GroupId) -> Option<&GroupMetadata> {
        self.groups.get(group)?.metadata.as_ref()
    }

    pub(super) fn offsets(&self, group: &GroupId) -> Option<&Offsets> {
        self.groups.get(group).map(|hard| &hard.offsets)
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{LeaderEpoch, Offset, Timestamp, TopicId};

    use super::*;

    fn offset(partition: i32, value: Option<i64>) -> Record {
        Record::Offset {
            group: GroupId::new("g").unwrap(),
            topic: Arc::from("t"),
            partition: PartitionIndex(partition),
            value: value.map(|offset| CommittedOffset {
                offset: Offset(offset),
                leader_epoch: LeaderEpoch::NONE,
                metadata: Arc::from(""),
                commit_timestamp: Timestamp(1),
                expire_timestamp: None,
                topic_id: TopicId::ZERO,
            }),
        }
    }

    fn metadata(value: bool) -> Record {
        Record::Group {
            group: GroupId::new("g").unwrap(),
            value: value.then(|| GroupMetadata {
                protocol_type: Arc::from("consumer"),
                generation: 1,
                protocol: None,
                leader: None,
                state_timestamp: None,
                members: Vec::new(),
            }),
        }
    }

    #[test]
    fn a_group_is_gone_when_its_last_record_is() {
        let mut hard = HardState::default();
        for record in [metadata(true), offset(0, Some(1)), offset(1, Some(2)), offset(0, Some(3))] {
            hard.apply(&record);
        }
        let group = GroupId::new("g").unwrap();
        assert_eq!(hard.get(&group).unwrap().offsets["t"][&PartitionIndex(0)].offset, Offset(3));
        for record in [offset(0, None), metadata(false), offset(0, None)] {
            hard.apply(&record);
        }
        assert_eq!(hard.get(&group).unwrap().offsets["t"].len(), 1);
        hard.apply(&offset(1, None));
        assert_eq!(hard, HardState::default());
        hard.apply(&offset(1, None));
        hard.apply(&metadata(false));
        assert_eq!(hard, HardState::default());
    }
}
