//! The thread that runs the controller: takes requests, decides them, proposes the facts, answers.
//!
//! One batch is outstanding at a time. Meanwhile requests queue; then all of them are decided, each on what the one
//! before it left behind, and proposed as one entry. An answer, refusals included, is given after that entry is
//! committed, applied and published, for it may rest on what the entry says.
//!
//! The thread has a runtime of its own: nothing the data plane does can delay it, and it delays nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerId, ClusterId, DirectoryId, Timestamp, TopicId, Uuid};
use stonelog_storage::disk::Disk;
use tokio::sync::{mpsc, oneshot};

use super::rules::{ConfigRules, Defaults};
use super::{
    Activation, ControllerRequest, ControllerResponse, Decision, Inputs, Reject, activation_records, apply_all,
    bootstrap_records, decide,
};
use crate::metadata::codec::Writer;
use crate::metadata::{MetadataImage, MetadataRecord, RecordBatch};
use crate::quorum::node::{ProposeError, QuorumNode, QuorumOptions, StartError};
use crate::quorum::publisher::{Published, Publisher};
use crate::quorum::type_config::{Outcome, Voter};
use crate::quorum::{ENTRY_BYTES_MAX, die};
use crate::runtime::clock::Clock;

/// Requests that wait while a batch is outstanding; who comes later waits for room.
const QUEUE_LEN_MAX: usize = 1024;
/// Requests decided into one entry.
const REQUESTS_PER_BATCH_MAX: usize = 256;
/// What a batch needs besides its records.
const BATCH_OVERHEAD_BYTES: usize = 64;

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

struct Submission {
    request: ControllerRequest,
    answer: oneshot::Sender<Result<ControllerResponse, ControllerError>>,
}

/// The metadata plane, for everybody else in the process. Usable from any thread and runtime.
#[derive(Clone)]
pub struct MetadataHandle {
    publisher: Arc<Publisher>,
    requests: mpsc::Sender<Submission>,
    stop: Arc<Stop>,
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

    /// Has a request decided. Returns after its facts are committed, applied and published.
    pub async fn submit(&self, request: ControllerRequest) -> Result<ControllerResponse, ControllerError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Submission { request, answer }).await.map_err(|_| ControllerError::Stopped)?;
        answered.await.map_err(|_| ControllerError::Stopped)?
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
            match Active::start(options, published).await {
                Ok(mut active) => {
                    // The starter is waiting.
                    drop(ready.send(Ok(())));
                    active.run(queue, stopped).await;
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
    Ok(MetadataHandle { publisher, requests, stop: Arc::new(stop) })
}

struct Active {
    node: QuorumNode,
    publisher: Arc<Publisher>,
    node_id: BrokerId,
    cluster_id: ClusterId,
    rules: Arc<dyn ConfigRules>,
    defaults: Defaults,
    clock: WallClock,
    entropy: Entropy,
}

/// What a request came to, to be answered when its entry is applied.
struct Pending {
    answer: oneshot::Sender<Result<ControllerResponse, ControllerError>>,
    outcome: Result<ControllerResponse, Reject>,
}

impl Active {
    async fn start(options: MetadataOptions, publisher: Arc<Publisher>) -> Result<Active, StartError> {
        let voter = Voter { directory: options.directory_id.0, host: String::new(), port: 0 };
        let quorum = QuorumOptions { disk: options.disk, directory: options.dir, node_id: options.node_id, voter };
        let node = QuorumNode::start_alone(quorum, publisher.clone()).await?;
        let active = Active {
            node,
            publisher,
            node_id: options.node_id,
            cluster_id: options.cluster_id,
            rules: options.rules,
            defaults: options.defaults,
            clock: options.clock,
            entropy: options.entropy,
        };
        let mut settled = active.settle_cluster().await;
        if settled.is_ok() {
            settled = active.record_defaults().await;
        }
        if let Err(error) = settled {
            active.node.stop().await;
            return Err(error);
        }
        active.publisher.publish_controller(Some(active.node_id));
        Ok(active)
    }

    /// Begins the cluster in an empty log; refuses the log of another one.
    async fn settle_cluster(&self) -> Result<(), StartError> {
        let image = self.publisher.image();
        if let Some(found) = image.cluster_id() {
            if *found == self.cluster_id {
                return Ok(());
            }
            return Err(StartError::OtherCluster { found: found.to_string(), expected: self.cluster_id.to_string() });
        }
        match self.propose(&image, bootstrap_records(&self.cluster_id)).await {
            Ok((_, Outcome::Applied)) => Ok(()),
            Ok((_, outcome)) => Err(StartError::Refused(format!("the first records were not applied: {outcome:?}"))),
            Err(error) => Err(StartError::Refused(error.to_string())),
        }
    }

    /// What holds for the whole cluster is as this controller's configuration has it before anything is decided.
    async fn record_defaults(&self) -> Result<(), StartError> {
        loop {
            let image = self.publisher.image();
            let Activation { records, goes_on: _ } = activation_records(&image, &*self.rules);
            if records.is_empty() {
                return Ok(());
            }
            match self.propose(&image, records).await {
                Ok((_, Outcome::Applied)) => {}
                Ok((_, outcome)) => return Err(StartError::Refused(format!("defaults were not applied: {outcome:?}"))),
                Err(error) => return Err(StartError::Refused(error.to_string())),
            }
        }
    }

    async fn run(&mut self, mut queue: mpsc::Receiver<Submission>, mut stopped: oneshot::Receiver<()>) {
        // A request that found no room in its batch is the first of the next.
        let mut held: Option<Submission> = None;
        loop {
            let first = match held.take() {
                Some(submission) => submission,
                None => tokio::select! {
                    biased;
                    _ = &mut stopped => return,
                    why = self.node.failed() => die(&why),
                    next = queue.recv() => match next {
                        Some(submission) => submission,
                        None => return,
                    },
                },
            };
            held = self.serve(first, &mut queue).await;
        }
    }

    /// Decides queued requests on a scratch image, proposes what they come to as one entry, answers.
    async fn serve(&mut self, first: Submission, queue: &mut mpsc::Receiver<Submission>) -> Option<Submission> {
        let image = self.publisher.image();
        let mut scratch = MetadataImage::clone(&image);
        let mut records = Vec::new();
        let mut bytes = BATCH_OVERHEAD_BYTES;
        let mut pending = Vec::new();
        let mut next = Some(first);
        while let Some(submission) = next {
            let outcome = self.decide(&scratch, &submission.request);
            let outcome = match outcome {
                Ok(decision) => {
                    let len = encoded_len(&decision.records);
                    if bytes + len > ENTRY_BYTES_MAX && !records.is_empty() {
                        next = Some(submission);
                        break;
                    }
                    if bytes + len > ENTRY_BYTES_MAX {
                        Err(Reject::new(
                            ErrorCode::PolicyViolation,
                            "Unable to perform excessively large batch operation.",
                        ))
                    } else {
                        bytes += len;
                        apply_all(&mut scratch, image.index() + 1, &decision.records)
                            .expect("a decision fits the image it was made on");
                        records.extend(decision.records);
                        if decision.goes_on {
                            // The rest comes in entries of its own, and the answer with the last of them.
                            next = Some(submission);
                            break;
                        }
                        Ok(decision.response)
                    }
                }
                Err(reject) => Err(reject),
            };
            pending.push(Pending { answer: submission.answer, outcome });
            next = if pending.len() < REQUESTS_PER_BATCH_MAX { queue.try_recv().ok() } else { None };
        }
        if records.is_empty() {
            answer_all(pending, Ok(image.index()));
        } else {
            let proposed = self.propose(&image, records).await;
            answer_all(pending, settled(proposed));
        }
        next
    }

    fn decide(&mut self, image: &MetadataImage, request: &ControllerRequest) -> Result<Decision, Reject> {
        let topic_ids: Vec<TopicId> = (0..request.topic_ids_needed()).map(|_| self.fresh_topic_id(image)).collect();
        let mut seed = [0; 8];
        (self.entropy)(&mut seed);
        let inputs = Inputs {
            cluster_id: &self.cluster_id,
            now: (self.clock)(),
            next_index: image.index() + 1,
            topic_ids: &topic_ids,
            seed: u64::from_be_bytes(seed),
            // A lone controller's broker has nobody to hand over to.
            moves_are_known: true,
            // The locks of the directories are this process's, so the incarnation before is no more.
            previous_is_gone: true,
            // It is the only voter, and its broker registered before anybody could ask.
            brokers_to_come: 0,
            defaults: &self.defaults,
            rules: &*self.rules,
        };
        decide(image, request, &inputs)
    }

    fn fresh_topic_id(&mut self, image: &MetadataImage) -> TopicId {
        loop {
            let mut bytes = [0; 16];
            (self.entropy)(&mut bytes);
            let id = Uuid::from_random(bytes);
            if image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }

    async fn propose(
        &self,
        image: &MetadataImage,
        records: Vec<MetadataRecord>,
    ) -> Result<(u64, Outcome), ProposeError> {
        let term = self.node.leading_term().ok_or(ProposeError::NotLeader(None))?;
        let batch = RecordBatch { base_index: image.index(), controller_term: term, created: (self.clock)(), records };
        self.node.propose(batch).await
    }
}

fn encoded_len(records: &[MetadataRecord]) -> usize {
    let mut out = Writer::new();
    for record in records {
        record.encode(&mut out);
    }
    out.finish().len()
}

fn settled(proposed: Result<(u64, Outcome), ProposeError>) -> Result<u64, ControllerError> {
    match proposed {
        Ok((index, Outcome::Applied)) => Ok(index),
        // Nothing was written, and nobody else writes: a retry decides on the right image.
        Ok((_, Outcome::Stale | Outcome::Nothing)) => Err(ControllerError::NotController(None)),
        Err(ProposeError::NotLeader(leader)) => Err(ControllerError::NotController(leader)),
        Err(ProposeError::Unknown) => Err(ControllerError::Unknown),
        Err(ProposeError::Ended) => Err(ControllerError::Stopped),
    }
}

fn answer_all(pending: Vec<Pending>, settled: Result<u64, ControllerError>) {
    for Pending { answer, outcome } in pending {
        let result = match &settled {
            Ok(index) => outcome.map(|response| response.settled_at(*index)).map_err(ControllerError::from),
            Err(error) => Err(error.clone()),
        };
        // Whoever asked may have gone.
        drop(answer.send(result));
    }
}

#[cfg(test)]
mod tests;
