//! A [`super::writer`] process under test, and the lines that it leaves behind.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Pid;

use super::promises::Promises;
use super::sandbox::bound_to_us;
use crate::clock;

/// A writer that says nothing for this long is stuck.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// How writers are started.
#[derive(Clone, Debug)]
pub struct WriterSpec {
    /// The executable.
    pub binary: PathBuf,
    /// The log directory.
    pub directory: PathBuf,
    /// What its records are made from.
    pub seed: u64,
    /// The guard to switch off, in a build that has the switch.
    pub mutant: Option<&'static str>,
}

/// A running writer. Dropping it kills the process.
#[derive(Debug)]
pub struct WriterProcess {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<ChildStderr>,
}

impl WriterProcess {
    /// Starts the writer's next life.
    pub fn spawn(spec: &WriterSpec, life: u32, promises: &Promises, check: bool) -> Result<WriterProcess> {
        let mut command = bound_to_us(&spec.binary);
        command.arg("--directory").arg(&spec.directory);
        command.args(["--seed", &spec.seed.to_string(), "--life", &life.to_string(), "--promised", &promises.ends()]);
        if check {
            command.arg("--check");
        }
        if let Some(mutant) = spec.mutant {
            command.env("STONELOG_MUTANT", mutant);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start a writer")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let stderr = child.stderr.take();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            // A last line without its end was cut off in the middle: it was never said.
            while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
                let whole = line.trim_end().to_owned();
                line.clear();
                if sender.send(whole).is_err() {
                    return;
                }
            }
        });
        Ok(WriterProcess { child, lines, stderr })
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Hears what it says until `enough`, or until it has ended. Whether it was enough.
    pub fn hear_until(&self, promises: &mut Promises, enough: impl Fn(&Promises) -> bool) -> Result<bool> {
        while !enough(promises) {
            match self.lines.recv_timeout(HEARD_WITHIN) {
                Ok(line) => promises.hear(&line)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(enough(promises)),
                Err(RecvTimeoutError::Timeout) => bail!("the writer said nothing for {HEARD_WITHIN:?}"),
            }
        }
        Ok(true)
    }

    /// Hears what it says for this long.
    pub fn hear_for(&self, promises: &mut Promises, time: Duration) -> Result<()> {
        let deadline = clock::now() + time;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => promises.hear(&line)?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// SIGKILL, if it has not ended yet; hears all that it had said.
    pub fn kill(mut self, promises: &mut Promises) -> Result<()> {
        // It may have ended already.
        let _ = self.child.kill();
        self.end(promises).map(drop)
    }

    /// Waits for its end; hears all that it had said. Fails if it panicked.
    pub fn end(&mut self, promises: &mut Promises) -> Result<ExitStatus> {
        self.hear_until(promises, |_| false)?;
        let status = self.child.wait()?;
        let mut errors = String::new();
        if let Some(mut stderr) = self.stderr.take() {
            stderr.read_to_string(&mut errors)?;
        }
        if errors.contains("panicked") {
            bail!("the writer panicked: {errors}");
        }
        Ok(status)
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory that a writer uses on an image mounted at `mount_point`.
pub fn directory_on(mount_point: &Path) -> PathBuf {
    mount_point.join("data")
}
