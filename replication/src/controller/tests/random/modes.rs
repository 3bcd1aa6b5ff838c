//! In which mode replicas were written, and what was promised in it. Owners relax topics around the deaths of leaders: what
//! a leader acknowledged strictly, and never heard that it need not, is led by nobody who lacks it.

use super::*;

impl World {
    /// Produces to every partition that would acknowledge.
    pub(super) fn produce(&mut self) {
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let Some(leader) = partition.leader else { continue };
            let rules = rules_at(leader);
            let runs = |broker: &BrokerId| self.machines[&broker.0].runs && self.image.is_active(*broker);
            let min_isr = rules.min_insync_replicas(&self.image, &topic.name, partition.settled_count());
            let may = runs(&leader) && partition.isr.iter().all(runs);
            if may && counted(partition) >= min_isr {
                let end = self.acknowledged.entry(key).or_default();
                *end += 1;
                for broker in &partition.isr {
                    self.holds.insert((key, *broker), *end);
                }
                if rules.is_strict(&self.image, &topic.name) {
                    self.promised.insert(key, *end);
                }
                self.seen.insert("acknowledged");
            }
        }
    }

    /// What a replica says that may lack records, in a directory that does.
    pub(super) fn report_of_lost(
        &self,
        partition: TopicPartition,
        topic: &str,
        directory: DirectoryId,
        was_strict: Option<bool>,
    ) -> Option<ReplicaReport> {
        let tells = !off!(LostTellsMode) || was_strict != Some(rules_of(self.controller).is_strict(&self.image, topic));
        tells.then_some(ReplicaReport {
            partition,
            verdict: Verdict::Lost,
            last_epoch: LeaderEpoch(0),
            log_end_offset: Offset::ZERO,
            directory: Some(directory),
            was_strict,
        })
    }

    /// The owner of a topic that a broker led last relaxes it, after the broker has read what its replicas are to be.
    pub(super) fn relax_led(&mut self, broker: BrokerId, random: &mut Random) {
        let led = |partition: &PartitionRegistration| {
            partition.leader == Some(broker) || partition.leader.is_none() && partition.last_known_elr == [broker]
        };
        let topics = self.image.partitions().filter(|(_, _, partition)| led(partition));
        let topics: Vec<Arc<str>> = topics.map(|(topic, ..)| topic.name.clone()).collect();
        let Some(topic) = random.pick(&topics) else { return };
        self.seen.insert("relaxed around a death");
        let (key, value) = ("flush.messages".to_owned(), Some("100".to_owned()));
        let edits = vec![ConfigEdit { key, operation: ConfigOperation::Set, value }];
        let resources = vec![(ConfigResource::Topic(topic), edits)];
        let request = IncrementalAlterConfigs { resources, validate_only: false };
        self.ask(ControllerRequest::IncrementalAlterConfigs(request), random);
    }

    /// An old copy says of its replicas what is old: of a topic that is relaxed by the time it registers, nobody can tell
    /// what was promised.
    pub(super) fn forget_what_nobody_tells(&mut self, request: &RegisterBrokerRequest) {
        let rules = rules_of(self.controller);
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let home = partition.directory_of(request.id);
            let lost = &self.machines[&request.id.0].lost;
            let is_told = request.differing.iter().any(|report| report.partition == key)
                && home
                    .is_some_and(|home| request.directories.iter().any(|d| d.id == home && d.verdict == Verdict::Lost));
            if home.is_some_and(|home| lost.contains(&home)) && !is_told && !rules.is_strict(&self.image, &topic.name) {
                self.promised.remove(&key);
            }
        }
    }

    /// What running processes make of the new image, and what that means for who leads.
    pub(super) fn settle_modes(&mut self, old: &MetadataImage, asked: Asked<'_>) {
        let forgotten = match asked {
            Asked::Request(ControllerRequest::UnregisterBroker(request)) => Some(request.id),
            _ => None,
        };
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let before = old.partition(key);
            let is_changed = before != Some(partition);
            let was_member = |of: BrokerId| before.is_some_and(|old| old.isr.contains(&of) || old.elr.contains(&of));
            // Whoever takes a member of a relaxed topic out for good accepts what that had.
            if forgotten.is_some_and(|id| is_changed && was_member(id)) {
                self.promised.remove(&key);
            }
            let is_accepted = match asked {
                Asked::Request(ControllerRequest::AcceptLoss(_)) => true,
                // Of a relaxed topic, a stock client's word for it.
                Asked::Request(ControllerRequest::ElectLeaders(asked)) => asked.election == ElectionType::Unclean,
                _ => false,
            };
            if is_accepted && is_changed {
                self.promised.remove(&key);
            }
            if let Some(leader) = partition.leader {
                let held = self.holds.get(&(key, leader)).copied().unwrap_or(0);
                let promised = self.promised.get(&key).copied().unwrap_or(0);
                // Its process is down, and will say what it has lost when it registers.
                let will_tell = !self.machines[&leader.0].runs;
                assert!(
                    held >= promised || will_tell,
                    "broker {leader} leads {key} with {held} of {promised} after {asked:?}: {before:?} became {partition:?}"
                );
            }
            for broker in partition.replicas.iter().filter(|broker| self.machines[&broker.0].runs) {
                self.modes.insert((key, *broker), rules_at(*broker).is_strict(&self.image, &topic.name));
            }
            if partition.leader.is_some_and(|leader| self.modes.get(&(key, leader)) == Some(&false)) {
                self.promised.remove(&key);
            }
        }
    }
}
