//! DescribeAcls (key 29): there is no authorizer yet, and this says so the way Kafka does.
//!
//! *Versions*: 1–3.

use stonelog_protocol::StrBytes;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use crate::request::RequestContext;

/// Answers a DescribeAcls request.
pub fn handle(_context: &RequestContext, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse::default()
        .with_error_code(ErrorCode::SecurityDisabled.code())
        .with_error_message(Some(StrBytes::from_static_str("No Authorizer is configured.")))
}
