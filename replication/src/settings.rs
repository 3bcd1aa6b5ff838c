//! Kafka's configuration keys: what each means, which values it takes, and what Stonelog does with it.
//!
//! One table serves the controller (validation), the lanes ([`TopicConfig`]) and DescribeConfigs ([`describe`]).
//! Everything here is pure: text in, typed settings or [`Problem`]s out. Reading files, environment variables and
//! command lines is the broker's part.
//!
//! Invariant: a key is in exactly one table; its default text passes its own validation.

pub mod cluster_keys;
pub mod definition;
pub mod describe;
pub mod group_keys;
pub mod judge;
pub mod list;
pub mod log_keys;
pub mod nearest;
pub mod problem;
pub mod throttled;
pub mod topic;
pub mod topic_keys;
pub mod value;

pub use cluster_keys::{BrokerLayers, CLUSTER_KEYS, is_cluster_key};
pub use definition::{Constraint, Definition, Dynamic, Honour, Importance, Kind, Scope};
pub use describe::{
    Entry, Layers, Source, Synonym, describe_broker, describe_cluster_default, describe_group, describe_topic,
};
pub use group_keys::{GROUP_KEYS, group_key};
pub use judge::{Judgement, Warning, judge_topic};
pub use log_keys::LOG_KEYS;
pub use problem::{Problem, Reason};
pub use throttled::ThrottledReplicas;
pub use topic::{CleanupPolicy, Compression, TimestampType, TopicConfig};
pub use topic_keys::{OBSOLETE_TOPIC_KEYS, TOPIC_KEYS, topic_key};
