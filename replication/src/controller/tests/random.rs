//! Everything at once, at random: brokers come and go, lose directories and return with old ones, leaders change in-sync
//! sets, people move, elect and reconfigure. After every batch the invariants of the controller hold, and in a model of
//! what each replica holds no leader of a strict partition ever lacks an acknowledged record.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metadata::RecordBatch;

const BROKERS: i32 = 5;
const SEEDS: u64 = 24;
const STEPS: u64 = 500;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.below(of.len())].clone()) }
    }

    fn broker(&mut self) -> i32 {
        1 + i32::try_from(self.below(BROKERS as usize)).unwrap()
    }

    fn subset<T: Clone>(&mut self, of: &[T]) -> Vec<T> {
        of.iter().filter(|_| !self.one_in(3)).cloned().collect()
    }
}

/// A broker's machine: whether its process runs, and what its two directories have recorded.
#[derive(Clone, Default)]
struct Machine {
    runs: bool,
    incarnations: u8,
    recorded: BTreeMap<DirectoryId, RecordedEpochs>,
    /// What a directory had recorded at an earlier time.
    aside: BTreeMap<DirectoryId, RecordedEpochs>,
}

struct World {
    image: MetadataImage,
    machines: BTreeMap<i32, Machine>,
    topics: usize,
    /// How far each partition is acknowledged.
    acknowledged: BTreeMap<TopicPartition, u64>,
    /// How far each replica reaches.
    holds: BTreeMap<(TopicPartition, BrokerId), u64>,
    /// What has happened, so that the test cannot pass by doing nothing.
    seen: BTreeSet<&'static str>,
}

fn rules() -> SettingsRules {
    SettingsRules { static_broker: Default::default(), broker_key: |_| None, group_key: |_| None }
}

fn directories_of(broker: i32) -> [DirectoryId; 2] {
    [directory(broker), Uuid([100 + u8::try_from(broker).unwrap(); 16])]
}

impl World {
    fn new() -> World {
        World {
            image: MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap(),
            machines: (1..=BROKERS).map(|broker| (broker, Machine::default())).collect(),
            topics: 0,
            acknowledged: BTreeMap::new(),
            holds: BTreeMap::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Decides a request, checks what comes of it, applies it.
    fn ask(&mut self, request: ControllerRequest, random: &mut Random) -> Option<ControllerResponse> {
        let ids: Vec<TopicId> =
            (0..request.topic_ids_needed()).map(|n| Uuid([u8::try_from(self.topics + n).unwrap() | 128; 16])).collect();
        let (rules, defaults, cluster) = (rules(), Defaults::default(), cluster());
        let inputs = Inputs {
            cluster_id: &cluster,
            now: Timestamp(0),
            next_index: self.image.index() + 1,
            topic_ids: &ids,
            seed: random.next(),
            moves_are_known: random.one_in(2),
            previous_is_gone: true,
            brokers_to_come: 0,
            defaults: &defaults,
            rules: &rules,
        };
        let Decision { records, response, .. } = decide(&self.image, &request, &inputs).ok()?;
        if records.is_empty() {
            return Some(response);
        }
        let batch = RecordBatch { base_index: self.image.index(), controller_term: 1, created: Timestamp(0), records };
        assert_eq!(RecordBatch::decode(&batch.encode()).as_ref(), Ok(&batch));
        let next = self.image.apply(self.image.index() + 1, &batch).unwrap();
        check(&self.image, &next, &request, &rules);
        let old = std::mem::replace(&mut self.image, next);
        self.settle_model(&old, &request, &rules);
        Some(response.settled_at(self.image.index()))
    }

    /// What the new image means for who holds what.
    fn settle_model(&mut self, old: &MetadataImage, request: &ControllerRequest, rules: &SettingsRules) {
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let acknowledged = self.acknowledged.entry(key).or_default();
            let before = old.partition(key);
            for broker in &partition.replicas {
                // Another directory, or a replica that is new, begins empty.
                if before.is_none_or(|old| old.directory_of(*broker) != partition.directory_of(*broker)) {
                    self.holds.insert((key, *broker), 0);
                }
            }
            if matches!(request, ControllerRequest::AlterPartition(_)) && before != Some(partition) {
                // Who joins has caught up with the leader.
                for broker in &partition.isr {
                    let held = self.holds.entry((key, *broker)).or_default();
                    *held = (*held).max(*acknowledged);
                }
            }
            let Some(leader) = partition.leader else { continue };
            let held = self.holds.get(&(key, leader)).copied().unwrap_or(0);
            let is_accepted =
                matches!(request, ControllerRequest::AcceptLoss(_)) && before.is_some_and(|old| old.leader.is_none());
            if is_accepted || !rules.is_strict(&self.image, &topic.name) {
                *acknowledged = held.min(*acknowledged);
            }
            assert!(
                held >= *acknowledged,
                "broker {leader} leads {key} with {held} of {acknowledged} after {request:?}: {before:?} became {partition:?}"
            );
            if before.is_some_and(|old| old.leader_epoch < partition.leader_epoch) {
                self.seen.insert("election");
                for broker in &partition.isr {
                    let held = self.holds.entry((key, *broker)).or_default();
                    *held = (*held).max(*acknowledged);
                }
            }
        }
    }

    /// Produces to every partition that would acknowledge.
    fn produce(&mut self) {
        let rules = rules();
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let runs = |broker: &BrokerId| self.machines[&broker.0].runs && self.image.is_active(*broker);
            let min_isr = rules.min_insync_replicas(&self.image, &topic.name, partition.settled_count());
            let may = partition.leader.is_some_and(|leader| runs(&leader)) && partition.isr.iter().all(runs);
            if may && counted(partition) >= min_isr {
                let end = self.acknowledged.entry(key).or_default();
                *end += 1;
                for broker in &partition.isr {
                    self.holds.insert((key, *broker), *end);
                }
                self.seen.insert("acknowledged");
            }
        }
    }

    fn start(&mut self, random: &mut Random) {
        let broker = random.broker();
        if self.machines[&broker].runs {
            return;
        }
        let mut directories = Vec::new();
        let mut lost = Vec::new();
        let mut cut = Vec::new();
        let machine = self.machines.get_mut(&broker).unwrap();
        for id in directories_of(broker) {
            if random.one_in(6) {
                self.seen.insert("absent directory");
                continue;
            }
            let mut recorded = machine.recorded.get(&id).copied().unwrap_or_default();
            let verdict = match random.below(8) {
                0 => Verdict::Lost,
                1 => Verdict::Cut,
                _ => Verdict::Proved,
            };
            let aside = machine.aside.get(&id).copied();
            if let Some(aside) = aside.filter(|aside| *aside != recorded && random.one_in(8)) {
                // An old copy: what its replicas held then counts for nothing here.
                recorded = aside;
                let known = self.image.broker(BrokerId(broker)).and_then(|b| b.last_unfenced_with(id));
                if !recorded.were_there_for(known) {
                    self.seen.insert("old copy");
                    lost.push(id);
                }
            }
            if verdict == Verdict::Lost {
                lost.push(id);
            }
            if verdict == Verdict::Cut {
                cut.push(id);
            }
            directories.push(ReportedDirectory { id, verdict, recorded });
        }
        let replaces = self.image.broker(BrokerId(broker)).map(|registered| registered.epoch);
        machine.incarnations += 1;
        let incarnation = machine.incarnations;
        let mut differing = Vec::new();
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let Some(home) = partition.directory_of(BrokerId(broker)) else { continue };
            if lost.contains(&home) {
                self.holds.insert((key, BrokerId(broker)), 0);
            }
            if cut.contains(&home) {
                let held = self.holds.get(&(key, BrokerId(broker))).copied().unwrap_or(0);
                let log_end_offset = Offset(i64::try_from(held).unwrap());
                let report = ReplicaReport {
                    partition: key,
                    verdict: Verdict::Cut,
                    last_epoch: partition.leader_epoch,
                    log_end_offset,
                };
                differing.push(report);
            }
        }
        let request = RegisterBrokerRequest {
            directories,
            differing,
            replaces,
            ..registration(broker, incarnation, Verdict::Proved)
        };
        let answer = self.ask(ControllerRequest::RegisterBroker(request), random);
        let Some(ControllerResponse::RegisterBroker(answer)) = answer else { panic!("no registration: {answer:?}") };
        let machine = self.machines.get_mut(&broker).unwrap();
        for known in answer.directories {
            let follows = known.unfenced_epoch.filter(|_| !known.is_old_copy);
            let recorded = RecordedEpochs { last: Some(answer.epoch), follows };
            if let Some(old) = machine.recorded.insert(known.id, recorded)
                && random.one_in(3)
            {
                machine.aside.insert(known.id, old);
            }
        }
        // Or it dies between recording and unfencing.
        machine.runs = !random.one_in(6);
    }

    fn running(&self) -> Vec<i32> {
        self.machines.iter().filter(|(_, machine)| machine.runs).map(|(broker, _)| *broker).collect()
    }

    fn beat(&mut self, random: &mut Random) {
        let Some(broker) = random.pick(&self.running()) else { return };
        if self.image.broker(BrokerId(broker)).is_none() {
            return;
        }
        let online = self.image.broker(BrokerId(broker)).unwrap().directories.iter().map(|known| known.id);
        let online: Vec<_> = online.collect();
        let request = BrokerHeartbeat {
            want_fence: random.one_in(12),
            want_shutdown: random.one_in(12),
            online_directories: random.one_in(12).then(|| random.subset(&online)),
            ..heartbeat(&self.image, broker)
        };
        let answer = self.ask(ControllerRequest::Heartbeat(request), random);
        if let Some(ControllerResponse::Heartbeat(state)) = answer
            && state.should_shut_down
        {
            self.seen.insert("controlled shutdown");
            self.machines.get_mut(&broker).unwrap().runs = false;
        }
    }

    /// A replica as its leader knows it.
    fn in_sync(&self, partition: &PartitionRegistration, broker: BrokerId) -> InSyncReplica {
        let epoch = self.image.broker(broker).map(|registered| registered.epoch);
        let directory = partition.directory_of(broker).unwrap();
        InSyncReplica { broker, epoch, directory, is_whole: true }
    }

    fn lead(&mut self, random: &mut Random) {
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
        let mut isr = random.subset(&able);
        isr.insert(0, leader);
        let wish = PartitionIsr {
            partition: TopicPartition { topic_id, partition: index },
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: isr.iter().map(|broker| self.in_sync(&partition, *broker)).collect(),
            damaged: Vec::new(),
            recovering: RecoveryState::Recovered,
            hand_over: false,
        };
        let broker_epoch = self.image.broker(leader).unwrap().epoch;
        let request = AlterPartition { broker: leader, broker_epoch, partitions: vec![wish] };
        if let Some(ControllerResponse::AlterPartition(results)) =
            self.ask(ControllerRequest::AlterPartition(request), random)
            && results[0].result.as_ref().is_err_and(|reject| reject.code == ErrorCode::NewLeaderElected)
        {
            self.seen.insert("moved");
        }
    }

    fn administer(&mut self, random: &mut Random) {
        let partitions: Vec<_> = self
            .image
            .partitions()
            .map(|(topic, index, partition)| (topic.name.to_string(), topic.id, index, Arc::clone(partition)))
            .collect();
        let picked = random.pick(&partitions);
        let request = match (random.below(11), picked) {
            (0, _) if self.topics < 100 => {
                self.topics += 1;
                let name = if random.one_in(5) { "__consumer_offsets".to_owned() } else { format!("t{}", self.topics) };
                let factor = i16::try_from(1 + random.below(3)).unwrap();
                create(vec![new_topic(&name, 1 + i32::try_from(random.below(3)).unwrap(), factor)])
            }
            (1, Some((topic, ..))) if partitions.len() > 12 => {
                ControllerRequest::DeleteTopics(DeleteTopics { topics: vec![TopicReference::Name(topic)] })
            }
            (2, Some((topic, ..))) => {
                let (key, values): (_, &[&str]) = if random.one_in(3) {
                    ("flush.messages", &["1", "100"])
                } else {
                    ("min.insync.replicas", &["1", "2", "3"])
                };
                let value = random.pick(values).map(str::to_owned);
                let operation = if random.one_in(4) { ConfigOperation::Delete } else { ConfigOperation::Set };
                let edit = ConfigEdit { key: key.to_owned(), operation, value };
                let resources = vec![(ConfigResource::Topic(topic.as_str().into()), vec![edit])];
                ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, validate_only: false })
            }
            (3 | 4, Some((topic, _, partition, _))) => {
                let all: Vec<BrokerId> = (1..=BROKERS).map(BrokerId).collect();
                let mut replicas = random.subset(&all);
                replicas.truncate(1 + random.below(3));
                let turn = random.below(replicas.len().max(1));
                replicas.rotate_left(turn);
                let replicas = (!random.one_in(4)).then_some(replicas);
                let partitions = vec![NewReplicas { topic, partition, replicas }];
                ControllerRequest::AlterReassignments(AlterReassignments {
                    partitions,
                    allow_replication_factor_change: true,
                })
            }
            (5, Some((topic, _, index, _))) => {
                let election = if random.one_in(2) { ElectionType::Preferred } else { ElectionType::Unclean };
                ControllerRequest::ElectLeaders(ElectLeaders { election, partitions: Some(vec![(topic, index)]) })
            }
            (6, _) => ControllerRequest::BalanceLeaders,
            (7, Some((_, topic_id, partition, registration))) => {
                let broker = random.pick(&registration.replicas).unwrap();
                let Some(broker_epoch) = self.image.broker(broker).map(|broker| broker.epoch) else { return };
                let to = directories_of(broker.0)[random.below(2)];
                let replicas = vec![(TopicPartition { topic_id, partition }, to)];
                self.seen.insert("another directory");
                ControllerRequest::AssignReplicas(AssignReplicas { broker, broker_epoch, replicas })
            }
            (8, Some((topic, _, partition, registration))) if random.one_in(4) => {
                let replica = random.pick(&registration.replicas).unwrap();
                ControllerRequest::AcceptLoss(AcceptLoss { topic, partition, replica })
            }
            (9, _) if random.one_in(8) => {
                let id = random.broker();
                self.machines.get_mut(&id).unwrap().runs = false;
                ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(id) })
            }
            (10, _) => ControllerRequest::RaiseInternalTopics,
            _ => return,
        };
        self.ask(request, random);
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(16) {
            0 | 1 => self.start(random),
            2 if random.one_in(2) => {
                let broker = random.broker();
                self.machines.get_mut(&broker).unwrap().runs = false;
            }
            3 => {
                // The session of one that is down has ended, or that of one that only seems to be.
                let broker = random.broker();
                let Some(registered) = self.image.broker(BrokerId(broker)) else { return };
                let request = FenceBroker { id: BrokerId(broker), epoch: registered.epoch };
                if !self.machines[&broker].runs || random.one_in(4) {
                    self.ask(ControllerRequest::FenceBroker(request), random);
                }
            }
            4..=7 => self.beat(random),
            8..=10 => self.lead(random),
            11..=13 => self.administer(random),
            _ => self.produce(),
        }
    }
}

/// Members of the in-sync set that count for the min ISR.
fn counted(partition: &PartitionRegistration) -> usize {
    partition.isr.iter().filter(|member| !partition.adding.contains(member)).count()
}

/// The invariants of one batch.
fn check(before: &MetadataImage, after: &MetadataImage, request: &ControllerRequest, rules: &SettingsRules) {
    for broker in after.brokers() {
        let old = before.broker(broker.id);
        assert!(old.is_none_or(|old| old.epoch <= broker.epoch), "the epoch of a broker grows");
    }
    for (topic, index, partition) in after.partitions() {
        let key = TopicPartition { topic_id: topic.id, partition: index };
        let told = || format!("{key} after {request:?}: {:?} became {partition:?}", before.partition(key));
        let is_member = |broker: &BrokerId| partition.isr.contains(broker) || partition.elr.contains(broker);
        assert!(partition.leader.is_none_or(|leader| partition.isr.contains(&leader)), "{}", told());
        assert!(partition.isr.iter().chain(&partition.elr).all(|b| partition.replicas.contains(b)), "{}", told());
        assert!(partition.isr.iter().all(|member| !partition.elr.contains(member)), "{}", told());
        assert_eq!(partition.directories.len(), partition.replicas.len(), "{}", told());
        assert!(partition.cut.iter().all(|member| partition.elr.contains(member)), "{}", told());
        let min_isr = rules.min_insync_replicas(after, &topic.name, partition.settled_count());
        assert!(counted(partition) < min_isr || partition.elr.is_empty(), "min ISR {min_isr}: {}", told());
        // The last member stays, fenced as its registration has it, until it is unfenced.
        let is_last = partition.isr.len() == 1;
        let is_up = |member: &BrokerId| after.broker(*member).is_some_and(|broker| !broker.fenced);
        assert!(is_last || partition.isr.iter().all(is_up), "{}", told());
        assert!(partition.isr.iter().chain(&partition.elr).all(|b| after.broker(*b).is_some()), "{}", told());
        let Some(old) = before.partition(key) else { continue };
        assert!(old.leader_epoch <= partition.leader_epoch && old.partition_epoch <= partition.partition_epoch);
        assert!(old.leader_epoch == partition.leader_epoch || old.partition_epoch < partition.partition_epoch);
        let was_member = |broker: BrokerId| old.isr.contains(&broker) || old.elr.contains(&broker);
        let is_new = partition.leader.filter(|leader| Some(*leader) != old.leader);
        if let Some(leader) = is_new
            && rules.is_strict(after, &topic.name)
            && !matches!(request, ControllerRequest::AcceptLoss(_) | ControllerRequest::AlterPartition(_))
        {
            assert!(was_member(leader) && is_member(&leader), "an unclean election: {}", told());
        }
    }
    assert!(after.indexes_are_true());
    let again = MetadataImage::from_records(after.index(), &after.to_records()).unwrap();
    assert!(again == *after && again.indexes_are_true(), "a snapshot is the image");
}

#[test]
fn whatever_happens_the_invariants_hold_and_no_strict_leader_lacks_an_acknowledged_record() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut random = Random(seed);
        let mut world = World::new();
        for step in 0..STEPS {
            let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.step(&mut random)));
            assert!(run.is_ok(), "seed {seed}, step {step}: see above");
        }
        seen.extend(world.seen);
    }
    let all = [
        "absent directory",
        "acknowledged",
        "another directory",
        "controlled shutdown",
        "election",
        "moved",
        "old copy",
    ];
    assert!(seen.iter().eq(&all), "{seen:?}");
}
