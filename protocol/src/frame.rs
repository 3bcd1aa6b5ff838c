//! Frames: the length in front of every request, and the request header inside.
//!
//! ```text
//! length i32 | api_key i16 | api_version i16 | correlation_id i32 | client_id nullable string i16 | tags (header v2) | body
//! ```
//!
//! Nothing here allocates by a number from the wire: a length is judged before anyone makes room for it.
//! Source: `NetworkReceive`, `RequestHeader.parse`.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use thiserror::Error;

use crate::api::{self, Api, ApiName};

/// Bytes of the length in front of a frame, which it does not count.
pub const LENGTH_BYTES: usize = 4;
/// The shortest frame with a key, a version and a correlation id.
pub const FRAME_BYTES_MIN: usize = 8;
/// Kafka's default of `socket.request.max.bytes`.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 104_857_600;
/// Tagged fields in a request header; none is defined so far, so a few of a future client's are plenty.
pub const HEADER_TAGS_MAX: u32 = 64;

/// Why a frame is refused. Kafka closes the connection without an answer in every case, and so do we.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is below [`FRAME_BYTES_MIN`] (or negative).
    #[error("a frame of {0} bytes is too short to be a request")]
    TooShort(i32),
    /// The length is above the listener's limit.
    #[error("a frame of {length} bytes is above the limit of {limit}")]
    TooLong {
        /// What the client announced, in bytes.
        length: i32,
        /// What the listener allows, in bytes.
        limit: usize,
    },
    /// No served API has this key.
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// The API is served, but not in this version. ApiVersions never ends here (KIP-511).
    #[error("{api} version {version} is not served")]
    UnsupportedVersion {
        /// Which API.
        api: ApiName,
        /// The version asked for.
        version: i16,
    },
    /// The header ends early, has a bad length or is not UTF-8.
    #[error("the request header is malformed")]
    MalformedHeader,
}

/// Judges the length in front of a frame before anything is allocated for it.
///
/// `limit` is the listener's `socket.request.max.bytes`. Returns the bytes to read.
pub fn frame_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(bytes) if bytes < FRAME_BYTES_MIN => Err(FrameError::TooShort(length)),
        Ok(bytes) if bytes > limit => Err(FrameError::TooLong { length, limit }),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(FrameError::TooShort(length)),
    }
}

/// What stands in front of every request's body.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The row of the API asked for.
    pub api: &'static Api,
    /// The version asked for: accepted by `api`, except for an ApiVersions newer than ours
    /// ([`RequestHead::is_newer_api_versions`]).
    pub api_version: i16,
    /// Returned with the answer, unchanged.
    pub correlation_id: i32,
    /// The client's name for itself; empty when it sent none. A copy: it does not keep the frame alive.
    pub client_id: Arc<str>,
}

impl RequestHead {
    /// The API asked for.
    pub fn name(&self) -> ApiName {
        self.api.name
    }

    /// Whether this is an ApiVersions request above our versions. Its body must not be read; it is answered in
    /// version 0 with UNSUPPORTED_VERSION and the row of ApiVersions alone (KIP-511).
    pub fn is_newer_api_versions(&self) -> bool {
        !self.api.accepts(self.api_version)
    }

    /// Splits a frame (without its length) into head and body. The body shares the frame's memory.
    pub fn read(frame: Bytes) -> Result<(RequestHead, Bytes), FrameError> {
        let mut rest = frame;
        if rest.len() < FRAME_BYTES_MIN {
            return Err(FrameError::TooShort(rest.len() as i32));
        }
        let key = rest.get_i16();
        let api_version = rest.get_i16();
        let correlation_id = rest.get_i32();
        let api = api::find(key).ok_or(FrameError::UnknownApi(key))?;
        let is_newer_api_versions = api.name == ApiName::ApiVersions && api_version > *api.accepted.end();
        if !api.accepts(api_version) && !is_newer_api_versions {
            return Err(FrameError::UnsupportedVersion { api: api.name, version: api_version });
        }
        let client_id = read_client_id(&mut rest)?;
        if api.request_header_version(api_version) >= 2 {
            skip_tags(&mut rest)?;
        }
        Ok((RequestHead { api, api_version, correlation_id, client_id }, rest))
    }
}

/// Reads the client id, which is never compact, not even in header version 2.
fn read_client_id(rest: &mut Bytes) -> Result<Arc<str>, FrameError> {
    let length = rest.try_get_i16().map_err(|_| FrameError::MalformedHeader)?;
    if length == -1 {
        return Ok(Arc::from(""));
    }
    let length = usize::try_from(length).map_err(|_| FrameError::MalformedHeader)?;
    if length > rest.len() {
        return Err(FrameError::MalformedHeader);
    }
    let client_id = std::str::from_utf8(&rest[..length]).map_err(|_| FrameError::MalformedHeader)?.into();
    rest.advance(length);
    Ok(client_id)
}

fn skip_tags(rest: &mut Bytes) -> Result<(), FrameError> {
    let count = read_uvarint(rest)?;
    if count > HEADER_TAGS_MAX {
        return Err(FrameError::MalformedHeader);
    }
    for _ in 0..count {
        let _tag = read_uvarint(rest)?;
        let size = read_uvarint(rest)? as usize;
        if size > rest.len() {
            return Err(FrameError::MalformedHeader);
        }
        rest.advance(size);
    }
    Ok(())
}

fn read_uvarint(rest: &mut Bytes) -> Result<u32, FrameError> {
    let (value, length) = crate::varint::read_u32(rest).ok_or(FrameError::MalformedHeader)?;
    rest.advance(length);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    #[test]
    fn length_is_judged_before_it_sizes_anything() {
        assert_eq!(frame_length(8i32.to_be_bytes(), 100), Ok(8));
        assert_eq!(frame_length(100i32.to_be_bytes(), 100), Ok(100));
        assert_eq!(frame_length(7i32.to_be_bytes(), 100), Err(FrameError::TooShort(7)));
        assert_eq!(frame_length((-1i32).to_be_bytes(), 100), Err(FrameError::TooShort(-1)));
        assert_eq!(
            frame_length(i32::MAX.to_be_bytes(), 100),
            Err(FrameError::TooLong { length: i32::MAX, limit: 100 })
        );
    }

    #[test]
    fn head_without_tags_leaves_the_body() {
        let bytes = [0, 3, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0xff, 0xff, 0xff, 0xff];
        let (head, body) = RequestHead::read(frame(&bytes)).unwrap();
        assert_eq!((head.name(), head.api_version, head.correlation_id), (ApiName::Metadata, 1, 7));
        assert_eq!(&*head.client_id, "me");
        assert_eq!(&body[..], &[0xff; 4]);
    }

    #[test]
    fn head_with_tags_skips_them_and_null_client_is_empty() {
        let bytes = [0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 1, 5, 2, 9, 9, 0x2a];
        let (head, body) = RequestHead::read(frame(&bytes)).unwrap();
        assert_eq!(&*head.client_id, "");
        assert_eq!(&body[..], &[0x2a]);
    }

    #[test]
    fn newer_api_versions_is_let_through_and_others_are_not() {
        let bytes = [0, 18, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0, 1, 2, 3];
        let (head, _) = RequestHead::read(frame(&bytes)).unwrap();
        assert!(head.is_newer_api_versions());
        let bytes = [0, 3, 0, 14, 0, 0, 0, 7, 0xff, 0xff, 0];
        let refused = RequestHead::read(frame(&bytes)).unwrap_err();
        assert_eq!(refused, FrameError::UnsupportedVersion { api: ApiName::Metadata, version: 14 });
        let bytes = [0, 4, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
        assert_eq!(RequestHead::read(frame(&bytes)).unwrap_err(), FrameError::UnknownApi(4));
        let bytes = [0, 18, 0xff, 0xff, 0, 0, 0, 7, 0xff, 0xff];
        assert!(matches!(RequestHead::read(frame(&bytes)), Err(FrameError::UnsupportedVersion { .. })));
    }

    #[test]
    fn every_truncation_of_a_head_is_refused() {
        let bytes = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 5, 2, 9, 9];
        for length in 0..bytes.len() {
            assert!(RequestHead::read(frame(&bytes[..length])).is_err(), "{length}");
        }
        assert!(RequestHead::read(frame(&bytes)).is_ok());
    }

    #[test]
    fn client_id_does_not_keep_the_frame_alive() {
        let bytes = frame(&[0, 3, 0, 1, 0, 0, 0, 7, 0, 2, b'm', b'e', 0, 0, 0, 0]);
        let (head, body) = RequestHead::read(bytes.clone()).unwrap();
        drop(body);
        assert!(bytes.is_unique());
        drop(head);
    }
}
