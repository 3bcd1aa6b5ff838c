//! The bytes of what brokers ask the active controller, and of what it answers.
//!
//! A request travels in [`Ask`](stonelog_protocol::peer::control::Ask), its outcome in [`Answer`]. Nothing here sends,
//! waits or decides. What comes from the network is read with every count held against the bytes at hand, every text
//! and list bounded, unknown versions and kinds refused, and nothing left over; and whatever is read is written back to
//! the same bytes. See "Between nodes" in `docs/formats.md`.

mod requests;
mod responses;
mod values;

use bytes::Bytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::control::{Answer, REQUEST_BYTES_MAX};
use stonelog_protocol::{BrokerId, Uuid};

use super::{ControllerError, ControllerRequest, ControllerResponse, Reject};
use crate::metadata::codec::{DecodeError, Reader, Writer};

pub use values::{ELEMENTS_MAX, TEXT_BYTES_MAX};

/// The version of the layouts.
const VERSION: u8 = 1;
/// The longest response, in bytes, so that it fits a frame. A longer one goes without its messages and warnings.
pub const RESPONSE_BYTES_MAX: usize = 15 << 20;

macro_rules! kinds {
    ($($code:literal $name:ident)*) => {
        /// Which request, or the response to which. The numbers are those on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $(
                #[doc = concat!("See [`ControllerRequest::", stringify!($name), "`].")]
                $name = $code,
            )*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            fn from_code(code: u8) -> Result<Kind, DecodeError> {
                match code {
                    $($code => Ok(Kind::$name),)*
                    _ => Err(DecodeError::Invalid("kind of request")),
                }
            }
        }

        impl ControllerRequest {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $(ControllerRequest::$name { .. } => Kind::$name,)*
                }
            }
        }

        impl ControllerResponse {
            /// The kind of the request it answers.
            pub fn kind(&self) -> Kind {
                match self {
                    $(ControllerResponse::$name { .. } => Kind::$name,)*
                }
            }
        }
    };
}

kinds! {
    1 RegisterBroker
    2 Heartbeat
    3 UnregisterBroker
    4 CreateTopics
    5 DeleteTopics
    6 CreatePartitions
    7 IncrementalAlterConfigs
    8 AlterConfigs
    9 AllocateProducerIds
    10 AlterPartition
    11 ElectLeaders
    12 FenceBroker
    13 BalanceLeaders
    14 AcceptLoss
    15 AlterReassignments
    16 AssignReplicas
    17 RaiseInternalTopics
    18 DescribeQuorum
    19 ReadBarrier
    20 WhoIsBehind
    21 ChangeVoters
}

/// A request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The index of the image that the response rests on, or of a later one. Whoever asked acts on it, or passes it on to
    /// a client, after its own image has come so far.
    pub at: u64,
    /// What was decided; committed and applied where it was.
    pub response: ControllerResponse,
}

/// The bytes of a request. One that nobody could read is refused: POLICY_VIOLATION, as Kafka's controller has it.
pub fn encode_request(request: &ControllerRequest) -> Result<Bytes, Reject> {
    let mut out = Writer::new();
    out.u8(VERSION);
    out.u8(request.kind() as u8);
    requests::encode(request, &mut out);
    let bytes = out.finish();
    if bytes.len() > REQUEST_BYTES_MAX || decode_request(&bytes).is_err() {
        let message = "Unable to perform excessively large batch operation.";
        return Err(Reject::new(ErrorCode::PolicyViolation, message));
    }
    Ok(bytes.into())
}

/// Reads what [`encode_request`] wrote.
pub fn decode_request(bytes: &[u8]) -> Result<ControllerRequest, DecodeError> {
    let mut input = Reader::new(bytes);
    let kind = head("controller request", &mut input)?;
    let request = requests::decode(kind, &mut input)?;
    input.end()?;
    Ok(request)
}

/// The bytes of what was decided, at most [`RESPONSE_BYTES_MAX`] where that can be had by leaving out words.
pub fn encode_decided(decided: &Decided) -> Bytes {
    let whole = encode_with(decided, values::MESSAGE_BYTES_MAX);
    if whole.len() <= RESPONSE_BYTES_MAX { whole.into() } else { encode_with(decided, 0).into() }
}

fn encode_with(decided: &Decided, message_bytes_max: usize) -> Vec<u8> {
    let Decided { at, response } = decided;
    let mut out = Writer::new();
    out.u8(VERSION);
    out.u8(response.kind() as u8);
    out.u64(*at);
    responses::encode(response, message_bytes_max, &mut out);
    out.finish()
}

/// Reads what [`encode_decided`] wrote.
pub fn decode_decided(bytes: &[u8]) -> Result<Decided, DecodeError> {
    let mut input = Reader::new(bytes);
    let kind = head("controller response", &mut input)?;
    let decided = Decided { at: input.u64()?, response: responses::decode(kind, &mut input)? };
    input.end()?;
    Ok(decided)
}

fn head(what: &'static str, input: &mut Reader<'_>) -> Result<Kind, DecodeError> {
    match input.u8()? {
        VERSION => Kind::from_code(input.u8()?),
        version => Err(DecodeError::UnknownVersion { what, version }),
    }
}

/// What the active controller answers over the network. `at` is the index of its image now that the outcome is known.
pub fn answer_to(outcome: &Result<ControllerResponse, ControllerError>, at: u64) -> Answer {
    match outcome {
        Ok(response) => {
            let bytes = encode_decided(&Decided { at, response: response.clone() });
            // Nothing that is asked in a request of bounded length is answered at such a length, but for an election in
            // all partitions of a very large cluster: that has its effect, and no answer.
            if bytes.len() <= RESPONSE_BYTES_MAX { Answer::Decided(bytes) } else { Answer::Unknown }
        }
        Err(ControllerError::Rejected(Reject { code, message })) => {
            Answer::Rejected { code: *code, message: message.as_str().into() }
        }
        Err(ControllerError::NotController(leader)) => Answer::NotController(*leader),
        // It stopped with the request at hand, proposed or not.
        Err(ControllerError::Unknown | ControllerError::Stopped) => Answer::Unknown,
    }
}

/// What came of a request of that kind. What cannot be read has been decided all the same: its outcome is unknown.
pub fn outcome_of(kind: Kind, answer: Answer) -> Result<Decided, ControllerError> {
    match answer {
        Answer::Decided(bytes) => match decode_decided(&bytes) {
            Ok(decided) if decided.response.kind() == kind => Ok(decided),
            Ok(_) | Err(_) => Err(ControllerError::Unknown),
        },
        Answer::Rejected { code, message } => Err(Reject::new(code, &*message).into()),
        Answer::NotController(leader) => Err(ControllerError::NotController(leader)),
        Answer::Unknown => Err(ControllerError::Unknown),
    }
}

/// Whether a broker that has proved itself may ask this: it speaks for itself only, or for a client that its broker has
/// authorized, and never as the controller.
pub fn may_ask(from: BrokerId, request: &ControllerRequest) -> bool {
    match request {
        ControllerRequest::RegisterBroker(request) => request.id == from && request.incarnation != Uuid::ZERO,
        ControllerRequest::Heartbeat(heartbeat) => heartbeat.id == from,
        ControllerRequest::AllocateProducerIds(request) => request.broker == from,
        ControllerRequest::AlterPartition(request) => request.broker == from,
        ControllerRequest::AssignReplicas(request) => request.broker == from,
        ControllerRequest::UnregisterBroker(_)
        | ControllerRequest::CreateTopics(_)
        | ControllerRequest::DeleteTopics(_)
        | ControllerRequest::CreatePartitions(_)
        | ControllerRequest::IncrementalAlterConfigs(_)
        | ControllerRequest::AlterConfigs(_)
        | ControllerRequest::ElectLeaders(_)
        | ControllerRequest::ReadBarrier
        | ControllerRequest::AcceptLoss(_)
        | ControllerRequest::AlterReassignments(_)
        | ControllerRequest::DescribeQuorum
        | ControllerRequest::ChangeVoters(_)
        | ControllerRequest::WhoIsBehind(_) => true,
        ControllerRequest::FenceBroker(_)
        | ControllerRequest::BalanceLeaders
        | ControllerRequest::RaiseInternalTopics => false,
    }
}

/// Whether a request that may have had its effect can be asked again: the second time comes to the same, and its answer
/// is the one that the first would have had. A topic made twice exists already, and what was deleted or set may have
/// been made or set anew by somebody else meanwhile; wishes for in-sync sets have their own way of trying again
/// ([`crate::isr_proposal`]).
pub fn may_repeat(request: &ControllerRequest) -> bool {
    match request {
        ControllerRequest::RegisterBroker(_)
        | ControllerRequest::Heartbeat(_)
        // A block that nobody got is left out.
        | ControllerRequest::AllocateProducerIds(_)
        | ControllerRequest::AssignReplicas(_)
        | ControllerRequest::FenceBroker(_)
        | ControllerRequest::BalanceLeaders
        | ControllerRequest::RaiseInternalTopics
        | ControllerRequest::DescribeQuorum
        | ControllerRequest::ReadBarrier
        | ControllerRequest::ChangeVoters(_)
        | ControllerRequest::WhoIsBehind(_) => true,
        ControllerRequest::CreateTopics(request) => request.validate_only,
        ControllerRequest::CreatePartitions(request) => request.validate_only,
        ControllerRequest::IncrementalAlterConfigs(request) => request.validate_only,
        ControllerRequest::AlterConfigs(request) => request.validate_only,
        ControllerRequest::UnregisterBroker(_)
        | ControllerRequest::DeleteTopics(_)
        | ControllerRequest::AlterPartition(_)
        | ControllerRequest::ElectLeaders(_)
        | ControllerRequest::AcceptLoss(_)
        | ControllerRequest::AlterReassignments(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BrokerHeartbeat, FenceBroker, HeartbeatState};
    use super::*;
    use stonelog_protocol::BrokerEpoch;

    fn heartbeat() -> ControllerRequest {
        ControllerRequest::Heartbeat(BrokerHeartbeat {
            id: BrokerId(2),
            epoch: BrokerEpoch(9),
            metadata_index: 7,
            want_fence: false,
            want_shutdown: true,
            online_directories: None,
        })
    }

    #[test]
    fn layout_of_a_request_is_the_documented_one() {
        let expected = vec![1, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 0];
        assert_eq!(encode_request(&heartbeat()), Ok(Bytes::from(expected)));
    }

    #[test]
    fn layout_of_a_response_is_the_documented_one() {
        let state = HeartbeatState { is_caught_up: true, is_fenced: false, should_shut_down: true };
        let decided = Decided { at: 5, response: ControllerResponse::Heartbeat(state) };
        assert_eq!(encode_decided(&decided), Bytes::from_static(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0, 1]));
    }

    #[test]
    fn request_nobody_could_read_is_refused_before_it_is_sent() {
        let request = ControllerRequest::DeleteTopics(super::super::DeleteTopics {
            topics: vec![super::super::TopicReference::Name("t".repeat(TEXT_BYTES_MAX + 1))],
        });
        assert_eq!(encode_request(&request).map_err(|reject| reject.code), Err(ErrorCode::PolicyViolation));
    }

    #[test]
    fn broker_speaks_for_itself_and_never_as_the_controller() {
        assert!(may_ask(BrokerId(2), &heartbeat()));
        assert!(!may_ask(BrokerId(3), &heartbeat()));
        let fence = ControllerRequest::FenceBroker(FenceBroker { id: BrokerId(2), epoch: BrokerEpoch(9) });
        assert!(!may_ask(BrokerId(2), &fence));
    }

    #[test]
    fn outcomes_come_through() {
        let outcomes = [
            Ok(ControllerResponse::UnregisterBroker),
            Err(Reject::new(ErrorCode::StaleBrokerEpoch, "why").into()),
            Err(ControllerError::NotController(Some(BrokerId(3)))),
            Err(ControllerError::NotController(None)),
            Err(ControllerError::Unknown),
        ];
        for outcome in outcomes {
            let answer = Answer::decode(answer_to(&outcome, 4).encode()).unwrap();
            let expected = outcome.map(|response| Decided { at: 4, response });
            assert_eq!(outcome_of(Kind::UnregisterBroker, answer), expected);
        }
    }

    #[test]
    fn answer_to_something_else_is_no_answer() {
        let answer = answer_to(&Ok(ControllerResponse::UnregisterBroker), 4);
        assert_eq!(outcome_of(Kind::Heartbeat, answer), Err(ControllerError::Unknown));
        let garbage = Answer::Decided(Bytes::from_static(&[1, 2, 3]));
        assert_eq!(outcome_of(Kind::Heartbeat, garbage), Err(ControllerError::Unknown));
    }

    #[test]
    fn response_that_fits_no_frame_goes_without_words() {
        let topic = |index: usize| super::super::PartitionsResult {
            topic: format!("t{index}"),
            result: Err(Reject::new(ErrorCode::InvalidPartitions, "x".repeat(5_000))),
        };
        let response = ControllerResponse::CreatePartitions((0..5_000).map(topic).collect());
        let bytes = encode_decided(&Decided { at: 1, response });
        assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
        let Ok(ControllerResponse::CreatePartitions(results)) = decode_decided(&bytes).map(|decided| decided.response)
        else {
            panic!("another response");
        };
        assert_eq!(results[4_999].result, Err(Reject::new(ErrorCode::InvalidPartitions, "")));
    }
}
