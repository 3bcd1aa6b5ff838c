//! Controller requests and responses to try their bytes with.

use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{
    BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, ProducerId, Timestamp,
    TopicPartition, Uuid,
};
use stonelog_replication::controller::wire::Kind;
use stonelog_replication::controller::*;
use stonelog_replication::metadata::broker::ReplicaReport;
use stonelog_replication::metadata::record::LossAccepted;
use stonelog_replication::metadata::{ConfigResource, Endpoint, RecoveryState, SecurityProtocol, Verdict};
use stonelog_storage::log_dir::RecordedEpochs;

/// Where the values of one sample come from.
pub(crate) struct Samples {
    seed: u64,
    state: u64,
}

impl Samples {
    /// So many of each kind: one empty, two extreme, the rest at random.
    pub(crate) const COUNT: u64 = 16;

    pub(crate) fn new(seed: u64) -> Samples {
        Samples { seed, state: seed }
    }

    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn number(&mut self) -> i64 {
        match self.seed {
            0 => 0,
            1 => i64::MIN,
            2 => i64::MAX,
            _ => (self.random() >> (self.random() % 64)) as i64,
        }
    }

    fn int(&mut self) -> i32 {
        match self.seed {
            1 => i32::MIN,
            2 => i32::MAX,
            _ => self.number() as i32,
        }
    }

    fn flag(&mut self) -> bool {
        match self.seed {
            0 => false,
            1 | 2 => true,
            _ => self.random() & 1 == 0,
        }
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        let last = of.len() as u64 - 1;
        let place = match self.seed {
            0 => 0,
            1 => last,
            _ => self.random() % (last + 1),
        };
        of[place as usize].clone()
    }

    fn text(&mut self) -> String {
        match self.seed {
            0 => String::new(),
            1 => "x".repeat(4_096),
            2 => "é😀\0\"".to_owned(),
            _ => (0..self.random() % 9).map(|_| char::from(b'a' + (self.random() % 26) as u8)).collect(),
        }
    }

    fn shared(&mut self) -> Arc<str> {
        self.text().into()
    }

    fn uuid(&mut self) -> Uuid {
        match self.seed {
            0 => Uuid::ZERO,
            1 => Uuid([0xff; 16]),
            _ => Uuid(std::array::from_fn(|_| self.random() as u8)),
        }
    }

    fn option<T>(&mut self, make: impl FnOnce(&mut Samples) -> T) -> Option<T> {
        if self.flag() { Some(make(self)) } else { None }
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Samples) -> T) -> Vec<T> {
        let len = match self.seed {
            0 => 0,
            // With long texts, one is enough.
            1 => 1,
            _ => self.random() % 4,
        };
        (0..len).map(|_| make(self)).collect()
    }

    fn broker(&mut self) -> BrokerId {
        BrokerId(self.int())
    }

    fn brokers(&mut self) -> Vec<BrokerId> {
        self.list(Samples::broker)
    }

    fn epoch(&mut self) -> BrokerEpoch {
        BrokerEpoch(self.number())
    }

    fn partition(&mut self) -> TopicPartition {
        TopicPartition { topic_id: self.uuid(), partition: PartitionIndex(self.int()) }
    }

    fn verdict(&mut self) -> Verdict {
        self.one_of(&[Verdict::Proved, Verdict::Cut, Verdict::Lost, Verdict::Damaged])
    }

    fn recovering(&mut self) -> RecoveryState {
        self.one_of(&[RecoveryState::Recovered, RecoveryState::Recovering])
    }

    fn resource(&mut self) -> ConfigResource {
        let (name, broker) = (self.shared(), self.option(Samples::broker));
        self.one_of(&[ConfigResource::Topic(name.clone()), ConfigResource::Broker(broker), ConfigResource::Group(name)])
    }

    fn settings(&mut self) -> Vec<(String, Option<String>)> {
        self.list(|samples| (samples.text(), samples.option(Samples::text)))
    }

    fn result<T>(&mut self, make: impl FnOnce(&mut Samples) -> T) -> Result<T, Reject> {
        if self.flag() {
            let code = self.one_of(ErrorCode::ALL);
            return Err(Reject::new(code, self.text()));
        }
        Ok(make(self))
    }

    fn warnings(&mut self) -> Vec<String> {
        self.list(Samples::text)
    }
}

fn registration(samples: &mut Samples) -> RegisterBrokerRequest {
    RegisterBrokerRequest {
        id: samples.broker(),
        cluster_id: ClusterId(samples.shared()),
        incarnation: samples.uuid(),
        endpoints: samples.list(|samples| Endpoint {
            listener: samples.shared(),
            host: samples.shared(),
            port: samples.int() as u16,
            protocol: samples.one_of(&[
                SecurityProtocol::Plaintext,
                SecurityProtocol::Ssl,
                SecurityProtocol::SaslPlaintext,
                SecurityProtocol::SaslSsl,
            ]),
        }),
        rack: samples.option(Samples::shared),
        directories: samples.list(|samples| ReportedDirectory {
            id: samples.uuid(),
            verdict: samples.verdict(),
            recorded: RecordedEpochs { last: samples.option(Samples::epoch), follows: samples.option(Samples::epoch) },
        }),
        differing: samples.list(|samples| ReplicaReport {
            partition: samples.partition(),
            verdict: samples.verdict(),
            last_epoch: LeaderEpoch(samples.int()),
            log_end_offset: Offset(samples.number()),
            directory: samples.option(Samples::uuid),
            was_strict: samples.option(Samples::flag),
        }),
        replaces: samples.option(Samples::epoch),
    }
}

fn new_topic(samples: &mut Samples) -> NewTopic {
    NewTopic {
        name: samples.text(),
        partitions: samples.int(),
        replication_factor: samples.int() as i16,
        assignments: samples.list(|samples| (PartitionIndex(samples.int()), samples.brokers())),
        configs: samples.settings(),
    }
}

fn wish(samples: &mut Samples) -> PartitionIsr {
    PartitionIsr {
        partition: samples.partition(),
        leader_epoch: LeaderEpoch(samples.int()),
        partition_epoch: PartitionEpoch(samples.int()),
        isr: samples.list(|samples| InSyncReplica {
            broker: samples.broker(),
            epoch: samples.option(Samples::epoch),
            directory: samples.uuid(),
            is_whole: samples.flag(),
        }),
        damaged: samples.brokers(),
        recovering: samples.recovering(),
        hand_over: samples.flag(),
    }
}

fn edit(samples: &mut Samples) -> ConfigEdit {
    let operations =
        [ConfigOperation::Set, ConfigOperation::Delete, ConfigOperation::Append, ConfigOperation::Subtract];
    ConfigEdit { key: samples.text(), operation: samples.one_of(&operations), value: samples.option(Samples::text) }
}

/// A request of that kind.
pub(crate) fn request(kind: Kind, samples: &mut Samples) -> ControllerRequest {
    match kind {
        Kind::RegisterBroker => ControllerRequest::RegisterBroker(registration(samples)),
        Kind::Heartbeat => ControllerRequest::Heartbeat(BrokerHeartbeat {
            id: samples.broker(),
            epoch: samples.epoch(),
            metadata_index: samples.number() as u64,
            want_fence: samples.flag(),
            want_shutdown: samples.flag(),
            online_directories: samples.option(|samples| samples.list(Samples::uuid)),
        }),
        Kind::UnregisterBroker => ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: samples.broker() }),
        Kind::CreateTopics => ControllerRequest::CreateTopics(CreateTopics {
            topics: samples.list(new_topic),
            validate_only: samples.flag(),
        }),
        Kind::DeleteTopics => ControllerRequest::DeleteTopics(DeleteTopics {
            topics: samples.list(|samples| {
                let (name, id) = (samples.text(), samples.uuid());
                samples.one_of(&[TopicReference::Name(name), TopicReference::Id(id)])
            }),
        }),
        Kind::CreatePartitions => ControllerRequest::CreatePartitions(CreatePartitions {
            topics: samples.list(|samples| NewPartitions {
                topic: samples.text(),
                count: samples.int(),
                assignments: samples.option(|samples| samples.list(Samples::brokers)),
            }),
            validate_only: samples.flag(),
        }),
        Kind::IncrementalAlterConfigs => ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs {
            resources: samples.list(|samples| (samples.resource(), samples.list(edit))),
            validate_only: samples.flag(),
        }),
        Kind::AlterConfigs => ControllerRequest::AlterConfigs(AlterConfigs {
            resources: samples
                .list(|samples| ReplaceConfigs { resource: samples.resource(), configs: samples.settings() }),
            validate_only: samples.flag(),
        }),
        Kind::AllocateProducerIds => ControllerRequest::AllocateProducerIds(AllocateProducerIds {
            broker: samples.broker(),
            broker_epoch: samples.epoch(),
        }),
        Kind::AlterPartition => ControllerRequest::AlterPartition(AlterPartition {
            broker: samples.broker(),
            broker_epoch: samples.epoch(),
            partitions: samples.list(wish),
        }),
        Kind::ElectLeaders => ControllerRequest::ElectLeaders(ElectLeaders {
            election: samples.one_of(&[ElectionType::Preferred, ElectionType::Unclean]),
            partitions: samples
                .option(|samples| samples.list(|samples| (samples.text(), PartitionIndex(samples.int())))),
        }),
        Kind::FenceBroker => {
            ControllerRequest::FenceBroker(FenceBroker { id: samples.broker(), epoch: samples.epoch() })
        }
        Kind::BalanceLeaders => ControllerRequest::BalanceLeaders,
        Kind::AcceptLoss => ControllerRequest::AcceptLoss(AcceptLoss {
            topic: samples.text(),
            partition: PartitionIndex(samples.int()),
            replica: samples.broker(),
            shown: PartitionShown {
                topic_id: samples.uuid(),
                leader_epoch: LeaderEpoch(samples.int()),
                partition_epoch: PartitionEpoch(samples.int()),
            },
        }),
        Kind::AlterReassignments => ControllerRequest::AlterReassignments(AlterReassignments {
            partitions: samples.list(|samples| NewReplicas {
                topic: samples.text(),
                partition: PartitionIndex(samples.int()),
                replicas: samples.option(Samples::brokers),
            }),
            allow_replication_factor_change: samples.flag(),
        }),
        Kind::AssignReplicas => ControllerRequest::AssignReplicas(AssignReplicas {
            broker: samples.broker(),
            broker_epoch: samples.epoch(),
            replicas: samples.list(|samples| (samples.partition(), samples.uuid())),
        }),
        Kind::ReadBarrier => ControllerRequest::ReadBarrier,
        Kind::WhoIsBehind => ControllerRequest::WhoIsBehind(WhoIsBehind {
            index: samples.number() as u64,
            brokers: samples.list(Samples::broker),
        }),
        Kind::ChangeVoters => {
            let (node, directory) = (BrokerId(samples.broker().0 & i32::MAX), samples.uuid());
            // A host's name is not empty, bounded and printable.
            let text = format!("h{}", samples.text());
            let host: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
            let voter = ListedVoter { node, host: host.into(), port: samples.number() as u16 };
            let wish = match samples.flag() {
                true => VoterWish::Add(voter, directory),
                false => VoterWish::Remove(node, directory),
            };
            ControllerRequest::ChangeVoters(ChangeVoters { wish, is_first: samples.flag() })
        }
        Kind::RaiseInternalTopics => ControllerRequest::RaiseInternalTopics,
        Kind::DescribeQuorum => ControllerRequest::DescribeQuorum,
    }
}

fn replica_facts(samples: &mut Samples) -> ReplicaFacts {
    ReplicaFacts {
        node: samples.broker(),
        directory: samples.uuid(),
        endpoint: samples.option(|samples| (samples.text(), samples.number() as u16)),
        log_end: samples.option(|samples| samples.number() as u64),
        last_fetch: samples.option(|samples| Timestamp(samples.number())),
        last_caught_up: samples.option(|samples| Timestamp(samples.number())),
    }
}

fn config_results(samples: &mut Samples) -> Vec<ConfigResult> {
    samples.list(|samples| ConfigResult { resource: samples.resource(), result: samples.result(Samples::warnings) })
}

/// A response of that kind.
pub(crate) fn response(kind: Kind, samples: &mut Samples) -> ControllerResponse {
    match kind {
        Kind::RegisterBroker => ControllerResponse::RegisterBroker(RegisteredBroker {
            epoch: samples.epoch(),
            is_new: samples.flag(),
            may_lack_records: samples.list(Samples::partition),
            offline: samples.list(Samples::partition),
            directories: samples.list(|samples| RegisteredDirectory {
                id: samples.uuid(),
                unfenced_epoch: samples.option(Samples::epoch),
                is_old_copy: samples.flag(),
            }),
        }),
        Kind::Heartbeat => ControllerResponse::Heartbeat(HeartbeatState {
            is_caught_up: samples.flag(),
            is_fenced: samples.flag(),
            should_shut_down: samples.flag(),
        }),
        Kind::UnregisterBroker => ControllerResponse::UnregisterBroker,
        Kind::CreateTopics => ControllerResponse::CreateTopics(samples.list(|samples| TopicResult {
            name: samples.text(),
            result: samples.result(|samples| CreatedTopic {
                id: samples.uuid(),
                partitions: samples.int(),
                replication_factor: samples.int() as i16,
                configs: samples.list(|samples| (samples.text(), samples.text())).into_iter().collect(),
                warnings: samples.warnings(),
            }),
        })),
        Kind::DeleteTopics => ControllerResponse::DeleteTopics(samples.list(|samples| DeletedTopic {
            name: samples.option(Samples::text),
            id: samples.option(Samples::uuid),
            result: samples.result(|_| ()),
        })),
        Kind::CreatePartitions => ControllerResponse::CreatePartitions(
            samples.list(|samples| PartitionsResult { topic: samples.text(), result: samples.result(|_| ()) }),
        ),
        Kind::IncrementalAlterConfigs => ControllerResponse::IncrementalAlterConfigs(config_results(samples)),
        Kind::AlterConfigs => ControllerResponse::AlterConfigs(config_results(samples)),
        Kind::AllocateProducerIds => ControllerResponse::AllocateProducerIds(ProducerIdBlock {
            first: ProducerId(samples.number()),
            len: samples.int(),
        }),
        Kind::AlterPartition => ControllerResponse::AlterPartition(samples.list(|samples| IsrResult {
            partition: samples.partition(),
            result: samples.result(|samples| PartitionState {
                leader: samples.option(Samples::broker),
                leader_epoch: LeaderEpoch(samples.int()),
                isr: samples.brokers(),
                partition_epoch: PartitionEpoch(samples.int()),
                recovering: samples.recovering(),
            }),
        })),
        Kind::ElectLeaders => ControllerResponse::ElectLeaders(samples.list(|samples| ElectionResult {
            topic: samples.text(),
            partition: PartitionIndex(samples.int()),
            result: samples.result(|_| ()),
        })),
        Kind::FenceBroker => ControllerResponse::FenceBroker { is_fenced: samples.flag() },
        Kind::BalanceLeaders => ControllerResponse::BalanceLeaders(Balanced {
            elected: samples.number() as usize,
            moved: samples.number() as usize,
            has_more: samples.flag(),
        }),
        Kind::AcceptLoss => ControllerResponse::AcceptLoss(LossAccepted {
            partition: samples.partition(),
            replica: samples.broker(),
            instead_of: samples.brokers(),
            at: Timestamp(samples.number()),
            leader_epoch: LeaderEpoch(samples.int()),
        }),
        Kind::AlterReassignments => {
            ControllerResponse::AlterReassignments(samples.list(|samples| ReassignmentResult {
                topic: samples.text(),
                partition: PartitionIndex(samples.int()),
                result: samples.result(Samples::warnings),
            }))
        }
        Kind::AssignReplicas => ControllerResponse::AssignReplicas(samples.list(|samples| AssignedReplica {
            partition: samples.partition(),
            directory: samples.uuid(),
            result: samples.result(|_| ()),
        })),
        Kind::ReadBarrier => ControllerResponse::ReadBarrier,
        Kind::WhoIsBehind => ControllerResponse::WhoIsBehind(samples.list(Samples::broker)),
        Kind::ChangeVoters => ControllerResponse::ChangeVoters(match samples.flag() {
            true => VoterProgress::Done,
            false => VoterProgress::UnderWay,
        }),
        Kind::RaiseInternalTopics => ControllerResponse::RaiseInternalTopics(samples.list(Samples::text)),
        Kind::DescribeQuorum => ControllerResponse::DescribeQuorum(QuorumFacts {
            leader: samples.broker(),
            epoch: samples.number() as u64,
            high_watermark: samples.number() as u64,
            voters: samples.list(replica_facts),
            observers: samples.list(replica_facts),
        }),
    }
}
