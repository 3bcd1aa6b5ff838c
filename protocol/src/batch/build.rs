//! Makes whole batches: coordinators' records, the command line's producer, tests.
//!
//! A batch made here begins at base offset 0 with leader epoch -1; the leader patches both in place. Produce traffic is
//! never rebuilt with this.

use super::compression::{self, CompressionError};
use super::header::{self, ATTRIBUTES_AT, Compression, HEADER_BYTES, MAGIC, PREFIX_BYTES};
use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp, varint};

/// A record to put into a batch.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// When it happened.
    pub timestamp: Timestamp,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, in order; keys are UTF-8 by convention and may repeat.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

impl<'a> NewRecord<'a> {
    /// A record without headers.
    pub fn new(timestamp: Timestamp, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> NewRecord<'a> {
        NewRecord { timestamp, key, value, headers: &[] }
    }
}

/// Collects records and writes them as one batch of magic 2.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    records: Vec<u8>,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    compression: Compression,
    level: Option<i32>,
    flags: i16,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An uncompressed batch of no producer, with nothing in it.
    pub fn new() -> BatchBuilder {
        BatchBuilder {
            records: Vec::new(),
            count: 0,
            last_offset_delta: -1,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            compression: Compression::None,
            level: None,
            flags: 0,
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: -1,
        }
    }

    /// Compresses the records; `level` is the codec's own scale, `None` its default.
    #[must_use]
    pub fn compressed(mut self, compression: Compression, level: Option<i32>) -> BatchBuilder {
        self.compression = compression;
        self.level = level;
        self
    }

    /// Names the idempotent producer and the sequence number of the first record.
    #[must_use]
    pub fn by_producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> BatchBuilder {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> BatchBuilder {
        self.flags |= header::TRANSACTIONAL_FLAG;
        self
    }

    /// Makes the batch a control batch, whose records clients never see.
    #[must_use]
    pub fn control(mut self) -> BatchBuilder {
        self.flags |= header::CONTROL_FLAG;
        self
    }

    /// Puts the batch at an offset already known, under a leader epoch.
    #[must_use]
    pub fn at(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> BatchBuilder {
        self.base_offset = base_offset;
        self.leader_epoch = leader_epoch;
        self
    }

    /// Adds a record at the next offset. Its timestamp may lie before the first one's.
    pub fn push(&mut self, record: NewRecord<'_>) {
        self.push_at(self.last_offset_delta + 1, record);
    }

    /// Adds a record at `offset_delta` after the batch's base offset, leaving a gap as compaction does.
    pub fn push_at(&mut self, offset_delta: i32, record: NewRecord<'_>) {
        assert!(offset_delta > self.last_offset_delta, "offsets in a batch rise");
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let timestamp_delta = record.timestamp - self.base_timestamp;
        let mut length = 1 + varint::length_i64(timestamp_delta) + varint::length_i64(i64::from(offset_delta));
        length += blob_bytes(record.key) + blob_bytes(record.value);
        length += varint::length_i64(record.headers.len() as i64);
        length += record.headers.iter().map(|(key, value)| blob_bytes(Some(key)) + blob_bytes(*value)).sum::<usize>();

        let out = &mut self.records;
        varint::put_i64(out, length as i64);
        let start = out.len();
        out.push(0);
        varint::put_i64(out, timestamp_delta);
        varint::put_i64(out, i64::from(offset_delta));
        put_blob(out, record.key);
        put_blob(out, record.value);
        varint::put_i64(out, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_blob(out, Some(key));
            put_blob(out, *value);
        }
        assert_eq!(out.len() - start, length, "a record's length was computed for what was written");
        self.count += 1;
        self.last_offset_delta = offset_delta;
    }

    /// Records so far.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Whether there is no record yet. An empty batch is legal, but only compaction leaves one.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch as it stands, before compression.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Writes the batch. Fails only when the codec refuses its level.
    pub fn build(self) -> Result<Vec<u8>, CompressionError> {
        let mut batch = vec![0; HEADER_BYTES];
        match self.compression {
            Compression::None => batch.extend(&self.records),
            codec => batch.extend(compression::compress(codec, &self.records, self.level)?),
        }
        assert!(batch.len() <= i32::MAX as usize, "callers bound their batches far below 2 GiB");
        let batch_length = (batch.len() - PREFIX_BYTES) as i32;
        let attributes = self.flags | self.compression.attribute_bits();
        header::patch_offset_and_epoch(&mut batch, self.base_offset, self.leader_epoch);
        batch[8..12].copy_from_slice(&batch_length.to_be_bytes());
        batch[16] = MAGIC as u8;
        batch[ATTRIBUTES_AT..23].copy_from_slice(&attributes.to_be_bytes());
        batch[23..27].copy_from_slice(&self.last_offset_delta.max(0).to_be_bytes());
        batch[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        batch[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        batch[43..51].copy_from_slice(&self.producer_id.0.to_be_bytes());
        batch[51..53].copy_from_slice(&self.producer_epoch.0.to_be_bytes());
        batch[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        batch[57..61].copy_from_slice(&self.count.to_be_bytes());
        header::renew_crc(&mut batch);
        Ok(batch)
    }
}

fn blob_bytes(blob: Option<&[u8]>) -> usize {
    match blob {
        Some(bytes) => varint::length_i64(bytes.len() as i64) + bytes.len(),
        None => 1,
    }
}

pub(super) fn put_blob(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    match blob {
        Some(bytes) => {
            varint::put_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::put_i64(out, -1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchHeader, crc_matches};
    use kafka_protocol::records as theirs;

    fn three_records() -> BatchBuilder {
        let mut builder = BatchBuilder::new();
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"n", None)];
        builder.push(NewRecord {
            timestamp: Timestamp(1_700_000_000_000),
            key: Some(b"k"),
            value: Some(b"v"),
            headers,
        });
        builder.push(NewRecord::new(Timestamp(1_700_000_000_400), None, Some(b"")));
        builder.push(NewRecord::new(Timestamp(1_700_000_000_100), Some(&[7; 200]), None));
        builder
    }

    #[test]
    fn header_says_what_was_built() {
        let batch = three_records()
            .by_producer(ProducerId(5), ProducerEpoch(2), 70)
            .transactional()
            .at(Offset(1000), LeaderEpoch(3))
            .build()
            .unwrap();
        let header = BatchHeader::read(&batch).unwrap();
        assert!(crc_matches(&batch));
        assert_eq!(header.batch_bytes, batch.len());
        assert_eq!((header.base_offset, header.last_offset()), (Offset(1000), Offset(1002)));
        assert_eq!((header.leader_epoch, header.records_count), (LeaderEpoch(3), 3));
        assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(5), ProducerEpoch(2)));
        assert_eq!((header.base_sequence, header.last_sequence()), (70, 72));
        assert_eq!(header.base_timestamp, Timestamp(1_700_000_000_000));
        assert_eq!(header.max_timestamp, Timestamp(1_700_000_000_400));
        assert!(header.is_transactional() && !header.is_control());
    }

    #[test]
    fn the_codec_reads_the_same_records() {
        let batch = three_records().by_producer(ProducerId(5), ProducerEpoch(2), 70).build().unwrap();
        let mut bytes = bytes::Bytes::from(batch);
        let set = theirs::RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(set.records.len(), 3);
        let first = &set.records[0];
        assert_eq!((first.offset, first.sequence, first.timestamp), (0, 70, 1_700_000_000_000));
        assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert_eq!(first.headers.len(), 2);
        assert_eq!(set.records[1].timestamp, 1_700_000_000_400);
        assert_eq!((set.records[2].value.as_deref(), set.records[2].offset), (None, 2));
    }

    #[test]
    fn the_codec_writes_the_same_bytes() {
        let records: Vec<_> = [(0, 1000), (1, 1400), (2, 1200)]
            .map(|(index, timestamp)| theirs::Record {
                transactional: false,
                control: false,
                partition_leader_epoch: -1,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: theirs::TimestampType::Creation,
                offset: index,
                // Their encoder cuts batches by (offset - sequence), so it has to stay the same.
                sequence: index as i32 - 1,
                timestamp,
                key: Some(format!("key-{index}").into()),
                value: Some(vec![index as u8; 100].into()),
                headers: Default::default(),
                delete_horizon: false,
            })
            .into();
        let mut expected = bytes::BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        theirs::RecordBatchEncoder::encode(&mut expected, &records, &options).unwrap();

        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.push(NewRecord::new(Timestamp(record.timestamp), record.key.as_deref(), record.value.as_deref()));
        }
        let ours = builder.build().unwrap();
        assert_eq!(ours, &expected[..]);
    }

    #[test]
    fn a_compressed_batch_opens_to_the_same_records() {
        let plain = three_records().build().unwrap();
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let batch = three_records().compressed(codec, None).build().unwrap();
            let header = BatchHeader::read(&batch).unwrap();
            assert!(crc_matches(&batch));
            assert_eq!(header.compression(), Some(codec));
            let opened = compression::open_records(&batch, &header, 10_000).unwrap();
            assert_eq!(&*opened, &plain[HEADER_BYTES..]);
        }
    }
}
