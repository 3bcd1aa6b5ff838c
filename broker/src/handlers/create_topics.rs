//! CreateTopics (key 19): one answer for each topic, after its records are committed and its leaders are at work.
//!
//! *Versions*: 2–7. From 5 on the answer tells partitions, replicas and effective settings (KIP-525), from 7 on the id.
//! *Differences from Kafka*: settings that weaken the promise are accepted where Kafka accepts them, and named in the
//! broker's log; `unclean.leader.election.enable=true` on a strict topic is refused (DESIGN §1).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::create_topics_request::CreatableTopic;
use stonelog_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use stonelog_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use stonelog_protocol::{BrokerId, PartitionIndex, StrBytes};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, CreateTopics, CreatedTopic, NewTopic, Reject, TopicResult,
};
use stonelog_replication::metadata::topic::is_internal;
use stonelog_replication::settings::BrokerLayers;

use crate::handlers::describe_configs;
use crate::request::RequestContext;

/// Topics that are described in one turn of the lane; others have theirs in between.
const AT_ONCE: usize = 64;

/// Answers a CreateTopics request.
pub async fn handle(context: &RequestContext, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for topic in &request.topics {
        *counts.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results: Vec<TopicResult> = Vec::new();
    let mut refused: HashSet<String> = HashSet::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        let name = topic.name.to_string();
        if counts[&name] > 1 {
            if refused.insert(name.clone()) {
                let reject = Reject::new(ErrorCode::InvalidRequest, "Duplicate topic name.");
                results.push(TopicResult { name, result: Err(reject) });
            }
        } else if is_internal(&name) {
            let message = format!("The topic {name} is the broker's own and cannot be created by a client.");
            results.push(TopicResult { name, result: Err(Reject::new(ErrorCode::InvalidRequest, message)) });
        } else {
            topics.push(new_topic(topic));
        }
    }
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let request = CreateTopics { topics, validate_only: request.validate_only };
    match super::submit(context, ControllerRequest::CreateTopics(request), timeout).await {
        Ok(ControllerResponse::CreateTopics(created)) => results.extend(created),
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(reject) => {
            results.extend(names.into_iter().map(|name| TopicResult { name, result: Err(reject.clone()) }));
        }
    }
    let layers = describe_configs::layers_of(context, &context.image());
    let mut topics = Vec::with_capacity(results.len());
    for result in results {
        if topics.len() % AT_ONCE == AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        topics.push(answer(context.version(), &layers, result));
    }
    CreateTopicsResponse::default().with_topics(topics)
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .into_iter()
            .map(|assignment| {
                let replicas = assignment.broker_ids.into_iter().map(|id| BrokerId(id.0)).collect();
                (PartitionIndex(assignment.partition_index), replicas)
            })
            .collect(),
        configs: topic
            .configs
            .into_iter()
            .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
            .collect(),
    }
}

fn answer(version: i16, layers: &BrokerLayers, result: TopicResult) -> CreatableTopicResult {
    let name = StrBytes::from_string(result.name).into();
    let response = CreatableTopicResult::default().with_name(name);
    match result.result {
        Ok(created) => {
            for warning in &created.warnings {
                tracing::warn!(topic = %&**response.name, "{warning}");
            }
            described(version, layers, response, &created)
        }
        Err(reject) => {
            let response = response.with_error_code(reject.code.code());
            let response = response.with_error_message(Some(StrBytes::from_string(reject.message)));
            if version >= 5 {
                response.with_num_partitions(-1).with_replication_factor(-1).with_configs(Some(Vec::new()))
            } else {
                response
            }
        }
    }
}

fn described(
    version: i16,
    layers: &BrokerLayers,
    mut response: CreatableTopicResult,
    created: &CreatedTopic,
) -> CreatableTopicResult {
    if version >= 5 {
        let configs = describe_configs::topic_entries(layers, &response.name, &created.configs)
            .into_iter()
            .map(|entry| {
                CreatableTopicConfigs::default()
                    .with_name(StrBytes::from_string(entry.name))
                    .with_value(entry.value.map(StrBytes::from_string))
                    .with_read_only(entry.read_only)
                    .with_config_source(entry.source.code())
                    .with_is_sensitive(entry.sensitive)
            })
            .collect();
        response.num_partitions = created.partitions;
        response.replication_factor = created.replication_factor;
        response.configs = Some(configs);
    }
    if version >= 7 {
        response.topic_id = uuid::Uuid::from_bytes(created.id.0);
    }
    response
}
