//! Who forms a cluster of several voters, and when: pure (rule 13).
//!
//! Every node asks every listed voter what it knows, again and again, and answers the same question. A cluster is formed
//! when all listed voters have answered "empty, the same list, directory X": the lowest of them writes the first
//! membership, which names all those directories. Whoever hears of a cluster joins it: as a voter if the membership names
//! its node with its directory, else as an observer, whatever the lists say.
//!
//! *Empty* means that the metadata log has never held anything, no vote either. A directory's id is durable before it is
//! first answered. So a cluster that exists is never formed a second time: its first entry is on a majority before
//! anything can be committed, and then no majority is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use stonelog_protocol::peer::probe::{ListedVoter, Member, ProbeAnswer};
use stonelog_protocol::{BrokerId, ClusterId, DirectoryId};

/// What a node finds on its own disk when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// Nothing.
    Empty,
    /// A cluster's id, from an explicit format or from a start that was cut short; the metadata log is empty, and there
    /// are neither replicas nor a recorded broker epoch in any log directory.
    Formatted(ClusterId),
    /// This node has been part of a cluster without voting: it never forms one again.
    Joined(ClusterId),
    /// A metadata log that holds something.
    Log {
        /// Whose it is.
        cluster: ClusterId,
        /// The members that it names: voters, and those to be. None while it holds a vote alone: that is no verdict
        /// about this node, and the others are asked.
        members: Vec<Member>,
    },
    /// This log directory has voted, and its metadata log is gone: it must not vote again under the same id.
    LogLost(PathBuf),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A listed voter has answered.
    Answered(BrokerId, ProbeAnswer),
    /// A listed voter has not.
    Silent(BrokerId),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on asking; why there is nothing to do yet.
    Ask(Waiting),
    /// Make the cluster's id durable (a fresh one with `None`), then write the first membership.
    Initialize {
        /// The id that a node was formatted with.
        cluster: Option<ClusterId>,
        /// The first membership, in order of node.
        members: Vec<Member>,
    },
    /// Make the cluster's id durable, then start as a voter; the log may be empty.
    Vote(ClusterId),
    /// Make the cluster's id durable, then follow the voters without voting.
    Observe(ClusterId),
}

/// Why nothing can be done yet. A start says so when it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// These listed voters have not answered.
    For(BTreeSet<BrokerId>),
    /// All are there; the lowest one writes the first membership.
    ForInitializer(BrokerId),
    /// Nodes belong to this cluster, and none of those that answer knows its members.
    ForMembers(ClusterId),
    /// This node is not listed: it cannot form a cluster, and has found none.
    ForCluster,
    /// A listed voter has another list.
    ListsDiffer {
        /// Which.
        node: BrokerId,
        /// What only this node's list has.
        here: Vec<ListedVoter>,
        /// What only the other's has.
        there: Vec<ListedVoter>,
    },
    /// Two listed voters have the same directory id: one is a copy of the other.
    SameDirectory(BrokerId, BrokerId),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::For(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                write!(f, "no answer yet from node {}", nodes.join(", "))
            }
            Waiting::ForInitializer(node) => write!(f, "all voters are there; node {node} forms the cluster"),
            Waiting::ForMembers(cluster) => {
                write!(f, "cluster {cluster} exists, and nobody that answers knows its voters")
            }
            Waiting::ForCluster => f.write_str("this node is no voter, and has found no cluster"),
            Waiting::ListsDiffer { node, here, there } => write!(
                f,
                "node {node} has another list of voters (controller.quorum.voters) than this one: {} here, {} there",
                list(here),
                list(there)
            ),
            Waiting::SameDirectory(one, other) => {
                write!(
                    f,
                    "nodes {one} and {other} have the same directory id: one's directory is a copy of the other's"
                )
            }
        }
    }
}

fn list(voters: &[ListedVoter]) -> String {
    let each = voters.iter().map(|voter| format!("{}@{}:{}", voter.node, voter.host, voter.port));
    if voters.is_empty() { "nothing more".to_owned() } else { each.collect::<Vec<_>>().join(",") }
}

/// Why a node must not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// See [`OnDisk::LogLost`].
    #[error(
        "log directory {} has voted in a cluster and its metadata log is gone: it may have forgotten what it promised. \
         Remove everything in it, the hidden files (.stonelog_*) included, and the node joins anew",
        .0.display()
    )]
    LogLost(PathBuf),
    /// The voters belong to another cluster than this node's directories.
    #[error("this node's directories belong to cluster {own}, and node {node} belongs to cluster {found}")]
    OtherCluster {
        /// By `meta.properties`.
        own: ClusterId,
        /// Who says otherwise.
        node: BrokerId,
        /// By its answer.
        found: ClusterId,
    },
    /// Two listed voters belong to different clusters.
    #[error("the listed voters belong to different clusters: {0} and {1}")]
    TwoClusters(ClusterId, ClusterId),
}

/// One node's way into a cluster.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    node: BrokerId,
    directory: DirectoryId,
    /// In order of node.
    listed: Vec<ListedVoter>,
    disk: OnDisk,
    heard: BTreeMap<BrokerId, ProbeAnswer>,
    /// Those that have answered, or have not, at least once.
    tried: BTreeSet<BrokerId>,
}

impl Bootstrap {
    /// A node with its configured list, and what it found on its disk. The directory's id is durable.
    pub fn new(node: BrokerId, directory: DirectoryId, mut listed: Vec<ListedVoter>, disk: OnDisk) -> Bootstrap {
        listed.sort();
        Bootstrap { node, directory, listed, disk, heard: BTreeMap::new(), tried: BTreeSet::new() }
    }

    /// What this node answers to probes, until its log holds something; nothing when it must not start.
    pub fn answer(&self) -> Option<ProbeAnswer> {
        Some(match &self.disk {
            OnDisk::Empty => self.empty(None),
            OnDisk::Formatted(cluster) => self.empty(Some(cluster.clone())),
            OnDisk::Log { cluster, members } => {
                ProbeAnswer::Member { cluster: cluster.clone(), members: members.clone(), leader: None }
            }
            OnDisk::Joined(cluster) => {
                ProbeAnswer::Member { cluster: cluster.clone(), members: Vec::new(), leader: None }
            }
            OnDisk::LogLost(_) => return None,
        })
    }

    fn empty(&self, formatted: Option<ClusterId>) -> ProbeAnswer {
        ProbeAnswer::Empty { voters: self.listed.clone(), directory: self.directory, formatted }
    }

    /// The configured list, in order of node.
    pub fn listed(&self) -> &[ListedVoter] {
        &self.listed
    }

    /// Whom to ask: every listed voter but this node.
    pub fn asked(&self) -> impl Iterator<Item = &ListedVoter> {
        self.listed.iter().filter(|voter| voter.node != self.node)
    }

    /// What to do before anybody has answered.
    pub fn begin(&self) -> Result<Step, BootstrapError> {
        self.decide()
    }

    /// What to do now.
    pub fn on_event(&mut self, event: Event) -> Result<Step, BootstrapError> {
        let (Event::Answered(node, _) | Event::Silent(node)) = &event;
        self.tried.insert(*node);
        match event {
            Event::Answered(node, answer) => drop(self.heard.insert(node, answer)),
            // What it said before may not be so any more.
            Event::Silent(node) => drop(self.heard.remove(&node)),
        }
        self.decide()
    }

    fn decide(&self) -> Result<Step, BootstrapError> {
        let formatted = match &self.disk {
            OnDisk::LogLost(directory) => return Err(BootstrapError::LogLost(directory.clone())),
            OnDisk::Log { cluster, members } if !members.is_empty() => return Ok(self.enter_again(cluster, members)),
            OnDisk::Formatted(cluster) | OnDisk::Joined(cluster) | OnDisk::Log { cluster, .. } => Some(cluster),
            OnDisk::Empty => None,
        };
        if let Some((cluster, members)) = self.found(formatted)? {
            let is_known = !members.is_empty();
            return Ok(if is_known { self.enter(&cluster, &members) } else { Step::Ask(Waiting::ForMembers(cluster)) });
        }
        match &self.disk {
            OnDisk::Joined(cluster) | OnDisk::Log { cluster, .. } => {
                Ok(Step::Ask(Waiting::ForMembers(cluster.clone())))
            }
            _ => self.form(formatted),
        }
    }

    /// With a log that says who the members were when this node was last there. A leader that answers knows better: a
    /// voter that was replaced while it was away does not vote. Where none answers the node votes by its log, for without
    /// it there may be none.
    fn enter_again(&self, cluster: &ClusterId, members: &[Member]) -> Step {
        let of_leader = self.heard.iter().find_map(|(node, answer)| match answer {
            ProbeAnswer::Member { cluster: found, members, leader } if found == cluster && *leader == Some(*node) => {
                (!members.is_empty()).then_some(members)
            }
            _ => None,
        });
        let step = self.enter(cluster, of_leader.map_or(members, Vec::as_slice));
        let untried: BTreeSet<_> =
            self.asked().map(|voter| voter.node).filter(|node| !self.tried.contains(node)).collect();
        if of_leader.is_none() && !untried.is_empty() && matches!(step, Step::Vote(_)) {
            return Step::Ask(Waiting::For(untried));
        }
        step
    }

    /// As a voter if the membership names this node with this directory, else as an observer.
    fn enter(&self, cluster: &ClusterId, members: &[Member]) -> Step {
        let is_member = |member: &Member| member.voter.node == self.node && member.directory == self.directory;
        if members.iter().any(is_member) { Step::Vote(cluster.clone()) } else { Step::Observe(cluster.clone()) }
    }

    /// The cluster that exists already, with all the members that any answer names.
    fn found(&self, formatted: Option<&ClusterId>) -> Result<Option<(ClusterId, Vec<Member>)>, BootstrapError> {
        let mut found: Option<(ClusterId, Vec<Member>)> = None;
        for (node, answer) in &self.heard {
            let ProbeAnswer::Member { cluster, members, .. } = answer else { continue };
            if let Some(own) = formatted
                && own != cluster
            {
                return Err(BootstrapError::OtherCluster { own: own.clone(), node: *node, found: cluster.clone() });
            }
            match &mut found {
                None => found = Some((cluster.clone(), members.clone())),
                Some((other, _)) if other != cluster => {
                    return Err(BootstrapError::TwoClusters(other.clone(), cluster.clone()));
                }
                Some((_, all)) => all.extend(members.iter().cloned()),
            }
        }
        Ok(found)
    }

    /// Forms a cluster if all are there, agree, and this node is the lowest.
    fn form(&self, formatted: Option<&ClusterId>) -> Result<Step, BootstrapError> {
        let Some(lowest) = self.listed.first().map(|voter| voter.node) else {
            return Ok(Step::Ask(Waiting::ForCluster));
        };
        if !self.listed.iter().any(|voter| voter.node == self.node) {
            return Ok(Step::Ask(Waiting::ForCluster));
        }
        let mut cluster = formatted.cloned();
        let mut members = Vec::new();
        let mut missing = BTreeSet::new();
        let mut owners: BTreeMap<DirectoryId, BrokerId> = BTreeMap::new();
        let own = self.answer();
        for voter in &self.listed {
            let answer = if voter.node == self.node { own.as_ref() } else { self.heard.get(&voter.node) };
            let Some(ProbeAnswer::Empty { voters, directory, formatted }) = answer else {
                missing.insert(voter.node);
                continue;
            };
            if *voters != self.listed {
                let only_in = |one: &[ListedVoter], other: &[ListedVoter]| {
                    one.iter().filter(|voter| !other.contains(voter)).cloned().collect()
                };
                let (here, there) = (only_in(&self.listed, voters), only_in(voters, &self.listed));
                return Ok(Step::Ask(Waiting::ListsDiffer { node: voter.node, here, there }));
            }
            if let Some(first) = owners.insert(*directory, voter.node) {
                return Ok(Step::Ask(Waiting::SameDirectory(first, voter.node)));
            }
            match (&cluster, formatted) {
                (Some(one), Some(other)) if one != other => {
                    return Err(BootstrapError::TwoClusters(one.clone(), other.clone()));
                }
                (None, Some(_)) => cluster.clone_from(formatted),
                _ => {}
            }
            members.push(Member { voter: voter.clone(), directory: *directory });
        }
        Ok(if !missing.is_empty() {
            Step::Ask(Waiting::For(missing))
        } else if lowest == self.node {
            Step::Initialize { cluster, members }
        } else {
            Step::Ask(Waiting::ForInitializer(lowest))
        })
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::*;

    fn voter(node: i32) -> ListedVoter {
        ListedVoter { node: BrokerId(node), host: "h".into(), port: 9090 + node as u16 }
    }

    fn list(nodes: &[i32]) -> Vec<ListedVoter> {
        nodes.iter().copied().map(voter).collect()
    }

    fn member(node: i32, directory: u8) -> Member {
        Member { voter: voter(node), directory: Uuid([directory; 16]) }
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
        assert_eq!(node.on_event(belongs(2, "c", founders())), Ok(Step::Vote(cluster("c"))));
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
        assert_eq!(after(on(2, 2, log()), vec![says(1, 1, now())]), Ok(Step::Observe(cluster("c"))));
        assert_eq!(after(on(2, 2, log()), vec![says(1, 1, founders())]), Ok(Step::Vote(cluster("c"))));
        // Who does not lead may not have heard of it, and who is said to lead may have gone.
        let others = vec![says(1, 3, now()), silent(3)];
        assert_eq!(after(on(2, 2, log()), others), Ok(Step::Vote(cluster("c"))));
        let leader = vec![says(1, 3, founders()), says(3, 3, now())];
        assert_eq!(after(on(2, 2, log()), leader), Ok(Step::Observe(cluster("c"))));
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
}
