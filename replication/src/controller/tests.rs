//! Given records, when one request is decided, then these records and this answer.

mod brokers;
mod cluster_defaults;
mod damaged;
mod elections;
mod losses;
mod members;
mod old_copy;
mod random;
mod reassignments;
use std::sync::Arc;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{
    BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, ProducerId,
    TopicPartition, Uuid,
};

use super::response::PartitionState;
use super::*;
use crate::metadata::broker::ReplicaReport;
use crate::metadata::record::{
    BrokerRegistrationChange, ConfigRecord, LossAccepted, PartitionChange, PartitionRecord, ProducerIdsRecord,
    TopicRecord,
};
use crate::metadata::{ConfigResource, PartitionRegistration, RecoveryState, TopicImage, Verdict};
use stonelog_storage::log_dir::RecordedEpochs;

const INDEX: u64 = 100;

fn cluster() -> ClusterId {
    ClusterId("c".into())
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn directory(broker: i32) -> DirectoryId {
    Uuid([u8::try_from(broker).unwrap(); 16])
}

fn topic_id(n: usize) -> TopicId {
    Uuid([200 + u8::try_from(n).unwrap(); 16])
}

/// One decision with the real tables of keys, fixed ids and no spread; who registers has seen this image, and whoever was
/// registered before is gone.
fn decided(image: &MetadataImage, mut request: ControllerRequest) -> Result<Decision, Reject> {
    if let ControllerRequest::RegisterBroker(register) = &mut request {
        register.replaces = image.broker(register.id).map(|registered| registered.epoch);
    }
    decided_as_sent(image, request, true)
}

fn decided_as_sent(
    image: &MetadataImage,
    request: ControllerRequest,
    previous_is_gone: bool,
) -> Result<Decision, Reject> {
    let rules = SettingsRules { static_broker: Default::default(), broker_key: |_| None, group_key: |_| None };
    let topic_ids: Vec<_> = (0..request.topic_ids_needed()).map(topic_id).collect();
    let inputs = Inputs {
        cluster_id: &cluster(),
        now: Timestamp(0),
        next_index: image.index() + 1,
        topic_ids: &topic_ids,
        seed: 0,
        moves_are_known: true,
        previous_is_gone,
        brokers_to_come: 0,
        defaults: &Defaults::default(),
        rules: &rules,
    };
    decide(image, &request, &inputs)
}

/// The image after the decision's facts; the decision.
fn run(image: &MetadataImage, request: ControllerRequest) -> (MetadataImage, Decision) {
    let decision = decided(image, request).unwrap();
    let batch = crate::metadata::RecordBatch {
        base_index: image.index(),
        controller_term: 1,
        created: Timestamp(0),
        records: decision.records.clone(),
    };
    (image.apply(image.index() + 1, &batch).unwrap(), decision)
}

/// The epoch a broker gets in [`brokers`].
fn first_epoch(broker: i32) -> i64 {
    i64::try_from(INDEX).unwrap() - 1 + 2 * i64::from(broker)
}

fn reported(id: DirectoryId, verdict: Verdict, last: Option<i64>) -> ReportedDirectory {
    let recorded = RecordedEpochs { last: last.map(BrokerEpoch), follows: None };
    ReportedDirectory { id, verdict, recorded }
}

fn registration(broker: i32, incarnation: u8, verdict: Verdict) -> RegisterBrokerRequest {
    RegisterBrokerRequest {
        id: BrokerId(broker),
        cluster_id: cluster(),
        incarnation: Uuid([incarnation; 16]),
        endpoints: Vec::new(),
        rack: None,
        directories: vec![reported(directory(broker), verdict, (incarnation > 1).then(|| first_epoch(broker)))],
        differing: Vec::new(),
        replaces: None,
    }
}

fn heartbeat(image: &MetadataImage, broker: i32) -> BrokerHeartbeat {
    BrokerHeartbeat {
        id: BrokerId(broker),
        epoch: image.broker(BrokerId(broker)).unwrap().epoch,
        metadata_index: image.index(),
        want_fence: false,
        want_shutdown: false,
        online_directories: None,
    }
}

fn unfence(image: &MetadataImage, broker: i32) -> MetadataImage {
    run(image, ControllerRequest::Heartbeat(heartbeat(image, broker))).0
}

/// That many registered and unfenced brokers, from 1.
fn brokers(count: i32) -> MetadataImage {
    let mut image = MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap();
    for broker in 1..=count {
        let request = ControllerRequest::RegisterBroker(registration(broker, 1, Verdict::Proved));
        image = unfence(&run(&image, request).0, broker);
    }
    image
}

fn new_topic(name: &str, partitions: i32, replication_factor: i16) -> NewTopic {
    NewTopic { name: name.to_owned(), partitions, replication_factor, assignments: Vec::new(), configs: Vec::new() }
}

fn create(topics: Vec<NewTopic>) -> ControllerRequest {
    ControllerRequest::CreateTopics(CreateTopics { topics, validate_only: false })
}

/// `brokers(count)` with one topic `t` of one partition on these replicas.
fn with_topic(count: i32, replicas: &[i32], configs: &[(&str, &str)]) -> MetadataImage {
    let topic = NewTopic {
        assignments: vec![(PartitionIndex(0), ids(replicas))],
        configs: configs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect(),
        ..new_topic("t", -1, -1)
    };
    run(&brokers(count), create(vec![topic])).0
}

fn t(image: &MetadataImage) -> &Arc<TopicImage> {
    image.topic_by_name("t").unwrap()
}

fn p0(image: &MetadataImage) -> &PartitionRegistration {
    &t(image).partitions[0]
}

fn change() -> PartitionChange {
    PartitionChange::of(topic_id(0), PartitionIndex(0))
}

fn create_error(image: &MetadataImage, topic: NewTopic) -> (ErrorCode, String) {
    let decision = decided(image, create(vec![topic])).unwrap();
    assert_eq!(decision.records, []);
    let ControllerResponse::CreateTopics(results) = decision.response else { panic!("wrong answer") };
    let reject = results[0].result.clone().unwrap_err();
    (reject.code, reject.message)
}

#[test]
fn topic_is_created_as_topic_settings_and_partitions() {
    let topic =
        NewTopic { configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))], ..new_topic("orders", 2, -1) };
    let decision = decided(&brokers(1), create(vec![topic])).unwrap();
    let partition = |index| {
        MetadataRecord::Partition(PartitionRecord {
            topic_id: topic_id(0),
            index: PartitionIndex(index),
            registration: PartitionRegistration {
                replicas: ids(&[1]),
                directories: vec![directory(1)],
                isr: ids(&[1]),
                elr: Vec::new(),
                last_known_elr: Vec::new(),
                adding: Vec::new(),
                removing: Vec::new(),
                leader: Some(BrokerId(1)),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
                recovering: RecoveryState::Recovered,
                cut: Vec::new(),
                left_strict: None,
            },
        })
    };
    let expected = [
        MetadataRecord::Topic(TopicRecord { id: topic_id(0), name: "orders".into() }),
        MetadataRecord::Config(ConfigRecord {
            resource: ConfigResource::Topic("orders".into()),
            key: "retention.ms".to_owned(),
            value: Some("5".to_owned()),
        }),
        partition(0),
        partition(1),
    ];
    assert_eq!(decision.records, expected);
    let created = CreatedTopic {
        id: topic_id(0),
        partitions: 2,
        replication_factor: 1,
        configs: [("retention.ms".to_owned(), "5".to_owned())].into(),
        warnings: Vec::new(),
    };
    let result = TopicResult { name: "orders".to_owned(), result: Ok(created) };
    assert_eq!(decision.response, ControllerResponse::CreateTopics(vec![result]));
}

#[test]
fn unset_replication_factor_is_three_or_as_many_as_there_are_brokers() {
    let factor = |count| {
        let image = run(&brokers(count), create(vec![new_topic("t", -1, -1)])).0;
        (t(&image).partitions.len(), p0(&image).replicas.len())
    };
    assert_eq!([1, 2, 3, 5].map(factor), [(1, 1), (1, 2), (1, 3), (1, 3)]);
}

#[test]
fn refused_topics_have_kafkas_codes_and_words() {
    let image = with_topic(1, &[1], &[]);
    let refused = |name: &str, partitions, factor| create_error(&image, new_topic(name, partitions, factor));
    assert_eq!(refused("t", 1, 1), (ErrorCode::TopicAlreadyExists, "Topic 't' already exists.".to_owned()));
    assert_eq!(refused("x", 0, 1).0, ErrorCode::InvalidPartitions);
    assert_eq!(refused("x", -2, 1).0, ErrorCode::InvalidPartitions);
    assert_eq!(refused("x", 1, 0).0, ErrorCode::InvalidReplicationFactor);
    assert_eq!(refused("x", 1, 2).0, ErrorCode::InvalidReplicationFactor);
    assert_eq!(refused("", 1, 1).0, ErrorCode::InvalidTopicException);
    assert_eq!(refused("..", 1, 1).1, "Topic name is invalid: '..' is not allowed");
    assert_eq!(refused("a b", 1, 1).0, ErrorCode::InvalidTopicException);
    assert_eq!(refused(&"x".repeat(250), 1, 1).0, ErrorCode::InvalidTopicException);
    assert_eq!(refused("__cluster_metadata", 1, 1).0, ErrorCode::InvalidRequest);
    let unknown_key = NewTopic { configs: vec![("no.such".to_owned(), Some("1".to_owned()))], ..new_topic("x", 1, 1) };
    assert_eq!(create_error(&image, unknown_key).0, ErrorCode::InvalidConfig);
    let null_value = NewTopic { configs: vec![("retention.ms".to_owned(), None)], ..new_topic("x", 1, 1) };
    assert_eq!(create_error(&image, null_value).1, "Null value not supported for topic configs: retention.ms");
}

#[test]
fn names_that_differ_only_in_dot_and_underscore_collide_also_within_one_request() {
    let image = brokers(1);
    let decision = decided(&image, create(vec![new_topic("a.b", 1, 1), new_topic("a_b", 1, 1)])).unwrap();
    let ControllerResponse::CreateTopics(results) = decision.response else { panic!("wrong answer") };
    assert!(results[0].result.is_ok());
    assert_eq!(
        results[1].result,
        Err(Reject::new(ErrorCode::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b"))
    );
}

#[test]
fn name_asked_for_twice_is_refused_once_and_the_others_are_made() {
    let topics = vec![new_topic("twice", 1, 1), new_topic("once", 1, 1), new_topic("twice", 1, 1)];
    let (image, decision) = run(&brokers(1), create(topics));
    let ControllerResponse::CreateTopics(results) = decision.response else { panic!("wrong answer") };
    assert_eq!(results.len(), 2);
    assert_eq!(results[0].result, Err(Reject::new(ErrorCode::InvalidRequest, "Duplicate topic name.")));
    assert!(results[1].result.is_ok());
    assert!(image.topic_by_name("twice").is_none() && image.topic_by_name("once").is_some());
}

#[test]
fn validating_only_answers_as_the_real_thing_and_writes_nothing() {
    let request = |validate_only| {
        ControllerRequest::CreateTopics(CreateTopics { topics: vec![new_topic("x", 3, 1)], validate_only })
    };
    let image = brokers(1);
    let dry = decided(&image, request(true)).unwrap();
    let real = decided(&image, request(false)).unwrap();
    assert_eq!(dry, Decision::new(Vec::new(), real.response));
}

#[test]
fn chosen_assignments_are_kept_or_refused() {
    let image = brokers(2);
    let topic = |assignments: &[(i32, &[i32])]| NewTopic {
        assignments: assignments.iter().map(|(index, replicas)| (PartitionIndex(*index), ids(replicas))).collect(),
        ..new_topic("x", -1, -1)
    };
    let made = run(&image, create(vec![topic(&[(1, &[1, 2]), (0, &[2, 1])])])).0;
    let replicas: Vec<_> = made.topic_by_name("x").unwrap().partitions.iter().map(|p| p.replicas.clone()).collect();
    assert_eq!(replicas, [ids(&[2, 1]), ids(&[1, 2])]);
    let refused = |assignments: &[(i32, &[i32])]| create_error(&image, topic(assignments)).0;
    assert_eq!(refused(&[(0, &[1]), (2, &[1])]), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&[(0, &[1]), (0, &[1])]), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&[(0, &[1, 1])]), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&[(0, &[7])]), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&[(0, &[1]), (1, &[1, 2])]), ErrorCode::InvalidReplicaAssignment);
    let both = NewTopic { partitions: 1, ..topic(&[(0, &[1])]) };
    assert_eq!(create_error(&image, both).0, ErrorCode::InvalidRequest);
}

#[test]
fn ten_thousand_partitions_are_made_and_one_more_is_refused() {
    let image = brokers(1);
    let (made, _) = run(&image, create(vec![new_topic("wide", 10_000, 1)]));
    assert_eq!(made.topic_by_name("wide").unwrap().partitions.len(), 10_000);
    let reject = decided(&image, create(vec![new_topic("wide", 10_000, 1), new_topic("x", 1, 1)])).unwrap_err();
    assert_eq!(reject.code, ErrorCode::PolicyViolation);
}

#[test]
fn topics_are_deleted_by_name_and_by_id_but_not_twice() {
    let image = run(&brokers(1), create(vec![new_topic("a", 1, 1), new_topic("b", 1, 1)])).0;
    let topics = vec![
        TopicReference::Name("a".to_owned()),
        TopicReference::Id(topic_id(1)),
        TopicReference::Name("b".to_owned()),
        TopicReference::Name("none".to_owned()),
        TopicReference::Id(topic_id(9)),
    ];
    let decision = decided(&image, ControllerRequest::DeleteTopics(DeleteTopics { topics })).unwrap();
    let expected = [MetadataRecord::RemoveTopic(topic_id(0)), MetadataRecord::RemoveTopic(topic_id(1))];
    assert_eq!(decision.records, expected);
    let ControllerResponse::DeleteTopics(results) = decision.response else { panic!("wrong answer") };
    let codes: Vec<_> = results.iter().map(|deleted| deleted.result.as_ref().err().map(|reject| reject.code)).collect();
    assert_eq!(
        codes,
        [
            None,
            None,
            Some(ErrorCode::InvalidRequest),
            Some(ErrorCode::UnknownTopicOrPartition),
            Some(ErrorCode::UnknownTopicId)
        ]
    );
    assert_eq!(results[1].name.as_deref(), Some("b"));
}

#[test]
fn partitions_are_added_behind_the_present_ones() {
    let image = with_topic(1, &[1], &[]);
    let request = |topic: &str, count, assignments| {
        let topics = vec![NewPartitions { topic: topic.to_owned(), count, assignments }];
        ControllerRequest::CreatePartitions(CreatePartitions { topics, validate_only: false })
    };
    let (grown, _) = run(&image, request("t", 3, None));
    assert_eq!(t(&grown).partitions.len(), 3);
    let refused = |request| {
        let decision = decided(&image, request).unwrap();
        assert_eq!(decision.records, []);
        let ControllerResponse::CreatePartitions(results) = decision.response else { panic!("wrong answer") };
        let reject = results[0].result.clone().unwrap_err();
        (reject.code, reject.message)
    };
    let same = "Topic already has 1 partition(s).".to_owned();
    assert_eq!(refused(request("t", 1, None)), (ErrorCode::InvalidPartitions, same));
    let less = "The topic t currently has 1 partition(s); 0 would not be an increase.".to_owned();
    assert_eq!(refused(request("t", 0, None)), (ErrorCode::InvalidPartitions, less));
    assert_eq!(refused(request("none", 2, None)).0, ErrorCode::UnknownTopicOrPartition);
    let few = Some(vec![ids(&[1])]);
    assert_eq!(refused(request("t", 3, few)).0, ErrorCode::InvalidReplicaAssignment);
    let wide = Some(vec![ids(&[1, 1])]);
    assert_eq!(refused(request("t", 2, wide)).0, ErrorCode::InvalidReplicaAssignment);
}

#[test]
fn settings_are_set_deleted_appended_and_subtracted() {
    let image = with_topic(1, &[1], &[("retention.ms", "5")]);
    let resource = ConfigResource::Topic("t".into());
    let edit = |key: &str, operation, value: Option<&str>| ConfigEdit {
        key: key.to_owned(),
        operation,
        value: value.map(str::to_owned),
    };
    let request = |edits| {
        let resources = vec![(resource.clone(), edits)];
        ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, validate_only: false })
    };
    let edits = vec![
        edit("retention.ms", ConfigOperation::Delete, None),
        edit("segment.bytes", ConfigOperation::Set, Some("1048576")),
        edit("cleanup.policy", ConfigOperation::Append, Some("compact")),
    ];
    let (image, decision) = run(&image, request(edits));
    let record = |key: &str, value: Option<&str>| {
        let value = value.map(str::to_owned);
        MetadataRecord::Config(ConfigRecord { resource: resource.clone(), key: key.to_owned(), value })
    };
    let expected = [
        record("retention.ms", None),
        record("cleanup.policy", Some("delete,compact")),
        record("segment.bytes", Some("1048576")),
    ];
    assert_eq!(decision.records, expected);
    let edits = vec![edit("cleanup.policy", ConfigOperation::Subtract, Some("delete"))];
    let (_, decision) = run(&image, request(edits));
    assert_eq!(decision.records, [record("cleanup.policy", Some("compact"))]);
    let refused = |edits| {
        let decision = decided(&image, request(edits)).unwrap();
        assert_eq!(decision.records, []);
        let ControllerResponse::IncrementalAlterConfigs(results) = decision.response else { panic!("wrong answer") };
        results[0].result.clone().unwrap_err().code
    };
    let not_a_list = vec![edit("retention.ms", ConfigOperation::Append, Some("1"))];
    assert_eq!(refused(not_a_list), ErrorCode::InvalidConfig);
    let unclean = vec![edit("unclean.leader.election.enable", ConfigOperation::Set, Some("true"))];
    assert_eq!(refused(unclean), ErrorCode::InvalidConfig);
    let null = vec![edit("retention.ms", ConfigOperation::Set, None)];
    assert_eq!(refused(null), ErrorCode::InvalidRequest);
}

#[test]
fn legacy_alter_replaces_all_overrides_and_one_refused_resource_spoils_no_other() {
    let image = with_topic(1, &[1], &[("retention.ms", "5"), ("segment.bytes", "1048576")]);
    let replace = |name: &str, configs: &[(&str, &str)]| ReplaceConfigs {
        resource: ConfigResource::Topic(name.into()),
        configs: configs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect(),
    };
    let resources = vec![replace("none", &[("retention.ms", "1")]), replace("t", &[("retention.ms", "6")])];
    let request = ControllerRequest::AlterConfigs(AlterConfigs { resources, validate_only: false });
    let (image, decision) = run(&image, request);
    let ControllerResponse::AlterConfigs(results) = decision.response else { panic!("wrong answer") };
    assert_eq!(results[0].result.clone().unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(results[1].result, Ok(Vec::new()));
    assert_eq!(**image.topic_config("t").unwrap(), [("retention.ms".to_owned(), "6".to_owned())].into());
}

#[test]
fn lower_min_isr_clears_the_eligible_set_in_the_same_entry() {
    let mut image = with_topic(3, &[1, 2, 3], &[]);
    for broker in [1, 2] {
        let request = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, broker) };
        image = run(&image, ControllerRequest::Heartbeat(request)).0;
    }
    assert_eq!(p0(&image).elr, ids(&[2]));
    let edits = vec![ConfigEdit {
        key: "min.insync.replicas".to_owned(),
        operation: ConfigOperation::Set,
        value: Some("1".to_owned()),
    }];
    let resources = vec![(ConfigResource::Topic("t".into()), edits)];
    let request = IncrementalAlterConfigs { resources, validate_only: false };
    let (_, decision) = run(&image, ControllerRequest::IncrementalAlterConfigs(request));
    let cleared = PartitionChange { elr: Some(Vec::new()), ..change() };
    assert_eq!(decision.records[1..], [MetadataRecord::PartitionChange(cleared)]);
}

#[test]
fn producer_ids_are_handed_out_in_blocks_to_the_registered_broker() {
    let image = brokers(1);
    let broker_epoch = image.broker(BrokerId(1)).unwrap().epoch;
    let request = AllocateProducerIds { broker: BrokerId(1), broker_epoch };
    let decision = decided(&image, ControllerRequest::AllocateProducerIds(request)).unwrap();
    let next = ProducerId(1000);
    let record = MetadataRecord::ProducerIds(ProducerIdsRecord { broker: BrokerId(1), broker_epoch, next });
    let block = ProducerIdBlock { first: ProducerId(0), len: 1000 };
    let response = ControllerResponse::AllocateProducerIds(block);
    assert_eq!(decision, Decision::new(vec![record], response));
    let stale = AllocateProducerIds { broker_epoch: BrokerEpoch(1), ..request };
    let reject = decided(&image, ControllerRequest::AllocateProducerIds(stale)).unwrap_err();
    assert_eq!(reject.code, ErrorCode::StaleBrokerEpoch);
}

fn alter(image: &MetadataImage, sender: i32, wish: PartitionIsr) -> Result<PartitionState, ErrorCode> {
    let broker_epoch = image.broker(BrokerId(sender)).unwrap().epoch;
    let request = AlterPartition { broker: BrokerId(sender), broker_epoch, partitions: vec![wish] };
    let decision = decided(image, ControllerRequest::AlterPartition(request)).unwrap();
    let ControllerResponse::AlterPartition(mut results) = decision.response else { panic!("wrong answer") };
    results.remove(0).result.map_err(|reject| reject.code)
}

/// A whole replica that follows under its present registration, in the directory it belongs into.
fn in_sync(image: &MetadataImage, id: i32) -> InSyncReplica {
    let broker = BrokerId(id);
    let directory = p0(image).directory_of(broker).unwrap_or(DirectoryId::ZERO);
    let epoch = image.broker(broker).map(|registered| registered.epoch);
    InSyncReplica { broker, epoch, directory, is_whole: true }
}

fn wish(image: &MetadataImage, isr: &[i32]) -> PartitionIsr {
    PartitionIsr {
        partition: TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) },
        leader_epoch: p0(image).leader_epoch,
        partition_epoch: p0(image).partition_epoch,
        isr: isr.iter().map(|id| in_sync(image, *id)).collect(),
        damaged: Vec::new(),
        recovering: RecoveryState::Recovered,
        hand_over: false,
    }
}
