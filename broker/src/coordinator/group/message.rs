//! What is asked of the coordinator and what it answers, free of the wire's versions.
//!
//! Handlers turn kafka-protocol's types into these and back. Where versions of a request differ in behaviour, a named
//! flag says so.

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{ErrorCode, LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::names::{GroupId, InstanceId, MemberId};

/// One protocol (assignor) a member offers, with its metadata for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// The assignor's name, such as `range`.
    pub name: Arc<str>,
    /// Opaque to the coordinator; for consumers, the subscription.
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group to join.
    pub group: GroupId,
    /// The member's id, empty when it has none yet.
    pub member_id: MemberId,
    /// A static member's name (versions 5 and up).
    pub instance_id: Option<InstanceId>,
    /// The client's `client.id`; becomes part of its member id.
    pub client_id: Arc<str>,
    /// Where the client connects from, as Kafka prints it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    /// How long the member may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long the member may take to rejoin, in milliseconds; `None` in version 0, which knew one timeout only.
    pub rebalance_timeout_ms: Option<i32>,
    /// `consumer`, `connect`, ….
    pub protocol_type: Arc<str>,
    /// What the member offers, its favourite first.
    pub protocols: Vec<Protocol>,
    /// Versions 4 and up: a dynamic member must come back with the id it is given (KIP-394).
    pub requires_known_member_id: bool,
    /// Versions 9 and up: a leader can be told not to compute the assignment (KIP-814).
    pub supports_skipping_assignment: bool,
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// [`ErrorCode::None`] when the member is in.
    pub error: ErrorCode,
    /// The member's id.
    pub member_id: MemberId,
    /// The generation it is in; -1 on error.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol the members agreed on.
    pub protocol: Option<Arc<str>>,
    /// The leader's id, empty on error.
    pub leader: MemberId,
    /// The member is the leader, but the assignment stands.
    pub skip_assignment: bool,
    /// All members with their metadata, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinResponse {
    /// An answer that says no.
    pub fn refused(error: ErrorCode, member_id: MemberId) -> JoinResponse {
        JoinResponse {
            error,
            member_id,
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: MemberId::unknown(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: MemberId,
    /// A static member's name.
    pub instance_id: Option<InstanceId>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: GroupId,
    /// The generation the member joined.
    pub generation: i32,
    /// The member.
    pub member_id: MemberId,
    /// A static member's name (versions 3 and up).
    pub instance_id: Option<InstanceId>,
    /// What the member takes the group's protocol type to be (versions 5 and up).
    pub protocol_type: Option<Arc<str>>,
    /// What the member takes the chosen protocol to be (versions 5 and up).
    pub protocol: Option<Arc<str>>,
    /// What the leader assigns; empty from others.
    pub assignments: Vec<(MemberId, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// [`ErrorCode::None`] when the assignment holds.
    pub error: ErrorCode,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The chosen protocol.
    pub protocol: Option<Arc<str>>,
    /// What was assigned to the member.
    pub assignment: Bytes,
}

impl SyncResponse {
    /// An answer that says no.
    pub fn refused(error: ErrorCode) -> SyncResponse {
        SyncResponse { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: GroupId,
    /// The generation the member is in.
    pub generation: i32,
    /// The member.
    pub member_id: MemberId,
    /// A static member's name (versions 3 and up).
    pub instance_id: Option<InstanceId>,
}

/// LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group: GroupId,
    /// Who leaves, or is removed by an administrator.
    pub members: Vec<LeavingMember>,
}

/// One who leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// The member; empty when an administrator removes a static member by its name.
    pub member_id: MemberId,
    /// A static member's name.
    pub instance_id: Option<InstanceId>,
}

/// The answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResponse {
    /// An error of the whole request.
    pub error: ErrorCode,
    /// One answer per member asked for, in the same order.
    pub members: Vec<(LeavingMember, ErrorCode)>,
}

/// OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group; may be empty.
    pub group: GroupId,
    /// The generation the member is in; negative when the committer is not a member (an administrator, or a consumer
    /// that assigns its partitions itself).
    pub generation: i32,
    /// The member; empty when the committer is none.
    pub member_id: MemberId,
    /// A static member's name (versions 7 and up).
    pub instance_id: Option<InstanceId>,
    /// How long the offsets shall be kept (versions 2 to 4); `None` leaves it to the broker.
    pub retention_ms: Option<i64>,
    /// Versions 9 and up know GROUP_ID_NOT_FOUND.
    pub knows_group_id_not_found: bool,
    /// What is committed. Topics that do not exist were answered by the handler and are not here.
    pub topics: Vec<CommitTopic>,
}

/// One topic of an OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    /// The topic's name.
    pub name: Arc<str>,
    /// Its present incarnation.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// One partition of an OffsetCommit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset the group wants to read.
    pub offset: Offset,
    /// The leader epoch of the last record read, or [`LeaderEpoch::NONE`].
    pub leader_epoch: LeaderEpoch,
    /// The client's own text; `None` is stored as an empty one.
    pub metadata: Option<Arc<str>>,
}

/// One error code, or none, per partition of a topic.
pub type PartitionErrors = Vec<(PartitionIndex, ErrorCode)>;

/// An answer per topic and partition, as OffsetCommit and OffsetDelete give them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PerPartition {
    /// An error of the whole request; the handler spreads it over the partitions where the wire has no place for it.
    pub error: ErrorCode,
    /// One answer per partition asked for, in the same order.
    pub topics: Vec<(Arc<str>, PartitionErrors)>,
}

/// One group of an OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The group; may be empty.
    pub group: GroupId,
    /// Topics by name and partitions, or `None` for everything the group has committed.
    pub topics: Option<Vec<(Arc<str>, Vec<PartitionIndex>)>>,
}

/// One topic of an OffsetFetch's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic's name.
    pub name: Arc<str>,
    /// Its partitions.
    pub partitions: Vec<FetchedOffset>,
}

/// One partition of an OffsetFetch's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The committed offset, or [`Offset::NONE`].
    pub offset: Offset,
    /// The leader epoch committed with it, or [`LeaderEpoch::NONE`].
    pub leader_epoch: LeaderEpoch,
    /// The text committed with it.
    pub metadata: Arc<str>,
}

/// OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group: GroupId,
    /// Topics and partitions. Those that do not exist were answered by the handler and are not here.
    pub topics: Vec<(Arc<str>, Vec<PartitionIndex>)>,
}

/// A group as ListGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group: GroupId,
    /// `consumer`, …; empty for a group that only commits.
    pub protocol_type: Arc<str>,
    /// The state's name.
    pub state: &'static str,
    /// The kind of group (KIP-848): always `classic` here.
    pub group_type: &'static str,
}

/// A group as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// [`ErrorCode::None`], or what keeps the group from being shown.
    pub error: ErrorCode,
    /// A sentence about the error, for versions that have room for it.
    pub error_message: Option<String>,
    /// The group.
    pub group: GroupId,
    /// The state's name; `Dead` for a group that does not exist.
    pub state: &'static str,
    /// `consumer`, …; empty for a group that only commits.
    pub protocol_type: Arc<str>,
    /// The chosen protocol while the group is Stable, else empty.
    pub protocol: Arc<str>,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: MemberId,
    /// A static member's name (versions 4 and up).
    pub instance_id: Option<InstanceId>,
    /// The client's `client.id`.
    pub client_id: Arc<str>,
    /// Where it connects from.
    pub client_host: Arc<str>,
    /// Its metadata for the chosen protocol, while the group is Stable.
    pub metadata: Bytes,
    /// What is assigned to it.
    pub assignment: Bytes,
}

/// An answer of the coordinator to a request that carries a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To JoinGroup.
    Join(JoinResponse),
    /// To SyncGroup.
    Sync(SyncResponse),
    /// To LeaveGroup.
    Leave(LeaveResponse),
    /// To OffsetCommit.
    Commit(PerPartition),
    /// To OffsetDelete.
    OffsetDelete(PerPartition),
    /// To DeleteGroups.
    DeleteGroups(DeleteGroupsResponse),
}

/// What became of groups that were to be deleted: of those named first; whoever asks is to name the others again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteGroupsResponse {
    /// Groups, in the order they were named.
    pub groups: Vec<(GroupId, ErrorCode)>,
    /// The next one, if it is deleted in part: it has committed more than one decision takes.
    pub unfinished: Option<GroupId>,
}

impl Response {
    /// The same answer when what it promised did not happen: every success in it becomes `error`.
    pub fn failed(self, error: ErrorCode) -> Response {
        let fail = |one: &mut ErrorCode| {
            if !one.is_error() {
                *one = error;
            }
        };
        match self {
            Response::Join(join) if join.error.is_error() => Response::Join(join),
            Response::Join(_) => Response::Join(JoinResponse::refused(error, MemberId::unknown())),
            Response::Sync(sync) if sync.error.is_error() => Response::Sync(sync),
            Response::Sync(_) => Response::Sync(SyncResponse::refused(error)),
            Response::Leave(mut leave) => {
                leave.members.iter_mut().for_each(|(_, one)| fail(one));
                Response::Leave(leave)
            }
            Response::Commit(mut commit) => {
                commit.fail_successes(fail);
                Response::Commit(commit)
            }
            Response::OffsetDelete(mut delete) => {
                delete.fail_successes(fail);
                Response::OffsetDelete(delete)
            }
            Response::DeleteGroups(mut delete) => {
                let unfinished = delete.unfinished.take().map(|group| (group, ErrorCode::None));
                delete.groups.extend(unfinished);
                delete.groups.iter_mut().for_each(|(_, one)| fail(one));
                Response::DeleteGroups(delete)
            }
        }
    }
}

impl PerPartition {
    /// An answer that says no to the whole request.
    pub fn refused(error: ErrorCode) -> PerPartition {
        PerPartition { error, topics: Vec::new() }
    }

    fn fail_successes(&mut self, mut fail: impl FnMut(&mut ErrorCode)) {
        for (_, partitions) in &mut self.topics {
            partitions.iter_mut().for_each(|(_, one)| fail(one));
        }
    }
}

/// When an offset expires whose retention time its client named; one below zero is over at once.
pub(super) fn expire_timestamp(retention_ms: Option<i64>, now: Timestamp) -> Option<Timestamp> {
    retention_ms.map(|retention_ms| Timestamp(now.0.saturating_add(retention_ms.max(0))))
}
