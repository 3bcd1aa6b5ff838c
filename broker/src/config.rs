//! The broker's configuration: from files, environment and command line to one typed [`BrokerConfig`].
//!
//! Every key of Kafka 4.x is known here ([`broker_keys`]) and is honoured, mapped, refused with a reason, or accepted
//! without effect and said once. All problems are found in one go ([`Report`]), each with the line it stands on.
//! What a topic's keys mean is in `stonelog_replication::settings`, and used from there.

pub mod broker_config;
pub mod broker_keys;
pub mod environment;
mod gather;
mod judged;
pub mod listeners;
pub mod load;
pub mod properties;
pub mod quorum;
mod reader;
mod relaxations;
pub mod render;
pub mod report;
pub mod request;
mod roles;
pub mod setting;
pub mod surroundings;

pub use broker_config::{
    BrokerConfig, ClusterSettings, FetchSettings, GroupSettings, NetworkSettings, ProducerSettings, QuorumVoter,
    StorageSettings, TopicSettings,
};
pub use listeners::{Endpoint, Listener, SecurityProtocol};
pub use load::load;
pub use report::{Code, Complaint, Report};
pub use request::Request;
pub use setting::{Origin, Setting};
pub use surroundings::Surroundings;
