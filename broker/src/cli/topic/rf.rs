//! `stonelog topic rf`: more or fewer replicas of every partition of a topic.

use std::collections::BTreeSet;

use clap::Args;

use super::super::exit::{Exit, Failure};
use super::super::moving::{self, Moves};
use super::super::output::Output;
use super::super::placing::Places;
use crate::client::Cluster;

#[derive(Debug, Args)]
pub(crate) struct Rf {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Replicas that each of its partitions shall have.
    #[arg(value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    replicas: u16,
    /// Stay until the new replicas have all records.
    #[arg(short, long)]
    wait: bool,
}

impl Rf {
    /// Writes go on meanwhile; the minimum of in-sync replicas counts the new ones once they are in sync.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let count = usize::from(self.replicas);
        let state = cluster.state().await?;
        let moving = cluster.reassignments().await?;
        // Their replicas are those of before the move and those of after it.
        if let Some(one) = moving.iter().find(|one| one.topic == self.name) {
            let what = format!("{}:{} is being moved; nothing was changed", one.topic, one.partition);
            return Err(Failure::new(Exit::Precondition, what)
                .hint("`stonelog partition status` tells when it has arrived, `partition cancel` gives it up"));
        }
        let partitions = cluster.partitions(None).await?;
        let mut places = Places::of(&state.brokers, &partitions, &BTreeSet::new());
        let mut wishes = Vec::new();
        let mut found = false;
        for partition in partitions.iter().filter(|partition| partition.topic == self.name) {
            found = true;
            let Some(replicas) = places.with_count(partition, count) else {
                let up = state.brokers.iter().filter(|broker| !broker.fenced).count();
                let what = format!("{count} replicas need as many brokers, and {up} are up; nothing was changed");
                return Err(Failure::new(Exit::Precondition, what));
            };
            if replicas != partition.replicas {
                wishes.push((partition.topic.clone(), partition.partition, Some(replicas)));
            }
        }
        if !found {
            // The right error for a topic that is not there.
            cluster.topic(&self.name).await?;
        }
        if wishes.is_empty() && !output.is_json() {
            output.line(&format!("every partition of {} has {count} replicas", self.name))?;
            return Ok(Exit::Done);
        }
        moving::ask("topic.rf/1", Moves::of(wishes), self.wait, cluster, output).await
    }
}
