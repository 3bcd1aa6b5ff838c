//! From a frame to the handler of its API, and from the handler's response back to a frame.
//!
//! Handlers live in `handlers/`, one file an API; the match below is exhaustive over the API table. Requests of our own,
//! which are in no table of Kafka's, go to theirs first.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::codec::{self, RequestKind, ResponseKind};
use stonelog_protocol::frame::RequestHead;
use stonelog_protocol::own;
use stonelog_replication::runtime::lane::Lane;

use crate::broker::Broker;
use crate::handlers;
use crate::network::connection::{Answer, Service, Started};
use crate::request::{RequestContext, encode};

/// The broker as one connection sees it.
pub struct Dispatch {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The lane that owns the connection.
    pub lane: Rc<Lane>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client's address.
    pub peer: SocketAddr,
}

impl Service for Dispatch {
    fn start(&self, frame: Bytes) -> Started {
        if own::is_own(&frame) {
            let (broker, lane) = (Arc::clone(&self.broker), Rc::clone(&self.lane));
            return Started::Alone(Box::pin(handlers::accept_loss::handle(broker, lane, frame)));
        }
        let frame_bytes = frame.len();
        let (head, body) = match RequestHead::read(frame) {
            Ok(read) => read,
            Err(error) => return self.refuse(&error),
        };
        let context = RequestContext {
            broker: Arc::clone(&self.broker),
            lane: Rc::clone(&self.lane),
            listener: Arc::clone(&self.listener),
            peer: self.peer,
            head,
            frame_bytes,
        };
        if context.head.is_newer_api_versions() {
            let response = handlers::api_versions::unsupported();
            return ready(encode(0, context.head.correlation_id, &response.into()));
        }
        let request = match codec::decode_request(context.head.name(), context.version(), body) {
            Ok(request) => request,
            Err(error) => return self.refuse(&format_args!("{}: {error}", context.head.name())),
        };
        match request {
            RequestKind::Produce(request) => handlers::produce::start(context, request),
            RequestKind::OffsetCommit(request) => handlers::offset_commit::start(context, request),
            RequestKind::Fetch(request) => Started::Alone(Box::pin(handlers::fetch::handle(context, request))),
            request => Started::Alone(Box::pin(async move {
                let (version, correlation_id) = (context.version(), context.head.correlation_id);
                match respond(context, request).await {
                    Some(response) => encode(version, correlation_id, &response),
                    None => Answer::Close,
                }
            })),
        }
    }
}

impl Dispatch {
    /// Kafka closes the connection on a frame it cannot read, and so do we: an answer could only be misread.
    fn refuse(&self, why: &dyn std::fmt::Display) -> Started {
        tracing::debug!(peer = %self.peer, "closing the connection: {why}");
        ready(Answer::Close)
    }
}

async fn respond(context: RequestContext, request: RequestKind) -> Option<ResponseKind> {
    let context = &context;
    Some(match request {
        RequestKind::ApiVersions(request) => handlers::api_versions::handle(context, request).into(),
        RequestKind::Metadata(request) => handlers::metadata::handle(context, request).await.into(),
        RequestKind::ListOffsets(request) => handlers::list_offsets::handle(context, request).await.into(),
        RequestKind::OffsetForLeaderEpoch(request) => {
            handlers::offset_for_leader_epoch::handle(context, request).await.into()
        }
        RequestKind::InitProducerId(request) => handlers::init_producer_id::handle(context, request).await.into(),
        RequestKind::CreateTopics(request) => handlers::create_topics::handle(context, request).await.into(),
        RequestKind::DeleteTopics(request) => handlers::delete_topics::handle(context, request).await.into(),
        RequestKind::CreatePartitions(request) => handlers::create_partitions::handle(context, request).await.into(),
        RequestKind::DeleteRecords(request) => handlers::delete_records::handle(context, request).await.into(),
        RequestKind::DescribeConfigs(request) => handlers::describe_configs::handle(context, request).await.into(),
        RequestKind::AlterConfigs(request) => handlers::alter_configs::handle(context, request).await.into(),
        RequestKind::IncrementalAlterConfigs(request) => {
            handlers::incremental_alter_configs::handle(context, request).await.into()
        }
        RequestKind::AlterReplicaLogDirs(request) => {
            handlers::alter_replica_log_dirs::handle(context, request).await.into()
        }
        RequestKind::DescribeLogDirs(request) => handlers::describe_log_dirs::handle(context, request).await.into(),
        RequestKind::DescribeCluster(request) => handlers::describe_cluster::handle(context, request).into(),
        RequestKind::DescribeTopicPartitions(request) => {
            handlers::describe_topic_partitions::handle(context, request).into()
        }
        RequestKind::ElectLeaders(request) => handlers::elect_leaders::handle(context, request).await.into(),
        RequestKind::AlterPartitionReassignments(request) => {
            handlers::alter_partition_reassignments::handle(context, request).await.into()
        }
        RequestKind::ListPartitionReassignments(request) => {
            handlers::list_partition_reassignments::handle(context, request).into()
        }
        RequestKind::DescribeQuorum(request) => handlers::describe_quorum::handle(context, request).await.into(),
        RequestKind::UpdateFeatures(request) => handlers::update_features::handle(context, request).into(),
        RequestKind::UnregisterBroker(request) => handlers::unregister_broker::handle(context, request).await.into(),
        RequestKind::AddRaftVoter(request) => handlers::add_raft_voter::handle(context, request).await.into(),
        RequestKind::RemoveRaftVoter(request) => handlers::remove_raft_voter::handle(context, request).await.into(),
        RequestKind::DescribeAcls(request) => handlers::describe_acls::handle(context, request).into(),
        RequestKind::FindCoordinator(request) => handlers::find_coordinator::handle(context, request).await.into(),
        RequestKind::JoinGroup(request) => handlers::join_group::handle(context, request).await.into(),
        RequestKind::SyncGroup(request) => handlers::sync_group::handle(context, request).await.into(),
        RequestKind::Heartbeat(request) => handlers::heartbeat::handle(context, request).await.into(),
        RequestKind::LeaveGroup(request) => handlers::leave_group::handle(context, request).await.into(),
        RequestKind::DescribeGroups(request) => handlers::describe_groups::handle(context, request).await.into(),
        RequestKind::ListGroups(request) => handlers::list_groups::handle(context, request).await.into(),
        RequestKind::DeleteGroups(request) => handlers::delete_groups::handle(context, request).await.into(),
        RequestKind::OffsetFetch(request) => handlers::offset_fetch::handle(context, request).await.into(),
        RequestKind::OffsetDelete(request) => handlers::offset_delete::handle(context, request).await.into(),
        RequestKind::Produce(_) | RequestKind::Fetch(_) | RequestKind::OffsetCommit(_) => {
            unreachable!("started in order, not here")
        }
    })
}

fn ready(answer: Answer) -> Started {
    Started::Alone(Box::pin(std::future::ready(answer)))
}
