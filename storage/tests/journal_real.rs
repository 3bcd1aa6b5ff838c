//! The journal on the operating system's file system: what was synced is replayed, across restarts and files.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, RealDisk};
use stonelog_storage::journal::{
    Change, JournalEntry, JournalOptions, JournalPosition, Recovered, ReplayFrom, recover,
};
use stonelog_storage::{LogGeneration, ReplicaKey};

fn key(partition: i32) -> ReplicaKey {
    ReplicaKey {
        partition: TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionIndex(partition) },
        generation: LogGeneration { recovery_epoch: 1, counter: 2 },
    }
}

fn append(partition: i32, base: i64, len: usize) -> JournalEntry {
    let batches = Bytes::from(vec![(base % 251) as u8; len]);
    let change = Change::Append { base_offset: Offset(base), end_offset: Offset(base + 1), batches };
    JournalEntry { replica: key(partition), change }
}

fn every_change() -> Vec<JournalEntry> {
    let changes = [
        Change::Create { start: Offset(3), strict: true },
        Change::Truncate { end: Offset(7) },
        Change::Reset { start: Offset(70) },
        Change::LogStart { start: Offset(71) },
        Change::EpochStart { epoch: LeaderEpoch(5), offset: Offset(72) },
        Change::Mode { strict: false },
        Change::Drop,
    ];
    changes.into_iter().map(|change| JournalEntry { replica: key(1), change }).collect()
}

const OPTIONS: JournalOptions = JournalOptions {
    file_bytes: 256 << 10,
    first_file_bytes: 32 << 10,
    commit_bytes_max: 64 << 10,
    bytes_max: 32 << 20,
};

fn open(directory: &Path, from: JournalPosition) -> (Recovered, Vec<JournalEntry>) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut entries = Vec::new();
    let mut replayed = Vec::new();
    let replay_from = ReplayFrom { position: from, recovery_epoch: 0 };
    let recovered = recover(&disk, directory, OPTIONS, replay_from, &mut |entry| {
        entries.push(entry.entry.clone());
        replayed.push(entry);
    })
    .unwrap();
    for entry in replayed {
        if let Change::Append { batches, .. } = &entry.entry.change {
            assert_eq!(recovered.reader.read(entry.payload_position, batches.len()).unwrap(), batches);
        }
    }
    assert!(recovered.ends.is_proved(), "{:?}", recovered.ends);
    (recovered, entries)
}

#[test]
fn synced_entries_come_back_in_order_across_files_and_restarts() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("journal");
    let mut expected = Vec::new();
    for start in 1..=4 {
        let (mut journal, entries) = open(&directory, JournalPosition(0));
        assert_eq!(entries, expected);
        assert_eq!(journal.recovery_epoch, start);
        for round in 0..10 {
            let mut entries = every_change();
            entries.extend((0..20).map(|n| append(n, i64::from(round), 1000 * n as usize + 1)));
            let receipt = journal.writer.write(&entries).unwrap();
            let durable = journal.flusher.sync().unwrap();
            assert_eq!((durable.sequence, durable.position), (receipt.sequence, receipt.end));
            expected.extend(entries);
            journal.maintenance.prepare_spare().unwrap();
        }
    }
}

#[test]
fn covered_files_are_reused_and_their_entries_are_gone() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("journal");
    let (mut journal, _) = open(&directory, JournalPosition(0));
    let mut covered = JournalPosition(0);
    for round in 0..200 {
        while journal.maintenance.spare_wanted() {
            journal.maintenance.prepare_spare().unwrap();
        }
        let receipt = journal.writer.write(&[append(0, round, 50_000)]).unwrap();
        journal.flusher.sync().unwrap();
        journal.maintenance.recycle(covered).unwrap();
        covered = receipt.end;
    }
    let usage = journal.maintenance.usage();
    assert!(usage.bytes_live <= 2 * OPTIONS.file_bytes, "{usage:?}");
    drop(journal);
    let (_, entries) = open(&directory, covered);
    assert_eq!(entries, []);
}
