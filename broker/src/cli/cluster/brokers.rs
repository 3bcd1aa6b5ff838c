//! `stonelog cluster brokers`: every registered broker and what it leads.

use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use crate::client::Cluster;

#[derive(Serialize)]
struct Brokers {
    cluster: String,
    brokers: Vec<Broker>,
}

#[derive(Serialize)]
struct Broker {
    broker: i32,
    address: String,
    rack: Option<String>,
    /// `up`, or `fenced`: out of touch, or not ready.
    state: &'static str,
    controller: bool,
    leaders: usize,
    replicas: usize,
    in_sync: usize,
}

/// Asks and prints.
pub(super) async fn run(cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let state = cluster.state().await?;
    let partitions = cluster.partitions(None).await?;
    let count = |has: &dyn Fn(&crate::client::cluster_admin::PartitionState) -> bool| {
        partitions.iter().filter(|partition| has(partition)).count()
    };
    let brokers = state.brokers.iter().map(|broker| Broker {
        broker: broker.id,
        address: broker.address.clone(),
        rack: broker.rack.clone(),
        state: if broker.fenced { "fenced" } else { "up" },
        controller: broker.id == state.controller,
        leaders: count(&|partition| partition.leader == broker.id),
        replicas: count(&|partition| partition.replicas.contains(&broker.id)),
        in_sync: count(&|partition| partition.isr.contains(&broker.id)),
    });
    let all = Brokers { brokers: brokers.collect(), cluster: state.id };
    if output.is_json() {
        output.document("cluster.brokers/1", &all)?;
        return Ok(Exit::Done);
    }
    let rows = all.brokers.iter().map(|broker| {
        let controller = if broker.controller { "yes" } else { "" };
        vec![
            broker.broker.to_string(),
            broker.address.clone(),
            broker.rack.clone().unwrap_or_default(),
            broker.state.to_owned(),
            controller.to_owned(),
            broker.leaders.to_string(),
            broker.replicas.to_string(),
            broker.in_sync.to_string(),
        ]
    });
    let headings = ["broker", "address", "rack", "state", "controller", "leads", "replicas", "in sync"];
    output.table(&headings, &[0, 5, 6, 7], rows.collect())?;
    Ok(Exit::Done)
}
