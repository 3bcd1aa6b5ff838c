//! The command line: one binary, nouns and verbs, tables for people and stable JSON for programs.
//!
//! Results go to standard output; hints, progress and errors to standard error. Whoever closes our output early ends us
//! quietly.

/// Writes a line for people to standard error. Nobody there to read it is no reason to fail.
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod args;
mod cluster;
mod consume;
mod dev;
mod exit;
mod format;
mod group;
mod input;
mod interrupt;
mod leader;
mod moving;
mod node;
mod output;
mod partition;
mod placing;
mod position;
mod produce;
mod progress;
pub mod serve;
mod storage;
mod topic;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::client::{Cluster, Settings};
use args::Global;
pub use exit::{Exit, Failure};
use output::Output;

/// A Kafka-protocol log broker that never loses what it acknowledged, and its tools.
#[derive(Debug, Parser)]
#[command(name = "stonelog", version, propagate_version = true, after_help = exit::HELP, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker.
    Serve(serve::ServeArgs),
    /// Run a cluster of real processes on this machine, and play with it: kill, pause, resume and start its nodes.
    Dev(dev::Dev),
    /// Create, list, describe, change and delete topics.
    #[command(subcommand)]
    Topic(topic::Topic),
    /// Write records: from the command line or, line by line, from standard input.
    Produce(produce::Produce),
    /// Read records and print them.
    Consume(consume::Consume),
    /// List and describe consumer groups.
    #[command(subcommand)]
    Group(group::Group),
    /// Look at the whole cluster: what is in it, what is wrong with it.
    Cluster(cluster::ClusterCommand),
    /// Move partitions to other brokers.
    Partition(partition::PartitionCommand),
    /// Choose who leads.
    Leader(leader::LeaderCommand),
    /// Look at one broker among others, or take its replicas away.
    Node(node::NodeCommand),
    /// Look at data directories: check them, show what files hold, ask how the scrub stands.
    #[command(subcommand)]
    Storage(storage::Storage),
    /// Write records, read them back, and report what was lost, duplicated, reordered or corrupted.
    Verify(verify::Verify),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::new(Exit::Failed, format!("no runtime: {error}")).report(),
    };
    if let Command::Serve(args) = cli.command {
        return runtime.block_on(crate::server::run(args));
    }
    let outcome = tokio::task::LocalSet::new().block_on(&runtime, run(cli));
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

async fn run(cli: Cli) -> Result<Exit, Failure> {
    let output = Output::new(cli.global.output);
    let mut cluster = Cluster::new(settings(&cli.global));
    match cli.command {
        Command::Serve(_) => unreachable!("served before any client is made"),
        Command::Topic(command) => or_interrupt(topic::run(command, &mut cluster, output)).await,
        Command::Produce(command) => or_interrupt(produce::run(command, &mut cluster, output)).await,
        Command::Dev(command) => dev::run(command, &cli.global, output).await,
        // These two have something to finish when they are interrupted.
        Command::Consume(command) => consume::run(command, &mut cluster, output).await,
        Command::Storage(command) => storage::run(command, output),
        Command::Verify(command) => verify::run(command, &cli.global, output).await,
        Command::Cluster(command) => or_interrupt(self::cluster::run(command, &mut cluster, output)).await,
        Command::Partition(command) => or_interrupt(partition::run(command, &mut cluster, output)).await,
        Command::Leader(command) => or_interrupt(leader::run(command, &mut cluster, output)).await,
        Command::Node(command) => or_interrupt(node::run(command, &mut cluster, output)).await,
        Command::Group(command) => or_interrupt(group::run(command, &mut cluster, output)).await,
    }
}

/// How a person at a terminal wants it: no waiting for a cluster that is not there.
fn settings(global: &Global) -> Settings {
    Settings {
        brokers: global.brokers.clone(),
        client_id: "stonelog-cli".to_owned(),
        request_timeout: global.timeout,
        retry_for: global.timeout,
        retry_unreachable: false,
    }
}

async fn or_interrupt(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    tokio::select! {
        outcome = work => outcome,
        () = interrupt::interrupted() => Ok(Exit::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_documents_its_exit_codes() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        for code in ["0 ", "3 ", "11 ", "130 "] {
            assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "exit code {code} in\n{help}");
        }
    }

    #[test]
    fn kafkas_name_for_the_brokers_is_understood() {
        let cli = Cli::parse_from(["stonelog", "topic", "list", "--bootstrap-server", "a:1,b:2"]);
        assert_eq!(cli.global.brokers, ["a:1", "b:2"]);
    }
}
