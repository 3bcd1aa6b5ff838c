//! Segments: the files a log's records end up in, after they are durable in the journal.
//!
//! ```text
//! <topic id>-<partition>/00000000000000000042.log    Kafka v2 batches, nothing else
//!                        00000000000000000042.sum    CRC-32C of each full 64 KiB block of the .log
//!                        00000000000000000042.index  a cache of where batches lie; may be missing
//! ```
//!
//! What compaction writes anew has the same base and the next version: `00000000000000000042.1.log`. A name is never
//! written twice while a checkpoint names it, so a checkpoint is what swaps one for the other.
//!
//! A [`Segment`] is what the log knows of one; the checkpoint keeps it. Bytes beyond [`Segment::bytes`] are nobody's:
//! they are left by a crash or a stale job and are overwritten. A segment that is not the last never changes.

pub mod delete;
pub mod file_cache;
pub mod flush;
pub(crate) mod pending_sums;
pub mod read;
pub mod rebuild;
pub mod survey;
pub mod sync;
pub(crate) mod verified;
pub mod walk;

use std::path::{Path, PathBuf};

use stonelog_protocol::{Offset, Timestamp, TopicPartition};

use crate::log_dir::parse_replica_name;

/// Bytes under one checksum. A multiple of every page and sector size, and the size writes are merged to.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// One segment of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset that names its files; not above its first record's.
    pub base: Offset,
    /// How often compaction has written it anew; names its files too.
    pub version: u32,
    /// The offset after its last record.
    pub end: Offset,
    /// Bytes of its `.log` file that count.
    pub bytes: u64,
    /// CRC-32C of the bytes after the last full block; 0 when there are none.
    pub partial_crc: u32,
    /// Largest timestamp of its first batch, from which `segment.ms` counts; [`Timestamp::NONE`] when it has none or
    /// it was not read since the start (the first flush reads it).
    pub first_timestamp: Timestamp,
    /// When its first batch was appended, by this broker's clock.
    pub created: Timestamp,
    /// Its largest record timestamp, or [`Timestamp::NONE`].
    pub max_timestamp: Timestamp,
}

impl Segment {
    /// A segment with nothing in it.
    pub fn empty(base: Offset, now: Timestamp) -> Segment {
        Segment {
            base,
            version: 0,
            end: base,
            bytes: 0,
            partial_crc: 0,
            first_timestamp: Timestamp::NONE,
            created: now,
            max_timestamp: Timestamp::NONE,
        }
    }

    /// What names its files within its log.
    pub fn name(&self) -> SegmentName {
        SegmentName { base: self.base, version: self.version }
    }

    /// Which segment of the log directory it is.
    pub fn id(&self, partition: TopicPartition) -> SegmentId {
        self.name().of(partition)
    }

    /// The time its newest record is from, for retention: by the records, else by this broker's clock.
    pub fn newest(&self) -> Timestamp {
        if self.max_timestamp.0 >= 0 { self.max_timestamp } else { self.created }
    }
}

/// Which segment of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// [`Segment::base`].
    pub base: Offset,
    /// [`Segment::version`].
    pub version: u32,
}

impl SegmentName {
    /// The segment of that name in a log.
    pub fn of(self, partition: TopicPartition) -> SegmentId {
        SegmentId { partition, base: self.base, version: self.version }
    }
}

/// Which segment of which log in a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// Whose.
    pub partition: TopicPartition,
    /// [`Segment::base`].
    pub base: Offset,
    /// [`Segment::version`].
    pub version: u32,
}

/// The files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFile {
    /// The batches.
    Log,
    /// Block checksums.
    Sums,
    /// The index, a cache.
    Index,
}

impl SegmentFile {
    pub(crate) fn extension(self) -> &'static str {
        match self {
            SegmentFile::Log => "log",
            SegmentFile::Sums => "sum",
            SegmentFile::Index => "index",
        }
    }
}

impl SegmentId {
    /// Which segment a `.log` file belongs to, by its path.
    pub fn of_log(path: &Path) -> Option<SegmentId> {
        let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
        let partition = parse_replica_name(path.parent()?.file_name()?.to_str()?)?;
        let (base, version) = name.split_once('.').unwrap_or((name, "0"));
        let name = SegmentName { base: Offset(base.parse().ok()?), version: version.parse().ok()? };
        let id = name.of(partition);
        (id.path(SegmentFile::Log).file_name() == path.file_name()).then_some(id)
    }

    /// Path of one of its files, relative to the log directory.
    pub fn path(&self, file: SegmentFile) -> PathBuf {
        let mut path = directory_of(self.partition);
        path.push(match self.version {
            0 => format!("{:020}.{}", self.base.0, file.extension()),
            version => format!("{:020}.{version}.{}", self.base.0, file.extension()),
        });
        path
    }
}

/// The directory of a log's segments, relative to the log directory.
pub fn directory_of(partition: TopicPartition) -> PathBuf {
    PathBuf::from(partition.to_string())
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionIndex, Uuid};

    use super::*;

    #[test]
    fn files_are_named_as_kafka_names_them_in_a_directory_of_the_topic_id() {
        let topic_id = Uuid::from_random([7; 16]);
        let partition = TopicPartition { topic_id, partition: PartitionIndex(3) };
        let id = Segment::empty(Offset(42), Timestamp(0)).id(partition);
        assert_eq!(id.path(SegmentFile::Log).to_str(), Some(&*format!("{topic_id}-3/00000000000000000042.log")));
        let anew = SegmentId { version: 7, ..id };
        assert_eq!(anew.path(SegmentFile::Sums).to_str(), Some(&*format!("{topic_id}-3/00000000000000000042.7.sum")));
        for id in [id, anew] {
            assert_eq!(SegmentId::of_log(&Path::new("/data").join(id.path(SegmentFile::Log))), Some(id));
            assert_eq!(SegmentId::of_log(&id.path(SegmentFile::Sums)), None);
        }
        for wrong in ["42.log", "00000000000000000042.0.log", "00000000000000000042.x.log"] {
            assert_eq!(SegmentId::of_log(&directory_of(id.partition).join(wrong)), None);
        }
    }
}
