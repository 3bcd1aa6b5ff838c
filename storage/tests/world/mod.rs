//! A log directory in a simulated world: a seed chooses what is done, when each job begins, runs and is heard of, what
//! fails and when the power goes. [`model`] says what must be left.
//!
//! Everything runs in one thread and reads no clock: the same seed does the same, which the trace hash shows.

#![allow(dead_code, unreachable_pub, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

pub mod coverage;
pub mod damage;
pub mod faults;
pub mod model;
pub mod options;
pub mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::patch_offset_and_epoch;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::log::{Log, Read, Truncation};
use stonelog_storage::recovery::{Loss, Verdict};
use stonelog_storage::{Fault, LogGeneration};

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
        self.process().create(id, strict, start);
        let place = self.model.push(id, Change::Create { start, strict });
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
        self.process().drop_log(id);
        self.model.push(id, Change::Drop);
        self.reads.retain(|read| read.id != id);
        self.coverage.hit("log dropped");
    }

    fn append(&mut self) {
        let Some(id) = self.any_log() else { return };
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
            let batch = self.batch(id, 0);
            let bytes = batch.bytes();
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
            let batch = self.batch(id, 1 + at as i64);
            let mut bytes = batch.bytes();
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
    fn batch(&mut self, id: TopicPartition, apart: i64) -> Batch {
        let records = 1 + self.below(4) as i32;
        let filler_bytes = self.below(self.options.filler_bytes) as usize;
        let seed = self.random.next();
        let producer = self.below(4) as i64 + apart * 4;
        let producer = if producer % 4 == 3 { (-1, -1, -1) } else { self.next_of(id, producer) };
        Batch { records, producer, filler_bytes, seed, ..Batch::of(1) }
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
        let known = self.model.now(id).batches.iter().rfind(|batch| batch.producer == Some(wanted));
        assert_eq!(known.map(|batch| batch.base), Some(done.base_offset.0), "seed {}: a duplicate's offset", self.seed);
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

    fn begin_epoch(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        if self.log(id).is_changing() {
            return;
        }
        let epoch = self.epochs.get_mut(&id).expect("every log has one");
        *epoch += 1;
        let epoch = *epoch;
        let process = self.process();
        let ticket = process.ticket(id);
        let entry = process.hosted(id).log.begin_epoch(LeaderEpoch(epoch), ticket);
        process.enqueue(entry);
        self.model.push(id, Change::Epoch { epoch });
    }

    fn truncate(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let log = self.log(id);
        let (start, end) = (log.log_start().0, log.log_end().0);
        if log.is_changing() || start == end || !matches!(self.process().hosted(id).rebuild, Slot::Idle) {
            return;
        }
        let far = self.below(3) == 0;
        let behind = 1 + if far { self.below((end - start) as u64) } else { self.below(12) } as i64;
        let to = (end - behind).max(start);
        let durable = self.log(id).durable().0;
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let hosted = process.hosted(id);
        let is_flushing = !matches!(hosted.flush, Slot::Idle);
        match hosted.log.truncate_to(Offset(to), ticket) {
            Truncation::Nothing => panic!("the end is above {to}"),
            Truncation::Done(entry) => {
                process.enqueue(entry);
                self.coverage.hit("truncation in memory");
                self.coverage.hit_if(to < durable, "truncation of durable records");
                self.truncated(id, to, is_flushing);
            }
            Truncation::Rebuild(job) => {
                hosted.rebuild = Slot::Planned(job);
                self.cuts.insert(id, to);
            }
        }
    }

    fn truncated(&mut self, id: TopicPartition, to: i64, is_flushing: bool) {
        self.coverage.hit_if(is_flushing, "truncation under a flush in flight");
        let expected = self.model.now(id).cut_at(to);
        assert_eq!(self.log(id).log_end().0, expected, "seed {}: {id} was cut at {to}", self.seed);
        self.model.push(id, Change::Truncate { end: to });
        self.note(&[to as u64]);
    }

    /// Moves a cut into segments on by one step.
    fn rebuild(&mut self) -> Result<(), Fault> {
        let ids = self.process().ids();
        let Some(id) = ids.into_iter().find(|id| !matches!(self.process().hosted(*id).rebuild, Slot::Idle)) else {
            return Ok(());
        };
        let is_full = self.is_full(75);
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let access = process.access.clone();
        let hosted = process.hosted(id);
        match std::mem::take(&mut hosted.rebuild) {
            Slot::Idle => {}
            Slot::Planned(job) => match job.run(&access) {
                Ok(done) => hosted.rebuild = Slot::Done(done),
                // Deleted, or cut, since it was planned: planned again then.
                Err(Fault::Foreign { .. } | Fault::Damage { .. }) => self.coverage.hit("cut planned again"),
                Err(fault) => return Err(fault),
            },
            Slot::Done(rebuilt) => {
                if is_full {
                    hosted.rebuild = Slot::Done(rebuilt);
                    return Ok(());
                }
                let is_flushing = !matches!(hosted.flush, Slot::Idle);
                let start = hosted.log.log_start().0;
                match hosted.log.truncate_into_segments(rebuilt, ticket) {
                    None => self.coverage.hit("cut planned again"),
                    Some(entry) => {
                        process.enqueue(entry);
                        self.coverage.hit("truncation into segments");
                        let to = self.cuts[&id].max(start);
                        self.truncated(id, to, is_flushing);
                    }
                }
            }
        }
        Ok(())
    }

    fn raise_log_start(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let log = self.log(id);
        let (start, upper) = (log.log_start().0, if log.is_strict() { log.durable() } else { log.written() }.0);
        let to = start + self.below((upper - start).max(0) as u64 + 1) as i64;
        self.move_log_start(id, to, "log start raised");
    }

    fn retain(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let week = 8 * 24 * 3600 * 1000;
        let now = if self.below(8) == 0 { stonelog_protocol::Timestamp(NOW.0 + week) } else { NOW };
        let log = self.log(id);
        let upper = if log.is_strict() { log.durable() } else { log.written() };
        if let Some(to) = log.plan_retention(now, upper) {
            self.move_log_start(id, to.0, "retention");
        }
    }

    fn move_log_start(&mut self, id: TopicPartition, to: i64, mark: &'static str) {
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        if let Some(entry) = process.hosted(id).log.advance_log_start(Offset(to), ticket) {
            process.enqueue(entry);
            self.model.push(id, Change::LogStart { to });
            self.coverage.hit(mark);
            self.note(&[to as u64]);
        }
    }

    fn change_mode(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        let strict = !self.log(id).is_strict();
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        if let Some(entry) = process.hosted(id).log.set_mode(strict, ticket) {
            process.enqueue(entry);
            self.model.push(id, Change::Mode { strict });
            self.coverage.hit(if strict { "made strict" } else { "made relaxed" });
        }
    }

    fn reset(&mut self) {
        if self.is_full(75) {
            return;
        }
        let Some(id) = self.any_log() else { return };
        // Only a log whose creation is in the journal, and heard of.
        let is_known = match self.fresh.get(&id) {
            None => true,
            Some(place) => *place <= self.model.durable && self.log(id).written() > self.log(id).log_start(),
        };
        if self.log(id).is_changing() || !is_known {
            return;
        }
        let start = self.log(id).log_end().0 + self.below(20) as i64 - 5;
        let start = start.max(0);
        let process = self.process.as_mut().expect("the process runs");
        let ticket = process.ticket(id);
        let entry = process.hosted(id).log.reset(Offset(start), ticket);
        process.enqueue(entry);
        self.model.push(id, Change::Reset { start });
        self.coverage.hit("reset");
        self.note(&[start as u64]);
    }

    /// The process is gone, and with it what only it knew.
    fn bury(&mut self) {
        self.process = None;
        self.reads.clear();
        self.cuts.clear();
        self.fresh.clear();
    }

    /// Starts again and holds what is there against the model. The disk is as its end left it.
    pub fn restart(&mut self, left: Left) {
        self.bury();
        self.faults_count += 1;
        let process = loop {
            let crash_again = self.options.crash_in_recovery && self.below(3) == 0;
            if crash_again {
                let at = self.disk.changes() + self.below(14);
                self.disk.cut_power_at(at);
            }
            match self.start(left != Left::Power) {
                Ok(process) => {
                    // A cut that recovery did not reach must not come later.
                    self.disk.cut_power_at(u64::MAX);
                    break process;
                }
                Err(_) if self.disk.is_dead() => {
                    self.coverage.hit("power cut in recovery");
                    self.faults_count += 1;
                    let survival = faults::survival(&mut self.random);
                    self.disk.crash_to(survival);
                    // What only the cache held is lost by now.
                    return self.restart(Left::Power);
                }
                Err(fault) => panic!("seed {}: no start after {left:?}: {fault}", self.seed),
            }
        };
        self.process = Some(process);
        self.check(left);
        self.note_disk();
    }

    fn check(&mut self, left: Left) {
        let least = if left == Left::Process { self.model.written } else { self.model.durable };
        let most = self.model.attempted;
        let process = self.process.as_ref().expect("the process runs");
        let what = format!("seed {} after {left:?}", self.seed);
        assert!(process.journal_end.damage.is_empty(), "{what}: {:?}", process.journal_end);
        let is_torn = process.journal_end.torn_tail.is_some();
        self.coverage.hit_if(is_torn, "torn tail");
        assert!(!is_torn || most > least || left == Left::Power, "{what}: a torn tail and nothing was being written");
        for (id, verdict) in &process.verdicts {
            let log = process.log(*id);
            let expected = match (log.is_strict(), left, is_torn) {
                (false, Left::Power, _) => Verdict::Lost(Loss::Relaxed),
                (_, _, true) => Verdict::Cut,
                _ => Verdict::Proved,
            };
            assert_eq!(*verdict, expected, "{what}: {id}");
            self.coverage.hit(match verdict {
                Verdict::Proved => "verdict proved",
                Verdict::Cut => "verdict cut",
                Verdict::Lost(_) | Verdict::Damaged => "verdict lost",
            });
        }
        let cut = find_cut(&self.model, process, least, most, self.seed);
        let cut = cut.unwrap_or_else(|difference| panic!("{what}: {difference}"));
        self.coverage.hit_if(cut < self.model.queued, "queued entries lost");
        self.coverage.hit_if(cut > least, "un-synced entries kept");
        self.note(&[cut]);
        self.model.cut_to(cut);
    }

    /// Brings everything that is queued to the end: durable, in segments, and under a checkpoint.
    pub fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..6 {
            self.commit_all()?;
            let mut ids = self.process().ids();
            ids.extend(self.process().flushing_dropped());
            for id in ids {
                for _ in 0..6 {
                    let process = self.process.as_mut().expect("the process runs");
                    process.step_flush(id, &mut self.coverage)?;
                }
            }
            self.checkpoint()?;
            while self.process().is_checkpointing() {
                self.checkpoint()?;
            }
        }
        self.commit_all()
    }

    /// Writes and syncs everything queued, and the lanes hear of it.
    pub fn commit_all(&mut self) -> Result<(), Fault> {
        for _ in 0..8 {
            self.process().tell();
            self.write()?;
            self.process().tell();
            self.sync()?;
            for lane in 0..LANES_COUNT {
                self.process().hear(lane);
            }
        }
        self.write_empty()?;
        self.process().tell();
        self.sync()
    }

    /// Whether the running process knows exactly what the model knows.
    pub fn check_live(&mut self) {
        let process = self.process.as_ref().expect("the process runs");
        let all = self.model.queued;
        if let Err(difference) = find_cut(&self.model, process, all, all, self.seed) {
            panic!("seed {} while running: {difference}", self.seed);
        }
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
