//! Checks a whole log directory: what a start would read, and everything that a start trusts without reading it.
//!
//! With [`Access::Offline`] nobody else has the directory open. With [`Access::Online`] a broker runs on it, and only
//! what does not move under it is looked at: small files, which are replaced whole, and sealed segments. A finding there
//! counts only if the checkpoint still names the segment afterwards, and it is as bad when read once more.
//! The metadata log in `metadata/` is not looked into here: its records are another crate's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use stonelog_protocol::{Offset, TopicPartition};

use super::finding::{FileKind, Finding, ReplicaReport, Report, Severity};
use super::journal_check::{Lines, check_journal};
use super::scan::{SegmentScan, SegmentTarget};
use super::segment_check::{Depth, SegmentReport};
use super::small::{check_envelopes, check_two_copies};
use super::state::{SCRUB_KIND, SCRUB_NAME, ScrubState};
use crate::Fault;
use crate::checkpoint::{CHECKPOINT_KIND, CHECKPOINT_NAME, Checkpoint, CheckpointError, ReplicaCheckpoint};
use crate::disk::Disk;
use crate::index::file::fits;
use crate::journal::ReplayFrom;
use crate::log_dir::{
    CLEAN_STOP_NAME, MEMBER_NAME, META_PROPERTIES_NAME, MetaProperties, OFFLINE_NAME, REOPENED_NAME, RESERVE_NAME,
    TENURE_KIND, TENURE_NAME, offline_reason, parse_replica_name,
};
use crate::segment::{SegmentFile, SegmentId, SegmentName, directory_of};
use crate::small_file::Envelope;

/// Whether somebody else writes to the directory meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody: the caller holds its lock.
    Offline,
    /// A running broker.
    Online,
}

/// How to check.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Who else is there.
    pub access: Access,
    /// How closely to look at segments.
    pub depth: Depth,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of segments read.
    pub bytes_done: u64,
    /// Bytes of segments to read.
    pub bytes_total: u64,
}

/// Checks the log directory `root`. An error is one that leaves nothing to check: a directory that cannot be listed, or
/// is not ours.
pub fn check_log_dir(
    disk: &dyn Disk,
    root: &Path,
    options: CheckOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Fault> {
    let entries = disk.list(root).map_err(|e| Fault::io("list", root, e))?;
    let mut check = Check { disk, root, options, report: Report::default() };
    let is_ours = entries.iter().any(|entry| entry.name == META_PROPERTIES_NAME || entry.name == CHECKPOINT_NAME);
    if !is_ours {
        let detail = format!("there is no {META_PROPERTIES_NAME} in it: this is no data directory of ours");
        return Err(Fault::Foreign { path: root.to_owned(), detail });
    }
    check.small_files();
    let checkpoint = check.checkpoint();
    let mut lines = Lines::of(&checkpoint);
    if options.access == Access::Offline {
        check.journal(&checkpoint, &mut lines);
    }
    check.segments(&checkpoint, &lines, progress);
    if options.access == Access::Offline {
        check.strangers(&checkpoint, &lines, &entries);
    }
    Ok(check.report)
}

struct Check<'a> {
    disk: &'a dyn Disk,
    root: &'a Path,
    options: CheckOptions,
    report: Report,
}

impl Check<'_> {
    fn small_files(&mut self) {
        let (disk, root) = (self.disk, self.root);
        let meta = MetaProperties::decode;
        check_two_copies(disk, root, META_PROPERTIES_NAME, FileKind::MetaProperties, meta, &mut self.report);
        let tenures = [root.join(TENURE_NAME), root.join(CLEAN_STOP_NAME)];
        let follows = "relaxed replicas count as lost at the next start";
        let as_is = (FileKind::Tenure, Severity::Damage, follows);
        let is_tenure = |payload: &[u8]| {
            if payload.len() == 24 { Ok(()) } else { Err("it has another length".to_owned()) }
        };
        check_envelopes(disk, &tenures, &TENURE_KIND, as_is, is_tenure, &mut self.report);
        if let Ok(Some(reason)) = offline_reason(disk, root) {
            let detail = format!("the directory has failed and is not used until a person says so: {reason}");
            self.report.add(Finding::of(Severity::Note, FileKind::Other, &root.join(OFFLINE_NAME), detail));
        }
        let scrub = [root.join(SCRUB_NAME)];
        let begins_anew = (FileKind::ScrubState, Severity::Repairable, "the scrub begins anew");
        let is_state = |payload: &[u8]| {
            ScrubState::decode(payload).map(drop).ok_or_else(|| "its contents make no sense".to_owned())
        };
        check_envelopes(disk, &scrub, &SCRUB_KIND, begins_anew, is_state, &mut self.report);
    }

    /// The checkpoint that a start would take; an empty one when there is none.
    fn checkpoint(&mut self) -> Checkpoint {
        let (disk, root) = (self.disk, self.root);
        let checkpoint =
            check_two_copies(disk, root, CHECKPOINT_NAME, FileKind::Checkpoint, decode_checkpoint, &mut self.report);
        checkpoint.unwrap_or_default()
    }

    fn journal(&mut self, checkpoint: &Checkpoint, lines: &mut Lines) {
        let directory = self.root.join("journal");
        let from = ReplayFrom { position: checkpoint.replay_from(), recovery_epoch: checkpoint.recovery_epoch };
        let mut visit = |found| lines.apply(&found);
        let inspection = check_journal(self.disk, &directory, from, FileKind::Journal, &mut visit, &mut self.report);
        // Behind damage entries are missing, and the next ones contradict what is known: said once is enough.
        if inspection.is_none_or(|inspection| !inspection.ends.damage.is_empty()) {
            return;
        }
        for (partition, position, detail) in &lines.contradictions {
            let detail = format!("journal position {}: {detail}", position.0);
            self.report.add(Finding {
                partition: Some(*partition),
                ..Finding::of(Severity::Damage, FileKind::Journal, &directory, detail)
            });
        }
    }

    fn segments(&mut self, checkpoint: &Checkpoint, lines: &Lines, progress: &mut dyn FnMut(Progress)) {
        let mut states: BTreeMap<TopicPartition, &ReplicaCheckpoint> =
            checkpoint.replicas.iter().map(|state| (state.replica.partition, state)).collect();
        let mut targets = BTreeMap::new();
        for (partition, state) in &states {
            targets.insert(*partition, self.targets(state));
        }
        let bytes_total = targets.values().flatten().map(|target| target.bytes).sum();
        let mut done = Progress { bytes_done: 0, bytes_total };
        let partitions: BTreeSet<TopicPartition> = states.keys().chain(lines.lines.keys()).copied().collect();
        for partition in partitions {
            let state = states.remove(&partition);
            let line = lines.lines.get(&partition);
            // Dropped since the checkpoint: its files go whenever it suits.
            let (Some(strict), Some(log_start), Some(log_end)) =
                (line.map(|line| line.strict), line.map(|line| line.log_start), line.map(|line| line.end))
            else {
                continue;
            };
            let mut replica = ReplicaReport {
                partition,
                strict,
                log_start,
                segments_end: state.map_or(log_start, |state| state.end),
                log_end,
                segments_count: 0,
                bytes: 0,
                batches_count: line.map_or(0, |line| line.batches_count),
                damage_count: 0,
            };
            let found_before = self.report.findings.len();
            for target in targets.remove(&partition).unwrap_or_default() {
                self.segment(target, &mut replica, &mut done, progress);
            }
            if let Some(state) = state {
                self.holes(state, found_before, &mut replica);
            }
            self.report.replicas.push(replica);
        }
    }

    /// What is quarantined and was not met just now: lost with a file, or with a commit of the journal.
    fn holes(&mut self, state: &ReplicaCheckpoint, found_before: usize, replica: &mut ReplicaReport) {
        let partition = state.replica.partition;
        for hole in state.holes.list() {
            let is_found = self.report.findings[found_before..]
                .iter()
                .filter_map(|finding| finding.offsets)
                .any(|(from, to)| from < hole.end && hole.start < to);
            if is_found {
                continue;
            }
            let path = self.root.join(directory_of(partition));
            let detail = format!("quarantined since {} was met", hole.why);
            replica.damage_count += 1;
            self.report.add(Finding {
                partition: Some(partition),
                offsets: Some((hole.start, hole.end)),
                ..Finding::of(Severity::Damage, FileKind::Segment, &path, detail)
            });
        }
    }

    fn targets(&self, state: &ReplicaCheckpoint) -> Vec<SegmentTarget> {
        let mut targets = SegmentTarget::of_checkpoint(state);
        if self.options.access == Access::Online {
            targets.retain(|target| target.last_block.is_none());
        }
        targets
    }

    fn segment(
        &mut self,
        target: SegmentTarget,
        replica: &mut ReplicaReport,
        done: &mut Progress,
        progress: &mut dyn FnMut(Progress),
    ) {
        let before = done.bytes_done;
        let mut step = |bytes| {
            done.bytes_done += bytes;
            progress(*done);
        };
        let mut found = self.read(target, &mut step);
        if self.options.access == Access::Online && found.is_damaged() {
            // The broker may have cut, deleted or rewritten it meanwhile.
            found = match self.is_still_named(target) {
                true => self.read(target, &mut |_| {}),
                false => Found::default(),
            };
        }
        done.bytes_done = before + target.bytes;
        progress(*done);
        self.report.count(target.bytes);
        replica.segments_count += 1;
        replica.bytes += target.bytes;
        replica.batches_count += found.report.batches_count;
        replica.damage_count += found.findings.iter().filter(|found| found.severity == Severity::Damage).count() as u64;
        found.findings.into_iter().for_each(|finding| self.report.add(finding));
    }

    fn is_still_named(&self, target: SegmentTarget) -> bool {
        let read = Checkpoint::read_only(self.disk, self.root);
        read.is_some_and(|checkpoint| {
            let state = checkpoint.replicas.iter().find(|state| state.replica.partition == target.id.partition);
            state.is_some_and(|state| SegmentTarget::of_checkpoint(state).contains(&target))
        })
    }

    /// Reads one segment with what lies beside it.
    fn read(&self, target: SegmentTarget, step: &mut dyn FnMut(u64)) -> Found {
        let id = target.id;
        let path = self.root.join(id.path(SegmentFile::Log));
        let of_partition = |finding| Finding { partition: Some(id.partition), ..finding };
        let mut found = Found::default();
        let scan = SegmentScan::open(self.disk, self.root, target, self.options.depth);
        let mut scan = match scan {
            Ok(Some(scan)) => scan,
            Ok(None) => {
                found.findings.push(Finding {
                    offsets: Some((id.base, target.end)),
                    ..of_partition(Finding::of(
                        Severity::Damage,
                        FileKind::Segment,
                        &path,
                        "the checkpoint names it, and it is missing",
                    ))
                });
                return found;
            }
            Err(fault) => {
                found.findings.push(of_partition(Finding::of_fault(FileKind::Segment, &fault)));
                return found;
            }
        };
        if let Some(wrong) = scan.sums_wrong() {
            let path = self.root.join(id.path(SegmentFile::Sums));
            let detail = format!("{wrong}: the blocks it should vouch for cannot be served");
            found.findings.push(of_partition(Finding::of(Severity::Damage, FileKind::Sums, &path, detail)));
        }
        loop {
            match scan.step() {
                0 => break,
                bytes => step(bytes),
            }
        }
        found.report = scan.finish();
        for damage in &found.report.damage {
            found.findings.push(Finding::of_segment(id.partition, &path, damage));
        }
        if target.last_block.is_none() {
            found.findings.extend(self.index(target).map(of_partition));
        }
        found
    }

    /// An index is a cache that is not synced: one that does not fit is no damage.
    fn index(&self, target: SegmentTarget) -> Option<Finding> {
        let path = self.root.join(target.id.path(SegmentFile::Index));
        let fits = fits(self.disk, &path, target.id.base, target.bytes);
        let detail = "it does not fit its segment: a cache, which the next read that needs it makes anew";
        (fits == Some(false)).then(|| Finding::of(Severity::Note, FileKind::Index, &path, detail))
    }

    /// Files and directories that nothing names.
    fn strangers(&mut self, checkpoint: &Checkpoint, lines: &Lines, entries: &[crate::disk::DirEntry]) {
        for entry in entries {
            let path = self.root.join(&entry.name);
            let detail = match (entry.is_dir, parse_replica_name(&entry.name)) {
                (true, Some(partition)) if lines.lines.contains_key(&partition) => {
                    self.leftovers(checkpoint, partition);
                    continue;
                }
                (true, Some(_)) => "no log of this directory claims it: it was dropped, or is a stray",
                (true, None) if entry.name.ends_with(".stray") => "a stray that an earlier start put aside",
                _ if is_known(&entry.name) => continue,
                (false, None) if entry.name.ends_with(".tmp") => {
                    "a small file that was being replaced; the next write of it takes it away"
                }
                _ => "not a file of ours",
            };
            self.report.add(Finding::of(Severity::Note, FileKind::Other, &path, detail));
        }
    }

    /// Files of a replica that neither its checkpoint names nor a flush since may have made.
    fn leftovers(&mut self, checkpoint: &Checkpoint, partition: TopicPartition) {
        let directory = self.root.join(directory_of(partition));
        let entries = match self.disk.list(&directory) {
            Ok(entries) => entries,
            Err(error) => {
                let fault = Fault::io("list", &directory, error);
                self.report.add(Finding::of_fault(FileKind::Other, &fault));
                return;
            }
        };
        let state = checkpoint.replicas.iter().find(|state| state.replica.partition == partition);
        let end = state.map_or(Offset::ZERO, |state| state.end);
        let segments = state.into_iter().flat_map(|state| &state.segments);
        let named: BTreeSet<SegmentName> =
            segments.map(|segment| SegmentName { base: segment.base, version: segment.version }).collect();
        for entry in entries {
            let path = directory.join(&entry.name);
            let detail = match segment_name(&entry.name) {
                Some((name, _)) if named.contains(&name) || name.base >= end => continue,
                Some(_) => "left behind: the checkpoint does not name its segment",
                None if entry.name.ends_with(".log.deleted") => "left behind: it was being removed",
                None => "not a file of ours",
            };
            let partition = Some(partition);
            self.report.add(Finding { partition, ..Finding::of(Severity::Note, FileKind::Other, &path, detail) });
        }
    }
}

/// What reading one segment found.
#[derive(Default)]
struct Found {
    findings: Vec<Finding>,
    report: SegmentReport,
}

impl Found {
    fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity != Severity::Note)
    }
}

pub(super) fn decode_checkpoint(bytes: &[u8]) -> Result<(u64, Checkpoint), CheckpointError> {
    let (envelope, payload) = Envelope::open(&CHECKPOINT_KIND, bytes)?;
    Ok((envelope.version, Checkpoint::decode(payload)?))
}

/// The segment a file is named after, and which of its files it is.
pub(super) fn segment_name(name: &str) -> Option<(SegmentName, SegmentFile)> {
    let (name, extension) = name.rsplit_once('.')?;
    let file = [SegmentFile::Log, SegmentFile::Sums, SegmentFile::Index]
        .into_iter()
        .find(|file| file.extension() == extension)?;
    let (base, version) = match name.split_once('.') {
        Some((base, version)) => (base, version.parse().ok()?),
        None => (name, 0),
    };
    let base = Offset(base.parse().ok().filter(|_| base.len() == 20)?);
    Some((SegmentName { base, version }, file))
}

/// Names in a log directory that are looked at elsewhere.
fn is_known(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "journal",
        "metadata",
        CHECKPOINT_NAME,
        META_PROPERTIES_NAME,
        MEMBER_NAME,
        TENURE_NAME,
        CLEAN_STOP_NAME,
        SCRUB_NAME,
        REOPENED_NAME,
        RESERVE_NAME,
        crate::disk::real::LOCK_NAME,
    ];
    let name = name.strip_suffix(".copy").unwrap_or(name);
    NAMES.contains(&name) || name.starts_with(OFFLINE_NAME) || name == "lost+found"
}

/// Where a segment's file lies within a log directory, for whoever names one.
pub(super) fn id_of(path: &Path) -> Option<(PathBuf, SegmentId, SegmentFile)> {
    let (name, file) = segment_name(path.file_name()?.to_str()?)?;
    let directory = path.parent()?;
    let partition = parse_replica_name(directory.file_name()?.to_str()?)?;
    Some((directory.parent()?.to_owned(), name.of(partition), file))
}
