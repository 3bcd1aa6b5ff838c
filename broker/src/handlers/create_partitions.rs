//! CreatePartitions (key 37): grows topics.
//!
//! *Versions*: 0–3. *Differences from Kafka*: none known.

use std::time::Duration;

use stonelog_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use stonelog_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, CreatePartitions, NewPartitions, PartitionsResult,
};

use crate::request::RequestContext;

/// Answers a CreatePartitions request.
pub async fn handle(context: &RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let topics: Vec<NewPartitions> = request
        .topics
        .into_iter()
        .map(|topic| NewPartitions {
            topic: topic.name.to_string(),
            count: topic.count,
            assignments: topic.assignments.map(|assignments| {
                let replicas = |ids: Vec<stonelog_protocol::messages::BrokerId>| {
                    ids.into_iter().map(|id| BrokerId(id.0)).collect()
                };
                assignments.into_iter().map(|assignment| replicas(assignment.broker_ids)).collect()
            }),
        })
        .collect();
    let names: Vec<String> = topics.iter().map(|topic| topic.topic.clone()).collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let request = CreatePartitions { topics, validate_only: request.validate_only };
    let results = match super::submit(context, ControllerRequest::CreatePartitions(request), timeout).await {
        Ok(ControllerResponse::CreatePartitions(results)) => results,
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(reject) => names.into_iter().map(|topic| PartitionsResult { topic, result: Err(reject.clone()) }).collect(),
    };
    let results = results
        .into_iter()
        .map(|partitions| {
            let name = StrBytes::from_string(partitions.topic).into();
            let response = CreatePartitionsTopicResult::default().with_name(name);
            match partitions.result {
                Ok(()) => response,
                Err(reject) => response
                    .with_error_code(reject.code.code())
                    .with_error_message(Some(StrBytes::from_string(reject.message))),
            }
        })
        .collect();
    CreatePartitionsResponse::default().with_results(results)
}
