//! What a seed chooses before anything happens.

use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log::LogConfig;

use crate::support::Random;

/// See the module's comment.
#[derive(Clone, Debug)]
pub struct Options {
    pub journal: JournalOptions,
    pub config: LogConfig,
    /// Bytes a follower lets the leader send ahead.
    pub credit: u32,
    /// Microseconds between two appends, about, while much is going on.
    pub append_every: u64,
    /// Microseconds between two faults, about.
    pub fault_every: u64,
    pub partitions: i32,
    /// `min.insync.replicas`, if it is set.
    pub min_isr: Option<u64>,
    pub nodes: i32,
    /// Log directories of each node.
    pub directories: u8,
    /// Whether topics begin relaxed.
    pub relaxed: bool,
}

impl Options {
    pub fn of(random: &mut Random) -> Options {
        let file_bytes = 128 << 10;
        Options {
            journal: JournalOptions {
                file_bytes,
                first_file_bytes: 64 << 10,
                commit_bytes_max: 24 << 10,
                bytes_max: file_bytes * 16,
            },
            config: LogConfig { segment_bytes: 2_000 << random.below(4), retention_ms: None, ..LogConfig::default() },
            credit: [200, 2_000, 100_000][random.below(3) as usize],
            append_every: 20_000 << random.below(3),
            fault_every: 1_500_000 << random.below(2),
            partitions: 1 + random.below(2) as i32,
            min_isr: [None, None, Some(1), Some(3)][random.below(4) as usize],
            nodes: 3 + random.below(2) as i32,
            directories: 1 + random.below(2) as u8,
            relaxed: random.below(5) == 0,
        }
    }
}
