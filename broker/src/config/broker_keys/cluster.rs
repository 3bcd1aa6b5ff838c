//! Identity, quorum, replication between brokers (`KRaftConfigs`, `QuorumConfig`, `ReplicationConfigs`).

use stonelog_replication::settings::{Constraint, Definition, Kind};

const PUSHED: &str = "leaders push records to their followers, within credit that followers give";
const QUORUM: &str =
    "the quorum's times are fixed: signs of life every 100 ms, an election after 300 to 600 ms without one";
const LEAVING: &str = "a broker that stops asks the controller to move what it leads, for at most 15 s";
const OWN_LOG: &str = "the metadata log has its own journal and bounds";

/// The selector that sends consumers to the replica in their own rack.
pub(in crate::config) const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

pub(super) static KEYS: &[Definition] = &[
    Definition::boolean("auto.leader.rebalance.enable", "true")
        .high()
        .says("Whether leadership returns to preferred replicas by itself."),
    Definition::int("broker.heartbeat.interval.ms", "2000")
        .says("How often brokers report to the controller, in milliseconds; at most half of broker.session.timeout.ms."),
    Definition::int("broker.id", "-1").high().mapped("the old name of node.id").says("The old name of node.id."),
    Definition::unset("broker.rack", Kind::String).says("The rack or zone of this broker, told to clients; replicas are spread over racks, and consumers may read within \
             theirs (replica.selector.class)."),
    Definition::int("broker.session.timeout.ms", "9000")
        .says("How long a silent broker stays in the cluster, in milliseconds."),
    Definition::boolean("controlled.shutdown.enable", "true")
        .inert(LEAVING)
        .says("Whether a stopping broker hands its leadership over first."),
    Definition::int("controlled.shutdown.max.retries", "3").inert(LEAVING).says("How often handing over is tried."),
    Definition::long("controlled.shutdown.retry.backoff.ms", "5000")
        .inert(LEAVING)
        .says("How long to wait between two tries of handing over, in milliseconds."),
    Definition::unset("controller.listener.names", Kind::String)
        .high()
        .says("The listeners at which the voters of a cluster of several nodes meet. A lone node opens no socket for them."),
    Definition::boolean("controller.quorum.auto.join.enable", "false")
        .low()
        .inert("who votes is said by controller.quorum.voters, or by commands")
        .says("Whether a new controller joins the voters by itself."),
    Definition::int("controller.quorum.append.linger.ms", "25")
        .inert(OWN_LOG)
        .says("How long the quorum's leader waits for more records before it writes, in milliseconds."),
    Definition::list("controller.quorum.bootstrap.servers", "")
        .high()
        .says(
            "Where a node finds the metadata quorum, as host:port; who votes it hears there. A node with servers finds a \
             cluster and forms none: those that form it have controller.quorum.voters instead.",
        ),
    Definition::int("controller.quorum.election.backoff.max.ms", "1000")
        .high()
        .inert(QUORUM)
        .says("The longest wait before a new election, in milliseconds."),
    Definition::int("controller.quorum.election.timeout.ms", "1000")
        .high()
        .inert(QUORUM)
        .says("How long a candidate waits for votes, in milliseconds."),
    Definition::int("controller.quorum.fetch.timeout.ms", "2000")
        .high()
        .inert(QUORUM)
        .says("How long a voter waits for the leader before it calls an election, in milliseconds."),
    Definition::int("controller.quorum.fetch.snapshot.max.bytes", "1048576")
        .at_least(1)
        .low()
        .inert("messages between nodes have bounds of their own")
        .says("The most bytes of a snapshot in one answer."),
    Definition::int("controller.quorum.fetch.max.bytes", "8388608")
        .at_least(1)
        .low()
        .inert("messages between nodes have bounds of their own")
        .says("The most bytes of metadata in one answer."),
    Definition::int("controller.quorum.request.timeout.ms", "2000")
        .says("How long a voter waits for an answer, in milliseconds."),
    Definition::int("controller.quorum.retry.backoff.ms", "20")
        .low()
        .inert(QUORUM)
        .says("How long a voter waits before it asks again, in milliseconds."),
    Definition::list("controller.quorum.voters", "")
        .high()
        .says(
            "The voters of the metadata quorum, as id@host:port: the same list of 1, 3 or 5 on every node that is to form \
             the cluster; others may have it too, or controller.quorum.bootstrap.servers instead.",
        ),
    Definition::int("controller.socket.timeout.ms", "30000")
        .inert("brokers ask the controller; it asks nobody")
        .says("How long the controller waits for a broker, in milliseconds."),
    Definition::int("delete.records.purgatory.purge.interval.requests", "1")
        .inert("waiting requests leave when they are answered")
        .says("How often answered requests are removed."),
    Definition::int("fetch.purgatory.purge.interval.requests", "1000")
        .inert("waiting requests leave when they are answered")
        .says("How often answered requests are removed."),
    Definition::int("initial.broker.registration.timeout.ms", "60000")
        .inert("a broker tries for 60 s")
        .says("How long a broker tries to register before it stops, in milliseconds."),
    Definition::long("leader.imbalance.check.interval.seconds", "300")
        .at_least(1)
        .high()
        .says("How often leadership is looked at, in seconds."),
    Definition::int("leader.imbalance.per.broker.percentage", "10")
        .high()
        .inert("every preferred leader that can lead is put back")
        .says("How uneven leadership may be, in percent."),
    Definition::unset("metadata.log.dir", Kind::String).high().says(
        "Which of log.dirs a new cluster's metadata log begins in; the first if unset. Later the metadata log is \
             found where it is. Without that directory the broker does not start.",
    ),
    Definition::long("metadata.log.max.record.bytes.between.snapshots", "20971520")
        .at_least(1)
        .high()
        .inert(OWN_LOG)
        .says("How much metadata is written between two snapshots, in bytes."),
    Definition::long("metadata.log.max.snapshot.interval.ms", "3600000")
        .at_least(0)
        .high()
        .inert(OWN_LOG)
        .says("The longest time between two snapshots, in milliseconds."),
    Definition::int("metadata.log.segment.bytes", "1073741824")
        .at_least(12)
        .high()
        .inert(OWN_LOG)
        .says("The segment size of the metadata log, in bytes."),
    Definition::long("metadata.log.segment.ms", "604800000")
        .high()
        .inert(OWN_LOG)
        .says("The age at which the metadata log begins a new segment, in milliseconds."),
    Definition::int("metadata.max.idle.interval.ms", "500")
        .at_least(0)
        .low()
        .inert("an idle quorum writes nothing")
        .says("How often an idle controller writes, in milliseconds."),
    Definition::long("metadata.max.retention.bytes", "104857600")
        .high()
        .inert(OWN_LOG)
        .says("How much metadata is kept, in bytes."),
    Definition::long("metadata.max.retention.ms", "604800000")
        .high()
        .inert(OWN_LOG)
        .says("How long metadata is kept, in milliseconds."),
    Definition::int("node.id", "1")
        .at_least(0)
        .high()
        .says("This node's number, unique in the cluster. Kafka has no default; Stonelog's is 1."),
    Definition::int("num.replica.fetchers", "1")
        .high()
        .cluster_wide()
        .inert(PUSHED)
        .says("Threads that fetch from each other broker."),
    Definition::list("process.roles", "broker,controller")
        .checked(Constraint::ListOf(&["broker", "controller"]))
        .high()
        .says(
            "What this node is: broker, controller or both. Kafka has no default; Stonelog's is both for a voter, and \
             broker for a node that is not listed as one.",
        ),
    Definition::int("producer.purgatory.purge.interval.requests", "1000")
        .inert("waiting requests leave when they are answered")
        .says("How often answered requests are removed."),
    Definition::int("replica.fetch.backoff.ms", "1000")
        .at_least(0)
        .inert(PUSHED)
        .says("How long a follower rests after an error, in milliseconds."),
    Definition::int("replica.fetch.max.bytes", "1048576")
        .at_least(0)
        .inert(PUSHED)
        .says("The most bytes per partition a follower asks for."),
    Definition::int("replica.fetch.min.bytes", "1")
        .high()
        .inert(PUSHED)
        .says("The fewest bytes a follower waits for."),
    Definition::int("replica.fetch.response.max.bytes", "10485760")
        .at_least(0)
        .inert(PUSHED)
        .says("The most bytes a follower asks for."),
    Definition::int("replica.fetch.wait.max.ms", "500")
        .high()
        .inert(PUSHED)
        .says("The longest time a follower's fetch waits, in milliseconds."),
    Definition::long("replica.high.watermark.checkpoint.interval.ms", "5000")
        .high()
        .inert("the journal keeps the high watermark")
        .says("How often high watermarks are written down, in milliseconds."),
    Definition::long("replica.lag.time.max.ms", "10000").at_least(1).high().says(
        "How long a follower may lag before it leaves the in-sync set, in milliseconds; and how long a write or a sync of \
         a log directory may take before producers that would wait for it are refused instead. Kafka's default is 30000.",
    ),
    Definition::unset("replica.selector.class", Kind::String)
        .checked(Constraint::OneOf(&[RACK_AWARE, "org.apache.kafka.common.replica.LeaderSelector"]))
        .says(
            "How the replica a consumer reads from is chosen, by the name of one of Kafka's own two classes: unset or \
             LeaderSelector, the leader; RackAwareReplicaSelector, an in-sync replica whose broker.rack is the consumer's \
             client.rack, where the leader's is another.",
        ),
    Definition::int("replica.socket.receive.buffer.bytes", "65536")
        .high()
        .inert(PUSHED)
        .says("The receive buffer of connections to leaders, in bytes."),
    Definition::int("replica.socket.timeout.ms", "30000")
        .high()
        .inert(PUSHED)
        .says("How long a follower waits for a leader, in milliseconds."),
    Definition::long("server.max.startup.time.ms", "9223372036854775807")
        .at_least(0)
        .inert("start-up is bounded by the journal's size")
        .says("The longest time a start may take, in milliseconds."),
    Definition::boolean("unstable.api.versions.enable", "false")
        .high()
        .refused("only finished API versions are served")
        .says("Whether unfinished API versions are served."),
    Definition::boolean("unstable.feature.versions.enable", "false")
        .high()
        .refused("only finished feature versions are served")
        .says("Whether unfinished feature versions may be used."),
];
