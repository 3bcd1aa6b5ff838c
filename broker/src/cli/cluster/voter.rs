//! `stonelog cluster voter`: adds a voter to the metadata quorum, or takes one out.
//!
//! A voter is a node with a directory: which one the quorum itself says.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use crate::client::Cluster;

#[derive(Debug, Args)]
pub(super) struct Voter {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have a controller vote that follows the metadata. Ends when it votes.
    Add {
        /// The node, and where its controller listener is reached.
        #[arg(value_name = "ID@HOST:PORT", value_parser = parse_place)]
        voter: Place,
    },
    /// Take a voter out of the quorum. Its process ends.
    Remove {
        /// The node.
        #[arg(value_name = "ID")]
        node: i32,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    node: i32,
    host: String,
    port: u16,
}

fn parse_place(text: &str) -> Result<Place, String> {
    let parsed = text.split_once('@').and_then(|(node, address)| {
        let (host, port) = address.rsplit_once(':')?;
        let (node, port) = (node.parse().ok().filter(|node| *node >= 0)?, port.parse().ok()?);
        Some(Place { node, host: host.trim_matches(['[', ']']).to_owned(), port })
    });
    parsed.filter(|place| !place.host.is_empty()).ok_or_else(|| "write it as id@host:port, for example 4@h:9093".into())
}

#[derive(Serialize)]
struct Changed {
    node: i32,
    directory: String,
    votes: bool,
}

impl Voter {
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let quorum = cluster.quorum().await?;
        let (node, votes) = match &self.verb {
            Verb::Add { voter } => (voter.node, true),
            Verb::Remove { node } => (*node, false),
        };
        let (voters, observers) = (quorum.voters.iter(), quorum.observers.iter());
        let all = voters.map(|voter| (voter, true)).chain(observers.map(|observer| (observer, false)));
        // One that is replaced is there twice, with its old directory as a voter and with the new one as an observer.
        let found: Vec<_> = all.filter(|(replica, _)| replica.node == node).collect();
        let wanted = found.iter().find(|(_, is_voter)| *is_voter != votes).or(found.first());
        let Some((replica, _)) = wanted else {
            let what = format!("node {node} neither votes nor follows the metadata");
            return Err(Failure::new(Exit::NotFound, what).hint("`stonelog cluster quorum` shows who does"));
        };
        let directory = replica.directory;
        match self.verb {
            Verb::Add { voter } => cluster.add_voter(node, directory, &voter.host, voter.port).await?,
            Verb::Remove { .. } => cluster.remove_voter(node, directory).await?,
        }
        if output.is_json() {
            output.document("cluster.voter/1", &Changed { node, directory: directory.to_string(), votes })?;
        } else {
            let now = if votes { "votes" } else { "is no voter any more" };
            output.line(&format!("node {node} with directory {directory} {now}"))?;
        }
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voter_is_named_with_its_address() {
        let place = |host: &str| Place { node: 4, host: host.to_owned(), port: 9093 };
        assert_eq!(parse_place("4@h:9093"), Ok(place("h")));
        assert_eq!(parse_place("4@[::1]:9093"), Ok(place("::1")));
        for wrong in ["4", "4@h", "-4@h:1", "h:1", "4@:1", "4@h:x"] {
            assert!(parse_place(wrong).is_err(), "{wrong}");
        }
    }
}
