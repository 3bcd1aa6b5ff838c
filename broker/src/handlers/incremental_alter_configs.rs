//! IncrementalAlterConfigs (key 44): sets, deletes, appends to or subtracts from single settings (KIP-339).
//!
//! *Behaviour*: answered when every lane acts by the new settings, and of those that make an acknowledgement mean more,
//! every broker that may lead what they are about; where one does not in time, REQUEST_TIMED_OUT names it.
//! *Versions*: 0–1.
//! *Differences from Kafka*: broker loggers are refused (there is no log4j here).

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use stonelog_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use stonelog_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use stonelog_protocol::{BrokerId, StrBytes};
use stonelog_replication::controller::{
    ConfigEdit, ConfigOperation, ControllerRequest, ControllerResponse, IncrementalAlterConfigs, Reject,
};
use stonelog_replication::metadata::ConfigResource;

use super::describe_configs::{BROKER, GROUP, TOPIC};
use super::tightening::{applied_by, concerned, is_durability};
use crate::request::RequestContext;

/// Answers an IncrementalAlterConfigs request.
pub async fn handle(
    context: &RequestContext,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let asked = request.resources.iter().map(edits).collect();
    let validate_only = request.validate_only;
    let tightens = |(resource, edits): &(ConfigResource, Vec<ConfigEdit>)| {
        let may = !validate_only && edits.iter().any(|edit| is_durability(&edit.key));
        may.then(|| resource.clone())
    };
    let decided = decide(context, asked, tightens, |resources| {
        ControllerRequest::IncrementalAlterConfigs(IncrementalAlterConfigs { resources, validate_only })
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
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn edits(asked: &AlterConfigsResource) -> Result<(ConfigResource, Vec<ConfigEdit>), Reject> {
    let edits: Result<_, _> = asked.configs.iter().map(edit).collect();
    Ok((resource(asked.resource_type, &asked.resource_name)?, edits?))
}

fn edit(config: &AlterableConfig) -> Result<ConfigEdit, Reject> {
    let operation = ConfigOperation::from_code(config.config_operation).ok_or_else(|| {
        Reject::new(ErrorCode::InvalidRequest, format!("Unknown config operation {}", config.config_operation))
    })?;
    let value = config.value.as_ref().map(ToString::to_string);
    Ok(ConfigEdit { key: config.name.to_string(), operation, value })
}

/// Has the controller decide what could be read; answers in the order asked, what could not be read included. `tightens`
/// says what a change makes mean more, if it may.
pub async fn decide<T>(
    context: &RequestContext,
    asked: Vec<Result<T, Reject>>,
    tightens: impl Fn(&T) -> Option<ConfigResource>,
    request: impl FnOnce(Vec<T>) -> ControllerRequest,
) -> Vec<Result<(), Reject>> {
    let mut readable = Vec::with_capacity(asked.len());
    let refused: Vec<Option<Reject>> =
        asked.into_iter().map(|asked| asked.map(|one| readable.push(one)).err()).collect();
    let count = readable.len();
    let tightened: Vec<Option<ConfigResource>> = readable.iter().map(tightens).collect();
    let timeout = context.broker.config.network.request_timeout;
    let mut decided: Vec<Result<(), Reject>> = match super::submit(context, request(readable), timeout).await {
        Ok(ControllerResponse::AlterConfigs(results) | ControllerResponse::IncrementalAlterConfigs(results)) => {
            results.into_iter().map(|result| result.result.map(drop)).collect()
        }
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(reject) => vec![Err(reject); count],
    };
    let set = decided.iter_mut().zip(&tightened).filter(|(result, _)| result.is_ok());
    let waiting: Vec<_> =
        set.filter_map(|(result, resource)| Some((result, concerned(context, resource.as_ref()?)))).collect();
    let brokers = waiting.iter().flat_map(|(_, brokers)| brokers).copied().collect();
    if let Err(behind) = applied_by(context, brokers).await {
        waiting
            .into_iter()
            .filter(|(_, brokers)| !brokers.is_empty())
            .for_each(|(result, _)| *result = Err(behind.clone()));
    }
    let mut decided = decided.into_iter();
    refused
        .into_iter()
        .map(|refused| match refused {
            Some(reject) => Err(reject),
            None => decided.next().unwrap_or_else(|| Err(ErrorCode::UnknownServerError.into())),
        })
        .collect()
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
