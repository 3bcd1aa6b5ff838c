//! Reads a journal file past the page cache in large steps, for recovery.

use bytes::{Bytes, BytesMut};

use super::commit::BLOCK_BYTES;
use super::file::{LiveFile, ended_early};
use crate::Fault;
use crate::disk::aligned::ALIGNMENT;

/// Bytes read at once: large enough for the device's full rate, small beside any memory.
const WINDOW_BYTES: u64 = 4 << 20;

/// A moving view of one file.
pub(super) struct Window<'a> {
    live: &'a LiveFile,
    start: u64,
    bytes: Bytes,
}

impl<'a> Window<'a> {
    pub(super) fn new(live: &'a LiveFile) -> Window<'a> {
        Window { live, start: 0, bytes: Bytes::new() }
    }

    /// At least `len` bytes from `offset`, a block boundary; `offset + len` lies within the file.
    pub(super) fn at(&mut self, offset: u64, len: u64) -> Result<Bytes, Fault> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + len > end {
            let rest = self.live.header.len - offset;
            let wanted = len.next_multiple_of(BLOCK_BYTES).max(WINDOW_BYTES).min(rest);
            assert!(len <= wanted, "recovery reads within the file");
            let mut buffer = aligned(std::mem::take(&mut self.bytes), wanted as usize);
            let path = &self.live.path;
            let read = self
                .live
                .file
                .read_device_at(offset, &mut buffer)
                .map_err(|e| Fault::io_at("read", path, offset, e))?;
            if (read as u64) < wanted {
                return Err(ended_early(path, offset + read as u64));
            }
            self.start = offset;
            self.bytes = buffer.freeze();
        }
        Ok(self.bytes.slice((offset - self.start) as usize..))
    }
}

/// A buffer for a direct read: the last one, where nobody holds on to a slice of it.
fn aligned(last: Bytes, len: usize) -> BytesMut {
    match last.try_into_mut() {
        Ok(mut buffer) if buffer.len() >= len => {
            buffer.truncate(len);
            buffer
        }
        _ => {
            let mut buffer = BytesMut::zeroed(len + ALIGNMENT);
            let skip = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
            let _ = buffer.split_to(skip);
            buffer.truncate(len);
            buffer
        }
    }
}
