//! One TCP connection to one broker: frames, correlation, version negotiation, a time limit on every request.
//!
//! One request is in flight at a time. A call that fails, or whose future is dropped half-way, leaves the connection
//! unusable, since the next answer on it may belong to the abandoned request; [`Connection::is_usable`] says so and the
//! owner dials again.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::codec::{decode_response, encode_request};
use stonelog_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use stonelog_protocol::own::{self, OwnAnswer, OwnRequest};
use stonelog_protocol::{ErrorCode, Request, api};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::Error;
use super::text::text;

/// Largest answer accepted, in bytes. Fetch asks for far less; only Metadata of a huge cluster comes near.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// Memory taken ahead of the bytes that have arrived, at most.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Answer to ApiVersions: `UNSUPPORTED_VERSION` in version 0 (KIP-511).
const OLDEST_API_VERSIONS: i16 = 0;

/// A connection whose versions are negotiated.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// `host:port`, for messages.
    address: String,
    client_id: String,
    next_correlation_id: i32,
    /// Highest and lowest version per API key, as the broker told.
    versions: HashMap<i16, (i16, i16)>,
    /// True while a request is in flight, and for ever after one failed.
    in_doubt: bool,
}

impl Connection {
    /// Connects to `host:port` and negotiates versions, all within `limit`.
    pub async fn open(address: &str, client_id: &str, limit: Duration) -> Result<Connection, Error> {
        let unreachable = |cause: io::Error| Error::Unreachable {
            broker: address.to_owned(),
            advertised_by: None,
            cause: cause.into(),
        };
        let stream = timeout(limit, TcpStream::connect(address))
            .await
            .map_err(|_| unreachable(io::Error::new(io::ErrorKind::TimedOut, "connecting timed out")))?
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let mut connection = Connection {
            stream,
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            next_correlation_id: 0,
            versions: HashMap::new(),
            in_doubt: false,
        };
        connection.negotiate(limit).await?;
        Ok(connection)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether another request may be sent.
    pub fn is_usable(&self) -> bool {
        !self.in_doubt
    }

    /// The highest version of `R` that both sides speak, but at most `ceiling`.
    pub fn version_of<R: Request>(&self, ceiling: i16) -> Result<i16, Error> {
        // An API that is not in our table has no version here.
        let ours = api::find(R::KEY).map_or((0, -1), |api| (*api.accepted.start(), ceiling.min(*api.accepted.end())));
        let theirs = self.versions.get(&R::KEY).copied();
        if let Some((min, max)) = theirs
            && ours.0 <= max
            && min <= ours.1
        {
            return Ok(ours.1.min(max));
        }
        Err(Error::Unsupported {
            broker: self.address.clone(),
            api: api_name::<R>(),
            theirs: theirs.map_or("none".to_owned(), |(min, max)| format!("{min} to {max}")),
            ours: format!("{} to {}", ours.0, ours.1),
        })
    }

    /// Sends `request` in `version` and awaits its answer for at most `limit`.
    pub async fn call<R: Request>(&mut self, request: &R, version: i16, limit: Duration) -> Result<R::Response, Error> {
        let (frame, correlation_id) = self.exchange(request, version, limit).await?;
        self.decode::<R>(frame, version, correlation_id)
    }

    /// Sends `request` without awaiting an answer: Produce with acks=0 has none.
    pub async fn send<R: Request>(&mut self, request: &R, version: i16, limit: Duration) -> Result<(), Error> {
        let (frame, _) = self.encode(request, version)?;
        self.in_doubt = true;
        let written = timeout(limit, self.stream.write_all(&frame)).await;
        self.settle::<R, ()>(written, limit)
    }

    /// Asks a request of our own (`stonelog_protocol::own`), which no other broker knows: it closes the connection.
    pub async fn call_own(&mut self, request: &OwnRequest, limit: Duration) -> Result<OwnAnswer, Error> {
        const API: &str = "a request of Stonelog's own";
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = own::encode_request(correlation_id, request);
        self.in_doubt = true;
        let exchanged = timeout(limit, async {
            self.stream.write_all(&frame).await?;
            read_frame(&mut self.stream).await
        });
        let (broker, api) = (self.address.clone(), API.to_owned());
        let frame = match exchanged.await {
            Ok(Ok(frame)) => frame,
            Ok(Err(cause)) => return Err(Error::Disconnected { broker, api, cause: cause.into() }),
            Err(_) => return Err(Error::Timeout { broker, api, after: limit }),
        };
        match own::decode_answer(request.kind, frame) {
            Ok((echoed, answer)) if echoed == correlation_id => {
                self.in_doubt = false;
                answer.map_err(|(code, message)| {
                    let subject = format!("partition {}:{}", request.topic, request.partition);
                    let refused = Error::check(code, subject, Some(&message));
                    refused.expect_err("an answer with an error has one")
                })
            }
            Ok((echoed, _)) => {
                let reason = format!("correlation id {echoed} instead of {correlation_id}");
                Err(Error::Malformed { broker, api, reason })
            }
            Err(error) => Err(Error::Malformed { broker, api, reason: error.to_string() }),
        }
    }

    async fn negotiate(&mut self, limit: Duration) -> Result<(), Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(text("stonelog"))
            .with_client_software_version(text(env!("CARGO_PKG_VERSION")));
        let mut version = newest_api_versions();
        let (mut frame, mut correlation_id) = self.exchange(&request, version, limit).await?;
        // A broker that does not know our version answers error 35 in version 0, whatever was asked.
        if frame.get(4..6) == Some(ErrorCode::UnsupportedVersion.code().to_be_bytes().as_slice()) {
            let refusal = self.decode::<ApiVersionsRequest>(frame, OLDEST_API_VERSIONS, correlation_id)?;
            version = fallback_version(&refusal);
            let request = if version >= 3 { request } else { ApiVersionsRequest::default() };
            (frame, correlation_id) = self.exchange(&request, version, limit).await?;
        }
        let answer = self.decode::<ApiVersionsRequest>(frame, version, correlation_id)?;
        Error::check(answer.error_code, format!("version negotiation with {}", self.address), None)?;
        self.versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect();
        Ok(())
    }

    /// Sends one request and reads one frame; answers with the frame and the correlation id it should carry.
    async fn exchange<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        limit: Duration,
    ) -> Result<(Bytes, i32), Error> {
        let (frame, correlation_id) = self.encode(request, version)?;
        self.in_doubt = true;
        let exchanged = timeout(limit, async {
            self.stream.write_all(&frame).await?;
            read_frame(&mut self.stream).await
        })
        .await;
        Ok((self.settle::<R, Bytes>(exchanged, limit)?, correlation_id))
    }

    fn encode<R: Request>(&mut self, request: &R, version: i16) -> Result<(BytesMut, i32), Error> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = encode_request(version, correlation_id, Some(&self.client_id), request).map_err(|error| {
            let reason = format!("version {version}: {error}");
            Error::Unsendable { broker: self.address.clone(), api: api_name::<R>(), reason }
        })?;
        Ok((frame, correlation_id))
    }

    fn decode<R: Request>(&mut self, frame: Bytes, version: i16, correlation_id: i32) -> Result<R::Response, Error> {
        let (echoed, response) = decode_response::<R>(version, frame)
            .map_err(|error| self.malformed::<R>(format!("version {version}: {error}")))?;
        if echoed != correlation_id {
            return Err(self.malformed::<R>(format!("correlation id {echoed} instead of {correlation_id}")));
        }
        Ok(response)
    }

    /// Clears the doubt when the exchange was whole, else names what happened.
    fn settle<R: Request, T>(
        &mut self,
        outcome: Result<io::Result<T>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<T, Error> {
        let (broker, api) = (self.address.clone(), api_name::<R>());
        match outcome {
            Ok(Ok(value)) => {
                self.in_doubt = false;
                Ok(value)
            }
            Ok(Err(cause)) => Err(Error::Disconnected { broker, api, cause: cause.into() }),
            Err(_) => Err(Error::Timeout { broker, api, after: limit }),
        }
    }

    fn malformed<R: Request>(&mut self, reason: String) -> Error {
        self.in_doubt = true;
        Error::Malformed { broker: self.address.clone(), api: api_name::<R>(), reason }
    }
}

/// The version to ask for after error 35: the highest both know, or 0 where the broker named none.
fn fallback_version(refusal: &ApiVersionsResponse) -> i16 {
    refusal
        .api_keys
        .iter()
        .find(|api| api.api_key == ApiVersionsRequest::KEY)
        .map_or(OLDEST_API_VERSIONS, |api| api.max_version.clamp(OLDEST_API_VERSIONS, newest_api_versions()))
}

/// Reads one length-prefixed frame. Memory grows with the bytes that arrive, never with the length alone.
async fn read_frame(stream: &mut TcpStream) -> io::Result<Bytes> {
    let length = stream.read_i32().await?;
    let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes; is this a Kafka port?"))
    })?;
    let mut frame = BytesMut::with_capacity(length.min(READ_AHEAD_BYTES));
    let mut rest = stream.take(length as u64);
    while frame.len() < length {
        if rest.read_buf(&mut frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(frame.freeze())
}

/// Name of an API for messages.
fn api_name<R: Request>() -> String {
    api::find(R::KEY).map_or_else(|| format!("API {}", R::KEY), |api| api.name.to_string())
}

/// The newest version of ApiVersions that this client speaks.
fn newest_api_versions() -> i16 {
    api::find(ApiVersionsRequest::KEY).map_or(OLDEST_API_VERSIONS, |api| *api.accepted.end())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use stonelog_protocol::codec::encode_response_of;
    use stonelog_protocol::messages::api_versions_response::ApiVersion;
    use stonelog_protocol::messages::{MetadataRequest, MetadataResponse};

    const LIMIT: Duration = Duration::from_secs(30);

    /// A peer that answers each request it reads with the next of `answers`, given the correlation id.
    fn peer(answers: Vec<fn(i32) -> Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut length = [0; 4];
                stream.read_exact(&mut length).unwrap();
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut request).unwrap();
                let correlation_id = i32::from_be_bytes(request[4..8].try_into().unwrap());
                stream.write_all(&answer(correlation_id)).unwrap();
            }
        });
        address
    }

    fn api_versions(version: i16, error_code: i16, max_metadata: i16, correlation_id: i32) -> Vec<u8> {
        let entry = |key, max| ApiVersion::default().with_api_key(key).with_max_version(max);
        let response = ApiVersionsResponse::default()
            .with_error_code(error_code)
            .with_api_keys(vec![entry(ApiVersionsRequest::KEY, 2), entry(MetadataRequest::KEY, max_metadata)]);
        encode_response_of::<ApiVersionsRequest>(version, correlation_id, &response).unwrap().to_vec()
    }

    fn metadata(version: i16, correlation_id: i32) -> Vec<u8> {
        let response = MetadataResponse::default();
        encode_response_of::<MetadataRequest>(version, correlation_id, &response).unwrap().to_vec()
    }

    #[tokio::test]
    async fn a_broker_that_refuses_our_version_is_asked_in_its_own() {
        let refuse: fn(i32) -> Vec<u8> = |id| api_versions(0, 35, 4, id);
        let address = peer(vec![refuse, |id| api_versions(2, 0, 4, id), |id| metadata(4, id)]);
        let mut connection = Connection::open(&address, "test", LIMIT).await.unwrap();
        let version = connection.version_of::<MetadataRequest>(i16::MAX).unwrap();
        assert_eq!(version, 4);
        assert_eq!(connection.version_of::<MetadataRequest>(1).unwrap(), 1);
        connection.call(&MetadataRequest::default(), version, LIMIT).await.unwrap();
        assert!(connection.is_usable());
        let unserved = connection.version_of::<stonelog_protocol::messages::FetchRequest>(i16::MAX);
        assert!(matches!(unserved, Err(Error::Unsupported { .. })));
    }

    #[tokio::test]
    async fn an_answer_to_another_request_ends_the_connection() {
        let versions: fn(i32) -> Vec<u8> = |id| api_versions(4, 0, 4, id);
        let address = peer(vec![versions, |id| metadata(4, id + 1)]);
        let mut connection = Connection::open(&address, "test", LIMIT).await.unwrap();
        let answer = connection.call(&MetadataRequest::default(), 4, LIMIT).await;
        assert!(matches!(answer, Err(Error::Malformed { .. })), "{answer:?}");
        assert!(!connection.is_usable());
    }

    #[tokio::test]
    async fn a_port_that_speaks_something_else_is_noticed_by_its_first_bytes() {
        let address = peer(vec![|_| b"HTTP/1.1 400 Bad Request".to_vec()]);
        let error = Connection::open(&address, "test", LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("is this a Kafka port?"), "{error}");
    }

    #[tokio::test]
    async fn a_broker_that_goes_away_may_have_acted() {
        let address = peer(vec![|id| api_versions(4, 0, 4, id)]);
        let mut connection = Connection::open(&address, "test", LIMIT).await.unwrap();
        let error = connection.call(&MetadataRequest::default(), 4, LIMIT).await.unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error}");
        assert!(error.may_have_acted() && !connection.is_usable());
    }
}
