//! FindCoordinator (key 10): which broker owns a group.
//!
//! *Behaviour*: the leader of the partition of `__consumer_offsets` that the group's name hashes to. The topic is
//! created when somebody first asks. *Versions*: 0–6. From 1 on the kind of key is said, from 4 on several keys are
//! asked for at once.
//! *Differences from Kafka*: the first request waits up to a second for the topic to be there, where Kafka answers
//! COORDINATOR_NOT_AVAILABLE at once. Until transactions exist, their coordinators are
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients do not retry.

use stonelog_protocol::messages::find_coordinator_response::Coordinator;
use stonelog_protocol::messages::{BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use stonelog_protocol::{BrokerId, ErrorCode, StrBytes};
use stonelog_replication::metadata::Endpoint;

use crate::coordinator::internal_topic::OFFSETS_TOPIC;
use crate::coordinator::runtime::owner_of;
use crate::handlers::group_names::{group_id, text};
use crate::on_demand::OnDemand;
use crate::request::RequestContext;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_TRANSACTION: i8 = 1;

/// Answers a FindCoordinator request.
pub async fn handle(context: &RequestContext, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let batched = context.version() >= 4;
    let keys = if batched { request.coordinator_keys } else { vec![request.key] };
    let kind = match request.key_type {
        KEY_TYPE_GROUP => create_offsets_topic(context).await,
        KEY_TYPE_TRANSACTION => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let mut found: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let result = kind.and_then(|()| find(context, &key));
            (key, result)
        })
        .collect();
    if batched {
        let coordinators = found.into_iter().map(|(key, result)| coordinator(key, result)).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let (key, result) = found.remove(0);
    let one = coordinator(key, result);
    FindCoordinatorResponse::default()
        .with_error_code(one.error_code)
        .with_error_message(one.error_message)
        .with_node_id(one.node_id)
        .with_host(one.host)
        .with_port(one.port)
}

/// Makes sure that there is a topic for groups to live in.
async fn create_offsets_topic(context: &RequestContext) -> Result<(), ErrorCode> {
    if context.image().topic_by_name(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    match OnDemand::make(&context.broker, &[OFFSETS_TOPIC]).await.remove(OFFSETS_TOPIC) {
        None => Ok(()),
        Some(error) => {
            tracing::warn!("{OFFSETS_TOPIC} is not there yet: {error}");
            Err(ErrorCode::CoordinatorNotAvailable)
        }
    }
}

/// The group's owner and where its clients reach it.
fn find(context: &RequestContext, group: &str) -> Result<(BrokerId, Endpoint), ErrorCode> {
    let group = group_id(group)?;
    let image = context.image();
    let owned = owner_of(context, &group).map_err(|_| ErrorCode::CoordinatorNotAvailable)?;
    let leader = image.partition(owned).and_then(|registration| registration.leader);
    let broker = leader.and_then(|leader| image.broker(leader)).filter(|broker| !broker.fenced);
    let endpoint = broker.and_then(|broker| Some((broker.id, broker.endpoint(&context.listener)?.clone())));
    endpoint.ok_or(ErrorCode::CoordinatorNotAvailable)
}

fn coordinator(key: StrBytes, result: Result<(BrokerId, Endpoint), ErrorCode>) -> Coordinator {
    let response = Coordinator::default().with_key(key);
    match result {
        Ok((id, Endpoint { host, port, .. })) => response
            .with_node_id(WireBrokerId(id.0))
            .with_host(text(&host))
            .with_port(i32::from(port))
            .with_error_message(None),
        Err(error) => response
            .with_error_code(error.code())
            .with_error_message(Some(text(error.message())))
            .with_node_id(WireBrokerId(-1))
            .with_port(-1),
    }
}
