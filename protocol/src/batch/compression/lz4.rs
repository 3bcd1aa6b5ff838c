//! The shape of an LZ4 frame, as strict as Kafka's Java clients are.
//!
//! ```text
//! magic u32 | FLG u8 | BD u8 | content size u64 if FLG.3 | header checksum u8
//! (block size u32, top bit: stored | block | checksum u32 if FLG.4)… | 0 u32 | content checksum u32 if FLG.2
//! ```
//!
//! A decoder may take the end of its input for the end of the frame, and then accept what the Java clients cannot read.
//! So the frame is walked first: one frame, whole to its end mark, with independent blocks and without a dictionary.
//! Numbers are little-endian. Source: `org.apache.kafka.common.compress.Lz4BlockInputStream`.

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
const INDEPENDENT_FLAG: u8 = 1 << 5;
const BLOCK_CHECKSUM_FLAG: u8 = 1 << 4;
const CONTENT_SIZE_FLAG: u8 = 1 << 3;
const CONTENT_CHECKSUM_FLAG: u8 = 1 << 2;
const DICTIONARY_FLAG: u8 = 1;
/// Set in a block's size when the block is stored as it is.
const STORED_BIT: u32 = 1 << 31;

/// Whether `input` is one whole frame that every Kafka client can read. Its blocks are not looked into.
pub(super) fn is_one_whole_frame(input: &[u8]) -> bool {
    walk(input).is_some_and(|rest| rest.is_empty())
}

/// What follows the frame; `None` if it ends early or is of a kind the Java clients refuse.
fn walk(input: &[u8]) -> Option<&[u8]> {
    let rest = input.strip_prefix(&MAGIC)?;
    let (flags, rest) = rest.split_first()?;
    if flags & INDEPENDENT_FLAG == 0 || flags & DICTIONARY_FLAG != 0 {
        return None;
    }
    let content_size_bytes = if flags & CONTENT_SIZE_FLAG != 0 { 8 } else { 0 };
    let mut rest = rest.get(1 + content_size_bytes + 1..)?;
    let checksum_bytes = if flags & BLOCK_CHECKSUM_FLAG != 0 { 4 } else { 0 };
    loop {
        let (size, after) = rest.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size);
        if size == 0 {
            return after.get(if flags & CONTENT_CHECKSUM_FLAG != 0 { 4 } else { 0 }..);
        }
        rest = after.get((size & !STORED_BIT) as usize + checksum_bytes..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};

    use super::*;

    fn frame(info: FrameInfo) -> Vec<u8> {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        // Noise is stored, zeroes are compressed; both kinds of block occur.
        let noise: Vec<u8> = (0..70_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        encoder.write_all(&[noise, vec![0; 200_000]].concat()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn whole_frames_with_every_checksum_are_taken() {
        for (blocks, content) in [(false, false), (true, false), (false, true), (true, true)] {
            let info = FrameInfo::new().block_checksums(blocks).content_checksum(content);
            assert!(is_one_whole_frame(&frame(info.content_size(Some(270_000)))));
        }
    }

    #[test]
    fn a_frame_without_its_end_or_with_more_behind_it_is_refused() {
        let whole = frame(FrameInfo::new().content_checksum(true));
        for length in (0..60).chain(whole.len() - 60..whole.len()) {
            assert!(!is_one_whole_frame(&whole[..length]), "{length}");
        }
        assert!(!is_one_whole_frame(&[&whole[..], &[0]].concat()));
    }

    #[test]
    fn blocks_that_lean_on_each_other_are_refused() {
        assert!(!is_one_whole_frame(&frame(FrameInfo::new().block_mode(BlockMode::Linked))));
    }
}
