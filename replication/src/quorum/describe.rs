//! What a member of the quorum knows of the others, for DescribeQuorum.

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;
use stonelog_protocol::{BrokerId, DirectoryId, Timestamp, Uuid};

use super::node::QuorumNode;
use super::standing::{Observed, QuorumFacts, ReplicaFacts, Standing};
use super::wire::broker;

/// What openraft says of the copies that a leader keeps in step.
pub(super) struct Copies {
    term: u64,
    pub(super) log_end: u64,
    high_watermark: u64,
    /// By node: the end of what it has, and how long ago it last answered.
    pub(super) others: BTreeMap<u64, (Option<u64>, Option<Duration>)>,
}

impl QuorumNode {
    /// The quorum as this node sees it, at this time by the wall clock; `None` if it does not lead.
    pub fn facts(&self, wall: Timestamp) -> Option<QuorumFacts> {
        let copies = self.sample()?;
        let now = self.opened.elapsed();
        let ago = |passed: Duration| Timestamp(wall.0.saturating_sub(i64::try_from(passed.as_millis()).unwrap_or(0)));
        // Half-way through a change those vote that did before: the quorum may still need them.
        let membership = self.raft.metrics().borrow_watched().committed_membership_config.membership().clone();
        let standing = self.standing();
        let describe = |id: u64, voter: &super::type_config::Voter| {
            let is_own = id == self.node_id;
            let (end, answered) = copies.others.get(&id).copied().unwrap_or_default();
            let caught_up = standing.caught_up(id).map(|at| ago(now.saturating_sub(at)));
            ReplicaFacts {
                node: broker(id),
                directory: Uuid(voter.directory),
                endpoint: (!voter.host.is_empty()).then(|| (voter.host.clone(), voter.port)),
                log_end: if is_own { Some(copies.log_end) } else { end },
                last_fetch: if is_own { Some(wall) } else { answered.map(ago) },
                last_caught_up: if is_own { Some(wall) } else { caught_up },
            }
        };
        let voter_ids = membership.get_joint_config().first().cloned().unwrap_or_default();
        let (voting, added): (Vec<_>, Vec<_>) = membership.nodes().partition(|(id, _)| voter_ids.contains(id));
        let voters = voting.into_iter().map(|(id, voter)| describe(*id, voter)).collect();
        let added = added.into_iter().map(|(id, voter)| (broker(*id), describe(*id, voter)));
        let seen = standing.observers(now).map(|(node, seen)| {
            let facts = ReplicaFacts {
                node,
                directory: seen.directory,
                endpoint: None,
                log_end: Some(seen.log_end),
                last_fetch: Some(ago(now.saturating_sub(seen.last_fetch))),
                last_caught_up: seen.last_caught_up.map(|at| ago(now.saturating_sub(at))),
            };
            (node, facts)
        });
        // Who votes now has been an observer a moment ago; with another directory it is another copy.
        let is_member = |facts: &ReplicaFacts| {
            let member = membership.get_node(&super::wire::node(facts.node));
            member.is_some_and(|member| member.directory == facts.directory.0)
        };
        let observers: BTreeMap<BrokerId, ReplicaFacts> =
            seen.filter(|(_, facts)| !is_member(facts)).chain(added).collect();
        Some(QuorumFacts {
            leader: broker(self.node_id),
            epoch: copies.term,
            high_watermark: copies.high_watermark,
            voters,
            observers: observers.into_values().collect(),
        })
    }

    /// Those that follow without voting, and how long ago each asked.
    pub(super) fn observers(&self) -> Vec<(BrokerId, Observed, Duration)> {
        let now = self.opened.elapsed();
        let standing = self.standing();
        standing.observers(now).map(|(node, seen)| (node, seen, now.saturating_sub(seen.last_fetch))).collect()
    }

    /// An observer asks for what comes next.
    pub(super) fn on_pull(&self, from: (BrokerId, DirectoryId), may_vote: bool, log_end: u64, own_end: u64) {
        let (node, directory) = from;
        let now = self.opened.elapsed();
        let mut standing = self.standing();
        standing.on_pull(node, directory, log_end, own_end, now);
        standing.may_vote(node, may_vote);
    }

    /// How far the copies are, which is remembered; `None` if this node does not lead.
    pub(super) fn sample(&self) -> Option<Copies> {
        let copies = self.copies()?;
        let ends = copies.others.iter().filter_map(|(id, (end, _))| Some((*id, (*end)?)));
        let now = self.opened.elapsed();
        self.standing().on_sample(copies.term, copies.log_end, ends, now);
        Some(copies)
    }

    fn copies(&self) -> Option<Copies> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_leader != Some(self.node_id) {
            return None;
        }
        let end = |index: u64| index + 1;
        let heard = metrics.heartbeat.as_ref();
        let others =
            metrics.replication.iter().flatten().filter(|(id, _)| **id != self.node_id).map(|(id, matched)| {
                let answered = heard.and_then(|heard| heard.get(id).copied().flatten()).map(|at| at.elapsed());
                (*id, (matched.map(|id| end(id.index)), answered))
            });
        Some(Copies {
            term: metrics.current_term,
            log_end: metrics.last_log_index.map_or(0, end),
            high_watermark: metrics.local_committed.map_or(0, |id| end(id.index)),
            others: others.collect(),
        })
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
