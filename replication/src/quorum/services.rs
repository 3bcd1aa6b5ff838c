//! What one node answers to others, by what their connections are for. It grows while the node starts: at first only
//! probes, then the quorum and the feed.

use std::sync::{Arc, Mutex, MutexGuard};

use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::probe::{Probe, ProbeAnswer};
use stonelog_protocol::peer::proof::{Hello, Identity, Purpose, Verdict};

use super::link::{PeerService, PeerSession, Served, Serving};
use super::node::QuorumNode;

/// Makes the session of an admitted dialer.
type Sessions = Arc<dyn Fn(&Hello) -> Box<dyn PeerSession> + Send + Sync>;

/// What there is to answer with.
pub struct NodeServices {
    state: Mutex<State>,
}

struct State {
    identity: Identity,
    probe: Option<ProbeAnswer>,
    quorum: Option<Sessions>,
    feed: Option<Sessions>,
    control: Option<Sessions>,
}

impl NodeServices {
    /// A node that answers nothing yet.
    pub fn new(identity: Identity) -> Arc<NodeServices> {
        let state = State { identity, probe: None, quorum: None, feed: None, control: None };
        Arc::new(NodeServices { state: Mutex::new(state) })
    }

    /// Who this node is from now on: it has got a cluster.
    pub fn set_identity(&self, identity: Identity) {
        self.state().identity = identity;
    }

    /// What it answers to probes from now on.
    pub fn answer_probes(&self, answer: ProbeAnswer) {
        self.state().probe = Some(answer);
    }

    /// Voters may speak to this one.
    pub fn serve_quorum(&self, node: &Arc<QuorumNode>) {
        // The node ends with its owner, not with its connections.
        let node = Arc::downgrade(node);
        self.state().quorum = Some(Arc::new(move |hello| match node.upgrade() {
            Some(node) => Box::new(node.session(hello.from.node)),
            None => Box::new(Nothing),
        }));
    }

    /// Others may do so for another purpose.
    pub fn serve(&self, purpose: Purpose, sessions: impl Fn(&Hello) -> Box<dyn PeerSession> + Send + Sync + 'static) {
        let sessions: Sessions = Arc::new(sessions);
        let mut state = self.state();
        match purpose {
            Purpose::Feed => state.feed = Some(sessions),
            Purpose::Control => state.control = Some(sessions),
            Purpose::Quorum => state.quorum = Some(sessions),
            Purpose::Probe | Purpose::Streams => unreachable!("{purpose:?} is not served from here"),
        }
    }

    /// Nothing but probes from now on: what served the rest is going.
    pub fn stop(&self) {
        let mut state = self.state();
        (state.quorum, state.feed, state.control) = (None, None, None);
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
            purpose => state.sessions(purpose).is_some(),
        };
        if is_served { Verdict::Welcome } else { Verdict::NotServed }
    }

    fn session(&self, hello: Hello) -> Box<dyn PeerSession> {
        let state = self.state();
        if hello.purpose == Purpose::Probe {
            return Box::new(ProbeSession { answer: state.probe.clone() });
        }
        let sessions = state.sessions(hello.purpose).cloned();
        drop(state);
        sessions.map_or_else(|| Box::new(Nothing) as Box<dyn PeerSession>, |sessions| sessions(&hello))
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
    answer: Option<ProbeAnswer>,
}

impl PeerSession for ProbeSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        let served = match (request.kind, &self.answer) {
            (Kind::Probe, Some(answer)) => match Probe::decode(request.body) {
                Ok(_) => Served::Answer(Kind::ProbeAnswer, answer.encode()),
                Err(error) => Served::Close(error.to_string()),
            },
            (kind, _) => Served::Close(format!("a {kind:?} frame on a connection for probes")),
        };
        Box::pin(std::future::ready(served))
    }
}
