//! The 61-byte header of a record batch, read in place.
//!
//! ```text
//!  0 base_offset i64 | 8 batch_length i32 | 12 leader_epoch i32 | 16 magic i8 | 17 crc u32
//! 21 attributes i16 | 23 last_offset_delta i32 | 27 base_timestamp i64 | 35 max_timestamp i64
//! 43 producer_id i64 | 51 producer_epoch i16 | 53 base_sequence i32 | 57 records_count i32 | 61 records…
//! ```
//!
//! `batch_length` counts the bytes after itself (from 12). The CRC-32C covers from `attributes` (21) to the end, so
//! `base_offset` and `leader_epoch` can be patched in place by the leader.
//! Source: `org.apache.kafka.common.record.DefaultRecordBatch`.

use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes of `base_offset` and `batch_length`, which `batch_length` does not count.
pub const PREFIX_BYTES: usize = 12;
/// The only magic that is stored or served.
pub const MAGIC: i8 = 2;

const LEADER_EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
pub(super) const ATTRIBUTES_AT: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

const LOG_APPEND_TIME_FLAG: i16 = 0x08;
pub(super) const TRANSACTIONAL_FLAG: i16 = 0x10;
pub(super) const CONTROL_FLAG: i16 = 0x20;
pub(super) const DELETE_HORIZON_FLAG: i16 = 0x40;

/// Codec of a batch's records, from the lowest three attribute bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Records lie as they are.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy, raw or in xerial framing.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Reads the codec from attribute bits; `None` for the three unassigned values.
    pub fn from_attributes(attributes: i16) -> Option<Compression> {
        Some(match attributes & 0x07 {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }

    /// The attribute bits of this codec.
    pub fn attribute_bits(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

/// Why bytes are not the start of a whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than a header, or than `batch_length` says.
    Short,
    /// `batch_length` is below what a header needs.
    Length(i32),
    /// The magic byte is not 2.
    Magic(i8),
}

/// The fields of one batch header, copied out of its bytes.
///
/// Reading one proves only that the bytes are long enough and the magic is 2; [`crc_matches`] proves the rest intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Whole batch including the 12-byte prefix, in bytes.
    pub batch_bytes: usize,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Codec, timestamp type, transactional, control and delete-horizon bits.
    pub attributes: i16,
    /// `last_offset - base_offset`; compaction keeps it, so it may exceed `records_count - 1`.
    pub last_offset_delta: i32,
    /// What record timestamp deltas are relative to (or the delete horizon, with attribute bit 6).
    pub base_timestamp: Timestamp,
    /// Largest record timestamp.
    pub max_timestamp: Timestamp,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// The first record's sequence number; -1 without a producer.
    pub base_sequence: i32,
    /// Records in the batch.
    pub records_count: i32,
}

impl BatchHeader {
    /// Reads the header of the batch that `bytes` begins with. The batch lies whole in `bytes[..batch_bytes]`.
    pub fn read(bytes: &[u8]) -> Result<BatchHeader, HeaderError> {
        let header = Self::read_without_records(bytes)?;
        if header.batch_bytes > bytes.len() {
            return Err(HeaderError::Short);
        }
        Ok(header)
    }

    /// Like [`BatchHeader::read`], but the records need not be there: `batch_bytes` may exceed `bytes`.
    pub fn read_without_records(bytes: &[u8]) -> Result<BatchHeader, HeaderError> {
        if bytes.len() < HEADER_BYTES {
            return Err(HeaderError::Short);
        }
        let batch_length = i32_at(bytes, 8);
        if batch_length < (HEADER_BYTES - PREFIX_BYTES) as i32 {
            return Err(HeaderError::Length(batch_length));
        }
        let magic = bytes[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        Ok(BatchHeader {
            base_offset: Offset(i64_at(bytes, 0)),
            batch_bytes: PREFIX_BYTES + batch_length as usize,
            leader_epoch: LeaderEpoch(i32_at(bytes, LEADER_EPOCH_AT)),
            crc: i32_at(bytes, CRC_AT) as u32,
            attributes: i16_at(bytes, ATTRIBUTES_AT),
            last_offset_delta: i32_at(bytes, 23),
            base_timestamp: Timestamp(i64_at(bytes, 27)),
            max_timestamp: Timestamp(i64_at(bytes, 35)),
            producer_id: ProducerId(i64_at(bytes, 43)),
            producer_epoch: ProducerEpoch(i16_at(bytes, 51)),
            base_sequence: i32_at(bytes, 53),
            records_count: i32_at(bytes, 57),
        })
    }

    /// Offset of the last record. A hostile or damaged header cannot overflow it.
    pub fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// The codec, or `None` for an unassigned one.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_attributes(self.attributes)
    }

    /// Whether the broker, not the producer, stamped the records (`LogAppendTime`).
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_FLAG != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_FLAG != 0
    }

    /// Whether the batch holds control records (transaction markers), which clients never see.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_FLAG != 0
    }

    /// Whether `base_timestamp` is a delete horizon (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_FLAG != 0
    }

    /// The last record's sequence number; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 { -1 } else { add_sequence(self.base_sequence, self.last_offset_delta) }
    }
}

/// `sequence + increment`, wrapping from `i32::MAX` to 0 (`DefaultRecordBatch.incrementSequence`).
pub fn add_sequence(sequence: i32, increment: i32) -> i32 {
    ((i64::from(sequence) + i64::from(increment)) & i64::from(i32::MAX)) as i32
}

/// Whether the stored CRC is that of the bytes. `batch` is exactly one whole batch.
pub fn crc_matches(batch: &[u8]) -> bool {
    batch.len() >= HEADER_BYTES && crc32c::crc32c(&batch[ATTRIBUTES_AT..]) == i32_at(batch, CRC_AT) as u32
}

/// Writes what only the leader knows. Outside the CRC, which stays valid.
pub fn patch_offset_and_epoch(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    batch[..8].copy_from_slice(&base_offset.0.to_be_bytes());
    batch[LEADER_EPOCH_AT..LEADER_EPOCH_AT + 4].copy_from_slice(&leader_epoch.0.to_be_bytes());
}

/// Stamps the batch with the broker's time (`LogAppendTime`) and renews the CRC.
pub fn patch_log_append_time(batch: &mut [u8], now: Timestamp) {
    let attributes = i16_at(batch, ATTRIBUTES_AT) | LOG_APPEND_TIME_FLAG;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    patch_max_timestamp(batch, now);
}

/// Corrects the largest timestamp to what the records say, and renews the CRC.
pub fn patch_max_timestamp(batch: &mut [u8], max_timestamp: Timestamp) {
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&max_timestamp.0.to_be_bytes());
    renew_crc(batch);
}

/// Writes the CRC of the bytes as they are. `batch` is exactly one whole batch.
pub(super) fn renew_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    (i64::from(i32_at(bytes, at)) << 32) | i64::from(i32_at(bytes, at + 4) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord};

    fn batch() -> Vec<u8> {
        let mut builder = BatchBuilder::new().by_producer(ProducerId(7), ProducerEpoch(1), i32::MAX);
        builder.push(NewRecord::new(Timestamp(5), None, Some(b"one")));
        builder.push(NewRecord::new(Timestamp(6), None, Some(b"two")));
        builder.build().unwrap()
    }

    #[test]
    fn sequences_wrap_from_the_largest_to_zero() {
        assert_eq!(add_sequence(5, 3), 8);
        assert_eq!(add_sequence(i32::MAX, 0), i32::MAX);
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 5), 3);
        assert_eq!(BatchHeader::read(&batch()).unwrap().last_sequence(), 0);
    }

    #[test]
    fn hostile_offsets_and_sequences_do_not_overflow() {
        let header = BatchHeader::read(&batch()).unwrap();
        for last_offset_delta in [i32::MIN, -1, i32::MAX] {
            for base_offset in [Offset(i64::MIN), Offset(i64::MAX)] {
                let hostile = BatchHeader { base_offset, last_offset_delta, ..header };
                assert!(hostile.next_offset() >= hostile.last_offset());
                assert!(hostile.last_sequence() >= 0);
            }
        }
    }

    #[test]
    fn offset_and_epoch_are_patched_outside_the_checksum() {
        let mut batch = batch();
        patch_offset_and_epoch(&mut batch, Offset(900), LeaderEpoch(4));
        let header = BatchHeader::read(&batch).unwrap();
        assert!(crc_matches(&batch));
        assert_eq!(
            (header.base_offset, header.leader_epoch, header.next_offset()),
            (Offset(900), LeaderEpoch(4), Offset(902))
        );
        batch[ATTRIBUTES_AT] ^= 1;
        assert!(!crc_matches(&batch));
    }

    #[test]
    fn bytes_that_are_no_whole_batch_are_told_apart() {
        let whole = batch();
        assert_eq!(BatchHeader::read(&whole[..HEADER_BYTES - 1]), Err(HeaderError::Short));
        assert_eq!(BatchHeader::read(&whole[..whole.len() - 1]), Err(HeaderError::Short));
        assert!(BatchHeader::read_without_records(&whole[..HEADER_BYTES]).is_ok());
        let mut old = whole.clone();
        old[MAGIC_AT] = 1;
        assert_eq!(BatchHeader::read(&old), Err(HeaderError::Magic(1)));
        let mut negative = whole;
        negative[8..12].copy_from_slice(&(-5i32).to_be_bytes());
        assert_eq!(BatchHeader::read(&negative), Err(HeaderError::Length(-5)));
    }
}
