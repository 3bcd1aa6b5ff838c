//! Batches made for tests: legal Kafka v2 bytes around opaque records.

use bytes::BytesMut;
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};

/// What a test wants in a batch; the records themselves are filler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) base_offset: i64,
    pub(crate) records: i32,
    pub(crate) leader_epoch: i32,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) max_timestamp: i64,
    pub(crate) filler_bytes: usize,
}

impl Batch {
    pub(crate) fn at(base_offset: i64, records: i32) -> Batch {
        Batch {
            base_offset,
            records,
            leader_epoch: 0,
            producer: (-1, -1, -1),
            max_timestamp: 1_000,
            filler_bytes: 10 * records as usize,
        }
    }

    pub(crate) fn of_producer(id: i64, epoch: i16, sequence: i32) -> Batch {
        Batch { producer: (id, epoch, sequence), ..Batch::at(0, 1) }
    }

    pub(crate) fn bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::zeroed(HEADER_BYTES + self.filler_bytes);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.base_offset.to_be_bytes());
        put(8, &((HEADER_BYTES + self.filler_bytes - 12) as i32).to_be_bytes());
        put(12, &self.leader_epoch.to_be_bytes());
        put(16, &[2]);
        put(23, &(self.records - 1).to_be_bytes());
        put(27, &self.max_timestamp.to_be_bytes());
        put(35, &self.max_timestamp.to_be_bytes());
        put(43, &self.producer.0.to_be_bytes());
        put(51, &self.producer.1.to_be_bytes());
        put(53, &self.producer.2.to_be_bytes());
        put(57, &self.records.to_be_bytes());
        for (at, byte) in bytes[HEADER_BYTES..].iter_mut().enumerate() {
            *byte = (self.base_offset as usize + at) as u8;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

pub(crate) fn header(bytes: &[u8]) -> BatchHeader {
    BatchHeader::read(bytes).expect("a legal batch")
}
