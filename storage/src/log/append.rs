//! Appending: the one place where a batch gets its offset.

use bytes::{Bytes, BytesMut};
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::{crc_matches, patch_log_append_time, patch_offset_and_epoch};
use stonelog_protocol::{LeaderEpoch, Offset, ProducerEpoch, Timestamp};

use super::tail::{Chunk, CommitSpan, Place};
use super::{Log, Sequence, SequenceReject};
use crate::journal::{Change, JournalEntry};
use crate::segment::walk::Batches;

/// A client's batch that is in the log now, or was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record. The acknowledgement waits for the offset after it, also a duplicate's.
    pub last_offset: Offset,
    /// The broker's stamp where the topic asks for `LogAppendTime`, else [`Timestamp::NONE`].
    pub log_append_time: Timestamp,
    /// The log's first offset.
    pub log_start: Offset,
    /// Whether the batch was in the log before; nothing was appended then.
    pub duplicate: bool,
    /// What to pass to the journal; `None` for a duplicate.
    pub entry: Option<JournalEntry>,
}

/// Why a client's batch was not appended. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendReject {
    /// An older epoch of the producer (INVALID_PRODUCER_EPOCH, 47).
    InvalidProducerEpoch {
        /// The newest one known.
        current: ProducerEpoch,
    },
    /// Not the producer's next sequence number (OUT_OF_ORDER_SEQUENCE_NUMBER, 45).
    OutOfOrderSequence {
        /// The last sequence number appended; -1 in a new epoch.
        last_sequence: i32,
    },
    /// Larger than a segment may be (RECORD_LIST_TOO_LARGE, 18).
    LargerThanSegment {
        /// `segment.bytes`.
        segment_bytes: u32,
    },
    /// A truncation, reset or drop is not durable yet, or the log was dropped (NOT_LEADER_OR_FOLLOWER, 6).
    Changing,
}

/// Why bytes from the leader were not appended. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerReject {
    /// They begin below the log's end.
    NotAtEnd {
        /// The log's end.
        log_end: Offset,
    },
    /// They are not whole, legal batches one after the other.
    Malformed {
        /// Where the first such batch begins, in bytes.
        at: usize,
    },
    /// A batch's checksum does not match.
    Corrupt {
        /// The batch's base offset.
        base_offset: Offset,
    },
    /// A batch of a later epoch than the one being followed (KAFKA-18723).
    LaterEpoch {
        /// The batch's epoch.
        epoch: LeaderEpoch,
    },
    /// A batch of an earlier epoch than the one before it: no leader's log is like that.
    EarlierEpoch {
        /// The batch's epoch.
        epoch: LeaderEpoch,
    },
    /// A truncation, reset or drop is not durable yet.
    Changing,
}

impl From<SequenceReject> for AppendReject {
    fn from(reject: SequenceReject) -> AppendReject {
        match reject {
            SequenceReject::StaleEpoch { current } => AppendReject::InvalidProducerEpoch { current },
            SequenceReject::OutOfOrder { last_sequence } => AppendReject::OutOfOrderSequence { last_sequence },
        }
    }
}

impl Log {
    /// Appends one validated batch as the leader of `epoch`. `batch` is exactly the batch that `header` was read from.
    /// `ticket` is above every earlier one; the journal's completions name it.
    pub fn append_as_leader(
        &mut self,
        mut batch: BytesMut,
        header: &BatchHeader,
        epoch: LeaderEpoch,
        now: Timestamp,
        ticket: u64,
    ) -> Result<Appended, AppendReject> {
        assert_eq!(batch.len(), header.batch_bytes, "exactly one batch");
        assert!(header.last_offset_delta >= 0 && header.records_count > 0, "a validated batch holds records");
        assert!(self.latest_epoch().is_none_or(|latest| epoch >= latest), "the leader's epoch is the newest");
        if self.is_changing() {
            return Err(AppendReject::Changing);
        }
        if batch.len() as u64 > u64::from(self.config.segment_bytes) {
            return Err(AppendReject::LargerThanSegment { segment_bytes: self.config.segment_bytes });
        }
        if let Sequence::Duplicate(original) = self.producers.check(header)? {
            let log_append_time = if header.is_log_append_time() || self.config.log_append_time {
                original.max_timestamp
            } else {
                Timestamp::NONE
            };
            return Ok(Appended {
                base_offset: original.base_offset,
                last_offset: original.last_offset,
                log_append_time,
                log_start: self.log_start,
                duplicate: true,
                entry: None,
            });
        }
        let base_offset = self.log_end();
        patch_offset_and_epoch(&mut batch, base_offset, epoch);
        let mut header = BatchHeader { base_offset, leader_epoch: epoch, ..*header };
        if self.config.log_append_time {
            patch_log_append_time(&mut batch, now);
            header.max_timestamp = now;
        }
        self.producers.apply(&header, now);
        self.epochs.assign(epoch, base_offset);
        let batches = batch.freeze();
        self.tail.push(Chunk {
            base: base_offset,
            end: header.next_offset(),
            place: Place::Memory(batches.clone()),
            ticket,
            span: CommitSpan::default(),
            inexact: false,
            appended: now,
            first_timestamp: header.max_timestamp,
            max_timestamp: header.max_timestamp,
            headers: None,
        });
        Ok(Appended {
            base_offset,
            last_offset: header.last_offset(),
            log_append_time: if self.config.log_append_time { now } else { Timestamp::NONE },
            log_start: self.log_start,
            duplicate: false,
            entry: Some(self.entry(Change::Append { base_offset, end_offset: header.next_offset(), batches })),
        })
    }

    /// Appends whole batches as the leader of `epoch` sent them, at the log's end. Checks them once more: the leader did
    /// before, and the network lies between. Between batches, and before the first, offsets may be missing: the leader's
    /// log has been compacted there.
    pub fn append_as_follower(
        &mut self,
        batches: Bytes,
        epoch: LeaderEpoch,
        now: Timestamp,
        ticket: u64,
    ) -> Result<JournalEntry, FollowerReject> {
        if self.is_changing() {
            return Err(FollowerReject::Changing);
        }
        let base_offset = self.log_end();
        let mut end = base_offset;
        let mut before = self.last_record_epoch();
        let mut walk = Batches::of(&batches);
        for (at, header) in walk.by_ref() {
            if header.base_offset < end {
                return Err(match at {
                    0 => FollowerReject::NotAtEnd { log_end: end },
                    _ => FollowerReject::Malformed { at },
                });
            }
            if header.last_offset_delta < 0 || header.batch_bytes as u64 > u64::from(u32::MAX / 2) {
                return Err(FollowerReject::Malformed { at });
            }
            if header.leader_epoch > epoch {
                return Err(FollowerReject::LaterEpoch { epoch: header.leader_epoch });
            }
            if header.leader_epoch < before {
                return Err(FollowerReject::EarlierEpoch { epoch: header.leader_epoch });
            }
            before = header.leader_epoch;
            if !crc_matches(&batches[at..at + header.batch_bytes]) {
                return Err(FollowerReject::Corrupt { base_offset: header.base_offset });
            }
            end = header.next_offset();
        }
        let (at, stopped) = walk.rest();
        if stopped.is_some() || end == base_offset {
            return Err(FollowerReject::Malformed { at });
        }
        self.push_batches(base_offset, Place::Memory(batches.clone()), &batches, now, ticket);
        Ok(self.entry(Change::Append { base_offset, end_offset: end, batches }))
    }

    /// Puts checked batches at the end and applies them to producers and epochs.
    pub(super) fn push_batches(&mut self, base: Offset, place: Place, batches: &[u8], now: Timestamp, ticket: u64) {
        let mut end = base;
        let mut first_timestamp = None;
        let mut max_timestamp = Timestamp::NONE;
        let keep_headers = matches!(place, Place::Journal { .. });
        let mut headers = Vec::new();
        for (_, header) in Batches::of(batches) {
            self.producers.apply(&header, now);
            self.epochs.on_batch(header.leader_epoch, header.base_offset);
            end = header.next_offset();
            first_timestamp.get_or_insert(header.max_timestamp);
            max_timestamp = max_timestamp.max(header.max_timestamp);
            if keep_headers {
                headers.push(header);
            }
        }
        self.tail.push(Chunk {
            base,
            end,
            place,
            ticket,
            span: CommitSpan::default(),
            inexact: false,
            appended: now,
            first_timestamp: first_timestamp.unwrap_or(Timestamp::NONE),
            max_timestamp,
            headers: keep_headers.then(|| headers.into_boxed_slice()),
        });
    }
}
