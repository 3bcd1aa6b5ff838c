//! Checks a journal as a start would read it, and follows what its entries make of each replica's log.

use std::collections::BTreeMap;
use std::path::Path;

use stonelog_protocol::batch::header::crc_matches;
use stonelog_protocol::{Offset, TopicPartition};

use super::finding::{FileKind, Finding, Report, Severity};
use crate::checkpoint::Checkpoint;
use crate::disk::Disk;
use crate::journal::{
    Change, Hurt, HurtRange, Inspection, JournalFile, JournalFileState, JournalPosition, ReplayFrom, ReplayedEntry,
    inspect,
};
use crate::segment::walk::Batches;

/// Walks the journal in `directory` and adds what is wrong with it; `visit` sees every entry that a start would replay.
/// `None` when it cannot be read at all.
pub fn check_journal(
    disk: &dyn Disk,
    directory: &Path,
    replay_from: ReplayFrom,
    kind: FileKind,
    visit: &mut dyn FnMut(ReplayedEntry),
    report: &mut Report,
) -> Option<Inspection> {
    let inspection = match inspect(disk, directory, replay_from, visit) {
        Ok(inspection) => inspection,
        Err(fault) => {
            report.add(Finding::of_fault(kind, &fault));
            return None;
        }
    };
    for file in &inspection.files {
        if file.state == JournalFileState::Live {
            report.count(file.bytes);
        }
        if let Some(finding) = judge_file(kind, file) {
            report.add(finding);
        }
    }
    for damage in &inspection.ends.damage {
        let hurt = match &damage.hurt {
            Hurt::All => "every replica of this directory may lack records".to_owned(),
            Hurt::Ranges(ranges) => {
                let range =
                    |range: &HurtRange| format!("{} offsets {}..{}", range.replica.partition, range.start, range.end);
                format!("lost with it: {}", ranges.iter().map(range).collect::<Vec<_>>().join(", "))
            }
        };
        let (path, position) = place(&inspection, directory, damage.position);
        let detail = format!("a commit that was durable is not whole (journal position {}); {hurt}", damage.position.0);
        report.add(Finding { position, ..Finding::of(Severity::Damage, kind, &path, detail) });
    }
    if let Some(torn) = &inspection.ends.torn_tail {
        let (_, position) = place(&inspection, directory, torn.position);
        let detail = "a torn tail: it was being written when the power went, nothing in it was acknowledged, and the \
                      next start drops it";
        report.add(Finding {
            position,
            bytes: Some(torn.bytes),
            ..Finding::of(Severity::Note, kind, &torn.path, detail)
        });
    }
    Some(inspection)
}

fn judge_file(kind: FileKind, file: &JournalFile) -> Option<Finding> {
    let (severity, detail) = match file.state {
        JournalFileState::Damaged => (
            Severity::Damage,
            "both copies of its header and its first commit are damaged: what it holds cannot be told, and every replica \
             may lack records",
        ),
        JournalFileState::Live => match file.header?.copies_damaged {
            0 => return None,
            1 => (Severity::Repairable, "one copy of its header is damaged; the other one serves"),
            _ => (Severity::Repairable, "both copies of its header are damaged; its first commit tells the same"),
        },
        JournalFileState::Preparing => (Severity::Note, "it was being made; the next start removes it"),
        _ => return None,
    };
    Some(Finding::of(severity, kind, &file.path, detail))
}

/// The file a journal position lies in, and where.
fn place(inspection: &Inspection, directory: &Path, position: JournalPosition) -> (std::path::PathBuf, Option<u64>) {
    let holds = |file: &&JournalFile| {
        file.header.is_some_and(|header| (header.base.0..header.base.0 + header.len).contains(&position.0))
    };
    match inspection.files.iter().find(holds) {
        Some(file) => (file.path.clone(), file.header.map(|header| position.0 - header.base.0)),
        None => (directory.to_owned(), None),
    }
}

/// Where one replica's log stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) covered: JournalPosition,
    pub(super) strict: bool,
    pub(super) log_start: Offset,
    pub(super) end: Offset,
    pub(super) batches_count: u64,
}

/// What the checkpoint and the entries behind it make of each replica. A second, simpler reading of what recovery does.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) lines: BTreeMap<TopicPartition, Line>,
    dropped: BTreeMap<TopicPartition, JournalPosition>,
    /// What contradicts: whose, the journal position, what.
    pub(super) contradictions: Vec<(TopicPartition, JournalPosition, String)>,
}

impl Lines {
    pub(super) fn of(checkpoint: &Checkpoint) -> Lines {
        let lines = checkpoint.replicas.iter().map(|state| {
            let line = Line {
                covered: state.covered.unwrap_or(checkpoint.covered_default),
                strict: state.strict,
                log_start: state.log_start,
                end: state.end,
                batches_count: 0,
            };
            (state.replica.partition, line)
        });
        Lines { lines: lines.collect(), ..Lines::default() }
    }

    pub(super) fn apply(&mut self, found: &ReplayedEntry) {
        let partition = found.entry.replica.partition;
        let covered = match self.lines.get(&partition) {
            Some(line) => line.covered,
            None => self.dropped.get(&partition).copied().unwrap_or_default(),
        };
        if found.commit_position < covered {
            return;
        }
        let line = match (&found.entry.change, self.lines.get_mut(&partition)) {
            (Change::Create { start, strict }, _) => {
                let line = Line { covered, strict: *strict, log_start: *start, end: *start, batches_count: 0 };
                self.lines.insert(partition, line);
                return;
            }
            (Change::Drop, _) => {
                self.lines.remove(&partition);
                self.dropped.insert(partition, found.commit_position);
                return;
            }
            (_, None) => return,
            (_, Some(line)) => line,
        };
        let wrong = match &found.entry.change {
            Change::Append { base_offset, end_offset, batches } => {
                let wrong = match found.batches_damaged {
                    // Said with the commit's damage.
                    true => None,
                    false => wrong_append(line, *base_offset, *end_offset, batches),
                };
                line.end = *end_offset;
                wrong
            }
            Change::Truncate { end } => {
                line.end = line.end.min(*end);
                None
            }
            Change::Reset { start } => {
                (line.log_start, line.end) = (*start, *start);
                None
            }
            Change::LogStart { start } => {
                line.log_start = line.log_start.max(*start);
                None
            }
            Change::Mode { strict } => {
                line.strict = *strict;
                None
            }
            Change::EpochStart { .. } | Change::Create { .. } | Change::Drop => None,
        };
        if let Some(wrong) = wrong {
            self.contradictions.push((partition, found.position, wrong));
        }
    }
}

/// What is wrong with an append to a log, if anything.
fn wrong_append(line: &mut Line, base_offset: Offset, end_offset: Offset, batches: &[u8]) -> Option<String> {
    if base_offset != line.end {
        return Some(format!("an append at offset {base_offset} follows a log that ends at {}", line.end));
    }
    let mut next = base_offset;
    let mut walk = Batches::of(batches);
    for (at, header) in walk.by_ref() {
        if header.base_offset < next || !crc_matches(&batches[at..at + header.batch_bytes]) {
            return Some(format!("the batch at offset {} of an intact commit is damaged", header.base_offset));
        }
        next = header.next_offset();
        line.batches_count += 1;
    }
    let is_whole = walk.rest() == (batches.len(), None) && next == end_offset;
    (!is_whole).then(|| format!("an append of an intact commit does not hold the batches up to {end_offset}"))
}
