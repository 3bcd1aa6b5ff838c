//! What records do to an image.

use stonelog_protocol::{ClusterId, Timestamp, Uuid};

use super::*;
use crate::metadata::record::ConfigRecord;
use crate::metadata::topic::RecoveryState;

const TOPIC: TopicId = Uuid([3; 16]);
const ONE: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);

fn directory(broker: BrokerId) -> Uuid {
    Uuid([broker.0 as u8; 16])
}

fn register(id: BrokerId, incarnation: u8) -> MetadataRecord {
    MetadataRecord::RegisterBroker(RegisterBroker {
        id,
        incarnation: Uuid([incarnation; 16]),
        epoch: None,
        endpoints: Vec::new(),
        rack: None,
        fenced: true,
        in_controlled_shutdown: false,
        directories: vec![DirectoryRegistration { id: directory(id), verdict: Verdict::Proved }],
        differing: Vec::new(),
        unfenced_with: Vec::new(),
    })
}

fn topic(id: TopicId, name: &str) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord { id, name: name.into() })
}

fn registration(leader: BrokerId) -> PartitionRegistration {
    PartitionRegistration {
        replicas: vec![ONE, TWO],
        directories: vec![directory(ONE), directory(TWO)],
        isr: vec![ONE, TWO],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        adding: Vec::new(),
        removing: Vec::new(),
        leader: Some(leader),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        recovering: RecoveryState::Recovered,
        cut: Vec::new(),
        left_strict: None,
    }
}

fn partition(index: i32, leader: BrokerId) -> MetadataRecord {
    let index = PartitionIndex(index);
    MetadataRecord::Partition(PartitionRecord { topic_id: TOPIC, index, registration: registration(leader) })
}

fn batch(image: &MetadataImage, records: &[MetadataRecord]) -> RecordBatch {
    RecordBatch { base_index: image.index(), controller_term: 1, created: Timestamp(0), records: records.to_vec() }
}

fn after(image: &MetadataImage, index: u64, records: &[MetadataRecord]) -> MetadataImage {
    image.apply(index, &batch(image, records)).unwrap()
}

/// Two brokers; partition 0 led by one, partition 1 by two.
fn image() -> MetadataImage {
    let records = [register(ONE, 1), register(TWO, 1), topic(TOPIC, "t"), partition(0, ONE), partition(1, TWO)];
    after(&MetadataImage::empty(), 5, &records)
}

fn epochs(image: &MetadataImage) -> Vec<(i32, i32)> {
    let topic = image.topic_by_id(TOPIC).unwrap();
    topic.partitions.iter().map(|partition| (partition.leader_epoch.0, partition.partition_epoch.0)).collect()
}

fn change(index: i32) -> PartitionChange {
    PartitionChange::of(TOPIC, PartitionIndex(index))
}

#[test]
fn broker_epoch_is_the_index_of_the_entry() {
    let image = image();
    assert_eq!(image.broker(ONE).unwrap().epoch, BrokerEpoch(5));
    let again = after(&image, 9, &[register(ONE, 1)]);
    assert_eq!(again.broker(ONE).unwrap().epoch, BrokerEpoch(5), "the same incarnation keeps its epoch");
    let restarted = after(&again, 12, &[register(ONE, 2)]);
    assert_eq!(restarted.broker(ONE).unwrap().epoch, BrokerEpoch(12));
}

#[test]
fn new_incarnation_bumps_the_epochs_of_what_it_led_and_of_nothing_else() {
    let image = image();
    let same = after(&image, 6, &[register(ONE, 1)]);
    assert_eq!(epochs(&same), [(0, 0), (0, 0)]);
    let restarted = after(&image, 6, &[register(ONE, 2)]);
    assert_eq!(epochs(&restarted), [(1, 1), (0, 0)]);
}

#[test]
fn leader_epoch_grows_with_a_carried_leader_and_partition_epoch_with_every_change() {
    let image = image();
    let isr = PartitionChange { isr: Some(vec![ONE]), ..change(0) };
    let shrunk = after(&image, 6, &[MetadataRecord::PartitionChange(isr)]);
    assert_eq!(epochs(&shrunk), [(0, 1), (0, 0)]);
    let same_leader = PartitionChange { leader: Some(Some(ONE)), ..change(0) };
    let bumped = after(&shrunk, 7, &[MetadataRecord::PartitionChange(same_leader)]);
    assert_eq!(epochs(&bumped), [(1, 2), (0, 0)]);
}

#[test]
fn changes_that_break_an_invariant_are_refused_and_leave_the_image() {
    let image = image();
    let before = image.clone();
    let broken = [
        PartitionChange { isr: Some(vec![BrokerId(9)]), ..change(0) },
        PartitionChange { isr: Some(vec![TWO]), ..change(0) },
        PartitionChange { elr: Some(vec![TWO]), ..change(0) },
        PartitionChange { leader: Some(Some(BrokerId(9))), ..change(0) },
        PartitionChange { replicas: Some(vec![ONE, TWO, BrokerId(3)]), ..change(0) },
        change(2),
        change(-1),
    ];
    for change in broken {
        let records = [MetadataRecord::PartitionChange(change.clone())];
        assert!(image.apply(6, &batch(&image, &records)).is_err(), "{change:?}");
    }
    assert_eq!(image, before);
}

#[test]
fn removed_topic_takes_its_settings_with_it_and_a_new_one_starts_without() {
    let config = |value: &str| {
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Topic("t".into()),
            key: "retention.ms".to_owned(),
            value: Some(value.to_owned()),
        })
    };
    let image = after(&image(), 6, &[config("5")]);
    assert_eq!(image.topic_config("t").unwrap()["retention.ms"], "5");
    let fresh = Uuid([4; 16]);
    let again = after(&image, 7, &[MetadataRecord::RemoveTopic(TOPIC), topic(fresh, "t")]);
    assert!(again.topic_config("t").is_none());
    assert!(again.topic_by_id(TOPIC).is_none());
    assert_eq!(again.topic_by_name("t").unwrap().id, fresh);
}

#[test]
fn producer_ids_and_epochs_never_go_back() {
    let next = |next| {
        let next = ProducerId(next);
        MetadataRecord::ProducerIds(ProducerIdsRecord { broker: ONE, broker_epoch: BrokerEpoch(5), next })
    };
    let image = after(&image(), 6, &[next(1000)]);
    let error = image.apply(7, &batch(&image, &[next(1000)])).unwrap_err();
    assert_eq!(error, ApplyError::ProducerIdsNotGrowing(ProducerId(1000), ProducerId(1000)));
}

#[test]
fn second_beginning_is_refused() {
    let init = || {
        let cluster_id = ClusterId("c".into());
        MetadataRecord::ClusterInit(ClusterInit { cluster_id, metadata_version: METADATA_VERSION })
    };
    let image = after(&MetadataImage::empty(), 1, &[init()]);
    assert_eq!(image.apply(2, &batch(&image, &[init()])), Err(ApplyError::ClusterBegan));
}

#[test]
fn batch_of_another_base_is_recognized() {
    let image = image();
    let mut stale = batch(&image, &[]);
    stale.base_index = 4;
    assert!(!image.is_base_of(&stale));
    assert!(image.is_base_of(&batch(&image, &[])));
}

#[test]
fn image_written_out_as_records_reads_back_equal() {
    let change = PartitionChange { isr: Some(vec![ONE]), leader: Some(Some(ONE)), ..change(0) };
    let unfence = BrokerRegistrationChange {
        id: ONE,
        epoch: BrokerEpoch(5),
        fenced: Some(false),
        in_controlled_shutdown: None,
        online_directories: None,
    };
    let config = ConfigRecord {
        resource: ConfigResource::Broker(None),
        key: "min.insync.replicas".to_owned(),
        value: Some("2".to_owned()),
    };
    let ids = ProducerIdsRecord { broker: ONE, broker_epoch: BrokerEpoch(5), next: ProducerId(3000) };
    let records = [
        MetadataRecord::PartitionChange(change),
        MetadataRecord::BrokerRegistrationChange(unfence),
        MetadataRecord::Config(config),
        MetadataRecord::ProducerIds(ids),
    ];
    let image = after(&image(), 8, &records);
    assert_eq!(MetadataImage::from_records(8, &image.to_records()), Ok(image));
}
