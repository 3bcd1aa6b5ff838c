//! What a lane does about damage that a read or the scrub met: one look at the whole segment, then quarantine.
//!
//! Recovery finds damage to the journal and missing files by itself; this is for bytes that go bad, or are first read,
//! while the broker runs. The range answers CORRUPT_MESSAGE from then on and everything beside it is served.

use std::rc::Rc;
use std::sync::Arc;

use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::Fault;
use stonelog_storage::holes::Hole;
use stonelog_storage::segment::SegmentId;

use super::lane::Lane;
use super::partition::Partition;

impl Lane {
    /// Looks at the segment in which a read met `fault`, if it was damage. Whether anything is known now that was not
    /// before, so that the read is worth trying again.
    pub(super) async fn survey_at(self: &Rc<Self>, partition: &Rc<Partition>, fault: &Fault) -> bool {
        let Fault::Damage { path, .. } = fault else { return false };
        match SegmentId::of_log(path).filter(|id| id.partition == partition.id()) {
            Some(id) => self.survey(partition, id.base).await,
            None => false,
        }
    }

    /// Looks at the whole segment that holds `offset` and quarantines what is damaged in it, or writes checksums anew
    /// that were wrong over bytes that are right. Whether anything changed. One look at a time for each partition.
    pub(super) async fn survey(self: &Rc<Self>, partition: &Rc<Partition>, offset: Offset) -> bool {
        let Some(job) = partition.replica().log.plan_survey(offset) else { return false };
        if partition.surveying.replace(true) {
            return false;
        }
        let directory = Arc::clone(partition.directory());
        let access = Arc::clone(&directory.access);
        let done = directory.readers.run(move || job.run(&access)).await;
        partition.surveying.set(false);
        let surveyed = match done {
            Ok(Ok(surveyed)) => surveyed,
            Ok(Err(fault)) => {
                tracing::error!(partition = %partition.id(), "cannot look for damage: {fault}");
                return false;
            }
            Err(_) => return false,
        };
        if surveyed.sums_rewritten > 0 {
            let blocks = surveyed.sums_rewritten;
            tracing::warn!(partition = %partition.id(), blocks, "checksums were damaged and have been written anew");
        }
        let found = partition.replica_mut().log.on_surveyed(&surveyed);
        for hole in &found {
            tracing::error!(partition = %partition.id(), topic = %partition.topic(), "quarantined: {hole}");
        }
        if !found.is_empty() {
            if partition.replica().follower.is_some() {
                self.streams().note_damaged(partition.id());
            }
            // Its leader hears of it.
            partition.publish();
            partition.uncheckpointed.set(true);
            directory.flushed.notify_one();
        }
        surveyed.sums_rewritten > 0 || !found.is_empty()
    }

    /// The holes of one replica on this lane, rising; `None` when it is not here.
    pub fn holes(&self, id: TopicPartition) -> Option<Vec<Hole>> {
        self.partition(id).map(|partition| partition.replica().log.holes().to_vec())
    }

    /// For the scrub: a background read found bytes of the segment that holds `offset` damaged. Returns the partition's
    /// holes after a look at it.
    pub async fn survey_segment(self: Rc<Self>, id: TopicPartition, offset: Offset) -> Vec<Hole> {
        if let Some(partition) = self.partition(id) {
            self.survey(&partition, offset).await;
        }
        self.holes(id).unwrap_or_default()
    }
}
