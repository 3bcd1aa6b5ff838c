//! What clients and operators ask of the cluster: topics, settings, appends, deletions and moves.

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicPartition};
use stonelog_replication::controller::{
    AcceptLoss, AlterReassignments, ConfigEdit, ConfigOperation, ControllerRequest, CreateTopics,
    IncrementalAlterConfigs, NewReplicas, NewTopic,
};
use stonelog_replication::metadata::ConfigResource;
use stonelog_replication::partition::{Acks, Receipt};

use super::metadata_log::Asked;
use super::network::CONTROLLER;
use super::node::{Env, Node, Out, Role, Waiting};
use super::{Cluster, NOW, oracle};
use crate::support::Batch;

impl Cluster {
    pub(super) fn request(&mut self, request: ControllerRequest) {
        self.log.ask(Asked { from: CONTROLLER, life: 0, number: 0, request }, self.now);
        self.decide();
    }

    pub(super) fn create_topic(&mut self) {
        let name = format!("t{}", self.tokens);
        let min_isr = self.options.min_isr.map(|min| ("min.insync.replicas".to_owned(), Some(min.to_string())));
        let relaxed = self.options.relaxed.then(|| ("flush.messages".to_owned(), Some("1000".to_owned())));
        let topic = NewTopic {
            name,
            partitions: self.options.partitions,
            replication_factor: 3,
            assignments: Vec::new(),
            configs: min_isr.into_iter().chain(relaxed).collect(),
        };
        self.request(ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false }));
    }

    pub(super) fn set(&mut self, topic: &str, key: &str, value: &str) {
        let edit = ConfigEdit { key: key.to_owned(), operation: ConfigOperation::Set, value: Some(value.to_owned()) };
        let resources = vec![(ConfigResource::Topic(topic.into()), vec![edit])];
        self.request(ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs {
            resources,
            validate_only: false,
        }));
    }

    pub(super) fn partitions(&self) -> Vec<TopicPartition> {
        let all = self.log.newest().partitions();
        all.map(|(topic, index, _)| TopicPartition { topic_id: topic.id, partition: PartitionIndex(index.0) }).collect()
    }

    fn topic_names(&self) -> Vec<String> {
        self.log.newest().topics().map(|topic| topic.name.to_string()).collect()
    }

    /// Topics become strict, or relaxed.
    pub(super) fn change_modes(&mut self) {
        let value = if self.below(3) == 0 { "1000" } else { "1" };
        self.set_modes(value);
    }

    /// `flush.messages` of all topics.
    pub(super) fn set_modes(&mut self, value: &str) {
        for name in self.topic_names() {
            self.coverage.hit("flush.messages changed");
            self.set(&name, "flush.messages", value);
        }
    }

    /// Partitions move to other nodes, with a replica more or less, or back.
    pub(super) fn reassign(&mut self) {
        let mut nodes = self.ids();
        for place in (1..nodes.len()).rev() {
            let other = self.below(place as u64 + 1) as usize;
            nodes.swap(place, other);
        }
        let count = if self.below(4) == 0 { nodes.len() } else { 3 };
        nodes.truncate(count);
        let gives_up = self.below(5) == 0;
        let mut partitions = Vec::new();
        for (topic, partition, _) in self.log.newest().partitions() {
            let replicas = (!gives_up).then(|| nodes.clone());
            partitions.push(NewReplicas { topic: topic.name.to_string(), partition, replicas });
        }
        self.coverage.hit("reassignment asked for");
        let request = AlterReassignments { partitions, allow_replication_factor_change: true };
        self.request(ControllerRequest::AlterReassignments(request));
    }

    /// A topic that was relaxed when the power went everywhere, and is strict again, stays offline until somebody accepts
    /// what may be missing. Whoever does looks at what the replicas hold.
    pub(super) fn accept_losses(&mut self) {
        for id in self.partitions() {
            let Some(registration) = self.log.newest().partition(id).cloned() else { continue };
            if registration.leader.is_some() || !registration.isr.is_empty() || !registration.elr.is_empty() {
                continue;
            }
            let mut best: Option<(i64, BrokerId)> = None;
            for node in &self.nodes {
                let Some(part) = node.up.as_ref().and_then(|up| up.parts.get(&id)) else { continue };
                let start = node.up.as_ref().map_or(0, |up| up.directories.log(id).log_start().0);
                let end = part.shadow.values().last().map_or(0, |entry| entry.end);
                let is_whole = !self.oracle.lacks_promised(id, &part.shadow, start);
                if registration.replicas.contains(&node.id) && is_whole && best.is_none_or(|(most, _)| end > most) {
                    best = Some((end, node.id));
                }
            }
            let topic = self.log.newest().topic_by_id(id.topic_id).map(|topic| topic.name.to_string());
            if let (Some((_, replica)), Some(topic)) = (best, topic) {
                self.coverage.hit("relaxed loss accepted");
                let shown = PartitionShown {
                    topic_id: id.topic_id,
                    leader_epoch: registration.leader_epoch,
                    partition_epoch: registration.partition_epoch,
                };
                let request = AcceptLoss { topic, partition: id.partition, replica, shown };
                self.request(ControllerRequest::AcceptLoss(request));
            }
        }
    }

    /// Records below somewhere under the high watermark are deleted, by whoever believes to lead.
    pub(super) fn delete_records(&mut self) {
        let dice = self.random.next();
        for id in self.partitions() {
            for node in self.ids() {
                self.with(node, |node, env| {
                    let me = node.id;
                    let Some(up) = &mut node.up else { return };
                    let Some(part) = up.parts.get(&id).filter(|part| matches!(part.role, Role::Leader(_))) else {
                        return;
                    };
                    let start = up.directories.log(id).log_start().0;
                    let below = u64::try_from(part.high_watermark.0 - start).unwrap_or(0);
                    let to = Offset(start + (dice % (below + 1)) as i64);
                    let ticket = up.directories.ticket(id);
                    if let Some(entry) = up.directories.hosted(id).log.advance_log_start(to, ticket) {
                        env.out.push(Out::Mark("records deleted"));
                        up.directories.enqueue(entry);
                        up.after(me, env);
                    }
                });
            }
        }
    }

    /// A producer appends to whoever believes to lead.
    pub(super) fn append(&mut self) {
        let partitions = self.partitions();
        if partitions.is_empty() {
            // The request was lost with its controller.
            return self.create_topic();
        }
        let id = partitions[self.below(partitions.len() as u64) as usize];
        let leads = |node: &&Node| {
            let part = node.up.as_ref().and_then(|up| up.parts.get(&id));
            part.is_some_and(|part| matches!(part.role, Role::Leader(_)))
        };
        let leaders: Vec<BrokerId> = self.nodes.iter().filter(leads).map(|node| node.id).collect();
        if leaders.is_empty() {
            return;
        }
        self.coverage.hit_if(leaders.len() > 1, "two believe to lead");
        let to = leaders[self.below(leaders.len() as u64) as usize];
        self.tokens += 1;
        let records = 1 + self.below(3) as i32;
        let filler_bytes = 10 + self.below(300) as usize;
        let batch = Batch { seed: self.tokens, filler_bytes, ..Batch::of(records) };
        let appended = self.with(to, |node, env| append_to(node, id, &batch, env));
        self.appends_count += u64::from(appended);
        self.coverage.hit_if(!appended, "append refused for want of replicas");
    }
}

fn append_to(node: &mut Node, id: TopicPartition, batch: &Batch, env: &mut Env<'_>) -> bool {
    let me = node.id;
    let up = node.up.as_mut().expect("it leads");
    let part = up.parts.get_mut(&id).expect("it leads");
    let Role::Leader(leader) = &part.role else { return false };
    if !leader.has_enough_replicas() {
        return false;
    }
    let epoch: LeaderEpoch = leader.leadership().leader_epoch;
    let ticket = up.directories.ticket(id);
    let bytes = batch.bytes();
    let header = BatchHeader::read(&bytes).expect("a batch");
    let log = &mut up.directories.hosted(id).log;
    let done = log.append_as_leader(bytes, &header, epoch, NOW, ticket).expect("a leader's log takes it");
    let receipt = Receipt {
        partition: id,
        generation: log.key().generation,
        leader_epoch: epoch,
        end: done.last_offset.next(),
        acks: Acks::All,
    };
    let entry = oracle::Entry { base: done.base_offset.0, end: receipt.end.0, epoch, crc: header.crc };
    env.oracle.on_appended(id, entry).unwrap_or_else(|broken| panic!("{broken}"));
    part.shadow.insert(entry.base, entry);
    up.waiting.push(Waiting { receipt, base: entry.base, crc: entry.crc });
    up.directories.enqueue(done.entry.expect("no producer, no duplicate"));
    up.after(me, env);
    true
}
