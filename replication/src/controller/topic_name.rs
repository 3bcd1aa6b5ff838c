//! Which names a topic may have (`org.apache.kafka.common.internals.Topic`).

use stonelog_protocol::error_code::ErrorCode;

use super::Reject;
use crate::metadata::MetadataImage;

/// The longest name in bytes: with `-` and a partition's digits it still names a directory.
const NAME_LEN_MAX: usize = 249;

/// The name of KRaft's own log, which is no topic here either.
pub(super) const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// Refuses names Kafka refuses, in its words.
pub fn validate_topic_name(name: &str) -> Result<(), Reject> {
    let why = if name.is_empty() {
        "the empty string is not allowed".to_owned()
    } else if name == "." || name == ".." {
        format!("'{name}' is not allowed")
    } else if name.len() > NAME_LEN_MAX {
        format!("the length of '{name}' is longer than the max allowed length {NAME_LEN_MAX}")
    } else if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        format!("'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'")
    } else {
        return Ok(());
    };
    Err(Reject::new(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {why}")))
}

/// Refuses a name that differs from an existing one only in `.` and `_`: metric names would be the same.
pub(super) fn refuse_collision(image: &MetadataImage, name: &str) -> Result<(), Reject> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let same = |(one, other): (u8, u8)| one == other || (matches!(one, b'.' | b'_') && matches!(other, b'.' | b'_'));
    // Every topic is looked at for every name of a request: nothing is allocated, and lengths mostly tell.
    let collides =
        |other: &str| other.len() == name.len() && other != name && other.bytes().zip(name.bytes()).all(same);
    match image.topics().find(|topic| collides(&topic.name)) {
        None => Ok(()),
        Some(other) => Err(Reject::new(
            ErrorCode::InvalidTopicException,
            format!("Topic '{name}' collides with existing topic: {}", other.name),
        )),
    }
}
