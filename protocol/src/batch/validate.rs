//! Judges what a producer sent, in Kafka's order, before anything is written.
//!
//! The order decides which error a client sees: the request's shape (one batch, magic, codec), then size and checksum,
//! then the header's own sums, then every record, then the segment size. Sequence numbers are judged later, by the
//! partition. Nothing here changes a byte; [`ProducedBatch::stamp`] does, once the batch is accepted.
//!
//! Differences from Kafka, each about bytes that no client in use writes: offsets inside a batch must count up from 0 by
//! one (Kafka rewrites compressed batches that do not and stores plain ones); bytes behind the batch or behind a gzip
//! stream, lengths below -1 within a record, the delete-horizon bit and LogAppendTime set by a client are refused.
//! Records that cannot be decompressed are INVALID_RECORD, where Kafka answers UNKNOWN_SERVER_ERROR.
//! Source: `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`.

use thiserror::Error;

use super::compression::{CompressionError, open_records};
use super::header::{self, BatchHeader, Compression, HEADER_BYTES, MAGIC, PREFIX_BYTES};
use super::records::{Record, RecordError, Records};
use crate::{ErrorCode, ProducerId, Timestamp};

/// Refused records listed in one answer; the rest are counted. Kafka lists all, which lets a hostile batch of empty
/// records ask for an answer many times its size.
pub const RECORD_REJECTS_MAX: usize = 1_000;
/// The shortest length field of any batch that ever was; below it the bytes are damaged, not old.
const LEGACY_LENGTH_MIN: i32 = 14;

/// Which clock stamps the records of a topic (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// What a topic demands of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRules {
    /// `max.message.bytes`: the whole batch as sent, with its 12-byte prefix.
    pub message_bytes_max: usize,
    /// `segment.bytes`.
    pub segment_bytes: usize,
    /// Whether `cleanup.policy` holds `compact`, so that every record needs a key.
    pub is_compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far in the past a record may lie.
    pub timestamp_before_ms_max: i64,
    /// `message.timestamp.after.max.ms`: how far in the future a record may lie.
    pub timestamp_after_ms_max: i64,
    /// Most bytes that a compressed batch may open to. Bounds memory; Kafka has no such limit.
    pub decompressed_bytes_max: usize,
}

impl Default for BatchRules {
    /// Kafka's defaults for a topic, and 64 MiB of decompressed records.
    fn default() -> BatchRules {
        BatchRules {
            message_bytes_max: 1_048_588,
            segment_bytes: 1 << 30,
            is_compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_ms_max: i64::MAX,
            timestamp_after_ms_max: 3_600_000,
            decompressed_bytes_max: 64 << 20,
        }
    }
}

/// A batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Its header, as sent.
    pub header: BatchHeader,
    /// The largest timestamp of its records, which its header may misstate.
    pub max_timestamp: Timestamp,
    /// Bytes of its records, decompressed.
    pub records_bytes: usize,
}

impl ProducedBatch {
    /// Writes the timestamps the topic wants into the accepted batch, and its CRC if they differ from what was sent.
    /// Offset and leader epoch are the log's to write. `batch` may have been recompressed meanwhile.
    pub fn stamp(&self, batch: &mut [u8], timestamp_type: TimestampType, now: Timestamp) {
        match timestamp_type {
            TimestampType::LogAppendTime => header::patch_log_append_time(batch, now),
            TimestampType::CreateTime if self.header.max_timestamp != self.max_timestamp => {
                header::patch_max_timestamp(batch, self.max_timestamp);
            }
            TimestampType::CreateTime => {}
        }
    }
}

/// Why a batch is refused, as the answer says it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct BatchReject {
    /// The partition's error code.
    pub error: ErrorCode,
    /// The partition's error message.
    pub reason: RejectReason,
    /// The records at fault, at most [`RECORD_REJECTS_MAX`]; sent from Produce 8 on.
    pub records: Vec<RecordReject>,
}

/// One record at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordReject {
    /// Its index in the batch, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub reason: RecordRejectReason,
}

/// What is wrong with a batch. Its text is the error message.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the error text beside each says the same")]
pub enum RejectReason {
    #[error("a produce request must hold one whole record batch per partition")]
    NoBatch,
    #[error("a produce request must hold exactly one record batch per partition")]
    SeveralBatches,
    #[error("the record batch is damaged: its length is {0}")]
    Length(i32),
    #[error("record batches must be of magic 2, not {0}")]
    Magic(i8),
    #[error("zstd needs produce version 7 or later")]
    ZstdTooEarly,
    #[error("the codec in the record batch's attributes is unknown")]
    UnknownCodec,
    #[error("the base offset of a produced record batch must be 0, not {0}")]
    BaseOffset(i64),
    #[error("the record batch has {bytes} bytes, the topic allows {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("the record batch fails its checksum")]
    Crc,
    #[error("the record batch counts {count} records but its last offset delta is {last_offset_delta}")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("clients may not write control records")]
    Control,
    #[error("clients may not set a delete horizon")]
    DeleteHorizon,
    #[error("sequence {base_sequence} of producer {producer_id} is invalid")]
    Sequence { base_sequence: i32, producer_id: ProducerId },
    #[error(transparent)]
    Compression(CompressionError),
    #[error(transparent)]
    Record(RecordError),
    #[error("{0} records were rejected")]
    Records(usize),
    #[error("the record batch has {bytes} bytes, a segment of the topic {segment_bytes}")]
    AboveSegment { bytes: usize, segment_bytes: usize },
}

/// What is wrong with one record. Its text is the message beside its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the error text beside each says the same")]
pub enum RecordRejectReason {
    #[error("a compacted topic takes no record without a key")]
    NoKey,
    #[error("offset delta {0} does not count up from 0")]
    OffsetDelta(i32),
    #[error("timestamp {timestamp} is not within [{earliest}, {latest}]")]
    Timestamp { timestamp: Timestamp, earliest: Timestamp, latest: Timestamp },
    #[error("the timestamp is out of range")]
    TimestampOverflow,
    #[error("a producer may not set the timestamp type to LogAppendTime")]
    LogAppendTime,
}

impl RecordRejectReason {
    fn error(self) -> ErrorCode {
        match self {
            RecordRejectReason::NoKey | RecordRejectReason::OffsetDelta(_) => ErrorCode::InvalidRecord,
            RecordRejectReason::Timestamp { .. }
            | RecordRejectReason::TimestampOverflow
            | RecordRejectReason::LogAppendTime => ErrorCode::InvalidTimestamp,
        }
    }
}

/// Judges the records field of one partition of a Produce request of `version`.
///
/// Whether the batch is transactional is the header's to say and the caller's to judge. A compressed batch is opened
/// here, so past some size this is work for a job, not for a lane.
pub fn validate_produced(
    records: &[u8],
    version: i16,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<ProducedBatch, BatchReject> {
    let header = check_request(records, version)?;
    check_bytes(records, &header, rules)?;
    check_header(&header)?;
    let produced = check_records(records, header, rules, now)?;
    if records.len() > rules.segment_bytes {
        let reason = RejectReason::AboveSegment { bytes: records.len(), segment_bytes: rules.segment_bytes };
        return Err(reject(ErrorCode::RecordListTooLarge, reason));
    }
    Ok(produced)
}

fn reject(error: ErrorCode, reason: RejectReason) -> BatchReject {
    BatchReject { error, reason, records: Vec::new() }
}

/// One whole batch, of magic 2, and not zstd in a version before it.
fn check_request(records: &[u8], version: i16) -> Result<BatchHeader, BatchReject> {
    let invalid = |reason| Err(reject(ErrorCode::InvalidRecord, reason));
    let corrupt = |reason| Err(reject(ErrorCode::CorruptMessage, reason));
    if records.len() < PREFIX_BYTES + 5 {
        return invalid(RejectReason::NoBatch);
    }
    let length = i32::from_be_bytes([records[8], records[9], records[10], records[11]]);
    let magic = records[16] as i8;
    if length < LEGACY_LENGTH_MIN {
        return corrupt(RejectReason::Length(length));
    }
    match magic {
        MAGIC => {}
        0 | 1 => return invalid(RejectReason::Magic(magic)),
        _ => return corrupt(RejectReason::Magic(magic)),
    }
    if length < (HEADER_BYTES - PREFIX_BYTES) as i32 {
        return corrupt(RejectReason::Length(length));
    }
    let Ok(header) = BatchHeader::read(records) else { return invalid(RejectReason::NoBatch) };
    match header.compression() {
        Some(Compression::Zstd) if version < 7 => {
            return Err(reject(ErrorCode::UnsupportedCompressionType, RejectReason::ZstdTooEarly));
        }
        // An unknown codec may be damage, which the checksum tells.
        _ => {}
    }
    if header.batch_bytes != records.len() {
        return invalid(RejectReason::SeveralBatches);
    }
    Ok(header)
}

/// Base offset, size and checksum.
fn check_bytes(batch: &[u8], header: &BatchHeader, rules: &BatchRules) -> Result<(), BatchReject> {
    if header.base_offset.0 != 0 {
        return Err(reject(ErrorCode::InvalidRecord, RejectReason::BaseOffset(header.base_offset.0)));
    }
    if batch.len() > rules.message_bytes_max {
        let reason = RejectReason::TooLarge { bytes: batch.len(), max: rules.message_bytes_max };
        return Err(reject(ErrorCode::MessageTooLarge, reason));
    }
    if !header::crc_matches(batch) {
        return Err(reject(ErrorCode::CorruptMessage, RejectReason::Crc));
    }
    if header.compression().is_none() {
        return Err(reject(ErrorCode::UnsupportedCompressionType, RejectReason::UnknownCodec));
    }
    Ok(())
}

/// What the header says about itself.
fn check_header(header: &BatchHeader) -> Result<(), BatchReject> {
    let BatchHeader { records_count: count, last_offset_delta, .. } = *header;
    let reason = if count <= 0 || last_offset_delta != count - 1 {
        RejectReason::Count { count, last_offset_delta }
    } else if header.is_control() {
        RejectReason::Control
    } else if header.has_delete_horizon() {
        RejectReason::DeleteHorizon
    } else if header.producer_id.0 >= 0 && header.base_sequence < 0 {
        RejectReason::Sequence { base_sequence: header.base_sequence, producer_id: header.producer_id }
    } else {
        return Ok(());
    };
    Err(reject(ErrorCode::InvalidRecord, reason))
}

/// Every record, decompressed if need be.
fn check_records(
    batch: &[u8],
    header: BatchHeader,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<ProducedBatch, BatchReject> {
    let section = open_records(batch, &header, rules.decompressed_bytes_max).map_err(|error| {
        let code = match error {
            // The Java producer splits its batch on this and tries again.
            CompressionError::TooLarge(_) => ErrorCode::MessageTooLarge,
            _ => ErrorCode::InvalidRecord,
        };
        reject(code, RejectReason::Compression(error))
    })?;
    let mut max_timestamp = Timestamp::NONE;
    let mut rejects = Vec::new();
    let mut rejected = 0;
    for (index, record) in (0..).zip(Records::new(&section, header.records_count)) {
        let record = record.map_err(|error| reject(ErrorCode::InvalidRecord, RejectReason::Record(error)))?;
        match check_record(index, &record, &header, rules, now) {
            Ok(timestamp) => max_timestamp = max_timestamp.max(timestamp),
            Err(reason) => {
                rejected += 1;
                if rejects.len() < RECORD_REJECTS_MAX {
                    rejects.push(RecordReject { index, reason });
                }
            }
        }
    }
    match rejects.first() {
        None => Ok(ProducedBatch { header, max_timestamp, records_bytes: section.len() }),
        Some(first) => {
            Err(BatchReject { error: first.reason.error(), reason: RejectReason::Records(rejected), records: rejects })
        }
    }
}

/// One record; returns its timestamp.
fn check_record(
    index: i32,
    record: &Record<'_>,
    header: &BatchHeader,
    rules: &BatchRules,
    now: Timestamp,
) -> Result<Timestamp, RecordRejectReason> {
    if rules.is_compacted && record.key.is_none() {
        return Err(RecordRejectReason::NoKey);
    }
    if record.offset_delta != index {
        return Err(RecordRejectReason::OffsetDelta(record.offset_delta));
    }
    if header.is_log_append_time() {
        return Err(RecordRejectReason::LogAppendTime);
    }
    let timestamp = header.base_timestamp.0.checked_add(record.timestamp_delta);
    let timestamp = Timestamp(timestamp.ok_or(RecordRejectReason::TimestampOverflow)?);
    if rules.timestamp_type == TimestampType::CreateTime && timestamp != Timestamp::NONE {
        let age_ms = now - timestamp;
        if age_ms > rules.timestamp_before_ms_max || age_ms.saturating_neg() > rules.timestamp_after_ms_max {
            return Err(RecordRejectReason::Timestamp {
                timestamp,
                earliest: Timestamp(now.0.saturating_sub(rules.timestamp_before_ms_max)),
                latest: Timestamp(now.0.saturating_add(rules.timestamp_after_ms_max)),
            });
        }
    }
    Ok(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord, crc_matches};
    use crate::{LeaderEpoch, Offset, ProducerEpoch};

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn builder(keys: &[Option<&[u8]>]) -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        for key in keys {
            builder.push(NewRecord::new(NOW, *key, Some(b"value")));
        }
        builder
    }

    fn batch() -> Vec<u8> {
        builder(&[Some(b"a"), None, Some(b"c")]).build().unwrap()
    }

    fn judge(records: &[u8], rules: &BatchRules) -> Result<ProducedBatch, BatchReject> {
        validate_produced(records, 9, rules, NOW)
    }

    fn refused(records: &[u8]) -> (ErrorCode, RejectReason) {
        let reject = judge(records, &BatchRules::default()).unwrap_err();
        (reject.error, reject.reason)
    }

    /// The batch with some header bytes changed and its CRC made right again.
    fn patched(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut batch = batch();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        header::renew_crc(&mut batch);
        batch
    }

    #[test]
    fn a_good_batch_passes_with_every_codec() {
        let plain = judge(&batch(), &BatchRules::default()).unwrap();
        assert_eq!((plain.header.records_count, plain.max_timestamp), (3, NOW));
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let packed = builder(&[Some(b"a"), None, Some(b"c")]).compressed(codec, None).build().unwrap();
            let produced = judge(&packed, &BatchRules::default()).unwrap();
            assert_eq!(produced.records_bytes, plain.records_bytes);
        }
    }

    #[test]
    fn exactly_one_whole_batch_of_magic_2_is_taken() {
        assert_eq!(refused(&[]), (ErrorCode::InvalidRecord, RejectReason::NoBatch));
        let whole = batch();
        assert_eq!(refused(&whole[..whole.len() - 1]), (ErrorCode::InvalidRecord, RejectReason::NoBatch));
        let two = [batch(), batch()].concat();
        assert_eq!(refused(&two), (ErrorCode::InvalidRecord, RejectReason::SeveralBatches));
        assert_eq!(refused(&patched(16, &[1])), (ErrorCode::InvalidRecord, RejectReason::Magic(1)));
        assert_eq!(refused(&patched(16, &[3])), (ErrorCode::CorruptMessage, RejectReason::Magic(3)));
        assert_eq!(refused(&patched(8, &13i32.to_be_bytes())), (ErrorCode::CorruptMessage, RejectReason::Length(13)));
    }

    #[test]
    fn zstd_needs_produce_7_and_unknown_codecs_are_unsupported_if_undamaged() {
        let zstd = builder(&[None]).compressed(Compression::Zstd, None).build().unwrap();
        let reject = validate_produced(&zstd, 6, &BatchRules::default(), NOW).unwrap_err();
        assert_eq!(reject.error, ErrorCode::UnsupportedCompressionType);
        assert!(validate_produced(&zstd, 7, &BatchRules::default(), NOW).is_ok());
        let unknown = (ErrorCode::UnsupportedCompressionType, RejectReason::UnknownCodec);
        assert_eq!(refused(&patched(21, &[0, 7])), unknown);
        let mut damaged = batch();
        damaged[22] = 7;
        assert_eq!(refused(&damaged), (ErrorCode::CorruptMessage, RejectReason::Crc));
    }

    #[test]
    fn size_is_judged_with_the_prefix_and_before_the_checksum() {
        let mut bytes = batch();
        let exact = BatchRules { message_bytes_max: bytes.len(), ..BatchRules::default() };
        assert!(judge(&bytes, &exact).is_ok());
        let below = BatchRules { message_bytes_max: bytes.len() - 1, ..BatchRules::default() };
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert_eq!(judge(&bytes, &below).unwrap_err().error, ErrorCode::MessageTooLarge);
        assert_eq!(refused(&bytes), (ErrorCode::CorruptMessage, RejectReason::Crc));
    }

    #[test]
    fn base_offset_is_judged_before_the_size() {
        let bytes = patched(0, &5i64.to_be_bytes());
        let rules = BatchRules { message_bytes_max: 1, ..BatchRules::default() };
        assert_eq!(judge(&bytes, &rules).unwrap_err().reason, RejectReason::BaseOffset(5));
    }

    #[test]
    fn the_header_must_agree_with_itself() {
        let count =
            |count, last_offset_delta| (ErrorCode::InvalidRecord, RejectReason::Count { count, last_offset_delta });
        assert_eq!(refused(&patched(57, &4i32.to_be_bytes())), count(4, 2));
        assert_eq!(refused(&patched(23, &7i32.to_be_bytes())), count(3, 7));
        assert_eq!(refused(&patched(57, &0i32.to_be_bytes())), count(0, 2));
        assert_eq!(refused(&patched(57, &i32::MIN.to_be_bytes())), count(i32::MIN, 2));
        assert_eq!(refused(&patched(21, &[0, 0x20])), (ErrorCode::InvalidRecord, RejectReason::Control));
        assert_eq!(refused(&patched(21, &[0, 0x40])), (ErrorCode::InvalidRecord, RejectReason::DeleteHorizon));
        let sequence = RejectReason::Sequence { base_sequence: -1, producer_id: ProducerId(8) };
        assert_eq!(refused(&patched(43, &8i64.to_be_bytes())), (ErrorCode::InvalidRecord, sequence));
    }

    #[test]
    fn a_count_that_the_records_do_not_meet_is_refused() {
        let mut bytes = patched(57, &2i32.to_be_bytes());
        bytes[23..27].copy_from_slice(&1i32.to_be_bytes());
        header::renew_crc(&mut bytes);
        let (error, reason) = refused(&bytes);
        assert_eq!(error, ErrorCode::InvalidRecord);
        assert!(matches!(reason, RejectReason::Record(RecordError::Trailing(_))));
    }

    #[test]
    fn a_compacted_topic_lists_the_records_without_key() {
        let rules = BatchRules { is_compacted: true, ..BatchRules::default() };
        let bytes = builder(&[Some(b"a"), None, Some(b""), None]).build().unwrap();
        let reject = judge(&bytes, &rules).unwrap_err();
        let no_key = |index| RecordReject { index, reason: RecordRejectReason::NoKey };
        assert_eq!((reject.error, &reject.reason), (ErrorCode::InvalidRecord, &RejectReason::Records(2)));
        assert_eq!(reject.records, [no_key(1), no_key(3)]);
    }

    #[test]
    fn timestamps_must_lie_between_the_bounds_but_none_is_free() {
        let at = |timestamp_ms: i64| {
            let mut builder = BatchBuilder::new();
            builder.push(NewRecord::new(Timestamp(timestamp_ms), None, None));
            builder.build().unwrap()
        };
        let rules = BatchRules { timestamp_before_ms_max: 1000, timestamp_after_ms_max: 2000, ..BatchRules::default() };
        for inside in [NOW.0 - 1000, NOW.0 + 2000, -1] {
            assert!(judge(&at(inside), &rules).is_ok(), "{inside}");
        }
        for outside in [NOW.0 - 1001, NOW.0 + 2001, i64::MAX, i64::MIN] {
            assert_eq!(judge(&at(outside), &rules).unwrap_err().error, ErrorCode::InvalidTimestamp, "{outside}");
        }
        let stamped_by_us = BatchRules { timestamp_type: TimestampType::LogAppendTime, ..rules };
        assert!(judge(&at(5), &stamped_by_us).is_ok());
    }

    #[test]
    fn a_client_may_not_claim_log_append_time() {
        let reject = judge(&patched(21, &[0, 8]), &BatchRules::default()).unwrap_err();
        assert_eq!(reject.error, ErrorCode::InvalidTimestamp);
        assert_eq!(reject.records.len(), 3);
    }

    #[test]
    fn a_timestamp_that_overflows_is_refused() {
        let mut builder = BatchBuilder::new();
        builder.push(NewRecord::new(Timestamp(0), None, None));
        builder.push(NewRecord::new(Timestamp(10), None, None));
        let mut bytes = builder.build().unwrap();
        bytes[27..35].copy_from_slice(&(i64::MAX - 5).to_be_bytes());
        header::renew_crc(&mut bytes);
        let rules = BatchRules { timestamp_after_ms_max: i64::MAX, ..BatchRules::default() };
        let reject = judge(&bytes, &rules).unwrap_err();
        assert_eq!(reject.records, [RecordReject { index: 1, reason: RecordRejectReason::TimestampOverflow }]);
    }

    #[test]
    fn offsets_that_do_not_count_up_are_refused() {
        let mut builder = BatchBuilder::new();
        builder.push_at(0, NewRecord::new(NOW, None, None));
        builder.push_at(2, NewRecord::new(NOW, None, None));
        let mut bytes = builder.build().unwrap();
        bytes[23..27].copy_from_slice(&1i32.to_be_bytes());
        header::renew_crc(&mut bytes);
        let reject = judge(&bytes, &BatchRules::default()).unwrap_err();
        assert_eq!(reject.records, [RecordReject { index: 1, reason: RecordRejectReason::OffsetDelta(2) }]);
    }

    #[test]
    fn a_bomb_is_too_large_and_a_segment_bounds_a_batch() {
        let mut bomb = BatchBuilder::new().compressed(Compression::Zstd, None);
        bomb.push(NewRecord::new(NOW, None, Some(&vec![0; 1 << 20])));
        let bomb = bomb.build().unwrap();
        assert!(bomb.len() < 1000);
        let rules = BatchRules { decompressed_bytes_max: 1 << 20, ..BatchRules::default() };
        assert_eq!(judge(&bomb, &rules).unwrap_err().error, ErrorCode::MessageTooLarge);
        let rules = BatchRules { segment_bytes: 50, ..BatchRules::default() };
        assert_eq!(judge(&batch(), &rules).unwrap_err().error, ErrorCode::RecordListTooLarge);
    }

    #[test]
    fn rejected_records_are_listed_up_to_the_limit_and_counted_beyond() {
        let rules = BatchRules { is_compacted: true, ..BatchRules::default() };
        let reject = judge(&builder(&[None; 1500]).build().unwrap(), &rules).unwrap_err();
        assert_eq!((reject.records.len(), reject.reason), (RECORD_REJECTS_MAX, RejectReason::Records(1500)));
    }

    #[test]
    fn stamping_corrects_the_header_and_its_checksum() {
        let mut bytes = patched(35, &77i64.to_be_bytes());
        let produced = judge(&bytes, &BatchRules::default()).unwrap();
        produced.stamp(&mut bytes, TimestampType::CreateTime, NOW);
        assert!(crc_matches(&bytes));
        assert_eq!(BatchHeader::read(&bytes).unwrap().max_timestamp, NOW);

        produced.stamp(&mut bytes, TimestampType::LogAppendTime, Timestamp(42));
        header::patch_offset_and_epoch(&mut bytes, Offset(900), LeaderEpoch(4));
        let stamped = BatchHeader::read(&bytes).unwrap();
        assert!(crc_matches(&bytes) && stamped.is_log_append_time());
        assert_eq!((stamped.max_timestamp, stamped.last_offset()), (Timestamp(42), Offset(902)));
    }

    #[test]
    fn a_transactional_batch_passes_and_says_so() {
        let bytes = builder(&[None]).by_producer(ProducerId(1), ProducerEpoch(0), 0).transactional().build().unwrap();
        assert!(judge(&bytes, &BatchRules::default()).unwrap().header.is_transactional());
    }
}
