//! What a controller writes when it becomes active, before it decides anything.
//!
//! The keys of [`CLUSTER_KEYS`] as its own configuration has them, where the metadata says otherwise: from then on every
//! leader, and every later controller until it has recorded its own, reads the same values. A value that was set for all
//! brokers while they run lies above these and stays. Where the effective min ISR changes, what that means for eligible
//! sets is in the same entry, or in entries before it: a set that is given up early costs a choice, one that is given up
//! late could lead without what was acknowledged without it.

use super::after;
use super::elections::on_min_isr_changed;
use super::entry::fitting;
use super::rules::ConfigRules;
use crate::metadata::record::ConfigRecord;
use crate::metadata::{ConfigResource, MetadataImage, MetadataRecord};
use crate::settings::CLUSTER_KEYS;

/// What is to be written next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The facts, for one entry; none when the metadata says what it should.
    pub records: Vec<MetadataRecord>,
    /// More are to follow: ask again once these are applied.
    pub goes_on: bool,
}

/// What the controller that has just become active writes on this image, which holds every entry before its own.
/// Decide requests only when nothing is left to write.
pub fn activation_records(image: &MetadataImage, rules: &dyn ConfigRules) -> Activation {
    let own = rules.own_cluster_values();
    let recorded = image.recorded_config();
    let differing = CLUSTER_KEYS.iter().filter(|key| own.get(**key) != recorded.get(**key));
    let facts: Vec<MetadataRecord> = differing
        .map(|key| {
            let record = ConfigRecord {
                resource: ConfigResource::Recorded,
                key: (*key).to_owned(),
                value: own.get(*key).cloned(),
            };
            MetadataRecord::Config(record)
        })
        .collect();
    if facts.is_empty() {
        return Activation { records: facts, goes_on: false };
    }
    let changed = after(image, image.index() + 1, &facts);
    let (mut records, is_whole) = fitting(on_min_isr_changed(image, &changed, rules), facts.len());
    if is_whole {
        records.extend(facts);
    }
    Activation { records, goes_on: !is_whole }
}
