//! Everything at once, at random: brokers come and go, lose directories and return with old ones, register late or twice,
//! leaders change in-sync sets and say what is not so, replicas are damaged and repaired, controllers with other
//! configurations take over, in the middle of a decision too, people move, elect and reconfigure. After every batch the
//! invariants of the controller hold ([`check`]), and in a model of what each replica holds no leader of a strict
//! partition ever lacks an acknowledged record.

mod acts;
mod check;
mod modes;

use crate::settings::cluster_keys::weakens;
use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metadata::RecordBatch;
use crate::settings::log_keys::log_key;
use check::{Asked, check, counted};

const BROKERS: i32 = 5;
/// Unless `STONELOG_CONTROLLER_SEEDS` says otherwise.
const SEEDS: u64 = 120;
const STEPS: u64 = 500;
/// Records of an entry in every other seed: so few that what follows from a broker's coming and going takes several.
const FEW_RECORDS: usize = 4;
/// What the configurations of three nodes say of the keys that hold for the whole cluster.
const FILES: [&[(&str, &str)]; 3] =
    [&[], &[("min.insync.replicas", "1")], &[("min.insync.replicas", "2"), ("unclean.leader.election.enable", "true")]];

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
    /// Directories that have lost what they held, and no registration has said so yet.
    lost: BTreeSet<DirectoryId>,
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
    /// The mode that each replica's journal has recorded.
    modes: BTreeMap<(TopicPartition, BrokerId), bool>,
    /// How far each partition is acknowledged strictly, by leaders that have not heard since that it is relaxed.
    promised: BTreeMap<TopicPartition, u64>,
    /// Who may truly join: what its leader says of it is so.
    caught_up: BTreeSet<(TopicPartition, BrokerId)>,
    /// Replicas with holes.
    damaged: BTreeSet<(TopicPartition, BrokerId)>,
    /// Registrations that were sent, and may come once more.
    sent: Vec<RegisterBrokerRequest>,
    /// Whose configuration the active controller has.
    controller: usize,
    /// How many records an entry takes.
    records_max: usize,
    /// What else is in the log: a new term's first entry, changes of members.
    between: Random,
    /// How many starts are yet to come that find what a power cut left.
    restarts_after_cut: usize,
    /// What has happened, so that the test cannot pass by doing nothing.
    seen: BTreeSet<&'static str>,
}

/// The rules as a node with one of the configurations reads them.
fn rules_of(file: usize) -> SettingsRules {
    let static_broker = FILES[file].iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    SettingsRules { static_broker, broker_key: log_key, group_key: |_| None }
}

/// The rules as a broker reads them that leads.
fn rules_at(broker: BrokerId) -> SettingsRules {
    rules_of(usize::try_from(broker.0).unwrap() % FILES.len())
}

fn directories_of(broker: i32) -> [DirectoryId; 2] {
    [directory(broker), Uuid([100 + u8::try_from(broker).unwrap(); 16])]
}

impl World {
    fn new(records_max: usize, seed: u64) -> World {
        World {
            image: MetadataImage::from_records(INDEX, &bootstrap_records(&cluster())).unwrap(),
            machines: (1..=BROKERS).map(|broker| (broker, Machine::default())).collect(),
            topics: 0,
            acknowledged: BTreeMap::new(),
            holds: BTreeMap::new(),
            modes: BTreeMap::new(),
            promised: BTreeMap::new(),
            caught_up: BTreeSet::new(),
            damaged: BTreeSet::new(),
            sent: Vec::new(),
            controller: 0,
            records_max,
            between: Random(!seed),
            restarts_after_cut: 0,
            seen: BTreeSet::new(),
        }
    }

    /// Has a request decided, entry by entry. `None` when it was refused, or the controller was lost in between.
    fn ask(&mut self, request: ControllerRequest, random: &mut Random) -> Option<ControllerResponse> {
        self.ask_when(request, true, random)
    }

    fn ask_when(
        &mut self,
        request: ControllerRequest,
        previous_is_gone: bool,
        random: &mut Random,
    ) -> Option<ControllerResponse> {
        let asked = Asked::Request(&request);
        loop {
            let decision = self.decide(&request, previous_is_gone, random)?;
            let is_bounded = matches!(
                request,
                ControllerRequest::RegisterBroker(_)
                    | ControllerRequest::UnregisterBroker(_)
                    | ControllerRequest::Heartbeat(_)
                    | ControllerRequest::FenceBroker(_)
            );
            assert!(!is_bounded || decision.records.len() <= self.records_max, "{request:?}: {:?}", decision.records);
            self.commit(decision.records, asked);
            if !decision.goes_on {
                return Some(decision.response.settled_at(self.image.index()));
            }
            self.seen.insert("several entries");
            if random.one_in(4) {
                self.seen.insert("lost in between");
                return None;
            }
        }
    }

    fn decide(&mut self, request: &ControllerRequest, previous_is_gone: bool, random: &mut Random) -> Option<Decision> {
        let ids: Vec<TopicId> =
            (0..request.topic_ids_needed()).map(|n| Uuid([u8::try_from(self.topics + n).unwrap() | 128; 16])).collect();
        let (rules, defaults, cluster) = (rules_of(self.controller), Defaults::default(), cluster());
        let inputs = Inputs {
            cluster_id: &cluster,
            now: Timestamp(0),
            next_index: self.image.index() + 1,
            topic_ids: &ids,
            seed: random.next(),
            moves_are_known: random.one_in(2),
            previous_is_gone,
            brokers_to_come: 0,
            defaults: &defaults,
            rules: &rules,
        };
        decide(&self.image, request, &inputs).ok()
    }

    /// Applies the records of one entry, and checks what came of them.
    fn commit(&mut self, records: Vec<MetadataRecord>, asked: Asked<'_>) {
        if records.is_empty() {
            return;
        }
        let batch = RecordBatch { base_index: self.image.index(), controller_term: 1, created: Timestamp(0), records };
        assert_eq!(RecordBatch::decode(&batch.encode()).as_ref(), Ok(&batch));
        let between = if self.between.one_in(4) { self.between.below(5) as u64 } else { 0 };
        let next = self.image.apply(self.image.index() + 1 + between, &batch).unwrap();
        check(&self.image, &next, asked, &rules_of(self.controller));
        let old = std::mem::replace(&mut self.image, next);
        self.settle_model(&old, asked);
        self.settle_modes(&old, asked);
    }

    /// Another controller, with a configuration of its own.
    fn change_controller(&mut self, random: &mut Random) {
        self.controller = random.below(FILES.len());
        // A lone node's file may be weaker than what is recorded; of several it then has no effect.
        let is_alone = random.one_in(2);
        loop {
            let rules = rules_of(self.controller);
            let Activation { records, goes_on, kept: _ } = activation_records(&self.image, &rules, is_alone);
            let is_recorded = records.iter().any(|record| matches!(record, MetadataRecord::Config(_)));
            self.commit(records, Asked::Activation);
            if is_recorded {
                self.seen.insert("other defaults");
            }
            if !goes_on {
                break;
            }
        }
        for key in crate::settings::CLUSTER_KEYS {
            let own = rules_of(self.controller).own_cluster_values();
            let (recorded, own) = (self.image.recorded_config().get(key), own.get(key));
            let is_weaker = weakens(key, recorded.map(String::as_str), own.map(String::as_str));
            assert!(!is_weaker && (recorded == own || !is_alone), "{key}: {recorded:?}, {own:?}");
        }
    }

    /// What the new image means for who holds what.
    fn settle_model(&mut self, old: &MetadataImage, asked: Asked<'_>) {
        let rules = rules_of(self.controller);
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let acknowledged = self.acknowledged.entry(key).or_default();
            let before = old.partition(key);
            for broker in &partition.replicas {
                // Another directory, or a replica that is new, begins empty.
                if before.is_none_or(|old| old.directory_of(*broker) != partition.directory_of(*broker)) {
                    self.holds.insert((key, *broker), 0);
                    self.damaged.remove(&(key, *broker));
                }
            }
            if matches!(asked, Asked::Request(ControllerRequest::AlterPartition(_))) && before != Some(partition) {
                // Who joins has caught up with the leader, if it is as its leader says.
                let was_in_sync = |broker| before.is_some_and(|before| before.isr.contains(&broker));
                for broker in partition.isr.iter().filter(|broker| !was_in_sync(**broker)) {
                    let from_elr = before.is_some_and(|before| before.elr.contains(broker));
                    assert!(
                        from_elr || !self.damaged.contains(&(key, *broker)),
                        "damaged {broker} joins {key} by {asked:?}: {before:?} became {partition:?}"
                    );
                    if self.caught_up.contains(&(key, *broker)) {
                        let held = self.holds.entry((key, *broker)).or_default();
                        *held = (*held).max(*acknowledged);
                    }
                }
            }
            // On a relaxed topic the last member stays one, whatever it has lost; its owner is told.
            let mut members = partition.isr.iter().chain(&partition.elr);
            if let (Some(last), None) = (members.next(), members.next())
                && (!rules.is_strict(&self.image, &topic.name)
                    || partition.left_strict == Some(false)
                    || self.modes.get(&(key, *last)) == Some(&false))
            {
                *acknowledged = self.holds.get(&(key, *last)).copied().unwrap_or(0).min(*acknowledged);
            }
            let Some(leader) = partition.leader else { continue };
            let held = self.holds.get(&(key, leader)).copied().unwrap_or(0);
            let is_accepted =
                matches!(asked, Asked::Request(ControllerRequest::AcceptLoss(_))) && before != Some(partition);
            // Tightened since it was left, or since its last leader wrote: what counts then is in `promised`.
            let was_relaxed = before.is_some_and(|old| old.leader.is_none() && old.left_strict == Some(false))
                || self.modes.get(&(key, leader)) == Some(&false);
            if is_accepted || was_relaxed || !rules.is_strict(&self.image, &topic.name) {
                *acknowledged = held.min(*acknowledged);
            }
            // Its process is down, and will say what it has lost when it registers.
            let is_news =
                partition.directory_of(leader).is_some_and(|home| self.machines[&leader.0].lost.contains(&home));
            assert!(
                held >= *acknowledged || is_news && !self.machines[&leader.0].runs,
                "broker {leader} leads {key} with {held} of {acknowledged} after {asked:?}: {before:?} became {partition:?}"
            );
            if before.is_some_and(|old| old.leader_epoch < partition.leader_epoch) {
                self.seen.insert("election");
                for broker in partition.isr.iter().filter(|broker| **broker == leader) {
                    let held = self.holds.entry((key, *broker)).or_default();
                    *held = (*held).max(*acknowledged);
                }
            }
        }
    }

    fn start(&mut self, broker: i32, random: &mut Random) {
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
                _ if machine.lost.contains(&id) => Verdict::Lost,
                0 => Verdict::Lost,
                1 => Verdict::Cut,
                2..=5 if self.restarts_after_cut > 0 => Verdict::Cut,
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
        machine.lost.extend(&lost);
        machine.incarnations += 1;
        self.restarts_after_cut = self.restarts_after_cut.saturating_sub(1);
        let incarnation = machine.incarnations;
        let mut differing = Vec::new();
        for (topic, index, partition) in self.image.partitions() {
            let key = TopicPartition { topic_id: topic.id, partition: index };
            let Some(home) = partition.directory_of(BrokerId(broker)) else { continue };
            if lost.contains(&home) {
                self.holds.insert((key, BrokerId(broker)), 0);
                self.damaged.remove(&(key, BrokerId(broker)));
            }
            // Cut by an earlier start, and whole by what this one finds.
            let is_cut = partition.cut.contains(&BrokerId(broker)) && !lost.contains(&home);
            let was_strict = self.modes.get(&(key, BrokerId(broker))).copied();
            let reported = directories.iter().find(|directory| directory.id == home);
            if reported.is_some_and(|directory| directory.verdict == Verdict::Lost) {
                differing.extend(self.report_of_lost(key, &topic.name, home, was_strict));
                continue;
            }
            if self.damaged.contains(&(key, BrokerId(broker))) && !lost.contains(&home) {
                let verdict = Verdict::Damaged;
                let end = Offset::ZERO;
                differing.push(ReplicaReport {
                    partition: key,
                    verdict,
                    last_epoch: LeaderEpoch(0),
                    log_end_offset: end,
                    directory: Some(home),
                    was_strict,
                });
            } else if cut.contains(&home) || is_cut && !off!(CutMembersTell) {
                let held = self.holds.get(&(key, BrokerId(broker))).copied().unwrap_or(0);
                let log_end_offset = Offset(i64::try_from(held).unwrap());
                let report = ReplicaReport {
                    partition: key,
                    verdict: if cut.contains(&home) { Verdict::Cut } else { Verdict::Proved },
                    last_epoch: partition.leader_epoch,
                    log_end_offset,
                    directory: Some(home),
                    was_strict,
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
        self.sent.push(request.clone());
        if random.one_in(4) {
            self.relax_led(BrokerId(broker), random);
        }
        self.forget_what_nobody_tells(&request);
        // Or it dies before it has an answer.
        let Some(answer) = self.ask(ControllerRequest::RegisterBroker(request), random) else { return };
        let ControllerResponse::RegisterBroker(answer) = answer else { panic!("no registration: {answer:?}") };
        let machine = self.machines.get_mut(&broker).unwrap();
        for known in answer.directories {
            machine.lost.remove(&known.id);
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
        let wants_to_leave = request.want_fence || request.want_shutdown;
        let answer = self.ask(ControllerRequest::Heartbeat(request), random);
        let Some(ControllerResponse::Heartbeat(state)) = answer else { return };
        let is_heard = state.is_fenced || wants_to_leave || self.image.is_active(BrokerId(broker));
        assert!(is_heard, "broker {broker} is heard, and stays one that is leaving");
        if state.should_shut_down {
            self.seen.insert("controlled shutdown");
            self.machines.get_mut(&broker).unwrap().runs = false;
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
            (8, Some((topic, topic_id, partition, registration))) if random.one_in(4) => {
                let replica = random.pick(&registration.replicas).unwrap();
                let shown = PartitionShown {
                    topic_id,
                    leader_epoch: registration.leader_epoch,
                    partition_epoch: registration.partition_epoch,
                };
                ControllerRequest::AcceptLoss(AcceptLoss { topic, partition, replica, shown })
            }
            (9, _) if random.one_in(8) => {
                let id = random.broker();
                self.machines.get_mut(&id).unwrap().runs = false;
                ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(id) })
            }
            (10, _) => ControllerRequest::RaiseInternalTopics,
            _ => return,
        };
        let answer = self.ask(request, random);
        if let Some(ControllerResponse::BalanceLeaders(Balanced { has_more: false, .. })) = answer {
            check::whoever_can_lead_leads(&self.image, None);
        }
    }

    fn step(&mut self, random: &mut Random) {
        match random.below(19) {
            0 | 1 => self.start(random.broker(), random),
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
            14 if random.one_in(3) => self.damage(random),
            15 => self.register_late(random),
            16 if random.one_in(6) => self.change_controller(random),
            17 if random.one_in(8) => self.power_cut(random),
            17 if random.one_in(3) => self.restart_last_member(random),
            _ => self.produce(),
        }
    }
}

#[test]
fn whatever_happens_the_invariants_hold_and_no_strict_leader_lacks_an_acknowledged_record() {
    let mut seen = BTreeSet::new();
    let seeds = std::env::var("STONELOG_CONTROLLER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        let mut random = Random(seed);
        let records_max = if seed % 2 == 0 { RECORDS_PER_ENTRY_MAX } else { FEW_RECORDS };
        crate::controller::entry::tests::RECORDS_MAX.set(records_max);
        let mut world = World::new(records_max, seed);
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
        "damaged",
        "election",
        "handed over",
        "late registration",
        "lost in between",
        "moved",
        "old copy",
        "other defaults",
        "power cut",
        "relaxed around a death",
        "several entries",
    ];
    assert!(seen.iter().eq(&all), "{seen:?}");
}
