//! Which of a broker's replicas need another home, because the directory that they belong into is gone for good: pure.
//!
//! A replica belongs to a directory id (rule 12). When a disk is replaced its directory comes back empty, under a new id:
//! the replica would be absent for ever, and its partition one copy short. The broker then asks for a directory that it
//! has; the controller grants it where another member leads, for the copy that is given up may have been whole.
//!
//! A directory that has failed, or could not be used at the start, is not gone: it keeps its replicas. Nothing is moved
//! while there is one that cannot say which it is, for it could be the one that is missed. Not here: asking, and when.

use std::collections::HashMap;

use stonelog_protocol::{BrokerId, DirectoryId, TopicPartition};

use crate::metadata::MetadataImage;

/// What a broker knows of its log directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnDirectories {
    /// Those that work.
    pub online: Vec<DirectoryId>,
    /// Those that have failed, or could not be used, and may come back.
    pub absent: Vec<DirectoryId>,
    /// Whether there is one that could not be used and whose identity is not known.
    pub has_unknown: bool,
}

/// The replicas of a broker whose directory is none of its own any more, each with the one it shall have: that with the
/// fewest replicas. At most `count_max`, and only of partitions that another broker leads.
pub fn plan_homes(
    image: &MetadataImage,
    broker: BrokerId,
    own: &OwnDirectories,
    count_max: usize,
) -> Vec<(TopicPartition, DirectoryId)> {
    if own.has_unknown || own.online.is_empty() {
        return Vec::new();
    }
    let mut held: HashMap<DirectoryId, usize> = HashMap::new();
    let mut homeless = Vec::new();
    for (topic, index, partition) in image.partitions() {
        let Some(home) = partition.directory_of(broker) else { continue };
        if own.online.contains(&home) || own.absent.contains(&home) {
            *held.entry(home).or_default() += 1;
        } else if image.is_led(partition) && partition.leader != Some(broker) && homeless.len() < count_max {
            homeless.push(TopicPartition { topic_id: topic.id, partition: index });
        }
    }
    let mut take = || {
        let count = |id: &&DirectoryId| held.get(id).copied().unwrap_or(0);
        let emptiest = *own.online.iter().min_by_key(count).expect("there is one, by the check above");
        *held.entry(emptiest).or_default() += 1;
        emptiest
    };
    homeless.into_iter().map(|partition| (partition, take())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::record::{PartitionRecord, RegisterBroker, TopicRecord};
    use crate::metadata::{DirectoryRegistration, MetadataRecord, PartitionRegistration, RecoveryState, Verdict};
    use stonelog_protocol::{BrokerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid};

    const TOPIC: Uuid = Uuid([9; 16]);
    const ME: BrokerId = BrokerId(1);

    fn id(n: u8) -> DirectoryId {
        Uuid([n; 16])
    }

    /// Partitions on this broker and another, each in this directory here and led by that broker, if any.
    fn image(partitions: &[(u8, Option<i32>)]) -> MetadataImage {
        let register = |broker: i32, directory: u8| {
            MetadataRecord::RegisterBroker(RegisterBroker {
                id: BrokerId(broker),
                incarnation: id(100 + directory),
                epoch: Some(BrokerEpoch(1)),
                endpoints: Vec::new(),
                rack: None,
                fenced: false,
                in_controlled_shutdown: false,
                directories: vec![DirectoryRegistration { id: id(directory), verdict: Verdict::Proved }],
                differing: Vec::new(),
                unfenced_with: Vec::new(),
            })
        };
        let topic = MetadataRecord::Topic(TopicRecord { id: TOPIC, name: "t".into() });
        let partition = |(index, (home, leader)): (i32, &(u8, Option<i32>))| {
            let registration = PartitionRegistration {
                replicas: vec![ME, BrokerId(2)],
                directories: vec![id(*home), id(20)],
                isr: leader.map(BrokerId).into_iter().collect(),
                elr: Vec::new(),
                last_known_elr: Vec::new(),
                adding: Vec::new(),
                removing: Vec::new(),
                leader: leader.map(BrokerId),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
                recovering: RecoveryState::Recovered,
                cut: Vec::new(),
                left_strict: None,
            };
            let index = PartitionIndex(index);
            MetadataRecord::Partition(PartitionRecord { topic_id: TOPIC, index, registration })
        };
        let mut records = vec![register(1, 1), register(2, 20), topic];
        records.extend((0..).zip(partitions).map(partition));
        MetadataImage::from_records(5, &records).unwrap()
    }

    fn planned(image: &MetadataImage, own: &OwnDirectories) -> Vec<(i32, DirectoryId)> {
        let all = plan_homes(image, ME, own, 10);
        all.into_iter().map(|(partition, home)| (partition.partition.0, home)).collect()
    }

    #[test]
    fn replicas_of_a_replaced_directory_go_where_the_fewest_are() {
        let image = image(&[(1, Some(2)), (7, Some(2)), (7, Some(2)), (7, Some(2))]);
        let own = OwnDirectories { online: vec![id(1), id(2)], ..OwnDirectories::default() };
        assert_eq!(planned(&image, &own), [(1, id(2)), (2, id(1)), (3, id(2))]);
        assert_eq!(plan_homes(&image, ME, &own, 1).len(), 1);
    }

    #[test]
    fn directory_that_may_come_back_keeps_its_replicas() {
        let image = image(&[(7, Some(2))]);
        let online = vec![id(1)];
        let failed = OwnDirectories { online: online.clone(), absent: vec![id(7)], has_unknown: false };
        assert_eq!(planned(&image, &failed), []);
        let unknown = OwnDirectories { online: online.clone(), absent: Vec::new(), has_unknown: true };
        assert_eq!(planned(&image, &unknown), []);
        let replaced = OwnDirectories { online, ..OwnDirectories::default() };
        assert_eq!(planned(&image, &replaced), [(0, id(1))]);
        assert_eq!(planned(&image, &OwnDirectories::default()), [], "there is none to go to");
    }

    #[test]
    fn only_copy_is_not_given_up() {
        let image = image(&[(7, None), (7, Some(2))]);
        let own = OwnDirectories { online: vec![id(1)], ..OwnDirectories::default() };
        assert_eq!(planned(&image, &own), [(1, id(1))]);
    }
}
