//! Producers and group members that load a cluster and write down everything they ask and hear.
//!
//! Everything runs as tasks of one thread. Requests are tried again through disconnects and restarts for as long as the
//! client settings say; a task whose patience is over ends the run with what it last heard.

mod member;
mod producer;

use std::time::Duration;

use stonelog_protocol::batch::Compression;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::history::Event;
use super::recorder::Recorder;
use crate::client::producer::Acks;
use crate::client::{Cluster, Error, Settings};
use member::Member;
use producer::Writer;

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Identifier of the run.
    pub run: String,
    /// Topic to write to and read from; it exists.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Producers that write at the same time.
    pub producers: u32,
    /// Names of consumer groups that read at the same time.
    pub groups: Vec<String>,
    /// Members of each group; the later ones come and go.
    pub members: u32,
    /// Records after which the producers stop; `None` to go on until told.
    pub records: Option<u64>,
    /// Most records in one batch.
    pub batch_records_max: u32,
    /// Size of a value, in bytes.
    pub value_bytes: usize,
    /// Acknowledgements to wait for.
    pub acks: Acks,
    /// Codec of batches.
    pub compression: Compression,
    /// How long groups may take to reach the end once nothing is written any more.
    pub drain: Duration,
}

/// What tasks share about the course of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Producers write, groups read.
    Running,
    /// Producers finish what they have in flight.
    Stopping,
    /// Nothing is written any more; groups read up to the end.
    Draining,
}

/// Runs `plan` until its records are written or `stop` turns true, then lets the groups read to the end.
///
/// An error means that the cluster was out of reach for longer than the settings' patience, or refused what a run
/// cannot do without; the history holds everything up to then.
pub async fn run_workload(
    plan: &Plan,
    settings: &Settings,
    recorder: &Recorder,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let (phase, phases) = watch::channel(Phase::Running);
    let mut producers = JoinSet::new();
    for number in 0..plan.producers {
        let writer = Writer::new(number, plan, recorder.clone(), phases.clone());
        producers.spawn_local(writer.run(Cluster::new(settings.clone())));
    }
    let mut members = JoinSet::new();
    for group in &plan.groups {
        for number in 0..plan.members {
            let member = Member::new(group, number, plan, recorder.clone(), phases.clone());
            members.spawn_local(member.run(Cluster::new(settings.clone())));
        }
    }
    let mut outcome = Ok(());
    let mut stop_is_open = true;
    while !producers.is_empty() {
        tokio::select! {
            Some(ended) = producers.join_next() => {
                outcome = outcome.and(flatten(ended));
                if outcome.is_err() {
                    phase.send_replace(Phase::Stopping);
                }
            }
            changed = stop.changed(), if stop_is_open => {
                stop_is_open = changed.is_ok();
                phase.send_replace(Phase::Stopping);
            }
        }
    }
    phase.send_replace(Phase::Draining);
    while let Some(ended) = members.join_next().await {
        outcome = outcome.and(flatten(ended).map(|drained| {
            recorder.record(Event::Drained { group: drained.group, complete: drained.complete });
        }));
    }
    outcome
}

/// A task that panicked has found a bug of ours: pass it on.
fn flatten<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    match ended {
        Ok(outcome) => outcome,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Numbers that look random and follow from a seed, so that two runs with the same identifier behave alike.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(run: &str, number: u32) -> Dice {
        let seed =
            run.bytes().fold(u64::from(number) + 1, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
