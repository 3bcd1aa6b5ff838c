//! AlterConfigs (key 33): replaces all overrides of a resource; what old clients use.
//!
//! *Versions*: 0–2. *Differences from Kafka*: none known; broker loggers are refused.

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use stonelog_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use stonelog_replication::controller::{AlterConfigs, ControllerRequest, ControllerResponse, Reject, ReplaceConfigs};

use super::incremental_alter_configs::resource;
use crate::request::RequestContext;

/// Answers an AlterConfigs request.
pub async fn handle(context: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut results: Vec<Option<Result<(), Reject>>> = Vec::new();
    let mut accepted = Vec::new();
    for asked in &request.resources {
        match resource(asked.resource_type, &asked.resource_name) {
            Ok(resource) => {
                let configs = asked.configs.iter();
                let configs = configs
                    .map(|config| (config.name.to_string(), config.value.as_ref().map(|value| value.to_string())))
                    .collect();
                accepted.push(ReplaceConfigs { resource, configs });
                results.push(None);
            }
            Err(reject) => results.push(Some(Err(reject))),
        }
    }
    let count = accepted.len();
    let submitted = AlterConfigs { resources: accepted, validate_only: request.validate_only };
    let submitted = ControllerRequest::AlterConfigs(submitted);
    let decided = match super::submit(context, submitted, context.broker.config.network.request_timeout).await {
        Ok(ControllerResponse::AlterConfigs(decided)) => {
            decided.into_iter().map(|result| result.result.map(drop)).collect()
        }
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(reject) => vec![Err(reject); count],
    };
    let mut decided = decided.into_iter();
    let responses = request.resources.iter().zip(results).map(|(asked, result)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match result.or_else(|| decided.next()) {
            Some(Ok(())) => response,
            Some(Err(reject)) => response
                .with_error_code(reject.code.code())
                .with_error_message(Some(StrBytes::from_string(reject.message))),
            None => response.with_error_code(ErrorCode::UnknownServerError.code()),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}
