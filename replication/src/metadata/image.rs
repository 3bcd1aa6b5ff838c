//! Everything the cluster agrees on, after one entry of the log: immutable once published, cheap to copy and change.
//!
//! A copy shares everything with its original; a change copies the one topic (or broker, or resource) it touches and
//! the table of names above it. Readers hold one `Arc<MetadataImage>` per request and see one moment.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use stonelog_protocol::{BrokerId, ClusterId, PartitionIndex, ProducerId, TopicId, TopicPartition};

use super::broker::BrokerRegistration;
use super::config::{ConfigResource, ConfigValues, Configs};
use super::indexes::Indexes;
use super::record::LossAccepted;
use super::topic::{PartitionRegistration, TopicImage};

/// The metadata as of one entry.
#[derive(Clone, Debug)]
pub struct MetadataImage {
    pub(super) index: u64,
    pub(super) cluster_id: Option<ClusterId>,
    pub(super) topics: Arc<BTreeMap<Arc<str>, Arc<TopicImage>>>,
    pub(super) names: Arc<HashMap<TopicId, Arc<str>>>,
    pub(super) brokers: Arc<BTreeMap<BrokerId, Arc<BrokerRegistration>>>,
    pub(super) configs: Arc<Configs>,
    pub(super) features: Arc<BTreeMap<String, i16>>,
    pub(super) next_producer_id: ProducerId,
    pub(super) losses_accepted: Arc<BTreeMap<TopicPartition, LossAccepted>>,
    pub(super) indexes: Arc<Indexes>,
    pub(super) controller: Option<BrokerId>,
}

impl Default for MetadataImage {
    fn default() -> Self {
        MetadataImage::empty()
    }
}

/// Equal when they say the same; who is controller is not part of the log and does not count.
impl PartialEq for MetadataImage {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index
            && self.cluster_id == other.cluster_id
            && self.topics == other.topics
            && self.brokers == other.brokers
            && self.configs == other.configs
            && self.features == other.features
            && self.next_producer_id == other.next_producer_id
            && self.losses_accepted == other.losses_accepted
    }
}

impl MetadataImage {
    /// The image before the first entry.
    pub fn empty() -> MetadataImage {
        MetadataImage {
            index: 0,
            cluster_id: None,
            topics: Arc::default(),
            names: Arc::default(),
            brokers: Arc::default(),
            configs: Arc::default(),
            features: Arc::default(),
            next_producer_id: ProducerId(0),
            losses_accepted: Arc::default(),
            indexes: Arc::default(),
            controller: None,
        }
    }

    /// The index of the last record batch applied; 0 when there was none.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The cluster's identifier, once the log says it.
    pub fn cluster_id(&self) -> Option<&ClusterId> {
        self.cluster_id.as_ref()
    }

    /// A topic by its name.
    pub fn topic_by_name(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// A topic by its identifier.
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<TopicImage>> + Clone {
        self.topics.values()
    }

    /// The topics named `name` or after it, by name: where a paged answer goes on.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.range::<str, _>((Bound::Included(name), Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// One partition.
    pub fn partition(&self, partition: TopicPartition) -> Option<&Arc<PartitionRegistration>> {
        self.topic_by_id(partition.topic_id)?.partition(partition.partition)
    }

    /// Every partition with its topic.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<TopicImage>, PartitionIndex, &Arc<PartitionRegistration>)> {
        self.topics().flat_map(|topic| {
            (0..).zip(&topic.partitions).map(move |(index, partition)| (topic, PartitionIndex(index), partition))
        })
    }

    /// All registered brokers, by id, fenced ones too.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &Arc<BrokerRegistration>> + Clone {
        self.brokers.values()
    }

    /// One registered broker.
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&id)
    }

    /// Whether a broker is registered, unfenced and not leaving.
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.broker(id).is_some_and(|broker| broker.is_active())
    }

    /// The overrides of a resource; `None` when it has none.
    pub fn config(&self, resource: &ConfigResource) -> Option<&Arc<ConfigValues>> {
        self.configs.get(resource)
    }

    /// The overrides of a topic; `None` when it has none.
    pub fn topic_config(&self, name: &str) -> Option<&Arc<ConfigValues>> {
        self.configs.topics.get(name)
    }

    /// The overrides of one broker, or with `None` those of all brokers.
    pub fn broker_config(&self, id: Option<BrokerId>) -> Option<&Arc<ConfigValues>> {
        self.configs.brokers.get(&id)
    }

    /// What the active controller recorded of the keys that hold for the whole cluster; empty when it set none of them.
    pub fn recorded_config(&self) -> &ConfigValues {
        static NONE: ConfigValues = ConfigValues::new();
        self.configs.get(&ConfigResource::Recorded).map_or(&NONE, |values| &**values)
    }

    /// The overrides of a group; `None` when it has none.
    pub fn group_config(&self, id: &str) -> Option<&Arc<ConfigValues>> {
        self.configs.groups.get(id)
    }

    /// Every resource that has overrides.
    pub fn configs(&self) -> impl Iterator<Item = (ConfigResource, &Arc<ConfigValues>)> {
        self.configs.iter()
    }

    /// The first producer id of the next block.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// The last loss somebody accepted for a partition.
    pub fn loss_accepted(&self, partition: TopicPartition) -> Option<&LossAccepted> {
        self.losses_accepted.get(&partition)
    }

    /// The finalized features and their levels.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// The active controller, as far as this node knows. Not part of the log.
    pub fn controller(&self) -> Option<BrokerId> {
        self.controller
    }

    /// The same image under another controller.
    pub fn with_controller(mut self, controller: Option<BrokerId>) -> MetadataImage {
        self.controller = controller;
        self
    }
}
