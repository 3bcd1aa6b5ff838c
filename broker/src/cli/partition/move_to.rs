//! `stonelog partition move`: partitions onto brokers that are named.

use clap::Args;

use super::super::exit::{Exit, Failure};
use super::super::moving::{self, Moves, Place, parse_place};
use super::super::output::Output;
use crate::client::Cluster;

#[derive(Debug, Args)]
pub(super) struct Move {
    /// Partitions.
    #[arg(required = true, value_name = "TOPIC:PARTITION", value_parser = parse_place)]
    partitions: Vec<Place>,
    /// The brokers they shall lie on, the preferred leader first.
    #[arg(long, required = true, value_name = "BROKER", value_delimiter = ',')]
    to: Vec<i32>,
    /// Stay until they have arrived.
    #[arg(short, long)]
    wait: bool,
}

impl Move {
    /// Asks for it.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let to = &self.to;
        let wishes = self.partitions.into_iter().map(|place| (place.topic, place.partition, Some(to.clone())));
        moving::ask("partition.move/1", Moves::of(wishes.collect()), self.wait, cluster, output).await
    }
}
