//! What leaders say, truly or not, and what befalls replicas and processes.

use super::*;

impl World {
    /// A replica as its leader knows it.
    fn in_sync(&self, partition: &PartitionRegistration, broker: BrokerId) -> InSyncReplica {
        let epoch = self.image.broker(broker).map(|registered| registered.epoch);
        let directory = partition.directory_of(broker).unwrap();
        InSyncReplica { broker, epoch, directory, is_whole: true }
    }

    pub(super) fn lead(&mut self, random: &mut Random) {
        let led: Vec<_> = self
            .image
            .partitions()
            .filter(|(_, _, partition)| partition.leader.is_some())
            .map(|(topic, index, partition)| (topic.id, index, Arc::clone(partition)))
            .collect();
        let Some((topic_id, index, partition)) = random.pick(&led) else { return };
        let leader = partition.leader.unwrap();
        let runs = |broker: &BrokerId| self.machines[&broker.0].runs && self.image.is_active(*broker);
        if !runs(&leader) {
            return;
        }
        let able: Vec<BrokerId> = partition.replicas.iter().copied().filter(|b| *b != leader && runs(b)).collect();
        let has_home = |broker: &BrokerId| {
            let home = partition.directory_of(*broker);
            self.image.broker(*broker).is_some_and(|b| home.is_some_and(|home| b.has_directory(home)))
        };
        let able: Vec<BrokerId> = able.into_iter().filter(has_home).collect();
        let key = TopicPartition { topic_id, partition: index };
        let is_damaged = |broker: BrokerId| self.damaged.contains(&(key, broker));
        let mut isr = vec![InSyncReplica { is_whole: !is_damaged(leader), ..self.in_sync(&partition, leader) }];
        let mut caught_up = BTreeSet::new();
        for broker in random.subset(&able) {
            let known = InSyncReplica { is_whole: !is_damaged(broker), ..self.in_sync(&partition, broker) };
            if partition.isr.contains(&broker) {
                isr.extend(Some(known).filter(|known| known.is_whole));
                continue;
            }
            let epoch = self.image.broker(broker).unwrap().epoch;
            // What a leader may know of a follower, and what a late message makes it believe.
            match random.below(16) {
                0 => isr.push(InSyncReplica { epoch: None, ..known }),
                1 => isr.push(InSyncReplica { epoch: Some(BrokerEpoch(epoch.0 - 1)), ..known }),
                2 => {
                    let others = directories_of(broker.0).into_iter().filter(|other| *other != known.directory);
                    isr.extend(others.map(|directory| InSyncReplica { directory, ..known }).take(1));
                }
                turn if known.is_whole || turn < 8 => {
                    caught_up.extend(known.is_whole.then_some((key, broker)));
                    isr.push(known);
                }
                _ => {}
            }
        }
        let is_wished = |broker: &BrokerId| isr.iter().any(|member| member.broker == *broker);
        let damaged: Vec<BrokerId> =
            partition.replicas.iter().copied().filter(|b| is_damaged(*b) && !is_wished(b)).collect();
        let hand_over = if isr[0].is_whole { random.one_in(10) } else { random.one_in(2) };
        self.caught_up = caught_up;
        let recovering = RecoveryState::Recovered;
        let (leader_epoch, partition_epoch) = (partition.leader_epoch, partition.partition_epoch);
        let mut partition_epoch = partition_epoch;
        if random.one_in(12) && partition_epoch.0 > 0 {
            // One that comes late: what it says was so, and is not any more.
            partition_epoch.0 -= 1;
            self.caught_up.clear();
        }
        let wish = PartitionIsr { partition: key, leader_epoch, partition_epoch, isr, damaged, recovering, hand_over };
        let broker_epoch = self.image.broker(leader).unwrap().epoch;
        let request = AlterPartition { broker: leader, broker_epoch, partitions: vec![wish] };
        if let Some(ControllerResponse::AlterPartition(results)) =
            self.ask(ControllerRequest::AlterPartition(request), random)
            && results[0].result.as_ref().is_err_and(|reject| reject.code == ErrorCode::NewLeaderElected)
        {
            self.seen.insert(if hand_over { "handed over" } else { "moved" });
        }
    }

    /// A replica loses a range, or gets it back.
    pub(super) fn damage(&mut self, random: &mut Random) {
        if random.one_in(3) {
            let damaged: Vec<_> = self.damaged.iter().copied().collect();
            random.pick(&damaged).map(|repaired| self.damaged.remove(&repaired));
            return;
        }
        let held: Vec<_> = self.holds.iter().filter(|(_, end)| **end > 0).map(|(replica, _)| *replica).collect();
        if let Some(replica) = random.pick(&held) {
            self.seen.insert("damaged");
            self.damaged.insert(replica);
        }
    }

    /// A registration comes once more, or that of a second process with the same id.
    pub(super) fn register_late(&mut self, random: &mut Random) {
        let Some(request) = random.pick(&self.sent) else { return };
        let broker = self.image.broker(request.id).cloned();
        let runs = self.machines[&request.id.0].runs;
        if let Some(broker) = broker.filter(|broker| !broker.fenced && runs)
            && random.one_in(2)
        {
            let second = RegisterBrokerRequest {
                incarnation: Uuid([255; 16]),
                directories: Vec::new(),
                differing: Vec::new(),
                replaces: Some(broker.epoch),
                ..request
            };
            let answer = self.ask_when(ControllerRequest::RegisterBroker(second), false, random);
            assert_eq!(answer, None, "a process that lives is not replaced");
            return;
        }
        self.seen.insert("late registration");
        self.forget_what_nobody_tells(&request);
        self.ask_when(ControllerRequest::RegisterBroker(request), !runs || random.one_in(4), random);
    }

    /// Every machine loses power, and every session ends. Somebody lowers a min ISR that cannot be met, and machines come
    /// back one after the other.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        self.seen.insert("power cut");
        let wide = self.image.partitions().find(|(_, _, partition)| partition.isr.len() > 2);
        if let Some(name) = wide.map(|(topic, ..)| topic.name.to_string()) {
            self.set_min_isr(&name, 3, random);
        }
        for broker in 1..=BROKERS {
            self.machines.get_mut(&broker).unwrap().runs = false;
            let Some(epoch) = self.image.broker(BrokerId(broker)).map(|registered| registered.epoch) else { continue };
            while self.image.broker(BrokerId(broker)).is_some_and(|registered| !registered.fenced) {
                self.ask(ControllerRequest::FenceBroker(FenceBroker { id: BrokerId(broker), epoch }), random);
            }
        }
        self.restarts_after_cut = 2 * BROKERS as usize;
        let wide = self.image.partitions().find(|(_, _, partition)| partition.elr.len() > 2);
        let Some((topic, _, partition)) = wide else { return };
        let mut members = partition.elr.clone();
        let name = topic.name.to_string();
        self.set_min_isr(&name, 2, random);
        let turn = random.below(members.len());
        members.rotate_left(turn);
        for (place, member) in members.into_iter().enumerate() {
            self.start(member.0, random);
            if place > 0 {
                self.unfence(member, random);
            }
        }
    }

    fn set_min_isr(&mut self, topic: &str, value: usize, random: &mut Random) {
        let (key, value) = ("min.insync.replicas".to_owned(), Some(value.to_string()));
        let edits = vec![ConfigEdit { key, operation: ConfigOperation::Set, value }];
        let resources = vec![(ConfigResource::Topic(topic.into()), edits)];
        let request = IncrementalAlterConfigs { resources, validate_only: false };
        self.ask(ControllerRequest::IncrementalAlterConfigs(request), random);
    }

    /// A process that leads as the last in sync dies and is back before anybody has noticed; then the eligible ones are.
    pub(super) fn restart_last_member(&mut self, random: &mut Random) {
        let alone = |partition: &&Arc<PartitionRegistration>| partition.isr.len() == 1 && !partition.elr.is_empty();
        let alone: Vec<_> = self.image.partitions().map(|(_, _, partition)| partition).filter(alone).cloned().collect();
        let Some(partition) = random.pick(&alone) else { return };
        self.machines.get_mut(&partition.isr[0].0).unwrap().runs = false;
        self.start(partition.isr[0].0, random);
        for member in &partition.elr {
            self.start(member.0, random);
            self.unfence(*member, random);
        }
    }

    /// A running broker says that it is ready.
    fn unfence(&mut self, broker: BrokerId, random: &mut Random) {
        if self.machines[&broker.0].runs && self.image.broker(broker).is_some() {
            self.ask(ControllerRequest::Heartbeat(heartbeat(&self.image, broker.0)), random);
        }
    }
}
