//! Agreement: who leads a partition, what is acknowledged, what the cluster's metadata says.
//!
//! Deciders are pure (`partition`, `replica`, `controller`, `metadata`, `settings`); carriers run them (`runtime`, `quorum`).
//! No client request reaches this crate, and openraft is named in `quorum` alone.

#[macro_use]
mod guards;

pub mod controller;
pub mod homes;
pub mod isr_proposal;
pub mod metadata;
pub mod partition;
pub mod presence;
pub mod progress;
pub mod quorum;
pub mod replica;
pub mod runtime;
pub mod settings;
