//! AlterConfigs (key 33): replaces all overrides of a resource; what old clients use.
//!
//! *Behaviour*: answered as IncrementalAlterConfigs. *Versions*: 0–2. *Differences from Kafka*: none known; broker loggers are refused.

use stonelog_protocol::StrBytes;
use stonelog_protocol::messages::alter_configs_request::AlterConfigsResource;
use stonelog_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use stonelog_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use stonelog_replication::controller::{AlterConfigs, ControllerRequest, Reject, ReplaceConfigs};

use super::incremental_alter_configs::{decide, resource};
use crate::request::RequestContext;

/// Answers an AlterConfigs request.
pub async fn handle(context: &RequestContext, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let asked = request.resources.iter().map(replacement).collect();
    // What is not named goes back to its default.
    let tightens = |replace: &ReplaceConfigs| (!request.validate_only).then(|| replace.resource.clone());
    let decided = decide(context, asked, tightens, |resources| {
        ControllerRequest::AlterConfigs(AlterConfigs { resources, validate_only: request.validate_only })
    });
    let responses = request.resources.iter().zip(decided.await).map(|(asked, result)| {
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match result {
            Ok(()) => response,
            Err(reject) => response
                .with_error_code(reject.code.code())
                .with_error_message(Some(StrBytes::from_string(reject.message))),
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

fn replacement(asked: &AlterConfigsResource) -> Result<ReplaceConfigs, Reject> {
    let configs = asked.configs.iter();
    let configs = configs.map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)));
    Ok(ReplaceConfigs { resource: resource(asked.resource_type, &asked.resource_name)?, configs: configs.collect() })
}
