//! Values that say what they are: run, topic, partition, producer, sequence number, filler, and a hash of it all.
//!
//! ```text
//! slv1 <run> <topic> <partition> <producer> <sequence> <filler> <hash>
//! ```
//!
//! They are text, so that any consumer shows them readably. A record found at the wrong place, or with one byte changed,
//! is recognised without knowing what was written.

use std::fmt::Write as _;

use bytes::Bytes;

/// First bytes of every value.
const MAGIC: &str = "slv1 ";
/// Hexadecimal digits of the hash.
const HASH_DIGITS: usize = 16;

/// What a record that was read turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A value of this run, found in the topic and partition it was written to.
    Ours {
        /// Number of the producer within the run.
        producer: u32,
        /// Number of the record among those of its producer and partition, from 0.
        sequence: u64,
    },
    /// A value like ours that was changed on its way, or belongs to another partition.
    Corrupt,
    /// Something that no checker wrote, or that another run wrote.
    Foreign,
}

/// Where values of a run belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The run's identifier, without spaces.
    pub run: &'a str,
    /// Topic name.
    pub topic: &'a str,
    /// Partition index.
    pub partition: i32,
}

/// The value of one record, filled up to `bytes` if it is shorter.
pub fn write_value(place: &Place<'_>, producer: u32, sequence: u64, bytes: usize) -> Bytes {
    let Place { run, topic, partition } = place;
    let mut value = format!("{MAGIC}{run} {topic} {partition} {producer} {sequence} ");
    let mut state = sequence ^ (u64::from(producer) << 40) ^ 0x9e37_79b9_7f4a_7c15;
    while value.len() + 1 + HASH_DIGITS < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let missing = bytes - value.len() - 1 - HASH_DIGITS;
        let filler = format!("{state:016x}");
        value.push_str(&filler[..missing.min(filler.len())]);
    }
    value.push(' ');
    let hash = hash(value.as_bytes());
    let _ = write!(value, "{hash:016x}");
    Bytes::from(value)
}

/// Judges a value found in `place`.
pub fn read_value(place: &Place<'_>, value: Option<&[u8]>) -> Content {
    let Some(value) = value else { return Content::Foreign };
    if !value.starts_with(MAGIC.as_bytes()) {
        return Content::Foreign;
    }
    parse(place, value).unwrap_or(Content::Corrupt)
}

fn parse(place: &Place<'_>, value: &[u8]) -> Option<Content> {
    let (body, digits) = value.split_at_checked(value.len().checked_sub(HASH_DIGITS)?)?;
    let digits = std::str::from_utf8(digits).ok()?;
    if u64::from_str_radix(digits, 16).ok()? != hash(body) {
        return None;
    }
    let mut fields = std::str::from_utf8(body).ok()?.split(' ').skip(1);
    if fields.next()? != place.run {
        return Some(Content::Foreign);
    }
    if fields.next()? != place.topic || fields.next()?.parse() != Ok(place.partition) {
        return None;
    }
    Some(Content::Ours { producer: fields.next()?.parse().ok()?, sequence: fields.next()?.parse().ok()? })
}

/// FNV-1a, 64 bits: enough to notice damage, which is not malicious here.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { run: "r1", topic: "t", partition: 3 };

    #[test]
    fn a_value_says_what_it_is_at_any_size() {
        for bytes in [0, 60, 61, 100, 1_000] {
            let value = write_value(&PLACE, 2, 41, bytes);
            assert!(value.len() >= bytes);
            assert_eq!(read_value(&PLACE, Some(&value)), Content::Ours { producer: 2, sequence: 41 });
        }
        assert_eq!(write_value(&PLACE, 2, 41, 1_000).len(), 1_000);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let value = write_value(&PLACE, 2, 41, 80);
        for index in MAGIC.len()..value.len() {
            let mut damaged = value.to_vec();
            damaged[index] ^= 0x01;
            assert_eq!(read_value(&PLACE, Some(&damaged)), Content::Corrupt, "byte {index}");
        }
        assert_eq!(read_value(&PLACE, Some(&value[..value.len() - 1])), Content::Corrupt);
    }

    #[test]
    fn a_value_in_the_wrong_partition_is_corrupt_and_another_runs_is_foreign() {
        let value = write_value(&PLACE, 2, 41, 80);
        assert_eq!(read_value(&Place { partition: 4, ..PLACE }, Some(&value)), Content::Corrupt);
        assert_eq!(read_value(&Place { topic: "u", ..PLACE }, Some(&value)), Content::Corrupt);
        assert_eq!(read_value(&Place { run: "r2", ..PLACE }, Some(&value)), Content::Foreign);
        assert_eq!(read_value(&PLACE, Some(b"hello")), Content::Foreign);
        assert_eq!(read_value(&PLACE, None), Content::Foreign);
    }
}
