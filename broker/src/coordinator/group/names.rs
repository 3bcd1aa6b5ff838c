//! Names in the life of a group: the group's, a member's, a static member's.
//!
//! A name is at most [`TEXT_BYTES_MAX`] bytes, because it must fit a record; longer ones are refused where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use stonelog_protocol::Uuid;
use thiserror::Error;

/// The longest text a record can hold, in bytes: its length is a signed 16-bit number.
pub const TEXT_BYTES_MAX: usize = i16::MAX as usize;

/// A client id is cut to this many bytes before it becomes part of a member id.
const MEMBER_ID_CLIENT_BYTES_MAX: usize = 255;

/// The text is longer than a record can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a name of {0} bytes is longer than {TEXT_BYTES_MAX}")]
pub struct TooLong(pub usize);

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a name from a request; it may be empty.
            pub fn new(text: &str) -> Result<$name, TooLong> {
                if text.len() > TEXT_BYTES_MAX { Err(TooLong(text.len())) } else { Ok($name(Arc::from(text))) }
            }

            /// Takes a name that was read from a record, whose reader has checked its length.
            pub(crate) fn from_record(text: &str) -> $name {
                $name(Arc::from(text))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether the text is empty, which on the wire often means "none".
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// A group's `group.id`. The empty one is legal for commits, fetches, descriptions and deletions only.
    GroupId
);
name!(
    /// The id the coordinator gives a member. Empty means the member has none yet.
    MemberId
);
name!(
    /// A static member's own `group.instance.id` (KIP-345).
    InstanceId
);

impl MemberId {
    /// "None yet" on the wire (`JoinGroupRequest.UNKNOWN_MEMBER_ID`).
    pub fn unknown() -> MemberId {
        MemberId(Arc::from(""))
    }

    /// A new member's id: its instance id, or else its client id, and a random part (`ClassicGroup.generateMemberId`).
    pub fn generate(instance_id: Option<&InstanceId>, client_id: &str, random: Uuid) -> MemberId {
        let prefix = instance_id.map_or(client_id, InstanceId::as_str);
        let b = random.0;
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        MemberId(Arc::from(format!(
            "{}-{}-{}-{}-{}-{}",
            cut(prefix, MEMBER_ID_CLIENT_BYTES_MAX),
            hex(&b[..4]),
            hex(&b[4..6]),
            hex(&b[6..8]),
            hex(&b[8..10]),
            hex(&b[10..]),
        )))
    }
}

/// The longest start of `text` of at most `bytes_max` bytes.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_longer_than_a_record_can_hold_are_refused() {
        assert_eq!(GroupId::new(&"g".repeat(32_768)), Err(TooLong(32_768)));
        assert_eq!(GroupId::new(&"g".repeat(32_767)).unwrap().as_str().len(), 32_767);
    }

    #[test]
    fn member_id_is_prefix_and_uuid_text() {
        let random = Uuid([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0x4d, 0xef, 0x80, 0, 0, 0, 0, 0, 0, 0xff]);
        let id = MemberId::generate(None, "rdkafka", random);
        assert_eq!(id.as_str(), "rdkafka-01234567-89ab-4def-8000-0000000000ff");
        let instance = InstanceId::new("i1").unwrap();
        assert!(MemberId::generate(Some(&instance), "rdkafka", random).as_str().starts_with("i1-01234567-"));
    }

    #[test]
    fn long_client_ids_are_cut_at_a_character() {
        let id = MemberId::generate(None, &"ä".repeat(200), Uuid::ZERO);
        assert_eq!(id.as_str().len(), 254 + 37);
    }
}
