//! Bytes on the wire: frames, requests, record batches and the API table.
//!
//! This crate turns bytes into values and back. It opens no socket and no file, reads no clock, and trusts nothing:
//! every length that arrives is checked against the bytes at hand before it sizes anything.

pub mod api;
pub mod batch;
pub mod bounds;
pub mod codec;
pub mod error_code;
pub mod frame;
pub mod ids;
pub mod offset;
pub mod own;
pub mod peer;
pub mod time;
mod varint;

pub use api::{Api, ApiName};
pub use codec::{DecodeError, EncodeError, RequestKind, ResponseKind};
pub use error_code::ErrorCode;
pub use frame::{FrameError, RequestHead};
pub use ids::{
    BrokerEpoch, BrokerId, ClusterId, DirectoryId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerEpoch,
    ProducerId, TopicId, TopicPartition, Uuid,
};
pub use offset::Offset;
pub use time::Timestamp;

/// The message structs of every API, generated from Kafka's definitions by kafka-protocol.
pub use kafka_protocol::messages;
/// What a request type tells about itself (its key, its response), and the text type of message structs. A `StrBytes`
/// decoded from a request keeps the whole frame alive: copy what is to be stored.
pub use kafka_protocol::protocol::{Request, StrBytes};
