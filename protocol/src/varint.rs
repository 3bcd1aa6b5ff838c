//! Variable-length integers: seven bits per byte, lowest first; signed ones are zigzag-coded.
//!
//! Readers look at the start of a slice and say how many bytes they took; `None` means the slice ended early or the
//! number does not fit its type. Source: `org.apache.kafka.common.utils.ByteUtils`.

/// Longest encoding of 32 bits, in bytes.
pub(crate) const MAX_BYTES_32: usize = 5;
/// Longest encoding of 64 bits, in bytes.
pub(crate) const MAX_BYTES_64: usize = 10;

/// Reads an unsigned 32-bit number and its length in bytes.
#[inline]
pub(crate) fn read_u32(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0u32;
    for (index, byte) in bytes.iter().take(MAX_BYTES_32).enumerate() {
        if index == MAX_BYTES_32 - 1 && *byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Reads an unsigned 64-bit number and its length in bytes.
#[inline]
pub(crate) fn read_u64(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().take(MAX_BYTES_64).enumerate() {
        if index == MAX_BYTES_64 - 1 && *byte > 0x01 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (index * 7);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Reads a zigzag-coded 32-bit number and its length in bytes.
#[inline]
pub(crate) fn read_i32(bytes: &[u8]) -> Option<(i32, usize)> {
    let (raw, length) = read_u32(bytes)?;
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), length))
}

/// Reads a zigzag-coded 64-bit number and its length in bytes.
#[inline]
pub(crate) fn read_i64(bytes: &[u8]) -> Option<(i64, usize)> {
    let (raw, length) = read_u64(bytes)?;
    Some(((raw >> 1) as i64 ^ -((raw & 1) as i64), length))
}

/// Encodes an unsigned number; its length in bytes comes second.
#[inline]
pub(crate) fn encode_u64(mut value: u64) -> ([u8; MAX_BYTES_64], usize) {
    let mut bytes = [0; MAX_BYTES_64];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        length += 1;
        value >>= 7;
    }
    bytes[length] = value as u8;
    (bytes, length + 1)
}

/// Appends an unsigned number.
pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    let (bytes, length) = encode_u64(value);
    out.extend_from_slice(&bytes[..length]);
}

/// Appends a zigzag-coded number. A 32-bit number has the same encoding as its 64-bit twin.
pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, zigzag(value));
}

/// Bytes that [`put_i64`] appends.
pub(crate) fn length_i64(value: i64) -> usize {
    length_u64(zigzag(value))
}

/// Bytes that [`put_u64`] appends.
pub(crate) fn length_u64(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [1i64 << shift, (1i64 << shift).wrapping_sub(1), -1i64 << shift, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                put_i64(&mut out, value);
                assert_eq!(out.len(), length_i64(value));
                assert_eq!(read_i64(&out), Some((value, out.len())));
                if let Ok(small) = i32::try_from(value) {
                    assert_eq!(read_i32(&out), Some((small, out.len())));
                } else {
                    assert_eq!(read_i32(&out), None);
                }
                assert_eq!(read_i64(&out[..out.len() - 1]), None);
            }
        }
    }

    #[test]
    fn numbers_too_wide_for_their_type_are_refused() {
        assert_eq!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, 5)));
        assert_eq!(read_u32(&[0xff, 0xff, 0xff, 0xff, 0x10]), None);
        assert_eq!(read_u32(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(read_u64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some((u64::MAX, 10)));
        assert_eq!(read_u64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
    }
}
