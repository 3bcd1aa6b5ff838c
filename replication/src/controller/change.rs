//! Building one partition's change: target in-sync set in, ELR and leader out (Kafka's `PartitionChangeBuilder`,
//! KIP-966).
//!
//! While the in-sync set is at least the effective min ISR, the ELR is empty. Below it, whoever leaves the in-sync set
//! keeps a place in the ELR, unless it may lack records. A leader comes from the in-sync set; only when nobody there
//! can lead, from the ELR. A strict partition is never led by anybody else.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, PartitionIndex, TopicPartition};

use super::rules::ConfigRules;
use crate::metadata::record::PartitionChange;
use crate::metadata::{MetadataImage, PartitionRegistration, TopicImage, Verdict};

/// A change being decided.
pub(super) struct ChangePlan<'a> {
    image: &'a MetadataImage,
    topic: &'a TopicImage,
    index: PartitionIndex,
    partition: &'a PartitionRegistration,
    min_isr: usize,
    target_isr: Vec<BrokerId>,
    /// Replicas that may lack records: out of ISR and ELR.
    lost: Vec<BrokerId>,
    prefer_first: bool,
    /// Brokers that may not lead although the image says they are active.
    leaving: Option<BrokerId>,
}

impl<'a> ChangePlan<'a> {
    pub(super) fn new(
        image: &'a MetadataImage,
        rules: &dyn ConfigRules,
        topic: &'a Arc<TopicImage>,
        index: PartitionIndex,
        partition: &'a PartitionRegistration,
    ) -> ChangePlan<'a> {
        ChangePlan {
            image,
            topic,
            index,
            partition,
            min_isr: rules.min_insync_replicas(image, &topic.name, partition.replicas.len()),
            target_isr: partition.isr.clone(),
            lost: Vec::new(),
            prefer_first: false,
            leaving: None,
        }
    }

    /// The in-sync set shall be this.
    pub(super) fn isr(mut self, isr: Vec<BrokerId>) -> Self {
        self.target_isr = isr;
        self
    }

    /// A broker leaves the in-sync set and leads no longer.
    pub(super) fn without(mut self, broker: BrokerId) -> Self {
        self.target_isr.retain(|member| *member != broker);
        self.leaving = Some(broker);
        self
    }

    /// A broker's replica may lack records.
    pub(super) fn lost(mut self, broker: BrokerId) -> Self {
        self.lost.push(broker);
        self.without(broker)
    }

    /// The first replica shall lead if it is in sync.
    pub(super) fn preferred(mut self) -> Self {
        self.prefer_first = true;
        self
    }

    /// The change, or `None` if nothing changes.
    pub(super) fn finish(self) -> Option<PartitionChange> {
        let old = self.partition;
        let mut isr = self.target_isr.clone();
        let mut elr = self.eligible(&isr);
        let leader = self.elect(&isr, &elr);
        if let Some(leader) = leader
            && !isr.contains(&leader)
        {
            isr = vec![leader];
            elr.retain(|member| *member != leader);
            // An election from the ELR may have satisfied a min ISR of one.
            if isr.len() >= self.min_isr {
                elr.clear();
            }
        }
        let last_known_elr = match (leader, old.leader) {
            (Some(_), _) if isr.len() >= self.min_isr => Vec::new(),
            (None, Some(last)) => vec![last],
            _ => old.last_known_elr.clone(),
        };
        let mut change = PartitionChange::of(self.topic.id, self.index);
        change.isr = (isr != old.isr).then_some(isr);
        change.elr = (elr != old.elr).then_some(elr);
        change.last_known_elr = (last_known_elr != old.last_known_elr).then_some(last_known_elr);
        change.leader = (leader != old.leader).then_some(leader);
        (change != PartitionChange::of(self.topic.id, self.index)).then_some(change)
    }

    fn eligible(&self, isr: &[BrokerId]) -> Vec<BrokerId> {
        if isr.len() >= self.min_isr {
            return Vec::new();
        }
        let old = self.partition;
        let candidates = old.isr.iter().chain(&old.elr);
        let mut elr: Vec<BrokerId> =
            candidates.copied().filter(|broker| !isr.contains(broker) && !self.lost.contains(broker)).collect();
        elr.sort_by_key(|broker| old.replicas.iter().position(|replica| replica == broker));
        elr
    }

    fn elect(&self, isr: &[BrokerId], elr: &[BrokerId]) -> Option<BrokerId> {
        let old = self.partition;
        let can_lead = |broker: &BrokerId| isr.contains(broker) && self.is_acceptable(*broker);
        if self.prefer_first
            && let Some(first) = old.preferred_leader().filter(can_lead)
        {
            return Some(first);
        }
        if let Some(leader) = old.leader.filter(can_lead) {
            return Some(leader);
        }
        let in_sync = old.replicas.iter().copied().find(can_lead);
        in_sync.or_else(|| old.replicas.iter().copied().find(|broker| self.can_lead_from_elr(*broker, elr)))
    }

    /// Registered, unfenced, not leaving, its directory online.
    fn is_acceptable(&self, broker: BrokerId) -> bool {
        self.leaving != Some(broker) && self.image.is_active(broker) && self.verdict(broker).is_some()
    }

    /// As rule 11 has it: a proved member at once; a cut one when no registered member is proved and enough of them
    /// have registered.
    fn can_lead_from_elr(&self, broker: BrokerId, elr: &[BrokerId]) -> bool {
        if !elr.contains(&broker) || !self.is_acceptable(broker) {
            return false;
        }
        match self.verdict(broker) {
            Some(Verdict::Proved) => true,
            Some(Verdict::Cut) => {
                let members = || self.partition.isr.iter().chain(&self.partition.elr).copied();
                let registered = members().filter(|member| self.image.is_active(*member));
                let proved = registered.clone().any(|member| self.verdict(member) == Some(Verdict::Proved));
                !proved && registered.count() >= self.min_isr.min(members().count())
            }
            Some(Verdict::Lost | Verdict::Damaged) | None => false,
        }
    }

    fn verdict(&self, broker: BrokerId) -> Option<Verdict> {
        let partition = TopicPartition { topic_id: self.topic.id, partition: self.index };
        self.image.broker(broker)?.verdict(partition, self.partition.directory_of(broker)?)
    }
}
