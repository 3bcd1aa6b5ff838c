//! The one thing a coordinator reads inside a member's metadata: which topics a consumer subscribes to.
//!
//! Only the first fields of `ConsumerProtocolSubscription` are read, those of version 0, which prefix every later one:
//! `version i16, topics count i32, each string`. What does not parse is unknown, and the group then counts as
//! subscribed to every topic.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The protocol type of consumers; other types' metadata is theirs alone.
pub(super) const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// The topics named by one member's metadata; `None` if it is not a consumer's.
pub(super) fn subscribed_topics(metadata: &[u8]) -> Option<BTreeSet<Arc<str>>> {
    let mut rest = metadata;
    let version = i16::from_be_bytes(take(&mut rest)?);
    if version < 0 {
        return None;
    }
    let count = i32::from_be_bytes(take(&mut rest)?);
    let mut topics = BTreeSet::new();
    // Each topic takes at least two bytes of the input, so a count that lies ends the loop early.
    for _ in 0..u32::try_from(count).ok()? {
        let length = i16::from_be_bytes(take(&mut rest)?);
        let (text, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = after;
        topics.insert(Arc::from(std::str::from_utf8(text).ok()?));
    }
    Some(topics)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_of_any_version_are_read() {
        for version in [0u8, 1, 3] {
            let bytes = [&[0, version][..], b"\x00\x00\x00\x02\x00\x01a\x00\x02bc", b"\xff\xff\xff\xffmore"].concat();
            let topics = subscribed_topics(&bytes).unwrap();
            assert_eq!(topics.iter().map(|topic| &**topic).collect::<Vec<_>>(), ["a", "bc"]);
        }
    }

    #[test]
    fn what_is_no_subscription_is_unknown() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\xff\xff\x00\x00\x00\x00",
            b"\x00\x00\xff\xff\xff\xff",
            b"\x00\x00\x7f\xff\xff\xff\x00\x01a",
            b"\x00\x00\x00\x00\x00\x01\x00\x02a",
            b"\x00\x00\x00\x00\x00\x01\x00\x01\xff",
        ] {
            assert_eq!(subscribed_topics(bytes), None, "{bytes:?}");
        }
    }
}
