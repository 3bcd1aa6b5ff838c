//! The owner of one `__consumer_offsets` partition, on the lane that has its log: loads, serves, unloads.
//!
//! One task tends it: it loads the log, gives answers when the high watermark moves, and does what time asks for.
//! Requests call in between; nothing here is held across an await.
//!
//! Invariant: it serves one leader epoch of one log generation. Any other, and it is over: whoever waits is told
//! NOT_COORDINATOR, and a new one reads the log again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::BytesMut;
use stonelog_protocol::batch::{BatchHeader, Compression};
use stonelog_protocol::{ErrorCode, LeaderEpoch, Offset};
use stonelog_replication::controller::ControllerRequest;
use stonelog_replication::partition::Acks;
use stonelog_replication::progress::{Progress, Role};
use stonelog_replication::runtime::changed::Changed;
use stonelog_replication::runtime::lane::Append;
use stonelog_replication::runtime::lanes::{spawn_here, spawn_vital};
use stonelog_replication::runtime::partition::Partition;
use stonelog_storage::LogGeneration;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, timeout};

use super::load::{Loaded, load};
use super::registry::Registry;
use super::serving::{Answered, Serving};
use crate::coordinator::group::{Decision, Groups, MonoMillis, Now, Ticket};
use crate::coordinator::record::{Record, encode_batch};

/// How long a request waits for its partition to be loaded before it is told COORDINATOR_LOAD_IN_PROGRESS: loading is
/// a matter of milliseconds unless the log is large.
const LOAD_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(1);
/// Before a log that could not be read is read again: that reads it from its beginning, and what is damaged is mended from
/// another replica or by somebody. Doubles each time.
const LOAD_AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);
/// As far as that.
const LOAD_AGAIN_AFTER_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// The owner of one partition's groups.
pub(super) struct GroupPartition {
    registry: Rc<Registry>,
    log: Rc<Partition>,
    generation: LogGeneration,
    leader_epoch: LeaderEpoch,
    phase: RefCell<Phase>,
    /// Published when the phase changes and when the task must look at its alarm again.
    changed: Changed,
    /// When the task looks by itself.
    alarm: Cell<MonoMillis>,
}

enum Phase {
    Loading,
    /// Its log could not be read; it is tried again after a pause.
    Unreadable,
    Serving(Box<Serving>),
    Gone,
}

impl GroupPartition {
    /// Begins to own a partition this broker leads: loads it first.
    pub(super) fn begin(registry: Rc<Registry>, log: Rc<Partition>) -> Rc<GroupPartition> {
        let Progress { generation, leader_epoch, .. } = log.progress();
        let begun = Rc::new(GroupPartition {
            registry,
            log,
            generation,
            leader_epoch,
            phase: RefCell::new(Phase::Loading),
            changed: Changed::default(),
            alarm: Cell::new(MonoMillis(u64::MAX)),
        });
        spawn_vital("a group partition", Rc::clone(&begun).run());
        begun
    }

    /// Whether it still owns its partition.
    pub(super) fn is_current(&self) -> bool {
        let progress = self.log.progress();
        progress.role == Role::Leader
            && progress.leader_epoch == self.leader_epoch
            && progress.generation == self.generation
            && !matches!(*self.phase.borrow(), Phase::Gone)
    }

    /// Ends it: everybody who waits is told NOT_COORDINATOR.
    pub(super) fn unload(&self) {
        let phase = self.phase.replace(Phase::Gone);
        if let Phase::Serving(serving) = phase {
            tracing::info!(partition = %self.log.id().partition, "groups of this partition are not coordinated here any more");
            serving.unload(ErrorCode::NotCoordinator, self.registry.now());
        }
        self.changed.publish();
    }

    /// Resolves once it serves.
    ///
    /// # Errors
    /// COORDINATOR_LOAD_IN_PROGRESS after a short while, COORDINATOR_NOT_AVAILABLE while its log cannot be read,
    /// NOT_COORDINATOR when it is over.
    pub(super) async fn loaded(&self) -> Result<(), ErrorCode> {
        let serves = async {
            loop {
                let seen = self.changed.version();
                match *self.phase.borrow() {
                    Phase::Loading => {}
                    Phase::Serving(_) => return Ok(()),
                    Phase::Unreadable => return Err(ErrorCode::CoordinatorNotAvailable),
                    Phase::Gone => return Err(ErrorCode::NotCoordinator),
                }
                self.changed.after(seen).await;
            }
        };
        timeout(LOAD_WAIT_MAX, serves).await.unwrap_or(Err(ErrorCode::CoordinatorLoadInProgress))
    }

    /// Whether it still reads its log.
    pub(super) fn is_loading(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Loading)
    }

    /// Decides a request now; its answer comes once it may be given.
    pub(super) fn decide(
        &self,
        decide: impl FnOnce(&mut Groups, Ticket, Now) -> Decision,
    ) -> Result<oneshot::Receiver<Answered>, ErrorCode> {
        self.with_serving(|serving, now| serving.decide(now, decide, |records| self.append(records)))
    }

    /// Decides a commit; it is appended with all others of this turn of the lane, as one batch.
    pub(super) fn commit(
        self: &Rc<Self>,
        decide: impl FnOnce(&mut Groups, Ticket, Now) -> Decision,
    ) -> Result<oneshot::Receiver<Answered>, ErrorCode> {
        let gather = |serving: &mut Serving, now| serving.gather(now, decide, |records| self.append(records));
        let (answered, is_first) = self.on_serving(gather)?;
        if is_first {
            let partition = Rc::clone(self);
            // Runs after the tasks that are ready now.
            spawn_here(async move {
                // Over meanwhile: whoever waited has been told so.
                let _ = partition.with_serving(|_, _| ());
            });
        }
        Ok(answered)
    }

    /// Reads the state; resolves once what was read is committed.
    pub(super) async fn read<R>(self: Rc<Self>, read: impl FnOnce(&mut Groups, Now) -> R) -> Result<R, ErrorCode> {
        let (value, committed) = self.with_serving(|serving, now| serving.read(now, read))?;
        committed.await.unwrap_or(Err(ErrorCode::NotCoordinator))?;
        Ok(value)
    }

    /// Writes tombstones for the offsets of topics that are gone. Metadata as new as the controller's are asked: every
    /// offset here was committed for a topic that some broker knew, maybe before this one did, so one that is not in them
    /// was deleted.
    pub(super) async fn forget_topics(self: Rc<Self>) {
        let forget = |groups: &Groups, _| {
            let image = self.registry.metadata.image();
            groups.decide_forget_topics(|name, id| match id.is_zero() {
                true => image.topic_by_name(name).is_none(),
                false => image.topic_by_id(id).is_none(),
            })
        };
        let seem_gone = self.with_serving(|serving, now| serving.read(now, |groups, now| forget(groups, now)).0);
        if seem_gone.is_ok_and(|decision| decision.records.is_empty()) {
            return;
        }
        if let Err(error) = self.registry.metadata.submit(ControllerRequest::ReadBarrier).await {
            // The next round looks again.
            tracing::info!(partition = %self.log.id().partition, "offsets of topics that may be gone stay for now: {error}");
            return;
        }
        self.bury("of deleted topics", forget).await;
    }

    async fn run(self: Rc<Self>) {
        if !self.load_at_last().await {
            return self.unload();
        }
        spawn_here(Rc::clone(&self).forget_topics());
        let expiry_every = self.registry.settings.expiry_every;
        let mut expiry = self.registry.now().mono.after(expiry_every);
        loop {
            let (seen, poked) = (self.log.changed().version(), self.changed.version());
            let Ok(deadline) = self.with_serving(|serving, now| {
                serving.on_time(now, |records| self.append(records));
                serving.next_deadline()
            }) else {
                return;
            };
            if self.registry.now().mono >= expiry {
                self.bury("that expired", |groups: &Groups, now| groups.decide_expiry(now.wall)).await;
                // What the log refused when a topic went, for want of replicas, it may take now.
                spawn_here(Rc::clone(&self).forget_topics());
                expiry = self.registry.now().mono.after(expiry_every);
                continue;
            }
            let alarm = deadline.unwrap_or(expiry).min(expiry);
            self.alarm.set(alarm);
            tokio::select! {
                () = self.log.changed().after(seen) => {}
                () = self.changed.after(poked) => {}
                () = sleep_until(self.registry.instant(alarm).into()) => {}
            }
        }
    }

    /// Loads its log, if need be again and again. `false` when it is over.
    async fn load_at_last(&self) -> bool {
        let (mut said, mut pause) = (String::new(), LOAD_AGAIN_AFTER);
        loop {
            let (lane, settings) = (&self.registry.lane, &self.registry.settings);
            let loaded = load(lane, &self.log, self.leader_epoch, settings.groups.clone()).await;
            if !self.is_current() {
                return false;
            }
            let error = match loaded {
                Ok(loaded) => {
                    self.serve(loaded);
                    return true;
                }
                Err(error) => error.to_string(),
            };
            if said != error {
                tracing::error!(partition = %self.log.id().partition, "cannot load groups, and tries again now and then: {error}");
                said = error;
            }
            *self.phase.borrow_mut() = Phase::Unreadable;
            self.changed.publish();
            let seen = self.changed.version();
            // Whoever ends it says so.
            let is_over = timeout(pause, self.changed.after(seen)).await.is_ok();
            if is_over || !self.is_current() {
                return false;
            }
            *self.phase.borrow_mut() = Phase::Loading;
            pause = LOAD_AGAIN_AFTER_MAX.min(pause * 2);
        }
    }

    /// Serves what was loaded.
    fn serve(&self, loaded: Loaded) {
        let settings = &self.registry.settings;
        let replayed = loaded.replayed;
        if loaded.end > Offset::ZERO {
            tracing::info!(partition = %self.log.id().partition, end = %loaded.end, ?replayed, "groups loaded");
        }
        if replayed.malformed_count + replayed.unknown_version_count + replayed.transactional_count > 0 {
            tracing::warn!(partition = %self.log.id().partition, ?replayed, "records of groups were passed over");
        }
        let mut groups = loaded.groups;
        groups.on_loaded(self.registry.now());
        let serving = Serving::new(groups, loaded.end, settings.commit_timeout);
        *self.phase.borrow_mut() = Phase::Serving(Box::new(serving));
        self.changed.publish();
    }

    /// Writes what `decide` returns, until it returns nothing.
    async fn bury(&self, what: &str, decide: impl Fn(&Groups, Now) -> Decision) {
        loop {
            let tend = |serving: &mut Serving, now| serving.tend(now, &decide, |records| self.append(records));
            // Not loaded yet, or over: whoever loads it does this anyway.
            let Ok(tended) = self.with_serving(tend) else { return };
            match tended {
                Ok(0) => return,
                Ok(count) => {
                    tracing::info!(partition = %self.log.id().partition, count, "removed offsets {what}");
                }
                Err(error) => {
                    tracing::warn!(partition = %self.log.id().partition, "cannot remove offsets {what}: {error}");
                    return;
                }
            }
            // The lane's requests go between.
            tokio::task::yield_now().await;
        }
    }

    /// Runs `work` on the groups if they are served here, all gathered commits being appended, then says what may be said.
    fn with_serving<R>(&self, work: impl FnOnce(&mut Serving, Now) -> R) -> Result<R, ErrorCode> {
        self.on_serving(|serving, now| {
            serving.append_gathered(now, |records| self.append(records));
            work(serving, now)
        })
    }

    fn on_serving<R>(&self, work: impl FnOnce(&mut Serving, Now) -> R) -> Result<R, ErrorCode> {
        if !self.is_current() {
            self.unload();
            return Err(ErrorCode::NotCoordinator);
        }
        let mut phase = self.phase.borrow_mut();
        let serving = match &mut *phase {
            Phase::Serving(serving) => serving,
            Phase::Unreadable => return Err(ErrorCode::CoordinatorNotAvailable),
            Phase::Loading | Phase::Gone => return Err(ErrorCode::CoordinatorLoadInProgress),
        };
        let done = work(serving, self.registry.now());
        serving.on_high_watermark(self.log.progress().high_watermark);
        if serving.next_deadline().is_some_and(|deadline| deadline < self.alarm.get()) {
            self.changed.publish();
        }
        Ok(done)
    }

    /// One batch of these records, to the log; returns its end.
    fn append(&self, records: &[Record]) -> Result<Offset, ErrorCode> {
        let node = self.registry.lane.node();
        let bytes_max = usize::try_from(node.settings.entry_bytes_max).unwrap_or(usize::MAX);
        let encoded = encode_batch(records, Compression::None, node.clock.wall(), bytes_max).map_err(|error| {
            tracing::error!(partition = %self.log.id().partition, "cannot encode records of groups: {error}");
            error.code()
        })?;
        let batch = BytesMut::from(&encoded[..]);
        let header = BatchHeader::read(&batch).map_err(|_| ErrorCode::UnknownServerError)?;
        let append = Append { partition: self.log.id(), batch, header, acks: Acks::All };
        let appended = self.registry.lane.append(append).map_err(|reject| reject.error_code())?;
        Ok(appended.receipt.end)
    }
}
