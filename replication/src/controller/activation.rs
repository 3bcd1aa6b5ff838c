//! What a controller writes when it becomes active, before it decides anything.
//!
//! The keys of [`CLUSTER_KEYS`] as its own configuration has them, where the metadata says otherwise: from then on every
//! leader, and every later controller until it has recorded its own, reads the same values. A value that was set for all
//! brokers while they run lies above these and stays. Where the effective min ISR changes, what that means for eligible
//! sets is in the same entry, or in entries before it: a set that is given up early costs a choice, one that is given up
//! late could lead without what was acknowledged without it.
//!
//! Where several could be the controller, which of them is must not decide what an acknowledgement means: once there are
//! brokers, one that takes over only tightens what is recorded. What is weaker in its own configuration is said and has
//! no effect; whoever wants it sets it for all brokers while they run.

use super::after;
use super::elections::on_min_isr_changed;
use super::entry::fitting;
use super::rules::ConfigRules;
use crate::metadata::record::ConfigRecord;
use crate::metadata::{ConfigResource, MetadataImage, MetadataRecord};
use crate::settings::CLUSTER_KEYS;
use crate::settings::cluster_keys::{Overruled, weakens};

/// What is to be written next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// The facts, for one entry; none when the metadata says what it should.
    pub records: Vec<MetadataRecord>,
    /// More are to follow: ask again once these are applied.
    pub goes_on: bool,
    /// What this controller's configuration says in vain, for it would weaken what an acknowledgement means.
    pub kept: Vec<Overruled>,
}

/// What the controller that has just become active writes on this image, which holds every entry before its own.
/// `is_alone`: no other node could be it. Decide requests only when nothing is left to write.
pub fn activation_records(image: &MetadataImage, rules: &dyn ConfigRules, is_alone: bool) -> Activation {
    let own = rules.own_cluster_values();
    let recorded = image.recorded_config();
    // The first controller of a cluster says what holds in it.
    let only_tightens = !is_alone && image.brokers().len() > 0 && !off!(TakeoverTightens);
    let (mut facts, mut kept) = (Vec::new(), Vec::new());
    for key in CLUSTER_KEYS {
        let (value, before) = (own.get(key), recorded.get(key));
        if value == before {
            continue;
        }
        if only_tightens && weakens(key, value.map(String::as_str), before.map(String::as_str)) {
            let own = value.map_or_else(|| "the default".to_owned(), Clone::clone);
            kept.push(Overruled { key, own, recorded: before.cloned() });
            continue;
        }
        let record = ConfigRecord { resource: ConfigResource::Recorded, key: key.to_owned(), value: value.cloned() };
        facts.push(MetadataRecord::Config(record));
    }
    if facts.is_empty() {
        return Activation { records: facts, goes_on: false, kept };
    }
    let changed = after(image, image.index() + 1, &facts);
    let (mut records, is_whole) = fitting(on_min_isr_changed(image, &changed, rules), facts.len());
    if is_whole {
        records.extend(facts);
    }
    Activation { records, goes_on: !is_whole, kept }
}
