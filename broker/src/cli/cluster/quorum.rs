//! `stonelog cluster quorum`: who keeps the metadata log, and how far behind each copy is.

use serde::Serialize;
use stonelog_protocol::Uuid;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use crate::client::Cluster;
use crate::client::cluster_admin::{Quorum, QuorumReplica};

#[derive(Serialize)]
struct Described {
    leader: i32,
    epoch: i32,
    high_watermark: i64,
    voters: Vec<Replica>,
    observers: Vec<Replica>,
}

#[derive(Serialize)]
struct Replica {
    node: i32,
    directory: Option<String>,
    log_end: Option<i64>,
    /// Entries it lacks.
    lag: Option<i64>,
    /// How much earlier than the leader it had everything, in milliseconds.
    behind_ms: Option<i64>,
}

/// Asks and prints.
pub(super) async fn run(cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let described = describe(&cluster.quorum().await?);
    if output.is_json() {
        output.document("cluster.quorum/1", &described)?;
        return Ok(Exit::Done);
    }
    output.line(&format!(
        "leader {}, epoch {}, committed up to {}",
        described.leader, described.epoch, described.high_watermark
    ))?;
    let known = |number: Option<i64>| number.map_or("?".to_owned(), |number| number.to_string());
    let row = |role: &str, replica: &Replica| {
        vec![
            replica.node.to_string(),
            role.to_owned(),
            replica.directory.clone().unwrap_or_default(),
            known(replica.log_end),
            known(replica.lag),
            replica.behind_ms.map_or("never".to_owned(), |ms| format!("{ms} ms")),
        ]
    };
    let leads = |replica: &Replica| if replica.node == described.leader { "leader" } else { "voter" };
    let voters = described.voters.iter().map(|voter| row(leads(voter), voter));
    let observers = described.observers.iter().map(|observer| row("observer", observer));
    let headings = ["node", "role", "directory", "log end", "lag", "behind"];
    output.table(&headings, &[0, 3, 4, 5], voters.chain(observers).collect())?;
    Ok(Exit::Done)
}

fn describe(quorum: &Quorum) -> Described {
    let leader = quorum.voters.iter().find(|voter| voter.node == quorum.leader);
    let replica = |replica: &QuorumReplica| {
        let log_end = (replica.log_end >= 0).then_some(replica.log_end);
        let time = |replica: &QuorumReplica| Some(replica.last_caught_up_ms).filter(|time| *time >= 0);
        Replica {
            node: replica.node,
            directory: (replica.directory != Uuid::ZERO).then(|| replica.directory.to_string()),
            log_end,
            lag: leader.zip(log_end).map(|(leader, end)| (leader.log_end - end).max(0)),
            behind_ms: leader.and_then(time).zip(time(replica)).map(|(leader, own)| (leader - own).max(0)),
        }
    };
    Described {
        leader: quorum.leader,
        epoch: quorum.epoch,
        high_watermark: quorum.high_watermark,
        voters: quorum.voters.iter().map(replica).collect(),
        observers: quorum.observers.iter().map(replica).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_never_caught_up_or_has_an_unknown_end_is_said_to_be_so() {
        let replica = |node, log_end, last_caught_up_ms| QuorumReplica {
            node,
            directory: Uuid::ZERO,
            log_end,
            last_fetch_ms: -1,
            last_caught_up_ms,
        };
        let voters = vec![replica(1, 90, 5_000), replica(2, 80, 4_000), replica(3, -1, -1)];
        let described = describe(&Quorum { leader: 1, epoch: 2, high_watermark: 90, voters, observers: Vec::new() });
        let seen: Vec<_> = described.voters.iter().map(|voter| (voter.lag, voter.behind_ms)).collect();
        assert_eq!(seen, [(Some(0), Some(0)), (Some(10), Some(1_000)), (None, None)]);
    }
}
