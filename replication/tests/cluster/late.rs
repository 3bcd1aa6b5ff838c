//! What comes late on purpose, when chance alone would take too many seeds: a report of an earlier stream behind the open
//! of a new one, and a wish to join behind the replacement of the joiner's disk.

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use stonelog_replication::controller::{ControllerRequest, PartitionIsr};

use super::metadata_log::Asked;
use super::network::Flight;
use super::{Cluster, Event};

/// The second byte of a stream's messages (`docs/formats.md`).
const KIND_OPEN: u8 = 1;
const KIND_REPORT: u8 = 2;

impl Cluster {
    /// Who opens a stream may be followed by what it reported on an earlier one, before a disk was replaced or a log cut.
    pub(super) fn repeat_reports(&mut self, from: BrokerId, to: BrokerId, bytes: &Bytes) {
        const KEPT_MAX: usize = 16;
        let is_kind = |kind| bytes.get(1) == Some(&kind);
        if is_kind(KIND_REPORT) && self.below(20) == 0 {
            let place = self.below(KEPT_MAX as u64) as usize;
            let kept = self.reports.entry((from, to)).or_default();
            if kept.len() < KEPT_MAX { kept.push(bytes.clone()) } else { kept[place] = bytes.clone() }
        }
        let kept = self.reports.get(&(from, to)).map_or(0, Vec::len);
        if is_kind(KIND_OPEN) && kept > 0 && self.below(2) == 0 {
            for _ in 0..4 {
                let place = self.below(kept as u64) as usize;
                let report = self.reports[&(from, to)][place].clone();
                let after = self.below(300_000);
                let flight = Flight { from, to, connection: u64::MAX, bytes: report };
                self.coverage.hit("report of an earlier stream behind an open");
                self.plan(after, Event::Arrive(flight));
            }
        }
    }

    /// A joiner's disk is replaced while the wish for it is on its way, and the wish arrives when it is back.
    pub(super) fn delay_join(&mut self, asked: &Asked) -> bool {
        let ControllerRequest::AlterPartition(request) = &asked.request else { return false };
        let image = self.log.newest();
        let joins = |wish: &PartitionIsr| {
            let isr = &image.partition(wish.partition)?.isr;
            wish.isr.iter().map(|member| member.broker).find(|broker| !isr.contains(broker))
        };
        let joiner = request.partitions.iter().find_map(joins);
        let Some(joiner) = joiner.filter(|_| !self.healing && self.below(8) == 0) else { return false };
        self.plan(1, Event::ReplaceDisk(joiner));
        let after = 3_000_000 + self.below(3_000_000);
        self.plan(after, Event::Asked(asked.clone()));
        self.coverage.hit("disk replaced under a wish to join");
        true
    }
}
