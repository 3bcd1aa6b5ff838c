//! The accepting end: whoever begins with the magic bytes proves itself first, then has its requests served in order.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stonelog_protocol::peer::frame::{Frame, Kind, MAGIC, METADATA_FRAME_BYTES_MAX, PROOF_FRAME_BYTES_MAX};
use stonelog_protocol::peer::proof::{Accepting, Acceptor, Hello, NONCE_BYTES};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dial::{random, trust};
use super::framing::{expect_frame, read_frame, write_frame};
use super::secret::ClusterSecret;
use crate::quorum::link::{PeerService, Served};

/// The longest that magic bytes and proof may take.
const PROVE_WITHIN: Duration = Duration::from_secs(5);
/// A connection without requests for so long is closed. Dialers give theirs up much earlier.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// An answer that the other end does not take for so long ends the connection.
const WRITE_STALL_MAX: Duration = Duration::from_secs(10);
/// Connections that have not proved themselves yet.
const UNPROVED_COUNT_MAX: usize = 64;
/// Connections in all: three of each voter, two of each broker.
const CONNECTION_COUNT_MAX: usize = 4096;
/// How long to wait after an accept failed for want of descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Accepts and serves until dropped; every connection ends with it.
pub async fn serve(listener: TcpListener, secret: Option<ClusterSecret>, service: Arc<dyn PeerService>) {
    let unproved = Arc::new(AtomicUsize::new(0));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((socket, peer)) => {
                let place = Unproved::take(&unproved);
                if connections.len() >= CONNECTION_COUNT_MAX || place.count > UNPROVED_COUNT_MAX {
                    tracing::debug!(%peer, "too many connections between nodes; this one is closed");
                    continue;
                }
                let (secret, service) = (secret.clone(), service.clone());
                connections.spawn(async move {
                    if let Err(error) = converse(socket, secret, &*service, place).await {
                        tracing::debug!(%peer, "connection between nodes ended: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept a connection between nodes: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A connection that has not proved itself, counted while this lives.
struct Unproved {
    all: Arc<AtomicUsize>,
    /// How many there are with this one.
    count: usize,
}

impl Unproved {
    fn take(all: &Arc<AtomicUsize>) -> Unproved {
        let count = all.fetch_add(1, Ordering::Relaxed) + 1;
        Unproved { all: all.clone(), count }
    }
}

impl Drop for Unproved {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn converse(
    mut socket: TcpStream,
    secret: Option<ClusterSecret>,
    service: &dyn PeerService,
    place: Unproved,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let proved = timeout(PROVE_WITHIN, prove(&mut socket, &secret, service)).await;
    drop(place);
    let Some(hello) = proved.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
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

/// Reads the magic bytes and goes through the proof; `None` when the dialer was told that it is refused.
async fn prove(
    socket: &mut TcpStream,
    secret: &Option<ClusterSecret>,
    service: &dyn PeerService,
) -> io::Result<Option<Hello>> {
    let mut magic = [0; MAGIC.len()];
    socket.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no node"));
    }
    let mut proof = Acceptor::begin(trust(secret, socket)?, service.identity(), random::<NONCE_BYTES>());
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
                return Ok(None);
            }
        }
    }
}
