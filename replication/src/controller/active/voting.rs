//! A voter's turn: the active controller for as long as this node leads surely, nobody's else.
//!
//! What an active controller does unasked is decided in [`crate::controller::duties`]; this file runs it, and hands
//! requests to [`Active`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::feed::Leading;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asking::{News, connect_back};
use super::member::{Entered, Member, Part};
use super::serving::{Active, Waiting};
use super::{ControllerError, Submission};
use crate::controller::duties::{Came, Duties, DutyEffect, DutyEvent, DutySettings, SoftFacts};
use crate::controller::rules::Defaults;
use crate::controller::{ControllerRequest, ControllerResponse};
use crate::metadata::MetadataImage;
use crate::quorum::die;
use crate::quorum::node::{QuorumNode, StartError as QuorumError};
use crate::quorum::publisher::{Published, Publisher};

/// How often a leader makes sure that it still leads: below half a lease, so that none is lost and won unseen for long.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Before activation is tried again.
const ACTIVATE_AGAIN: Duration = Duration::from_millis(100);
/// How long a leader that stops waits for another voter to lead.
const TRANSFER_WITHIN: Duration = Duration::from_secs(1);

/// The soft state of the controller, and what waits for it. One thread; no borrow lasts beyond a call.
pub(super) struct Soft {
    duties: RefCell<Duties>,
    begun: Instant,
    effects: RefCell<Vec<DutyEffect>>,
    /// New topics that wait for brokers that are still to come.
    parked: RefCell<Vec<Submission>>,
}

impl Soft {
    pub(super) fn new(settings: DutySettings) -> Soft {
        let duties = RefCell::new(Duties::new(settings));
        Soft { duties, begun: Instant::now(), effects: RefCell::default(), parked: RefCell::default() }
    }

    fn on(&self, event: DutyEvent<'_>) {
        let effects = self.duties.borrow_mut().on_event(event, self.begun.elapsed());
        self.effects.borrow_mut().extend(effects);
    }

    /// Whether a request is decided now; else it is parked, or nobody is there for its answer.
    fn admit(&self, submission: Submission, image: &MetadataImage, defaults: &Defaults) -> Option<Submission> {
        if submission.answer.is_closed() {
            self.on(DutyEvent::TooLate(&submission.request));
            return None;
        }
        if self.waits(&submission, image, defaults) {
            self.parked.borrow_mut().push(submission);
            return None;
        }
        Some(submission)
    }

    fn waits(&self, submission: &Submission, image: &MetadataImage, defaults: &Defaults) -> bool {
        let ControllerRequest::CreateTopics(request) = &submission.request else { return false };
        self.duties.borrow().waits(request, image, defaults, self.begun.elapsed())
    }

    /// Parked requests that wait no more.
    fn unpark(&self, image: &MetadataImage, defaults: &Defaults) -> Vec<Submission> {
        let parked = self.parked.take();
        let (waiting, ready) = parked.into_iter().partition(|submission| self.waits(submission, image, defaults));
        *self.parked.borrow_mut() = waiting;
        ready
    }

    /// A request is about to be decided: what that rests on besides the image.
    fn facts(&self, request: &ControllerRequest, image: &MetadataImage) -> SoftFacts {
        self.on(DutyEvent::Asked(request));
        self.duties.borrow().facts(request, image, self.begun.elapsed())
    }

    fn wake_at(&self) -> Option<Instant> {
        self.duties.borrow().wake_at().map(|at| self.begun + at)
    }
}

/// A request that this node asks itself, and where its answer comes.
type Asked = (ControllerRequest, oneshot::Receiver<Result<ControllerResponse, ControllerError>>);

/// What is under way at a voter.
#[derive(Default)]
struct Voting {
    leading: Option<Leading>,
    tenure: Option<u64>,
    is_active: bool,
    /// Decided before anything else.
    first: VecDeque<Submission>,
    asked: Vec<Asked>,
}

impl Member {
    /// A voter is the active controller while it leads, surely.
    pub(super) async fn vote(&mut self, mut queue: mpsc::Receiver<Submission>, mut entered: Entered) {
        let Member { part: Part::Voter(active), publisher, leaders, soft, news, news_sender, tasks, .. } = self else {
            return;
        };
        let (node, defaults) = (active.node.clone(), active.defaults.clone());
        let mut images = publisher.subscribe();
        let mut voting = Voting::default();
        loop {
            let leads = voting.tenure.is_some() && node.leads_surely();
            if voting.is_active && !leads {
                voting.step_down(soft, publisher);
            }
            if !voting.is_active && leads && node.has_applied_all() {
                voting.activate(soft, active).await;
            }
            let image = publisher.image();
            if image.cluster_id().is_some() && image.controller().is_some() && node.has_applied_term() {
                entered.say();
            }
            if voting.is_active {
                voting.first.extend(soft.unpark(&image, &defaults));
                voting.take_effects(soft, &image, tasks, news_sender);
                if let Some(next) = voting.first.pop_front() {
                    let mut admit = |submission| soft.admit(submission, &image, &defaults);
                    let mut waiting = Waiting { own: &mut voting.first, queue: &mut queue, admit: &mut admit };
                    let left = active.serve(next, &mut waiting, |request, image| soft.facts(request, image)).await;
                    if let Some(left) = left {
                        voting.first.push_front(left);
                    }
                    voting.hear_answers(soft);
                    continue;
                }
            }
            let look = Instant::now() + LOOK_EVERY;
            let wake = soft.wake_at().map_or(look, |wake| wake.min(look));
            tokio::select! {
                biased;
                why = node.failed() => die(&why),
                now = node.leader_changed(voting.leading) => {
                    voting.leading = now;
                    let leader = now.map(|leading| leading.node);
                    leaders.send_replace(leader);
                    if leader != Some(active.node_id) {
                        publisher.publish_controller(leader);
                    }
                }
                now = node.tenure_changed(voting.tenure) => voting.tenure = now,
                Some(said) = news.recv() => soft.on(match said {
                    News::Closed { id, epoch } => DutyEvent::ConnectionClosed { id, epoch },
                    News::ConnectedBack { id, attempt, outcome } => DutyEvent::ConnectedBack { id, attempt, outcome },
                }),
                Some(Published { image, .. }) = images.recv() => soft.on(DutyEvent::Applied(&image)),
                submission = queue.recv() => match submission {
                    Some(submission) if voting.is_active => {
                        voting.first.extend(soft.admit(submission, &image, &defaults));
                    }
                    Some(submission) => submission.answer(Err(voting.not_controller(active.node_id))),
                    None => return,
                },
                () = sleep_until(wake), if voting.tenure.is_some() => soft.on(DutyEvent::Tick),
            }
        }
    }
}

impl Voting {
    /// Begins a tenure: with the first records of the cluster, if there are none.
    async fn activate(&mut self, soft: &Soft, active: &Active) {
        match active.begin().await {
            Ok(()) => {
                self.is_active = true;
                tracing::info!(term = self.tenure, "this node is the active controller");
                active.publisher.publish_controller(Some(active.node_id));
                soft.on(DutyEvent::Activated(&active.publisher.image()));
            }
            Err(error @ QuorumError::OtherCluster { .. }) => die(&error),
            Err(error) => {
                tracing::info!("not the active controller yet: {error}");
                sleep(ACTIVATE_AGAIN).await;
            }
        }
    }

    /// Ends a tenure. What waited was not decided: whoever leads now is to be asked.
    fn step_down(&mut self, soft: &Soft, publisher: &Publisher) {
        tracing::info!(term = self.tenure, "this node is not the active controller any more");
        self.is_active = false;
        self.asked.clear();
        soft.on(DutyEvent::SteppedDown);
        soft.effects.take();
        publisher.publish_controller(None);
        // An isolated leader is still named as leading; it is nobody's hint.
        for waiting in self.first.drain(..).chain(soft.parked.take()) {
            waiting.answer(Err(ControllerError::NotController(None)));
        }
    }

    fn not_controller(&self, own: BrokerId) -> ControllerError {
        let leader = self.leading.map(|leading| leading.node);
        ControllerError::NotController(leader.filter(|leader| *leader != own))
    }

    /// Puts what the duties want in front of everything else, and looks for brokers.
    fn take_effects(
        &mut self,
        soft: &Soft,
        image: &MetadataImage,
        tasks: &mut JoinSet<()>,
        news: &mpsc::UnboundedSender<News>,
    ) {
        for effect in soft.effects.take() {
            match effect {
                DutyEffect::Ask(request) => {
                    let (answer, answered) = oneshot::channel();
                    self.asked.push((request.clone(), answered));
                    self.first.push_back(Submission { request, answer, elsewhere: None });
                }
                DutyEffect::ConnectBack { id, attempt } => {
                    let endpoints = image.broker(id).map(|broker| broker.endpoints.clone()).unwrap_or_default();
                    let news = news.clone();
                    tasks.spawn(async move {
                        let outcome = connect_back(endpoints).await;
                        // Nobody listens on a node that is stopping.
                        let _ = news.send(News::ConnectedBack { id, attempt, outcome });
                    });
                }
            }
        }
        // Those that have ended are forgotten.
        while tasks.try_join_next().is_some() {}
    }

    /// What came of what this node asked itself.
    fn hear_answers(&mut self, soft: &Soft) {
        for (request, mut answer) in std::mem::take(&mut self.asked) {
            match answer.try_recv() {
                Ok(Ok(response)) => soft.on(DutyEvent::Done(&request, Came::Decided(&response))),
                Ok(Err(ControllerError::Rejected(reject))) => {
                    tracing::warn!("what the controller asked itself was refused: {reject}");
                    soft.on(DutyEvent::Done(&request, Came::Refused));
                }
                Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => {
                    soft.on(DutyEvent::Done(&request, Came::Unknown));
                }
                Err(oneshot::error::TryRecvError::Empty) => self.asked.push((request, answer)),
            }
        }
    }
}

/// Asks another voter to lead, and waits a moment for it.
pub(super) async fn hand_over(node: &QuorumNode, own: BrokerId) {
    let leads = || node.leading().is_some_and(|leading| leading.node == own);
    let Ok(voters) = node.voters().await else { return };
    let Some(other) = voters.into_keys().find(|voter| *voter != own) else { return };
    if !node.leads_surely() || node.transfer_leader(other).await.is_err() {
        return;
    }
    let moved = async {
        while leads() {
            let leading = node.leading();
            node.leader_changed(leading).await;
        }
    };
    if timeout(TRANSFER_WITHIN, moved).await.is_err() {
        tracing::info!("no other voter leads yet; an election will find one");
    }
}
