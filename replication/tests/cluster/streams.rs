//! What a node makes of the messages of streams, and what every event ends with.

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::stream::{StreamBody, StreamMessage};
use stonelog_replication::partition::leader::Positions;
use stonelog_replication::replica::{Cut, Effect, PushPlan, Stopped, lead};
use stonelog_storage::segment::read::ReadDone;

use super::node::{Up, held};
use super::oracle::Entry;
use super::part::{Env, Out, Part, Role};
use super::steps::{cut, entries, progress, pump};
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
                    if let Some(entry) = self.directories.hosted(id).log.advance_log_start(to, ticket) {
                        self.directories.enqueue(entry);
                    }
                }
                Effect::Cut { cut: to_cut, lost } => {
                    let log = self.directories.log(id);
                    if lost.is_some() {
                        assert!(!log.is_strict(), "a strict follower loses nothing committed");
                        env.out.push(Out::Mark("relaxed replica cut below its watermark"));
                    }
                    // What lies below a leader's log start was deleted, and goes with it.
                    let (to, deleted) = match to_cut {
                        Cut::To(to) => (to, 0),
                        Cut::Reset(to) => (to, to.0),
                    };
                    let goes = |entry: &&Entry| entry.end > to.0 && entry.base >= deleted;
                    let mut going = part.shadow.values().filter(goes);
                    if let Some(entry) = going.find(|entry| env.oracle.is_committed(id, entry)) {
                        panic!("{me} cuts {id} at {to}, and {entry:?} is committed");
                    }
                    match to_cut {
                        Cut::To(to) => cut(self.directories.of_mut(id), id, to, env),
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
                Effect::Mend(plan, _) => panic!("{me} mends {plan:?}, and nothing is damaged"),
                Effect::Stop(Stopped::BelowWatermark { .. }) if env.loss_accepted => {
                    env.out.push(Out::Mark("stopped rather than cut below its watermark"));
                }
                Effect::Stop(why) => panic!("{me} stops following {id}: {why:?}"),
            }
        }
    }

    /// A read that a stream waits for.
    pub fn run_read(&mut self, me: BrokerId, env: &mut Env<'_>) {
        let Some((id, follower, stream, job)) = self.reads.pop() else { return };
        if self.directories.home(id).is_none() {
            return;
        }
        let done = job.run(&self.directories.of(id).access).expect("the disk is whole");
        let Some(Part { role: Role::Leader(leader), .. }) = self.parts.get_mut(&id) else { return };
        let Some(lead) = self.streams.get_mut(&(id, follower)).filter(|lead| lead.id() == stream) else { return };
        if let ReadDone::Damaged(hole) = &done {
            panic!("{hole:?}");
        }
        env.out.push(Out::Mark("catch-up read from disk"));
        let plan = lead.on_read(leader, self.directories.log(id), done, env.probe);
        if let PushPlan::Push(said) | PushPlan::Ask(said) | PushPlan::End(said) = plan {
            env.out.push(Out::Send(follower, said.encode()));
        }
        self.after(me, env);
    }

    /// What every event ends with: positions are taken over, streams go on, who waits is told.
    pub fn after(&mut self, me: BrokerId, env: &mut Env<'_>) {
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
                        pump(leader, log, stream, *follower, &mut self.reads, env, id);
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
                    for message in follower.say(log, false) {
                        env.out.push(Out::Send(follower.following().leader, message.encode()));
                    }
                    part.high_watermark = part.high_watermark.max(follower.high_watermark());
                    part.checked = 0;
                }
                Role::Idle => part.checked = 0,
            }
            let high_watermark = part.high_watermark;
            self.directories.hosted(id).log.set_high_watermark(high_watermark);
        }
        self.settle(env);
    }

    fn settle(&mut self, env: &mut Env<'_>) {
        use stonelog_replication::partition::{Ack, ack};
        let (parts, directories) = (&self.parts, &self.directories);
        self.waiting.retain(|waiting| {
            let id = waiting.receipt.partition;
            let Some(part) = parts.get(&id) else { return false };
            match ack::outcome(&waiting.receipt, &progress(id, part, directories.log(id))) {
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
