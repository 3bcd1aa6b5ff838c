//! Asking the active controller over the network, and answering as one.
//!
//! What is asked is bytes here. An answer is given only by a node that leads surely before it decides and after: what
//! rests on no entry, a heartbeat's answer or a refusal, would else be that of a controller that has been replaced.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::control::{Answer, Ask};
use stonelog_protocol::peer::frame::{Frame, Kind};
use stonelog_protocol::peer::proof::Purpose;
use tokio::time::Instant;

use super::forwarding::{Forwarding, Heard, Next};
use super::link::{LinkError, PeerDialer, PeerLink, PeerSession, Served, Serving, Target};
use super::node::QuorumNode;

/// The longest that one node is waited for before another is asked.
const ONE_WITHIN: Duration = Duration::from_secs(5);

/// What decides requests where this node leads.
pub trait ControlHandler: Send + Sync + 'static {
    /// Decides a request of a node that has proved itself; returns when what it came to is committed and applied.
    fn decide(&self, from: BrokerId, request: Bytes) -> Pin<Box<dyn Future<Output = Answer> + Send>>;
}

/// One broker's connection to the controller.
pub struct ControlSession {
    node: Weak<QuorumNode>,
    handler: Arc<dyn ControlHandler>,
    from: BrokerId,
}

impl ControlSession {
    /// Serves a broker where the quorum's member lives.
    pub fn new(node: Weak<QuorumNode>, handler: Arc<dyn ControlHandler>, from: BrokerId) -> ControlSession {
        ControlSession { node, handler, from }
    }

    async fn answer(&self, ask: Ask) -> Answer {
        let leads = || self.node.upgrade().is_some_and(|node| node.leads_surely());
        if !leads() {
            let leading = self.node.upgrade().and_then(|node| node.leading_surely());
            return Answer::NotController(leading.map(|leading| leading.node));
        }
        let within = Duration::from_millis(u64::from(ask.within_ms));
        match tokio::time::timeout(within, self.handler.decide(self.from, ask.request)).await {
            Ok(answer) if leads() => answer,
            // Nobody waits any more, or it has been replaced meanwhile: whoever leads now is to be asked.
            _ => Answer::Unknown,
        }
    }
}

impl PeerSession for ControlSession {
    fn serve(&mut self, request: Frame) -> Serving<'_> {
        Box::pin(async move {
            if request.kind != Kind::Ask {
                return Served::Close(format!("a {:?} frame on a connection to the controller", request.kind));
            }
            match Ask::decode(request.body) {
                Ok(ask) => Served::Answer(Kind::Answer, self.answer(ask).await.encode()),
                Err(error) => Served::Close(error.to_string()),
            }
        })
    }
}

/// Asks the active controller, whoever it is. One request at a time: what must not wait for others has its own.
pub struct Forwarder<D: PeerDialer> {
    forwarding: Forwarding,
    targets: BTreeMap<BrokerId, Target>,
    links: BTreeMap<BrokerId, D::Link>,
    dialer: D,
    started: Instant,
}

impl<D: PeerDialer> Forwarder<D> {
    /// Asks among these; `None` when there are none.
    pub fn new(dialer: D, voters: Vec<Target>) -> Option<Forwarder<D>> {
        let forwarding = Forwarding::new(voters.iter().map(|voter| voter.node).collect())?;
        let targets = voters.into_iter().map(|voter| (voter.node, voter)).collect();
        Some(Forwarder { forwarding, targets, links: BTreeMap::new(), dialer, started: Instant::now() })
    }

    /// Somebody is heard to lead.
    pub fn on_leader(&mut self, leader: BrokerId) {
        self.forwarding.on_leader(leader);
    }

    /// Asks until there is an answer or the time is up: then [`Answer::Unknown`] if it may have had its effect, else
    /// [`Answer::NotController`]. `may_repeat` says whether a second time does no harm.
    pub async fn ask(&mut self, request: Bytes, within: Duration, may_repeat: bool) -> Answer {
        let deadline = self.started.elapsed() + within;
        let (mut state, mut node) = self.forwarding.begin(deadline, may_repeat);
        loop {
            let left = deadline.saturating_sub(self.started.elapsed()).min(ONE_WITHIN);
            let (heard, answer) = self.ask_one(node, request.clone(), left).await;
            match self.forwarding.on_heard(&mut state, heard, self.started.elapsed()) {
                Next::Done => return answer.unwrap_or(Answer::Unknown),
                Next::Ask(next, pause) => {
                    tokio::time::sleep(pause).await;
                    node = next;
                }
                Next::GiveUp { may_have_happened: true } => return Answer::Unknown,
                Next::GiveUp { may_have_happened: false } => return Answer::NotController(None),
            }
        }
    }

    async fn ask_one(&mut self, node: BrokerId, request: Bytes, within: Duration) -> (Heard, Option<Answer>) {
        let Some(target) = self.targets.get(&node) else { return (Heard::Unreachable, None) };
        let link = self.links.entry(node).or_insert_with(|| self.dialer.link(target.clone(), Purpose::Control));
        let within_ms = u32::try_from(within.as_millis()).unwrap_or(u32::MAX);
        let ask = Ask { within_ms, request };
        let answer = match link.exchange(Kind::Ask, ask.encode(), within).await {
            Ok(frame) if frame.kind == Kind::Answer => Answer::decode(frame.body),
            Ok(_) => return (Heard::Unanswered, None),
            Err(LinkError::Unreachable(_) | LinkError::Refused(_)) => return (Heard::Unreachable, None),
            Err(_) => return (Heard::Unanswered, None),
        };
        match answer {
            Ok(Answer::NotController(hint)) => (Heard::NotController(hint), None),
            Ok(Answer::Unknown) | Err(_) => (Heard::Unanswered, None),
            Ok(answer) => (Heard::Answered, Some(answer)),
        }
    }
}
