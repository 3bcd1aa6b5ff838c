//! Appends of one partition that wait to be acknowledged.
//!
//! What becomes of one is said by [`ack::outcome`] of its receipt and the newest progress, and by nothing else. This finds
//! those whose time has come at a publication without a look at the others, and tells each once: with many small
//! producers on one partition nobody is woken for an acknowledgement of somebody else's.

use std::collections::VecDeque;

use stonelog_protocol::error_code::ErrorCode;
use tokio::sync::oneshot;

use super::lane::Appended;
use crate::partition::{Ack, Acks, Reject, ack};
use crate::progress::Progress;

/// Past this many who wait, and past twice as many as waited last time, those who gave up are looked for and forgotten:
/// no more than half of those kept have.
const SWEEP_COUNT_MIN: usize = 1024;

/// What became of an append: refused, nothing was stored; or appended, and acknowledged or not.
pub type Settled = Result<(Appended, Result<(), ErrorCode>), Reject>;

/// See the module's comment.
#[derive(Default)]
pub(super) struct WaitingAcks {
    /// Those with `acks=all`, by the end they wait for. All are of the generation published last.
    all: VecDeque<Waiting>,
    /// Those with `acks=1`, likewise: on a relaxed topic they wait for another position.
    leader: VecDeque<Waiting>,
    sweep_at: usize,
}

struct Waiting {
    appended: Appended,
    told: oneshot::Sender<Settled>,
}

impl WaitingAcks {
    /// Tells `told` what becomes of the append: now, if that can be said by `progress`, else when it can.
    pub(super) fn wait(&mut self, appended: Appended, told: oneshot::Sender<Settled>, progress: &Progress) {
        match ack::outcome(&appended.receipt, progress) {
            Ack::Pending => self.push(Waiting { appended, told }),
            settled => Waiting { appended, told }.tell(settled),
        }
    }

    /// How many wait, those who gave up included.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.all.len() + self.leader.len()
    }

    fn push(&mut self, waiting: Waiting) {
        let count = self.all.len() + self.leader.len();
        if count >= self.sweep_at.max(SWEEP_COUNT_MIN) {
            self.all.retain(|waiting| !waiting.told.is_closed());
            self.leader.retain(|waiting| !waiting.told.is_closed());
            self.sweep_at = 2 * (self.all.len() + self.leader.len());
        }
        let queue = match waiting.appended.receipt.acks {
            Acks::All => &mut self.all,
            Acks::Leader | Acks::None => &mut self.leader,
        };
        // At the back, save for a duplicate of an earlier batch.
        let end = waiting.appended.receipt.end;
        let at = queue.iter().rposition(|before| before.appended.receipt.end <= end).map_or(0, |before| before + 1);
        queue.insert(at, waiting);
    }

    /// Tells everybody of whom `now` says what became; `before` was published last.
    pub(super) fn settle(&mut self, before: &Progress, now: &Progress) {
        let only_positions_moved = Progress {
            log_start_offset: now.log_start_offset,
            written: now.written,
            durable: now.durable,
            log_end_offset: now.log_end_offset,
            high_watermark: now.high_watermark,
            last_stable_offset: now.last_stable_offset,
            ..*before
        } == *now;
        for queue in [&mut self.all, &mut self.leader] {
            if only_positions_moved {
                // Who waits for more than another is not there before the other.
                while let Some(first) = queue.front() {
                    match ack::outcome(&first.appended.receipt, now) {
                        Ack::Pending => break,
                        settled => queue.pop_front().expect("the first").tell(settled),
                    }
                }
            } else {
                for waiting in std::mem::take(queue) {
                    match ack::outcome(&waiting.appended.receipt, now) {
                        Ack::Pending => queue.push_back(waiting),
                        settled => waiting.tell(settled),
                    }
                }
            }
        }
    }
}

impl Waiting {
    fn tell(self, settled: Ack) {
        let result = match settled {
            Ack::Done => Ok(()),
            Ack::Failed(code) => Err(code),
            Ack::Pending => unreachable!("it is settled"),
        };
        // Who gave up is told nothing.
        let _ = self.told.send(Ok((self.appended, result)));
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
    use stonelog_storage::LogGeneration;

    use super::*;
    use crate::partition::Receipt;
    use crate::progress::Role;

    fn partition() -> TopicPartition {
        TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) }
    }

    fn progress(written: i64, durable: i64) -> Progress {
        Progress {
            partition: partition(),
            generation: LogGeneration { recovery_epoch: 1, counter: 1 },
            role: Role::Leader,
            leader_epoch: LeaderEpoch(1),
            log_start_offset: Offset(0),
            written: Offset(written),
            durable: Offset(durable),
            log_end_offset: Offset(100),
            high_watermark: Offset(durable),
            last_stable_offset: Offset(durable),
            isr_size: 1,
            min_isr: 1,
            strict: true,
            serves_as_follower: false,
        }
    }

    fn appended(end: i64, acks: Acks) -> Appended {
        let generation = LogGeneration { recovery_epoch: 1, counter: 1 };
        let receipt =
            Receipt { partition: partition(), generation, leader_epoch: LeaderEpoch(1), end: Offset(end), acks };
        Appended {
            receipt,
            base_offset: Offset(end - 1),
            log_append_time: Timestamp::NONE,
            log_start_offset: Offset(0),
        }
    }

    fn wait(acks: &mut WaitingAcks, end: i64, of: Acks, now: &Progress) -> oneshot::Receiver<Settled> {
        let (told, heard) = oneshot::channel();
        acks.wait(appended(end, of), told, now);
        heard
    }

    fn heard(heard: &mut oneshot::Receiver<Settled>) -> Option<Result<(), ErrorCode>> {
        heard.try_recv().ok().map(|settled| settled.unwrap().1)
    }

    #[test]
    fn those_are_told_whose_end_is_reached_and_a_duplicate_among_them() {
        let mut acks = WaitingAcks::default();
        let (before, now) = (progress(5, 5), progress(9, 8));
        let mut far = wait(&mut acks, 9, Acks::All, &before);
        let mut near = wait(&mut acks, 8, Acks::All, &before);
        let mut there = wait(&mut acks, 5, Acks::All, &before);
        assert_eq!(heard(&mut there), Some(Ok(())), "nothing to wait for");
        acks.settle(&before, &now);
        assert_eq!(heard(&mut near), Some(Ok(())));
        assert_eq!(heard(&mut far), None);
        acks.settle(&now, &progress(9, 9));
        assert_eq!(heard(&mut far), Some(Ok(())));
    }

    #[test]
    fn on_a_relaxed_topic_acks_1_does_not_wait_behind_acks_all() {
        let mut acks = WaitingAcks::default();
        let before = Progress { strict: false, high_watermark: Offset(5), ..progress(5, 5) };
        let mut all = wait(&mut acks, 6, Acks::All, &before);
        let mut leader = wait(&mut acks, 7, Acks::Leader, &before);
        acks.settle(&before, &Progress { written: Offset(7), ..before });
        assert_eq!(heard(&mut all), None);
        assert_eq!(heard(&mut leader), Some(Ok(())));
    }

    #[test]
    fn lost_leadership_and_another_generation_tell_everybody() {
        let lost = Progress { role: Role::Follower, ..progress(5, 5) };
        let offline = Progress { role: Role::Offline, ..progress(5, 5) };
        let generation = LogGeneration { recovery_epoch: 1, counter: 2 };
        let cut = Progress { generation, ..progress(9, 9) };
        for (now, code) in [
            (lost, ErrorCode::NotLeaderOrFollower),
            (offline, ErrorCode::RequestTimedOut),
            (cut, ErrorCode::NotLeaderOrFollower),
        ] {
            let mut acks = WaitingAcks::default();
            let mut waiting: Vec<_> =
                [6, 9, 20].map(|end| wait(&mut acks, end, Acks::All, &progress(5, 5))).into_iter().collect();
            acks.settle(&progress(5, 5), &now);
            assert!(waiting.iter_mut().all(|waiting| heard(waiting) == Some(Err(code))), "{now:?}");
        }
    }

    #[test]
    fn those_who_gave_up_do_not_pile_up() {
        let mut acks = WaitingAcks::default();
        let now = progress(5, 5);
        let mut stays = wait(&mut acks, 6, Acks::All, &now);
        for end in 0..10 * SWEEP_COUNT_MIN as i64 {
            drop(wait(&mut acks, 7 + end, Acks::All, &now));
        }
        assert!(acks.len() <= SWEEP_COUNT_MIN + 1, "{}", acks.len());
        acks.settle(&now, &progress(6, 6));
        assert_eq!(heard(&mut stays), Some(Ok(())));
    }
}
