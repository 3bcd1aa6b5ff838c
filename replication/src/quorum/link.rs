//! The seam between the metadata plane and the network: exchanges of one request and one answer with another node.
//!
//! The carrier behind it is TCP ([`crate::runtime::peers`]). Tests put broken links in front of it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::proof::{Hello, Identity, Purpose, Verdict};
use stonelog_protocol::{BrokerId, DirectoryId};
use tokio::sync::mpsc;

use crate::runtime::streams::ProvedSocket;

/// Whom to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which node.
    pub node: BrokerId,
    /// With which directory; `None` where any will do.
    pub directory: Option<DirectoryId>,
    /// Where.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Why an exchange brought no answer. The request may or may not have arrived, except where said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// There is no connection, and it is too early to try another, or it cannot be made. Nothing was sent.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The other end, or this one, refuses the other after the proof. Nothing was sent.
    #[error("{}", said(*.0))]
    Refused(Verdict),
    /// The time was up.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The other node could not serve the request, for a reason in its words.
    #[error("the other node failed: {0}")]
    Failed(String),
    /// The answer is none to this request.
    #[error("the answer makes no sense: {0}")]
    Malformed(String),
}

pub(crate) fn said(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Welcome => "it is welcome",
        Verdict::OtherNode => "another node than this one answers at its address",
        Verdict::OtherDirectory => "it runs on another log directory than the one that is meant",
        Verdict::OtherCluster => "it belongs to another cluster, or to none yet",
        Verdict::NotMember => "it does not take this node for a member",
        Verdict::NotServed => "it is starting or stopping",
        Verdict::OtherProcess => "another process with the same node id and log directory is connected",
    }
}

/// A link to one node: exchanges go one after the other.
pub trait PeerLink: Send + Sync + 'static {
    /// Sends a request and waits for its answer, both within a time. A future that is dropped closes the connection.
    fn exchange(
        &mut self,
        kind: Kind,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Frame, LinkError>> + Send;
}

/// Makes links; none connects before its first exchange.
pub trait PeerDialer: Clone + Send + Sync + 'static {
    /// What it makes.
    type Link: PeerLink;
    /// A link of its own to a node.
    fn link(&self, target: Target, purpose: Purpose) -> Self::Link;
}

/// What a node answers to others that have proved themselves.
pub trait PeerService: Send + Sync + 'static {
    /// Who this node is.
    fn identity(&self) -> Identity;
    /// Whether this dialer is served. Nodes, directories and clusters have been compared.
    fn admit(&self, hello: &Hello) -> Verdict;
    /// Where connections for streams go whose dialer was admitted; `None` where none are served.
    fn streams(&self) -> Option<mpsc::Sender<ProvedSocket>> {
        None
    }
    /// What serves the connection of an admitted dialer.
    fn session(&self, hello: Hello) -> Box<dyn PeerSession>;
}

/// One connection's requests, one after the other.
pub trait PeerSession: Send {
    /// Serves one request.
    fn serve(&mut self, request: Frame) -> Serving<'_>;
}

/// A request being served.
pub type Serving<'a> = Pin<Box<dyn Future<Output = Served> + Send + 'a>>;

/// What a request comes to.
#[derive(Debug)]
pub enum Served {
    /// This answer.
    Answer(Kind, Bytes),
    /// No answer but a reason.
    Failed(String),
    /// What arrived is no request of this connection; it ends.
    Close(String),
}
