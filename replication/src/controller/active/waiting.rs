//! What a node of several waits for between finding its cluster and being part of it, said in words.
//!
//! It may be for hours: until a majority of the voters is there, or one that knows a leader can be reached.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::BrokerId;
use stonelog_protocol::peer::probe::ListedVoter;
use tokio::time::Instant;

use crate::quorum::form::because;
use crate::quorum::node::QuorumNode;
use crate::quorum::saying::Saying;
use crate::runtime::peers::TcpDialer;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Says again and again why this node is not part of its cluster yet, until it is stopped. `node` is that of a voter.
pub(super) async fn say_what_is_waited_for(node: Option<Arc<QuorumNode>>, listed: Vec<ListedVoter>, dialer: TcpDialer) {
    let (began, mut saying) = (Instant::now(), Saying::default());
    loop {
        let members = match &node {
            Some(node) => node.members().await.unwrap_or_default(),
            None => Vec::new(),
        };
        let mut voters: Vec<ListedVoter> = members.into_iter().map(|member| member.voter).collect();
        if voters.is_empty() {
            voters.clone_from(&listed);
        }
        let leader = node.as_ref().and_then(|node| node.leading()).map(|leading| leading.node);
        let reason = waited_for(node.is_some(), &voters, leader, dialer.failing());
        if saying.is_due(began.elapsed(), &reason) {
            tracing::warn!("{reason}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn waited_for<E: Display>(
    is_voter: bool,
    voters: &[ListedVoter],
    leader: Option<BrokerId>,
    mut failing: BTreeMap<BrokerId, E>,
) -> String {
    if let Some(leader) = leader {
        return format!(
            "waiting until what node {leader}, which leads the metadata quorum, has committed is applied here"
        );
    }
    // Brokers that do not vote are not waited for.
    failing.retain(|node, _| voters.iter().any(|voter| voter.node == *node));
    let named = voters.iter().map(|voter| format!("{}@{}:{}", voter.node, voter.host, voter.port));
    let named = named.collect::<Vec<_>>().join(", ");
    let whom = if is_voter { "a majority of the voters" } else { "a voter that knows who leads, of" };
    format!("waiting for {whom} {named}{}", because(&failing))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters() -> Vec<ListedVoter> {
        let voter = |node: i32| ListedVoter { node: BrokerId(node), host: "h".into(), port: 9090 + node as u16 };
        (1..=3).map(voter).collect()
    }

    #[test]
    fn voter_alone_of_three_names_the_majority_it_waits_for_and_why_others_are_not_there() {
        let failing = [(2, "refused"), (3, "another secret"), (4, "no voter")];
        let failing: BTreeMap<_, _> = failing.into_iter().map(|(node, why)| (BrokerId(node), why)).collect();
        assert_eq!(
            waited_for(true, &voters(), None, failing),
            "waiting for a majority of the voters 1@h:9091, 2@h:9092, 3@h:9093; node 2: refused; node 3: another secret"
        );
    }

    #[test]
    fn who_follows_a_leader_waits_for_what_it_has_committed() {
        let said = waited_for(true, &voters(), Some(BrokerId(3)), BTreeMap::<_, String>::new());
        assert!(said.contains("node 3, which leads"), "{said}");
    }
}
