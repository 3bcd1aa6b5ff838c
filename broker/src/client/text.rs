//! Conversions between Rust's texts and identifiers and those of the protocol crate.

use stonelog_protocol::StrBytes;
use stonelog_protocol::messages::{GroupId, TopicName};

/// A protocol text.
pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A protocol topic name.
pub(crate) fn topic_name(value: &str) -> TopicName {
    TopicName(text(value))
}

/// A protocol group id.
pub(crate) fn group_id(value: &str) -> GroupId {
    GroupId(text(value))
}
