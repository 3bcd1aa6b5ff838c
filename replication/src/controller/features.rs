//! What a new cluster begins with, and which features this build knows.

use std::ops::RangeInclusive;

use stonelog_protocol::ClusterId;

use crate::metadata::MetadataRecord;
use crate::metadata::codec::METADATA_VERSION;
use crate::metadata::record::{ClusterInit, FeatureLevelRecord};

/// The feature that says which records may be written.
const METADATA_VERSION_FEATURE: &str = "stonelog.metadata.version";

/// The features this build knows, and the levels of each that it can work at.
pub const SUPPORTED_FEATURES: [(&str, RangeInclusive<i16>); 1] =
    [(METADATA_VERSION_FEATURE, METADATA_VERSION..=METADATA_VERSION)];

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
