//! What can go wrong between this client and a cluster.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::ErrorCode;
use thiserror::Error;

/// Why a call to the cluster failed.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect to {broker}{}: {cause}", origin(*advertised_by))]
    Unreachable {
        /// `host:port`.
        broker: String,
        /// The broker that names this address as its own; `None` for an address that the user gave.
        advertised_by: Option<i32>,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// The connection ended while an answer was awaited; the broker may have acted.
    #[error("{broker} closed the connection before answering {api}: {cause}")]
    Disconnected {
        /// `host:port`.
        broker: String,
        /// Name of the request.
        api: String,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// No answer within the time allowed; the broker may have acted.
    #[error("{broker} did not answer {api} within {} ms", after.as_millis())]
    Timeout {
        /// `host:port`.
        broker: String,
        /// Name of the request.
        api: String,
        /// How long was waited.
        after: Duration,
    },
    /// The broker serves no version of a request that this client speaks.
    #[error("{broker} does not serve {api} in a version known here (it has {theirs}, known here are {ours})")]
    Unsupported {
        /// `host:port`.
        broker: String,
        /// Name of the request.
        api: String,
        /// The broker's range, or "none".
        theirs: String,
        /// The client's range.
        ours: String,
    },
    /// The answer cannot be read.
    #[error("the answer of {broker} to {api} cannot be read: {reason}")]
    Malformed {
        /// `host:port`.
        broker: String,
        /// Name of the request.
        api: String,
        /// What does not fit.
        reason: String,
    },
    /// The request cannot be put into the version negotiated.
    #[error("{api} cannot be sent to {broker}: {reason}")]
    Unsendable {
        /// `host:port`.
        broker: String,
        /// Name of the request.
        api: String,
        /// What does not fit.
        reason: String,
    },
    /// The broker answered with an error.
    #[error("{subject}: {}", explain(*code, message))]
    Refused {
        /// What the request was about: a topic, a partition, a group.
        subject: String,
        /// The error.
        code: ErrorCode,
        /// The broker's own words, where the version has room for them.
        message: Option<String>,
    },
    /// Record bytes that were fetched are damaged or make no sense.
    #[error("partition {topic}-{partition} at offset {offset}: {reason}")]
    Corrupt {
        /// Topic name.
        topic: String,
        /// Partition index.
        partition: i32,
        /// The position that was being read.
        offset: i64,
        /// What is wrong with the bytes.
        reason: String,
    },
    /// The answer lacks what was asked for.
    #[error("{subject}: the answer does not mention it")]
    Missing {
        /// What was asked for.
        subject: String,
    },
    /// A broker's answer holds an error number unknown here.
    #[error("{subject}: unknown error number {code}")]
    UnknownCode {
        /// What the request was about.
        subject: String,
        /// The number.
        code: i16,
    },
}

fn origin(advertised_by: Option<i32>) -> String {
    advertised_by.map_or(String::new(), |id| format!(", which broker {id} advertises as its address"))
}

fn explain(code: ErrorCode, message: &Option<String>) -> String {
    match message {
        Some(message) if !message.is_empty() => format!("{message} ({code})"),
        _ => format!("{} ({code})", code.message()),
    }
}

impl Error {
    /// `Ok` for error number 0, else the error about `subject`.
    pub fn check(code: i16, subject: impl Into<String>, message: Option<&str>) -> Result<(), Error> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(()),
            Some(code) => Err(Error::Refused { subject: subject.into(), code, message: message.map(str::to_owned) }),
            None => Err(Error::UnknownCode { subject: subject.into(), code }),
        }
    }

    /// The broker's error code, if the broker answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same call may succeed later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Disconnected { .. } | Error::Timeout { .. } => true,
            Error::Refused { code, .. } => code.is_retriable(),
            Error::Missing { .. } => true,
            _ => false,
        }
    }

    /// Whether the broker may have done what was asked although no answer says so.
    pub fn may_have_acted(&self) -> bool {
        match self {
            Error::Disconnected { .. } | Error::Timeout { .. } | Error::Malformed { .. } => true,
            Error::Refused { code, .. } => matches!(
                code,
                ErrorCode::RequestTimedOut
                    | ErrorCode::NotEnoughReplicasAfterAppend
                    | ErrorCode::NotLeaderOrFollower
                    | ErrorCode::NetworkException
                    | ErrorCode::UnknownServerError
                    | ErrorCode::KafkaStorageError
                    | ErrorCode::DuplicateSequenceNumber
            ),
            Error::Missing { .. } | Error::UnknownCode { .. } => true,
            Error::Unreachable { .. }
            | Error::Unsupported { .. }
            | Error::Unsendable { .. }
            | Error::Corrupt { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_error_and_the_brokers_words_win() {
        assert!(Error::check(0, "topic a", None).is_ok());
        let error = Error::check(37, "topic a", Some("too many")).unwrap_err();
        assert_eq!(error.to_string(), "topic a: too many (INVALID_PARTITIONS)");
        let error = Error::check(3, "topic a", None).unwrap_err();
        assert!(error.to_string().ends_with("(UNKNOWN_TOPIC_OR_PARTITION)"));
        assert!(error.is_retriable());
    }

    #[test]
    fn what_may_have_been_stored_is_not_a_definite_failure() {
        for code in [6, 7, 20] {
            assert!(Error::check(code, "p", None).unwrap_err().may_have_acted(), "{code}");
        }
        for code in [10, 19, 87] {
            assert!(!Error::check(code, "p", None).unwrap_err().may_have_acted(), "{code}");
        }
    }
}
