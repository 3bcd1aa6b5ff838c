//! `stonelog partition status`: what is being moved, and which replicas have arrived.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::{Output, join};
use crate::client::Cluster;
use crate::client::cluster_admin::{PartitionState, Reassignment};

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Only of this topic.
    #[arg(value_name = "TOPIC")]
    topic: Option<String>,
}

#[derive(Serialize)]
struct All {
    moving: Vec<Moving>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Moving {
    topic: String,
    partition: i32,
    /// Where it shall lie.
    to: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    /// Those of `adding` that are in sync.
    arrived: Vec<i32>,
}

impl Status {
    /// Asks and prints.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let mut found = cluster.reassignments().await?;
        found.retain(|one| self.topic.as_ref().is_none_or(|topic| *topic == one.topic));
        let mut topics: BTreeMap<String, Vec<PartitionState>> = BTreeMap::new();
        for one in &found {
            if !topics.contains_key(&one.topic) {
                topics.insert(one.topic.clone(), cluster.partitions(Some(&one.topic)).await?);
            }
        }
        let isr = |one: &Reassignment| {
            let partitions = topics.get(&one.topic).map(Vec::as_slice).unwrap_or_default();
            let state = partitions.iter().find(|state| state.partition == one.partition);
            state.map(|state| state.isr.clone()).unwrap_or_default()
        };
        let all = All { moving: found.iter().map(|one| moving(one, &isr(one))).collect() };
        if output.is_json() {
            output.document("partition.status/1", &all)?;
        } else if all.moving.is_empty() {
            output.line("nothing is being moved")?;
        } else {
            let rows = all.moving.iter().map(|one| {
                let name = format!("{}:{}", one.topic, one.partition);
                vec![name, join(&one.to), join(&one.adding), join(&one.arrived), join(&one.removing)]
            });
            output.table(&["partition", "to", "adding", "arrived", "removing"], &[], rows.collect())?;
        }
        Ok(Exit::Done)
    }
}

fn moving(one: &Reassignment, isr: &[i32]) -> Moving {
    Moving {
        topic: one.topic.clone(),
        partition: one.partition,
        to: one.replicas.iter().copied().filter(|id| !one.removing.contains(id)).collect(),
        adding: one.adding.clone(),
        removing: one.removing.clone(),
        arrived: one.adding.iter().copied().filter(|id| isr.contains(id)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_arrived_is_told_apart_from_who_is_on_the_way() {
        let one = Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![3, 4, 1],
            adding: vec![3, 4],
            removing: vec![1],
        };
        let moving = moving(&one, &[1, 4]);
        assert_eq!((moving.to, moving.arrived), (vec![3, 4], vec![4]));
    }
}
