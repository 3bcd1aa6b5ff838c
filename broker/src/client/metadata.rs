//! What a cluster says about itself: brokers, topics, partitions and their leaders.
//!
//! Values only; [`super::cluster::Cluster`] asks for them and keeps them.

use stonelog_protocol::messages::MetadataResponse;
use stonelog_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use stonelog_protocol::{TopicId, Uuid};

use super::error::Error;

/// A broker's address as advertised to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its node id.
    pub id: i32,
    /// Advertised host name.
    pub host: String,
    /// Advertised port.
    pub port: i32,
}

impl Broker {
    /// `host:port`, with brackets round an IPv6 address.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// One partition as Metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Index within the topic.
    pub index: i32,
    /// Leading broker; -1 while there is none.
    pub leader: i32,
    /// Epoch of that leadership; -1 when the version does not tell.
    pub leader_epoch: i32,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those on brokers or disks that are offline.
    pub offline: Vec<i32>,
}

/// One topic as Metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: String,
    /// Identity of this incarnation; zero when the broker has none (before KIP-516).
    pub id: TopicId,
    /// Whether Kafka itself keeps state in it.
    pub internal: bool,
    /// Partitions by index.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// The partition of an index.
    pub fn partition(&self, index: i32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.index == index)
    }
}

/// One answer to Metadata, topics with errors kept apart.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: i32,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) topics: Vec<Topic>,
    /// Topics that could not be described, each with its error.
    pub(crate) failed: Vec<(String, Error)>,
}

impl Snapshot {
    pub(crate) fn read(response: MetadataResponse) -> Snapshot {
        let mut snapshot = Snapshot {
            cluster_id: response.cluster_id.as_ref().map(|id| id.to_string()),
            controller: response.controller_id.0,
            ..Snapshot::default()
        };
        for broker in &response.brokers {
            snapshot.brokers.push(Broker { id: broker.node_id.0, host: broker.host.to_string(), port: broker.port });
        }
        for topic in response.topics {
            let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            match Error::check(topic.error_code, format!("topic {name}"), None) {
                Ok(()) => snapshot.topics.push(read_topic(name, topic)),
                Err(error) => snapshot.failed.push((name, error)),
            }
        }
        snapshot.topics.sort_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }
}

fn read_topic(name: String, topic: MetadataResponseTopic) -> Topic {
    let id = Uuid(topic.topic_id.into_bytes());
    let mut partitions: Vec<Partition> = topic.partitions.iter().map(read_partition).collect();
    partitions.sort_by_key(|partition| partition.index);
    Topic { name, id, internal: topic.is_internal, partitions }
}

fn read_partition(partition: &MetadataResponsePartition) -> Partition {
    // A partition error (no leader, no listener) shows as leader -1; the caller retries on that.
    Partition {
        index: partition.partition_index,
        leader: if partition.error_code == 5 { -1 } else { partition.leader_id.0 },
        leader_epoch: partition.leader_epoch,
        replicas: partition.replica_nodes.iter().map(|node| node.0).collect(),
        isr: partition.isr_nodes.iter().map(|node| node.0).collect(),
        offline: partition.offline_replicas.iter().map(|node| node.0).collect(),
    }
}
