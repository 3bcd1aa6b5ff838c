//! What a delta says about the image it led to.

use stonelog_protocol::{BrokerEpoch, DirectoryId, LeaderEpoch, PartitionEpoch, TopicId, Uuid};

use super::*;
use crate::metadata::record::{ConfigRecord, PartitionChange, PartitionRecord, RegisterBroker, TopicRecord};
use crate::metadata::record::{MetadataRecord, UnregisterBroker};
use crate::metadata::topic::{PartitionRegistration, RecoveryState};

const ONE: BrokerId = BrokerId(1);
const DIRECTORY: DirectoryId = Uuid([9; 16]);

fn id(byte: u8) -> TopicId {
    Uuid([byte; 16])
}

fn topic(byte: u8, name: &str) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord { id: id(byte), name: name.into() })
}

fn partition(byte: u8, index: i32) -> MetadataRecord {
    let registration = PartitionRegistration {
        replicas: vec![ONE],
        directories: vec![DIRECTORY],
        isr: vec![ONE],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        adding: Vec::new(),
        removing: Vec::new(),
        leader: Some(ONE),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        recovering: RecoveryState::Recovered,
        cut: Vec::new(),
        left_strict: None,
    };
    MetadataRecord::Partition(PartitionRecord { topic_id: id(byte), index: PartitionIndex(index), registration })
}

fn config(name: &str, value: Option<&str>) -> MetadataRecord {
    MetadataRecord::Config(ConfigRecord {
        resource: ConfigResource::Topic(name.into()),
        key: "retention.ms".to_owned(),
        value: value.map(str::to_owned),
    })
}

fn register() -> MetadataRecord {
    MetadataRecord::RegisterBroker(RegisterBroker {
        id: ONE,
        incarnation: Uuid([1; 16]),
        epoch: None,
        endpoints: Vec::new(),
        rack: None,
        fenced: true,
        in_controlled_shutdown: false,
        directories: Vec::new(),
        differing: Vec::new(),
        unfenced_with: Vec::new(),
    })
}

fn after(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
    let mut next = image.clone();
    next.index += 1;
    for record in records {
        next.apply_record(next.index, record).unwrap();
    }
    next
}

#[test]
fn equal_images_differ_in_nothing() {
    let image = after(&MetadataImage::empty(), &[register(), topic(1, "a"), partition(1, 0)]);
    assert!(MetadataDelta::between(&image, &image.clone()).is_empty());
    let rebuilt = MetadataImage::from_records(image.index(), &image.to_records()).unwrap();
    assert!(MetadataDelta::between(&image, &rebuilt).is_empty(), "equal by value counts, not only by pointer");
}

#[test]
fn deletion_and_creation_under_one_name_stay_two_things() {
    let before = after(&MetadataImage::empty(), &[topic(1, "a"), partition(1, 0), config("a", Some("1"))]);
    let middle = after(&before, &[MetadataRecord::RemoveTopic(id(1))]);
    let end = after(&middle, &[topic(2, "a"), partition(2, 0)]);
    let delta = MetadataDelta::between(&before, &end);
    let expected = MetadataDelta {
        from_index: 1,
        to_index: 3,
        topics_deleted: vec![before.topic_by_id(id(1)).unwrap().clone()],
        topics_created: vec![end.topic_by_id(id(2)).unwrap().clone()],
        configs_changed: vec![ConfigResource::Topic("a".into())],
        ..MetadataDelta::default()
    };
    assert_eq!(delta, expected);
}

#[test]
fn changed_topic_names_its_new_and_its_changed_partitions() {
    let before = after(&MetadataImage::empty(), &[topic(1, "a"), partition(1, 0), partition(1, 1), topic(2, "b")]);
    let change = PartitionChange { leader: Some(Some(ONE)), ..PartitionChange::of(id(1), PartitionIndex(1)) };
    let end = after(&before, &[MetadataRecord::PartitionChange(change), partition(1, 2)]);
    let delta = MetadataDelta::between(&before, &end);
    let expected = TopicDelta {
        topic: end.topic_by_id(id(1)).unwrap().clone(),
        before: before.topic_by_id(id(1)).unwrap().clone(),
        partitions_created: vec![PartitionIndex(2)],
        partitions_changed: vec![PartitionIndex(1)],
    };
    assert_eq!(delta.topics_changed, [expected]);
    assert_eq!((delta.topics_created, delta.topics_deleted), (Vec::new(), Vec::new()));
}

#[test]
fn brokers_and_settings_that_changed_or_went_are_named() {
    let before = after(&MetadataImage::empty(), &[register(), topic(1, "a"), config("a", Some("1"))]);
    let gone = UnregisterBroker { id: ONE, epoch: BrokerEpoch(1) };
    let end = after(&before, &[MetadataRecord::UnregisterBroker(gone), config("a", None)]);
    let delta = MetadataDelta::between(&before, &end);
    assert_eq!(delta.brokers_removed, [ONE]);
    assert_eq!(delta.configs_changed, [ConfigResource::Topic("a".into())]);
    let forth = MetadataDelta::between(&end, &before);
    assert_eq!(forth.brokers_changed, [ONE]);
    assert_eq!(forth.configs_changed, [ConfigResource::Topic("a".into())]);
}

#[test]
fn controller_alone_is_a_difference() {
    let image = MetadataImage::empty();
    let led = image.clone().with_controller(Some(ONE));
    let delta = MetadataDelta::between(&image, &led);
    assert_eq!(delta, MetadataDelta { controller_changed: true, ..MetadataDelta::default() });
}
