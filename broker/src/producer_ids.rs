//! Producer ids for idempotent producers (rule 16): from blocks that the quorum committed before the first is used.

use std::ops::Range;

use stonelog_protocol::ProducerId;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId};
use stonelog_replication::controller::ControllerResponse;
use stonelog_replication::controller::MetadataHandle;
use stonelog_replication::controller::{AllocateProducerIds, ControllerRequest};
use tokio::sync::Mutex;

/// Hands out producer ids, one block at a time.
pub struct ProducerIds {
    broker: BrokerId,
    epoch: BrokerEpoch,
    /// Held across the allocation of a block, so that only one is asked for at a time.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    /// For a broker under its registration. A restarted broker begins with a fresh block.
    pub fn new(broker: BrokerId, epoch: BrokerEpoch) -> ProducerIds {
        ProducerIds { broker, epoch, block: Mutex::new(0..0) }
    }

    /// An id that nobody has had before.
    pub async fn next(&self, metadata: &MetadataHandle) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.is_empty() {
            let request = AllocateProducerIds { broker: self.broker, broker_epoch: self.epoch };
            match metadata.submit(ControllerRequest::AllocateProducerIds(request)).await {
                Ok(ControllerResponse::AllocateProducerIds(fresh)) => {
                    *block = fresh.first.0..fresh.first.0 + i64::from(fresh.len);
                }
                Ok(_) => unreachable!("the answer's variant is the request's"),
                Err(error) => {
                    tracing::warn!("no block of producer ids: {error}");
                    return Err(ErrorCode::CoordinatorLoadInProgress);
                }
            }
        }
        match block.next() {
            Some(id) => Ok(ProducerId(id)),
            None => Err(ErrorCode::UnknownServerError),
        }
    }
}
