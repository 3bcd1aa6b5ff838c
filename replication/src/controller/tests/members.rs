//! Who may lead when every member of ISR and ELR has been away (rule 11), and what follows when a broker is fenced.

use super::*;

pub(super) fn fence(image: &MetadataImage, broker: i32) -> MetadataImage {
    let request = FenceBroker { id: BrokerId(broker), epoch: image.broker(BrokerId(broker)).unwrap().epoch };
    let (image, decision) = run(image, ControllerRequest::FenceBroker(request));
    assert_eq!(decision.response, ControllerResponse::FenceBroker { is_fenced: true });
    image
}

/// A new incarnation whose one replica ended in a torn tail there.
pub(super) fn restart_cut(image: &MetadataImage, broker: i32, incarnation: u8, end: (i32, i64)) -> MetadataImage {
    let differing = vec![ReplicaReport {
        partition: TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) },
        verdict: Verdict::Cut,
        last_epoch: LeaderEpoch(end.0),
        log_end_offset: Offset(end.1),
        directory: Some(directory(broker)),
        was_strict: Some(true),
    }];
    let recorded = image.broker(BrokerId(broker)).unwrap().last_unfenced_with(directory(broker));
    let request = RegisterBrokerRequest {
        differing,
        directories: vec![reported(directory(broker), Verdict::Cut, recorded.map(|epoch| epoch.0))],
        ..registration(broker, incarnation, Verdict::Cut)
    };
    unfence(&run(image, ControllerRequest::RegisterBroker(request)).0, broker)
}

/// The loss of partition 0 of `t`, which stands as it does in `image`, is accepted.
pub(super) fn accept_loss(image: &MetadataImage, replica: i32) -> ControllerRequest {
    let shown = PartitionShown {
        topic_id: topic_id(0),
        leader_epoch: p0(image).leader_epoch,
        partition_epoch: p0(image).partition_epoch,
    };
    let (topic, partition, replica) = ("t".to_owned(), PartitionIndex(0), BrokerId(replica));
    ControllerRequest::AcceptLoss(AcceptLoss { topic, partition, replica, shown })
}

/// Three replicas, min ISR two; 1 left first, then 2, then the leader 3.
pub(super) fn all_gone(configs: &[(&str, &str)]) -> MetadataImage {
    let image = [1, 2, 3].iter().fold(with_topic(3, &[1, 2, 3], configs), |image, broker| fence(&image, *broker));
    assert_eq!((p0(&image).leader, &p0(&image).elr), (None, &ids(&[2, 3])));
    image
}

#[test]
fn among_cut_members_the_one_that_reaches_furthest_leads_once_enough_have_registered() {
    let image = restart_cut(&all_gone(&[]), 2, 2, (4, 70));
    assert_eq!((p0(&image).leader, &p0(&image).cut), (None, &ids(&[2])));
    let longer = restart_cut(&image, 3, 2, (4, 71));
    assert_eq!((p0(&longer).leader, &p0(&longer).cut), (Some(BrokerId(3)), &ids(&[2])));
    let shorter = restart_cut(&image, 3, 2, (3, 900));
    assert_eq!(p0(&shorter).leader, Some(BrokerId(2)), "a later epoch outweighs a longer log");
    // A second, clean start does not bring back what the first one cut.
    let request = RegisterBrokerRequest {
        directories: vec![reported(directory(2), Verdict::Proved, Some(image.broker(BrokerId(2)).unwrap().epoch.0))],
        ..registration(2, 3, Verdict::Proved)
    };
    let report = ReplicaReport {
        partition: TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) },
        verdict: Verdict::Proved,
        last_epoch: LeaderEpoch(4),
        log_end_offset: Offset(70),
        directory: Some(directory(2)),
        was_strict: Some(true),
    };
    let told = RegisterBrokerRequest { differing: vec![report], ..request.clone() };
    let again = unfence(&run(&image, ControllerRequest::RegisterBroker(told)).0, 2);
    assert_eq!((p0(&again).leader, &p0(&again).cut), (None, &ids(&[2])));
    assert_eq!(p0(&restart_cut(&again, 3, 2, (4, 69))).leader, Some(BrokerId(2)), "it still reaches further");
    assert_eq!(p0(&restart_cut(&again, 3, 2, (4, 71))).leader, Some(BrokerId(3)));
    // One that does not say where it ends may reach further.
    let silent = unfence(&run(&image, ControllerRequest::RegisterBroker(request)).0, 2);
    let silent = restart_cut(&silent, 3, 2, (4, 71));
    assert_eq!((p0(&silent).leader, &p0(&silent).cut), (None, &ids(&[2, 3])));
}

#[test]
fn unregistering_a_member_that_may_return_decides_for_nobody_else_on_a_strict_topic() {
    let unregister = |id| ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(id) });
    // 2 is cut, 3 may have everything; and before that, while neither is back.
    let image = all_gone(&[]);
    for image in [&image, &restart_cut(&image, 2, 2, (4, 70))] {
        let refused = decided(image, unregister(3)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::PolicyViolation, "{refused}");
        assert!(refused.message.contains("t-0"), "{refused}");
    }
    // Who accepts the loss says so for the partition, and then the broker can go.
    let image = restart_cut(&image, 2, 2, (4, 70));
    let image = run(&image, accept_loss(&image, 2)).0;
    let image = run(&image, unregister(3)).0;
    assert_eq!((p0(&image).leader, image.broker(BrokerId(3))), (Some(BrokerId(2)), None));
}

#[test]
fn unregistering_a_member_that_will_not_return_lets_the_cut_one_of_a_relaxed_topic_lead() {
    let image = restart_cut(&all_gone(&[("flush.messages", "100")]), 2, 2, (4, 70));
    let request = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(3) });
    let image = run(&image, request).0;
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(2)), &ids(&[2]), &ids(&[])));
}

#[test]
fn a_cut_replica_that_was_in_sync_again_is_whole() {
    let image = restart_cut(&with_topic(3, &[1, 2, 3], &[]), 2, 2, (0, 5));
    assert_eq!((&p0(&image).isr, &p0(&image).cut), (&ids(&[1, 3]), &ids(&[])));
    let image = fence(&image, 3);
    let image = restart_cut(&image, 2, 3, (0, 5));
    assert_eq!((&p0(&image).isr, &p0(&image).elr), (&ids(&[1]), &ids(&[3])), "2 had left before: it is no member");

    let image = all_gone(&[]);
    let image = restart_cut(&restart_cut(&image, 3, 2, (4, 71)), 2, 2, (4, 70));
    assert_eq!((p0(&image).leader, &p0(&image).cut), (Some(BrokerId(3)), &ids(&[2])));
    let partitions = vec![wish(&image, &[3, 2])];
    let broker_epoch = image.broker(BrokerId(3)).unwrap().epoch;
    let join = AlterPartition { broker: BrokerId(3), broker_epoch, partitions };
    let image = run(&image, ControllerRequest::AlterPartition(join)).0;
    assert_eq!((&p0(&image).isr, &p0(&image).elr, &p0(&image).cut), (&ids(&[3, 2]), &ids(&[]), &ids(&[])));
    let image = unfence(&fence(&fence(&image, 2), 3), 2);
    assert_eq!(p0(&image).leader, Some(BrokerId(2)), "its process has been up all the while");
}

#[test]
fn relaxed_partition_left_by_all_is_led_by_its_last_leader_and_a_strict_one_by_nobody() {
    let restart_lost = |image: &MetadataImage, broker: i32| {
        let request = ControllerRequest::RegisterBroker(registration(broker, 2, Verdict::Lost));
        unfence(&run(image, request).0, broker)
    };
    let relaxed = all_gone(&[("flush.messages", "100")]);
    let image = restart_lost(&relaxed, 3);
    assert_eq!((p0(&image).leader, &p0(&image).elr), (None, &ids(&[2])), "2 may come back whole");
    let image = restart_lost(&image, 2);
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(3)), &ids(&[3])));
    assert_eq!(p0(&image).recovering, RecoveryState::Recovering);

    let image = restart_lost(&restart_lost(&all_gone(&[]), 3), 2);
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (None, &ids(&[]), &ids(&[])));
    assert_eq!(p0(&image).last_known_elr, ids(&[3]));
}

#[test]
fn a_loss_is_accepted_for_one_partition_and_stays_on_record() {
    let accept = |image: &MetadataImage, replica| decided(image, accept_loss(image, replica));
    let image = unfence(&all_gone(&[]), 1);
    assert_eq!(p0(&image).leader, None);
    assert_eq!(accept(&image, 3).unwrap_err().code, ErrorCode::ReplicaNotAvailable);
    assert_eq!(accept(&image, 9).unwrap_err().code, ErrorCode::InvalidReplicaAssignment);
    let decision = accept(&image, 1).unwrap();
    let key = TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) };
    let accepted = LossAccepted {
        partition: key,
        replica: BrokerId(1),
        instead_of: ids(&[2, 3]),
        at: Timestamp(0),
        leader_epoch: LeaderEpoch(p0(&image).leader_epoch.0 + 1),
    };
    let expected = PartitionChange {
        leader: Some(Some(BrokerId(1))),
        isr: Some(ids(&[1])),
        elr: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        recovering: Some(RecoveryState::Recovering),
        left_strict: Some(None),
        ..change()
    };
    let records = vec![MetadataRecord::LossAccepted(accepted.clone()), MetadataRecord::PartitionChange(expected)];
    assert_eq!(decision, Decision::new(records, ControllerResponse::AcceptLoss(accepted.clone())));
    let image = run(&image, accept_loss(&image, 1)).0;
    assert_eq!(image.loss_accepted(key), Some(&accepted));
    assert_eq!(MetadataImage::from_records(image.index(), &image.to_records()).unwrap(), image);
    assert_eq!(accept(&image, 1).unwrap_err().code, ErrorCode::ElectionNotNeeded);
    // Who held more has lost its place: it truncates to the new leader.
    assert_eq!(p0(&unfence(&image, 3)).isr, ids(&[1]));
}

#[test]
fn a_loss_is_not_accepted_where_the_partition_has_changed_since_it_was_shown() {
    let image = unfence(&all_gone(&[]), 1);
    let asked = accept_loss(&image, 1);
    // Its leader comes back, takes writes and dies again.
    let changed = fence(&unfence(&image, 3), 3);
    assert_eq!(p0(&changed).leader, None);
    let refused = decided(&changed, asked.clone()).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidUpdateVersion, "{refused}");
    let ControllerRequest::AcceptLoss(mut other) = asked else { panic!("another request") };
    other.shown.topic_id = topic_id(1);
    let refused = decided(&image, ControllerRequest::AcceptLoss(other)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidUpdateVersion, "a topic made anew under the name");
    assert_eq!(p0(&run(&changed, accept_loss(&changed, 1)).0).leader, Some(BrokerId(1)));
}

#[test]
fn a_broker_in_very_many_in_sync_sets_is_fenced_entry_by_entry_and_joins_none_meanwhile() {
    let count = i32::try_from(RECORDS_PER_ENTRY_MAX).unwrap();
    let image = run(&brokers(3), create(vec![new_topic("t", count, 3)])).0;
    let more = NewPartitions { topic: "t".to_owned(), count: count + 500, assignments: None };
    let more = CreatePartitions { topics: vec![more], validate_only: false };
    let image = run(&image, ControllerRequest::CreatePartitions(more)).0;
    assert_eq!(image.membership_count(BrokerId(1)), RECORDS_PER_ENTRY_MAX + 500);

    let request = FenceBroker { id: BrokerId(1), epoch: image.broker(BrokerId(1)).unwrap().epoch };
    let request = ControllerRequest::FenceBroker(request);
    let (image, first) = run(&image, request.clone());
    assert_eq!(first.response, ControllerResponse::FenceBroker { is_fenced: false });
    assert_eq!(first.records.len(), RECORDS_PER_ENTRY_MAX);
    let broker = image.broker(BrokerId(1)).unwrap();
    assert!(!broker.fenced && broker.in_controlled_shutdown);
    let led = p0(&image).leader.unwrap();
    assert_eq!(alter(&image, led.0, wish(&image, &[led.0, 1])), Err(ErrorCode::IneligibleReplica));

    let (image, last) = run(&image, request);
    assert_eq!(last.response, ControllerResponse::FenceBroker { is_fenced: true });
    assert_eq!(last.records.len(), 502, "the first entry kept one place for what happens to the broker");
    assert!(image.broker(BrokerId(1)).unwrap().fenced);
    assert_eq!(image.membership_count(BrokerId(1)), 0);
    assert!(image.partitions().all(|(_, _, partition)| partition.leader.is_some()));
    assert!(image.indexes_are_true());
    assert!(image.broker(BrokerId(1)).is_some_and(|broker| broker.fenced));
    let back = unfence(&image, 1);
    assert!(back.is_active(BrokerId(1)));
}

#[test]
fn a_broker_whose_fencing_was_left_half_way_joins_and_leads_again_when_it_is_heard() {
    let image = run(&brokers(3), create(vec![new_topic("t", 10, 1), new_topic("u", 10, 3)])).0;
    let broker = image.broker(BrokerId(1)).unwrap();
    let request = FenceBroker { id: BrokerId(1), epoch: broker.epoch };
    crate::controller::entry::tests::RECORDS_MAX.set(8);
    let (half, decision) = run(&image, ControllerRequest::FenceBroker(request));
    assert_eq!(decision.response, ControllerResponse::FenceBroker { is_fenced: false });
    // And there the controller ends.
    assert!(half.broker(BrokerId(1)).is_some_and(|broker| !broker.fenced && broker.in_controlled_shutdown));
    let leaving = BrokerHeartbeat { want_shutdown: true, ..heartbeat(&half, 1) };
    assert!(!run(&half, ControllerRequest::Heartbeat(leaving)).0.is_active(BrokerId(1)), "it wants to leave");
    crate::controller::entry::tests::RECORDS_MAX.set(RECORDS_PER_ENTRY_MAX);
    let heard = unfence(&half, 1);
    assert!(heard.is_active(BrokerId(1)));
    for (topic, index, partition) in heard.partitions() {
        assert!(heard.is_led(partition), "nobody leads {}-{index}", topic.name);
    }
}

#[test]
fn preferred_leaders_go_back_a_thousand_at_a_time() {
    let mut image = run(&brokers(3), create(vec![new_topic("t", 3_600, 3)])).0;
    image = unfence(&fence(&image, 1), 1);
    let all: Vec<_> = image.partitions().map(|(_, index, partition)| (index, (**partition).clone())).collect();
    for (index, partition) in all.iter().filter(|(_, partition)| !partition.isr.contains(&BrokerId(1))) {
        let mut isr = partition.isr.clone();
        isr.push(BrokerId(1));
        let change = PartitionChange { isr: Some(isr), ..PartitionChange::of(topic_id(0), *index) };
        image = after(&image, image.index(), &[MetadataRecord::PartitionChange(change)]);
    }
    let (image, decision) = run(&image, ControllerRequest::BalanceLeaders);
    let balanced = Balanced { elected: 0, moved: 1_000, has_more: true };
    assert_eq!(decision.response, ControllerResponse::BalanceLeaders(balanced));
    let (image, decision) = run(&image, ControllerRequest::BalanceLeaders);
    let balanced = Balanced { elected: 0, moved: 200, has_more: false };
    assert_eq!(decision.response, ControllerResponse::BalanceLeaders(balanced));
    assert!(image.partitions().all(|(_, _, partition)| partition.leader == partition.preferred_leader()));
}

#[test]
fn a_fenced_last_member_gives_way_to_an_eligible_one_that_can_lead() {
    let image = [1, 2].iter().fold(with_topic(3, &[1, 2, 3], &[]), |image, broker| fence(&image, *broker));
    let restart = ControllerRequest::RegisterBroker(registration(3, 2, Verdict::Proved));
    let image = run(&image, restart).0;
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(3)), &ids(&[3]), &ids(&[2])));
    // A restart costs a partition that nobody else can lead nothing.
    assert_eq!(decided(&image, ControllerRequest::BalanceLeaders).unwrap().records, []);
    let led = unfence(&image, 2);
    assert_eq!((p0(&led).leader, &p0(&led).isr, &p0(&led).elr), (Some(BrokerId(2)), &ids(&[2]), &ids(&[3])));
    // Somebody may also decide not to wait for it.
    let waiting = unfence(&image, 1);
    assert_eq!(p0(&waiting).leader, Some(BrokerId(3)), "1 is not eligible");
    assert_eq!(p0(&run(&waiting, accept_loss(&waiting, 1)).0).leader, Some(BrokerId(1)));
}

/// Nobody up; all three are eligible, and two of them would suffice.
fn three_eligible() -> MetadataImage {
    let image = with_topic(3, &[1, 2, 3], &[("min.insync.replicas", "3")]);
    let image = [1, 2, 3].iter().fold(image, |image, broker| fence(&image, *broker));
    let edit = ConfigEdit {
        key: "min.insync.replicas".to_owned(),
        operation: ConfigOperation::Set,
        value: Some("2".to_owned()),
    };
    let resources = vec![(ConfigResource::Topic("t".into()), vec![edit])];
    let lower = IncrementalAlterConfigs { resources, validate_only: false };
    let image = run(&image, ControllerRequest::IncrementalAlterConfigs(lower)).0;
    assert_eq!(p0(&image).elr, ids(&[1, 2, 3]));
    image
}

#[test]
fn a_cut_member_waits_for_one_that_has_registered_whole_or_longer_and_is_not_unfenced_yet() {
    let key = TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) };
    let comes = |image: &MetadataImage, verdict, end| {
        let report = ReplicaReport {
            partition: key,
            verdict,
            last_epoch: LeaderEpoch(4),
            log_end_offset: Offset(end),
            directory: Some(directory(3)),
            was_strict: Some(true),
        };
        let request = RegisterBrokerRequest { differing: vec![report], ..registration(3, 2, verdict) };
        run(image, ControllerRequest::RegisterBroker(request)).0
    };
    for (verdict, end) in [(Verdict::Proved, 0), (Verdict::Cut, 72)] {
        let image = comes(&three_eligible(), verdict, end);
        let image = restart_cut(&restart_cut(&image, 1, 2, (4, 70)), 2, 2, (4, 71));
        assert_eq!(p0(&image).leader, None, "{verdict:?}: 3 has registered and is better");
        assert_eq!(p0(&unfence(&image, 3)).leader, Some(BrokerId(3)), "{verdict:?}");
    }
    // One that reaches less far is counted, and not waited for.
    let image = comes(&three_eligible(), Verdict::Cut, 69);
    assert_eq!(p0(&restart_cut(&image, 1, 2, (4, 70))).leader, Some(BrokerId(1)));
    // One that was in use and fell silent has not registered since.
    let image = fence(&unfence(&comes(&three_eligible(), Verdict::Cut, 72), 3), 3);
    let image = restart_cut(&restart_cut(&image, 1, 2, (4, 70)), 2, 2, (4, 71));
    assert_eq!(p0(&image).leader, Some(BrokerId(2)));
}

/// Decides a request entry by entry, each of at most so many records; how many entries it took.
fn run_in_parts(image: &MetadataImage, request: &ControllerRequest, records_max: usize) -> (MetadataImage, usize) {
    crate::controller::entry::tests::RECORDS_MAX.set(records_max);
    let mut image = image.clone();
    for entries in 1.. {
        let (next, decision) = run(&image, request.clone());
        assert!(decision.records.len() <= records_max, "{:?}", decision.records);
        assert!(next.indexes_are_true());
        image = next;
        if !decision.goes_on {
            return (image, entries);
        }
    }
    unreachable!("a request comes to an end");
}

#[test]
fn what_does_not_fit_one_entry_is_decided_in_several() {
    let image = run(&brokers(3), create(vec![new_topic("t", 10, 3)])).0;
    let lost = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Lost));
    let (after, entries) = run_in_parts(&image, &lost, 4);
    assert_eq!((entries, after.membership_count(BrokerId(1))), (4, 0));
    let registered = after.broker(BrokerId(1)).unwrap();
    assert!(registered.fenced && !registered.in_controlled_shutdown && registered.incarnation == Uuid([2; 16]));
    // Before the last entry it is the old incarnation, which nobody elects and no leader lets join.
    let (first, _) = run(&image, lost);
    let old = first.broker(BrokerId(1)).unwrap();
    assert!(old.in_controlled_shutdown && old.incarnation == Uuid([1; 16]));
    assert_eq!(first.membership_count(BrokerId(1)), 7);

    let forget = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
    crate::controller::entry::tests::RECORDS_MAX.set(100);
    let eligible = fence(&fence(&image, 2), 1);
    let (after, entries) = run_in_parts(&eligible, &forget, 4);
    assert_eq!((entries, after.broker(BrokerId(1)).is_none(), after.brokers().len()), (4, true, 2));

    let offline = BrokerHeartbeat { online_directories: Some(Vec::new()), ..heartbeat(&image, 1) };
    let (after, entries) = run_in_parts(&image, &ControllerRequest::Heartbeat(offline), 4);
    assert_eq!(entries, 5, "and one in which it is answered");
    assert!(after.broker(BrokerId(1)).unwrap().directories.is_empty());
    assert!(after.partitions().all(|(_, _, partition)| partition.leader.is_some_and(|leader| leader != BrokerId(1))));
}

#[test]
fn strict_partitions_taken_offline_in_several_entries_are_all_named_in_the_answer() {
    let image = run(&brokers(1), create(vec![new_topic("t", 5, 1)])).0;
    let lost = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Lost));
    crate::controller::entry::tests::RECORDS_MAX.set(3);
    let mut image = image;
    let answer = loop {
        let (next, decision) = run(&image, lost.clone());
        image = next;
        if !decision.goes_on {
            break decision.response;
        }
    };
    let ControllerResponse::RegisterBroker(answer) = answer else { panic!("wrong answer") };
    assert_eq!(answer.offline.len(), 5);
}

pub(super) fn relaxed(image: &MetadataImage) -> MetadataImage {
    let edit =
        ConfigEdit { key: "flush.messages".into(), operation: ConfigOperation::Set, value: Some("100".to_owned()) };
    let resources = vec![(ConfigResource::Topic("t".into()), vec![edit])];
    let request = IncrementalAlterConfigs { resources, validate_only: false };
    let (image, decision) = run(image, ControllerRequest::IncrementalAlterConfigs(request));
    assert!(!decision.records.is_empty());
    image
}

pub(super) fn restart_lost(image: &MetadataImage, broker: i32, was_strict: Option<bool>) -> MetadataImage {
    let report = ReplicaReport {
        partition: TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) },
        verdict: Verdict::Lost,
        last_epoch: LeaderEpoch(0),
        log_end_offset: Offset(0),
        directory: Some(directory(broker)),
        was_strict,
    };
    let recorded = image.broker(BrokerId(broker)).unwrap().last_unfenced_with(directory(broker));
    let request = RegisterBrokerRequest {
        directories: vec![reported(directory(broker), Verdict::Proved, recorded.map(|epoch| epoch.0))],
        differing: vec![report],
        ..registration(broker, 9, Verdict::Proved)
    };
    unfence(&run(image, ControllerRequest::RegisterBroker(request)).0, broker)
}

#[test]
fn what_was_promised_is_not_given_up_because_its_owner_relaxes_the_topic_while_nobody_leads() {
    let offline = restart_lost(&restart_lost(&all_gone(&[]), 3, None), 2, None);
    assert_eq!((p0(&offline).leader, p0(&offline).left_strict), (None, Some(true)));
    let image = unfence(&fence(&relaxed(&offline), 3), 3);
    assert_eq!(p0(&image).leader, None);
    let again = restart_lost(&image, 3, None);
    assert_eq!(p0(&again).leader, None);
    let unclean =
        ElectLeaders { election: ElectionType::Unclean, partitions: Some(vec![("t".to_owned(), PartitionIndex(0))]) };
    let ControllerResponse::ElectLeaders(results) = run(&again, ControllerRequest::ElectLeaders(unclean)).1.response
    else {
        panic!("another answer")
    };
    assert_eq!(results[0].result.clone().map_err(|reject| reject.code), Err(ErrorCode::PolicyViolation));
    let image = run(&again, accept_loss(&again, 3)).0;
    assert_eq!((p0(&image).leader, p0(&image).left_strict), (Some(BrokerId(3)), None));
    assert_eq!(MetadataImage::from_records(again.index(), &again.to_records()).unwrap(), again);
    // Relaxed while it is led: from then on Kafka's own contract holds.
    let image = all_gone(&[("flush.messages", "100")]);
    let image = restart_lost(&restart_lost(&image, 3, None), 2, None);
    assert_eq!(p0(&image).leader, Some(BrokerId(3)));
}

#[test]
fn a_last_member_that_returns_lost_leads_no_strict_partition_because_it_was_relaxed_meanwhile() {
    let alone = |configs: &[(&str, &str)]| fence(&with_topic(1, &[1], configs), 1);
    let led_by = |image: &MetadataImage| (p0(image).leader, p0(image).left_strict);
    let left = alone(&[]);
    assert_eq!((led_by(&left), &p0(&left).elr), ((None, Some(true)), &ids(&[1])));
    // Its log was not found, or a change of the mode had not reached it: its journal says nothing.
    assert_eq!(led_by(&restart_lost(&relaxed(&left), 1, None)), (None, Some(true)));
    // A copy of its directory from before it was last unfenced: what that says is not heard at all.
    let old_copy = RegisterBrokerRequest {
        directories: vec![reported(directory(1), Verdict::Proved, None)],
        ..registration(1, 9, Verdict::Proved)
    };
    let image = run(&relaxed(&left), ControllerRequest::RegisterBroker(old_copy)).0;
    assert_eq!(led_by(&unfence(&image, 1)), (None, Some(true)));
    // What was relaxed when it was left goes on.
    assert_eq!(p0(&restart_lost(&alone(&[("flush.messages", "100")]), 1, None)).leader, Some(BrokerId(1)));
}

#[test]
fn lost_replica_of_a_lone_broker_is_judged_by_the_mode_its_journal_recorded() {
    let alone = |configs: &[(&str, &str)], was_strict| restart_lost(&with_topic(1, &[1], configs), 1, was_strict);
    let strict = &[][..];
    let loose = &[("flush.messages", "100")][..];
    // The owner has tightened it since: what was acknowledged before was never promised.
    assert_eq!(p0(&alone(strict, Some(false))).leader, Some(BrokerId(1)));
    assert_eq!(p0(&alone(strict, Some(true))).leader, None);
    // The owner has relaxed it by the same start.
    assert_eq!((p0(&alone(loose, Some(true))).leader, p0(&alone(loose, Some(true))).left_strict), (None, Some(true)));
    assert_eq!(p0(&alone(loose, Some(false))).leader, Some(BrokerId(1)));
    assert_eq!(p0(&alone(loose, None)).leader, Some(BrokerId(1)));
}

#[test]
fn loss_of_a_lone_strict_replica_can_be_accepted() {
    let image = restart_lost(&with_topic(1, &[1], &[]), 1, Some(true));
    let leader_epoch = LeaderEpoch(p0(&image).leader_epoch.0 + 1);
    let (image, decision) = run(&image, accept_loss(&image, 1));
    let key = TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) };
    let accepted =
        LossAccepted { partition: key, replica: BrokerId(1), instead_of: Vec::new(), at: Timestamp(0), leader_epoch };
    assert_eq!(decision.response, ControllerResponse::AcceptLoss(accepted.clone()));
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(1)), &ids(&[1])));
    assert_eq!((image.loss_accepted(key), p0(&image).leader_epoch), (Some(&accepted), leader_epoch));
}
