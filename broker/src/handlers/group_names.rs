//! Names of groups and members, from the wire and back. Names from the wire are copied: what the coordinator keeps must
//! not keep its request's frame alive.

use stonelog_protocol::messages::GroupId as WireGroupId;
use stonelog_protocol::{ErrorCode, StrBytes};

use crate::coordinator::group::names::{GroupId, InstanceId, MemberId};

/// A group's name, which may be empty. One longer than a record can hold is INVALID_GROUP_ID.
pub(super) fn group_id(name: &str) -> Result<GroupId, ErrorCode> {
    GroupId::new(name).map_err(|_| ErrorCode::InvalidGroupId)
}

/// A group's name where Kafka takes no empty one.
pub(super) fn named_group_id(name: &str) -> Result<GroupId, ErrorCode> {
    if name.is_empty() { Err(ErrorCode::InvalidGroupId) } else { group_id(name) }
}

/// A member's id. Nobody was given one longer than a record can hold.
pub(super) fn member_id(id: &str) -> Result<MemberId, ErrorCode> {
    MemberId::new(id).map_err(|_| ErrorCode::UnknownMemberId)
}

/// A static member's name.
pub(super) fn instance_id(id: Option<&StrBytes>) -> Result<Option<InstanceId>, ErrorCode> {
    id.map(|id| InstanceId::new(id).map_err(|_| ErrorCode::UnknownMemberId)).transpose()
}

/// A group's name on the wire.
pub(super) fn wire_group_id(group: &GroupId) -> WireGroupId {
    WireGroupId(text(group.as_str()))
}

/// A text on the wire.
pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
