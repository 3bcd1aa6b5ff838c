//! `stonelog consume`: prints records, of all or some partitions, alone or as a member of a group.

use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::format::{RecordFormat, print_json};
use super::interrupt::interrupted;
use super::output::Output;
use super::position::{Position, parse_position};
use crate::client::fetcher::{Fetched, Fetcher};
use crate::client::group_admin::Committed;
use crate::client::group_consumer::{GroupConsumer, Polled};
use crate::client::offsets::At;
use crate::client::{Cluster, Error, clock};
use stonelog_protocol::ErrorCode;

const POLL_WAIT: Duration = Duration::from_millis(500);
/// What a group has printed is committed this often.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// `stonelog consume …`
#[derive(Debug, Args)]
pub(super) struct Consume {
    /// Topics to read.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Where to start: start, end, 42, +10 (after the start), -10 (before the end), @-1h, @2026-01-31T12:00:00Z,
    /// @MILLISECONDS. In a group, only where nothing is committed (start or end).
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true, default_value = "start")]
    offset: String,
    /// Partitions to read; all if not given. May be repeated.
    #[arg(short, long = "partition", value_name = "NUMBER", conflicts_with = "group")]
    partitions: Vec<i32>,
    /// Read as a member of this consumer group, and commit what was printed.
    #[arg(short, long)]
    group: Option<String>,
    /// How a record is printed: %t topic, %p partition, %o offset, %k key, %v value, %h headers, %T timestamp in
    /// milliseconds, %% \n \t \r \0 \\.
    #[arg(short, long, value_parser = RecordFormat::parse, default_value = "%v\\n")]
    format: RecordFormat,
    /// Stop after so many records.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// Stop when everything that was there at the start has been read.
    #[arg(short, long)]
    exit_at_end: bool,
}

pub(super) async fn run(command: Consume, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let position =
        parse_position(&command.offset, clock::wall_ms()).map_err(|wrong| Failure::new(Exit::Usage, wrong))?;
    let mut ends = Committed::new();
    for topic in &command.topics {
        for (partition, (_, end)) in cluster.bounds(topic).await? {
            ends.insert((topic.clone(), partition), end);
        }
    }
    let mut reader = Reader { left: command.count, ends, output, command };
    match reader.command.group.clone() {
        Some(group) => reader.as_member(cluster, &group, position).await,
        None => reader.alone(cluster, position).await,
    }
}

struct Reader {
    command: Consume,
    output: Output,
    /// Records still to be printed; `None` for no limit.
    left: Option<u64>,
    /// Ends of the partitions when reading began.
    ends: Committed,
}

impl Reader {
    async fn alone(&mut self, cluster: &mut Cluster, position: Position) -> Result<Exit, Failure> {
        let mut fetcher = Fetcher::new();
        for topic in &self.command.topics {
            let known: Vec<i32> = cluster.topic(topic).await?.partitions.iter().map(|found| found.index).collect();
            if let Some(missing) = self.command.partitions.iter().find(|wanted| !known.contains(wanted)) {
                return Err(Failure::new(Exit::NotFound, format!("topic {topic} has no partition {missing}")));
            }
            let wanted = if self.command.partitions.is_empty() { &known } else { &self.command.partitions };
            for partition in wanted {
                fetcher.seek(topic, *partition, position.resolve(cluster, topic, *partition).await?);
            }
        }
        while !self.is_finished(fetcher.positions()) {
            let fetched = tokio::select! {
                fetched = fetcher.fetch(cluster, POLL_WAIT) => fetched,
                () = interrupted() => return Ok(Exit::Interrupted),
            };
            self.print(&fetched.map_err(out_of_range)?)?;
        }
        Ok(Exit::Done)
    }

    async fn as_member(&mut self, cluster: &mut Cluster, group: &str, position: Position) -> Result<Exit, Failure> {
        let reset = match position {
            Position::Start => At::Start,
            Position::End => At::End,
            Position::Time(ms) => At::Time(ms),
            _ => {
                let what =
                    "a group starts where it has committed; --offset can only say where to start without a commit";
                return Err(Failure::new(Exit::Usage, what).hint("use --offset start, end or @TIME"));
            }
        };
        let mut consumer = GroupConsumer::new(group, &self.command.topics, reset);
        let outcome = self.poll_as_member(cluster, &mut consumer).await;
        // Whether or not it went well: the others need not wait for the session to expire.
        let left = consumer.leave(cluster).await;
        let exit = outcome?;
        left?;
        Ok(exit)
    }

    async fn poll_as_member(&mut self, cluster: &mut Cluster, consumer: &mut GroupConsumer) -> Result<Exit, Failure> {
        let mut printed = Committed::new();
        let mut committed_at = clock::now();
        loop {
            let polled = tokio::select! {
                polled = consumer.poll(cluster, POLL_WAIT) => polled,
                () = interrupted() => {
                    commit(cluster, consumer, &mut printed).await?;
                    return Ok(Exit::Interrupted);
                }
            };
            match polled.map_err(out_of_range)? {
                Polled::Joined { generation, positions, .. } => {
                    printed.clear();
                    let count = positions.len();
                    note!("generation {generation} of the group: {count} partitions are read here");
                }
                Polled::Rebalancing => commit(cluster, consumer, &mut printed).await?,
                Polled::Records(fetched) => {
                    printed.append(&mut self.print(&fetched)?);
                    let finished = self.is_finished(consumer.positions()) && !consumer.positions().is_empty();
                    if finished || committed_at.elapsed() >= COMMIT_INTERVAL {
                        commit(cluster, consumer, &mut printed).await?;
                        committed_at = clock::now();
                    }
                    if finished {
                        return Ok(Exit::Done);
                    }
                }
            }
        }
    }

    fn is_finished(&self, positions: &Committed) -> bool {
        let at_end = |(key, position): (&(String, i32), &i64)| self.ends.get(key).is_none_or(|end| position >= end);
        self.left == Some(0) || (self.command.exit_at_end && positions.iter().all(at_end))
    }

    /// Prints records up to the count, and says up to where each partition has been printed.
    fn print(&mut self, fetched: &[Fetched]) -> Result<Committed, Failure> {
        let mut out = Vec::new();
        let mut printed = Committed::new();
        for Fetched { topic, partition, records, .. } in fetched {
            let count = self.left.map_or(records.len(), |left| records.len().min(left as usize));
            for record in &records[..count] {
                if self.output.is_json() {
                    print_json(topic, *partition, record, &mut out).map_err(std::io::Error::from)?;
                } else {
                    self.command.format.print(topic, *partition, record, &mut out);
                }
            }
            self.left = self.left.map(|left| left - count as u64);
            if let Some(last) = records[..count].last() {
                printed.insert((topic.clone(), *partition), last.offset + 1);
            }
        }
        if !out.is_empty() {
            self.output.bytes(&out)?;
        }
        Ok(printed)
    }
}

/// Commits what was printed. During a rebalance others may own the partitions by now: what they print again is theirs.
async fn commit(cluster: &mut Cluster, consumer: &mut GroupConsumer, printed: &mut Committed) -> Result<(), Failure> {
    if printed.is_empty() {
        return Ok(());
    }
    match consumer.commit(cluster, printed).await {
        Ok(()) => {
            printed.clear();
            Ok(())
        }
        Err(error) if error.is_retriable() => Ok(()),
        Err(error) => match error.code() {
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId) => Ok(()),
            _ => Err(error.into()),
        },
    }
}

fn out_of_range(error: Error) -> Failure {
    let outside = error.code() == Some(ErrorCode::OffsetOutOfRange);
    let failure = Failure::from(error);
    if outside { failure.hint("`stonelog topic describe TOPIC` shows where partitions start and end") } else { failure }
}
