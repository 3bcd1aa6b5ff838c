//! Producer ids for idempotent producers (rule 16): from blocks that the quorum committed before the first is used.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stonelog_protocol::ProducerId;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId};
use stonelog_replication::controller::ControllerResponse;
use stonelog_replication::controller::MetadataHandle;
use stonelog_replication::controller::{AllocateProducerIds, ControllerError, ControllerRequest};
use tokio::sync::Mutex;

/// How long a block is waited for; clients ask again.
const ALLOCATE_WITHIN: Duration = Duration::from_secs(10);

/// Hands out producer ids, one block at a time.
pub struct ProducerIds {
    broker: BrokerId,
    epoch: BrokerEpoch,
    /// Held across the allocation of a block, so that only one is asked for at a time.
    block: Mutex<Range<i64>>,
    /// Allocations that came to nothing: all who waited for one share its outcome.
    failures: AtomicU64,
}

impl ProducerIds {
    /// For a broker under its registration. A restarted broker begins with a fresh block.
    pub fn new(broker: BrokerId, epoch: BrokerEpoch) -> ProducerIds {
        ProducerIds { broker, epoch, block: Mutex::new(0..0), failures: AtomicU64::new(0) }
    }

    /// An id that nobody has had before.
    pub async fn next(&self, metadata: &MetadataHandle) -> Result<ProducerId, ErrorCode> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut block = self.block.lock().await;
        if block.is_empty() {
            if self.failures.load(Ordering::Acquire) > failures {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            let request = AllocateProducerIds { broker: self.broker, broker_epoch: self.epoch };
            let allocated = metadata.submit(ControllerRequest::AllocateProducerIds(request));
            // One that comes too late is left out.
            match tokio::time::timeout(ALLOCATE_WITHIN, allocated).await.unwrap_or(Err(ControllerError::Unknown)) {
                Ok(ControllerResponse::AllocateProducerIds(fresh)) => {
                    *block = fresh.first.0..fresh.first.0 + i64::from(fresh.len);
                }
                Ok(_) => unreachable!("the answer's variant is the request's"),
                Err(error) => {
                    tracing::warn!("no block of producer ids: {error}");
                    self.failures.fetch_add(1, Ordering::Release);
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
