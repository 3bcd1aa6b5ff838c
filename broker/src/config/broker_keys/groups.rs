//! Groups and committed offsets (`GroupCoordinatorConfig`).

use stonelog_replication::settings::{Constraint, Definition};

const LANES: &str = "coordinators run on their partitions' lanes: see stonelog.lanes";
const CONSUMER: &str = "the consumer protocol (KIP-848) is not built yet";
const SHARE: &str = "share groups (KIP-932) are not built yet";
const STREAMS: &str = "streams groups (KIP-1071) are not built yet";

pub(super) static KEYS: &[Definition] = &[
    Definition::list("group.consumer.assignors", "uniform,range")
        .inert(CONSUMER)
        .says("Assignors the broker offers to consumer groups."),
    Definition::int("group.consumer.assignment.interval.ms", "1000")
        .at_least(0)
        .inert(CONSUMER)
        .says("The shortest time between two assignments of a consumer group, in milliseconds."),
    Definition::int("group.consumer.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(CONSUMER)
        .says("How often members of consumer groups report, in milliseconds."),
    Definition::int("group.consumer.max.heartbeat.interval.ms", "15000")
        .at_least(1)
        .inert(CONSUMER)
        .says("The longest heartbeat interval a consumer group may set, in milliseconds."),
    Definition::int("group.consumer.max.session.timeout.ms", "60000")
        .at_least(1)
        .inert(CONSUMER)
        .says("The longest session timeout a consumer group may set, in milliseconds."),
    Definition::int("group.consumer.max.size", "2147483647")
        .at_least(1)
        .inert(CONSUMER)
        .says("The most members of a consumer group."),
    Definition::text("group.consumer.migration.policy", "bidirectional")
        .inert(CONSUMER)
        .says("Which way groups may change between the classic and the consumer protocol."),
    Definition::int("group.consumer.min.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(CONSUMER)
        .says("The shortest heartbeat interval a consumer group may set, in milliseconds."),
    Definition::int("group.consumer.min.session.timeout.ms", "45000")
        .at_least(1)
        .inert(CONSUMER)
        .says("The shortest session timeout a consumer group may set, in milliseconds."),
    Definition::int("group.consumer.session.timeout.ms", "45000")
        .at_least(1)
        .inert(CONSUMER)
        .says("How long a silent member of a consumer group stays in it, in milliseconds."),
    Definition::int("group.coordinator.append.linger.ms", "-1")
        .at_least(-1)
        .inert("the journal's group commit gathers writes without waiting")
        .says("How long the coordinator waits for more records before it writes, in milliseconds."),
    Definition::int("group.coordinator.background.threads", "2")
        .at_least(1)
        .inert(LANES)
        .says("Threads for the coordinator's background work."),
    Definition::int("group.coordinator.cached.buffer.max.bytes", "1048588")
        .at_least(0)
        .inert(LANES)
        .says("The largest write buffer the coordinator keeps."),
    Definition::list("group.coordinator.rebalance.protocols", "classic")
        .checked(Constraint::ListOf(&["classic", "consumer", "share", "streams"]))
        .mapped("only `classic` is served so far, whatever else is listed")
        .says("The group protocols the broker serves."),
    Definition::int("group.coordinator.threads", "4")
        .at_least(1)
        .inert(LANES)
        .says("Threads of the group coordinator."),
    Definition::int("group.initial.rebalance.delay.ms", "3000")
        .at_least(0)
        .says("How long the first rebalance of an empty group waits for more members, in milliseconds."),
    Definition::int("group.max.session.timeout.ms", "1800000")
        .at_least(1)
        .says("The longest session timeout a member may ask for, in milliseconds."),
    Definition::int("group.max.size", "2147483647").at_least(1).says("The most members of a group."),
    Definition::int("group.min.session.timeout.ms", "6000")
        .at_least(1)
        .says("The shortest session timeout a member may ask for, in milliseconds."),
    Definition::list("group.share.assignors", "simple")
        .inert(SHARE)
        .says("Assignors the broker offers to share groups."),
    Definition::int("group.share.delivery.count.limit", "5")
        .between(2, 10)
        .inert(SHARE)
        .says("How often a record is delivered before it is given up."),
    Definition::int("group.share.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(SHARE)
        .says("How often members of share groups report, in milliseconds."),
    Definition::int("group.share.max.heartbeat.interval.ms", "15000")
        .at_least(1)
        .inert(SHARE)
        .says("The longest heartbeat interval of share groups, in milliseconds."),
    Definition::int("group.share.max.record.lock.duration.ms", "60000")
        .between(30_000, 3_600_000)
        .inert(SHARE)
        .says("The longest record lock, in milliseconds."),
    Definition::int("group.share.max.session.timeout.ms", "60000")
        .at_least(1)
        .inert(SHARE)
        .says("The longest session timeout of share groups, in milliseconds."),
    Definition::int("group.share.max.share.sessions", "2000")
        .at_least(1)
        .inert(SHARE)
        .says("The most share sessions per broker."),
    Definition::int("group.share.max.size", "200")
        .between(1, 1000)
        .inert(SHARE)
        .says("The most members of a share group."),
    Definition::int("group.share.min.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(SHARE)
        .says("The shortest heartbeat interval of share groups, in milliseconds."),
    Definition::int("group.share.min.record.lock.duration.ms", "15000")
        .between(1000, 30_000)
        .inert(SHARE)
        .says("The shortest record lock, in milliseconds."),
    Definition::int("group.share.min.session.timeout.ms", "45000")
        .at_least(1)
        .inert(SHARE)
        .says("The shortest session timeout of share groups, in milliseconds."),
    Definition::int("group.share.partition.max.record.locks", "2000")
        .between(100, 10_000)
        .inert(SHARE)
        .says("The most locked records per share partition."),
    Definition::text(
        "group.share.persister.class.name",
        "org.apache.kafka.server.share.persister.DefaultStatePersister",
    )
    .inert(SHARE)
    .says("The Java class that keeps the state of share groups."),
    Definition::int("group.share.record.lock.duration.ms", "30000")
        .between(1000, 3_600_000)
        .inert(SHARE)
        .says("How long a delivered record stays locked, in milliseconds."),
    Definition::int("group.share.session.timeout.ms", "45000")
        .at_least(1)
        .inert(SHARE)
        .says("How long a silent member of a share group stays in it, in milliseconds."),
    Definition::int("group.streams.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(STREAMS)
        .says("How often members of streams groups report, in milliseconds."),
    Definition::int("group.streams.initial.rebalance.delay.ms", "3000")
        .at_least(0)
        .inert(STREAMS)
        .says("How long the first rebalance of a streams group waits, in milliseconds."),
    Definition::int("group.streams.max.heartbeat.interval.ms", "15000")
        .at_least(1)
        .inert(STREAMS)
        .says("The longest heartbeat interval of streams groups, in milliseconds."),
    Definition::int("group.streams.max.session.timeout.ms", "60000")
        .at_least(1)
        .inert(STREAMS)
        .says("The longest session timeout of streams groups, in milliseconds."),
    Definition::int("group.streams.max.size", "2147483647")
        .at_least(1)
        .inert(STREAMS)
        .says("The most members of a streams group."),
    Definition::int("group.streams.max.standby.replicas", "2")
        .at_least(0)
        .inert(STREAMS)
        .says("The most standby replicas a streams group may set."),
    Definition::int("group.streams.min.heartbeat.interval.ms", "5000")
        .at_least(1)
        .inert(STREAMS)
        .says("The shortest heartbeat interval of streams groups, in milliseconds."),
    Definition::int("group.streams.min.session.timeout.ms", "45000")
        .at_least(1)
        .inert(STREAMS)
        .says("The shortest session timeout of streams groups, in milliseconds."),
    Definition::int("group.streams.num.standby.replicas", "0")
        .at_least(0)
        .inert(STREAMS)
        .says("Standby replicas of a streams group's state."),
    Definition::int("group.streams.session.timeout.ms", "45000")
        .at_least(1)
        .inert(STREAMS)
        .says("How long a silent member of a streams group stays in it, in milliseconds."),
    Definition::int("offset.metadata.max.bytes", "4096")
        .at_least(0)
        .high()
        .says("The longest text a client may store beside a committed offset, in bytes."),
    Definition::int("offsets.commit.timeout.ms", "5000")
        .at_least(1)
        .high()
        .says("How long a commit may wait to become durable before it is answered with an error, in milliseconds."),
    Definition::int("offsets.load.buffer.size", "5242880")
        .at_least(1)
        .high()
        .inert("loading reads by the batch")
        .says("How many bytes are read at once when a coordinator loads."),
    Definition::int("offsets.retention.check.interval.ms", "600000")
        .at_least(1)
        .high()
        .says("How often expired offsets are looked for, in milliseconds."),
    Definition::int("offsets.retention.minutes", "10080")
        .at_least(1)
        .high()
        .says("How long committed offsets of a group without members are kept, in minutes."),
    Definition::int("offsets.topic.compression.codec", "0")
        .high()
        .inert("offsets are written uncompressed")
        .says("The codec of the offsets topic."),
    Definition::int("offsets.topic.num.partitions", "50")
        .at_least(1)
        .high()
        .says("Partitions of __consumer_offsets, used when it is created; it cannot change afterwards."),
    Definition::short("offsets.topic.replication.factor", "3")
        .at_least(1)
        .high()
        .mapped("with fewer brokers there are fewer replicas: one on a lone node")
        .says("Replicas of __consumer_offsets once there are as many brokers."),
    Definition::int("offsets.topic.segment.bytes", "104857600")
        .at_least(1_048_576)
        .high()
        .says("The segment size of __consumer_offsets, in bytes."),
];
