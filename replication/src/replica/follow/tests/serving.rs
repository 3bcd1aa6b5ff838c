//! When a follower answers consumers (KIP-392).

use super::*;

#[test]
fn a_follower_serves_consumers_only_in_sync_and_while_its_leader_has_opened_its_stream() {
    let now = start();
    let (leader, mut own) = logs(6, 4);
    let mut follower = follower(1, 4, now);
    assert!(!follower.may_serve(&own.log, true), "nobody has said that its log is a beginning of the leader's");
    let open = streaming(&mut follower, &own.log, now);
    assert!(follower.may_serve(&own.log, true));
    assert!(!follower.may_serve(&own.log, false), "out of sync nothing bounds how far it is behind");

    // It shows what the leader calls committed and it has itself.
    let effects = follower.on_message(&push(&open, 0, 4, leader.bytes(4, 6), 9), &own.log, now);
    assert_eq!(effects.len(), 1);
    assert_eq!(follower.high_watermark(), Offset(4));
    let entry = own.follow(1, leader.bytes(4, 6));
    assert!(entry.is_ok());
    follower.on_appended(Ok(1), &own.log, now);
    assert_eq!(follower.high_watermark(), Offset(6));

    // Another leader has to find the log a beginning of its own first.
    follower.on_following(following(2), now);
    assert!(!follower.may_serve(&own.log, true));
    streaming(&mut follower, &own.log, now);
    assert!(follower.may_serve(&own.log, true));
    follower.on_disconnected(now);
    assert!(!follower.may_serve(&own.log, true));
}

#[test]
fn a_follower_that_is_to_be_cut_serves_nobody_until_it_is_in_step_again() {
    let now = start();
    let (_, mut own) = logs(6, 6);
    let mut follower = follower(1, 2, now);
    let open = follower.open(StreamId(5), &own.log, false, now).expect("it is time");
    let parted = StreamBody::Diverging(Diverging { epoch: LeaderEpoch(1), end: Offset(3) });
    let effects = follower.on_message(&with(&open, parted), &own.log, now);
    assert_eq!(effects, [Effect::Cut { cut: Cut::To(Offset(3)), lost: None }]);
    assert!(!follower.may_serve(&own.log, true));
    own.cut(3);
    assert!(!follower.may_serve(&own.log, true));
    own.sync();
    assert!(!follower.may_serve(&own.log, true), "its leader has not opened a stream of the new log");
    streaming(&mut follower, &own.log, now);
    assert!(follower.may_serve(&own.log, true));
}
