//! `stonelog node drain`: every replica of a broker to others, so that it can be taken away for good.

use std::collections::BTreeSet;

use clap::Args;

use super::super::exit::{Exit, Failure};
use super::super::moving;
use super::super::output::Output;
use super::super::placing::Places;
use crate::client::Cluster;

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
        let partitions = cluster.partitions(None).await?;
        let leaving = BTreeSet::from([self.broker]);
        let mut places = Places::of(&state.brokers, &partitions, &leaving);
        let mut wishes = Vec::new();
        let mut stuck = Vec::new();
        for partition in partitions.iter().filter(|partition| partition.replicas.contains(&self.broker)) {
            match places.without(partition, &leaving) {
                Some(replicas) => wishes.push((partition.topic.clone(), partition.partition, Some(replicas))),
                None => stuck.push(format!("{}:{}", partition.topic, partition.partition)),
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
        if wishes.is_empty() && !output.is_json() {
            output.line(&format!("broker {} holds no replica", self.broker))?;
            return Ok(Exit::Done);
        }
        moving::ask("node.drain/1", wishes, self.wait, cluster, output).await
    }
}
