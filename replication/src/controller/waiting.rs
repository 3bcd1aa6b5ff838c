//! How long a new topic whose replication factor nobody set waits for brokers that are still to come.
//!
//! The default is as many copies as survive one loss and one repair: three, or as many as there are brokers. In a cluster
//! that is just forming, brokers the configuration lists as voters may not have registered yet; they count, and the
//! request waits for them, at most as long as it allows itself and [`WAIT_FOR_BROKERS`] after the first controller.

use std::time::Duration;

use stonelog_protocol::BrokerId;

use super::request::CreateTopics;
use super::rules::Defaults;
use crate::metadata::MetadataImage;

/// How long after the first controller of a cluster its listed brokers are waited for.
pub const WAIT_FOR_BROKERS: Duration = Duration::from_secs(60);
/// The replicas of a topic when nobody says otherwise and there are enough brokers.
pub(super) const REPLICAS_DEFAULT: usize = 3;

/// How many of the listed voters that are brokers too have not registered yet; none once they have been waited for.
pub fn awaited_brokers(image: &MetadataImage, listed: &[BrokerId], since_first_controller: Duration) -> usize {
    if since_first_controller >= WAIT_FOR_BROKERS {
        return 0;
    }
    listed.iter().filter(|broker| image.broker(**broker).is_none()).count()
}

/// The replication factor of a topic for which nobody set one.
pub(super) fn default_factor(image: &MetadataImage, defaults: &Defaults, awaited: usize) -> usize {
    match defaults.replication_factor {
        Some(default) => usize::try_from(default).expect("default.replication.factor is at least 1"),
        None => (image.brokers().len() + awaited).clamp(1, REPLICAS_DEFAULT),
    }
}

/// Whether a request should wait for awaited brokers before it is decided. When its time is up, decide it with none
/// awaited: it takes those present.
pub fn waits_for_brokers(image: &MetadataImage, request: &CreateTopics, defaults: &Defaults, awaited: usize) -> bool {
    let is_short =
        || defaults.replication_factor.is_none() && image.brokers().len() < default_factor(image, defaults, awaited);
    request.leaves_the_factor_open() && is_short()
}
