//! Records to bytes and back, and bytes that are no records.

use stonelog_protocol::Timestamp;

use super::*;
use crate::metadata::RecordBatch;

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// One record of every type, with every optional field present somewhere and absent somewhere.
fn every_record() -> Vec<MetadataRecord> {
    let topic_id = Uuid([3; 16]);
    let mut full_change = PartitionChange::of(topic_id, PartitionIndex(4));
    full_change.isr = Some(brokers(&[1]));
    full_change.leader = Some(None);
    full_change.replicas = Some(brokers(&[1, 2]));
    full_change.directories = Some(vec![Uuid([5; 16]), Uuid([6; 16])]);
    full_change.adding = Some(brokers(&[2]));
    full_change.removing = Some(Vec::new());
    full_change.elr = Some(brokers(&[2]));
    full_change.last_known_elr = Some(brokers(&[1]));
    full_change.cut = Some(brokers(&[2]));
    full_change.recovering = Some(RecoveryState::Recovering);
    let mut small_change = PartitionChange::of(topic_id, PartitionIndex(0));
    small_change.leader = Some(Some(BrokerId(2)));
    vec![
        MetadataRecord::ClusterInit(ClusterInit { cluster_id: ClusterId("c".into()), metadata_version: 1 }),
        MetadataRecord::RegisterBroker(RegisterBroker {
            id: BrokerId(1),
            incarnation: Uuid([1; 16]),
            epoch: Some(BrokerEpoch(9)),
            endpoints: vec![Endpoint {
                listener: "PLAINTEXT".into(),
                host: "localhost".into(),
                port: 9092,
                protocol: SecurityProtocol::SaslSsl,
            }],
            rack: Some("r1".into()),
            fenced: true,
            in_controlled_shutdown: false,
            directories: vec![DirectoryRegistration { id: Uuid([2; 16]), verdict: Verdict::Cut }],
            differing: vec![ReplicaReport {
                partition: TopicPartition { topic_id, partition: PartitionIndex(1) },
                verdict: Verdict::Lost,
                last_epoch: LeaderEpoch(3),
                log_end_offset: Offset(77),
                directory: Some(Uuid([1; 16])),
                was_strict: Some(true),
            }],
            unfenced_with: vec![(Uuid([2; 16]), BrokerEpoch(8))],
        }),
        MetadataRecord::UnregisterBroker(UnregisterBroker { id: BrokerId(1), epoch: BrokerEpoch(9) }),
        MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
            id: BrokerId(1),
            epoch: BrokerEpoch(9),
            fenced: Some(false),
            in_controlled_shutdown: None,
            online_directories: Some(vec![Uuid([2; 16])]),
        }),
        MetadataRecord::Topic(TopicRecord { id: topic_id, name: "t".into() }),
        MetadataRecord::Partition(PartitionRecord {
            topic_id,
            index: PartitionIndex(0),
            registration: PartitionRegistration {
                replicas: brokers(&[1, 2, 3]),
                directories: vec![Uuid([1; 16]), Uuid([2; 16]), Uuid([3; 16])],
                isr: brokers(&[1]),
                elr: brokers(&[2]),
                last_known_elr: Vec::new(),
                adding: brokers(&[3]),
                removing: Vec::new(),
                leader: Some(BrokerId(1)),
                leader_epoch: LeaderEpoch(7),
                partition_epoch: PartitionEpoch(8),
                recovering: RecoveryState::Recovered,
                cut: brokers(&[2]),
                left_strict: None,
            },
        }),
        MetadataRecord::PartitionChange(full_change),
        MetadataRecord::PartitionChange(small_change),
        MetadataRecord::RemoveTopic(topic_id),
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Topic("t".into()),
            key: "retention.ms".to_owned(),
            value: Some("5".to_owned()),
        }),
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Broker(None),
            key: "log.retention.ms".to_owned(),
            value: None,
        }),
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Broker(Some(BrokerId(3))),
            key: "k".to_owned(),
            value: Some(String::new()),
        }),
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Group("g".into()),
            key: "k".to_owned(),
            value: Some("v".to_owned()),
        }),
        MetadataRecord::ProducerIds(ProducerIdsRecord {
            broker: BrokerId(1),
            broker_epoch: BrokerEpoch(9),
            next: ProducerId(1000),
        }),
        MetadataRecord::FeatureLevel(FeatureLevelRecord { name: "f".to_owned(), level: -1 }),
        MetadataRecord::LossAccepted(LossAccepted {
            partition: TopicPartition { topic_id, partition: PartitionIndex(4) },
            replica: BrokerId(2),
            instead_of: brokers(&[1, 3]),
            at: Timestamp(1_700_000_000_001),
            leader_epoch: LeaderEpoch(8),
        }),
        MetadataRecord::NoOp,
    ]
}

fn batch() -> RecordBatch {
    RecordBatch { base_index: 41, controller_term: 3, created: Timestamp(1_700_000_000_000), records: every_record() }
}

#[test]
fn every_record_reads_back_as_written() {
    let batch = batch();
    assert_eq!(RecordBatch::decode(&batch.encode()), Ok(batch));
}

#[test]
fn layout_of_a_record_is_the_documented_one() {
    let mut out = Writer::new();
    MetadataRecord::Topic(TopicRecord { id: Uuid([0xab; 16]), name: "hi".into() }).encode(&mut out);
    let mut expected = vec![2, 1, 0, 0, 0, 22];
    expected.extend([0xab; 16]);
    expected.extend([0, 0, 0, 2, b'h', b'i']);
    assert_eq!(out.finish(), expected);
}

#[test]
fn every_shorter_prefix_is_refused() {
    let bytes = batch().encode();
    for len in 0..bytes.len() {
        assert!(RecordBatch::decode(&bytes[..len]).is_err(), "{len} bytes of {}", bytes.len());
    }
}

#[test]
fn surplus_bytes_are_refused() {
    let mut bytes = batch().encode();
    bytes.push(0);
    assert_eq!(RecordBatch::decode(&bytes), Err(DecodeError::Trailing(1)));
}

#[test]
fn no_flipped_byte_makes_the_decoder_panic_or_allocate_beyond_its_input() {
    // A count larger than the bytes at hand is refused before a vector is sized by it, so decoding stays cheap even
    // where every byte is hostile; a decoder that trusted a count would ask for 4 GiB here.
    let bytes = batch().encode();
    for place in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut hostile = bytes.clone();
            hostile[place] = value;
            if let Ok(decoded) = RecordBatch::decode(&hostile) {
                assert_eq!(decoded.encode(), hostile);
            }
        }
    }
    let mut counted = Writer::new();
    counted.u32(u32::MAX);
    let counted = counted.finish();
    assert_eq!(Reader::new(&counted).count(1), Err(DecodeError::Truncated));
}

#[test]
fn later_versions_and_unknown_types_are_refused() {
    let mut out = Writer::new();
    MetadataRecord::NoOp.encode(&mut out);
    let bytes = out.finish();
    let mut later = bytes.clone();
    later[1] = 2;
    let expected = DecodeError::UnknownVersion { what: "metadata record", version: 2 };
    assert_eq!(MetadataRecord::decode(&mut Reader::new(&later)), Err(expected));
    let mut unknown = bytes;
    unknown[0] = 99;
    assert_eq!(MetadataRecord::decode(&mut Reader::new(&unknown)), Err(DecodeError::UnknownRecord(99)));
}
