//! The bytes of metadata records: big-endian, counted, each record framed with its type, version and length.
//!
//! A record of a type or version this build does not know is an error, never skipped: a node that ignored a fact would
//! hold another image than its peers. Counts are checked against the bytes at hand before anything is allocated.

mod resource;

use std::sync::Arc;

use stonelog_protocol::{
    BrokerEpoch, BrokerId, ClusterId, DirectoryId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, ProducerId,
    Timestamp, TopicPartition, Uuid,
};

use super::broker::{DirectoryRegistration, Endpoint, ReplicaReport, SecurityProtocol, Verdict};
use super::config::ConfigResource;
use super::record::{
    BrokerRegistrationChange, ClusterInit, ConfigRecord, FeatureLevelRecord, LossAccepted, MetadataRecord,
    PartitionChange, PartitionRecord, ProducerIdsRecord, RegisterBroker, TopicRecord, UnregisterBroker,
};
use super::topic::{PartitionRegistration, RecoveryState};
use resource::{decode_resource, encode_resource};

/// The version of the meaning of records that this build writes and applies.
pub const METADATA_VERSION: i16 = 1;

/// Why bytes are not metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value, or a count promises more than there is.
    #[error("metadata ends early")]
    Truncated,
    /// Bytes are left behind the last value.
    #[error("{0} bytes too many behind the metadata")]
    Trailing(usize),
    /// A layout of a later version, or no layout at all.
    #[error("{what} has version {version}, which this build does not know")]
    UnknownVersion {
        /// What was being read.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// A record type of a later version, or no record at all.
    #[error("metadata record type {0} is not known to this build")]
    UnknownRecord(u8),
    /// A value outside what it may be.
    #[error("{0} has an impossible value")]
    Invalid(&'static str),
}

/// Collects encoded values.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

macro_rules! fixed {
    ($($name:ident: $type:ty),*) => {
        impl Writer {
            $(
                /// Appends one big-endian number.
                pub fn $name(&mut self, value: $type) {
                    self.bytes.extend_from_slice(&value.to_be_bytes());
                }
            )*
        }

        impl Reader<'_> {
            $(
                /// Reads one big-endian number.
                pub fn $name(&mut self) -> Result<$type, DecodeError> {
                    let bytes = self.take(size_of::<$type>())?;
                    Ok(<$type>::from_be_bytes(bytes.try_into().expect("take returned the length asked for")))
                }
            )*
        }
    };
}

fixed!(u8: u8, i16: i16, u16: u16, i32: i32, u32: u32, i64: i64, u64: u64);

impl Writer {
    /// Starts empty.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// The bytes written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// A list's length.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("a list of metadata has fewer than 2^32 elements"));
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// A length and the text in UTF-8.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// 0 or 1.
    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A presence flag, then the value if there is one.
    pub fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Writer, &T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A count, then the elements.
    pub fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Writer, &T)) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }

    /// A count, then the ids.
    pub fn brokers(&mut self, brokers: &[BrokerId]) {
        self.list(brokers, |out, broker| out.i32(broker.0));
    }

    /// The sixteen bytes of an identifier.
    pub fn uuid(&mut self, uuid: Uuid) {
        self.raw(&uuid.0);
    }
}

/// Takes values off the front of bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// That many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Fails unless everything has been read.
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Trailing(self.rest.len())) }
    }

    /// A list's length, believed only if that many elements of at least `element_len_min` bytes can follow.
    pub fn count(&mut self, element_len_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / element_len_min.max(1) {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    /// A length and that many bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// A length and that many bytes of UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid("text"))
    }

    /// 0 or 1.
    pub fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("flag")),
        }
    }

    /// A presence flag, then the value if there is one.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag()? { Ok(Some(read(self)?)) } else { Ok(None) }
    }

    /// A count, then the elements, each of at least `element_len_min` bytes.
    pub fn list<T>(
        &mut self,
        element_len_min: usize,
        read: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(element_len_min)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// A count, then the ids.
    pub fn brokers(&mut self) -> Result<Vec<BrokerId>, DecodeError> {
        self.list(4, |input| input.i32().map(BrokerId))
    }

    /// The sixteen bytes of an identifier.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        let bytes = self.take(16)?;
        Ok(Uuid(bytes.try_into().expect("take returned the length asked for")))
    }

    /// A count, then the identifiers.
    pub fn uuids(&mut self) -> Result<Vec<DirectoryId>, DecodeError> {
        self.list(16, Self::uuid)
    }

    fn shared_text(&mut self) -> Result<Arc<str>, DecodeError> {
        self.text().map(Arc::from)
    }
}

/// Record types on disk. Numbers follow KRaft's where it has the record; ours are from 100.
mod kind {
    pub(super) const REGISTER_BROKER: u8 = 0;
    pub(super) const UNREGISTER_BROKER: u8 = 1;
    pub(super) const TOPIC: u8 = 2;
    pub(super) const PARTITION: u8 = 3;
    pub(super) const CONFIG: u8 = 4;
    pub(super) const PARTITION_CHANGE: u8 = 5;
    pub(super) const REMOVE_TOPIC: u8 = 9;
    pub(super) const FEATURE_LEVEL: u8 = 12;
    pub(super) const PRODUCER_IDS: u8 = 15;
    pub(super) const BROKER_REGISTRATION_CHANGE: u8 = 17;
    pub(super) const NO_OP: u8 = 20;
    pub(super) const CLUSTER_INIT: u8 = 100;
    pub(super) const LOSS_ACCEPTED: u8 = 101;
}

/// The version a record type is written in; all versions from 1 are read.
fn version_of(kind: u8) -> u8 {
    match kind {
        // 2: with the epochs its directories were last unfenced with. 3: reports name their directory, and the mode.
        kind::REGISTER_BROKER => 3,
        // 2: with the eligible members whose last start found a torn tail. 3: with the mode it was left in.
        kind::PARTITION | kind::PARTITION_CHANGE => 3,
        _ => 1,
    }
}

impl MetadataRecord {
    /// The frame of an empty record: type, version, length.
    pub const ENCODED_LEN_MIN: usize = 6;

    /// Appends the framed record.
    pub fn encode(&self, out: &mut Writer) {
        let kind = match self {
            MetadataRecord::ClusterInit(_) => kind::CLUSTER_INIT,
            MetadataRecord::RegisterBroker(_) => kind::REGISTER_BROKER,
            MetadataRecord::UnregisterBroker(_) => kind::UNREGISTER_BROKER,
            MetadataRecord::BrokerRegistrationChange(_) => kind::BROKER_REGISTRATION_CHANGE,
            MetadataRecord::Topic(_) => kind::TOPIC,
            MetadataRecord::Partition(_) => kind::PARTITION,
            MetadataRecord::PartitionChange(_) => kind::PARTITION_CHANGE,
            MetadataRecord::RemoveTopic(_) => kind::REMOVE_TOPIC,
            MetadataRecord::Config(_) => kind::CONFIG,
            MetadataRecord::ProducerIds(_) => kind::PRODUCER_IDS,
            MetadataRecord::FeatureLevel(_) => kind::FEATURE_LEVEL,
            MetadataRecord::LossAccepted(_) => kind::LOSS_ACCEPTED,
            MetadataRecord::NoOp => kind::NO_OP,
        };
        out.u8(kind);
        out.u8(version_of(kind));
        let length_at = out.bytes.len();
        out.u32(0);
        self.encode_body(out);
        let length = u32::try_from(out.bytes.len() - length_at - 4).expect("a record is far below 4 GiB");
        out.bytes[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn encode_body(&self, out: &mut Writer) {
        match self {
            MetadataRecord::ClusterInit(init) => {
                out.text(&init.cluster_id.0);
                out.i16(init.metadata_version);
            }
            MetadataRecord::RegisterBroker(broker) => encode_broker(out, broker),
            MetadataRecord::UnregisterBroker(broker) => {
                out.i32(broker.id.0);
                out.i64(broker.epoch.0);
            }
            MetadataRecord::BrokerRegistrationChange(change) => {
                out.i32(change.id.0);
                out.i64(change.epoch.0);
                out.option(change.fenced.as_ref(), |out, value| out.flag(*value));
                out.option(change.in_controlled_shutdown.as_ref(), |out, value| out.flag(*value));
                out.option(change.online_directories.as_ref(), |out, ids| out.list(ids, |out, id| out.uuid(*id)));
            }
            MetadataRecord::Topic(topic) => {
                out.uuid(topic.id);
                out.text(&topic.name);
            }
            MetadataRecord::Partition(partition) => encode_partition(out, partition),
            MetadataRecord::PartitionChange(change) => encode_change(out, change),
            MetadataRecord::RemoveTopic(id) => out.uuid(*id),
            MetadataRecord::Config(config) => {
                encode_resource(out, &config.resource);
                out.text(&config.key);
                out.option(config.value.as_ref(), |out, value| out.text(value));
            }
            MetadataRecord::ProducerIds(ids) => {
                out.i32(ids.broker.0);
                out.i64(ids.broker_epoch.0);
                out.i64(ids.next.0);
            }
            MetadataRecord::FeatureLevel(feature) => {
                out.text(&feature.name);
                out.i16(feature.level);
            }
            MetadataRecord::LossAccepted(loss) => {
                out.uuid(loss.partition.topic_id);
                out.i32(loss.partition.partition.0);
                out.i32(loss.replica.0);
                out.brokers(&loss.instead_of);
                out.i64(loss.at.0);
                out.i32(loss.leader_epoch.0);
            }
            MetadataRecord::NoOp => {}
        }
    }

    /// Takes one framed record off the front.
    pub fn decode(input: &mut Reader<'_>) -> Result<MetadataRecord, DecodeError> {
        let kind = input.u8()?;
        let version = input.u8()?;
        let mut body = Reader::new(input.bytes()?);
        if version == 0 || version > version_of(kind) {
            return Err(DecodeError::UnknownVersion { what: "metadata record", version });
        }
        let record = decode_body(kind, version, &mut body)?;
        body.end()?;
        Ok(record)
    }
}

fn decode_body(kind: u8, version: u8, input: &mut Reader<'_>) -> Result<MetadataRecord, DecodeError> {
    Ok(match kind {
        kind::CLUSTER_INIT => MetadataRecord::ClusterInit(ClusterInit {
            cluster_id: ClusterId(input.shared_text()?),
            metadata_version: input.i16()?,
        }),
        kind::REGISTER_BROKER => MetadataRecord::RegisterBroker(decode_broker(version, input)?),
        kind::UNREGISTER_BROKER => MetadataRecord::UnregisterBroker(UnregisterBroker {
            id: BrokerId(input.i32()?),
            epoch: BrokerEpoch(input.i64()?),
        }),
        kind::BROKER_REGISTRATION_CHANGE => MetadataRecord::BrokerRegistrationChange(BrokerRegistrationChange {
            id: BrokerId(input.i32()?),
            epoch: BrokerEpoch(input.i64()?),
            fenced: input.option(Reader::flag)?,
            in_controlled_shutdown: input.option(Reader::flag)?,
            online_directories: input.option(Reader::uuids)?,
        }),
        kind::TOPIC => MetadataRecord::Topic(TopicRecord { id: input.uuid()?, name: input.shared_text()? }),
        kind::PARTITION => MetadataRecord::Partition(decode_partition(version, input)?),
        kind::PARTITION_CHANGE => MetadataRecord::PartitionChange(decode_change(version, input)?),
        kind::REMOVE_TOPIC => MetadataRecord::RemoveTopic(input.uuid()?),
        kind::CONFIG => MetadataRecord::Config(ConfigRecord {
            resource: decode_resource(input)?,
            key: input.text()?.to_owned(),
            value: input.option(|input| input.text().map(str::to_owned))?,
        }),
        kind::PRODUCER_IDS => MetadataRecord::ProducerIds(ProducerIdsRecord {
            broker: BrokerId(input.i32()?),
            broker_epoch: BrokerEpoch(input.i64()?),
            next: ProducerId(input.i64()?),
        }),
        kind::FEATURE_LEVEL => {
            MetadataRecord::FeatureLevel(FeatureLevelRecord { name: input.text()?.to_owned(), level: input.i16()? })
        }
        kind::LOSS_ACCEPTED => MetadataRecord::LossAccepted(LossAccepted {
            partition: TopicPartition { topic_id: input.uuid()?, partition: PartitionIndex(input.i32()?) },
            replica: BrokerId(input.i32()?),
            instead_of: input.brokers()?,
            at: Timestamp(input.i64()?),
            leader_epoch: LeaderEpoch(input.i32()?),
        }),
        kind::NO_OP => MetadataRecord::NoOp,
        other => return Err(DecodeError::UnknownRecord(other)),
    })
}

fn encode_broker(out: &mut Writer, broker: &RegisterBroker) {
    out.i32(broker.id.0);
    out.uuid(broker.incarnation);
    out.option(broker.epoch.as_ref(), |out, epoch| out.i64(epoch.0));
    out.list(&broker.endpoints, |out, endpoint| {
        out.text(&endpoint.listener);
        out.text(&endpoint.host);
        out.u16(endpoint.port);
        out.i16(endpoint.protocol as i16);
    });
    out.option(broker.rack.as_ref(), |out, rack| out.text(rack));
    out.flag(broker.fenced);
    out.flag(broker.in_controlled_shutdown);
    out.list(&broker.directories, |out, directory| {
        out.uuid(directory.id);
        encode_verdict(out, directory.verdict);
    });
    out.list(&broker.differing, |out, replica| {
        out.uuid(replica.partition.topic_id);
        out.i32(replica.partition.partition.0);
        encode_verdict(out, replica.verdict);
        out.i32(replica.last_epoch.0);
        out.i64(replica.log_end_offset.0);
        out.option(replica.directory.as_ref(), |out, id| out.uuid(*id));
        out.option(replica.was_strict.as_ref(), |out, strict| out.flag(*strict));
    });
    out.list(&broker.unfenced_with, |out, (directory, epoch)| {
        out.uuid(*directory);
        out.i64(epoch.0);
    });
}

fn decode_broker(version: u8, input: &mut Reader<'_>) -> Result<RegisterBroker, DecodeError> {
    Ok(RegisterBroker {
        id: BrokerId(input.i32()?),
        incarnation: input.uuid()?,
        epoch: input.option(|input| input.i64().map(BrokerEpoch))?,
        endpoints: input.list(12, |input| {
            Ok(Endpoint {
                listener: input.shared_text()?,
                host: input.shared_text()?,
                port: input.u16()?,
                protocol: SecurityProtocol::from_code(input.i16()?).ok_or(DecodeError::Invalid("security protocol"))?,
            })
        })?,
        rack: input.option(Reader::shared_text)?,
        fenced: input.flag()?,
        in_controlled_shutdown: input.flag()?,
        directories: input
            .list(17, |input| Ok(DirectoryRegistration { id: input.uuid()?, verdict: decode_verdict(input)? }))?,
        differing: input.list(33, |input| {
            Ok(ReplicaReport {
                partition: TopicPartition { topic_id: input.uuid()?, partition: PartitionIndex(input.i32()?) },
                verdict: decode_verdict(input)?,
                last_epoch: LeaderEpoch(input.i32()?),
                log_end_offset: Offset(input.i64()?),
                directory: if version < 3 { None } else { input.option(Reader::uuid)? },
                was_strict: if version < 3 { None } else { input.option(Reader::flag)? },
            })
        })?,
        unfenced_with: match version {
            1 => Vec::new(),
            _ => input.list(24, |input| Ok((input.uuid()?, BrokerEpoch(input.i64()?))))?,
        },
    })
}

fn encode_verdict(out: &mut Writer, verdict: Verdict) {
    out.u8(match verdict {
        Verdict::Proved => 0,
        Verdict::Cut => 1,
        Verdict::Lost => 2,
        Verdict::Damaged => 3,
    });
}

fn decode_verdict(input: &mut Reader<'_>) -> Result<Verdict, DecodeError> {
    match input.u8()? {
        0 => Ok(Verdict::Proved),
        1 => Ok(Verdict::Cut),
        2 => Ok(Verdict::Lost),
        3 => Ok(Verdict::Damaged),
        _ => Err(DecodeError::Invalid("verdict")),
    }
}

fn encode_recovery(out: &mut Writer, state: RecoveryState) {
    out.flag(state == RecoveryState::Recovering);
}

fn decode_recovery(input: &mut Reader<'_>) -> Result<RecoveryState, DecodeError> {
    Ok(if input.flag()? { RecoveryState::Recovering } else { RecoveryState::Recovered })
}

fn encode_partition(out: &mut Writer, partition: &PartitionRecord) {
    out.uuid(partition.topic_id);
    out.i32(partition.index.0);
    let registration = &partition.registration;
    out.brokers(&registration.replicas);
    out.list(&registration.directories, |out, id| out.uuid(*id));
    out.brokers(&registration.isr);
    out.brokers(&registration.elr);
    out.brokers(&registration.last_known_elr);
    out.brokers(&registration.adding);
    out.brokers(&registration.removing);
    out.option(registration.leader.as_ref(), |out, leader| out.i32(leader.0));
    out.i32(registration.leader_epoch.0);
    out.i32(registration.partition_epoch.0);
    encode_recovery(out, registration.recovering);
    out.brokers(&registration.cut);
    out.option(registration.left_strict.as_ref(), |out, strict| out.flag(*strict));
}

fn decode_partition(version: u8, input: &mut Reader<'_>) -> Result<PartitionRecord, DecodeError> {
    Ok(PartitionRecord {
        topic_id: input.uuid()?,
        index: PartitionIndex(input.i32()?),
        registration: PartitionRegistration {
            replicas: input.brokers()?,
            directories: input.uuids()?,
            isr: input.brokers()?,
            elr: input.brokers()?,
            last_known_elr: input.brokers()?,
            adding: input.brokers()?,
            removing: input.brokers()?,
            leader: input.option(|input| input.i32().map(BrokerId))?,
            leader_epoch: LeaderEpoch(input.i32()?),
            partition_epoch: PartitionEpoch(input.i32()?),
            recovering: decode_recovery(input)?,
            cut: if version == 1 { Vec::new() } else { input.brokers()? },
            left_strict: if version < 3 { None } else { input.option(Reader::flag)? },
        },
    })
}

fn encode_change(out: &mut Writer, change: &PartitionChange) {
    out.uuid(change.topic_id);
    out.i32(change.index.0);
    for brokers in
        [&change.isr, &change.replicas, &change.adding, &change.removing, &change.elr, &change.last_known_elr]
    {
        out.option(brokers.as_ref(), |out, brokers| out.brokers(brokers));
    }
    out.option(change.leader.as_ref(), |out, leader| {
        out.option(leader.as_ref(), |out, leader| out.i32(leader.0));
    });
    out.option(change.directories.as_ref(), |out, ids| out.list(ids, |out, id| out.uuid(*id)));
    out.option(change.recovering.as_ref(), |out, state| encode_recovery(out, *state));
    out.option(change.cut.as_ref(), |out, brokers| out.brokers(brokers));
    out.option(change.left_strict.as_ref(), |out, left| out.option(left.as_ref(), |out, strict| out.flag(*strict)));
}

fn decode_change(version: u8, input: &mut Reader<'_>) -> Result<PartitionChange, DecodeError> {
    let mut change = PartitionChange::of(input.uuid()?, PartitionIndex(input.i32()?));
    change.isr = input.option(Reader::brokers)?;
    change.replicas = input.option(Reader::brokers)?;
    change.adding = input.option(Reader::brokers)?;
    change.removing = input.option(Reader::brokers)?;
    change.elr = input.option(Reader::brokers)?;
    change.last_known_elr = input.option(Reader::brokers)?;
    change.leader = input.option(|input| input.option(|input| input.i32().map(BrokerId)))?;
    change.directories = input.option(Reader::uuids)?;
    change.recovering = input.option(decode_recovery)?;
    if version > 1 {
        change.cut = input.option(Reader::brokers)?;
    }
    if version > 2 {
        change.left_strict = input.option(|input| input.option(Reader::flag))?;
    }
    Ok(change)
}

#[cfg(test)]
mod tests;
