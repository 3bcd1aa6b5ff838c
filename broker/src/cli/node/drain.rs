//! `stonelog node drain`: every replica of a broker to others, so that it can be taken away for good.

use std::collections::BTreeSet;

use clap::Args;

use super::super::exit::{Exit, Failure};
use super::super::moving::{self, Moves};
use super::super::output::Output;
use super::super::placing::Places;
use crate::client::Cluster;
use crate::client::cluster_admin::{PartitionState, Reassignment};

/// Partitions that are named when they have nowhere to go.
const NAMED_MAX: usize = 5;

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// The broker.
    #[arg(value_name = "BROKER")]
    broker: i32,
    /// Stay until everything has arrived elsewhere.
    #[arg(short, long)]
    wait: bool,
}

impl Drain {
    /// Plans every move first; nothing is moved if one partition has nowhere to go.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let state = cluster.state().await?;
        if !state.brokers.iter().any(|broker| broker.id == self.broker) {
            let known: Vec<i32> = state.brokers.iter().map(|broker| broker.id).collect();
            let what = format!("there is no broker {}; there are {}", self.broker, super::super::output::join(&known));
            return Err(Failure::new(Exit::NotFound, what));
        }
        let moving = cluster.reassignments().await?;
        let partitions = cluster.partitions(None).await?;
        let leaving = BTreeSet::from([self.broker]);
        let mut places = Places::of(&state.brokers, &partitions, &leaving);
        let mut moves = Moves { keep_count: true, ..Moves::default() };
        let mut stuck = Vec::new();
        for partition in partitions.iter().filter(|partition| partition.replicas.contains(&self.broker)) {
            let settled = settled(partition, &moving);
            let (topic, index) = (partition.topic.clone(), partition.partition);
            if !settled.replicas.contains(&self.broker) {
                moves.under_way.push((topic, index, settled.replicas));
                continue;
            }
            match places.without(&settled, &leaving) {
                Some(replicas) => moves.wishes.push((topic, index, Some(replicas))),
                None => stuck.push(format!("{topic}:{index}")),
            }
        }
        if !stuck.is_empty() {
            let more =
                if stuck.len() > NAMED_MAX { format!(" and {} more", stuck.len() - NAMED_MAX) } else { String::new() };
            let named = stuck[..stuck.len().min(NAMED_MAX)].join(", ");
            let what = format!("too few other brokers are up for the replicas of {named}{more}; nothing was moved");
            return Err(Failure::new(Exit::Precondition, what)
                .hint("add a broker, or lower the number of replicas with `stonelog topic rf`"));
        }
        if cluster.quorum().await.is_ok_and(|quorum| quorum.voters.iter().any(|voter| voter.node == self.broker)) {
            note!("node {} votes on the metadata: without it the quorum stands one failure less", self.broker);
        }
        if moves.wishes.is_empty() && moves.under_way.is_empty() && !output.is_json() {
            output.line(&format!("broker {} holds no replica", self.broker))?;
            return Ok(Exit::Done);
        }
        let asked = moving::ask("node.drain/1", moves, self.wait, cluster, output).await?;
        if self.wait {
            self.see_that_it_is_empty(cluster).await?;
        }
        Ok(asked)
    }

    /// Partitions may have been put there since it was planned.
    async fn see_that_it_is_empty(&self, cluster: &mut Cluster) -> Result<(), Failure> {
        let partitions = cluster.partitions(None).await?;
        let held = partitions.iter().filter(|partition| partition.replicas.contains(&self.broker));
        let held: Vec<String> = held.map(|one| format!("{}:{}", one.topic, one.partition)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let named = held[..held.len().min(NAMED_MAX)].join(", ");
        let what = format!("broker {} holds {} replicas again, of {named}", self.broker, held.len());
        Err(Failure::new(Exit::Partial, what).hint("drain it again"))
    }
}

/// The partition as it will be when what is in progress has arrived.
fn settled(partition: &PartitionState, moving: &[Reassignment]) -> PartitionState {
    let is_it = |one: &&Reassignment| one.topic == partition.topic && one.partition == partition.partition;
    let removing = moving.iter().find(is_it).map(|one| one.removing.as_slice()).unwrap_or_default();
    let mut settled = partition.clone();
    settled.replicas.retain(|replica| !removing.contains(replica));
    settled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::survey::tests::partition;

    #[test]
    fn who_is_being_removed_is_counted_as_gone() {
        let state = partition(0, &[4, 2, 3, 1], &[1, 2, 3]);
        assert_eq!(settled(&state, &[]).replicas, [4, 2, 3, 1]);
        let moving = [Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![4, 2, 3, 1],
            adding: vec![4],
            removing: vec![1],
        }];
        assert_eq!(settled(&state, &moving).replicas, [4, 2, 3]);
    }
}
