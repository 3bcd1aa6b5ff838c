//! What a lane looks at now and then for its streams: followers without one, leaders that wish for another in-sync set,
//! and the requests those wishes go out in.

use std::rc::Rc;
use std::time::Duration;

use stonelog_protocol::{BrokerId, TopicPartition};

use crate::controller::{ControllerError, ControllerRequest, ControllerResponse};
use crate::isr_proposal::{ANSWER_TIME_MAX, IsrAnswer, Settled};
use crate::partition::Leader;
use crate::partition::leader::{OwnLog, Wish};
use crate::runtime::lane::Lane;
use crate::runtime::lanes::spawn_here;
use crate::runtime::partition::Replica;

/// How often a lane looks at followers without a stream and at leaders that a follower may join, while there are any.
const TICK: Duration = Duration::from_millis(20);
/// How often it looks at every leader that has followers: in-sync sets shrink by time.
const LAG_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Partitions looked at in one turn of the lane.
const LOOKS_PER_TURN_MAX: usize = 500;

impl Lane {
    /// Looks at streams for as long as the lane runs.
    pub(super) async fn keep_streams(self: Rc<Self>) {
        let mut looked_at = self.node().clock.mono();
        loop {
            let streams = self.streams();
            let seen = streams.work.version();
            if streams.rests() {
                streams.work.after(seen).await;
                continue;
            }
            if streams.is_pressed() {
                tokio::time::sleep(TICK).await;
            } else {
                let _ = tokio::time::timeout(LAG_LOOK_EVERY, streams.work.after(seen)).await;
            }
            self.open_streams();
            self.give_credit();
            self.push_throttled();
            self.pass_repair_on();
            let now = self.node().clock.mono();
            for partition in std::mem::take(&mut *streams.soon.borrow_mut()) {
                self.wish(partition);
            }
            if now.saturating_duration_since(looked_at) >= LAG_LOOK_EVERY {
                looked_at = now;
                self.look_at_led().await;
            }
            self.propose();
        }
    }

    /// A follower outside the in-sync set has said something: it may have caught up.
    pub(super) fn look_soon(&self, partition: TopicPartition, follower: BrokerId, leader: Option<&Leader>) {
        if leader.is_some_and(|leader| !leader.leadership().isr.contains(&follower)) {
            self.streams().look_soon(partition);
        }
    }

    /// Looks at every leader with followers, some in one turn of the lane.
    async fn look_at_led(&self) {
        let mut left = self.streams().led.borrow().len();
        while left > 0 {
            let next = self.streams().led.borrow_mut().next(left.min(LOOKS_PER_TURN_MAX));
            left -= next.len().clamp(1, left);
            for partition in next {
                self.wish(partition);
            }
            if left > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn open_streams(self: &Rc<Self>) {
        let idle = self.streams().idle.borrow_mut().next(LOOKS_PER_TURN_MAX);
        for id in idle {
            match self.partition(id).filter(|partition| partition.replica().follower.is_some()) {
                Some(partition) => self.try_open(&partition),
                None => self.streams().set_idle(id, false),
            }
        }
    }

    /// Credit that was withheld is asked for once more, and so is what others held and gave back.
    fn give_credit(&self) {
        let withheld = self.streams().withheld.borrow_mut().next(LOOKS_PER_TURN_MAX);
        for id in withheld {
            let partition = self.partition(id);
            if partition.as_ref().is_some_and(|partition| self.withholds_credit(partition)) {
                continue;
            }
            // If there is none after all, it says so again.
            self.streams().withheld.borrow_mut().remove(id);
            self.mark_own_stream(id);
        }
        self.pass_credit_on();
    }

    /// Who waits for credit and can have it now says so to its leader.
    pub(super) fn pass_credit_on(&self) {
        for id in self.streams().due_for_credit() {
            self.mark_own_stream(id);
        }
    }

    fn mark_own_stream(&self, id: TopicPartition) {
        if let Some(partition) = self.partition(id)
            && let Some(port) = &partition.replica().port
        {
            port.mark(id);
        }
    }

    fn wish(&self, id: TopicPartition) {
        let Some(partition) = self.partition(id) else { return self.streams().set_led(id, false) };
        let now = self.node().clock.mono();
        let mut replica = partition.replica_mut();
        let Replica { leader: Some(leader), log, .. } = &mut *replica else { return };
        leader.on_image(self.image().index());
        let (end, log_start) = (log.log_end(), log.durable_log_start());
        let own_log = OwnLog { end, log_start, is_whole: log.holes().is_empty() };
        if let Wish::Isr(wish) = leader.wish(id, own_log, self.node().settings.hangs_after, now) {
            self.streams().proposals.borrow_mut().wish(wish);
        }
    }

    /// Asks the controller for what was wished for, if nothing asked is unanswered.
    fn propose(self: &Rc<Self>) {
        let node = self.node();
        let due = self.streams().proposals.borrow_mut().request(node.broker_id, node.broker_epoch, node.clock.mono());
        let Some((number, request)) = due else { return };
        let lane = Rc::clone(self);
        spawn_here(async move {
            let metadata = lane.streams().setup.get().expect("who wishes was started").metadata.clone();
            let asked = metadata.submit(ControllerRequest::AlterPartition(request));
            let answered = tokio::time::timeout(ANSWER_TIME_MAX, asked).await;
            // The answer rests on an image that this node has seen, or on a later one, which settles it all the same.
            let decided_at = metadata.image().index();
            let results = match answered {
                Ok(Ok(ControllerResponse::AlterPartition(results))) => Some(Ok(results)),
                Ok(Err(ControllerError::Rejected(reject))) => Some(Err(reject.code)),
                Ok(Ok(_) | Err(_)) | Err(_) => None,
            };
            let now = lane.node().clock.mono();
            let settled = {
                let proposals = &mut *lane.streams().proposals.borrow_mut();
                match results {
                    Some(results) => proposals.on_answer(number, &IsrAnswer { decided_at, results }, now),
                    None => proposals.on_lost(number, now),
                }
            };
            lane.on_settled(&settled);
            lane.propose();
        });
    }

    fn on_settled(&self, settled: &[Settled]) {
        for one in settled {
            let Some(partition) = self.partition(one.partition) else { continue };
            let mut replica = partition.replica_mut();
            if let Some(leader) = &mut replica.leader
                && leader.leadership().leader_epoch == one.leader_epoch
            {
                leader.on_isr_answer(one.decided_at);
            }
        }
    }
}
