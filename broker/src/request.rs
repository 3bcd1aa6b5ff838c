//! One request on its way through the broker: who asks, where, what of the broker a handler may use, and how it is
//! answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use stonelog_protocol::codec::{self, ResponseKind};
use stonelog_protocol::frame::RequestHead;
use stonelog_replication::metadata::MetadataImage;
use stonelog_replication::runtime::lane::Lane;

use crate::broker::Broker;
use crate::network::connection::Answer;

/// What every handler gets beside the request itself.
pub struct RequestContext {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The lane that owns the connection; the handler runs on it.
    pub lane: Rc<Lane>,
    /// The listener the connection came in by.
    pub listener: Arc<str>,
    /// The client's address.
    pub peer: SocketAddr,
    /// API, version, correlation id, client id.
    pub head: RequestHead,
    /// Length of the frame it came in.
    pub frame_bytes: usize,
}

impl RequestContext {
    /// The version asked for.
    pub fn version(&self) -> i16 {
        self.head.api_version
    }

    /// The metadata that this request is answered from, whole.
    pub fn image(&self) -> Arc<MetadataImage> {
        self.lane.image()
    }
}

/// Encodes a response; one that its version cannot say is our bug, answered by closing.
pub fn encode(version: i16, correlation_id: i32, response: &ResponseKind) -> Answer {
    match codec::encode_response(version, correlation_id, response) {
        Ok(frame) => Answer::Frame(vec![frame.freeze()]),
        Err(error) => {
            tracing::error!("cannot encode a {} response of version {version}: {error}", response.name());
            Answer::Close
        }
    }
}
