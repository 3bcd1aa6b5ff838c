//! The classic groups of one `__consumer_offsets` partition: who is in them, and what they have committed.
//!
//! Two kinds of state, never mixed. **Hard** state ([`hard`]) is what the log says; [`HardState::apply`] is its only
//! writer, so it always equals a replay of the log. **Soft** state (`live`, `timers`) is who joins, who waits, who was
//! heard of when; it is lost with the process and rebuilt by [`Groups::on_loaded`] ([`load`]).
//!
//! A request is *decided*: `decide_*` takes the request, a [`Ticket`] for its answer and the time, and returns a
//! [`Decision`] with the records to append and the answers to give. The caller appends the records and then calls
//! [`Groups::on_appended`] (which applies them and returns the answers) or, when the log refused them,
//! [`Groups::on_refused`] (which takes back what depended on them). A decision without records goes through
//! `on_appended` just so. The caller gives every answer, and the value of every read, only when all records applied
//! before it are committed; several decisions may be gathered into one append, and are then settled in their order.
//! An append that was applied and is lost later leaves the state ahead of the log: the caller drops it
//! ([`Groups::on_unloaded`]) and replays.
//!
//! One file per request: [`join`], [`sync`], [`heartbeat`], [`leave`], [`commit`], [`fetch`], [`delete`], [`describe`];
//! `rebalance` is what they share, [`expire`] what time alone does.
//! Kafka's counterparts are `GroupMetadataManager`, `ClassicGroup` and `OffsetMetadataManager`.
//!
//! *Differences from Kafka.* A group is not written to the log before its first generation is; one whose last offset
//! and record are gone is gone at once. Nobody's parked request is forgotten: a member that is removed, or asks again,
//! has its older request answered. No transaction can hold an offset back yet, so every committed offset is stable.

use std::collections::BTreeMap;

use bytes::Bytes;
use stonelog_protocol::{ErrorCode, Timestamp};

pub mod commit;
pub mod config;
pub mod delete;
pub mod describe;
pub mod expire;
pub mod fetch;
pub mod hard;
pub mod heartbeat;
pub mod join;
pub mod leave;
mod live;
pub mod load;
mod member;
pub mod message;
pub mod names;
mod rebalance;
#[cfg(test)]
mod simulation;
mod static_member;
mod subscription;
pub mod sync;
#[cfg(test)]
mod testing;
mod timers;
mod tombstones;

pub use config::Config;
pub use hard::HardState;
pub use live::State;
pub use timers::MonoMillis;

use crate::coordinator::record::{GroupMetadata, Record};
use live::LiveGroup;
use member::Member;
use message::Response;
use names::{GroupId, MemberId};
use rebalance::Turn;
use timers::{Alarm, Timers};

/// Names a request until it is answered; given by the caller, unique among those not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// The moment of a decision, on both clocks: sessions and rebalances go by the monotonic one, stamps by the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: MonoMillis,
    /// The wall clock.
    pub wall: Timestamp,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which request.
    pub ticket: Ticket,
    /// The answer.
    pub response: Response,
}

/// What was decided: records to append, answers to give once they are committed.
#[derive(Debug, Default)]
#[must_use = "a decision is settled by on_appended or on_refused"]
pub struct Decision {
    /// To be appended together, in this order; often none.
    pub records: Vec<Record>,
    answers: Vec<Answer>,
    then: Then,
}

/// What else an append settles.
#[derive(Debug, Default)]
enum Then {
    /// Nothing.
    #[default]
    Nothing,
    /// The leader's assignment takes effect, or the group rebalances.
    Assign { group: GroupId, generation: i32, stored: Box<GroupMetadata> },
    /// A static member came back under a new id; if that cannot be stored, the old id holds.
    Replace { group: GroupId, old: Box<Member>, new_id: MemberId },
    /// The group may have nothing live left.
    Settle { group: GroupId },
}

/// The groups of one `__consumer_offsets` partition.
#[derive(Debug)]
pub struct Groups {
    config: Config,
    hard: HardState,
    live: BTreeMap<GroupId, LiveGroup>,
    timers: Timers,
}

impl Groups {
    /// The state of an empty log.
    pub fn new(config: Config) -> Groups {
        Groups { config, hard: HardState::default(), live: BTreeMap::new(), timers: Timers::default() }
    }

    /// What the log says.
    pub fn hard(&self) -> &HardState {
        &self.hard
    }

    /// Ends this state, because the partition has another leader or its log did not keep what was applied. Every
    /// parked request is answered with `error`.
    pub fn on_unloaded(self, error: ErrorCode) -> Vec<Answer> {
        let mut answers = Vec::new();
        for group in self.live.into_values() {
            let joins = group.joins.into_iter().map(|(member_id, ticket)| Answer {
                ticket,
                response: Response::Join(message::JoinResponse::refused(error, member_id)),
            });
            answers.extend(joins);
            let syncs = group
                .syncs
                .into_values()
                .map(|ticket| Answer { ticket, response: Response::Sync(message::SyncResponse::refused(error)) });
            answers.extend(syncs);
        }
        answers
    }

    /// The log took the decision's records: they are applied, what depended on them happens, and the answers are
    /// returned, to be given when the records are committed.
    pub fn on_appended(&mut self, decision: Decision, now: Now) -> Vec<Answer> {
        let Decision { records, mut answers, then } = decision;
        for record in &records {
            self.hard.apply(record);
            if let Record::Group { group, value: None } = record {
                self.forget_generation(group);
            }
        }
        match then {
            Then::Nothing | Then::Replace { .. } => {}
            Then::Assign { group, generation, stored } => {
                if let Some(mut turn) = self.turn(&group, now) {
                    turn.assign(generation, &stored);
                    answers.append(&mut turn.decision.answers);
                }
            }
            Then::Settle { group } => self.settle(&group),
        }
        answers
    }

    /// The log refused the decision's records, and nothing of them is in it: what depended on them is taken back, and
    /// the answers, returned to be given as any others, say so. `error` is the log's.
    pub fn on_refused(&mut self, decision: Decision, error: ErrorCode, now: Now) -> Vec<Answer> {
        let error = append_error(error);
        #[cfg(feature = "mutants")]
        if stonelog_storage::mutants::Guard::StateIsReplay.is_off() {
            decision.records.iter().for_each(|record| self.hard.apply(record));
        }
        let Decision { records: _, answers, then } = decision;
        let mut answers: Vec<Answer> = answers
            .into_iter()
            .map(|answer| Answer { ticket: answer.ticket, response: answer.response.failed(error) })
            .collect();
        match then {
            Then::Nothing | Then::Settle { .. } => {}
            Then::Assign { group, generation, .. } => {
                if let Some(mut turn) = self.turn(&group, now) {
                    turn.fail_assignment(generation, error);
                    assert!(turn.decision.records.is_empty(), "a group whose assignment failed waits for its members");
                    answers.append(&mut turn.decision.answers);
                }
            }
            Then::Replace { group, old, new_id } => {
                if let Some(mut turn) = self.turn(&group, now) {
                    turn.undo_replacement(*old, &new_id);
                    answers.append(&mut turn.decision.answers);
                }
            }
        }
        answers
    }

    /// When [`Groups::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<MonoMillis> {
        self.timers.next()
    }

    /// The group's turn, if it is live.
    fn turn(&mut self, group: &GroupId, now: Now) -> Option<Turn<'_>> {
        let group = self.live.get_mut(group)?;
        Some(Turn::new(group, &mut self.timers, &self.config, now))
    }

    /// Where a group stands; `None` if there is no such group.
    pub fn state(&self, group: &GroupId) -> Option<State> {
        match self.live.get(group) {
            Some(live) => Some(live.state),
            None => self.hard.get(group).map(|_| State::Empty),
        }
    }

    /// The log says nothing of the group any more. Somebody may have been given an id since that was decided.
    fn forget_generation(&mut self, group: &GroupId) {
        if let Some(live) = self.live.get_mut(group).filter(|live| live.state == State::Empty) {
            let pending_joins = std::mem::take(&mut live.pending_joins);
            *live = LiveGroup { pending_joins, ..LiveGroup::new(group.clone()) };
            self.settle(group);
        }
    }

    /// Drops the live state of a group of which the log says all there is to say.
    fn settle(&mut self, group: &GroupId) {
        let Some(live) = self.live.get(group) else { return };
        let idle = live.state == State::Empty && live.members.is_empty() && live.pending_joins.is_empty();
        let written = match self.hard.metadata(group) {
            Some(stored) => stored.generation == live.generation && stored.members.is_empty(),
            None => live.generation == 0,
        };
        if idle && written {
            assert!(live.joins.is_empty() && live.syncs.is_empty(), "only members wait");
            self.live.remove(group);
        }
    }
}

/// What a client is told when the log refused a record (`GroupMetadataManager.appendGroupMetadataErrorToResponseError`).
fn append_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::NotEnoughReplicas | ErrorCode::RequestTimedOut => {
            ErrorCode::CoordinatorNotAvailable
        }
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge | ErrorCode::InvalidFetchSize => {
            ErrorCode::UnknownServerError
        }
        other => other,
    }
}

impl Decision {
    /// A decision that only answers.
    fn answer(ticket: Ticket, response: Response) -> Decision {
        Decision { answers: vec![Answer { ticket, response }], ..Decision::default() }
    }

    fn push_answer(&mut self, ticket: Ticket, response: Response) {
        self.answers.push(Answer { ticket, response });
    }
}

/// Assignments by member.
type Assignments = BTreeMap<MemberId, Bytes>;

#[cfg(test)]
mod tests {
    use super::message::{JoinRequest, JoinResponse, SyncResponse};
    use super::testing::{World, group, join_request};
    use super::*;

    #[test]
    fn unloading_answers_everyone_who_waits() {
        let mut world = World::new();
        let ids = world.completing_with(vec![join_request(); 2]);
        let syncing = world.sync_as(&ids[1], 1, &[]);
        let joining = world.join(JoinRequest { group: group("h"), ..join_request() });
        let groups = std::mem::replace(&mut world.groups, Groups::new(Config::default()));
        let mut answers = groups.on_unloaded(ErrorCode::NotCoordinator);
        answers.sort_by_key(|answer| answer.ticket);
        let [sync, join] = &answers[..] else { panic!("two wait") };
        let refused = SyncResponse::refused(ErrorCode::NotCoordinator);
        assert_eq!((sync.ticket, &sync.response), (syncing, &Response::Sync(refused)));
        let Response::Join(JoinResponse { error, .. }) = &join.response else { panic!("a JoinGroup answer") };
        assert_eq!((join.ticket, *error), (joining, ErrorCode::NotCoordinator));
    }

    #[test]
    fn a_deletion_gathered_with_a_join_leaves_a_new_group() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.leave_as(&ids[0]);
        let deletion = world.groups.decide_delete_groups(vec![group("g")], Ticket(100));
        let known = JoinRequest { requires_known_member_id: true, ..join_request() };
        let join = world.groups.decide_join(known, Ticket(101), stonelog_protocol::Uuid::ZERO, world.now);
        assert_eq!(world.groups.on_appended(deletion, world.now).len(), 1);
        assert_eq!(world.groups.on_appended(join, world.now).len(), 1);
        assert_eq!(world.state(), Some(State::Empty));
        assert_eq!(world.groups.live[&group("g")].generation, 0);
        while world.groups.on_time(Now { mono: MonoMillis(u64::MAX), ..world.now }).is_some() {}
        assert_eq!(world.state(), None);
    }

    #[test]
    fn errors_of_the_log_become_errors_of_the_coordinator() {
        use ErrorCode::*;
        for error in [UnknownTopicOrPartition, NotEnoughReplicas, RequestTimedOut] {
            assert_eq!(append_error(error), CoordinatorNotAvailable);
        }
        for error in [NotLeaderOrFollower, KafkaStorageError] {
            assert_eq!(append_error(error), NotCoordinator);
        }
        for error in [MessageTooLarge, RecordListTooLarge, InvalidFetchSize] {
            assert_eq!(append_error(error), UnknownServerError);
        }
        assert_eq!(append_error(CoordinatorLoadInProgress), CoordinatorLoadInProgress);
    }
}
