//! Finding or forming a cluster over the network: asks every listed voter, again and again, and lets [`Bootstrap`] decide.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::frame::Kind;
use stonelog_protocol::peer::probe::{ListedVoter, Probe, ProbeAnswer};
use stonelog_protocol::peer::proof::{ANYBODY, Purpose};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bootstrap::{Bootstrap, BootstrapError, Event, Step};
use super::link::{LinkError, PeerDialer, PeerLink, Target};
use super::saying::Saying;
use super::services::NodeServices;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between one answer of a node and the next question to it.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long servers are asked for somebody who knows a leader, before the word of one that knows none is taken. Longer than
/// an election takes.
const LEADERLESS_AFTER: Duration = Duration::from_secs(3);
/// Answers that wait to be decided on: each asked node has one on its way.
const QUEUE_LEN_MAX: usize = 16;

/// Asks until there is something to do, and answers other nodes meanwhile. `say` hears why it takes time: each reason
/// that lasts, again and again, with why listed voters cannot be asked.
///
/// What is to be done is the caller's: the cluster's id is made durable first, then the node starts as the step says.
pub async fn find_cluster<D: PeerDialer>(
    mut bootstrap: Bootstrap,
    dialer: &D,
    services: &NodeServices,
    mut say: impl FnMut(&str),
) -> Result<Step, BootstrapError> {
    let mut step = bootstrap.begin()?;
    if let Some(answer) = bootstrap.answer() {
        services.answer_probes(answer);
    }
    if !matches!(step, Step::Ask(_)) {
        return Ok(step);
    }
    let voters = bootstrap.listed().to_vec();
    let (sender, mut events) = mpsc::channel(QUEUE_LEN_MAX);
    // They end with this function.
    let mut asking = JoinSet::new();
    for voter in bootstrap.asked() {
        let link = dialer.link(target(voter), Purpose::Probe);
        asking.spawn(ask(voter.node, link, Probe { voters: voters.clone() }, sender.clone()));
    }
    drop(sender);
    let (began, mut saying) = (Instant::now(), Saying::default());
    let mut silent: BTreeMap<BrokerId, LinkError> = BTreeMap::new();
    while let Step::Ask(waiting) = step {
        let reason = format!("{waiting}{}", because(&silent));
        if saying.is_due(began.elapsed(), &reason) {
            say(&reason);
        }
        let Some((node, answer)) = events.recv().await else {
            // Nobody is asked: what was decided at first holds for ever.
            return std::future::pending().await;
        };
        step = match answer {
            Ok(answer) => {
                silent.remove(&node);
                bootstrap.on_event(Event::Answered(node, answer))?
            }
            Err(error) => {
                silent.insert(node, error);
                bootstrap.on_event(Event::Silent(node))?
            }
        };
    }
    Ok(step)
}

/// Asks servers, whoever they are, until one knows who votes in its cluster: those are to be asked further. Nothing else is
/// taken from the answer. One that knows of no leader may know a membership of long ago, and is believed only when nobody
/// else has answered for a while. Answers other nodes meanwhile as [`find_cluster`] does.
pub async fn ask_servers<D: PeerDialer>(
    bootstrap: &Bootstrap,
    servers: &[(String, u16)],
    dialer: &D,
    services: &NodeServices,
    mut say: impl FnMut(&str),
) -> Result<Vec<ListedVoter>, BootstrapError> {
    bootstrap.begin()?;
    if let Some(answer) = bootstrap.answer() {
        services.answer_probes(answer);
    }
    let (began, mut saying) = (Instant::now(), Saying::default());
    let anybody =
        |(host, port): &(String, u16)| Target { node: ANYBODY, directory: None, host: host.clone(), port: *port };
    let mut links: Vec<_> = servers.iter().map(|server| dialer.link(anybody(server), Purpose::Probe)).collect();
    let mut silent: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let mut leaderless = None;
        for ((host, port), link) in servers.iter().zip(&mut links) {
            let answer = link.exchange(Kind::Probe, Probe { voters: Vec::new() }.encode(), ANSWER_WITHIN).await;
            let why = match answer.and_then(|frame| read(frame.kind, frame.body)) {
                Ok(ProbeAnswer::Member { members, leader, .. }) if !members.is_empty() => {
                    let voters = members.into_iter().map(|member| member.voter).collect();
                    if leader.is_some() {
                        return Ok(voters);
                    }
                    leaderless.get_or_insert(voters);
                    "it knows of no leader".to_owned()
                }
                Ok(ProbeAnswer::Member { .. }) => "it does not know who votes".to_owned(),
                Ok(ProbeAnswer::Empty { .. }) => "it has no cluster yet".to_owned(),
                Err(error) => error.to_string(),
            };
            silent.insert(format!("{host}:{port}"), why);
        }
        if let Some(voters) = leaderless.filter(|_| began.elapsed() >= LEADERLESS_AFTER) {
            return Ok(voters);
        }
        let told: Vec<String> = silent.iter().map(|(server, why)| format!("; {server}: {why}")).collect();
        let reason = format!(
            "none of the servers (controller.quorum.bootstrap.servers) knows who votes, and a node with servers forms no \
             cluster{}",
            told.concat()
        );
        if saying.is_due(began.elapsed(), &reason) {
            say(&reason);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Why nodes do not answer, as the end of a sentence.
pub fn because<E: std::fmt::Display>(silent: &BTreeMap<BrokerId, E>) -> String {
    silent.iter().map(|(node, error)| format!("; node {node}: {error}")).collect()
}

fn target(voter: &ListedVoter) -> Target {
    Target { node: voter.node, directory: None, host: voter.host.to_string(), port: voter.port }
}

type Answer = (BrokerId, Result<ProbeAnswer, LinkError>);

async fn ask(node: BrokerId, mut link: impl PeerLink, probe: Probe, answers: mpsc::Sender<Answer>) {
    loop {
        let answer = link.exchange(Kind::Probe, probe.encode(), ANSWER_WITHIN).await;
        let answer = answer.and_then(|frame| read(frame.kind, frame.body));
        if answers.send((node, answer)).await.is_err() {
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn read(kind: Kind, body: bytes::Bytes) -> Result<ProbeAnswer, LinkError> {
    if kind != Kind::ProbeAnswer {
        return Err(LinkError::Malformed(format!("{kind:?} instead of an answer to a probe")));
    }
    ProbeAnswer::decode(body).map_err(|error| LinkError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use stonelog_protocol::peer::frame::Frame;
    use stonelog_protocol::peer::probe::{Member, Part};
    use stonelog_protocol::peer::proof::Identity;
    use stonelog_protocol::{ClusterId, Uuid};

    use super::super::bootstrap::OnDisk;
    use super::*;

    /// The server `old` names node 1, and knows of no leader; any other names node 4, which leads.
    #[derive(Clone)]
    struct Servers;

    struct Link(Target);

    impl PeerDialer for Servers {
        type Link = Link;
        fn link(&self, target: Target, _: Purpose) -> Link {
            Link(target)
        }
    }

    impl PeerLink for Link {
        async fn exchange(&mut self, _: Kind, _: Bytes, _: Duration) -> Result<Frame, LinkError> {
            let (voter, leader) = if self.0.host == "old" { (voter(1), None) } else { (voter(4), Some(BrokerId(4))) };
            let members = vec![Member { voter, directory: Uuid([1; 16]), part: Part::Votes }];
            let body = ProbeAnswer::Member { cluster: ClusterId("c".into()), members, leader }.encode();
            Ok(Frame { exchange: 0, kind: Kind::ProbeAnswer, body })
        }
    }

    fn voter(node: i32) -> ListedVoter {
        ListedVoter { node: BrokerId(node), host: "h".into(), port: 1 }
    }

    #[test]
    fn server_that_knows_a_leader_is_believed_before_one_with_an_old_list() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let identity =
            Identity { node: BrokerId(9), directory: Uuid([9; 16]), cluster: None, incarnation: Uuid([8; 16]) };
        let bootstrap = Bootstrap::new(identity.node, identity.directory, Vec::new(), OnDisk::Empty);
        let services = NodeServices::new(identity);
        let servers = ["old", "new"].map(|host| (host.to_owned(), 1));
        let found = runtime.block_on(ask_servers(&bootstrap, &servers, &Servers, &services, |_| {}));
        assert_eq!(found, Ok(vec![voter(4)]));
    }
}
