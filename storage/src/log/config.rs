//! The settings of one log, in effect from the moment they are set.

use std::time::Duration;

use crate::compaction::CompactionConfig;

/// Settings of one log; Kafka's topic settings of the same names, already resolved against the broker's defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment does not grow past this, unless one batch alone is larger.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment spans at most this much time.
    pub segment_ms: Duration,
    /// `segment.jitter.ms`: less by up to this, another time for each segment.
    pub segment_jitter: Duration,
    /// `preallocate`: a segment's whole space is reserved with its first bytes.
    pub preallocate: bool,
    /// `segment.index.bytes`: a segment ends when its offset index would be larger.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: at most one index entry per this many bytes.
    pub index_interval_bytes: u32,
    /// `retention.ms`; `None` keeps records whatever their age.
    pub retention_ms: Option<Duration>,
    /// `retention.bytes`; `None` keeps records whatever their size.
    pub retention_bytes: Option<u64>,
    /// Whether `cleanup.policy` has `delete`: without it only DeleteRecords moves the log start.
    pub delete: bool,
    /// Set when `cleanup.policy` has `compact`.
    pub compaction: Option<CompactionConfig>,
    /// Whether `message.timestamp.type` is `LogAppendTime`: the broker stamps batches.
    pub log_append_time: bool,
    /// `producer.id.expiration.ms`.
    pub producer_expiration: Duration,
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        let week = Duration::from_secs(7 * 24 * 3600);
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: week,
            segment_jitter: Duration::ZERO,
            preallocate: false,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(week),
            retention_bytes: None,
            delete: true,
            compaction: None,
            log_append_time: false,
            producer_expiration: Duration::from_secs(24 * 3600),
        }
    }
}
