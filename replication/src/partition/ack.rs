//! When an append is acknowledged (DESIGN §1, rule 14).
//!
//! An append returns a [`Receipt`]; [`outcome`] of the receipt and a [`Progress`] is the only test of success.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{LeaderEpoch, Offset, TopicPartition};
use stonelog_storage::LogGeneration;

use crate::progress::{Progress, Role};

/// What the producer asked to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: no answer, no promise.
    None,
    /// `acks=1`: the leader. On a strict topic the same as [`Acks::All`]: an acknowledgement has one meaning.
    Leader,
    /// `acks=all`: every in-sync replica.
    All,
}

impl Acks {
    /// Reads the wire's number; anything but -1, 0 and 1 is INVALID_REQUIRED_ACKS.
    pub fn from_wire(acks: i16) -> Option<Acks> {
        match acks {
            -1 => Some(Acks::All),
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            _ => None,
        }
    }
}

/// Proof that something was appended, and what its acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The log appended to.
    pub partition: TopicPartition,
    /// Its generation then.
    pub generation: LogGeneration,
    /// The epoch the leader appended in.
    pub leader_epoch: LeaderEpoch,
    /// The offset after the last record (of the original, for a duplicate).
    pub end: Offset,
    /// What the producer asked to wait for.
    pub acks: Acks,
}

/// Where an acknowledgement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Not yet.
    Pending,
    /// Say it.
    Done,
    /// It will not be known here; the records may become visible later unless the code says otherwise.
    Failed(ErrorCode),
}

/// Whether the records of `receipt` are as safe as its topic promises.
///
/// A later epoch of the same log in the same process is no error: the log only grew. Another generation means the log
/// was cut or replaced, so the receipt proves nothing any more.
pub fn outcome(receipt: &Receipt, progress: &Progress) -> Ack {
    if receipt.partition != progress.partition || receipt.generation != progress.generation {
        return Ack::Failed(ErrorCode::NotLeaderOrFollower);
    }
    match progress.role {
        Role::Leader => {}
        Role::Follower | Role::Removed => return Ack::Failed(ErrorCode::NotLeaderOrFollower),
        Role::Offline => return Ack::Failed(ErrorCode::RequestTimedOut),
    }
    let reached = match receipt.acks {
        Acks::None => true,
        Acks::Leader if !progress.strict => progress.written >= receipt.end,
        // After relaxed → strict the watermark may lie above what is durable, and so may the original of a duplicate.
        Acks::Leader | Acks::All if progress.strict => {
            progress.high_watermark >= receipt.end && progress.durable >= receipt.end
        }
        Acks::Leader | Acks::All => progress.high_watermark >= receipt.end,
    };
    if !reached {
        return Ack::Pending;
    }
    if (receipt.acks == Acks::All || progress.strict) && progress.isr_size < progress.min_isr {
        return Ack::Failed(ErrorCode::NotEnoughReplicasAfterAppend);
    }
    Ack::Done
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;

    fn partition() -> TopicPartition {
        TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(3) }
    }

    fn generation() -> LogGeneration {
        LogGeneration { recovery_epoch: 2, counter: 1 }
    }

    fn receipt(acks: Acks) -> Receipt {
        Receipt {
            partition: partition(),
            generation: generation(),
            leader_epoch: LeaderEpoch(4),
            end: Offset(10),
            acks,
        }
    }

    fn progress() -> Progress {
        Progress {
            partition: partition(),
            generation: generation(),
            role: Role::Leader,
            leader_epoch: LeaderEpoch(4),
            log_start_offset: Offset(0),
            written: Offset(10),
            durable: Offset(9),
            log_end_offset: Offset(12),
            high_watermark: Offset(9),
            last_stable_offset: Offset(9),
            isr_size: 1,
            min_isr: 1,
            strict: true,
            serves_as_follower: false,
        }
    }

    #[test]
    fn strict_leader_ack_waits_for_the_high_watermark_like_all() {
        for acks in [Acks::Leader, Acks::All] {
            assert_eq!(outcome(&receipt(acks), &progress()), Ack::Pending);
            let passed = Progress { durable: Offset(10), high_watermark: Offset(10), ..progress() };
            assert_eq!(outcome(&receipt(acks), &passed), Ack::Done);
        }
    }

    #[test]
    fn relaxed_leader_ack_needs_only_written() {
        let relaxed = Progress { strict: false, high_watermark: Offset(5), ..progress() };
        assert_eq!(outcome(&receipt(Acks::Leader), &relaxed), Ack::Done);
        assert_eq!(outcome(&receipt(Acks::All), &relaxed), Ack::Pending);
        assert_eq!(outcome(&receipt(Acks::Leader), &Progress { written: Offset(9), ..relaxed }), Ack::Pending);
    }

    #[test]
    fn tightened_topic_acknowledges_only_what_is_durable() {
        // The watermark rose over written positions before the topic became strict.
        let tightened = Progress { high_watermark: Offset(12), durable: Offset(9), ..progress() };
        assert_eq!(outcome(&receipt(Acks::All), &tightened), Ack::Pending);
        let durable = Progress { durable: Offset(10), ..tightened };
        assert_eq!(outcome(&receipt(Acks::All), &durable), Ack::Done);
    }

    #[test]
    fn another_log_generation_or_topic_is_never_success() {
        let passed = Progress { durable: Offset(99), high_watermark: Offset(99), ..progress() };
        let newer = Progress { generation: LogGeneration { recovery_epoch: 2, counter: 2 }, ..passed };
        assert_eq!(outcome(&receipt(Acks::All), &newer), Ack::Failed(ErrorCode::NotLeaderOrFollower));
        let other = Progress { partition: TopicPartition { topic_id: Uuid([8; 16]), ..partition() }, ..passed };
        assert_eq!(outcome(&receipt(Acks::All), &other), Ack::Failed(ErrorCode::NotLeaderOrFollower));
        let follower = Progress { role: Role::Follower, ..passed };
        assert_eq!(outcome(&receipt(Acks::All), &follower), Ack::Failed(ErrorCode::NotLeaderOrFollower));
    }

    #[test]
    fn later_epoch_of_the_same_log_is_success() {
        let passed =
            Progress { leader_epoch: LeaderEpoch(9), durable: Offset(10), high_watermark: Offset(10), ..progress() };
        assert_eq!(outcome(&receipt(Acks::All), &passed), Ack::Done);
    }

    #[test]
    fn failed_directory_times_the_batch_out() {
        let offline = Progress { role: Role::Offline, ..progress() };
        assert_eq!(outcome(&receipt(Acks::All), &offline), Ack::Failed(ErrorCode::RequestTimedOut));
    }

    #[test]
    fn shrunken_isr_after_append_is_named() {
        let shrunken = Progress { durable: Offset(10), high_watermark: Offset(10), min_isr: 2, ..progress() };
        for acks in [Acks::Leader, Acks::All] {
            assert_eq!(outcome(&receipt(acks), &shrunken), Ack::Failed(ErrorCode::NotEnoughReplicasAfterAppend));
        }
    }
}
