//! The accepting end: whoever begins with the magic bytes proves itself first, then has its requests served in order.
//!
//! Where it is served may be another thread than the one on which it has proved itself: see [`super::door`].

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::frame::{Frame, Kind, MAGIC, METADATA_FRAME_BYTES_MAX, PROOF_FRAME_BYTES_MAX};
use stonelog_protocol::peer::proof::{Accepting, Acceptor, Hello, NONCE_BYTES, ProofError, Purpose, Verdict};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::dial::{random, trust};
use super::framing::{PeerSocket, expect_frame, read_frame, write_frame};
use super::secret::ClusterSecret;
use super::unproved::{UNPROVED_COUNT_MAX, Unproved};
use crate::quorum::link::{PeerService, Served, said};
use crate::quorum::saying::Saying;
use crate::runtime::streams::ProvedSocket;

/// The longest that magic bytes and proof may take.
const PROVE_WITHIN: Duration = Duration::from_secs(5);
/// A connection without requests for so long is closed. Dialers give theirs up much earlier.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// An answer that the other end does not take for so long ends the connection.
const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
/// Connections in all: three of each voter, two of each broker.
pub(super) const CONNECTION_COUNT_MAX: usize = 4096;
/// How long to wait after an accept failed for want of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A connection that another listener accepted, and found to begin with [`MAGIC`].
pub struct HandedOver {
    /// The socket, non-blocking, taken out of the runtime it was accepted on.
    pub socket: std::net::TcpStream,
    /// What was read behind the magic bytes.
    pub ahead: Bytes,
    /// What counts it among its address's connections; kept until it has proved itself.
    pub held: Option<Box<dyn Any + Send>>,
}

/// Connections handed over that wait to be served; who comes later is closed.
pub const HANDED_OVER_LEN_MAX: usize = UNPROVED_COUNT_MAX;

/// Accepts and serves until dropped; every connection ends with it.
pub async fn serve(listener: TcpListener, secret: Option<ClusterSecret>, service: Arc<dyn PeerService>) {
    accept(listener, secret, service, None).await;
}

/// As [`serve`]; whoever has proved itself goes to `proved`, if that is there.
pub(super) async fn accept(
    listener: TcpListener,
    secret: Option<ClusterSecret>,
    service: Arc<dyn PeerService>,
    proved: Option<mpsc::Sender<Proved>>,
) {
    let mut serving = Serving::new(secret, service, proved);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = serving.ended() => continue,
        };
        match accepted {
            Ok((socket, peer)) => serving.begin(PeerSocket::new(socket), peer, false, None),
            Err(error) => {
                tracing::warn!("cannot accept a connection between nodes: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Serves what clients' listeners hand over, until they are gone; every connection ends with it.
pub async fn serve_handed_over(
    handed_over: mpsc::Receiver<HandedOver>,
    secret: Option<ClusterSecret>,
    service: Arc<dyn PeerService>,
) {
    take_over(handed_over, secret, service, None).await;
}

/// As [`serve_handed_over`]; whoever has proved itself goes to `proved`, if that is there.
pub(super) async fn take_over(
    mut handed_over: mpsc::Receiver<HandedOver>,
    secret: Option<ClusterSecret>,
    service: Arc<dyn PeerService>,
    proved: Option<mpsc::Sender<Proved>>,
) {
    let mut serving = Serving::new(secret, service, proved);
    loop {
        let next = tokio::select! {
            next = handed_over.recv() => next,
            () = serving.ended() => continue,
        };
        let Some(HandedOver { socket, ahead, held }) = next else { return };
        let taken = TcpStream::from_std(socket).and_then(|socket| Ok((socket.peer_addr()?, socket)));
        match taken {
            Ok((peer, socket)) => serving.begin(PeerSocket::with(socket, ahead), peer, true, held),
            Err(error) => tracing::debug!("a connection between nodes was lost: {error}"),
        }
    }
}

/// A connection that has proved itself, on its way to the thread that serves it.
pub(super) struct Proved {
    /// Non-blocking, taken out of the runtime it was accepted on.
    pub(super) socket: std::net::TcpStream,
    /// What was read behind the proof.
    pub(super) ahead: Bytes,
    pub(super) peer: SocketAddr,
    pub(super) hello: Hello,
}

/// Connections being served.
struct Serving {
    secret: Option<ClusterSecret>,
    service: Arc<dyn PeerService>,
    /// Where those go that have proved themselves; `None` where they are served here.
    proved: Option<mpsc::Sender<Proved>>,
    unproved: Arc<Mutex<Unproved<AbortHandle>>>,
    begun: u64,
    connections: JoinSet<()>,
    /// Who is refused for want of the secret is told to the operator on this side too.
    saying: Arc<Mutex<Saying>>,
    began: Instant,
}

impl Serving {
    fn new(
        secret: Option<ClusterSecret>,
        service: Arc<dyn PeerService>,
        proved: Option<mpsc::Sender<Proved>>,
    ) -> Serving {
        let (connections, saying) = (JoinSet::new(), Arc::new(Mutex::new(Saying::at_once())));
        let (unproved, began) = (Arc::default(), Instant::now());
        Serving { secret, service, proved, unproved, begun: 0, connections, saying, began }
    }

    /// Returns when one has ended; never while there is none.
    async fn ended(&mut self) {
        if self.connections.join_next().await.is_none() {
            std::future::pending().await
        }
    }

    fn begin(&mut self, socket: PeerSocket, peer: SocketAddr, magic_is_read: bool, held: Option<Box<dyn Any + Send>>) {
        if self.connections.len() >= CONNECTION_COUNT_MAX {
            tracing::debug!(%peer, "too many connections between nodes; this one is closed");
            return;
        }
        self.begun += 1;
        let place = Place { unproved: Arc::clone(&self.unproved), id: self.begun, _held: held };
        let (secret, service) = (self.secret.clone(), self.service.clone());
        let (saying, began, proved) = (Arc::clone(&self.saying), self.began, self.proved.clone());
        let end = self.connections.spawn(async move {
            let way = (peer, proved);
            let Err(error) = converse(socket, magic_is_read, secret, &*service, place, way).await else { return };
            match untrusted(&error) {
                Some(why) => {
                    let why = match why {
                        ProofError::Refused(verdict) => said(*verdict).to_owned(),
                        why => why.to_string(),
                    };
                    let reason = format!("a node at {} is refused: {why}", peer.ip());
                    let mut saying = saying.lock().unwrap_or_else(PoisonError::into_inner);
                    if saying.is_due(began.elapsed(), &reason) {
                        tracing::warn!("{reason}");
                    }
                }
                None => tracing::debug!(%peer, "connection between nodes ended: {error}"),
            }
        });
        // It has not run yet: one thread spawns and runs.
        let crowded_out =
            self.unproved.lock().unwrap_or_else(PoisonError::into_inner).enter(self.begun, peer.ip(), end);
        if let Some(oldest) = crowded_out {
            oldest.abort();
        }
    }
}

/// A connection that has not proved itself, counted while this lives: here, and where it was accepted.
struct Place {
    unproved: Arc<Mutex<Unproved<AbortHandle>>>,
    id: u64,
    _held: Option<Box<dyn Any + Send>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unproved.lock().unwrap_or_else(PoisonError::into_inner).leave(self.id);
    }
}

/// Why a connection ended, if the operator should hear of it: the other end did not show that it belongs to this cluster,
/// or that it is the one process of its node.
fn untrusted(error: &io::Error) -> Option<&ProofError> {
    let why = error.get_ref()?.downcast_ref::<ProofError>()?;
    let is_told = match why {
        ProofError::OneSecret | ProofError::NotLoopback | ProofError::WrongSecret => true,
        ProofError::Refused(verdict) => *verdict == Verdict::OtherProcess,
        ProofError::Malformed(_) | ProofError::OutOfTurn(_) => false,
    };
    is_told.then_some(why)
}

async fn converse(
    mut socket: PeerSocket,
    magic_is_read: bool,
    secret: Option<ClusterSecret>,
    service: &dyn PeerService,
    place: Place,
    (peer, elsewhere): (SocketAddr, Option<mpsc::Sender<Proved>>),
) -> io::Result<()> {
    socket.socket.set_nodelay(true)?;
    let proved = timeout(PROVE_WITHIN, prove(&mut socket, magic_is_read, &secret, service)).await;
    drop(place);
    let Some(hello) = proved.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
    if hello.purpose == Purpose::Streams {
        return hand_to_streams(socket, &hello, service);
    }
    let Some(elsewhere) = elsewhere else { return attend(socket, hello, service).await };
    let (socket, ahead) = socket.into_parts();
    let proved = Proved { socket: socket.into_std()?, ahead, peer, hello };
    elsewhere.send(proved).await.map_err(|_| io::Error::other("this node is stopping"))
}

/// Serves what has proved itself.
pub(super) async fn attend(mut socket: PeerSocket, hello: Hello, service: &dyn PeerService) -> io::Result<()> {
    let mut session = service.session(hello);
    loop {
        let next = timeout(IDLE_MAX, read_frame(&mut socket, METADATA_FRAME_BYTES_MAX)).await;
        let Some(request) = next.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
        let exchange = request.exchange;
        let (kind, body) = match session.serve(request).await {
            Served::Answer(kind, body) => (kind, body),
            Served::Failed(why) => (Kind::Failed, why.into()),
            Served::Close(why) => return Err(io::Error::new(io::ErrorKind::InvalidData, why)),
        };
        let answer = Frame { kind, exchange, body };
        timeout(WRITE_STALL_MAX, write_frame(&mut socket, &answer)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    }
}

/// A connection for streams goes to the lanes, which read and write on it by themselves.
fn hand_to_streams(socket: PeerSocket, hello: &Hello, service: &dyn PeerService) -> io::Result<()> {
    let Some(streams) = service.streams() else { return Ok(()) };
    let (socket, ahead) = socket.into_parts();
    let proved = ProvedSocket { socket: socket.into_std()?, ahead, from: hello.from.node };
    streams.try_send(proved).map_err(|_| io::Error::other("too many connections for streams wait"))
}

/// Reads the magic bytes and goes through the proof; `None` when the dialer was told that it is refused.
async fn prove(
    socket: &mut PeerSocket,
    magic_is_read: bool,
    secret: &Option<ClusterSecret>,
    service: &dyn PeerService,
) -> io::Result<Option<Hello>> {
    if !magic_is_read && socket.read_few().await? != Some(MAGIC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no node"));
    }
    let mut proof = Acceptor::begin(trust(secret, &socket.socket)?, service.identity(), random::<NONCE_BYTES>());
    loop {
        let frame = expect_frame(socket, PROOF_FRAME_BYTES_MAX).await?;
        let next = proof.on_frame(frame, |hello| service.admit(hello));
        match next.map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))? {
            Accepting::Send(frame) => write_frame(socket, &frame).await?,
            Accepting::Proved(frame, hello) => {
                write_frame(socket, &frame).await?;
                return Ok(Some(hello));
            }
            Accepting::Refused(frame, verdict) => {
                tracing::debug!(?verdict, "a node was refused");
                write_frame(socket, &frame).await?;
                if verdict == Verdict::OtherProcess {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, ProofError::Refused(verdict)));
                }
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_the_secret_is_told_to_the_operator() {
        let refused = |why| io::Error::new(io::ErrorKind::PermissionDenied, why);
        for why in [ProofError::OneSecret, ProofError::NotLoopback, ProofError::WrongSecret] {
            assert!(untrusted(&refused(why)).is_some());
        }
        assert!(untrusted(&refused(ProofError::OutOfTurn(Kind::Probe))).is_none());
        assert!(untrusted(&io::ErrorKind::TimedOut.into()).is_none());
    }
}
