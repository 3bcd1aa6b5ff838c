//! What nodes say to each other: the quorum's messages, what brokers ask the controller, the metadata feed, replica
//! streams.
//!
//! A connection between nodes begins with [`frame::MAGIC`], which no Kafka client can send as a length, so that it may
//! share a port with clients. Then come length-prefixed frames. The first four are the [`proof`]; until it is done
//! nothing else is parsed. What follows depends on the purpose that the proof covers.
//!
//! Bytes and pure state machines only. Every number that arrives is judged before it sizes anything.
//! The layouts are in `docs/formats.md`, "Between nodes".

pub mod control;
pub mod feed;
pub mod frame;
pub mod probe;
pub mod proof;
pub mod raft;
pub mod stream;
pub mod wire;

#[cfg(test)]
mod tests;
