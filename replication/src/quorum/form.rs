//! Finding or forming a cluster over the network: asks every listed voter, again and again, and lets [`Bootstrap`] decide.

use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::frame::Kind;
use stonelog_protocol::peer::probe::{ListedVoter, Probe, ProbeAnswer};
use stonelog_protocol::peer::proof::Purpose;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bootstrap::{Bootstrap, BootstrapError, Event, Step, Waiting};
use super::link::{LinkError, PeerDialer, PeerLink, Target};
use super::services::NodeServices;

/// How long a node may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Between one answer of a node and the next question to it.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Answers that wait to be decided on: each asked node has one on its way.
const QUEUE_LEN_MAX: usize = 16;

/// A reason to wait that holds for so long is said.
const SAY_AFTER: Duration = Duration::from_secs(2);

/// Asks until there is something to do, and answers other nodes meanwhile. `say` hears why it takes time, once for each
/// reason that lasts.
///
/// What is to be done is the caller's: the cluster's id is made durable first, then the node starts as the step says.
pub async fn find_cluster<D: PeerDialer>(
    mut bootstrap: Bootstrap,
    dialer: &D,
    services: &NodeServices,
    mut say: impl FnMut(&Waiting),
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
    let mut reason: Option<(Waiting, Instant, bool)> = None;
    while let Step::Ask(waiting) = step {
        match &mut reason {
            Some((known, since, is_said)) if *known == waiting => {
                if !*is_said && since.elapsed() >= SAY_AFTER {
                    say(&waiting);
                    *is_said = true;
                }
            }
            _ => reason = Some((waiting, Instant::now(), false)),
        }
        let Some(event) = events.recv().await else {
            // Nobody is asked: what was decided at first holds for ever.
            return std::future::pending().await;
        };
        step = bootstrap.on_event(event)?;
    }
    Ok(step)
}

fn target(voter: &ListedVoter) -> Target {
    Target { node: voter.node, directory: None, host: voter.host.to_string(), port: voter.port }
}

async fn ask(node: BrokerId, mut link: impl PeerLink, probe: Probe, events: mpsc::Sender<Event>) {
    loop {
        let answer = link.exchange(Kind::Probe, probe.encode(), ANSWER_WITHIN).await;
        let event = match answer.and_then(|frame| read(frame.kind, frame.body)) {
            Ok(answer) => Event::Answered(node, answer),
            Err(error) => {
                tracing::debug!(%node, "no answer to a probe: {error}");
                Event::Silent(node)
            }
        };
        if events.send(event).await.is_err() {
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
