//! `stonelog produce`: records from the command line or from standard input.
//!
//! What is acknowledged was acknowledged by the broker; the first record that is not ends the command. Lines that are
//! there together travel together, so a pipe is fast and a terminal is immediate.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde::Serialize;
use stonelog_protocol::batch::Compression;

use super::args::parse_pair;
use super::exit::{Exit, Failure};
use super::input::Lines;
use super::output::Output;
use super::progress;
use crate::client::batch::NewRecord;
use crate::client::partitioner::partition_of;
use crate::client::producer::{Acks, Batch, Outcome, Producer};
use crate::client::{Cluster, clock};

/// A batch is sent when it has so many bytes, well below the 1 MiB that brokers take by default.
const BATCH_BYTES: usize = 512 << 10;
/// Records that travel together, over all partitions.
const RECORDS_TOGETHER: usize = 10_000;

/// `stonelog produce …`
#[derive(Debug, Args)]
pub(super) struct Produce {
    /// Topic to write to.
    topic: String,
    /// Values, one record each. Without any, every line of standard input is a record.
    #[arg(value_name = "VALUE")]
    values: Vec<String>,
    /// Key of every record.
    #[arg(short, long, conflicts_with = "key_separator")]
    key: Option<String>,
    /// What separates the key from the value in a line or VALUE.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header of every record. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = parse_pair)]
    headers: Vec<(String, String)>,
    /// Compression of batches.
    #[arg(short = 'z', long, value_enum, default_value_t = Codec::None)]
    codec: Codec,
    /// Replicas that must have a record before it counts as written.
    #[arg(long, value_enum, allow_hyphen_values = true, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Partition to write to; else the key decides, and records without key take turns.
    #[arg(short, long)]
    partition: Option<i32>,
    /// Write null instead of empty values: on a compacted topic they delete their key.
    #[arg(long)]
    tombstones: bool,
}

/// Compression codecs by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    pub(super) fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}

/// Acknowledgements by Kafka's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AcksArg {
    /// Every in-sync replica.
    #[value(alias = "-1")]
    All,
    /// The leader.
    #[value(name = "1")]
    Leader,
    /// None: nothing is promised.
    #[value(name = "0")]
    None,
}

impl AcksArg {
    pub(super) fn acks(self) -> Acks {
        match self {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
            AcksArg::None => Acks::None,
        }
    }
}

pub(super) async fn run(command: Produce, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let topic = cluster.topic(&command.topic).await?;
    let partitions = topic.partitions.len() as i32;
    if let Some(partition) = command.partition
        && topic.partition(partition).is_none()
    {
        let what = format!("topic {} has no partition {partition}, only 0 to {}", topic.name, partitions - 1);
        return Err(Failure::new(Exit::NotFound, what));
    }
    let mut writer = Writer {
        producer: Producer::new(command.acks.acks(), command.codec.compression()),
        output,
        one_by_one: !command.values.is_empty() || output.is_json(),
        partitions,
        // Commands that write one record each would otherwise all write to the same partition.
        next_partition: (clock::wall_ms() % i64::from(partitions.max(1))) as i32,
        waiting: BTreeMap::new(),
        waiting_count: 0,
        acknowledged: 0,
        progress: ProgressBar::hidden(),
        command,
    };
    writer.run(cluster).await
}

/// Records for one partition that wait for company.
#[derive(Default)]
struct Queue {
    records: Vec<NewRecord>,
    bytes: usize,
}

struct Writer {
    command: Produce,
    producer: Producer,
    output: Output,
    /// Whether each record's place is printed.
    one_by_one: bool,
    partitions: i32,
    /// Where records without key go until the next batch.
    next_partition: i32,
    waiting: BTreeMap<i32, Queue>,
    waiting_count: usize,
    acknowledged: u64,
    progress: ProgressBar,
}

#[derive(Serialize)]
struct Written<'a> {
    topic: &'a str,
    partition: i32,
    offset: Option<i64>,
    timestamp: i64,
}

impl Writer {
    async fn run(&mut self, cluster: &mut Cluster) -> Result<Exit, Failure> {
        if self.command.values.is_empty() {
            self.copy_lines(cluster).await?;
        } else {
            for value in std::mem::take(&mut self.command.values) {
                self.add(value.into_bytes(), cluster).await?;
            }
            self.flush(cluster).await?;
        }
        self.progress.finish_and_clear();
        if !self.one_by_one {
            let verb = if self.command.acks == AcksArg::None { "sent" } else { "acknowledged" };
            self.output.line(&format!("{} records {verb} in topic {}", self.acknowledged, self.command.topic))?;
        }
        Ok(Exit::Done)
    }

    async fn copy_lines(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        if std::io::stdin().is_terminal() {
            note!("every line is a record; Ctrl-D ends");
        } else if !self.one_by_one {
            self.progress = progress::bar("written", None);
        }
        let mut lines = Lines::start();
        while let Some(line) = lines.next().await? {
            self.add(line, cluster).await?;
            while let Some(line) = lines.ready()? {
                self.add(line, cluster).await?;
            }
            self.flush(cluster).await?;
        }
        Ok(())
    }

    /// Queues one record, and sends what is queued when that is enough for a batch.
    async fn add(&mut self, line: Vec<u8>, cluster: &mut Cluster) -> Result<(), Failure> {
        let record = self.record(line)?;
        let partition = match (self.command.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, self.partitions),
            (None, None) => self.next_partition,
        };
        let queued = self.waiting.get(&partition).map_or(0, |queue| queue.bytes);
        if queued > 0 && queued + record.bytes() > BATCH_BYTES {
            self.flush(cluster).await?;
        }
        let queue = self.waiting.entry(partition).or_default();
        queue.bytes += record.bytes();
        queue.records.push(record);
        self.waiting_count += 1;
        if self.waiting_count >= RECORDS_TOGETHER {
            self.flush(cluster).await?;
        }
        Ok(())
    }

    fn record(&self, line: Vec<u8>) -> Result<NewRecord, Failure> {
        let line = Bytes::from(line);
        let (key, value) = match &self.command.key_separator {
            Some(separator) => {
                let at = find(&line, separator.as_bytes()).ok_or_else(|| {
                    let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
                    Failure::new(Exit::Usage, format!("`{shown}` holds no key separator `{separator}`"))
                        .hint("leave --key-separator out for records without keys")
                })?;
                (Some(line.slice(..at)), line.slice(at + separator.len()..))
            }
            None => (self.command.key.clone().map(Bytes::from), line),
        };
        let headers = self.command.headers.iter();
        let headers = headers.map(|(name, value)| (name.clone().into_bytes(), Some(value.clone().into_bytes())));
        Ok(NewRecord {
            timestamp_ms: clock::wall_ms(),
            key,
            value: Some(value).filter(|value| !(self.command.tombstones && value.is_empty())),
            headers: headers.collect(),
        })
    }

    async fn flush(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() {
            return Ok(());
        }
        self.waiting_count = 0;
        self.next_partition = (self.next_partition + 1) % self.partitions;
        let batch = |(partition, queue): (i32, Queue)| Batch {
            topic: self.command.topic.clone(),
            partition,
            records: queue.records,
        };
        let batches: Vec<Batch> = waiting.into_iter().map(batch).collect();
        let outcomes = self.producer.send(cluster, batches.clone()).await?;
        let mut failure = None;
        for (batch, outcome) in batches.iter().zip(outcomes) {
            let failed = match outcome {
                Outcome::Acked(base) => {
                    self.written(batch, base)?;
                    continue;
                }
                Outcome::Unanswered => {
                    self.written(batch, None)?;
                    continue;
                }
                Outcome::Failed(error) => Failure::from(error),
                Outcome::Unknown(error) => Failure::from(error).hint(
                    "the last batch may or may not have been stored; read the end of the topic before writing it again",
                ),
            };
            failure = failure.or(Some(failed));
        }
        match failure {
            None => Ok(()),
            Some(mut failure) => {
                self.progress.finish_and_clear();
                if self.acknowledged > 0 {
                    note!("{} records were acknowledged before this", self.acknowledged);
                    failure.exit = Exit::Partial;
                }
                Err(failure)
            }
        }
    }

    fn written(&mut self, batch: &Batch, base: Option<i64>) -> Result<(), Failure> {
        self.acknowledged += batch.records.len() as u64;
        self.progress.set_position(self.acknowledged);
        if !self.one_by_one {
            return Ok(());
        }
        let (topic, partition) = (batch.topic.as_str(), batch.partition);
        for (index, record) in batch.records.iter().enumerate() {
            let offset = base.map(|base| base + index as i64);
            if self.output.is_json() {
                self.output.json_line(&Written { topic, partition, offset, timestamp: record.timestamp_ms })?;
            } else {
                let offset = offset.map_or("sent".to_owned(), |offset| format!("offset {offset}"));
                self.output.line(&format!("{topic}-{partition} {offset}"))?;
            }
        }
        Ok(())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_counts() {
        assert_eq!(find(b"a::b::c", b"::"), Some(1));
        assert_eq!(find(b"abc", b"::"), None);
        assert_eq!(find(b"", b":"), None);
    }
}
