//! Every broker key of Kafka 4.x and Stonelog's own, with what becomes of each; plus the names that are not keys here
//! but are known: what Kafka 4 removed, and other products' prefixes.
//!
//! The log keys that topics inherit from are in `stonelog_replication::settings::LOG_KEYS`; [`all`] joins both.

mod cluster;
mod groups;
mod inactive;
pub(super) mod network;
mod own;
pub(super) mod security;
mod storage;

pub(super) use cluster::RACK_AWARE;

use std::sync::LazyLock;

use stonelog_replication::settings::{Definition, LOG_KEYS};

/// The data directory when nobody names one, relative to where the broker is started.
pub const DEFAULT_DATA_DIR: &str = "stonelog-data";

/// Every broker key, in alphabetical order.
pub fn all() -> &'static [&'static Definition] {
    &ALL
}

/// Looks a broker key up by name.
pub fn broker_key(name: &str) -> Option<&'static Definition> {
    ALL.binary_search_by(|definition| definition.name.cmp(name)).ok().map(|index| ALL[index])
}

static ALL: LazyLock<Vec<&'static Definition>> = LazyLock::new(|| {
    let tables = [
        LOG_KEYS,
        cluster::KEYS,
        groups::KEYS,
        inactive::KEYS,
        network::KEYS,
        own::KEYS,
        security::KEYS,
        storage::KEYS,
    ];
    let mut all: Vec<&'static Definition> = tables.into_iter().flatten().collect();
    all.sort_by_key(|definition| definition.name);
    all
});

/// Keys that older Kafka versions knew and Kafka 4 does not: accepted, without effect, said once.
pub static REMOVED: &[&str] = &[
    "auto.include.jmx.reporter",
    "broker.id.generation.enable",
    "control.plane.listener.name",
    "eligible.leader.replicas.enable",
    "group.coordinator.new.enable",
    "group.share.enable",
    "group.share.max.groups",
    "host.name",
    "advertised.host.name",
    "advertised.port",
    "inter.broker.protocol.version",
    "log.message.downconversion.enable",
    "log.message.format.version",
    "log.message.timestamp.difference.max.ms",
    "password.encoder.cipher.algorithm",
    "password.encoder.iterations",
    "password.encoder.key.length",
    "password.encoder.keyfactory.algorithm",
    "password.encoder.old.secret",
    "password.encoder.secret",
    "port",
    "quota.consumer.default",
    "quota.producer.default",
    "reserved.broker.max.id",
    "replica.lag.max.messages",
    "unclean.leader.election.interval.ms",
];

/// Prefixes of other products' settings that travel in the same file: listed once and skipped.
pub static FOREIGN_PREFIXES: &[&str] = &[
    "aiven.",
    "apicurio.",
    "client.quota.callback.static.",
    "confluent.",
    "cruise.control.",
    "io.confluent.",
    "io.strimzi.",
    "kafkastore.",
    "ksql.",
    "log4j.",
    "opa.authorizer.",
    "otel.",
    "ranger.",
    "rlmm.config.",
    "rsm.config.",
    "schema.registry.",
    "strimzi.",
    "xpack.",
];

/// The product whose key this is, by its prefix.
pub fn foreign_prefix(key: &str) -> Option<&'static str> {
    FOREIGN_PREFIXES.iter().copied().find(|prefix| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use stonelog_replication::settings::value;

    use super::*;

    #[test]
    fn every_key_is_defined_once_and_its_default_is_legal() {
        for pair in all().windows(2) {
            assert!(pair[0].name < pair[1].name, "{} is defined twice", pair[1].name);
        }
        for definition in all() {
            if let Some(default) = definition.default {
                assert_eq!(value::accept(definition, default), Ok(()), "{}", definition.name);
            }
            assert!(definition.documentation.ends_with('.'), "{} is undocumented", definition.name);
        }
    }

    #[test]
    fn a_removed_key_is_no_key() {
        for name in REMOVED {
            assert!(broker_key(name).is_none(), "{name}");
        }
    }

    #[test]
    fn no_key_has_a_foreign_prefix() {
        for definition in all() {
            assert_eq!(foreign_prefix(definition.name), None, "{}", definition.name);
        }
        assert_eq!(foreign_prefix("confluent.license.topic"), Some("confluent."));
    }
}
