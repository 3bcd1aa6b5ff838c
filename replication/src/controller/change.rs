//! Building one partition's change: target in-sync set and replicas in, ELR and leader out (Kafka's
//! `PartitionChangeBuilder`, KIP-966).
//!
//! While the in-sync set is at least the effective min ISR, the ELR is empty. Below it, whoever leaves the in-sync set
//! keeps a place in the ELR, unless it may lack records. A leader comes from the in-sync set; only when nobody there
//! can lead, from the ELR, and there a member whose last start found a torn tail only as rule 11 has it. A strict
//! partition is never led by anybody else; a relaxed one without ISR and ELR by its last known leader.
//!
//! A reassignment is complete in the change that brings the last of its targets in sync. Replicas being added count
//! neither for the min ISR nor for its default until then. A change that ends with fewer replicas begins a leader epoch.

use std::sync::Arc;

use stonelog_protocol::{BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

use super::rules::ConfigRules;
use crate::metadata::record::PartitionChange;
use crate::metadata::{MetadataImage, PartitionRegistration, RecoveryState, TopicImage};

/// What a topic's settings mean for its partitions.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Promise {
    is_strict: bool,
    min_isr: usize,
}

/// Plans the changes of many partitions: settings are looked up once per topic, as long as a topic's partitions come one
/// after the other.
pub(super) struct Planner<'a> {
    image: &'a MetadataImage,
    rules: &'a dyn ConfigRules,
    last: Option<(TopicId, usize, Promise)>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(image: &'a MetadataImage, rules: &'a dyn ConfigRules) -> Planner<'a> {
        Planner { image, rules, last: None }
    }

    /// A change of one partition that changes nothing yet.
    pub(super) fn plan(
        &mut self,
        topic: &'a Arc<TopicImage>,
        index: PartitionIndex,
        partition: &'a PartitionRegistration,
    ) -> ChangePlan<'a> {
        let count = partition.settled_count();
        let promise = match self.last {
            Some((id, of, promise)) if id == topic.id && of == count => promise,
            _ => promise_of(self.image, self.rules, topic, count),
        };
        self.last = Some((topic.id, count, promise));
        ChangePlan {
            image: self.image,
            rules: self.rules,
            topic,
            index,
            partition,
            promise,
            isr: partition.isr.clone(),
            layout: Layout::of(partition),
            lost: Vec::new(),
            cut: partition.cut.clone(),
            prefer_first: false,
            was_strict: None,
            leaving: None,
        }
    }
}

fn promise_of(image: &MetadataImage, rules: &dyn ConfigRules, topic: &TopicImage, replicas: usize) -> Promise {
    Promise {
        is_strict: rules.is_strict(image, &topic.name),
        min_isr: rules.min_insync_replicas(image, &topic.name, replicas),
    }
}

/// Who holds a partition, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) replicas: Vec<BrokerId>,
    /// In the order of `replicas`.
    pub(super) directories: Vec<DirectoryId>,
    pub(super) adding: Vec<BrokerId>,
    pub(super) removing: Vec<BrokerId>,
}

impl Layout {
    pub(super) fn of(partition: &PartitionRegistration) -> Layout {
        Layout {
            replicas: partition.replicas.clone(),
            directories: partition.directories.clone(),
            adding: partition.adding.clone(),
            removing: partition.removing.clone(),
        }
    }

    fn directory_of(&self, broker: BrokerId) -> Option<DirectoryId> {
        let place = self.replicas.iter().position(|replica| *replica == broker)?;
        self.directories.get(place).copied()
    }

    /// The same without what is being removed, if a reassignment is in progress and every target is in sync.
    fn completed(&self, isr: &[BrokerId]) -> Option<Layout> {
        let is_reassigning = !self.adding.is_empty() || !self.removing.is_empty();
        let both = || self.replicas.iter().zip(&self.directories).filter(|(b, _)| !self.removing.contains(b));
        if !is_reassigning || !both().all(|(broker, _)| isr.contains(broker)) {
            return None;
        }
        Some(Layout {
            replicas: both().map(|(broker, _)| *broker).collect(),
            directories: both().map(|(_, directory)| *directory).collect(),
            adding: Vec::new(),
            removing: Vec::new(),
        })
    }
}

/// A change being decided.
pub(super) struct ChangePlan<'a> {
    image: &'a MetadataImage,
    rules: &'a dyn ConfigRules,
    topic: &'a TopicImage,
    index: PartitionIndex,
    partition: &'a PartitionRegistration,
    promise: Promise,
    isr: Vec<BrokerId>,
    layout: Layout,
    /// Replicas that may lack records: out of ISR and ELR.
    lost: Vec<BrokerId>,
    /// Members that lead only as rule 11 has it.
    cut: Vec<BrokerId>,
    prefer_first: bool,
    /// Whether what was acknowledged is promised, by what the journal of a replica that starts recorded.
    was_strict: Option<bool>,
    /// A broker that may not lead although the image says it is active.
    leaving: Option<BrokerId>,
}

impl<'a> ChangePlan<'a> {
    pub(super) fn new(
        image: &'a MetadataImage,
        rules: &'a dyn ConfigRules,
        topic: &'a Arc<TopicImage>,
        index: PartitionIndex,
        partition: &'a PartitionRegistration,
    ) -> ChangePlan<'a> {
        Planner::new(image, rules).plan(topic, index, partition)
    }

    /// The in-sync set shall be this.
    pub(super) fn isr(mut self, isr: Vec<BrokerId>) -> Self {
        self.isr = isr;
        self
    }

    /// The replicas shall be these. Who is none any more leaves every set.
    pub(super) fn layout(mut self, layout: Layout) -> Self {
        self.isr.retain(|member| layout.replicas.contains(member));
        self.layout = layout;
        self
    }

    /// A broker leaves the in-sync set and leads no longer.
    pub(super) fn without(mut self, broker: BrokerId) -> Self {
        self.isr.retain(|member| *member != broker);
        self.leaving = Some(broker);
        self
    }

    /// A broker's replica may lack records.
    pub(super) fn lost(mut self, broker: BrokerId) -> Self {
        self.lost.push(broker);
        self.without(broker)
    }

    /// The journal of a replica that starts had the partition as strict, or not.
    pub(super) fn recorded(mut self, was_strict: Option<bool>) -> Self {
        self.was_strict = was_strict;
        self
    }

    /// A broker's replica has holes below its end: it keeps no place in the ELR. Who is in the wished set stays there.
    pub(super) fn damaged(mut self, broker: BrokerId) -> Self {
        if !off!(DamagedLeaves) {
            self.lost.push(broker);
        }
        self
    }

    /// A broker's replica ended in a torn tail when it started. It is not in sync until it has caught up.
    pub(super) fn cut(mut self, broker: BrokerId) -> Self {
        if !self.cut.contains(&broker) {
            self.cut.push(broker);
        }
        self.without(broker)
    }

    /// The first replica shall lead if it is in sync.
    pub(super) fn preferred(mut self) -> Self {
        self.prefer_first = true;
        self
    }

    /// The change, or `None` if nothing changes.
    pub(super) fn finish(mut self) -> Option<PartitionChange> {
        let old = self.partition;
        let completed = self.layout.completed(&self.isr);
        if let Some(completed) = completed {
            self = self.layout(completed);
        }
        let settled = self.layout.replicas.len() - self.layout.adding.len();
        if settled != old.settled_count() {
            self.promise = promise_of(self.image, self.rules, self.topic, settled);
        }
        let min_isr = self.promise.min_isr;
        let mut isr = self.isr.clone();
        let mut elr = self.eligible(&isr);
        let mut leader = self.elect(&isr).or_else(|| self.elect_from(&elr));
        let mut recovering = None;
        if leader.is_none() && isr.is_empty() && elr.is_empty() && !self.is_promised() {
            leader = self.last_known().filter(|last| self.is_acceptable(*last));
            recovering = leader.map(|_| RecoveryState::Recovering);
        }
        if let Some(leader) = leader
            && !isr.contains(&leader)
        {
            isr = vec![leader];
            elr = self.eligible(&isr);
        }
        let last_known_elr = match (leader, old.leader) {
            (Some(_), _) if self.counted(&isr) >= min_isr => Vec::new(),
            (None, Some(last)) => vec![last],
            _ => old.last_known_elr.clone(),
        };
        let left_strict = match leader {
            Some(_) => None,
            None => Some(self.is_promised()),
        };
        let cut: Vec<BrokerId> = self.cut.iter().copied().filter(|broker| elr.contains(broker)).collect();
        let unchanged = PartitionChange::of(self.topic.id, self.index);
        let mut change = unchanged.clone();
        // What a removed replica still reports must not count: the epoch it knows is over.
        let is_smaller = old.replicas.iter().any(|replica| !self.layout.replicas.contains(replica));
        let Layout { replicas, directories, adding, removing } = self.layout;
        if replicas != old.replicas || directories != old.directories {
            (change.replicas, change.directories) = (Some(replicas), Some(directories));
        }
        change.adding = (adding != old.adding).then_some(adding);
        change.removing = (removing != old.removing).then_some(removing);
        change.isr = (isr != old.isr).then_some(isr);
        change.elr = (elr != old.elr).then_some(elr);
        change.last_known_elr = (last_known_elr != old.last_known_elr).then_some(last_known_elr);
        change.leader = (leader != old.leader || is_smaller).then_some(leader);
        change.recovering = recovering.filter(|recovering| *recovering != old.recovering);
        change.cut = (cut != old.cut).then_some(cut);
        change.left_strict = (left_strict != old.left_strict).then_some(left_strict);
        (change != unchanged).then_some(change)
    }

    /// Whether what was acknowledged is promised. Who led last acknowledged as its journal has it; if that does not say
    /// strict, the mode counts in which the partition was left, if nobody leads it. Its owner may have relaxed it since;
    /// that concerns what is acknowledged from then on. Another replica's journal may be behind, so it only tightens.
    pub(super) fn is_promised(&self) -> bool {
        let left = self.partition.left_strict.filter(|_| self.partition.leader.is_none() && !off!(LeftStrict));
        let led_last = self.leaving.is_some() && self.leaving == self.last_known();
        match (left, self.was_strict) {
            (_, Some(true)) if led_last => true,
            (Some(left), _) => left,
            (None, Some(recorded)) if led_last => recorded,
            (None, recorded) => self.promise.is_strict || recorded == Some(true),
        }
    }

    /// Members that count for the min ISR: leaders count the same ones ([`crate::partition::Leadership::isr_size`]), and
    /// while these are too few nothing is acknowledged that an eligible replica could lack.
    fn counted(&self, isr: &[BrokerId]) -> usize {
        isr.iter().filter(|member| !self.layout.adding.contains(member) || off!(AddedDoNotCount)).count()
    }

    fn eligible(&self, isr: &[BrokerId]) -> Vec<BrokerId> {
        if self.counted(isr) >= self.promise.min_isr {
            return Vec::new();
        }
        let old = self.partition;
        let is_candidate = |broker: &BrokerId| {
            (old.isr.contains(broker) || old.elr.contains(broker))
                && !isr.contains(broker)
                && !self.lost.contains(broker)
        };
        self.layout.replicas.iter().copied().filter(is_candidate).collect()
    }

    fn elect(&self, isr: &[BrokerId]) -> Option<BrokerId> {
        let can_lead = |broker: &BrokerId| isr.contains(broker) && self.is_acceptable(*broker);
        if self.prefer_first
            && let Some(first) = self.layout.replicas.first().copied().filter(can_lead)
        {
            return Some(first);
        }
        if let Some(leader) = self.partition.leader.filter(can_lead) {
            return Some(leader);
        }
        self.layout.replicas.iter().copied().find(can_lead)
    }

    /// A whole member at once; a cut one when no registered member is whole and enough of them have registered, and then
    /// the one that reaches furthest, for which all of them have to have said how far. A member that has registered and is
    /// not unfenced yet is waited for: it is whole, or reaches further.
    fn elect_from(&self, elr: &[BrokerId]) -> Option<BrokerId> {
        let is_there = |broker: &BrokerId| self.is_acceptable(*broker) || self.is_coming(*broker);
        let registered: Vec<BrokerId> = elr.iter().copied().filter(is_there).collect();
        let mut whole = registered.iter().copied().filter(|broker| !self.cut.contains(broker)).peekable();
        if whole.peek().is_some() {
            return whole.find(|broker| self.is_acceptable(*broker));
        }
        if registered.len() < self.promise.min_isr.min(elr.len()) {
            return None;
        }
        let is_only_one = registered.len() == 1;
        let mut furthest: Option<(Option<(LeaderEpoch, Offset)>, BrokerId)> = None;
        for broker in registered {
            let end = self.end_of(broker);
            if end.is_none() && !is_only_one && !off!(CutEndsKnown) {
                // It may be the one that reaches furthest.
                return None;
            }
            // Among equals one that can lead at once, and of those the first replica.
            let is_better = |(best, than): (_, BrokerId)| {
                end > best || end == best && self.is_acceptable(broker) && !self.is_acceptable(than)
            };
            if furthest.is_none_or(is_better) {
                furthest = Some((end, broker));
            }
        }
        furthest.map(|(_, broker)| broker).filter(|broker| self.is_acceptable(*broker))
    }

    /// Registered with the replica's directory, and never unfenced since: what it holds is known, and it will serve soon.
    /// One that was unfenced and is silent now may hold anything by the time it returns; it has to register first.
    fn is_coming(&self, broker: BrokerId) -> bool {
        let Some(registration) = self.image.broker(broker) else { return false };
        let directory = self.layout.directory_of(broker).filter(|directory| registration.has_directory(*directory));
        let is_unused = |directory| registration.last_unfenced_with(directory) != Some(registration.epoch);
        registration.fenced && directory.is_some_and(is_unused) && !off!(ComingMembers)
    }

    /// Where a cut replica ended when its broker registered, if it said so.
    fn end_of(&self, broker: BrokerId) -> Option<(LeaderEpoch, Offset)> {
        let key = TopicPartition { topic_id: self.topic.id, partition: self.index };
        let home = self.layout.directory_of(broker);
        let report = self.image.broker(broker).and_then(|registration| registration.report(key, home?));
        report.map(|report| (report.last_epoch, report.log_end_offset))
    }

    fn last_known(&self) -> Option<BrokerId> {
        let last = self.partition.leader.or(self.partition.last_known_elr.first().copied())?;
        self.layout.replicas.contains(&last).then_some(last)
    }

    /// Registered, unfenced, not leaving, its directory online.
    fn is_acceptable(&self, broker: BrokerId) -> bool {
        let Some(registration) = self.image.broker(broker) else { return false };
        let directory = self.layout.directory_of(broker);
        self.leaving != Some(broker)
            && registration.is_active()
            && directory.is_some_and(|directory| registration.has_directory(directory))
    }
}
