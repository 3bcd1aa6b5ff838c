//! InitProducerId (key 22): an id for an idempotent producer (KIP-98).
//!
//! *Behaviour*: a fresh id in epoch 0. *Versions*: 0–5. From 3 on a client may name the id and epoch it had (KIP-360);
//! without a transactional id that changes nothing, it gets a fresh id.
//! *Differences from Kafka*: until transactions exist, a transactional id answers TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
//! which clients do not retry.

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId};

use crate::request::RequestContext;

/// Answers an InitProducerId request.
pub async fn handle(context: &RequestContext, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let result = match &request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => context.broker.producer_ids.next(&context.broker.metadata).await,
    };
    match result {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(WireProducerId(id.0)).with_producer_epoch(0),
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(WireProducerId(-1))
            .with_producer_epoch(-1),
    }
}
