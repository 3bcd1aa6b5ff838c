//! DescribeConfigs (key 32): every setting of a topic, a broker or a group, with where its value comes from.
//!
//! *Versions*: 1–4. Synonyms when asked for; types and documentation from 3 on.
//! *Differences from Kafka*: broker loggers are refused (there is no log4j here); client-metrics resources are unknown;
//! a resource that is named twice is answered once, and at most [`GROUPS_MAX`] groups in one request.

use std::collections::HashSet;
use std::sync::Arc;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::describe_configs_request::DescribeConfigsResource;
use stonelog_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use stonelog_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::Reject;
use stonelog_replication::metadata::{ConfigValues, MetadataImage};
use stonelog_replication::settings::BrokerLayers;
use stonelog_replication::settings::describe::{self, Entry};
use stonelog_replication::settings::topic::TopicConfig;

use crate::config::broker_keys;
use crate::request::RequestContext;

/// `ConfigResource.Type`.
pub const TOPIC: i8 = 2;
/// `ConfigResource.Type`.
pub const BROKER: i8 = 4;
/// `ConfigResource.Type`.
pub const GROUP: i8 = 32;

/// Groups that one request may name: some 40 MiB of answer, with every synonym and all documentation.
const GROUPS_MAX: usize = 10_000;
/// Resources that are described in one turn of the lane; others have theirs in between.
const AT_ONCE: usize = 64;

/// Answers a DescribeConfigs request.
pub async fn handle(context: &RequestContext, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let image = context.image();
    let mut results = Vec::new();
    for (place, (resource, is_within)) in distinct(&request.resources).into_iter().enumerate() {
        if place % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let entries = match is_within {
            true => entries(context, &image, resource),
            false => Err(Reject::new(
                ErrorCode::InvalidRequest,
                format!("at most {GROUPS_MAX} groups are described by one request"),
            )),
        };
        results.push(match entries {
            Ok(entries) => {
                let wanted = |entry: &Entry| match &resource.configuration_keys {
                    Some(keys) => keys.iter().any(|key| **key == *entry.name),
                    None => true,
                };
                let configs = entries.into_iter().filter(wanted);
                result.with_configs(configs.map(|entry| wire(context.version(), &request, entry)).collect())
            }
            Err(reject) => result
                .with_error_code(reject.code.code())
                .with_error_message(Some(StrBytes::from_string(reject.message))),
        });
    }
    DescribeConfigsResponse::default().with_results(results)
}

/// Each resource once, since a broker's settings are a thousand times as long as its name; and whether it is described:
/// a group has settings whether there is one or not, so of groups only so many are.
fn distinct(resources: &[DescribeConfigsResource]) -> Vec<(&DescribeConfigsResource, bool)> {
    let (mut seen, mut groups) = (HashSet::new(), 0);
    let first = resources.iter().filter(|resource| seen.insert((resource.resource_type, canonical(resource))));
    first
        .map(|resource| {
            groups += usize::from(resource.resource_type == GROUP);
            (resource, resource.resource_type != GROUP || groups <= GROUPS_MAX)
        })
        .collect()
}

/// The name of a resource, one of all that mean the same.
fn canonical(resource: &DescribeConfigsResource) -> String {
    match resource.resource_name.parse::<i32>() {
        Ok(id) if resource.resource_type == BROKER => id.to_string(),
        _ => resource.resource_name.to_string(),
    }
}

fn entries(
    context: &RequestContext,
    image: &MetadataImage,
    resource: &DescribeConfigsResource,
) -> Result<Vec<Entry>, Reject> {
    let name: &str = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            let Some(topic) = image.topic_by_name(name) else {
                return Err(ErrorCode::UnknownTopicOrPartition.into());
            };
            let overrides = values(image.topic_config(name));
            let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
            let layers = layers_of(context, image);
            Ok(describe::describe_topic(&overrides, &layers.borrow(), &context.lane.topic_config(topic), replicas))
        }
        BROKER if name.is_empty() => {
            let dynamic_default = values(image.broker_config(None));
            Ok(describe::describe_cluster_default(broker_keys::all().iter().copied(), &dynamic_default))
        }
        BROKER => match name.parse() {
            Ok(id) if BrokerId(id) == context.broker.node.broker_id => {
                let layers = layers_of(context, image);
                Ok(describe::describe_broker(broker_keys::all().iter().copied(), &layers.borrow()))
            }
            Ok(_) => Err(Reject::new(
                ErrorCode::InvalidRequest,
                format!("Unexpected broker id, expected {}, but received {name}", context.broker.node.broker_id),
            )),
            Err(_) => {
                Err(Reject::new(ErrorCode::InvalidRequest, format!("Broker id must be an integer, but it is: {name}")))
            }
        },
        GROUP => Ok(describe::describe_group(&values(image.group_config(name)))),
        other => Err(Reject::new(ErrorCode::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

/// What a new topic with these overrides would show: part of CreateTopics' answer (KIP-525).
pub fn topic_entries(layers: &BrokerLayers, topic: &str, overrides: &ConfigValues) -> Vec<Entry> {
    let (config, _) = TopicConfig::in_force(topic, overrides, &layers.borrow().merged());
    describe::describe_topic(overrides, &layers.borrow(), &config, 1)
}

/// The broker's values in their three layers; of the keys that hold for the whole cluster the recorded ones are shown.
pub fn layers_of(context: &RequestContext, image: &MetadataImage) -> BrokerLayers {
    BrokerLayers::of(image, context.broker.node.broker_id, &context.broker.config.static_settings)
}

fn values(values: Option<&Arc<ConfigValues>>) -> ConfigValues {
    values.map_or_else(ConfigValues::new, |values| (**values).clone())
}

fn wire(version: i16, request: &DescribeConfigsRequest, entry: Entry) -> DescribeConfigsResourceResult {
    let text = |value: Option<String>| value.map(StrBytes::from_string);
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(text(entry.value))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive);
    if request.include_synonyms {
        let synonyms = entry.synonyms.into_iter().map(|synonym| {
            DescribeConfigsSynonym::default()
                .with_name(StrBytes::from_string(synonym.name))
                .with_value(text(synonym.value))
                .with_source(synonym.source.code())
        });
        result.synonyms = synonyms.collect();
    }
    if version >= 3 {
        result.config_type = entry.kind.map_or(0, |kind| kind.code());
        if request.include_documentation {
            result.documentation = Some(StrBytes::from_static_str(entry.documentation));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: i8, name: String) -> DescribeConfigsResource {
        DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(StrBytes::from_string(name))
    }

    #[test]
    fn groups_beyond_the_limit_are_not_described_and_a_name_counts_once() {
        let mut resources: Vec<_> = (0..GROUPS_MAX + 2).map(|id| resource(GROUP, format!("g{id}"))).collect();
        resources.insert(0, resource(GROUP, "g0".to_owned()));
        resources.push(resource(TOPIC, "t".to_owned()));
        let distinct = distinct(&resources);
        assert_eq!(distinct.len(), GROUPS_MAX + 3);
        let refused: Vec<&str> =
            distinct.iter().filter(|(_, is_within)| !is_within).map(|(resource, _)| &*resource.resource_name).collect();
        assert_eq!(refused, ["g10000", "g10001"]);
    }
}
