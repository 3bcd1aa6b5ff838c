//! Records inside a batch, looked at in place.
//!
//! ```text
//! length varint | attributes i8 | timestamp_delta varlong | offset_delta varint | key | value | headers
//! key, value: length varint (-1 is null), bytes        headers: count varint, then each key (never null) and value
//! ```
//!
//! The iterator allocates nothing and keeps nothing. It is not the place for compressed records: see
//! [`super::compression::open_records`]. Duplicate header keys stay as they are, in order.
//! Source: `org.apache.kafka.common.record.DefaultRecord`.

use thiserror::Error;

use crate::varint;

/// The shortest record: length, attributes, two deltas, null key, null value, no header.
pub const RECORD_BYTES_MIN: usize = 7;

/// What is wrong with the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// A record's length is negative or goes beyond the batch.
    #[error("record {0} does not fit its batch")]
    Length(i32),
    /// A record's fields do not fill exactly the length it announced.
    #[error("record {0} is malformed")]
    Malformed(i32),
    /// Bytes follow the last of the announced records.
    #[error("{0} bytes follow the last record")]
    Trailing(usize),
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Unused so far; kept as it is.
    pub attributes: i8,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Offsets after the batch's base offset.
    pub offset_delta: i32,
    /// The key, if any; empty is not null.
    pub key: Option<&'a [u8]>,
    /// The value, if any; null is a tombstone on compacted topics.
    pub value: Option<&'a [u8]>,
    /// The headers, in order.
    pub headers: Headers<'a>,
}

/// Iterates over the records of an uncompressed records section. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    /// Index of the next record, for errors.
    index: i32,
    /// Records to come.
    left: i32,
}

impl<'a> Records<'a> {
    /// `bytes` is everything after the batch header, decompressed; `count` is what the header announces.
    pub fn new(bytes: &'a [u8], count: i32) -> Records<'a> {
        Records { rest: bytes, index: 0, left: count.max(0) }
    }

    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let out_of_batch = RecordError::Length(self.index);
        let (length, prefix) = varint::read_i32(self.rest).ok_or(out_of_batch)?;
        let length = usize::try_from(length).map_err(|_| out_of_batch)?;
        let body = &self.rest[prefix..];
        if length > body.len() {
            return Err(out_of_batch);
        }
        let record = read_record(&body[..length]).ok_or(RecordError::Malformed(self.index))?;
        self.rest = &body[length..];
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let trailing = self.rest.len();
            self.rest = &[];
            return (trailing > 0).then_some(Err(RecordError::Trailing(trailing)));
        }
        let record = self.read();
        match record {
            Ok(_) => {
                self.left -= 1;
                self.index += 1;
            }
            Err(_) => {
                self.left = 0;
                self.rest = &[];
            }
        }
        Some(record)
    }
}

/// The headers of one record, walked once already and so known to be well-formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    left: i32,
}

impl ExactSizeIterator for Headers<'_> {}

/// One header. Keys are UTF-8 by convention; bytes that are not are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key, never null.
    pub key: &'a [u8],
    /// The value, if any.
    pub value: Option<&'a [u8]>,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut cursor = Cursor { rest: self.rest };
        let header = cursor.header();
        self.rest = cursor.rest;
        header
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// Reads one record that fills `bytes` exactly.
fn read_record(bytes: &[u8]) -> Option<Record<'_>> {
    let mut cursor = Cursor { rest: bytes };
    let attributes = cursor.byte()? as i8;
    let timestamp_delta = cursor.i64()?;
    let offset_delta = cursor.i32()?;
    let key = cursor.blob()?;
    let value = cursor.blob()?;
    let left = cursor.i32()?;
    if left < 0 {
        return None;
    }
    let headers = Headers { rest: cursor.rest, left };
    // Each header takes two bytes at least, so a hostile count ends with the bytes.
    for _ in 0..left {
        cursor.header()?;
    }
    cursor.rest.is_empty().then_some(Record { attributes, timestamp_delta, offset_delta, key, value, headers })
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn i32(&mut self) -> Option<i32> {
        let (value, length) = varint::read_i32(self.rest)?;
        self.rest = &self.rest[length..];
        Some(value)
    }

    fn i64(&mut self) -> Option<i64> {
        let (value, length) = varint::read_i64(self.rest)?;
        self.rest = &self.rest[length..];
        Some(value)
    }

    /// Bytes with their length; the inner `None` is null.
    fn blob(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.i32()?;
        if length == -1 {
            return Some(None);
        }
        let (bytes, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(Some(bytes))
    }

    fn header(&mut self) -> Option<Header<'a>> {
        Some(Header { key: self.blob()??, value: self.blob()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::batch::{BatchBuilder, HEADER_BYTES, NewRecord};

    fn section() -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"a", Some(b"1")), (b"a", None), (b"", Some(b""))];
        builder.push(NewRecord { timestamp: Timestamp(1000), key: Some(b"k"), value: Some(b"v"), headers });
        builder.push(NewRecord { timestamp: Timestamp(900), key: None, value: Some(b""), headers: &[] });
        builder.push(NewRecord { timestamp: Timestamp(5000), key: Some(b""), value: None, headers: &[] });
        builder.build().unwrap()[HEADER_BYTES..].to_vec()
    }

    #[test]
    fn records_are_seen_as_written_with_nulls_and_duplicate_headers() {
        let section = section();
        let records: Vec<_> = Records::new(&section, 3).collect::<Result<_, _>>().unwrap();
        assert_eq!(records.len(), 3);
        assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(&b"v"[..])));
        let headers: Vec<_> = records[0].headers.map(|header| (header.key, header.value)).collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"a", None), (b"", Some(b""))]);
        assert_eq!((records[1].key, records[1].value), (None, Some(&b""[..])));
        assert_eq!((records[1].offset_delta, records[1].timestamp_delta), (1, -100));
        assert_eq!((records[2].key, records[2].value), (Some(&b""[..]), None));
        assert_eq!(records[2].timestamp_delta, 4000);
    }

    #[test]
    fn wrong_counts_are_errors() {
        let section = section();
        assert_eq!(Records::new(&section, 4).last(), Some(Err(RecordError::Length(3))));
        assert!(matches!(Records::new(&section, 2).last(), Some(Err(RecordError::Trailing(_)))));
        assert!(Records::new(&[], 0).next().is_none());
    }

    #[test]
    fn every_truncation_ends_in_one_error() {
        let section = section();
        for length in 0..section.len() {
            let read: Vec<_> = Records::new(&section[..length], 3).collect();
            assert!(read.last().unwrap().is_err(), "{length}");
            assert!(read[..read.len() - 1].iter().all(Result::is_ok));
        }
    }

    #[test]
    fn every_changed_byte_reads_or_fails_without_panic() {
        let section = section();
        for at in 0..section.len() {
            for byte in 0..=255 {
                let mut bytes = section.clone();
                bytes[at] = byte;
                for record in Records::new(&bytes, 3).flatten() {
                    assert_eq!(record.headers.len(), record.headers.count());
                }
            }
        }
    }
}
