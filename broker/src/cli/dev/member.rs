//! One node's process: started, signalled, and what it says.
//!
//! Signals go through a process descriptor, which was opened while the process was certainly ours, so that none ever
//! reaches a stranger that got the same number. The kernel kills the process when the thread that started it ends.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc::Sender;

/// This very program, whatever has become of its file since.
const PROGRAM: &str = "/proc/self/exe";
/// Lines of errors kept for the message about a process that ended.
const LAST_LINES: usize = 8;
/// A longer line is cut into several.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// How a node is started.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) node: u16,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
    pub(super) settings: Vec<String>,
}

/// What a node's process does by itself. `life` counts the processes of a node.
#[derive(Debug)]
pub(super) enum Event {
    /// It said `ready`, and before that these lines.
    Ready { node: u16, life: u32, banner: Vec<String> },
    /// It wrote a warning or an error.
    Warned { node: u16, line: String },
    /// It has ended.
    Ended { node: u16, life: u32, ending: Ending },
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) status: ExitStatus,
    /// The last lines of its errors.
    pub(super) last: Vec<String>,
}

/// A process that runs, or has just ended.
#[derive(Debug)]
pub(super) struct Process {
    descriptor: OwnedFd,
    pub(super) pid: u32,
}

impl Process {
    /// Starts a node. To be called in the thread that is to outlive it.
    pub(super) fn spawn(spec: &Spec, life: u32, events: &Sender<Event>) -> io::Result<Process> {
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        let mut command = Command::new(PROGRAM);
        command.arg0("stonelog").arg("serve").arg("--data-dir").arg(&spec.data);
        command.arg("--ends-with").arg(std::process::id().to_string());
        for setting in &spec.settings {
            command.args(["--set", setting]);
        }
        // A group of its own: an interrupt from the terminal is for this process, which then stops the nodes in order.
        command.process_group(0).env("NO_COLOR", "1");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let pid = Pid::from_child(&child);
        let descriptor = pidfd_open(pid, PidfdFlags::empty())?;
        let (said, warned) = (child.stdout.take(), child.stderr.take());
        let (node, copy) = (spec.node, log.try_clone()?);
        let sender = events.clone();
        let mut banner = Some(Vec::new());
        let said = follow(said, copy, move |line| {
            let Some(lines) = &mut banner else { return };
            if line == "ready" {
                // Nobody listens any more when everything is being stopped by force.
                let banner = banner.take().unwrap_or_default();
                let _ = sender.blocking_send(Event::Ready { node, life, banner });
            } else {
                lines.push(line.to_owned());
            }
        })?;
        let sender = events.clone();
        let mut last = Vec::new();
        let warned = follow_with(warned, log, move |line| match line {
            Some(line) => {
                if is_warning(line) {
                    let _ = sender.blocking_send(Event::Warned { node, line: line.to_owned() });
                }
                if last.len() == LAST_LINES {
                    last.remove(0);
                }
                last.push(line.to_owned());
                Vec::new()
            }
            None => std::mem::take(&mut last),
        })?;
        let sender = events.clone();
        std::thread::Builder::new().name(format!("node-{node}")).spawn(move || {
            let ending = wait(child, said, warned);
            let _ = sender.blocking_send(Event::Ended { node, life, ending });
        })?;
        Ok(Process { descriptor, pid: pid.as_raw_nonzero().get().unsigned_abs() })
    }

    /// Sends a signal; one that has ended already takes none, which is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.descriptor, signal);
    }
}

/// What is worth a person's attention: the broker's log lines from warnings on, and errors that it ends with.
fn is_warning(line: &str) -> bool {
    line.contains(" WARN ") || line.contains(" ERROR ") || line.starts_with("error:")
}

fn wait(mut child: Child, said: JoinHandle<Vec<String>>, warned: JoinHandle<Vec<String>>) -> Ending {
    let last = warned.join().unwrap_or_default();
    let _ = said.join();
    // Only this thread waits for it, so there is a status.
    let status = child.wait().unwrap_or_default();
    Ending { status, last }
}

fn follow(
    from: Option<impl Read + Send + 'static>,
    log: std::fs::File,
    mut on_line: impl FnMut(&str) + Send + 'static,
) -> io::Result<JoinHandle<Vec<String>>> {
    follow_with(from, log, move |line| {
        if let Some(line) = line {
            on_line(line);
        }
        Vec::new()
    })
}

/// Copies every line into the log and hands it on, until the process closes its end; then hands on `None`.
fn follow_with(
    from: Option<impl Read + Send + 'static>,
    mut log: std::fs::File,
    mut on_line: impl FnMut(Option<&str>) -> Vec<String> + Send + 'static,
) -> io::Result<JoinHandle<Vec<String>>> {
    std::thread::Builder::new().name("output".into()).spawn(move || {
        let mut bytes = Vec::new();
        let mut from = from.map(BufReader::new);
        while let Some(from) = &mut from {
            bytes.clear();
            match from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&bytes);
            // A full disk does not silence the node on the terminal.
            let _ = log.write_all(format!("{}\n", line.trim_end()).as_bytes());
            on_line(Some(line.trim_end()));
        }
        on_line(None)
    })
}
