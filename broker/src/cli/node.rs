//! `stonelog node`: one broker among others: may it stop, and taking its replicas away.

mod drain;
mod safe_to_stop;

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::Cluster;

/// `stonelog node …`
#[derive(Debug, Args)]
pub(super) struct NodeCommand {
    /// Print JSON; the same as `--output json`.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Move every replica of a broker to others.
    Drain(drain::Drain),
    /// Say which partitions would fall to or below what an acknowledgement needs if brokers stopped now.
    SafeToStop(safe_to_stop::SafeToStop),
}

pub(super) async fn run(command: NodeCommand, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    let output = output.or_json(command.json);
    match command.verb {
        Verb::Drain(drain) => drain.run(cluster, output).await,
        Verb::SafeToStop(safe_to_stop) => safe_to_stop.run(cluster, output).await,
    }
}
