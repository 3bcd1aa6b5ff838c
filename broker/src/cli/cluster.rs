//! `stonelog cluster`: the cluster as a whole, by requests that Kafka's own tools make too.

mod brokers;
mod findings;
mod health;
mod info;
mod quorum;
mod voter;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::Cluster;

/// `stonelog cluster …`
#[derive(Debug, Args)]
pub(super) struct ClusterCommand {
    /// Print JSON; the same as `--output json`.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the cluster's id, controller, and how much is in it.
    Info,
    /// Say what is wrong with the cluster; exit code 10 if anything is.
    Health(health::Health),
    /// List the brokers, those out of touch too.
    Brokers,
    /// Show who keeps the metadata, who leads, and how far behind each copy is.
    Quorum,
    /// Change who keeps the metadata.
    Voter(voter::Voter),
}

pub(super) async fn run(command: ClusterCommand, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let output = output.or_json(command.json);
    match command.verb {
        Verb::Info => info::run(cluster, output).await,
        Verb::Health(health) => health.run(cluster, output).await,
        Verb::Brokers => brokers::run(cluster, output).await,
        Verb::Quorum => quorum::run(cluster, output).await,
        Verb::Voter(voter) => voter.run(cluster, output).await,
    }
}
