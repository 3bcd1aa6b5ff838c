//! One member of a consumer group of a run: reads, commits, and, unless it is the first, comes and goes.

use std::time::{Duration, Instant};

use stonelog_protocol::ErrorCode;
use tokio::sync::watch;

use super::super::history::Event;
use super::super::observe::observe;
use super::super::recorder::Recorder;
use super::{Dice, Phase, Plan};
use crate::client::fetcher::Fetched;
use crate::client::group_admin::Committed;
use crate::client::group_consumer::{GroupConsumer, Polled};
use crate::client::offsets::At;
use crate::client::{Cluster, Error, clock};

const POLL_WAIT: Duration = Duration::from_millis(200);
const COMMIT_INTERVAL: Duration = Duration::from_millis(300);
/// A member other than the first stays at least so long, and at most twice that.
const STAY: Duration = Duration::from_secs(8);

/// How a member's reading ended.
#[derive(Debug)]
pub(super) struct Drained {
    pub(super) group: String,
    /// Whether everything assigned to it was read to the end.
    pub(super) complete: bool,
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    group: String,
    number: u32,
    plan: Plan,
    recorder: Recorder,
    phases: watch::Receiver<Phase>,
    dice: Dice,
    /// What was read and not committed yet.
    read: Committed,
}

impl Member {
    pub(super) fn new(
        group: &str,
        number: u32,
        plan: &Plan,
        recorder: Recorder,
        phases: watch::Receiver<Phase>,
    ) -> Member {
        let dice = Dice::new(group, number);
        Member { group: group.to_owned(), number, plan: plan.clone(), recorder, phases, dice, read: Committed::new() }
    }

    pub(super) async fn run(mut self, mut cluster: Cluster) -> Result<Drained, Error> {
        loop {
            let mut consumer = GroupConsumer::new(&self.group, std::slice::from_ref(&self.plan.topic), At::Start);
            let drained = self.stay(&mut cluster, &mut consumer).await;
            // A leave that fails is of no consequence: the session expires instead.
            let _ = consumer.leave(&mut cluster).await;
            if let Some(complete) = drained? {
                return Ok(Drained { group: self.group, complete });
            }
        }
    }

    /// Reads until it is time to come and go (`None`) or until the run ends.
    async fn stay(&mut self, cluster: &mut Cluster, consumer: &mut GroupConsumer) -> Result<Option<bool>, Error> {
        let until = (self.number > 0)
            .then(|| clock::now() + STAY + Duration::from_millis(self.dice.below(STAY.as_millis() as u64)));
        let mut committed_at = clock::now();
        let mut ends: Option<(Committed, Instant)> = None;
        loop {
            match consumer.poll(cluster, POLL_WAIT).await {
                Ok(Polled::Joined { generation, positions, committed }) => {
                    self.read.clear();
                    let flat = |offsets: &Committed| offsets.iter().map(|((_, index), at)| (*index, *at)).collect();
                    self.recorder.record(Event::Joined {
                        group: self.group.clone(),
                        member: self.number,
                        generation,
                        positions: flat(&positions),
                        committed: flat(&committed),
                    });
                }
                Ok(Polled::Rebalancing) => self.commit(cluster, consumer).await?,
                Ok(Polled::Records(fetched)) => self.take(&fetched),
                Err(error) if error.code() == Some(ErrorCode::OffsetOutOfRange) => {
                    self.reposition(cluster, consumer).await?;
                }
                Err(error) => return Err(error),
            }
            if committed_at.elapsed() >= COMMIT_INTERVAL {
                self.commit(cluster, consumer).await?;
                committed_at = clock::now();
            }
            let draining = *self.phases.borrow() == Phase::Draining || self.recorder.is_broken();
            if draining {
                if ends.is_none() {
                    let bounds = cluster.bounds(&self.plan.topic).await?;
                    let found = bounds.into_iter().map(|(index, (_, end))| ((self.plan.topic.clone(), index), end));
                    ends = Some((found.collect(), clock::now() + self.plan.drain));
                }
                let Some((ends, deadline)) = &ends else { continue };
                let complete = consumer.is_member() && consumer.positions().iter().all(|(key, at)| at >= &ends[key]);
                if complete || clock::now() >= *deadline {
                    self.commit(cluster, consumer).await?;
                    return Ok(Some(complete));
                }
            } else if until.is_some_and(|until| clock::now() >= until) {
                self.commit(cluster, consumer).await?;
                return Ok(None);
            }
        }
    }

    fn take(&mut self, fetched: &[Fetched]) {
        for Fetched { topic, partition, records, .. } in fetched {
            let Some(last) = records.last() else { continue };
            let (runs, others) = observe(&self.plan.run, topic, *partition, records);
            self.recorder.record(Event::Polled {
                group: self.group.clone(),
                member: self.number,
                partition: *partition,
                runs,
                others,
            });
            self.read.insert((topic.clone(), *partition), last.offset + 1);
        }
    }

    /// Commits what was read, once; the outcome is written down, and only an error that no time heals ends the member.
    async fn commit(&mut self, cluster: &mut Cluster, consumer: &mut GroupConsumer) -> Result<(), Error> {
        if self.read.is_empty() || !consumer.is_member() {
            return Ok(());
        }
        let offsets = self.read.iter().map(|((_, partition), offset)| (*partition, *offset)).collect();
        let id = self.recorder.next_commit();
        self.recorder.record(Event::CommitAsked { id, group: self.group.clone(), offsets });
        match consumer.commit(cluster, &self.read).await {
            Ok(()) => {
                self.recorder.record(Event::CommitAcked { id });
                self.read.clear();
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                self.recorder.record(if error.may_have_acted() || error.is_retriable() {
                    Event::CommitUnknown { id, error: text }
                } else {
                    Event::CommitFailed { id, error: text }
                });
                match error.code() {
                    _ if error.is_retriable() => Ok(()),
                    Some(
                        ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId,
                    ) => Ok(()),
                    _ => Err(error),
                }
            }
        }
    }

    /// Goes back into the logs where a position lies outside: what was read there is the checker's concern.
    async fn reposition(&mut self, cluster: &mut Cluster, consumer: &mut GroupConsumer) -> Result<(), Error> {
        let bounds = cluster.bounds(&self.plan.topic).await?;
        let positions = consumer.positions().clone();
        for ((topic, partition), position) in positions {
            let Some((start, end)) = bounds.get(&partition) else { continue };
            if !(*start..=*end).contains(&position) {
                let position = position.clamp(*start, *end);
                consumer.seek(&topic, partition, position);
                let (group, member) = (self.group.clone(), self.number);
                self.recorder.record(Event::Repositioned { group, member, partition, position });
            }
        }
        Ok(())
    }
}
