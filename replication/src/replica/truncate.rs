//! Where a follower cuts its log when its history and the leader's part (KIP-101, KIP-279, KIP-595; rule 9).

use stonelog_protocol::Offset;
use stonelog_protocol::peer::stream::Diverging;
use stonelog_storage::holes::Hole;
use stonelog_storage::log::{EpochEnd, Log};

/// How a log is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Everything from here on goes: [`Log::truncate_to`].
    To(Offset),
    /// Everything goes, and the log begins anew here: [`Log::reset`].
    Reset(Offset),
}

/// Why a follower does not go on before somebody looks at it, or another leader leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// On a strict topic it would have to cut below its high watermark: records that may be acknowledged would go.
    BelowWatermark {
        /// Where the leader wants it cut.
        to: Offset,
        /// What it knows to be committed.
        high_watermark: Offset,
    },
    /// Whether the histories part is lost in damage of its own log.
    Damaged(Hole),
    /// The cut into its segments fails, again and again.
    CutFailed {
        /// Where the leader wants it cut.
        to: Offset,
    },
}

/// Where to cut after a leader has proved where the histories part. The end found is that of the greatest epoch both know
/// or an earlier one; the next open says whether there is more to cut.
pub fn plan_cut(log: &Log, high_watermark: Offset, diverging: Diverging) -> Result<Cut, Stopped> {
    let own = log.end_offset_for_epoch(diverging.epoch).map_err(Stopped::Damaged)?;
    let to = match own {
        // Nothing of that epoch or an earlier one: all of this log is of later epochs than the leader's answer.
        EpochEnd::UNKNOWN => diverging.end,
        known => known.end.min(diverging.end),
    };
    plan_cut_to(log, high_watermark, to.min(log.log_end()))
}

/// Checks a cut at `to`.
pub(super) fn plan_cut_to(log: &Log, high_watermark: Offset, to: Offset) -> Result<Cut, Stopped> {
    if log.is_strict() && to < log.promised_below(high_watermark) && !off!(TruncateAboveWatermark) {
        return Err(Stopped::BelowWatermark { to, high_watermark });
    }
    Ok(if to < log.log_start() { Cut::Reset(to) } else { Cut::To(to) })
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, TopicPartition, Uuid};
    use stonelog_storage::log::LogConfig;
    use stonelog_storage::{LogGeneration, ReplicaKey};

    use super::*;

    fn log(strict: bool) -> Log {
        let partition = TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(0) };
        let key = ReplicaKey { partition, generation: LogGeneration::default() };
        Log::create(key, LogConfig::default(), strict, Offset(2), 1 << 41).0
    }

    #[test]
    fn only_a_relaxed_log_is_cut_below_the_high_watermark() {
        let stopped = Stopped::BelowWatermark { to: Offset(3), high_watermark: Offset(5) };
        assert_eq!(plan_cut_to(&log(true), Offset(5), Offset(3)), Err(stopped));
        assert_eq!(plan_cut_to(&log(true), Offset(5), Offset(5)), Ok(Cut::To(Offset(5))));
        assert_eq!(plan_cut_to(&log(false), Offset(5), Offset(3)), Ok(Cut::To(Offset(3))));
        assert_eq!(plan_cut_to(&log(false), Offset(5), Offset(1)), Ok(Cut::Reset(Offset(1))));
    }
}
