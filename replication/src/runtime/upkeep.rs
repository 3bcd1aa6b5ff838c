//! What a lane does behind the acknowledgements: segments, retention, memory.
//!
//! Nothing here runs while nothing changes: the flush loop sleeps until a partition is dirty.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stonelog_protocol::{Offset, TopicPartition};
use stonelog_storage::Fault;
use stonelog_storage::segment::flush::FlushDone;
use tokio::sync::oneshot;

use super::lane::{Lane, LaneJournal};
use super::memory::give_back_unused;
use super::partition::{Partition, Replica};
use super::space::{MEASURE_AGAIN, Room};
use crate::partition::Reject;
use crate::progress::Role;

/// Appended bytes of one partition worth writing to its segment before they are old (DESIGN §4).
const FLUSH_BYTES_MIN: u64 = 64 << 10;

/// After a round that moved nothing, the next one waits at least this long: what is wanted is not durable yet, or there
/// is no space. Without it a lane that wants room would never come to hear what became durable.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Bytes that segments do not have yet at which a round of flushes begins before its time, over all lanes: they are
/// held in memory, and more of them gain nothing.
const GATHERED_BYTES: u64 = 32 << 20;

/// So many for each partition that has some, if that is more: with many partitions their writes would be small.
const GATHERED_BYTES_EACH: u64 = 256 << 10;

/// In a round of flushes memory is looked at each time so much has been written, or a round would add all of it to what
/// is kept.
const EVICT_EVERY_BYTES: u64 = 16 << 20;

impl Lane {
    /// Moves durable batches of one directory to segments, merged, for as long as the lane runs and the directory works.
    pub(super) async fn flush_segments(self: Rc<Self>, place: usize) {
        let journal = self.journal(place);
        // Also replicas that were only made or led leave freed memory behind, thousands of them a third of what stays.
        let mut has_let_go = true;
        loop {
            let seen = journal.dirty_changed.version();
            if journal.dirty.borrow().is_empty() {
                let news = journal.dirty_changed.after(seen);
                if has_let_go {
                    news.await;
                } else if tokio::time::timeout(self.node().settings.rest_after, news).await.is_err() {
                    self.let_go(journal);
                    has_let_go = true;
                    continue;
                }
            }
            has_let_go = false;
            let longest = self.node().settings.flush_after;
            journal.directory.wait_unless(longest, || self.has_gathered(journal)).await;
            if journal.directory.is_offline() {
                return;
            }
            if journal.directory.space.room() >= Room::Full {
                // What space there is left is for checkpoints; the journal holds what segments do not.
                tokio::time::sleep(MEASURE_AGAIN).await;
                continue;
            }
            let moved = self.flush_round(journal).await;
            self.evict();
            self.made_room();
            if !moved {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Flushes what is ready; whether anything was.
    async fn flush_round(self: &Rc<Self>, journal: &LaneJournal) -> bool {
        let unwanted = journal.directory.journal_unwanted();
        let now = self.node().clock.wall();
        let dirty = std::mem::take(&mut *journal.dirty.borrow_mut());
        let mut running = Vec::new();
        for partition in dirty {
            partition.dirty.set(false);
            if partition.replica().role == Role::Removed {
                continue;
            }
            let job = {
                let log = &mut partition.replica_mut().log;
                let force = unwanted.is_some_and(|position| log.holds_journal_before(position));
                log.plan_flush(now, force, FLUSH_BYTES_MIN)
            };
            match job {
                Some(job) => {
                    let directory = Arc::clone(&journal.directory);
                    let bytes = job.bytes();
                    partition.flushing.set(true);
                    let flush = journal.directory.writers.run(move || {
                        let _operation = directory.space.under_way.begin();
                        job.run(&directory.access)
                    });
                    running.push((Rc::clone(&partition), bytes, flush));
                }
                None if partition.replica().log.has_uncovered() => self.mark_dirty(&partition),
                None => {}
            }
        }
        let mut moved = false;
        let mut since_evict = 0;
        for (partition, bytes, flush) in running {
            moved |= self.finish_flush(&partition, bytes, flush).await;
            since_evict += bytes;
            if since_evict >= EVICT_EVERY_BYTES {
                since_evict = 0;
                self.evict();
            }
        }
        moved
    }

    /// Whether so much waits for segments that it should not gather any longer.
    fn has_gathered(&self, journal: &LaneJournal) -> bool {
        // Partitions alternate between lanes, so the others have about as many.
        let partitions = (journal.dirty.borrow().len() * self.lanes().count()) as u64;
        let enough = GATHERED_BYTES.max(partitions * GATHERED_BYTES_EACH);
        journal.directory.wants_room() || journal.directory.unflushed_bytes.load(Ordering::Relaxed) >= enough
    }

    async fn finish_flush(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        bytes: u64,
        flush: oneshot::Receiver<Result<FlushDone, Fault>>,
    ) -> bool {
        let done = flush.await;
        partition.flushing.set(false);
        let directory = partition.directory();
        let moved = match done {
            Ok(Ok(done)) => {
                if partition.replica_mut().log.on_flushed(done) {
                    directory.unflushed_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }
                directory.flushed.notify_one();
                true
            }
            Ok(Err(fault)) if fault.is_temporary() => {
                let generation = partition.replica().log.key().generation;
                partition.replica_mut().log.on_flush_deferred(generation);
                if fault.is_out_of_space() {
                    directory.space.on_allocation_failed(&fault);
                } else {
                    tracing::warn!("segments wait, the journal holds on: {fault}");
                }
                false
            }
            Ok(Err(fault)) => {
                self.node().take_offline(directory, &fault);
                return false;
            }
            Err(_) => return false,
        };
        partition.uncheckpointed.set(true);
        if partition.replica().log.has_uncovered() {
            self.mark_dirty(partition);
        }
        moved
    }

    /// Keeps this lane's share of recent batches in memory and lets go of the rest, of each partition in proportion. What
    /// segments do not have yet counts, and stays.
    fn evict(&self) {
        let share = (self.node().settings.tail_bytes_max / self.lanes().count()) as u64;
        let partitions = self.partitions.borrow();
        let (mut held, mut flushed) = (0, 0);
        for partition in partitions.values() {
            let log = &partition.replica().log;
            held += log.memory_bytes();
            flushed += log.flushed_memory_bytes();
        }
        if held <= share {
            return;
        }
        let kept = u128::from(share.saturating_sub(held - flushed));
        for partition in partitions.values() {
            let own = partition.replica().log.flushed_memory_bytes();
            if own > 0 {
                let keep = u128::from(own) * kept / u128::from(flushed);
                partition.replica_mut().log.evict(keep as u64);
            }
        }
    }

    /// Nothing comes any more: memory goes back to the system. Whoever reads what it held finds it in the page cache, also
    /// what is being appended by way of another directory meanwhile.
    fn let_go(&self, journal: &LaneJournal) {
        for partition in self.partitions.borrow().values() {
            partition.replica_mut().log.evict(0);
        }
        // Not on the lane: it takes some milliseconds.
        drop(journal.directory.writers.run(give_back_unused));
    }

    /// Looks at retention now and then.
    pub(super) async fn check_retention(self: Rc<Self>) {
        loop {
            tokio::time::sleep(self.node().settings.retention_check_every).await;
            let now = self.node().clock.wall();
            for partition in self.partitions() {
                if partition.directory().is_offline() {
                    continue;
                }
                let high_watermark = partition.progress().high_watermark;
                let start = {
                    let mut replica = partition.replica_mut();
                    replica.log.expire_producers(now);
                    replica.log.plan_retention(now, high_watermark)
                };
                if let Some(start) = start {
                    drop(self.raise_log_start(&partition, start));
                }
            }
        }
    }

    fn raise_log_start(self: &Rc<Self>, partition: &Rc<Partition>, start: Offset) -> Option<oneshot::Receiver<()>> {
        let entry = partition.replica_mut().log.advance_log_start(start, self.next_ticket(partition.directory()))?;
        let durable = self.enqueue_change(partition, entry);
        partition.publish();
        Some(durable)
    }

    /// DeleteRecords: raises the log start offset to `before`, or to the high watermark when that is [`Offset::NONE`].
    /// Resolves with the lowest log start of all replicas that are up once that is there, durable on each: whichever of
    /// them leads next, what was deleted is not back. It may never be there; who asks knows how long to wait.
    pub async fn delete_records(self: Rc<Self>, id: TopicPartition, before: Offset) -> Result<Offset, Reject> {
        let partition = self.leading(id, stonelog_protocol::LeaderEpoch::NONE)?;
        let progress = partition.progress();
        let before = if before == Offset::NONE { progress.high_watermark } else { before };
        if before < Offset::ZERO || before > progress.high_watermark {
            return Err(Reject::OffsetOutOfRange);
        }
        let leader_epoch = progress.leader_epoch;
        drop(self.raise_log_start(&partition, before));
        loop {
            let (reported, changed) = (partition.reported.version(), partition.changed().version());
            let progress = partition.progress();
            match progress.role {
                Role::Offline => return Err(Reject::Offline),
                _ if partition.directory().is_offline() => return Err(Reject::Offline),
                Role::Leader if progress.leader_epoch == leader_epoch => {}
                _ => return Err(Reject::NotLeader(progress.leader_epoch)),
            }
            let low = {
                let Replica { leader, log, .. } = &*partition.replica();
                leader.as_ref().map(|leader| leader.low_watermark(log.durable_log_start()))
            };
            if let Some(low) = low.filter(|low| *low >= before) {
                return Ok(low);
            }
            tokio::select! {
                () = partition.reported.after(reported) => {}
                () = partition.changed().after(changed) => {}
            }
        }
    }
}
