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

/// How soon it asks once more, where nobody else could lead, that another member lead; or `replica.lag.time.max.ms`.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(10);

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
    /// When it last asked that another member lead.
    handed_over_at: Option<Instant>,
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

/// A follower's report that failed a fence: it changed nothing, and is answered with [`StreamBody::Close`].
///
/// [`StreamBody::Close`]: stonelog_protocol::peer::stream::StreamBody::Close
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fenced;

/// The leader's own log, as far as its wishes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLog {
    /// Its end.
    pub end: Offset,
    /// Where it begins, durably.
    pub log_start: Offset,
    /// Whether nothing in it is known to be damaged.
    pub is_whole: bool,
}

/// What a leader wants done about its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// The in-sync set should be this, and maybe another member should lead; the answer goes to
    /// [`Leader::on_isr_answer`].
    Isr(PartitionIsr),
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
            handed_over_at: None,
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

    /// An image that says nothing new of this partition: what was answered on an earlier one is settled by it.
    pub fn on_image(&mut self, index: u64) {
        self.leadership.image_index = self.leadership.image_index.max(index);
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
        let follower = leadership.members.get(&stamps.follower).ok_or(Refusal::NotReplica)?;
        let own_epoch = leadership.members.get(&self.me).map(|member| member.broker_epoch);
        let is_present =
            own_epoch == Some(stamps.leader_broker_epoch) && follower.broker_epoch == stamps.follower_broker_epoch;
        if !is_present || !self.followers.is_later(stamps, stream) {
            return Err(Refusal::StaleBroker);
        }
        if follower.directory != stamps.follower_directory && !off!(MemberDirectory) {
            return Err(Refusal::OtherDirectory);
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
        self.followers.open(stream, stamps, report, (fetch_offset, at), self.high_watermark, now);
        self.followers.look(at, self.leadership.strict, now);
        self.raise_high_watermark()
    }

    /// Batches up to `end` are on their way to a follower.
    pub fn on_pushed(&mut self, stream: StreamId, stamps: &Stamps, end: Offset) {
        self.followers.on_pushed(stream, stamps, end);
    }

    /// A follower's report. What fails a fence changes nothing and is counted. Returns whether the high watermark moved.
    pub fn on_report(
        &mut self,
        stream: StreamId,
        stamps: &Stamps,
        report: &StreamReport,
        now: Instant,
    ) -> Result<bool, Fenced> {
        let at = self.own.deciding(self.leadership.strict);
        if !self.followers.on_report(stream, stamps, report, (at, self.leadership.strict), now) {
            self.fenced_count += 1;
            return Err(Fenced);
        }
        Ok(self.raise_high_watermark())
    }

    /// A follower's stream is over.
    pub fn on_closed(&mut self, stream: StreamId, stamps: &Stamps) {
        self.followers.close(stream, stamps);
    }

    /// What should be done, now that so much time has passed. `lag_max` is `replica.lag.time.max.ms`. A wished set counts
    /// for the high watermark from here on.
    pub fn wish(&mut self, partition: TopicPartition, own_log: OwnLog, lag_max: Duration, now: Instant) -> Wish {
        let strict = self.leadership.strict;
        let at = self.own.deciding(strict);
        self.followers.look(at, strict, now);
        let is_gray = self.is_gray(own_log.end, lag_max, now);
        if !self.proposed.may_propose(self.leadership.image_index) {
            return Wish::Nothing;
        }
        let isr = self.wished_isr((at, own_log.log_start), lag_max, now);
        let asked_lately = self
            .handed_over_at
            .is_some_and(|asked| now.saturating_duration_since(asked) <= lag_max.min(HAND_OVER_AGAIN));
        // A set of one has nobody to hand over to: then it stays (rule 9).
        let hand_over = (is_gray || !own_log.is_whole) && isr.len() > 1 && !asked_lately;
        // A set that was proposed and refused may yet be committed by a late duplicate. The same set once more, or the
        // committed one, raises the partition epoch, after which it cannot.
        let is_settled = isr == self.leadership.isr && !self.proposed.exceeds(&self.leadership.isr);
        if is_settled && !hand_over && !self.has_damaged_eligible() {
            return Wish::Nothing;
        }
        if hand_over {
            self.handed_over_at = Some(now);
        }
        let is_damaged =
            |(broker, session): &(BrokerId, &Session)| self.is_unfit(*broker, session) && !isr.contains(broker);
        let damaged = self.followers.iter().filter(is_damaged).map(|(broker, _)| broker).collect();
        isr.difference(&self.leadership.isr).for_each(|joins| self.followers.on_joins(*joins, now));
        self.proposed.on_proposed(isr.iter().copied());
        Wish::Isr(PartitionIsr {
            partition,
            leader_epoch: self.leadership.leader_epoch,
            partition_epoch: self.leadership.partition_epoch,
            isr: isr.into_iter().map(|broker| self.in_sync(broker, own_log)).collect(),
            damaged,
            recovering: RecoveryState::Recovered,
            hand_over,
        })
    }

    /// A wish was answered, or will not be. `decided_at` is the index of the image it was decided on, where one is known.
    pub fn on_isr_answer(&mut self, decided_at: Option<u64>) {
        self.proposed.on_answer(decided_at);
    }

    /// Where the logs begin of all that may come to lead next: of every broker that may be in the in-sync set or is
    /// eligible, and of every other replica that is up (`Partition.lowWatermarkIfLeader`). `own` is this log's, durable.
    pub fn low_watermark(&self, own: Offset) -> Offset {
        let is_up = |(broker, member): (&BrokerId, &Member)| member.is_active.then_some(*broker);
        let others = self.leadership.elr.iter().copied().chain(self.leadership.members.iter().filter_map(is_up));
        let counts = self.proposed.maximal(&self.leadership.isr).chain(others);
        let starts = counts.map(|broker| if broker == self.me { own } else { self.followers.log_start(broker) });
        starts.fold(own, Offset::min)
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

    /// Whether a replica is, or may be by what was proposed already, in the in-sync set or eligible: it could be elected.
    pub fn counts(&self, broker: BrokerId) -> bool {
        self.may_be_in_sync(broker) || self.leadership.elr.contains(&broker)
    }

    /// Whether a replica is, or may be by what was proposed already, in the in-sync set.
    pub fn may_be_in_sync(&self, broker: BrokerId) -> bool {
        self.proposed.maximal(&self.leadership.isr).any(|member| member == broker)
    }

    /// Whether nobody else can have led, and committed anything, before followers were asked to repeat `probe` (rule 15).
    ///
    /// A later leader comes from the in-sync set or the ELR, and nobody joins those but by this leader's own proposals:
    /// when each that may be in them has followed this epoch since, none of them had begun another. Counting some of
    /// them, enough for min ISR, would rest on an image that may be old: on how many replicas there are by now, and how
    /// many of them suffice.
    pub fn is_confirmed(&self, probe: u64) -> bool {
        let may_lead = self.proposed.maximal(&self.leadership.isr).chain(self.leadership.elr.iter().copied());
        let has_followed = |broker: BrokerId| self.followers.get(broker).is_some_and(|session| session.probe >= probe);
        may_lead.filter(|broker| *broker != self.me).all(has_followed)
    }

    /// Messages that failed a fence.
    pub fn fenced_count(&self) -> u64 {
        self.fenced_count
    }

    /// Members of the committed in-sync set that are up, have what a consumer reads at `from`, and know of no damage: each
    /// with its position and when it last had all that was here.
    pub(super) fn may_serve(&self, from: Offset) -> impl Iterator<Item = (BrokerId, Offset, Instant)> {
        let may_serve = move |(broker, session): &(BrokerId, &Session)| {
            let is_active = self.leadership.members.get(broker).is_some_and(|member| member.is_active);
            let has_it = session.log_start <= from && from <= session.positions.deciding(self.leadership.strict);
            let is_in_step = session.is_open && !self.is_unfit(*broker, session);
            self.leadership.isr.contains(broker) && is_active && is_in_step && has_it
        };
        let at = |session: &Session| session.positions.deciding(self.leadership.strict);
        let serving = self.followers.iter().filter(may_serve);
        serving.map(move |(broker, session)| (broker, at(session), session.caught_up_at))
    }

    /// The committed set without who is too far behind, and with who has caught up.
    fn wished_isr(&self, (at, log_start): (Offset, Offset), lag_max: Duration, now: Instant) -> BTreeSet<BrokerId> {
        let strict = self.leadership.strict;
        let is_behind = |broker: BrokerId| {
            let since = self.followers.behind_since(broker, at, strict);
            broker != self.me && since.is_some_and(|since| now.saturating_duration_since(since) > lag_max)
        };
        // Who has found damage in its log must not be elected over those whose log is whole (rule 9).
        let is_damaged = |broker: BrokerId| {
            let session = self.followers.get(broker);
            session.is_some_and(|session| self.is_unfit(broker, session) && !off!(WholeJoins))
        };
        let stays = |broker: &BrokerId| !is_behind(*broker) && !is_damaged(*broker);
        let mut isr: BTreeSet<BrokerId> = self.leadership.isr.iter().copied().filter(stays).collect();
        // What was deleted here, and said to be, must not be back when it leads.
        let may_join = |(broker, session): &(BrokerId, &Session)| {
            (session.log_start >= log_start || off!(JoinDeleted)) && self.may_join(*broker, session)
        };
        isr.extend(self.followers.iter().filter(may_join).map(|(id, _)| id));
        isr
    }

    /// Whether a replica that has holes could be elected over those that have not (rule 9).
    fn has_damaged_eligible(&self) -> bool {
        let is_eligible = |broker| self.leadership.members.get(&broker).is_some_and(|member| member.is_eligible);
        let mut damaged = self.followers.iter().filter(|(broker, session)| self.is_unfit(*broker, session));
        damaged.any(|(broker, _)| is_eligible(broker)) && !off!(EligibleDamaged)
    }

    /// Whether a replica lacks something that it should have: it knows of damage, or it counts on a strict partition and
    /// came back without what is committed. Until it has that again it must not be elected.
    fn is_unfit(&self, broker: BrokerId, session: &Session) -> bool {
        let strict = self.leadership.strict;
        let is_short = session.opened_short && session.positions.deciding(strict) < self.high_watermark;
        !session.is_whole || (strict && is_short && self.counts(broker) && !off!(ShortLeaves))
    }

    fn may_join(&self, broker: BrokerId, session: &Session) -> bool {
        let Some(member) = self.leadership.members.get(&broker) else { return false };
        let at = session.positions.deciding(self.leadership.strict);
        let has_caught_up = (at >= self.high_watermark && at >= self.epoch_start) || off!(JoinAtWatermark);
        let is_whole = session.is_whole || off!(WholeJoins);
        session.is_open && member.is_active && has_caught_up && is_whole && !self.leadership.isr.contains(&broker)
    }

    /// A member of a wished set. Its broker epoch and directory are those of the session that made it a member: if it has
    /// registered anew or was given another directory since, the controller refuses (KIP-903).
    fn in_sync(&self, broker: BrokerId, own_log: OwnLog) -> InSyncReplica {
        let registered = self.leadership.members.get(&broker);
        let session = self.followers.get(broker);
        let fetched = session.map(|session| session.stamps.follower_broker_epoch);
        let fetched_into = session.map(|session| session.stamps.follower_directory);
        let epoch = match off!(JoinBrokerEpoch) {
            true => None,
            false => fetched.or(registered.map(|member| member.broker_epoch)),
        };
        let directory = fetched_into.or(registered.map(|member| member.directory)).unwrap_or(DirectoryId::ZERO);
        let is_whole = match broker == self.me {
            true => own_log.is_whole,
            false => session.is_some_and(|session| session.is_whole),
        };
        InSyncReplica { broker, epoch, directory, is_whole }
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
    check_same_epoch(progress, requested)?;
    match progress.role {
        Role::Leader => Ok(()),
        Role::Follower | Role::Removed | Role::Offline => Err(Reject::NotLeader(progress.leader_epoch)),
    }
}

/// As [`check_epoch`], of a read that a follower may answer too (KIP-392).
pub fn check_reader(progress: &Progress, requested: LeaderEpoch) -> Result<(), Reject> {
    match progress.serves_as_follower {
        true => check_same_epoch(progress, requested),
        false => check_epoch(progress, requested),
    }
}

fn check_same_epoch(progress: &Progress, requested: LeaderEpoch) -> Result<(), Reject> {
    if requested != LeaderEpoch::NONE {
        if requested < progress.leader_epoch {
            return Err(Reject::FencedEpoch);
        }
        if requested > progress.leader_epoch {
            return Err(Reject::UnknownEpoch);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
