//! One producer of a run: batches of random sizes to random partitions, one request at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::watch;

use super::super::history::Event;
use super::super::recorder::Recorder;
use super::super::value::{Place, write_value};
use super::{Dice, Phase, Plan};
use crate::client::batch::NewRecord;
use crate::client::producer::{Batch, Outcome, Producer};
use crate::client::{Cluster, Error, clock};

/// Partitions written to by one request, at most.
const PARTITIONS_TOGETHER: u64 = 4;

/// One producer.
#[derive(Debug)]
pub(super) struct Writer {
    number: u32,
    plan: Plan,
    recorder: Recorder,
    phases: watch::Receiver<Phase>,
    dice: Dice,
    /// Next sequence number by partition.
    next: BTreeMap<i32, u64>,
    /// Records still to be written; `None` for no end.
    left: Option<u64>,
}

impl Writer {
    pub(super) fn new(number: u32, plan: &Plan, recorder: Recorder, phases: watch::Receiver<Phase>) -> Writer {
        let producers = u64::from(plan.producers.max(1));
        // The first producers take one record more where the division leaves a rest.
        let left = plan.records.map(|records| records / producers + u64::from(u64::from(number) < records % producers));
        let dice = Dice::new(&plan.run, number);
        Writer { number, plan: plan.clone(), recorder, phases, dice, next: BTreeMap::new(), left }
    }

    pub(super) async fn run(mut self, mut cluster: Cluster) -> Result<(), Error> {
        let mut producer = Producer::new(self.plan.acks, self.plan.compression);
        while *self.phases.borrow() == Phase::Running && self.left != Some(0) && !self.recorder.is_broken() {
            let batches = self.batches();
            let ids: Vec<u64> = batches.iter().map(|(_, id)| *id).collect();
            let batches = batches.into_iter().map(|(batch, _)| batch).collect();
            match producer.send(&mut cluster, batches).await {
                Ok(outcomes) => self.settle(&ids, outcomes)?,
                Err(error) => {
                    // Without a producer id nothing has been sent.
                    ids.iter().for_each(|id| self.recorder.record(Event::Failed { id: *id, error: error.to_string() }));
                    return Err(error);
                }
            }
            // Producers that are never made to wait would starve the other tasks of this thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Makes the next batches, at most one per partition, and writes down that they will be sent.
    fn batches(&mut self) -> Vec<(Batch, u64)> {
        let partitions = self.plan.partitions as u64;
        let first = self.dice.below(partitions);
        let together = 1 + self.dice.below(PARTITIONS_TOGETHER.min(partitions));
        let mut batches = Vec::new();
        for offset in 0..together {
            let wanted = 1 + self.dice.below(u64::from(self.plan.batch_records_max));
            let count = self.left.map_or(wanted, |left| wanted.min(left));
            if count > 0 {
                self.left = self.left.map(|left| left - count);
                batches.push(self.batch(((first + offset) % partitions) as i32, count));
            }
        }
        batches
    }

    fn batch(&mut self, partition: i32, count: u64) -> (Batch, u64) {
        let next = self.next.entry(partition).or_default();
        let first = *next;
        *next += count;
        let place = Place { run: &self.plan.run, topic: &self.plan.topic, partition };
        let timestamp_ms = clock::wall_ms();
        let records = (first..first + count).map(|sequence| NewRecord {
            timestamp_ms,
            // A key of its own keeps each record should the topic be compacted.
            key: Some(Bytes::from(format!("{}/{}/{sequence}", self.plan.run, self.number))),
            value: Some(write_value(&place, self.number, sequence, self.plan.value_bytes)),
            headers: Vec::new(),
        });
        let batch = Batch { topic: self.plan.topic.clone(), partition, records: records.collect() };
        let id = self.recorder.next_batch();
        self.recorder.record(Event::Send { id, producer: self.number, partition, first, count: count as u32 });
        (batch, id)
    }

    /// Writes down how the batches fared; the error that tells of a lost cluster ends the producer.
    fn settle(&self, ids: &[u64], outcomes: Vec<Outcome>) -> Result<(), Error> {
        let mut lost = None;
        for (id, outcome) in ids.iter().copied().zip(outcomes) {
            match outcome {
                Outcome::Acked(offset) => self.recorder.record(Event::Acked { id, offset }),
                Outcome::Unanswered => {
                    self.recorder.record(Event::Unknown { id, error: "acks=0 has no answer".to_owned() });
                }
                Outcome::Failed(error) => {
                    self.recorder.record(Event::Failed { id, error: error.to_string() });
                    lost = lost.or(Some(error));
                }
                Outcome::Unknown(error) => {
                    self.recorder.record(Event::Unknown { id, error: error.to_string() });
                    lost = lost.or(Some(error));
                }
            }
        }
        match lost {
            Some(
                error @ (Error::Unreachable { .. }
                | Error::Disconnected { .. }
                | Error::Timeout { .. }
                | Error::Unsupported { .. }
                | Error::Unsendable { .. }),
            ) => Err(error),
            _ => Ok(()),
        }
    }
}
