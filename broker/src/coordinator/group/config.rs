//! What the group coordinator may be told, and the limits it keeps whatever it is told.

use std::time::Duration;

/// How long a new member's first JoinGroup may stay parked before the member is dropped
/// (`GroupMetadataManager.classicGroupNewMemberJoinTimeoutMs`): it has no heartbeat yet, so nothing else notices that
/// it has gone.
pub const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Members of a group that were given an id and have not joined with it yet. Each is held for a session timeout, at the
/// wish of a client nobody knows; beyond this many, further ones are turned away.
pub const PENDING_MEMBERS_MAX: usize = 10_000;

/// Groups of one partition that have members or are about to. Anyone may name a group and join it, and each costs
/// memory; beyond this many, further ones are told to come back later.
pub const LIVE_GROUPS_MAX: usize = 100_000;

/// Protocols (assignors) one member may offer; clients offer one to four.
pub const PROTOCOLS_PER_MEMBER_MAX: usize = 64;

/// Bytes of metadata one member may offer, over all its protocols. A subscription of 10,000 topics with long names is
/// about 1 MiB, and the log takes records of about that size.
pub const MEMBER_METADATA_BYTES_MAX: usize = 4 << 20;

/// Tombstones of one decision to expire offsets, to forget deleted topics or to delete groups; the caller repeats until
/// none come back.
pub const TOMBSTONES_PER_DECISION_MAX: usize = 1_000;

/// About how many bytes of tombstones one decision has, before one more is too many: a group's name alone may have
/// 32,767 bytes, and each tombstone repeats it. What is decided together is one batch of the log.
pub const TOMBSTONE_BYTES_PER_DECISION_MAX: usize = 512 << 10;

/// About how many bytes of records one OffsetCommit may become; a larger one is INVALID_COMMIT_OFFSET_SIZE. It is room
/// for some 80,000 partitions; Kafka's limit is `max.message.bytes` of its topic, 1 MiB by default.
pub const COMMIT_BYTES_MAX: usize = 8 << 20;

/// The group coordinator's settings (`GroupCoordinatorConfig`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`: members a group may have.
    pub group_members_max: usize,
    /// `offset.metadata.max.bytes`: the longest text a commit may carry.
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`: how long offsets outlive their group, or their last commit.
    pub offsets_retention: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            session_timeout_min: Duration::from_millis(6_000),
            session_timeout_max: Duration::from_millis(1_800_000),
            initial_rebalance_delay: Duration::from_millis(3_000),
            group_members_max: i32::MAX as usize,
            offset_metadata_bytes_max: 4_096,
            offsets_retention: Duration::from_secs(10_080 * 60),
        }
    }
}
