//! Promises to clients: configuration, network, one handler per API, coordinators, and the `stonelog` command line.

pub mod cli;
pub mod client;
pub mod config;
pub mod coordinator;
