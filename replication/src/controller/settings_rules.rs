//! The rules of settings, read from the tables of keys.

use std::collections::BTreeMap;

use stonelog_protocol::error_code::ErrorCode;

use super::Reject;
use super::rules::{ConfigRules, ListEdit};
use crate::metadata::{ConfigResource, ConfigValues, MetadataImage};
use crate::settings::cluster_keys::{agreed, is_cluster_key, own_cluster_values};
use crate::settings::{Definition, Problem, Scope, TopicConfig, judge, list, topic_key, value};

/// How a broker key is found: its table belongs to the broker.
pub type KeyTable = fn(&str) -> Option<&'static Definition>;

/// [`ConfigRules`] over the tables of keys and one broker's file.
#[derive(Clone, Debug)]
pub struct SettingsRules {
    /// What the configuration file says, by broker key. Of the keys that hold for the whole cluster the metadata's
    /// values count, not these.
    pub static_broker: BTreeMap<String, String>,
    /// Finds a broker key.
    pub broker_key: KeyTable,
    /// Finds a group key.
    pub group_key: KeyTable,
}

impl SettingsRules {
    /// What holds on every broker: the file's and the recorded values under the dynamic cluster default.
    fn inherited(&self, image: &MetadataImage, dynamic_default: Option<&ConfigValues>) -> BTreeMap<String, String> {
        let mut merged = agreed(&self.static_broker, image);
        merged.extend(dynamic_default.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        merged
    }

    fn topic_config(&self, image: &MetadataImage, topic: &str) -> TopicConfig {
        let none = ConfigValues::new();
        let overrides = image.topic_config(topic).map_or(&none, |values| values);
        let inherited = self.inherited(image, image.broker_config(None).map(|values| &**values));
        TopicConfig::in_force(topic, overrides, &inherited).0
    }

    fn judge_broker(
        &self,
        image: &MetadataImage,
        is_cluster_default: bool,
        values: &ConfigValues,
    ) -> Result<Vec<String>, Reject> {
        for (key, text) in values {
            let definition = (self.broker_key)(key).ok_or_else(|| invalid(format!("Unknown broker config {key}")))?;
            if !is_cluster_default && is_cluster_key(key) {
                return Err(invalid(format!(
                    "{key} says what an acknowledgement means and holds for all brokers: it cannot be set for one of \
                     them. Set it for all (the broker with the empty name), or for a topic"
                )));
            }
            if definition.is_read_only() {
                return Err(invalid(format!("Cannot update these configs dynamically: {key}")));
            }
            value::accept(definition, text).map_err(|problem| invalid(problem.to_string()))?;
        }
        if !is_cluster_default {
            return Ok(Vec::new());
        }
        // A cluster default is inherited by every topic: each is judged with it.
        let inherited = self.inherited(image, Some(values));
        let mut warnings = Vec::new();
        let none = ConfigValues::new();
        for topic in image.topics() {
            let overrides = image.topic_config(&topic.name).map_or(&none, |values| values);
            let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
            let judgement = judge::judge_topic(&topic.name, overrides, &inherited, replicas)
                .map_err(|problems| invalid(format!("topic {}: {}", topic.name, said(&problems))))?;
            warnings.extend(judgement.warnings.iter().map(|warning| format!("topic {}: {warning}", topic.name)));
        }
        Ok(warnings)
    }

    fn definition(&self, resource: &ConfigResource, key: &str) -> Option<&'static Definition> {
        match resource {
            ConfigResource::Topic(_) => topic_key(key),
            ConfigResource::Broker(_) | ConfigResource::Recorded => (self.broker_key)(key),
            ConfigResource::Group(_) => (self.group_key)(key),
        }
    }
}

impl ConfigRules for SettingsRules {
    fn judge(
        &self,
        image: &MetadataImage,
        resource: &ConfigResource,
        values: &ConfigValues,
        replicas: Option<usize>,
    ) -> Result<Vec<String>, Reject> {
        match resource {
            ConfigResource::Topic(name) => {
                let inherited = self.inherited(image, image.broker_config(None).map(|values| &**values));
                let judgement = judge::judge_topic(name, values, &inherited, replicas.unwrap_or(1))
                    .map_err(|problems| invalid(said(&problems)))?;
                Ok(judgement.warnings.iter().map(ToString::to_string).collect())
            }
            ConfigResource::Broker(id) => self.judge_broker(image, id.is_none(), values),
            ConfigResource::Recorded => Err(not_for_clients()),
            ConfigResource::Group(_) => {
                for (key, text) in values {
                    let definition =
                        (self.group_key)(key).ok_or_else(|| invalid(format!("Unknown group config name: {key}")))?;
                    debug_assert!(matches!(definition.scope, Scope::Group));
                    value::accept(definition, text).map_err(|problem| invalid(problem.to_string()))?;
                }
                Ok(Vec::new())
            }
        }
    }

    fn edit_list(
        &self,
        resource: &ConfigResource,
        key: &str,
        edit: ListEdit,
        current: Option<&str>,
        operand: &str,
    ) -> Result<String, Reject> {
        let operation = match edit {
            ListEdit::Append => "APPEND",
            ListEdit::Subtract => "SUBTRACT",
        };
        let not_a_list = || Problem::NotAList { key: key.to_owned(), operation };
        let definition = self.definition(resource, key).ok_or_else(|| invalid(not_a_list().to_string()))?;
        let current = current.or(definition.default).unwrap_or_default();
        let edited = match edit {
            ListEdit::Append => list::append(definition, current, operand),
            ListEdit::Subtract => list::subtract(definition, current, operand),
        };
        edited.map_err(|problem| invalid(problem.to_string()))
    }

    fn own_cluster_values(&self) -> ConfigValues {
        own_cluster_values(&self.static_broker)
    }

    fn min_insync_replicas(&self, image: &MetadataImage, topic: &str, replicas: usize) -> usize {
        self.topic_config(image, topic).effective_min_isr(replicas)
    }

    fn is_strict(&self, image: &MetadataImage, topic: &str) -> bool {
        self.topic_config(image, topic).is_strict()
    }
}

/// Only the controller records what its own configuration says.
pub(super) fn not_for_clients() -> Reject {
    Reject::new(ErrorCode::InvalidRequest, "What the controller has recorded is nobody else's to change.")
}

fn invalid(message: String) -> Reject {
    Reject::new(ErrorCode::InvalidConfig, message)
}

fn said(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
