//! What time alone does: silent members go, rebalances end, old offsets are forgotten; and what a deleted topic takes
//! with it.
//!
//! An offset expires `offsets.retention.minutes` after a moment that depends on its group
//! (`ClassicGroup.offsetExpirationCondition`):
//!
//! | group | after |
//! |---|---|
//! | Empty | it became Empty; for records that do not say when, after the commit |
//! | Stable, of consumers | the commit, for topics nobody in it reads |
//! | never had members | the commit |
//! | any other | never |
//!
//! An offset that was committed with a retention time of its own goes by that alone. A group without members whose last
//! offset goes is removed with it.

use stonelog_protocol::{Timestamp, TopicId};

use super::config::TOMBSTONES_PER_DECISION_MAX;
use super::hard::HardGroup;
use super::live::{LiveGroup, State};
use super::names::{GroupId, MemberId};
use super::rebalance::Turn;
use super::{Alarm, Decision, Groups, Now};
use crate::coordinator::record::{CommittedOffset, Record};

impl Groups {
    /// Does the earliest thing that is due; `None` when nothing is. To be called until then.
    pub fn on_time(&mut self, now: Now) -> Option<Decision> {
        let alarm = self.timers.pop_due(now.mono)?;
        let (Alarm::Session(group, _) | Alarm::Join(group) | Alarm::Sync(group)) = &alarm;
        let Some(mut turn) = self.turn(group, now) else { return Some(Decision::default()) };
        match &alarm {
            Alarm::Session(_, member_id) => turn.on_session_end(member_id),
            Alarm::Join(_) => turn.on_join_alarm(),
            Alarm::Sync(_) => turn.on_sync_alarm(),
        }
        let decision = turn.decision;
        self.settle(group);
        Some(decision)
    }

    /// Tombstones for what has expired, at most [`TOMBSTONES_PER_DECISION_MAX`]: to be settled and called again while
    /// it returns that many. Kafka looks every `offsets.retention.check.interval.ms`.
    pub fn decide_expiry(&self, now: Timestamp) -> Decision {
        let retention_ms = i64::try_from(self.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let mut tombstones = Tombstones::default();
        for (group, hard) in self.hard.iter() {
            let live = self.live.get(group);
            let clock = Clock::of(hard, live);
            let mut all_expired = true;
            for (topic, partitions) in &hard.offsets {
                let is_read = live.is_some_and(|live| live.is_subscribed_to(topic) && live.state != State::Empty);
                for (partition, stored) in partitions {
                    if is_read || !clock.has_expired(stored, now, retention_ms) {
                        all_expired = false;
                    } else if !tombstones.push_offset(group, topic, *partition) {
                        return tombstones.decision;
                    }
                }
            }
            let is_unused = all_expired && live.is_none() && hard.metadata.is_some();
            if is_unused && !tombstones.push(Record::Group { group: group.clone(), value: None }) {
                return tombstones.decision;
            }
        }
        tombstones.decision
    }

    /// Tombstones for the offsets of topics that are gone, limited as [`Groups::decide_expiry`] is. `is_gone` is asked
    /// with a topic's name and the incarnation the offset was committed for ([`TopicId::ZERO`] if its record does not
    /// say). To be called when topics are deleted, and after loading, for those deleted while nobody was here.
    pub fn decide_forget_topics(&self, is_gone: impl Fn(&str, TopicId) -> bool) -> Decision {
        let mut tombstones = Tombstones::default();
        for (group, hard) in self.hard.iter() {
            for (topic, partitions) in &hard.offsets {
                for (partition, stored) in partitions {
                    if is_gone(topic, stored.topic_id) && !tombstones.push_offset(group, topic, *partition) {
                        return tombstones.decision;
                    }
                }
            }
        }
        tombstones.decision
    }
}

/// From when a group's offsets age.
enum Clock {
    SinceCommit,
    SinceEmpty(Timestamp),
    /// A rebalance is under way, or the members' subscription is not known: offsets with an expiry of their own stay, too.
    Never,
}

impl Clock {
    fn of(hard: &HardGroup, live: Option<&LiveGroup>) -> Clock {
        match (live, &hard.metadata) {
            (Some(live), _) if live.state == State::Empty => {
                Clock::since_empty(live.protocol_type.as_deref(), live.state_timestamp)
            }
            (Some(live), _)
                if live.state == State::Stable && live.uses_consumer_protocol() && live.subscribed.is_some() =>
            {
                Clock::SinceCommit
            }
            (Some(_), _) => Clock::Never,
            (None, Some(stored)) => Clock::since_empty(Some(&stored.protocol_type), stored.state_timestamp),
            (None, None) => Clock::SinceCommit,
        }
    }

    /// A group without a protocol type never had members.
    fn since_empty(protocol_type: Option<&str>, state_timestamp: Option<Timestamp>) -> Clock {
        match state_timestamp {
            Some(since) if protocol_type.is_some_and(|text| !text.is_empty()) => Clock::SinceEmpty(since),
            _ => Clock::SinceCommit,
        }
    }

    fn has_expired(&self, stored: &CommittedOffset, now: Timestamp, retention_ms: i64) -> bool {
        let since = match self {
            Clock::Never => return false,
            Clock::SinceCommit => stored.commit_timestamp,
            Clock::SinceEmpty(since) => *since,
        };
        match stored.expire_timestamp {
            Some(expiry) => now >= expiry,
            None => now - since >= retention_ms,
        }
    }
}

/// Tombstones up to the limit.
#[derive(Default)]
struct Tombstones {
    decision: Decision,
}

impl Tombstones {
    /// Adds one; false when there is no room for it.
    fn push(&mut self, record: Record) -> bool {
        let has_room = self.decision.records.len() < TOMBSTONES_PER_DECISION_MAX;
        if has_room {
            self.decision.records.push(record);
        }
        has_room
    }

    fn push_offset(
        &mut self,
        group: &GroupId,
        topic: &std::sync::Arc<str>,
        partition: stonelog_protocol::PartitionIndex,
    ) -> bool {
        self.push(Record::Offset { group: group.clone(), topic: topic.clone(), partition, value: None })
    }
}

impl Turn<'_> {
    /// A member, or one who was only given an id, has been silent for too long. One that waits for us is not silent,
    /// unless it is new: nothing else shows that a client has gone before it had an id.
    fn on_session_end(&mut self, member_id: &MemberId) {
        if let Some(member) = self.group.members.get(member_id) {
            let waits = self.group.joins.contains_key(member_id) || self.group.syncs.contains_key(member_id);
            if waits && !member.is_new {
                return;
            }
        }
        let was_member = self.group.members.contains_key(member_id);
        self.remove_member(member_id);
        if was_member {
            self.after_removal();
        } else {
            self.maybe_complete_join();
        }
    }
}
