//! The pieces of a node's steps that need no node.

use std::collections::BTreeMap;

use bytes::Bytes;
use stonelog_protocol::batch::{BatchHeader, crc_matches};
use stonelog_protocol::peer::stream::StreamBody;
use stonelog_protocol::{BrokerId, Offset, TopicPartition};
use stonelog_replication::controller::ControllerRequest;
use stonelog_replication::partition::{Leader, Leadership};
use stonelog_replication::progress::{Progress, Role as Doing};
use stonelog_replication::replica::{Follower, LeadStream, PushPlan};
use stonelog_storage::Fault;
use stonelog_storage::holes::Hole;
use stonelog_storage::log::{Log, Read, Truncation};
use stonelog_storage::segment::SegmentId;
use stonelog_storage::segment::read::ReadDone;

use super::metadata_log::Asked;
use super::node::{Env, Node, Out, Part, Role, Work, held};
use super::oracle::{Entry, Shadow};
use super::process::Process;

/// Pushes what one follower has credit for, sends what it lacks, and tells it what moved. Whether the stream goes on.
pub fn pump(
    leader: &mut Leader,
    log: &Log,
    stream: &mut LeadStream,
    follower: BrokerId,
    works: &mut Vec<(TopicPartition, Work)>,
    env: &mut Env<'_>,
    id: TopicPartition,
) -> bool {
    let read = |stream: &LeadStream, fills, job| {
        (id, Work::Read { follower, stream: stream.id(), stamps: *stream.stamps(), fills, job })
    };
    loop {
        match stream.plan(leader, log, env.probe) {
            PushPlan::Nothing => break,
            PushPlan::Push(push) => env.out.push(Out::Send(follower, push.encode())),
            PushPlan::Ask(asks) => {
                env.out.push(Out::Mark("credit asked for"));
                env.out.push(Out::Send(follower, asks.encode()));
            }
            PushPlan::Stuck(bytes) => panic!("{id} has a batch of {bytes} bytes"),
            PushPlan::Read(job) => {
                works.push(read(stream, None, job));
                env.out.push(Out::Read);
                break;
            }
            PushPlan::End(close) => {
                env.out.push(Out::Send(follower, close.encode()));
                return false;
            }
        }
    }
    loop {
        match stream.plan_filling(log) {
            PushPlan::Push(filled) => env.out.push(Out::Send(follower, filled.encode())),
            PushPlan::Read(job) => {
                let number = stream.is_read_for();
                works.push(read(stream, number, job));
                env.out.push(Out::Read);
                break;
            }
            PushPlan::Nothing | PushPlan::Ask(_) | PushPlan::Stuck(_) | PushPlan::End(_) => break,
        }
    }
    if let Some(news) = stream.news(leader, log, env.probe) {
        env.out.push(Out::Send(follower, news.encode()));
    }
    true
}

/// What a follower has for its leader.
pub fn say(follower: &mut Follower, log: &Log, paid: &mut BTreeMap<TopicPartition, i64>, env: &mut Env<'_>) {
    let following = *follower.following();
    for message in follower.say(log, false) {
        if let StreamBody::Credit(bytes) = &message.body {
            *paid.entry(following.partition).or_default() += i64::from(*bytes);
        }
        env.out.push(Out::Send(following.leader, message.encode()));
    }
}

/// What a partition publishes.
pub fn progress(id: TopicPartition, part: &Part, log: &Log) -> Progress {
    let leadership = match &part.role {
        Role::Leader(leader) => Some(leader.leadership()),
        Role::Follower(_) | Role::Idle => None,
    };
    Progress {
        partition: id,
        generation: log.key().generation,
        role: if leadership.is_some() { Doing::Leader } else { Doing::Follower },
        leader_epoch: part.leader_epoch,
        log_start_offset: log.log_start(),
        written: log.written(),
        durable: log.durable(),
        log_end_offset: log.log_end(),
        high_watermark: part.high_watermark,
        last_stable_offset: part.high_watermark,
        isr_size: leadership.map_or(0, Leadership::isr_size),
        min_isr: part.min_isr,
        strict: log.is_strict(),
        serves_as_follower: false,
    }
}

/// Cuts a log, in memory or into its segments.
/// Not where damage is in the way.
pub fn cut(process: &mut Process, id: TopicPartition, to: Offset, env: &mut Env<'_>) -> bool {
    let ticket = process.ticket(id);
    loop {
        match process.hosted(id).log.truncate_to(to, ticket) {
            Truncation::Nothing => return true,
            Truncation::Done(entry) => {
                env.out.push(Out::Mark("cut in memory"));
                process.enqueue(entry);
                return true;
            }
            Truncation::Rebuild(job) => {
                let rebuilt = match job.run(&process.access) {
                    Ok(rebuilt) => rebuilt,
                    Err(fault) => {
                        env.out.push(Out::Mark("cut fails for damage"));
                        survey_at(process, id, &fault, env);
                        return false;
                    }
                };
                if let Some(entry) = process.hosted(id).log.truncate_into_segments(rebuilt, ticket) {
                    env.out.push(Out::Mark("cut into segments"));
                    process.enqueue(entry);
                    return true;
                }
            }
        }
    }
}

/// The batches that lie one after the other in these bytes.
pub fn entries(bytes: &Bytes) -> Vec<Entry> {
    let mut at = 0;
    let mut found = Vec::new();
    while at < bytes.len() {
        let header = BatchHeader::read(&bytes[at..]).expect("whole batches");
        let (base, end) = (header.base_offset.0, header.next_offset().0);
        found.push(Entry { base, end, epoch: header.leader_epoch, crc: header.crc });
        at += header.batch_bytes;
    }
    found
}

/// What a read came to.
pub enum Found {
    Batches(Vec<Entry>),
    /// Nothing before a hole.
    Damaged(Hole),
}

/// Reads some batches. Each byte of them is as it was written; damage is looked at, as a lane does.
pub fn read_some(
    process: &mut Process,
    id: TopicPartition,
    from: Offset,
    end: Offset,
    bytes_max: usize,
    env: &mut Env<'_>,
) -> Found {
    loop {
        let batches = match process.log(id).read(from, end, bytes_max, true) {
            Read::Damaged(hole) => return Found::Damaged(hole),
            Read::Ready(batches, _) => batches,
            Read::Job(job) => match job.run(&process.access) {
                Ok(ReadDone::Batches { batches, .. }) => batches,
                Ok(ReadDone::Damaged(hole)) => return Found::Damaged(hole),
                Ok(ReadDone::Moved) => panic!("nothing moves meanwhile"),
                Err(fault) => {
                    assert!(survey_at(process, id, &fault, env), "{id} at {from}: {fault}");
                    continue;
                }
            },
            Read::Empty | Read::OutOfRange => Vec::new(),
        };
        let entries: Vec<Entry> = batches.iter().flat_map(entries).collect();
        for entry in &entries {
            held(env.oracle.on_read(id, entry));
        }
        assert!(batches.iter().all(is_intact), "{id} serves a wrong byte behind {from}");
        return Found::Batches(entries);
    }
}

fn is_intact(bytes: &Bytes) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let header = BatchHeader::read(&bytes[at..]).expect("whole batches");
        if !crc_matches(&bytes[at..at + header.batch_bytes]) {
            return false;
        }
        at += header.batch_bytes;
    }
    true
}

/// Everything a log holds, by reading it; in the place of what is damaged what is committed there in the log's epochs.
pub fn read_all(process: &mut Process, id: TopicPartition, env: &mut Env<'_>) -> Shadow {
    let mut shadow = Shadow::new();
    let (mut from, end) = (process.log(id).log_start(), process.log(id).log_end());
    while from < end {
        let before = from;
        match read_some(process, id, from, end, 1 << 20, env) {
            Found::Batches(entries) => {
                for entry in entries {
                    from = Offset(entry.end);
                    shadow.insert(entry.base, entry);
                }
            }
            Found::Damaged(hole) => {
                from = hole.end;
                let epochs = process.log(id).epochs();
                let was_there = |entry: &Entry| epochs.epoch_at(Offset(entry.base)) == Some(entry.epoch);
                let lost = env.oracle.committed_between(id, hole.start.0, hole.end.0).filter(was_there);
                shadow.extend(lost.map(|entry| (entry.base, entry)));
            }
        }
        assert!(from > before, "{id} cannot be read from {before} to {end}");
    }
    shadow
}

/// Looks at the segment that holds an offset; whether anything is known now that was not before.
pub fn survey(process: &mut Process, id: TopicPartition, offset: Offset, env: &mut Env<'_>) -> bool {
    let Some(job) = process.log(id).plan_survey(offset) else { return false };
    let surveyed = job.run(&process.access).expect("the disk answers");
    let hosted = process.hosted(id);
    let is_new = !hosted.log.on_surveyed(&surveyed).is_empty();
    hosted.uncheckpointed |= is_new;
    if is_new {
        env.out.push(Out::Mark("damage found in a segment"));
    }
    is_new || surveyed.sums_rewritten > 0
}

/// Looks at where a job met damage.
pub fn survey_at(process: &mut Process, id: TopicPartition, fault: &Fault, env: &mut Env<'_>) -> bool {
    let Fault::Damage { path, .. } = fault else { panic!("{id}: {fault}") };
    let segment = SegmentId::of_log(path).filter(|segment| segment.partition == id);
    segment.is_some_and(|segment| survey(process, id, segment.base, env))
}

/// Asks in the name of a node.
pub fn asked(node: &Node, request: ControllerRequest, number: u64) -> Asked {
    Asked { from: node.id, life: node.lives, number, request }
}
