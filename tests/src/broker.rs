//! One broker process that is started, killed and started again on the same port and directory.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;
use crate::power::sandbox::bound_to_us;

/// A broker that says neither `ready` nor goodbye for this long is stuck.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A broker that was told to stop and has not for this long is stuck.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
/// Lines of output kept for a report.
const LINES_KEPT: usize = 400;

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The executable.
    pub binary: PathBuf,
    /// Its data directory; made if it is not there.
    pub data_dir: PathBuf,
    /// The port of its only listener, on 127.0.0.1, unless `listeners` says otherwise.
    pub port: u16,
    /// Kafka's `listeners`, for a node of a cluster.
    pub listeners: Option<String>,
    /// Settings, `key=value`.
    pub settings: Vec<String>,
    /// Environment variables on top of the harness's own.
    pub environment: Vec<(String, String)>,
    /// Whether the kernel kills it when the harness ends, however that ends.
    pub dies_with_us: bool,
}

impl Spec {
    /// A broker on a port that is free now, and stays its own over restarts.
    pub fn new(binary: PathBuf, data_dir: PathBuf) -> Result<Spec> {
        let port = TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?.port();
        let (settings, environment) = (Vec::new(), Vec::new());
        Ok(Spec { binary, data_dir, port, listeners: None, settings, environment, dies_with_us: false })
    }

    /// Address for clients.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A running broker. Dropping it kills the process.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    ready: Receiver<()>,
    output: Output,
}

type Output = Arc<Mutex<Vec<String>>>;

impl Broker {
    /// Starts the process and does not wait for it.
    pub fn spawn(spec: &Spec) -> Result<Broker> {
        let command = if spec.dies_with_us { bound_to_us(&spec.binary) } else { Command::new(&spec.binary) };
        Broker::spawn_with(spec, command, None)
    }

    /// The same with a command that runs the executable, wherever that is; all output is added to `log` too.
    pub fn spawn_with(spec: &Spec, mut command: Command, log: Option<&Path>) -> Result<Broker> {
        let log = log.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        let logs = (log.as_ref().map(File::try_clone).transpose()?, log);
        command.arg("serve").arg("--data-dir").arg(&spec.data_dir);
        let listeners = spec.listeners.clone().unwrap_or_else(|| format!("PLAINTEXT://{}", spec.address()));
        command.arg("--set").arg(format!("listeners={listeners}"));
        for setting in &spec.settings {
            command.arg("--set").arg(setting);
        }
        command.envs(spec.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", spec.binary.display()))?;
        let output = Output::default();
        let (sender, ready) = channel();
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take().context("no standard error")?;
        keep_lines(stderr, logs.0, Arc::clone(&output), |_| ());
        keep_lines(stdout, logs.1, Arc::clone(&output), move |line| {
            if line == "ready" {
                // Nobody waits any more when the broker was killed while it started.
                let _ = sender.send(());
            }
        });
        Ok(Broker { child, ready, output })
    }

    /// Starts the process and waits for its `ready`.
    pub fn start(spec: &Spec) -> Result<Broker> {
        let mut broker = Broker::spawn(spec)?;
        broker.wait_ready()?;
        Ok(broker)
    }

    /// Waits for `ready`. Once.
    pub fn wait_ready(&mut self) -> Result<()> {
        match self.ready.recv_timeout(READY_WITHIN) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Timeout) => bail!("not ready after {READY_WITHIN:?}:\n{}", self.output()),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait()?;
                bail!("the broker ended instead of starting ({status}):\n{}", self.output())
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Fails when the process has ended by itself.
    pub fn expect_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the broker ended by itself ({status}):\n{}", self.output()),
        }
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill9(mut self) -> Result<()> {
        self.expect_running()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGKILL, if it has not ended by itself, and waits until the process is gone.
    pub fn end(mut self) -> Result<()> {
        // It may have ended already.
        let _ = self.child.kill();
        self.child.wait()?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn wait_ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = clock::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if clock::now() > deadline {
                bail!("still running after {within:?}:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        kill_process(self.pid(), Signal::TERM)?;
        let deadline = clock::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if clock::now() > deadline {
                bail!("still running {STOPPED_WITHIN:?} after SIGTERM:\n{}", self.output());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The newest lines that it has written.
    pub fn output(&self) -> String {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib << 10)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep_lines(
    from: impl Read + Send + 'static,
    mut log: Option<File>,
    output: Output,
    on_line: impl Fn(&str) + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            if let Some(log) = &mut log {
                // The log is for people; the run does not depend on it.
                let _ = writeln!(log, "{line}");
            }
            on_line(&line);
            let mut lines = output.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LINES_KEPT {
                lines.remove(0);
            }
            lines.push(line);
        }
    });
}
