//! Consumer groups seen from outside: which exist, who is in them, what they have committed.

use std::collections::BTreeMap;

use stonelog_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use stonelog_protocol::messages::{DescribeGroupsRequest, ListGroupsRequest, OffsetFetchRequest};

use super::cluster::Cluster;
use super::error::Error;
use super::membership::read_assignment;
use super::text::{group_id, topic_name};

/// A group as ListGroups names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedGroup {
    /// The group id.
    pub id: String,
    /// `Stable`, `Empty`, …; empty when the broker does not tell (before KIP-518).
    pub state: String,
    /// `consumer` for consumer groups.
    pub protocol_type: String,
}

/// A group and its members.
#[derive(Clone, Debug)]
pub struct Group {
    /// The group id.
    pub id: String,
    /// `Stable`, `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// The assignor the members agreed on.
    pub assignor: String,
    /// The members, in the broker's order.
    pub members: Vec<Member>,
}

/// A member of a group.
#[derive(Clone, Debug)]
pub struct Member {
    /// Id given by the coordinator.
    pub id: String,
    /// Id of a static member.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Topic and partition of what it consumes.
    pub assigned: Vec<(String, i32)>,
}

/// Committed offsets by topic and partition.
pub type Committed = BTreeMap<(String, i32), i64>;

impl Cluster {
    /// Every group of the cluster, sorted by id.
    pub async fn list_groups(&mut self) -> Result<Vec<ListedGroup>, Error> {
        let brokers: Vec<i32> = self.describe_all().await?.brokers.iter().map(|broker| broker.id).collect();
        let mut groups = Vec::new();
        for broker in brokers {
            let answer = self.call_broker(broker, i16::MAX, |_| ListGroupsRequest::default()).await?;
            Error::check(answer.error_code, format!("groups of broker {broker}"), None)?;
            groups.extend(answer.groups.iter().map(|group| ListedGroup {
                id: group.group_id.to_string(),
                state: group.group_state.to_string(),
                protocol_type: group.protocol_type.to_string(),
            }));
        }
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    /// One group with its members. An unknown group is `Dead` or GROUP_ID_NOT_FOUND, by the broker's version.
    pub async fn describe_group(&mut self, group: &str) -> Result<Group, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.try_describe_group(group).await;
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
            self.forget_coordinator(group);
        }
    }

    async fn try_describe_group(&mut self, group: &str) -> Result<Group, Error> {
        let limit = self.settings().request_timeout;
        let answer = self
            .call_coordinator(group, limit, |_| DescribeGroupsRequest::default().with_groups(vec![group_id(group)]))
            .await?;
        let subject = format!("group {group}");
        let found = answer.groups.into_iter().next().ok_or_else(|| Error::Missing { subject: subject.clone() })?;
        Error::check(found.error_code, subject, found.error_message.as_deref())?;
        let members = found.members.iter().map(|member| Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.as_ref().map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            // Other protocol types put other things there; what is no consumer assignment is shown as none.
            assigned: read_assignment(member.member_assignment.clone()).unwrap_or_default(),
        });
        Ok(Group {
            id: group.to_owned(),
            state: found.group_state.to_string(),
            assignor: found.protocol_data.to_string(),
            members: members.collect(),
        })
    }

    /// Committed offsets of a group: all of them, or those of `wanted`. What has none is left out.
    pub async fn committed(&mut self, group: &str, wanted: Option<&[(String, i32)]>) -> Result<Committed, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.try_committed(group, wanted).await;
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
            self.forget_coordinator(group);
        }
    }

    async fn try_committed(&mut self, group: &str, wanted: Option<&[(String, i32)]>) -> Result<Committed, Error> {
        let limit = self.settings().request_timeout;
        let answer =
            self.call_coordinator(group, limit, |version| offset_fetch_request(version, group, wanted)).await?;
        let subject = format!("committed offsets of group {group}");
        Error::check(answer.error_code, subject.clone(), None)?;
        let mut committed = Committed::new();
        let mut keep = |topic: &str, partition: i32, code: i16, offset: i64| -> Result<(), Error> {
            Error::check(code, format!("{subject} in {topic}-{partition}"), None)?;
            if offset >= 0 {
                committed.insert((topic.to_owned(), partition), offset);
            }
            Ok(())
        };
        for topic in &answer.topics {
            for found in &topic.partitions {
                keep(&topic.name, found.partition_index, found.error_code, found.committed_offset)?;
            }
        }
        for found in &answer.groups {
            Error::check(found.error_code, subject.clone(), None)?;
            for topic in &found.topics {
                for found in &topic.partitions {
                    keep(&topic.name, found.partition_index, found.error_code, found.committed_offset)?;
                }
            }
        }
        Ok(committed)
    }
}

/// From version 8 on the request carries a list of groups (KIP-709); before, one group on its top level.
fn offset_fetch_request(version: i16, group: &str, wanted: Option<&[(String, i32)]>) -> OffsetFetchRequest {
    let by_topic = wanted.map(|wanted| {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in wanted {
            by_topic.entry(topic).or_default().push(*partition);
        }
        by_topic
    });
    if version >= 8 {
        let topics = by_topic.map(|by_topic| {
            let entries = by_topic.into_iter().map(|(topic, partitions)| {
                OffsetFetchRequestTopics::default().with_name(topic_name(topic)).with_partition_indexes(partitions)
            });
            entries.collect()
        });
        let group = OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(topics);
        OffsetFetchRequest::default().with_groups(vec![group])
    } else {
        let topics = by_topic.map(|by_topic| {
            let entries = by_topic.into_iter().map(|(topic, partitions)| {
                OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(partitions)
            });
            entries.collect()
        });
        OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(topics)
    }
}
