//! What is not given up behind anybody's back: what a starting broker holds, and what was promised in another mode.

use super::members::{accept_loss, all_gone, fence, relaxed, restart_lost};
use super::*;

/// A new incarnation that has registered whole, and is not unfenced yet.
fn starting(image: &MetadataImage, broker: i32) -> MetadataImage {
    let recorded = image.broker(BrokerId(broker)).unwrap().last_unfenced_with(directory(broker));
    let request = RegisterBrokerRequest {
        directories: vec![reported(directory(broker), Verdict::Proved, recorded.map(|epoch| epoch.0))],
        ..registration(broker, 2, Verdict::Proved)
    };
    run(image, ControllerRequest::RegisterBroker(request)).0
}

#[test]
fn what_a_starting_broker_holds_is_not_given_up_moments_before_it_serves() {
    // 2 and 3 are eligible; 1, which may lack records, is up.
    let image = unfence(&all_gone(&[]), 1);
    let coming = starting(&image, 2);
    let refused = decided_as_sent(&coming, accept_loss(&coming, 1), false).unwrap_err();
    assert_eq!(refused.code, ErrorCode::EligibleLeadersNotAvailable, "{refused}");
    assert!(refused.message.contains("broker 2 is starting"), "{refused}");
    // It has been silent for a session, or it is not starting at all.
    assert!(decided_as_sent(&coming, accept_loss(&coming, 1), true).is_ok());
    assert!(decided_as_sent(&image, accept_loss(&image, 1), false).is_ok());
    // It would have led.
    assert_eq!(p0(&unfence(&coming, 2)).leader, Some(BrokerId(2)));
    // One that has lost what it held is not waited for.
    let lost = run(&image, ControllerRequest::RegisterBroker(registration(2, 2, Verdict::Lost))).0;
    assert!(decided_as_sent(&lost, accept_loss(&lost, 1), false).is_ok());
    // Nor is one that has been in use since it registered, and fell silent.
    let silent = fence(&unfence(&coming, 2), 2);
    assert!(decided_as_sent(&silent, accept_loss(&silent, 1), false).is_ok());
}

#[test]
fn a_starting_broker_is_not_forgotten() {
    let image = fence(&with_topic(2, &[1], &[]), 1);
    assert_eq!((p0(&image).leader, &p0(&image).elr), (None, &ids(&[1])));
    let coming = starting(&image, 1);
    let forget = ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
    let refused = decided_as_sent(&coming, forget.clone(), false).unwrap_err();
    assert_eq!(refused.code, ErrorCode::RequestTimedOut, "{refused}");
    assert_eq!(p0(&unfence(&coming, 1)).leader, Some(BrokerId(1)));
    assert!(decided_as_sent(&coming, forget.clone(), true).is_ok());
    assert!(decided_as_sent(&image, forget, false).is_ok());
}

#[test]
fn what_the_last_leader_acknowledged_strictly_stays_promised_when_the_topic_is_relaxed_around_its_death() {
    let offline = |image: &MetadataImage| (p0(image).leader, p0(image).left_strict) == (None, Some(true));
    let image = with_topic(1, &[1], &[]);
    // Nobody has fenced it before it is back, and the change lies between what it read and what it says.
    assert!(offline(&restart_lost(&relaxed(&image), 1, Some(true))));
    // The change reached the controller before the fencing did, and never the broker.
    let left = fence(&relaxed(&image), 1);
    assert_eq!(p0(&left).left_strict, Some(false));
    assert!(offline(&restart_lost(&left, 1, Some(true))));
    // One that had heard of it acknowledged as its owner wished.
    assert_eq!(p0(&restart_lost(&left, 1, Some(false))).leader, Some(BrokerId(1)));
}

#[test]
fn a_cut_last_leader_leaves_the_partition_in_the_mode_its_journal_recorded() {
    // 1 leads alone, and 2 is eligible; nobody has noticed yet that both are down, and the topic is relaxed.
    let image = [3, 2].iter().fold(with_topic(3, &[1, 2, 3], &[]), |image, broker| fence(&image, *broker));
    assert_eq!((p0(&image).leader, &p0(&image).isr, &p0(&image).elr), (Some(BrokerId(1)), &ids(&[1]), &ids(&[2])));
    let image = super::members::restart_cut(&relaxed(&image), 1, 2, (0, 5));
    assert_eq!((p0(&image).leader, p0(&image).left_strict), (None, Some(true)), "{:?}", p0(&image));
}

#[test]
fn a_follower_whose_journal_is_behind_relaxes_nothing() {
    // 1 leads alone and starts again; 2 is eligible, has lost its copy, and never heard that the topic is strict by now.
    let image = [3, 2].iter().fold(with_topic(3, &[1, 2, 3], &[]), |image, broker| fence(&image, *broker));
    let image = restart_lost(&starting(&image, 1), 2, Some(false));
    assert_ne!(p0(&image).left_strict, Some(false), "{:?}", p0(&image));
    assert_eq!(p0(&unfence(&image, 1)).leader, Some(BrokerId(1)));
}
