//! Every answer that others can give, and what a node makes of it.

use stonelog_protocol::Uuid;

use super::*;

fn voter(node: i32) -> ListedVoter {
    ListedVoter { node: BrokerId(node), host: "h".into(), port: 9090 + node as u16 }
}

fn list(nodes: &[i32]) -> Vec<ListedVoter> {
    nodes.iter().copied().map(voter).collect()
}

fn member(node: i32, directory: u8) -> Member {
    Member { voter: voter(node), directory: Uuid([directory; 16]), part: Part::Votes }
}

fn to_be(node: i32, directory: u8) -> Member {
    Member { part: Part::ToBe, ..member(node, directory) }
}

fn cluster(id: &str) -> ClusterId {
    ClusterId(id.into())
}

fn on(node: i32, directory: u8, disk: OnDisk) -> Bootstrap {
    Bootstrap::new(BrokerId(node), Uuid([directory; 16]), list(&[3, 1, 2]), disk)
}

fn empty(node: i32, directory: u8) -> Event {
    empty_with(node, directory, &[1, 2, 3], None)
}

fn empty_with(node: i32, directory: u8, nodes: &[i32], formatted: Option<&str>) -> Event {
    let (voters, formatted) = (list(nodes), formatted.map(cluster));
    Event::Answered(BrokerId(node), ProbeAnswer::Empty { voters, directory: Uuid([directory; 16]), formatted })
}

fn silent(node: i32) -> Event {
    Event::Silent(BrokerId(node))
}

fn belongs(node: i32, id: &str, members: Vec<Member>) -> Event {
    Event::Answered(BrokerId(node), ProbeAnswer::Member { cluster: cluster(id), members, leader: None })
}

#[test]
fn node_that_has_been_part_of_a_cluster_finds_it_again_and_forms_none() {
    let mut node = on(1, 1, OnDisk::Joined(cluster("c")));
    let waiting = || Ok(Step::Ask(Waiting::ForMembers(cluster("c"))));
    assert_eq!(node.begin(), waiting());
    assert_eq!(node.on_event(empty(2, 2)), waiting());
    assert_eq!(node.on_event(empty(3, 3)), waiting());
    // Nor do others while it answers so.
    let mut other = on(2, 2, OnDisk::Empty);
    assert_eq!(other.on_event(Event::Answered(BrokerId(1), node.answer().unwrap())), waiting());
    // Who does not lead may not have heard that it votes by now, and has voted.
    let members = || vec![to_be(1, 1), member(2, 2), member(3, 3)];
    assert_eq!(node.on_event(belongs(2, "c", members())), Ok(Step::Observe(cluster("c"))));
    let leads = ProbeAnswer::Member { cluster: cluster("c"), members: members(), leader: Some(BrokerId(3)) };
    assert_eq!(node.on_event(Event::Answered(BrokerId(3), leads)), Ok(Step::Vote(cluster("c"))));
    let other_cluster = node.on_event(belongs(2, "d", founders()));
    assert!(matches!(other_cluster, Err(BootstrapError::OtherCluster { .. })), "{other_cluster:?}");
}

fn founders() -> Vec<Member> {
    vec![member(1, 1), member(2, 2), member(3, 3)]
}

/// What comes of the last of these events.
fn after(mut bootstrap: Bootstrap, events: Vec<Event>) -> Result<Step, BootstrapError> {
    let begun = bootstrap.begin();
    events.into_iter().map(|event| bootstrap.on_event(event)).last().unwrap_or(begun)
}

fn wait_for(nodes: &[i32]) -> Result<Step, BootstrapError> {
    Ok(Step::Ask(Waiting::For(nodes.iter().copied().map(BrokerId).collect())))
}

#[test]
fn cluster_is_formed_by_the_lowest_when_all_are_empty_and_agree() {
    let first = Ok(Step::Initialize { cluster: None, members: founders() });
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![]), wait_for(&[2, 3]));
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![empty(3, 3)]), wait_for(&[2]));
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![empty(3, 3), empty(2, 2)]), first);
    let waits = Ok(Step::Ask(Waiting::ForInitializer(BrokerId(1))));
    assert_eq!(after(on(2, 2, OnDisk::Empty), vec![empty(3, 3), empty(1, 1)]), waits);
}

#[test]
fn answer_counts_only_as_long_as_its_node_answers() {
    let silent = Event::Silent(BrokerId(3));
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![empty(3, 3), silent, empty(2, 2)]), wait_for(&[3]));
}

#[test]
fn directories_that_are_named_are_those_answered_last() {
    // A voter was wiped before anything was formed.
    let step = after(on(1, 1, OnDisk::Empty), vec![empty(3, 3), empty(3, 9), empty(2, 2)]);
    let members = vec![member(1, 1), member(2, 2), member(3, 9)];
    assert_eq!(step, Ok(Step::Initialize { cluster: None, members }));
}

#[test]
fn lists_that_differ_form_nothing() {
    let differs = |node, here: &[i32], there: &[i32]| {
        let (here, there) = (list(here), list(there));
        Ok(Step::Ask(Waiting::ListsDiffer { node: BrokerId(node), here, there }))
    };
    let other = empty_with(3, 3, &[1, 2, 3, 4], None);
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![empty(2, 2), other]), differs(3, &[], &[4]));
    let other = empty_with(2, 2, &[1, 2], None);
    assert_eq!(after(on(1, 1, OnDisk::Empty), vec![other, empty(3, 3)]), differs(2, &[3], &[]));
    // Corrected, it goes on.
    let other = empty_with(2, 2, &[1, 2], None);
    let step = after(on(1, 1, OnDisk::Empty), vec![other, empty(3, 3), empty(2, 2)]);
    assert_eq!(step, Ok(Step::Initialize { cluster: None, members: founders() }));
}

#[test]
fn copied_directory_forms_nothing() {
    let step = after(on(1, 1, OnDisk::Empty), vec![empty(2, 2), empty(3, 2)]);
    assert_eq!(step, Ok(Step::Ask(Waiting::SameDirectory(BrokerId(2), BrokerId(3)))));
}

#[test]
fn formatted_nodes_agree_on_their_cluster_or_do_not_start() {
    let formatted = |id| OnDisk::Formatted(cluster(id));
    let two = || empty_with(2, 2, &[1, 2, 3], Some("c"));
    let step = after(on(1, 1, formatted("c")), vec![two(), empty(3, 3)]);
    assert_eq!(step, Ok(Step::Initialize { cluster: Some(cluster("c")), members: founders() }));
    let step = after(on(1, 1, OnDisk::Empty), vec![two(), empty(3, 3)]);
    assert_eq!(step, Ok(Step::Initialize { cluster: Some(cluster("c")), members: founders() }));
    let step = after(on(1, 1, formatted("d")), vec![two(), empty(3, 3)]);
    assert_eq!(step, Err(BootstrapError::TwoClusters(cluster("d"), cluster("c"))));
}

#[test]
fn who_hears_of_a_cluster_that_names_it_votes() {
    // Whatever else it has heard, and whether or not it was cut short after its id was durable.
    for disk in [OnDisk::Empty, OnDisk::Formatted(cluster("c"))] {
        let step = after(on(2, 2, disk), vec![empty(3, 3), belongs(1, "c", founders())]);
        assert_eq!(step, Ok(Step::Vote(cluster("c"))));
    }
}

#[test]
fn initializer_that_was_cut_short_before_its_log_begins_anew_under_the_same_id() {
    let cut_short = on(1, 1, OnDisk::Formatted(cluster("c")));
    let step = after(cut_short, vec![empty(2, 2), empty(3, 3)]);
    assert_eq!(step, Ok(Step::Initialize { cluster: Some(cluster("c")), members: founders() }));
    // And after its log, it votes whoever answers.
    let disk = || OnDisk::Log { cluster: cluster("c"), members: founders() };
    for events in [vec![silent(2), silent(3)], vec![empty(2, 2), empty(3, 3)]] {
        assert_eq!(after(on(1, 1, disk()), events), Ok(Step::Vote(cluster("c"))));
    }
}

#[test]
fn voter_wiped_after_the_cluster_was_formed_observes_and_initializes_nothing() {
    // The initializer itself, alone against two that know it under its old directory.
    let wiped = || on(1, 9, OnDisk::Empty);
    let observes = Ok(Step::Observe(cluster("c")));
    assert_eq!(after(wiped(), vec![belongs(2, "c", founders())]), observes);
    assert_eq!(after(wiped(), vec![empty(3, 3), belongs(2, "c", founders())]), observes);
    assert_eq!(after(wiped(), vec![empty(3, 3)]), wait_for(&[2]));
}

#[test]
fn node_that_is_not_listed_observes_and_forms_nothing() {
    let broker = || on(7, 7, OnDisk::Empty);
    let all = vec![empty(1, 1), empty(2, 2), empty(3, 3)];
    assert_eq!(after(broker(), all), Ok(Step::Ask(Waiting::ForCluster)));
    assert_eq!(after(broker(), vec![belongs(2, "c", founders())]), Ok(Step::Observe(cluster("c"))));
    // Unless the membership names it: it was added since.
    let members = vec![member(2, 2), member(7, 7)];
    assert_eq!(after(broker(), vec![belongs(2, "c", members)]), Ok(Step::Vote(cluster("c"))));
}

#[test]
fn log_says_whether_its_node_votes() {
    let log = |members| OnDisk::Log { cluster: cluster("c"), members };
    assert_eq!(after(on(2, 2, log(founders())), vec![]), wait_for(&[1, 3]));
    assert_eq!(after(on(2, 2, log(founders())), vec![silent(1), silent(3)]), Ok(Step::Vote(cluster("c"))));
    assert_eq!(after(on(2, 5, log(founders())), vec![]), Ok(Step::Observe(cluster("c"))));
    assert_eq!(after(on(2, 2, log(vec![member(1, 1)])), vec![]), Ok(Step::Observe(cluster("c"))));
}

#[test]
fn founder_that_stopped_between_its_first_vote_and_its_first_entry_votes_again() {
    let log = |id| OnDisk::Log { cluster: cluster(id), members: vec![] };
    let waits = Ok(Step::Ask(Waiting::ForMembers(cluster("c"))));
    let votes = Ok(Step::Vote(cluster("c")));
    assert_eq!(after(on(2, 2, log("c")), vec![]), waits);
    // It has promised something in a cluster: it forms no other.
    assert_eq!(after(on(1, 1, log("c")), vec![empty(2, 2), empty(3, 3)]), waits);
    assert_eq!(after(on(2, 2, log("c")), vec![belongs(3, "c", vec![]), belongs(1, "c", founders())]), votes);
    // Under another directory it is another voter.
    let observes = Ok(Step::Observe(cluster("c")));
    assert_eq!(after(on(2, 9, log("c")), vec![belongs(1, "c", founders())]), observes);
    let other = after(on(2, 2, log("d")), vec![belongs(1, "c", founders())]);
    assert!(matches!(other, Err(BootstrapError::OtherCluster { .. })), "{other:?}");
}

#[test]
fn voter_that_was_replaced_while_it_was_away_votes_no_more() {
    let log = || OnDisk::Log { cluster: cluster("c"), members: founders() };
    let now = || vec![member(1, 1), member(2, 9), member(3, 3)];
    let says = |node, leader, members| {
        let leader = Some(BrokerId(leader));
        Event::Answered(BrokerId(node), ProbeAnswer::Member { cluster: cluster("c"), members, leader })
    };
    assert_eq!(after(on(2, 2, log()), vec![says(1, 1, now())]), Ok(Step::PutAside(cluster("c"))));
    assert_eq!(after(on(2, 2, log()), vec![says(1, 1, founders())]), Ok(Step::Vote(cluster("c"))));
    // Who does not lead may not have heard of it, and who is said to lead may have gone.
    let others = vec![says(1, 3, now()), silent(3)];
    assert_eq!(after(on(2, 2, log()), others), Ok(Step::Vote(cluster("c"))));
    let leader = vec![says(1, 3, founders()), says(3, 3, now())];
    assert_eq!(after(on(2, 2, log()), leader), Ok(Step::PutAside(cluster("c"))));
}

#[test]
fn old_log_does_not_vote_and_hinders_no_node_that_was_taken_out_of_the_quorum() {
    let old =
        OldLog { cluster: cluster("c"), directory: "d".into(), last: 7, recorded: stonelog_protocol::BrokerEpoch(9) };
    let node = || on(2, 2, OnDisk::OldLog(old.clone()));
    let waits = Ok(Step::Ask(Waiting::ForLeader(old.clone())));
    let says = |node, leader, members| {
        let leader = Some(BrokerId(leader));
        Event::Answered(BrokerId(node), ProbeAnswer::Member { cluster: cluster("c"), members, leader })
    };
    let now = || vec![member(1, 1), member(2, 9), member(3, 3)];
    assert_eq!(after(node(), vec![]), waits);
    assert_eq!(after(node(), vec![silent(1), silent(3)]), waits);
    // Who does not lead may not have heard of it, or be the next to be asked for a vote.
    assert_eq!(after(node(), vec![says(1, 3, now()), belongs(3, "c", now())]), waits);
    let aside = Ok(Step::PutAside(cluster("c")));
    assert_eq!(after(node(), vec![says(3, 3, now())]), aside);
    assert_eq!(after(node(), vec![says(3, 3, vec![member(1, 1), member(3, 3)])]), aside);
    // It was added again, and has not begun to be one: no log of it is counted on.
    assert_eq!(after(node(), vec![says(3, 3, vec![member(1, 1), to_be(2, 2), member(3, 3)])]), aside);
    assert_eq!(after(node(), vec![says(3, 3, founders())]), Err(BootstrapError::LogIsOld(old.clone())));
    let other = after(node(), vec![belongs(1, "e", founders())]);
    assert!(matches!(other, Err(BootstrapError::OtherCluster { .. })), "{other:?}");
    // Nobody forms a cluster with it, or takes its word for who the members are.
    assert_eq!(
        after(on(3, 3, OnDisk::Empty), vec![Event::Answered(BrokerId(2), node().answer().unwrap())]),
        Ok(Step::Ask(Waiting::ForMembers(cluster("c"))))
    );
}

#[test]
fn log_that_was_put_aside_votes_nowhere_whoever_names_it() {
    let node = || on(2, 2, OnDisk::Replaced(cluster("c")));
    let leads = |members| {
        let leader = Some(BrokerId(3));
        Event::Answered(BrokerId(3), ProbeAnswer::Member { cluster: cluster("c"), members, leader })
    };
    let observes = Ok(Step::Observe(cluster("c")));
    let again = vec![member(1, 1), to_be(2, 2), member(3, 3)];
    assert_eq!(after(node(), vec![leads(again)]), observes);
    let leaving = vec![member(1, 1), Member { part: Part::Leaves, ..member(2, 2) }, member(3, 3)];
    assert_eq!(after(node(), vec![leads(leaving)]), observes);
    // Who does not lead may not have heard that it was taken out.
    assert_eq!(after(node(), vec![belongs(1, "c", founders())]), wait_for(&[3]));
    assert_eq!(after(node(), vec![belongs(1, "c", founders()), silent(3)]), observes);
    assert_eq!(after(node(), vec![silent(1), silent(3)]), Ok(Step::Ask(Waiting::ForMembers(cluster("c")))));
}

#[test]
fn directory_that_was_put_back_from_before_it_voted_does_not_start() {
    let forgotten = Err(BootstrapError::VoteForgotten(Uuid([2; 16])));
    let joined = || on(2, 2, OnDisk::Joined(cluster("c")));
    assert_eq!(after(joined(), vec![belongs(1, "c", founders())]), forgotten);
    let leaving = vec![member(1, 1), Member { part: Part::Leaves, ..member(2, 2) }];
    assert_eq!(after(joined(), vec![belongs(1, "c", leaving)]), forgotten);
    let leader = ProbeAnswer::Member { cluster: cluster("c"), members: founders(), leader: Some(BrokerId(3)) };
    let replaced = on(2, 2, OnDisk::Replaced(cluster("c")));
    assert_eq!(after(replaced, vec![Event::Answered(BrokerId(3), leader)]), forgotten);
    // Emptied, it is another one.
    let emptied = on(2, 9, OnDisk::Empty);
    assert_eq!(after(emptied, vec![belongs(1, "c", founders())]), Ok(Step::Observe(cluster("c"))));
}

#[test]
fn voter_that_has_voted_and_knows_no_members_yet_makes_nobody_an_observer() {
    let waits = Ok(Step::Ask(Waiting::ForMembers(cluster("c"))));
    assert_eq!(after(on(3, 3, OnDisk::Empty), vec![belongs(2, "c", vec![]), empty(1, 1)]), waits);
    let events = vec![belongs(2, "c", vec![]), belongs(1, "c", founders())];
    assert_eq!(after(on(3, 3, OnDisk::Empty), events), Ok(Step::Vote(cluster("c"))));
}

#[test]
fn directory_that_voted_and_lost_its_log_does_not_start() {
    let lost = || on(2, 2, OnDisk::LogLost("d".into()));
    let refused = Err(BootstrapError::LogLost("d".into()));
    assert_eq!(after(lost(), vec![]), refused);
    assert_eq!(after(lost(), vec![belongs(1, "c", founders())]), refused);
    // Nobody forms a cluster with it either.
    assert_eq!(lost().answer(), None);
}

#[test]
fn other_clusters_are_kept_apart() {
    let own = on(2, 2, OnDisk::Formatted(cluster("d")));
    let other = BootstrapError::OtherCluster { own: cluster("d"), node: BrokerId(1), found: cluster("c") };
    assert_eq!(after(own, vec![belongs(1, "c", founders())]), Err(other));
    let events = vec![belongs(1, "c", founders()), belongs(3, "d", founders())];
    let two = BootstrapError::TwoClusters(cluster("c"), cluster("d"));
    assert_eq!(after(on(2, 2, OnDisk::Empty), events), Err(two));
}

#[test]
fn whatever_is_lost_on_the_way_nothing_is_formed_twice() {
    // Three nodes, every order of a few steps: at most one initializes, and with everybody's own directory.
    let all = [1, 2, 3];
    for seed in 0..2_000u32 {
        let mut random = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut nodes: Vec<_> = all.iter().map(|id| on(*id, *id as u8, OnDisk::Empty)).collect();
        let mut initialized = 0;
        for _ in 0..40 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (from, to) = ((random >> 8) as usize % 3, (random >> 16) as usize % 3);
            if from == to {
                continue;
            }
            let answer = nodes[from].answer().unwrap();
            let event = if random >> 30 == 0 {
                Event::Silent(nodes[from].node)
            } else {
                Event::Answered(nodes[from].node, answer)
            };
            match nodes[to].on_event(event) {
                Ok(Step::Initialize { members, .. }) => {
                    assert_eq!((to, &members), (0, &founders()));
                    initialized += 1;
                    nodes[to].disk = OnDisk::Log { cluster: cluster("c"), members };
                }
                Ok(Step::Vote(id)) => assert_eq!(id, cluster("c")),
                Ok(Step::Ask(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(initialized <= 1, "seed {seed}");
    }
}
