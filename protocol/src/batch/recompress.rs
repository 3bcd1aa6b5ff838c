//! Packs a batch with another codec, when `compression.type` demands one that the producer did not use.

use super::compression::{self, CompressionError, open_records};
use super::header::{self, ATTRIBUTES_AT, BatchHeader, Compression, HEADER_BYTES, PREFIX_BYTES};

/// The same batch under `codec`, with a new length and CRC.
///
/// The records' own bytes are not touched, so duplicate headers, timestamps and everything else stay; of the header only
/// length, codec bits and CRC change. `batch` is one whole batch, `header` its header; `bytes_max` bounds what it may
/// open to. `level` is the codec's own scale, `None` its default.
pub fn recompress(
    batch: &[u8],
    header: &BatchHeader,
    codec: Compression,
    level: Option<i32>,
    bytes_max: usize,
) -> Result<Vec<u8>, CompressionError> {
    let section = open_records(batch, header, bytes_max)?;
    let packed = compression::compress(codec, &section, level)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    out.extend_from_slice(&packed);
    let batch_length =
        i32::try_from(out.len() - PREFIX_BYTES).map_err(|_| CompressionError::TooLarge(i32::MAX as usize))?;
    let attributes = (header.attributes & !0x07) | codec.attribute_bits();
    out[8..PREFIX_BYTES].copy_from_slice(&batch_length.to_be_bytes());
    out[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    header::renew_crc(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchBuilder, NewRecord, crc_matches};
    use crate::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};

    const CODECS: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn batch(codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new()
            .compressed(codec, None)
            .by_producer(ProducerId(9), ProducerEpoch(1), 40)
            .at(Offset(100), LeaderEpoch(7));
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"same", Some(b"1")), (b"same", Some(b"2"))];
        builder.push(NewRecord { timestamp: Timestamp(50), key: Some(b"k"), value: Some(&[3; 500]), headers });
        builder.push(NewRecord::new(Timestamp(20), None, None));
        builder.build().unwrap()
    }

    #[test]
    fn every_codec_turns_into_every_other_and_nothing_else_changes() {
        for from in CODECS {
            let source = batch(from);
            let before = BatchHeader::read(&source).unwrap();
            for to in CODECS {
                let packed = recompress(&source, &before, to, None, 10_000).unwrap();
                let after = BatchHeader::read(&packed).unwrap();
                assert!(crc_matches(&packed));
                assert_eq!((after.batch_bytes, after.compression()), (packed.len(), Some(to)));
                let unchanged = BatchHeader {
                    batch_bytes: before.batch_bytes,
                    crc: before.crc,
                    attributes: before.attributes,
                    ..after
                };
                assert_eq!(unchanged, before);
                let opened = open_records(&packed, &after, 10_000).unwrap();
                assert_eq!(&*opened, &batch(Compression::None)[HEADER_BYTES..], "{from:?} to {to:?}");
            }
        }
    }

    #[test]
    fn a_bomb_is_not_opened_beyond_the_limit() {
        let source = batch(Compression::Zstd);
        let header = BatchHeader::read(&source).unwrap();
        let refused = recompress(&source, &header, Compression::Gzip, None, 100);
        assert_eq!(refused, Err(CompressionError::TooLarge(100)));
    }
}
