//! What the controller makes of a replica that is whole but for ranges it knows (rule 9).

use super::*;

#[test]
fn damaged_sole_replica_goes_on_leading_and_one_of_several_leaves_isr_and_elr() {
    let damaged = |id| ControllerRequest::RegisterBroker(registration(id, 2, Verdict::Damaged));
    let (image, decision) = run(&with_topic(1, &[1], &[]), damaged(1));
    let ControllerResponse::RegisterBroker(answer) = decision.response else { panic!("wrong answer") };
    assert_eq!((answer.offline, answer.may_lack_records), (vec![], vec![]));
    let image = unfence(&image, 1);
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(1)), &ids(&[1])));

    let (image, _) = run(&with_topic(3, &[1, 2, 3], &[]), damaged(1));
    let partition = p0(&image);
    assert!(!partition.isr.contains(&BrokerId(1)) && !partition.elr.contains(&BrokerId(1)), "{partition:?}");
    assert!(partition.leader.is_some_and(|leader| leader != BrokerId(1)), "{partition:?}");
}

/// Three replicas; 3 has left the in-sync set and follows again.
fn one_outside() -> MetadataImage {
    let image = with_topic(3, &[1, 2, 3], &[]);
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 3) };
    let image = unfence(&run(&image, ControllerRequest::Heartbeat(fence)).0, 3);
    assert_eq!(p0(&image).isr, ids(&[1, 2]));
    image
}

/// The image after a wish of broker 1, or why it was refused.
fn wished(image: &MetadataImage, wish: PartitionIsr) -> Result<MetadataImage, ErrorCode> {
    let sender = BrokerId(1);
    let broker_epoch = image.broker(sender).unwrap().epoch;
    let request = AlterPartition { broker: sender, broker_epoch, partitions: vec![wish] };
    let (image, decision) = run(image, ControllerRequest::AlterPartition(request));
    let ControllerResponse::AlterPartition(mut results) = decision.response else { panic!("wrong answer") };
    match results.remove(0).result {
        Ok(_) => Ok(image),
        Err(reject) if reject.code == ErrorCode::NewLeaderElected => Ok(image),
        Err(reject) => Err(reject.code),
    }
}

#[test]
fn a_replica_joins_only_when_its_leader_says_that_it_is_whole() {
    for verdict in [Verdict::Damaged, Verdict::Lost, Verdict::Proved] {
        let request = ControllerRequest::RegisterBroker(registration(3, 2, verdict));
        let image = unfence(&run(&one_outside(), request).0, 3);
        let mut join = wish(&image, &[1, 2, 3]);
        join.isr[2].is_whole = false;
        assert_eq!(wished(&image, join.clone()), Err(ErrorCode::IneligibleReplica), "{verdict:?}");
        join.isr[2].is_whole = true;
        assert_eq!(p0(&wished(&image, join).unwrap()).isr, ids(&[1, 2, 3]), "{verdict:?}");
    }
    // Nothing is known of one that the leader has not heard.
    let image = one_outside();
    let mut join = wish(&image, &[1, 2, 3]);
    join.isr[2].epoch = None;
    assert_eq!(wished(&image, join), Err(ErrorCode::IneligibleReplica));
}

#[test]
fn a_follower_found_damaged_keeps_no_place_in_the_eligible_set() {
    let image = one_outside();
    let without = PartitionIsr { damaged: ids(&[2]), ..wish(&image, &[1]) };
    assert_eq!(p0(&wished(&image, wish(&image, &[1])).unwrap()).elr, ids(&[2]), "one that is merely slow keeps it");
    assert_eq!(p0(&wished(&image, without).unwrap()).elr, ids(&[]));
    // One that is in the eligible set already loses its place there.
    let image = wished(&image, wish(&image, &[1])).unwrap();
    let still = PartitionIsr { damaged: ids(&[2]), ..wish(&image, &[1]) };
    assert_eq!(p0(&wished(&image, still).unwrap()).elr, ids(&[]));
    for damaged in [ids(&[1]), ids(&[9])] {
        let wish = PartitionIsr { damaged, ..wish(&image, &[1]) };
        assert_eq!(wished(&image, wish), Err(ErrorCode::InvalidRequest));
    }
}

#[test]
fn a_leader_hands_over_if_another_can_lead_and_stays_if_nobody_can() {
    let image = one_outside();
    let slow = PartitionIsr { hand_over: true, ..wish(&image, &[1, 2]) };
    let mut damaged = slow.clone();
    damaged.isr[0].is_whole = false;
    let led = |image: &MetadataImage| (p0(image).leader.map(|id| id.0), p0(image).isr.clone(), p0(image).elr.clone());
    assert_eq!(led(&wished(&image, slow).unwrap()), (Some(2), ids(&[2]), ids(&[1])));
    assert_eq!(led(&wished(&image, damaged.clone()).unwrap()), (Some(2), ids(&[2]), ids(&[])));
    // 2 is fenced, and 3 lacks records: a damaged leader is better than none.
    let fence = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 2) };
    let image = run(&image, ControllerRequest::Heartbeat(fence)).0;
    let mut alone = PartitionIsr { hand_over: true, ..wish(&image, &[1]) };
    alone.isr[0].is_whole = false;
    let image = wished(&image, alone).unwrap();
    assert_eq!(led(&image), (Some(1), ids(&[1]), ids(&[2])));
    // Who joins in the same change may take over.
    let mut joined = PartitionIsr { hand_over: true, ..wish(&image, &[1, 3]) };
    joined.isr[0].is_whole = false;
    assert_eq!(led(&wished(&image, joined).unwrap()), (Some(3), ids(&[3]), ids(&[2])));
}
