//! Brokers register, are unfenced and fenced, leave and are forgotten.

use super::*;

#[test]
fn broker_registers_fenced_and_is_unfenced_only_when_it_has_seen_its_registration() {
    let image = MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap();
    let request = ControllerRequest::RegisterBroker(registration(1, 1, Verdict::Proved));
    let (image, decision) = run(&image, request);
    let registered = RegisteredBroker {
        epoch: BrokerEpoch(101),
        is_new: true,
        may_lack_records: Vec::new(),
        offline: Vec::new(),
        directories: vec![RegisteredDirectory { id: directory(1), unfenced_epoch: None, is_old_copy: false }],
    };
    assert_eq!(decision.response, ControllerResponse::RegisterBroker(registered));
    assert!(image.broker(BrokerId(1)).unwrap().fenced);

    let early = BrokerHeartbeat { metadata_index: 100, ..heartbeat(&image, 1) };
    let decision = decided(&image, ControllerRequest::Heartbeat(early)).unwrap();
    let state = HeartbeatState { is_caught_up: false, is_fenced: true, should_shut_down: false };
    assert_eq!(decision, Decision::new(Vec::new(), ControllerResponse::Heartbeat(state)));

    let decision = decided(&image, ControllerRequest::Heartbeat(heartbeat(&image, 1))).unwrap();
    let unfence = MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
        id: BrokerId(1),
        epoch: BrokerEpoch(101),
        fenced: Some(false),
        in_controlled_shutdown: None,
        online_directories: None,
    });
    assert_eq!(decision.records, [unfence]);
}

#[test]
fn registrations_that_cannot_be_right_are_refused() {
    let image = brokers(2);
    let code = |request| decided(&image, ControllerRequest::RegisterBroker(request)).unwrap_err().code;
    let other_cluster =
        RegisterBrokerRequest { cluster_id: ClusterId("x".into()), ..registration(1, 2, Verdict::Proved) };
    assert_eq!(code(other_cluster), ErrorCode::InconsistentClusterId);
    let stolen = RegisterBrokerRequest {
        directories: vec![reported(directory(2), Verdict::Proved, None)],
        ..registration(1, 2, Verdict::Proved)
    };
    assert_eq!(code(stolen), ErrorCode::InvalidRegistration);
    let stale = BrokerHeartbeat { epoch: BrokerEpoch(1), ..heartbeat(&image, 1) };
    assert_eq!(decided(&image, ControllerRequest::Heartbeat(stale)).unwrap_err().code, ErrorCode::StaleBrokerEpoch);
}

#[test]
fn a_new_incarnation_takes_the_place_only_of_one_that_it_has_seen_and_that_is_gone() {
    let image = brokers(1);
    let epoch = image.broker(BrokerId(1)).unwrap().epoch;
    let register = |image: &MetadataImage, incarnation, replaces, previous_is_gone| {
        let request = RegisterBrokerRequest { replaces, ..registration(1, incarnation, Verdict::Proved) };
        let decision = decided_as_sent(image, ControllerRequest::RegisterBroker(request), previous_is_gone);
        decision.map(|_| ()).map_err(|reject| reject.code)
    };
    assert_eq!(register(&image, 2, Some(epoch), false), Err(ErrorCode::DuplicateBrokerRegistration));
    assert_eq!(register(&image, 2, Some(epoch), true), Ok(()));
    assert_eq!(register(&image, 1, None, false), Ok(()), "a retry of the present incarnation replaces nobody");
    // The second try of incarnation 3 comes late: 2 has registered meanwhile.
    let (later, _) = run(&image, ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Proved)));
    assert_eq!(register(&later, 3, Some(epoch), true), Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(register(&later, 3, None, true), Err(ErrorCode::StaleBrokerEpoch));
    // Fenced means that nobody relies on it.
    let seen = later.broker(BrokerId(1)).map(|broker| broker.epoch);
    assert_eq!(register(&later, 3, seen, false), Ok(()));
    let forgotten = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
    let forgotten = run(&later, forgotten).0;
    assert_eq!(register(&forgotten, 3, seen, true), Err(ErrorCode::StaleBrokerEpoch));
    assert_eq!(register(&forgotten, 3, None, true), Ok(()));
}

#[test]
fn proved_restart_of_a_lone_broker_writes_nothing_per_partition_and_bumps_the_epoch() {
    let image = with_topic(1, &[1], &[]);
    let request = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Proved));
    let (restarted, decision) = run(&image, request);
    assert_eq!(decision.records.len(), 1);
    let partition = p0(&restarted);
    assert_eq!((partition.leader, partition.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(1)));
    let decision = decided(&restarted, ControllerRequest::Heartbeat(heartbeat(&restarted, 1))).unwrap();
    assert_eq!(decision.records.len(), 1, "unfencing writes nothing per partition either");
}

#[test]
fn lost_sole_replica_takes_a_strict_partition_offline_and_leaves_a_relaxed_one_led() {
    let lost = || ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Lost));
    let partition = TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) };

    let (image, decision) = run(&with_topic(1, &[1], &[]), lost());
    let ControllerResponse::RegisterBroker(answer) = decision.response else { panic!("wrong answer") };
    assert_eq!((answer.offline, answer.may_lack_records), (vec![partition], vec![]));
    let image = unfence(&image, 1);
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).last_known_elr), (None, &ids(&[]), &ids(&[1])));

    let (image, decision) = run(&with_topic(1, &[1], &[("flush.messages", "100")]), lost());
    let ControllerResponse::RegisterBroker(answer) = decision.response else { panic!("wrong answer") };
    assert_eq!((answer.offline, answer.may_lack_records), (vec![], vec![partition]));
    assert_eq!((p0(&image).leader, p0(&image).leader_epoch), (Some(BrokerId(1)), LeaderEpoch(1)));
}

#[test]
fn replica_that_differs_from_its_directory_is_judged_by_itself() {
    let image = with_topic(1, &[1], &[]);
    let differing = vec![ReplicaReport {
        partition: TopicPartition { topic_id: topic_id(0), partition: PartitionIndex(0) },
        verdict: Verdict::Lost,
        last_epoch: LeaderEpoch(0),
        log_end_offset: Offset(0),
        directory: Some(directory(1)),
        was_strict: None,
    }];
    let request = RegisterBrokerRequest { differing, ..registration(1, 2, Verdict::Proved) };
    let (image, _) = run(&image, ControllerRequest::RegisterBroker(request));
    assert_eq!(p0(&image).leader, None);
}

#[test]
fn fenced_leader_hands_over_and_keeps_an_eligible_place_below_min_isr() {
    let image = with_topic(3, &[1, 2, 3], &[]);
    let fence = |image: &MetadataImage, broker| {
        let request = BrokerHeartbeat { want_fence: true, ..heartbeat(image, broker) };
        run(image, ControllerRequest::Heartbeat(request))
    };
    let (image, decision) = fence(&image, 1);
    let expected = PartitionChange { isr: Some(ids(&[2, 3])), leader: Some(Some(BrokerId(2))), ..change() };
    assert_eq!(decision.records[0], MetadataRecord::PartitionChange(expected));
    assert_eq!(p0(&image).leader_epoch, LeaderEpoch(1));
    // Below the min ISR of two: who leaves now may still be needed.
    let (image, _) = fence(&image, 2);
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(3)), &ids(&[3]), &ids(&[2])));
    let (image, _) = fence(&image, 3);
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (None, &ids(&[]), &ids(&[2, 3])));
    assert_eq!(p0(&image).last_known_elr, ids(&[3]));
    // The first out lacks what was acknowledged since; only an eligible member may lead.
    let image = unfence(&image, 1);
    assert_eq!(p0(&image).leader, None);
    let image = unfence(&image, 2);
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(2)), &ids(&[2]), &ids(&[3])));
}

#[test]
fn cut_replica_waits_for_a_proved_one_that_is_registered() {
    let mut image = with_topic(3, &[1, 2, 3], &[]);
    for broker in [1, 2, 3] {
        let request = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, broker) };
        image = run(&image, ControllerRequest::Heartbeat(request)).0;
    }
    assert_eq!(p0(&image).elr, ids(&[2, 3]));
    let restart = |image: &MetadataImage, broker, verdict| {
        let request = ControllerRequest::RegisterBroker(registration(broker, 2, verdict));
        unfence(&run(image, request).0, broker)
    };
    let cut = restart(&image, 2, Verdict::Cut);
    assert_eq!(p0(&cut).leader, None, "one of two members is not enough to know the greatest end");
    let proved = restart(&cut, 3, Verdict::Proved);
    assert_eq!(p0(&proved).leader, Some(BrokerId(3)));
}

#[test]
fn offline_directory_makes_its_replicas_absent_not_lost() {
    let image = with_topic(1, &[1], &[]);
    let offline = BrokerHeartbeat { online_directories: Some(Vec::new()), ..heartbeat(&image, 1) };
    let (image, _) = run(&image, ControllerRequest::Heartbeat(offline));
    assert_eq!((p0(&image).leader, &p0(&image).elr), (None, &ids(&[1])));
    let request = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Proved));
    let image = unfence(&run(&image, request).0, 1);
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(1)), &ids(&[1])));
}

#[test]
fn a_registration_tried_again_brings_no_failed_directory_back() {
    let image = with_topic(1, &[1], &[]);
    let request = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Proved));
    let image = unfence(&run(&image, request.clone()).0, 1);
    let offline = BrokerHeartbeat { online_directories: Some(Vec::new()), ..heartbeat(&image, 1) };
    let image = run(&image, ControllerRequest::Heartbeat(offline)).0;
    assert_eq!(p0(&image).leader, None);
    let (again, decision) = run(&image, request);
    let ControllerResponse::RegisterBroker(answer) = decision.response else { panic!("wrong answer") };
    assert!(!answer.is_new);
    assert_eq!(again.broker(BrokerId(1)).unwrap().directories, []);
    assert_eq!(p0(&unfence(&again, 1)).leader, None);
}

#[test]
fn lone_broker_may_stop_at_once_and_stays_as_it_is() {
    let image = with_topic(1, &[1], &[]);
    let request = BrokerHeartbeat { want_shutdown: true, ..heartbeat(&image, 1) };
    let decision = decided(&image, ControllerRequest::Heartbeat(request)).unwrap();
    let state = HeartbeatState { is_caught_up: true, is_fenced: false, should_shut_down: true };
    assert_eq!(decision, Decision::new(Vec::new(), ControllerResponse::Heartbeat(state)));
}

#[test]
fn leaving_broker_hands_over_before_it_may_stop() {
    let image = with_topic(2, &[1, 2], &[]);
    let leave = |image: &MetadataImage| {
        let request = BrokerHeartbeat { want_shutdown: true, ..heartbeat(image, 1) };
        let (image, decision) = run(image, ControllerRequest::Heartbeat(request));
        let ControllerResponse::Heartbeat(state) = decision.response else { panic!("wrong answer") };
        (image, state)
    };
    let (image, state) = leave(&image);
    assert!(!state.should_shut_down);
    assert_eq!((p0(&image).leader, &p0(&image).isr), (Some(BrokerId(2)), &ids(&[2])));
    let (image, state) = leave(&image);
    assert!(state.should_shut_down && state.is_fenced);
    assert!(image.broker(BrokerId(1)).unwrap().fenced);
}

#[test]
fn unregistered_broker_leaves_every_set() {
    let image = with_topic(2, &[1, 2], &[]);
    let request = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
    let alive = decided(&image, request.clone()).unwrap_err();
    assert_eq!(alive.code, ErrorCode::InvalidRequest, "{alive}");
    let fenced = BrokerHeartbeat { want_fence: true, ..heartbeat(&image, 1) };
    let image = run(&image, ControllerRequest::Heartbeat(fenced)).0;
    let (image, _) = run(&image, request.clone());
    assert!(image.broker(BrokerId(1)).is_none());
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(2)), &ids(&[2]), &ids(&[])));
    assert_eq!(decided(&image, request).unwrap_err().code, ErrorCode::BrokerIdNotRegistered);
}

#[test]
fn broker_whose_epoch_is_not_given_out_yet_is_forgotten_later() {
    let image = with_topic(1, &[1], &[]);
    let register = ControllerRequest::RegisterBroker(registration(1, 2, Verdict::Proved));
    let decision = decided(&image, register).unwrap();
    assert!(decision.response.names_its_entry());
    // In the same entry, which may get a later index than the next.
    let scratch = after(&image, image.index() + 1, &decision.records);
    let forget = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
    assert_eq!(decided(&scratch, forget.clone()).unwrap_err().code, ErrorCode::RequestTimedOut);
    let batch = crate::metadata::RecordBatch {
        base_index: image.index(),
        controller_term: 2,
        created: Timestamp(0),
        records: decision.records,
    };
    let written = image.apply(image.index() + 4, &batch).unwrap();
    let epoch = BrokerEpoch(i64::try_from(image.index()).unwrap() + 4);
    let expected =
        MetadataRecord::UnregisterBroker(crate::metadata::record::UnregisterBroker { id: BrokerId(1), epoch });
    assert_eq!(decided(&written, forget).unwrap().records.last(), Some(&expected));
}
