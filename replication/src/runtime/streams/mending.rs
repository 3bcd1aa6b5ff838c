//! Damaged segments of followers, mended one at a time on each lane: the leader sends what is damaged, the segment is
//! written anew beside the damaged one, and the next checkpoint names it instead.
//!
//! Nothing is decided here: [`crate::replica::repair`] says what is asked for, the log checks what came.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::Fault;
use stonelog_storage::compaction::repair::{RepairJob, RepairPlan};

use super::LaneStreams;
use crate::replica::Following;
use crate::runtime::cleaner::Stop;
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;
use crate::runtime::partition::{Partition, Replica};

impl LaneStreams {
    /// A follower's log has damage in it.
    pub(in crate::runtime) fn note_damaged(&self, partition: TopicPartition) {
        if self.damaged.borrow_mut().insert(partition) {
            self.work.publish();
        }
    }
}

impl Lane {
    /// Gives the next damaged follower its turn, if nobody has one or who has it is done.
    pub(super) fn pass_repair_on(&self) {
        let (streams, now) = (self.streams(), self.node().clock.mono());
        if let Some(turn) = streams.repairing.get() {
            let may_pass_on = |partition: Rc<Partition>| {
                partition.replica_mut().follower.as_mut().is_none_or(|follower| follower.may_pass_repair_on(now))
            };
            if !self.partition(turn).is_none_or(may_pass_on) {
                return;
            }
            streams.repairing.set(None);
        }
        let Some(next) = streams.damaged.borrow_mut().next(1).pop() else { return };
        let partition = self.partition(next).filter(|partition| {
            let replica = partition.replica();
            replica.follower.is_some() && !replica.log.holes().is_empty()
        });
        let Some(partition) = partition else { return streams.damaged.borrow_mut().remove(next) };
        let mut replica = partition.replica_mut();
        let Replica { follower: Some(follower), log, port, .. } = &mut *replica else { return };
        if follower.begin_repair(log, now) {
            streams.repairing.set(Some(next));
            if let Some(port) = port {
                port.mark(next);
            }
        }
    }

    /// What is damaged cannot be mended by itself, for the leader's log was compacted otherwise.
    pub(super) fn widen_damage(&self, partition: &Partition, cleaned_end: Offset) {
        tracing::warn!(partition = %partition.id(), topic = %partition.topic(), %cleaned_end,
            "what this log has compacted is fetched again with its damage: its leader's was compacted otherwise");
        partition.replica_mut().log.widen_damage(cleaned_end);
        partition.uncheckpointed.set(true);
        partition.directory().flushed.notify_one();
    }

    /// Writes a segment anew with what the leader sent.
    pub(super) fn mend(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        following: Following,
        plan: RepairPlan,
        fetched: Vec<Vec<Bytes>>,
    ) {
        let bytes: usize = fetched.iter().flatten().map(Bytes::len).sum();
        let begun = partition.replica_mut().log.begin_repair(&plan, fetched);
        match begun {
            Ok(job) => {
                tracing::info!(partition = %partition.id(), topic = %partition.topic(), ranges = ?plan.ranges, bytes,
                    "damaged offsets have been fetched again");
                let (lane, partition) = (Rc::clone(self), Rc::clone(partition));
                spawn_here(async move { lane.write_mended(partition, following, job).await });
            }
            Err(reject) => {
                tracing::error!(partition = %partition.id(), topic = %partition.topic(),
                    "what was fetched does not mend segment {:?}: {reject:?}", plan.segment);
                self.on_mended(partition, &following, false);
            }
        }
    }

    async fn write_mended(self: Rc<Self>, partition: Rc<Partition>, following: Following, job: RepairJob) {
        let directory = Arc::clone(partition.directory());
        let access = Arc::clone(&directory.access);
        // Its directory stays until the job has ended, should the log be dropped meanwhile.
        *partition.compacting.borrow_mut() = Some(Stop::default());
        let written = directory.writers.run(move || job.run(&access)).await;
        let is_mended = match &written {
            Ok(Ok(repaired)) => partition.replica_mut().log.on_repaired(repaired),
            Ok(Err(fault)) => {
                tracing::error!(partition = %partition.id(), "a damaged segment cannot be written anew: {fault}");
                // What fails to be written or synced ends the directory, as everywhere (rule 8).
                if matches!(fault, Fault::Io { .. }) && !fault.is_temporary() && !partition.replica().log.is_gone() {
                    self.node().take_offline(&directory, fault);
                }
                false
            }
            Err(_) => return,
        };
        if let (Ok(Ok(repaired)), false) = (&written, is_mended) {
            let (access, leftover) = (Arc::clone(&directory.access), repaired.leftover());
            if let Ok(Err(fault)) = directory.writers.run(move || leftover.run(&access)).await {
                self.node().take_offline(&directory, &fault);
            }
        }
        *partition.compacting.borrow_mut() = None;
        partition.replica_mut().log.on_repair_ended();
        if let Ok(Err(fault)) = &written {
            self.survey_at(&partition, fault).await;
        }
        partition.uncheckpointed.set(true);
        directory.flushed.notify_one();
        self.on_mended(&partition, &following, is_mended);
        // Its leader hears that it is whole.
        partition.publish();
    }

    fn on_mended(&self, partition: &Partition, following: &Following, is_mended: bool) {
        let now = self.node().clock.mono();
        if let Some(follower) = &mut partition.replica_mut().follower
            && follower.following() == following
        {
            follower.on_mended(is_mended, now);
        }
        if is_mended {
            tracing::info!(partition = %partition.id(), topic = %partition.topic(), "a damaged segment is whole again");
        }
    }
}
