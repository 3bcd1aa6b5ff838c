//! Partitions move between brokers and directories, internal topics grow, and new topics wait for brokers.

use super::*;

#[test]
fn a_replica_being_added_does_not_cost_an_eligible_one_its_place() {
    let image = with_topic(4, &[1, 2], &[("min.insync.replicas", "2")]);
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 2) };
    let image = run(&image, ControllerRequest::Heartbeat(fence)).0;
    assert_eq!((&p0(&image).isr, &p0(&image).elr), (&ids(&[1]), &ids(&[2])));
    let wish_for = NewReplicas { topic: "t".to_owned(), partition: PartitionIndex(0), replicas: Some(ids(&[1, 3, 4])) };
    let request = AlterReassignments { partitions: vec![wish_for], allow_replication_factor_change: true };
    let image = run(&image, ControllerRequest::AlterReassignments(request)).0;
    let broker_epoch = image.broker(BrokerId(1)).unwrap().epoch;
    let join = AlterPartition { broker: BrokerId(1), broker_epoch, partitions: vec![wish(&image, &[1, 3])] };
    let image = run(&image, ControllerRequest::AlterPartition(join)).0;
    // Its leader counts one of two and acknowledges nothing: 2 still holds whatever was.
    assert_eq!((&p0(&image).isr, &p0(&image).elr), (&ids(&[1, 3]), &ids(&[2])));
}
use std::time::Duration;

fn move_to(replicas: Option<&[i32]>) -> ControllerRequest {
    let partitions =
        vec![NewReplicas { topic: "t".to_owned(), partition: PartitionIndex(0), replicas: replicas.map(ids) }];
    ControllerRequest::AlterReassignments(AlterReassignments { partitions, allow_replication_factor_change: true })
}

fn refused(image: &MetadataImage, request: ControllerRequest) -> ErrorCode {
    let decision = decided(image, request).unwrap();
    assert_eq!(decision.records, []);
    let ControllerResponse::AlterReassignments(mut results) = decision.response else { panic!("wrong answer") };
    results.remove(0).result.unwrap_err().code
}

/// The leader has these in sync.
fn in_sync(image: &MetadataImage, isr: &[i32]) -> (MetadataImage, Result<PartitionState, ErrorCode>) {
    let leader = p0(image).leader.unwrap();
    let broker_epoch = image.broker(leader).unwrap().epoch;
    let request = AlterPartition { broker: leader, broker_epoch, partitions: vec![wish(image, isr)] };
    let (image, decision) = run(image, ControllerRequest::AlterPartition(request));
    let ControllerResponse::AlterPartition(mut results) = decision.response else { panic!("wrong answer") };
    (image, results.remove(0).result.map_err(|reject| reject.code))
}

#[test]
fn a_partition_moves_and_is_there_when_all_its_targets_are_in_sync() {
    let image = with_topic(5, &[1, 2, 3], &[]);
    let decision = decided(&image, move_to(Some(&[4, 2, 5]))).unwrap();
    let expected = PartitionChange {
        replicas: Some(ids(&[4, 2, 5, 1, 3])),
        directories: Some([4, 2, 5, 1, 3].map(directory).to_vec()),
        adding: Some(ids(&[4, 5])),
        removing: Some(ids(&[1, 3])),
        ..change()
    };
    assert_eq!(decision.records, [MetadataRecord::PartitionChange(expected)]);
    let (image, _) = run(&image, move_to(Some(&[4, 2, 5])));
    let (image, state) = in_sync(&image, &[1, 2, 3, 4]);
    assert_eq!(state.unwrap().isr, ids(&[1, 2, 3, 4]));
    // The last one in: the old leader goes, and is told so.
    let (image, state) = in_sync(&image, &[1, 2, 3, 4, 5]);
    assert_eq!(state, Err(ErrorCode::NewLeaderElected));
    let partition = p0(&image);
    assert_eq!((&partition.replicas, &partition.isr), (&ids(&[4, 2, 5]), &ids(&[2, 4, 5])));
    assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(4)), LeaderEpoch(1)));
    assert_eq!(partition.directories, [4, 2, 5].map(directory));
    assert!(!partition.is_reassigning());
}

#[test]
fn completing_begins_an_epoch_though_the_leader_stays() {
    let (image, _) = run(&with_topic(4, &[1, 2, 3], &[]), move_to(Some(&[1, 2, 4])));
    let (image, state) = in_sync(&image, &[1, 2, 3, 4]);
    assert_eq!(state.unwrap().isr, ids(&[1, 2, 4]));
    assert_eq!((p0(&image).leader, p0(&image).leader_epoch), (Some(BrokerId(1)), LeaderEpoch(1)));
}

#[test]
fn min_isr_rises_in_the_change_that_completes_a_growth_from_one_to_three() {
    let (image, _) = run(&with_topic(3, &[1], &[]), move_to(Some(&[1, 2, 3])));
    assert_eq!((&p0(&image).isr, &p0(&image).elr), (&ids(&[1]), &ids(&[])));
    let (joined, _) = in_sync(&image, &[1, 2]);
    // One replica is still enough, so who leaves now is not needed.
    let (left, _) = in_sync(&joined, &[1]);
    assert_eq!(p0(&left).elr, ids(&[]));
    let (grown, _) = in_sync(&joined, &[1, 2, 3]);
    assert_eq!((&p0(&grown).replicas, &p0(&grown).adding), (&ids(&[1, 2, 3]), &ids(&[])));
    let (left, _) = in_sync(&grown, &[1]);
    assert_eq!(p0(&left).elr, ids(&[2, 3]), "from here on two must hold a record");
}

#[test]
fn giving_a_reassignment_up_goes_back_to_the_replicas_as_they_were() {
    let settled = with_topic(4, &[1, 2, 3], &[]);
    assert_eq!(refused(&settled, move_to(None)), ErrorCode::NoReassignmentInProgress);
    let (image, _) = run(&settled, move_to(Some(&[4, 2])));
    let (image, _) = in_sync(&image, &[1, 2, 3, 4]);
    assert!(!p0(&image).is_reassigning(), "it was complete");
    let (image, _) = run(&settled, move_to(Some(&[4, 5, 2])));
    assert_eq!(p0(&image), p0(&settled), "there is no broker 5");
    let (image, _) = run(&settled, move_to(Some(&[4, 2])));
    let (image, _) = run(&image, move_to(None));
    let partition = p0(&image);
    assert_eq!((&partition.replicas, &partition.isr), (&ids(&[2, 1, 3]), &ids(&[1, 2, 3])));
    assert!(!partition.is_reassigning());
}

#[test]
fn new_targets_replace_the_ones_in_progress() {
    let (image, _) = run(&with_topic(5, &[1, 2, 3], &[]), move_to(Some(&[4, 2, 3])));
    let (image, _) = in_sync(&image, &[1, 2, 4]);
    let (image, _) = run(&image, move_to(Some(&[5, 2, 3])));
    let partition = p0(&image);
    assert_eq!((&partition.replicas, &partition.isr), (&ids(&[5, 2, 3, 1]), &ids(&[1, 2])));
    assert_eq!((&partition.adding, &partition.removing), (&ids(&[5]), &ids(&[1])));
    assert_eq!(partition.leader_epoch, LeaderEpoch(1), "4 is no replica any more");
}

#[test]
fn reassignments_that_cannot_be_are_refused() {
    let image = with_topic(3, &[1, 2], &[]);
    assert_eq!(refused(&image, move_to(Some(&[]))), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&image, move_to(Some(&[1, 1]))), ErrorCode::InvalidReplicaAssignment);
    assert_eq!(refused(&image, move_to(Some(&[1, 9]))), ErrorCode::InvalidReplicaAssignment);
    let partitions =
        vec![NewReplicas { topic: "t".to_owned(), partition: PartitionIndex(0), replicas: Some(ids(&[1])) }];
    let narrow = AlterReassignments { partitions, allow_replication_factor_change: false };
    assert_eq!(refused(&image, ControllerRequest::AlterReassignments(narrow)), ErrorCode::InvalidReplicationFactor);
    // The one that is being added is the only one in sync: it cannot be given up.
    let (image, _) = run(&image, move_to(Some(&[3, 1, 2])));
    let (image, _) = in_sync(&image, &[1, 3]);
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 1) };
    let (image, _) = run(&image, ControllerRequest::Heartbeat(fence));
    assert_eq!((&p0(&image).isr, p0(&image).leader), (&ids(&[3]), Some(BrokerId(3))));
    assert_eq!(refused(&image, move_to(None)), ErrorCode::InvalidReplicaAssignment);
}

fn assign(image: &MetadataImage, broker: i32, to: DirectoryId) -> (MetadataImage, Result<(), ErrorCode>) {
    let key = TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) };
    let broker_epoch = image.broker(BrokerId(broker)).unwrap().epoch;
    let request = AssignReplicas { broker: BrokerId(broker), broker_epoch, replicas: vec![(key, to)] };
    let (image, decision) = run(image, ControllerRequest::AssignReplicas(request));
    let ControllerResponse::AssignReplicas(mut results) = decision.response else { panic!("wrong answer") };
    (image, results.remove(0).result.map_err(|reject| reject.code))
}

#[test]
fn another_directory_costs_a_replica_its_place_and_only_where_another_can_lead() {
    let second = Uuid([101; 16]);
    let both = |image: &MetadataImage| {
        let online_directories = Some(vec![directory(1), second]);
        let request = BrokerHeartbeat { online_directories, ..heartbeat(image, 1) };
        run(image, ControllerRequest::Heartbeat(request)).0
    };
    let image = both(&with_topic(3, &[1, 2, 3], &[]));
    assert_eq!(assign(&image, 1, directory(1)).0.partition(p0_key()).unwrap(), image.partition(p0_key()).unwrap());
    assert_eq!(assign(&image, 1, Uuid([55; 16])).1, Err(ErrorCode::InvalidRequest));
    let (moved, result) = assign(&image, 1, second);
    assert_eq!(result, Ok(()));
    let partition = p0(&moved);
    assert_eq!(partition.directories, [second, directory(2), directory(3)]);
    assert_eq!((partition.leader, &partition.isr, &partition.elr), (Some(BrokerId(2)), &ids(&[2, 3]), &ids(&[])));

    let alone = both(&with_topic(1, &[1], &[]));
    let (same, result) = assign(&alone, 1, second);
    assert_eq!((result, p0(&same)), (Err(ErrorCode::IneligibleReplica), p0(&alone)));
}

fn p0_key() -> TopicPartition {
    TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) }
}

#[test]
fn internal_topics_grow_from_one_to_three_when_a_third_broker_is_up() {
    let topics = vec![new_topic("__consumer_offsets", 4, 1), new_topic("mine", 1, 1)];
    let image = run(&brokers(3), create(topics)).0;
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 3) };
    let two = run(&image, ControllerRequest::Heartbeat(fence)).0;
    assert_eq!(decided(&two, ControllerRequest::RaiseInternalTopics).unwrap().records, []);
    let (image, decision) = run(&image, ControllerRequest::RaiseInternalTopics);
    let raised = vec!["__consumer_offsets".to_owned()];
    assert_eq!(decision.response, ControllerResponse::RaiseInternalTopics(raised));
    for partition in &image.topic_by_name("__consumer_offsets").unwrap().partitions {
        assert_eq!((partition.replicas.len(), partition.adding.len(), partition.isr.len()), (3, 2, 1));
        assert_eq!(partition.preferred_leader(), partition.leader);
    }
    assert_eq!(image.topic_by_name("mine").unwrap().partitions[0].replicas.len(), 1);
    assert_eq!(decided(&image, ControllerRequest::RaiseInternalTopics).unwrap().records, [], "in one step");
}

#[test]
fn an_unset_factor_counts_listed_brokers_and_waits_for_them_a_minute_at_most() {
    let image = brokers(1);
    let listed = ids(&[1, 2, 3]);
    let after = |seconds| awaited_brokers(&image, &listed, Duration::from_secs(seconds));
    assert_eq!((after(0), after(59), after(60)), (2, 2, 0));
    let unset = CreateTopics { topics: vec![new_topic("t", 1, -1)], validate_only: false };
    let asked = CreateTopics { topics: vec![new_topic("t", 1, 1)], validate_only: false };
    let defaults = Defaults::default();
    assert!(waits_for_brokers(&image, &unset, &defaults, 2));
    assert!(!waits_for_brokers(&image, &unset, &defaults, 0), "it takes those present");
    assert!(!waits_for_brokers(&image, &asked, &defaults, 2));
    assert!(!waits_for_brokers(&brokers(3), &unset, &defaults, 1), "three are enough");
    let set = Defaults { replication_factor: Some(1), ..defaults };
    assert!(!waits_for_brokers(&image, &unset, &set, 2));
    let (code, _) = create_error(&image, new_topic("t", 1, 3));
    assert_eq!(code, ErrorCode::InvalidReplicationFactor, "an explicit one does not wait");
}
