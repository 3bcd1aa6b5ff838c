//! `stonelog topic describe`: partitions, offsets, settings, and what they mean for durability.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::{Output, join};
use crate::client::admin::{Config, ConfigSource};
use crate::client::{Cluster, Topic as Described};

#[derive(Debug, Args)]
pub(in crate::cli) struct Describe {
    /// Names of the topics.
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// Show every setting, not only those that differ from the default.
    #[arg(long)]
    all_configs: bool,
}

#[derive(Serialize)]
struct TopicDescription {
    topic: String,
    id: String,
    internal: bool,
    /// `strict` when every acknowledged record is flushed first, else `relaxed`.
    durability: &'static str,
    partitions: Vec<PartitionDescription>,
    configs: Vec<ConfigDescription>,
}

#[derive(Serialize)]
struct PartitionDescription {
    partition: i32,
    leader: i32,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    offline: Vec<i32>,
    start_offset: Option<i64>,
    end_offset: Option<i64>,
}

#[derive(Serialize)]
struct ConfigDescription {
    name: String,
    value: Option<String>,
    source: &'static str,
}

impl Describe {
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        for (index, name) in self.names.iter().enumerate() {
            let topic = cluster.topic(name).await?;
            // A partition without a leader has no offsets to show, but the rest of the topic has.
            let bounds = if topic.partitions.iter().all(|partition| partition.leader >= 0) {
                cluster.bounds(name).await?
            } else {
                BTreeMap::new()
            };
            let configs = cluster.topic_configs(name).await?;
            let description = self.describe(topic, &bounds, &configs);
            if output.is_json() {
                output.document("topic.describe/1", &description)?;
            } else {
                if index > 0 {
                    output.line("")?;
                }
                print_description(&description, output)?;
            }
        }
        Ok(Exit::Done)
    }

    fn describe(&self, topic: Described, bounds: &BTreeMap<i32, (i64, i64)>, configs: &[Config]) -> TopicDescription {
        let strict =
            configs.iter().any(|config| config.name == "flush.messages" && config.value.as_deref() == Some("1"));
        let shown = |config: &&Config| self.all_configs || config.source != ConfigSource::Default;
        let configs = configs.iter().filter(shown).map(|config| ConfigDescription {
            name: config.name.clone(),
            value: config.value.clone(),
            source: config.source.name(),
        });
        let partitions = topic.partitions.into_iter().map(|partition| PartitionDescription {
            start_offset: bounds.get(&partition.index).map(|(start, _)| *start),
            end_offset: bounds.get(&partition.index).map(|(_, end)| *end),
            partition: partition.index,
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            replicas: partition.replicas,
            isr: partition.isr,
            offline: partition.offline,
        });
        TopicDescription {
            topic: topic.name,
            id: topic.id.to_string(),
            internal: topic.internal,
            durability: if strict { "strict" } else { "relaxed" },
            partitions: partitions.collect(),
            configs: configs.collect(),
        }
    }
}

fn print_description(topic: &TopicDescription, output: Output) -> Result<(), Failure> {
    let meaning = match topic.durability {
        "strict" => "acknowledged after fsync on every in-sync replica",
        _ => "acknowledged before fsync",
    };
    let count = topic.partitions.len();
    let internal = if topic.internal { ", internal" } else { "" };
    output.line(&format!(
        "{}   id {}, {count} partition{}{internal}, {}: {meaning}",
        topic.topic,
        topic.id,
        if count == 1 { "" } else { "s" },
        topic.durability,
    ))?;
    let offset = |offset: Option<i64>| offset.map_or("?".to_owned(), |offset| offset.to_string());
    let rows = topic.partitions.iter().map(|partition| {
        let leader = if partition.leader < 0 { "none".to_owned() } else { partition.leader.to_string() };
        let (replicas, isr) = (join(&partition.replicas), join(&partition.isr));
        let (start, end) = (offset(partition.start_offset), offset(partition.end_offset));
        vec![partition.partition.to_string(), leader, partition.leader_epoch.to_string(), replicas, isr, start, end]
    });
    let headings = ["partition", "leader", "epoch", "replicas", "isr", "start", "end"];
    output.table(&headings, &[0, 1, 2, 5, 6], rows.collect())?;
    if !topic.configs.is_empty() {
        output.line("")?;
        let rows = topic.configs.iter().map(|config| {
            vec![config.name.clone(), config.value.clone().unwrap_or_default(), config.source.to_owned()]
        });
        output.table(&["setting", "value", "set by"], &[], rows.collect())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Partition;
    use stonelog_protocol::Uuid;

    fn config(name: &str, value: &str, source: ConfigSource) -> Config {
        Config { name: name.to_owned(), value: Some(value.to_owned()), source }
    }

    #[test]
    fn programs_find_the_documented_fields() {
        let partition =
            Partition { index: 0, leader: 1, leader_epoch: 2, replicas: vec![1], isr: vec![1], offline: vec![] };
        let (name, partitions) = ("t".to_owned(), vec![partition]);
        let topic = Described { name, id: Uuid::ZERO, internal: false, partitions };
        let configs =
            [config("flush.messages", "1", ConfigSource::Default), config("retention.ms", "5", ConfigSource::Topic)];
        let describe = Describe { names: Vec::new(), all_configs: false };
        let described = describe.describe(topic, &BTreeMap::from([(0, (3, 9))]), &configs);
        let expected = serde_json::json!({
            "topic": "t", "id": "AAAAAAAAAAAAAAAAAAAAAA", "internal": false, "durability": "strict",
            "partitions": [{
                "partition": 0, "leader": 1, "leader_epoch": 2, "replicas": [1], "isr": [1], "offline": [],
                "start_offset": 3, "end_offset": 9,
            }],
            "configs": [{"name": "retention.ms", "value": "5", "source": "topic"}],
        });
        assert_eq!(serde_json::to_value(described).unwrap(), expected);
    }
}
