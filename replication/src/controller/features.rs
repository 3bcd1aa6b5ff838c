//! What a new cluster begins with.

use stonelog_protocol::ClusterId;

use crate::metadata::MetadataRecord;
use crate::metadata::codec::METADATA_VERSION;
use crate::metadata::record::{ClusterInit, FeatureLevelRecord};

/// The feature that says which records may be written.
const METADATA_VERSION_FEATURE: &str = "stonelog.metadata.version";

/// The first records of a cluster's log. `transaction.version` and `group.version` are not finalized: what they switch
/// on in clients does not exist here yet.
pub fn bootstrap_records(cluster_id: &ClusterId) -> Vec<MetadataRecord> {
    vec![
        MetadataRecord::ClusterInit(ClusterInit { cluster_id: cluster_id.clone(), metadata_version: METADATA_VERSION }),
        MetadataRecord::FeatureLevel(FeatureLevelRecord {
            name: METADATA_VERSION_FEATURE.to_owned(),
            level: METADATA_VERSION,
        }),
    ]
}
