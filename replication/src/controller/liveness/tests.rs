//! Transcripts: events in, effects out, on images of a few brokers.

use super::*;
use crate::metadata::record::{BrokerRegistrationChange, PartitionRecord, RegisterBroker, TopicRecord};
use crate::metadata::{DirectoryRegistration, MetadataRecord, PartitionRegistration, RecoveryState, Verdict};
use stonelog_protocol::{LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid};

const TOPIC: Uuid = Uuid([9; 16]);

pub(in crate::controller) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(in crate::controller) fn id(broker: i32) -> BrokerId {
    BrokerId(broker)
}

/// The epoch a broker has in [`cluster`].
pub(in crate::controller) fn epoch(broker: i32) -> BrokerEpoch {
    BrokerEpoch(i64::from(broker))
}

fn directory(broker: i32) -> Uuid {
    Uuid([u8::try_from(broker).unwrap(); 16])
}

pub(in crate::controller) fn applied(image: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
    let batch = crate::metadata::RecordBatch {
        base_index: image.index(),
        controller_term: 1,
        created: stonelog_protocol::Timestamp(0),
        records: records.to_vec(),
    };
    image.apply(image.index() + 1, &batch).unwrap()
}

/// Three unfenced brokers and a partition on them, led by the first.
pub(in crate::controller) fn cluster() -> MetadataImage {
    let register = |broker: i32| {
        MetadataRecord::RegisterBroker(RegisterBroker {
            id: id(broker),
            incarnation: Uuid([u8::try_from(broker).unwrap(); 16]),
            epoch: Some(epoch(broker)),
            endpoints: Vec::new(),
            rack: None,
            fenced: false,
            in_controlled_shutdown: false,
            directories: vec![DirectoryRegistration { id: directory(broker), verdict: Verdict::Proved }],
            differing: Vec::new(),
            unfenced_with: Vec::new(),
        })
    };
    let registration = PartitionRegistration {
        replicas: vec![id(1), id(2), id(3)],
        directories: (1..=3).map(directory).collect(),
        isr: vec![id(1), id(2), id(3)],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        adding: Vec::new(),
        removing: Vec::new(),
        leader: Some(id(1)),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        recovering: RecoveryState::Recovered,
        cut: Vec::new(),
    };
    let mut records: Vec<_> = (1..=3).map(register).collect();
    records.push(MetadataRecord::Topic(TopicRecord { id: TOPIC, name: "t".into() }));
    records.push(MetadataRecord::Partition(PartitionRecord {
        topic_id: TOPIC,
        index: PartitionIndex(0),
        registration,
    }));
    MetadataImage::from_records(100, &records).unwrap()
}

pub(in crate::controller) fn broker_change(broker: i32, fenced: Option<bool>, leaving: Option<bool>) -> MetadataRecord {
    MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
        id: id(broker),
        epoch: epoch(broker),
        fenced,
        in_controlled_shutdown: leaving,
        online_directories: None,
    })
}

fn active(image: &MetadataImage) -> Liveness {
    let mut liveness = Liveness::new(SESSION_TIMEOUT_DEFAULT);
    assert_eq!(liveness.on_event(LivenessEvent::Activated(image), at(1000)), []);
    liveness
}

fn heartbeat(broker: i32, metadata_index: u64) -> LivenessEvent<'static> {
    LivenessEvent::Heartbeat { id: id(broker), epoch: epoch(broker), metadata_index }
}

fn fence(broker: i32, reason: FenceReason) -> LivenessEffect {
    LivenessEffect::Fence { id: id(broker), epoch: epoch(broker), reason }
}

#[test]
fn a_new_controller_gives_everybody_a_full_session() {
    let mut liveness = active(&cluster());
    assert_eq!(liveness.wake_at(), Some(at(1009)));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1008)), []);
    for broker in [1, 2] {
        assert_eq!(liveness.on_event(heartbeat(broker, 100), at(1008)), []);
    }
    let expired = [fence(3, FenceReason::SessionExpired)];
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1009)), expired);
}

#[test]
fn stale_brokers_are_fenced_one_after_the_other_each_on_what_the_one_before_left() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(heartbeat(2, 100), at(1001));
    let first = [fence(1, FenceReason::SessionExpired)];
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1060)), first);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1061)), [], "the first is not applied yet");
    assert_eq!(liveness.wake_at(), None);
    let image = applied(&image, &[broker_change(2, None, Some(true))]);
    assert_eq!(liveness.on_event(LivenessEvent::Applied(&image), at(1062)), [], "that was something else");
    let change = crate::metadata::record::PartitionChange {
        isr: Some(vec![id(2), id(3)]),
        leader: Some(Some(id(2))),
        ..crate::metadata::record::PartitionChange::of(TOPIC, PartitionIndex(0))
    };
    let records = [MetadataRecord::PartitionChange(change), broker_change(1, Some(true), None)];
    let image = applied(&image, &records);
    let second = [fence(3, FenceReason::SessionExpired)];
    assert_eq!(liveness.on_event(LivenessEvent::Applied(&image), at(1063)), second, "the longest silent");
}

#[test]
fn a_heartbeat_that_waited_too_long_still_keeps_its_sender_alive() {
    let mut liveness = active(&cluster());
    for broker in [1, 2, 3] {
        let late = LivenessEvent::HeartbeatTooLate { id: id(broker), epoch: epoch(broker) };
        assert_eq!(liveness.on_event(late, at(1008)), []);
    }
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1016)), []);
    // Under another registration it is somebody else.
    let stale = LivenessEvent::Heartbeat { id: id(1), epoch: BrokerEpoch(0), metadata_index: 100 };
    assert_eq!(liveness.on_event(stale, at(1016)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1017)), [fence(1, FenceReason::SessionExpired)]);
}

#[test]
fn a_closed_connection_is_asked_about_and_only_a_refusal_fences_at_once() {
    let closed = LivenessEvent::ConnectionClosed { id: id(2), epoch: epoch(2) };
    let back = |attempt, outcome| LivenessEvent::ConnectedBack { id: id(2), attempt, outcome };
    let mut liveness = active(&cluster());
    assert_eq!(liveness.on_event(closed, at(1002)), [LivenessEffect::ConnectBack { id: id(2), attempt: 1 }]);
    assert!(liveness.is_gone(id(2), at(1002)) && !liveness.is_gone(id(1), at(1002)));
    for outcome in [ConnectBack::Unknown, ConnectBack::Connected] {
        assert_eq!(liveness.clone().on_event(back(1, outcome), at(1003)), []);
    }
    let refused = [fence(2, FenceReason::Refused)];
    assert_eq!(liveness.clone().on_event(back(1, ConnectBack::Refused), at(1003)), refused);
    // Heard of again meanwhile: the refusal was of an older moment.
    liveness.on_event(heartbeat(2, 100), at(1003));
    assert!(!liveness.is_gone(id(2), at(1003)));
    assert_eq!(liveness.on_event(back(1, ConnectBack::Refused), at(1004)), []);
    assert_eq!(liveness.on_event(closed, at(1005)), [LivenessEffect::ConnectBack { id: id(2), attempt: 2 }]);
    assert_eq!(liveness.on_event(back(1, ConnectBack::Refused), at(1006)), [], "the answer to the first question");
    assert_eq!(liveness.on_event(back(2, ConnectBack::Refused), at(1006)), refused);
}

#[test]
fn a_refusal_while_another_is_being_fenced_comes_next() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(heartbeat(2, 100), at(1005));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1010)), [fence(1, FenceReason::SessionExpired)]);
    liveness.on_event(LivenessEvent::ConnectionClosed { id: id(2), epoch: epoch(2) }, at(1010));
    let refused = LivenessEvent::ConnectedBack { id: id(2), attempt: 1, outcome: ConnectBack::Refused };
    assert_eq!(liveness.on_event(refused, at(1010)), []);
    let image = applied(&image, &[broker_change(1, Some(true), None)]);
    let next = [fence(2, FenceReason::Refused)];
    assert_eq!(liveness.on_event(LivenessEvent::Applied(&image), at(1011)), next, "before the silent 3");
}

#[test]
fn a_leaving_broker_stops_only_when_every_active_one_knows_who_leads_now() {
    let image = cluster();
    let mut liveness = active(&image);
    assert!(liveness.moves_are_known(id(1)), "it is not leaving");
    let leaving = applied(&image, &[broker_change(1, None, Some(true))]);
    liveness.on_event(LivenessEvent::Applied(&leaving), at(1001));
    let change = crate::metadata::record::PartitionChange {
        isr: Some(vec![id(2), id(3)]),
        leader: Some(Some(id(2))),
        ..crate::metadata::record::PartitionChange::of(TOPIC, PartitionIndex(0))
    };
    let moved = applied(&leaving, &[MetadataRecord::PartitionChange(change)]);
    liveness.on_event(LivenessEvent::Applied(&moved), at(1001));
    // While it leads, what it must wait for moves on; then it stands.
    let still_leading = leaving.index();
    liveness.on_event(heartbeat(2, moved.index()), at(1002));
    liveness.on_event(heartbeat(3, still_leading - 1), at(1002));
    assert!(!liveness.moves_are_known(id(1)));
    liveness.on_event(heartbeat(3, moved.index()), at(1003));
    assert!(liveness.moves_are_known(id(1)));
    // A new controller knows nothing of what the others have applied.
    liveness.on_event(LivenessEvent::Activated(&moved), at(1004));
    assert!(!liveness.moves_are_known(id(1)));
}

#[test]
fn a_new_incarnation_has_a_session_of_its_own() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(LivenessEvent::ConnectionClosed { id: id(2), epoch: epoch(2) }, at(1001));
    let register = RegisterBroker {
        id: id(2),
        incarnation: Uuid([77; 16]),
        epoch: None,
        endpoints: Vec::new(),
        rack: None,
        fenced: true,
        in_controlled_shutdown: false,
        directories: Vec::new(),
        differing: Vec::new(),
        unfenced_with: Vec::new(),
    };
    let image = applied(&image, &[MetadataRecord::RegisterBroker(register)]);
    liveness.on_event(LivenessEvent::Applied(&image), at(1002));
    let refused = LivenessEvent::ConnectedBack { id: id(2), attempt: 1, outcome: ConnectBack::Refused };
    assert_eq!(liveness.on_event(refused, at(1003)), [], "it was the old one that is gone");
    for broker in [1, 3] {
        liveness.on_event(heartbeat(broker, 100), at(1050));
    }
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1050)), [], "a fenced broker has no session to lose");
}
