//! Keeps some records of a batch and drops the rest, as compaction does.
//!
//! What identifies the batch stays: base and last offset, leader epoch, producer, sequence, timestamp type, codec. A
//! batch with tombstones, or with a marker whose transaction has no data any more, gets a *delete horizon* (KIP-534): the
//! time from which on they may go. It takes the place of the base timestamp, with attribute bit 6, and the records' deltas
//! are counted from it, so that whoever adds delta and base reads the same times as before.
//! Source: `MemoryRecords.filterTo`, `DefaultRecordBatch.writeEmptyHeader`.

use thiserror::Error;

use super::build::put_blob;
use super::compression::{self, CompressionError, open_records};
use super::header::{self, ATTRIBUTES_AT, BatchHeader, Compression, DELETE_HORIZON_FLAG, HEADER_BYTES, PREFIX_BYTES};
use super::records::{Record, RecordError, Records};
use crate::{Timestamp, varint};

/// What a batch became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Every record is kept and nothing else changes: the bytes as they were.
    Unchanged,
    /// Some records are kept, or all and a delete horizon was set: the new bytes.
    Rewritten(Vec<u8>),
    /// No record is kept.
    Nothing,
}

/// Why a batch could not be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RetainError {
    /// Its records do not decompress, or the rest does not compress.
    #[error("its records cannot be decompressed or compressed")]
    Compression,
    /// A record is malformed.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<CompressionError> for RetainError {
    fn from(_: CompressionError) -> RetainError {
        RetainError::Compression
    }
}

/// Keeps the records for which `keep` says so. `batch` is one whole batch whose CRC was checked; `bytes_max` bounds what
/// it may open to. A batch with a null value among what is kept, or with `is_empty_marker`, gets `delete_horizon` unless
/// it has one.
pub fn retain_records(
    batch: &[u8],
    header: &BatchHeader,
    bytes_max: usize,
    delete_horizon: Timestamp,
    is_empty_marker: bool,
    mut keep: impl FnMut(&Record<'_>) -> bool,
) -> Result<Retained, RetainError> {
    let section = open_records(batch, header, bytes_max)?;
    let mut kept = Vec::with_capacity(usize::try_from(header.records_count).unwrap_or(0).min(section.len()));
    let mut wants_horizon = is_empty_marker;
    for record in Records::new(&section, header.records_count) {
        let record = record?;
        if keep(&record) {
            wants_horizon |= record.value.is_none();
            kept.push(record);
        }
    }
    if kept.is_empty() {
        return Ok(Retained::Nothing);
    }
    let sets_horizon = wants_horizon && !header.has_delete_horizon();
    if kept.len() == usize::try_from(header.records_count).unwrap_or(0) && !sets_horizon {
        return Ok(Retained::Unchanged);
    }
    let base = if sets_horizon { delete_horizon } else { header.base_timestamp };
    let mut records = Vec::with_capacity(section.len());
    let mut max_timestamp = Timestamp::NONE;
    for record in &kept {
        let timestamp = match header.is_log_append_time() {
            true => header.max_timestamp,
            false => Timestamp(header.base_timestamp.0.wrapping_add(record.timestamp_delta)),
        };
        max_timestamp = max_timestamp.max(timestamp);
        put_record(&mut records, record, timestamp.0.wrapping_sub(base.0));
    }
    if header.is_log_append_time() {
        max_timestamp = header.max_timestamp;
    }
    let packed = match header.compression().ok_or(RetainError::Compression)? {
        Compression::None => records,
        codec => compression::compress(codec, &records, None)?,
    };
    let attributes = header.attributes | if sets_horizon { DELETE_HORIZON_FLAG } else { 0 };
    write(batch, &packed, attributes, base, max_timestamp, kept.len()).map(Retained::Rewritten)
}

/// The batch without its records: what it says of offsets, epochs and its producer's sequence stays.
pub fn empty_batch(batch: &[u8], header: &BatchHeader) -> Vec<u8> {
    let attributes = header.attributes & !(0x07 | DELETE_HORIZON_FLAG);
    write(batch, &[], attributes, Timestamp::NONE, header.max_timestamp, 0).expect("a header alone is not too long")
}

fn write(
    original: &[u8],
    records: &[u8],
    attributes: i16,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    count: usize,
) -> Result<Vec<u8>, RetainError> {
    let mut out = Vec::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&original[..HEADER_BYTES]);
    out.extend_from_slice(records);
    let batch_length = i32::try_from(out.len() - PREFIX_BYTES).map_err(|_| RetainError::Compression)?;
    let count = i32::try_from(count).expect("no more records than the batch had");
    out[8..PREFIX_BYTES].copy_from_slice(&batch_length.to_be_bytes());
    out[ATTRIBUTES_AT..23].copy_from_slice(&attributes.to_be_bytes());
    out[27..35].copy_from_slice(&base_timestamp.0.to_be_bytes());
    out[35..43].copy_from_slice(&max_timestamp.0.to_be_bytes());
    out[57..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
    header::renew_crc(&mut out);
    Ok(out)
}

fn put_record(out: &mut Vec<u8>, record: &Record<'_>, timestamp_delta: i64) {
    let mut body = Vec::with_capacity(32 + record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len));
    body.push(record.attributes as u8);
    varint::put_i64(&mut body, timestamp_delta);
    varint::put_i64(&mut body, i64::from(record.offset_delta));
    put_blob(&mut body, record.key);
    put_blob(&mut body, record.value);
    varint::put_i64(&mut body, record.headers.len() as i64);
    for header in record.headers {
        put_blob(&mut body, Some(header.key));
        put_blob(&mut body, header.value);
    }
    varint::put_i64(out, body.len() as i64);
    out.extend_from_slice(&body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord, crc_matches};
    use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    const CODECS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
    const HORIZON: Timestamp = Timestamp(9_000);

    fn batch(codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new()
            .compressed(codec, None)
            .by_producer(ProducerId(9), ProducerEpoch(1), 40)
            .at(Offset(100), LeaderEpoch(7));
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"same", Some(b"1")), (b"same", Some(b"2"))];
        builder.push(NewRecord { timestamp: Timestamp(50), key: Some(b"a"), value: Some(&[3; 500]), headers });
        builder.push(NewRecord::new(Timestamp(20), Some(b"b"), None));
        builder.push(NewRecord::new(Timestamp(70), Some(b"c"), Some(b"")));
        builder.build().unwrap()
    }

    /// Offset, timestamp, key, value and number of headers of each record.
    type Seen = (i64, i64, Vec<u8>, Option<Vec<u8>>, usize);

    fn seen(batch: &[u8]) -> Vec<Seen> {
        let header = BatchHeader::read(batch).unwrap();
        assert!(crc_matches(batch) && header.batch_bytes == batch.len());
        let section = open_records(batch, &header, 100_000).unwrap();
        Records::new(&section, header.records_count)
            .map(|record| {
                let record = record.unwrap();
                let time = header.base_timestamp.0 + record.timestamp_delta;
                let offset = header.base_offset.0 + i64::from(record.offset_delta);
                (offset, time, record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec), record.headers.len())
            })
            .collect()
    }

    fn retain(batch: &[u8], is_empty_marker: bool, keep: impl FnMut(&Record<'_>) -> bool) -> Retained {
        let header = BatchHeader::read(batch).unwrap();
        retain_records(batch, &header, 100_000, HORIZON, is_empty_marker, keep).unwrap()
    }

    #[test]
    fn what_is_kept_keeps_offset_time_and_headers_in_every_codec() {
        for codec in CODECS {
            let source = batch(codec);
            let Retained::Rewritten(kept) = retain(&source, false, |record| record.key != Some(b"b")) else {
                panic!("one record is dropped")
            };
            let (before, after) = (seen(&source), seen(&kept));
            assert_eq!(after, [before[0].clone(), before[2].clone()], "{codec:?}");
            let (old, new) = (BatchHeader::read(&source).unwrap(), BatchHeader::read(&kept).unwrap());
            let same = BatchHeader { batch_bytes: new.batch_bytes, crc: new.crc, records_count: 2, ..old };
            assert_eq!(new, same, "{codec:?}: nothing else changes");
        }
    }

    #[test]
    fn a_kept_tombstone_gets_a_delete_horizon_once_and_no_time_changes() {
        let source = batch(Compression::Lz4);
        let Retained::Rewritten(marked) = retain(&source, false, |_| true) else { panic!("a horizon is set") };
        let header = BatchHeader::read(&marked).unwrap();
        assert_eq!((header.has_delete_horizon(), header.base_timestamp), (true, HORIZON));
        assert_eq!(header.max_timestamp, Timestamp(70));
        assert_eq!(seen(&marked), seen(&source));
        let again = retain_records(&marked, &header, 100_000, Timestamp(99_000), false, |_| true).unwrap();
        assert_eq!(again, Retained::Unchanged, "the first horizon counts");
        let Retained::Rewritten(fewer) = retain(&marked, false, |record| record.value.is_none()) else { panic!() };
        assert_eq!(BatchHeader::read(&fewer).unwrap().base_timestamp, HORIZON);
        assert_eq!(seen(&fewer), seen(&source)[1..2]);
    }

    #[test]
    fn a_batch_without_tombstones_that_loses_nothing_is_unchanged() {
        let source = batch(Compression::Zstd);
        let Retained::Rewritten(values) = retain(&source, false, |record| record.value.is_some()) else { panic!() };
        assert_eq!(retain(&values, false, |_| true), Retained::Unchanged);
        assert!(matches!(retain(&values, true, |_| true), Retained::Rewritten(_)), "a marker of nothing");
        assert_eq!(retain(&values, false, |_| false), Retained::Nothing);
    }

    #[test]
    fn an_empty_batch_keeps_offsets_and_sequence() {
        for codec in CODECS {
            let source = batch(codec);
            let old = BatchHeader::read(&source).unwrap();
            let empty = empty_batch(&source, &old);
            let new = BatchHeader::read(&empty).unwrap();
            assert!(crc_matches(&empty));
            assert_eq!((empty.len(), new.records_count, new.compression()), (HEADER_BYTES, 0, Some(Compression::None)));
            assert_eq!((new.base_offset, new.next_offset()), (old.base_offset, old.next_offset()));
            assert_eq!((new.producer_id, new.base_sequence, new.last_sequence()), (ProducerId(9), 40, 42));
        }
    }

    #[test]
    fn broker_stamped_records_keep_the_brokers_time() {
        let mut source = batch(Compression::None);
        header::patch_log_append_time(&mut source, Timestamp(5_000));
        let Retained::Rewritten(kept) = retain(&source, false, |record| record.key == Some(b"a")) else { panic!() };
        let header = BatchHeader::read(&kept).unwrap();
        assert_eq!((header.is_log_append_time(), header.max_timestamp), (true, Timestamp(5_000)));
    }
}
