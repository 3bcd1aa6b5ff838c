//! A replica on its node, and what a step is given and gives back.

use std::time::Instant;

use bytes::Bytes;
use stonelog_protocol::peer::stream::{Stamps, StreamId};
use stonelog_protocol::{BrokerId, LeaderEpoch, Offset};
use stonelog_replication::controller::ControllerRequest;
use stonelog_replication::partition::{Leader, Receipt};
use stonelog_replication::replica::{Follower, Following};
use stonelog_storage::compaction::repair::RepairJob;
use stonelog_storage::segment::read::ReadJob;

use super::options::Options;
use super::oracle::{Oracle, Shadow};

/// A batch whose producer waits.
pub struct Waiting {
    pub receipt: Receipt,
    pub base: i64,
    pub crc: u32,
}

/// A replica.
pub struct Part {
    pub role: Role,
    pub leader_epoch: LeaderEpoch,
    pub high_watermark: Offset,
    pub shadow: Shadow,
    pub min_isr: usize,
    /// What the image says waits for a truncation to be durable.
    pub deferred: bool,
    /// Up to where the oracle has heard what this leader committed.
    pub checked: i64,
}

/// What waits for a disk.
pub enum Work {
    /// A read for a follower's next push, or for what it lacks by the number of its request.
    Read { follower: BrokerId, stream: StreamId, stamps: Stamps, fills: Option<u64>, job: ReadJob },
    /// A segment to be written anew, with what was fetched for it.
    Mend { following: Following, job: RepairJob },
}

/// What it does.
pub enum Role {
    Idle,
    Leader(Box<Leader>),
    Follower(Box<Follower>),
}

/// What a step wants of the world.
pub enum Out {
    Send(BrokerId, Bytes),
    Ask(ControllerRequest, u64),
    Read,
    /// The process ends, and begins anew.
    Die,
    Mark(&'static str),
}

/// What a step may use.
pub struct Env<'a> {
    pub oracle: &'a mut Oracle,
    pub out: Vec<Out>,
    pub now: u64,
    pub moment: Instant,
    pub rules: &'a stonelog_replication::controller::SettingsRules,
    pub options: &'a Options,
    pub probe: u64,
    /// The strict topics in truth.
    pub strict: &'a std::collections::BTreeSet<stonelog_protocol::TopicId>,
    /// The metadata in truth.
    pub truth: &'a std::sync::Arc<stonelog_replication::metadata::MetadataImage>,
    /// Random.
    pub dice: u64,
    /// Somebody has accepted that committed records are lost.
    pub loss_accepted: bool,
}
