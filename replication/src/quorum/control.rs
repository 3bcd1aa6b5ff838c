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
use tokio::sync::watch;
use tokio::time::Instant;

use super::controllers::Controllers;
use super::forwarding::{Forwarding, Heard, Next};
use super::link::{LinkError, PeerDialer, PeerLink, PeerSession, Served, Serving, Target};
use super::node::QuorumNode;

/// The longest that one node is waited for before another is asked, if asking twice does no harm.
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
            // It was replaced before anything was written.
            Ok(answer @ Answer::NotController(_)) => answer,
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
    voters: watch::Receiver<BTreeMap<BrokerId, Target>>,
    links: BTreeMap<BrokerId, D::Link>,
    dialer: D,
    started: Instant,
    leaders: watch::Receiver<Option<BrokerId>>,
}

impl<D: PeerDialer> Forwarder<D> {
    /// Asks among these; `None` when there are none. `leaders` says who is heard to lead.
    pub fn new(
        dialer: D,
        controllers: &Controllers,
        leaders: watch::Receiver<Option<BrokerId>>,
    ) -> Option<Forwarder<D>> {
        let mut voters = controllers.subscribe();
        let targets = voters.borrow_and_update().clone();
        let forwarding = Forwarding::new(targets.keys().copied().collect())?;
        let (links, started) = (BTreeMap::new(), Instant::now());
        Some(Forwarder { forwarding, targets, voters, links, dialer, started, leaders })
    }

    /// Takes in who votes by now.
    fn look_for_voters(&mut self) {
        if self.voters.has_changed().unwrap_or(false) {
            let targets = self.voters.borrow_and_update().clone();
            self.links.retain(|node, _| targets.get(node) == self.targets.get(node));
            self.forwarding.on_voters(targets.keys().copied().collect());
            self.targets = targets;
        }
    }

    /// Asks until there is an answer or the time is up: then [`Answer::Unknown`] if it may have had its effect, else
    /// [`Answer::NotController`]. `may_repeat` says whether a second time does no harm.
    pub async fn ask(&mut self, request: Bytes, within: Duration, may_repeat: bool) -> Answer {
        let deadline = self.started.elapsed() + within;
        self.look_for_voters();
        let leader = *self.leaders.borrow_and_update();
        if let Some(leader) = leader {
            self.forwarding.on_leader(leader);
        }
        let (mut state, mut node) = self.forwarding.begin(deadline, may_repeat);
        loop {
            self.look_for_voters();
            let left = deadline.saturating_sub(self.started.elapsed());
            // What may not be repeated is asked once, and the controller may have to wait with it.
            let left = if may_repeat { left.min(ONE_WITHIN) } else { left };
            let mut leaders = self.leaders.clone();
            leaders.mark_unchanged();
            let (heard, answer) = tokio::select! {
                answered = self.ask_one(node, request.clone(), left) => answered,
                // A controller that has been replaced while it was paused would be waited for to the end.
                leader = other_leader(&mut leaders, node) => (Heard::Replaced(leader), None),
            };
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

/// Returns when another node than the one that is asked is heard to lead from now on.
async fn other_leader(leaders: &mut watch::Receiver<Option<BrokerId>>, asked: BrokerId) -> BrokerId {
    let is_other = |leader: &BrokerId| *leader != asked;
    while leaders.changed().await.is_ok() {
        let leader = leaders.borrow_and_update().filter(is_other);
        if let Some(leader) = leader {
            return leader;
        }
    }
    // Nobody says any more who leads.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node 1 is paused: it takes requests and never answers. Node 2 answers with how long it is waited for. Node 3 names
    /// node 2.
    #[derive(Clone)]
    struct Nodes;

    struct Link(BrokerId);

    impl PeerDialer for Nodes {
        type Link = Link;
        fn link(&self, target: Target, _: Purpose) -> Link {
            Link(target.node)
        }
    }

    impl PeerLink for Link {
        async fn exchange(&mut self, _: Kind, _: Bytes, within: Duration) -> Result<Frame, LinkError> {
            if self.0 == BrokerId(1) {
                std::future::pending::<()>().await;
            }
            if self.0 == BrokerId(3) {
                let body = Answer::NotController(Some(BrokerId(2))).encode();
                return Ok(Frame { exchange: 0, kind: Kind::Answer, body });
            }
            let waited = Bytes::from(within.as_secs().to_string());
            Ok(Frame { exchange: 0, kind: Kind::Answer, body: Answer::Decided(waited).encode() })
        }
    }

    fn target(id: i32) -> Target {
        Target { node: BrokerId(id), directory: None, host: String::new(), port: 0 }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn voter_that_is_not_configured_is_asked_when_the_membership_names_it() {
        block_on(async {
            let (_leads, leaders) = watch::channel(None);
            let controllers = Controllers::new([target(3)]);
            let mut forwarder = Forwarder::new(Nodes, &controllers, leaders).unwrap();
            let short = Duration::from_millis(1);
            assert_eq!(forwarder.ask("request".into(), short, true).await, Answer::NotController(None));
            controllers.on_voters([(BrokerId(2), "h", 1), (BrokerId(3), "h", 1)]);
            let answer = forwarder.ask("request".into(), Duration::from_millis(10_900), true).await;
            assert_eq!(answer, Answer::Decided(Bytes::from_static(b"5")));
            // It votes no more.
            controllers.on_voters([(BrokerId(3), "h", 1)]);
            assert_eq!(forwarder.ask("request".into(), short, true).await, Answer::NotController(None));
        });
    }

    fn asked(leader: i32, elected: Option<i32>, may_repeat: bool) -> Answer {
        let (leads, leaders) = watch::channel(Some(BrokerId(leader)));
        let controllers = Controllers::new([target(1), target(2)]);
        let mut forwarder = Forwarder::new(Nodes, &controllers, leaders).unwrap();
        block_on(async {
            let election = async {
                tokio::task::yield_now().await;
                if let Some(elected) = elected {
                    leads.send_replace(None);
                    leads.send_replace(Some(BrokerId(elected)));
                }
            };
            // Longer than the test may take; a whole number of seconds is left of it when it is asked for.
            let patience = Duration::from_millis(3_600_900);
            tokio::join!(forwarder.ask("request".into(), patience, may_repeat), election).0
        })
    }

    #[test]
    fn exchange_with_a_paused_controller_ends_when_another_leads() {
        assert_eq!(asked(1, Some(2), true), Answer::Decided(Bytes::from_static(b"5")));
        assert_eq!(asked(1, Some(2), false), Answer::Unknown);
    }

    #[test]
    fn what_may_not_be_repeated_is_waited_for_as_long_as_its_client_does() {
        assert_eq!(asked(2, None, true), Answer::Decided(Bytes::from_static(b"5")));
        assert_eq!(asked(2, None, false), Answer::Decided(Bytes::from_static(b"3600")));
    }
}
