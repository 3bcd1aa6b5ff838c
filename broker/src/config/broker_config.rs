//! The configuration a broker runs with: every value parsed, checked and in its own unit. Values that change while the
//! broker runs (topics' defaults) are laid over `static_settings` by whoever reads the metadata image.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use stonelog_protocol::{BrokerId, ClusterId};

use super::listeners::{Endpoint, Listener};

/// Everything the start needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// The cluster id somebody wished (`CLUSTER_ID` in the environment). A directory that holds another one is not
    /// opened; an empty one is formatted with it.
    pub cluster_id: Option<ClusterId>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Whether it is a broker (`process.roles`): it serves clients and keeps records. Else it is a controller alone.
    pub is_broker: bool,
    /// The listeners clients use, in the order they were written: at least one on a broker, none on a controller alone.
    pub listeners: Vec<Listener>,
    /// The name of the listener brokers use among themselves; it is one of `listeners`, if there are any.
    pub inter_broker_listener_name: String,
    /// The cluster of several nodes that this one is to be part of; `None` for a node alone.
    pub cluster: Option<ClusterSettings>,
    /// Controller listeners. A lone node opens no socket for them.
    pub controller_listeners: Vec<Endpoint>,
    /// The log directories (`log.dirs`, `log.dir`, `--data-dir`), at least one, each once, as written: relative to where
    /// the broker was started.
    pub log_dirs: Vec<PathBuf>,
    /// The place among them of the one that a new cluster's metadata log begins in (`metadata.log.dir`).
    pub metadata_place: usize,
    /// Connections and requests.
    pub network: NetworkSettings,
    /// Fetching.
    pub fetch: FetchSettings,
    /// Topics: creation, deletion, retention.
    pub topics: TopicSettings,
    /// Groups and committed offsets.
    pub groups: GroupSettings,
    /// Idempotent producers.
    pub producers: ProducerSettings,
    /// Journal, memory, threads.
    pub storage: StorageSettings,
    /// Every broker key that was set, by Kafka's name, as DescribeConfigs shows it with the source "static broker" and
    /// as topics inherit it.
    pub static_settings: BTreeMap<String, String>,
    /// Every line that relaxes a default, for the banner.
    pub relaxations: Vec<String>,
    /// What is probably a mistake and does not stop the start.
    pub warnings: Vec<String>,
    /// What was accepted and has no effect or another one, and what was skipped; each is said once.
    pub notes: Vec<String>,
}

/// A cluster of several nodes, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// `controller.quorum.voters`; none where `servers` are named instead.
    pub voters: Vec<QuorumVoter>,
    /// `controller.quorum.bootstrap.servers`: where to ask who votes.
    pub servers: Vec<(String, u16)>,
    /// Whether this node may be a voter: it is a controller.
    pub may_vote: bool,
    /// `stonelog.cluster.secret.file`; `None` only where every address is on the loopback interface.
    pub secret_file: Option<PathBuf>,
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `leader.imbalance.check.interval.seconds`; `None` with `auto.leader.rebalance.enable=false`.
    pub balance_every: Option<Duration>,
    /// `controller.quorum.request.timeout.ms`.
    pub request_timeout: Duration,
}

/// A voter of the metadata quorum as configuration lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumVoter {
    /// `node.id`.
    pub node: BrokerId,
    /// Where its controller listener is reached.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Connections and requests.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkSettings {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: u32,
    /// `connections.max.idle.ms`; `None` never closes an idle connection.
    pub connection_idle_max: Option<Duration>,
    /// `max.connections`.
    pub connections_max: u32,
    /// `max.connections.per.ip`.
    pub connections_per_ip_max: u32,
    /// `max.connections.per.ip.overrides`: host and limit.
    pub connections_per_ip_overrides: Vec<(String, u32)>,
    /// `queued.max.request.bytes`: bytes of requests read and not yet answered; never below `request_bytes_max`.
    pub queued_request_bytes_max: u64,
    /// `socket.listen.backlog.size`.
    pub listen_backlog: u32,
    /// `request.timeout.ms`.
    pub request_timeout: Duration,
    /// `max.request.partition.size.limit`.
    pub described_partitions_max: u32,
}

/// Fetching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchSettings {
    /// `fetch.max.bytes`.
    pub response_bytes_max: u32,
    /// `max.incremental.fetch.session.cache.slots`.
    pub session_slots: u32,
    /// Whether `replica.selector.class` sends consumers to in-sync replicas in their own rack.
    pub from_same_rack: bool,
}

/// Topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// `auto.create.topics.enable`.
    pub auto_create: bool,
    /// `delete.topic.enable`.
    pub deletable: bool,
    /// `num.partitions`.
    pub default_partitions: i32,
    /// `default.replication.factor`; `None` means min(3, brokers).
    pub default_replication_factor: Option<i16>,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
}

/// Groups and committed offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`.
    pub members_max: u32,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes_max: u32,
    /// `offsets.commit.timeout.ms`.
    pub commit_timeout: Duration,
    /// `offsets.retention.minutes`.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check_interval: Duration,
    /// `offsets.topic.num.partitions`.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_topic_segment_bytes: u32,
    /// `offsets.topic.replication.factor` when somebody set it.
    pub offsets_topic_replication_factor: Option<i16>,
}

/// Idempotent producers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// `producer.id.expiration.ms`.
    pub id_expiration: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub id_expiration_check_interval: Duration,
}

/// Journal, memory, threads: Stonelog's own keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageSettings {
    /// `stonelog.journal.bytes`.
    pub journal_bytes_max: u64,
    /// `stonelog.journal.file.bytes`.
    pub journal_file_bytes: u64,
    /// `stonelog.free.bytes.min`.
    pub free_bytes_min: u64,
    /// `replica.lag.time.max.ms`.
    pub hangs_after: Duration,
    /// `stonelog.tail.memory.bytes`.
    pub tail_memory_bytes: u64,
    /// `stonelog.scrub.interval.ms`; `None` means no scrub.
    pub scrub_interval: Option<Duration>,
    /// `stonelog.scrub.max.bytes.per.second`.
    pub scrub_bytes_per_second_max: u64,
    /// `stonelog.lanes`; `None` means one for each core.
    pub lanes: Option<usize>,
}
