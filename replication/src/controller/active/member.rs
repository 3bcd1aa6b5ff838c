//! A node of several: finds its cluster, votes or follows, and is the active controller for as long as it leads.
//!
//! It enters in two steps, because the cluster's id must be durable in between: [`join`] looks for a cluster, or forms
//! one with the others (rule 13); [`Joining::enter`] takes part. Who leads is the quorum's to say; what an active
//! controller does unasked is decided in [`crate::controller::duties`], and run here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use stonelog_protocol::peer::probe::{ListedVoter, ProbeAnswer};
use stonelog_protocol::peer::proof::Identity;
use stonelog_protocol::{BrokerId, ClusterId};
use stonelog_storage::log_dir::MemberMark;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::asking::{Arrivals, Elsewhere, Looking, News};
use super::candidacy::Candidacy;
pub use super::join_options::{ClusterOptions, JoinError, JoinOptions};
use super::serving::Active;
use super::voting::{Soft, hand_over};
use super::waiting::say_what_is_waited_for;
use super::{ControllerError, MetadataHandle, MetadataOptions, OwnLog, QUEUE_LEN_MAX, Stop, Submission};
use crate::quorum::bootstrap::{Bootstrap, OldLog, OnDisk, Step};
use crate::quorum::controllers::Controllers;
use crate::quorum::die;
use crate::quorum::form::{ask_servers, find_cluster};
use crate::quorum::link::Target;
use crate::quorum::log_store;
use crate::quorum::node::{QuorumNode, QuorumOptions, StartError as QuorumError};
use crate::quorum::observer::Observer;
use crate::quorum::publisher::{Published, Publisher};
use crate::quorum::replaced;
use crate::quorum::services::NodeServices;
use crate::quorum::type_config::Voter;
use crate::runtime::peers::{Door, TcpDialer};
use crate::runtime::streams::{PROVED_LEN_MAX, ProvedSocket};

/// What replica streams need of the way to other nodes: see [`crate::runtime::streams::start`].
pub struct StreamLinks {
    /// Dials and proves.
    pub dialer: TcpDialer,
    /// Connections for streams that others have dialed.
    pub accepted: mpsc::Receiver<ProvedSocket>,
}

/// The cluster that a node enters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its id.
    pub id: ClusterId,
    /// It is being formed, and this node is one of those that form it.
    pub is_new: bool,
}

/// A node on its way into a cluster.
pub struct Joining {
    found: oneshot::Receiver<Result<FoundCluster, JoinError>>,
    enter: oneshot::Sender<MetadataOptions>,
    entered: oneshot::Receiver<Result<Elsewhere, JoinError>>,
    links: oneshot::Receiver<StreamLinks>,
    publisher: Arc<Publisher>,
    own_log: OwnLog,
    requests: mpsc::Sender<Submission>,
    stop: Stop,
}

/// Starts the metadata plane of a node of several, on a thread of its own, and looks for its cluster.
pub fn join(options: JoinOptions) -> Result<Joining, JoinError> {
    let publisher = Arc::new(Publisher::default());
    let (requests, queue) = mpsc::channel(QUEUE_LEN_MAX);
    let (signal, stopped) = oneshot::channel();
    let (found_sender, found) = oneshot::channel();
    let (enter, entering) = oneshot::channel();
    let (entered_sender, entered) = oneshot::channel();
    let (links_sender, links) = oneshot::channel();
    let start = Start { found: found_sender, entering, entered: entered_sender, links: links_sender };
    let (published, own_requests) = (publisher.clone(), requests.clone());
    let own_log = OwnLog::default();
    let log = own_log.clone();
    let thread = std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(start.found.send(Err(error.into()))),
        };
        runtime.block_on(live(options, published, log, own_requests, queue, stopped, start));
    })?;
    let stop = Stop { signal: Mutex::new(Some(signal)), thread: Mutex::new(Some(thread)) };
    Ok(Joining { found, enter, entered, links, publisher, own_log, requests, stop })
}

impl Joining {
    /// Waits until there is a cluster; its id is to be made durable before the node enters. Says in the log why it takes
    /// time.
    pub async fn found(&mut self) -> Result<FoundCluster, JoinError> {
        (&mut self.found).await.unwrap_or(Err(JoinError::Ended))
    }

    /// Takes part from here on.
    pub fn enter(self, options: MetadataOptions) -> Entering {
        // A thread that has ended says why.
        drop(self.enter.send(options));
        let Joining { entered, links, publisher, own_log, requests, stop, .. } = self;
        Entering { entered, links, publisher, own_log, requests, stop }
    }
}

/// A node that takes part, and may not know yet who leads.
pub struct Entering {
    entered: oneshot::Receiver<Result<Elsewhere, JoinError>>,
    links: oneshot::Receiver<StreamLinks>,
    publisher: Arc<Publisher>,
    own_log: OwnLog,
    requests: mpsc::Sender<Submission>,
    stop: Stop,
}

impl Entering {
    /// Returns when somebody leads and this node knows its cluster. It may not have applied everything that was committed
    /// before: whoever must know asks for [`ControllerRequest::ReadBarrier`](crate::controller::ControllerRequest).
    pub async fn entered(self) -> Result<(MetadataHandle, StreamLinks), JoinError> {
        let Entering { entered, links, publisher, own_log, requests, stop } = self;
        let elsewhere = entered.await.unwrap_or(Err(JoinError::Ended))?;
        let links = links.await.map_err(|_| JoinError::Ended)?;
        let (elsewhere, stop) = (Some(elsewhere), Arc::new(stop));
        Ok((MetadataHandle { publisher, own_log, requests, elsewhere, stop }, links))
    }
}

/// The thread's ends of the way in.
struct Start {
    found: oneshot::Sender<Result<FoundCluster, JoinError>>,
    entering: oneshot::Receiver<MetadataOptions>,
    entered: oneshot::Sender<Result<Elsewhere, JoinError>>,
    links: oneshot::Sender<StreamLinks>,
}

/// What takes part in the quorum.
pub(super) enum Part {
    Voter(Active),
    /// `None` while it becomes a voter.
    Observer(Option<Box<Observing>>),
}

/// A node that does not vote yet.
pub(super) struct Observing {
    /// The membership names it.
    added: oneshot::Receiver<()>,
    candidacy: Candidacy,
}

/// A node that has found its cluster.
pub(super) struct Member {
    pub(super) part: Part,
    pub(super) publisher: Arc<Publisher>,
    services: Arc<NodeServices>,
    pub(super) leaders: watch::Sender<Option<BrokerId>>,
    pub(super) soft: Soft,
    /// Connects back to brokers.
    pub(super) looking: Looking,
    pub(super) news: mpsc::UnboundedReceiver<News>,
    pub(super) news_sender: mpsc::UnboundedSender<News>,
    /// Accepting, forwarding, observing, connecting back.
    pub(super) tasks: JoinSet<()>,
}

/// Says once that this node is part of the cluster: it knows who leads, and what was committed before.
pub(super) struct Entered {
    sender: Option<(oneshot::Sender<Result<Elsewhere, JoinError>>, Elsewhere)>,
    /// Says what is waited for until then.
    waiting: AbortHandle,
}

impl Entered {
    pub(super) fn say(&mut self) {
        if let Some((sender, elsewhere)) = self.sender.take() {
            self.waiting.abort();
            // The starter is waiting.
            drop(sender.send(Ok(elsewhere)));
        }
    }
}

async fn live(
    options: JoinOptions,
    publisher: Arc<Publisher>,
    own_log: OwnLog,
    requests: mpsc::Sender<Submission>,
    queue: mpsc::Receiver<Submission>,
    mut stopped: oneshot::Receiver<()>,
    start: Start,
) {
    let Start { found, entering, entered, links } = start;
    let mut seeker = match Seeker::begin(options, publisher).await {
        Ok(seeker) => seeker,
        Err(error) => return drop(found.send(Err(error))),
    };
    // Who dials before the lanes take it over waits; the starter has not gone.
    drop(links.send(seeker.stream_links()));
    let step = tokio::select! {
        step = seeker.seek() => step,
        _ = &mut stopped => return,
    };
    let (step, cluster) = match step {
        Ok(found) => found,
        Err(error) => return drop(found.send(Err(error))),
    };
    // The starter is waiting, and makes the id durable.
    let forms = matches!((&step, &seeker.on_disk), (Step::Vote(_), OnDisk::Empty | OnDisk::Formatted(_)));
    let is_new = forms || matches!(step, Step::Initialize { .. });
    drop(found.send(Ok(FoundCluster { id: cluster.clone(), is_new })));
    let Ok(metadata) = entering.await else { return };
    let (dialer, listed) = (seeker.dialer.clone(), seeker.voters.clone());
    let (mut member, elsewhere) = match seeker.enter(step, cluster, metadata, own_log, requests).await {
        Ok(entered) => entered,
        Err(error) => return drop(entered.send(Err(error))),
    };
    let node = match &member.part {
        Part::Voter(active) => Some(active.node.clone()),
        Part::Observer(_) => None,
    };
    let waiting = member.tasks.spawn(say_what_is_waited_for(node, listed, dialer));
    let entered = Entered { sender: Some((entered, elsewhere)), waiting };
    tokio::select! {
        () = member.run(queue, entered) => {}
        // Nothing that is under way is waited for: who asked is answered that it stopped.
        _ = stopped => {}
    }
    member.stop().await;
}

/// A node that looks for its cluster.
struct Seeker {
    options: JoinOptions,
    publisher: Arc<Publisher>,
    services: Arc<NodeServices>,
    known: watch::Sender<Identity>,
    dialer: TcpDialer,
    tasks: JoinSet<()>,
    /// Open already if there was a log.
    node: Option<QuorumNode>,
    on_disk: OnDisk,
    /// Where voters are, as far as it is known before the membership is: by configuration, or by what servers say.
    voters: Vec<ListedVoter>,
}

impl Seeker {
    /// Serves streams from here on.
    fn stream_links(&self) -> StreamLinks {
        let (proved, accepted) = mpsc::channel(PROVED_LEN_MAX);
        self.services.serve_streams(proved);
        StreamLinks { dialer: self.dialer.clone(), accepted }
    }

    async fn begin(mut options: JoinOptions, publisher: Arc<Publisher>) -> Result<Seeker, JoinError> {
        let identity = Identity {
            node: options.node_id,
            directory: options.directory_id,
            // A wish is no membership: nobody is refused for it.
            cluster: options.cluster_id.clone().filter(|_| options.has_been_used),
            incarnation: options.incarnation,
        };
        let services = NodeServices::new(identity.clone());
        let (known, identities) = watch::channel(identity);
        let secret = options.cluster.secret.clone();
        let listed = options.cluster.voters.iter();
        let listed = listed.map(|voter| (voter.node, (voter.host.to_string(), voter.port))).collect();
        let dialer = TcpDialer::new(Arc::new(move || identities.borrow().clone()), secret.clone(), listed);
        let mut tasks = JoinSet::new();
        let (sockets, handed_over) = (std::mem::take(&mut options.cluster.sockets), options.cluster.handed_over.take());
        tasks.spawn(Door::open(sockets, handed_over, secret, services.clone())?.attend());
        let (node, on_disk, voters) = (None, OnDisk::Empty, options.cluster.voters.clone());
        let mut seeker = Seeker { options, publisher, services, known, dialer, tasks, node, on_disk, voters };
        seeker.on_disk = seeker.look().await?;
        Ok(seeker)
    }

    /// What the disk says; a log that is there is opened.
    async fn look(&mut self) -> Result<OnDisk, JoinError> {
        let options = &self.options;
        let mark = MemberMark::read(&*options.disk, &options.log_dir)?;
        let has_log = log_store::exists(&*options.disk, &self.directory())?;
        // Before anything else is asked: whatever is missing besides, this directory may have voted.
        if !has_log && mark.is_some_and(|mark| mark.may_have_voted) {
            return Ok(OnDisk::LogLost(options.log_dir.clone()));
        }
        let Some(cluster) = options.cluster_id.clone() else { return Ok(OnDisk::Empty) };
        if has_log && replaced::is_put_aside(&*options.disk, &self.directory())? {
            return Ok(OnDisk::Replaced(cluster));
        }
        if has_log {
            let node = self.open().await?;
            let is_initialized = node.is_initialized().await?;
            let members = node.members().await?;
            let (own, last) = ((options.node_id, options.directory_id), node.last_log_index().await?);
            let is_member = members.iter().any(|member| (member.voter.node, member.directory) == own);
            if is_member
                && let Some(recorded) = options.newest_epoch
                && last.is_none_or(|last| (last as i64) < recorded.0)
            {
                // Unless somebody who leads says that it has been taken out: it must not even be asked for a vote.
                node.stop().await;
                let directory = self.directory();
                return Ok(OnDisk::OldLog(OldLog { cluster, directory, last: last.unwrap_or(0), recorded }));
            }
            self.node = Some(node);
            if is_initialized {
                return Ok(OnDisk::Log { cluster, members });
            }
        }
        Ok(if self.options.has_been_used { OnDisk::Joined(cluster) } else { OnDisk::Formatted(cluster) })
    }

    fn directory(&self) -> PathBuf {
        self.options.log_dir.join("metadata")
    }

    fn quorum_options(&self) -> QuorumOptions {
        let listed = self.voters.iter().find(|voter| voter.node == self.options.node_id);
        QuorumOptions {
            disk: self.options.disk.clone(),
            directory: self.directory(),
            node_id: self.options.node_id,
            voter: Voter {
                directory: self.options.directory_id.0,
                host: listed.map_or_else(String::new, |voter| voter.host.to_string()),
                port: listed.map_or(0, |voter| voter.port),
            },
            request_within: self.options.cluster.request_within,
        }
    }

    async fn open(&self) -> Result<QuorumNode, QuorumError> {
        QuorumNode::start_voter(self.quorum_options(), self.publisher.clone(), self.dialer.clone()).await
    }

    /// Asks until there is a cluster; how to enter it, and which it is.
    async fn seek(&mut self) -> Result<(Step, ClusterId), JoinError> {
        let options = &self.options;
        let begin = |voters| Bootstrap::new(options.node_id, options.directory_id, voters, self.on_disk.clone());
        let say = |waiting: &str| tracing::warn!("looking for the cluster: {waiting}");
        if !options.cluster.servers.is_empty() {
            self.voters = match &self.on_disk {
                OnDisk::Log { members, .. } if !members.is_empty() => {
                    members.iter().map(|member| member.voter.clone()).collect()
                }
                _ => {
                    let servers = &options.cluster.servers;
                    ask_servers(&begin(Vec::new()), servers, &self.dialer, &self.services, say).await?
                }
            };
        }
        let bootstrap = begin(self.voters.clone()).which_forms(options.cluster.servers.is_empty());
        let step = find_cluster(bootstrap, &self.dialer, &self.services, say).await?;
        let cluster = match &step {
            Step::Initialize { cluster, .. } => cluster.clone().unwrap_or_else(|| options.fresh_cluster_id.clone()),
            Step::Vote(cluster) | Step::Observe(cluster) | Step::PutAside(cluster) => cluster.clone(),
            Step::Ask(_) => unreachable!("it is asked until there is a step"),
        };
        if !options.cluster.may_vote && !matches!(step, Step::Observe(_) | Step::PutAside(_)) {
            return Err(JoinError::Votes(options.node_id));
        }
        Ok((step, cluster))
    }

    /// The cluster's id is durable.
    async fn enter(
        mut self,
        step: Step,
        cluster: ClusterId,
        metadata: MetadataOptions,
        own_log: OwnLog,
        requests: mpsc::Sender<Submission>,
    ) -> Result<(Member, Elsewhere), JoinError> {
        let options = &self.options;
        let (node_id, directory) = (options.node_id, options.directory_id);
        let incarnation = options.incarnation;
        let identity = Identity { node: node_id, directory, cluster: Some(cluster.clone()), incarnation };
        self.known.send_replace(identity.clone());
        self.services.set_identity(identity);
        let (leaders, heard) = watch::channel(None);
        let (news_sender, news) = mpsc::unbounded_channel();
        let arrivals = Arc::new(Arrivals::default());
        let opened = self.node.take();
        let voters = self.voters.iter().map(target);
        let is_listed = options.cluster.servers.is_empty();
        let controllers = if is_listed { Controllers::new(voters) } else { Controllers::said(voters) };
        let controllers = Arc::new(controllers);
        let candidacy = Candidacy {
            quorum: self.quorum_options(),
            log_dir: options.log_dir.clone(),
            cluster: cluster.clone(),
            listed: options.cluster.voters.clone(),
            metadata,
            publisher: self.publisher.clone(),
            services: self.services.clone(),
            dialer: self.dialer.clone(),
            own_log,
            controllers: controllers.clone(),
            requests,
            news: news_sender.clone(),
            arrivals: arrivals.clone(),
        };
        let part = match step {
            Step::Observe(_) | Step::PutAside(_) => {
                if options.cluster.voters.iter().any(|voter| voter.node == node_id) {
                    tracing::warn!(
                        "node {node_id} is listed as a voter, and the quorum's members do not name it with directory \
                         {directory}: it follows without voting, and the quorum stands fewer failures until it votes"
                    );
                }
                if let Some(node) = opened {
                    node.stop().await;
                }
                if matches!(step, Step::PutAside(_)) {
                    replaced::put_aside(&*self.options.disk, &self.directory())?;
                }
                // Started alone later, it is known to be one of several.
                if MemberMark::read(&*self.options.disk, &self.options.log_dir)?.is_none() {
                    let mark = MemberMark { directory_id: directory, may_have_voted: false };
                    mark.write(&*self.options.disk, &self.options.log_dir)?;
                }
                let members = Vec::new();
                self.services.answer_probes(ProbeAnswer::Member { cluster, members, leader: None });
                let added = self.observe(leaders.clone(), controllers.clone()).await?;
                Part::Observer(Some(Box::new(Observing { added, candidacy })))
            }
            Step::Initialize { members, .. } => {
                Part::Voter(candidacy.begin(opened, Some(&members), &mut self.tasks).await?)
            }
            Step::Vote(_) | Step::Ask(_) => Part::Voter(candidacy.begin(opened, None, &mut self.tasks).await?),
        };
        let (tasks, publisher) = (&mut self.tasks, &self.publisher);
        let elsewhere = Elsewhere::start(tasks, &self.dialer, &controllers, &heard, publisher, arrivals.clone());
        let member = Member {
            part,
            publisher: self.publisher,
            services: self.services,
            leaders,
            soft: Soft::new(self.options.cluster.duties, arrivals),
            looking: Looking { dialer: self.dialer, listener: self.options.cluster.listener },
            news,
            news_sender,
            tasks: self.tasks,
        };
        Ok((member, elsewhere))
    }

    /// Follows; the receiver hears when the membership names this node, and everything that was followed is durable.
    async fn observe(
        &mut self,
        leaders: watch::Sender<Option<BrokerId>>,
        controllers: Arc<Controllers>,
    ) -> Result<oneshot::Receiver<()>, QuorumError> {
        let listed = self.voters.iter().filter(|voter| voter.node != self.options.node_id);
        let listed: BTreeMap<_, _> = listed.map(|voter| (voter.node, (voter.host.to_string(), voter.port))).collect();
        let (publisher, dialer) = (self.publisher.clone(), self.dialer.clone());
        let (observer, mut leading) = Observer::open(&self.quorum_options(), publisher, dialer, listed).await?;
        let observer = observer.which_votes(self.options.cluster.may_vote);
        let (say_added, added) = oneshot::channel();
        let observer = observer.tell(controllers);
        self.tasks.spawn(async move {
            match observer.run().await {
                // Nobody listens on a node that is stopping.
                Ok(()) => drop(say_added.send(())),
                Err(error) => die(&error),
            }
        });
        self.tasks.spawn(async move {
            while leading.changed().await.is_ok() {
                let leader = leading.borrow().map(|leading| leading.node);
                leaders.send_replace(leader);
            }
        });
        Ok(added)
    }
}

fn target(voter: &ListedVoter) -> Target {
    Target { node: voter.node, directory: None, host: voter.host.to_string(), port: voter.port }
}

impl Member {
    /// Runs until nobody can ask any more, which is when the node ends.
    async fn run(&mut self, mut queue: mpsc::Receiver<Submission>, mut entered: Entered) {
        if let Part::Observer(observing) = &mut self.part
            && let Some(observing) = observing.take()
        {
            let Observing { added, candidacy } = *observing;
            if !self.follow(&mut queue, &mut entered, added).await {
                return;
            }
            match candidacy.begin(None, None, &mut self.tasks).await {
                Ok(active) => self.part = Part::Voter(active),
                Err(error) => die(&error),
            }
            tracing::warn!("this node is a member of the metadata quorum from now on, and votes when it has caught up");
        }
        self.vote(queue, entered).await;
    }

    /// A node that does not vote decides nothing. Returns whether it is to vote from now on, else when nobody can ask any
    /// more.
    async fn follow(
        &mut self,
        queue: &mut mpsc::Receiver<Submission>,
        entered: &mut Entered,
        mut added: oneshot::Receiver<()>,
    ) -> bool {
        let mut images = self.publisher.subscribe();
        loop {
            tokio::select! {
                Some(Published { image, .. }) = images.recv() => {
                    if image.cluster_id().is_some() && image.controller().is_some() {
                        entered.say();
                    }
                }
                submission = queue.recv() => match submission {
                    Some(submission) => submission.answer(Err(ControllerError::NotController(None))),
                    None => return false,
                },
                Ok(()) = &mut added => return true,
            }
        }
    }

    /// Leaves the quorum in order: a leader sees to it that another one leads.
    async fn stop(mut self) {
        if let Part::Voter(active) = &self.part {
            hand_over(&active.node, active.node_id).await;
        }
        self.services.stop();
        self.tasks.shutdown().await;
        if let Part::Voter(active) = &self.part {
            active.node.stop().await;
        }
    }
}
