//! Kafka's field encodings, as far as coordinator records use them. Big-endian; every read is bounded by its input.

use bytes::Bytes;

use super::DecodeError;
use crate::coordinator::group::names::TEXT_BYTES_MAX;

/// Reads fields from the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.array()
    }

    pub(super) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::BadLength);
            }
        }
        Err(DecodeError::BadLength)
    }

    /// A length that was checked against the bytes at hand, each element taking at least `element_bytes_min` of them.
    fn checked(&self, count: usize, element_bytes_min: usize) -> Result<usize, DecodeError> {
        if count.saturating_mul(element_bytes_min) > self.rest.len() {
            return Err(DecodeError::BadLength);
        }
        Ok(count)
    }

    pub(super) fn nullable_text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| DecodeError::BadLength)?;
                self.utf8(length).map(Some)
            }
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_text()?.ok_or(DecodeError::UnexpectedNull)
    }

    pub(super) fn nullable_compact_text(&mut self) -> Result<Option<&'a str>, DecodeError> {
        match self.uvarint()?.checked_sub(1) {
            None => Ok(None),
            // What was read must fit the versions that are written.
            Some(length) if length as usize > TEXT_BYTES_MAX => Err(DecodeError::BadLength),
            Some(length) => self.utf8(length as usize).map(Some),
        }
    }

    pub(super) fn compact_text(&mut self) -> Result<&'a str, DecodeError> {
        self.nullable_compact_text()?.ok_or(DecodeError::UnexpectedNull)
    }

    fn utf8(&mut self, length: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.take(length)?).map_err(|_| DecodeError::BadText)
    }

    pub(super) fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.i32()?).map_err(|_| DecodeError::UnexpectedNull)?;
        self.take(length)
    }

    pub(super) fn compact_blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.uvarint()?.checked_sub(1).ok_or(DecodeError::UnexpectedNull)?;
        self.take(length as usize)
    }

    pub(super) fn array_count(&mut self, element_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.i32()?).map_err(|_| DecodeError::UnexpectedNull)?;
        self.checked(count, element_bytes_min)
    }

    pub(super) fn compact_array_count(&mut self, element_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.uvarint()?.checked_sub(1).ok_or(DecodeError::UnexpectedNull)?;
        self.checked(count as usize, element_bytes_min)
    }

    /// Walks the tagged fields that end a flexible struct; `known` sees each tag with its bytes.
    pub(super) fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        // A tag is at least two bytes, so the loop is bounded by the input however large the count claims to be.
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let mut field = Reader::new(self.take(length)?);
            known(tag, &mut field)?;
        }
        Ok(())
    }

    /// Nothing may follow the last field.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// Appends fields to a buffer. Lengths were checked where the values entered; a longer one is our own bug.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new() -> Writer {
        Writer { bytes: Vec::with_capacity(64) }
    }

    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, text: &str) {
        assert!(text.len() <= TEXT_BYTES_MAX, "a text of {} bytes was let into a record", text.len());
        self.i16(text.len() as i16);
        self.raw(text.as_bytes());
    }

    pub(super) fn nullable_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.i16(-1),
        }
    }

    pub(super) fn compact_text(&mut self, text: &str) {
        assert!(text.len() <= TEXT_BYTES_MAX, "a text of {} bytes was let into a record", text.len());
        self.uvarint(text.len() as u32 + 1);
        self.raw(text.as_bytes());
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) {
        let length = i32::try_from(bytes.len()).expect("a request, and so each of its fields, is smaller than 2 GiB");
        self.i32(length);
        self.raw(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uvarints_round_trip_and_are_bounded() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut out = Writer::new();
            out.uvarint(value);
            assert_eq!(Reader::new(&out.finish()).uvarint(), Ok(value));
        }
        assert_eq!(Reader::new(&[0xff; 5]).uvarint(), Err(DecodeError::BadLength));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint(), Err(DecodeError::BadLength));
        assert_eq!(Reader::new(&[0x80]).uvarint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn texts_longer_than_can_be_written_are_refused() {
        let mut out = Writer::new();
        out.uvarint(TEXT_BYTES_MAX as u32 + 2);
        out.raw(&[b'x'; TEXT_BYTES_MAX + 1]);
        assert_eq!(Reader::new(&out.finish()).compact_text(), Err(DecodeError::BadLength));
    }

    #[test]
    fn counts_beyond_the_bytes_at_hand_are_refused() {
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0, 0]).array_count(2), Err(DecodeError::BadLength));
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0, 0]).array_count(2), Ok(1));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).compact_array_count(1), Err(DecodeError::BadLength));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0x7f]).tags(|_, _| Ok(())), Err(DecodeError::Truncated));
    }
}
