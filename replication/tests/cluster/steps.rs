//! The pieces of a node's steps that need no node.

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::peer::stream::StreamId;
use stonelog_protocol::{BrokerId, Offset, TopicPartition};
use stonelog_replication::controller::ControllerRequest;
use stonelog_replication::partition::{Leader, Leadership};
use stonelog_replication::progress::{Progress, Role as Doing};
use stonelog_replication::replica::{LeadStream, PushPlan};
use stonelog_storage::log::{Log, Read, Truncation};
use stonelog_storage::segment::read::ReadJob;

use super::metadata_log::Asked;
use super::node::{Env, Node, Out, Part, Role};
use super::oracle::{Entry, Shadow};
use super::process::Process;

/// Pushes what one follower has credit for, and tells it what moved.
pub fn pump(
    leader: &mut Leader,
    log: &Log,
    stream: &mut LeadStream,
    follower: BrokerId,
    reads: &mut Vec<(TopicPartition, BrokerId, StreamId, ReadJob)>,
    env: &mut Env<'_>,
    id: TopicPartition,
) {
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
                reads.push((id, follower, stream.id(), job));
                env.out.push(Out::Read);
                break;
            }
            PushPlan::End(close) => {
                env.out.push(Out::Send(follower, close.encode()));
                break;
            }
        }
    }
    if let Some(news) = stream.news(leader, log, env.probe) {
        env.out.push(Out::Send(follower, news.encode()));
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
    }
}

/// Cuts a log, in memory or into its segments.
pub fn cut(process: &mut Process, id: TopicPartition, to: Offset, env: &mut Env<'_>) {
    let ticket = process.ticket(id);
    loop {
        match process.hosted(id).log.truncate_to(to, ticket) {
            Truncation::Nothing => return,
            Truncation::Done(entry) => {
                env.out.push(Out::Mark("cut in memory"));
                return process.enqueue(entry);
            }
            Truncation::Rebuild(job) => {
                let rebuilt = job.run(&process.access).expect("the disk is whole");
                if let Some(entry) = process.hosted(id).log.truncate_into_segments(rebuilt, ticket) {
                    env.out.push(Out::Mark("cut into segments"));
                    return process.enqueue(entry);
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

/// Everything a log holds, by reading it.
pub fn read_all(process: &mut Process, id: TopicPartition) -> Shadow {
    let mut shadow = Shadow::new();
    let (mut from, end) = (process.log(id).log_start(), process.log(id).log_end());
    while from < end {
        let read: Read = process.log(id).read(from, end, 1 << 20, true);
        let pieces = process.run_read(read).expect("the disk is whole").expect("nothing moves meanwhile");
        let before = from;
        for entry in pieces.iter().flat_map(entries) {
            from = Offset(entry.end);
            shadow.insert(entry.base, entry);
        }
        assert!(from > before, "{id} cannot be read from {before} to {end}");
    }
    shadow
}

/// Asks in the name of a node.
pub fn asked(node: &Node, request: ControllerRequest, number: u64) -> Asked {
    Asked { from: node.id, life: node.lives, number, request }
}
