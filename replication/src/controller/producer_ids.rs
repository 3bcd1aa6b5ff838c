//! Blocks of producer ids: committed before the first id of a block is handed out, never reused (rule 16).

use stonelog_protocol::ProducerId;
use stonelog_protocol::error_code::ErrorCode;

use super::brokers::check_epoch;
use super::request::AllocateProducerIds;
use super::response::{ControllerResponse, ProducerIdBlock};
use super::{Decision, Reject};
use crate::metadata::record::ProducerIdsRecord;
use crate::metadata::{MetadataImage, MetadataRecord};

/// How many ids a broker gets at once (Kafka's `ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE`).
pub const PRODUCER_ID_BLOCK_LEN: i32 = 1000;

pub(super) fn decide_allocate(image: &MetadataImage, request: AllocateProducerIds) -> Result<Decision, Reject> {
    check_epoch(image, request.broker, request.broker_epoch)?;
    let first = image.next_producer_id();
    let next = first.0.checked_add(i64::from(PRODUCER_ID_BLOCK_LEN)).ok_or_else(|| {
        Reject::new(
            ErrorCode::UnknownServerError,
            "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit",
        )
    })?;
    let record = MetadataRecord::ProducerIds(ProducerIdsRecord {
        broker: request.broker,
        broker_epoch: request.broker_epoch,
        next: ProducerId(next),
    });
    let block = ProducerIdBlock { first, len: PRODUCER_ID_BLOCK_LEN };
    Ok(Decision::new(vec![record], ControllerResponse::AllocateProducerIds(block)))
}
