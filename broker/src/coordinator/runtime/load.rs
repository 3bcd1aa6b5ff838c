//! Reads a partition's whole log back, as far as it went when this broker came to lead it.

use std::rc::Rc;

use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_replication::partition::Reject;
use stonelog_replication::runtime::lane::Lane;
use stonelog_replication::runtime::partition::Partition;
use stonelog_replication::runtime::read::{ReadRequest, Reader};
use thiserror::Error;

use crate::coordinator::group::load::{ReplayError, Replayed};
use crate::coordinator::group::{Config, Groups};

/// Bytes replayed before the lane does something else.
const BYTES_PER_READ: usize = 256 << 10;

/// Why a log could not be read back.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    /// The log would not be read; usually because this broker does not lead it any more.
    #[error("its log cannot be read: {0:?}")]
    Read(Reject),
    /// What was read is damaged.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// What was read back.
pub(super) struct Loaded {
    /// The state as the log says.
    pub(super) groups: Groups,
    /// The end of the log that was read; all of it is committed.
    pub(super) end: Offset,
    /// What was met on the way.
    pub(super) replayed: Replayed,
}

/// Replays the log up to its present end. Only what is committed can be read, so this waits until all of it is.
pub(super) async fn load(
    lane: &Rc<Lane>,
    log: &Partition,
    leader_epoch: LeaderEpoch,
    config: Config,
) -> Result<Loaded, LoadError> {
    let mut groups = Groups::new(config);
    let mut replayed = Replayed::default();
    let begun = log.progress();
    let end = begun.log_end_offset;
    let mut next = begun.log_start_offset;
    while next < end {
        let seen = log.changed().version();
        let high_watermark = log.progress().high_watermark;
        let request = ReadRequest {
            partition: log.id(),
            fetch_offset: next,
            bytes_max: BYTES_PER_READ,
            current_leader_epoch: leader_epoch,
            last_fetched_epoch: LeaderEpoch::NONE,
        };
        let from = next;
        for answer in Rc::clone(lane).read_all(Reader::OfLeader, vec![request], BYTES_PER_READ).await {
            for batches in answer.done.map_err(LoadError::Read)?.batches {
                if let Some(after) = groups.replay_batches(&batches, &mut replayed)? {
                    next = next.max(after);
                }
            }
        }
        if next > from {
            tokio::task::yield_now().await;
        } else if high_watermark >= end {
            // All that is committed has been read: what lay between here and the end is compacted away.
            break;
        } else {
            log.changed().after(seen).await;
        }
    }
    Ok(Loaded { groups, end, replayed })
}
