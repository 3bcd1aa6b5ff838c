//! The metadata quorum: openraft over our own log, votes and snapshots.
//!
//! openraft is named here and nowhere else. What leaves this module are images ([`publisher::Published`]) and
//! [`node::QuorumNode`]. Everything on disk is in our own versioned encoding ([`codec`]), never openraft's.
//!
//! Invariants: a vote is durable before it is answered, an entry before it is counted, both in the order of one
//! journal; a snapshot is durable before the log it covers goes; after any failed write the process ends.

pub mod alone;
pub mod bootstrap;
pub mod codec;
pub mod control;
pub mod controllers;
mod describe;
mod feed;
mod feed_position;
pub mod form;
pub mod forwarding;
pub mod inspect;
mod journal_thread;
pub mod link;
pub mod log_store;
pub mod network;
pub mod node;
pub mod observer;
pub mod owner;
mod processes;
pub mod publisher;
pub(crate) mod removed;
pub mod replaced;
mod replacing;
pub mod saying;
mod service;
pub mod services;
pub mod snapshot_store;
pub mod standing;
pub mod state_machine;
mod tending;
pub mod type_config;
pub mod voter;
mod wire;
pub mod wishes;

pub(crate) use journal_thread::{ENTRY_BYTES_MAX, die};

#[cfg(test)]
mod tests;
