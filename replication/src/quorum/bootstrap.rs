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

use stonelog_protocol::peer::probe::{ListedVoter, Member, Part, ProbeAnswer};
use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId};

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
    /// The same, and there is the metadata log of a voter that was taken out of the quorum. It was put aside on a leader's
    /// word: see [`super::replaced`].
    Replaced(ClusterId),
    /// A metadata log that holds something.
    Log {
        /// Whose it is.
        cluster: ClusterId,
        /// The members that it names: voters, and those to be. None while it holds a vote alone: that is no verdict
        /// about this node, and the others are asked.
        members: Vec<Member>,
    },
    /// A metadata log that names this node with its directory, and ends before an entry that this node is known to have
    /// applied. One that voted may have forgotten what it promised; one that was taken out of the quorum since, and
    /// followed it without this log, has nothing to forget.
    OldLog(OldLog),
    /// This log directory has voted, and its metadata log is gone: it must not vote again under the same id.
    LogLost(PathBuf),
}

/// See [`OnDisk::OldLog`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the metadata log in {} ends at entry {last}, and this node is known to have applied entry {recorded}: the log is of an \
     earlier time and may have forgotten what it promised, and the quorum counts on this node's vote. Put back the newest \
     one. If it is lost, see first that every partition has another replica in sync, for those in this log directory go \
     with it; then remove everything in the log directory, the hidden files (.stonelog_*) included, and the node joins \
     anew",
    directory.display()
)]
pub struct OldLog {
    /// Whose it is.
    pub cluster: ClusterId,
    /// Where it is.
    pub directory: PathBuf,
    /// Its last entry.
    pub last: u64,
    /// The newest broker epoch recorded in any of the node's directories, or what a controller has recorded instead: the
    /// index of an entry that it had applied.
    pub recorded: BrokerEpoch,
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
    /// The same, and the metadata log here is that of a voter that was taken out, by the word of whoever leads: it is put
    /// aside first.
    PutAside(ClusterId),
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
    /// The metadata log here is of an earlier time, and nobody who leads has said whether this node votes.
    ForLeader(OldLog),
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
            Waiting::ForLeader(OldLog { directory, last, recorded, .. }) => write!(
                f,
                "the metadata log in {} ends at entry {last}, before the one that this node is known to have \
                 applied ({recorded}): only whoever leads can say whether this node votes, and with that log it must not",
                directory.display()
            ),
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
    /// The leader names this node as a voter: see [`OnDisk::OldLog`].
    #[error(transparent)]
    LogIsOld(OldLog),
    /// The quorum counts on the vote of a directory that holds no log.
    #[error(
        "the metadata quorum counts on the vote of this node's log directory ({0}), and what is in it is of a time before \
         it voted: it may have forgotten what it promised. Put back the newest state of it. If that is lost, see first \
         that every partition has another replica in sync, for those in this log directory go with it; then remove \
         everything in the log directory, the hidden files (.stonelog_*) included, and the node joins anew"
    )]
    VoteForgotten(DirectoryId),
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
    /// It may be one of those that form a cluster.
    may_form: bool,
}

impl Bootstrap {
    /// A node with its configured list, and what it found on its disk. The directory's id is durable.
    pub fn new(node: BrokerId, directory: DirectoryId, mut listed: Vec<ListedVoter>, disk: OnDisk) -> Bootstrap {
        listed.sort();
        Bootstrap { node, directory, listed, disk, heard: BTreeMap::new(), tried: BTreeSet::new(), may_form: true }
    }

    /// Whether it may be one of those that form a cluster: not with a list that is what others have said, and nobody's
    /// wish.
    pub fn which_forms(self, may_form: bool) -> Bootstrap {
        Bootstrap { may_form, ..self }
    }

    /// What this node answers to probes, until its log holds something; nothing when it must not start.
    pub fn answer(&self) -> Option<ProbeAnswer> {
        Some(match &self.disk {
            OnDisk::Empty => self.empty(None),
            OnDisk::Formatted(cluster) => self.empty(Some(cluster.clone())),
            OnDisk::Log { cluster, members } => {
                ProbeAnswer::Member { cluster: cluster.clone(), members: members.clone(), leader: None }
            }
            OnDisk::Joined(cluster) | OnDisk::Replaced(cluster) | OnDisk::OldLog(OldLog { cluster, .. }) => {
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
            OnDisk::OldLog(old) => return self.enter_with_old_log(old),
            OnDisk::Replaced(cluster) => return self.enter_replaced(cluster),
            OnDisk::Formatted(cluster) | OnDisk::Joined(cluster) | OnDisk::Log { cluster, .. } => Some(cluster),
            OnDisk::Empty => None,
        };
        if let Some((cluster, members)) = self.found(formatted)? {
            // Whoever is to vote has promised nothing yet; a voter had a log when it began.
            let has_voted = |member: &Member| self.is_own(member) && member.part != Part::ToBe;
            if matches!(self.disk, OnDisk::Joined(_)) && members.iter().any(has_voted) && !off!(VoteForgotten) {
                return Err(BootstrapError::VoteForgotten(self.directory));
            }
            // One to be by the word of somebody who does not lead may have voted since: following, it hears the leader's.
            if matches!(self.disk, OnDisk::Joined(_)) && self.part(&members).is_some() {
                let named = self.of_leader(&cluster).is_some_and(|members| self.part(members).is_some());
                return Ok(if named { Step::Vote(cluster) } else { Step::Observe(cluster) });
            }
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
        let of_leader = self.of_leader(cluster);
        if of_leader.is_some_and(|members| self.part(members).is_none()) {
            return Step::PutAside(cluster.clone());
        }
        let step = self.enter(cluster, of_leader.unwrap_or(members));
        let untried = self.untried();
        if of_leader.is_none() && !untried.is_empty() && matches!(step, Step::Vote(_)) {
            return Step::Ask(Waiting::For(untried));
        }
        step
    }

    /// With a log that must not vote. A leader that does not name this node with its directory, or not as one that votes,
    /// counts on nothing that the log may have forgotten.
    fn enter_with_old_log(&self, old: &OldLog) -> Result<Step, BootstrapError> {
        if off!(OldLogAsks) {
            return Ok(Step::Vote(old.cluster.clone()));
        }
        self.found(Some(&old.cluster))?;
        let Some(members) = self.of_leader(&old.cluster) else {
            return Ok(Step::Ask(Waiting::ForLeader(old.clone())));
        };
        match self.part(members) {
            None | Some(Part::ToBe) => Ok(Step::PutAside(old.cluster.clone())),
            Some(Part::Votes | Part::Leaves) => Err(BootstrapError::LogIsOld(old.clone())),
        }
    }

    /// With a log that was put aside: it votes no more, and the node follows until it is added anew. Where whoever leads
    /// counts on its vote all the same, it has voted since with a log that is not here.
    fn enter_replaced(&self, cluster: &ClusterId) -> Result<Step, BootstrapError> {
        let members = self.found(Some(cluster))?.map(|(_, members)| members).unwrap_or_default();
        if let Some(members) = self.of_leader(cluster) {
            let votes = self.part(members) == Some(Part::Votes) && !off!(VoteForgotten);
            return if votes {
                Err(BootstrapError::VoteForgotten(self.directory))
            } else {
                Ok(Step::Observe(cluster.clone()))
            };
        }
        let untried = self.untried();
        Ok(if !untried.is_empty() {
            Step::Ask(Waiting::For(untried))
        } else if members.is_empty() {
            Step::Ask(Waiting::ForMembers(cluster.clone()))
        } else {
            Step::Observe(cluster.clone())
        })
    }

    /// Those that were not heard to answer, or not to, yet.
    fn untried(&self) -> BTreeSet<BrokerId> {
        self.asked().map(|voter| voter.node).filter(|node| !self.tried.contains(node)).collect()
    }

    /// The members that whoever leads has named.
    fn of_leader(&self, cluster: &ClusterId) -> Option<&[Member]> {
        self.heard.iter().find_map(|(node, answer)| match answer {
            ProbeAnswer::Member { cluster: found, members, leader } if found == cluster && *leader == Some(*node) => {
                (!members.is_empty()).then_some(&members[..])
            }
            _ => None,
        })
    }

    /// As a voter if the membership names this node with this directory, else as an observer.
    fn enter(&self, cluster: &ClusterId, members: &[Member]) -> Step {
        if self.part(members).is_some() { Step::Vote(cluster.clone()) } else { Step::Observe(cluster.clone()) }
    }

    /// As what a membership names this node with this directory.
    fn part(&self, members: &[Member]) -> Option<Part> {
        members.iter().find(|member| self.is_own(member)).map(|member| member.part)
    }

    fn is_own(&self, member: &Member) -> bool {
        member.voter.node == self.node && member.directory == self.directory
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
        if !self.may_form || !self.listed.iter().any(|voter| voter.node == self.node) {
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
            members.push(Member { voter: voter.clone(), directory: *directory, part: Part::Votes });
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
mod tests;
