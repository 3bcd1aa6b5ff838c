//! An image written out as the records that make it, in an order that can be applied to an empty image.

use super::apply::ApplyError;
use super::codec::METADATA_VERSION;
use super::image::MetadataImage;
use super::record::{
    ClusterInit, ConfigRecord, FeatureLevelRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord, RegisterBroker,
    TopicRecord,
};
use stonelog_protocol::{BrokerEpoch, BrokerId, PartitionIndex, ProducerId};

impl MetadataImage {
    /// The records of this image: features first, for they say how to read the rest; epochs as they are.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        if let Some(cluster_id) = self.cluster_id() {
            let init = ClusterInit { cluster_id: cluster_id.clone(), metadata_version: METADATA_VERSION };
            records.push(MetadataRecord::ClusterInit(init));
        }
        for (name, level) in self.features() {
            records.push(MetadataRecord::FeatureLevel(FeatureLevelRecord { name: name.clone(), level: *level }));
        }
        for broker in self.brokers() {
            records.push(MetadataRecord::RegisterBroker(RegisterBroker {
                id: broker.id,
                incarnation: broker.incarnation,
                epoch: Some(broker.epoch),
                endpoints: broker.endpoints.clone(),
                rack: broker.rack.clone(),
                fenced: broker.fenced,
                in_controlled_shutdown: broker.in_controlled_shutdown,
                directories: broker.directories.clone(),
                differing: broker.differing.to_vec(),
                unfenced_with: broker.unfenced_with.to_vec(),
            }));
        }
        for topic in self.topics() {
            records.push(MetadataRecord::Topic(TopicRecord { id: topic.id, name: topic.name.clone() }));
            for (index, partition) in (0..).zip(&topic.partitions) {
                records.push(MetadataRecord::Partition(PartitionRecord {
                    topic_id: topic.id,
                    index: PartitionIndex(index),
                    registration: (**partition).clone(),
                }));
            }
        }
        for (resource, values) in self.configs() {
            for (key, value) in &**values {
                records.push(MetadataRecord::Config(ConfigRecord {
                    resource: resource.clone(),
                    key: key.clone(),
                    value: Some(value.clone()),
                }));
            }
        }
        if self.next_producer_id() > ProducerId(0) {
            records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker: BrokerId(-1),
                broker_epoch: BrokerEpoch(-1),
                next: self.next_producer_id(),
            }));
        }
        records.extend(self.losses_accepted.values().cloned().map(MetadataRecord::LossAccepted));
        records
    }

    /// The image at `index` that [`MetadataImage::to_records`] wrote out.
    pub fn from_records(index: u64, records: &[MetadataRecord]) -> Result<MetadataImage, ApplyError> {
        let mut image = MetadataImage::empty();
        for record in records {
            image.apply_record(index, record)?;
        }
        image.index = index;
        Ok(image)
    }
}
