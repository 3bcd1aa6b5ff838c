//! A lane in miniature for the crash tests: one log directory, its logs, and jobs run in a loop in one thread.
//!
//! It does what a lane does with what [`Log`] returns, and nothing a test could not see.

#![allow(dead_code, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
use stonelog_storage::checkpoint::Checkpoint;
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::job::FileAccess;
use stonelog_storage::journal::{
    Change, JournalEntry, JournalFlusher, JournalMaintenance, JournalOptions, JournalPosition, JournalWriter,
    RecoveryEnd,
};
use stonelog_storage::log::{CommitSpan, FIRST_TICKET, Log, LogConfig, Read, Truncation};
use stonelog_storage::recovery::{RecoveryOptions, Verdict, recover_log_dir};
use stonelog_storage::segment::delete::DeleteLogJob;
use stonelog_storage::segment::read::ReadDone;
use stonelog_storage::segment::sync::sync_names;
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};

/// The time of every test.
pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

/// What a test wants in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) records: i32,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) max_timestamp: i64,
    pub(crate) filler_bytes: usize,
    pub(crate) seed: u64,
}

impl Batch {
    pub(crate) fn of(records: i32) -> Batch {
        Batch { records, producer: (-1, -1, -1), max_timestamp: NOW.0, filler_bytes: 40, seed: 1 }
    }

    pub(crate) fn bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::zeroed(HEADER_BYTES + self.filler_bytes);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(8, &((HEADER_BYTES + self.filler_bytes - 12) as i32).to_be_bytes());
        put(16, &[2]);
        put(23, &(self.records - 1).to_be_bytes());
        put(27, &self.max_timestamp.to_be_bytes());
        put(35, &self.max_timestamp.to_be_bytes());
        put(43, &self.producer.0.to_be_bytes());
        put(51, &self.producer.1.to_be_bytes());
        put(53, &self.producer.2.to_be_bytes());
        put(57, &self.records.to_be_bytes());
        let mut random = Random(self.seed);
        bytes[HEADER_BYTES..].iter_mut().for_each(|byte| *byte = random.next() as u8);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

pub(crate) fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([9; 16]), partition: PartitionIndex(index) }
}

pub(crate) fn journal_options() -> JournalOptions {
    JournalOptions { file_bytes: 128 << 10, first_file_bytes: 64 << 10, commit_bytes_max: 24 << 10, bytes_max: 2 << 20 }
}

pub(crate) fn recovery_options(config: LogConfig) -> RecoveryOptions {
    RecoveryOptions {
        journal_name: "journal",
        journal: journal_options(),
        config,
        relaxed_survived: false,
        open_files_count: 3,
        index_bytes_max: 1 << 20,
        progress: Default::default(),
    }
}

/// One log directory in use.
pub(crate) struct Lane {
    pub(crate) disk: Arc<dyn Disk>,
    root: PathBuf,
    pub(crate) logs: Vec<Log>,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) access: Arc<FileAccess>,
    pub(crate) config: LogConfig,
    writer: JournalWriter,
    flusher: JournalFlusher,
    maintenance: JournalMaintenance,
    pub(crate) recovery_epoch: u32,
    /// How the journal was found.
    pub(crate) journal_end: RecoveryEnd,
    /// Replicas whose drop was replayed.
    pub(crate) dropped: Vec<TopicPartition>,
    checkpoint_version: u64,
    ticket: u64,
    queue: Vec<(u64, JournalEntry)>,
    /// Last written and not yet durable ticket per log.
    written: Vec<(TopicPartition, LogGeneration, u64)>,
    durable: JournalPosition,
    passed_over: Option<(usize, stonelog_storage::checkpoint::ReplicaCheckpoint)>,
    /// What each write held: where it lies, and the appends in it.
    pub(crate) written_spans: Vec<WrittenSpan>,
}

/// One write of the journal.
#[derive(Clone, Debug)]
pub(crate) struct WrittenSpan {
    pub(crate) span: CommitSpan,
    pub(crate) appends: Vec<(TopicPartition, Offset, Offset)>,
}

/// A write that the logs have not heard of.
pub(crate) struct Unheard {
    queue: Vec<(u64, JournalEntry)>,
    span: CommitSpan,
}

pub(crate) const ROOT: &str = "/data";

pub(crate) fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(Path::new(ROOT)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

impl Lane {
    pub(crate) fn start(disk: Arc<dyn Disk>, config: LogConfig) -> Result<Lane, Fault> {
        Lane::start_in(disk, Path::new(ROOT), config)
    }

    pub(crate) fn start_in(disk: Arc<dyn Disk>, root: &Path, config: LogConfig) -> Result<Lane, Fault> {
        let found = recover_log_dir(&disk, root, &recovery_options(config.clone()), NOW)?;
        let mut logs: Vec<(Log, Verdict)> = found.logs.into_iter().map(|found| (found.log, found.verdict)).collect();
        logs.sort_by_key(|(log, _)| log.key().partition);
        let (logs, verdicts) = logs.into_iter().unzip();
        let durable = found.flusher.durable().position;
        Ok(Lane {
            disk,
            root: root.to_owned(),
            logs,
            verdicts,
            access: found.access,
            config,
            writer: found.writer,
            flusher: found.flusher,
            maintenance: found.maintenance,
            recovery_epoch: found.recovery_epoch,
            journal_end: found.journal_end,
            dropped: found.dropped,
            checkpoint_version: found.checkpoint_version,
            ticket: FIRST_TICKET,
            queue: Vec::new(),
            written: Vec::new(),
            durable,
            passed_over: None,
            written_spans: Vec::new(),
        })
    }

    pub(crate) fn create(&mut self, index: i32) -> usize {
        let ticket = self.next_ticket();
        let key = ReplicaKey {
            partition: partition(index),
            generation: LogGeneration { recovery_epoch: self.recovery_epoch, counter: 0 },
        };
        let (log, entry) = Log::create(key, self.config.clone(), true, Offset::ZERO, ticket);
        self.queue.push((ticket, entry));
        self.logs.push(log);
        self.logs.len() - 1
    }

    pub(crate) fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    pub(crate) fn push(&mut self, ticket: u64, entry: JournalEntry) {
        self.queue.push((ticket, entry));
    }

    /// Appends one batch; returns it as it lies in the log.
    pub(crate) fn append(&mut self, at: usize, batch: &Batch, epoch: i32) -> Bytes {
        let ticket = self.next_ticket();
        let bytes = batch.bytes();
        let header = BatchHeader::read(&bytes).unwrap();
        let appended = self.logs[at].append_as_leader(bytes, &header, LeaderEpoch(epoch), NOW, ticket).unwrap();
        let entry = appended.entry.expect("not a duplicate");
        let Change::Append { batches, .. } = &entry.change else { panic!("an append") };
        let batches = batches.clone();
        self.queue.push((ticket, entry));
        batches
    }

    /// Writes what is queued.
    pub(crate) fn write(&mut self) -> Result<(), Fault> {
        if let Some(unheard) = self.write_unheard()? {
            self.hear(unheard);
        }
        Ok(())
    }

    /// Writes what is queued, and the logs have not heard of it yet.
    pub(crate) fn write_unheard(&mut self) -> Result<Option<Unheard>, Fault> {
        if self.queue.is_empty() {
            return Ok(None);
        }
        let queue = std::mem::take(&mut self.queue);
        let entries: Vec<JournalEntry> = queue.iter().map(|(_, entry)| entry.clone()).collect();
        let receipt = self.writer.write(&entries)?;
        let span = CommitSpan { start: receipt.start, end: receipt.end };
        let appends = entries.iter().filter_map(|entry| match entry.change {
            Change::Append { base_offset, end_offset, .. } => Some((entry.replica.partition, base_offset, end_offset)),
            _ => None,
        });
        self.written_spans.push(WrittenSpan { span, appends: appends.collect() });
        Ok(Some(Unheard { queue, span }))
    }

    /// The logs hear that something is written.
    pub(crate) fn hear(&mut self, unheard: Unheard) {
        let Unheard { queue, span } = unheard;
        for log in &mut self.logs {
            let key = log.key();
            let newest = queue.iter().filter(|(_, e)| e.replica.partition == key.partition).max_by_key(|(t, _)| *t);
            if let Some((ticket, entry)) = newest {
                let generation = entry.replica.generation;
                log.on_written(generation, *ticket, span);
                self.written.push((key.partition, generation, *ticket));
            }
        }
    }

    /// Keeps a spare journal file ready.
    pub(crate) fn prepare_spares(&self) -> Result<(), Fault> {
        while self.maintenance.spare_wanted() {
            self.maintenance.prepare_spare()?;
        }
        Ok(())
    }

    /// Makes what is written durable.
    pub(crate) fn sync(&mut self) -> Result<(), Fault> {
        self.durable = self.flusher.sync()?.position;
        for (partition, generation, ticket) in std::mem::take(&mut self.written) {
            if let Some(log) = self.logs.iter_mut().find(|log| log.key().partition == partition) {
                log.on_durable(generation, ticket);
            }
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Result<(), Fault> {
        self.write()?;
        self.sync()
    }

    pub(crate) fn flush(&mut self, at: usize) -> Result<bool, Fault> {
        let Some(job) = self.logs[at].plan_flush(NOW, true, 0) else { return Ok(false) };
        let done = job.run(&self.access)?;
        Ok(self.logs[at].on_flushed(done))
    }

    /// A checkpoint of all logs, and what it allows: recycling and deleting.
    pub(crate) fn checkpoint(&mut self) -> Result<(), Fault> {
        self.checkpoint_at(self.durable)
    }

    /// Where the last durable commit ends.
    pub(crate) fn durable(&self) -> JournalPosition {
        self.durable
    }

    /// A checkpoint that says of one log what the one before it said, as it is with a log that nothing happened to.
    pub(crate) fn checkpoint_passing_over(&mut self, at: usize) -> Result<(), Fault> {
        let line = Checkpoint::read(&*self.disk, &self.root)?.expect("an earlier one").value;
        let of = self.logs[at].key().partition;
        let line = line.replicas.into_iter().find(|line| line.replica.partition == of).expect("it names the log");
        self.passed_over = Some((at, line));
        self.checkpoint()
    }

    /// A checkpoint whose round noted how far the journal had reported a while ago.
    pub(crate) fn checkpoint_at(&mut self, durable: JournalPosition) -> Result<(), Fault> {
        let mut replicas = Vec::new();
        let passed_over = self.passed_over.take();
        for (at, log) in self.logs.iter_mut().enumerate() {
            if let Some((_, line)) = passed_over.as_ref().filter(|(passed, _)| *passed == at) {
                log.on_passed_over(durable);
                replicas.push(line.clone());
                continue;
            }
            let Some((state, sync)) = log.plan_checkpoint(durable) else { continue };
            replicas.push(state);
            if let Some(sync) = sync {
                sync.run(&self.access)?;
            }
        }
        sync_names(&self.access)?;
        let checkpoint = Checkpoint { recovery_epoch: self.recovery_epoch, covered_default: durable, replicas };
        self.checkpoint_version += 1;
        checkpoint.write(&*self.disk, &self.root, self.checkpoint_version)?;
        for log in &mut self.logs {
            let generation = log.key().generation;
            log.on_checkpointed(generation);
        }
        self.maintenance.recycle(checkpoint.replay_from())?;
        for log in &mut self.logs {
            if let Some(job) = log.plan_deletes() {
                job.run(&self.access)?;
                log.on_deleted(&job);
            }
        }
        Ok(())
    }

    pub(crate) fn truncate(&mut self, at: usize, end: Offset) -> Result<(), Fault> {
        let ticket = self.next_ticket();
        match self.logs[at].truncate_to(end, ticket) {
            Truncation::Nothing => {}
            Truncation::Done(entry) => self.queue.push((ticket, entry)),
            Truncation::Rebuild(job) => {
                let rebuilt = job.run(&self.access)?;
                let entry = self.logs[at].truncate_into_segments(rebuilt, ticket).expect("nothing else runs");
                self.queue.push((ticket, entry));
            }
        }
        Ok(())
    }

    /// Removes a log whose drop is durable, after a checkpoint without it.
    pub(crate) fn remove(&mut self, at: usize) -> Result<(), Fault> {
        assert!(self.logs[at].is_gone());
        let log = self.logs.remove(at);
        self.checkpoint()?;
        DeleteLogJob { partition: log.key().partition }.run(&self.access)
    }

    /// Everything from `from` to the log's end, read `max_bytes` at a time.
    pub(crate) fn read_all(&self, at: usize, from: Offset, max_bytes: usize) -> Result<Vec<u8>, Fault> {
        let log = &self.logs[at];
        let (mut next, mut all) = (from, Vec::new());
        while next < log.log_end() {
            let batches = match log.read(next, log.log_end(), max_bytes, true) {
                Read::Ready(batches, total) => {
                    assert_eq!(batches.iter().map(Bytes::len).sum::<usize>(), total);
                    batches
                }
                Read::Job(job) => {
                    let now = job.try_now(&self.access, &mut u64::MAX.clone());
                    let done = job.run(&self.access)?;
                    assert!(now.is_none_or(|now| now == done), "what is read without waiting is the same");
                    match done {
                        ReadDone::Batches { batches, .. } => batches,
                        other => panic!("{other:?} at {next} of {}", log.log_end()),
                    }
                }
                other => panic!("{other:?} at {next} of {}", log.log_end()),
            };
            let bytes = batches.concat();
            assert!(!bytes.is_empty(), "nothing read at {next} of {}", log.log_end());
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let header = BatchHeader::read(rest).expect("whole batches");
                assert!(header.next_offset() > next, "each read moves on");
                next = header.next_offset();
                rest = &rest[header.batch_bytes..];
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}
