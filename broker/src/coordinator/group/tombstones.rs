//! Tombstones of one decision, up to a limit: what is decided together is one batch of the log, and a lane's turn.
//!
//! Whoever has more to bury is asked again when these are settled.

use std::sync::Arc;

use stonelog_protocol::PartitionIndex;

use super::Decision;
use super::config::{TOMBSTONE_BYTES_PER_DECISION_MAX, TOMBSTONES_PER_DECISION_MAX};
use super::names::GroupId;
use crate::coordinator::record::Record;

/// Tombstones up to the limits: [`TOMBSTONES_PER_DECISION_MAX`] and [`TOMBSTONE_BYTES_PER_DECISION_MAX`]. The first one
/// always has room.
#[derive(Default)]
pub(super) struct Tombstones {
    pub(super) decision: Decision,
    bytes: usize,
}

impl Tombstones {
    /// Adds one; false when there is no room for it.
    pub(super) fn push(&mut self, record: Record) -> bool {
        let has_room = self.has_room(1, record.bytes_about());
        if has_room {
            self.bytes += record.bytes_about();
            self.decision.records.push(record);
        }
        has_room
    }

    /// Adds that of an offset; false when there is no room for it.
    pub(super) fn push_offset(&mut self, group: &GroupId, topic: &Arc<str>, partition: PartitionIndex) -> bool {
        self.push(Record::Offset { group: group.clone(), topic: topic.clone(), partition, value: None })
    }

    /// Whether there is room for so many of about so many bytes altogether.
    fn has_room(&self, count: usize, bytes: usize) -> bool {
        let records = &self.decision.records;
        records.is_empty()
            || records.len() + count <= TOMBSTONES_PER_DECISION_MAX
                && self.bytes + bytes <= TOMBSTONE_BYTES_PER_DECISION_MAX
    }

    /// Adds all of them, or as many as have room if they are the first; false when some are left.
    pub(super) fn push_all(&mut self, records: impl Iterator<Item = Record> + Clone) -> bool {
        let (count, bytes) =
            records.clone().fold((0, 0), |(count, bytes), record| (count + 1, bytes + record.bytes_about()));
        if !self.has_room(count, bytes) {
            return count == 0;
        }
        for record in records {
            if !self.push(record) {
                return false;
            }
        }
        true
    }
}
