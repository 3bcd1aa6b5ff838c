//! `process.roles`: what a node is to be.

use super::reader::Reader;

/// What this node is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    /// It serves clients and keeps records.
    pub(super) broker: bool,
    /// It may vote.
    pub(super) controller: bool,
}

impl Roles {
    /// By `process.roles`; both where that is not set. What names neither is reported with the rest of the quorum.
    pub(super) fn read(reader: &Reader<'_>) -> Roles {
        let Some(setting) = reader.set("process.roles") else { return Roles { broker: true, controller: true } };
        let named = |role| setting.value.split(',').any(|name| name.trim() == role);
        Roles { broker: named("broker"), controller: named("controller") }
    }

    /// It keeps no records.
    pub(super) fn is_controller_alone(self) -> bool {
        self.controller && !self.broker
    }
}
