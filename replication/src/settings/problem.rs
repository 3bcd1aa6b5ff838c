//! Why a setting is not accepted. Every problem is INVALID_CONFIG (40) on the wire; the texts follow Kafka's, since
//! people search for them.

use super::definition::Kind;
use super::nearest::nearest;
use super::topic_keys::TOPIC_KEYS;

/// One setting that is not accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The key is no topic configuration.
    #[error("Unknown topic config name: {key}{}", did_you_mean(key))]
    UnknownTopicKey {
        /// As it was written.
        key: String,
    },
    /// The value is not one the key takes.
    #[error("Invalid value {value} for configuration {key}: {reason}")]
    Value {
        /// The key.
        key: String,
        /// As it was written, or `[hidden]` for a sensitive key.
        value: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// The value is legal in Kafka, and Stonelog does not do it.
    #[error("{key}={value} is refused: {why}")]
    Refused {
        /// The key.
        key: String,
        /// As it was written.
        value: String,
        /// The reason.
        why: &'static str,
    },
    /// Records may not be compacted both before the earliest and after the latest moment.
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLag {
        /// Effective `min.compaction.lag.ms`.
        min: i64,
        /// Effective `max.compaction.lag.ms`.
        max: i64,
    },
    /// An unclean election loses acknowledged records, and a strict topic promises not to.
    #[error(
        "unclean.leader.election.enable=true is refused on a strict topic (flush.messages=1): an unclean election \
         loses acknowledged records. Make the topic relaxed by a larger flush.messages if that is what it is for"
    )]
    UncleanOnStrict,
    /// Internal topics hold commits, which are always durable.
    #[error("flush.messages={value} is refused on {topic}: internal topics are always strict (flush.messages=1)")]
    RelaxedInternal {
        /// The internal topic.
        topic: String,
        /// The wished value.
        value: u64,
    },
    /// Only lists can be appended to or subtracted from.
    #[error("Can't {operation} to key {key} because its type is not LIST.")]
    NotAList {
        /// The key.
        key: String,
        /// `APPEND` or `SUBTRACT`.
        operation: &'static str,
    },
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Reason {
    /// It does not parse, or does not fit.
    #[error("Not a number of type {}", .0.name())]
    NotANumber(Kind),
    /// It is neither true nor false.
    #[error("Expected value to be either true or false")]
    NotABoolean,
    /// It is below the bound.
    #[error("Value must be at least {0}")]
    TooSmall(String),
    /// It is above the bound.
    #[error("Value must be no more than {0}")]
    TooLarge(String),
    /// It is none of the choices.
    #[error("String must be one of: {}", .0.join(", "))]
    NotOneOf(&'static [&'static str]),
    /// gzip has no such level.
    #[error("Value must be between 1 and 9 or equal to -1")]
    GzipLevel,
    /// It is not a list of replicas.
    #[error(
        "Must be the literal '*', 'none', or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId]:..."
    )]
    ThrottledReplicas,
    /// It is zero or below -1.
    #[error("Value must be -1 (for ever) or at least 1")]
    NotForeverOrPositive,
}

fn did_you_mean(key: &str) -> String {
    nearest(key, TOPIC_KEYS.iter().map(|definition| definition.name))
        .map(|known| format!(" (did you mean {known}?)"))
        .unwrap_or_default()
}

impl Problem {
    /// The key concerned, where it is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Problem::UnknownTopicKey { key }
            | Problem::Value { key, .. }
            | Problem::Refused { key, .. }
            | Problem::NotAList { key, .. } => Some(key),
            Problem::CompactionLag { .. } => Some("min.compaction.lag.ms"),
            Problem::UncleanOnStrict => Some("unclean.leader.election.enable"),
            Problem::RelaxedInternal { .. } => Some("flush.messages"),
        }
    }
}
