//! Named kinds of number and identifier, so that a leader epoch is never passed for a partition epoch.
//!
//! All are plain values with no arithmetic beyond what has a meaning.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A broker's (and controller's) `node.id`.
    BrokerId(i32)
);
number!(
    /// A partition's index within its topic, from 0.
    PartitionIndex(i32)
);
number!(
    /// Raised by one whenever a partition's leadership changes; stamps every batch (KIP-101).
    LeaderEpoch(i32)
);
number!(
    /// Raised by one on every change of a partition's registration; guards ISR changes (KIP-497).
    PartitionEpoch(i32)
);
number!(
    /// Identifies one incarnation of a broker: the metadata index at which it registered (KIP-631).
    BrokerEpoch(i64)
);
number!(
    /// An idempotent producer's identifier (KIP-98). `-1` on the wire means none.
    ProducerId(i64)
);
number!(
    /// An idempotent producer's epoch.
    ProducerEpoch(i16)
);

impl LeaderEpoch {
    /// "Unknown" on the wire.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
}

impl ProducerId {
    /// "Not idempotent" on the wire.
    pub const NONE: ProducerId = ProducerId(-1);
}

impl ProducerEpoch {
    /// "Not idempotent" on the wire.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
}

/// A Kafka UUID: 16 bytes, printed as URL-safe base64 without padding (`org.apache.kafka.common.Uuid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The all-zero identifier, which names nothing.
    pub const ZERO: Uuid = Uuid([0; 16]);

    /// Whether this is [`Uuid::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Uuid::ZERO
    }

    /// A version 4 UUID made of 16 random bytes. Kafka never uses one whose text begins with `-`
    /// (it reads as an option on a command line), so the top bit pattern is mapped away from it.
    pub fn from_random(mut bytes: [u8; 16]) -> Uuid {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        if bytes[0] >> 2 == 0b11_1110 {
            bytes[0] &= 0x7f;
        }
        Uuid(bytes)
    }

    /// Reads the 22-character text form.
    pub fn parse(text: &str) -> Option<Uuid> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Uuid(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl From<uuid::Uuid> for Uuid {
    fn from(uuid: uuid::Uuid) -> Uuid {
        Uuid(uuid.into_bytes())
    }
}

impl From<Uuid> for uuid::Uuid {
    fn from(uuid: Uuid) -> uuid::Uuid {
        uuid::Uuid::from_bytes(uuid.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A topic's identifier; never reused, so a deleted and re-created topic differs (KIP-516).
pub type TopicId = Uuid;
/// A log directory's identifier, kept in its `meta.properties` (KIP-858).
pub type DirectoryId = Uuid;

/// The cluster's identifier; Kafka's are UUID texts but any non-empty text is legal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub Arc<str>);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one incarnation of a topic: the identity of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// The partition within it.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_text_round_trips() {
        let uuid = Uuid::from_random([0xff; 16]);
        let text = uuid.to_string();
        assert_eq!(text.len(), 22);
        assert!(!text.starts_with('-'));
        assert_eq!(Uuid::parse(&text), Some(uuid));
        assert_eq!(Uuid::parse("short"), None);
    }
}
