//! Groups against a real broker process: every version of every group API, over kills and deleted topics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::Bytes;
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use stonelog_protocol::messages::leave_group_request::MemberIdentity;
use stonelog_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use stonelog_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use stonelog_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use stonelog_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use stonelog_protocol::messages::*;
use stonelog_protocol::{ErrorCode, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::{Broker, Client, new_topic, text, topic_name};

const SETTINGS: [&str; 2] = ["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=4"];

fn group_id(name: &str) -> GroupId {
    GroupId(text(name))
}

fn commit_request(group: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

impl Client {
    async fn create_topic(&mut self, name: &str) {
        self.create(new_topic(name, 2)).await;
    }

    async fn delete_topic(&mut self, name: &str) {
        let names = vec![topic_name(name)];
        let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(10_000);
        assert_eq!(self.ask(4, request).await.responses[0].error_code, 0);
    }

    /// Makes sure that there are coordinators.
    async fn find_coordinator(&mut self) {
        let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("any")]);
        assert_eq!(self.ask(4, request).await.coordinators[0].error_code, 0);
    }

    async fn commit(&mut self, version: i16, group: &str, topic: &str, offset: i64) -> i16 {
        self.ask(version, commit_request(group, topic, offset)).await.topics[0].partitions[0].error_code
    }

    async fn committed(&mut self, version: i16, group: &str, topic: &str) -> i64 {
        let name = topic_name(topic);
        if version >= 8 {
            let topic = OffsetFetchRequestTopics::default().with_name(name).with_partition_indexes(vec![0]);
            let group =
                OffsetFetchRequestGroup::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]));
            let response = self.ask(version, OffsetFetchRequest::default().with_groups(vec![group])).await;
            assert_eq!(response.groups[0].error_code, 0);
            return response.groups[0].topics[0].partitions[0].committed_offset;
        }
        let topic = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(Some(vec![topic]));
        let response = self.ask(version, request).await;
        assert_eq!(response.error_code, 0);
        response.topics[0].partitions[0].committed_offset
    }

    async fn join(&mut self, version: i16, group: &str, member: &StrBytes) -> JoinGroupResponse {
        let protocol =
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"m"));
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(member.clone())
            .with_protocol_type(text("test"))
            .with_protocols(vec![protocol]);
        let response = self.ask(version, request).await;
        if response.error_code == ErrorCode::MemberIdRequired.code() {
            assert!(version >= 4 && member.is_empty());
            return Box::pin(self.join(version, group, &response.member_id)).await;
        }
        assert_eq!(response.error_code, 0);
        response
    }

    /// Joins an empty group and gives itself an assignment.
    async fn become_stable(&mut self, version: i16, group: &str) -> JoinGroupResponse {
        let joined = self.join(version, group, &StrBytes::default()).await;
        assert_eq!((joined.generation_id, &joined.leader), (1, &joined.member_id));
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"all"));
        let version = version.min(5);
        let mut request = SyncGroupRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(1)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assignment]);
        if version >= 5 {
            request = request.with_protocol_type(Some(text("test"))).with_protocol_name(Some(text("range")));
        }
        let synced = self.ask(version, request).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        joined
    }

    async fn heartbeat(&mut self, version: i16, group: &str, member: &StrBytes) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(group))
            .with_generation_id(1)
            .with_member_id(member.clone());
        self.ask(version.min(4), request).await.error_code
    }

    async fn leave(&mut self, version: i16, group: &str, member: &StrBytes) {
        let version = version.min(5);
        let request = LeaveGroupRequest::default().with_group_id(group_id(group));
        let request = match version {
            ..=2 => request.with_member_id(member.clone()),
            _ => request.with_members(vec![MemberIdentity::default().with_member_id(member.clone())]),
        };
        let response = self.ask(version, request).await;
        assert_eq!(response.error_code, 0);
        assert!(response.members.iter().all(|member| member.error_code == 0));
    }

    async fn describe(&mut self, version: i16, group: &str) -> (i16, StrBytes, usize) {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(group)]);
        let described = self.ask(version.min(6), request).await.groups.remove(0);
        (described.error_code, described.group_state, described.members.len())
    }

    async fn list(&mut self, version: i16) -> Vec<String> {
        let listed = self.ask(version.min(5), ListGroupsRequest::default()).await;
        assert_eq!(listed.error_code, 0);
        listed.groups.iter().map(|group| group.group_id.to_string()).collect()
    }

    async fn delete(&mut self, version: i16, groups: &[&str]) -> Vec<i16> {
        let names = groups.iter().map(|group| group_id(group)).collect();
        let deleted = self.ask(version.min(2), DeleteGroupsRequest::default().with_groups_names(names)).await;
        deleted.results.iter().map(|result| result.error_code).collect()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

#[test]
fn every_version_finds_the_coordinator() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        for version in 0..=3 {
            let found = client.ask(version, FindCoordinatorRequest::default().with_key(text("g"))).await;
            let address = format!("{}:{}", &*found.host, found.port);
            assert_eq!((found.error_code, found.node_id.0, &address), (0, 1, &broker.address));
        }
        for version in 4..=6 {
            let keys = vec![text("g"), text("h")];
            let found = client.ask(version, FindCoordinatorRequest::default().with_coordinator_keys(keys)).await;
            for (coordinator, key) in found.coordinators.iter().zip(["g", "h"]) {
                let address = format!("{}:{}", &*coordinator.host, coordinator.port);
                assert_eq!((coordinator.error_code, &*coordinator.key, &address), (0, key, &broker.address));
            }
            let of_transactions =
                FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(vec![text("x")]);
            let refused = client.ask(version, of_transactions).await.coordinators[0].error_code;
            assert_eq!(refused, ErrorCode::TransactionalIdAuthorizationFailed.code());
        }
    });
}

#[test]
fn every_version_of_the_membership_apis_goes_through_a_groups_life() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.find_coordinator().await;
        for version in 0..=9 {
            let group = format!("group-{version}");
            let member = client.become_stable(version, &group).await.member_id;
            assert_eq!(client.heartbeat(version, &group, &member).await, 0);
            assert_eq!(client.describe(version, &group).await, (0, text("Stable"), 1));
            assert!(client.list(version).await.contains(&group));
            assert_eq!(client.delete(version, &[&group]).await, [ErrorCode::NonEmptyGroup.code()]);
            client.leave(version, &group, &member).await;
            let unknown = client.heartbeat(version, &group, &member).await;
            assert_eq!(unknown, ErrorCode::UnknownMemberId.code());
            assert_eq!(client.describe(version, &group).await, (0, text("Empty"), 0));
            let not_found = ErrorCode::GroupIdNotFound.code();
            assert_eq!(client.delete(version, &[&group, "nobody"]).await, [0, not_found]);
            let dead = if version >= 6 { not_found } else { 0 };
            assert_eq!(client.describe(version, &group).await, (dead, text("Dead"), 0));
            assert!(client.list(version).await.is_empty());
        }
    });
}

#[test]
fn every_version_of_the_offset_apis_reads_what_every_other_wrote() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.create_topic("t").await;
        client.find_coordinator().await;
        for version in 2..=9 {
            assert_eq!(client.commit(version, "g", "t", 100 + i64::from(version)).await, 0);
            for reader in 1..=9 {
                assert_eq!(client.committed(reader, "g", "t").await, 100 + i64::from(version));
                assert_eq!(client.committed(reader, "nobody", "t").await, -1);
            }
            let unknown = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(client.commit(version, "g", "nowhere", 1).await, unknown);
        }
        let partitions = [0, 7].map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
        let topic = OffsetDeleteRequestTopic::default().with_name(topic_name("t")).with_partitions(partitions.to_vec());
        let request = OffsetDeleteRequest::default().with_group_id(group_id("g")).with_topics(vec![topic]);
        let deleted = client.ask(0, request).await;
        let errors: Vec<i16> = deleted.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!((deleted.error_code, errors), (0, vec![0, ErrorCode::UnknownTopicOrPartition.code()]));
        assert_eq!(client.committed(9, "g", "t").await, -1);
    });
}

#[test]
fn what_a_group_was_told_survives_a_kill() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.create_topic("t").await;
        client.find_coordinator().await;
        let member = client.become_stable(9, "members").await.member_id;
        for offset in 1..=20 {
            assert_eq!(client.commit(9, "committer", "t", offset).await, 0);
        }
        drop(broker);
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        assert_eq!(client.committed(9, "committer", "t").await, 20);
        assert_eq!(client.heartbeat(4, "members", &member).await, 0, "the generation goes on");
        assert_eq!(client.describe(5, "members").await, (0, text("Stable"), 1));
    });
}

#[test]
fn an_offset_of_a_deleted_topic_is_not_its_namesakes() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.create_topic("t").await;
        client.find_coordinator().await;
        assert_eq!(client.commit(9, "g", "t", 5).await, 0);
        client.delete_topic("t").await;
        client.create_topic("t").await;
        assert_eq!(client.committed(9, "g", "t").await, -1);
        drop(broker);
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        assert_eq!(client.committed(9, "g", "t").await, -1);
        assert_eq!(client.commit(9, "g", "t", 6).await, 0);
        assert_eq!(client.committed(9, "g", "t").await, 6);
    });
}

#[test]
fn groups_are_refused_until_somebody_looks_for_their_coordinator() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.create_topic("t").await;
        let not_coordinator = ErrorCode::NotCoordinator.code();
        assert_eq!(client.commit(9, "g", "t", 5).await, not_coordinator);
        assert_eq!(client.heartbeat(4, "g", &text("m")).await, not_coordinator);
        assert!(client.list(5).await.is_empty());
        client.find_coordinator().await;
        assert_eq!(client.commit(9, "g", "t", 5).await, 0);
    });
}

#[test]
fn pipelined_commits_are_decided_and_answered_in_their_order() {
    const COMMITS_COUNT: i32 = 40;
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let broker = Broker::start(dir.path(), &SETTINGS);
        let mut client = broker.open().await;
        client.create_topic("t").await;
        client.find_coordinator().await;
        for round in 0..5 {
            let mut stream = TcpStream::connect(&broker.address).await.unwrap();
            let mut frames = Vec::new();
            for number in 0..COMMITS_COUNT {
                let request = commit_request("g", "t", i64::from(round * COMMITS_COUNT + number));
                frames.extend(encode_request(9, number, None, &request).unwrap());
            }
            stream.write_all(&frames).await.unwrap();
            for number in 0..COMMITS_COUNT {
                let mut frame = vec![0; stream.read_u32().await.unwrap() as usize];
                stream.read_exact(&mut frame).await.unwrap();
                let (correlation_id, response) = decode_response::<OffsetCommitRequest>(9, frame.into()).unwrap();
                assert_eq!((correlation_id, response.topics[0].partitions[0].error_code), (number, 0));
            }
            let last = i64::from((round + 1) * COMMITS_COUNT - 1);
            assert_eq!(client.committed(9, "g", "t").await, last);
        }
    });
}
