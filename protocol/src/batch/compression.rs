//! The four codecs, with an end to what they may put out.
//!
//! Decompression stops as soon as the output passes its limit, whatever the input claims; memory grows with output that
//! is really there. Snappy is read raw or in xerial framing (the Java library's) and written in xerial framing:
//!
//! ```text
//! 0x82 S N A P P Y 0x00 | version i32 = 1 | compatible i32 = 1 | (length i32 | raw block)…
//! ```
//!
//! LZ4 is the standard frame with independent blocks of 64 KiB, the only kind Kafka's Java clients read.

mod lz4;

use std::borrow::Cow;
use std::io::{Read, Write as _};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use thiserror::Error;

use super::header::{BatchHeader, Compression, HEADER_BYTES};

/// First bytes of snappy in xerial framing.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version and compatible version.
const XERIAL_HEADER_BYTES: usize = 16;
/// Uncompressed bytes per xerial block, as the Java library cuts them.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Raw snappy cannot expand further: its densest element makes 64 bytes of 3.
const SNAPPY_RATIO_MAX: usize = 22;
/// What output first makes room for; it doubles from there.
const OUTPUT_BYTES_START: usize = 16 * 1024;

/// Why bytes could not be compressed or decompressed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompressionError {
    /// The output passes the limit, in bytes.
    #[error("the records are larger than {0} bytes when decompressed")]
    TooLarge(usize),
    /// The input is not what the codec writes.
    #[error("the compressed records are malformed")]
    Malformed,
    /// The attributes name a codec that does not exist.
    #[error("the codec is unknown")]
    UnknownCodec,
    /// The codec refuses to compress, for example at a level it does not have.
    #[error("the codec cannot compress this")]
    Refused,
}

/// The records section of `batch`, borrowed if it is uncompressed. `batch` is one whole batch, `header` its header.
///
/// Never puts out more than `bytes_max`; an uncompressed section is as long as it is.
pub fn open_records<'a>(
    batch: &'a [u8],
    header: &BatchHeader,
    bytes_max: usize,
) -> Result<Cow<'a, [u8]>, CompressionError> {
    let section = &batch[HEADER_BYTES..header.batch_bytes];
    match header.compression().ok_or(CompressionError::UnknownCodec)? {
        Compression::None => Ok(Cow::Borrowed(section)),
        codec => decompress(codec, section, bytes_max).map(Cow::Owned),
    }
}

/// Decompresses a whole records section, at most `bytes_max` bytes of output.
pub fn decompress(codec: Compression, input: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Compression::None if input.len() > bytes_max => Err(CompressionError::TooLarge(bytes_max)),
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => read_bounded(MultiGzDecoder::new(input), bytes_max),
        Compression::Lz4 if !lz4::is_one_whole_frame(input) => Err(CompressionError::Malformed),
        Compression::Lz4 => read_bounded(FrameDecoder::new(input), bytes_max),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(|_| CompressionError::Malformed)?;
            read_bounded(decoder, bytes_max)
        }
        Compression::Snappy if input.starts_with(&XERIAL_MAGIC) => decompress_xerial(input, bytes_max),
        Compression::Snappy => {
            let mut output = Vec::new();
            append_snappy(&mut output, input, bytes_max)?;
            Ok(output)
        }
    }
}

/// Compresses a whole records section. `level` is the codec's own scale; `None` is its default. Snappy and LZ4 have one
/// level here and ignore it.
pub fn compress(codec: Compression, input: &[u8], level: Option<i32>) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => {
            let level = match level {
                None | Some(-1) => flate2::Compression::default(),
                Some(level @ 0..=9) => flate2::Compression::new(level as u32),
                Some(_) => return Err(CompressionError::Refused),
            };
            let mut encoder = GzEncoder::new(Vec::with_capacity(input.len() / 2), level);
            encoder.write_all(input).and_then(|()| encoder.finish()).map_err(|_| CompressionError::Refused)
        }
        Compression::Snappy => compress_xerial(input),
        Compression::Lz4 => {
            let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(input.len() / 2));
            encoder.write_all(input).map_err(|_| CompressionError::Refused)?;
            encoder.finish().map_err(|_| CompressionError::Refused)
        }
        Compression::Zstd => {
            let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL);
            if !zstd::compression_level_range().contains(&level) {
                return Err(CompressionError::Refused);
            }
            zstd::bulk::compress(input, level).map_err(|_| CompressionError::Refused)
        }
    }
}

fn read_bounded(mut decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut output = Vec::new();
    let mut filled = 0;
    loop {
        if filled == output.len() {
            if filled > bytes_max {
                return Err(CompressionError::TooLarge(bytes_max));
            }
            // One byte beyond the limit, so that passing it is seen.
            output.resize((filled * 2).max(OUTPUT_BYTES_START).min(bytes_max + 1), 0);
        }
        match decoder.read(&mut output[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err(CompressionError::Malformed),
        }
    }
    if filled > bytes_max {
        return Err(CompressionError::TooLarge(bytes_max));
    }
    output.truncate(filled);
    Ok(output)
}

fn decompress_xerial(input: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressionError> {
    let mut rest = input.get(XERIAL_HEADER_BYTES..).ok_or(CompressionError::Malformed)?;
    let mut output = Vec::new();
    while !rest.is_empty() {
        let (length, blocks) = rest.split_first_chunk::<4>().ok_or(CompressionError::Malformed)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| CompressionError::Malformed)?;
        let (block, after) = blocks.split_at_checked(length).ok_or(CompressionError::Malformed)?;
        append_snappy(&mut output, block, bytes_max)?;
        rest = after;
    }
    Ok(output)
}

/// Appends what one raw snappy block holds. Its announced length is believed only as far as the block can reach.
fn append_snappy(output: &mut Vec<u8>, block: &[u8], bytes_max: usize) -> Result<(), CompressionError> {
    let length = snap::raw::decompress_len(block).map_err(|_| CompressionError::Malformed)?;
    if length > bytes_max - output.len() {
        return Err(CompressionError::TooLarge(bytes_max));
    }
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(CompressionError::Malformed);
    }
    let start = output.len();
    output.resize(start + length, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut output[start..]);
    match written {
        Ok(written) if written == length => Ok(()),
        _ => Err(CompressionError::Malformed),
    }
}

fn compress_xerial(input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut output = Vec::with_capacity(XERIAL_HEADER_BYTES + input.len() / 2);
    output.extend(XERIAL_MAGIC);
    output.extend(1i32.to_be_bytes());
    output.extend(1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for chunk in input.chunks(XERIAL_BLOCK_BYTES) {
        let block = encoder.compress_vec(chunk).map_err(|_| CompressionError::Refused)?;
        output.extend((block.len() as i32).to_be_bytes());
        output.extend(block);
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|at| (at * at / 7) as u8).collect()
    }

    #[test]
    fn every_codec_round_trips() {
        for codec in CODECS {
            for bytes in [0, 1, 100, 32 * 1024, 300_000] {
                let input = text(bytes);
                let packed = compress(codec, &input, None).unwrap();
                assert_eq!(decompress(codec, &packed, bytes).unwrap(), input, "{codec:?} {bytes}");
            }
        }
    }

    #[test]
    fn output_beyond_the_limit_is_refused_by_every_codec() {
        let zeroes = vec![0; 8 << 20];
        for codec in CODECS {
            let bomb = compress(codec, &zeroes, None).unwrap();
            let refused = decompress(codec, &bomb, (8 << 20) - 1);
            assert_eq!(refused, Err(CompressionError::TooLarge((8 << 20) - 1)), "{codec:?}");
            assert_eq!(decompress(codec, &bomb, 1000), Err(CompressionError::TooLarge(1000)), "{codec:?}");
        }
    }

    #[test]
    fn raw_snappy_is_read_too() {
        let input = text(50_000);
        let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
        assert_eq!(decompress(Compression::Snappy, &raw, 50_000).unwrap(), input);
        assert_eq!(decompress(Compression::Snappy, &raw, 49_999), Err(CompressionError::TooLarge(49_999)));
    }

    #[test]
    fn snappy_is_written_as_the_java_library_frames_it() {
        let packed = compress(Compression::Snappy, b"aaaa", None).unwrap();
        let expected = [
            0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, // header
            0, 0, 0, 6, 4, 0x0c, b'a', b'a', b'a', b'a', // one block: 4 bytes, a literal of 4
        ];
        assert_eq!(packed, expected);
    }

    #[test]
    fn a_snappy_length_the_block_cannot_reach_is_malformed() {
        let hostile = [0x80, 0x80, 0x80, 0x10, 0, b'a'];
        assert_eq!(decompress(Compression::Snappy, &hostile, 1 << 30), Err(CompressionError::Malformed));
    }

    #[test]
    fn truncated_and_foreign_input_is_malformed_and_never_panics() {
        let input = text(5_000);
        for codec in CODECS {
            let packed = compress(codec, &input, None).unwrap();
            for length in 1..packed.len() {
                if let Ok(output) = decompress(codec, &packed[..length], 5_000) {
                    // A cut between two blocks of snappy reads as fewer bytes; the record walk finds that.
                    assert!(output.len() < input.len() || length + 8 >= packed.len(), "{codec:?} {length}");
                }
            }
            assert!(decompress(codec, b"\xffnot compressed at all", 5_000).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn levels_outside_a_codec_are_refused() {
        assert_eq!(compress(Compression::Gzip, b"x", Some(10)), Err(CompressionError::Refused));
        assert_eq!(compress(Compression::Zstd, b"x", Some(23)), Err(CompressionError::Refused));
        assert!(compress(Compression::Gzip, b"x", Some(-1)).is_ok());
    }
}
