//! The oracle: what each log should hold, as plain lists, and how far that is written and durable.
//!
//! It shares no code with the storage crate but the names of offsets. Every change of a log is one [`Change`] with its
//! place in the one order of the journal; what a crash may leave is the state after some prefix of that order, the same
//! for all logs, not shorter than what a sync has promised.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use stonelog_protocol::TopicPartition;
use stonelog_protocol::batch::BatchHeader;
use stonelog_storage::log::Log;

/// One batch, as it must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub base: i64,
    /// The offset after its last record.
    pub next: i64,
    pub bytes: Bytes,
    pub epoch: i32,
    /// Producer id, its epoch, first and last sequence.
    pub producer: Option<(i64, i16, i32, i32)>,
}

impl Stored {
    /// Reads a batch that has its offset.
    pub fn of(bytes: Bytes) -> Stored {
        let header = BatchHeader::read(&bytes).unwrap();
        assert_eq!(header.batch_bytes, bytes.len());
        let last_sequence = header.base_sequence + header.last_offset_delta;
        let producer = (header.producer_id.0 >= 0).then_some((
            header.producer_id.0,
            header.producer_epoch.0,
            header.base_sequence,
            last_sequence,
        ));
        let base = header.base_offset.0;
        Stored {
            base,
            next: base + i64::from(header.last_offset_delta) + 1,
            bytes,
            epoch: header.leader_epoch.0,
            producer,
        }
    }
}

/// One entry of the journal, as the model understands it.
#[derive(Clone, Debug)]
pub enum Change {
    Create {
        start: i64,
        strict: bool,
        /// Its records have keys, and it may be compacted.
        keyed: bool,
    },
    Append(Vec<Stored>),
    /// With the end that was asked for; batches go whole.
    Truncate {
        end: i64,
    },
    Reset {
        start: i64,
    },
    LogStart {
        to: i64,
    },
    Epoch {
        epoch: i32,
    },
    Mode {
        strict: bool,
    },
    Drop,
}

/// What one log holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub exists: bool,
    pub strict: bool,
    pub keyed: bool,
    pub log_start: i64,
    pub end: i64,
    /// Oldest first; with those below the log start, whose producers are still known.
    pub batches: Vec<Stored>,
    /// Epoch and where it began.
    pub epochs: Vec<(i32, i64)>,
    /// A cut met deleted records: producers that wrote only those may be known or not.
    pub producers_vague: bool,
}

/// What is remembered of a producer: its epoch, and first sequence, last sequence and first offset of its last batches.
type Remembered = BTreeMap<i64, OfProducer>;
type OfProducer = (i16, VecDeque<(i32, i32, i64)>);

impl State {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { start, strict, keyed } => {
                let (strict, keyed) = (*strict, *keyed);
                *self = State { exists: true, strict, keyed, log_start: *start, end: *start, ..State::default() };
            }
            Change::Append(batches) => {
                for batch in batches {
                    assert_eq!(batch.base, self.end, "the model is told of appends in order");
                    self.assign(batch.epoch, batch.base);
                    self.end = batch.next;
                    self.batches.push(batch.clone());
                }
            }
            Change::Truncate { end } => {
                self.end = self.cut_at(*end);
                self.batches.retain(|batch| batch.next <= *end);
                let end = self.end;
                self.epochs.retain(|(_, start)| *start < end);
                self.producers_vague |= self.batches.first().is_some_and(|first| first.next <= self.log_start);
            }
            Change::Reset { start } => {
                let (strict, keyed) = (self.strict, self.keyed);
                *self = State { exists: true, strict, keyed, log_start: *start, end: *start, ..State::default() };
            }
            Change::LogStart { to } => {
                self.log_start = *to;
                if let Some(in_force) = self.epochs.iter().rposition(|(_, start)| start <= to) {
                    self.epochs.drain(..in_force);
                    self.epochs[0].1 = *to;
                }
            }
            Change::Epoch { epoch } => self.assign(*epoch, self.end),
            Change::Mode { strict } => self.strict = *strict,
            Change::Drop => *self = State::default(),
        }
    }

    /// Where the log ends when it is cut at `end`: no batch is cut in two, and nothing is below the log start.
    pub fn cut_at(&self, end: i64) -> i64 {
        let first = self.batches.first().map_or(self.end, |batch| batch.base);
        let kept = self.batches.iter().map(|batch| batch.next).filter(|next| *next <= end).max();
        kept.unwrap_or(first).max(self.log_start)
    }

    fn assign(&mut self, epoch: i32, at: i64) {
        if self.epochs.last().is_some_and(|(newest, _)| *newest >= epoch) {
            return;
        }
        self.epochs.retain(|(_, start)| *start < at);
        self.epochs.push((epoch, at));
    }

    /// The batches that readers may ask for.
    pub fn live(&self) -> impl Iterator<Item = &Stored> {
        self.batches.iter().filter(|batch| batch.next > self.log_start)
    }

    fn remembered<'a>(batches: impl Iterator<Item = &'a Stored>) -> Remembered {
        let mut all = Remembered::new();
        for batch in batches {
            let Some((id, epoch, first, last)) = batch.producer else { continue };
            let known = all.entry(id).or_insert_with(|| (epoch, VecDeque::new()));
            if known.0 != epoch {
                *known = (epoch, VecDeque::new());
            }
            known.1.push_back((first, last, batch.base));
            if known.1.len() > 5 {
                known.1.pop_front();
            }
        }
        all
    }

    /// What the log knows otherwise, apart from its bytes.
    pub fn difference(&self, log: &Log) -> Option<String> {
        if !self.exists {
            return Some("it should not exist".to_owned());
        }
        let found = (log.log_start().0, log.log_end().0, log.is_strict());
        if found != (self.log_start, self.end, self.strict) {
            let expected = (self.log_start, self.end, self.strict);
            return Some(format!("start, end, strict {found:?}, not {expected:?}"));
        }
        let epochs: Vec<(i32, i64)> =
            log.epochs().entries().iter().map(|entry| (entry.epoch.0, entry.start.0)).collect();
        if epochs != self.epochs {
            return Some(format!("epochs {epochs:?}, not {:?}", self.epochs));
        }
        self.producers_difference(log)
    }

    fn producers_difference(&self, log: &Log) -> Option<String> {
        let most = State::remembered(self.batches.iter());
        let found: Remembered = log
            .producers()
            .iter()
            .map(|(id, state)| {
                let batches =
                    state.batches().iter().map(|b| (b.first_sequence, b.last_sequence, b.base_offset.0)).collect();
                (id.0, (state.epoch.0, batches))
            })
            .collect();
        if !self.producers_vague {
            return (found != most).then(|| format!("producers {found:?}, not {most:?}"));
        }
        // Those of live batches for certain, and nothing that never was; as much of each as is between the two.
        let least = State::remembered(self.live());
        let is_known = |id: &i64| found.contains_key(id);
        let ends_with =
            |long: &VecDeque<_>, short: &VecDeque<_>| long.iter().rev().zip(short.iter().rev()).all(|(a, b)| a == b);
        let agrees = |(id, (epoch, batches)): (&i64, &OfProducer)| {
            most.get(id).is_some_and(|(whole_epoch, whole)| {
                whole_epoch == epoch && batches.len() <= whole.len() && ends_with(whole, batches)
            }) && least.get(id).is_none_or(|(_, live)| live.len() <= batches.len())
        };
        let fits = least.keys().all(is_known) && found.iter().all(agrees);
        (!fits).then(|| format!("producers {found:?}, not between {least:?} and {most:?}"))
    }

    /// Whether these bytes, read from `from` on, are batches of this log one after the other. Returns the offset to go
    /// on from.
    pub fn follow(&self, from: i64, runs: &[Bytes]) -> Result<i64, String> {
        if self.keyed {
            return self.follow_keyed(from, runs);
        }
        let at = self.batches.partition_point(|batch| batch.next <= from);
        let mut next = from;
        let mut expected = self.batches[at..].iter();
        for run in runs {
            let mut rest = &run[..];
            while !rest.is_empty() {
                let Some(batch) = expected.next() else { return Err(format!("more than there is from {next} on")) };
                if rest.len() < batch.bytes.len() || rest[..batch.bytes.len()] != batch.bytes[..] {
                    return Err(format!("other bytes than were appended at {}", batch.base));
                }
                rest = &rest[batch.bytes.len()..];
                next = batch.next;
            }
        }
        Ok(next)
    }
}

/// A log's state at some point, and the changes since.
#[derive(Clone, Debug, Default)]
struct History {
    base: State,
    /// Place in the journal's order, counted from 1, and the change.
    changes: VecDeque<(u64, Change)>,
    now: State,
}

/// All logs of a directory.
#[derive(Clone, Debug, Default)]
pub struct Model {
    logs: BTreeMap<TopicPartition, History>,
    /// Changes so far.
    pub queued: u64,
    /// How many of them the journal was asked to write, also without success.
    pub attempted: u64,
    /// How many of them a write has confirmed.
    pub written: u64,
    /// How many of them a sync has confirmed.
    pub durable: u64,
}

impl Model {
    /// Notes a change; returns its place.
    pub fn push(&mut self, id: TopicPartition, change: Change) -> u64 {
        self.queued += 1;
        let history = self.logs.entry(id).or_default();
        history.now.apply(&change);
        history.changes.push_back((self.queued, change));
        self.queued
    }

    /// The state after everything so far.
    pub fn now(&self, id: TopicPartition) -> &State {
        &self.logs[&id].now
    }

    /// Forgets how it came to what is durable.
    pub fn forget_before_durable(&mut self) {
        for history in self.logs.values_mut() {
            while let Some((place, _)) = history.changes.front()
                && *place <= self.durable
                && let Some((_, change)) = history.changes.pop_front()
            {
                history.base.apply(&change);
            }
        }
        self.logs.retain(|_, history| history.base.exists || history.now.exists || !history.changes.is_empty());
    }

    /// The greatest place at which a crash may have cut the order, so that every log is what `fits` accepts; nothing
    /// before `least` is cut. Else what is wrong.
    pub fn find_cut(
        &self,
        least: u64,
        most: u64,
        found: &[TopicPartition],
        fits: &mut dyn FnMut(TopicPartition, &State) -> Result<(), String>,
    ) -> Result<u64, String> {
        if let Some(unknown) = found.iter().find(|id| !self.logs.contains_key(id)) {
            return Err(format!("{unknown} was never there"));
        }
        // For each log the ranges of places in which its state is the one found; the common ones are left over.
        let mut left = vec![(least, most)];
        for (id, history) in &self.logs {
            let is_found = found.contains(id);
            let mut state = history.base.clone();
            let mut ranges = Vec::new();
            let mut wrong = Vec::new();
            let mut from = 0;
            let mut changes = history.changes.iter().peekable();
            loop {
                let until = changes.peek().map_or(u64::MAX, |(place, _)| place - 1);
                if until >= least && from <= most {
                    let fitting = match (state.exists, is_found) {
                        (false, false) => Ok(()),
                        (true, false) => Err("it is gone".to_owned()),
                        _ => fits(*id, &state),
                    };
                    match fitting {
                        Ok(()) => ranges.push((from, until)),
                        Err(difference) => wrong.push(format!("after {from}: {difference}")),
                    }
                }
                let Some((place, change)) = changes.next() else { break };
                state.apply(change);
                from = *place;
            }
            let common: Vec<(u64, u64)> = left
                .iter()
                .flat_map(|(a, b)| ranges.iter().map(move |(from, until)| (*a.max(from), *b.min(until))))
                .filter(|(from, until)| from <= until)
                .collect();
            if common.is_empty() {
                return Err(format!(
                    "{id} is no state that may be left of {least}..={most} (others leave {left:?}, it fits {ranges:?}): {wrong:#?}"
                ));
            }
            left = common;
        }
        Ok(left.iter().map(|(_, until)| *until).max().expect("not empty"))
    }

    /// Everything after a place never was.
    pub fn cut_to(&mut self, place: u64) {
        for history in self.logs.values_mut() {
            history.changes.retain(|(at, _)| *at <= place);
            let mut now = history.base.clone();
            history.changes.iter().for_each(|(_, change)| now.apply(change));
            history.now = now;
        }
        self.queued = place;
        (self.attempted, self.written, self.durable) = (place, place, place);
        self.forget_before_durable();
    }

    /// The logs that exist after everything so far.
    pub fn existing(&self) -> Vec<TopicPartition> {
        self.logs.iter().filter(|(_, history)| history.now.exists).map(|(id, _)| *id).collect()
    }
}
