//! `meta.properties`: a log directory's identity, under Kafka's name and with Kafka's keys (KIP-858).
//!
//! A Java properties file that Kafka's own tools read. Ours ends in a checksum and is kept in two copies; Kafka's has
//! neither, which tells a Kafka data directory from ours.

use std::fmt::Write as _;
use std::path::Path;

use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, DirectoryId, Uuid};

use super::recorded_epochs::RecordedEpochs;
use crate::Fault;
use crate::disk::Disk;
use crate::small_file::{TwoCopies, read_two_copies, write_two_copies};

/// The file's name, Kafka's.
pub const META_PROPERTIES_NAME: &str = "meta.properties";

const CHECKSUM_KEY: &str = "stonelog.checksum";
const COPY_KEY: &str = "stonelog.copy";
const FOLLOWS_KEY: &str = "stonelog.follows.epoch";
const METADATA_KEY: &str = "stonelog.metadata.index";

/// Who a log directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node.
    pub node_id: BrokerId,
    /// The directory itself; never changes, never reused.
    pub directory_id: DirectoryId,
    /// The last broker epoch recorded here; `None` before the first registration.
    pub broker_epoch: Option<BrokerEpoch>,
    /// What the controller had unfenced this directory with when it took `broker_epoch`, if this directory held all of
    /// that: see [`RecordedEpochs`].
    pub follows_epoch: Option<BrokerEpoch>,
    /// An entry of the metadata log that a node which is no broker had applied, and that was durable in its own log if it
    /// votes; `None` before it was part of a cluster, and on brokers, whose epochs say the same.
    pub metadata_index: Option<u64>,
}

/// Why bytes are no intact copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Not text.
    #[error("it is not text")]
    NotText,
    /// A properties file without our mark.
    #[error("it is Apache Kafka's")]
    Kafkas,
    /// The last line does not match the rest.
    #[error("it fails its checksum")]
    Checksum,
    /// A key is missing or its value illegal.
    #[error("{0} is missing or illegal")]
    Value(&'static str),
}

impl MetaProperties {
    /// The broker epochs recorded here.
    pub fn recorded_epochs(&self) -> RecordedEpochs {
        RecordedEpochs { last: self.broker_epoch, follows: self.follows_epoch }
    }

    /// Refuses a directory of another cluster or node, saying what to do.
    pub fn require(&self, path: &Path, cluster_id: Option<&ClusterId>, node_id: BrokerId) -> Result<(), Fault> {
        let foreign = |detail| Err(Fault::Foreign { path: path.to_owned(), detail });
        if let Some(expected) = cluster_id.filter(|expected| **expected != self.cluster_id) {
            return foreign(format!(
                "this directory belongs to cluster {}, not {expected}; name the right directory, or an empty one to \
                 join {expected}",
                self.cluster_id
            ));
        }
        if self.node_id != node_id {
            return foreign(format!(
                "this directory belongs to node {}, not {node_id}; set node.id={} or name another directory",
                self.node_id, self.node_id
            ));
        }
        Ok(())
    }

    /// One copy's bytes; `version` rises with every write.
    pub fn encode(&self, version: u64) -> Vec<u8> {
        let mut text = String::from("#\n");
        let mut line = |key: &str, value: &str| {
            writeln!(text, "{key}={}", escape(value)).expect("writing to a string cannot fail");
        };
        if let Some(epoch) = self.broker_epoch {
            line("broker.epoch", &epoch.to_string());
        }
        line("cluster.id", &self.cluster_id.0);
        line("directory.id", &self.directory_id.to_string());
        line("node.id", &self.node_id.to_string());
        line("version", "1");
        line(COPY_KEY, &version.to_string());
        if let Some(epoch) = self.follows_epoch {
            line(FOLLOWS_KEY, &epoch.to_string());
        }
        if let Some(index) = self.metadata_index {
            line(METADATA_KEY, &index.to_string());
        }
        let checksum = crc32c::crc32c(text.as_bytes());
        writeln!(text, "{CHECKSUM_KEY}={checksum:08x}").expect("writing to a string cannot fail");
        text.into_bytes()
    }

    /// Reads one copy: its version and contents.
    pub fn decode(bytes: &[u8]) -> Result<(u64, MetaProperties), MetaError> {
        let text = str::from_utf8(bytes).map_err(|_| MetaError::NotText)?;
        let value = |key: &'static str| {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let mut values = lines.filter_map(|line| line.split_once('=')).filter(|(k, _)| *k == key);
            values.next().map(|(_, value)| unescape(value))
        };
        let number = |key| value(key).and_then(|text| text.parse::<i64>().ok());
        let Some((checked, checksum)) = text.rsplit_once(CHECKSUM_KEY) else {
            let is_kafkas = value("cluster.id").is_some() && value(COPY_KEY).is_none();
            return Err(if is_kafkas { MetaError::Kafkas } else { MetaError::Checksum });
        };
        if checksum != format!("={:08x}\n", crc32c::crc32c(checked.as_bytes())) {
            return Err(MetaError::Checksum);
        }
        if number("version") != Some(1) {
            return Err(MetaError::Value("version"));
        }
        let cluster_id = value("cluster.id").filter(|id| !id.is_empty()).ok_or(MetaError::Value("cluster.id"))?;
        let node_id = number("node.id").and_then(|id| i32::try_from(id).ok()).ok_or(MetaError::Value("node.id"))?;
        let directory_id =
            value("directory.id").and_then(|id| Uuid::parse(&id)).ok_or(MetaError::Value("directory.id"))?;
        let version = number(COPY_KEY).and_then(|v| u64::try_from(v).ok()).ok_or(MetaError::Value(COPY_KEY))?;
        let epoch = |key| match value(key) {
            None => Ok(None),
            Some(_) => number(key).map(|epoch| Some(BrokerEpoch(epoch))).ok_or(MetaError::Value(key)),
        };
        let (broker_epoch, follows_epoch) = (epoch("broker.epoch")?, epoch(FOLLOWS_KEY)?);
        let metadata_index = match value(METADATA_KEY) {
            None => None,
            Some(index) => Some(index.parse().map_err(|_| MetaError::Value(METADATA_KEY))?),
        };
        let (cluster_id, node_id) = (ClusterId(cluster_id.into()), BrokerId(node_id));
        let meta = MetaProperties { cluster_id, node_id, directory_id, broker_epoch, follows_epoch, metadata_index };
        Ok((version, meta))
    }

    /// Writes both copies durably.
    pub fn write(&self, disk: &dyn Disk, directory: &Path, version: u64) -> Result<(), Fault> {
        write_two_copies(disk, directory, META_PROPERTIES_NAME, &self.encode(version))
    }

    /// Reads the newest intact copy; `None` when there is none at all.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Option<TwoCopies<MetaProperties>>, Fault> {
        read_two_copies(disk, directory, META_PROPERTIES_NAME, MetaProperties::decode)
    }
}

/// Java's `Properties` escapes, as far as a value needs them.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (index, c) in value.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' ' if index == 0 => out.push_str("\\ "),
            c => out.push(c),
        }
    }
    out
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(cluster: &str, epoch: Option<i64>) -> MetaProperties {
        MetaProperties {
            cluster_id: ClusterId(cluster.into()),
            node_id: BrokerId(1),
            directory_id: Uuid([5; 16]),
            broker_epoch: epoch.map(BrokerEpoch),
            follows_epoch: None,
            metadata_index: None,
        }
    }

    #[test]
    fn any_cluster_id_round_trips() {
        for cluster in ["MkU3OEVBNTcwNTJENDM2Qk", "with = and # in it", " \\ back\nslash\t", "ключ"] {
            for (epoch, follows, metadata_index) in
                [(None, None, None), (Some(7), None, None), (Some(7), Some(5), None), (None, None, Some(9))]
            {
                let follows_epoch = follows.map(BrokerEpoch);
                let meta = MetaProperties { follows_epoch, metadata_index, ..meta(cluster, epoch) };
                assert_eq!(MetaProperties::decode(&meta.encode(9)), Ok((9, meta)));
            }
        }
    }

    #[test]
    fn the_text_is_kafkas_plus_our_keys() {
        let text = String::from_utf8(meta("c1", Some(12)).encode(3)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..7],
            [
                "#",
                "broker.epoch=12",
                "cluster.id=c1",
                "directory.id=BQUFBQUFBQUFBQUFBQUFBQ",
                "node.id=1",
                "version=1",
                "stonelog.copy=3"
            ]
        );
        assert!(lines[7].starts_with("stonelog.checksum=") && lines.len() == 8);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = meta("c1", Some(12)).encode(3);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(MetaProperties::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_cluster_or_node_is_refused_with_what_to_do() {
        let meta = meta("c1", None);
        let path = Path::new("/d");
        assert!(meta.require(path, Some(&ClusterId("c1".into())), BrokerId(1)).is_ok());
        assert!(meta.require(path, None, BrokerId(1)).is_ok());
        let wrong = meta.require(path, Some(&ClusterId("c2".into())), BrokerId(1)).unwrap_err();
        assert!(wrong.to_string().contains("cluster c1, not c2"));
        let wrong = meta.require(path, None, BrokerId(2)).unwrap_err();
        assert!(wrong.to_string().contains("set node.id=1"));
    }
}
