//! `stonelog leader`: who leads.

mod transfer;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::Cluster;

/// `stonelog leader …`
#[derive(Debug, Args)]
pub(super) struct LeaderCommand {
    /// Print JSON; the same as `--output json`.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have an in-sync replica lead a partition, and be its preferred leader from now on.
    Transfer(transfer::Transfer),
}

pub(super) async fn run(command: LeaderCommand, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let output = output.or_json(command.json);
    match command.verb {
        Verb::Transfer(transfer) => transfer.run(cluster, output).await,
    }
}
