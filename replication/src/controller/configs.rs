//! Dynamic settings: changed key by key (KIP-339) or replaced whole, always judged whole before they are written.

use std::collections::{BTreeMap, BTreeSet};

use stonelog_protocol::error_code::ErrorCode;

use super::elections::on_min_isr_changed;
use super::request::{AlterConfigs, ConfigEdit, ConfigOperation, IncrementalAlterConfigs};
use super::response::{ConfigResult, ControllerResponse};
use super::rules::{ConfigRules, ListEdit};
use super::settings_rules::not_for_clients;
use super::{Decision, Inputs, RECORDS_PER_REQUEST_MAX, Reject, apply_all};
use crate::metadata::record::ConfigRecord;
use crate::metadata::{ConfigResource, ConfigValues, MetadataImage, MetadataRecord};

pub(super) fn decide_incremental(
    image: &MetadataImage,
    request: &IncrementalAlterConfigs,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let mut change = Change::new(image, inputs);
    let mut seen = BTreeSet::new();
    for (resource, edits) in &request.resources {
        if !seen.insert(resource) {
            change.refuse(resource, duplicate_resource());
            continue;
        }
        let next = edited(image, inputs.rules, resource, edits);
        change.judge(resource, next);
    }
    let (records, results) = change.finish(request.validate_only)?;
    Ok(Decision::new(records, ControllerResponse::IncrementalAlterConfigs(results)))
}

pub(super) fn decide_replace(
    image: &MetadataImage,
    request: &AlterConfigs,
    inputs: &Inputs<'_>,
) -> Result<Decision, Reject> {
    let mut change = Change::new(image, inputs);
    let mut seen = BTreeSet::new();
    for replace in &request.resources {
        if !seen.insert(&replace.resource) {
            change.refuse(&replace.resource, duplicate_resource());
            continue;
        }
        let without_value = replace.configs.iter().find(|(_, value)| value.is_none());
        let next = match without_value {
            Some((key, _)) => {
                Err(Reject::new(ErrorCode::InvalidRequest, format!("Null value not supported for : {key}")))
            }
            None => Ok(replace.configs.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()),
        };
        change.judge(&replace.resource, next);
    }
    let (records, results) = change.finish(request.validate_only)?;
    Ok(Decision::new(records, ControllerResponse::AlterConfigs(results)))
}

fn duplicate_resource() -> Reject {
    Reject::new(ErrorCode::InvalidRequest, "Each resource must appear at most once.")
}

fn current(image: &MetadataImage, resource: &ConfigResource) -> ConfigValues {
    image.config(resource).map(|values| (**values).clone()).unwrap_or_default()
}

/// The overrides after some edits.
fn edited(
    image: &MetadataImage,
    rules: &dyn ConfigRules,
    resource: &ConfigResource,
    edits: &[ConfigEdit],
) -> Result<ConfigValues, Reject> {
    let mut values = current(image, resource);
    let mut seen = BTreeSet::new();
    for edit in edits {
        let invalid = |message: String| Reject::new(ErrorCode::InvalidRequest, message);
        if !seen.insert(&edit.key) {
            return Err(invalid(format!("Error due to duplicate config keys: {}", edit.key)));
        }
        let operand =
            || edit.value.as_deref().ok_or_else(|| invalid(format!("Null value not supported for : {}", edit.key)));
        let value = match edit.operation {
            ConfigOperation::Delete => {
                values.remove(&edit.key);
                continue;
            }
            ConfigOperation::Set => operand()?.to_owned(),
            ConfigOperation::Append | ConfigOperation::Subtract => {
                let kind =
                    if edit.operation == ConfigOperation::Append { ListEdit::Append } else { ListEdit::Subtract };
                rules.edit_list(resource, &edit.key, kind, values.get(&edit.key).map(String::as_str), operand()?)?
            }
        };
        values.insert(edit.key.clone(), value);
    }
    Ok(values)
}

/// The settings of several resources on their way from one image to the next.
struct Change<'a> {
    before: &'a MetadataImage,
    inputs: &'a Inputs<'a>,
    scratch: MetadataImage,
    records: Vec<MetadataRecord>,
    results: Vec<ConfigResult>,
}

impl<'a> Change<'a> {
    fn new(before: &'a MetadataImage, inputs: &'a Inputs<'a>) -> Change<'a> {
        Change { before, inputs, scratch: before.clone(), records: Vec::new(), results: Vec::new() }
    }

    fn refuse(&mut self, resource: &ConfigResource, reject: Reject) {
        self.results.push(ConfigResult { resource: resource.clone(), result: Err(reject) });
    }

    fn judge(&mut self, resource: &ConfigResource, next: Result<ConfigValues, Reject>) {
        let result = next.and_then(|next| {
            let warnings = judge(&self.scratch, self.inputs.rules, resource, &next)?;
            let made = difference(resource, &current(&self.scratch, resource), &next);
            apply_all(&mut self.scratch, self.inputs.next_index, &made).expect("settings fit every image");
            self.records.extend(made);
            Ok(warnings)
        });
        self.results.push(ConfigResult { resource: resource.clone(), result });
    }

    fn finish(mut self, validate_only: bool) -> Result<(Vec<MetadataRecord>, Vec<ConfigResult>), Reject> {
        if self.records.len() > RECORDS_PER_REQUEST_MAX {
            let message = "Unable to perform excessively large batch operation.";
            return Err(Reject::new(ErrorCode::PolicyViolation, message));
        }
        if validate_only {
            self.records.clear();
        } else if !self.records.is_empty() {
            self.records.extend(on_min_isr_changed(self.before, &self.scratch, self.inputs.rules));
        }
        Ok((self.records, self.results))
    }
}

fn judge(
    image: &MetadataImage,
    rules: &dyn ConfigRules,
    resource: &ConfigResource,
    values: &ConfigValues,
) -> Result<Vec<String>, Reject> {
    let invalid = |message: &str| Reject::new(ErrorCode::InvalidRequest, message);
    let replicas = match resource {
        ConfigResource::Topic(name) if name.is_empty() => {
            return Err(invalid("Default topic resources are not allowed."));
        }
        ConfigResource::Topic(name) => {
            super::validate_topic_name(name)?;
            let topic = image.topic_by_name(name).ok_or_else(|| {
                Reject::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
            })?;
            Some(topic.partitions.first().map_or(1, |partition| partition.replicas.len()))
        }
        ConfigResource::Broker(Some(id)) if id.0 < 0 => return Err(invalid("Invalid negative broker ID.")),
        ConfigResource::Broker(Some(id)) if image.broker(*id).is_none() => {
            let message = format!("Broker {id} is not registered.");
            return Err(Reject::new(ErrorCode::BrokerIdNotRegistered, message));
        }
        ConfigResource::Broker(_) => None,
        ConfigResource::Recorded => return Err(not_for_clients()),
        ConfigResource::Group(id) if id.is_empty() => {
            return Err(invalid("Default group resources are not allowed."));
        }
        ConfigResource::Group(_) => None,
    };
    rules.judge(image, resource, values, replicas)
}

/// The records that lead from some overrides to others.
fn difference(
    resource: &ConfigResource,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> Vec<MetadataRecord> {
    let record = |key: &String, value: Option<&String>| {
        MetadataRecord::Config(ConfigRecord { resource: resource.clone(), key: key.clone(), value: value.cloned() })
    };
    let removed = before.keys().filter(|key| !after.contains_key(*key)).map(|key| record(key, None));
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    removed.chain(set.map(|(key, value)| record(key, Some(value)))).collect()
}
