//! Fixed-width little-endian fields, read with bounds: the codec under every binary file of this crate.
//!
//! Nothing is allocated here, and a read past the end is an answer ([`Short`]), never a panic.

/// The bytes ended before the field did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// Reads fields from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldReader<'a> {
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> FieldReader<'a> {
        FieldReader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Short> {
        Ok(i16::from_le_bytes(self.array()?))
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Short> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Short> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of items of at least `item_bytes` each, refused when that many cannot follow: what it may size.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, Short> {
        let count = self.u32()? as usize;
        match count.checked_mul(item_bytes) {
            Some(needed) if needed <= self.rest.len() => Ok(count),
            _ => Err(Short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_larger_than_the_bytes_at_hand_is_refused() {
        let bytes = [2, 0, 0, 0, 1, 2, 3, 4];
        assert_eq!(FieldReader::new(&bytes).count(2), Ok(2));
        assert_eq!(FieldReader::new(&bytes).count(3), Err(Short));
        assert_eq!(FieldReader::new(&[0xff; 4]).count(usize::MAX), Err(Short));
    }

    #[test]
    fn reading_past_the_end_is_an_answer() {
        let mut reader = FieldReader::new(&[1, 2, 3]);
        assert_eq!(reader.i16(), Ok(0x0201));
        assert_eq!(reader.u32(), Err(Short));
        assert_eq!(reader.remaining(), 1);
    }
}
