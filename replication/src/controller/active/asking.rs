//! Requests between nodes: what other nodes ask this one, and what this one asks the active controller elsewhere.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::peer::control::Answer;
use stonelog_protocol::peer::proof::Verdict as PeerVerdict;
use stonelog_protocol::{BrokerEpoch, BrokerId, Uuid};
use tokio::sync::{Mutex as Turn, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{ControllerError, Submission};
use crate::controller::duties::Heartbeat;
use crate::controller::liveness::ConnectBack;
use crate::controller::wire::{self, Decided};
use crate::controller::{ControllerRequest, Reject};
use crate::metadata::Endpoint;
use crate::quorum::control::{ControlHandler, Forwarder};
use crate::quorum::controllers::Controllers;
use crate::quorum::link::{LinkError, Target};
use crate::quorum::publisher::Publisher;
use crate::runtime::peers::TcpDialer;

/// How long a heartbeat goes on looking for the controller: the next one is due by then.
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(4);
/// How long a broker's own requests do, those it repeats until they are answered.
const BROKER_WITHIN: Duration = Duration::from_secs(10);
/// How long what clients ask does: as long as a new topic may wait for brokers, and a round trip more. Their own times
/// are shorter, and who has gone is not asked for.
const CLIENT_WITHIN: Duration = Duration::from_secs(65);
/// How long this node may take to apply what the controller has answered; a feed that lags more has failed.
const APPLY_WITHIN: Duration = Duration::from_secs(10);
/// Requests of clients under way at the same time; as many more that make topics and may wait for brokers.
const CLIENT_LINKS: usize = 4;
/// Requests that wait to be forwarded, of each sort.
const FORWARD_LEN_MAX: usize = 256;
/// How long connecting back may take.
const CONNECT_BACK_WITHIN: Duration = Duration::from_secs(1);
/// How long who answers there may take to prove who it is; a node that is starting serves its sockets late.
const PROVE_WITHIN: Duration = Duration::from_millis(250);

/// What the network has to say to the controller.
pub(super) enum News {
    /// The connection that a broker's heartbeats came over was closed.
    Closed {
        /// Whose.
        id: BrokerId,
        /// Under which registration it spoke.
        epoch: BrokerEpoch,
        /// Which.
        connection: u64,
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

/// The newest heartbeat of each broker that has arrived and was not looked at yet. They are noted as they come, for the
/// controller may be busy for longer than a session lasts, and nobody is dead for that.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<BTreeMap<BrokerId, (BrokerEpoch, u64, Instant)>>);

impl Arrivals {
    /// Notes a request if it is a heartbeat. `connection` is 0 for this node's own.
    pub(super) fn note(&self, request: &ControllerRequest, connection: u64) {
        let ControllerRequest::Heartbeat(beat) = request else { return };
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What a replaced process still says must not hide who took its place.
        if newest.get(&beat.id).is_none_or(|(epoch, ..)| *epoch <= beat.epoch) {
            newest.insert(beat.id, (beat.epoch, connection, Instant::now()));
        }
    }

    /// What has arrived since the last time, each with how long after `begun`.
    pub(super) fn take(&self, begun: Instant) -> impl Iterator<Item = Heartbeat> + use<> {
        let newest = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        newest.into_iter().map(move |(id, (epoch, connection, at))| {
            let at = at.saturating_duration_since(begun);
            Heartbeat { id, epoch, connection, at }
        })
    }
}

/// One connection of another node that asks the controller here.
pub(super) struct Asker {
    pub(super) from: BrokerId,
    /// Numbered from 1 as they are made.
    pub(super) connection: u64,
    pub(super) arrivals: Arc<Arrivals>,
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
            self.arrivals.note(&request, self.connection);
        }
        let (requests, publisher) = (self.requests.clone(), self.publisher.clone());
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let submission = Submission::new(request, answer);
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
            let _ = self.news.send(News::Closed { id: self.from, epoch, connection: self.connection });
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
    creating: mpsc::Sender<Submission>,
    clients: mpsc::Sender<Submission>,
    /// This node's own heartbeats are decided here when it leads.
    pub(super) arrivals: Arc<Arrivals>,
}

impl Elsewhere {
    /// Starts the tasks that forward. `leaders` says who is known to lead.
    pub(super) fn start(
        tasks: &mut JoinSet<()>,
        dialer: &TcpDialer,
        controllers: &Controllers,
        leaders: &watch::Receiver<Option<BrokerId>>,
        publisher: &Arc<Publisher>,
        arrivals: Arc<Arrivals>,
    ) -> Elsewhere {
        let mut links = |count: usize, within: Duration| {
            let (sender, queue) = mpsc::channel(FORWARD_LEN_MAX);
            let queue = Arc::new(Turn::new(queue));
            for _ in 0..count {
                let forwarder = Forwarder::new(dialer.clone(), controllers, leaders.clone());
                let Some(forwarder) = forwarder else { break };
                tasks.spawn(forward(forwarder, Arc::clone(&queue), Arc::clone(publisher), within));
            }
            sender
        };
        Elsewhere {
            heartbeats: links(1, HEARTBEAT_WITHIN),
            brokers: links(1, BROKER_WITHIN),
            creating: links(CLIENT_LINKS, CLIENT_WITHIN),
            clients: links(CLIENT_LINKS, CLIENT_WITHIN),
            arrivals,
        }
    }

    /// Takes a request over, unless too many are waiting already.
    pub(super) fn take(&self, submission: Submission) {
        let queue = match &submission.request {
            ControllerRequest::Heartbeat(_) => &self.heartbeats,
            ControllerRequest::RegisterBroker(_)
            | ControllerRequest::AlterPartition(_)
            | ControllerRequest::AssignReplicas(_) => &self.brokers,
            ControllerRequest::CreateTopics(request) if request.leaves_the_factor_open() => &self.creating,
            _ => &self.clients,
        };
        if let Err(refused) = queue.try_send(submission) {
            let submission = refused.into_inner();
            let error = full(&submission.request);
            submission.answer(Err(error));
        }
    }
}

/// The answer to a request that finds too many before it; nothing was sent. Whoever asks is to ask again, and of some
/// requests stock clients do so only when they have timed out.
fn full(request: &ControllerRequest) -> ControllerError {
    match request {
        ControllerRequest::IncrementalAlterConfigs(_)
        | ControllerRequest::AlterConfigs(_)
        | ControllerRequest::UnregisterBroker(_)
        | ControllerRequest::AcceptLoss(_) => {
            let message = "too many requests wait for the active controller: this one was not sent";
            ControllerError::Rejected(Reject::new(ErrorCode::RequestTimedOut, message))
        }
        _ => ControllerError::NotController(None),
    }
}

async fn forward(
    mut forwarder: Forwarder<TcpDialer>,
    queue: Arc<Turn<mpsc::Receiver<Submission>>>,
    publisher: Arc<Publisher>,
    within: Duration,
) {
    loop {
        let Some(mut submission) = queue.lock().await.recv().await else { return };
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

/// Looks whether registered brokers are still there.
#[derive(Clone)]
pub(super) struct Looking {
    pub(super) dialer: TcpDialer,
    /// The listener of brokers: who answers there can prove who it is.
    pub(super) listener: Arc<str>,
}

/// Who answers where a broker is registered.
enum Answers {
    /// The process that has registered.
    Itself,
    /// Another process of its node, or another node.
    Another,
    /// Whoever it is has not proved it.
    Somebody,
}

impl Looking {
    /// Connects to a broker's listeners. That nobody listens is believed only if it is so everywhere: at each address of
    /// each listener's name, for one that cannot be reached may be the one that it listens at. Where another process
    /// proves itself, the registered one does not listen any more.
    pub(super) async fn connect_back(&self, id: BrokerId, incarnation: Uuid, endpoints: &[Endpoint]) -> ConnectBack {
        let (mut outcome, mut is_replaced, mut is_taken) = (None, false, false);
        for endpoint in endpoints {
            let Ok(addresses) = tokio::net::lookup_host((&*endpoint.host, endpoint.port)).await else {
                return ConnectBack::Unknown;
            };
            for address in addresses {
                match tokio::time::timeout(CONNECT_BACK_WITHIN, tokio::net::TcpStream::connect(address)).await {
                    Ok(Ok(_)) if endpoint.listener != self.listener => is_taken = true,
                    Ok(Ok(_)) => match self.who_answers(id, incarnation, address).await {
                        Answers::Itself => return ConnectBack::Unknown,
                        Answers::Somebody => return ConnectBack::Connected,
                        Answers::Another => {
                            is_replaced = true;
                            outcome = outcome.or(Some(ConnectBack::Refused));
                        }
                    },
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                        outcome = outcome.or(Some(ConnectBack::Refused));
                    }
                    // This host has no such addresses at all.
                    Ok(Err(error)) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {}
                    Ok(Err(_)) | Err(_) => outcome = Some(ConnectBack::Unknown),
                }
            }
        }
        // Who has taken over the listener of brokers has taken over the others as well.
        if is_taken && !is_replaced {
            return ConnectBack::Connected;
        }
        outcome.unwrap_or(ConnectBack::Unknown)
    }

    async fn who_answers(&self, id: BrokerId, incarnation: Uuid, address: SocketAddr) -> Answers {
        if off!(ConnectBackProves) {
            return Answers::Somebody;
        }
        let (host, port) = (address.ip().to_string(), address.port());
        let target = Target { node: id, directory: None, host, port };
        match tokio::time::timeout(PROVE_WITHIN, self.dialer.identify(&target)).await {
            Ok(Ok(found)) if found.incarnation == incarnation => Answers::Itself,
            Ok(Ok(_)) | Ok(Err(LinkError::Refused(PeerVerdict::OtherNode))) => Answers::Another,
            Ok(Err(_)) | Err(_) => Answers::Somebody,
        }
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::ClusterId;
    use stonelog_protocol::peer::probe::ProbeAnswer;
    use stonelog_protocol::peer::proof::Identity;

    use super::*;
    use crate::controller::UnregisterBrokerRequest;
    use crate::metadata::SecurityProtocol;
    use crate::quorum::services::NodeServices;
    use crate::runtime::peers::serve;

    fn identity(node: i32, incarnation: u8) -> Identity {
        let (directory, cluster) = (Uuid([node as u8; 16]), Some(ClusterId("c".into())));
        Identity { node: BrokerId(node), directory, cluster, incarnation: Uuid([incarnation; 16]) }
    }

    #[tokio::test]
    async fn only_the_registered_process_or_one_that_proves_nothing_speaks_for_a_broker() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let endpoint = |name: &str, port| Endpoint {
            listener: name.into(),
            host: "127.0.0.1".into(),
            port,
            protocol: SecurityProtocol::Plaintext,
        };
        let (nodes, clients) = ([endpoint("NODES", address.port())], [endpoint("CLIENTS", address.port())]);
        let both = [clients.clone(), nodes.clone()].concat();
        let dialer = TcpDialer::new(Arc::new(|| identity(1, 1)), None, BTreeMap::new());
        let looking = Looking { dialer, listener: "NODES".into() };
        let look = async |node, incarnation, endpoints: &[Endpoint]| {
            looking.connect_back(BrokerId(node), Uuid([incarnation; 16]), endpoints).await
        };
        // Its socket is there, and nobody accepts.
        assert_eq!(look(2, 7, &nodes).await, ConnectBack::Connected);
        let services = NodeServices::new(identity(2, 7));
        let members = Vec::new();
        services.answer_probes(ProbeAnswer::Member { cluster: ClusterId("c".into()), members, leader: None });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, None, services));
        assert_eq!(look(2, 7, &nodes).await, ConnectBack::Unknown);
        assert_eq!(look(2, 6, &nodes).await, ConnectBack::Refused);
        assert_eq!(look(3, 7, &nodes).await, ConnectBack::Refused);
        // No node can be told from another where clients speak.
        assert_eq!(look(2, 6, &clients).await, ConnectBack::Connected);
        assert_eq!(look(2, 6, &both).await, ConnectBack::Refused);
        serving.shutdown().await;
        assert_eq!(look(2, 7, &nodes).await, ConnectBack::Refused);
    }

    #[test]
    fn request_that_finds_too_many_before_it_is_answered_as_something_to_be_asked_again() {
        let sender = || mpsc::channel(1);
        let ((heartbeats, _h), (brokers, _b), (creating, _c), (clients, _queue)) =
            (sender(), sender(), sender(), sender());
        let elsewhere = Elsewhere { heartbeats, brokers, creating, clients, arrivals: Arc::default() };
        let ask = |request| {
            let (answer, mut answered) = oneshot::channel();
            elsewhere.take(Submission::new(request, answer));
            answered.try_recv().ok().map(|answer| answer.expect_err("nobody answers here").code())
        };
        let forget = || ControllerRequest::UnregisterBroker(UnregisterBrokerRequest { id: BrokerId(1) });
        assert_eq!(ask(forget()), None, "it waits");
        assert_eq!(ask(forget()), Some(ErrorCode::RequestTimedOut));
        assert_eq!(ask(ControllerRequest::BalanceLeaders), Some(ErrorCode::NotController));
    }
}
