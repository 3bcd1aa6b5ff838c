//! `stonelog verify`: the checker in the box.
//!
//! It writes records that say what they are, reads them with consumer groups, lives through restarts of the cluster,
//! and at the end holds everything that is there against everything that was asked and answered. It speaks the
//! protocol only, so it judges any Kafka-compatible cluster.
//!
//! The pieces are a library too, for tests that kill brokers: make a [`Header`], a [`Recorder`] and a [`Plan`]; call
//! [`run_workload`] inside a `tokio::task::LocalSet`, and let its `stop` channel turn true when enough has happened; then
//! [`scan`] with the recorder's checker, and read the [`Verdict`].

pub mod check;
pub mod history;
mod observe;
pub mod recorder;
mod report;
pub mod scan;
pub mod value;
pub mod verdict;
pub mod workload;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;

use super::args::{Global, parse_duration};
use super::exit::{Exit, Failure};
use super::interrupt::interrupted;
use super::output::Output;
use super::produce::{AcksArg, Codec};
use super::progress;
use crate::client::admin::NewTopic;
use crate::client::{Cluster, Settings};
pub use check::Checker;
pub use history::{Event, Header, HistoryReader, HistoryWriter};
pub use recorder::Recorder;
pub use scan::scan;
pub use verdict::{Anomaly, Verdict};
pub use workload::{Plan, run_workload};

/// `stonelog verify …`
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Topic to write to. Without it a new one is created, which is judged more strictly: nothing else may be in it.
    #[arg(long)]
    topic: Option<String>,
    /// Partitions of a topic that is created.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
    /// Replicas of a topic that is created; the cluster's default if not given.
    #[arg(long)]
    replicas: Option<i16>,
    /// A setting of a topic that is created. May be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = super::args::parse_pair)]
    configs: Vec<(String, String)>,
    /// Stop after so many records [default: 100000, unless another end is given].
    #[arg(long)]
    records: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop when standard input is closed.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Producers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// Consumer groups.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    groups: u32,
    /// Members of each group.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    members: u32,
    /// Replicas that must have a record before it counts as written.
    #[arg(long, value_enum, allow_hyphen_values = true, default_value_t = AcksArg::All)]
    acks: AcksArg,
    /// Compression of batches.
    #[arg(long, value_enum, default_value_t = Codec::None)]
    codec: Codec,
    /// Most records in one batch.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_records: u32,
    /// Size of a value.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=900_000))]
    value_bytes: u32,
    /// How long a cluster that is out of reach is waited for: 500ms, 60s, 5m.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "60s")]
    patience: Duration,
    /// Write the history to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Only run the workload and write the history; `--check` judges it later.
    #[arg(long, requires = "history")]
    workload_only: bool,
    /// Judge a history written earlier: run no workload, only the final scan.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["history", "topic", "records", "seconds"])]
    check: Option<PathBuf>,
    /// Keep a topic that was created for this run.
    #[arg(long)]
    keep_topic: bool,
}

/// Longest wait for one answer: a broker that is killed is noticed at once, one that hangs after this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Records written when no end is given.
const RECORDS: u64 = 100_000;

pub(super) async fn run(command: Verify, global: &Global, output: Output) -> Result<Exit, Failure> {
    let settings = Settings {
        brokers: global.brokers.clone(),
        client_id: "stonelog-verify".to_owned(),
        request_timeout: REQUEST_TIMEOUT.min(global.timeout),
        retry_for: command.patience,
        retry_unreachable: true,
    };
    if let Some(path) = &command.check {
        let (header, events) = HistoryReader::open(path).map_err(|error| unreadable(path, &error))?;
        let mut checker = Checker::new(&header);
        for event in events {
            checker.on_event(&event.map_err(|error| unreadable(path, &error))?);
        }
        return judge(checker, &settings, output).await;
    }
    command.run_workload(&settings, global, output).await
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Failed };
    Failure::new(exit, format!("history {}: {error}", path.display()))
}

impl Verify {
    async fn run_workload(self, settings: &Settings, global: &Global, output: Output) -> Result<Exit, Failure> {
        let run = new_run_id()?;
        // Whether there is a cluster at all is wanted at once; only later is its absence waited out.
        let impatient = Settings { retry_for: global.timeout, retry_unreachable: false, ..settings.clone() };
        let (header, plan) = self.prepare(&mut Cluster::new(impatient), run).await?;
        let file =
            match &self.history {
                Some(path) => Some(HistoryWriter::create(path, &header).map_err(|error| {
                    Failure::new(Exit::Precondition, format!("history {}: {error}", path.display()))
                })?),
                None => None,
            };
        let recorder = Recorder::new(&header, file);
        let (stop, stopped) = watch::channel(false);
        note!("run {}: topic {}, {} producers, {} groups", header.run, header.topic, plan.producers, plan.groups.len());
        let work = run_workload(&plan, settings, &recorder, stopped);
        let outcome = watch_over(work, &recorder, plan.records, self.stop_signal(), stop).await;
        let checker = recorder.into_checker()?;
        if let Err(error) = outcome {
            let failure = Failure::from(error);
            return Err(match &self.history {
                Some(path) => {
                    failure.hint(format!("once the cluster is back: stonelog verify --check {}", path.display()))
                }
                None => failure,
            });
        }
        if self.workload_only {
            note!("the workload is over; judge it with --check");
            if output.is_json() {
                output.document("verify.workload/1", &header)?;
            }
            return Ok(Exit::Done);
        }
        let exit = judge(checker, settings, output).await?;
        // Evidence of damage is never deleted.
        if header.exclusive && self.topic.is_none() && !self.keep_topic && self.history.is_none() && exit == Exit::Done
        {
            Cluster::new(settings.clone()).delete_topic(&header.topic).await?;
        }
        Ok(exit)
    }

    async fn prepare(&self, cluster: &mut Cluster, run: String) -> Result<(Header, Plan), Failure> {
        let topic = self.topic.clone().unwrap_or_else(|| format!("stonelog-verify-{run}"));
        let found = match &self.topic {
            Some(name) => cluster.topic(name).await.ok(),
            None => None,
        };
        let (partitions, exclusive) = match found {
            Some(found) => (found.partitions.len() as i32, false),
            None => {
                // What the run writes stays until the run has judged it.
                let mut configs: Vec<(String, String)> = [("retention.ms", "-1"), ("retention.bytes", "-1")]
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into();
                configs.extend(self.configs.iter().cloned());
                let (partitions, replicas) = (Some(self.partitions), self.replicas);
                let new = NewTopic { name: topic.clone(), partitions, replicas, configs, dry_run: false };
                cluster.create_topic(&new).await?;
                (self.partitions, true)
            }
        };
        let groups: Vec<String> = (0..self.groups).map(|number| format!("stonelog-verify-{run}-{number}")).collect();
        let endless = self.seconds.is_some() || self.until_stdin_closes;
        let plan = Plan {
            run: run.clone(),
            topic: topic.clone(),
            partitions,
            producers: self.producers,
            groups: groups.clone(),
            members: self.members,
            records: self.records.or((!endless).then_some(RECORDS)),
            batch_records_max: self.batch_records,
            value_bytes: self.value_bytes as usize,
            acks: self.acks.acks(),
            compression: self.codec.compression(),
            drain: self.patience,
        };
        Ok((Header::new(run, topic, partitions, exclusive, groups), plan))
    }

    /// Completes when the time is over, standard input is closed, or the process is asked to end.
    async fn stop_signal(&self) {
        let (sender, mut closed) = watch::channel(false);
        if self.until_stdin_closes {
            std::thread::spawn(move || {
                let mut ignored = [0; 1024];
                while std::io::stdin().read(&mut ignored).is_ok_and(|read| read > 0) {}
                sender.send_replace(true);
            });
        }
        let over = async {
            match self.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        let closes = async {
            if closed.wait_for(|closed| *closed).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = over => {}
            () = closes => {}
            () = interrupted() => note!("stopping; what was written is still judged"),
        }
    }
}

/// Sixteen hexadecimal digits that no other run has.
fn new_run_id() -> Result<String, Failure> {
    let random = getrandom::u64().map_err(|error| Failure::new(Exit::Failed, format!("no randomness: {error}")))?;
    Ok(format!("{random:016x}"))
}

/// Shows what is acknowledged while `work` goes on, and tells it to `stop` when `ends` completes.
async fn watch_over<T>(
    work: impl Future<Output = T>,
    recorder: &Recorder,
    total: Option<u64>,
    ends: impl Future<Output = ()>,
    stop: watch::Sender<bool>,
) -> T {
    let bar = progress::bar("acknowledged", total);
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tokio::pin!(work, ends);
    loop {
        tokio::select! {
            outcome = &mut work => {
                bar.finish_and_clear();
                return outcome;
            }
            () = &mut ends, if !*stop.borrow() => drop(stop.send_replace(true)),
            _ = tick.tick(), if !bar.is_hidden() => bar.set_position(recorder.acknowledged()),
        }
    }
}

async fn judge(mut checker: Checker, settings: &Settings, output: Output) -> Result<Exit, Failure> {
    let bar = progress::bar("read back", Some(0));
    let scanned = scan(&mut Cluster::new(settings.clone()), &mut checker, &bar).await;
    bar.finish_and_clear();
    scanned?;
    let verdict = checker.verdict();
    match report::print(&verdict, output) {
        // Whoever stopped reading the report still learns from the exit code.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        printed => printed?,
    }
    Ok(if verdict.is_sound() { Exit::Done } else { Exit::Integrity })
}
