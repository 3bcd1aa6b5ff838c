//! How `stonelog dev kill 2` reaches the process that runs the cluster: a socket in the data directory, one line of JSON
//! each way.
//!
//! Who may write to the directory may ask; the directory's permissions are the only guard, as they are of the data.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use stonelog_replication::runtime::lanes::spawn_here;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::cli::exit::{Exit, Failure};
use crate::cli::output::Output;

const SOCKET: &str = "dev.sock";
/// A request or an answer is a few lines of numbers.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// How long a connection may take to ask.
const ASKED_WITHIN: Duration = Duration::from_secs(5);

/// What is to be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Do {
    Kill,
    Pause,
    Resume,
    Start,
    Status,
}

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) verb: Do,
    /// Its number; without meaning for [`Do::Status`].
    pub(super) node: u16,
}

/// One answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Whether it was done.
    pub(super) done: bool,
    /// What happened, or why not.
    pub(super) message: String,
    /// All nodes as they are now.
    pub(super) nodes: Vec<NodeStatus>,
}

/// How a node is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) node: u16,
    /// `starting`, `running`, `paused`, `stopping`, or how it ended.
    pub(super) state: String,
    pub(super) pid: Option<u32>,
    pub(super) address: String,
    pub(super) data: PathBuf,
    pub(super) log: PathBuf,
}

/// A request, and where its answer goes.
pub(super) type Asked = (Request, oneshot::Sender<Answer>);

/// The socket of a cluster that runs.
pub(super) struct Control {
    listener: UnixListener,
    /// The listener's address goes through it.
    _directory: OwnedFd,
}

/// A socket's address has at most 107 bytes; this one is short whatever the directory's name is.
fn address(directory: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let open = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(SOCKET);
    Ok((open, path))
}

impl Control {
    /// Opens the socket. The caller holds the directory's lock, so what lies there is left from an earlier run.
    pub(super) fn open(directory: &Path) -> io::Result<Control> {
        let (open, path) = address(directory)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Control { listener: UnixListener::bind(&path)?, _directory: open })
    }

    /// Hands on what is asked, for ever.
    pub(super) async fn serve(self, asked: mpsc::Sender<Asked>) {
        // An error of accept is one of the connection, or a lack of descriptors, which passes.
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => drop(spawn_here(answer(stream, asked.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

async fn answer(stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(LINE_BYTES_MAX));
    if !matches!(tokio::time::timeout(ASKED_WITHIN, reader.read_line(&mut line)).await, Ok(Ok(_))) {
        return;
    }
    let answer = match serde_json::from_str::<Request>(&line) {
        Ok(request) => {
            let (sender, answer) = oneshot::channel();
            if asked.send((request, sender)).await.is_err() {
                return;
            }
            answer.await.unwrap_or_else(|_| refused("the cluster is being stopped"))
        }
        Err(_) => refused("not understood; is this another version of stonelog?"),
    };
    if let Ok(mut text) = serde_json::to_vec(&answer) {
        text.push(b'\n');
        // Whoever asked may have gone.
        let _ = writer.write_all(&text).await;
    }
}

fn refused(why: &str) -> Answer {
    Answer { done: false, message: why.to_owned(), nodes: Vec::new() }
}

/// Asks the cluster of a directory, and prints its answer.
pub(super) async fn ask(
    directory: &Path,
    request: &Request,
    within: Duration,
    output: Output,
) -> Result<Exit, Failure> {
    let late = |_| {
        let what = format!("no answer within {within:?}");
        Failure::new(Exit::TimedOut, what).hint("it is still being done; `stonelog dev status` shows how it ends")
    };
    let answer = tokio::time::timeout(within, exchange(directory, request)).await.map_err(late)?;
    let answer = answer.map_err(|_| {
        let what = format!("no cluster runs in {}", directory.display());
        let hint = format!("start it with `stonelog dev --data-dir {}`", directory.display());
        Failure::new(Exit::Precondition, what).hint(hint)
    })?;
    if !answer.done {
        return Err(Failure::new(Exit::Precondition, answer.message));
    }
    if output.is_json() {
        output.document("dev.status/1", &answer)?;
    } else if request.verb == Do::Status {
        let rows = answer.nodes.iter().map(|node| {
            let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            vec![node.node.to_string(), node.state.clone(), pid, node.address.clone(), node.log.display().to_string()]
        });
        output.table(&["node", "state", "pid", "address", "output"], &[0, 2], rows.collect())?;
    } else {
        output.line(&answer.message)?;
    }
    Ok(Exit::Done)
}

async fn exchange(directory: &Path, request: &Request) -> io::Result<Answer> {
    let (_open, path) = address(directory)?;
    let mut stream = UnixStream::connect(path).await?;
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
