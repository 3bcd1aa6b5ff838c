//! `stonelog cluster info`: which cluster this is, and how much is in it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use crate::client::Cluster;

#[derive(Serialize)]
struct Info {
    cluster: String,
    controller: i32,
    brokers: usize,
    fenced: usize,
    topics: usize,
    partitions: usize,
    replicas: usize,
}

/// Asks and prints.
pub(super) async fn run(cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let state = cluster.state().await?;
    let partitions = cluster.partitions(None).await?;
    let topics: BTreeSet<&str> = partitions.iter().map(|partition| partition.topic.as_str()).collect();
    let info = Info {
        controller: state.controller,
        brokers: state.brokers.len(),
        fenced: state.brokers.iter().filter(|broker| broker.fenced).count(),
        topics: topics.len(),
        partitions: partitions.len(),
        replicas: partitions.iter().map(|partition| partition.replicas.len()).sum(),
        cluster: state.id,
    };
    if output.is_json() {
        output.document("cluster.info/1", &info)?;
        return Ok(Exit::Done);
    }
    let controller = if info.controller < 0 { "none".to_owned() } else { info.controller.to_string() };
    output.line(&format!("cluster     {}", info.cluster))?;
    output.line(&format!("controller  {controller}"))?;
    output.line(&format!("brokers     {} ({} out of touch)", info.brokers, info.fenced))?;
    output.line(&format!("topics      {}", info.topics))?;
    output.line(&format!("partitions  {} ({} replicas)", info.partitions, info.replicas))?;
    Ok(Exit::Done)
}
