//! A voter's turn: the active controller for as long as this node leads surely, nobody's else.
//!
//! What an active controller does unasked is decided in [`crate::controller::duties`]; this file runs it, and hands
//! requests to [`Active`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::feed::Leading;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::asking::{Arrivals, Looking, News};
use super::member::{Entered, Member, Part};
use super::serving::{Active, Waiting};
use super::{ControllerError, Submission};
use crate::controller::duties::{Came, Duties, DutyEffect, DutyEvent, DutySettings, SoftFacts};
use crate::controller::rules::Defaults;
use crate::controller::{ControllerRequest, ControllerResponse, Reject};
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

/// Requests that wait for brokers to come; each is somebody's who waits for the answer.
const PARKED_LEN_MAX: usize = 256;

/// The soft state of the controller, and what waits for it. One thread; no borrow lasts beyond a call.
pub(super) struct Soft {
    duties: RefCell<Duties>,
    begun: Instant,
    effects: RefCell<Vec<DutyEffect>>,
    /// New topics that wait for brokers that are still to come.
    parked: RefCell<Vec<Submission>>,
    arrivals: Arc<Arrivals>,
}

impl Soft {
    pub(super) fn new(settings: DutySettings, arrivals: Arc<Arrivals>) -> Soft {
        let duties = RefCell::new(Duties::new(settings));
        Soft { duties, begun: Instant::now(), effects: RefCell::default(), parked: RefCell::default(), arrivals }
    }

    fn on(&self, event: DutyEvent<'_>) {
        let effects = self.duties.borrow_mut().on_event(event, self.begun.elapsed());
        self.effects.borrow_mut().extend(effects);
    }

    /// Takes in what has arrived, in the order of what it means: what a connection brought, then its end.
    fn hear(&self, news: &mut mpsc::UnboundedReceiver<News>) {
        for beat in self.arrivals.take(self.begun) {
            self.on(DutyEvent::Heard(beat));
        }
        while let Ok(said) = news.try_recv() {
            self.hear_of(said);
        }
    }

    fn hear_of(&self, said: News) {
        self.on(match said {
            News::Closed { id, epoch, connection } => DutyEvent::ConnectionClosed { id, epoch, connection },
            News::ConnectedBack { id, attempt, outcome } => DutyEvent::ConnectedBack { id, attempt, outcome },
        });
    }

    /// Whether a request is decided now; else it is parked, or nobody is there for its answer.
    fn admit(&self, submission: Submission, image: &MetadataImage, defaults: &Defaults) -> Option<Submission> {
        if submission.answer.is_closed() {
            return None;
        }
        if !self.waits(&submission, image, defaults) {
            return Some(submission);
        }
        let mut parked = self.parked.borrow_mut();
        if parked.len() < PARKED_LEN_MAX {
            parked.push(submission);
        } else {
            let message = "too many new topics wait for brokers that are still to come";
            submission.answer(Err(Reject::new(ErrorCode::RequestTimedOut, message).into()));
        }
        None
    }

    fn waits(&self, submission: &Submission, image: &MetadataImage, defaults: &Defaults) -> bool {
        let ControllerRequest::CreateTopics(request) = &submission.request else { return false };
        self.duties.borrow().waits(request, image, defaults, self.begun.elapsed())
    }

    /// Parked requests that wait no more.
    fn unpark(&self, image: &MetadataImage, defaults: &Defaults) -> Vec<Submission> {
        let parked = self.parked.take().into_iter().filter(|submission| !submission.answer.is_closed());
        let (waiting, ready) = parked.partition(|submission| self.waits(submission, image, defaults));
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
        let Member { part: Part::Voter(active), publisher, leaders, soft, looking, news, news_sender, tasks, .. } =
            self
        else {
            return;
        };
        let (node, defaults) = (active.node.clone(), active.defaults.clone());
        let mut images = publisher.subscribe();
        let mut voting = Voting::default();
        loop {
            let leads = voting.tenure.is_some() && node.leads_surely();
            // An entry whose outcome is not known is still on its way: whatever were decided now would meet another image.
            if voting.is_active && (!leads || std::mem::take(&mut active.is_unsettled)) {
                voting.step_down(soft, publisher, active.node_id);
            }
            if !voting.is_active && leads && node.has_applied_all() {
                voting.activate(soft, active).await;
            }
            let image = publisher.image();
            let has_applied_term = node.has_applied_term();
            if image.cluster_id().is_some() && image.controller().is_some() && has_applied_term {
                entered.say();
            }
            soft.hear(news);
            // What an answer rests on is published before it is given: a fencing that is over is seen before the next look.
            while let Ok(Published { image, .. }) = images.try_recv() {
                soft.on(DutyEvent::Applied(&image));
            }
            if voting.is_active {
                if soft.wake_at().is_some_and(|at| at <= Instant::now()) {
                    soft.on(DutyEvent::Tick);
                }
                voting.first.extend(soft.unpark(&image, &defaults));
                voting.take_effects(soft, &image, tasks, (&*looking, &*news_sender));
                if let Some(next) = voting.next() {
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
                now = node.tenure_changed(voting.tenure) => {
                    // Another term is another tenure, also if this node leads in both.
                    if voting.is_active {
                        voting.step_down(soft, publisher, active.node_id);
                    }
                    voting.tenure = now;
                }
                () = node.term_applied(), if !has_applied_term => {}
                Some(said) = news.recv() => soft.hear_of(said),
                Some(Published { image, .. }) = images.recv() => soft.on(DutyEvent::Applied(&image)),
                submission = queue.recv() => match submission {
                    Some(submission) if voting.is_active => {
                        voting.first.extend(soft.admit(submission, &image, &defaults));
                    }
                    Some(submission) => submission.answer(Err(voting.not_controller(active.node_id))),
                    None => return,
                },
                () = sleep_until(wake), if voting.tenure.is_some() => {}
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
    fn step_down(&mut self, soft: &Soft, publisher: &Publisher, own: BrokerId) {
        tracing::info!(term = self.tenure, "this node is not the active controller any more");
        self.is_active = false;
        self.asked.clear();
        soft.on(DutyEvent::SteppedDown);
        soft.effects.take();
        // It may be known already who leads instead: then nothing else will say so again.
        publisher.publish_controller(self.leader_but(own));
        // An isolated leader is still named as leading; it is nobody's hint.
        for waiting in self.first.drain(..).chain(soft.parked.take()) {
            waiting.give_up(None);
        }
    }

    fn leader_but(&self, own: BrokerId) -> Option<BrokerId> {
        self.leading.map(|leading| leading.node).filter(|leader| *leader != own)
    }

    /// The first of those that go before all others, if somebody still waits for its answer, or it has begun.
    fn next(&mut self) -> Option<Submission> {
        loop {
            let next = self.first.pop_front()?;
            if next.is_begun || !next.answer.is_closed() {
                return Some(next);
            }
        }
    }

    fn not_controller(&self, own: BrokerId) -> ControllerError {
        ControllerError::NotController(self.leader_but(own))
    }

    /// Puts what the duties want in front of everything else, and looks for brokers.
    fn take_effects(
        &mut self,
        soft: &Soft,
        image: &MetadataImage,
        tasks: &mut JoinSet<()>,
        (looking, news): (&Looking, &mpsc::UnboundedSender<News>),
    ) {
        for effect in soft.effects.take() {
            match effect {
                DutyEffect::Ask(request) => {
                    let (answer, answered) = oneshot::channel();
                    self.asked.push((request.clone(), answered));
                    self.first.push_back(Submission::new(request, answer));
                }
                DutyEffect::ConnectBack { id, attempt } => {
                    let Some(broker) = image.broker(id) else { continue };
                    let (endpoints, incarnation) = (broker.endpoints.clone(), broker.incarnation);
                    let (looking, news) = (looking.clone(), news.clone());
                    tasks.spawn(async move {
                        let outcome = looking.connect_back(id, incarnation, &endpoints).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{CreateTopics, NewTopic};
    use crate::metadata::MetadataRecord;

    type Answered = oneshot::Receiver<Result<ControllerResponse, ControllerError>>;

    /// Three listed brokers, none of which has registered.
    fn soft() -> Soft {
        let listed = vec![BrokerId(1), BrokerId(2), BrokerId(3)];
        let settings = DutySettings { session_timeout: Duration::from_secs(9), balance_every: None, listed };
        let soft = Soft::new(settings, Arc::default());
        soft.on(DutyEvent::Activated(&MetadataImage::empty()));
        soft
    }

    fn create() -> (Submission, Answered) {
        let topic = NewTopic {
            name: "t".to_owned(),
            partitions: 1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let request = CreateTopics { topics: vec![topic], validate_only: false };
        let (answer, answered) = oneshot::channel();
        (Submission::new(ControllerRequest::CreateTopics(request), answer), answered)
    }

    #[test]
    fn topic_nobody_waits_for_any_more_is_not_made_when_its_brokers_have_come() {
        let (soft, defaults) = (soft(), Defaults::default());
        let (left, gone) = create();
        let (kept, _waiting) = create();
        for submission in [left, kept] {
            assert!(soft.admit(submission, &MetadataImage::empty(), &defaults).is_none());
        }
        drop(gone);
        // No brokers come, and the time is over: as when another tenure has begun long ago.
        soft.on(DutyEvent::SteppedDown);
        assert_eq!(soft.unpark(&MetadataImage::empty(), &defaults).len(), 1);
    }

    #[test]
    fn waiting_topics_are_bounded() {
        let (soft, defaults) = (soft(), Defaults::default());
        let waiting: Vec<Answered> = (0..=PARKED_LEN_MAX)
            .map(|_| {
                let (submission, answered) = create();
                assert!(soft.admit(submission, &MetadataImage::empty(), &defaults).is_none());
                answered
            })
            .collect();
        let refused = waiting.into_iter().filter_map(|mut answered| answered.try_recv().ok());
        let codes: Vec<_> = refused.map(|answer| answer.unwrap_err().code()).collect();
        assert_eq!(codes, [ErrorCode::RequestTimedOut]);
    }

    #[test]
    fn tenure_that_ends_leaves_unknown_what_has_begun_and_names_who_leads_instead() {
        let soft = soft();
        let publisher = Publisher::default();
        let mut voting = Voting { is_active: true, ..Voting::default() };
        voting.leading = Some(Leading { node: BrokerId(3), term: 7 });
        let (begun, mut of_begun) = create();
        let (waiting, mut of_waiting) = create();
        voting.first.extend([Submission { is_begun: true, ..begun }, waiting]);
        voting.step_down(&soft, &publisher, BrokerId(1));
        assert_eq!(of_begun.try_recv(), Ok(Err(ControllerError::Unknown)));
        assert_eq!(of_waiting.try_recv(), Ok(Err(ControllerError::NotController(None))));
        assert_eq!(publisher.image().controller(), Some(BrokerId(3)));
    }

    #[test]
    fn heartbeats_are_heard_before_the_end_of_the_connection_they_came_over() {
        let soft = soft();
        let id = BrokerId(1);
        let registered = MetadataImage::from_records(
            5,
            &[MetadataRecord::RegisterBroker(crate::metadata::record::RegisterBroker {
                id,
                incarnation: stonelog_protocol::Uuid([1; 16]),
                epoch: Some(stonelog_protocol::BrokerEpoch(4)),
                endpoints: Vec::new(),
                rack: None,
                fenced: false,
                in_controlled_shutdown: false,
                directories: Vec::new(),
                differing: Vec::new(),
                unfenced_with: Vec::new(),
            })],
        )
        .unwrap();
        soft.on(DutyEvent::Activated(&registered));
        soft.effects.take();
        let epoch = stonelog_protocol::BrokerEpoch(4);
        let beat = ControllerRequest::Heartbeat(crate::controller::BrokerHeartbeat {
            id,
            epoch,
            metadata_index: 5,
            want_fence: false,
            want_shutdown: false,
            online_directories: None,
        });
        let (sender, mut news) = mpsc::unbounded_channel();
        // The first connection's end comes late; the broker speaks over the second.
        soft.arrivals.note(&beat, 2);
        sender.send(News::Closed { id, epoch, connection: 1 }).unwrap();
        soft.hear(&mut news);
        assert_eq!(soft.effects.take(), []);
        sender.send(News::Closed { id, epoch, connection: 2 }).unwrap();
        soft.hear(&mut news);
        assert!(matches!(soft.effects.take()[..], [DutyEffect::ConnectBack { .. }]));
    }
}
