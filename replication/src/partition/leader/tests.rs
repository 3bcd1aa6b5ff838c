//! The leader's arithmetic, event by event.

use std::collections::BTreeMap;

use stonelog_protocol::peer::stream::StreamGeneration;
use stonelog_protocol::{BrokerEpoch, DirectoryId, PartitionEpoch, PartitionIndex, Uuid};

use super::*;

const ME: BrokerId = BrokerId(1);
const LAG: Duration = Duration::from_secs(10);

fn set(ids: &[i32]) -> BTreeSet<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

fn id() -> TopicPartition {
    TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) }
}

fn directory(broker: i32) -> DirectoryId {
    Uuid([u8::try_from(broker).expect("few brokers"); 16])
}

fn member(broker: i32) -> Member {
    let broker_epoch = BrokerEpoch(100 + i64::from(broker));
    Member { broker_epoch, directory: directory(broker), is_active: true, is_adding: false, is_eligible: false }
}

fn whole(end: i64) -> OwnLog {
    OwnLog { end: Offset(end), log_start: Offset(0), is_whole: true }
}

fn leadership(isr: &[i32], min_isr: usize, strict: bool) -> Leadership {
    let members: BTreeMap<_, _> = (1..=3).map(|broker| (BrokerId(broker), member(broker))).collect();
    Leadership {
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(9),
        isr: set(isr),
        elr: BTreeSet::new(),
        min_isr,
        strict,
        image_index: 50,
        members,
    }
}

fn at(written: i64, durable: i64) -> Positions {
    Positions { written: Offset(written), durable: Offset(durable) }
}

fn start() -> Instant {
    crate::runtime::clock::Clock.mono()
}

fn begin(leadership: Leadership, own: Positions, high_watermark: i64, now: Instant) -> Leader {
    let beginning = Beginning { own, high_watermark: Offset(high_watermark), epoch_start: own.written };
    Leader::begin(ME, leadership, beginning, now)
}

fn stamps(follower: i32) -> Stamps {
    Stamps {
        partition: id(),
        leader_epoch: LeaderEpoch(5),
        leader: ME,
        leader_broker_epoch: BrokerEpoch(101),
        follower: BrokerId(follower),
        follower_broker_epoch: BrokerEpoch(100 + i64::from(follower)),
        follower_directory: directory(follower),
        generation: StreamGeneration { recovery_epoch: 1, counter: 0 },
    }
}

fn report(written: i64, durable: i64) -> StreamReport {
    StreamReport { written: Offset(written), durable: Offset(durable), probe: 0, log_start: Offset(0), is_whole: true }
}

/// A follower whose log is as ours up to `end`, and to whom everything up to 1,000 was pushed.
fn follow(leader: &mut Leader, follower: i32, written: i64, durable: i64, now: Instant) {
    let stream = StreamId(u64::try_from(written).expect("positive") + 1);
    assert_eq!(leader.check_open(stream, &stamps(follower)), Ok(()));
    leader.on_opened(stream, stamps(follower), report(written, durable), Offset(written), now);
    leader.on_pushed(stream, &stamps(follower), Offset(1_000));
}

fn wished(leader: &mut Leader, now: Instant) -> Option<BTreeSet<BrokerId>> {
    match leader.wish(id(), whole(leader.own.durable.0), LAG, now) {
        Wish::Isr(wish) => Some(wish.isr.iter().map(|member| member.broker).collect()),
        Wish::Nothing => None,
    }
}

#[test]
fn strict_high_watermark_follows_the_durable_position() {
    let mut leader = begin(leadership(&[1], 1, true), at(4, 4), 0, start());
    assert_eq!(leader.high_watermark(), Offset(4));
    assert!(!leader.on_own_positions(at(9, 4)));
    assert!(leader.on_own_positions(at(9, 8)));
    assert_eq!(leader.high_watermark(), Offset(8));
}

#[test]
fn relaxed_high_watermark_follows_the_written_position() {
    let mut leader = begin(leadership(&[1], 1, false), at(0, 0), 0, start());
    assert!(leader.on_own_positions(at(9, 4)));
    assert_eq!(leader.high_watermark(), Offset(9));
}

#[test]
fn tightening_waits_until_durable_has_passed_the_old_watermark() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, false), at(9, 2), 0, now);
    leader.on_leadership(leadership(&[1], 1, true), Offset(9), now);
    assert_eq!(leader.high_watermark(), Offset(9), "it never goes back");
    assert!(!leader.on_own_positions(at(12, 8)));
    assert!(leader.on_own_positions(at(12, 10)));
    assert_eq!(leader.high_watermark(), Offset(10));
}

#[test]
fn set_below_min_isr_holds_the_watermark() {
    let mut leader = begin(leadership(&[1], 2, true), at(5, 5), 3, start());
    assert!(!leader.has_enough_replicas());
    assert!(!leader.on_own_positions(at(9, 9)));
    assert_eq!(leader.high_watermark(), Offset(3));
}

#[test]
fn member_that_has_not_reported_holds_the_watermark() {
    let leader = begin(leadership(&[1, 2], 1, true), at(5, 5), 3, start());
    assert_eq!(leader.high_watermark(), Offset(3));
}

#[test]
fn the_slowest_member_of_the_set_decides_by_its_durable_position() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 18, 5, now);
    assert_eq!(leader.high_watermark(), Offset(5));
    let written = leader.on_report(StreamId(19), &stamps(2), &report(20, 5), now);
    assert_eq!(written, Ok(false), "written is not durable");
    assert_eq!(leader.on_report(StreamId(19), &stamps(2), &report(20, 19), now), Ok(true));
    assert_eq!(leader.high_watermark(), Offset(19));
}

#[test]
fn a_report_counts_only_with_every_stamp_of_its_session() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 4, 4, now);
    let own = stamps(2);
    let wrong = [
        Stamps { partition: TopicPartition { topic_id: Uuid([8; 16]), ..own.partition }, ..own },
        Stamps { partition: TopicPartition { partition: PartitionIndex(1), ..own.partition }, ..own },
        Stamps { leader_epoch: LeaderEpoch(4), ..own },
        Stamps { leader: BrokerId(3), ..own },
        Stamps { leader_broker_epoch: BrokerEpoch(99), ..own },
        Stamps { follower_broker_epoch: BrokerEpoch(101), ..own },
        Stamps { follower_directory: directory(3), ..own },
        Stamps { generation: StreamGeneration { recovery_epoch: 1, counter: 1 }, ..own },
        stamps(3),
    ];
    for (place, stamps) in wrong.iter().enumerate() {
        assert_eq!(leader.on_report(StreamId(5), stamps, &report(9, 9), now), Err(Fenced), "{stamps:?}");
        assert_eq!(leader.fenced_count(), place as u64 + 1);
    }
    assert_eq!(leader.on_report(StreamId(4), &own, &report(9, 9), now), Err(Fenced), "an older stream");
    assert_eq!(leader.on_report(StreamId(5), &own, &report(1_001, 9), now), Err(Fenced), "more than was pushed");
    assert_eq!(leader.high_watermark(), Offset(4));
    assert_eq!(leader.on_report(StreamId(5), &own, &report(9, 9), now), Ok(true));
}

#[test]
fn a_stream_opens_only_with_present_stamps_and_never_behind_a_later_one() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    let own = stamps(2);
    let open = |leader: &Leader, stamps: Stamps| leader.check_open(StreamId(7), &stamps);
    assert_eq!(
        open(&leader, Stamps { leader_epoch: LeaderEpoch(4), ..own }),
        Err(Refusal::FencedEpoch(LeaderEpoch(5)))
    );
    assert_eq!(
        open(&leader, Stamps { leader_epoch: LeaderEpoch(6), ..own }),
        Err(Refusal::UnknownEpoch(LeaderEpoch(5)))
    );
    assert_eq!(open(&leader, Stamps { leader: BrokerId(2), ..own }), Err(Refusal::NotLeader));
    assert_eq!(open(&leader, stamps(4)), Err(Refusal::NotReplica));
    assert_eq!(open(&leader, Stamps { leader_broker_epoch: BrokerEpoch(9), ..own }), Err(Refusal::StaleBroker));
    assert_eq!(open(&leader, Stamps { follower_broker_epoch: BrokerEpoch(9), ..own }), Err(Refusal::StaleBroker));
    assert_eq!(open(&leader, Stamps { follower_directory: directory(9), ..own }), Err(Refusal::OtherDirectory));
    leader.on_opened(StreamId(8), own, report(4, 4), Offset(4), now);
    assert_eq!(open(&leader, own), Err(Refusal::StaleBroker), "it was sent before the one that is open");
}

#[test]
fn a_joining_follower_counts_from_the_proposal_until_the_image_settles_it() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    assert_eq!(leader.high_watermark(), Offset(20));
    follow(&mut leader, 2, 20, 20, now);
    assert_eq!(wished(&mut leader, now), Some(set(&[1, 2])));
    assert_eq!(wished(&mut leader, now), None, "one change at a time");
    leader.on_own_positions(at(25, 25));
    assert_eq!(leader.high_watermark(), Offset(20), "it may be committed");
    leader.on_isr_answer(Some(51));
    leader.on_own_positions(at(26, 26));
    assert_eq!(leader.high_watermark(), Offset(20), "refused or not, a duplicate may yet be committed");
    assert_eq!(wished(&mut leader, now), None, "the image has not reached the answer");
    let raised =
        |isr: &[i32]| Leadership { partition_epoch: PartitionEpoch(10), image_index: 51, ..leadership(isr, 1, true) };
    leader.on_leadership(raised(&[1]), Offset(20), now);
    assert_eq!(leader.high_watermark(), Offset(26));
}

#[test]
fn a_refused_set_is_settled_by_proposing_again() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    assert_eq!(wished(&mut leader, now), Some(set(&[1, 2])));
    leader.on_isr_answer(Some(50));
    leader.on_closed(StreamId(21), &stamps(2));
    assert_eq!(wished(&mut leader, now), Some(set(&[1])), "the committed set raises the partition epoch");
}

#[test]
fn joining_takes_the_high_watermark_and_the_epochs_start_by_the_position_of_the_mode() {
    let now = start();
    for (strict, own, (written, durable), joins) in [
        (true, at(20, 20), (20, 19), false),
        (true, at(20, 20), (20, 20), true),
        (false, at(20, 0), (20, 0), true),
        (false, at(20, 20), (19, 19), false),
    ] {
        let mut leader = begin(leadership(&[1], 1, strict), own, 3, now);
        follow(&mut leader, 2, written, durable, now);
        assert_eq!(wished(&mut leader, now).is_some(), joins, "strict {strict}, {written} written, {durable} durable");
    }
    // Below min ISR the watermark is old: the epoch's start says what a member must have.
    let mut leader = begin(leadership(&[1], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 19, 19, now);
    assert_eq!(wished(&mut leader, now), None);
}

#[test]
fn a_fenced_or_re_registered_broker_does_not_join() {
    let now = start();
    let fenced = Member { is_active: false, ..member(2) };
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    let with = |member| {
        let mut changed = leadership(&[1], 1, true);
        changed.members.insert(BrokerId(2), member);
        changed
    };
    leader.on_leadership(with(fenced), Offset(20), now);
    assert_eq!(wished(&mut leader, now), None);
    let anew = Member { broker_epoch: BrokerEpoch(300), ..member(2) };
    leader.on_leadership(with(anew), Offset(20), now);
    assert_eq!(wished(&mut leader, now), None, "what it said before it registered anew counts no more");
}

#[test]
fn a_follower_counts_only_with_the_directory_assigned_to_it() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 10, 10, now);
    assert_eq!(leader.high_watermark(), Offset(10));
    // The controller gives the replica another directory of the same incarnation.
    let moved = |isr: &[i32]| {
        let mut moved = Leadership { partition_epoch: PartitionEpoch(10), image_index: 51, ..leadership(isr, 1, true) };
        moved.members.insert(BrokerId(2), Member { directory: directory(9), ..member(2) });
        moved
    };
    leader.on_leadership(moved(&[1, 2]), Offset(20), now);
    assert_eq!(leader.on_report(StreamId(11), &stamps(2), &report(20, 20), now), Err(Fenced));
    assert_eq!(leader.high_watermark(), Offset(10), "what the old directory holds is not the replica's");
    assert_eq!(leader.check_open(StreamId(12), &stamps(2)), Err(Refusal::OtherDirectory));
    let anew = Stamps { follower_directory: directory(9), ..stamps(2) };
    assert_eq!(leader.check_open(StreamId(12), &anew), Ok(()));
}

#[test]
fn only_a_whole_replica_joins_and_a_damaged_one_leaves() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    let damaged = StreamReport { is_whole: false, ..report(20, 20) };
    assert_eq!(leader.on_report(StreamId(21), &stamps(2), &damaged, now), Ok(false));
    assert_eq!(wished(&mut leader, now), None);
    leader.on_report(StreamId(21), &stamps(2), &report(20, 20), now).expect("its own session");
    assert_eq!(wished(&mut leader, now), Some(set(&[1, 2])));

    let mut leader = begin(leadership(&[1, 2], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    assert_eq!(wished(&mut leader, now), None);
    leader.on_report(StreamId(21), &stamps(2), &damaged, now).expect("its own session");
    let Wish::Isr(wish) = leader.wish(id(), OwnLog { is_whole: false, ..whole(20) }, LAG, now) else {
        panic!("a wish")
    };
    assert_eq!(wish.isr.iter().map(|member| (member.broker, member.is_whole)).collect::<Vec<_>>(), [(ME, false)]);
    assert_eq!((wish.damaged, wish.hand_over), (vec![BrokerId(2)], false), "nobody whole could take over");
}

#[test]
fn damaged_replica_that_is_only_eligible_loses_its_place_at_once() {
    let now = start();
    let mut eligible = leadership(&[1], 2, true);
    eligible.members.get_mut(&BrokerId(2)).expect("a member").is_eligible = true;
    let mut leader = begin(eligible.clone(), at(20, 20), 3, now);
    follow(&mut leader, 2, 5, 5, now);
    let early = follow_wish(&mut leader, now);
    assert_eq!(early, None, "it is behind, and whole");
    let damaged = StreamReport { is_whole: false, ..report(5, 5) };
    leader.on_report(StreamId(6), &stamps(2), &damaged, now).expect("its own session");
    assert_eq!(follow_wish(&mut leader, now), Some((set(&[1]), vec![BrokerId(2)])));
    leader.on_isr_answer(Some(51));
    let settled = Leadership { partition_epoch: PartitionEpoch(10), image_index: 51, ..leadership(&[1], 2, true) };
    leader.on_leadership(settled, Offset(20), now);
    assert_eq!(follow_wish(&mut leader, now), None, "it has none any more");
}

#[test]
fn a_strict_member_that_comes_back_without_what_is_committed_leaves_at_once() {
    let now = start();
    let came_back = |strict: bool, end: i64| {
        let mut leader = begin(leadership(&[1, 2, 3], 2, strict), at(20, 20), 3, now);
        follow(&mut leader, 2, 19, 19, now);
        follow(&mut leader, 3, 20, 20, now);
        assert_eq!(leader.high_watermark(), Offset(19));
        leader.on_opened(StreamId(90), stamps(2), report(end, end), Offset(end), now);
        leader
    };
    let mut leader = came_back(true, 5);
    assert_eq!(follow_wish(&mut leader, now), Some((set(&[1, 3]), vec![BrokerId(2)])));
    assert_eq!(follow_wish(&mut came_back(true, 19), now), None, "it has all that is committed");
    assert_eq!(follow_wish(&mut came_back(false, 5), now), None, "nobody was promised that");
    // It is a follower like any other from then on.
    leader.on_isr_answer(Some(51));
    let settled = Leadership { partition_epoch: PartitionEpoch(10), image_index: 51, ..leadership(&[1, 3], 2, true) };
    leader.on_leadership(settled, Offset(20), now);
    assert_eq!(follow_wish(&mut leader, now), None);
    leader.on_pushed(StreamId(90), &stamps(2), Offset(20));
    leader.on_report(StreamId(90), &stamps(2), &report(20, 20), now).expect("its own session");
    assert_eq!(follow_wish(&mut leader, now), Some((set(&[1, 2, 3]), vec![])));
}

/// The wished set, and who is said to be damaged.
fn follow_wish(leader: &mut Leader, now: Instant) -> Option<(BTreeSet<BrokerId>, Vec<BrokerId>)> {
    match leader.wish(id(), whole(20), LAG, now) {
        Wish::Isr(wish) => Some((wish.isr.iter().map(|member| member.broker).collect(), wish.damaged)),
        Wish::Nothing => None,
    }
}

#[test]
fn a_damaged_leader_hands_over_to_a_member() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    let Wish::Isr(wish) = leader.wish(id(), OwnLog { is_whole: false, ..whole(20) }, LAG, now) else {
        panic!("a wish")
    };
    assert!(wish.hand_over);
    assert_eq!(wish.isr.iter().map(|member| member.is_whole).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn an_earlier_incarnations_stream_of_the_same_number_closes_nothing() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    let stream = StreamId(21);
    leader.on_opened(stream, stamps(2), report(10, 10), Offset(10), now);
    let earlier = Stamps { follower_broker_epoch: BrokerEpoch(9), ..stamps(2) };
    leader.on_pushed(stream, &earlier, Offset(20));
    assert_eq!(leader.on_report(stream, &stamps(2), &report(20, 20), now), Err(Fenced), "nothing was pushed to it");
    leader.on_pushed(stream, &stamps(2), Offset(20));
    leader.on_closed(stream, &earlier);
    assert_eq!(leader.on_report(stream, &stamps(2), &report(20, 20), now), Ok(false), "its stream is open");
    leader.on_closed(stream, &stamps(2));
    assert_eq!(leader.on_report(stream, &stamps(2), &report(20, 20), now), Err(Fenced));
}

#[test]
fn a_proposal_names_the_registration_and_the_directory_each_member_followed_under() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    let Wish::Isr(wish) = leader.wish(id(), whole(20), LAG, now) else { panic!("a wish") };
    let members = [(1, 101), (2, 102)].map(|(broker, epoch)| InSyncReplica {
        broker: BrokerId(broker),
        epoch: Some(BrokerEpoch(epoch)),
        directory: directory(broker),
        is_whole: true,
    });
    assert_eq!(wish.isr, members);
    assert_eq!((wish.leader_epoch, wish.partition_epoch), (LeaderEpoch(5), PartitionEpoch(9)));
}

#[test]
fn a_member_leaves_when_it_was_behind_for_too_long() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2, 3], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    follow(&mut leader, 3, 20, 20, now);
    let later = now + LAG;
    leader.wish(id(), whole(20), LAG, later);
    leader.on_own_positions(at(30, 30));
    leader.on_report(StreamId(21), &stamps(2), &report(25, 25), later).expect("its own session");
    assert_eq!(wished(&mut leader, later + LAG), None, "not longer than the limit");
    assert_eq!(wished(&mut leader, later + LAG + Duration::from_millis(1)), Some(set(&[1])));
}

#[test]
fn a_member_that_keeps_up_with_where_the_leader_was_stays() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    // Always ten records and six seconds behind.
    for step in 1..20 {
        let moment = now + step * Duration::from_secs(6);
        let end = 20 + 10 * i64::from(step);
        leader.on_own_positions(at(end, end));
        leader.on_report(StreamId(21), &stamps(2), &report(end - 10, end - 10), moment).expect("its own session");
        assert_eq!(wished(&mut leader, moment), None, "step {step}");
    }
}

#[test]
fn replicas_being_added_do_not_count_for_min_isr() {
    let mut given = leadership(&[1, 2], 2, true);
    given.members.insert(BrokerId(2), Member { is_adding: true, ..member(2) });
    assert_eq!(given.isr_size(), 1);
    let leader = begin(given, at(9, 9), 3, start());
    assert!(!leader.has_enough_replicas());
}

#[test]
fn a_leader_whose_journal_stands_still_hands_over() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    assert_eq!(leader.wish(id(), whole(25), LAG, now + LAG), Wish::Nothing);
    let Wish::Isr(wish) = leader.wish(id(), whole(25), LAG, now + LAG + LAG) else { panic!("a wish") };
    assert!(wish.hand_over && wish.isr.len() == 2);
    leader.on_isr_answer(Some(50));
    assert_eq!(leader.wish(id(), whole(25), LAG, now + LAG * 3), Wish::Nothing, "not over and over");
    leader.on_own_positions(at(25, 22));
    assert_eq!(leader.wish(id(), whole(25), LAG, now + LAG + LAG), Wish::Nothing);
    let mut alone = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    alone.wish(id(), whole(25), LAG, now);
    assert_eq!(alone.wish(id(), whole(25), LAG, now + LAG + LAG), Wish::Nothing, "nobody else can lead");
}

#[test]
fn reports_of_an_ended_epoch_count_no_more() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 10, 10, now);
    let next = Leadership {
        leader_epoch: LeaderEpoch(6),
        partition_epoch: PartitionEpoch(10),
        image_index: 60,
        ..leadership(&[1, 2], 2, true)
    };
    leader.on_leadership(next, Offset(20), now);
    assert_eq!(leader.on_report(StreamId(11), &stamps(2), &report(20, 20), now), Err(Fenced));
    assert_eq!(leader.high_watermark(), Offset(10));
}

fn echo(probe: u64) -> StreamReport {
    StreamReport { probe, ..report(20, 20) }
}

#[test]
fn a_question_is_settled_by_everybody_who_may_have_come_to_lead() {
    let now = start();
    let of = Leadership { elr: set(&[3]), ..leadership(&[1, 2], 2, true) };
    let mut leader = begin(of, at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    follow(&mut leader, 3, 20, 20, now);
    assert!(leader.on_report(StreamId(21), &stamps(2), &echo(5), now).is_ok());
    assert!(leader.on_report(StreamId(21), &stamps(3), &echo(4), now).is_ok());
    assert!(!leader.is_confirmed(5), "3 is in the ELR");
    assert!(leader.is_confirmed(4));
    assert!(leader.on_report(StreamId(21), &stamps(3), &echo(5), now).is_ok());
    assert!(leader.is_confirmed(5));
}

#[test]
fn who_is_neither_in_sync_nor_eligible_need_not_be_asked() {
    let leader = begin(leadership(&[1], 1, true), at(20, 20), 3, start());
    assert!(leader.is_confirmed(1), "nobody else can lead without having joined first");
}

#[test]
fn who_was_proposed_may_lead_before_the_image_says_so() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    assert_eq!(wished(&mut leader, now), Some(set(&[1, 2])));
    leader.on_isr_answer(Some(51));
    assert!(!leader.is_confirmed(1), "it may have been elected since");
    assert!(leader.on_report(StreamId(21), &stamps(2), &echo(1), now).is_ok());
    assert!(leader.is_confirmed(1));
}

#[test]
fn a_stream_that_opens_again_brings_along_what_its_follower_has_repeated() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    follow(&mut leader, 2, 20, 20, now);
    leader.on_closed(StreamId(21), &stamps(2));
    assert!(!leader.is_confirmed(1));
    leader.on_opened(StreamId(22), stamps(2), echo(1), Offset(20), now);
    assert!(leader.is_confirmed(1));
}

#[test]
fn what_is_deleted_is_deleted_wherever_the_next_leader_may_be() {
    let now = start();
    let mut leader = begin(leadership(&[1, 2], 2, true), at(20, 20), 3, now);
    let from = |log_start: i64| StreamReport { log_start: Offset(log_start), ..report(20, 20) };
    assert_eq!(leader.low_watermark(Offset(9)), Offset(0), "nothing is known of the others");
    follow(&mut leader, 2, 20, 20, now);
    follow(&mut leader, 3, 20, 20, now);
    assert!(leader.on_report(StreamId(21), &stamps(2), &from(9), now).is_ok());
    assert!(leader.on_report(StreamId(21), &stamps(3), &from(4), now).is_ok());
    assert_eq!(leader.low_watermark(Offset(9)), Offset(4), "3 may join any time");
    assert_eq!(leader.low_watermark(Offset(2)), Offset(2), "the own is not durable");
    let mut fenced = Leadership { partition_epoch: PartitionEpoch(10), ..leadership(&[1, 2], 2, true) };
    fenced.members.get_mut(&BrokerId(3)).expect("a replica").is_active = false;
    leader.on_leadership(fenced.clone(), Offset(20), now);
    assert_eq!(leader.low_watermark(Offset(9)), Offset(9));
    let eligible = Leadership { partition_epoch: PartitionEpoch(11), elr: set(&[3]), ..fenced };
    leader.on_leadership(eligible, Offset(20), now);
    assert_eq!(leader.low_watermark(Offset(9)), Offset(4), "3 may lead when it is back");
}

#[test]
fn who_has_what_was_deleted_here_joins_when_it_is_deleted_there_too() {
    let now = start();
    let mut leader = begin(leadership(&[1], 1, true), at(20, 20), 20, now);
    follow(&mut leader, 2, 20, 20, now);
    let own_log = OwnLog { log_start: Offset(9), ..whole(20) };
    assert_eq!(leader.wish(id(), own_log, LAG, now), Wish::Nothing);
    let deleted = StreamReport { log_start: Offset(9), ..report(20, 20) };
    assert!(leader.on_report(StreamId(21), &stamps(2), &deleted, now).is_ok());
    let Wish::Isr(wish) = leader.wish(id(), own_log, LAG, now) else { panic!("it joins") };
    assert_eq!(wish.isr.len(), 2);
}

#[test]
fn who_joins_behind_a_frozen_watermark_has_as_long_to_catch_up_as_any_member() {
    let now = start();
    // Below min ISR: the watermark stays at the epoch's start while the log goes on.
    let mut leader = begin(leadership(&[1], 2, false), at(20, 20), 20, now);
    leader.on_own_positions(at(900, 900));
    let back = now + LAG * 3;
    follow(&mut leader, 2, 20, 20, back);
    assert_eq!(wished(&mut leader, back), Some(set(&[1, 2])));
    leader.on_isr_answer(Some(51));
    let joined = Leadership { partition_epoch: PartitionEpoch(10), image_index: 51, ..leadership(&[1, 2], 2, false) };
    leader.on_leadership(joined, Offset(20), back);
    assert_eq!(wished(&mut leader, back + LAG), None, "it catches up");
    assert_eq!(wished(&mut leader, back + LAG + Duration::from_millis(1)), Some(set(&[1])), "it did not");
}
