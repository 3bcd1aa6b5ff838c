//! `stonelog partition`: where partitions lie, and moving them.

mod accept_loss;
mod cancel;
mod move_to;
mod status;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::Cluster;

/// `stonelog partition …`
#[derive(Debug, Args)]
pub(super) struct PartitionCommand {
    /// Print JSON; the same as `--output json`.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have partitions lie on these brokers.
    Move(move_to::Move),
    /// Show what is being moved.
    Status(status::Status),
    /// Give up moves that are under way; the partitions stay where they were.
    Cancel(cancel::Cancel),
    /// Go on with what one replica has, where nobody may lead without losing records.
    AcceptLoss(accept_loss::AcceptLoss),
}

pub(super) async fn run(command: PartitionCommand, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let output = output.or_json(command.json);
    match command.verb {
        Verb::Move(move_to) => move_to.run(cluster, output).await,
        Verb::Status(status) => status.run(cluster, output).await,
        Verb::Cancel(cancel) => cancel.run(cluster, output).await,
        Verb::AcceptLoss(accept_loss) => accept_loss.run(cluster, output).await,
    }
}
