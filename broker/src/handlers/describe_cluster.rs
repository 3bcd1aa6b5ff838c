//! DescribeCluster (key 60): the cluster's id, controller and brokers.
//!
//! *Versions*: 0–2. From 1 on the endpoint type says whether brokers or controllers are meant; only brokers are served
//! here. From 2 on fenced brokers may be included.
//! *Differences from Kafka*: authorized operations are never filled in: there is no authorizer yet.

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use stonelog_protocol::messages::{BrokerId as WireBrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::metadata::controller;
use crate::request::RequestContext;

/// `EndpointType.BROKER`.
const BROKERS: i8 = 1;
/// `EndpointType.CONTROLLER`.
const CONTROLLERS: i8 = 2;

/// Answers a DescribeCluster request.
pub fn handle(context: &RequestContext, request: DescribeClusterRequest) -> DescribeClusterResponse {
    let version = context.version();
    if version >= 1 && request.endpoint_type != BROKERS {
        let (error, message) = match request.endpoint_type {
            CONTROLLERS => (ErrorCode::MismatchedEndpointType, "this listener serves broker endpoints"),
            _ => (ErrorCode::UnsupportedEndpointType, ErrorCode::UnsupportedEndpointType.message()),
        };
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(message)))
            .with_endpoint_type(BROKERS);
    }
    let image = context.image();
    let with_fenced = version >= 2 && request.include_fenced_brokers;
    let brokers = image
        .brokers()
        .filter(|broker| with_fenced || !broker.fenced)
        .filter_map(|broker| {
            let endpoint = broker.endpoint(&context.listener)?;
            let described = DescribeClusterBroker::default()
                .with_broker_id(WireBrokerId(broker.id.0))
                .with_host(StrBytes::from_string(endpoint.host.to_string()))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.as_ref().map(|rack| StrBytes::from_string(rack.to_string())));
            Some(if version >= 2 { described.with_is_fenced(broker.fenced) } else { described })
        })
        .collect();
    let response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(image.cluster_id().map(ToString::to_string).unwrap_or_default()))
        .with_controller_id(WireBrokerId(controller(context, &image).map_or(-1, |id| id.0)))
        .with_brokers(brokers);
    if version >= 1 { response.with_endpoint_type(BROKERS) } else { response }
}
