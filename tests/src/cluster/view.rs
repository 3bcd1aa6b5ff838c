//! What a cluster says of itself to any client: a request or two to one broker, each in its own time limit.

use std::time::Duration;

use anyhow::{Context as _, Result};
use stonelog::client::connection::Connection;
use stonelog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use stonelog_protocol::messages::{DescribeClusterRequest, DescribeQuorumRequest, MetadataRequest, TopicName};
use stonelog_protocol::{StrBytes, Uuid};

/// How long one broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The newest version that says all of this.
const VERSION: i16 = 12;
/// The oldest version of DescribeCluster is enough.
const CLUSTER_VERSION: i16 = 0;
/// The one that names directories.
const QUORUM_VERSION: i16 = 2;

/// A partition as one broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its topic's name.
    pub topic: String,
    /// Its topic's identity.
    pub topic_id: Uuid,
    /// Its number.
    pub index: i32,
    /// -1 while there is none.
    pub leader: i32,
    /// How many replicas it is to have.
    pub replicas: usize,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// A cluster as one broker sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Brokers that clients may use.
    pub brokers: usize,
    /// Every partition, internal ones too.
    pub partitions: Vec<Partition>,
}

impl View {
    /// Asks the broker at an address.
    pub fn of(address: &str) -> Result<View> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let mut connection = Connection::open(address, "stonelog-tests", ANSWER_WITHIN).await?;
            connection.call(&MetadataRequest::default().with_topics(None), VERSION, ANSWER_WITHIN).await
        });
        let answer = answer.with_context(|| format!("the broker at {address} does not say how the cluster is"))?;
        let mut partitions = Vec::new();
        for topic in &answer.topics {
            let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            partitions.extend(topic.partitions.iter().map(|partition| Partition {
                topic: name.clone(),
                topic_id: topic.topic_id.into(),
                index: partition.partition_index,
                leader: partition.leader_id.0,
                replicas: partition.replica_nodes.len(),
                in_sync: partition.isr_nodes.len(),
            }));
        }
        Ok(View { brokers: answer.brokers.len(), partitions })
    }

    /// The broker with the active controller, as the broker at an address sees it.
    pub fn controller(address: &str) -> Result<i32> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let mut connection = Connection::open(address, "stonelog-tests", ANSWER_WITHIN).await?;
            connection.call(&DescribeClusterRequest::default(), CLUSTER_VERSION, ANSWER_WITHIN).await
        });
        Ok(answer
            .with_context(|| format!("the broker at {address} does not say who the controller is"))?
            .controller_id
            .0)
    }

    /// Directories of the metadata quorum's voters, as the broker at an address hears from their leader.
    pub fn voters(address: &str) -> Result<Vec<Uuid>> {
        let partition = PartitionData::default().with_partition_index(0);
        let name = TopicName(StrBytes::from_static_str("__cluster_metadata"));
        let topic = TopicData::default().with_topic_name(name).with_partitions(vec![partition]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let mut connection = Connection::open(address, "stonelog-tests", ANSWER_WITHIN).await?;
            connection.call(&request, QUORUM_VERSION, ANSWER_WITHIN).await
        });
        let answer = answer.with_context(|| format!("the broker at {address} does not say who votes"))?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        Ok(partitions.flat_map(|told| &told.current_voters).map(|voter| voter.replica_directory_id.into()).collect())
    }

    /// What keeps the cluster from being whole: brokers missing, partitions without leader or with replicas out of sync.
    pub fn missing(&self, brokers: usize) -> Option<String> {
        if self.brokers < brokers {
            return Some(format!("{} of {brokers} brokers are there", self.brokers));
        }
        self.bad("whole", |partition| partition.leader < 0 || partition.in_sync < partition.replicas)
    }

    /// Partitions without leader.
    pub fn unled(&self) -> Option<String> {
        self.bad("led", |partition| partition.leader < 0)
    }

    fn bad(&self, what: &str, is_bad: impl Fn(&Partition) -> bool) -> Option<String> {
        let first = self.partitions.iter().find(|partition| is_bad(partition))?;
        let count = self.partitions.iter().filter(|partition| is_bad(partition)).count();
        Some(format!("{count} of {} partitions are not {what}, the first: {first:?}", self.partitions.len()))
    }
}
