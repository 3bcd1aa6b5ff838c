//! IncrementalAlterConfigs (key 44): sets, deletes, appends to or subtracts from single settings (KIP-339).
//!
//! *Behaviour*: answered when every lane acts by the new settings. *Versions*: 0–1.
//! *Differences from Kafka*: broker loggers are refused (there is no log4j here).

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use stonelog_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::{
    ConfigEdit, ConfigOperation, ControllerRequest, ControllerResponse, IncrementalAlterConfigs, Reject,
};
use stonelog_replication::metadata::ConfigResource;

use super::describe_configs::{BROKER, GROUP, TOPIC};
use crate::request::RequestContext;

/// Answers an IncrementalAlterConfigs request.
pub async fn handle(
    context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut results: Vec<Option<Result<(), Reject>>> = Vec::new();
    let mut accepted = Vec::new();
    for asked in &request.resources {
        let edits: Result<Vec<ConfigEdit>, Reject> = asked
            .configs
            .iter()
            .map(|config| {
                let operation = ConfigOperation::from_code(config.config_operation).ok_or_else(|| {
                    let message = format!("Unknown config operation {}", config.config_operation);
                    Reject::new(ErrorCode::InvalidRequest, message)
                })?;
                let value = config.value.as_ref().map(|value| value.to_string());
                Ok(ConfigEdit { key: config.name.to_string(), operation, value })
            })
            .collect();
        match resource(asked.resource_type, &asked.resource_name).and_then(|resource| Ok((resource, edits?))) {
            Ok(edits) => {
                accepted.push(edits);
                results.push(None);
            }
            Err(reject) => results.push(Some(Err(reject))),
        }
    }
    let count = accepted.len();
    let submitted = IncrementalAlterConfigs { resources: accepted, validate_only: request.validate_only };
    let submitted = ControllerRequest::IncrementalAlterConfigs(submitted);
    let decided = match super::submit(context, submitted, context.broker.config.network.request_timeout).await {
        Ok(ControllerResponse::IncrementalAlterConfigs(decided)) => {
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
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

/// What a resource's type and name on the wire mean.
pub fn resource(kind: i8, name: &str) -> Result<ConfigResource, Reject> {
    match kind {
        TOPIC => Ok(ConfigResource::Topic(name.into())),
        BROKER if name.is_empty() => Ok(ConfigResource::Broker(None)),
        BROKER => match name.parse() {
            Ok(id) => Ok(ConfigResource::Broker(Some(BrokerId(id)))),
            Err(_) => {
                Err(Reject::new(ErrorCode::InvalidRequest, format!("Broker id must be an integer, but it is: {name}")))
            }
        },
        GROUP => Ok(ConfigResource::Group(name.into())),
        other => Err(Reject::new(ErrorCode::InvalidRequest, format!("Unknown resource type {other}"))),
    }
}
