//! Damage in a follower's log: what is fetched again, and when.

use super::tests::{follower, logs, news, start, streaming, with};
use super::*;
use crate::replica::test_log::TestLog;

fn asked(follower: &mut Follower, log: &Log) -> stonelog_protocol::peer::stream::Repair {
    let mut said = follower.say(log, false).into_iter();
    let asked = said.find_map(|message| if let StreamBody::Repair(asked) = message.body { Some(asked) } else { None });
    asked.expect("it asks")
}

/// What a follower does, with a record damaged, when its leader has compacted up to 4, and says on the next stream
/// whether it counts on this replica.
fn answered(own: &mut TestLog, counts_here: bool, counts_there: bool, is_whole: bool) -> Vec<Effect> {
    let now = start();
    let mut follower = follower(1, 3, now);
    follower.set_standing(counts_here, 1, &own.log, now);
    let stream = streaming(&mut follower, &own.log, now);
    assert!(follower.begin_repair(&mut own.log, now));
    let repair = asked(&mut follower, &own.log);
    assert_eq!((repair.from, repair.to, repair.cleaned_end), (Offset(1), Offset(2), Offset(0)));
    let (number, from) = (repair.number, repair.from);
    let none = Filled { number, from, upto: from, cleaned_end: Offset(4), batches: Vec::new() };
    assert_eq!(follower.on_message(&with(&stream, StreamBody::Filled(none)), &own.log, now), []);
    assert!(!follower.is_streaming(), "the next stream says whether anybody counts on what is here");
    let open = follower.open(StreamId(6), &own.log, false, now).expect("at once");
    let news = StreamNews { is_whole, ..news(3) };
    let opened = StreamBody::Opened(Opened { news, counts: counts_there });
    follower.on_message(&with(&open, opened), &own.log, now)
}

#[test]
fn what_its_leader_has_compacted_otherwise_is_fetched_with_the_damage_once_nobody_counts_on_it() {
    let now = start();
    let mut own = TestLog::new(true);
    own.lead(1, 6).sync();
    own.damage(1, 2);
    own.checkpoint();
    assert_eq!(answered(&mut own, true, false, true), [], "somebody may need what it has");
    assert_eq!(answered(&mut own, false, true, true), [], "the leader counts on it");
    assert_eq!(answered(&mut own, false, false, false), [], "the leader lacks something as well");
    assert_eq!(answered(&mut own, false, false, true), [Effect::Widen(Offset(4))]);
    own.log.widen_damage(Offset(4));
    let mut follower = follower(1, 3, now);
    streaming(&mut follower, &own.log, now);
    assert!(follower.begin_repair(&mut own.log, now));
    let repair = asked(&mut follower, &own.log);
    assert_eq!((repair.from, repair.cleaned_end), (Offset(0), Offset(4)));
    assert!(super::super::repair::is_compatible(&repair, Offset(4)), "this the leader sends");
    assert!(super::super::repair::is_compatible(&repair, Offset(6)), "however far it has come meanwhile");
    assert_eq!(own.log.holes().last().map(|hole| hole.end), Some(Offset(4)));
}

#[test]
fn a_damaged_log_that_nobody_counts_on_is_fetched_again_from_a_whole_one() {
    let now = start();
    let (_, mut own) = logs(6, 4);
    own.damage(1, 2);
    let opened = |is_spare: bool, is_whole: bool, counts: bool| {
        let mut follower = follower(1, 3, now);
        follower.repair.give_up(now);
        follower.set_standing(!is_spare, 2, &own.log, now);
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
    follower.set_standing(false, 2, &own.log, now);
    assert!(follower.is_streaming());
    follower.set_standing(true, 2, &own.log, now);
    follower.repair.give_up(now);
    follower.set_standing(false, 2, &own.log, now);
    assert!(!follower.is_streaming() && follower.open(StreamId(6), &own.log, false, now).is_some());
}
