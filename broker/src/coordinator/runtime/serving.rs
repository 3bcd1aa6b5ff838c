//! One partition's groups at work: who waits for which answer, and which answers wait for their records.
//!
//! No clock, no log: time and a way to append are passed in.
//!
//! Invariants: every ticket given out has its sender in `waiting` until it is answered; an answer is given only once
//! the high watermark has reached `applied_end` as it was when the answer was made.

use std::collections::HashMap;
use std::time::Duration;

use stonelog_protocol::{ErrorCode, Offset};
use tokio::sync::oneshot;

use crate::coordinator::group::message::Response;
use crate::coordinator::group::{Answer, Decision, Groups, MonoMillis, Now, Ticket};
use crate::coordinator::parking::Parking;
use crate::coordinator::record::Record;

/// What a request waits on: its answer, or why it has none.
pub(super) type Answered = Result<Response, ErrorCode>;
/// What a read waits on.
pub(super) type Committed = Result<(), ErrorCode>;

/// The groups of a partition and everybody who waits for them.
pub(super) struct Serving {
    groups: Groups,
    waiting: HashMap<Ticket, oneshot::Sender<Answered>>,
    parking: Parking<Parked>,
    /// Commits that were decided and are not appended yet.
    gathered: Vec<Decision>,
    gathered_bytes: usize,
    /// End of the last record that was applied.
    applied_end: Offset,
    next_ticket: u64,
}

/// About how many bytes of records are gathered into one batch; a decision of more goes alone.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// What may be said once its records are committed. Nobody may be there to hear it any more.
enum Parked {
    Answer { sender: oneshot::Sender<Answered>, response: Response },
    Read(oneshot::Sender<Committed>),
}

impl Parked {
    fn give(self, error: Option<ErrorCode>) {
        match self {
            Parked::Answer { sender, response } => drop(sender.send(error.map_or(Ok(response), Err))),
            Parked::Read(sender) => drop(sender.send(error.map_or(Ok(()), Err))),
        }
    }
}

impl Serving {
    /// Groups whose log ends at `end`.
    pub(super) fn new(groups: Groups, end: Offset, commit_timeout: Duration) -> Serving {
        let parking = Parking::new(commit_timeout);
        Serving {
            groups,
            waiting: HashMap::new(),
            parking,
            gathered: Vec::new(),
            gathered_bytes: 0,
            applied_end: end,
            next_ticket: 0,
        }
    }

    /// Decides a request and carries out what was decided. `append` takes records to the log and returns its end.
    pub(super) fn decide(
        &mut self,
        now: Now,
        decide: impl FnOnce(&mut Groups, Ticket, Now) -> Decision,
        append: impl Fn(&[Record]) -> Result<Offset, ErrorCode>,
    ) -> oneshot::Receiver<Answered> {
        self.append_gathered(now, &append);
        let (ticket, receiver) = self.ticket();
        let decision = decide(&mut self.groups, ticket, now);
        let _ = self.settle(decision, now, append);
        receiver
    }

    /// Decides a commit, which is appended with those that follow it. Nothing but a commit may be decided or read before
    /// [`Serving::append_gathered`]: it would not see it. Says whether it is the first of a batch.
    pub(super) fn gather(
        &mut self,
        now: Now,
        decide: impl FnOnce(&mut Groups, Ticket, Now) -> Decision,
        append: impl Fn(&[Record]) -> Result<Offset, ErrorCode>,
    ) -> (oneshot::Receiver<Answered>, bool) {
        let (ticket, receiver) = self.ticket();
        let decision = decide(&mut self.groups, ticket, now);
        let bytes: usize = decision.records.iter().map(Record::bytes_about).sum();
        if self.gathered_bytes + bytes > GATHERED_BYTES_MAX {
            self.append_gathered(now, &append);
        }
        let is_first = self.gathered.is_empty();
        self.gathered_bytes += bytes;
        self.gathered.push(decision);
        (receiver, is_first)
    }

    /// Appends the gathered commits as one batch and settles them in their order. If the log refuses it, none of them is
    /// in it, and each is told so.
    pub(super) fn append_gathered(&mut self, now: Now, append: impl Fn(&[Record]) -> Result<Offset, ErrorCode>) {
        self.gathered_bytes = 0;
        let gathered = std::mem::take(&mut self.gathered);
        let records: Vec<Record> = gathered.iter().flat_map(|decision| &decision.records).cloned().collect();
        let appended = if records.is_empty() { Ok(self.applied_end) } else { append(&records) };
        for decision in gathered {
            self.settle_as(decision, appended, now);
        }
    }

    fn ticket(&mut self) -> (Ticket, oneshot::Receiver<Answered>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(ticket, sender);
        (ticket, receiver)
    }

    /// Reads the state; what was read may be said when the receiver says so.
    pub(super) fn read<R>(
        &mut self,
        now: Now,
        read: impl FnOnce(&mut Groups, Now) -> R,
    ) -> (R, oneshot::Receiver<Committed>) {
        assert!(self.gathered.is_empty(), "what is gathered is appended before anything is read");
        let value = read(&mut self.groups, now);
        let (sender, receiver) = oneshot::channel();
        self.park(now, Parked::Read(sender));
        (value, receiver)
    }

    /// Decides something nobody asked for. Returns how many records it took, or why the log refused them.
    pub(super) fn tend(
        &mut self,
        now: Now,
        decide: impl FnOnce(&Groups, Now) -> Decision,
        append: impl FnOnce(&[Record]) -> Result<Offset, ErrorCode>,
    ) -> Result<usize, ErrorCode> {
        assert!(self.gathered.is_empty(), "what is gathered is appended before anything is decided by it");
        let decision = decide(&self.groups, now);
        let count = decision.records.len();
        self.settle(decision, now, append).map(|()| count)
    }

    fn settle(
        &mut self,
        decision: Decision,
        now: Now,
        append: impl FnOnce(&[Record]) -> Result<Offset, ErrorCode>,
    ) -> Result<(), ErrorCode> {
        let appended = if decision.records.is_empty() { Ok(self.applied_end) } else { append(&decision.records) };
        self.settle_as(decision, appended, now);
        appended.map(|_| ())
    }

    /// Carries out a decision whose records were appended up to an end, or refused.
    fn settle_as(&mut self, decision: Decision, appended: Result<Offset, ErrorCode>, now: Now) {
        let answers = match appended {
            Ok(end) => {
                self.applied_end = end;
                self.groups.on_appended(decision, now)
            }
            Err(error) => self.groups.on_refused(decision, error, now),
        };
        for Answer { ticket, response } in answers {
            let sender = self.waiting.remove(&ticket).expect("a ticket is answered once");
            self.park(now, Parked::Answer { sender, response });
        }
    }

    fn park(&mut self, now: Now, parked: Parked) {
        if let Err(parked) = self.parking.park(self.applied_end, now.mono, parked) {
            parked.give(Some(ErrorCode::CoordinatorNotAvailable));
        }
    }

    /// Says what may be said now that everything below `high_watermark` is committed.
    pub(super) fn on_high_watermark(&mut self, high_watermark: Offset) {
        for parked in self.parking.on_high_watermark(high_watermark) {
            parked.give(None);
        }
    }

    /// Does what is due, and gives up what has waited for too long.
    pub(super) fn on_time(&mut self, now: Now, append: impl Fn(&[Record]) -> Result<Offset, ErrorCode>) {
        for parked in self.parking.on_time(now.mono) {
            parked.give(Some(ErrorCode::CoordinatorNotAvailable));
        }
        self.append_gathered(now, &append);
        while let Some(decision) = self.groups.on_time(now) {
            let _ = self.settle(decision, now, &append);
        }
    }

    /// When [`Serving::on_time`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<MonoMillis> {
        [self.groups.next_deadline(), self.parking.next_deadline()].into_iter().flatten().min()
    }

    /// Ends it: everybody who waits is told `error`.
    pub(super) fn unload(mut self, error: ErrorCode, now: Now) {
        for decision in std::mem::take(&mut self.gathered) {
            for Answer { ticket, .. } in self.groups.on_refused(decision, error, now) {
                let sender = self.waiting.remove(&ticket).expect("a ticket is answered once");
                let _ = sender.send(Err(error));
            }
        }
        for parked in self.parking.drain() {
            parked.give(Some(error));
        }
        for Answer { ticket, response } in self.groups.on_unloaded(error) {
            let sender = self.waiting.remove(&ticket).expect("a ticket is answered once");
            let _ = sender.send(Ok(response));
        }
        assert!(self.waiting.is_empty(), "every ticket is with the groups or in the parking");
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{LeaderEpoch, PartitionIndex, Timestamp, Uuid};

    use super::*;
    use crate::coordinator::group::Config;
    use crate::coordinator::group::message::{
        CommitPartition, CommitRequest, CommitTopic, FetchRequest, JoinRequest, Protocol,
    };
    use crate::coordinator::group::names::{GroupId, MemberId};

    const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

    fn at(mono: u64) -> Now {
        Now { mono: MonoMillis(mono), wall: Timestamp(1_000_000 + mono as i64) }
    }

    fn serving() -> Serving {
        Serving::new(Groups::new(Config::default()), Offset(10), COMMIT_TIMEOUT)
    }

    fn commit() -> CommitRequest {
        let partition = CommitPartition {
            partition: PartitionIndex(0),
            offset: Offset(7),
            leader_epoch: LeaderEpoch::NONE,
            metadata: None,
        };
        let topic = CommitTopic { name: "t".into(), topic_id: Uuid([1; 16]), partitions: vec![partition] };
        CommitRequest {
            group: GroupId::new("g").unwrap(),
            generation: -1,
            member_id: MemberId::unknown(),
            instance_id: None,
            retention_ms: None,
            knows_group_id_not_found: true,
            topics: vec![topic],
        }
    }

    fn commit_at(serving: &mut Serving, now: Now, end: Result<Offset, ErrorCode>) -> oneshot::Receiver<Answered> {
        serving.decide(now, |groups, ticket, now| groups.decide_commit(commit(), ticket, now), |_| end)
    }

    fn committed_offset(groups: &mut Groups) -> Offset {
        let request = FetchRequest { group: commit().group, topics: Some(vec![("t".into(), vec![PartitionIndex(0)])]) };
        groups.fetch_offsets(&request, |_| Some(Uuid([1; 16])))[0].partitions[0].offset
    }

    fn commit_error(answered: Answered) -> Result<ErrorCode, ErrorCode> {
        answered.map(|response| match response {
            Response::Commit(commit) => commit.topics[0].1[0].1,
            other => panic!("a commit's answer, not {other:?}"),
        })
    }

    #[test]
    fn an_answer_is_given_when_its_records_are_committed() {
        let mut serving = serving();
        let mut answer = commit_at(&mut serving, at(0), Ok(Offset(11)));
        serving.on_high_watermark(Offset(10));
        assert!(answer.try_recv().is_err());
        serving.on_high_watermark(Offset(11));
        assert_eq!(commit_error(answer.try_recv().unwrap()), Ok(ErrorCode::None));
    }

    #[test]
    fn a_read_waits_for_what_was_applied_before_it() {
        let mut serving = serving();
        let _answer = commit_at(&mut serving, at(0), Ok(Offset(11)));
        let (offset, mut committed) = serving.read(at(1), |groups, _| committed_offset(groups));
        assert_eq!(offset, Offset(7));
        serving.on_high_watermark(Offset(10));
        assert!(committed.try_recv().is_err());
        serving.on_high_watermark(Offset(11));
        assert_eq!(committed.try_recv(), Ok(Ok(())));
    }

    #[test]
    fn gathered_commits_are_one_batch_and_answered_in_their_order() {
        let mut serving = serving();
        let batches = std::cell::RefCell::new(Vec::new());
        let append = |records: &[Record]| {
            batches.borrow_mut().push(records.len());
            Ok(Offset(10 + batches.borrow().iter().sum::<usize>() as i64))
        };
        let decide = |groups: &mut Groups, ticket, now| groups.decide_commit(commit(), ticket, now);
        let (mut first, is_first) = serving.gather(at(0), decide, append);
        assert!(is_first);
        let (mut second, is_first) = serving.gather(at(0), decide, append);
        assert!(!is_first);
        assert!(batches.borrow().is_empty(), "nothing is appended before the turn ends");
        serving.append_gathered(at(1), append);
        assert_eq!(*batches.borrow(), [2]);
        serving.on_high_watermark(Offset(11));
        assert!(first.try_recv().is_err(), "a batch is committed whole");
        serving.on_high_watermark(Offset(12));
        for answer in [&mut first, &mut second] {
            assert_eq!(commit_error(answer.try_recv().unwrap()), Ok(ErrorCode::None));
        }
        assert_eq!(serving.read(at(2), |groups, _| committed_offset(groups)).0, Offset(7));
    }

    #[test]
    fn other_decisions_and_time_see_what_was_gathered_before_them() {
        let mut serving = serving();
        let append = |records: &[Record]| Ok(Offset(10 + records.len() as i64));
        let decide = |groups: &mut Groups, ticket, now| groups.decide_commit(commit(), ticket, now);
        let (_first, _) = serving.gather(at(0), decide, append);
        let delete = |groups: &mut Groups, ticket, _| groups.decide_delete_groups(vec![commit().group], ticket);
        let mut deleted = serving.decide(at(0), delete, append);
        serving.on_high_watermark(Offset(20));
        match deleted.try_recv().unwrap() {
            Ok(Response::DeleteGroups(deleted)) => assert_eq!(deleted.groups[0].1, ErrorCode::None),
            other => panic!("a deletion's answer, not {other:?}"),
        }
        let (_second, _) = serving.gather(at(1), decide, append);
        serving.on_time(at(2), append);
        assert_eq!(serving.read(at(2), |groups, _| committed_offset(groups)).0, Offset(7));
    }

    #[test]
    fn gathered_commits_are_refused_together_and_unloaded_with_the_rest() {
        let mut serving = serving();
        let refuse = |_: &[Record]| Err(ErrorCode::NotEnoughReplicas);
        let decide = |groups: &mut Groups, ticket, now| groups.decide_commit(commit(), ticket, now);
        let (mut first, _) = serving.gather(at(0), decide, refuse);
        let (mut second, _) = serving.gather(at(0), decide, refuse);
        serving.append_gathered(at(0), refuse);
        serving.on_high_watermark(Offset(10));
        for answer in [&mut first, &mut second] {
            assert_eq!(commit_error(answer.try_recv().unwrap()), Ok(ErrorCode::CoordinatorNotAvailable));
        }
        assert_eq!(serving.read(at(1), |groups, _| committed_offset(groups)).0, Offset::NONE);
        let (mut third, _) = serving.gather(at(1), decide, refuse);
        serving.unload(ErrorCode::NotCoordinator, at(2));
        assert_eq!(commit_error(third.try_recv().unwrap()), Err(ErrorCode::NotCoordinator));
    }

    #[test]
    fn gathered_commits_do_not_grow_beyond_their_limit() {
        let mut serving = serving();
        let batches = std::cell::RefCell::new(Vec::new());
        let append = |records: &[Record]| {
            batches.borrow_mut().push(records.iter().map(Record::bytes_about).sum::<usize>());
            Ok(Offset(10 + batches.borrow().len() as i64))
        };
        for _ in 0..40 {
            let mut large = commit();
            large.topics[0].partitions[0].metadata = Some("m".repeat(4_000).into());
            let decide = |groups: &mut Groups, ticket, now| groups.decide_commit(large, ticket, now);
            drop(serving.gather(at(0), decide, append));
        }
        serving.append_gathered(at(0), append);
        assert!(batches.borrow().len() > 1 && batches.borrow().iter().all(|bytes| *bytes <= GATHERED_BYTES_MAX));
    }

    #[test]
    fn a_refused_append_applies_nothing_and_says_so() {
        let mut serving = serving();
        let mut answer = commit_at(&mut serving, at(0), Err(ErrorCode::NotEnoughReplicas));
        serving.on_high_watermark(Offset(10));
        assert_eq!(commit_error(answer.try_recv().unwrap()), Ok(ErrorCode::CoordinatorNotAvailable));
        let (offset, _) = serving.read(at(1), |groups, _| committed_offset(groups));
        assert_eq!(offset, Offset::NONE);
    }

    #[test]
    fn what_is_not_committed_in_time_is_not_available() {
        let mut serving = serving();
        let mut answer = commit_at(&mut serving, at(0), Ok(Offset(11)));
        assert_eq!(serving.next_deadline(), Some(MonoMillis(5_000)));
        serving.on_time(at(5_000), |_| panic!("nothing to append"));
        assert_eq!(commit_error(answer.try_recv().unwrap()), Err(ErrorCode::CoordinatorNotAvailable));
    }

    #[test]
    fn unloading_answers_parked_and_waiting_alike() {
        let mut serving = serving();
        let mut parked = commit_at(&mut serving, at(0), Ok(Offset(11)));
        let join = JoinRequest {
            group: GroupId::new("h").unwrap(),
            member_id: MemberId::unknown(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: Some(10_000),
            protocol_type: "consumer".into(),
            protocols: vec![Protocol { name: "range".into(), metadata: bytes::Bytes::new() }],
            requires_known_member_id: false,
            supports_skipping_assignment: false,
        };
        let decide = |groups: &mut Groups, ticket, now| groups.decide_join(join, ticket, Uuid::ZERO, now);
        let mut waiting = serving.decide(at(1), decide, |_| panic!("nothing to append"));
        serving.unload(ErrorCode::NotCoordinator, at(2));
        assert_eq!(commit_error(parked.try_recv().unwrap()), Err(ErrorCode::NotCoordinator));
        match waiting.try_recv().unwrap() {
            Ok(Response::Join(join)) => assert_eq!(join.error, ErrorCode::NotCoordinator),
            other => panic!("a join's answer, not {other:?}"),
        }
    }
}
