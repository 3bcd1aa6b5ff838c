//! DeleteTopics (key 20): by name, or from version 6 on by id (KIP-516).
//!
//! *Behaviour*: answered after the deletion is committed. The offsets that groups committed for the topic are
//! tombstoned by their coordinators, and its files go once a checkpoint no longer names them. *Versions*: 1–6.
//! *Differences from Kafka*: none known.

use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::delete_topics_response::DeletableTopicResult;
use stonelog_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use stonelog_protocol::{StrBytes, Uuid};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, DeleteTopics, DeletedTopic, Reject, TopicReference,
};

use crate::request::RequestContext;

/// Answers a DeleteTopics request.
pub async fn handle(context: &RequestContext, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let references: Vec<TopicReference> = if context.version() >= 6 {
        let by_state = request.topics.into_iter().map(|topic| match topic.name {
            Some(name) => TopicReference::Name(name.to_string()),
            None => TopicReference::Id(Uuid(*topic.topic_id.as_bytes())),
        });
        by_state.collect()
    } else {
        request.topic_names.into_iter().map(|name| TopicReference::Name(name.to_string())).collect()
    };
    let results = if !context.broker.config.topics.deletable {
        let error = if context.version() < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        refused(references, &error.into())
    } else {
        let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let request = ControllerRequest::DeleteTopics(DeleteTopics { topics: references.clone() });
        match super::submit(context, request, timeout).await {
            Ok(ControllerResponse::DeleteTopics(results)) => results,
            Ok(_) => unreachable!("the answer's variant is the request's"),
            Err(reject) => refused(references, &reject),
        }
    };
    let responses = results.into_iter().map(|result| answer(context.version(), result)).collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

fn refused(references: Vec<TopicReference>, reject: &Reject) -> Vec<DeletedTopic> {
    references
        .into_iter()
        .map(|reference| {
            let (name, id) = match reference {
                TopicReference::Name(name) => (Some(name), None),
                TopicReference::Id(id) => (None, Some(id)),
            };
            DeletedTopic { name, id, result: Err(reject.clone()) }
        })
        .collect()
}

fn answer(version: i16, deleted: DeletedTopic) -> DeletableTopicResult {
    let name = deleted.name.map(|name| StrBytes::from_string(name).into());
    let mut response =
        DeletableTopicResult::default().with_name(if version >= 6 { name } else { Some(name.unwrap_or_default()) });
    if version >= 6 {
        response.topic_id = uuid::Uuid::from_bytes(deleted.id.unwrap_or_default().0);
    }
    if let Err(reject) = deleted.result {
        response.error_code = reject.code.code();
        if version >= 5 {
            response.error_message = Some(StrBytes::from_string(reject.message));
        }
    }
    response
}
