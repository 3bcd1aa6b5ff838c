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
        left_strict: None,
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

fn heard(broker: i32, seconds: u64) -> LivenessEvent<'static> {
    heard_over(0, broker, seconds)
}

fn heard_over(connection: u64, broker: i32, seconds: u64) -> LivenessEvent<'static> {
    LivenessEvent::Heard { id: id(broker), epoch: epoch(broker), connection, at: at(seconds) }
}

fn closed(broker: i32, connection: u64) -> LivenessEvent<'static> {
    LivenessEvent::ConnectionClosed { id: id(broker), epoch: epoch(broker), connection }
}

/// Another process on another machine.
const STRANGER: Newcomer = Newcomer { has_its_directory: false, has_its_address: false };
/// The same broker, started again.
const RESTARTED: Newcomer = Newcomer { has_its_directory: true, has_its_address: true };

fn fence(broker: i32, reason: FenceReason) -> LivenessEffect {
    LivenessEffect::Fence { id: id(broker), epoch: epoch(broker), reason }
}

#[test]
fn a_new_controller_gives_everybody_a_full_session() {
    let mut liveness = active(&cluster());
    assert_eq!(liveness.wake_at(), Some(at(1009)));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1008)), []);
    for broker in [1, 2] {
        assert_eq!(liveness.on_event(heard(broker, 1008), at(1008)), []);
    }
    let expired = [fence(3, FenceReason::SessionExpired)];
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1009)), expired);
}

#[test]
fn stale_brokers_are_fenced_one_after_the_other_each_on_what_the_one_before_left() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(heard(2, 1001), at(1001));
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
    assert_eq!(liveness.on_event(LivenessEvent::Applied(&image), at(1063)), []);
    let second = [fence(3, FenceReason::SessionExpired)];
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1063)), second, "the longest silent");
}

#[test]
fn broker_that_is_fenced_and_unfenced_in_one_entry_does_not_end_all_fencing() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(heard(2, 1001), at(1001));
    liveness.on_event(heard(3, 1001), at(1001));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1009)), [fence(1, FenceReason::SessionExpired)]);
    // Its heartbeat was in time for the entry that fences it.
    liveness.on_event(heard(1, 1009), at(1009));
    let both = applied(&image, &[broker_change(1, Some(true), None), broker_change(1, Some(false), None)]);
    liveness.on_event(LivenessEvent::FencingEnded { id: id(1), epoch: epoch(1) }, at(1009));
    liveness.on_event(LivenessEvent::Applied(&both), at(1009));
    assert_eq!(liveness.wake_at(), Some(at(1010)));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1010)), [fence(2, FenceReason::SessionExpired)]);
}

#[test]
fn heartbeat_counts_from_when_it_arrived_whenever_it_is_decided() {
    let image = cluster();
    let mut liveness = active(&image);
    // An entry took eight seconds; what arrived meanwhile is said before anybody is looked for.
    for (broker, seconds) in [(1, 1006), (2, 1007), (3, 1001)] {
        assert_eq!(liveness.on_event(heard(broker, seconds), at(1012)), []);
    }
    assert_eq!(liveness.on_event(LivenessEvent::Applied(&image), at(1012)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1012)), [fence(3, FenceReason::SessionExpired)]);
    liveness.on_event(LivenessEvent::FencingEnded { id: id(3), epoch: epoch(3) }, at(1012));
    let image = applied(&image, &[broker_change(3, Some(true), None)]);
    liveness.on_event(LivenessEvent::Applied(&image), at(1012));
    // Decided late, it is no fresher.
    liveness.on_event(heartbeat(1, 100), at(1014));
    assert_eq!(liveness.wake_at(), Some(at(1015)));
    // Under another registration it is somebody else.
    let stale = LivenessEvent::Heard { id: id(1), epoch: BrokerEpoch(0), connection: 0, at: at(1014) };
    assert_eq!(liveness.on_event(stale, at(1014)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1015)), [fence(1, FenceReason::SessionExpired)]);
}

#[test]
fn a_closed_connection_is_asked_about_and_only_a_refusal_fences_at_once() {
    let back = |attempt, outcome| LivenessEvent::ConnectedBack { id: id(2), attempt, outcome };
    let mut liveness = active(&cluster());
    assert_eq!(liveness.on_event(closed(2, 1), at(1002)), [LivenessEffect::ConnectBack { id: id(2), attempt: 1 }]);
    for outcome in [ConnectBack::Unknown, ConnectBack::Connected] {
        let mut liveness = liveness.clone();
        liveness.on_event(back(1, outcome), at(1003));
        assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1003)), []);
    }
    let refused = [fence(2, FenceReason::Refused)];
    let mut asked = liveness.clone();
    assert_eq!(asked.on_event(back(1, ConnectBack::Refused), at(1003)), []);
    assert_eq!(asked.wake_at(), Some(Duration::ZERO));
    assert_eq!(asked.on_event(LivenessEvent::Tick, at(1003)), refused);
    // Heard of again meanwhile: the refusal was of an older moment.
    liveness.on_event(heard_over(2, 2, 1003), at(1003));
    liveness.on_event(back(1, ConnectBack::Refused), at(1004));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1004)), []);
    assert_eq!(liveness.on_event(closed(2, 2), at(1005)), [LivenessEffect::ConnectBack { id: id(2), attempt: 2 }]);
    liveness.on_event(back(1, ConnectBack::Refused), at(1006));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1006)), [], "the answer to the first question");
    liveness.on_event(back(2, ConnectBack::Refused), at(1006));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1006)), refused);
}

#[test]
fn broker_whose_listener_is_closed_after_its_connections_is_looked_at_again() {
    let back = |attempt, outcome| LivenessEvent::ConnectedBack { id: id(2), attempt, outcome };
    let look = |attempt| [LivenessEffect::ConnectBack { id: id(2), attempt }];
    let ms = |after: u64| at(1002) + Duration::from_millis(after);
    let mut liveness = active(&cluster());
    assert_eq!(liveness.on_event(closed(2, 1), ms(0)), look(1));
    // The kernel still takes connections for the process it ends.
    assert_eq!(liveness.on_event(back(1, ConnectBack::Connected), ms(0)), []);
    assert_eq!(liveness.wake_at(), Some(ms(20)));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(19)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(20)), look(2));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(21)), [], "that is under way");
    assert_eq!(liveness.on_event(back(1, ConnectBack::Refused), ms(21)), [], "an answer to the first question");
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(21)), []);
    let mut lives = liveness.clone();
    assert_eq!(liveness.on_event(back(2, ConnectBack::Refused), ms(22)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(22)), [fence(2, FenceReason::Refused)]);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, ms(9_000)), [], "it is being fenced");

    // One that lives is looked at ever less often, and no more once it is heard.
    let mut times = Vec::new();
    let (mut attempt, mut now) = (2, ms(22));
    while now < ms(4_000) {
        assert_eq!(lives.on_event(back(attempt, ConnectBack::Unknown), now), []);
        now = lives.wake_at().unwrap();
        attempt += 1;
        assert_eq!(lives.on_event(LivenessEvent::Tick, now), look(attempt));
        times.push(now - ms(22));
    }
    let expected = [40, 120, 280, 600, 1_240, 2_240, 3_240, 4_240].map(Duration::from_millis);
    assert_eq!(times, expected);
    assert_eq!(lives.on_event(back(attempt, ConnectBack::Connected), now), []);
    lives.on_event(heard_over(2, 2, 1007), at(1007));
    assert_eq!(lives.wake_at(), Some(at(1009)), "the others were not heard");
    for broker in [1, 3] {
        lives.on_event(heard(broker, 1008), at(1008));
    }
    assert_eq!(lives.on_event(LivenessEvent::Tick, at(1015)), [], "its session goes on");
}

#[test]
fn late_end_of_an_older_connection_says_nothing() {
    let mut liveness = active(&cluster());
    liveness.on_event(heard_over(1, 2, 1001), at(1001));
    liveness.on_event(heard_over(2, 2, 1003), at(1003));
    assert_eq!(liveness.on_event(closed(2, 1), at(1004)), []);
    assert_eq!(liveness.on_event(closed(2, 2), at(1004)), [LivenessEffect::ConnectBack { id: id(2), attempt: 1 }]);
}

#[test]
fn broker_that_answers_where_it_listens_is_not_gone_for_anybody_else() {
    let elsewhere = Newcomer { has_its_directory: true, has_its_address: false };
    let with_others = Newcomer { has_its_directory: false, has_its_address: true };
    let back = |outcome| LivenessEvent::ConnectedBack { id: id(2), attempt: 1, outcome };
    let mut liveness = active(&cluster());
    assert!(!liveness.is_gone(id(2), RESTARTED, at(1001)));
    liveness.on_event(closed(2, 1), at(1002));
    for newcomer in [STRANGER, RESTARTED, elsewhere, with_others] {
        assert!(!liveness.is_gone(id(2), newcomer, at(1002)), "it may have lost a connection only");
    }
    let mut refused = liveness.clone();
    refused.on_event(back(ConnectBack::Refused), at(1003));
    assert!(refused.is_gone(id(2), STRANGER, at(1003)));
    let mut unknown = liveness.clone();
    unknown.on_event(back(ConnectBack::Unknown), at(1003));
    assert!(!unknown.is_gone(id(2), RESTARTED, at(1003)) && unknown.is_gone(id(2), STRANGER, at(1009)));
    liveness.on_event(back(ConnectBack::Connected), at(1003));
    for newcomer in [STRANGER, elsewhere, with_others] {
        assert!(!liveness.is_gone(id(2), newcomer, at(1003)));
    }
    assert!(liveness.is_gone(id(2), RESTARTED, at(1003)), "it answers itself");
    liveness.on_event(heard_over(2, 2, 1004), at(1004));
    assert!(!liveness.is_gone(id(2), RESTARTED, at(1004)));
}

#[test]
fn a_refusal_while_another_is_being_fenced_comes_next() {
    let image = cluster();
    let mut liveness = active(&image);
    liveness.on_event(heard(2, 1005), at(1005));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1010)), [fence(1, FenceReason::SessionExpired)]);
    liveness.on_event(closed(2, 1), at(1010));
    let refused = LivenessEvent::ConnectedBack { id: id(2), attempt: 1, outcome: ConnectBack::Refused };
    assert_eq!(liveness.on_event(refused, at(1010)), []);
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1010)), []);
    let image = applied(&image, &[broker_change(1, Some(true), None)]);
    liveness.on_event(LivenessEvent::Applied(&image), at(1011));
    let next = [fence(2, FenceReason::Refused)];
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1011)), next, "before the silent 3");
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
    liveness.on_event(closed(2, 1), at(1001));
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
    liveness.on_event(refused, at(1003));
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1003)), [], "it was the old one that is gone");
    for broker in [1, 3] {
        liveness.on_event(heard(broker, 1050), at(1050));
    }
    assert_eq!(liveness.on_event(LivenessEvent::Tick, at(1050)), [], "a fenced broker has no session to lose");
}

#[test]
fn who_is_behind_an_image_is_up_and_has_not_said_otherwise() {
    let image = cluster();
    let mut liveness = active(&image);
    for (broker, metadata_index) in [(1, 101), (2, 100)] {
        let beat = LivenessEvent::Heartbeat { id: id(broker), epoch: epoch(broker), metadata_index };
        assert_eq!(liveness.on_event(beat, at(1001)), []);
    }
    let all = [id(1), id(2), id(3), id(9)];
    assert_eq!(liveness.behind(101, &all), [id(2), id(3)]);
    let fenced = applied(&image, &[broker_change(3, Some(true), None)]);
    liveness.on_event(LivenessEvent::Applied(&fenced), at(1002));
    assert_eq!(liveness.behind(101, &all), [id(2)]);
}
