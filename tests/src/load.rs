//! A `stonelog verify` process that loads a broker through all its restarts, and judges it at the end.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::clock;

/// A broker that acknowledges nothing for this long is not available.
const PROGRESS_WITHIN: Duration = Duration::from_secs(45);
/// How the history names an acknowledged batch.
const ACKED: &[u8] = br#""event":"acked""#;
/// How the history names an acknowledged offset commit.
const COMMITTED: &[u8] = br#""event":"commit_acked""#;

/// What is written and read.
#[derive(Clone, Debug)]
pub struct Spec {
    /// For messages.
    pub name: String,
    /// The executable.
    pub binary: PathBuf,
    /// Address of the broker.
    pub brokers: String,
    /// Settings of the topic, `key=value`.
    pub topic_settings: Vec<String>,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Idempotent producers.
    pub producers: u32,
    /// Consumer groups of two members.
    pub groups: u32,
    /// Where the history goes.
    pub directory: PathBuf,
}

/// The verdict of a checker.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Which load.
    pub name: String,
    /// Whether everything that was promised is there.
    pub is_sound: bool,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Acknowledged records that are not there.
    pub lost: u64,
    /// Offset commits acknowledged.
    pub commits: u64,
    /// What was found wrong: the checker's names.
    pub anomalies: Vec<String>,
    /// The report, for people.
    pub report: String,
}

/// A load under way. Dropping it kills the process.
#[derive(Debug)]
pub struct Load {
    spec: Spec,
    child: Child,
    history: PathBuf,
    progress: Progress,
}

impl Load {
    /// Starts the load; the broker is up.
    pub fn start(spec: Spec) -> Result<Load> {
        let history = spec.directory.join(format!("{}.history", spec.name));
        let mut command = Command::new(&spec.binary);
        command.args(["verify", "--output", "json", "--until-stdin-closes", "--patience", "60s", "--keep-topic"]);
        command.args(["--brokers", &spec.brokers]);
        command.args(["--partitions", &spec.partitions.to_string(), "--producers", &spec.producers.to_string()]);
        command.args(["--groups", &spec.groups.to_string(), "--members", "2"]);
        for setting in &spec.topic_settings {
            command.args(["--config", setting]);
        }
        command.arg("--history").arg(&history);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start {}", spec.binary.display()))?;
        Ok(Load { progress: Progress::new(&spec.name, &history), spec, child, history })
    }

    /// Waits until `batches` and offset `commits` have been acknowledged from now on; returns how long that took.
    pub fn wait_for(&mut self, batches: u64, commits: u64) -> Result<Duration> {
        self.progress.wait_for(&mut self.child, batches, commits)
    }

    /// Waits until nothing has been acknowledged for `time`; whether that came to be `within` so long.
    pub fn is_quiet_for(&mut self, time: Duration, within: Duration) -> Result<bool> {
        let (begun, mut since, mut seen) = (clock::now(), clock::now(), self.progress.batches);
        while since.elapsed() < time {
            if begun.elapsed() > within {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
            self.progress.read()?;
            if self.progress.batches > seen {
                (since, seen) = (clock::now(), self.progress.batches);
            }
        }
        Ok(true)
    }

    /// Ends the load and judges all of it. The broker is up.
    pub fn finish(mut self) -> Result<Verdict> {
        drop(self.child.stdin.take());
        let output = wait_with_output(&mut self.child)?;
        judge(&self.spec.name, &output, self.spec.groups > 0, &self.history)
    }
}

impl Load {
    /// Ends the load at once, whatever state it is in. Its history stays as it is.
    pub fn freeze(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends the load at once, whatever state it is in, and judges what its history tells so far. The broker is up.
    pub fn judge_now(mut self) -> Result<Verdict> {
        self.freeze()?;
        let mut command = Command::new(&self.spec.binary);
        command.args(["verify", "--output", "json", "--brokers", &self.spec.brokers]);
        let output = command.args(["--patience", "10s", "--check"]).arg(&self.history).output()?;
        judge(&self.spec.name, &output, false, &self.history)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the checker's JSON document.
pub(crate) fn judge(name: &str, output: &Output, with_groups: bool, history: &Path) -> Result<Verdict> {
    let (report, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let verdict: Value = serde_json::from_str(&report)
        .with_context(|| format!("{name} has no verdict ({}):\n{report}\n{errors}", output.status))?;
    let number = |field: &str| verdict[field].as_u64().with_context(|| format!("no {field} in {report}"));
    let anomalies = verdict["anomalies"].as_object().context("no anomalies in the verdict")?;
    let undrained = verdict["undrained_groups"].as_array().context("no undrained_groups in the verdict")?;
    let is_sound = output.status.success() && anomalies.is_empty() && undrained.is_empty();
    let (acknowledged, commits) = (number("acknowledged")?, number("commits")?);
    if acknowledged == 0 || (with_groups && commits == 0) {
        bail!("{name} proves nothing: {acknowledged} acknowledged, {commits} commits");
    }
    let lost = verdict["anomalies"]["lost"]["count"].as_u64().unwrap_or(0);
    let report = format!("{name}\n{report}{errors}history: {}", history.display());
    let anomalies = anomalies.keys().cloned().collect();
    Ok(Verdict { name: name.to_owned(), is_sound, acknowledged, lost, commits, anomalies, report })
}

/// Both streams to their ends, then the status. They are small: one JSON document and some notes.
fn wait_with_output(child: &mut Child) -> Result<Output> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr)?;
    }
    Ok(Output { status: child.wait()?, stdout, stderr })
}

/// What a history that grows says has been acknowledged.
#[derive(Debug)]
pub(crate) struct Progress {
    name: String,
    path: PathBuf,
    file: Option<File>,
    position: u64,
    /// The cut-off last line of what was read.
    rest: Vec<u8>,
    batches: u64,
    commits: u64,
}

impl Progress {
    /// Of the history at `path`, which need not exist yet.
    pub(crate) fn new(name: &str, path: &Path) -> Progress {
        let path = path.to_owned();
        Progress { name: name.to_owned(), path, file: None, position: 0, rest: Vec::new(), batches: 0, commits: 0 }
    }

    /// Waits until so many `batches` and `commits` have been added; the client that writes the history must live.
    pub(crate) fn wait_for(&mut self, child: &mut Child, batches: u64, commits: u64) -> Result<Duration> {
        let begun = clock::now();
        self.read()?;
        let wanted = (self.batches + batches, self.commits + commits);
        while self.batches < wanted.0 || self.commits < wanted.1 {
            if let Some(status) = child.try_wait()? {
                let output = wait_with_output(child)?;
                let report = String::from_utf8_lossy(&output.stdout).into_owned();
                let errors = String::from_utf8_lossy(&output.stderr);
                bail!("{} ended too early ({status}):\n{report}{errors}", self.name);
            }
            if begun.elapsed() > PROGRESS_WITHIN {
                let missing = (wanted.0.saturating_sub(self.batches), wanted.1.saturating_sub(self.commits));
                bail!("{}: after {PROGRESS_WITHIN:?}, (batches, commits) still missing: {missing:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(2));
            self.read()?;
        }
        Ok(begun.elapsed())
    }

    fn read(&mut self) -> Result<()> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.seek(SeekFrom::Start(self.position))?;
        self.position += file.read_to_end(&mut self.rest)? as u64;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in self.rest[..whole].split(|byte| *byte == b'\n') {
            let says = |what: &[u8]| line.windows(what.len()).any(|window| window == what);
            self.batches += u64::from(says(ACKED));
            self.commits += u64::from(says(COMMITTED));
        }
        self.rest.drain(..whole);
        Ok(())
    }
}
