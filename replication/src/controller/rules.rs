//! What the controller must know of settings, as a seam: the tables of keys live elsewhere.

use super::Reject;
use crate::metadata::{ConfigResource, ConfigValues, MetadataImage};

/// What a request may leave unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `num.partitions`.
    pub partitions: i32,
    /// `default.replication.factor`; unset it is min(3, brokers).
    pub replication_factor: Option<i16>,
}

impl Default for Defaults {
    fn default() -> Self {
        Defaults { partitions: 1, replication_factor: None }
    }
}

/// APPEND or SUBTRACT of IncrementalAlterConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListEdit {
    /// Add the elements that are not there.
    Append,
    /// Remove the elements that are there.
    Subtract,
}

/// The rules of settings.
pub trait ConfigRules: Send + Sync {
    /// Judges all the overrides a resource would have, whole. `replicas` is a topic's replication factor, `None` for
    /// other resources. Returns what the owner should know.
    fn judge(
        &self,
        image: &MetadataImage,
        resource: &ConfigResource,
        values: &ConfigValues,
        replicas: Option<usize>,
    ) -> Result<Vec<String>, Reject>;

    /// The new value of a list; `current` is the override, if there is one.
    fn edit_list(
        &self,
        resource: &ConfigResource,
        key: &str,
        edit: ListEdit,
        current: Option<&str>,
        operand: &str,
    ) -> Result<String, Reject>;

    /// What this node's own configuration says of the keys that hold for the whole cluster
    /// ([`crate::settings::CLUSTER_KEYS`]): recorded when its controller becomes active.
    fn own_cluster_values(&self) -> ConfigValues;

    /// A topic's effective min ISR, from 1 to `replicas`.
    fn min_insync_replicas(&self, image: &MetadataImage, topic: &str, replicas: usize) -> usize;

    /// Whether a topic is strict.
    fn is_strict(&self, image: &MetadataImage, topic: &str) -> bool;
}
