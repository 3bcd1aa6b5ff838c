//! Agreement: who leads a partition, what is acknowledged, what the cluster's metadata says.
//!
//! Deciders are pure (`partition`, `controller`, `metadata`, `settings`); carriers run them (`runtime`, `quorum`).
//! No client request reaches this crate, and openraft is named in `quorum` alone.

pub mod controller;
pub mod metadata;
pub mod partition;
pub mod progress;
pub mod quorum;
pub mod runtime;
pub mod settings;
