//! Looks into a metadata log without opening it, for the storage tools: what is damaged, and what a file holds.
//!
//! Nothing is written, and no thread is started. What a start would make of the log is [`super::log_store`]'s business.

use std::path::Path;

use stonelog_protocol::TopicPartition;
use stonelog_storage::disk::Disk;
use stonelog_storage::journal::{Change, ReplayFrom, ReplayedEntry};
use stonelog_storage::scrub::{FileKind, Finding, Report, Severity, check_journal, check_two_copies};
use stonelog_storage::small_file::read_small_file;

use super::codec::JournalRecord;
use super::journal_thread::{CHECKPOINT_NAME, METADATA_PARTITION};
use super::log_store::decode_checkpoint;
use super::owner::{self, OWNER_NAME};
use super::snapshot_store::decode_snapshot;

/// Checks the metadata log in `directory`; one that does not exist is whole. Nobody may write to it meanwhile.
pub fn check(disk: &dyn Disk, directory: &Path, report: &mut Report) {
    let entries = match disk.list(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            let detail = format!("it cannot be listed: {error}");
            report.add(Finding::of(Severity::Damage, FileKind::MetadataJournal, directory, detail));
            return;
        }
    };
    let kind = FileKind::MetadataCheckpoint;
    let from = check_two_copies(disk, directory, CHECKPOINT_NAME, kind, decode_checkpoint, report);
    check_two_copies(disk, directory, OWNER_NAME, FileKind::MetadataOwner, owner::decode, report);
    let mut unreadable = Vec::new();
    let mut visit = |found: ReplayedEntry| {
        if let Change::Append { batches, .. } = &found.entry.change
            && let Err(error) = JournalRecord::decode(batches)
        {
            unreadable.push((found.position, error.to_string()));
        }
    };
    let kind = FileKind::MetadataJournal;
    check_journal(disk, directory, from.unwrap_or_default(), kind, &mut visit, report);
    for (position, error) in unreadable {
        let detail = format!("the record at journal position {} of an intact commit: {error}", position.0);
        report.add(Finding::of(Severity::Damage, kind, directory, detail));
    }
    let is_snapshot = |name: &&str| name.starts_with("snapshot-") && name.ends_with(".snap");
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).filter(is_snapshot).collect();
    names.sort_unstable();
    check_snapshots(disk, directory, &names, report);
}

/// Newest first: behind an intact one, a damaged one is not needed.
fn check_snapshots(disk: &dyn Disk, directory: &Path, names: &[&str], report: &mut Report) {
    let mut newer_is_intact = false;
    for name in names.iter().rev() {
        let path = directory.join(name);
        let wrong = match read_small_file(disk, &path) {
            Ok(None) => continue,
            Ok(Some(bytes)) => {
                report.count(bytes.len() as u64);
                decode_snapshot(&bytes).err().map(|error| error.to_string())
            }
            Err(fault) => Some(fault.to_string()),
        };
        match wrong {
            None => newer_is_intact = true,
            Some(wrong) => {
                let severity = if newer_is_intact { Severity::Repairable } else { Severity::Damage };
                report.add(Finding::of(severity, FileKind::MetadataSnapshot, &path, wrong));
            }
        }
    }
}

/// One copy of `metadata.checkpoint`: its version, and where replay begins.
pub fn show_checkpoint(bytes: &[u8]) -> Result<(u64, ReplayFrom), String> {
    decode_checkpoint(bytes)
}

/// A snapshot's records and the index they make the image of.
pub fn show_snapshot(bytes: &[u8]) -> Result<(u64, Vec<String>), String> {
    let (_, image) = decode_snapshot(bytes).map_err(|error| error.to_string())?;
    Ok((image.index(), image.to_records().iter().map(|record| format!("{record:?}")).collect()))
}

/// What an entry of the metadata journal says; `None` for one that is no metadata.
pub fn show_record(partition: TopicPartition, bytes: &[u8]) -> Option<String> {
    (partition == METADATA_PARTITION).then(|| match JournalRecord::decode(bytes) {
        Ok(record) => format!("{record:?}"),
        Err(error) => format!("unreadable: {error}"),
    })
}
