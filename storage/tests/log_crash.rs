//! The power is cut at every change to the disk, in the middle of appends, flushes, checkpoints, truncations and
//! deletions: what was durable is back at its offset, with the state that a replay from scratch gives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_storage::Fault;
use stonelog_storage::disk::{SimDisk, SimFault, SimOperation, Survival, Tearing};
use stonelog_storage::log::{Epochs, Log, LogConfig, Producers};
use stonelog_storage::recovery::Verdict;
use stonelog_storage::segment::flush::FlushJob;

use support::{Batch, Lane, NOW, ROOT, Random, new_disk};

/// What a log should be after some number of changes: a plain list.
#[derive(Clone, Debug, Default)]
struct Model {
    batches: Vec<Bytes>,
    log_start: i64,
    /// The epochs, through the same changes from the beginning.
    epochs: Epochs,
    epoch: i32,
}

impl Model {
    fn end(&self) -> Offset {
        let last = self.batches.last().map_or(0, |batch| BatchHeader::read(batch).unwrap().next_offset().0);
        Offset(last.max(self.log_start))
    }

    fn append(&mut self, batch: Bytes) {
        let header = BatchHeader::read(&batch).unwrap();
        self.epochs.assign(header.leader_epoch, header.base_offset);
        self.batches.push(batch);
    }

    fn truncate(&mut self, end: Offset) {
        self.batches.retain(|batch| BatchHeader::read(batch).unwrap().next_offset() <= end);
        self.epochs.truncate_from_end(end);
    }

    fn kept(&self) -> Vec<u8> {
        let is_kept = |batch: &&Bytes| BatchHeader::read(batch).unwrap().next_offset().0 > self.log_start;
        self.batches.iter().filter(is_kept).flat_map(|batch| batch.iter().copied()).collect()
    }

    fn producers(&self) -> Producers {
        let mut producers = Producers::default();
        self.batches.iter().for_each(|batch| producers.apply(&BatchHeader::read(batch).unwrap(), NOW));
        producers
    }

    fn difference(&self, lane: &Lane, at: usize, max_bytes: usize) -> Option<String> {
        let log: &Log = &lane.logs[at];
        if (log.log_start().0, log.log_end()) != (self.log_start, self.end()) {
            return Some(format!("{}..{} not {}..{}", log.log_start(), log.log_end(), self.log_start, self.end()));
        }
        if *log.epochs() != self.epochs {
            return Some(format!("epochs {:?} not {:?}", log.epochs(), self.epochs));
        }
        if *log.producers() != self.producers() {
            return Some("producers differ".to_owned());
        }
        let read = match lane.read_all(at, log.log_start(), max_bytes) {
            Ok(read) => read,
            Err(fault) => return Some(format!("{fault}; segments {:?}", log.segments())),
        };
        (read != self.kept()).then(|| "bytes differ".to_owned())
    }
}

/// A log's history: the model after each change, and how far it is queued and durable.
#[derive(Clone, Debug)]
struct History {
    states: Vec<Model>,
    durable: usize,
    sequences: [i32; 3],
}

impl History {
    fn now(&self) -> &Model {
        self.states.last().expect("begins with one")
    }

    fn push(&mut self, change: impl FnOnce(&mut Model)) {
        let mut next = self.now().clone();
        change(&mut next);
        self.states.push(next);
    }
}

#[derive(Clone, Copy)]
struct Scenario {
    seed: u64,
    steps: u64,
    filler_bytes: u64,
    segment_bytes: u32,
    /// Truncations into segments scan what is there, so deleting and they do not mix in a model that keeps all.
    deletes: bool,
}

impl Scenario {
    fn config(&self) -> LogConfig {
        LogConfig { segment_bytes: self.segment_bytes, index_interval_bytes: 1024, ..LogConfig::default() }
    }
}

const LOGS_COUNT: usize = 3;

fn run(lane: &mut Lane, histories: &mut [History], scenario: Scenario) -> Result<(), Fault> {
    let mut random = Random(scenario.seed);
    let mut under_way = [const { None::<FlushJob> }; LOGS_COUNT];
    for _ in 0..scenario.steps {
        let at = random.below(LOGS_COUNT as u64) as usize;
        let history = &mut histories[at];
        let changing = lane.logs[at].is_changing();
        match random.below(20) {
            0..=8 if !changing => {
                for _ in 0..=random.below(3) {
                    let producer = random.below(3) as usize;
                    let records = 1 + random.below(4) as i32;
                    let batch = Batch {
                        records,
                        producer: (producer as i64, 0, history.sequences[producer]),
                        filler_bytes: random.below(scenario.filler_bytes) as usize,
                        seed: random.next(),
                        ..Batch::of(1)
                    };
                    history.sequences[producer] += records;
                    let bytes = lane.append(at, &batch, history.now().epoch);
                    history.push(|model| model.append(bytes));
                }
            }
            9 if !changing => {
                let ticket = lane.next_ticket();
                let epoch = history.now().epoch + 1;
                let offset = lane.logs[at].log_end();
                let entry = lane.logs[at].begin_epoch(LeaderEpoch(epoch), ticket);
                lane.push(ticket, entry);
                history.push(|model| {
                    model.epoch = epoch;
                    model.epochs.assign(LeaderEpoch(epoch), offset);
                });
            }
            10 if !changing && lane.logs[at].log_end() > lane.logs[at].log_start() => {
                let log = &lane.logs[at];
                let behind = random.below(12) as i64;
                let end = Offset((log.log_end().0 - behind).max(log.log_start().0));
                let end = if scenario.deletes { end.max(flushed_end(log)) } else { end };
                lane.truncate(at, end)?;
                let end = lane.logs[at].log_end();
                if end < history.now().end() {
                    history.push(|model| model.truncate(end));
                    // A producer goes on from what is left of it.
                    let producers = history.now().producers();
                    for (id, sequence) in history.sequences.iter_mut().enumerate() {
                        let state = producers.get(stonelog_protocol::ProducerId(id as i64));
                        *sequence = state.and_then(|s| s.batches().last().copied()).map_or(0, |b| b.last_sequence + 1);
                    }
                }
            }
            11 if !changing && scenario.deletes => {
                let log = &lane.logs[at];
                let to = Offset(log.log_start().0 + random.below((log.durable() - log.log_start()) as u64 + 1) as i64);
                let ticket = lane.next_ticket();
                if let Some(entry) = lane.logs[at].advance_log_start(to, ticket) {
                    lane.push(ticket, entry);
                    history.push(|model| {
                        model.log_start = to.0;
                        model.epochs.truncate_from_start(to);
                    });
                }
            }
            12..=14 => {
                lane.commit()?;
                histories.iter_mut().for_each(|history| history.durable = history.states.len() - 1);
            }
            15 => lane.write()?,
            16 | 17 => match under_way[at].take() {
                None => under_way[at] = lane.logs[at].plan_flush(NOW, true, 0),
                Some(job) => {
                    let done = job.run(&lane.access)?;
                    lane.logs[at].on_flushed(done);
                }
            },
            18 => lane.checkpoint()?,
            19 => {
                lane.logs[at].evict(random.below(4096));
            }
            _ => {}
        }
    }
    for (at, job) in under_way.into_iter().enumerate() {
        if let Some(job) = job {
            let done = job.run(&lane.access)?;
            lane.logs[at].on_flushed(done);
        }
    }
    lane.commit()?;
    histories.iter_mut().for_each(|history| history.durable = history.states.len() - 1);
    Ok(())
}

fn flushed_end(log: &Log) -> Offset {
    log.segments().last().map_or(log.log_start(), |segment| segment.end)
}

fn start(disk: &SimDisk, scenario: Scenario) -> Result<Lane, Fault> {
    Lane::start(Arc::new(disk.clone()), scenario.config())
}

fn fresh(disk: &SimDisk, scenario: Scenario) -> (Lane, Vec<History>) {
    let mut lane = start(disk, scenario).unwrap();
    for index in 0..LOGS_COUNT {
        lane.create(index as i32);
    }
    lane.commit().unwrap();
    let history = History { states: vec![Model::default()], durable: 0, sequences: [0; 3] };
    (lane, vec![history; LOGS_COUNT])
}

/// Each log is as it was after some change that is not before the last durable one; histories go on from there.
fn check(lane: &Lane, histories: &mut [History], what: &str) {
    assert_eq!(lane.logs.len(), histories.len(), "{what}: every log is back");
    for (at, history) in histories.iter_mut().enumerate() {
        let verdict = &lane.verdicts[at];
        let is_whole = matches!(verdict, Verdict::Proved | Verdict::Cut);
        assert!(is_whole, "{what}: log {at} is {verdict:?}, journal {:?}", lane.journal_end);
        let mut differences = Vec::new();
        let found = (history.durable..history.states.len()).rev().find(|state| {
            match history.states[*state].difference(lane, at, 700) {
                None => true,
                Some(difference) => {
                    differences.push(format!("state {state}: {difference}"));
                    false
                }
            }
        });
        let Some(found) = found else { panic!("{what}: log {at}, durable {}: {differences:#?}", history.durable) };
        history.states.truncate(found + 1);
        history.durable = found;
        let producers = history.now().producers();
        for (id, sequence) in history.sequences.iter_mut().enumerate() {
            let state = producers.get(stonelog_protocol::ProducerId(id as i64));
            *sequence = state.and_then(|s| s.batches().last().copied()).map_or(0, |batch| batch.last_sequence + 1);
        }
    }
}

fn crash_everywhere(scenario: Scenario, stride: usize) {
    let disk = new_disk();
    let (mut lane, mut histories) = fresh(&disk, scenario);
    let before = disk.changes();
    run(&mut lane, &mut histories, scenario).unwrap();
    let after = disk.changes();
    for (at, history) in histories.iter().enumerate() {
        assert_eq!(history.now().difference(&lane, at, 5_000), None, "without a crash, log {at}");
    }
    assert!(after - before > 30, "the scenario does something: {} changes", after - before);
    let first = before + scenario.seed % stride as u64;
    for cut in (first..after).step_by(stride) {
        let what = format!("seed {} power cut in change {cut} of {before}..{after}", scenario.seed);
        let disk = new_disk();
        let (mut lane, mut histories) = fresh(&disk, scenario);
        disk.cut_power_at(cut);
        assert!(run(&mut lane, &mut histories, scenario).is_err(), "{what}: the same calls change the same");
        drop(lane);
        let tearing = if cut % 2 == 0 { Tearing::Blocks } else { Tearing::Sectors };
        disk.crash(cut ^ scenario.seed, tearing);
        let mut lane = start(&disk, scenario).unwrap();
        check(&lane, &mut histories, &what);
        // Life goes on, and a second cut finds all of it.
        let more = Scenario { seed: scenario.seed + cut, steps: 25, ..scenario };
        run(&mut lane, &mut histories, more).unwrap();
        drop(lane);
        disk.crash(cut, tearing);
        let lane = start(&disk, scenario).unwrap();
        check(&lane, &mut histories, &format!("{what}, second start"));
    }
}

/// Seeds per scenario; `LOG_CRASH_SEEDS` asks for more.
fn seeds_count(usual: u64) -> u64 {
    std::env::var("LOG_CRASH_SEEDS").map_or(usual, |count| count.parse().expect("LOG_CRASH_SEEDS is a number"))
}

#[test]
fn nothing_durable_is_lost_with_small_segments_and_deletes() {
    for seed in 0..seeds_count(4) {
        let scenario = Scenario { seed, steps: 90, filler_bytes: 800, segment_bytes: 4_000, deletes: true };
        crash_everywhere(scenario, 2);
    }
}

#[test]
fn nothing_durable_is_lost_with_truncations_into_segments() {
    for seed in 1_000..1_000 + seeds_count(4) {
        let scenario = Scenario { seed, steps: 90, filler_bytes: 800, segment_bytes: 4_000, deletes: false };
        crash_everywhere(scenario, 2);
    }
}

#[test]
fn nothing_durable_is_lost_with_segments_of_several_blocks() {
    for seed in 2_000..2_000 + seeds_count(2) {
        let scenario =
            Scenario { seed, steps: 120, filler_bytes: 12_000, segment_bytes: 180_000, deletes: seed % 2 == 0 };
        crash_everywhere(scenario, 3);
    }
}

#[test]
fn a_checksum_file_that_a_dead_process_made_gets_a_durable_name() {
    let disk = new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
    lane.create(0);
    let fill = |lane: &mut Lane, bytes: usize| {
        while lane.logs[0].size_bytes() < bytes as u64 {
            lane.append(0, &Batch { filler_bytes: 9_000, ..Batch::of(1) }, 0);
            lane.commit().unwrap();
        }
        while lane.flush(0).unwrap() {}
    };
    // The `.log` has a durable name before the first whole block.
    fill(&mut lane, 40_000);
    lane.checkpoint().unwrap();
    fill(&mut lane, 70_000);
    disk.fail(SimOperation::SyncDir, ROOT, 0, SimFault::InputOutput);
    lane.checkpoint().unwrap_err();
    disk.kill();
    let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
    fill(&mut lane, 70_000);
    lane.checkpoint().unwrap();
    let written = lane.read_all(0, Offset(0), 1 << 20).unwrap();
    disk.crash_to(Survival::Nothing);
    let lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
    assert_eq!(lane.read_all(0, Offset(0), 1 << 20).unwrap(), written);
}
