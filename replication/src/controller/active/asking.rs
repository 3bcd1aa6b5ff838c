//! Requests between nodes: what other nodes ask this one, and what this one asks the active controller elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::control::Answer;
use stonelog_protocol::{BrokerEpoch, BrokerId};
use tokio::sync::{Mutex as Turn, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{ControllerError, Submission};
use crate::controller::ControllerRequest;
use crate::controller::liveness::ConnectBack;
use crate::controller::wire::{self, Decided};
use crate::metadata::Endpoint;
use crate::quorum::control::{ControlHandler, Forwarder};
use crate::quorum::link::Target;
use crate::quorum::publisher::Publisher;
use crate::runtime::peers::TcpDialer;

/// How long a heartbeat goes on looking for the controller: the next one is due by then.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(4);
/// How long a broker's own requests do, those it repeats until they are answered.
const BROKER_WITHIN: Duration = Duration::from_secs(10);
/// How long what clients ask does. Their own times are shorter, and who has gone is not asked for.
const CLIENT_WITHIN: Duration = Duration::from_secs(30);
/// How long this node may take to apply what the controller has answered; a feed that lags more has failed.
const APPLY_WITHIN: Duration = Duration::from_secs(10);
/// Requests of clients under way at the same time.
const CLIENT_LINKS: usize = 4;
/// Requests that wait to be forwarded, of each sort.
const FORWARD_LEN_MAX: usize = 256;
/// How long connecting back may take.
const CONNECT_BACK_WITHIN: Duration = Duration::from_secs(1);

/// What the network has to say to the controller.
pub(super) enum News {
    /// The connection that a broker's heartbeats came over was closed.
    Closed {
        /// Whose.
        id: BrokerId,
        /// Under which registration it spoke.
        epoch: BrokerEpoch,
    },
    /// What connecting back to a broker came to.
    ConnectedBack {
        /// To whom.
        id: BrokerId,
        /// As it was asked for.
        attempt: u64,
        /// What came of it.
        outcome: ConnectBack,
    },
}

/// One connection of another node that asks the controller here.
pub(super) struct Asker {
    pub(super) from: BrokerId,
    pub(super) requests: mpsc::Sender<Submission>,
    pub(super) publisher: Arc<Publisher>,
    /// One message for each connection that ends; the number of connections is bounded.
    pub(super) news: mpsc::UnboundedSender<News>,
    /// The registration that heartbeats came under, if any did.
    pub(super) spoke_as: Mutex<Option<BrokerEpoch>>,
}

impl ControlHandler for Asker {
    fn decide(&self, from: BrokerId, request: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        let request = match wire::decode_request(&request) {
            Ok(request) if wire::may_ask(from, &request) => request,
            Ok(_) => {
                let message = format!("node {from} may not ask this");
                return refused(ErrorCode::ClusterAuthorizationFailed, &message);
            }
            Err(error) => return refused(ErrorCode::InvalidRequest, &error.to_string()),
        };
        if let ControllerRequest::Heartbeat(beat) = &request {
            *self.spoke_as.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat.epoch);
        }
        let (requests, publisher) = (self.requests.clone(), self.publisher.clone());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let submission = Submission { request, answer, elsewhere: None };
            let outcome = match requests.send(submission).await {
                Ok(()) => answered.await.unwrap_or(Err(ControllerError::Stopped)),
                Err(_) => Err(ControllerError::Stopped),
            };
            wire::answer_to(&outcome, publisher.image().index())
        })
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let spoke_as = *self.spoke_as.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(epoch) = spoke_as {
            // Nobody listens on a node that is stopping.
            let _ = self.news.send(News::Closed { id: self.from, epoch });
        }
    }
}

fn refused(code: ErrorCode, message: &str) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
    Box::pin(std::future::ready(Answer::Rejected { code, message: message.into() }))
}

/// Where a request goes that is not decided here. Each sort has links of its own, so that nothing stands before a
/// heartbeat.
#[derive(Clone)]
pub(super) struct Elsewhere {
    heartbeats: mpsc::Sender<Submission>,
    brokers: mpsc::Sender<Submission>,
    clients: mpsc::Sender<Submission>,
}

impl Elsewhere {
    /// Starts the tasks that forward. `leaders` says who is known to lead.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        dialer: &TcpDialer,
        voters: &[Target],
        leaders: &watch::Receiver<Option<BrokerId>>,
        publisher: &Arc<Publisher>,
    ) -> Elsewhere {
        let mut links = |count: usize, within: Duration| {
            let (sender, queue) = mpsc::channel(FORWARD_LEN_MAX);
            let queue = Arc::new(Turn::new(queue));
            for _ in 0..count {
                let Some(forwarder) = Forwarder::new(dialer.clone(), voters.to_vec()) else { break };
                tasks.spawn(forward(forwarder, Arc::clone(&queue), leaders.clone(), Arc::clone(publisher), within));
            }
            sender
        };
        Elsewhere {
            heartbeats: links(1, HEARTBEAT_WITHIN),
            brokers: links(1, BROKER_WITHIN),
            clients: links(CLIENT_LINKS, CLIENT_WITHIN),
        }
    }

    /// Takes a request over, unless too many are waiting already.
    pub(super) fn take(&self, submission: Submission) {
        let queue = match &submission.request {
            ControllerRequest::Heartbeat(_) => &self.heartbeats,
            ControllerRequest::RegisterBroker(_)
            | ControllerRequest::AlterPartition(_)
            | ControllerRequest::AssignReplicas(_)
            | ControllerRequest::AllocateProducerIds(_) => &self.brokers,
            _ => &self.clients,
        };
        if let Err(refused) = queue.try_send(submission) {
            refused.into_inner().answer(Err(ControllerError::NotController(None)));
        }
    }
}

async fn forward(
    mut forwarder: Forwarder<TcpDialer>,
    queue: Arc<Turn<mpsc::Receiver<Submission>>>,
    leaders: watch::Receiver<Option<BrokerId>>,
    publisher: Arc<Publisher>,
    within: Duration,
) {
    loop {
        let Some(mut submission) = queue.lock().await.recv().await else { return };
        let leader = *leaders.borrow();
        if let Some(leader) = leader {
            forwarder.on_leader(leader);
        }
        let bytes = match wire::encode_request(&submission.request) {
            Ok(bytes) => bytes,
            Err(reject) => {
                submission.answer(Err(reject.into()));
                continue;
            }
        };
        let may_repeat = wire::may_repeat(&submission.request);
        let asked = async {
            let answer = forwarder.ask(bytes, within, may_repeat).await;
            let Decided { at, response } = wire::outcome_of(submission.request.kind(), answer)?;
            applied(&publisher, at).await?;
            Ok(response)
        };
        let outcome = tokio::select! {
            outcome = asked => outcome,
            // Whoever asked has gone.
            () = submission.answer.closed() => continue,
        };
        submission.answer(outcome);
    }
}

/// Returns when this node has applied everything that an answer rests on.
async fn applied(publisher: &Publisher, at: u64) -> Result<(), ControllerError> {
    if publisher.image().index() >= at {
        return Ok(());
    }
    let mut images = publisher.subscribe();
    let reached = async {
        while let Some(published) = images.recv().await {
            if published.image.index() >= at {
                return Ok(());
            }
        }
        Err(ControllerError::Stopped)
    };
    // What was asked has happened, and whoever asked cannot see it.
    tokio::time::timeout(APPLY_WITHIN, reached).await.unwrap_or(Err(ControllerError::Unknown))
}

/// Connects to a broker's listeners. That nobody listens is believed only if it is so everywhere.
pub(super) async fn connect_back(endpoints: Vec<Endpoint>) -> ConnectBack {
    let mut refused = 0;
    for endpoint in &endpoints {
        let connecting = tokio::net::TcpStream::connect((&*endpoint.host, endpoint.port));
        match tokio::time::timeout(CONNECT_BACK_WITHIN, connecting).await {
            Ok(Ok(_)) => return ConnectBack::Connected,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => refused += 1,
            Ok(Err(_)) | Err(_) => {}
        }
    }
    if refused > 0 && refused == endpoints.len() { ConnectBack::Refused } else { ConnectBack::Unknown }
}
