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

use super::hard::HardGroup;
use super::live::{LiveGroup, State};
use super::names::MemberId;
use super::rebalance::Turn;
use super::tombstones::Tombstones;
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

    /// Tombstones for what has expired, as many as have room: to be settled and called again until none come back.
    /// Kafka looks every `offsets.retention.check.interval.ms`.
    pub fn decide_expiry(&self, now: Timestamp) -> Decision {
        let retention_ms = i64::try_from(self.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let mut tombstones = Tombstones::default();
        for (group, hard) in self.hard.iter() {
            let live = self.live.get(group);
            let clock = Clock::of(hard, live);
            let mut all_expired = true;
            for (topic, partitions) in &hard.offsets {
                let is_read = live.is_some_and(|live| live.is_subscribed_to(topic) && live.state != State::Empty);
                #[cfg(feature = "mutants")]
                let is_read = is_read && !stonelog_storage::mutants::Guard::OffsetsOutliveMembers.is_off();
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
        #[cfg(feature = "mutants")]
        if stonelog_storage::mutants::Guard::OffsetsOutliveMembers.is_off() {
            return Clock::SinceCommit;
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use stonelog_protocol::{Offset, PartitionIndex, Uuid};

    use super::super::config::TOMBSTONES_PER_DECISION_MAX;
    use super::super::message::{CommitRequest, JoinRequest, Protocol};
    use super::super::testing::{TOPIC_ID, World, commit_request, group, join_request, subscription};
    use super::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// Lets a week pass less an hour, without alarms: time for offsets, not for sessions.
    fn pass(world: &mut World, time: Duration) {
        world.now.wall = world.now.wall.saturating_add(time);
    }

    #[test]
    fn offsets_without_a_group_expire_a_week_after_their_commit() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        pass(&mut world, WEEK - HOUR);
        assert_eq!(world.expire(), 0);
        pass(&mut world, HOUR);
        assert_eq!(world.expire(), 1);
        assert_eq!((world.fetch(), world.state()), (Offset::NONE, None));
    }

    #[test]
    fn offsets_of_an_empty_group_expire_a_week_after_its_last_member_left() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.commit(commit_request(1, &ids[0], 3));
        pass(&mut world, WEEK + WEEK);
        assert_eq!(world.expire(), 0, "members read the topic");
        world.leave_as(&ids[0]);
        pass(&mut world, WEEK - HOUR);
        assert_eq!(world.expire(), 0);
        pass(&mut world, HOUR);
        assert_eq!(world.expire(), 2, "the offset and the group");
        assert_eq!(world.state(), None);
    }

    #[test]
    fn an_empty_group_that_does_not_say_since_when_goes_by_the_commit() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.commit(commit_request(1, &ids[0], 3));
        world.leave_as(&ids[0]);
        let mut stored = world.groups.hard().get(&group("g")).unwrap().metadata.clone().unwrap();
        stored.state_timestamp = None;
        world.append(Record::Group { group: group("g"), value: Some(stored) });
        world.restart();
        pass(&mut world, WEEK);
        assert_eq!(world.expire(), 2);
    }

    #[test]
    fn members_keep_the_offsets_of_what_they_read_only() {
        let mut world = World::new();
        let ids = world.stable(1);
        let mut request = commit_request(1, &ids[0], 3);
        request.topics.push(super::super::message::CommitTopic { name: Arc::from("u"), ..request.topics[0].clone() });
        world.commit(request);
        pass(&mut world, WEEK);
        assert_eq!(world.expire(), 1);
        assert_eq!(world.fetch(), Offset(3));
        assert!(!world.groups.hard().get(&group("g")).unwrap().offsets.contains_key("u"));
    }

    #[test]
    fn nothing_expires_during_a_rebalance_or_with_an_unknown_subscription() {
        let opaque = vec![Protocol { name: Arc::from("p"), metadata: bytes::Bytes::from_static(b"?") }];
        let preparing = JoinRequest {
            protocols: vec![Protocol { name: Arc::from("p"), metadata: subscription(&[]) }],
            ..join_request()
        };
        for request in [JoinRequest { protocols: opaque, ..join_request() }, preparing] {
            let mut world = World::new();
            let ids = world.stable_with(vec![request.clone()]);
            world.commit(commit_request(1, &ids[0], 3));
            let is_known = world.groups.live[&group("g")].subscribed.is_some();
            if is_known {
                world.join(request);
                assert_eq!(world.state(), Some(State::PreparingRebalance));
            }
            pass(&mut world, WEEK);
            assert_eq!(world.expire(), 0, "subscription known: {is_known}");
        }
    }

    #[test]
    fn a_retention_time_of_its_own_rules_an_offset() {
        let mut world = World::new();
        let short = CommitRequest { retention_ms: Some(1_000), ..commit_request(-1, &MemberId::unknown(), 3) };
        world.commit(short);
        pass(&mut world, Duration::from_millis(999));
        assert_eq!(world.expire(), 0);
        pass(&mut world, Duration::from_millis(1));
        assert_eq!(world.expire(), 1);
    }

    #[test]
    fn a_group_with_other_offsets_left_stays() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let keep = CommitRequest {
            topics: vec![super::super::message::CommitTopic {
                name: Arc::from("u"),
                ..commit_request(-1, &MemberId::unknown(), 4).topics[0].clone()
            }],
            retention_ms: Some(i64::MAX),
            ..commit_request(-1, &MemberId::unknown(), 4)
        };
        world.commit(keep);
        pass(&mut world, WEEK);
        assert_eq!(world.expire(), 1);
        assert_eq!(world.state(), Some(State::Empty));
    }

    #[test]
    fn an_empty_group_without_offsets_is_removed_at_once() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        assert_eq!(world.expire(), 1);
        assert_eq!(world.state(), None);
    }

    #[test]
    fn tombstones_come_in_limited_batches() {
        let mut world = World::new();
        let mut request = commit_request(-1, &MemberId::unknown(), 3);
        let one = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = (0..2_500)
            .map(|partition| super::super::message::CommitPartition {
                partition: PartitionIndex(partition),
                ..one.clone()
            })
            .collect();
        world.commit(request);
        pass(&mut world, WEEK);
        assert_eq!(world.groups.decide_expiry(world.now.wall).records.len(), TOMBSTONES_PER_DECISION_MAX);
        assert_eq!(world.groups.decide_forget_topics(|_, _| true).records.len(), TOMBSTONES_PER_DECISION_MAX);
        assert_eq!(world.expire(), 2_500);
        assert_eq!(world.state(), None);
    }

    #[test]
    fn a_deleted_topic_takes_its_offsets_along() {
        let mut world = World::new();
        world.commit(commit_request(-1, &MemberId::unknown(), 3));
        let mut request = CommitRequest { group: group("h"), ..commit_request(-1, &MemberId::unknown(), 4) };
        request.topics[0].topic_id = Uuid([1; 16]);
        world.commit(request);
        let decision = world.groups.decide_forget_topics(|name, id| name == "t" && id == TOPIC_ID);
        assert_eq!(decision.records.len(), 1, "the other group read another incarnation");
        world.settle(decision);
        assert_eq!(world.fetch(), Offset::NONE);
        assert_eq!(world.groups.state(&group("h")), Some(State::Empty));
    }

    #[test]
    fn a_silent_member_of_a_stable_group_is_out_and_the_last_one_leaves_it_empty() {
        let mut world = World::new();
        let ids = world.stable(2);
        world.advance_ms(9_000);
        world.heartbeat(&ids[0], 1);
        world.advance_ms(1_000);
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        world.advance_ms(9_000);
        assert_eq!(world.state(), Some(State::Empty));
        assert_eq!(world.groups.next_deadline(), None);
    }

    #[test]
    fn a_member_that_waits_for_its_assignment_is_not_silent() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let ticket = world.sync_as(&ids[1], 1, &[]);
        for _ in 0..4 {
            world.advance_ms(9_000);
            world.heartbeat(&ids[0], 1);
        }
        assert_eq!(world.synced(ticket), None);
        world.sync_as(&ids[0], 1, &[&ids[0], &ids[1]]);
        assert!(world.synced(ticket).is_some());
        world.advance_ms(9_999);
        assert_eq!(world.state(), Some(State::Stable), "its session began anew with the answer");
    }
}
