//! A voter finds out that it was taken out of the quorum: nobody speaks to it any more, and its own log may not say so.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::peer::frame::Kind;
use stonelog_protocol::peer::probe::{Probe, ProbeAnswer};
use stonelog_protocol::peer::proof::Purpose;
use stonelog_protocol::{BrokerId, ClusterId, DirectoryId};
use tokio::time::sleep;

use super::link::{PeerDialer, PeerLink, Target};
use super::node::QuorumNode;

/// How often the others are asked.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long one may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Asks the other members again and again who they are, while this node does not lead. Returns when one that leads, surely,
/// does not name this node with its directory: only its word counts.
pub(crate) async fn until_removed<D: PeerDialer>(
    node: &QuorumNode,
    own: (BrokerId, DirectoryId),
    cluster: &ClusterId,
    dialer: &D,
) {
    let mut links: BTreeMap<BrokerId, D::Link> = BTreeMap::new();
    loop {
        sleep(ASK_EVERY).await;
        if node.leads_surely() {
            continue;
        }
        let members = node.members().await.unwrap_or_default();
        for member in members.into_iter().filter(|member| member.voter.node != own.0) {
            let (id, host, port) = (member.voter.node, member.voter.host.to_string(), member.voter.port);
            let target = Target { node: id, directory: Some(member.directory), host, port };
            let link = links.entry(id).or_insert_with(|| dialer.link(target, Purpose::Probe));
            let probe = Probe { voters: Vec::new() }.encode();
            let Ok(answer) = link.exchange(Kind::Probe, probe, ANSWER_WITHIN).await else {
                // It may be elsewhere next time.
                links.remove(&id);
                continue;
            };
            if answer.kind == Kind::ProbeAnswer
                && let Ok(ProbeAnswer::Member { cluster: found, members, leader }) = ProbeAnswer::decode(answer.body)
                && found == *cluster
                && leader == Some(id)
                && !members.is_empty()
                && !members.iter().any(|member| (member.voter.node, member.directory) == own)
            {
                return;
            }
        }
    }
}
