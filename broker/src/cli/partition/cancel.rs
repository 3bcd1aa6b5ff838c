//! `stonelog partition cancel`: moves given up.

use clap::Args;

use super::super::exit::{Exit, Failure};
use super::super::moving::{self, Moves, Place, parse_place};
use super::super::output::Output;
use crate::client::Cluster;

#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// Partitions.
    #[arg(required_unless_present = "all", value_name = "TOPIC:PARTITION", value_parser = parse_place)]
    partitions: Vec<Place>,
    /// Everything that is being moved.
    #[arg(long, conflicts_with = "partitions")]
    all: bool,
}

impl Cancel {
    /// Asks for it.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let wishes = if self.all {
            let moving = cluster.reassignments().await?;
            moving.into_iter().map(|one| (one.topic, one.partition, None)).collect()
        } else {
            self.partitions.into_iter().map(|place| (place.topic, place.partition, None)).collect()
        };
        moving::ask("partition.cancel/1", Moves::of(wishes), false, cluster, output).await
    }
}
