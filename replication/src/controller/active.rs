//! The thread that runs the controller: takes requests, decides them, proposes the facts, answers.
//!
//! One batch is outstanding at a time. Meanwhile requests queue; then all of them are decided, each on what the one
//! before it left behind, and proposed as one entry. An answer, refusals included, is given after that entry is
//! committed, applied and published, for it may rest on what the entry says.
//!
//! The thread has a runtime of its own: nothing the data plane does can delay it, and it delays nothing.

mod asking;
mod candidacy;
mod join_options;
pub mod member;
mod serving;
mod voting;
mod waiting;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::JoinHandle;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, ClusterId, DirectoryId, Timestamp};
use stonelog_storage::disk::Disk;
use tokio::sync::{mpsc, oneshot};

use super::duties::SoftFacts;
use super::rules::{ConfigRules, Defaults};
use super::{ControllerRequest, ControllerResponse, Reject};
use crate::metadata::MetadataImage;
use crate::quorum::die;
use crate::quorum::node::{QuorumNode, QuorumOptions, REQUEST_WITHIN_DEFAULT, StartError};
use crate::quorum::publisher::{Published, Publisher};
use crate::quorum::standing::QuorumFacts;
use crate::quorum::type_config::Voter;
use crate::runtime::clock::Clock;
use asking::Elsewhere;
use serving::{Active, Waiting};

/// Requests that wait while a batch is outstanding; who comes later waits for room.
const QUEUE_LEN_MAX: usize = 1024;

/// Reads the wall clock.
pub type WallClock = Box<dyn Fn() -> Timestamp + Send>;
/// Fills bytes with randomness.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

/// What the metadata plane is started with.
pub struct MetadataOptions {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// `<log dir>/metadata`; its parent exists.
    pub dir: PathBuf,
    /// This node.
    pub node_id: BrokerId,
    /// The cluster, by `meta.properties`.
    pub cluster_id: ClusterId,
    /// The log directory that `dir` lies in, by its `meta.properties`.
    pub directory_id: DirectoryId,
    /// The rules of settings.
    pub rules: Arc<dyn ConfigRules>,
    /// What requests may leave unset.
    pub defaults: Defaults,
    /// The time; the system's unless a simulation has its own.
    pub clock: WallClock,
    /// Randomness; the system's unless a simulation has its own.
    pub entropy: Entropy,
}

impl MetadataOptions {
    /// Options with the system's clock and randomness.
    pub fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        node_id: BrokerId,
        cluster_id: ClusterId,
        directory_id: DirectoryId,
        rules: Arc<dyn ConfigRules>,
    ) -> MetadataOptions {
        MetadataOptions {
            disk,
            dir,
            node_id,
            cluster_id,
            directory_id,
            rules,
            defaults: Defaults::default(),
            clock: Box::new(|| Clock.wall()),
            entropy: Box::new(system_entropy),
        }
    }
}

fn system_entropy(bytes: &mut [u8]) {
    // Without randomness no id is unique; nothing may go on.
    getrandom::fill(bytes).expect("the system gives random bytes");
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// It was refused whole.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// This node is not the active controller; nothing was written.
    #[error("this node is not the active controller")]
    NotController(Option<BrokerId>),
    /// It may or may not have had its effect.
    #[error("the outcome is not known")]
    Unknown,
    /// The metadata plane has stopped.
    #[error("the metadata plane has stopped")]
    Stopped,
}

impl ControllerError {
    /// The code a client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            ControllerError::Rejected(reject) => reject.code,
            ControllerError::NotController(_) => ErrorCode::NotController,
            ControllerError::Unknown | ControllerError::Stopped => ErrorCode::RequestTimedOut,
        }
    }
}

/// A request and whom to answer.
struct Submission {
    request: ControllerRequest,
    answer: oneshot::Sender<Result<ControllerResponse, ControllerError>>,
    /// Who takes it over where this node is not the active controller.
    elsewhere: Option<Elsewhere>,
    /// Some of its facts are proposed already, in entries before the one that answers it.
    is_begun: bool,
}

impl Submission {
    /// One that is decided here or nowhere.
    fn new(
        request: ControllerRequest,
        answer: oneshot::Sender<Result<ControllerResponse, ControllerError>>,
    ) -> Submission {
        Submission { request, answer, elsewhere: None, is_begun: false }
    }

    /// This node does not lead any more. Nobody else is asked for what has begun here: it may have had some effect.
    fn give_up(self, leader: Option<BrokerId>) {
        let why = if self.is_begun { ControllerError::Unknown } else { ControllerError::NotController(leader) };
        self.answer(Err(why));
    }

    fn answer(mut self, result: Result<ControllerResponse, ControllerError>) {
        if let (Err(ControllerError::NotController(_)), Some(elsewhere)) = (&result, self.elsewhere.take()) {
            return elsewhere.take(self);
        }
        // Whoever asked may have gone.
        drop(self.answer.send(result));
    }
}

/// The metadata plane, for everybody else in the process. Usable from any thread and runtime.
#[derive(Clone)]
pub struct MetadataHandle {
    publisher: Arc<Publisher>,
    own_log: OwnLog,
    requests: mpsc::Sender<Submission>,
    elsewhere: Option<Elsewhere>,
    stop: Arc<Stop>,
}

/// The metadata log of this node's own, once it is a voter of several. A lone voter applies nothing that is not durable
/// here, and a node that does not vote promises nothing.
#[derive(Clone, Default)]
struct OwnLog(Arc<OnceLock<Weak<QuorumNode>>>);

impl OwnLog {
    fn is_of(&self, node: &Arc<QuorumNode>) {
        assert!(self.0.set(Arc::downgrade(node)).is_ok(), "a node becomes a voter once");
    }
}

/// Ends the thread, once.
struct Stop {
    signal: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MetadataHandle {
    /// The newest published image.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.publisher.image()
    }

    /// Every image in order, beginning with the newest one as a whole.
    pub fn subscribe(&self) -> mpsc::UnboundedReceiver<Published> {
        self.publisher.subscribe()
    }

    /// Has a request decided, here or wherever the active controller is. Returns after its facts are committed, applied,
    /// and published on this node.
    pub async fn submit(&self, request: ControllerRequest) -> Result<ControllerResponse, ControllerError> {
        let (answer, answered) = oneshot::channel();
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.arrivals.note(&request, 0);
        }
        let submission = Submission { elsewhere: self.elsewhere.clone(), ..Submission::new(request, answer) };
        self.requests.send(submission).await.map_err(|_| ControllerError::Stopped)?;
        answered.await.map_err(|_| ControllerError::Stopped)?
    }

    /// Returns when what this node has applied is durable in its own metadata log as well, if it votes. An entry is applied
    /// when a majority has it, and this node may be none of that.
    pub async fn keeps_what_it_applied(&self) -> Result<(), ControllerError> {
        let Some(node) = self.own_log.0.get() else { return Ok(()) };
        let node = node.upgrade().ok_or(ControllerError::Stopped)?;
        node.has_kept_what_it_applied().await.map_err(|_| ControllerError::Stopped)
    }

    /// The quorum as its leader knows it, asked of wherever that is.
    pub async fn describe_quorum(&self) -> Result<QuorumFacts, ControllerError> {
        match self.submit(ControllerRequest::DescribeQuorum).await? {
            ControllerResponse::DescribeQuorum(facts) => Ok(facts),
            _ => Err(ControllerError::Unknown),
        }
    }

    /// Returns when this node, which has voted, has been taken out of the quorum. It hears of no change of the metadata any
    /// more, and is to end: started again, it follows.
    pub async fn removed_from_quorum(&self) {
        self.publisher.removed().await;
    }

    /// Ends the metadata plane and waits for its thread. Requests that were not proposed yet are answered
    /// [`ControllerError::Stopped`].
    pub fn shut_down(self) {
        if let Some(signal) = self.stop.signal.lock().expect("no holder panics").take() {
            // The thread may have ended by itself.
            let _ = signal.send(());
        }
        if let Some(thread) = self.stop.thread.lock().expect("no holder panics").take() {
            thread.join().expect("the metadata thread does not panic");
        }
    }
}

/// Starts the metadata plane of a lone voter on a thread of its own. Returns once it leads and the newest image is
/// published, which for a new cluster holds its first records.
pub fn start(options: MetadataOptions) -> Result<MetadataHandle, StartError> {
    let publisher = Arc::new(Publisher::default());
    let (requests, queue) = mpsc::channel(QUEUE_LEN_MAX);
    let (signal, stopped) = oneshot::channel();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let published = publisher.clone();
    let thread = std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(StartError::Thread(error)))),
        };
        runtime.block_on(async {
            match start_alone(options, published).await {
                Ok(mut active) => {
                    // The starter is waiting.
                    drop(ready.send(Ok(())));
                    run_alone(&mut active, queue, stopped).await;
                    active.node.stop().await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    let outcome = is_ready.recv().unwrap_or_else(|_| Err(StartError::Refused("the thread ended".to_owned())));
    if let Err(error) = outcome {
        thread.join().expect("the metadata thread does not panic");
        return Err(error);
    }
    let stop = Stop { signal: Mutex::new(Some(signal)), thread: Mutex::new(Some(thread)) };
    Ok(MetadataHandle { publisher, own_log: OwnLog::default(), requests, elsewhere: None, stop: Arc::new(stop) })
}

/// Runs the controller of a lone voter.
async fn run_alone(active: &mut Active, mut queue: mpsc::Receiver<Submission>, mut stopped: oneshot::Receiver<()>) {
    // A request that found no room in its batch is the first of the next.
    let mut held: Option<Submission> = None;
    let mut own = VecDeque::new();
    loop {
        let first = match held.take() {
            Some(submission) => submission,
            None => tokio::select! {
                biased;
                _ = &mut stopped => return,
                why = active.node.failed() => die(&why),
                next = queue.recv() => match next {
                    Some(submission) => submission,
                    None => return,
                },
            },
        };
        let mut waiting = Waiting { own: &mut own, queue: &mut queue, admit: &mut Some };
        held = active.serve(first, &mut waiting, |_, _| SoftFacts::ALONE).await;
    }
}

async fn start_alone(options: MetadataOptions, publisher: Arc<Publisher>) -> Result<Active, StartError> {
    let voter = Voter { directory: options.directory_id.0, host: String::new(), port: 0 };
    let quorum = QuorumOptions {
        disk: options.disk.clone(),
        directory: options.dir.clone(),
        node_id: options.node_id,
        voter,
        request_within: REQUEST_WITHIN_DEFAULT,
    };
    let node = QuorumNode::start_alone(quorum, publisher.clone()).await?;
    let active = Active::new(Arc::new(node), publisher, options);
    if let Err(error) = active.begin().await {
        active.node.stop().await;
        return Err(error);
    }
    active.publisher.publish_controller(Some(active.node_id));
    Ok(active)
}

#[cfg(test)]
mod tests;
