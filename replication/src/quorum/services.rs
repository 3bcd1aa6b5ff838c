//! What one node answers to others, by what their connections are for. It grows while the node starts: at first only
//! probes, then the quorum and the feed.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::probe::{Probe, ProbeAnswer};
use stonelog_protocol::peer::proof::{Hello, Identity, Purpose, Verdict};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::feed::FeedSession;
use super::link::{PeerService, PeerSession, Served, Serving};
use super::node::QuorumNode;
use super::processes::Processes;
use crate::runtime::streams::ProvedSocket;

/// Makes the session of an admitted dialer.
type Sessions = Arc<dyn Fn(&Hello) -> Box<dyn PeerSession> + Send + Sync>;

/// What there is to answer with.
pub struct NodeServices {
    state: Arc<Mutex<State>>,
}

struct State {
    identity: Identity,
    /// What it knows of a cluster while its own log holds nothing.
    probe: Option<ProbeAnswer>,
    /// Grows with everything a probe's answer may depend on.
    changes: u64,
    /// Its voter, which knows more.
    node: Weak<QuorumNode>,
    quorum: Option<Sessions>,
    feed: Option<Sessions>,
    control: Option<Sessions>,
    streams: Option<mpsc::Sender<ProvedSocket>>,
    /// Whose votes and entries are heard.
    voters: Processes,
    begun: Instant,
}

impl NodeServices {
    /// A node that answers nothing yet.
    pub fn new(identity: Identity) -> Arc<NodeServices> {
        let (node, quorum, feed, control, streams) = (Weak::new(), None, None, None, None);
        let (voters, begun) = (Processes::default(), Instant::now());
        let state = State { identity, probe: None, changes: 0, node, quorum, feed, control, streams, voters, begun };
        Arc::new(NodeServices { state: Arc::new(Mutex::new(state)) })
    }

    /// Who this node is from now on: it has got a cluster.
    pub fn set_identity(&self, identity: Identity) {
        let mut state = self.state();
        state.identity = identity;
        state.changes += 1;
    }

    /// What it answers to probes while no voter's log says more.
    pub fn answer_probes(&self, answer: ProbeAnswer) {
        let mut state = self.state();
        state.probe = Some(answer);
        state.changes += 1;
    }

    /// Voters may speak to this one, and others follow what it has applied.
    pub fn serve_quorum(&self, node: &Arc<QuorumNode>) {
        // The node ends with its owner, not with its connections.
        let node = Arc::downgrade(node);
        let feeding = node.clone();
        let mut state = self.state();
        state.changes += 1;
        state.node = node.clone();
        state.feed = Some(Arc::new(move |hello| match feeding.upgrade() {
            Some(node) => Box::new(FeedSession::new(&node, (hello.from.node, hello.from.directory))),
            None => Box::new(Nothing),
        }));
        state.quorum = Some(Arc::new(move |hello| match node.upgrade() {
            Some(node) => Box::new(node.session(hello.from.node)),
            None => Box::new(Nothing),
        }));
    }

    /// Brokers may ask the controller here; it answers itself when it does not lead.
    pub fn serve_control(&self, sessions: impl Fn(&Hello) -> Box<dyn PeerSession> + Send + Sync + 'static) {
        self.state().control = Some(Arc::new(sessions));
    }

    /// Brokers may follow what this one leads: their connections go here.
    pub fn serve_streams(&self, streams: mpsc::Sender<ProvedSocket>) {
        self.state().streams = Some(streams);
    }

    /// Nothing but probes from now on: what served the rest is going.
    pub fn stop(&self) {
        let mut state = self.state();
        (state.quorum, state.feed, state.control, state.streams) = (None, None, None, None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl State {
    fn sessions(&self, purpose: Purpose) -> Option<&Sessions> {
        match purpose {
            Purpose::Quorum => self.quorum.as_ref(),
            Purpose::Feed => self.feed.as_ref(),
            Purpose::Control => self.control.as_ref(),
            Purpose::Probe | Purpose::Streams => None,
        }
    }
}

impl PeerService for NodeServices {
    fn identity(&self) -> Identity {
        self.state().identity.clone()
    }

    fn admit(&self, hello: &Hello) -> Verdict {
        let state = self.state();
        let is_served = match hello.purpose {
            Purpose::Probe => state.probe.is_some(),
            Purpose::Streams => state.streams.is_some(),
            purpose => state.sessions(purpose).is_some(),
        };
        if !is_served {
            return Verdict::NotServed;
        }
        let is_copy = hello.purpose == Purpose::Quorum && !state.voters.admits(&hello.from, state.begun.elapsed());
        if is_copy { Verdict::OtherProcess } else { Verdict::Welcome }
    }

    fn streams(&self) -> Option<mpsc::Sender<ProvedSocket>> {
        self.state().streams.clone()
    }

    fn session(&self, hello: Hello) -> Box<dyn PeerSession> {
        let state = self.state();
        if hello.purpose == Purpose::Probe {
            return Box::new(ProbeSession { state: self.state.clone() });
        }
        let sessions = state.sessions(hello.purpose).cloned();
        drop(state);
        let session = sessions.map_or_else(|| Box::new(Nothing) as Box<dyn PeerSession>, |sessions| sessions(&hello));
        if hello.purpose != Purpose::Quorum {
            return session;
        }
        let mut state = self.state();
        let now = state.begun.elapsed();
        let is_heard = state.voters.enter(&hello.from, now);
        Box::new(VoterSession { session, from: hello.from, is_heard, state: self.state.clone() })
    }
}

/// A connection of a voter, which is one process.
struct VoterSession {
    session: Box<dyn PeerSession>,
    from: Identity,
    /// It counts among its process's connections.
    is_heard: bool,
    state: Arc<Mutex<State>>,
}

impl PeerSession for VoterSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        let is_heard = self.is_heard && {
            let mut state = self.state.lock().expect("no holder panics");
            let now = state.begun.elapsed();
            state.voters.hear(&self.from, now)
        };
        if is_heard {
            return self.session.serve(request);
        }
        let why = format!("another process speaks for node {} with the same log directory", self.from.node);
        Box::pin(std::future::ready(Served::Close(why)))
    }
}

impl Drop for VoterSession {
    fn drop(&mut self) {
        if self.is_heard {
            self.state.lock().expect("no holder panics").voters.leave(&self.from);
        }
    }
}

/// A connection that came too late.
struct Nothing;

impl PeerSession for Nothing {
    fn serve(&mut self, _request: Frame) -> Serving<'_> {
        Box::pin(std::future::ready(Served::Close("this node is stopping".to_owned())))
    }
}

/// A connection that asks what there is.
struct ProbeSession {
    state: Arc<Mutex<State>>,
}

impl ProbeSession {
    /// As things are now: they change while the connection lasts, and while the log is asked.
    async fn answer(&self) -> Option<ProbeAnswer> {
        loop {
            let before = self.changes();
            let answer = self.look().await;
            if self.changes() == before {
                return answer;
            }
        }
    }

    fn changes(&self) -> u64 {
        self.state.lock().expect("no holder panics").changes
    }

    async fn look(&self) -> Option<ProbeAnswer> {
        let (answer, node, cluster) = {
            let state = self.state.lock().expect("no holder panics");
            (state.probe.clone(), state.node.clone(), state.identity.cluster.clone())
        };
        if let (Some(node), Some(cluster)) = (node.upgrade(), cluster)
            && let Ok(true) = node.is_initialized().await
            && node.has_kept_its_first().await
            && let Ok(members) = node.members().await
        {
            let leader = node.leading_surely().map(|leading| leading.node);
            return Some(ProbeAnswer::Member { cluster, members, leader });
        }
        answer
    }
}

impl PeerSession for ProbeSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        Box::pin(async move {
            if request.kind != Kind::Probe {
                return Served::Close(format!("a {:?} frame on a connection for probes", request.kind));
            }
            match (Probe::decode(request.body), self.answer().await) {
                (Ok(_), Some(answer)) => Served::Answer(Kind::ProbeAnswer, answer.encode()),
                (Ok(_), None) => Served::Failed("this node does not know yet".to_owned()),
                (Err(error), _) => Served::Close(error.to_string()),
            }
        })
    }
}
