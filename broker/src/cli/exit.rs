//! Exit codes, and errors told as: what happened, where, what to do.

use std::io;
use std::process::ExitCode;

use stonelog_protocol::ErrorCode;

use crate::client;

/// The list shown by `--help`.
pub(super) const HELP: &str = "Exit codes:
    0  done
    1  failed
    2  wrong usage
    3  not found
    4  refused by the broker (not authorized, or against a policy)
    5  no broker could be reached
    6  out of time
    7  done in part
    8  a precondition is not met; nothing was changed
   10  unhealthy
   11  a data integrity problem was found
  130  interrupted";

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed for a reason that has no code of its own.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// The broker refuses.
    Refused,
    /// No broker could be reached.
    Unreachable,
    /// Out of time.
    TimedOut,
    /// Some of it was done.
    Partial,
    /// Nothing was done because a precondition is not met.
    Precondition,
    /// The cluster is unhealthy.
    Unhealthy,
    /// Records are lost, duplicated, reordered or corrupted.
    Integrity,
    /// Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Refused => 4,
            Exit::Unreachable => 5,
            Exit::TimedOut => 6,
            Exit::Partial => 7,
            Exit::Precondition => 8,
            Exit::Unhealthy => 10,
            Exit::Integrity => 11,
            Exit::Interrupted => 130,
        })
    }
}

/// A command's error, ready to be told.
#[derive(Debug)]
pub struct Failure {
    /// How the command ends.
    pub exit: Exit,
    /// What happened and where.
    what: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), hint: None }
    }

    /// The same with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Tells it on standard error, and gives the code to exit with.
    pub(super) fn report(self) -> ExitCode {
        if !self.what.is_empty() {
            note!("error: {}", self.what);
        }
        if let Some(hint) = &self.hint {
            note!("  try: {hint}");
        }
        self.exit.into()
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        // The reader of our output has seen enough: no error, nothing to say.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Done, "");
        }
        Failure::new(Exit::Failed, format!("reading or writing here: {error}"))
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let failure = Failure::new(exit_of(&error), error.to_string());
        match hint_of(&error) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn exit_of(error: &client::Error) -> Exit {
    match error {
        client::Error::Unreachable { .. } | client::Error::Disconnected { .. } => Exit::Unreachable,
        client::Error::Timeout { .. } => Exit::TimedOut,
        client::Error::Corrupt { .. } => Exit::Integrity,
        client::Error::Refused { code, .. } => match code {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::GroupIdNotFound
            | ErrorCode::ResourceNotFound => Exit::NotFound,
            ErrorCode::TopicAuthorizationFailed
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::ClusterAuthorizationFailed
            | ErrorCode::TransactionalIdAuthorizationFailed
            | ErrorCode::SaslAuthenticationFailed
            | ErrorCode::PolicyViolation
            | ErrorCode::TopicDeletionDisabled => Exit::Refused,
            ErrorCode::RequestTimedOut => Exit::TimedOut,
            ErrorCode::TopicAlreadyExists | ErrorCode::NonEmptyGroup | ErrorCode::ReassignmentInProgress => {
                Exit::Precondition
            }
            _ => Exit::Failed,
        },
        _ => Exit::Failed,
    }
}

fn hint_of(error: &client::Error) -> Option<String> {
    let hint = match error {
        client::Error::Unreachable { advertised_by: Some(_), .. } => {
            "if it runs, set `advertised.listeners` there to an address that clients can reach"
        }
        client::Error::Unreachable { .. } => {
            "is the broker running, and is this its address? Start one with `stonelog serve`, or give --brokers HOST:PORT"
        }
        client::Error::Disconnected { .. } => {
            "the port may belong to something else, or the broker is stopping; look at its log"
        }
        client::Error::Timeout { .. } => "raise --timeout, or look whether the broker's disk or network is stuck",
        client::Error::Malformed { .. } => "is this a Kafka port, without TLS? Give another with --brokers",
        client::Error::Corrupt { .. } => "keep the broker's data directory as it is and look at its log",
        client::Error::Refused { code, .. } => match code {
            ErrorCode::UnknownTopicOrPartition => {
                "`stonelog topic list` shows what exists; `stonelog topic create NAME` makes one"
            }
            ErrorCode::GroupIdNotFound => "`stonelog group list` shows what exists",
            ErrorCode::TopicAlreadyExists => "add --if-not-exists if that is fine",
            ErrorCode::InvalidReplicationFactor => "there may be fewer brokers than replicas; leave --replicas out",
            _ => return None,
        },
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_code(code: i16) -> Exit {
        Failure::from(client::Error::check(code, "x", None).unwrap_err()).exit
    }

    #[test]
    fn broker_errors_have_the_documented_exit_codes() {
        assert_eq!(exit_code(3), Exit::NotFound);
        assert_eq!(exit_code(29), Exit::Refused);
        assert_eq!(exit_code(7), Exit::TimedOut);
        assert_eq!(exit_code(36), Exit::Precondition);
        assert_eq!(exit_code(37), Exit::Failed);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.exit, Exit::Done);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }
}
