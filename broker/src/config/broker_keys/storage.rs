//! Directories, topics' creation, cleaning, flushing (`ServerLogConfigs`, `CleanerConfig`, parts of `ServerConfigs`).

use stonelog_replication::settings::{Definition, Kind};

const CHECKPOINTS: &str = "the journal bounds recovery: checkpoints follow its size, not a clock";
const PLUG_IN: &str = "Java plug-ins cannot be loaded";

pub(super) static KEYS: &[Definition] = &[
    Definition::unset("alter.config.policy.class.name", Kind::Class)
        .low()
        .refused(PLUG_IN)
        .says("A Java class that judges changes of configurations."),
    Definition::boolean("auto.create.topics.enable", "true")
        .high()
        .says("Whether a topic a client asks for is created when it does not exist; the client must ask for that too."),
    Definition::list("cordoned.log.dirs", "")
        .refused("replicas are not moved between directories yet")
        .says("Log directories that receive no new partitions."),
    Definition::unset("create.topic.policy.class.name", Kind::Class)
        .low()
        .refused(PLUG_IN)
        .says("A Java class that judges new topics."),
    Definition::unset("default.replication.factor", Kind::Int).at_least(1).says(
        "Replicas of a topic whose creator names no number. Unset means 3, or as many as there are brokers when \
             that is fewer.",
    ),
    Definition::boolean("delete.topic.enable", "true").high().says("Whether topics may be deleted."),
    Definition::long("log.cleaner.backoff.ms", "15000")
        .at_least(0)
        .cluster_wide()
        .says("How long the cleaner rests when there is nothing to clean, in milliseconds."),
    Definition::long("log.cleaner.dedupe.buffer.size", "134217728")
        .cluster_wide()
        .mapped("divided among the log directories; 24 bytes a key, taken only while compacting and as far as needed")
        .says("Memory for finding duplicate keys, in bytes."),
    Definition::boolean("log.cleaner.enable", "true").says("Whether the cleaner runs."),
    Definition::double("log.cleaner.io.buffer.load.factor", "0.9")
        .cluster_wide()
        .says("How full the cleaner's buffer of keys may get, 0 to 1."),
    Definition::int("log.cleaner.io.buffer.size", "524288")
        .at_least(0)
        .cluster_wide()
        .inert("the cleaner reads and writes 1 MiB at a time")
        .says("Memory for the cleaner's reads and writes, in bytes."),
    Definition::double("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308")
        .cluster_wide()
        .mapped("divided among the log directories; beside it the cleaner rests as long as it works")
        .says("The most bytes the cleaner reads and writes per second."),
    Definition::int("log.cleaner.threads", "1")
        .at_least(0)
        .cluster_wide()
        .inert("each log directory has one thread that compacts, at the lowest priority")
        .says("Threads that clean."),
    Definition::text("log.dir", super::DEFAULT_DATA_DIR).high().says("The data directory while log.dirs is unset."),
    Definition::long("log.dir.failure.timeout.ms", "30000")
        .at_least(1)
        .low()
        .inert("a broker tells the controller until it has heard, and serves what is left meanwhile")
        .says(
            "How long a broker may fail to tell the controller of a failed directory before it stops, in \
             milliseconds.",
        ),
    Definition::unset("log.dirs", Kind::String).high().says(
        "The directories the data is kept in, separated by commas, each best on a disk of its own. A new \
             partition goes to the one with the fewest. When one fails the others go on. --data-dir sets it too.",
    ),
    Definition::int("log.flush.offset.checkpoint.interval.ms", "60000")
        .at_least(0)
        .high()
        .inert(CHECKPOINTS)
        .says("How often the recovery point is written down, in milliseconds."),
    Definition::int("log.flush.start.offset.checkpoint.interval.ms", "60000")
        .at_least(0)
        .high()
        .inert(CHECKPOINTS)
        .says("How often the log start offset is written down, in milliseconds."),
    Definition::long("log.initial.task.delay.ms", "30000")
        .at_least(0)
        .low()
        .inert("background work begins when it is due")
        .says("How long after the start the first background work begins, in milliseconds."),
    Definition::long("log.retention.check.interval.ms", "300000")
        .at_least(1)
        .says("How often segments are checked for deletion, in milliseconds."),
    Definition::int("num.partitions", "1").at_least(1).says("Partitions of a topic whose creator names no number."),
    Definition::int("num.recovery.threads.per.data.dir", "2")
        .at_least(1)
        .high()
        .cluster_wide()
        .inert("recovery reads the journal in order, with one thread")
        .says("Threads per data directory for recovery at start and flushing at stop."),
    Definition::unset("num.replica.alter.log.dirs.threads", Kind::Int)
        .high()
        .inert("replicas are not moved between directories yet")
        .says("Threads that move replicas between directories."),
    Definition::int("producer.id.expiration.check.interval.ms", "600000")
        .at_least(1)
        .low()
        .says("How often idle producers are looked for, in milliseconds."),
    Definition::int("producer.id.expiration.ms", "86400000")
        .at_least(1)
        .low()
        .says("How long a partition remembers the sequence numbers of a producer that sends nothing, in milliseconds."),
];
