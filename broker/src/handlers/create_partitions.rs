//! CreatePartitions (key 37): grows topics.
//!
//! *Versions*: 0–3.
//! *Differences from Kafka*: internal topics are refused. Groups hash to a partition of `__consumer_offsets` by their
//! number, so growing it would hide every committed offset.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use stonelog_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, CreatePartitions, NewPartitions, PartitionsResult, Reject,
};
use stonelog_replication::metadata::topic::is_internal;

use crate::request::RequestContext;

/// Answers a CreatePartitions request.
pub async fn handle(context: &RequestContext, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let (refused, asked): (Vec<_>, Vec<_>) = request.topics.into_iter().partition(|topic| is_internal(&topic.name));
    let topics: Vec<NewPartitions> = asked
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
    let refused = refused.into_iter().map(|topic| PartitionsResult {
        topic: topic.name.to_string(),
        result: Err(Reject::new(ErrorCode::InvalidRequest, "The partitions of internal topics are fixed.")),
    });
    let results = results
        .into_iter()
        .chain(refused)
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
