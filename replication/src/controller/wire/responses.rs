//! The bytes of each response's fields. Structs are taken apart whole, so that a new field is not forgotten.

use std::collections::BTreeMap;

use stonelog_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, Timestamp};

use super::Kind;
use super::values::{
    ELEMENTS_MAX, PARTITION_LEN, read_epoch, read_list, read_message, read_partition, read_recovering, read_resource,
    read_result, read_string, write_epoch, write_message, write_partition, write_recovering, write_resource,
    write_result,
};
use crate::controller::response::{
    AssignedReplica, Balanced, ConfigResult, ControllerResponse, CreatedTopic, DeletedTopic, ElectionResult,
    HeartbeatState, IsrResult, PartitionState, PartitionsResult, ProducerIdBlock, ReassignmentResult, RegisteredBroker,
    RegisteredDirectory, TopicResult,
};
use crate::metadata::ConfigValues;
use crate::metadata::codec::{DecodeError, Reader, Writer};
use crate::metadata::record::LossAccepted;
use crate::quorum::standing::{QuorumFacts, ReplicaFacts};
use crate::quorum::wishes::VoterProgress;

type Decoded<T> = Result<T, DecodeError>;

/// Messages are cut to `words` bytes; without any, warnings are left out.
pub(super) fn encode(response: &ControllerResponse, words: usize, out: &mut Writer) {
    match response {
        ControllerResponse::RegisterBroker(registered) => encode_registered(registered, out),
        ControllerResponse::Heartbeat(HeartbeatState { is_caught_up, is_fenced, should_shut_down }) => {
            out.flag(*is_caught_up);
            out.flag(*is_fenced);
            out.flag(*should_shut_down);
        }
        ControllerResponse::UnregisterBroker => {}
        ControllerResponse::CreateTopics(topics) => out.list(topics, |out, TopicResult { name, result }| {
            out.text(name);
            write_result(out, result, words, |out, topic| encode_created(out, topic, words));
        }),
        ControllerResponse::DeleteTopics(topics) => out.list(topics, |out, DeletedTopic { name, id, result }| {
            out.option(name.as_ref(), |out, name| out.text(name));
            out.option(id.as_ref(), |out, id| out.uuid(*id));
            write_result(out, result, words, |_, ()| {});
        }),
        ControllerResponse::CreatePartitions(topics) => out.list(topics, |out, PartitionsResult { topic, result }| {
            out.text(topic);
            write_result(out, result, words, |_, ()| {});
        }),
        ControllerResponse::IncrementalAlterConfigs(resources) | ControllerResponse::AlterConfigs(resources) => {
            out.list(resources, |out, ConfigResult { resource, result }| {
                write_resource(out, resource);
                write_result(out, result, words, |out, warnings| encode_warnings(out, warnings, words));
            });
        }
        ControllerResponse::AllocateProducerIds(ProducerIdBlock { first, len }) => {
            out.i64(first.0);
            out.i32(*len);
        }
        ControllerResponse::AlterPartition(partitions) => {
            out.list(partitions, |out, IsrResult { partition, result }| {
                write_partition(out, partition);
                write_result(out, result, words, encode_state);
            })
        }
        ControllerResponse::ElectLeaders(partitions) => {
            out.list(partitions, |out, ElectionResult { topic, partition, result }| {
                out.text(topic);
                out.i32(partition.0);
                write_result(out, result, words, |_, ()| {});
            });
        }
        ControllerResponse::FenceBroker { is_fenced } => out.flag(*is_fenced),
        ControllerResponse::BalanceLeaders(Balanced { elected, moved, has_more }) => {
            out.u64(*elected as u64);
            out.u64(*moved as u64);
            out.flag(*has_more);
        }
        ControllerResponse::AcceptLoss(LossAccepted { partition, replica, instead_of, at, leader_epoch }) => {
            write_partition(out, partition);
            out.i32(replica.0);
            out.brokers(instead_of);
            out.i64(at.0);
            out.i32(leader_epoch.0);
        }
        ControllerResponse::AlterReassignments(partitions) => {
            out.list(partitions, |out, ReassignmentResult { topic, partition, result }| {
                out.text(topic);
                out.i32(partition.0);
                write_result(out, result, words, |out, warnings| encode_warnings(out, warnings, words));
            });
        }
        ControllerResponse::AssignReplicas(replicas) => {
            out.list(replicas, |out, AssignedReplica { partition, directory, result }| {
                write_partition(out, partition);
                out.uuid(*directory);
                write_result(out, result, words, |_, ()| {});
            });
        }
        ControllerResponse::ReadBarrier => {}
        ControllerResponse::WhoIsBehind(brokers) => out.list(brokers, |out, broker| out.i32(broker.0)),
        ControllerResponse::ChangeVoters(progress) => out.flag(*progress == VoterProgress::Done),
        ControllerResponse::RaiseInternalTopics(topics) => out.list(topics, |out, topic| out.text(topic)),
        ControllerResponse::DescribeQuorum(QuorumFacts { leader, epoch, high_watermark, voters, observers }) => {
            out.i32(leader.0);
            out.u64(*epoch);
            out.u64(*high_watermark);
            out.list(voters, encode_replica);
            out.list(observers, encode_replica);
        }
    }
}

pub(super) fn decode(kind: Kind, input: &mut Reader<'_>) -> Decoded<ControllerResponse> {
    Ok(match kind {
        Kind::RegisterBroker => ControllerResponse::RegisterBroker(decode_registered(input)?),
        Kind::Heartbeat => ControllerResponse::Heartbeat(HeartbeatState {
            is_caught_up: input.flag()?,
            is_fenced: input.flag()?,
            should_shut_down: input.flag()?,
        }),
        Kind::UnregisterBroker => ControllerResponse::UnregisterBroker,
        Kind::CreateTopics => ControllerResponse::CreateTopics(read_list(input, 11, |input| {
            Ok(TopicResult { name: read_string(input)?, result: read_result(input, decode_created)? })
        })?),
        Kind::DeleteTopics => ControllerResponse::DeleteTopics(read_list(input, 3, |input| {
            Ok(DeletedTopic {
                name: input.option(read_string)?,
                id: input.option(Reader::uuid)?,
                result: read_result(input, |_| Ok(()))?,
            })
        })?),
        Kind::CreatePartitions => ControllerResponse::CreatePartitions(read_list(input, 5, |input| {
            Ok(PartitionsResult { topic: read_string(input)?, result: read_result(input, |_| Ok(()))? })
        })?),
        Kind::IncrementalAlterConfigs => ControllerResponse::IncrementalAlterConfigs(decode_configs(input)?),
        Kind::AlterConfigs => ControllerResponse::AlterConfigs(decode_configs(input)?),
        Kind::AllocateProducerIds => ControllerResponse::AllocateProducerIds(ProducerIdBlock {
            first: ProducerId(input.i64()?),
            len: input.i32()?,
        }),
        Kind::AlterPartition => ControllerResponse::AlterPartition(input.list(PARTITION_LEN + 7, |input| {
            Ok(IsrResult { partition: read_partition(input)?, result: read_result(input, decode_state)? })
        })?),
        // Of an election in all partitions there are as many as the cluster has.
        Kind::ElectLeaders => ControllerResponse::ElectLeaders(input.list(9, |input| {
            Ok(ElectionResult {
                topic: read_string(input)?,
                partition: PartitionIndex(input.i32()?),
                result: read_result(input, |_| Ok(()))?,
            })
        })?),
        Kind::FenceBroker => ControllerResponse::FenceBroker { is_fenced: input.flag()? },
        Kind::BalanceLeaders => ControllerResponse::BalanceLeaders(Balanced {
            elected: read_size(input)?,
            moved: read_size(input)?,
            has_more: input.flag()?,
        }),
        Kind::AcceptLoss => ControllerResponse::AcceptLoss(LossAccepted {
            partition: read_partition(input)?,
            replica: BrokerId(input.i32()?),
            instead_of: input.brokers()?,
            at: Timestamp(input.i64()?),
            leader_epoch: LeaderEpoch(input.i32()?),
        }),
        Kind::AlterReassignments => ControllerResponse::AlterReassignments(read_list(input, 13, |input| {
            Ok(ReassignmentResult {
                topic: read_string(input)?,
                partition: PartitionIndex(input.i32()?),
                result: read_result(input, decode_warnings)?,
            })
        })?),
        Kind::AssignReplicas => ControllerResponse::AssignReplicas(input.list(PARTITION_LEN + 17, |input| {
            Ok(AssignedReplica {
                partition: read_partition(input)?,
                directory: input.uuid()?,
                result: read_result(input, |_| Ok(()))?,
            })
        })?),
        Kind::ReadBarrier => ControllerResponse::ReadBarrier,
        Kind::WhoIsBehind => ControllerResponse::WhoIsBehind(read_list(input, 4, |input| input.i32().map(BrokerId))?),
        Kind::ChangeVoters => ControllerResponse::ChangeVoters(match input.flag()? {
            true => VoterProgress::Done,
            false => VoterProgress::UnderWay,
        }),
        Kind::RaiseInternalTopics => ControllerResponse::RaiseInternalTopics(read_list(input, 4, read_string)?),
        Kind::DescribeQuorum => ControllerResponse::DescribeQuorum(QuorumFacts {
            leader: BrokerId(input.i32()?),
            epoch: input.u64()?,
            high_watermark: input.u64()?,
            voters: read_list(input, REPLICA_LEN_MIN, decode_replica)?,
            observers: read_list(input, REPLICA_LEN_MIN, decode_replica)?,
        }),
    })
}

fn read_size(input: &mut Reader<'_>) -> Decoded<usize> {
    usize::try_from(input.u64()?).map_err(|_| DecodeError::Invalid("number of elections"))
}

fn encode_replica(out: &mut Writer, replica: &ReplicaFacts) {
    let ReplicaFacts { node, directory, endpoint, log_end, last_fetch, last_caught_up } = replica;
    out.i32(node.0);
    out.uuid(*directory);
    out.option(endpoint.as_ref(), |out, (host, port)| {
        out.text(host);
        out.u16(*port);
    });
    out.option(log_end.as_ref(), |out, end| out.u64(*end));
    out.option(last_fetch.as_ref(), |out, at| out.i64(at.0));
    out.option(last_caught_up.as_ref(), |out, at| out.i64(at.0));
}

/// How long [`encode_replica`]'s is at least.
const REPLICA_LEN_MIN: usize = 24;

fn decode_replica(input: &mut Reader<'_>) -> Decoded<ReplicaFacts> {
    Ok(ReplicaFacts {
        node: BrokerId(input.i32()?),
        directory: input.uuid()?,
        endpoint: input.option(|input| Ok((read_string(input)?, input.u16()?)))?,
        log_end: input.option(Reader::u64)?,
        last_fetch: input.option(|input| input.i64().map(Timestamp))?,
        last_caught_up: input.option(|input| input.i64().map(Timestamp))?,
    })
}

fn encode_registered(registered: &RegisteredBroker, out: &mut Writer) {
    let RegisteredBroker { epoch, is_new, may_lack_records, offline, directories } = registered;
    out.i64(epoch.0);
    out.flag(*is_new);
    out.list(may_lack_records, write_partition);
    out.list(offline, write_partition);
    out.list(directories, |out, RegisteredDirectory { id, unfenced_epoch, is_old_copy }| {
        out.uuid(*id);
        write_epoch(out, unfenced_epoch);
        out.flag(*is_old_copy);
    });
}

fn decode_registered(input: &mut Reader<'_>) -> Decoded<RegisteredBroker> {
    Ok(RegisteredBroker {
        epoch: BrokerEpoch(input.i64()?),
        is_new: input.flag()?,
        may_lack_records: input.list(PARTITION_LEN, read_partition)?,
        offline: input.list(PARTITION_LEN, read_partition)?,
        directories: read_list(input, 18, |input| {
            Ok(RegisteredDirectory {
                id: input.uuid()?,
                unfenced_epoch: read_epoch(input)?,
                is_old_copy: input.flag()?,
            })
        })?,
    })
}

fn encode_created(out: &mut Writer, topic: &CreatedTopic, words: usize) {
    let CreatedTopic { id, partitions, replication_factor, configs, warnings } = topic;
    out.uuid(*id);
    out.i32(*partitions);
    out.i16(*replication_factor);
    out.count(configs.len());
    for (key, value) in configs {
        out.text(key);
        out.text(value);
    }
    encode_warnings(out, warnings, words);
}

fn decode_created(input: &mut Reader<'_>) -> Decoded<CreatedTopic> {
    Ok(CreatedTopic {
        id: input.uuid()?,
        partitions: input.i32()?,
        replication_factor: input.i16()?,
        configs: decode_values(input)?,
        warnings: decode_warnings(input)?,
    })
}

/// Settings by key, each key behind the one before.
fn decode_values(input: &mut Reader<'_>) -> Decoded<ConfigValues> {
    let settings = read_list(input, 8, |input| Ok((read_string(input)?, read_string(input)?)))?;
    if !settings.is_sorted_by(|one, next| one.0 < next.0) {
        return Err(DecodeError::Invalid("order of settings"));
    }
    Ok(BTreeMap::from_iter(settings))
}

fn encode_warnings(out: &mut Writer, warnings: &[String], words: usize) {
    // There may be one for each topic of the cluster; what is beyond what can be read would cost the whole answer.
    let warnings = if words == 0 { &[] } else { &warnings[..warnings.len().min(ELEMENTS_MAX)] };
    out.list(warnings, |out, warning| write_message(out, warning, words));
}

fn decode_warnings(input: &mut Reader<'_>) -> Decoded<Vec<String>> {
    read_list(input, 4, read_message)
}

fn decode_configs(input: &mut Reader<'_>) -> Decoded<Vec<ConfigResult>> {
    read_list(input, 7, |input| {
        Ok(ConfigResult { resource: read_resource(input)?, result: read_result(input, decode_warnings)? })
    })
}

fn encode_state(out: &mut Writer, state: &PartitionState) {
    let PartitionState { leader, leader_epoch, isr, partition_epoch, recovering } = state;
    out.option(leader.as_ref(), |out, leader| out.i32(leader.0));
    out.i32(leader_epoch.0);
    out.brokers(isr);
    out.i32(partition_epoch.0);
    write_recovering(out, *recovering);
}

fn decode_state(input: &mut Reader<'_>) -> Decoded<PartitionState> {
    Ok(PartitionState {
        leader: input.option(|input| input.i32().map(BrokerId))?,
        leader_epoch: LeaderEpoch(input.i32()?),
        isr: input.brokers()?,
        partition_epoch: PartitionEpoch(input.i32()?),
        recovering: read_recovering(input)?,
    })
}
