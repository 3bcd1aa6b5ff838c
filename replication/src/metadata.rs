//! What the cluster agrees on: records (facts), the image they add up to, and what changed between two images.
//!
//! Everything here is pure. [`apply`] is the only writer of an image; every node runs it over the same entries and
//! must end with the same image. Nothing here decides anything: that is `controller`.

pub mod apply;
pub mod batch;
pub mod broker;
pub mod codec;
pub mod config;
pub mod delta;
pub mod image;
mod indexes;
pub mod record;
pub mod snapshot;
pub mod topic;

pub use apply::ApplyError;
pub use batch::RecordBatch;
pub use broker::{BrokerRegistration, DirectoryRegistration, Endpoint, SecurityProtocol, Verdict};
pub use config::{ConfigResource, ConfigValues};
pub use delta::{MetadataDelta, TopicDelta};
pub use image::MetadataImage;
pub use record::MetadataRecord;
pub use topic::{PartitionRegistration, RecoveryState, TopicImage};
