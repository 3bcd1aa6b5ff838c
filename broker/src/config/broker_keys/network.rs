//! Listeners, connections, requests (`SocketServerConfigs`, parts of `ServerConfigs`).

use stonelog_replication::settings::{Constraint, Definition, Kind};

/// The protocols a listener may be given; all but the first are refused for now.
pub(in crate::config) const PROTOCOLS: &[&str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

const LANES: &str = "one thread per core serves connections and partitions alike: see stonelog.lanes";
const PEERS: &str = "a broker that cannot be reached is tried again with growing pauses";

pub(super) static KEYS: &[Definition] = &[
    Definition::unset("advertised.listeners", Kind::String).high().says(
        "The addresses clients are told to use, as NAME://host:port, one for each listener. Unset means the \
         listeners themselves; a listener on all interfaces is then advertised under the host's name.",
    ),
    Definition::int("background.threads", "10")
        .at_least(1)
        .high()
        .cluster_wide()
        .inert(LANES)
        .says("Threads for background work."),
    Definition::int("connection.failed.authentication.delay.ms", "100")
        .at_least(0)
        .low()
        .inert("connections are not authenticated yet")
        .says("How long a connection that failed to authenticate is kept open, in milliseconds."),
    Definition::long("connections.max.idle.ms", "600000").says(
        "A connection without a request for this long is closed, in milliseconds; a negative value never closes \
             one.",
    ),
    Definition::unset("early.start.listeners", Kind::String)
        .high()
        .inert("all listeners open together, once the broker can serve")
        .says("Listeners that open before the authorizer has started."),
    Definition::int("fetch.max.bytes", "57671680")
        .at_least(1024)
        .says("The most bytes of records in one Fetch response; a first batch that is larger is still sent."),
    Definition::unset("inter.broker.listener.name", Kind::String)
        .says("The listener other brokers use. Unset means the one whose protocol is security.inter.broker.protocol."),
    Definition::text(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    )
    .low()
    .says(
        "Which protocol each listener name speaks. Only PLAINTEXT is built so far; an entry for a listener that \
             is not used does no harm.",
    ),
    Definition::text("listeners", "PLAINTEXT://127.0.0.1:9092").high().says(
        "The addresses the broker listens on, as NAME://host:port; an empty host or 0.0.0.0 means all \
             interfaces. Kafka's default is all interfaces; Stonelog's is loopback, so that opening to the network \
             is a decision.",
    ),
    Definition::int("max.connection.creation.rate", "2147483647")
        .at_least(0)
        .refused(
            "a limit on the rate of new connections is not built yet: max.connections and max.connections.per.ip are",
        )
        .says("The most new connections per second."),
    Definition::int("max.connections", "2147483647")
        .at_least(0)
        .says("The most connections at one time; a further one is closed at once."),
    Definition::int("max.connections.per.ip", "2147483647")
        .at_least(0)
        .says("The most connections from one address at one time. 0 is legal only with overrides."),
    Definition::text("max.connections.per.ip.overrides", "").says(
        "Other limits than max.connections.per.ip for single addresses or names, as host:count, separated by \
             commas.",
    ),
    Definition::int("max.incremental.fetch.session.cache.slots", "1000")
        .at_least(0)
        .says("How many incremental fetch sessions the broker remembers."),
    Definition::int("max.request.partition.size.limit", "2000")
        .at_least(1)
        .says("The most partitions in one DescribeTopicPartitions response."),
    Definition::int("num.io.threads", "8")
        .at_least(1)
        .high()
        .cluster_wide()
        .inert(LANES)
        .says("Threads that process requests."),
    Definition::int("num.network.threads", "3")
        .at_least(1)
        .high()
        .cluster_wide()
        .inert(LANES)
        .says("Threads that read requests from the network and write responses to it."),
    Definition::long("queued.max.request.bytes", "-1")
        .mapped("-1 means Stonelog's own bound of 256 MiB, not no bound")
        .says(
            "The most bytes of requests that are read and not yet answered; reading stops above it. At least \
             socket.request.max.bytes.",
        ),
    Definition::int("queued.max.requests", "500")
        .at_least(1)
        .high()
        .inert("requests are bounded by their bytes: see queued.max.request.bytes")
        .says("The most requests that wait to be processed."),
    Definition::int("request.timeout.ms", "30000")
        .high()
        .says("The longest time the broker waits for an answer to a request of its own, in milliseconds."),
    Definition::text("security.inter.broker.protocol", "PLAINTEXT")
        .checked(Constraint::OneOf(PROTOCOLS))
        .refused("TLS, SASL and ACLs come later")
        .says("The protocol between brokers while inter.broker.listener.name is unset."),
    Definition::long("socket.connection.setup.timeout.max.ms", "30000")
        .inert(PEERS)
        .says("The longest time to wait for a connection to another broker, in milliseconds."),
    Definition::long("socket.connection.setup.timeout.ms", "10000")
        .inert(PEERS)
        .says("The first time to wait for a connection to another broker, in milliseconds."),
    Definition::int("socket.listen.backlog.size", "50")
        .at_least(1)
        .says("How many connections may wait to be accepted; the kernel's own limit (somaxconn) goes before it."),
    Definition::int("socket.receive.buffer.bytes", "102400")
        .high()
        .inert("the kernel sizes socket buffers itself, and better")
        .says("The receive buffer of each connection, in bytes; -1 leaves it to the kernel."),
    Definition::int("socket.request.max.bytes", "104857600")
        .at_least(1)
        .high()
        .says("The largest request, in bytes; a connection that sends a larger one is closed."),
    Definition::int("socket.send.buffer.bytes", "102400")
        .high()
        .inert("the kernel sizes socket buffers itself, and better")
        .says("The send buffer of each connection, in bytes; -1 leaves it to the kernel."),
];
