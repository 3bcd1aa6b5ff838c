//! What DescribeConfigs answers: every key with its value, where the value comes from, and the chain of synonyms in
//! Kafka's order of precedence (KIP-226).
//!
//! One difference from Kafka: a value that comes from `log.retention.hours` (or another variant in hours or minutes)
//! is shown with its true source; Kafka drops that part of the chain and calls it a default.

use std::collections::BTreeMap;

use super::definition::{Definition, Kind};
use super::group_keys::GROUP_KEYS;
use super::log_keys::log_key;
use super::topic::{TopicConfig, effective_text};
use super::topic_keys::TOPIC_KEYS;
use super::value::canonical;

/// Where a value comes from (`ConfigEntry.ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's own.
    DynamicTopic,
    /// Set for this broker while it runs.
    DynamicBroker,
    /// Set for all brokers while they run.
    DynamicDefaultBroker,
    /// From the file, the environment or the command line.
    StaticBroker,
    /// Nobody set it.
    Default,
    /// The group's own.
    Group,
}

impl Source {
    /// The code in a DescribeConfigs response.
    pub fn code(self) -> i8 {
        match self {
            Source::DynamicTopic => 1,
            Source::DynamicBroker => 2,
            Source::DynamicDefaultBroker => 3,
            Source::StaticBroker => 4,
            Source::Default => 5,
            Source::Group => 8,
        }
    }
}

/// One value in the chain that led to an entry's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The key it is set under.
    pub name: String,
    /// `None` when sensitive.
    pub value: Option<String>,
    /// Where it comes from.
    pub source: Source,
}

/// One configuration as DescribeConfigs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub name: String,
    /// `None` when null or sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// Whether it cannot be altered while the broker runs.
    pub read_only: bool,
    /// Whether the value is hidden.
    pub sensitive: bool,
    /// The chain, the value in force first.
    pub synonyms: Vec<Synonym>,
    /// The type; [`Kind::code`] goes on the wire. `None` for a key nobody defines.
    pub kind: Option<Kind>,
    /// The meaning.
    pub documentation: &'static str,
}

/// A broker's settings by where they were made.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// Set for this broker while it runs.
    pub dynamic_broker: &'a BTreeMap<String, String>,
    /// Set for all brokers while they run.
    pub dynamic_default: &'a BTreeMap<String, String>,
    /// From the file, the environment or the command line.
    pub static_broker: &'a BTreeMap<String, String>,
}

impl Layers<'_> {
    /// One map of what is set, dynamic values over static ones: what [`TopicConfig::effective`] takes.
    pub fn merged(&self) -> BTreeMap<String, String> {
        let mut merged = self.static_broker.clone();
        for layer in [self.dynamic_default, self.dynamic_broker] {
            merged.extend(layer.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        merged
    }

    /// The chain for these keys: all dynamic values, then all static ones, then the defaults.
    fn chain(
        &self,
        keys: &[&'static str],
        definition_of: impl Fn(&str) -> Option<&'static Definition>,
    ) -> Vec<Synonym> {
        let mut chain = Vec::new();
        let layers = [
            (self.dynamic_broker, Source::DynamicBroker),
            (self.dynamic_default, Source::DynamicDefaultBroker),
            (self.static_broker, Source::StaticBroker),
        ];
        for (layer, source) in layers {
            for key in keys {
                if let Some(value) = layer.get(*key) {
                    let value = match definition_of(key) {
                        Some(definition) if definition.is_sensitive() => None,
                        Some(definition) => Some(canonical(definition, value)),
                        None => Some(value.clone()),
                    };
                    chain.push(Synonym { name: (*key).to_owned(), value, source });
                }
            }
        }
        for key in keys {
            if let Some(default) = definition_of(key).and_then(|definition| definition.default) {
                chain.push(Synonym {
                    name: (*key).to_owned(),
                    value: Some(default.to_owned()),
                    source: Source::Default,
                });
            }
        }
        chain
    }
}

/// Every topic key of one topic. `replicas` gives an unset `min.insync.replicas` its value.
pub fn describe_topic(
    overrides: &BTreeMap<String, String>,
    layers: &Layers<'_>,
    config: &TopicConfig,
    replicas: usize,
) -> Vec<Entry> {
    let broker = layers.merged();
    let describe = |definition: &'static Definition| {
        let mut synonyms = layers.chain(definition.broker_keys(), log_key);
        let mut value = effective_text(definition, overrides, &broker).map(|text| canonical(definition, &text));
        if definition.name == "min.insync.replicas" && value.is_none() {
            value = Some(config.effective_min_isr(replicas).to_string());
        }
        if definition.name == "flush.messages" {
            // An internal topic is strict whatever is inherited; what is shown is what holds.
            value = Some(config.flush_messages.to_string());
        }
        if overrides.contains_key(definition.name) {
            let own = Synonym { name: definition.name.to_owned(), value: value.clone(), source: Source::DynamicTopic };
            synonyms.insert(0, own);
        }
        Entry {
            name: definition.name.to_owned(),
            value,
            source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
            read_only: false,
            sensitive: false,
            synonyms,
            kind: Some(definition.kind),
            documentation: definition.documentation,
        }
    };
    TOPIC_KEYS.iter().map(describe).collect()
}

/// Every group key of one group. Kafka shows the broker's default as a plain default.
pub fn describe_group(overrides: &BTreeMap<String, String>) -> Vec<Entry> {
    let describe = |definition: &'static Definition| {
        let default = definition.default.map(str::to_owned);
        let own = overrides.get(definition.name).map(|value| canonical(definition, value));
        let source = if own.is_some() { Source::Group } else { Source::Default };
        let value = own.or(default);
        Entry {
            name: definition.name.to_owned(),
            synonyms: vec![Synonym { name: definition.name.to_owned(), value: value.clone(), source }],
            value,
            source,
            read_only: false,
            sensitive: definition.is_sensitive(),
            kind: Some(definition.kind),
            documentation: definition.documentation,
        }
    };
    GROUP_KEYS.iter().map(describe).collect()
}

/// Every broker key in `definitions` as it stands on one broker.
pub fn describe_broker<'d>(
    definitions: impl IntoIterator<Item = &'static Definition> + 'd,
    layers: &Layers<'_>,
) -> Vec<Entry> {
    let describe = |definition: &'static Definition| {
        let family = family(definition.name);
        let own = [definition.name];
        let keys: &[&'static str] = family.unwrap_or(&own);
        let mut chain = layers.chain(keys, |key| if key == definition.name { Some(definition) } else { log_key(key) });
        // Kafka shows a family's chain from the described key's own first value on.
        let start = chain.iter().position(|synonym| synonym.name == definition.name).unwrap_or(chain.len());
        let synonyms = chain.split_off(start);
        Entry {
            name: definition.name.to_owned(),
            value: synonyms.first().and_then(|synonym| synonym.value.clone()),
            source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
            read_only: definition.is_read_only(),
            sensitive: definition.is_sensitive(),
            synonyms,
            kind: Some(definition.kind),
            documentation: definition.documentation,
        }
    };
    definitions.into_iter().map(describe).collect()
}

/// What is set for all brokers while they run: the answer for the broker with the empty name.
pub fn describe_cluster_default<'d>(
    definitions: impl IntoIterator<Item = &'static Definition> + 'd,
    dynamic_default: &BTreeMap<String, String>,
) -> Vec<Entry> {
    let none = BTreeMap::new();
    let layers = Layers { dynamic_broker: &none, dynamic_default, static_broker: &none };
    let mut entries = describe_broker(definitions, &layers);
    entries.retain(|entry| entry.source == Source::DynamicDefaultBroker);
    for entry in &mut entries {
        entry.synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
    }
    entries
}

/// Broker keys that say the same thing in different units (`DynamicBrokerConfig.brokerConfigSynonyms`).
fn family(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "log.roll.ms" | "log.roll.hours" => Some(&["log.roll.ms", "log.roll.hours"]),
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => Some(&["log.roll.jitter.ms", "log.roll.jitter.hours"]),
        "log.flush.interval.ms" => Some(&["log.flush.interval.ms", "log.flush.scheduler.interval.ms"]),
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            Some(&["log.retention.ms", "log.retention.minutes", "log.retention.hours"])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::LOG_KEYS;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn entry(entries: &[Entry], name: &str) -> Entry {
        entries.iter().find(|entry| entry.name == name).unwrap().clone()
    }

    fn synonym(name: &str, value: &str, source: Source) -> Synonym {
        Synonym { name: name.to_owned(), value: Some(value.to_owned()), source }
    }

    #[test]
    fn a_topic_entry_shows_the_chain_in_order_of_precedence() {
        let (own, each, all, file) = (
            map(&[("retention.ms", "1000")]),
            map(&[("log.retention.ms", "2000")]),
            map(&[("log.retention.ms", "3000")]),
            map(&[("log.retention.hours", "4")]),
        );
        let layers = Layers { dynamic_broker: &each, dynamic_default: &all, static_broker: &file };
        let config = TopicConfig::effective(&own, &layers.merged()).unwrap();
        let shown = entry(&describe_topic(&own, &layers, &config, 1), "retention.ms");
        assert_eq!((shown.value.as_deref(), shown.source), (Some("1000"), Source::DynamicTopic));
        assert_eq!(
            shown.synonyms,
            [
                synonym("retention.ms", "1000", Source::DynamicTopic),
                synonym("log.retention.ms", "2000", Source::DynamicBroker),
                synonym("log.retention.ms", "3000", Source::DynamicDefaultBroker),
                synonym("log.retention.hours", "4", Source::StaticBroker),
                synonym("log.retention.hours", "168", Source::Default),
            ]
        );
    }

    #[test]
    fn an_inherited_value_is_shown_in_the_topics_unit_with_its_true_source() {
        let (none, file) = (map(&[]), map(&[("log.retention.hours", "2")]));
        let layers = Layers { dynamic_broker: &none, dynamic_default: &none, static_broker: &file };
        let config = TopicConfig::effective(&none, &layers.merged()).unwrap();
        let entries = describe_topic(&none, &layers, &config, 3);
        let shown = entry(&entries, "retention.ms");
        assert_eq!((shown.value.as_deref(), shown.source), (Some("7200000"), Source::StaticBroker));
        assert_eq!(entries.len(), TOPIC_KEYS.len());
        let flush = entry(&entries, "flush.messages");
        assert_eq!((flush.value.as_deref(), flush.source, flush.kind), (Some("1"), Source::Default, Some(Kind::Long)));
        assert_eq!(entry(&entries, "min.insync.replicas").value.as_deref(), Some("2"));
    }

    #[test]
    fn a_broker_entry_shows_its_family_from_its_own_value_on() {
        let (none, file) = (map(&[]), map(&[("log.retention.hours", "2"), ("log.retention.minutes", "3")]));
        let layers = Layers { dynamic_broker: &none, dynamic_default: &none, static_broker: &file };
        let entries = describe_broker(LOG_KEYS, &layers);
        let hours = entry(&entries, "log.retention.hours");
        assert_eq!((hours.value.as_deref(), hours.source, hours.read_only), (Some("2"), Source::StaticBroker, true));
        let ms = entry(&entries, "log.retention.ms");
        assert_eq!((ms.value, ms.source, ms.read_only), (None, Source::Default, false));
        assert_eq!(entries.len(), LOG_KEYS.len());
    }

    #[test]
    fn the_cluster_default_lists_only_what_is_set() {
        let set = map(&[("message.max.bytes", "77")]);
        let entries = describe_cluster_default(LOG_KEYS, &set);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].synonyms, [synonym("message.max.bytes", "77", Source::DynamicDefaultBroker)]);
    }

    #[test]
    fn a_group_shows_its_own_values_and_defaults() {
        let entries = describe_group(&map(&[("consumer.session.timeout.ms", " 50000 ")]));
        let own = entry(&entries, "consumer.session.timeout.ms");
        assert_eq!((own.value.as_deref(), own.source), (Some("50000"), Source::Group));
        assert_eq!(entry(&entries, "share.session.timeout.ms").source, Source::Default);
    }

    #[test]
    fn sensitive_values_are_hidden() {
        static SECRET: Definition = Definition::unset("some.password", Kind::Password).says("A secret.");
        let (none, file) = (map(&[]), map(&[("some.password", "hunter2")]));
        let layers = Layers { dynamic_broker: &none, dynamic_default: &none, static_broker: &file };
        let shown = &describe_broker([&SECRET], &layers)[0];
        assert!(shown.sensitive && shown.value.is_none());
        assert_eq!(shown.synonyms[0].value, None);
    }
}
