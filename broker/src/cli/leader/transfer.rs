//! `stonelog leader transfer`: the same replicas with another one first, and an election.
//!
//! Kafka's protocol elects the preferred leader only, which is the first replica: so that is what the new leader becomes.

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::moving::{Place, parse_place};
use super::super::output::{Output, join};
use crate::client::cluster_admin::PartitionState;
use crate::client::{Cluster, Error};

#[derive(Debug, Args)]
pub(super) struct Transfer {
    /// Partitions.
    #[arg(required = true, value_name = "TOPIC:PARTITION", value_parser = parse_place)]
    partitions: Vec<Place>,
    /// The broker that shall lead them.
    #[arg(long, value_name = "BROKER")]
    to: i32,
}

#[derive(Serialize)]
struct All {
    partitions: Vec<Done>,
}

#[derive(Serialize)]
struct Done {
    topic: String,
    partition: i32,
    leader: i32,
    replicas: Vec<i32>,
}

impl Transfer {
    /// Checks all of them first; nothing is done if one cannot be led by that broker.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let mut wishes = Vec::new();
        let mut done = Vec::new();
        let moving = cluster.reassignments().await?;
        for Place { topic, partition } in self.partitions {
            let states = cluster.partitions(Some(&topic)).await?;
            let state = states
                .iter()
                .find(|state| state.partition == partition)
                .ok_or_else(|| Failure::new(Exit::NotFound, format!("topic {topic} has no partition {partition}")))?;
            // Its replicas are those of before the move and those of after it: asked for, both would stay.
            if moving.iter().any(|one| (&one.topic, one.partition) == (&topic, partition)) {
                let what = format!("{topic}:{partition} is being moved; nothing was changed");
                return Err(Failure::new(Exit::Precondition, what)
                    .hint("`stonelog partition status` tells when it has arrived, `partition cancel` gives it up"));
            }
            let replicas = reordered(state, self.to).map_err(|why| {
                Failure::new(Exit::Precondition, format!("broker {} cannot lead {topic}:{partition}: {why}", self.to))
            })?;
            if replicas != state.replicas {
                wishes.push((topic.clone(), partition, Some(replicas.clone())));
            }
            done.push(Done { topic, partition, leader: self.to, replicas });
        }
        if !wishes.is_empty() {
            let outcomes = cluster.reassign(&wishes, true).await?;
            outcomes.into_iter().try_for_each(|(_, _, result)| result)?;
        }
        let places: Vec<(String, i32)> = done.iter().map(|one| (one.topic.clone(), one.partition)).collect();
        let mut retry = cluster.retry();
        loop {
            let elected = cluster.elect_preferred(&places).await;
            let elected: Result<(), Error> =
                elected.and_then(|outcomes| outcomes.into_iter().try_for_each(|(_, _, result)| result));
            if !cluster.again(&mut retry, &elected).await {
                elected?;
                break;
            }
        }
        if output.is_json() {
            output.document("leader.transfer/1", &All { partitions: done })?;
        } else {
            for one in &done {
                output.line(&format!(
                    "{}:{}: led by {}, replicas {}",
                    one.topic,
                    one.partition,
                    one.leader,
                    join(&one.replicas)
                ))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// The replicas with that broker first, or why it cannot lead.
fn reordered(state: &PartitionState, to: i32) -> Result<Vec<i32>, String> {
    if !state.replicas.contains(&to) {
        return Err(format!("it holds no replica; {} do", join(&state.replicas)));
    }
    if !state.isr.contains(&to) {
        return Err(format!("it is not in sync; {} are", join(&state.isr)));
    }
    let others = state.replicas.iter().copied().filter(|id| *id != to);
    Ok(std::iter::once(to).chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::survey::tests::partition;

    #[test]
    fn only_a_replica_in_sync_is_put_first() {
        let state = partition(0, &[1, 2, 3], &[1, 3]);
        assert_eq!(reordered(&state, 3), Ok(vec![3, 1, 2]));
        assert!(reordered(&state, 2).is_err_and(|why| why.contains("not in sync; 1,3 are")));
        assert!(reordered(&state, 4).is_err_and(|why| why.contains("no replica")));
    }
}
