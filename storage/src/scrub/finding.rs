//! What a check found, in a form that people and programs can be shown.

use std::fmt;
use std::path::{Path, PathBuf};

use stonelog_protocol::{Offset, TopicPartition};

use super::SegmentDamage;
use crate::Fault;

/// Findings kept of one check; further ones are only counted.
pub const FINDINGS_MAX: usize = 10_000;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// No damage: what a crash leaves by design, or what is not ours.
    Note,
    /// Bytes are damaged, and a start makes them good from a second copy; nothing is lost.
    Repairable,
    /// Bytes that count are damaged or missing.
    Damage,
}

impl Severity {
    /// One word, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Repairable => "repairable",
            Severity::Damage => "damage",
        }
    }
}

/// The kinds of files in a log directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `.log`
    Segment,
    /// `.sum`
    Sums,
    /// `.index`
    Index,
    /// A file of the journal, or the journal as a whole.
    Journal,
    /// `checkpoint` or its copy.
    Checkpoint,
    /// `meta.properties` or its copy.
    MetaProperties,
    /// `.stonelog_tenure` or `.stonelog_clean_stop`.
    Tenure,
    /// `.stonelog_scrub`
    ScrubState,
    /// A file of the metadata log's journal.
    MetadataJournal,
    /// `metadata.checkpoint` or its copy.
    MetadataCheckpoint,
    /// Whose metadata log it is.
    MetadataOwner,
    /// A snapshot of the metadata.
    MetadataSnapshot,
    /// Anything else.
    Other,
}

impl FileKind {
    /// One word, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Segment => "segment",
            FileKind::Sums => "sum",
            FileKind::Index => "index",
            FileKind::Journal => "journal",
            FileKind::Checkpoint => "checkpoint",
            FileKind::MetaProperties => "meta.properties",
            FileKind::Tenure => "tenure",
            FileKind::ScrubState => "scrub",
            FileKind::MetadataJournal => "metadata-journal",
            FileKind::MetadataCheckpoint => "metadata.checkpoint",
            FileKind::MetadataOwner => "metadata.owner",
            FileKind::MetadataSnapshot => "metadata-snapshot",
            FileKind::Other => "other",
        }
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which kind of file.
    pub kind: FileKind,
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes.
    pub position: Option<u64>,
    /// How many bytes it concerns.
    pub bytes: Option<u64>,
    /// Whose, where one replica alone is concerned.
    pub partition: Option<TopicPartition>,
    /// Offsets that cannot be served for it: from, and up to (exclusive).
    pub offsets: Option<(Offset, Offset)>,
    /// What is wrong, and what follows from it.
    pub detail: String,
}

impl Finding {
    /// A finding about a whole file.
    pub fn of(severity: Severity, kind: FileKind, path: &Path, detail: impl Into<String>) -> Finding {
        Finding {
            severity,
            kind,
            path: path.to_owned(),
            position: None,
            bytes: None,
            partition: None,
            offsets: None,
            detail: detail.into(),
        }
    }

    /// A read that failed, or bytes that another check refused.
    pub fn of_fault(kind: FileKind, fault: &Fault) -> Finding {
        match fault {
            Fault::Io { operation, path, position, source } => Finding {
                position: *position,
                ..Finding::of(Severity::Damage, kind, path, format!("{operation}: {source}"))
            },
            Fault::Damage { path, position, detail, .. } => {
                Finding { position: Some(*position), ..Finding::of(Severity::Damage, kind, path, detail.clone()) }
            }
            Fault::Foreign { path, detail } => Finding::of(Severity::Damage, kind, path, detail.clone()),
        }
    }

    /// Damage in a segment.
    pub fn of_segment(partition: TopicPartition, path: &Path, damage: &SegmentDamage) -> Finding {
        Finding {
            position: Some(damage.position),
            bytes: Some(damage.bytes),
            partition: Some(partition),
            offsets: Some((damage.from, damage.to)),
            ..Finding::of(Severity::Damage, FileKind::Segment, path, damage.wrong.to_string())
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.severity.name(), self.kind.name(), self.path.display())?;
        if let Some(position) = self.position {
            write!(f, " at byte {position}")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, ", {bytes} bytes")?;
        }
        if let Some((from, to)) = self.offsets {
            write!(f, ", offsets {from}..{to}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What a check found of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which one.
    pub partition: TopicPartition,
    /// Whether its acknowledgements wait for durable positions.
    pub strict: bool,
    /// First offset kept.
    pub log_start: Offset,
    /// Where its segments end, by the checkpoint.
    pub segments_end: Offset,
    /// Where its log ends, by the journal.
    pub log_end: Offset,
    /// Segments read.
    pub segments_count: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Batches read, in segments and in the journal behind them.
    pub batches_count: u64,
    /// Findings of damage that concern it.
    pub damage_count: u64,
}

/// Everything that a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order in which files were read; at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub omitted_count: u64,
    /// The replicas, in order.
    pub replicas: Vec<ReplicaReport>,
    /// Files read.
    pub files_count: u64,
    /// Bytes read.
    pub bytes: u64,
    worst: Option<Severity>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        self.worst = self.worst.max(Some(finding.severity));
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.omitted_count += 1;
        }
    }

    /// Notes that a file was read.
    pub fn count(&mut self, bytes: u64) {
        self.files_count += 1;
        self.bytes += bytes;
    }

    /// Whether nothing is damaged. Notes do not count against it.
    pub fn is_whole(&self) -> bool {
        self.worst.unwrap_or(Severity::Note) == Severity::Note
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_past_the_limit_still_count() {
        let mut report = Report::default();
        for _ in 0..FINDINGS_MAX {
            report.add(Finding::of(Severity::Note, FileKind::Other, Path::new("f"), "a stranger's"));
        }
        assert!(report.is_whole());
        report.add(Finding::of(Severity::Repairable, FileKind::Checkpoint, Path::new("f"), "damaged"));
        assert!(!report.is_whole());
        assert_eq!((report.findings.len(), report.omitted_count), (FINDINGS_MAX, 1));
    }
}
