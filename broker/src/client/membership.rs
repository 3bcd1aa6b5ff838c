//! What members of a consumer group tell each other through the coordinator: subscriptions and assignments.
//!
//! The bytes are Kafka's `ConsumerProtocol`; the coordinator does not look into them. They come from other clients, so
//! every count is checked against the bytes that are there. Fields after those needed here are skipped.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Version 0 of both: all that the range assignor needs, understood by every client.
const VERSION: i16 = 0;

/// A member's subscription in bytes.
pub fn write_subscription(topics: &[String]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        put_string(&mut out, topic);
    }
    out.put_i32(-1);
    out.freeze()
}

/// The topics of a subscription; `None` when the bytes are not one.
pub fn read_subscription(mut bytes: Bytes) -> Option<Vec<String>> {
    bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(get_string(&mut bytes)?);
    }
    Some(topics)
}

/// An assignment in bytes. `assigned` holds partitions of one topic next to each other.
pub fn write_assignment(assigned: &[(String, i32)]) -> Bytes {
    let by_topic: Vec<&[(String, i32)]> = assigned.chunk_by(|a, b| a.0 == b.0).collect();
    let mut out = BytesMut::new();
    out.put_i16(VERSION);
    out.put_i32(by_topic.len() as i32);
    for partitions in by_topic {
        put_string(&mut out, &partitions[0].0);
        out.put_i32(partitions.len() as i32);
        for (_, partition) in partitions {
            out.put_i32(*partition);
        }
    }
    out.put_i32(-1);
    out.freeze()
}

/// Topic and partition of everything assigned; `None` when the bytes are no assignment. No bytes assign nothing.
pub fn read_assignment(mut bytes: Bytes) -> Option<Vec<(String, i32)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    let mut assigned = Vec::new();
    for _ in 0..count {
        let topic = get_string(&mut bytes)?;
        let partitions = bytes.try_get_i32().ok()?;
        for _ in 0..partitions {
            assigned.push((topic.clone(), bytes.try_get_i32().ok()?));
        }
    }
    Some(assigned)
}

fn put_string(out: &mut BytesMut, value: &str) {
    // Topic names are at most 249 bytes.
    out.put_i16(value.len() as i16);
    out.put_slice(value.as_bytes());
}

fn get_string(bytes: &mut Bytes) -> Option<String> {
    let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
    if length > bytes.len() {
        return None;
    }
    String::from_utf8(bytes.split_to(length).to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscription_bytes_are_kafkas() {
        let bytes = write_subscription(&["ab".to_owned()]);
        assert_eq!(&bytes[..], b"\x00\x00\x00\x00\x00\x01\x00\x02ab\xff\xff\xff\xff");
        assert_eq!(read_subscription(bytes), Some(vec!["ab".to_owned()]));
    }

    #[test]
    fn assignment_reads_back() {
        let assigned = vec![("t".to_owned(), 1), ("t".to_owned(), 4), ("u".to_owned(), 0)];
        assert_eq!(read_assignment(write_assignment(&assigned)), Some(assigned));
        assert_eq!(read_assignment(Bytes::new()), Some(Vec::new()));
    }

    #[test]
    fn cut_or_lying_bytes_are_refused() {
        let whole = write_assignment(&[("topic".to_owned(), 3)]);
        for length in 1..whole.len() - 4 {
            assert_eq!(read_assignment(whole.slice(..length)), None, "{length} bytes");
        }
        assert_eq!(read_subscription(Bytes::from_static(b"\x00\x00\x7f\xff\xff\xff")), None);
    }
}
