//! ApiVersions (key 18): what this broker serves.
//!
//! *Behaviour*: answers from the API table; a key is listed when its handler exists.
//! *Versions*: 0–4 with a response header that is always v0; a newer request is answered in version 0 with
//! UNSUPPORTED_VERSION and our own range, unread (KIP-511).
//! Features are told from 3 on (KIP-584).
//! *Differences from Kafka*: the one feature is `stonelog.metadata.version`; `transaction.version` and `group.version` are
//! not finalized until transactions and KIP-848 groups exist.

use stonelog_protocol::StrBytes;
use stonelog_protocol::api::{APIS, Api, ApiName};
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use stonelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use stonelog_replication::controller::SUPPORTED_FEATURES;
use stonelog_replication::metadata::MetadataImage;

use crate::request::RequestContext;

/// Answers an ApiVersions request.
pub fn handle(context: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = context.version() < 3
        || (is_valid_software(&request.client_software_name) && is_valid_software(&request.client_software_version));
    if !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    tracing::debug!(
        peer = %context.peer, client_id = %context.head.client_id,
        name = %&*request.client_software_name, version = %&*request.client_software_version, "client"
    );
    let response = ApiVersionsResponse::default().with_api_keys(APIS.iter().map(range).collect());
    if context.version() >= 3 { with_features(response, &context.image()) } else { response }
}

/// Adds what this build knows, and what holds in the cluster.
fn with_features(response: ApiVersionsResponse, image: &MetadataImage) -> ApiVersionsResponse {
    let supported = SUPPORTED_FEATURES.iter().map(|(name, levels)| {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(name))
            .with_min_version(*levels.start())
            .with_max_version(*levels.end())
    });
    let finalized = image.features().iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_string(name.clone()))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    response
        .with_supported_features(supported.collect())
        .with_finalized_features(finalized.collect())
        .with_finalized_features_epoch(i64::try_from(image.index()).unwrap_or(i64::MAX))
}

/// The answer to a version above ours.
pub fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ErrorCode::UnsupportedVersion.code())
        .with_api_keys(vec![range(ApiName::ApiVersions.api())])
}

fn range(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key())
        .with_min_version(*api.advertised.start())
        .with_max_version(*api.advertised.end())
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_valid_software(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(text.as_bytes().first()) && ends(text.as_bytes().last()) && text.bytes().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_follow_kafkas_pattern() {
        for good in ["a", "apache-kafka-java", "4.0.0-SNAPSHOT", "librdkafka"] {
            assert!(is_valid_software(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a\n", "é"] {
            assert!(!is_valid_software(bad), "{bad}");
        }
    }

    #[test]
    fn newer_request_is_told_our_own_range_only() {
        let response = unsupported();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.len(), 1);
        assert_eq!((response.api_keys[0].api_key, response.api_keys[0].max_version), (18, 4));
    }
}
