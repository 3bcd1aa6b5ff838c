//! Looking up offsets on the lane that owns a partition: by time, by leader epoch, and how large replicas are.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::compression::open_records;
use stonelog_protocol::batch::records::Records;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition};
use stonelog_storage::log::Lookup;
use stonelog_storage::segment::read::LookupDone;

use super::lane::Lane;
use super::partition::Partition;
use super::read::MOVES_COUNT_MAX;
use crate::partition::Reject;

/// What a compressed batch may open to while a record's time is looked for in it; it was validated when it came in.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// Which offset is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first one.
    Earliest,
    /// The end of what the reader may see.
    Latest,
    /// Of the first record with the largest timestamp.
    MaxTimestamp,
    /// Of the first record at or after a time.
    AtOrAfter(Timestamp),
}

/// One replica's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSize {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: PartitionIndex,
    /// Bytes of batches.
    pub bytes: u64,
    /// Its directory's place.
    pub directory: usize,
}

/// What was found: nothing is offset -1 and timestamp -1.
pub type FoundOffset = (Offset, Timestamp, LeaderEpoch);

impl Lane {
    /// Answers an [`OffsetQuery`], within what the reader may see.
    pub async fn find_offset(
        self: Rc<Self>,
        id: TopicPartition,
        query: OffsetQuery,
        current_leader_epoch: LeaderEpoch,
        committed_only: bool,
    ) -> Result<FoundOffset, Reject> {
        let partition = self.leading(id, current_leader_epoch)?;
        let progress = partition.progress();
        let end = if committed_only { progress.last_stable_offset } else { progress.high_watermark };
        // Until the new leader's watermark has reached its epoch's start, more may be committed than it knows, and told
        // before (KIP-207; `UnifiedLog.fetchOffsetByTimestamp`, `Partition.fetchOffsetForTimestamp`).
        let epoch_start = partition.replica().epoch_start();
        let end_is_known = epoch_start.is_none_or(|start| progress.high_watermark >= start);
        match query {
            OffsetQuery::Latest | OffsetQuery::MaxTimestamp if !end_is_known => Err(Reject::OffsetNotAvailable),
            OffsetQuery::Latest => Ok((end, Timestamp::NONE, progress.leader_epoch)),
            OffsetQuery::Earliest => {
                let start = progress.log_start_offset;
                let epoch = partition.replica().log.epochs().epoch_at(start).unwrap_or(progress.leader_epoch);
                Ok((start, Timestamp::NONE, epoch))
            }
            OffsetQuery::MaxTimestamp => {
                let largest = partition.replica().log.max_timestamp(end);
                match largest {
                    Some(timestamp) => self.first_at_or_after(&partition, timestamp, end).await,
                    None => Ok((Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE)),
                }
            }
            OffsetQuery::AtOrAfter(timestamp) => match self.first_at_or_after(&partition, timestamp, end).await? {
                (Offset::NONE, ..) if !end_is_known => Err(Reject::OffsetNotAvailable),
                found => Ok(found),
            },
        }
    }

    async fn first_at_or_after(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        timestamp: Timestamp,
        end: Offset,
    ) -> Result<FoundOffset, Reject> {
        let mut moves = 0;
        let batch = loop {
            let planned = partition.replica().log.lookup_timestamp(timestamp, end);
            match planned {
                Lookup::Ready(batch) => break batch,
                Lookup::Damaged(_) => return Err(Reject::Damaged),
                Lookup::Job(job) => {
                    let access = Arc::clone(&partition.directory().access);
                    match partition.directory().readers.run_wanted(move || job.run(&access)).await {
                        Ok(Ok(LookupDone::Found(batch))) => break Some(batch),
                        Ok(Ok(LookupDone::NotFound)) => break None,
                        Ok(Ok(LookupDone::Damaged(_))) => return Err(Reject::Damaged),
                        Ok(Ok(LookupDone::Moved)) if moves == MOVES_COUNT_MAX => return Err(Reject::Damaged),
                        Ok(Ok(LookupDone::Moved)) => moves += 1,
                        Ok(Err(fault)) => {
                            tracing::error!(partition = %partition.id(), "cannot look up a time: {fault}");
                            if !self.survey_at(partition, &fault).await {
                                return Err(Reject::Damaged);
                            }
                        }
                        Err(_) => return Err(Reject::Offline),
                    }
                }
            }
        };
        let log_start = partition.progress().log_start_offset;
        match batch {
            Some(batch) => find_record(&batch, timestamp, log_start, end).ok_or(Reject::Damaged),
            None => Ok((Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE)),
        }
    }

    /// Where a leader epoch ended (OffsetForLeaderEpoch); -1 and -1 when nothing is known of it.
    pub fn epoch_end(
        &self,
        id: TopicPartition,
        wanted: LeaderEpoch,
        current_leader_epoch: LeaderEpoch,
    ) -> Result<(LeaderEpoch, Offset), Reject> {
        let partition = self.leading(id, current_leader_epoch)?;
        let known = partition.replica().log.end_offset_for_epoch(wanted).map_err(|_| Reject::Damaged)?;
        Ok((known.epoch, known.end))
    }

    /// The size of every replica on this lane.
    pub fn replica_sizes(&self) -> Vec<ReplicaSize> {
        self.partitions()
            .iter()
            .map(|partition| ReplicaSize {
                topic: Arc::clone(partition.topic()),
                partition: partition.id().partition,
                bytes: partition.replica().log.size_bytes(),
                directory: partition.directory().place,
            })
            .collect()
    }
}

/// The first record of a batch at or after a time, within what may be read.
fn find_record(batch: &Bytes, timestamp: Timestamp, log_start: Offset, end: Offset) -> Option<FoundOffset> {
    let header = BatchHeader::read(batch).ok()?;
    if header.is_log_append_time() {
        return Some((header.base_offset.max(log_start), header.max_timestamp, header.leader_epoch));
    }
    let section = open_records(batch, &header, DECOMPRESSED_BYTES_MAX).ok()?;
    for record in Records::new(&section, header.records_count) {
        let record = record.ok()?;
        let at = header.base_timestamp.0.checked_add(record.timestamp_delta)?;
        let offset = header.base_offset + i64::from(record.offset_delta);
        if at >= timestamp.0 && offset >= log_start && offset < end {
            return Some((offset, Timestamp(at), header.leader_epoch));
        }
    }
    // The header promised such a record; below the log start it no longer counts.
    Some((Offset::NONE, Timestamp::NONE, LeaderEpoch::NONE))
}
