//! What a node makes of the messages of streams, and what every event ends with.

use stonelog_protocol::peer::stream::{Stamps, StreamBody, StreamId, StreamMessage};
use stonelog_protocol::{BrokerId, Offset, TopicPartition};
use stonelog_replication::partition::leader::Positions;
use stonelog_replication::progress::Progress;
use stonelog_replication::replica::{Cut, Effect, Following, LeadStream, PushPlan, Stopped, lead};
use stonelog_storage::compaction::repair::RepairJob;
use stonelog_storage::segment::read::{ReadDone, ReadJob};

use super::node::{Up, held};
use super::oracle::Entry;
use super::part::{Env, Out, Part, Role, Work};
use super::steps::{cut, entries, progress, pump, say, survey_at};
use crate::support::NOW;

impl Up {
    /// A message to this node as leader.
    pub(super) fn on_follower(&mut self, from: BrokerId, message: &StreamMessage, env: &mut Env<'_>) {
        let id = message.stamps.partition;
        let Some(Part { role: Role::Leader(leader), .. }) = self.parts.get_mut(&id) else {
            if matches!(message.body, StreamBody::Open(_)) {
                let refused = StreamBody::Refused(stonelog_protocol::peer::stream::Refusal::NotLeader);
                let answer = StreamMessage { stream: message.stream, stamps: message.stamps, body: refused };
                env.out.push(Out::Send(from, answer.encode()));
            }
            return;
        };
        match &message.body {
            StreamBody::Open(open) => {
                let log = self.directories.log(id);
                let opening = lead::open(leader, log, (message.stream, message.stamps), open, env.moment);
                env.out.push(Out::Mark(match opening.answer.body {
                    StreamBody::Opened(_) => "stream opened",
                    StreamBody::Diverging(_) => "histories parted",
                    _ => "stream refused",
                }));
                env.out.push(Out::Send(from, opening.answer.encode()));
                if let Some(stream) = opening.stream {
                    self.streams.insert((id, from), stream);
                }
            }
            StreamBody::Report(report) => {
                if leader.on_report(message.stream, &message.stamps, report, env.moment).is_err() {
                    env.out.push(Out::Mark("report fenced"));
                    let close = StreamMessage { body: StreamBody::Close, ..message.clone() };
                    env.out.push(Out::Send(from, close.encode()));
                }
            }
            StreamBody::Credit(bytes) => {
                if let Some(stream) = self.streams.get_mut(&(id, from)).filter(|stream| stream.is_of(message)) {
                    stream.on_credit(*bytes);
                }
            }
            StreamBody::Repair(wanted) => {
                if let Some(stream) = self.streams.get_mut(&(id, from)).filter(|stream| stream.is_of(message)) {
                    stream.on_lacking(*wanted);
                }
            }
            StreamBody::Close => {
                leader.on_closed(message.stream, &message.stamps);
                if self.streams.get(&(id, from)).is_some_and(|stream| stream.is_of(message)) {
                    self.streams.remove(&(id, from));
                }
            }
            _ => unreachable!("sorted out before"),
        }
    }

    /// A message to this node as follower.
    pub(super) fn on_leader(&mut self, me: BrokerId, message: &StreamMessage, env: &mut Env<'_>) {
        let id = message.stamps.partition;
        let Some(part) = self.parts.get_mut(&id) else { return };
        let Role::Follower(follower) = &mut part.role else { return };
        let effects = follower.on_message(message, self.directories.log(id), env.moment);
        for effect in effects {
            match effect {
                Effect::Append(batches) => {
                    let ticket = self.directories.ticket(id);
                    let epoch = follower.following().leader_epoch;
                    let bytes = u32::try_from(batches.len()).expect("small");
                    let paid = self.paid.entry(id).or_default();
                    *paid -= i64::from(bytes);
                    assert!(*paid >= 0, "{me} keeps {} bytes of {id} beyond the credit it gave", -*paid);
                    match self.directories.hosted(id).log.append_as_follower(batches.clone(), epoch, NOW, ticket) {
                        Ok(entry) => {
                            for entry in entries(&batches) {
                                held(env.oracle.on_appended(id, entry));
                                part.shadow.insert(entry.base, entry);
                            }
                            self.directories.enqueue(entry);
                            follower.on_appended(Ok(bytes), self.directories.log(id), env.moment);
                        }
                        Err(reject) => panic!("{me} cannot append to {id}: {reject:?}"),
                    }
                }
                Effect::AdvanceLogStart(to) => {
                    let ticket = self.directories.ticket(id);
                    let log = &mut self.directories.hosted(id).log;
                    if let Some(entry) = log.advance_log_start(to.min(log.log_end()), ticket) {
                        self.directories.enqueue(entry);
                    }
                }
                Effect::Cut { cut: to_cut, lost } => {
                    let log = self.directories.log(id);
                    if let Some((to, high_watermark)) = lost {
                        let keeps = to >= log.promised_below(high_watermark);
                        assert!(!log.is_strict() || keeps, "a strict follower loses nothing that was promised");
                        env.out.push(Out::Mark("relaxed replica cut below its watermark"));
                    }
                    // What lies below a leader's log start was deleted, and goes with it.
                    let (to, deleted) = match to_cut {
                        Cut::To(to) => (to, 0),
                        Cut::Reset(to) => (to, to.0),
                    };
                    let is_fetched_again = !log.holes().is_empty() && matches!(to_cut, Cut::Reset(_));
                    if is_fetched_again {
                        let now = env.truth.partition(id);
                        let counts = now.is_some_and(|now| now.isr.contains(&me) || now.elr.contains(&me));
                        assert!(!counts, "{me} drops {id}, and somebody counts on it");
                        env.out.push(Out::Mark("damaged log fetched again whole"));
                    }
                    let goes = |entry: &&Entry| entry.end > to.0 && entry.base >= deleted;
                    let mut going = part.shadow.values().filter(goes);
                    if let Some(entry) = going.find(|entry| env.oracle.is_committed(id, entry))
                        && !is_fetched_again
                    {
                        panic!("{me} cuts {id} at {to}, and {entry:?} is committed");
                    }
                    match to_cut {
                        Cut::To(to) => {
                            if !cut(self.directories.of_mut(id), id, to, env) {
                                let stopped = follower.on_cut_failed(to, env.moment);
                                assert_eq!(stopped, None, "{me} cannot cut {id}");
                                continue;
                            }
                            follower.on_cut_done();
                        }
                        Cut::Reset(to) => {
                            env.out.push(Out::Mark("reset to a later log start"));
                            let ticket = self.directories.ticket(id);
                            let entry = self.directories.hosted(id).log.reset(to, ticket);
                            self.directories.enqueue(entry);
                            part.shadow.clear();
                        }
                    }
                    let end = self.directories.log(id).log_end().0;
                    part.shadow.retain(|_, entry| entry.end <= end);
                    part.high_watermark = follower.high_watermark();
                }
                Effect::Mend(plan, fetched) => {
                    let entries: Vec<Entry> = fetched.iter().flatten().flat_map(entries).collect();
                    match self.directories.hosted(id).log.begin_repair(&plan, fetched) {
                        Ok(job) => {
                            match (plan.is_new, plan.damaged_bytes) {
                                (true, _) => env.out.push(Out::Mark("lost range mended beside the segments")),
                                (false, 0) => env.out.push(Out::Mark("lost range mended in a segment")),
                                _ => {}
                            }
                            entries.iter().for_each(|entry| held(env.oracle.on_read(id, entry)));
                            part.shadow.extend(entries.iter().map(|entry| (entry.base, *entry)));
                            self.works.push((id, Work::Mend { following: *follower.following(), job }));
                            env.out.push(Out::Read);
                        }
                        Err(_) => {
                            env.out.push(Out::Mark("repair refused"));
                            follower.on_mended(false, env.moment);
                        }
                    }
                }
                Effect::Widen(_) => panic!("nothing is compacted here"),
                Effect::Stop(Stopped::Damaged(_)) => env.out.push(Out::Mark("stopped where damage hides the parting")),
                Effect::Stop(Stopped::BelowWatermark { .. }) if env.loss_accepted => {
                    env.out.push(Out::Mark("stopped rather than cut below its watermark"));
                }
                Effect::Stop(why) => panic!("{me} stops following {id}: {why:?}"),
            }
        }
    }

    /// Something that waits for a disk has its turn.
    pub fn work(&mut self, me: BrokerId, env: &mut Env<'_>) {
        if self.works.is_empty() {
            return;
        }
        let (id, work) = self.works.swap_remove(env.dice as usize % self.works.len());
        if self.directories.home(id).is_none() {
            return;
        }
        match work {
            Work::Read { follower, stream, stamps, fills, job } => {
                self.run_read(id, follower, (stream, stamps, fills), job, env)
            }
            Work::Mend { following, job } => self.run_repair(id, following, job, env),
        }
        self.after(me, env);
    }

    fn run_read(
        &mut self,
        id: TopicPartition,
        follower: BrokerId,
        (stream, stamps, fills): (StreamId, Stamps, Option<u64>),
        job: ReadJob,
        env: &mut Env<'_>,
    ) {
        let done = match job.run(&self.directories.of(id).access) {
            Ok(done) => done,
            Err(fault) => {
                env.out.push(Out::Mark("damage met by a read for a follower"));
                survey_at(self.directories.of_mut(id), id, &fault, env);
                ReadDone::Moved
            }
        };
        let Some(Part { role: Role::Leader(leader), .. }) = self.parts.get_mut(&id) else { return };
        let is_it = |lead: &&mut LeadStream| lead.id() == stream && *lead.stamps() == stamps;
        let Some(lead) = self.streams.get_mut(&(id, follower)).filter(is_it) else { return };
        env.out.push(Out::Mark("catch-up read from disk"));
        let log = self.directories.log(id);
        let plan = match fills {
            Some(number) => lead.on_filling_read(number, done),
            None => lead.on_read(leader, log, done, env.probe),
        };
        match plan {
            PushPlan::Push(said) | PushPlan::Ask(said) => env.out.push(Out::Send(follower, said.encode())),
            PushPlan::End(close) => {
                env.out.push(Out::Send(follower, close.encode()));
                leader.on_closed(stream, &stamps);
                self.streams.remove(&(id, follower));
            }
            PushPlan::Nothing | PushPlan::Read(_) | PushPlan::Stuck(_) => {}
        }
    }

    fn run_repair(&mut self, id: TopicPartition, following: Following, job: RepairJob, env: &mut Env<'_>) {
        let process = self.directories.of_mut(id);
        if process.log(id).key() != job.replica {
            return;
        }
        let is_mended = match job.run(&process.access) {
            Ok(repaired) => process.hosted(id).log.on_repaired(&repaired),
            Err(fault) => {
                survey_at(process, id, &fault, env);
                false
            }
        };
        let hosted = process.hosted(id);
        hosted.log.on_repair_ended();
        hosted.uncheckpointed = true;
        env.out.push(Out::Mark(if is_mended { "damaged segment mended" } else { "repair came to nothing" }));
        if let Some(Part { role: Role::Follower(follower), .. }) = self.parts.get_mut(&id)
            && *follower.following() == following
        {
            follower.on_mended(is_mended, env.moment);
        }
    }

    /// What every event ends with: positions are taken over, streams go on, who waits is told.
    pub fn after(&mut self, me: BrokerId, env: &mut Env<'_>) {
        let mut ended = Vec::new();
        for id in self.parts.keys().copied().collect::<Vec<_>>() {
            if self.parts[&id].deferred && !self.directories.log(id).is_changing() {
                env.out.push(Out::Mark("leadership waited for a cut"));
                self.reconcile(me, id, env);
            }
            let part = self.parts.get_mut(&id).expect("of this list");
            let log = self.directories.log(id);
            match &mut part.role {
                Role::Leader(leader) => {
                    leader.on_own_positions(Positions { written: log.written(), durable: log.durable() });
                    for ((_, follower), stream) in self.streams.range_mut((id, BrokerId(0))..=(id, BrokerId(i32::MAX)))
                    {
                        if !pump(leader, log, stream, *follower, &mut self.works, env, id) {
                            leader.on_closed(stream.id(), stream.stamps());
                            ended.push((id, *follower));
                        }
                    }
                    assert!(leader.high_watermark() >= part.high_watermark, "the high watermark went back");
                    part.high_watermark = leader.high_watermark();
                    let passed: Vec<Entry> = part
                        .shadow
                        .range(part.checked..)
                        .map(|(_, entry)| *entry)
                        .take_while(|entry| entry.end <= part.high_watermark.0)
                        .collect();
                    if let Some(last) = passed.last() {
                        part.checked = last.end;
                        let leadership = leader.leadership();
                        let strict = leadership.strict && env.strict.contains(&id.topic_id);
                        held(env.oracle.on_committed(id, (leadership.leader_epoch, strict), &passed));
                    }
                }
                Role::Follower(follower) => {
                    say(follower, log, &mut self.paid, env);
                    part.high_watermark = part.high_watermark.max(follower.high_watermark());
                    part.checked = 0;
                    // Whether it is in sync is no matter of truth: what it shows is committed in any case.
                    if follower.may_serve(log, true) {
                        let end = follower.high_watermark().min(log.log_end());
                        check_shown(env, id, part, end);
                    }
                }
                Role::Idle => part.checked = 0,
            }
            let (high_watermark, epoch) = (part.high_watermark, part.leader_epoch);
            self.directories.hosted(id).log.set_high_watermark(high_watermark, epoch);
        }
        for stream in ended {
            self.streams.remove(&stream);
        }
        self.settle(env);
    }

    fn settle(&mut self, env: &mut Env<'_>) {
        use stonelog_replication::partition::{Ack, ack};
        if self.waiting.is_empty() {
            return;
        }
        let each = |(id, part): (&TopicPartition, &Part)| (*id, progress(*id, part, self.directories.log(*id)));
        let all: Vec<(TopicPartition, Progress)> = self.parts.iter().map(each).collect();
        self.waiting.retain(|waiting| {
            let id = waiting.receipt.partition;
            let Some((_, progress)) = all.iter().find(|(known, _)| *known == id) else { return false };
            match ack::outcome(&waiting.receipt, progress) {
                Ack::Pending => true,
                Ack::Done => {
                    held(env.oracle.on_acknowledged(id, waiting.base, waiting.crc));
                    env.out.push(Out::Mark("acknowledged"));
                    false
                }
                Ack::Failed(_) => {
                    env.out.push(Out::Mark("append failed after the fact"));
                    false
                }
            }
        });
    }
}

/// What a follower shows to consumers is committed (KIP-392): that is looked at where it ends, the rest was seen before.
/// On a relaxed topic what an earlier leader committed may be lost with it, and a follower of that one not know yet.
fn check_shown(env: &mut Env<'_>, id: TopicPartition, part: &Part, end: Offset) {
    let knows_truth = env.truth.partition(id).is_some_and(|truth| truth.leader_epoch == part.leader_epoch);
    let last = part.shadow.values().rev().find(|entry| entry.end <= end.0);
    if let Some(last) = last.filter(|_| knows_truth && env.strict.contains(&id.topic_id)) {
        let is_committed = env.oracle.is_committed(id, last);
        assert!(is_committed, "ConsistentRead: a follower of {id} shows {last:?}, which is not committed");
        env.out.push(Out::Mark("follower serves consumers"));
    }
}
