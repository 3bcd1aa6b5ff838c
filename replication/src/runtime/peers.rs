//! Connections between nodes over TCP: dialing, accepting, the proof, frames in and out with limits and deadlines.
//!
//! What is said on them, and when a new attempt is made, is decided elsewhere: [`stonelog_protocol::peer`] and
//! [`backoff`].

pub mod accept;
pub mod backoff;
pub mod dial;
mod door;
mod framing;
pub mod secret;
mod unproved;

pub use accept::{HANDED_OVER_LEN_MAX, HandedOver, serve, serve_handed_over};
pub use dial::TcpDialer;
pub use door::Door;
pub use secret::ClusterSecret;

#[cfg(test)]
mod tests;
