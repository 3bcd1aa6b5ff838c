//! The topic that holds the coordinators' state, as it is created when a client first needs it.

use stonelog_replication::controller::NewTopic;

use crate::config::BrokerConfig;

/// The topic whose partitions own groups and committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// How an internal topic is created; `None` for a topic of any other name.
///
/// It is strict whatever the broker's default (DESIGN §1): that is judged by name, not set here.
pub fn internal_topic(name: &str, config: &BrokerConfig) -> Option<NewTopic> {
    if name != OFFSETS_TOPIC {
        return None;
    }
    let groups = &config.groups;
    let configs = [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", groups.offsets_topic_segment_bytes.to_string()),
    ];
    Some(NewTopic {
        name: name.to_owned(),
        partitions: groups.offsets_topic_partitions,
        // -1 leaves it to the controller: as many as brokers, at most three.
        replication_factor: groups.offsets_topic_replication_factor.unwrap_or(-1),
        assignments: Vec::new(),
        configs: configs.into_iter().map(|(key, value)| (key.to_owned(), Some(value))).collect(),
    })
}
