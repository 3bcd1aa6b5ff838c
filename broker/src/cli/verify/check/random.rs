//! Random histories of a small model cluster: legal ones pass, and damage done to one is always noticed.

use std::collections::BTreeMap;

use super::super::history::{Event, Header, Run};
use super::super::value::Content;
use super::super::verdict::Verdict;
use super::Checker;

const PARTITIONS: i32 = 2;
const PRODUCERS: u32 = 2;
const STEPS: u32 = 60;

/// Xorshift: the same seed gives the same history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A cluster that keeps its promises, and clients that write down what they see.
struct Model {
    random: Random,
    events: Vec<Event>,
    logs: Vec<Vec<Content>>,
    /// Highest sequence per producer and partition.
    sent: BTreeMap<(u32, i32), u64>,
    /// Batches whose connection was lost and that may still arrive.
    delayed: Vec<(i32, Vec<Content>)>,
    batches: u64,
    commits: u64,
    committed: BTreeMap<i32, i64>,
    positions: BTreeMap<i32, i64>,
}

impl Model {
    fn run(seed: u64) -> Model {
        let mut model = Model {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            events: Vec::new(),
            logs: vec![Vec::new(); PARTITIONS as usize],
            sent: BTreeMap::new(),
            delayed: Vec::new(),
            batches: 0,
            commits: 0,
            committed: BTreeMap::new(),
            positions: BTreeMap::new(),
        };
        model.join();
        for _ in 0..STEPS {
            match model.random.below(10) {
                0..5 => model.send(),
                5..7 => model.poll(),
                7 => model.commit(),
                8 => model.arrive_late(),
                _ if model.random.below(3) == 0 => model.join(),
                _ => {}
            }
        }
        let offsets = model.committed.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        model.events.push(Event::CommitsRead { group: "g".to_owned(), offsets });
        model
    }

    fn send(&mut self) {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        let producer = self.random.below(u64::from(PRODUCERS)) as u32;
        let count = 1 + self.random.below(4);
        let next = self.sent.entry((producer, partition)).or_default();
        let first = *next;
        *next += count;
        let records: Vec<Content> =
            (first..first + count).map(|sequence| Content::Ours { producer, sequence }).collect();
        let id = self.batches;
        self.batches += 1;
        self.events.push(Event::Send { id, producer, partition, first, count: count as u32 });
        let log = &mut self.logs[partition as usize];
        let base = log.len() as i64;
        match self.random.below(8) {
            0 => self.events.push(Event::Failed { id, error: "refused".to_owned() }),
            1 => self.events.push(Event::Unknown { id, error: "never arrived".to_owned() }),
            2 => {
                self.events.push(Event::Unknown { id, error: "will arrive".to_owned() });
                self.delayed.push((partition, records));
            }
            3 => {
                log.extend(records);
                self.events.push(Event::Unknown { id, error: "answer lost".to_owned() });
            }
            4 => {
                log.extend(records);
                self.events.push(Event::Acked { id, offset: None });
            }
            _ => {
                log.extend(records);
                self.events.push(Event::Acked { id, offset: Some(base) });
            }
        }
    }

    fn arrive_late(&mut self) {
        if let Some((partition, records)) = self.delayed.pop() {
            self.logs[partition as usize].extend(records);
        }
    }

    fn join(&mut self) {
        let committed: Vec<(i32, i64)> =
            self.committed.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        self.positions =
            (0..PARTITIONS).map(|index| (index, self.committed.get(&index).copied().unwrap_or(0))).collect();
        let positions = self.positions.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        self.events.push(Event::Joined { group: "g".to_owned(), member: 0, generation: 1, positions, committed });
    }

    fn poll(&mut self) {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        let Some(position) = self.positions.get_mut(&partition) else { return };
        let unread = &self.logs[partition as usize][*position as usize..];
        let count = (self.random.below(6) as usize).min(unread.len());
        let runs: Vec<Run> = (*position..)
            .zip(&unread[..count])
            .filter_map(|(offset, content)| match content {
                Content::Ours { producer, sequence } => {
                    Some(Run { offset, count: 1, producer: *producer, sequence: *sequence })
                }
                _ => None,
            })
            .collect();
        *position += count as i64;
        self.events.push(Event::Polled { group: "g".to_owned(), member: 0, partition, runs, others: Vec::new() });
    }

    fn commit(&mut self) {
        let offsets: Vec<(i32, i64)> = self.positions.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        let id = self.commits;
        self.commits += 1;
        self.events.push(Event::CommitAsked { id, group: "g".to_owned(), offsets: offsets.clone() });
        match self.random.below(5) {
            0 => self.events.push(Event::CommitFailed { id, error: "refused".to_owned() }),
            1 => self.events.push(Event::CommitUnknown { id, error: "never arrived".to_owned() }),
            2 => {
                self.committed.extend(offsets);
                self.events.push(Event::CommitUnknown { id, error: "answer lost".to_owned() });
            }
            _ => {
                self.committed.extend(offsets);
                self.events.push(Event::CommitAcked { id });
            }
        }
    }

    fn judge(&self) -> Verdict {
        let header = Header::new("r".to_owned(), "t".to_owned(), PARTITIONS, true, vec!["g".to_owned()]);
        let mut checker = Checker::new(&header);
        self.events.iter().for_each(|event| checker.on_event(event));
        for (partition, log) in (0..).zip(&self.logs) {
            checker.on_scan_start(partition, 0, log.len() as i64);
            for (offset, content) in (0..).zip(log) {
                checker.on_scanned(partition, offset, *content);
            }
        }
        checker.verdict()
    }

    /// Offsets of records that were acknowledged or read: damage there can never be excused.
    fn promised(&self) -> Vec<(usize, usize)> {
        let mut promised = Vec::new();
        let mut batches = Vec::new();
        for event in &self.events {
            match event {
                Event::Send { partition, count, .. } => batches.push((*partition as usize, *count)),
                Event::Acked { id, offset: Some(offset) } => {
                    let (partition, count) = batches[*id as usize];
                    promised.extend((0..count as usize).map(|index| (partition, *offset as usize + index)));
                }
                Event::Polled { partition, runs, .. } => {
                    promised.extend(runs.iter().map(|run| (*partition as usize, run.offset as usize)));
                }
                _ => {}
            }
        }
        promised
    }
}

#[test]
fn ten_thousand_legal_histories_pass() {
    let mut unknown = 0;
    for seed in 1..=10_000 {
        let verdict = Model::run(seed).judge();
        assert!(verdict.is_sound(), "seed {seed}: {verdict:?}");
        unknown += verdict.unknown_present + verdict.unknown_absent;
    }
    assert!(unknown > 10_000, "the histories hold lost answers");
}

#[test]
fn damage_to_what_was_promised_is_always_found() {
    let mut damaged = 0;
    for seed in 1..=5_000 {
        let mut model = Model::run(seed);
        let promised = model.promised();
        if promised.is_empty() {
            continue;
        }
        let (partition, offset) = promised[model.random.below(promised.len() as u64) as usize];
        let log = &mut model.logs[partition];
        let what = match model.random.below(6) {
            0 => {
                log.remove(offset);
                "removed"
            }
            1 => {
                let again = log[offset];
                log.push(again);
                "duplicated"
            }
            2 => {
                log[offset] = Content::Corrupt;
                "corrupted"
            }
            3 => {
                log.truncate(offset);
                "cut off"
            }
            4 => {
                log.insert(offset, Content::Ours { producer: 7, sequence: 0 });
                "shifted"
            }
            _ if offset > 0 => {
                log.swap(offset - 1, offset);
                "swapped"
            }
            _ => continue,
        };
        damaged += 1;
        assert!(!model.judge().is_sound(), "seed {seed}: {partition}-{offset} {what}");
    }
    assert!(damaged > 4_000);
}
