//! A partition's leader: whose positions count, how far the high watermark may go, and what the in-sync set should be
//! (rules 1, 2 and 3).
//!
//! Pure. Reports and time arrive as events; the high watermark and wishes for the controller come out. A leader that is
//! its own only replica goes the same way: it is the only member that reports.
//!
//! Sources: Kafka's `Partition` and `Replica`, KIP-497, KIP-841, KIP-903, KIP-966.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use stonelog_protocol::peer::stream::{Refusal, Stamps, StreamId, StreamReport};
use stonelog_protocol::{BrokerId, DirectoryId, LeaderEpoch, Offset, TopicPartition};

pub use super::followers::Positions;
use super::followers::{Followers, Session};
use super::isr::IsrProposed;
pub use super::leadership::{Leadership, Member};
use super::reject::Reject;
use crate::controller::{InSyncReplica, PartitionIsr};
use crate::metadata::RecoveryState;
use crate::progress::{Progress, Role};

/// The leader of one partition in one leader epoch.
#[derive(Clone, Debug)]
pub struct Leader {
    me: BrokerId,
    leadership: Leadership,
    own: Positions,
    followers: Followers,
    proposed: IsrProposed,
    /// Never goes back while this process leads.
    high_watermark: Offset,
    /// Where the epoch began in this log: who joins has at least that.
    epoch_start: Offset,
    /// The own durable position when it last moved, or had nothing to move for.
    journal_moved: (Offset, Instant),
    fenced_count: u64,
}

/// Where a leader's log stands when its epoch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The log's positions.
    pub own: Positions,
    /// The newest high watermark this replica knows.
    pub high_watermark: Offset,
    /// The log end at which the epoch began.
    pub epoch_start: Offset,
}

/// What a leader wants done about its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The in-sync set should be this; the answer goes to [`Leader::on_isr_answer`].
    Isr(PartitionIsr),
    /// Its own journal completes nothing: another member should lead.
    HandOver,
}

impl Leader {
    /// Begins an epoch.
    pub fn begin(me: BrokerId, leadership: Leadership, at: Beginning, now: Instant) -> Leader {
        assert!(leadership.isr.contains(&me), "a leader is a member of its own in-sync set");
        let mut leader = Leader {
            me,
            leadership,
            own: at.own,
            followers: Followers::new(now),
            proposed: IsrProposed::default(),
            high_watermark: at.high_watermark,
            epoch_start: at.epoch_start,
            journal_moved: (at.own.durable, now),
            fenced_count: 0,
        };
        leader.raise_high_watermark();
        leader
    }

    /// The newest registration and configuration of the partition; the epoch may be the same. `epoch_start` is where the
    /// epoch began in the log.
    pub fn on_leadership(&mut self, leadership: Leadership, epoch_start: Offset, now: Instant) {
        let (old, new) = (&self.leadership, &leadership);
        assert!(new.leader_epoch >= old.leader_epoch, "leader epochs never go back");
        assert!(new.image_index >= old.image_index, "images come in order");
        if new.leader_epoch > old.leader_epoch {
            // Reports of the ended epoch count no more; ours are read from our own log.
            self.followers.begin_epoch(now);
            self.epoch_start = epoch_start;
        }
        if new.partition_epoch > old.partition_epoch {
            self.proposed.on_settled();
        }
        self.leadership = leadership;
        self.followers.on_members(&self.leadership.members);
        self.raise_high_watermark();
    }

    /// The leader's own log moved. Returns whether the high watermark did.
    pub fn on_own_positions(&mut self, own: Positions) -> bool {
        self.own = own;
        self.raise_high_watermark()
    }

    /// A follower wants to open a stream: whether its stamps let it. Changes nothing.
    pub fn check_open(&self, stream: StreamId, stamps: &Stamps) -> Result<(), Refusal> {
        let leadership = &self.leadership;
        if stamps.leader_epoch < leadership.leader_epoch {
            return Err(Refusal::FencedEpoch(leadership.leader_epoch));
        }
        if stamps.leader_epoch > leadership.leader_epoch {
            return Err(Refusal::UnknownEpoch(leadership.leader_epoch));
        }
        if stamps.leader != self.me || stamps.follower == self.me {
            return Err(Refusal::NotLeader);
        }
        let registered = |broker: BrokerId| leadership.members.get(&broker).map(|member| member.broker_epoch);
        let follower = registered(stamps.follower).ok_or(Refusal::NotReplica)?;
        let is_present = registered(self.me) == Some(stamps.leader_broker_epoch);
        if !is_present || follower != stamps.follower_broker_epoch || !self.followers.is_later(stamps, stream) {
            return Err(Refusal::StaleBroker);
        }
        Ok(())
    }

    /// A follower's stream was checked ([`Leader::check_open`]), and its log up to `fetch_offset` is as ours. Returns
    /// whether the high watermark moved.
    pub fn on_opened(
        &mut self,
        stream: StreamId,
        stamps: Stamps,
        report: StreamReport,
        fetch_offset: Offset,
        now: Instant,
    ) -> bool {
        let at = self.own.deciding(self.leadership.strict);
        self.followers.open(stream, stamps, report, (fetch_offset, at), now);
        self.followers.look(at, self.leadership.strict, now);
        self.raise_high_watermark()
    }

    /// Batches up to `end` are on their way to a follower.
    pub fn on_pushed(&mut self, follower: BrokerId, stream: StreamId, end: Offset) {
        self.followers.on_pushed(follower, stream, end);
    }

    /// A follower's report. What fails a fence changes nothing and is counted. Returns whether the high watermark moved.
    pub fn on_report(&mut self, stream: StreamId, stamps: &Stamps, report: &StreamReport, now: Instant) -> bool {
        let at = self.own.deciding(self.leadership.strict);
        if !self.followers.on_report(stream, stamps, report, (at, self.leadership.strict), now) {
            self.fenced_count += 1;
            return false;
        }
        self.raise_high_watermark()
    }

    /// A follower's stream is over.
    pub fn on_closed(&mut self, follower: BrokerId, stream: StreamId) {
        self.followers.close(follower, stream);
    }

    /// What should be done, now that so much time has passed. `lag_max` is `replica.lag.time.max.ms`, `own_end` the
    /// end of the own log. A wished set counts for the high watermark from here on.
    pub fn wish(&mut self, partition: TopicPartition, own_end: Offset, lag_max: Duration, now: Instant) -> Wish {
        let strict = self.leadership.strict;
        let at = self.own.deciding(strict);
        self.followers.look(at, strict, now);
        if self.is_gray(own_end, lag_max, now) {
            return if self.leadership.isr.len() > 1 { Wish::HandOver } else { Wish::Nothing };
        }
        if !self.proposed.may_propose(self.leadership.image_index) {
            return Wish::Nothing;
        }
        let isr = self.wished_isr(at, lag_max, now);
        // A set that was proposed and refused may yet be committed by a late duplicate. The same set once more, or the
        // committed one, raises the partition epoch, after which it cannot.
        if isr == self.leadership.isr && !self.proposed.exceeds(&self.leadership.isr) {
            return Wish::Nothing;
        }
        self.proposed.on_proposed(isr.iter().copied());
        Wish::Isr(PartitionIsr {
            partition,
            leader_epoch: self.leadership.leader_epoch,
            partition_epoch: self.leadership.partition_epoch,
            isr: isr.into_iter().map(|broker| self.in_sync(broker)).collect(),
            damaged: Vec::new(),
            recovering: RecoveryState::Recovered,
            hand_over: false,
        })
    }

    /// A wish was answered, or will not be. `decided_at` is the index of the image it was decided on, where one is known.
    pub fn on_isr_answer(&mut self, decided_at: Option<u64>) {
        self.proposed.on_answer(decided_at);
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
        self.leadership.has_enough_replicas()
    }

    /// Every broker that may be in the committed in-sync set.
    pub fn maximal_isr(&self) -> BTreeSet<BrokerId> {
        self.proposed.maximal(&self.leadership.isr).collect()
    }

    /// In-sync followers that have reported since they heard of `probe` (rule 15).
    pub fn confirmed(&self, probe: u64) -> usize {
        self.followers.confirmed(&self.leadership, probe)
    }

    /// Messages that failed a fence.
    pub fn fenced_count(&self) -> u64 {
        self.fenced_count
    }

    /// The committed set without who is too far behind, and with who has caught up.
    fn wished_isr(&self, at: Offset, lag_max: Duration, now: Instant) -> BTreeSet<BrokerId> {
        let strict = self.leadership.strict;
        let is_behind = |broker: BrokerId| {
            let since = self.followers.behind_since(broker, at, strict);
            broker != self.me && since.is_some_and(|since| now.saturating_duration_since(since) > lag_max)
        };
        let mut isr: BTreeSet<BrokerId> =
            self.leadership.isr.iter().copied().filter(|broker| !is_behind(*broker)).collect();
        isr.extend(self.followers.iter().filter(|(broker, session)| self.may_join(*broker, session)).map(|(id, _)| id));
        isr
    }

    fn may_join(&self, broker: BrokerId, session: &Session) -> bool {
        let Some(member) = self.leadership.members.get(&broker) else { return false };
        let at = session.positions.deciding(self.leadership.strict);
        let has_caught_up = (at >= self.high_watermark && at >= self.epoch_start) || off!(JoinAtWatermark);
        session.is_open && member.is_active && has_caught_up && !self.leadership.isr.contains(&broker)
    }

    /// A member of a wished set. Its broker epoch is that of the session that made it a member: if it has registered
    /// anew since, the controller refuses (KIP-903).
    fn in_sync(&self, broker: BrokerId) -> InSyncReplica {
        let member = self.leadership.members.get(&broker);
        let registered = member.map(|member| member.broker_epoch);
        let fetched = self.followers.get(broker).map(|session| session.stamps.follower_broker_epoch);
        let epoch = if off!(JoinBrokerEpoch) { None } else { fetched.or(registered) };
        let directory = member.map_or(DirectoryId::ZERO, |member| member.directory);
        // Streams do not name holes: who has caught up on one is taken for whole.
        InSyncReplica { broker, epoch, directory, is_whole: true }
    }

    fn is_gray(&mut self, own_end: Offset, lag_max: Duration, now: Instant) -> bool {
        let durable = self.own.durable;
        if durable != self.journal_moved.0 || durable >= own_end {
            self.journal_moved = (durable, now);
        }
        now.saturating_duration_since(self.journal_moved.1) > lag_max
    }

    /// Moves the high watermark to the smallest deciding position of every set that may be the in-sync one; a member that
    /// has not reported holds it where it is, and so does a committed set below the effective min ISR (rule 3).
    fn raise_high_watermark(&mut self) -> bool {
        if !self.has_enough_replicas() && !off!(FrozenBelowMinIsr) {
            return false;
        }
        let strict = self.leadership.strict;
        let position = |broker| match broker == self.me {
            true => Some(self.own.deciding(strict)),
            false => self.followers.get(broker).map(|session| session.positions.deciding(strict)),
        };
        let reached = self.proposed.maximal(&self.leadership.isr).map(position).min().flatten();
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
mod tests;
