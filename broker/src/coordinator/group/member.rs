//! A member of a live group (`ClassicGroupMember`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::message::{JoinRequest, Protocol};
use super::names::{InstanceId, MemberId};
use crate::coordinator::record::StoredMember;

/// One member. Its parked requests are the group's business, not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) instance_id: Option<InstanceId>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// What it offers, its favourite first, each name once. After a reload only the chosen protocol is known.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// It has never been in a completed join phase, so it may be dropped even while its JoinGroup is parked.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) fn from_request(id: MemberId, request: &JoinRequest) -> Member {
        let mut member = Member {
            id,
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
        };
        member.update(request);
        member
    }

    pub(super) fn from_stored(stored: &StoredMember, protocol: Option<&Arc<str>>) -> Member {
        Member {
            id: stored.member_id.clone(),
            instance_id: stored.instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            session_timeout_ms: stored.session_timeout_ms,
            protocols: Vec::from_iter(
                protocol.map(|name| Protocol { name: name.clone(), metadata: stored.subscription.clone() }),
            ),
            assignment: stored.assignment.clone(),
            is_new: false,
        }
    }

    pub(super) fn to_stored(&self, protocol: &str, assignment: Bytes) -> StoredMember {
        StoredMember {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    /// Takes over what a newer JoinGroup says. Metadata is copied, so that it does not keep the request's frame alive; a
    /// protocol named twice counts once.
    pub(super) fn update(&mut self, request: &JoinRequest) {
        self.session_timeout_ms = request.session_timeout_ms;
        // The record's word for "none" is -1, so a negative timeout could not be told from none.
        let rebalance_timeout_ms = request.rebalance_timeout_ms.filter(|timeout_ms| *timeout_ms >= 0);
        self.rebalance_timeout_ms = rebalance_timeout_ms.unwrap_or(request.session_timeout_ms);
        self.protocols.clear();
        for Protocol { name, metadata } in &request.protocols {
            if self.protocols.iter().all(|offered| offered.name != *name) {
                self.protocols.push(Protocol { name: name.clone(), metadata: Bytes::copy_from_slice(metadata) });
            }
        }
    }

    /// Its metadata for a protocol; empty if it does not offer it, which a chosen protocol never is.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let offered = self.protocols.iter().find(|offered| *offered.name == *protocol);
        offered.map(|offered| offered.metadata.clone()).unwrap_or_default()
    }

    pub(super) fn session_timeout(&self) -> Duration {
        millis(self.session_timeout_ms)
    }

    /// Which of the candidates it likes best.
    pub(super) fn vote<'a>(&self, candidates: &BTreeMap<&'a str, usize>) -> Option<&'a str> {
        let favourite = self.protocols.iter().find_map(|offered| candidates.get_key_value(&*offered.name));
        favourite.map(|(name, _)| *name)
    }
}

/// A timeout from the wire; a negative one has already passed.
pub(super) fn millis(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
