//! What a seed chooses before anything happens: sizes, limits, and how often each thing is done.

use stonelog_storage::journal::JournalOptions;
use stonelog_storage::log::LogConfig;

use crate::support::Random;

/// A step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Append,
    Duplicate,
    Write,
    Empty,
    Tell,
    Sync,
    Hear,
    Flush,
    Checkpoint,
    Read,
    Epoch,
    Truncate,
    Rebuild,
    LogStart,
    Retention,
    Mode,
    Drop,
    Create,
    Reset,
    Evict,
    Spare,
    Compact,
}

/// Those that every seed does, and how often among each other.
const USUAL: [(Action, u64); 14] = [
    (Action::Append, 60),
    (Action::Duplicate, 4),
    (Action::Write, 40),
    (Action::Empty, 6),
    (Action::Tell, 40),
    (Action::Sync, 30),
    (Action::Hear, 50),
    (Action::Flush, 60),
    (Action::Checkpoint, 50),
    (Action::Read, 30),
    (Action::Rebuild, 12),
    (Action::Evict, 4),
    (Action::Spare, 6),
    (Action::Compact, 25),
];

/// Those that a seed does more, less or not at all.
const SOME: [Action; 8] = [
    Action::Epoch,
    Action::Truncate,
    Action::LogStart,
    Action::Retention,
    Action::Mode,
    Action::Drop,
    Action::Create,
    Action::Reset,
];

/// See the module's comment.
#[derive(Clone, Debug)]
pub struct Options {
    pub journal: JournalOptions,
    pub config: LogConfig,
    pub logs_count: usize,
    pub logs_max: usize,
    /// A batch is smaller than its header and this.
    pub filler_bytes: u64,
    /// Whether recovery may be cut too.
    pub crash_in_recovery: bool,
    /// Whether the model keeps what led to durable states, for crashes in the past.
    pub keeps_history: bool,
    weights: Vec<(Action, u64)>,
    weights_total: u64,
}

impl Options {
    /// Chosen at random.
    pub fn of(random: &mut Random) -> Options {
        let (segment_bytes, filler_bytes) = match random.below(8) {
            0 => (260_000, 12_000),
            1 | 2 => (24_000, 2_000),
            3 | 4 => (9_000, 900),
            _ => (3_000, 500),
        };
        let file_bytes = if filler_bytes > 10_000 { 256 << 10 } else { (48 + 16 * random.below(4)) << 10 };
        let config = LogConfig {
            segment_bytes,
            index_interval_bytes: 512 << random.below(3),
            retention_bytes: (random.below(2) == 0).then(|| u64::from(segment_bytes) * (1 + random.below(4))),
            ..LogConfig::default()
        };
        let journal = JournalOptions {
            file_bytes,
            first_file_bytes: (24 + 8 * random.below(4)) << 10,
            commit_bytes_max: 4096 << random.below(4),
            bytes_max: file_bytes * (4 + random.below(4)),
        };
        let mut weights = USUAL.to_vec();
        for action in SOME {
            let often = [0, 1, 2, 5, 9][random.below(5) as usize];
            weights.push((action, often));
        }
        Options::with(journal, config, 1 + random.below(4) as usize, filler_bytes, weights)
    }

    /// Chosen by hand.
    pub fn with(
        journal: JournalOptions,
        config: LogConfig,
        logs_count: usize,
        filler_bytes: u64,
        weights: Vec<(Action, u64)>,
    ) -> Options {
        let weights_total = weights.iter().map(|(_, weight)| weight).sum();
        Options {
            journal,
            config,
            logs_count,
            logs_max: logs_count + 2,
            filler_bytes,
            crash_in_recovery: true,
            keeps_history: false,
            weights,
            weights_total,
        }
    }

    /// Whether there are logs that are compacted.
    pub fn compacts(&self) -> bool {
        self.weights.iter().any(|(action, _)| *action == Action::Compact)
    }

    /// The next action.
    pub fn pick(&self, random: &mut Random) -> Action {
        let mut at = random.below(self.weights_total);
        for (action, weight) in &self.weights {
            if at < *weight {
                return *action;
            }
            at -= weight;
        }
        unreachable!("below the sum of all weights")
    }
}
