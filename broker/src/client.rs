//! A small Kafka client: what the command line and the checker speak to a cluster with.
//!
//! It works against any Kafka-compatible broker, not only ours, and favours honesty over speed: every request has a
//! time limit, every result says whether the broker may have acted, one request is in flight per connection. It is not
//! a library for applications.

pub mod admin;
pub mod assignor;
pub mod batch;
pub(crate) mod clock;
pub mod cluster;
pub mod cluster_admin;
pub mod connection;
pub mod error;
pub mod fetcher;
pub mod group_admin;
pub mod group_consumer;
pub mod membership;
pub mod metadata;
pub mod offsets;
pub mod partitioner;
pub mod producer;
pub mod retry;
pub mod survey;
pub mod text;

pub use cluster::{Cluster, Settings};
pub use error::Error;
pub use metadata::{Broker, Partition, Topic};
