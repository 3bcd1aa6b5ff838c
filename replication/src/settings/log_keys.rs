//! The broker's keys that give topics their defaults (`ServerTopicConfigSynonyms`): each is the synonym of a topic key.
//!
//! All first synonyms may change while brokers run, cluster-wide, as in Kafka (`DynamicLogConfig`); the variants in
//! hours and minutes need a restart.

use super::definition::{Constraint, Definition, Kind};

const CONTINUOUS: &str = "the journal flushes without pause: a relaxed record waits for one flush, not for a clock";
const AT_ONCE: &str = "a deleted segment's files go at once; reads under way keep theirs open";
/// Kafka's default level, 9, means its fast compressor too; any other asks for the slow one.
const LZ4_HAS_ONE_LEVEL: &str = "the LZ4 encoder here has one level, the one that 9 names";
const TIERED: &str = "tiered storage is not built yet";

/// Every broker key that a topic key inherits from.
pub static LOG_KEYS: &[Definition] = &[
    Definition::int("compression.gzip.level", "-1")
        .checked(Constraint::GzipLevel)
        .cluster_wide()
        .says("The default of the topic key of the same name."),
    Definition::int("compression.lz4.level", "9")
        .between(1, 17)
        .cluster_wide()
        .refused(LZ4_HAS_ONE_LEVEL)
        .says("The default of the topic key of the same name."),
    Definition::text("compression.type", "producer")
        .checked(Constraint::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
        .high()
        .cluster_wide()
        .says("The default of the topic key of the same name: the codec batches are stored with."),
    Definition::int("compression.zstd.level", "3")
        .between(-131_072, 22)
        .cluster_wide()
        .says("The default of the topic key of the same name."),
    Definition::long("log.cleaner.delete.retention.ms", "86400000")
        .at_least(0)
        .cluster_wide()
        .says("The default of delete.retention.ms."),
    Definition::long("log.cleaner.max.compaction.lag.ms", "9223372036854775807")
        .at_least(1)
        .cluster_wide()
        .says("The default of max.compaction.lag.ms."),
    Definition::double("log.cleaner.min.cleanable.ratio", "0.5")
        .checked(Constraint::Ratio(0.0, 1.0))
        .cluster_wide()
        .says("The default of min.cleanable.dirty.ratio."),
    Definition::long("log.cleaner.min.compaction.lag.ms", "0")
        .at_least(0)
        .cluster_wide()
        .says("The default of min.compaction.lag.ms."),
    Definition::list("log.cleanup.policy", "delete")
        .checked(Constraint::ListOf(&["compact", "delete"]))
        .cluster_wide()
        .says("The default of cleanup.policy: what happens to old records."),
    Definition::long("log.flush.interval.messages", "1").at_least(1).high().cluster_wide().says(
        "The default of flush.messages. With 1, Stonelog's default, topics are strict: acknowledged means on \
             disk on every in-sync replica. A larger value makes topics without a setting of their own relaxed.",
    ),
    Definition::unset("log.flush.interval.ms", Kind::Long).high().cluster_wide().inert(CONTINUOUS).says(
        "The default of flush.ms: the longest time records of relaxed topics stay un-flushed, in milliseconds. \
             Unset means log.flush.scheduler.interval.ms.",
    ),
    Definition::long("log.flush.scheduler.interval.ms", "9223372036854775807")
        .high()
        .inert(CONTINUOUS)
        .says("Stands in for log.flush.interval.ms while that is unset, in milliseconds."),
    Definition::int("log.index.interval.bytes", "4096")
        .at_least(0)
        .cluster_wide()
        .says("The default of index.interval.bytes."),
    Definition::int("log.index.size.max.bytes", "10485760")
        .at_least(4)
        .cluster_wide()
        .says("The default of segment.index.bytes."),
    Definition::long("log.local.retention.bytes", "-2")
        .at_least(-2)
        .cluster_wide()
        .inert(TIERED)
        .says("The default of local.retention.bytes."),
    Definition::long("log.local.retention.ms", "-2")
        .at_least(-2)
        .cluster_wide()
        .inert(TIERED)
        .says("The default of local.retention.ms."),
    Definition::long("log.message.timestamp.after.max.ms", "3600000")
        .at_least(0)
        .cluster_wide()
        .says("The default of message.timestamp.after.max.ms."),
    Definition::long("log.message.timestamp.before.max.ms", "9223372036854775807")
        .at_least(0)
        .cluster_wide()
        .says("The default of message.timestamp.before.max.ms."),
    Definition::text("log.message.timestamp.type", "CreateTime")
        .checked(Constraint::OneOf(&["CreateTime", "LogAppendTime"]))
        .cluster_wide()
        .says("The default of message.timestamp.type."),
    Definition::boolean("log.preallocate", "false").cluster_wide().says("The default of preallocate."),
    Definition::long("log.retention.bytes", "-1")
        .high()
        .cluster_wide()
        .says("The default of retention.bytes: bytes a partition may hold; -1 sets no limit."),
    Definition::int("log.retention.hours", "168").checked(Constraint::ForeverOrAtLeastOne).high().says(
        "How long records are kept, in hours; -1 keeps them for ever. log.retention.minutes and log.retention.ms \
             go before it.",
    ),
    Definition::unset("log.retention.minutes", Kind::Int)
        .checked(Constraint::ForeverOrAtLeastOne)
        .high()
        .says("How long records are kept, in minutes; -1 keeps them for ever. log.retention.ms goes before it."),
    Definition::unset("log.retention.ms", Kind::Long)
        .checked(Constraint::ForeverOrAtLeastOne)
        .high()
        .cluster_wide()
        .says(
            "The default of retention.ms: how long records are kept, in milliseconds; -1 keeps them for ever. Unset \
             means log.retention.minutes, then log.retention.hours.",
        ),
    Definition::int("log.roll.hours", "168")
        .at_least(1)
        .high()
        .says("The age at which a new segment begins, in hours. log.roll.ms goes before it."),
    Definition::int("log.roll.jitter.hours", "0")
        .at_least(0)
        .high()
        .says("The greatest random time taken off a segment's age, in hours. log.roll.jitter.ms goes before it."),
    Definition::unset("log.roll.jitter.ms", Kind::Long)
        .at_least(0)
        .high()
        .cluster_wide()
        .says("The default of segment.jitter.ms. Unset means log.roll.jitter.hours."),
    Definition::unset("log.roll.ms", Kind::Long)
        .at_least(1)
        .high()
        .cluster_wide()
        .says("The default of segment.ms. Unset means log.roll.hours."),
    Definition::int("log.segment.bytes", "1073741824")
        .at_least(1_048_576)
        .high()
        .cluster_wide()
        .says("The default of segment.bytes: the size at which a new segment begins."),
    Definition::long("log.segment.delete.delay.ms", "60000")
        .at_least(0)
        .high()
        .cluster_wide()
        .inert(AT_ONCE)
        .says("The default of file.delete.delay.ms."),
    Definition::int("message.max.bytes", "1048588")
        .at_least(0)
        .high()
        .cluster_wide()
        .says("The default of max.message.bytes: the largest batch a producer may send, in bytes after compression."),
    Definition::unset("min.insync.replicas", Kind::Int).at_least(1).high().cluster_wide().says(
        "The default of the topic key of the same name. While nobody sets it, it is 1 for one or two replicas \
             and 2 for more.",
    ),
    Definition::boolean("unclean.leader.election.enable", "false")
        .high()
        .cluster_wide()
        .mapped("honoured on relaxed topics; without effect on strict ones")
        .says("The default of the topic key of the same name. Without effect on strict topics."),
];

/// Milliseconds in one unit of a broker key's value: hours and minutes for the keys that count them, else 1.
pub fn unit_ms(broker_key: &str) -> i64 {
    if broker_key.ends_with(".hours") {
        3_600_000
    } else if broker_key.ends_with(".minutes") {
        60_000
    } else {
        1
    }
}

/// Looks one of these broker keys up by name.
pub fn log_key(name: &str) -> Option<&'static Definition> {
    LOG_KEYS.iter().find(|definition| definition.name == name)
}
