//! Keyed records, transactions and whole compactions on the miniature lane, and what they must leave.

#![allow(dead_code, reason = "each test target uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use stonelog_protocol::batch::{BatchBuilder, BatchHeader, Compression, NewRecord, Records, crc_matches, open_records};
use stonelog_protocol::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Timestamp};
use stonelog_storage::Fault;
use stonelog_storage::compaction::{CompactionConfig, CompactionLimits, Mapped, Pace, Step, Totals};
use stonelog_storage::log::LogConfig;
use stonelog_storage::segment::delete::DeleteJob;

use crate::support::{Lane, NOW, Random};

pub(crate) const LIMITS: CompactionLimits =
    CompactionLimits { map_bytes_max: 1 << 20, map_load_factor: 0.9, hash_seeds: [7, 8] };

/// How long tombstones stay, in the tests.
pub(crate) const DELETE_RETENTION: Duration = Duration::from_millis(1_000);

/// Small segments, everything dirty is compacted.
pub(crate) fn config(segment_bytes: u32) -> LogConfig {
    LogConfig {
        segment_bytes,
        index_interval_bytes: 500,
        delete: false,
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            delete_retention: DELETE_RETENTION,
            ..CompactionConfig::default()
        }),
        ..LogConfig::default()
    }
}

/// Never waits.
pub(crate) struct Unpaced;

impl Pace for Unpaced {
    fn spent(&mut self, _: u64) -> bool {
        true
    }
}

/// Has room for so many bytes.
pub(crate) struct Room(pub(crate) u64);

impl Pace for Room {
    fn spent(&mut self, _: u64) -> bool {
        true
    }

    fn has_room(&mut self, bytes: u64) -> bool {
        bytes <= self.0
    }
}

/// Stops after so many calls.
pub(crate) struct Until(pub(crate) u32);

impl Pace for Until {
    fn spent(&mut self, _: u64) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) is_control: bool,
}

/// A batch of keyed records, all with one timestamp.
pub(crate) fn keyed(records: &[(&str, Option<&[u8]>)], compression: Compression, timestamp: i64) -> BatchBuilder {
    let mut builder = BatchBuilder::new().compressed(compression, None);
    for (key, value) in records {
        builder.push(NewRecord::new(Timestamp(timestamp), Some(key.as_bytes()), *value));
    }
    builder
}

/// Appends as a leader does; returns the base offset.
pub(crate) fn append(lane: &mut Lane, at: usize, batch: BatchBuilder) -> i64 {
    let bytes = BytesMut::from(&batch.build().unwrap()[..]);
    let header = BatchHeader::read(&bytes).unwrap();
    let ticket = lane.next_ticket();
    let epoch = lane.logs[at].latest_epoch().unwrap_or(LeaderEpoch(0));
    let appended = lane.logs[at].append_as_leader(bytes, &header, epoch, NOW, ticket).unwrap();
    lane.push(ticket, appended.entry.expect("not a duplicate"));
    appended.base_offset.0
}

/// Appends what a producer may not send: transactions and their markers.
pub(crate) fn append_made(lane: &mut Lane, at: usize, batch: BatchBuilder) -> i64 {
    let base = lane.logs[at].log_end();
    let epoch = lane.logs[at].latest_epoch().unwrap_or(LeaderEpoch(0));
    let ticket = lane.next_ticket();
    let bytes = batch.at(base, epoch).build().unwrap();
    let entry = lane.logs[at].append_as_follower(bytes.into(), epoch, NOW, ticket).unwrap();
    lane.push(ticket, entry);
    base.0
}

/// Data of a transaction.
pub(crate) fn in_transaction(
    lane: &mut Lane,
    at: usize,
    producer: i64,
    sequence: i32,
    records: &[(&str, Option<&[u8]>)],
) -> i64 {
    let batch = keyed(records, Compression::None, NOW.0);
    let batch = batch.by_producer(ProducerId(producer), ProducerEpoch(0), sequence).transactional();
    append_made(lane, at, batch)
}

/// A transaction's marker.
pub(crate) fn marker(lane: &mut Lane, at: usize, producer: i64, commits: bool) -> i64 {
    let key = [0, 0, 0, u8::from(commits)];
    let mut batch =
        BatchBuilder::new().by_producer(ProducerId(producer), ProducerEpoch(0), -1).transactional().control();
    batch.push(NewRecord::new(NOW, Some(&key), Some(&[0, 0, 0, 0, 0, 0])));
    append_made(lane, at, batch)
}

/// Everything appended becomes durable, goes to segments and under a checkpoint.
pub(crate) fn settle(lane: &mut Lane, at: usize) -> Result<(), Fault> {
    lane.commit()?;
    while lane.flush(at)? {}
    lane.checkpoint()
}

/// Ends the active segment, so that everything before may be compacted: with a key of its own.
pub(crate) fn roll(lane: &mut Lane, at: usize) {
    settle(lane, at).unwrap();
    let room = lane.config.segment_bytes as usize - 100;
    let filler = vec![1; room];
    append(lane, at, keyed(&[("filler", Some(&filler))], Compression::None, NOW.0));
    settle(lane, at).unwrap();
}

/// One whole compaction, if one is due. What it replaces is still there until the next checkpoint.
pub(crate) fn compact(lane: &mut Lane, at: usize, now: Timestamp) -> Result<Option<Totals>, Fault> {
    compact_up_to(lane, at, now, lane.logs[at].durable(), LIMITS, &mut Unpaced)
}

pub(crate) fn compact_up_to(
    lane: &mut Lane,
    at: usize,
    now: Timestamp,
    last_stable: Offset,
    limits: CompactionLimits,
    pace: &mut dyn Pace,
) -> Result<Option<Totals>, Fault> {
    if let Some(sweep) = lane.logs[at].plan_sweep(now, last_stable) {
        let done = sweep.run(&lane.access);
        lane.logs[at].on_swept(done.is_ok());
        done?;
    }
    let Some(job) = lane.logs[at].plan_compaction(now, last_stable, limits) else { return Ok(None) };
    let replica = job.replica;
    let done = run(lane, at, job, pace);
    let failed = matches!(done, Err(Fault::Damage { .. } | Fault::Foreign { .. }));
    let clean_end = done.as_ref().ok().and_then(|(clean_end, _)| *clean_end);
    lane.logs[at].on_compaction_ended(replica, clean_end, failed);
    // It may be asked at any time what files may go.
    if let Some(delete) = lane.logs[at].plan_deletes() {
        delete.run(&lane.access)?;
        lane.logs[at].on_deleted(&delete);
    }
    done.map(|(_, totals)| Some(totals))
}

fn run(
    lane: &mut Lane,
    at: usize,
    job: stonelog_storage::compaction::CompactJob,
    pace: &mut dyn Pace,
) -> Result<(Option<Offset>, Totals), Fault> {
    let access = Arc::clone(&lane.access);
    let Mapped::Ready(mut rewriting) = job.map_keys(&access, pace)? else { return Ok((None, Totals::default())) };
    loop {
        match rewriting.step(&access, pace)? {
            Step::Replace(done) => {
                if !lane.logs[at].on_compacted(&done) {
                    let delete = DeleteJob { partition: done.replica.partition, segments: vec![done.segment.name()] };
                    delete.run(&access)?;
                }
            }
            Step::Done(clean_end) => return Ok((Some(clean_end), rewriting.totals())),
            Step::Stopped | Step::NoRoom(_) => return Ok((None, rewriting.totals())),
        }
    }
}

/// Every record of the log from its files, each batch checked.
pub(crate) fn read(lane: &mut Lane, at: usize) -> Result<Vec<Seen>, Fault> {
    lane.logs[at].evict(0);
    let bytes = lane.read_all(at, lane.logs[at].log_start(), 3_000)?;
    let mut rest = &bytes[..];
    let mut seen: Vec<Seen> = Vec::new();
    while !rest.is_empty() {
        let header = BatchHeader::read(rest).unwrap();
        let (batch, more) = rest.split_at(header.batch_bytes);
        assert!(crc_matches(batch));
        let section = open_records(batch, &header, 1 << 20).unwrap();
        for record in Records::new(&section, header.records_count) {
            let record = record.unwrap();
            let offset = header.base_offset.0 + i64::from(record.offset_delta);
            assert!(seen.last().is_none_or(|last| last.offset < offset), "offsets rise");
            assert!(offset <= header.last_offset().0);
            seen.push(Seen {
                offset,
                timestamp: header.base_timestamp.0 + record.timestamp_delta,
                key: record.key.unwrap_or(b"").to_vec(),
                value: record.value.map(<[u8]>::to_vec),
                is_control: header.is_control(),
            });
        }
        rest = more;
    }
    Ok(seen)
}

/// Keys and values in order, without control records and the filler of [`roll`].
pub(crate) fn values(seen: &[Seen]) -> Vec<(i64, String, Option<String>)> {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
    seen.iter()
        .filter(|record| !record.is_control && record.key != b"filler")
        .map(|record| (record.offset, text(&record.key), record.value.as_ref().map(text)))
        .collect()
}

/// What was ever written, and which of it counts: a plain list and a plain map.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// Every data record that is committed, or in no transaction, by offset.
    pub(crate) committed: BTreeMap<i64, Seen>,
    /// Records of aborted and of open transactions.
    pub(crate) uncommitted: BTreeSet<i64>,
}

impl Model {
    /// Notes records appended at `base`.
    pub(crate) fn append(&mut self, base: i64, timestamp: i64, records: &[(String, Option<Vec<u8>>)]) {
        for (n, (key, value)) in records.iter().enumerate() {
            let offset = base + n as i64;
            let key = key.clone().into_bytes();
            let seen = Seen { offset, timestamp, key, value: value.clone(), is_control: false };
            self.committed.insert(offset, seen);
        }
    }

    /// The newest record of each key below `end`.
    fn newest(&self, end: i64) -> BTreeMap<&[u8], &Seen> {
        self.committed.range(..end).map(|(_, record)| (&record.key[..], record)).collect()
    }

    /// What is wrong with what was read of a log up to `end` that is clean up to `clean_end`. `tombstones_may_go`:
    /// compactions were far enough apart.
    pub(crate) fn difference(
        &self,
        read: &[Seen],
        end: i64,
        clean_end: i64,
        tombstones_may_go: bool,
    ) -> Option<String> {
        let data: Vec<&Seen> = read.iter().filter(|record| !record.is_control).collect();
        let found: BTreeMap<i64, &Seen> = data.iter().map(|record| (record.offset, *record)).collect();
        for record in &data {
            match self.committed.get(&record.offset) {
                Some(written) if written == *record => {}
                None if self.uncommitted.contains(&record.offset) && record.offset >= clean_end => {}
                other => return Some(format!("{record:?} was written as {other:?}")),
            }
        }
        for (key, newest) in self.newest(end) {
            let is_found = found.contains_key(&newest.offset);
            let may_go = tombstones_may_go && newest.value.is_none() && newest.offset < clean_end;
            if !is_found && !may_go {
                return Some(format!("the newest of {:?} is gone: {newest:?}", String::from_utf8_lossy(key)));
            }
            if !is_found && found.values().any(|record| record.key == key && record.offset < newest.offset) {
                return Some(format!("the tombstone {newest:?} went before what it deletes"));
            }
        }
        if let Some((_, lost)) = self.committed.range(clean_end..end).find(|(offset, _)| !found.contains_key(*offset)) {
            return Some(format!("not compacted yet, and gone: {lost:?}"));
        }
        None
    }

    /// Keys that occur more than once below the clean end.
    pub(crate) fn repeated(read: &[Seen], clean_end: i64) -> Vec<String> {
        let mut count: BTreeMap<&[u8], u32> = BTreeMap::new();
        let clean = read.iter().filter(|record| !record.is_control && record.offset < clean_end);
        clean.for_each(|record| *count.entry(&record.key).or_default() += 1);
        count.retain(|_, count| *count > 1);
        count.into_keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }
}

/// The segment files in a log's directory that the log does not name.
pub(crate) fn nameless_files(lane: &Lane, at: usize) -> Vec<String> {
    let log = &lane.logs[at];
    let directory = lane.access.path(std::path::Path::new(&log.key().partition.to_string()));
    let named: BTreeSet<String> = log
        .segments()
        .iter()
        .flat_map(|segment| {
            let stem = match segment.version {
                0 => format!("{:020}", segment.base.0),
                version => format!("{:020}.{version}", segment.base.0),
            };
            ["log", "sum", "index"].map(|extension| format!("{stem}.{extension}"))
        })
        .collect();
    let entries = lane.disk.list(&directory).unwrap();
    entries.into_iter().map(|entry| entry.name).filter(|name| !named.contains(name)).collect()
}

/// Keys and values.
type Pairs = Vec<(String, Option<Vec<u8>>)>;

/// Appends a few random records, now and then in a transaction; the model follows.
pub(crate) struct Writer {
    pub(crate) random: Random,
    pub(crate) keys_count: u64,
    pub(crate) model: Model,
    /// Producer, its next sequence, offsets and records of its open transaction.
    open: BTreeMap<i64, Vec<(i64, Pairs)>>,
    sequences: BTreeMap<i64, i32>,
    pub(crate) with_transactions: bool,
}

impl Writer {
    pub(crate) fn new(seed: u64, keys_count: u64, with_transactions: bool) -> Writer {
        Writer {
            random: Random(seed),
            keys_count,
            model: Model::default(),
            open: BTreeMap::new(),
            sequences: BTreeMap::new(),
            with_transactions,
        }
    }

    fn records(&mut self) -> Pairs {
        (0..=self.random.below(4))
            .map(|_| {
                let key = format!("key-{}", self.random.below(self.keys_count));
                let is_tombstone = self.random.below(6) == 0;
                let value = vec![self.random.next() as u8; 10 + self.random.below(60) as usize];
                (key, (!is_tombstone).then_some(value))
            })
            .collect()
    }

    pub(crate) fn append(&mut self, lane: &mut Lane, at: usize) {
        let records = self.records();
        let borrowed: Vec<(&str, Option<&[u8]>)> =
            records.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
        let codecs = [Compression::None, Compression::None, Compression::Lz4, Compression::Zstd, Compression::Gzip];
        let codec = codecs[self.random.below(5) as usize];
        let timestamp = NOW.0 - 5_000 + self.random.below(5_000) as i64;
        let producer = 100 + self.random.below(3) as i64;
        if self.with_transactions && self.random.below(3) == 0 {
            let sequence = self.sequence(producer, records.len());
            let base = in_transaction(lane, at, producer, sequence, &borrowed);
            self.model.uncommitted.extend((0..records.len() as i64).map(|n| base + n));
            self.open.entry(producer).or_default().push((base, records));
            return;
        }
        let mut batch = keyed(&borrowed, codec, timestamp);
        if self.random.below(3) == 0 {
            let plain = 1 + self.random.below(3) as i64;
            let sequence = self.sequence(plain, records.len());
            batch = batch.by_producer(ProducerId(plain), ProducerEpoch(0), sequence);
        }
        let base = append(lane, at, batch);
        self.model.append(base, timestamp, &records);
    }

    fn sequence(&mut self, producer: i64, records: usize) -> i32 {
        let next = self.sequences.entry(producer).or_default();
        let sequence = *next;
        *next += records as i32;
        sequence
    }

    /// Ends the oldest open transaction, if there is one.
    pub(crate) fn end_transaction(&mut self, lane: &mut Lane, at: usize) {
        let oldest = self.open.iter().min_by_key(|(_, batches)| batches[0].0).map(|(producer, _)| *producer);
        let Some(producer) = oldest else { return };
        let batches = self.open.remove(&producer).unwrap();
        let commits = self.random.below(2) == 0;
        marker(lane, at, producer, commits);
        if !commits {
            return;
        }
        for (base, records) in batches {
            for n in 0..records.len() as i64 {
                self.model.uncommitted.remove(&(base + n));
            }
            self.model.append(base, NOW.0, &records);
        }
    }

    /// Up to where no transaction is open.
    pub(crate) fn last_stable(&self, end: Offset) -> Offset {
        let first = self.open.values().filter_map(|batches| batches.first()).map(|(base, _)| Offset(*base)).min();
        first.unwrap_or(end).min(end)
    }
}
