//! Keys of features that are not built yet, or belong to the Java machine: transactions, share state, quotas, tiered
//! storage, metrics. Accepted so that existing files work, and said once; refused where silence would mislead.

use stonelog_replication::settings::{Definition, Kind};

const TRANSACTIONS: &str = "transactions are not built yet";
const SHARE: &str = "share groups (KIP-932) are not built yet";
const QUOTAS: &str = "quotas are not built yet";
const OWED: &str = "what was sent is owed, and paid off at the rate";
const TIERED: &str = "tiered storage is not built yet";
const METRICS: &str = "metrics are not built yet";
const JAVA: &str = "there is no Java machine to report to";

pub(super) static KEYS: &[Definition] = &[
    // Transactions (`TransactionLogConfig`, `TransactionStateManagerConfig`, `AddPartitionsToTxnConfig`).
    Definition::int("add.partitions.to.txn.retry.backoff.max.ms", "100")
        .at_least(0)
        .inert(TRANSACTIONS)
        .says("The longest wait before a partition is added to a transaction again, in milliseconds."),
    Definition::int("add.partitions.to.txn.retry.backoff.ms", "20")
        .at_least(1)
        .inert(TRANSACTIONS)
        .says("The first wait before a partition is added to a transaction again, in milliseconds."),
    Definition::int("transaction.abort.timed.out.transaction.cleanup.interval.ms", "10000")
        .at_least(1)
        .low()
        .inert(TRANSACTIONS)
        .says("How often timed-out transactions are aborted, in milliseconds."),
    Definition::int("transaction.max.timeout.ms", "900000")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("The longest timeout a transactional producer may ask for, in milliseconds."),
    Definition::boolean("transaction.partition.verification.enable", "true")
        .low()
        .cluster_wide()
        .inert(TRANSACTIONS)
        .says("Whether a partition is verified to be in the transaction before it is written."),
    Definition::int("transaction.remove.expired.transaction.cleanup.interval.ms", "3600000")
        .at_least(1)
        .low()
        .inert(TRANSACTIONS)
        .says("How often expired transactional ids are removed, in milliseconds."),
    Definition::int("transaction.state.log.load.buffer.size", "5242880")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("How many bytes are read at once when the transaction coordinator loads."),
    Definition::int("transaction.state.log.min.isr", "2")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("min.insync.replicas of __transaction_state."),
    Definition::int("transaction.state.log.num.partitions", "50")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("Partitions of __transaction_state."),
    Definition::short("transaction.state.log.replication.factor", "3")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("Replicas of __transaction_state."),
    Definition::int("transaction.state.log.segment.bytes", "104857600")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("The segment size of __transaction_state, in bytes."),
    Definition::boolean("transaction.two.phase.commit.enable", "false")
        .low()
        .refused(TRANSACTIONS)
        .says("Whether transactions may take part in two-phase commits."),
    Definition::int("transactional.id.expiration.ms", "604800000")
        .at_least(1)
        .high()
        .inert(TRANSACTIONS)
        .says("How long an unused transactional id is remembered, in milliseconds."),
    // Share state (`ShareCoordinatorConfig`).
    Definition::int("share.coordinator.append.linger.ms", "-1")
        .at_least(-1)
        .inert(SHARE)
        .says("How long the share coordinator waits for more records, in milliseconds."),
    Definition::int("share.coordinator.load.buffer.size", "5242880")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("How many bytes are read at once when the share coordinator loads."),
    Definition::int("share.coordinator.snapshot.update.records.per.snapshot", "500")
        .between(0, 500)
        .inert(SHARE)
        .says("Updates between two snapshots of share state."),
    Definition::int("share.coordinator.state.topic.compression.codec", "0")
        .high()
        .inert(SHARE)
        .says("The codec of the share state topic."),
    Definition::short("share.coordinator.state.topic.min.isr", "2")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("min.insync.replicas of the share state topic."),
    Definition::int("share.coordinator.state.topic.num.partitions", "50")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("Partitions of the share state topic."),
    Definition::int("share.coordinator.state.topic.prune.interval.ms", "300000")
        .at_least(1)
        .low()
        .inert(SHARE)
        .says("How often the share state topic is pruned, in milliseconds."),
    Definition::short("share.coordinator.state.topic.replication.factor", "3")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("Replicas of the share state topic."),
    Definition::int("share.coordinator.state.topic.segment.bytes", "104857600")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("The segment size of the share state topic, in bytes."),
    Definition::int("share.coordinator.threads", "1")
        .at_least(1)
        .inert(SHARE)
        .says("Threads of the share coordinator."),
    Definition::int("share.coordinator.write.timeout.ms", "5000")
        .at_least(1)
        .high()
        .inert(SHARE)
        .says("How long a write of share state may take, in milliseconds."),
    Definition::int("share.fetch.purgatory.purge.interval.requests", "1000")
        .inert(SHARE)
        .says("How often answered share fetches are removed."),
    // Quotas (`QuotaConfig`).
    Definition::int("alter.log.dirs.replication.quota.window.num", "11")
        .at_least(1)
        .low()
        .inert(QUOTAS)
        .says("Samples kept for the quota on moves between directories."),
    Definition::int("alter.log.dirs.replication.quota.window.size.seconds", "1")
        .at_least(1)
        .low()
        .inert(QUOTAS)
        .says("The length of each such sample, in seconds."),
    Definition::unset("client.quota.callback.class", Kind::Class)
        .low()
        .refused("Java plug-ins cannot be loaded")
        .says("A Java class that decides quotas."),
    Definition::int("controller.quota.window.num", "11")
        .at_least(1)
        .low()
        .inert(QUOTAS)
        .says("Samples kept for the quota on metadata changes."),
    Definition::int("controller.quota.window.size.seconds", "1")
        .at_least(1)
        .low()
        .inert(QUOTAS)
        .says("The length of each such sample, in seconds."),
    Definition::int("quota.window.num", "11").at_least(1).low().inert(QUOTAS).says("Samples kept for clients' quotas."),
    Definition::int("quota.window.size.seconds", "1")
        .at_least(1)
        .low()
        .inert(QUOTAS)
        .says("The length of each such sample, in seconds."),
    Definition::int("replication.quota.window.num", "11")
        .at_least(1)
        .low()
        .inert(OWED)
        .says("Samples kept for replication's quotas."),
    Definition::int("replication.quota.window.size.seconds", "1")
        .at_least(1)
        .low()
        .inert(OWED)
        .says("The length of each such sample, in seconds."),
    Definition::long("follower.replication.throttled.rate", "9223372036854775807").at_least(0).cluster_wide().says(
        "Bytes per second that this broker fetches for replicas that follower.replication.throttled.replicas names and \
             that are not in sync.",
    ),
    Definition::long("leader.replication.throttled.rate", "9223372036854775807").at_least(0).cluster_wide().says(
        "Bytes per second that this broker sends to replicas not in sync of those partitions that it leads and \
             leader.replication.throttled.replicas names.",
    ),
    Definition::long("replica.alter.log.dirs.io.max.bytes.per.second", "9223372036854775807")
        .at_least(0)
        .cluster_wide()
        .inert(QUOTAS)
        .says("Bytes per second moves between directories may use."),
    // Tiered storage (`RemoteLogManagerConfig`).
    Definition::boolean("remote.log.storage.system.enable", "false")
        .refused(TIERED)
        .says("Whether segments move to remote storage."),
    Definition::int("remote.fetch.max.wait.ms", "500")
        .at_least(1)
        .cluster_wide()
        .inert(TIERED)
        .says("The longest time a fetch waits for remote storage, in milliseconds."),
    Definition::long("remote.list.offsets.request.timeout.ms", "30000")
        .at_least(1)
        .cluster_wide()
        .inert(TIERED)
        .says("The longest time a look-up of offsets waits for remote storage, in milliseconds."),
    Definition::long("remote.log.index.file.cache.total.size.bytes", "1073741824")
        .at_least(1)
        .low()
        .cluster_wide()
        .inert(TIERED)
        .says("Space for remote segments' indexes, in bytes."),
    Definition::int("remote.log.manager.copier.thread.pool.size", "10")
        .at_least(1)
        .inert(TIERED)
        .says("Threads that copy to remote storage."),
    Definition::long("remote.log.manager.copy.max.bytes.per.second", "9223372036854775807")
        .at_least(1)
        .cluster_wide()
        .inert(TIERED)
        .says("Bytes per second that are copied to remote storage."),
    Definition::int("remote.log.manager.copy.quota.window.num", "11")
        .at_least(1)
        .inert(TIERED)
        .says("Samples kept for that quota."),
    Definition::int("remote.log.manager.copy.quota.window.size.seconds", "1")
        .at_least(1)
        .inert(TIERED)
        .says("The length of each such sample, in seconds."),
    Definition::int("remote.log.manager.expiration.thread.pool.size", "10")
        .at_least(1)
        .inert(TIERED)
        .says("Threads that expire remote segments."),
    Definition::long("remote.log.manager.fetch.max.bytes.per.second", "9223372036854775807")
        .at_least(1)
        .cluster_wide()
        .inert(TIERED)
        .says("Bytes per second that are read from remote storage."),
    Definition::int("remote.log.manager.fetch.quota.window.num", "11")
        .at_least(1)
        .inert(TIERED)
        .says("Samples kept for that quota."),
    Definition::int("remote.log.manager.fetch.quota.window.size.seconds", "1")
        .at_least(1)
        .inert(TIERED)
        .says("The length of each such sample, in seconds."),
    Definition::int("remote.log.manager.follower.thread.pool.size", "2")
        .at_least(1)
        .inert(TIERED)
        .says("Threads for followers' work on remote segments."),
    Definition::long("remote.log.manager.task.interval.ms", "30000")
        .at_least(1)
        .low()
        .inert(TIERED)
        .says("How often remote storage is looked after, in milliseconds."),
    Definition::long("remote.log.manager.task.retry.backoff.max.ms", "30000")
        .at_least(1)
        .low()
        .inert(TIERED)
        .says("The longest wait before a remote operation is tried again, in milliseconds."),
    Definition::long("remote.log.manager.task.retry.backoff.ms", "500")
        .at_least(1)
        .low()
        .inert(TIERED)
        .says("The first wait before a remote operation is tried again, in milliseconds."),
    Definition::double("remote.log.manager.task.retry.jitter", "0.2")
        .low()
        .inert(TIERED)
        .says("The random part of that wait, 0 to 0.5."),
    Definition::int("remote.log.manager.thread.pool.size", "2")
        .at_least(1)
        .inert(TIERED)
        .says("Threads for remote segments."),
    Definition::int("remote.log.metadata.custom.metadata.max.bytes", "128")
        .at_least(0)
        .low()
        .inert(TIERED)
        .says("The most bytes of a plug-in's own metadata."),
    Definition::text(
        "remote.log.metadata.manager.class.name",
        "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager",
    )
    .inert(TIERED)
    .says("The Java class that keeps remote segments' metadata."),
    Definition::unset("remote.log.metadata.manager.class.path", Kind::String)
        .inert(TIERED)
        .says("Where that class is."),
    Definition::text("remote.log.metadata.manager.impl.prefix", "rlmm.config.")
        .inert(TIERED)
        .says("The prefix of that class's settings."),
    Definition::unset("remote.log.metadata.manager.listener.name", Kind::String)
        .inert(TIERED)
        .says("The listener that class uses."),
    Definition::int("remote.log.reader.max.pending.tasks", "100")
        .at_least(1)
        .inert(TIERED)
        .says("The most remote reads that wait."),
    Definition::int("remote.log.reader.threads", "10")
        .at_least(1)
        .inert(TIERED)
        .says("Threads that read from remote storage."),
    Definition::unset("remote.log.storage.manager.class.name", Kind::String)
        .inert(TIERED)
        .says("The Java class that keeps remote segments."),
    Definition::unset("remote.log.storage.manager.class.path", Kind::String).inert(TIERED).says("Where that class is."),
    Definition::text("remote.log.storage.manager.impl.prefix", "rsm.config.")
        .inert(TIERED)
        .says("The prefix of that class's settings."),
    // Metrics (`MetricConfigs`) and what concerns only the Java machine.
    Definition::list("config.providers", "")
        .refused("values are taken as they are written: `${…}` is not replaced")
        .says("Java classes that replace ${…} in values."),
    Definition::int("kafka.metrics.polling.interval.secs", "10")
        .at_least(1)
        .low()
        .inert(JAVA)
        .says("How often metrics are collected for Java reporters, in seconds."),
    Definition::list("kafka.metrics.reporters", "").low().inert(JAVA).says("Java classes that report metrics."),
    Definition::list("metric.reporters", "org.apache.kafka.common.metrics.JmxReporter")
        .low()
        .cluster_wide()
        .inert(JAVA)
        .says("Java classes that report metrics."),
    Definition::int("metrics.num.samples", "2").at_least(1).low().inert(METRICS).says("Samples kept for each metric."),
    Definition::text("metrics.recording.level", "INFO").low().inert(METRICS).says("How detailed metrics are."),
    Definition::long("metrics.sample.window.ms", "30000")
        .at_least(1)
        .low()
        .inert(METRICS)
        .says("The length of each sample, in milliseconds."),
    Definition::int("telemetry.max.bytes", "1048576")
        .at_least(1)
        .low()
        .inert(METRICS)
        .says("The largest set of metrics a client may push, in bytes."),
];
