//! `stonelog dev`: a cluster of real processes on this machine, and playing with it.
//!
//! Every node is this very binary with `serve`, so what holds for a cluster on three machines holds here: real quorum,
//! real replication, real fsyncs. Only the machine is one. The nodes are children of this process: an interrupt stops
//! them cleanly, one after the other; if this process dies in any other way the kernel kills them, and nothing that
//! was acknowledged is lost by that. `stonelog dev kill 2` and its like ask this process, over a socket in the data
//! directory, for it alone knows which process is which node.

mod control;
mod member;
mod place;
mod supervisor;
mod warnings;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::args::{Format, Global};
use super::exit::{Exit, Failure};
use super::output::Output;
use control::{Do, Request};
use place::{Place, Wish};

/// Where the data of a cluster goes that names no other place.
const DATA_DIR: &str = "stonelog-dev";

/// `stonelog dev …`
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Nodes: 1, or 3 to 9, of which the first three vote [default: as many as the directory has, 3 in a new one].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=place::NODES_MAX as i64))]
    nodes: Option<u16>,
    /// Where data, logs of the nodes and the cluster's secret are; made if it is not there.
    #[arg(long, global = true, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Port of the first node for clients; the others take those that follow. 0 takes free ones [default: 9092].
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// A setting of every node. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    play: Option<Play>,
}

/// What can be done to the nodes of a cluster that runs.
#[derive(Debug, Subcommand)]
enum Play {
    /// Kill a node the hard way: SIGKILL, as a crash would.
    Kill(Which),
    /// Stop a node from running, and leave everything as it is: SIGSTOP, as a machine that hangs would.
    Pause(Which),
    /// Let a paused node go on.
    Resume(Which),
    /// Start a node that is dead, and wait until it is ready.
    Start(Which),
    /// Show the nodes.
    Status,
}

/// A node's number, from 1.
#[derive(Debug, Args)]
struct Which {
    /// The node's number, from 1.
    node: u16,
}

/// Runs a cluster until it is interrupted, or asks one that runs.
pub(super) async fn run(command: Dev, global: &Global, output: Output) -> Result<Exit, Failure> {
    let request = match command.play {
        Some(Play::Kill(which)) => Request { verb: Do::Kill, node: which.node },
        Some(Play::Pause(which)) => Request { verb: Do::Pause, node: which.node },
        Some(Play::Resume(which)) => Request { verb: Do::Resume, node: which.node },
        Some(Play::Start(which)) => Request { verb: Do::Start, node: which.node },
        Some(Play::Status) => Request { verb: Do::Status, node: 0 },
        None => {
            if global.output == Format::Json {
                return Err(Failure::new(Exit::Usage, "`stonelog dev` prints for people; `dev status` has JSON"));
            }
            let wish = Wish { nodes: command.nodes, base_port: command.base_port, settings: command.set };
            let place = Place::take(&command.data_dir, wish)?;
            return supervisor::run(place, global.timeout).await;
        }
    };
    control::ask(&command.data_dir, &request, global.timeout, output).await
}
