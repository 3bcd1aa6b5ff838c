//! The dialing end: connects when first needed, proves, exchanges, and closes whatever did not end well.
//!
//! A connection whose exchange failed, ran out of time or was given up is never used again: its next answer could be
//! that of the exchange before.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::frame::{Frame, Kind, MAGIC, METADATA_FRAME_BYTES_MAX, PROOF_FRAME_BYTES_MAX};
use stonelog_protocol::peer::proof::{
    Dialer, Dialing, Hello, Identity, NONCE_BYTES, ProofError, Purpose, Trust, Verdict,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::framing::{PeerSocket, expect_frame, write_frame};
use super::secret::ClusterSecret;
use crate::quorum::link::{LinkError, PeerDialer, PeerLink, Target};

/// A connection that was not used for so long is not trusted to be alive.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The longest that connecting and proving may take, whatever the exchange allows.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// Who this node is at the moment.
pub type OwnIdentity = Arc<dyn Fn() -> Identity + Send + Sync>;

/// Makes links over TCP.
#[derive(Clone)]
pub struct TcpDialer {
    own: OwnIdentity,
    secret: Option<ClusterSecret>,
    /// Where this node's own configuration says that nodes are. It wins over what the membership says, so that a quorum
    /// whose addresses have changed can form.
    listed: Arc<BTreeMap<BrokerId, (String, u16)>>,
    /// Why the last attempt to reach a node failed, of those that cannot be reached.
    failing: Arc<Mutex<BTreeMap<BrokerId, LinkError>>>,
    started: Instant,
}

impl TcpDialer {
    /// A dialer that proves itself with a secret, or without one over the loopback interface.
    pub fn new(
        own: OwnIdentity,
        secret: Option<ClusterSecret>,
        listed: BTreeMap<BrokerId, (String, u16)>,
    ) -> TcpDialer {
        TcpDialer { own, secret, listed: Arc::new(listed), failing: Arc::default(), started: Instant::now() }
    }
}

impl TcpDialer {
    /// The nodes that could not be reached when it was last tried, and why.
    pub fn failing(&self) -> BTreeMap<BrokerId, LinkError> {
        self.failing.lock().expect("no holder panics").clone()
    }

    fn on_dialed(&self, node: BrokerId, failed: Option<&LinkError>) {
        let mut failing = self.failing.lock().expect("no holder panics");
        match failed {
            Some(error @ LinkError::Refused(Verdict::OtherProcess)) => {
                if failing.insert(node, error.clone()).as_ref() != Some(error) {
                    tracing::error!(
                        "node {node} refuses this process: {error}. One of the two runs on a copy of the log directory, and \
                         must be ended"
                    );
                }
            }
            Some(error) => drop(failing.insert(node, error.clone())),
            None => drop(failing.remove(&node)),
        }
    }

    /// A connection of its own, proved, for whoever speaks on it in another way than by exchanges; with what was read
    /// behind the proof. It leads where the target says, not where voters are listed.
    pub(in crate::runtime) async fn connect(
        &self,
        target: &Target,
        purpose: Purpose,
    ) -> Result<(TcpStream, Bytes), LinkError> {
        match dial(self, target, purpose, (target.host.as_str(), target.port)).await {
            Ok((proved, _)) => Ok(proved.into_parts()),
            Err(error) => Err(error.into()),
        }
    }

    /// Who it is that answers where the target says.
    pub(crate) async fn identify(&self, target: &Target) -> Result<Identity, LinkError> {
        let (_, reached) = dial(self, target, Purpose::Probe, (target.host.as_str(), target.port)).await?;
        Ok(reached)
    }
}

impl PeerDialer for TcpDialer {
    type Link = TcpLink;

    fn link(&self, target: Target, purpose: Purpose) -> TcpLink {
        let (dialer, backoff) = (self.clone(), Backoff::default());
        TcpLink { dialer, target, purpose, connection: None, backoff, failed: None, exchange: 0 }
    }
}

struct Connection {
    socket: PeerSocket,
    used: Instant,
}

/// A link over TCP.
pub struct TcpLink {
    dialer: TcpDialer,
    target: Target,
    purpose: Purpose,
    connection: Option<Connection>,
    backoff: Backoff,
    /// Why the last attempt failed, if one has.
    failed: Option<LinkError>,
    exchange: u32,
}

impl PeerLink for TcpLink {
    #[allow(clippy::manual_async_fn, reason = "the bound on the future has to be said")]
    fn exchange(
        &mut self,
        kind: Kind,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Frame, LinkError>> + Send {
        async move {
            let deadline = Instant::now() + within;
            let kept = self.connection.take().filter(|connection| connection.used.elapsed() < IDLE_MAX);
            let mut socket = match kept {
                // What is sent to who has gone may have had its effect, as far as anybody can tell.
                Some(Connection { socket, .. }) if socket.is_quiet().await => socket,
                _ => self.connect(within.min(CONNECT_WITHIN)).await?,
            };
            self.exchange = self.exchange.wrapping_add(1);
            let request = Frame { kind, exchange: self.exchange, body };
            let answer = tokio::time::timeout_at(deadline, ask(&mut socket, &request)).await;
            match answer {
                Err(_) => Err(LinkError::TimedOut),
                Ok(Err(error)) => Err(LinkError::Broken(error.to_string())),
                Ok(Ok(answer)) if answer.exchange != request.exchange => {
                    Err(LinkError::Malformed(format!("it is for exchange {}", answer.exchange)))
                }
                Ok(Ok(answer)) => {
                    self.connection = Some(Connection { socket, used: Instant::now() });
                    if answer.kind == Kind::Failed {
                        return Err(LinkError::Failed(String::from_utf8_lossy(&answer.body).into_owned()));
                    }
                    Ok(answer)
                }
            }
        }
    }
}

async fn ask(socket: &mut PeerSocket, request: &Frame) -> io::Result<Frame> {
    write_frame(socket, request).await?;
    expect_frame(socket, METADATA_FRAME_BYTES_MAX).await
}

impl TcpLink {
    async fn connect(&mut self, within: Duration) -> Result<PeerSocket, LinkError> {
        let now = || self.dialer.started.elapsed();
        if !self.backoff.may_dial(now()) {
            return Err(self.failed.clone().unwrap_or(LinkError::TimedOut));
        }
        let error = match timeout(within, self.dial()).await {
            Ok(Ok((socket, _))) => {
                self.backoff.on_success();
                self.dialer.on_dialed(self.target.node, None);
                return Ok(socket);
            }
            Ok(Err(error)) => error.into(),
            Err(_) => LinkError::Unreachable("no connection in time".to_owned()),
        };
        self.backoff.on_failure(now(), random::<1>()[0]);
        tracing::debug!(node = %self.target.node, purpose = ?self.purpose, "no link: {error}");
        self.dialer.on_dialed(self.target.node, Some(&error));
        self.failed = Some(error.clone());
        Err(error)
    }

    async fn dial(&self) -> Result<(PeerSocket, Identity), DialError> {
        let at = match self.dialer.listed.get(&self.target.node) {
            Some((host, port)) => (host.as_str(), *port),
            None => (self.target.host.as_str(), self.target.port),
        };
        dial(&self.dialer, &self.target, self.purpose, at).await
    }
}

/// Connects and proves; who was reached.
async fn dial(
    dialer: &TcpDialer,
    target: &Target,
    purpose: Purpose,
    (host, port): (&str, u16),
) -> Result<(PeerSocket, Identity), DialError> {
    let socket = match host.parse::<IpAddr>() {
        Ok(address) => TcpStream::connect((address, port)).await?,
        Err(_) => TcpStream::connect((host, port)).await?,
    };
    socket.set_nodelay(true)?;
    let hello = Hello {
        from: (dialer.own)(),
        to: target.node,
        to_directory: target.directory,
        purpose,
        has_secret: false,
        nonce: random::<NONCE_BYTES>(),
    };
    let mut socket = PeerSocket::new(socket);
    let (mut proof, first) = Dialer::begin(trust(&dialer.secret, &socket.socket)?, hello);
    let mut opening = MAGIC.to_vec();
    opening.extend_from_slice(&first.encode());
    socket.socket.write_all(&opening).await?;
    let mut has_proved_itself = false;
    loop {
        let frame = match expect_frame(&mut socket, PROOF_FRAME_BYTES_MAX).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(DialError::HungUp { has_proved_itself });
            }
            frame => frame?,
        };
        match proof.on_frame(frame)? {
            Dialing::Send(frame) => write_frame(&mut socket, &frame).await?,
            Dialing::Proved(reached) => return Ok((socket, reached)),
        }
        has_proved_itself = true;
    }
}

/// How this end of a connection proves itself.
pub(super) fn trust(secret: &Option<ClusterSecret>, socket: &TcpStream) -> io::Result<Trust> {
    Ok(match secret {
        Some(secret) => Trust::Secret(Arc::new(secret.clone())),
        None => Trust::Loopback { is_loopback: socket.peer_addr()?.ip().to_canonical().is_loopback() },
    })
}

/// Bytes nobody can foresee.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

enum DialError {
    Io(io::Error),
    /// The other end closed the connection without a word; whether this one had shown by then what it knows.
    HungUp {
        has_proved_itself: bool,
    },
    Proof(ProofError),
}

impl From<DialError> for LinkError {
    fn from(error: DialError) -> LinkError {
        match error {
            DialError::Io(error) => LinkError::Unreachable(error.to_string()),
            DialError::HungUp { has_proved_itself: true } => {
                LinkError::Unreachable("it hangs up: most likely it has another cluster secret".to_owned())
            }
            DialError::HungUp { has_proved_itself: false } => LinkError::Unreachable(
                "it hangs up at once: only one of the two has a cluster secret, or it is busy, or no node".to_owned(),
            ),
            DialError::Proof(ProofError::Refused(verdict)) => LinkError::Refused(verdict),
            DialError::Proof(error) => LinkError::Unreachable(error.to_string()),
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> DialError {
        DialError::Io(error)
    }
}

impl From<ProofError> for DialError {
    fn from(error: ProofError) -> DialError {
        DialError::Proof(error)
    }
}
