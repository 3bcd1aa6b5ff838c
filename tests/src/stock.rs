//! A load by a stock client: librdkafka through confluent-kafka, as its compat suite installs it.
//!
//! `tests/stock/librdkafka.py` writes the same kind of history as `stonelog verify`, and the same checker judges it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::binary::repository;
use crate::load::{self, Progress, Verdict};

/// The suite whose installation is used.
const SUITE: &str = "confluent-kafka-python-";
/// What the checker calls it when a record is there twice: the first copy is not where the second was acknowledged.
const COPIES: [&str; 3] = ["duplicated", "wrong_offset", "changed"];
/// How the verdict says that groups have read everything.
const ALL_DRAINED: &str = r#""undrained_groups":[]"#;
/// For messages.
const NAME: &str = "stock client";

/// A stock client that writes and reads. Dropping it kills the process.
#[derive(Debug)]
pub struct StockClient {
    child: Child,
    /// Kept open: the client would end at its next line otherwise.
    _stdout: BufReader<ChildStdout>,
    version: String,
    history: PathBuf,
    progress: Progress,
}

impl StockClient {
    /// Starts the client against a broker that is up; `None` where its suite is not installed.
    pub fn start(brokers: &str, directory: &Path) -> Result<Option<StockClient>> {
        let Some(python) = python() else { return Ok(None) };
        let history = directory.join("stock.history");
        let mut command = Command::new(&python);
        command.arg(repository().join("tests/stock/librdkafka.py")).arg(brokers).arg(&history);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", python.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut version = String::new();
        stdout.read_line(&mut version)?;
        let version = version.trim_end().to_owned();
        Ok(Some(StockClient { child, _stdout: stdout, version, progress: Progress::new(NAME, &history), history }))
    }

    /// Names and versions of the client's parts.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Waits until `records` and offset `commits` have been acknowledged from now on; returns how long that took.
    pub fn wait_for(&mut self, records: u64, commits: u64) -> Result<Duration> {
        self.progress.wait_for(&mut self.child, records, commits)
    }

    /// Ends the client and judges what it did. The broker is up.
    pub fn finish(mut self, binary: &Path, brokers: &str) -> Result<Verdict> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the stock client failed ({status}); its history is {}", self.history.display());
        }
        let mut command = Command::new(binary);
        command.args(["verify", "--output", "json", "--brokers", brokers, "--check"]).arg(&self.history);
        let mut verdict = load::judge(NAME, &command.output()?, true, &self.history)?;
        if !verdict.is_sound && self.sent_twice_by_itself(&verdict) {
            println!("twice by the client itself, under a new epoch of its producer: {}", verdict.report);
            verdict.is_sound = true;
        }
        Ok(verdict)
    }

    /// Whether nothing but copies was found, and the client has said that it gave a producer a new epoch: see `Bumps` in
    /// the script.
    fn sent_twice_by_itself(&self, verdict: &Verdict) -> bool {
        let mut said = self.history.clone().into_os_string();
        said.push(".bumped");
        Path::new(&said).exists()
            && verdict.report.contains(ALL_DRAINED)
            && !verdict.anomalies.is_empty()
            && verdict.anomalies.iter().all(|anomaly| COPIES.contains(&anomaly.as_str()))
    }
}

impl Drop for StockClient {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter of the suite's installation.
fn python() -> Option<PathBuf> {
    let cache = match std::env::var_os("STONELOG_COMPAT_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/stonelog-compat"),
    };
    let entries = std::fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    let installed = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(SUITE)) && path.join(".installed").exists()
    };
    entries.filter(installed).map(|path| path.join("venv/bin/python")).find(|python| python.exists())
}
