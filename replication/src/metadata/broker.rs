//! A broker as the cluster knows it: its incarnation, its endpoints, its directories.

use std::collections::BTreeMap;
use std::sync::Arc;

use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, Offset, TopicPartition, Uuid};

/// How a listener is protected (Kafka's `SecurityProtocol`; the numbers are those on the wire).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SecurityProtocol {
    /// No encryption, no authentication.
    Plaintext = 0,
    /// TLS.
    Ssl = 1,
    /// SASL over plain TCP.
    SaslPlaintext = 2,
    /// SASL over TLS.
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// Reads the number used on the wire.
    pub fn from_code(code: i16) -> Option<SecurityProtocol> {
        Some(match code {
            0 => SecurityProtocol::Plaintext,
            1 => SecurityProtocol::Ssl,
            2 => SecurityProtocol::SaslPlaintext,
            3 => SecurityProtocol::SaslSsl,
            _ => return None,
        })
    }
}

/// Where one listener of a broker is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The listener's name, such as `PLAINTEXT` or `INTERNAL`.
    pub listener: Arc<str>,
    /// The advertised host name or address.
    pub host: Arc<str>,
    /// The advertised port.
    pub port: u16,
    /// How the listener is protected.
    pub protocol: SecurityProtocol,
}

/// What a starting broker can prove about what a directory, or one replica in it, still holds (rule 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Everything ever reported durable is there; counts as a clean stop.
    Proved,
    /// The commit chain ends in a torn tail: what lies before it is whole.
    Cut,
    /// Anything may be missing.
    Lost,
    /// Everything is there but ranges that are known and answer CORRUPT_MESSAGE; its end is certain.
    Damaged,
}

/// A log directory at registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryRegistration {
    /// The directory's identifier (`meta.properties`).
    pub id: DirectoryId,
    /// What recovery proved of it.
    pub verdict: Verdict,
}

/// A replica whose verdict differs from its directory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which replica.
    pub partition: TopicPartition,
    /// The directory it lies in: it says nothing of one in another. `None` from releases that did not say.
    pub directory: Option<DirectoryId>,
    /// What recovery proved of it.
    pub verdict: Verdict,
    /// The last leader epoch in its log.
    pub last_epoch: LeaderEpoch,
    /// Its log end offset.
    pub log_end_offset: Offset,
    /// Whether its journal had it as strict: the topic's settings may say otherwise when this is read.
    pub was_strict: Option<bool>,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    /// `node.id`.
    pub id: BrokerId,
    /// Drawn at random by every start of the process.
    pub incarnation: Uuid,
    /// The index of the entry that registered this incarnation; grows with every one.
    pub epoch: BrokerEpoch,
    /// Where its listeners are reached, in the order of its configuration.
    pub endpoints: Vec<Endpoint>,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
    /// A fenced broker leads nothing and is in no ISR (except as the last member).
    pub fenced: bool,
    /// It asked to leave and is handing over its leaderships.
    pub in_controlled_shutdown: bool,
    /// Its directories that are online. A replica assigned to any other directory of this broker is absent (rule 12).
    pub directories: Vec<DirectoryRegistration>,
    /// Replicas whose verdict is not their directory's, cut ones with where they end, and lost ones with their mode, as of
    /// the registration. By partition.
    pub differing: Arc<[ReplicaReport]>,
    /// For every directory it ever was unfenced with: the epoch of the last incarnation that was. Directories that are
    /// offline keep theirs; those that no replica lies in are forgotten at the next registration. By directory id.
    pub unfenced_with: Arc<[(DirectoryId, BrokerEpoch)]>,
}

impl BrokerRegistration {
    /// Whether it may lead, join ISRs and be placed into a new partition's ISR.
    pub fn is_active(&self) -> bool {
        !self.fenced && !self.in_controlled_shutdown
    }

    /// Whether a directory is online.
    pub fn has_directory(&self, id: DirectoryId) -> bool {
        self.directories.iter().any(|directory| directory.id == id)
    }

    /// The epoch of the last incarnation that was unfenced while a directory was online (rule 11).
    pub fn last_unfenced_with(&self, id: DirectoryId) -> Option<BrokerEpoch> {
        let place = self.unfenced_with.binary_search_by_key(&id, |(known, _)| *known).ok()?;
        Some(self.unfenced_with[place].1)
    }

    /// Registered, and never unfenced since.
    pub fn is_starting(&self) -> bool {
        self.fenced && self.unfenced_with.iter().all(|(_, epoch)| *epoch != self.epoch)
    }

    /// Notes that this incarnation is unfenced with the directories now online.
    pub(super) fn note_unfenced(&mut self) {
        let mut all: BTreeMap<DirectoryId, BrokerEpoch> = self.unfenced_with.iter().copied().collect();
        all.extend(self.directories.iter().map(|directory| (directory.id, self.epoch)));
        self.unfenced_with = all.into_iter().collect();
    }

    /// What the broker's registration proves of a replica in a directory; `None` while that directory is offline.
    pub fn verdict(&self, partition: TopicPartition, directory: DirectoryId) -> Option<Verdict> {
        let of_directory = self.directories.iter().find(|known| known.id == directory)?.verdict;
        Some(self.report(partition, directory).map_or(of_directory, |report| report.verdict))
    }

    /// What the registration said of one replica in a directory.
    pub fn report(&self, partition: TopicPartition, directory: DirectoryId) -> Option<&ReplicaReport> {
        let first = self.differing.partition_point(|report| report.partition < partition);
        let mut of_partition = self.differing[first..].iter().take_while(|report| report.partition == partition);
        of_partition.find(|report| report.directory.is_none_or(|named| named == directory))
    }

    /// The endpoint of a listener.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }
}
