//! A journal on the simulated disk beside a plain list that says what must come back.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::journal::{
    Change, JournalEntry, JournalOptions, JournalPosition, Recovered, RecoveryEnd, ReplayFrom, ReplayedEntry, recover,
};
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};

pub const DIRECTORY: &str = "/journal";

pub const OPTIONS: JournalOptions =
    JournalOptions { file_bytes: 64 << 10, first_file_bytes: 24 << 10, commit_bytes_max: 16 << 10, bytes_max: 1 << 20 };

/// The random choices of a workload (xorshift64*).
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Choices {
        Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

pub fn key(partition: i32) -> ReplicaKey {
    ReplicaKey {
        partition: TopicPartition { topic_id: Uuid([partition as u8 + 1; 16]), partition: PartitionIndex(partition) },
        generation: LogGeneration { recovery_epoch: 1, counter: 0 },
    }
}

pub fn append(partition: i32, base: i64, len: usize) -> JournalEntry {
    let batches: Vec<u8> = (0..len).map(|n| (n as i64 * 31 + base * 7 + i64::from(partition)) as u8).collect();
    let batches = Bytes::from(batches);
    JournalEntry {
        replica: key(partition),
        change: Change::Append { base_offset: Offset(base), end_offset: Offset(base + 1), batches },
    }
}

/// An entry of any kind; no two are equal.
pub fn any_entry(choices: &mut Choices, number: i64) -> JournalEntry {
    let partition = choices.below(5) as i32;
    let replica = key(partition);
    let change = match choices.below(12) {
        0 => Change::Create { start: Offset(number), strict: number % 2 == 0 },
        1 => Change::Truncate { end: Offset(number) },
        2 => Change::Reset { start: Offset(number) },
        3 => Change::LogStart { start: Offset(number) },
        4 => Change::EpochStart { epoch: LeaderEpoch(number as i32), offset: Offset(number) },
        5 => return append(partition, number, 20_000 + choices.below(10_000) as usize),
        _ => return append(partition, number, 1 + choices.below(6_000) as usize),
    };
    JournalEntry { replica, change }
}

/// An entry the model knows, and where its commit lies.
#[derive(Clone, Debug)]
pub struct Known {
    pub entry: JournalEntry,
    /// Lower bound of its commit's end; what covers it is at or after this.
    pub receipt_end: JournalPosition,
}

/// The end of a commit whose write failed: it may be found or not.
const IN_DOUBT: JournalPosition = JournalPosition(u64::MAX);

impl Known {
    pub fn is_in_doubt(&self) -> bool {
        self.receipt_end == IN_DOUBT
    }
}

/// The journal and its model.
pub struct Model {
    pub disk: SimDisk,
    pub journal: Option<Recovered>,
    /// Everything written and not covered, in order.
    pub written: Vec<Known>,
    /// How many of those are durable.
    pub synced: usize,
    /// What a durable checkpoint covers.
    pub replay_from: ReplayFrom,
    pub next_number: i64,
}

pub fn open(disk: &SimDisk, replay_from: ReplayFrom) -> Result<(Recovered, Vec<ReplayedEntry>), Fault> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut replayed = Vec::new();
    let recovered = recover(&shared, Path::new(DIRECTORY), OPTIONS, replay_from, &mut |entry| replayed.push(entry))?;
    Ok((recovered, replayed))
}

impl Model {
    pub fn new(disk: SimDisk) -> Model {
        let replay_from = ReplayFrom::default();
        Model { disk, journal: None, written: Vec::new(), synced: 0, replay_from, next_number: 0 }
    }

    fn journal(&mut self) -> &mut Recovered {
        self.journal.as_mut().expect("the journal is open")
    }

    /// Opens the journal and holds what it replays against the model. What is found counts as durable from then on.
    pub fn recover(&mut self) -> Result<RecoveryEnd, Fault> {
        self.journal = None;
        let (recovered, replayed) = open(&self.disk, self.replay_from)?;
        self.check(&recovered, &replayed);
        let ends = recovered.ends.clone();
        assert_eq!(ends.damage, [], "a power cut damages nothing that was durable");
        self.written.truncate(replayed.len());
        self.synced = replayed.len();
        let found_end = recovered.writer.position();
        for known in self.written.iter_mut().filter(|known| known.is_in_doubt()) {
            known.receipt_end = found_end;
        }
        self.replay_from.recovery_epoch = recovered.recovery_epoch;
        self.journal = Some(recovered);
        Ok(ends)
    }

    fn check(&self, recovered: &Recovered, replayed: &[ReplayedEntry]) {
        assert!(recovered.recovery_epoch > self.replay_from.recovery_epoch);
        assert!(replayed.len() >= self.synced, "{} of {} synced entries are left", replayed.len(), self.synced);
        assert!(replayed.len() <= self.written.len(), "{} entries were never written", replayed.len());
        for (found, known) in replayed.iter().zip(&self.written) {
            assert_eq!(found.entry, known.entry);
            assert!(found.position > found.commit_position && found.position < known.receipt_end);
            if let Change::Append { batches, .. } = &found.entry.change {
                assert_eq!(recovered.reader.read(found.payload_position, batches.len()).unwrap(), batches);
            }
        }
        assert!(replayed.is_sorted_by(|a, b| a.position < b.position && a.sequence <= b.sequence));
    }

    pub fn write(&mut self, choices: &mut Choices) -> Result<(), Fault> {
        let count = 1 + choices.below(4) as i64;
        let entries: Vec<JournalEntry> = (0..count).map(|n| any_entry(choices, self.next_number + n)).collect();
        self.next_number += count;
        self.write_entries(entries)
    }

    pub fn write_entries(&mut self, entries: Vec<JournalEntry>) -> Result<(), Fault> {
        let result = self.journal().writer.write(&entries);
        match &result {
            Ok(receipt) => {
                let receipt_end = receipt.end;
                self.written.extend(entries.into_iter().map(|entry| Known { entry, receipt_end }));
            }
            // Space ran out: nothing of it may be found later.
            Err(fault) if fault.is_out_of_space() => {}
            // It failed half way: some of it may be found, in order.
            Err(_) => {
                let receipt_end = IN_DOUBT;
                self.written.extend(entries.into_iter().map(|entry| Known { entry, receipt_end }));
            }
        }
        result.map(|_| ())
    }

    pub fn sync(&mut self) -> Result<(), Fault> {
        let written = self.written.len();
        self.journal().flusher.sync()?;
        self.synced = written;
        Ok(())
    }

    /// A checkpoint that covers some of what is durable, then the journal behind it is freed.
    pub fn checkpoint(&mut self, choices: &mut Choices) -> Result<(), Fault> {
        if self.synced == 0 {
            return Ok(());
        }
        let last = choices.below(self.synced as u64) as usize;
        let covered = self.written[last].receipt_end;
        if covered <= self.replay_from.position {
            return Ok(());
        }
        let kept = self.written.partition_point(|known| known.receipt_end <= covered);
        self.replay_from.position = covered;
        self.written.drain(..kept);
        self.synced -= kept.min(self.synced);
        self.journal().maintenance.recycle(covered).map(|_| ())
    }

    /// One step of a workload.
    pub fn step(&mut self, choices: &mut Choices) -> Result<(), Fault> {
        match choices.below(16) {
            0..8 => self.write(choices),
            8..12 => self.sync(),
            12 => self.journal().writer.write_empty_commit().map(|_| ()),
            13 => self.journal().maintenance.prepare_spare().map(|_| ()),
            _ => self.checkpoint(choices),
        }
    }
}

/// Bytes before the first commit of a file, and the least a commit takes.
pub const FILE_HEADER: u64 = 8192;
pub const BLOCK: u64 = 4096;

pub fn from_start() -> ReplayFrom {
    ReplayFrom::default()
}

/// The file that was put into use as the journal's n-th.
pub fn file_of(generation: u64) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{generation:020}.journal"))
}

/// Three one-block commits of different replicas, each synced before the next; ends with an empty commit if asked.
pub fn three_commits(then_idle: bool) -> (SimDisk, Vec<JournalEntry>) {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    let entries: Vec<JournalEntry> = (0..3).map(|n| append(n, i64::from(n), 1000)).collect();
    for entry in &entries {
        journal.writer.write(std::slice::from_ref(entry)).unwrap();
        journal.flusher.sync().unwrap();
    }
    assert!(journal.writer.empty_commit_wanted());
    if then_idle {
        journal.writer.write_empty_commit().unwrap();
        assert!(!journal.writer.empty_commit_wanted());
        journal.flusher.sync().unwrap();
    }
    (disk, entries)
}

pub fn reopen(disk: &SimDisk) -> (Vec<JournalEntry>, RecoveryEnd) {
    disk.kill();
    let (journal, replayed) = open(disk, from_start()).unwrap();
    let is_whole = |found: &ReplayedEntry| !found.batches_damaged;
    (replayed.into_iter().filter(is_whole).map(|found| found.entry).collect(), journal.ends.clone())
}

pub fn commit_at(index: u64) -> u64 {
    FILE_HEADER + index * BLOCK
}

/// A journal of several files, all of it synced, and its entries.
pub fn several_files() -> (SimDisk, Vec<JournalEntry>) {
    let mut choices = Choices::new(5);
    let mut model = Model::new(SimDisk::new());
    model.recover().unwrap();
    for _ in 0..40 {
        model.write(&mut choices).unwrap();
        model.sync().unwrap();
    }
    model.journal.as_mut().unwrap().writer.write_empty_commit().unwrap();
    model.sync().unwrap();
    let entries = model.written.iter().map(|known| known.entry.clone()).collect();
    (model.disk.clone(), entries)
}

/// Files that were never put into use.
pub fn unused_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files: Vec<_> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
    files.sort();
    let files = files.into_iter().map(|name| Path::new(DIRECTORY).join(name));
    files.filter(|path| disk.contents(path).iter().all(|byte| *byte == 0)).collect()
}

/// The files that have a header, in the order of their generations.
pub fn in_use(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    for entry in disk.list(Path::new(DIRECTORY)).unwrap() {
        let path = Path::new(DIRECTORY).join(entry.name);
        let bytes = disk.contents(&path);
        let generation = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        files.extend((generation > 0).then_some((generation, path)));
    }
    files.sort();
    files.into_iter().map(|(_, path)| path).collect()
}
