//! Sockets: accepting connections, splitting frames, writing answers in order.
//!
//! Nothing here looks into a request's body.

pub mod connection;
mod frames;
pub mod limits;
pub mod listener;
pub mod nodes;
