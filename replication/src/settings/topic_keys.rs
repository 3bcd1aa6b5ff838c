//! Every topic key of Kafka 4.x (`TopicConfig`, `LogConfig`), with Kafka's types, bounds and defaults.
//!
//! Two defaults are Stonelog's own: `flush.messages` is 1 (a topic is strict), and `min.insync.replicas`, when nobody
//! has set it, is 1 for one or two replicas and 2 for more.

use super::definition::{Constraint, Definition, Kind};

const CONTINUOUS: &str = "the journal flushes without pause: a relaxed record waits for one flush, not for a clock";
const AT_ONCE: &str = "a deleted segment's files go at once; reads under way keep theirs open";
/// Kafka's default level, 9, means its fast compressor too; any other asks for the slow one.
const LZ4_HAS_ONE_LEVEL: &str = "the LZ4 encoder here has one level, the one that 9 names";
const TIERED: &str = "tiered storage is not built yet";

/// Every topic key, in alphabetical order.
pub static TOPIC_KEYS: &[Definition] = &[
    Definition::list("cleanup.policy", "delete")
        .checked(Constraint::ListOf(&["compact", "delete"]))
        .topic(&["log.cleanup.policy"])
        .says(
            "What happens to old records: `delete` drops whole segments by age and size, `compact` keeps the last \
             record of each key.",
        ),
    Definition::int("compression.gzip.level", "-1")
        .checked(Constraint::GzipLevel)
        .topic(&["compression.gzip.level"])
        .says("The level gzip works at when compression.type is gzip: 1 to 9, or -1 for the library's own choice."),
    Definition::int("compression.lz4.level", "9")
        .between(1, 17)
        .topic(&["compression.lz4.level"])
        .refused(LZ4_HAS_ONE_LEVEL)
        .says("The level lz4 works at when compression.type is lz4."),
    Definition::text("compression.type", "producer")
        .checked(Constraint::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]))
        .topic(&["compression.type"])
        .says(
            "The codec batches are stored with. `producer` keeps what the producer sent; any other value re-encodes \
             batches that differ.",
        ),
    Definition::int("compression.zstd.level", "3")
        .between(-131_072, 22)
        .topic(&["compression.zstd.level"])
        .says("The level zstd works at when compression.type is zstd."),
    Definition::long("delete.retention.ms", "86400000")
        .at_least(0)
        .topic(&["log.cleaner.delete.retention.ms"])
        .says("How long a compacted topic keeps the mark of a deleted key, in milliseconds."),
    Definition::long("file.delete.delay.ms", "60000")
        .at_least(0)
        .topic(&["log.segment.delete.delay.ms"])
        .inert(AT_ONCE)
        .says("How long a deleted segment's file stays on disk under another name, in milliseconds."),
    Definition::long("flush.messages", "1").at_least(1).topic(&["log.flush.interval.messages"]).says(
        "With 1, Stonelog's default, the topic is strict: a record is acknowledged and readable only after it is \
             on disk on the leader and every in-sync replica. A larger value makes the topic relaxed: Kafka's own \
             contract, in which a power failure may lose acknowledged records.",
    ),
    Definition::long("flush.ms", "9223372036854775807")
        .at_least(0)
        .topic(&["log.flush.interval.ms", "log.flush.scheduler.interval.ms"])
        .inert(CONTINUOUS)
        .says(
            "The longest time records of a relaxed topic may stay un-flushed, in milliseconds. It never relaxes a \
             strict topic.",
        ),
    Definition::list("follower.replication.throttled.replicas", "")
        .checked(Constraint::ThrottledReplicas)
        .topic(&[])
        .says(
            "Replicas that fetch no faster than their broker's follower.replication.throttled.rate while they are not in \
             sync: `partition:broker` pairs, or `*` for all.",
        ),
    Definition::int("index.interval.bytes", "4096")
        .at_least(0)
        .topic(&["log.index.interval.bytes"])
        .says("About how many bytes of records lie between two entries of a segment's offset index."),
    Definition::list("leader.replication.throttled.replicas", "")
        .checked(Constraint::ThrottledReplicas)
        .topic(&[])
        .says(
            "Replicas that, while they lead, send to those not in sync no faster than their broker's \
             leader.replication.throttled.rate: `partition:broker` pairs, or `*` for all.",
        ),
    Definition::long("local.retention.bytes", "-2")
        .at_least(-2)
        .topic(&["log.local.retention.bytes"])
        .inert(TIERED)
        .says("With tiered storage, how many bytes stay on the local disk; -2 follows retention.bytes."),
    Definition::long("local.retention.ms", "-2")
        .at_least(-2)
        .topic(&["log.local.retention.ms"])
        .inert(TIERED)
        .says("With tiered storage, how long records stay on the local disk; -2 follows retention.ms."),
    Definition::long("max.compaction.lag.ms", "9223372036854775807")
        .at_least(1)
        .topic(&["log.cleaner.max.compaction.lag.ms"])
        .says("The longest time a record of a compacted topic stays out of compaction, in milliseconds."),
    Definition::int("max.message.bytes", "1048588")
        .at_least(0)
        .topic(&["message.max.bytes"])
        .says("The largest batch a producer may send, in bytes after compression."),
    Definition::long("message.timestamp.after.max.ms", "3600000")
        .at_least(0)
        .topic(&["log.message.timestamp.after.max.ms"])
        .says(
            "How far a record's timestamp may lie after the broker's clock, in milliseconds, when the producer's \
             timestamp is kept.",
        ),
    Definition::long("message.timestamp.before.max.ms", "9223372036854775807")
        .at_least(0)
        .topic(&["log.message.timestamp.before.max.ms"])
        .says(
            "How far a record's timestamp may lie before the broker's clock, in milliseconds, when the producer's \
             timestamp is kept.",
        ),
    Definition::text("message.timestamp.type", "CreateTime")
        .checked(Constraint::OneOf(&["CreateTime", "LogAppendTime"]))
        .topic(&["log.message.timestamp.type"])
        .says("Whether a record carries the producer's time (CreateTime) or the time it was appended (LogAppendTime)."),
    Definition::double("min.cleanable.dirty.ratio", "0.5")
        .checked(Constraint::Ratio(0.0, 1.0))
        .topic(&["log.cleaner.min.cleanable.ratio"])
        .says("Which share of a compacted log must be uncompacted before it is compacted again."),
    Definition::long("min.compaction.lag.ms", "0")
        .at_least(0)
        .topic(&["log.cleaner.min.compaction.lag.ms"])
        .says("The shortest time a record of a compacted topic stays out of compaction, in milliseconds."),
    Definition::unset("min.insync.replicas", Kind::Int).at_least(1).topic(&["min.insync.replicas"]).says(
        "How many in-sync replicas, the leader among them, must hold a record before it is acknowledged. While \
             nobody sets it, it is 1 for one or two replicas and 2 for more.",
    ),
    Definition::boolean("preallocate", "false")
        .topic(&["log.preallocate"])
        .says("Whether a new segment's space is allocated at once."),
    Definition::boolean("remote.log.copy.disable", "false")
        .topic(&[])
        .inert(TIERED)
        .says("With tiered storage, whether copying to the remote tier stops."),
    Definition::boolean("remote.log.delete.on.disable", "false")
        .topic(&[])
        .inert(TIERED)
        .says("With tiered storage, whether switching it off deletes what lies in the remote tier."),
    Definition::boolean("remote.storage.enable", "false")
        .topic(&[])
        .refused(TIERED)
        .says("Whether the topic's old segments move to remote storage."),
    Definition::long("retention.bytes", "-1")
        .topic(&["log.retention.bytes"])
        .says("How many bytes a partition may hold before its oldest segments are deleted; -1 sets no limit."),
    Definition::long("retention.ms", "604800000")
        .at_least(-1)
        .topic(&["log.retention.ms", "log.retention.minutes", "log.retention.hours"])
        .says("How long records are kept, in milliseconds; -1 keeps them for ever."),
    Definition::int("segment.bytes", "1073741824")
        .at_least(1_048_576)
        .topic(&["log.segment.bytes"])
        .says("The size at which a new segment begins, in bytes. Deletion works on whole segments."),
    Definition::int("segment.index.bytes", "10485760")
        .at_least(4)
        .topic(&["log.index.size.max.bytes"])
        .says("The index size at which a new segment begins, in bytes, counted as Kafka stores it."),
    Definition::long("segment.jitter.ms", "0")
        .at_least(0)
        .topic(&["log.roll.jitter.ms", "log.roll.jitter.hours"])
        .says(
            "The greatest random time taken off segment.ms, in milliseconds, so that partitions do not roll \
             together.",
        ),
    Definition::long("segment.ms", "604800000")
        .at_least(1)
        .topic(&["log.roll.ms", "log.roll.hours"])
        .says("The age at which a new segment begins even if the old one is not full, in milliseconds."),
    Definition::boolean("unclean.leader.election.enable", "false")
        .topic(&["unclean.leader.election.enable"])
        .mapped("honoured on relaxed topics; refused on strict ones, where an inherited true has no effect")
        .says(
            "Whether a replica outside the in-sync set may lead as a last resort, losing records. Refused on strict \
             topics.",
        ),
];

/// Keys that Kafka 4 removed and that old tools still send: accepted, never shown, without effect.
pub static OBSOLETE_TOPIC_KEYS: &[&str] =
    &["message.downconversion.enable", "message.format.version", "message.timestamp.difference.max.ms"];

/// Looks a topic key up by name.
pub fn topic_key(name: &str) -> Option<&'static Definition> {
    TOPIC_KEYS.binary_search_by(|definition| definition.name.cmp(name)).ok().map(|index| &TOPIC_KEYS[index])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::LOG_KEYS;

    #[test]
    fn the_table_is_sorted_without_duplicates() {
        assert!(TOPIC_KEYS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!(topic_key("retention.ms").map(|definition| definition.name), Some("retention.ms"));
        assert!(topic_key("retention.m").is_none());
    }

    #[test]
    fn every_synonym_is_a_broker_key_with_the_same_bounds() {
        for topic in TOPIC_KEYS {
            for (position, name) in topic.broker_keys().iter().enumerate() {
                let broker = LOG_KEYS.iter().find(|key| key.name == *name);
                let broker = broker.unwrap_or_else(|| panic!("{name} of {} has no definition", topic.name));
                if position == 0 && broker.default.is_some() {
                    assert_eq!(broker.default, topic.default, "{name}");
                    assert_eq!(broker.kind, topic.kind, "{name}");
                }
            }
        }
    }

    #[test]
    fn obsolete_keys_are_not_in_the_table() {
        assert!(OBSOLETE_TOPIC_KEYS.iter().all(|name| topic_key(name).is_none()));
    }
}
