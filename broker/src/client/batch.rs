//! Records as this client holds them, and their way into and out of batches.

use bytes::Bytes;
use stonelog_protocol::batch::{self, BatchBuilder, BatchHeader, Batches, Compression, Records};
use stonelog_protocol::{ProducerEpoch, ProducerId, Timestamp};

use super::error::Error;

/// Largest decompressed batch that is read, in bytes. Brokers take batches of 1 MiB unless told otherwise.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Header keys and values, in order; keys may repeat.
pub type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value; `None` deletes the key from a compacted topic.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl NewRecord {
    /// Bytes the record takes in a batch, about.
    pub fn bytes(&self) -> usize {
        let blob = |blob: &Option<Bytes>| blob.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len) + 4);
        blob(&self.key) + blob(&self.value) + headers.sum::<usize>() + 16
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The key, if any.
    pub key: Option<Bytes>,
    /// The value, if any.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

/// Whose batch it is and where in the producer's sequence.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    /// From InitProducerId.
    pub producer_id: i64,
    /// From InitProducerId.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub first: i32,
}

/// Makes one batch of `records`.
pub fn encode_records(
    records: &[NewRecord],
    compression: Compression,
    sequence: Option<Sequence>,
) -> Result<Bytes, BatchError> {
    let mut builder = BatchBuilder::new().compressed(compression, None);
    if let Some(Sequence { producer_id, producer_epoch, first }) = sequence {
        builder = builder.by_producer(ProducerId(producer_id), ProducerEpoch(producer_epoch), first);
    }
    for record in records {
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
        builder.push(batch::NewRecord {
            timestamp: Timestamp(record.timestamp_ms),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().map(Bytes::from).map_err(|error| BatchError(format!("the records cannot be compressed: {error}")))
}

/// What a run of batches holds from an offset on.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The records, control records left out.
    pub records: Vec<Record>,
    /// The offset to read from next.
    pub next_offset: i64,
}

/// Reads the records at or after `from` out of a run of batches, checking every batch's checksum.
pub fn decode_records(bytes: Bytes, from: i64) -> Result<Decoded, BatchError> {
    let mut decoded = Decoded { records: Vec::new(), next_offset: from };
    for found in Batches::new(&bytes) {
        let (header, batch) = found.map_err(|error| BatchError(format!("this is no record batch: {error:?}")))?;
        if header.next_offset().0 <= decoded.next_offset {
            continue;
        }
        if !batch::crc_matches(batch) {
            return Err(BatchError(format!("the batch at offset {} fails its checksum", header.base_offset)));
        }
        if !header.is_control() {
            decode_batch(&header, batch, &mut decoded)?;
        }
        decoded.next_offset = header.next_offset().0;
    }
    Ok(decoded)
}

fn decode_batch(header: &BatchHeader, batch: &[u8], decoded: &mut Decoded) -> Result<(), BatchError> {
    let wrong = |what: String| BatchError(format!("the batch at offset {} cannot be read: {what}", header.base_offset));
    let section = batch::open_records(batch, header, BATCH_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    for record in Records::new(&section, header.records_count) {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        let offset = header.base_offset.0 + i64::from(record.offset_delta);
        if offset < decoded.next_offset {
            continue;
        }
        let timestamp = if header.is_log_append_time() {
            header.max_timestamp.0
        } else {
            header.base_timestamp.0.saturating_add(record.timestamp_delta)
        };
        decoded.records.push(Record {
            offset,
            timestamp_ms: timestamp,
            key: record.key.map(Bytes::copy_from_slice),
            value: record.value.map(Bytes::copy_from_slice),
            headers: record.headers.map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec))).collect(),
        });
    }
    Ok(())
}

/// Why a batch could not be made or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError(String);

impl BatchError {
    /// The same, with where it was.
    pub fn at(self, topic: &str, partition: i32, offset: i64) -> Error {
        Error::Corrupt { topic: topic.to_owned(), partition, offset, reason: self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: &str) -> NewRecord {
        NewRecord {
            timestamp_ms: 1_000,
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: vec![(b"h".to_vec(), None), (b"h".to_vec(), Some(b"2".to_vec()))],
        }
    }

    #[test]
    fn records_read_back_with_headers_that_repeat() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let bytes = encode_records(&[record("a"), record("b")], compression, None).unwrap();
            let decoded = decode_records(bytes, 0).unwrap();
            assert_eq!(decoded.next_offset, 2);
            let read = &decoded.records[1];
            assert_eq!((read.offset, read.value.as_deref()), (1, Some(&b"b"[..])));
            assert_eq!(read.headers, record("b").headers);
        }
    }

    #[test]
    fn records_before_the_position_are_left_out() {
        let bytes = encode_records(&[record("a"), record("b"), record("c")], Compression::None, None).unwrap();
        let decoded = decode_records(bytes.clone(), 2).unwrap();
        assert_eq!(decoded.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [2]);
        let decoded = decode_records(bytes, 3).unwrap();
        assert!(decoded.records.is_empty());
        assert_eq!(decoded.next_offset, 3);
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let bytes = encode_records(&[record("a")], Compression::None, None).unwrap();
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(decode_records(damaged.into(), 0).is_err());
    }
}
