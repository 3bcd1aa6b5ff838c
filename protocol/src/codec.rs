//! Requests and responses: bytes to kafka-protocol's structs and back, the pre-validator always first.
//!
//! The broker decodes requests ([`decode_request`]) and encodes responses ([`encode_response`]); the client side of the
//! command line uses the twins [`encode_request`] and [`decode_response`]. What is encoded is one buffer of the exact
//! size, with the frame's length in front, ready to write.
//!
//! A decoded request shares the frame's memory: its texts and blobs keep the whole frame alive until they are copied.

pub mod fetch;
mod kinds;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable as _, Encodable as _, Request};
use thiserror::Error;

pub use kinds::{RequestKind, ResponseKind, decode_request, encode_response};

use crate::api::{self, Api};
use crate::bounds::{self, BoundsError};
use crate::frame::LENGTH_BYTES;

/// Why a request or response could not be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The API is not served.
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// The version is not accepted.
    #[error("version {0} is not accepted")]
    UnsupportedVersion(i16),
    /// The pre-validator refuses the body.
    #[error(transparent)]
    Bounds(#[from] BoundsError),
    /// The body is well-formed but holds what may not be there: a null, or text that is not UTF-8.
    #[error("{0:#}")]
    Content(CodecRefusal),
    /// The frame ends inside the response header.
    #[error("the response header is malformed")]
    MalformedHeader,
    /// Bytes follow the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
}

/// Why a message could not be encoded: a field is set that its version does not have, or a length does not fit.
/// Always a mistake of the caller.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The API is not served.
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// kafka-protocol refuses the message.
    #[error("{0:#}")]
    Content(CodecRefusal),
    /// The frame would be longer than its length field can say.
    #[error("a frame of {0} bytes cannot be sent")]
    TooLong(usize),
}

/// What kafka-protocol says when it refuses a message.
#[derive(Debug, Error)]
#[error("{0:#}")]
pub struct CodecRefusal(Box<dyn std::error::Error + Send + Sync>);

/// Decodes the body of a request of type `R`, after the pre-validator has walked it. Bytes that follow the body are
/// passed over, as Kafka does: librdkafka sends some.
pub fn decode_request_as<R: Request>(version: i16, body: Bytes) -> Result<R, DecodeError> {
    let api = api::find(R::KEY).ok_or(DecodeError::UnknownApi(R::KEY))?;
    if !api.accepts(version) {
        return Err(DecodeError::UnsupportedVersion(version));
    }
    bounds::check_request(api.name, version, &body)?;
    let mut rest = body;
    R::decode(&mut rest, version).map_err(|error| DecodeError::Content(CodecRefusal(error.into())))
}

/// Encodes the response to a request of type `R`: length, header, body.
///
/// The header's version follows from the API table; that of ApiVersions is always 0. For an ApiVersions request above
/// our versions, `version` is 0.
pub fn encode_response_of<R: Request>(
    version: i16,
    correlation_id: i32,
    response: &R::Response,
) -> Result<BytesMut, EncodeError> {
    let api = api::find(R::KEY).ok_or(EncodeError::UnknownApi(R::KEY))?;
    let header_bytes = response_header_bytes(api, version);
    let body_bytes = response.compute_size(version).map_err(refused)?;
    let mut out = start_frame(header_bytes + body_bytes)?;
    put_response_header(&mut out, api, version, correlation_id);
    response.encode(&mut out, version).map_err(refused)?;
    assert_eq!(out.len(), LENGTH_BYTES + header_bytes + body_bytes, "the size was computed for what was encoded");
    Ok(out)
}

/// Encodes a request: length, header, body. `client_id` is at most 32,767 bytes.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
) -> Result<BytesMut, EncodeError> {
    let api = api::find(R::KEY).ok_or(EncodeError::UnknownApi(R::KEY))?;
    let client_id_length = client_id.map_or(Ok(-1), |id| i16::try_from(id.len()));
    let client_id_length = client_id_length.map_err(|_| EncodeError::TooLong(client_id.unwrap_or_default().len()))?;
    let has_tags = api.request_header_version(version) >= 2;
    let header_bytes = 10 + client_id.map_or(0, str::len) + usize::from(has_tags);
    let body_bytes = request.compute_size(version).map_err(refused)?;
    let mut out = start_frame(header_bytes + body_bytes)?;
    out.put_i16(R::KEY);
    out.put_i16(version);
    out.put_i32(correlation_id);
    out.put_i16(client_id_length);
    out.put_slice(client_id.unwrap_or_default().as_bytes());
    if has_tags {
        out.put_u8(0);
    }
    request.encode(&mut out, version).map_err(refused)?;
    assert_eq!(out.len(), LENGTH_BYTES + header_bytes + body_bytes, "the size was computed for what was encoded");
    Ok(out)
}

/// Decodes a response frame (without its length) to a request of type `R`, into its correlation id and body.
///
/// The pre-validator walks the body first, as for requests. An ApiVersions response with UNSUPPORTED_VERSION has the
/// body of version 0 whatever was asked (KIP-511): decode it with `version` 0.
pub fn decode_response<R: Request>(version: i16, frame: Bytes) -> Result<(i32, R::Response), DecodeError> {
    let api = api::find(R::KEY).ok_or(DecodeError::UnknownApi(R::KEY))?;
    let mut rest = frame;
    let correlation_id = rest.try_get_i32().map_err(|_| DecodeError::MalformedHeader)?;
    // No response header has ever had a tagged field, so more than none is taken for damage.
    if api.response_header_version(version) >= 1 && rest.try_get_u8() != Ok(0) {
        return Err(DecodeError::MalformedHeader);
    }
    if !api.accepts(version) {
        return Err(DecodeError::UnsupportedVersion(version));
    }
    bounds::check_response(api.name, version, &rest)?;
    let response =
        R::Response::decode(&mut rest, version).map_err(|error| DecodeError::Content(CodecRefusal(error.into())))?;
    match rest.len() {
        0 => Ok((correlation_id, response)),
        left => Err(DecodeError::Trailing(left)),
    }
}

fn refused<E: Into<Box<dyn std::error::Error + Send + Sync>>>(error: E) -> EncodeError {
    EncodeError::Content(CodecRefusal(error.into()))
}

/// A buffer of the exact size, with the length in front.
fn start_frame(bytes: usize) -> Result<BytesMut, EncodeError> {
    let length = i32::try_from(bytes).map_err(|_| EncodeError::TooLong(bytes))?;
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + bytes);
    out.put_i32(length);
    Ok(out)
}

fn response_header_bytes(api: &Api, version: i16) -> usize {
    if api.response_header_version(version) >= 1 { 5 } else { 4 }
}

fn put_response_header(out: &mut BytesMut, api: &Api, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    if api.response_header_version(version) >= 1 {
        out.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RequestHead;
    use crate::api::{APIS, ApiName};
    use crate::bounds::sample_request;
    use kafka_protocol::messages::{self, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse};

    #[test]
    fn every_request_decodes_at_every_accepted_version_and_no_other() {
        for api in APIS {
            for version in api.accepted.clone() {
                let body = Bytes::from(sample_request(api.name, version, 3));
                assert_eq!(decode_request(api.name, version, body).unwrap().name(), api.name);
            }
            for version in [api.accepted.start() - 1, api.accepted.end() + 1] {
                let refused = decode_request(api.name, version, Bytes::new());
                assert!(matches!(refused, Err(DecodeError::UnsupportedVersion(_))), "{} v{version}", api.name);
            }
        }
    }

    #[test]
    fn encoded_request_reads_back_with_its_head() {
        for version in [1, 9, 13] {
            let request = MetadataRequest::default().with_topics(None);
            let mut frame = encode_request(version, 77, Some("cli"), &request).unwrap().freeze();
            assert_eq!(frame.get_i32() as usize, frame.len());
            let (head, body) = RequestHead::read(frame).unwrap();
            assert_eq!((head.name(), head.api_version, head.correlation_id), (ApiName::Metadata, version, 77));
            assert_eq!(&*head.client_id, "cli");
            assert_eq!(decode_request_as::<MetadataRequest>(version, body).unwrap(), request);
        }
    }

    #[test]
    fn encoded_response_reads_back_with_its_correlation_id() {
        for version in [0, 8, 9, 13] {
            let response = MetadataResponse::default().with_brokers(vec![
                messages::metadata_response::MetadataResponseBroker::default().with_host("h".into()).with_port(9092),
            ]);
            let mut frame = encode_response(version, 5, &response.clone().into()).unwrap().freeze();
            assert_eq!(frame.get_i32() as usize, frame.len());
            let (correlation_id, decoded) = decode_response::<MetadataRequest>(version, frame).unwrap();
            assert_eq!((correlation_id, decoded.brokers), (5, response.brokers));
        }
    }

    #[test]
    fn api_versions_answers_with_the_oldest_header_at_every_version() {
        for version in 0..=4 {
            let frame = encode_response_of::<ApiVersionsRequest>(version, 9, &ApiVersionsResponse::default()).unwrap();
            // Length, correlation id, error code: no byte of tagged fields in between.
            assert_eq!(&frame[4..10], &[0, 0, 0, 9, 0, 0]);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_by_the_decoder() {
        let refused = decode_request(ApiName::Heartbeat, 0, Bytes::from_static(&[0, 1, 0xff, 0, 0, 0, 0, 0, 0]));
        assert!(matches!(refused, Err(DecodeError::Content(_))));
    }

    #[test]
    fn a_field_of_another_version_is_refused_on_encoding() {
        let request = MetadataRequest::default().with_topics(None).with_allow_auto_topic_creation(false);
        assert!(matches!(encode_request(0, 1, None, &request), Err(EncodeError::Content(_))));
    }
}
