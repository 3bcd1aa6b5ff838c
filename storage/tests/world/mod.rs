//! A log directory in a simulated world: a seed chooses what is done, when each job begins, runs and is heard of, what
//! fails and when the power goes. [`model`] says what must be left.
//!
//! Everything runs in one thread and reads no clock: the same seed does the same, which the trace hash shows.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changes;
mod compacting;
pub mod coverage;
pub mod damage;
pub mod faults;
mod keyed;
pub mod model;
pub mod options;
pub mod process;
mod restart;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::patch_offset_and_epoch;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::log::{Log, Read, Truncation};
use stonelog_storage::recovery::{Loss, Verdict};
use stonelog_storage::{Fault, LogGeneration, ReplicaKey};

use crate::support::{Batch, Random, new_disk};
pub(crate) use crate::support::{NOW, ROOT};
use coverage::Coverage;
use model::{Change, Model, State, Stored};
use options::Options;
use process::{LANES_COUNT, Process, Slot};

/// Everything of one seed.
pub struct World {
    pub seed: u64,
    pub options: Options,
    pub disk: SimDisk,
    pub random: Random,
    pub model: Model,
    pub coverage: Coverage,
    pub appends_count: u64,
    pub faults_count: u64,
    process: Option<Process>,
    trace: u64,
    topics_count: u8,
    /// The newest leader epoch of each log, which never goes back.
    epochs: BTreeMap<TopicPartition, i32>,
    /// Where a cut into segments was asked for.
    cuts: BTreeMap<TopicPartition, i64>,
    reads: Vec<PendingRead>,
    /// Logs whose creation this process has not seen written.
    fresh: BTreeMap<TopicPartition, u64>,
    /// Up to where a keyed log was stable for a compaction: nothing below is cut off any more.
    stable: BTreeMap<TopicPartition, i64>,
    compaction: Option<(TopicPartition, compacting::Compaction)>,
    /// Whose it is, in the generation that it was planned for.
    compacted: Option<ReplicaKey>,
}

struct PendingRead {
    id: TopicPartition,
    generation: LogGeneration,
    from: i64,
    read: Read,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The machine lost its power.
    Power,
    /// The process alone died, and the disk had not failed.
    Process,
    /// The process died after the disk had failed it.
    ProcessAfterFault,
}

impl World {
    /// An empty directory, in use.
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9) ^ 0x5707_e106);
        let options = Options::of(&mut random);
        World::with(seed, random, options)
    }

    /// With options of the caller's own.
    pub fn with(seed: u64, random: Random, options: Options) -> World {
        let disk = new_disk();
        let mut world = World {
            seed,
            options,
            disk,
            random,
            model: Model::default(),
            coverage: Coverage::default(),
            appends_count: 0,
            faults_count: 0,
            process: None,
            trace: 0xcbf2_9ce4_8422_2325,
            topics_count: 0,
            epochs: BTreeMap::new(),
            cuts: BTreeMap::new(),
            reads: Vec::new(),
            fresh: BTreeMap::new(),
            stable: BTreeMap::new(),
            compaction: None,
            compacted: None,
        };
        world.process = Some(world.start(true).expect("an empty disk has no faults"));
        for _ in 0..world.options.logs_count {
            world.create();
        }
        world
    }

    /// What has happened so far, as a number.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn note(&mut self, values: &[u64]) {
        for value in values {
            self.trace = (self.trace ^ value).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
    }

    /// Notes all bytes of the disk.
    pub fn note_disk(&mut self) {
        let mut directories = vec![PathBuf::from("/")];
        let mut sum = 0;
        while let Some(directory) = directories.pop() {
            for entry in self.disk.list(&directory).expect("the power is on") {
                let path = directory.join(&entry.name);
                sum = crc32c::crc32c_append(sum, entry.name.as_bytes());
                if entry.is_dir {
                    directories.push(path);
                } else {
                    sum = crc32c::crc32c_append(sum, &self.disk.contents(&path));
                }
            }
        }
        self.note(&[u64::from(sum), self.disk.changes()]);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the process runs")
    }

    fn log(&self, id: TopicPartition) -> &Log {
        self.process.as_ref().expect("the process runs").log(id)
    }

    fn start(&self, survived: bool) -> Result<Process, Fault> {
        Process::start(&self.disk, self.options.journal, &self.options.config, survived)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    fn any_log(&mut self) -> Option<TopicPartition> {
        let ids = self.process().ids();
        if ids.is_empty() {
            return None;
        }
        let at = self.below(ids.len() as u64) as usize;
        Some(ids[at])
    }

    /// One step that the seed chooses. A fault is the end of the directory for this process.
    pub fn step(&mut self) -> Result<(), Fault> {
        let action = self.options.pick(&mut self.random);
        self.note(&[action as u64]);
        use options::Action;
        match action {
            Action::Append => self.append(),
            Action::Duplicate => self.append_again(),
            Action::Write => return self.write(),
            Action::Empty => return self.write_empty(),
            Action::Tell => {
                self.process().tell();
            }
            Action::Sync => return self.sync(),
            Action::Hear => {
                let lane = self.below(LANES_COUNT as u64) as usize;
                let heard = self.process().hear(lane);
                self.note(&[heard as u64]);
            }
            Action::Flush => return self.flush(),
            Action::Checkpoint => return self.checkpoint(),
            Action::Read => return self.read(),
            Action::Epoch => self.begin_epoch(),
            Action::Truncate => self.truncate(),
            Action::Rebuild => return self.rebuild(),
            Action::LogStart => self.raise_log_start(),
            Action::Retention => self.retain(),
            Action::Mode => self.change_mode(),
            Action::Drop => self.drop_one(),
            Action::Create => self.create(),
            Action::Reset => self.reset(),
            Action::Compact => return self.compact(),
            Action::Evict => {
                if let Some(id) = self.any_log() {
                    let keep = self.below(8_000);
                    self.process().hosted(id).log.evict(keep);
                }
            }
            Action::Spare => match self.process().prepare_spare() {
                Err(fault) if fault.is_out_of_space() => self.coverage.hit("no space for a spare journal file"),
                done => {
                    done?;
                }
            },
        }
        Ok(())
    }

    fn create(&mut self) {
        if self.is_full(75) {
            return;
        }
        if self.process().ids().len() >= self.options.logs_max {
            return;
        }
        self.topics_count += 1;
        let partition = PartitionIndex(i32::from(self.topics_count) % 3);
        let id = TopicPartition { topic_id: Uuid([self.topics_count; 16]), partition };
        let strict = self.below(4) != 0;
        let start = if self.below(4) == 0 { self.below(1_000) as i64 } else { 0 };
        let keyed = self.options.compacts() && self.below(3) == 0;
        let config = if keyed { compacting::keyed_config(&self.options.config) } else { self.options.config.clone() };
        self.process().create(id, config, strict, start);
        let place = self.model.push(id, Change::Create { start, strict, keyed });
        self.fresh.insert(id, place);
        self.epochs.insert(id, 0);
    }

    fn drop_one(&mut self) {
        if self.is_full(75) {
            return;
        }
        if self.process().ids().len() <= 1 {
            return;
        }
        let Some(id) = self.any_log() else { return };
        if self.compaction.as_ref().is_some_and(|(of, _)| *of == id) {
            return;
        }
        self.process().drop_log(id);
        self.model.push(id, Change::Drop);
        self.reads.retain(|read| read.id != id);
        self.coverage.hit("log dropped");
    }

    fn append(&mut self) {
        // A seed that likes drops and never creates would have nothing left to do.
        let Some(id) = self.any_log() else { return self.create() };
        if self.log(id).is_changing() || self.is_full(50) {
            return;
        }
        let epoch = self.epochs[&id];
        let count = 1 + self.below(3);
        if self.below(4) == 0 {
            self.append_as_follower(id, epoch, count);
            return;
        }
        for _ in 0..count {
            let bytes = self.batch(id, 0);
            let header = BatchHeader::read(&bytes).unwrap();
            let process = self.process();
            let ticket = process.ticket(id);
            let log = &mut process.hosted(id).log;
            let base = log.log_end();
            let done = log.append_as_leader(bytes, &header, LeaderEpoch(epoch), NOW, ticket).unwrap();
            assert!(!done.duplicate && done.base_offset == base, "a new batch goes to the end");
            self.appended(id, done.entry.expect("a new batch has an entry"));
        }
        self.coverage.hit("append as leader");
    }

    fn append_as_follower(&mut self, id: TopicPartition, epoch: i32, count: u64) {
        let mut base = self.log(id).log_end();
        let mut all: Vec<u8> = Vec::new();
        for at in 0..count {
            let mut bytes = self.batch(id, 1 + at as i64);
            patch_offset_and_epoch(&mut bytes, base, LeaderEpoch(epoch));
            base = BatchHeader::read(&bytes).unwrap().next_offset();
            all.extend_from_slice(&bytes);
        }
        let process = self.process();
        let ticket = process.ticket(id);
        let entry =
            process.hosted(id).log.append_as_follower(Bytes::from(all), LeaderEpoch(epoch), NOW, ticket).unwrap();
        self.appended(id, entry);
        self.coverage.hit("append as follower");
    }

    fn appended(&mut self, id: TopicPartition, entry: stonelog_storage::journal::JournalEntry) {
        let stonelog_storage::journal::Change::Append { batches, .. } = &entry.change else { panic!("an append") };
        let mut stored = Vec::new();
        let mut rest = batches.clone();
        while !rest.is_empty() {
            let header = BatchHeader::read(&rest).unwrap();
            stored.push(Stored::of(rest.split_to(header.batch_bytes)));
        }
        self.appends_count += stored.len() as u64;
        self.model.push(id, Change::Append(stored));
        self.process().enqueue(entry);
        let end = self.log(id).log_end().0 as u64;
        self.note(&[end]);
    }

    /// A batch of one of a few producers, or of none. `apart` keeps those of one append from being each other's
    /// successors.
    fn batch(&mut self, id: TopicPartition, apart: i64) -> bytes::BytesMut {
        if self.model.now(id).keyed {
            return self.keyed_batch();
        }
        let records = 1 + self.below(4) as i32;
        let filler_bytes = self.below(self.options.filler_bytes) as usize;
        let seed = self.random.next();
        let producer = self.below(4) as i64 + apart * 4;
        let producer = if producer % 4 == 3 { (-1, -1, -1) } else { self.next_of(id, producer) };
        Batch { records, producer, filler_bytes, seed, ..Batch::of(1) }.bytes()
    }

    fn next_of(&mut self, id: TopicPartition, producer: i64) -> (i64, i16, i32) {
        let bump = self.below(20) == 0;
        match self.log(id).producers().get(ProducerId(producer)) {
            None => (producer, 0, 0),
            Some(state) if bump => (producer, state.epoch.0 + 1, 0),
            Some(state) => (producer, state.epoch.0, state.batches().last().expect("never empty").last_sequence + 1),
        }
    }

    fn append_again(&mut self) {
        let Some(id) = self.any_log() else { return };
        let producer = self.below(3) as i64;
        let Some(state) = self.log(id).producers().get(ProducerId(producer)).copied() else { return };
        if self.log(id).is_changing() {
            return;
        }
        let at = self.below(state.batches().len() as u64) as usize;
        let original = state.batches()[at];
        let batch = Batch {
            records: original.last_sequence - original.first_sequence + 1,
            producer: (producer, state.epoch.0, original.first_sequence),
            ..Batch::of(1)
        };
        let bytes = batch.bytes();
        let header = BatchHeader::read(&bytes).unwrap();
        let epoch = self.epochs[&id];
        let process = self.process();
        let ticket = process.ticket(id);
        let log = &mut process.hosted(id).log;
        let done = log.append_as_leader(bytes, &header, LeaderEpoch(epoch), NOW, ticket).unwrap();
        assert!(done.duplicate && done.entry.is_none(), "seed {}: a batch of {id} was taken twice", self.seed);
        let wanted = (producer, state.epoch.0, original.first_sequence, original.last_sequence);
        // A producer that a cut made forgotten begins anew with the same numbers, which no client does; the start after
        // a crash may know both of its batches again.
        let is_original = |batch: &Stored| batch.producer == Some(wanted) && batch.base == done.base_offset.0;
        assert!(self.model.now(id).batches.iter().any(is_original), "seed {}: a duplicate's offset", self.seed);
        self.coverage.hit("duplicate answered");
    }

    /// Producers wait while the journal holds more than segments have caught up with; other changes are few, and what
    /// makes them waits for a journal that is nearly full. (One that is full for good with a cut in the queue would
    /// wait for ever: the cut's log is not flushed before the cut is durable.)
    fn is_full(&mut self, percent: u64) -> bool {
        self.process().queued_count() > 40 || self.process().journal_percent() >= percent
    }

    fn write(&mut self) -> Result<(), Fault> {
        let process = self.process.as_mut().expect("the process runs");
        if process.has_untold() || process.queued_count() == 0 {
            return Ok(());
        }
        let count = match self.random.below(3) {
            0 => 1 + self.random.below(process.queued_count() as u64) as usize,
            _ => process.queued_count(),
        };
        self.model.attempted = self.model.written + count as u64;
        match process.write(count) {
            Ok(count) => {
                self.model.written += count as u64;
                self.note(&[count as u64]);
                Ok(())
            }
            Err(fault) if fault.is_out_of_space() => {
                self.model.attempted = self.model.written;
                self.coverage.hit("no space for a commit");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    fn write_empty(&mut self) -> Result<(), Fault> {
        match self.process().write_empty() {
            Ok(true) => self.coverage.hit("empty commit"),
            Ok(false) => {}
            Err(fault) if fault.is_out_of_space() => self.coverage.hit("no space for a commit"),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        self.note(&[self.model.written]);
        let untold = self.process().has_untold();
        self.process().sync()?;
        self.coverage.hit_if(untold && self.model.durable < self.model.written, "sync of an untold commit");
        self.model.durable = self.model.written;
        if !self.options.keeps_history {
            self.model.forget_before_durable();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        let dropped = self.process().flushing_dropped();
        let id = match dropped {
            Some(id) if self.below(2) == 0 => id,
            _ => match self.any_log() {
                Some(id) => id,
                None => return Ok(()),
            },
        };
        let process = self.process.as_mut().expect("the process runs");
        process.step_flush(id, &mut self.coverage)
    }

    fn checkpoint(&mut self) -> Result<(), Fault> {
        let process = self.process.as_mut().expect("the process runs");
        match process.step_checkpoint(&mut self.coverage) {
            Err(fault) if fault.is_out_of_space() => {
                self.coverage.hit("no space for a checkpoint");
                Ok(())
            }
            done => done,
        }
    }

    fn read(&mut self) -> Result<(), Fault> {
        if self.reads.len() >= 3 || (!self.reads.is_empty() && self.below(2) == 0) {
            let at = self.below(self.reads.len() as u64) as usize;
            let pending = self.reads.swap_remove(at);
            return self.finish_read(pending);
        }
        let Some(id) = self.any_log() else { return Ok(()) };
        let (start, end) = (self.log(id).log_start().0, self.log(id).log_end().0);
        let from = start + self.below((end - start) as u64 + 1) as i64;
        let max_bytes = self.below(6_000) as usize;
        let log = self.log(id);
        let read = log.read(Offset(from), Offset(end), max_bytes, true);
        let generation = log.key().generation;
        self.reads.push(PendingRead { id, generation, from, read });
        Ok(())
    }

    fn finish_read(&mut self, pending: PendingRead) -> Result<(), Fault> {
        let PendingRead { id, generation, from, read } = pending;
        let is_current = self.log(id).key().generation == generation;
        let empty = matches!(read, Read::Empty);
        self.coverage.hit_if(matches!(read, Read::Ready(..)), "read from memory");
        self.coverage.hit_if(matches!(read, Read::Job(_)), "read from files");
        let runs = match self.process().run_read(read) {
            Ok(Some(runs)) => runs,
            Ok(None) => {
                self.coverage.hit("read of what has moved");
                return Ok(());
            }
            Err(Fault::Damage { .. }) if !is_current => return Ok(()),
            Err(fault) => return Err(fault),
        };
        if !is_current {
            return Ok(());
        }
        let state = self.model.now(id);
        match state.follow(from, &runs) {
            Ok(next) => {
                let is_short = next == from && !empty && from < state.end;
                assert!(!is_short || from < state.log_start, "seed {}: nothing read of {id} at {from}", self.seed);
                self.note(&[next as u64]);
            }
            Err(difference) => panic!("seed {}: read of {id} from {from}: {difference}", self.seed),
        }
        Ok(())
    }
}

/// At which place of the journal's order a crash has cut, judged by what a started process serves.
pub fn find_cut(model: &Model, process: &Process, least: u64, most: u64, seed: u64) -> Result<u64, String> {
    let mut random = Random(seed ^ least);
    let mut read: BTreeMap<TopicPartition, Result<Vec<Bytes>, String>> = BTreeMap::new();
    model.find_cut(least, most, &process.ids(), &mut |id, state: &State| {
        let log = process.log(id);
        if let Some(difference) = state.difference(log) {
            return Err(difference);
        }
        let runs = read.entry(id).or_insert_with(|| {
            let max_bytes = 1 + random.below(20_000) as usize;
            read_all(process, log, max_bytes)
        });
        let next = state.follow(state.log_start, runs.as_ref().map_err(Clone::clone)?)?;
        let last = state.batches.last().map_or(state.log_start, |batch| batch.next.max(state.log_start));
        if next == last { Ok(()) } else { Err(format!("readable up to {next}, not {last}")) }
    })
}

/// Everything from a log's start to its end.
pub fn read_all(process: &Process, log: &Log, max_bytes: usize) -> Result<Vec<Bytes>, String> {
    let mut next = log.log_start();
    let mut all = Vec::new();
    while next < log.log_end() {
        let read = log.read(next, log.log_end(), max_bytes, true);
        let runs = process.run_read(read).map_err(|fault| fault.to_string())?.ok_or("it moved, and nothing runs")?;
        let before = next;
        for run in &runs {
            let mut rest = &run[..];
            while !rest.is_empty() {
                let header = BatchHeader::read(rest).map_err(|error| format!("{error:?} at {next}"))?;
                next = header.next_offset();
                rest = &rest[header.batch_bytes..];
            }
        }
        if next <= before {
            break;
        }
        all.extend(runs);
    }
    Ok(all)
}

/// A path within the log directory.
pub fn within(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}
