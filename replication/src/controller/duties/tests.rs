//! Transcripts: events in, what is asked for out.

use super::*;
use crate::controller::liveness::tests::{applied, at, broker_change, cluster, epoch, id};
use crate::controller::request::{AcceptLoss, BrokerHeartbeat, NewTopic, UnregisterBrokerRequest};
use crate::controller::response::Balanced;
use crate::metadata::record::RegisterBroker;
use crate::metadata::{DirectoryRegistration, MetadataRecord, Verdict};
use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid};

fn duties() -> Duties {
    duties_with(at(300))
}

fn duties_with(balance_every: Duration) -> Duties {
    Duties::new(DutySettings {
        session_timeout: at(9),
        balance_every: Some(balance_every),
        listed: vec![id(1), id(2), id(3), id(4)],
    })
}

fn active(image: &MetadataImage, now: Duration) -> Duties {
    let mut duties = duties();
    assert_eq!(duties.on_event(DutyEvent::Activated(image), now), begun(&[1, 2, 3]));
    duties
}

/// A tenure begins with these brokers unfenced: it looks for each, and three of them have what internal topics want.
fn begun(unfenced: &[i32]) -> Vec<DutyEffect> {
    let look = |broker: &i32| DutyEffect::ConnectBack { id: id(*broker), attempt: FIRST_LOOK };
    let raise = (unfenced.len() >= 3).then_some(DutyEffect::Ask(ControllerRequest::RaiseInternalTopics));
    unfenced.iter().map(look).chain(raise).collect()
}

fn beat(broker: i32, metadata_index: u64) -> ControllerRequest {
    ControllerRequest::Heartbeat(BrokerHeartbeat {
        id: id(broker),
        epoch: epoch(broker),
        metadata_index,
        want_fence: false,
        want_shutdown: false,
        online_directories: None,
    })
}

fn hear(duties: &mut Duties, brokers: &[i32], now: Duration) {
    for broker in brokers {
        let beat = Heartbeat { id: id(*broker), epoch: epoch(*broker), connection: 0, at: now };
        assert_eq!(duties.on_event(DutyEvent::Heard(beat), now), []);
    }
}

fn fence(broker: i32) -> ControllerRequest {
    ControllerRequest::FenceBroker(FenceBroker { id: id(broker), epoch: epoch(broker) })
}

#[test]
fn silent_broker_is_fenced_entry_by_entry_until_it_is() {
    let image = cluster();
    let mut duties = active(&image, at(0));
    hear(&mut duties, &[1, 2], at(5));
    assert_eq!(duties.wake_at(), Some(at(9)));
    assert_eq!(duties.on_event(DutyEvent::Tick, at(9)), [DutyEffect::Ask(fence(3))]);
    let some_left = ControllerResponse::FenceBroker { is_fenced: false };
    let again = duties.on_event(DutyEvent::Done(&fence(3), Came::Decided(&some_left)), at(9));
    assert_eq!(again, [DutyEffect::Ask(fence(3))]);
    let done = ControllerResponse::FenceBroker { is_fenced: true };
    assert_eq!(duties.on_event(DutyEvent::Done(&fence(3), Came::Decided(&done)), at(9)), []);
    let image = applied(&image, &[broker_change(3, Some(true), None)]);
    assert_eq!(duties.on_event(DutyEvent::Applied(&image), at(9)), []);
    assert_eq!(duties.wake_at(), Some(at(14)));
}

#[test]
fn fencing_of_unknown_outcome_is_asked_for_again_after_a_pause() {
    let mut duties = active(&cluster(), at(0));
    hear(&mut duties, &[1, 2], at(5));
    assert_eq!(duties.on_event(DutyEvent::Tick, at(9)), [DutyEffect::Ask(fence(3))]);
    assert_eq!(duties.on_event(DutyEvent::Done(&fence(3), Came::Unknown), at(9)), []);
    let again_at = at(9) + ASK_AGAIN_AFTER;
    assert_eq!(duties.wake_at(), Some(again_at));
    assert_eq!(duties.on_event(DutyEvent::Tick, at(9)), []);
    assert_eq!(duties.on_event(DutyEvent::Tick, again_at), [DutyEffect::Ask(fence(3))]);
    // The image has moved on: the next one tells.
    assert_eq!(duties.on_event(DutyEvent::Done(&fence(3), Came::Refused), again_at), []);
    assert_eq!(duties.on_event(DutyEvent::Tick, again_at), [DutyEffect::Ask(fence(3))]);
}

#[test]
fn controller_that_was_not_sure_for_a_while_begins_with_full_sessions() {
    let image = cluster();
    let mut duties = active(&image, at(0));
    assert_eq!(duties.on_event(DutyEvent::SteppedDown, at(8)), []);
    assert_eq!(duties.wake_at(), None);
    assert_eq!(duties.on_event(DutyEvent::Tick, at(20)), []);
    assert_eq!(duties.on_event(DutyEvent::Asked(&beat(1, 100)), at(20)), []);
    assert_eq!(duties.on_event(DutyEvent::Activated(&image), at(20)), begun(&[1, 2, 3]));
    assert_eq!(duties.wake_at(), Some(at(29)));
}

#[test]
fn preferred_leaders_are_put_back_in_time_and_while_there_are_more() {
    let image = cluster();
    let mut duties = duties_with(at(5));
    duties.on_event(DutyEvent::Activated(&image), at(0));
    let balance = || DutyEffect::Ask(ControllerRequest::BalanceLeaders);
    hear(&mut duties, &[1, 2, 3], at(4));
    assert_eq!(duties.on_event(DutyEvent::Tick, at(4)), []);
    assert_eq!(duties.on_event(DutyEvent::Tick, at(5)), [balance()]);
    let done = |has_more| ControllerResponse::BalanceLeaders(Balanced { elected: 0, moved: 1, has_more });
    let more = duties.on_event(DutyEvent::Done(&ControllerRequest::BalanceLeaders, Came::Decided(&done(true))), at(5));
    assert_eq!(more, [balance()]);
    let none = duties.on_event(DutyEvent::Done(&ControllerRequest::BalanceLeaders, Came::Decided(&done(false))), at(6));
    assert_eq!(none, []);
    hear(&mut duties, &[1, 2, 3], at(9));
    assert_eq!(duties.on_event(DutyEvent::Tick, at(10)), [balance()]);
}

#[test]
fn third_broker_that_comes_up_gives_internal_topics_their_replicas() {
    let image = cluster();
    let two = applied(&image, &[broker_change(3, Some(true), None)]);
    let mut duties = duties();
    assert_eq!(duties.on_event(DutyEvent::Activated(&two), at(0)), begun(&[1, 2]));
    let three = applied(&two, &[broker_change(3, Some(false), None)]);
    let raise = DutyEffect::Ask(ControllerRequest::RaiseInternalTopics);
    assert_eq!(duties.on_event(DutyEvent::Applied(&three), at(1)), [raise]);
    assert_eq!(duties.on_event(DutyEvent::Applied(&three), at(2)), []);
}

#[test]
fn broker_whose_connection_is_closed_is_looked_for_and_may_be_replaced() {
    use crate::controller::request::RegisterBrokerRequest;
    let image = cluster();
    let mut duties = active(&image, at(0));
    let register = ControllerRequest::RegisterBroker(RegisterBrokerRequest {
        id: id(2),
        cluster_id: stonelog_protocol::ClusterId("c".into()),
        incarnation: stonelog_protocol::Uuid([5; 16]),
        endpoints: Vec::new(),
        rack: None,
        directories: Vec::new(),
        differing: Vec::new(),
        replaces: Some(epoch(2)),
    });
    assert!(!duties.facts(&register, &image, at(1)).previous_is_gone);
    let closed = duties.on_event(DutyEvent::ConnectionClosed { id: id(2), epoch: epoch(2), connection: 1 }, at(1));
    let [DutyEffect::ConnectBack { id: to, attempt }] = closed[..] else { panic!("{closed:?}") };
    assert_eq!(to, id(2));
    assert!(!duties.facts(&register, &image, at(1)).previous_is_gone, "it may be on its way back");
    let refused = DutyEvent::ConnectedBack { id: to, attempt, outcome: ConnectBack::Refused };
    assert_eq!(duties.on_event(refused, at(1)), []);
    assert!(duties.facts(&register, &image, at(1)).previous_is_gone);
    assert_eq!(duties.on_event(DutyEvent::Tick, at(1)), [DutyEffect::Ask(fence(2))]);
}

#[test]
fn broker_that_starts_has_a_session_before_what_it_holds_may_be_given_up() {
    let mut duties = active(&cluster(), at(0));
    let started = MetadataRecord::RegisterBroker(RegisterBroker {
        id: id(2),
        incarnation: Uuid([9; 16]),
        epoch: None,
        endpoints: Vec::new(),
        rack: None,
        fenced: true,
        in_controlled_shutdown: false,
        directories: vec![DirectoryRegistration { id: Uuid([2; 16]), verdict: Verdict::Proved }],
        differing: Vec::new(),
        unfenced_with: Vec::new(),
    });
    let image = applied(&cluster(), &[started]);
    duties.on_event(DutyEvent::Applied(&image), at(20));
    let forget = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: id(2) });
    let shown =
        PartitionShown { topic_id: Uuid([7; 16]), leader_epoch: LeaderEpoch(0), partition_epoch: PartitionEpoch(0) };
    let accept = AcceptLoss { topic: "t".to_owned(), partition: PartitionIndex(0), replica: id(1), shown };
    for request in [forget, ControllerRequest::AcceptLoss(accept)] {
        assert!(!duties.facts(&request, &image, at(28)).previous_is_gone);
        assert!(duties.facts(&request, &image, at(29)).previous_is_gone);
    }
}

#[test]
fn broker_that_died_with_the_controller_before_is_not_waited_for() {
    let image = cluster();
    let mut duties = active(&image, at(0));
    let looked = |broker: i32, outcome| DutyEvent::ConnectedBack { id: id(broker), attempt: FIRST_LOOK, outcome };
    // One has spoken meanwhile, and one answers.
    hear(&mut duties, &[1], at(1));
    assert_eq!(duties.on_event(looked(1, ConnectBack::Refused), at(1)), []);
    assert_eq!(duties.on_event(looked(2, ConnectBack::Connected), at(1)), []);
    let again = duties.on_event(looked(3, ConnectBack::Refused), at(1));
    let [DutyEffect::ConnectBack { id: to, attempt }] = again[..] else { panic!("{again:?}") };
    assert_eq!(to, id(3));
    let refused = DutyEvent::ConnectedBack { id: to, attempt, outcome: ConnectBack::Refused };
    assert_eq!(duties.on_event(refused, at(1)), []);
    assert_eq!(duties.on_event(DutyEvent::Tick, at(1)), [DutyEffect::Ask(fence(3))]);
}

#[test]
fn new_topic_waits_for_listed_brokers_as_long_as_a_new_cluster_does() {
    let image = MetadataImage::empty();
    let mut duties = duties();
    assert_eq!(duties.on_event(DutyEvent::Activated(&image), at(10)), []);
    let topic = NewTopic {
        name: "t".into(),
        partitions: 1,
        replication_factor: -1,
        assignments: Vec::new(),
        configs: Vec::new(),
    };
    let create = CreateTopics { topics: vec![topic], validate_only: false };
    let waits = |duties: &Duties, now| duties.waits(&create, &image, &Defaults::default(), now);
    assert!(waits(&duties, at(11)));
    assert!(!waits(&duties, at(70)));
    // Three are enough, whoever else is listed.
    assert!(!duties.waits(&create, &cluster(), &Defaults::default(), at(11)));
}
