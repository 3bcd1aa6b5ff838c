//! One of several voters: what a lone one does not need.
//!
//! A voter starts as a follower, whatever it was before (leader restore is off). It stands for election when it has heard
//! from no leader for a while and a majority would vote for it (pre-vote). An isolated leader stops taking proposals when
//! its lease is over.
//!
//! An empty log is safe to start with only in a directory that has never been part of a membership; that is the caller's
//! business ([`super::bootstrap`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Config};
use stonelog_protocol::peer::feed::Leading;
use stonelog_protocol::peer::probe::{ListedVoter, Member, Part};
use stonelog_protocol::{BrokerId, Uuid};

use super::controllers::Controllers;
use super::link::PeerDialer;
use super::network::Peers;
use super::node::{ProposeError, QuorumNode, QuorumOptions, StartError, common_config, refused};
use super::publisher::Publisher;
use super::service::QuorumSession;
use super::type_config::{Membership, TypeConfig, Voter};
use super::wire::{broker, node};

/// Bounds each piece of a snapshot; the last one is installed within it.
const SNAPSHOT_PIECE_WITHIN_MS: u64 = 20_000;
type Metrics = openraft::RaftMetrics<TypeConfig>;

/// A leader that heard from no majority for so long is not believed to lead.
const LEASE: Duration = Duration::from_millis(600);

impl QuorumNode {
    /// Starts a voter, or one to be. It returns when its log is open; who leads comes later.
    pub async fn start_voter(
        options: QuorumOptions,
        publisher: Arc<Publisher>,
        dialer: impl PeerDialer,
    ) -> Result<QuorumNode, StartError> {
        let config = Config {
            // Snapshots go piece by piece, and the last one waits until all of it is durable.
            install_snapshot_timeout: SNAPSHOT_PIECE_WITHIN_MS,
            ..common_config()
        };
        let config = config.validate().map_err(refused)?;
        let known = options.claim(true)?;
        let peers = Peers::new(dialer, node(options.node_id), options.request_within);
        let quorum = QuorumNode::open(&options, publisher, config, peers).await?;
        let membership = quorum.membership().await?;
        let own = membership.get_node(&quorum.node_id);
        let is_own = own.is_some_and(|voter| voter.directory == options.voter.directory);
        let is_alone = is_own && membership.nodes().count() == 1;
        let error = if known.is_none() && !is_alone {
            StartError::NoOwner { directory: options.directory }
        // Whom no membership names does not vote, whatever it starts with.
        } else if own.is_some() && !is_own {
            StartError::NotMember { directory: options.directory, own: quorum.node_id }
        } else if known.is_none()
            && let Err(fault) = options.owner(false).write(&*options.disk, &options.directory)
        {
            fault.into()
        } else {
            return Ok(quorum);
        };
        quorum.stop().await;
        Err(error)
    }

    async fn membership(&self) -> Result<Membership, StartError> {
        let effective = self.raft.with_raft_state(|state| state.membership_state.effective().membership().clone());
        effective.await.map_err(refused)
    }

    /// Who votes, as far as this node knows; nobody before it has heard.
    pub async fn voters(&self) -> Result<BTreeMap<BrokerId, Voter>, StartError> {
        let membership = self.membership().await?;
        let voters = membership.voter_ids().filter_map(|id| Some((broker(id), membership.get_node(&id)?.clone())));
        Ok(voters.collect())
    }

    /// Everybody the membership names: voters, and those to be.
    pub async fn members(&self) -> Result<Vec<Member>, StartError> {
        let membership = self.membership().await?;
        let member = |(id, voter): (&u64, &Voter)| Member {
            voter: ListedVoter { node: broker(*id), host: voter.host.as_str().into(), port: voter.port },
            directory: Uuid(voter.directory),
            part: part(&membership, *id),
        };
        Ok(membership.nodes().map(member).collect())
    }

    /// Says who votes, whenever that changes, until this node has ended.
    pub async fn say_voters(&self, controllers: &Controllers) {
        let mut said = None;
        loop {
            let wait = self.raft.wait(None);
            let is_news = |metrics: &Metrics| said != Some(*metrics.membership_config.log_id());
            let changed = wait.metrics(|metrics| is_news(metrics) || metrics.running_state.is_err(), "other voters");
            let Some(metrics) = changed.await.ok().filter(|metrics| metrics.running_state.is_ok()) else { return };
            said = Some(*metrics.membership_config.log_id());
            controllers.on_voters(places(metrics.membership_config.membership()));
        }
    }

    /// Writes the first membership into an empty log. Exactly one node of a cluster does so, once.
    pub async fn initialize(&self, founders: &[Member]) -> Result<(), StartError> {
        let members: BTreeMap<u64, Voter> =
            founders.iter().map(|member| (node(member.voter.node), Voter::from(member))).collect();
        self.raft.initialize(members).await.map_err(refused)
    }

    /// The last entry of this node's log, committed or not, or of the snapshot that it begins on.
    pub async fn last_log_index(&self) -> Result<Option<u64>, StartError> {
        let covered = self.raft.with_raft_state(|state| state.snapshot_meta.last_log_id.map(|id| id.index));
        Ok(covered.await.map_err(refused)?.max(self.store.last_index()))
    }

    /// Whether the log holds anything.
    pub async fn is_initialized(&self) -> Result<bool, StartError> {
        self.raft.is_initialized().await.map_err(refused)
    }

    /// Who leads, as far as this node knows.
    pub fn leading(&self) -> Option<Leading> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leader = metrics.current_leader?;
        Some(Leading { node: broker(leader), term: metrics.current_term })
    }

    /// Who leads, for others to hear: an isolated leader does not name itself.
    pub(super) fn leading_surely(&self) -> Option<Leading> {
        self.leading().filter(|leading| node(leading.node) != self.node_id || self.leads_surely())
    }

    /// Waits until somebody leads that this node did not know to lead in that term.
    pub async fn leader_changed(&self, from: Option<Leading>) -> Option<Leading> {
        let wait = self.raft.wait(None);
        let changed = wait.metrics(
            |metrics| {
                let now = metrics.current_leader.map(|id| Leading { node: broker(id), term: metrics.current_term });
                now != from || metrics.running_state.is_err()
            },
            "another leader",
        );
        // A node that has ended leads nowhere; whoever waits for its end hears of it.
        let metrics = changed.await.ok()?;
        metrics.current_leader.map(|id| Leading { node: broker(id), term: metrics.current_term })
    }

    /// Waits until the term in which this node leads, everything before it applied, is another one than `from`. An
    /// isolated leader goes on leading its term; see [`QuorumNode::leads_surely`].
    pub async fn tenure_changed(&self, from: Option<u64>) -> Option<u64> {
        let own = self.node_id;
        let tenure = move |metrics: &Metrics| {
            let has_applied_own = metrics.last_applied.is_some_and(|id| id.leader_id.term == metrics.current_term);
            (metrics.current_leader == Some(own) && has_applied_own).then_some(metrics.current_term)
        };
        let wait = self.raft.wait(None);
        let changed = wait.metrics(|metrics| tenure(metrics) != from || metrics.running_state.is_err(), "a tenure");
        // A node that has ended leads nowhere; whoever waits for its end hears of it.
        changed.await.ok().and_then(|metrics| tenure(&metrics))
    }

    /// Whether this node leads, a majority has heard from it within the lease, and everything that earlier terms left is
    /// applied: only then may it decide, or tell a broker that it is alive.
    pub fn leads_surely(&self) -> bool {
        let Ok(leader) = self.raft.as_leader() else { return false };
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        // The only voter is a majority by itself.
        let is_only = metrics.membership_config.membership().voter_ids().eq([self.node_id]);
        let has_lease = is_only || leader.last_quorum_acked().is_some_and(|acked| acked.elapsed() < LEASE);
        let has_applied_own = metrics.last_applied.is_some_and(|id| id.leader_id.term == leader.term());
        has_lease && has_applied_own
    }

    /// Returns when this node does not lead surely.
    pub async fn lease_lost(&self) {
        while self.leads_surely() {
            tokio::time::sleep(LEASE / 2).await;
        }
    }

    /// Whether this node knows who leads, and has applied everything that earlier terms committed.
    pub fn has_applied_term(&self) -> bool {
        has_applied_term(&self.raft.metrics().borrow_watched())
    }

    /// Returns when [`QuorumNode::has_applied_term`], or when this node has ended. The first entry of a term changes no
    /// image, so nothing else tells of it where nobody asks the controller for anything.
    pub async fn term_applied(&self) {
        let wait = self.raft.wait(None);
        let applied = wait.metrics(|metrics| has_applied_term(metrics) || metrics.running_state.is_err(), "a term");
        // A node that has ended applies nothing more; whoever waits for its end hears of it.
        drop(applied.await);
    }

    /// Whether everything in this node's log is applied: nothing that it proposed before is under way.
    pub fn has_applied_all(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_applied.map(|id| id.index) == metrics.last_log_index
    }

    /// Returns when everything committed before the call is applied here; only a leader that still leads can say so.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let read = self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await;
        read.map(|_| ()).map_err(|_| ProposeError::NotLeader(self.leading().map(|leading| leading.node)))
    }

    /// Asks another voter to lead. It may not come to it; who leads is seen in [`QuorumNode::leading`].
    pub async fn transfer_leader(&self, to: BrokerId) -> Result<(), StartError> {
        self.raft.trigger().transfer_leader(node(to)).await.map_err(refused)
    }

    /// Makes these the voters, by joint steps, each with what it has to wait for: a node with another directory than it
    /// votes with goes first, new ones are caught up before they vote, and who is no voter any more is forgotten.
    /// May fail half-way; whoever leads calls it again until the membership is as wished.
    pub async fn change_voters(&self, wished: &BTreeMap<BrokerId, Voter>) -> Result<(), StartError> {
        let present = self.voters().await?;
        let has_other_disk = |(id, voter): (&BrokerId, &Voter)| {
            let known = present.get(id)?;
            (known.directory != voter.directory).then_some(*id)
        };
        let replaced: BTreeSet<BrokerId> = wished.iter().filter_map(has_other_disk).collect();
        if !replaced.is_empty() {
            let staying = present.keys().filter(|id| !replaced.contains(id)).copied().map(node).collect();
            self.change(ChangeMembers::ReplaceAllVoters(staying)).await?;
        }
        for (id, voter) in wished {
            match present.get(id).filter(|_| !replaced.contains(id)) {
                Some(known) if known == voter => {}
                Some(_) => self.change(ChangeMembers::SetNodes([(node(*id), voter.clone())].into())).await?,
                None => {
                    self.raft.add_learner(node(*id), voter.clone(), true).await.map_err(refused)?;
                }
            }
        }
        self.change(ChangeMembers::ReplaceAllVoters(wished.keys().copied().map(node).collect())).await
    }

    async fn change(&self, change: ChangeMembers<u64, Voter>) -> Result<(), StartError> {
        self.raft.change_membership(change, false).await.map(|_| ()).map_err(refused)
    }

    /// Serves one proved connection of another voter.
    pub(super) fn session(&self, peer: BrokerId) -> QuorumSession {
        QuorumSession::new(self.raft.clone(), broker(self.node_id), peer)
    }
}

/// Who votes, and where.
pub(super) fn places(membership: &Membership) -> impl Iterator<Item = (BrokerId, &str, u16)> {
    let place = move |id| membership.get_node(&id).map(|voter| (broker(id), voter.host.as_str(), voter.port));
    membership.voter_ids().filter_map(place)
}

/// What a membership makes of a node that it names.
pub(super) fn part(membership: &Membership, id: u64) -> Part {
    let configs = membership.get_joint_config();
    if configs.last().is_some_and(|voters| voters.contains(&id)) {
        Part::Votes
    } else if configs.iter().any(|voters| voters.contains(&id)) {
        Part::Leaves
    } else {
        Part::ToBe
    }
}

fn has_applied_term(metrics: &Metrics) -> bool {
    let applied_term = metrics.last_applied.map(|id| id.leader_id.term);
    metrics.current_leader.is_some() && applied_term == Some(metrics.current_term)
}

impl From<&Member> for Voter {
    fn from(member: &Member) -> Voter {
        let ListedVoter { host, port, .. } = &member.voter;
        Voter { directory: member.directory.0, host: host.to_string(), port: *port }
    }
}
