//! Why a partition refuses something: the client is stale or wrong, and nothing has changed.

use stonelog_protocol::LeaderEpoch;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_storage::log::AppendReject;

/// Why something is refused; one table maps it to a Kafka error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// There is no such partition.
    UnknownPartition,
    /// This broker does not lead it, or holds no replica of it.
    NotLeader(LeaderEpoch),
    /// The request names an older leader epoch than this broker knows.
    FencedEpoch,
    /// The request names a newer leader epoch than this broker knows.
    UnknownEpoch,
    /// The in-sync set is below the effective min ISR; nothing was stored.
    NotEnoughReplicas,
    /// The log directory is offline.
    Offline,
    /// The log directory has no room for it; nothing was stored.
    NoSpace,
    /// The device of the log directory does not answer; nothing was stored.
    Hangs,
    /// The end is not known yet in this leader epoch (KIP-207).
    OffsetNotAvailable,
    /// An offset outside what may be read.
    OffsetOutOfRange,
    /// The batch is larger than a journal file.
    AboveJournalFile,
    /// The records there are damaged.
    Damaged,
    /// The log refuses the batch.
    Append(AppendReject),
}

impl Reject {
    /// What the client's user should know beside the error's own text.
    pub fn message(self) -> Option<&'static str> {
        match self {
            Reject::NoSpace => Some("the log directory has too little free space: nothing was stored, try again later"),
            Reject::Hangs => Some("the disk of this partition does not answer: nothing was stored, try again later"),
            Reject::Offline => Some("the log directory of this partition is offline"),
            _ => None,
        }
    }

    /// The one table of rejections and Kafka errors.
    pub fn error_code(self) -> ErrorCode {
        match self {
            Reject::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Reject::NotLeader(_) => ErrorCode::NotLeaderOrFollower,
            Reject::FencedEpoch => ErrorCode::FencedLeaderEpoch,
            Reject::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
            Reject::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            Reject::Offline | Reject::NoSpace | Reject::Hangs => ErrorCode::KafkaStorageError,
            Reject::OffsetNotAvailable => ErrorCode::OffsetNotAvailable,
            Reject::OffsetOutOfRange => ErrorCode::OffsetOutOfRange,
            Reject::AboveJournalFile => ErrorCode::MessageTooLarge,
            Reject::Damaged => ErrorCode::CorruptMessage,
            Reject::Append(AppendReject::InvalidProducerEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
            Reject::Append(AppendReject::OutOfOrderSequence { .. }) => ErrorCode::OutOfOrderSequenceNumber,
            Reject::Append(AppendReject::LargerThanSegment { .. }) => ErrorCode::RecordListTooLarge,
            Reject::Append(AppendReject::Changing) => ErrorCode::NotLeaderOrFollower,
        }
    }
}
