//! Promises to clients: configuration, network, one handler per API, coordinators, and the `stonelog` command line.

pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod coordinator;
pub mod dispatch;
pub mod fetch;
pub mod handlers;
pub mod network;
pub mod on_demand;
pub mod producer_ids;
pub mod request;
pub mod server;
