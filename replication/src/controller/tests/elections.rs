//! Changes of in-sync sets that leaders ask for, and elections that people ask for.

use super::*;

#[test]
fn isr_changes_are_checked_in_kafkas_order() {
    // Leader 1 in epoch 1 after a restart; broker 3 is fenced.
    let image = with_topic(3, &[1, 2, 3], &[]);
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 3) };
    let image = run(&image, ControllerRequest::Heartbeat(fence)).0;
    let good = wish(&image, &[1]);
    assert_eq!(alter(&image, 1, good.clone()).unwrap().partition_epoch, PartitionEpoch(2));

    let newer = PartitionIsr { leader_epoch: LeaderEpoch(9), ..good.clone() };
    assert_eq!(alter(&image, 2, newer), Err(ErrorCode::NotController));
    let newer = PartitionIsr { partition_epoch: PartitionEpoch(9), ..good.clone() };
    assert_eq!(alter(&image, 2, newer), Err(ErrorCode::NotController));
    let older = PartitionIsr { leader_epoch: LeaderEpoch(-1), ..good.clone() };
    assert_eq!(alter(&image, 2, older), Err(ErrorCode::FencedLeaderEpoch));
    let older = PartitionIsr { partition_epoch: PartitionEpoch(0), ..good.clone() };
    assert_eq!(alter(&image, 2, older.clone()), Err(ErrorCode::InvalidRequest), "who does not lead is told so first");
    assert_eq!(alter(&image, 1, older), Err(ErrorCode::InvalidUpdateVersion));
    assert_eq!(alter(&image, 1, wish(&image, &[1, 9])), Err(ErrorCode::InvalidRequest));
    assert_eq!(alter(&image, 1, wish(&image, &[1, 1])), Err(ErrorCode::InvalidRequest));
    assert_eq!(alter(&image, 1, wish(&image, &[2])), Err(ErrorCode::InvalidRequest));
    assert_eq!(alter(&image, 1, wish(&image, &[1, 2, 3])), Err(ErrorCode::IneligibleReplica));
    let recovering = PartitionIsr { recovering: RecoveryState::Recovering, ..good.clone() };
    assert_eq!(alter(&image, 1, recovering), Err(ErrorCode::InvalidRequest));
    let mut rebooted = wish(&image, &[1, 2]);
    rebooted.isr[1].epoch = Some(BrokerEpoch(1));
    assert_eq!(alter(&image, 1, rebooted), Err(ErrorCode::IneligibleReplica));
    let mut unknown = good;
    unknown.partition.topic_id = topic_id(9);
    assert_eq!(alter(&image, 1, unknown), Err(ErrorCode::UnknownTopicId));
}

#[test]
fn a_replica_joins_only_from_the_directory_it_belongs_into_while_that_is_online() {
    let join = |image: &MetadataImage, directory| {
        let mut wish = wish(image, &[1, 2]);
        wish.isr[1].directory = directory;
        alter(image, 1, wish).map(|state| state.isr)
    };
    let image = unfence(&fenced(&with_topic(2, &[1, 2], &[]), 2), 2);
    assert_eq!(p0(&image).isr, ids(&[1]));
    assert_eq!(join(&image, directory(9)), Err(ErrorCode::IneligibleReplica));
    assert_eq!(join(&image, directory(2)), Ok(ids(&[1, 2])));
    let offline = BrokerHeartbeat { online_directories: Some(vec![directory(9)]), ..heartbeat(&image, 2) };
    let image = run(&image, ControllerRequest::Heartbeat(offline)).0;
    assert_eq!(join(&image, directory(2)), Err(ErrorCode::IneligibleReplica), "it is offline");
    assert_eq!(join(&image, directory(9)), Err(ErrorCode::IneligibleReplica), "online, and not the replica's");
}

/// A broker that has fenced itself.
fn fenced(image: &MetadataImage, broker: i32) -> MetadataImage {
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(image, broker) };
    run(image, ControllerRequest::Heartbeat(fence)).0
}

fn elect(image: &MetadataImage, election: ElectionType) -> (Vec<MetadataRecord>, Result<(), ErrorCode>) {
    let partitions = Some(vec![("t".to_owned(), PartitionIndex(0))]);
    let decision = decided(image, ControllerRequest::ElectLeaders(ElectLeaders { election, partitions })).unwrap();
    let ControllerResponse::ElectLeaders(mut results) = decision.response else { panic!("wrong answer") };
    (decision.records, results.remove(0).result.map_err(|reject| reject.code))
}

#[test]
fn preferred_leader_is_elected_when_it_is_in_sync_again() {
    let image = with_topic(2, &[1, 2], &[]);
    assert_eq!(elect(&image, ElectionType::Preferred).1, Err(ErrorCode::ElectionNotNeeded));
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 1) };
    let image = unfence(&run(&image, ControllerRequest::Heartbeat(fence)).0, 1);
    assert_eq!(p0(&image).leader, Some(BrokerId(2)));
    assert_eq!(elect(&image, ElectionType::Preferred).1, Err(ErrorCode::PreferredLeaderNotAvailable));
    let broker_epoch = image.broker(BrokerId(2)).unwrap().epoch;
    let partitions = vec![wish(&image, &[2, 1])];
    let rejoin = AlterPartition { broker: BrokerId(2), broker_epoch, partitions };
    let image = run(&image, ControllerRequest::AlterPartition(rejoin)).0;
    let expected = PartitionChange { leader: Some(Some(BrokerId(1))), ..change() };
    assert_eq!(elect(&image, ElectionType::Preferred), (vec![MetadataRecord::PartitionChange(expected)], Ok(())));
}

#[test]
fn unclean_election_is_refused_on_a_strict_topic_and_done_on_a_relaxed_one() {
    let offline = |configs: &[(&str, &str)]| {
        let image = with_topic(2, &[1, 2], configs);
        let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 1) };
        let image = run(&image, ControllerRequest::Heartbeat(fence)).0;
        let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 2) };
        let image = run(&image, ControllerRequest::Heartbeat(fence)).0;
        unfence(&image, 1)
    };
    let strict = offline(&[]);
    assert_eq!(p0(&strict).leader, None);
    assert_eq!(elect(&strict, ElectionType::Unclean), (Vec::new(), Err(ErrorCode::PolicyViolation)));
    let relaxed = offline(&[("flush.messages", "100")]);
    let (records, result) = elect(&relaxed, ElectionType::Unclean);
    let expected = PartitionChange {
        leader: Some(Some(BrokerId(1))),
        isr: Some(ids(&[1])),
        elr: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        recovering: Some(RecoveryState::Recovering),
        left_strict: Some(None),
        ..change()
    };
    assert_eq!((records, result), (vec![MetadataRecord::PartitionChange(expected)], Ok(())));
}
