//! Buffers that direct reads accept: address, position and length are multiples of 4 KiB.

use std::ops::{Deref, DerefMut};

/// What direct reads align to: the largest logical block in use.
pub const ALIGNMENT: usize = 4096;

/// A zeroed buffer whose first byte lies on an [`ALIGNMENT`] boundary.
#[derive(Debug)]
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    /// `len` zeroes.
    pub fn zeroed(len: usize) -> AlignedBuffer {
        let bytes = vec![0; len + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT);
        // `align_offset` may give up in theory; then the reads are bounced, which is slower and as right.
        let start = if start > ALIGNMENT { 0 } else { start };
        AlignedBuffer { bytes, start, len }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Whether a direct read may go straight into the buffer.
pub(super) fn is_aligned(position: u64, buffer: &[u8]) -> bool {
    position.is_multiple_of(ALIGNMENT as u64)
        && buffer.len().is_multiple_of(ALIGNMENT)
        && buffer.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_on_a_block() {
        for len in [1, ALIGNMENT, 3 * ALIGNMENT + 5] {
            let buffer = AlignedBuffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
        let buffer = AlignedBuffer::zeroed(2 * ALIGNMENT);
        assert!(is_aligned(ALIGNMENT as u64, &buffer));
        assert!(!is_aligned(1, &buffer));
        assert!(!is_aligned(0, &buffer[1..]));
    }
}
