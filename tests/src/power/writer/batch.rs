//! Batches that say what they are: every byte follows from seed, partition, base offset, life and stamp.
//!
//! The life (how often the writer was started) is the leader epoch, the stamp (a number that only rises within a life)
//! the timestamp. So a batch that comes back from an earlier life, or from before a truncation, is told from the one
//! that took its place.

use bytes::BytesMut;
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES, crc_matches};
use stonelog_protocol::{Offset, ProducerId};

use crate::random::Random;

/// What a batch is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) seed: u64,
    pub(super) partition: i32,
    pub(super) base: Offset,
    pub(super) life: i32,
    pub(super) stamp: i64,
}

impl Origin {
    fn random(&self) -> Random {
        let mut mixed = self.seed;
        for number in [self.partition as u64, self.base.0 as u64, self.life as u64, self.stamp as u64] {
            mixed = Random::new(mixed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_number();
        }
        Random::new(mixed)
    }

    /// The producer that writes to a partition: one each, whose sequence numbers are the offsets.
    pub(super) fn producer(partition: i32) -> ProducerId {
        ProducerId(1_000 + i64::from(partition))
    }

    /// The batch, with base offset 0 and without an epoch, as a producer sends it.
    pub(super) fn batch(&self) -> BytesMut {
        let mut random = self.random();
        let records = 1 + random.below(4) as i32;
        let filler_bytes = match random.below(20) {
            0 => 20_000 + random.below(40_000),
            1..=5 => 2_000 + random.below(8_000),
            _ => 20 + random.below(1_500),
        } as usize;
        let mut bytes = BytesMut::zeroed(HEADER_BYTES + filler_bytes);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(8, &((HEADER_BYTES + filler_bytes - 12) as i32).to_be_bytes());
        put(16, &[2]);
        put(23, &(records - 1).to_be_bytes());
        put(27, &self.stamp.to_be_bytes());
        put(35, &self.stamp.to_be_bytes());
        put(43, &Origin::producer(self.partition).0.to_be_bytes());
        put(51, &0_i16.to_be_bytes());
        put(53, &(self.base.0 as i32).to_be_bytes());
        put(57, &records.to_be_bytes());
        for chunk in bytes[HEADER_BYTES..].chunks_mut(8) {
            chunk.copy_from_slice(&random.next_number().to_ne_bytes()[..chunk.len()]);
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// What is wrong with `found`, a batch that was read with `header` at the place this origin says; `None` if nothing.
    pub(super) fn difference(&self, header: &BatchHeader, found: &[u8]) -> Option<String> {
        if !crc_matches(found) {
            return Some("its checksum does not match".to_owned());
        }
        if header.base_offset != self.base {
            return Some(format!("it begins at {} and not at {}", header.base_offset, self.base));
        }
        // Base offset, length, leader epoch and magic lie outside what the producer sent.
        let sent = self.batch();
        if found[8..12] != sent[8..12] || found[16..] != sent[16..] {
            return Some(format!("its bytes are not those of {self:?}"));
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_another_stamp_life_or_place_is_noticed() {
        let origin = Origin { seed: 5, partition: 2, base: Offset(0), life: 1, stamp: 77 };
        let bytes = origin.batch();
        let header = BatchHeader::read(&bytes).unwrap();
        assert_eq!(origin.difference(&header, &bytes), None);
        for other in [
            Origin { stamp: 78, ..origin },
            Origin { life: 2, ..origin },
            Origin { partition: 3, ..origin },
            Origin { base: Offset(1), ..origin },
        ] {
            assert!(other.difference(&header, &bytes).is_some(), "{other:?}");
        }
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        assert!(origin.difference(&header, &flipped).is_some());
    }
}
