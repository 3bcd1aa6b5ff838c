//! Who follows the leader of the metadata quorum, and how far: what DescribeQuorum shows (KIP-595, KIP-836). Pure.
//!
//! Kept by every voter, and true at the one that leads only: voters answer the leader, and observers follow it where they
//! can reach it. Times are since any fixed moment; whoever shows them turns them into those of a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::{BrokerId, DirectoryId, Timestamp};

/// Observers not heard of for so long are forgotten (Kafka's `LeaderState.OBSERVER_SESSION_TIMEOUT_MS`).
const OBSERVER_FORGOTTEN_AFTER: Duration = Duration::from_secs(300);
/// Observers remembered: as many nodes as a cluster may have.
const OBSERVERS_MAX: usize = 4096;

/// The quorum as its leader knows it. Ends are exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumFacts {
    /// The active controller.
    pub leader: BrokerId,
    /// Its term.
    pub epoch: u64,
    /// The end of what is committed.
    pub high_watermark: u64,
    /// Those that vote, in order of node; the leader is one of them.
    pub voters: Vec<ReplicaFacts>,
    /// Those that follow without voting and were heard of lately, in order of node; who is being added as a voter as well.
    pub observers: Vec<ReplicaFacts>,
}

/// One node's copy of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaFacts {
    /// Whose.
    pub node: BrokerId,
    /// The directory that holds it.
    pub directory: DirectoryId,
    /// Where the quorum's membership says that it is reached; `None` for an observer, and for a voter that is alone.
    pub endpoint: Option<(String, u16)>,
    /// The end of what it has; `None` while the leader does not know.
    pub log_end: Option<u64>,
    /// When it was last heard of; for the leader this moment.
    pub last_fetch: Option<Timestamp>,
    /// When it had last everything that the leader had; for the leader this moment.
    pub last_caught_up: Option<Timestamp>,
}

/// An observer that was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) directory: DirectoryId,
    /// The end of what it has applied.
    pub(super) log_end: u64,
    pub(super) last_fetch: Duration,
    pub(super) last_caught_up: Option<Duration>,
    /// It may be made a member of the quorum.
    pub(super) may_vote: bool,
}

/// What is known of those that follow.
#[derive(Debug, Default)]
pub(super) struct Standing {
    term: u64,
    /// The leader's end when it was last looked at, and when that was.
    sampled: Option<(u64, Duration)>,
    /// When voters had everything that the leader had.
    caught_up: BTreeMap<u64, Duration>,
    observers: BTreeMap<BrokerId, Observed>,
}

impl Standing {
    /// The leader of a term looks at how far its log and the copies of it have come. Who has what there was at the last
    /// look had caught up then: a log that grows all the time leaves nobody behind for that alone.
    pub(super) fn on_sample(
        &mut self,
        term: u64,
        log_end: u64,
        copies: impl Iterator<Item = (u64, u64)>,
        now: Duration,
    ) {
        if self.term != term {
            *self = Standing { term, observers: std::mem::take(&mut self.observers), ..Standing::default() };
        }
        for (node, end) in copies {
            let had_all_at = match self.sampled {
                _ if end >= log_end => now,
                Some((before, at)) if end >= before => at,
                _ => continue,
            };
            self.caught_up.insert(node, had_all_at);
        }
        self.sampled = Some((log_end, now));
    }

    /// An observer asks for what comes behind `log_end`, of which this node has applied everything below `own_end`.
    pub(super) fn on_pull(
        &mut self,
        node: BrokerId,
        directory: DirectoryId,
        log_end: u64,
        own_end: u64,
        now: Duration,
    ) {
        self.observers.retain(|_, seen| now.saturating_sub(seen.last_fetch) < OBSERVER_FORGOTTEN_AFTER);
        let before = self.observers.get(&node).filter(|before| before.directory == directory);
        let last_caught_up = if log_end >= own_end { Some(now) } else { before.and_then(|seen| seen.last_caught_up) };
        if self.observers.len() < OBSERVERS_MAX || self.observers.contains_key(&node) {
            self.observers
                .insert(node, Observed { directory, log_end, last_fetch: now, last_caught_up, may_vote: true });
        }
    }

    /// An observer that has just asked says whether it may be made a member of the quorum.
    pub(super) fn may_vote(&mut self, node: BrokerId, may_vote: bool) {
        if let Some(seen) = self.observers.get_mut(&node) {
            seen.may_vote = may_vote;
        }
    }

    /// When a voter had last everything that the leader had.
    pub(super) fn caught_up(&self, node: u64) -> Option<Duration> {
        self.caught_up.get(&node).copied()
    }

    /// Those that follow without voting.
    pub(super) fn observers(&self, now: Duration) -> impl Iterator<Item = (BrokerId, Observed)> + '_ {
        let is_known = move |seen: &Observed| now.saturating_sub(seen.last_fetch) < OBSERVER_FORGOTTEN_AFTER;
        self.observers.iter().map(|(node, seen)| (*node, *seen)).filter(move |(_, seen)| is_known(seen))
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::Uuid;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn voter_has_caught_up_when_it_has_what_there_was_at_the_last_look() {
        let mut standing = Standing::default();
        standing.on_sample(3, 10, [(1, 10), (2, 9)].into_iter(), at(1));
        assert_eq!((standing.caught_up(1), standing.caught_up(2)), (Some(at(1)), None));
        // Both are behind now; one has what there was a second ago.
        standing.on_sample(3, 20, [(1, 9), (2, 15)].into_iter(), at(2));
        assert_eq!((standing.caught_up(1), standing.caught_up(2)), (Some(at(1)), Some(at(1))));
        standing.on_sample(3, 30, [(1, 30), (2, 15)].into_iter(), at(3));
        assert_eq!((standing.caught_up(1), standing.caught_up(2)), (Some(at(3)), Some(at(1))));
        // What a former leader saw says nothing.
        standing.on_sample(4, 31, [(1, 30), (2, 15)].into_iter(), at(4));
        assert_eq!((standing.caught_up(1), standing.caught_up(2)), (None, None));
    }

    #[test]
    fn observer_is_known_while_it_asks_and_with_the_directory_it_has() {
        let mut standing = Standing::default();
        let directory = Uuid([7; 16]);
        standing.on_pull(BrokerId(4), directory, 5, 5, at(1));
        standing.on_pull(BrokerId(4), directory, 5, 9, at(2));
        let (last_fetch, last_caught_up) = (at(2), Some(at(1)));
        let seen = Observed { directory, log_end: 5, last_fetch, last_caught_up, may_vote: true };
        assert_eq!(standing.observers(at(2)).collect::<Vec<_>>(), [(BrokerId(4), seen)]);
        // Emptied, it is another copy.
        let emptied = Uuid([8; 16]);
        standing.on_pull(BrokerId(4), emptied, 0, 9, at(3));
        let (last_fetch, last_caught_up) = (at(3), None);
        let seen = Observed { directory: emptied, log_end: 0, last_fetch, last_caught_up, may_vote: true };
        assert_eq!(standing.observers(at(302)).collect::<Vec<_>>(), [(BrokerId(4), seen)]);
        assert_eq!(standing.observers(at(303)).count(), 0);
    }

    #[test]
    fn observers_that_are_remembered_are_bounded() {
        let mut standing = Standing::default();
        for node in 0..=OBSERVERS_MAX as i32 {
            standing.on_pull(BrokerId(node), Uuid::ZERO, 0, 0, at(1));
        }
        assert_eq!(standing.observers(at(1)).count(), OBSERVERS_MAX);
        standing.on_pull(BrokerId(0), Uuid::ZERO, 1, 1, at(2));
        assert_eq!(standing.observers(at(2)).next().unwrap().1.log_end, 1);
    }
}
