//! Broker keys that say what an acknowledgement means, and therefore hold for the whole cluster.
//!
//! A leader that counts two copies and a controller that counts one may elect a member that lacks what the leader
//! acknowledged. So these keys are read from the metadata alone: the value set for all brokers while they run, else what
//! the active controller recorded from its own configuration when it became active
//! ([`crate::controller::activation_records`]), else the default. Another broker's own configuration, or a value for one
//! broker, counts for nothing; the one is named at start, the other refused. Kafka writes the cluster-wide
//! `min.insync.replicas` for the same reason when eligible leader replicas are turned on (KIP-966).

use std::collections::BTreeMap;

use super::describe::Layers;
use super::log_keys::log_key;
use super::value::canonical;
use crate::metadata::{ConfigValues, MetadataImage};
use stonelog_protocol::BrokerId;

/// The keys, by name.
pub const CLUSTER_KEYS: [&str; 4] =
    ["log.flush.interval.messages", "log.flush.interval.ms", "min.insync.replicas", "unclean.leader.election.enable"];

/// Whether a broker key holds for the whole cluster.
pub fn is_cluster_key(key: &str) -> bool {
    CLUSTER_KEYS.contains(&key)
}

/// What a broker's own configuration says of these keys: what its controller records. Keys that are not set are absent.
pub fn own_cluster_values(own: &BTreeMap<String, String>) -> ConfigValues {
    let values = CLUSTER_KEYS.iter().filter_map(|key| {
        let definition = log_key(key).expect("a key of the cluster is a log key");
        Some(((*key).to_owned(), canonical(definition, own.get(*key)?)))
    });
    values.collect()
}

/// A broker's own configuration, with what the cluster has recorded in the place of what it says of these keys.
pub fn agreed(own: &BTreeMap<String, String>, image: &MetadataImage) -> BTreeMap<String, String> {
    if off!(ClusterDefaults) {
        return own.clone();
    }
    let mut agreed = own.clone();
    agreed.retain(|key, _| !is_cluster_key(key));
    agreed.extend(image.recorded_config().iter().map(|(key, value)| (key.clone(), value.clone())));
    agreed
}

/// A key that a broker's own configuration sets to something else than what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overruled {
    /// The key.
    pub key: &'static str,
    /// What the broker's own configuration says.
    pub own: String,
    /// What the cluster has recorded; `None` when that is the default.
    pub recorded: Option<String>,
}

/// What a broker's own configuration says in vain, for its start to name.
pub fn overruled(own: &BTreeMap<String, String>, image: &MetadataImage) -> Vec<Overruled> {
    let own = own_cluster_values(own);
    let recorded = image.recorded_config();
    let differs = |key: &&'static str| {
        let value = own.get(*key)?;
        (recorded.get(*key) != Some(value)).then(|| Overruled {
            key,
            own: value.clone(),
            recorded: recorded.get(*key).cloned(),
        })
    };
    CLUSTER_KEYS.iter().filter_map(differs).collect()
}

/// Whether a value of one of these keys weakens what an acknowledgement means, compared with another; `None` is the
/// default.
pub fn weakens(key: &str, value: Option<&str>, compared_with: Option<&str>) -> bool {
    strength(key, value) < strength(key, compared_with)
}

/// The greater the stronger; only values of one key compare.
fn strength(key: &str, value: Option<&str>) -> i128 {
    let number = value.and_then(|value| value.trim().parse::<i64>().ok()).map(i128::from);
    match key {
        // The fewer records may be unflushed the better; 1 is the default.
        "log.flush.interval.messages" => -number.unwrap_or(1),
        "log.flush.interval.ms" => -number.unwrap_or(i128::from(i64::MAX)),
        // The default is 1 or 2, by the number of replicas.
        "min.insync.replicas" => number.map_or(3, |number| 2 * number),
        "unclean.leader.election.enable" => i128::from(value.is_none_or(|value| !value.eq_ignore_ascii_case("true"))),
        _ => 0,
    }
}

/// One broker's settings, by where they were made: from the image, and from its own configuration.
#[derive(Clone, Debug)]
pub struct BrokerLayers {
    dynamic_broker: BTreeMap<String, String>,
    dynamic_default: BTreeMap<String, String>,
    static_broker: BTreeMap<String, String>,
}

impl BrokerLayers {
    /// The layers of a broker whose own configuration is `own`.
    pub fn of(image: &MetadataImage, broker: BrokerId, own: &BTreeMap<String, String>) -> BrokerLayers {
        let values = |broker| image.broker_config(broker).map_or_else(ConfigValues::new, |values| (**values).clone());
        let mut dynamic_broker = values(Some(broker));
        dynamic_broker.retain(|key, _| !is_cluster_key(key));
        BrokerLayers { dynamic_broker, dynamic_default: values(None), static_broker: agreed(own, image) }
    }

    /// The same, borrowed.
    pub fn borrow(&self) -> Layers<'_> {
        Layers {
            dynamic_broker: &self.dynamic_broker,
            dynamic_default: &self.dynamic_default,
            static_broker: &self.static_broker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::record::ConfigRecord;
    use crate::metadata::{ConfigResource, MetadataRecord};

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn image(records: &[(ConfigResource, &str, &str)]) -> MetadataImage {
        let record = |(resource, key, value): &(ConfigResource, &str, &str)| {
            let (key, value) = ((*key).to_owned(), Some((*value).to_owned()));
            MetadataRecord::Config(ConfigRecord { resource: resource.clone(), key, value })
        };
        MetadataImage::from_records(1, &records.iter().map(record).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_key_of_the_cluster_is_a_default_of_topics() {
        assert!(CLUSTER_KEYS.iter().all(|key| log_key(key).is_some()));
        assert!(CLUSTER_KEYS.is_sorted());
    }

    #[test]
    fn what_the_cluster_has_recorded_holds_and_a_brokers_own_values_do_not() {
        let own = map(&[("min.insync.replicas", "1"), ("log.flush.interval.messages", "9"), ("log.retention.ms", "5")]);
        let none = BrokerLayers::of(&MetadataImage::empty(), BrokerId(1), &own);
        assert_eq!(none.borrow().merged(), map(&[("log.retention.ms", "5")]));
        let image = image(&[
            (ConfigResource::Recorded, "min.insync.replicas", "2"),
            (ConfigResource::Broker(Some(BrokerId(1))), "min.insync.replicas", "3"),
            (ConfigResource::Broker(Some(BrokerId(1))), "log.segment.bytes", "7"),
        ]);
        let layers = BrokerLayers::of(&image, BrokerId(1), &own);
        let expected = map(&[("log.retention.ms", "5"), ("log.segment.bytes", "7"), ("min.insync.replicas", "2")]);
        assert_eq!(layers.borrow().merged(), expected);
    }

    #[test]
    fn weaker_is_what_a_power_cut_or_a_lost_broker_would_cost_more_with() {
        let ranks: [(&str, &[Option<&str>]); 4] = [
            ("log.flush.interval.messages", &[Some("10000"), Some("2"), None]),
            ("log.flush.interval.ms", &[None, Some("1000"), Some("10")]),
            ("min.insync.replicas", &[Some("1"), None, Some("2"), Some("3")]),
            ("unclean.leader.election.enable", &[Some("true"), None]),
        ];
        for (key, from_weak_to_strong) in ranks {
            for pair in from_weak_to_strong.windows(2) {
                assert!(weakens(key, pair[0], pair[1]) && !weakens(key, pair[1], pair[0]), "{key} {pair:?}");
                assert!(!weakens(key, pair[0], pair[0]));
            }
        }
        assert!(!weakens("log.flush.interval.messages", Some("1"), None));
        assert!(!weakens("unclean.leader.election.enable", Some("false"), None));
    }

    #[test]
    fn a_start_names_what_it_says_in_vain() {
        let image = image(&[(ConfigResource::Recorded, "min.insync.replicas", "2")]);
        assert_eq!(overruled(&map(&[("min.insync.replicas", " 2 ")]), &image), []);
        let own = map(&[("min.insync.replicas", "1"), ("unclean.leader.election.enable", "TRUE")]);
        let expected = [
            Overruled { key: "min.insync.replicas", own: "1".to_owned(), recorded: Some("2".to_owned()) },
            Overruled { key: "unclean.leader.election.enable", own: "true".to_owned(), recorded: None },
        ];
        assert_eq!(overruled(&own, &image), expected);
    }
}
