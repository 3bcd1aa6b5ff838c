//! What the controller decides: requests against an image become records and an answer.
//!
//! Pure and synchronous. [`decide`] reads one image and returns facts; it never changes anything. The time, fresh topic
//! ids and a seed for placement come in with the call; the rules of settings come in as [`rules::ConfigRules`]. The
//! carrier that runs this over the quorum is [`active`].
//!
//! Shaped after Kafka's `ReplicationControlManager`, `ClusterControlManager` and `ConfigurationControlManager`; the
//! texts of errors are Kafka's, for people search for them.

mod activation;
pub mod active;
mod brokers;
mod change;
mod configs;
mod directories;
pub mod duties;
mod elections;
mod entry;
mod features;
mod fencing;
mod isr;
pub mod liveness;
mod loss;
mod partitions;
mod placement;
mod producer_ids;
mod reassignments;
mod request;
mod response;
pub mod rules;
pub mod settings_rules;
mod topic_name;
mod topics;
mod waiting;
pub mod wire;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{ClusterId, Timestamp, TopicId};

use crate::metadata::{ApplyError, MetadataImage, MetadataRecord};

pub use crate::quorum::standing::{QuorumFacts, ReplicaFacts};
pub use crate::quorum::wishes::{VoterProgress, VoterWish};
pub use activation::{Activation, activation_records};
pub use active::{ControllerError, MetadataHandle, MetadataOptions, member, start};
pub use elections::PREFERRED_ELECTIONS_MAX;
pub use entry::RECORDS_PER_ENTRY_MAX;
pub use features::{SUPPORTED_FEATURES, bootstrap_records};
pub use producer_ids::PRODUCER_ID_BLOCK_LEN;
pub use request::{
    AcceptLoss, AllocateProducerIds, AlterConfigs, AlterPartition, AlterReassignments, AssignReplicas, BrokerHeartbeat,
    ChangeVoters, ConfigEdit, ConfigOperation, ControllerRequest, CreatePartitions, CreateTopics, DeleteTopics,
    ElectLeaders, ElectionType, FenceBroker, InSyncReplica, IncrementalAlterConfigs, NewPartitions, NewReplicas,
    NewTopic, PartitionIsr, RegisterBrokerRequest, ReplaceConfigs, ReportedDirectory, TopicReference,
    UnregisterBrokerRequest, WhoIsBehind,
};
pub use response::{
    AssignedReplica, Balanced, ConfigResult, ControllerResponse, CreatedTopic, DeletedTopic, ElectionResult,
    HeartbeatState, IsrResult, PartitionState, PartitionsResult, ProducerIdBlock, ReassignmentResult, RegisteredBroker,
    RegisteredDirectory, TopicResult,
};
pub use rules::{ConfigRules, Defaults, ListEdit};
pub use settings_rules::SettingsRules;
pub use topic_name::validate_topic_name;
pub use waiting::{WAIT_FOR_BROKERS, awaited_brokers, waits_for_brokers};

/// How many partitions one request may create (Kafka's `MAX_PARTITIONS_PER_BATCH`).
pub const PARTITIONS_PER_REQUEST_MAX: usize = 10_000;
/// How many records other than new partitions one request may write (Kafka's `MAX_RECORDS_PER_USER_OP`).
pub const RECORDS_PER_REQUEST_MAX: usize = 10_000;

/// A request that is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Reject {
    /// Kafka's error code.
    pub code: stonelog_protocol::error_code::ErrorCode,
    /// For a human; answers carry it where their version has room.
    pub message: String,
}

impl Reject {
    /// A refusal with a message.
    pub fn new(code: stonelog_protocol::error_code::ErrorCode, message: impl Into<String>) -> Reject {
        Reject { code, message: message.into() }
    }
}

/// The code's own words.
impl From<stonelog_protocol::error_code::ErrorCode> for Reject {
    fn from(code: stonelog_protocol::error_code::ErrorCode) -> Reject {
        Reject::new(code, code.message())
    }
}

/// Facts to write, and what to answer once they are committed and applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The facts; none when nothing changes.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub response: ControllerResponse,
    /// The facts did not fit one entry: once these are applied the same request is to be decided again, before any other,
    /// and answered only when nothing is left.
    pub goes_on: bool,
}

impl Decision {
    fn new(records: Vec<MetadataRecord>, response: ControllerResponse) -> Decision {
        Decision { records, response, goes_on: false }
    }

    /// The first entry of several. The answer is not given; deciding what is left makes another.
    fn part(records: Vec<MetadataRecord>, response: ControllerResponse) -> Decision {
        assert!(!records.is_empty(), "a request that goes on has got somewhere");
        Decision { records, response, goes_on: true }
    }
}

/// What a decision may use besides the image and the request.
pub struct Inputs<'a> {
    /// The cluster's identifier.
    pub cluster_id: &'a ClusterId,
    /// The time, by the controller's clock.
    pub now: Timestamp,
    /// The index the entry is expected to have; a registration's epoch until the entry has its real one.
    pub next_index: u64,
    /// Fresh random ids, at least [`ControllerRequest::topic_ids_needed`].
    pub topic_ids: &'a [TopicId],
    /// Random; spreads replicas.
    pub seed: u64,
    /// Whether every active broker has applied the entry in which the broker that asks to stop handed over; known to
    /// the soft state of liveness.
    pub moves_are_known: bool,
    /// Whether the registered incarnation of the broker that registers is known to be gone ([`Liveness::is_gone`]):
    /// until then no other takes its place. For a broker that is to be forgotten, or those that may lead instead of a
    /// replica whose loss is accepted: whether whoever is starting there has been silent for a session.
    ///
    /// [`Liveness::is_gone`]: liveness::Liveness::is_gone
    pub previous_is_gone: bool,
    /// Listed brokers that are still waited for: see [`awaited_brokers`].
    pub brokers_to_come: usize,
    /// What a request may leave unset.
    pub defaults: &'a Defaults,
    /// The rules of settings.
    pub rules: &'a dyn ConfigRules,
}

/// Decides one request on an image.
pub fn decide(image: &MetadataImage, request: &ControllerRequest, inputs: &Inputs<'_>) -> Result<Decision, Reject> {
    match request {
        ControllerRequest::RegisterBroker(request) => brokers::decide_register(image, request, inputs),
        ControllerRequest::Heartbeat(request) => brokers::decide_heartbeat(image, request, inputs),
        ControllerRequest::UnregisterBroker(request) => brokers::decide_unregister(image, *request, inputs),
        ControllerRequest::CreateTopics(request) => topics::decide_create(image, request, inputs),
        ControllerRequest::DeleteTopics(request) => topics::decide_delete(image, request),
        ControllerRequest::CreatePartitions(request) => partitions::decide_create(image, request, inputs),
        ControllerRequest::IncrementalAlterConfigs(request) => configs::decide_incremental(image, request, inputs),
        ControllerRequest::AlterConfigs(request) => configs::decide_replace(image, request, inputs),
        ControllerRequest::AllocateProducerIds(request) => producer_ids::decide_allocate(image, *request),
        ControllerRequest::AlterPartition(request) => isr::decide_alter(image, request, inputs),
        ControllerRequest::ElectLeaders(request) => elections::decide_elect(image, request, inputs),
        ControllerRequest::FenceBroker(request) => fencing::decide_fence(image, *request, inputs),
        ControllerRequest::BalanceLeaders => elections::decide_balance(image, inputs),
        ControllerRequest::AcceptLoss(request) => loss::decide_accept(image, request, inputs),
        ControllerRequest::AlterReassignments(request) => reassignments::decide_alter(image, request, inputs),
        ControllerRequest::AssignReplicas(request) => directories::decide_assign(image, request, inputs),
        ControllerRequest::ReadBarrier => Ok(Decision::new(Vec::new(), ControllerResponse::ReadBarrier)),
        ControllerRequest::RaiseInternalTopics => reassignments::decide_raise_internal(image, inputs),
        // No image says it either: a lone controller's only broker is behind nothing.
        ControllerRequest::WhoIsBehind(_) => Ok(Decision::new(Vec::new(), ControllerResponse::WhoIsBehind(Vec::new()))),
        ControllerRequest::ChangeVoters(_) => {
            Err(Reject::new(ErrorCode::InvalidRequest, "the quorum's member changes it, no image does"))
        }
        ControllerRequest::DescribeQuorum => {
            Err(Reject::new(ErrorCode::InvalidRequest, "the quorum's member describes it, no image does"))
        }
    }
}

/// The image after some records, to go on deciding on within the same entry.
fn after(image: &MetadataImage, index: u64, records: &[MetadataRecord]) -> MetadataImage {
    let mut next = image.clone();
    apply_all(&mut next, index, records).expect("a decider's own records fit the image they were decided on");
    next
}

/// Applies records to an image that is not yet published.
pub(crate) fn apply_all(image: &mut MetadataImage, index: u64, records: &[MetadataRecord]) -> Result<(), ApplyError> {
    records.iter().try_for_each(|record| image.apply_record(index, record))
}

#[cfg(test)]
mod tests;
