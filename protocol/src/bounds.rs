//! The pre-validator: proves a request body well-formed and bounded before the decoder allocates for it.
//!
//! kafka-protocol's decoder reserves room for whatever count an array announces; four hostile bytes abort the process.
//! [`check_request`] walks the body first, by a declarative shape per API, and refuses counts and lengths that the bytes
//! at hand cannot hold, tags out of order, and more elements than a request may have. It judges structure only: text
//! encoding and forbidden nulls are the decoder's, which allocates nothing for either.
//!
//! Invariant: decoding a body that passes allocates at most a constant times its length, with [`ELEMENTS_MAX`] and
//! [`UNKNOWN_TAGS_MAX`] capping the part that does not lie in the body itself. A response is consumed to its last byte;
//! what follows the body of a request is passed over, as Kafka does, because librdkafka sends such requests.

mod requests;
mod responses;
mod sample;
mod shape;
mod walk;

pub use sample::{sample_request, sample_response};
pub use walk::{BoundsError, Problem};

use crate::api::ApiName;
use walk::Limits;

/// Array elements in one request, over all its arrays. A decoded element takes up to about 160 bytes, so a request
/// costs at most about 40 MiB beyond its own bytes; Kafka's largest real requests name some 100,000 partitions.
pub const ELEMENTS_MAX: usize = 262_144;
/// Tagged fields in one request that this broker does not know. Each costs a map entry when decoded.
pub const UNKNOWN_TAGS_MAX: usize = 1_024;
/// Array elements in one response: room for the metadata of some 500,000 partitions with three replicas.
pub const RESPONSE_ELEMENTS_MAX: usize = 4_194_304;
/// Tagged fields in one response that this client does not know; a newer broker may send one per partition.
pub const RESPONSE_UNKNOWN_TAGS_MAX: usize = 524_288;

/// Walks the body of a request. `version` is one that the API accepts.
pub fn check_request(api: ApiName, version: i16, body: &[u8]) -> Result<(), BoundsError> {
    let limits = Limits { elements_max: ELEMENTS_MAX, unknown_tags_max: UNKNOWN_TAGS_MAX };
    walk::check(requests::shape(api), version, api.api().is_flexible(version), limits, body).map(|_| ())
}

/// Walks the body of a response. `version` is one that the API accepts.
pub fn check_response(api: ApiName, version: i16, body: &[u8]) -> Result<(), BoundsError> {
    let limits = Limits { elements_max: RESPONSE_ELEMENTS_MAX, unknown_tags_max: RESPONSE_UNKNOWN_TAGS_MAX };
    match walk::check(responses::shape(api), version, api.api().is_flexible(version), limits, body)? {
        0 => Ok(()),
        left => Err(BoundsError { at: body.len() - left, problem: Problem::Trailing(left) }),
    }
}
