//! The cluster seen from outside: brokers, the metadata quorum, where partitions lie and who may lead them; and moving
//! them.

use std::collections::BTreeMap;

use stonelog_protocol::messages::add_raft_voter_request::Listener;
use stonelog_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use stonelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use stonelog_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use stonelog_protocol::messages::describe_quorum_response::ReplicaState;
use stonelog_protocol::messages::describe_topic_partitions_request::Cursor;
use stonelog_protocol::messages::elect_leaders_request::TopicPartitions;
use stonelog_protocol::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, BrokerId as WireBrokerId, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeLogDirsRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
    ElectLeadersRequest, ListPartitionReassignmentsRequest, RemoveRaftVoterRequest,
};
use stonelog_protocol::{ErrorCode, Uuid};

use super::cluster::Cluster;
use super::error::Error;
use super::text::{text, topic_name};

/// `ConfigResource.Type.TOPIC`.
const TOPIC_RESOURCE: i8 = 2;
/// `EndpointType.BROKER`.
const BROKERS: i8 = 1;
/// Partitions of one page of an answer; the broker may give fewer.
const PAGE_LEN: i32 = 2_000;
/// Topics whose settings are asked for at once.
const TOPICS_AT_ONCE: usize = 1_000;

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerState {
    /// Its node id.
    pub id: i32,
    /// Advertised host name and port.
    pub address: String,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// Registered, but out of touch or not ready. Brokers before Kafka 4.0 do not tell of these.
    pub fenced: bool,
}

/// The cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterState {
    /// Its identifier.
    pub id: String,
    /// Who takes what only the controller may do; -1 for nobody.
    pub controller: i32,
    /// By id, fenced ones too.
    pub brokers: Vec<BrokerState>,
}

/// One partition, with who may lead it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Who leads; -1 for nobody.
    pub leader: i32,
    /// The leader epoch.
    pub leader_epoch: i32,
    /// All replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those in sync.
    pub isr: Vec<i32>,
    /// Those out of sync that still hold everything acknowledged (KIP-966).
    pub elr: Vec<i32>,
    /// Who led last, where nobody is in ISR and ELR.
    pub last_known_elr: Vec<i32>,
    /// Replicas on brokers or directories that are offline.
    pub offline: Vec<i32>,
}

/// A reassignment in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// All replicas, those being removed too.
    pub replicas: Vec<i32>,
    /// Those being added.
    pub adding: Vec<i32>,
    /// Those being removed.
    pub removing: Vec<i32>,
}

/// One copy of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumReplica {
    /// Whose.
    pub node: i32,
    /// The directory it lies in; zero when the broker does not tell.
    pub directory: Uuid,
    /// The end of what it has; -1 when not known.
    pub log_end: i64,
    /// When it was last heard of, in milliseconds since 1970; -1 when not known.
    pub last_fetch_ms: i64,
    /// When it last had everything, in milliseconds since 1970; -1 when not known.
    pub last_caught_up_ms: i64,
}

/// The metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The active controller.
    pub leader: i32,
    /// Its term.
    pub epoch: i32,
    /// The end of what is committed.
    pub high_watermark: i64,
    /// Those that vote.
    pub voters: Vec<QuorumReplica>,
    /// Those that follow.
    pub observers: Vec<QuorumReplica>,
}

/// A log directory of a broker.
#[derive(Clone, Debug)]
pub struct LogDirState {
    /// Its path.
    pub path: String,
    /// Why it is not in use.
    pub error: Option<Error>,
}

/// A partition, and what came of a request about it.
pub type Outcome = (String, i32, Result<(), Error>);

impl Cluster {
    /// The cluster and its brokers.
    pub async fn state(&mut self) -> Result<ClusterState, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.try_state().await;
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
        }
    }

    /// One try.
    pub(super) async fn try_state(&mut self) -> Result<ClusterState, Error> {
        let answer = self
            .call_any(|version| {
                let request = DescribeClusterRequest::default();
                let request = if version >= 1 { request.with_endpoint_type(BROKERS) } else { request };
                if version >= 2 { request.with_include_fenced_brokers(true) } else { request }
            })
            .await?;
        Error::check(answer.error_code, "the cluster", answer.error_message.as_deref())?;
        let mut brokers: Vec<BrokerState> = answer
            .brokers
            .iter()
            .map(|broker| BrokerState {
                id: broker.broker_id.0,
                address: super::Broker { id: broker.broker_id.0, host: broker.host.to_string(), port: broker.port }
                    .address(),
                rack: broker.rack.as_ref().map(ToString::to_string),
                fenced: broker.is_fenced,
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterState { id: answer.cluster_id.to_string(), controller: answer.controller_id.0, brokers })
    }

    /// Every partition, or those of one topic, with who may lead them; by topic and partition. Asked of the controller,
    /// so that what was just changed shows.
    pub async fn partitions(&mut self, topic: Option<&str>) -> Result<Vec<PartitionState>, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.try_partitions(topic).await;
            let unknown = matches!(&outcome, Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition));
            if unknown || !self.again(&mut retry, &outcome).await {
                return outcome;
            }
        }
    }

    async fn try_partitions(&mut self, topic: Option<&str>) -> Result<Vec<PartitionState>, Error> {
        use stonelog_protocol::messages::describe_topic_partitions_request::TopicRequest;
        let mut found = Vec::new();
        let mut cursor: Option<(String, i32)> = None;
        loop {
            let answer = self
                .call_controller(|_| {
                    let from = cursor.as_ref().map(|(topic, partition)| {
                        Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(*partition)
                    });
                    let topics = topic.map(|name| TopicRequest::default().with_name(topic_name(name)));
                    DescribeTopicPartitionsRequest::default()
                        .with_topics(topics.into_iter().collect())
                        .with_response_partition_limit(PAGE_LEN)
                        .with_cursor(from)
                })
                .await?;
            for topic in &answer.topics {
                let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
                Error::check(topic.error_code, format!("topic {name}"), None)?;
                let ids = |ids: &[WireBrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
                found.extend(topic.partitions.iter().map(|partition| PartitionState {
                    topic: name.clone(),
                    partition: partition.partition_index,
                    leader: partition.leader_id.0,
                    leader_epoch: partition.leader_epoch,
                    replicas: ids(&partition.replica_nodes),
                    isr: ids(&partition.isr_nodes),
                    elr: ids(partition.eligible_leader_replicas.as_deref().unwrap_or_default()),
                    last_known_elr: ids(partition.last_known_elr.as_deref().unwrap_or_default()),
                    offline: ids(&partition.offline_replicas),
                }));
            }
            let next = answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
            // A cursor that stands still would be asked for ever.
            match next {
                Some(next) if Some(&next) != cursor.as_ref() => cursor = Some(next),
                _ => return Ok(found),
            }
        }
    }

    /// The reassignments in progress, by topic and partition.
    pub async fn reassignments(&mut self) -> Result<Vec<Reassignment>, Error> {
        let timeout_ms = self.timeout_ms();
        let answer = self
            .call_controller(|_| {
                ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(timeout_ms)
            })
            .await?;
        Error::check(answer.error_code, "the reassignments", answer.error_message.as_deref())?;
        let ids = |ids: &[WireBrokerId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let mut found: Vec<Reassignment> = answer
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
            .map(|(topic, partition)| Reassignment {
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                replicas: ids(&partition.replicas),
                adding: ids(&partition.adding_replicas),
                removing: ids(&partition.removing_replicas),
            })
            .collect();
        found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(found)
    }

    /// Asks for partitions to lie on these brokers, the preferred leader first; `None` gives up what is in progress. With
    /// `keep_count` a wish for more or fewer replicas than a partition shall have is refused (KIP-860; brokers before
    /// Kafka 4.1 know no such refusal).
    pub async fn reassign(
        &mut self,
        wishes: &[(String, i32, Option<Vec<i32>>)],
        keep_count: bool,
    ) -> Result<Vec<Outcome>, Error> {
        let timeout_ms = self.timeout_ms();
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for (topic, partition, replicas) in wishes {
            let replicas = replicas.as_ref().map(|replicas| replicas.iter().map(|id| WireBrokerId(*id)).collect());
            let wish = ReassignablePartition::default().with_partition_index(*partition).with_replicas(replicas);
            topics.entry(topic).or_default().push(wish);
        }
        let answer = self
            .call_controller(|version| {
                let topics = topics.iter().map(|(name, partitions)| {
                    ReassignableTopic::default().with_name(topic_name(name)).with_partitions(partitions.clone())
                });
                AlterPartitionReassignmentsRequest::default()
                    .with_topics(topics.collect())
                    .with_timeout_ms(timeout_ms)
                    .with_allow_replication_factor_change(version < 1 || !keep_count)
            })
            .await?;
        Error::check(answer.error_code, "the reassignment", answer.error_message.as_deref())?;
        let mut outcomes = Vec::with_capacity(wishes.len());
        for topic in &answer.responses {
            for partition in &topic.partitions {
                let (name, index) = (topic.name.to_string(), partition.partition_index);
                let subject = format!("partition {name}:{index}");
                let result = Error::check(partition.error_code, subject, partition.error_message.as_deref());
                outcomes.push((name, index, result));
            }
        }
        Ok(outcomes)
    }

    /// Has partitions led by their preferred leaders.
    pub async fn elect_preferred(&mut self, partitions: &[(String, i32)]) -> Result<Vec<Outcome>, Error> {
        let timeout_ms = self.timeout_ms();
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(*partition);
        }
        let answer = self
            .call_controller(|_| {
                let topics = topics.iter().map(|(name, partitions)| {
                    TopicPartitions::default().with_topic(topic_name(name)).with_partitions(partitions.clone())
                });
                ElectLeadersRequest::default().with_topic_partitions(Some(topics.collect())).with_timeout_ms(timeout_ms)
            })
            .await?;
        Error::check(answer.error_code, "the election", None)?;
        let mut outcomes = Vec::with_capacity(partitions.len());
        for topic in &answer.replica_election_results {
            for partition in &topic.partition_result {
                let (name, index) = (topic.topic.to_string(), partition.partition_id);
                let subject = format!("partition {name}:{index}");
                let result = Error::check(partition.error_code, subject, partition.error_message.as_deref());
                let is_led = |error: &Error| error.code() == Some(ErrorCode::ElectionNotNeeded);
                outcomes.push((name, index, if result.as_ref().is_err_and(is_led) { Ok(()) } else { result }));
            }
        }
        Ok(outcomes)
    }

    /// The metadata quorum, as its leader knows it.
    pub async fn quorum(&mut self) -> Result<Quorum, Error> {
        let answer = self
            .call_any(|_| {
                let topic = TopicData::default()
                    .with_topic_name(topic_name("__cluster_metadata"))
                    .with_partitions(vec![PartitionData::default()]);
                DescribeQuorumRequest::default().with_topics(vec![topic])
            })
            .await?;
        let subject = "the metadata quorum";
        Error::check(answer.error_code, subject, answer.error_message.as_deref())?;
        let partition = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let partition = partition.ok_or_else(|| Error::Missing { subject: subject.to_owned() })?;
        Error::check(partition.error_code, subject, partition.error_message.as_deref())?;
        let replica = |state: &ReplicaState| QuorumReplica {
            node: state.replica_id.0,
            directory: Uuid(*state.replica_directory_id.as_bytes()),
            log_end: state.log_end_offset,
            last_fetch_ms: state.last_fetch_timestamp,
            last_caught_up_ms: state.last_caught_up_timestamp,
        };
        Ok(Quorum {
            leader: partition.leader_id.0,
            epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: partition.current_voters.iter().map(replica).collect(),
            observers: partition.observers.iter().map(replica).collect(),
        })
    }

    /// One try to have a node vote that follows the metadata with this directory; it is reached there.
    pub async fn add_voter(&mut self, node: i32, directory: Uuid, host: &str, port: u16) -> Result<(), Error> {
        // The answer comes when it votes, and must come before it is given up.
        let timeout_ms = i32::try_from(self.settings().request_timeout.as_millis() * 4 / 5).unwrap_or(i32::MAX);
        let answer = self
            .call_any(|_| {
                let listener = Listener::default().with_name(text("CONTROLLER")).with_host(text(host)).with_port(port);
                AddRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_timeout_ms(timeout_ms)
                    .with_voter_id(node)
                    .with_voter_directory_id(uuid::Uuid::from_bytes(directory.0))
                    .with_listeners(vec![listener])
            })
            .await?;
        Error::check(answer.error_code, format!("voter {node}"), answer.error_message.as_deref())
    }

    /// One try to take a voter out of the quorum.
    pub async fn remove_voter(&mut self, node: i32, directory: Uuid) -> Result<(), Error> {
        let answer = self
            .call_any(|_| {
                RemoveRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_voter_id(node)
                    .with_voter_directory_id(uuid::Uuid::from_bytes(directory.0))
            })
            .await?;
        Error::check(answer.error_code, format!("voter {node}"), answer.error_message.as_deref())
    }

    /// The values that topics have for some settings: by topic, then by key.
    pub async fn settings_of(
        &mut self,
        topics: &[String],
        keys: &[&str],
    ) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
        let mut found = BTreeMap::new();
        for some in topics.chunks(TOPICS_AT_ONCE) {
            let answer = self
                .call_any(|_| {
                    let resources = some.iter().map(|name| {
                        DescribeConfigsResource::default()
                            .with_resource_type(TOPIC_RESOURCE)
                            .with_resource_name(text(name))
                            .with_configuration_keys(Some(keys.iter().map(|key| text(key)).collect()))
                    });
                    DescribeConfigsRequest::default().with_resources(resources.collect())
                })
                .await?;
            for result in answer.results {
                // Deleted meanwhile, or not there yet where it was asked: judged without its settings.
                if result.error_code != 0 {
                    continue;
                }
                let values = result
                    .configs
                    .into_iter()
                    .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
                found.insert(result.resource_name.to_string(), values.collect());
            }
        }
        Ok(found)
    }

    /// The log directories of a broker.
    pub async fn log_dirs(&mut self, broker: i32) -> Result<Vec<LogDirState>, Error> {
        let answer = self
            .call_broker(broker, i16::MAX, |_| DescribeLogDirsRequest::default().with_topics(Some(Vec::new())))
            .await?;
        Error::check(answer.error_code, format!("directories of broker {broker}"), None)?;
        let state = |path: String, code: i16| {
            let error = Error::check(code, format!("directory {path} of broker {broker}"), None).err();
            LogDirState { path, error }
        };
        Ok(answer.results.iter().map(|result| state(result.log_dir.to_string(), result.error_code)).collect())
    }
}
