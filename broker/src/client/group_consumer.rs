//! A member of a consumer group: joins, is assigned partitions, heartbeats, reads, commits, leaves.
//!
//! The classic protocol with the eager range assignor. One task drives it by calling [`GroupConsumer::poll`]; there is
//! no heartbeat in the background, so poll at least once per session timeout. Positions after a rebalance are the
//! committed offsets, so records read but not committed are read again by whoever owns the partition then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stonelog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use stonelog_protocol::messages::leave_group_request::MemberIdentity;
use stonelog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use stonelog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use stonelog_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest, SyncGroupRequest,
};
use stonelog_protocol::{ErrorCode, StrBytes};

use super::assignor::assign_ranges;
use super::clock;
use super::cluster::Cluster;
use super::error::Error;
use super::fetcher::{Fetched, Fetcher};
use super::group_admin::Committed;
use super::membership::{read_assignment, read_subscription, write_assignment, write_subscription};
use super::offsets::At;
use super::text::{group_id, text, topic_name};

const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(30);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Leaving is a courtesy: nobody waits long for it.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// What one call of [`GroupConsumer::poll`] brought.
#[derive(Debug)]
pub enum Polled {
    /// The group has a new generation; these partitions are read from these positions.
    Joined {
        /// The generation.
        generation: i32,
        /// Where reading starts.
        positions: BTreeMap<(String, i32), i64>,
        /// Which of those were committed; the others start where the reset rule says.
        committed: Committed,
    },
    /// A rebalance began: commit what is done; the next poll joins again.
    Rebalancing,
    /// Records, or none when nothing arrived in time.
    Records(Vec<Fetched>),
}

/// Whether an error means: join once more, with the id just given or without one.
fn starts_over(error: &Error) -> bool {
    let codes = [ErrorCode::UnknownMemberId, ErrorCode::IllegalGeneration, ErrorCode::RebalanceInProgress];
    error.code().is_some_and(|code| codes.contains(&code))
}

/// Membership in the current generation.
#[derive(Clone, Debug)]
struct Member {
    id: StrBytes,
    generation: i32,
}

/// One member of one consumer group.
#[derive(Debug)]
pub struct GroupConsumer {
    group: String,
    topics: Vec<String>,
    /// Where a partition without a committed offset, or with one outside the log, is read from.
    reset: At,
    /// Id the coordinator gave; kept over rebalances.
    member_id: StrBytes,
    member: Option<Member>,
    fetcher: Fetcher,
    last_heartbeat: Instant,
}

impl GroupConsumer {
    /// A consumer that joins on its first poll.
    pub fn new(group: &str, topics: &[String], reset: At) -> GroupConsumer {
        GroupConsumer {
            group: group.to_owned(),
            topics: topics.to_vec(),
            reset,
            member_id: StrBytes::default(),
            member: None,
            fetcher: Fetcher::new(),
            last_heartbeat: clock::now(),
        }
    }

    /// The next offset of each assigned partition.
    pub fn positions(&self) -> &BTreeMap<(String, i32), i64> {
        self.fetcher.positions()
    }

    /// Whether it belongs to a generation of the group at the moment, as far as it knows.
    pub fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// Joins if need be, heartbeats if due, else reads for up to `wait`.
    pub async fn poll(&mut self, cluster: &mut Cluster, wait: Duration) -> Result<Polled, Error> {
        if self.member.is_none() {
            return self.join(cluster).await;
        }
        if self.last_heartbeat.elapsed() >= HEARTBEAT_INTERVAL {
            let outcome = self.heartbeat(cluster).await;
            match self.settle(cluster, outcome) {
                Ok(()) => self.last_heartbeat = clock::now(),
                Err(error) if self.member.is_none() || error.code() == Some(ErrorCode::RebalanceInProgress) => {
                    self.member = None;
                    return Ok(Polled::Rebalancing);
                }
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error),
            }
        }
        let wait = wait.min(HEARTBEAT_INTERVAL);
        if self.fetcher.positions().is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Polled::Records(Vec::new()));
        }
        Ok(Polled::Records(self.fetcher.fetch(cluster, wait).await?))
    }

    /// Moves one assigned partition to another position.
    pub fn seek(&mut self, topic: &str, partition: i32, offset: i64) {
        self.fetcher.seek(topic, partition, offset);
    }

    /// Commits `offsets` once, as the member of the current generation. An error that may have acted is for the caller
    /// to judge ([`Error::may_have_acted`]).
    pub async fn commit(&mut self, cluster: &mut Cluster, offsets: &Committed) -> Result<(), Error> {
        let Some(member) = self.member.clone() else {
            let subject = format!("group {}", self.group);
            return Err(Error::Refused { subject, code: ErrorCode::RebalanceInProgress, message: None });
        };
        let outcome = self.try_commit(cluster, &member, offsets).await;
        self.settle(cluster, outcome)
    }

    /// Tells the coordinator that this member goes; failure is of no consequence, since the session then times out.
    pub async fn leave(&mut self, cluster: &mut Cluster) -> Result<(), Error> {
        if self.member_id.is_empty() {
            return Ok(());
        }
        let member_id = std::mem::take(&mut self.member_id);
        self.member = None;
        let answer = cluster
            .call_coordinator(&self.group, LEAVE_LIMIT, |version| {
                let request = LeaveGroupRequest::default().with_group_id(group_id(&self.group));
                // From version 3 on several members may leave at once (KIP-345).
                if version < 3 {
                    request.with_member_id(member_id)
                } else {
                    request.with_members(vec![MemberIdentity::default().with_member_id(member_id)])
                }
            })
            .await?;
        Error::check(answer.error_code, format!("leaving group {}", self.group), None)
    }

    async fn join(&mut self, cluster: &mut Cluster) -> Result<Polled, Error> {
        let mut retry = cluster.retry();
        let mut was_given_id = false;
        loop {
            let outcome = self.try_join(cluster).await;
            let outcome = self.settle(cluster, outcome);
            match &outcome {
                // Half of a join: also when the time is up, it is tried to its end once.
                Err(error)
                    if error.code() == Some(ErrorCode::MemberIdRequired)
                        && !(std::mem::replace(&mut was_given_id, true) && retry.is_over()) => {}
                Err(error) if starts_over(error) && retry.pause().await => {}
                _ if cluster.again(&mut retry, &outcome).await => cluster.forget_coordinator(&self.group),
                _ => return outcome,
            }
        }
    }

    async fn try_join(&mut self, cluster: &mut Cluster) -> Result<Polled, Error> {
        let joined = self.join_group(cluster).await?;
        let member = Member { id: joined.member_id.clone(), generation: joined.generation_id };
        let assignment =
            if joined.leader == joined.member_id { self.assign(cluster, &joined).await? } else { Vec::new() };
        let assigned = self.sync_group(cluster, &member, assignment, joined.protocol_name).await?;
        let committed = if assigned.is_empty() {
            Committed::new()
        } else {
            cluster.committed(&self.group, Some(&assigned)).await?
        };
        self.fetcher = Fetcher::new();
        for (topic, partition) in &assigned {
            let offset = match committed.get(&(topic.clone(), *partition)) {
                Some(offset) => *offset,
                None => cluster.list_offsets(topic, &[*partition], self.reset).await?[partition].unwrap_or(0),
            };
            self.fetcher.seek(topic, *partition, offset);
        }
        let generation = member.generation;
        self.member = Some(member);
        self.last_heartbeat = clock::now();
        Ok(Polled::Joined { generation, positions: self.fetcher.positions().clone(), committed })
    }

    async fn join_group(&mut self, cluster: &mut Cluster) -> Result<JoinGroupResponse, Error> {
        let limit = REBALANCE_TIMEOUT + cluster.settings().request_timeout;
        let answer = cluster
            .call_coordinator(&self.group, limit, |_| {
                let protocol = JoinGroupRequestProtocol::default()
                    .with_name(text(ASSIGNOR))
                    .with_metadata(write_subscription(&self.topics));
                JoinGroupRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_session_timeout_ms(SESSION_TIMEOUT.as_millis() as i32)
                    .with_rebalance_timeout_ms(REBALANCE_TIMEOUT.as_millis() as i32)
                    .with_member_id(self.member_id.clone())
                    .with_protocol_type(text(PROTOCOL_TYPE))
                    .with_protocols(vec![protocol])
            })
            .await?;
        // The first join of a new member is refused with the id to come back with (KIP-394).
        if !answer.member_id.is_empty() {
            self.member_id = text(&answer.member_id);
        }
        Error::check(answer.error_code, format!("joining group {}", self.group), None)?;
        Ok(answer)
    }

    /// The leader's task: who consumes what.
    async fn assign(
        &self,
        cluster: &mut Cluster,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, Error> {
        let members: Vec<(String, Vec<String>)> = joined
            .members
            .iter()
            .map(|member| {
                let topics = read_subscription(member.metadata.clone()).unwrap_or_default();
                (member.member_id.to_string(), topics)
            })
            .collect();
        let mut counts = BTreeMap::new();
        for topic in members.iter().flat_map(|(_, topics)| topics) {
            if !counts.contains_key(topic) {
                let found = cluster.topic(topic).await?;
                counts.insert(topic.clone(), found.partitions.len() as i32);
            }
        }
        let assignment = assign_ranges(&members, &counts);
        Ok(assignment
            .iter()
            .map(|(member, assigned)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(text(member))
                    .with_assignment(write_assignment(assigned))
            })
            .collect())
    }

    async fn sync_group(
        &self,
        cluster: &mut Cluster,
        member: &Member,
        assignments: Vec<SyncGroupRequestAssignment>,
        protocol: Option<StrBytes>,
    ) -> Result<Vec<(String, i32)>, Error> {
        let limit = REBALANCE_TIMEOUT + cluster.settings().request_timeout;
        let answer = cluster
            .call_coordinator(&self.group, limit, |version| {
                let request = SyncGroupRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_generation_id(member.generation)
                    .with_member_id(member.id.clone())
                    .with_assignments(assignments);
                // From version 5 on the coordinator checks that all mean the same protocol (KIP-559).
                if version < 5 {
                    request
                } else {
                    request.with_protocol_type(Some(text(PROTOCOL_TYPE))).with_protocol_name(protocol)
                }
            })
            .await?;
        let subject = format!("assignment in group {}", self.group);
        Error::check(answer.error_code, subject.clone(), None)?;
        read_assignment(answer.assignment).ok_or_else(|| Error::Malformed {
            broker: format!("the leader of group {}", self.group),
            api: "SyncGroup".to_owned(),
            reason: "this is no assignment".to_owned(),
        })
    }

    async fn heartbeat(&self, cluster: &mut Cluster) -> Result<(), Error> {
        let Some(member) = &self.member else { return Ok(()) };
        let limit = cluster.settings().request_timeout;
        let answer = cluster
            .call_coordinator(&self.group, limit, |_| {
                HeartbeatRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_generation_id(member.generation)
                    .with_member_id(member.id.clone())
            })
            .await?;
        Error::check(answer.error_code, format!("heartbeat in group {}", self.group), None)
    }

    async fn try_commit(&self, cluster: &mut Cluster, member: &Member, offsets: &Committed) -> Result<(), Error> {
        let mut by_topic: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for ((topic, partition), offset) in offsets {
            let entry = OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::default()));
            by_topic.entry(topic).or_default().push(entry);
        }
        let topics = by_topic.into_iter().map(|(topic, partitions)| {
            OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(partitions)
        });
        let topics: Vec<_> = topics.collect();
        let limit = cluster.settings().request_timeout;
        let answer = cluster
            .call_coordinator(&self.group, limit, |_| {
                OffsetCommitRequest::default()
                    .with_group_id(group_id(&self.group))
                    .with_generation_id_or_member_epoch(member.generation)
                    .with_member_id(member.id.clone())
                    .with_topics(topics)
            })
            .await?;
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let subject =
                    format!("commit of group {} in {}-{}", self.group, &*topic.name, partition.partition_index);
                Error::check(partition.error_code, subject, None)?;
            }
        }
        Ok(())
    }

    /// Draws the consequences of a coordinator's answer for membership and routing.
    fn settle<T>(&mut self, cluster: &mut Cluster, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &outcome {
            match error.code() {
                Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) => {
                    cluster.forget_coordinator(&self.group);
                }
                Some(ErrorCode::IllegalGeneration) => self.member = None,
                Some(ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) => {
                    self.member = None;
                    self.member_id = StrBytes::default();
                }
                _ => {}
            }
        }
        outcome
    }
}
