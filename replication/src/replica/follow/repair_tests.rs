//! Damage in a follower's log: what is fetched again, and when.

use super::tests::{follower, logs, news, start, streaming, with};
use super::*;

#[test]
fn a_damaged_log_that_nobody_counts_on_is_fetched_again_from_a_whole_one() {
    let now = start();
    let (_, mut own) = logs(6, 4);
    own.damage(1, 2);
    let opened = |is_spare: bool, is_whole: bool, counts: bool| {
        let mut follower = follower(1, 3, now);
        follower.repair.give_up(now);
        follower.set_spare(is_spare, &own.log, now);
        let open = follower.open(StreamId(5), &own.log, false, now).expect("it is time");
        let StreamBody::Open(body) = &open.body else { panic!("{open:?}") };
        assert!(!body.report.is_whole);
        let news = StreamNews { is_whole, ..news(3) };
        let effects = follower.on_message(&with(&open, StreamBody::Opened(Opened { news, counts })), &own.log, now);
        (effects, follower.is_streaming())
    };
    let anew = Effect::Cut { cut: Cut::Reset(Offset(0)), lost: None };
    assert_eq!(opened(true, true, false), (vec![anew], false));
    assert_eq!(opened(true, false, false), (vec![], true), "the leader lacks something as well");
    assert_eq!(opened(false, true, false), (vec![], true), "somebody may need what it has");
    assert_eq!(opened(true, true, true), (vec![], true), "the leader has proposed it: its own image is behind");
    // Found while it follows: the stream ends, and the next one does it. Not while there is hope to mend it.
    let mut follower = follower(1, 3, now);
    streaming(&mut follower, &own.log, now);
    follower.set_spare(true, &own.log, now);
    assert!(follower.is_streaming());
    follower.set_spare(false, &own.log, now);
    follower.repair.give_up(now);
    follower.set_spare(true, &own.log, now);
    assert!(!follower.is_streaming() && follower.open(StreamId(6), &own.log, false, now).is_some());
}
