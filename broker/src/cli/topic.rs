//! `stonelog topic`: create, list, describe, alter, delete.

mod describe;
mod rf;

use std::io::{IsTerminal as _, Write as _};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::parse_pair;
use super::exit::{Exit, Failure};
use super::output::Output;
use crate::client::admin::{ConfigChange, NewTopic};
use crate::client::{Cluster, Error};
use describe::Describe;
use stonelog_protocol::ErrorCode;

/// `stonelog topic …`
#[derive(Debug, Subcommand)]
pub(super) enum Topic {
    /// Create topics.
    Create(Create),
    /// List topics.
    List(List),
    /// Show partitions, offsets and settings of topics.
    Describe(Describe),
    /// Change settings of a topic, or add partitions.
    Alter(Alter),
    /// Change how many replicas its partitions have.
    Rf(rf::Rf),
    /// Delete topics with everything in them.
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(super) struct Create {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Partitions of each; the cluster's default if not given.
    #[arg(short, long, value_name = "COUNT", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Replicas of each partition; the cluster's default if not given.
    #[arg(short, long, value_name = "COUNT", visible_alias = "replication-factor", value_parser = clap::value_parser!(i16).range(1..))]
    replicas: Option<i16>,
    /// A setting, such as `retention.ms=3600000`. May be repeated.
    #[arg(short, long = "config", value_name = "KEY=VALUE", value_parser = parse_pair)]
    configs: Vec<(String, String)>,
    /// A topic that exists already is fine.
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether they could be created.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Also list topics in which the broker keeps its own state.
    #[arg(long)]
    internal: bool,
}

#[derive(Debug, Args)]
pub(super) struct Alter {
    /// Name of the topic.
    #[arg(value_name = "TOPIC")]
    name: String,
    /// Give a setting a value. May be repeated.
    #[arg(short, long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
    /// Let a setting have its default again. May be repeated.
    #[arg(short, long = "unset", value_name = "KEY")]
    unset: Vec<String>,
    /// Raise the number of partitions to this. Keys will map to other partitions than before.
    #[arg(short, long, value_name = "COUNT")]
    partitions: Option<i32>,
}

#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(command: Topic, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
    match command {
        Topic::Create(create) => create.run(cluster, output).await,
        Topic::List(list) => list.run(cluster, output).await,
        Topic::Describe(describe) => describe.run(cluster, output).await,
        Topic::Alter(alter) => alter.run(cluster, output).await,
        Topic::Rf(rf) => rf.run(cluster, output).await,
        Topic::Delete(delete) => delete.run(cluster, output).await,
    }
}

/// What became of each of several topics; the first failure is told at once and decides the exit code.
#[derive(Default, Serialize)]
struct Results {
    topics: Vec<TopicResult>,
    #[serde(skip)]
    failure: Option<Failure>,
    #[serde(skip)]
    succeeded: bool,
}

#[derive(Serialize)]
struct TopicResult {
    topic: String,
    result: String,
}

impl Results {
    fn add(&mut self, topic: &str, outcome: Result<&str, Error>) {
        let result = match &outcome {
            Ok(done) => {
                self.succeeded = true;
                (*done).to_owned()
            }
            Err(error) => error.to_string(),
        };
        self.topics.push(TopicResult { topic: topic.to_owned(), result });
        if let Err(error) = outcome {
            self.failure.get_or_insert(error.into());
        }
    }

    fn finish(mut self, schema: &'static str, output: Output) -> Result<Exit, Failure> {
        if output.is_json() {
            output.document(schema, &self)?;
        } else {
            for done in &self.topics {
                output.line(&format!(
                    "{}: {}",
                    done.topic,
                    done.result.trim_start_matches(&format!("topic {}: ", done.topic))
                ))?;
            }
        }
        match self.failure.take() {
            Some(mut failure) if self.succeeded => {
                failure.exit = Exit::Partial;
                Err(failure)
            }
            Some(failure) => Err(failure),
            None => Ok(Exit::Done),
        }
    }
}

impl Create {
    async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let mut results = Results::default();
        for name in &self.names {
            let new = NewTopic {
                name: name.clone(),
                partitions: self.partitions,
                replicas: self.replicas,
                configs: self.configs.clone(),
                dry_run: self.dry_run,
            };
            let outcome = match cluster.create_topic(&new).await {
                Ok(()) if self.dry_run => Ok("can be created"),
                Ok(()) => Ok("created"),
                Err(error) if self.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
                    Ok("exists already")
                }
                Err(error) => Err(error),
            };
            results.add(name, outcome);
        }
        results.finish("topic.create/1", output)
    }
}

#[derive(Serialize)]
struct ListedTopics {
    cluster: Option<String>,
    topics: Vec<ListedTopic>,
}

#[derive(Serialize)]
struct ListedTopic {
    topic: String,
    id: String,
    internal: bool,
    partitions: usize,
    replicas: usize,
}

impl List {
    async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let snapshot = cluster.describe_all().await?;
        let cluster = snapshot.cluster_id;
        let topics: Vec<ListedTopic> = snapshot
            .topics
            .into_iter()
            .filter(|topic| self.internal || !topic.internal)
            .map(|topic| ListedTopic {
                id: topic.id.to_string(),
                internal: topic.internal,
                partitions: topic.partitions.len(),
                replicas: topic.partitions.iter().map(|partition| partition.replicas.len()).max().unwrap_or(0),
                topic: topic.name,
            })
            .collect();
        if output.is_json() {
            output.document("topic.list/1", &ListedTopics { cluster, topics })?;
        } else if topics.is_empty() {
            note!("no topics; `stonelog topic create NAME` makes one");
        } else {
            let row = |topic: &ListedTopic| {
                vec![topic.topic.clone(), topic.partitions.to_string(), topic.replicas.to_string()]
            };
            output.table(&["topic", "partitions", "replicas"], &[1, 2], topics.iter().map(row).collect())?;
        }
        Ok(Exit::Done)
    }
}

impl Alter {
    async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let mut changes: Vec<ConfigChange> =
            self.set.iter().map(|(key, value)| ConfigChange::Set(key.clone(), value.clone())).collect();
        changes.extend(self.unset.iter().map(|key| ConfigChange::Unset(key.clone())));
        if changes.is_empty() && self.partitions.is_none() {
            return Err(Failure::new(Exit::Usage, "nothing to change").hint("give --set, --unset or --partitions"));
        }
        cluster.topic(&self.name).await?;
        let mut results = Results::default();
        if !changes.is_empty() {
            results.add(&self.name, cluster.alter_topic(&self.name, &changes).await.map(|()| "settings changed"));
        }
        if let Some(count) = self.partitions {
            results.add(&self.name, cluster.grow_topic(&self.name, count).await.map(|()| "partitions added"));
        }
        results.finish("topic.alter/1", output)
    }
}

impl Delete {
    async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let mut results = Results::default();
        for name in &self.names {
            if !self.yes {
                confirm(name, cluster).await?;
            }
            results.add(name, cluster.delete_topic(name).await.map(|()| "deleted"));
        }
        results.finish("topic.delete/1", output)
    }
}

/// Says what would be lost and has the name typed; without a terminal, demands `--yes`.
async fn confirm(name: &str, cluster: &mut Cluster) -> Result<(), Failure> {
    let records: i64 = cluster.bounds(name).await?.values().map(|(start, end)| end - start).sum();
    if !std::io::stdin().is_terminal() {
        let what = format!("topic {name} holds {records} records, and nobody is there to confirm its deletion");
        return Err(Failure::new(Exit::Precondition, what).hint("add --yes"));
    }
    write!(std::io::stderr(), "{records} records of topic {name} will be lost. Type its name to delete it: ")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == name {
        return Ok(());
    }
    Err(Failure::new(Exit::Precondition, format!("topic {name} is kept: another name was typed")))
}
