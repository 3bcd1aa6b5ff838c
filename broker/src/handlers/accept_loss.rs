//! Accepting that a partition has lost records: the one request of our own on the clients' port (`protocol/src/own.rs`).
//!
//! *Behaviour*: `Look` tells what this broker's replica holds and changes nothing. `Accept` has the active controller make
//! a replica the leader of a partition that nobody leads, with what it has, and keep a record of it, unless the partition
//! has changed since it was looked at (INVALID_UPDATE_VERSION); it is answered once every lane here has seen that. Whoever may connect may ask, as with every other change while there is no authorizer.
//! *Differences from Kafka*: Kafka has ElectLeaders with an unclean election, which elects whoever comes first and keeps
//! no record; on strict topics that answers POLICY_VIOLATION (DESIGN §1).

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::own::{self, HeldRecords, OwnAnswer, OwnKind, OwnRequest, PartitionShown, Refusal};
use stonelog_protocol::{ErrorCode, TopicPartition};
use stonelog_replication::controller::{AcceptLoss, ControllerError, ControllerRequest, ControllerResponse};
use stonelog_replication::progress::Role;
use stonelog_replication::runtime::lane::Lane;

use crate::broker::Broker;
use crate::network::connection::Answer;

/// Answers a request of our own; one that cannot be read ends the connection.
pub async fn handle(broker: Arc<Broker>, lane: Rc<Lane>, frame: Bytes) -> Answer {
    let (correlation_id, request) = match own::decode_request(frame) {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!("closing the connection: a request of our own: {error}");
            return Answer::Close;
        }
    };
    let answer = match request.kind {
        OwnKind::Look => look(&broker, &lane, &request).await,
        OwnKind::Accept(shown) => accept(&broker, request, shown).await,
    };
    Answer::Frame(vec![own::encode_answer(correlation_id, &answer).freeze()])
}

async fn look(broker: &Broker, lane: &Rc<Lane>, request: &OwnRequest) -> Result<OwnAnswer, Refusal> {
    if request.replica != broker.node.broker_id {
        let message = format!("this is broker {}, not {}", broker.node.broker_id, request.replica);
        return Err((ErrorCode::InvalidRequest, message));
    }
    let image = lane.image();
    let topic = image.topic_by_name(&request.topic);
    let Some((topic, partition)) = topic.and_then(|topic| Some((topic, topic.partition(request.partition)?))) else {
        let error = ErrorCode::UnknownTopicOrPartition;
        return Err((error, error.message().to_owned()));
    };
    let shown = PartitionShown {
        topic_id: topic.id,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    };
    let place = TopicPartition { topic_id: topic.id, partition: request.partition };
    let lanes = lane.lanes();
    let held = lanes.call(lanes.owner(place), move |lane| {
        let progress = lane.partition(place).map(|partition| partition.progress());
        std::future::ready(progress.filter(|progress| !matches!(progress.role, Role::Offline | Role::Removed)))
    });
    let held = held.await.map(|progress| HeldRecords {
        leads: progress.role == Role::Leader,
        leader_epoch: progress.leader_epoch,
        log_start: progress.log_start_offset,
        log_end: progress.log_end_offset,
    });
    Ok(OwnAnswer::Look { shown, held })
}

async fn accept(broker: &Broker, request: OwnRequest, shown: PartitionShown) -> Result<OwnAnswer, Refusal> {
    let OwnRequest { topic, partition, replica, .. } = request;
    tracing::warn!(topic, partition = partition.0, replica = replica.0, "somebody accepts that records are lost");
    let ask = ControllerRequest::AcceptLoss(AcceptLoss { topic, partition, replica, shown });
    let decided = async {
        let response = broker.metadata.submit(ask).await;
        broker.applied_everywhere().await;
        response
    };
    match tokio::time::timeout(broker.config.network.request_timeout, decided).await {
        Ok(Ok(ControllerResponse::AcceptLoss(accepted))) => {
            Ok(OwnAnswer::Accept { instead_of: accepted.instead_of, at: accepted.at })
        }
        Ok(Ok(_)) => unreachable!("the answer's variant is the request's"),
        Ok(Err(ControllerError::Rejected(reject))) => Err((reject.code, reject.message)),
        Ok(Err(error)) => Err((error.code(), error.to_string())),
        Err(_) => Err((ErrorCode::RequestTimedOut, ErrorCode::RequestTimedOut.message().to_owned())),
    }
}
