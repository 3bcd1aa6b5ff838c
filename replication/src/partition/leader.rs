//! A partition's leader: whose positions count, and how far the high watermark may go (rules 2 and 3).
//!
//! Pure. Positions arrive as events; the high watermark comes back. Until a cluster of several brokers exists the only
//! member that reports is the leader itself, and the same arithmetic holds.

use std::collections::{BTreeMap, BTreeSet};

use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

use super::reject::Reject;
use crate::progress::{Progress, Role};

/// A replica's two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Positions {
    /// End of what it has written (survives its process).
    pub written: Offset,
    /// End of what it has fsynced (survives its power).
    pub durable: Offset,
}

impl Positions {
    /// The one position that decides in this mode (rule 2).
    fn deciding(&self, strict: bool) -> Offset {
        if strict { self.durable } else { self.written }
    }
}

/// What the metadata image says of a partition this broker leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch it leads in.
    pub leader_epoch: LeaderEpoch,
    /// The registration's version.
    pub partition_epoch: PartitionEpoch,
    /// The committed in-sync set, the leader included.
    pub isr: BTreeSet<BrokerId>,
    /// `min(min.insync.replicas, replicas)`.
    pub min_isr: usize,
    /// Whether `flush.messages` is 1.
    pub strict: bool,
}

/// The leader of one partition in one leader epoch.
#[derive(Clone, Debug)]
pub struct Leader {
    me: BrokerId,
    leadership: Leadership,
    /// Positions of every replica heard of in this epoch; the leader's own is always there.
    positions: BTreeMap<BrokerId, Positions>,
    /// Never goes back while this process leads.
    high_watermark: Offset,
}

impl Leader {
    /// Begins an epoch. `own` are the log's recovered positions and `high_watermark` the newest known one.
    pub fn begin(me: BrokerId, leadership: Leadership, own: Positions, high_watermark: Offset) -> Leader {
        assert!(leadership.isr.contains(&me), "a leader is a member of its own in-sync set");
        let mut leader = Leader { me, leadership, positions: BTreeMap::from([(me, own)]), high_watermark };
        leader.raise_high_watermark();
        leader
    }

    /// The newest registration and configuration of the partition; the epoch may be the same.
    pub fn on_leadership(&mut self, leadership: Leadership) {
        assert!(leadership.leader_epoch >= self.leadership.leader_epoch, "leader epochs never go back");
        if leadership.leader_epoch > self.leadership.leader_epoch {
            // Reports of the ended epoch count no more; ours are read from our own log.
            self.positions.retain(|broker, _| *broker == self.me);
        }
        self.leadership = leadership;
        self.raise_high_watermark();
    }

    /// The leader's own log moved. Returns whether the high watermark did.
    pub fn on_own_positions(&mut self, own: Positions) -> bool {
        self.positions.insert(self.me, own);
        self.raise_high_watermark()
    }

    /// What the metadata said last.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// End of what every counting replica has.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether the committed in-sync set suffices for `acks=all`.
    pub fn has_enough_replicas(&self) -> bool {
        self.leadership.isr.len() >= self.leadership.min_isr
    }

    /// Moves the high watermark to the smallest deciding position of the in-sync set; a member that has not reported
    /// holds it where it is, and so does a committed set below the effective min ISR (rule 3).
    fn raise_high_watermark(&mut self) -> bool {
        if !self.has_enough_replicas() {
            return false;
        }
        let strict = self.leadership.strict;
        let reached = self
            .leadership
            .isr
            .iter()
            .map(|broker| self.positions.get(broker).map(|positions| positions.deciding(strict)))
            .min()
            .flatten();
        match reached {
            Some(reached) if reached > self.high_watermark => {
                self.high_watermark = reached;
                true
            }
            _ => false,
        }
    }
}

/// Whether a request that believes in `requested` may be served: in the same epoch, by a leader
/// (`Partition.checkCurrentLeaderEpoch`). [`LeaderEpoch::NONE`] believes anything.
pub fn check_epoch(progress: &Progress, requested: LeaderEpoch) -> Result<(), Reject> {
    if requested != LeaderEpoch::NONE {
        if requested < progress.leader_epoch {
            return Err(Reject::FencedEpoch);
        }
        if requested > progress.leader_epoch {
            return Err(Reject::UnknownEpoch);
        }
    }
    match progress.role {
        Role::Leader => Ok(()),
        Role::Follower | Role::Removed | Role::Offline => Err(Reject::NotLeader(progress.leader_epoch)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: BrokerId = BrokerId(1);

    fn leadership(isr: &[i32], min_isr: usize, strict: bool) -> Leadership {
        Leadership {
            leader_epoch: LeaderEpoch(5),
            partition_epoch: PartitionEpoch(9),
            isr: isr.iter().map(|id| BrokerId(*id)).collect(),
            min_isr,
            strict,
        }
    }

    fn at(written: i64, durable: i64) -> Positions {
        Positions { written: Offset(written), durable: Offset(durable) }
    }

    #[test]
    fn strict_high_watermark_follows_the_durable_position() {
        let mut leader = Leader::begin(ME, leadership(&[1], 1, true), at(4, 4), Offset(0));
        assert_eq!(leader.high_watermark(), Offset(4));
        assert!(!leader.on_own_positions(at(9, 4)));
        assert!(leader.on_own_positions(at(9, 8)));
        assert_eq!(leader.high_watermark(), Offset(8));
    }

    #[test]
    fn relaxed_high_watermark_follows_the_written_position() {
        let mut leader = Leader::begin(ME, leadership(&[1], 1, false), at(0, 0), Offset(0));
        assert!(leader.on_own_positions(at(9, 4)));
        assert_eq!(leader.high_watermark(), Offset(9));
    }

    #[test]
    fn tightening_waits_until_durable_has_passed_the_old_watermark() {
        let mut leader = Leader::begin(ME, leadership(&[1], 1, false), at(9, 2), Offset(0));
        leader.on_leadership(leadership(&[1], 1, true));
        assert_eq!(leader.high_watermark(), Offset(9), "it never goes back");
        assert!(!leader.on_own_positions(at(12, 8)));
        assert!(leader.on_own_positions(at(12, 10)));
        assert_eq!(leader.high_watermark(), Offset(10));
    }

    #[test]
    fn set_below_min_isr_holds_the_watermark() {
        let mut leader = Leader::begin(ME, leadership(&[1], 2, true), at(5, 5), Offset(3));
        assert!(!leader.has_enough_replicas());
        assert!(!leader.on_own_positions(at(9, 9)));
        assert_eq!(leader.high_watermark(), Offset(3));
    }

    #[test]
    fn member_that_has_not_reported_holds_the_watermark() {
        let leader = Leader::begin(ME, leadership(&[1, 2], 1, true), at(5, 5), Offset(3));
        assert_eq!(leader.high_watermark(), Offset(3));
    }
}
