//! The bytes of each request's fields. Structs are taken apart whole, so that a new field is not forgotten.

use stonelog_protocol::own::PartitionShown;
use stonelog_protocol::peer::probe::ListedVoter;
use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex};
use stonelog_storage::log_dir::RecordedEpochs;

use super::Kind;
use super::values::{
    PARTITION_LEN, read_epoch, read_list, read_partition, read_recovering, read_resource, read_shared, read_string,
    read_text, read_verdict, write_epoch, write_partition, write_recovering, write_resource, write_verdict,
};
use crate::controller::request::{
    AcceptLoss, AllocateProducerIds, AlterConfigs, AlterPartition, AlterReassignments, AssignReplicas, BrokerHeartbeat,
    ChangeVoters, ConfigEdit, ConfigOperation, ControllerRequest, CreatePartitions, CreateTopics, DeleteTopics,
    ElectLeaders, ElectionType, FenceBroker, InSyncReplica, IncrementalAlterConfigs, NewPartitions, NewReplicas,
    NewTopic, PartitionIsr, RegisterBrokerRequest, ReplaceConfigs, ReportedDirectory, TopicReference,
    UnregisterBrokerRequest, WhoIsBehind,
};
use crate::metadata::broker::ReplicaReport;
use crate::metadata::codec::{DecodeError, Reader, Writer};
use crate::metadata::{Endpoint, SecurityProtocol};
use crate::quorum::wishes::VoterWish;

type Decoded<T> = Result<T, DecodeError>;

pub(super) fn encode(request: &ControllerRequest, out: &mut Writer) {
    match request {
        ControllerRequest::RegisterBroker(request) => encode_register(request, out),
        ControllerRequest::Heartbeat(heartbeat) => encode_heartbeat(heartbeat, out),
        ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id }) => out.i32(id.0),
        ControllerRequest::CreateTopics(CreateTopics { topics, validate_only }) => {
            out.list(topics, encode_new_topic);
            out.flag(*validate_only);
        }
        ControllerRequest::DeleteTopics(DeleteTopics { topics }) => out.list(topics, |out, topic| match topic {
            TopicReference::Name(name) => {
                out.u8(0);
                out.text(name);
            }
            TopicReference::Id(id) => {
                out.u8(1);
                out.uuid(*id);
            }
        }),
        ControllerRequest::CreatePartitions(CreatePartitions { topics, validate_only }) => {
            out.list(topics, |out, NewPartitions { topic, count, assignments }| {
                out.text(topic);
                out.i32(*count);
                out.option(assignments.as_ref(), |out, all| out.list(all, |out, one| out.brokers(one)));
            });
            out.flag(*validate_only);
        }
        ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, validate_only }) => {
            out.list(resources, |out, (resource, edits)| {
                write_resource(out, resource);
                out.list(edits, encode_edit);
            });
            out.flag(*validate_only);
        }
        ControllerRequest::AlterConfigs(AlterConfigs { resources, validate_only }) => {
            out.list(resources, |out, ReplaceConfigs { resource, configs }| {
                write_resource(out, resource);
                out.list(configs, encode_setting);
            });
            out.flag(*validate_only);
        }
        ControllerRequest::AllocateProducerIds(AllocateProducerIds { broker, broker_epoch }) => {
            out.i32(broker.0);
            out.i64(broker_epoch.0);
        }
        ControllerRequest::AlterPartition(AlterPartition { broker, broker_epoch, partitions }) => {
            out.i32(broker.0);
            out.i64(broker_epoch.0);
            out.list(partitions, encode_isr);
        }
        ControllerRequest::ElectLeaders(ElectLeaders { election, partitions }) => {
            out.u8(match election {
                ElectionType::Preferred => 0,
                ElectionType::Unclean => 1,
            });
            out.option(partitions.as_ref(), |out, partitions| {
                out.list(partitions, |out, (topic, partition)| {
                    out.text(topic);
                    out.i32(partition.0);
                });
            });
        }
        ControllerRequest::FenceBroker(FenceBroker { id, epoch }) => {
            out.i32(id.0);
            out.i64(epoch.0);
        }
        ControllerRequest::BalanceLeaders
        | ControllerRequest::RaiseInternalTopics
        | ControllerRequest::DescribeQuorum
        | ControllerRequest::ReadBarrier => {}
        ControllerRequest::WhoIsBehind(WhoIsBehind { index, brokers }) => {
            out.u64(*index);
            out.list(brokers, |out, broker| out.i32(broker.0));
        }
        ControllerRequest::ChangeVoters(ChangeVoters { wish, is_first }) => {
            out.flag(*is_first);
            encode_wish(wish, out);
        }
        ControllerRequest::AcceptLoss(AcceptLoss { topic, partition, replica, shown }) => {
            out.text(topic);
            out.i32(partition.0);
            out.i32(replica.0);
            out.uuid(shown.topic_id);
            out.i32(shown.leader_epoch.0);
            out.i32(shown.partition_epoch.0);
        }
        ControllerRequest::AlterReassignments(request) => {
            let AlterReassignments { partitions, allow_replication_factor_change } = request;
            out.list(partitions, |out, NewReplicas { topic, partition, replicas }| {
                out.text(topic);
                out.i32(partition.0);
                out.option(replicas.as_ref(), |out, replicas| out.brokers(replicas));
            });
            out.flag(*allow_replication_factor_change);
        }
        ControllerRequest::AssignReplicas(AssignReplicas { broker, broker_epoch, replicas }) => {
            out.i32(broker.0);
            out.i64(broker_epoch.0);
            out.list(replicas, |out, (partition, directory)| {
                write_partition(out, partition);
                out.uuid(*directory);
            });
        }
    }
}

pub(super) fn decode(kind: Kind, input: &mut Reader<'_>) -> Decoded<ControllerRequest> {
    Ok(match kind {
        Kind::RegisterBroker => ControllerRequest::RegisterBroker(decode_register(input)?),
        Kind::Heartbeat => ControllerRequest::Heartbeat(decode_heartbeat(input)?),
        Kind::UnregisterBroker => {
            ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(input.i32()?) })
        }
        Kind::CreateTopics => ControllerRequest::CreateTopics(CreateTopics {
            topics: read_list(input, 18, decode_new_topic)?,
            validate_only: input.flag()?,
        }),
        Kind::DeleteTopics => ControllerRequest::DeleteTopics(DeleteTopics {
            topics: read_list(input, 5, |input| match input.u8()? {
                0 => Ok(TopicReference::Name(read_string(input)?)),
                1 => Ok(TopicReference::Id(input.uuid()?)),
                _ => Err(DecodeError::Invalid("reference to a topic")),
            })?,
        }),
        Kind::CreatePartitions => ControllerRequest::CreatePartitions(CreatePartitions {
            topics: read_list(input, 9, |input| {
                Ok(NewPartitions {
                    topic: read_string(input)?,
                    count: input.i32()?,
                    assignments: input.option(|input| read_list(input, 4, |input| input.brokers()))?,
                })
            })?,
            validate_only: input.flag()?,
        }),
        Kind::IncrementalAlterConfigs => ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs {
            resources: read_list(input, 6, |input| Ok((read_resource(input)?, read_list(input, 6, decode_edit)?)))?,
            validate_only: input.flag()?,
        }),
        Kind::AlterConfigs => ControllerRequest::AlterConfigs(AlterConfigs {
            resources: read_list(input, 6, |input| {
                let (resource, configs) = (read_resource(input)?, read_list(input, 5, decode_setting)?);
                Ok(ReplaceConfigs { resource, configs })
            })?,
            validate_only: input.flag()?,
        }),
        Kind::AllocateProducerIds => ControllerRequest::AllocateProducerIds(AllocateProducerIds {
            broker: BrokerId(input.i32()?),
            broker_epoch: BrokerEpoch(input.i64()?),
        }),
        Kind::AlterPartition => ControllerRequest::AlterPartition(AlterPartition {
            broker: BrokerId(input.i32()?),
            broker_epoch: BrokerEpoch(input.i64()?),
            partitions: input.list(PARTITION_LEN + 18, decode_isr)?,
        }),
        Kind::ElectLeaders => ControllerRequest::ElectLeaders(ElectLeaders {
            election: match input.u8()? {
                0 => ElectionType::Preferred,
                1 => ElectionType::Unclean,
                _ => return Err(DecodeError::Invalid("election")),
            },
            partitions: input
                .option(|input| read_list(input, 8, |input| Ok((read_string(input)?, PartitionIndex(input.i32()?)))))?,
        }),
        Kind::FenceBroker => {
            ControllerRequest::FenceBroker(FenceBroker { id: BrokerId(input.i32()?), epoch: BrokerEpoch(input.i64()?) })
        }
        Kind::BalanceLeaders => ControllerRequest::BalanceLeaders,
        Kind::AcceptLoss => ControllerRequest::AcceptLoss(AcceptLoss {
            topic: read_string(input)?,
            partition: PartitionIndex(input.i32()?),
            replica: BrokerId(input.i32()?),
            shown: PartitionShown {
                topic_id: input.uuid()?,
                leader_epoch: LeaderEpoch(input.i32()?),
                partition_epoch: PartitionEpoch(input.i32()?),
            },
        }),
        Kind::AlterReassignments => ControllerRequest::AlterReassignments(AlterReassignments {
            partitions: read_list(input, 9, |input| {
                Ok(NewReplicas {
                    topic: read_string(input)?,
                    partition: PartitionIndex(input.i32()?),
                    replicas: input.option(Reader::brokers)?,
                })
            })?,
            allow_replication_factor_change: input.flag()?,
        }),
        Kind::AssignReplicas => ControllerRequest::AssignReplicas(AssignReplicas {
            broker: BrokerId(input.i32()?),
            broker_epoch: BrokerEpoch(input.i64()?),
            replicas: input.list(PARTITION_LEN + 16, |input| Ok((read_partition(input)?, input.uuid()?)))?,
        }),
        Kind::RaiseInternalTopics => ControllerRequest::RaiseInternalTopics,
        Kind::DescribeQuorum => ControllerRequest::DescribeQuorum,
        Kind::ReadBarrier => ControllerRequest::ReadBarrier,
        Kind::WhoIsBehind => ControllerRequest::WhoIsBehind(WhoIsBehind {
            index: input.u64()?,
            brokers: read_list(input, 4, |input| input.i32().map(BrokerId))?,
        }),
        Kind::ChangeVoters => {
            ControllerRequest::ChangeVoters(ChangeVoters { is_first: input.flag()?, wish: decode_wish(input)? })
        }
    })
}

fn encode_wish(wish: &VoterWish, out: &mut Writer) {
    match wish {
        VoterWish::Add(ListedVoter { node, host, port }, directory) => {
            out.u8(0);
            out.i32(node.0);
            out.uuid(*directory);
            out.text(host);
            out.u16(*port);
        }
        VoterWish::Remove(node, directory) => {
            out.u8(1);
            out.i32(node.0);
            out.uuid(*directory);
        }
    }
}

fn decode_wish(input: &mut Reader<'_>) -> Decoded<VoterWish> {
    let (kind, node, directory) = (input.u8()?, BrokerId(input.i32()?), input.uuid()?);
    match kind {
        _ if node.0 < 0 => Err(DecodeError::Invalid("node of a voter")),
        0 => {
            let host = read_shared(input)?;
            let wish = VoterWish::Add(ListedVoter { node, host, port: input.u16()? }, directory);
            if wish.names_a_place() { Ok(wish) } else { Err(DecodeError::Invalid("host of a voter")) }
        }
        1 => Ok(VoterWish::Remove(node, directory)),
        _ => Err(DecodeError::Invalid("change of voters")),
    }
}

fn encode_register(request: &RegisterBrokerRequest, out: &mut Writer) {
    let RegisterBrokerRequest { id, cluster_id, incarnation, endpoints, rack, directories, differing, replaces } =
        request;
    out.i32(id.0);
    out.text(&cluster_id.0);
    out.uuid(*incarnation);
    out.list(endpoints, |out, Endpoint { listener, host, port, protocol }| {
        out.text(listener);
        out.text(host);
        out.u16(*port);
        out.i16(*protocol as i16);
    });
    out.option(rack.as_ref(), |out, rack| out.text(rack));
    out.list(directories, |out, ReportedDirectory { id, verdict, recorded }| {
        let RecordedEpochs { last, follows } = recorded;
        out.uuid(*id);
        write_verdict(out, *verdict);
        write_epoch(out, last);
        write_epoch(out, follows);
    });
    out.list(differing, |out, report| {
        let ReplicaReport { partition, directory, verdict, last_epoch, log_end_offset, was_strict } = report;
        write_partition(out, partition);
        write_verdict(out, *verdict);
        out.i32(last_epoch.0);
        out.i64(log_end_offset.0);
        out.option(directory.as_ref(), |out, id| out.uuid(*id));
        out.option(was_strict.as_ref(), |out, strict| out.flag(*strict));
    });
    write_epoch(out, replaces);
}

fn decode_register(input: &mut Reader<'_>) -> Decoded<RegisterBrokerRequest> {
    Ok(RegisterBrokerRequest {
        id: BrokerId(input.i32()?),
        cluster_id: ClusterId(read_shared(input)?),
        incarnation: input.uuid()?,
        endpoints: read_list(input, 12, |input| {
            Ok(Endpoint {
                listener: read_shared(input)?,
                host: read_shared(input)?,
                port: input.u16()?,
                protocol: SecurityProtocol::from_code(input.i16()?).ok_or(DecodeError::Invalid("security protocol"))?,
            })
        })?,
        rack: input.option(read_shared)?,
        directories: read_list(input, 19, |input| {
            Ok(ReportedDirectory {
                id: input.uuid()?,
                verdict: read_verdict(input)?,
                recorded: RecordedEpochs { last: read_epoch(input)?, follows: read_epoch(input)? },
            })
        })?,
        differing: input.list(PARTITION_LEN + 15, |input| {
            Ok(ReplicaReport {
                partition: read_partition(input)?,
                verdict: read_verdict(input)?,
                last_epoch: LeaderEpoch(input.i32()?),
                log_end_offset: Offset(input.i64()?),
                directory: input.option(Reader::uuid)?,
                was_strict: input.option(Reader::flag)?,
            })
        })?,
        replaces: read_epoch(input)?,
    })
}

fn encode_heartbeat(heartbeat: &BrokerHeartbeat, out: &mut Writer) {
    let BrokerHeartbeat { id, epoch, metadata_index, want_fence, want_shutdown, online_directories } = heartbeat;
    out.i32(id.0);
    out.i64(epoch.0);
    out.u64(*metadata_index);
    out.flag(*want_fence);
    out.flag(*want_shutdown);
    out.option(online_directories.as_ref(), |out, ids| out.list(ids, |out, id| out.uuid(*id)));
}

fn decode_heartbeat(input: &mut Reader<'_>) -> Decoded<BrokerHeartbeat> {
    Ok(BrokerHeartbeat {
        id: BrokerId(input.i32()?),
        epoch: BrokerEpoch(input.i64()?),
        metadata_index: input.u64()?,
        want_fence: input.flag()?,
        want_shutdown: input.flag()?,
        online_directories: input.option(Reader::uuids)?,
    })
}

fn encode_new_topic(out: &mut Writer, topic: &NewTopic) {
    let NewTopic { name, partitions, replication_factor, assignments, configs } = topic;
    out.text(name);
    out.i32(*partitions);
    out.i16(*replication_factor);
    out.list(assignments, |out, (partition, replicas)| {
        out.i32(partition.0);
        out.brokers(replicas);
    });
    out.list(configs, encode_setting);
}

fn decode_new_topic(input: &mut Reader<'_>) -> Decoded<NewTopic> {
    Ok(NewTopic {
        name: read_string(input)?,
        partitions: input.i32()?,
        replication_factor: input.i16()?,
        assignments: read_list(input, 8, |input| Ok((PartitionIndex(input.i32()?), input.brokers()?)))?,
        configs: read_list(input, 5, decode_setting)?,
    })
}

fn encode_setting(out: &mut Writer, (key, value): &(String, Option<String>)) {
    out.text(key);
    out.option(value.as_ref(), |out, value| out.text(value));
}

fn decode_setting(input: &mut Reader<'_>) -> Decoded<(String, Option<String>)> {
    Ok((read_string(input)?, input.option(read_string)?))
}

/// The operation's number is Kafka's.
fn encode_edit(out: &mut Writer, edit: &ConfigEdit) {
    let ConfigEdit { key, operation, value } = edit;
    out.text(key);
    out.u8(match operation {
        ConfigOperation::Set => 0,
        ConfigOperation::Delete => 1,
        ConfigOperation::Append => 2,
        ConfigOperation::Subtract => 3,
    });
    out.option(value.as_ref(), |out, value| out.text(value));
}

fn decode_edit(input: &mut Reader<'_>) -> Decoded<ConfigEdit> {
    let key = read_text(input)?.to_owned();
    let code = i8::try_from(input.u8()?).ok();
    let operation = code.and_then(ConfigOperation::from_code).ok_or(DecodeError::Invalid("operation on a setting"))?;
    Ok(ConfigEdit { key, operation, value: input.option(read_string)? })
}

fn encode_isr(out: &mut Writer, wish: &PartitionIsr) {
    let PartitionIsr { partition, leader_epoch, partition_epoch, isr, damaged, recovering, hand_over } = wish;
    write_partition(out, partition);
    out.i32(leader_epoch.0);
    out.i32(partition_epoch.0);
    out.list(isr, |out, InSyncReplica { broker, epoch, directory, is_whole }| {
        out.i32(broker.0);
        write_epoch(out, epoch);
        out.uuid(*directory);
        out.flag(*is_whole);
    });
    out.brokers(damaged);
    write_recovering(out, *recovering);
    out.flag(*hand_over);
}

fn decode_isr(input: &mut Reader<'_>) -> Decoded<PartitionIsr> {
    Ok(PartitionIsr {
        partition: read_partition(input)?,
        leader_epoch: LeaderEpoch(input.i32()?),
        partition_epoch: PartitionEpoch(input.i32()?),
        isr: read_list(input, 22, |input| {
            Ok(InSyncReplica {
                broker: BrokerId(input.i32()?),
                epoch: read_epoch(input)?,
                directory: input.uuid()?,
                is_whole: input.flag()?,
            })
        })?,
        damaged: input.brokers()?,
        recovering: read_recovering(input)?,
        hand_over: input.flag()?,
    })
}
