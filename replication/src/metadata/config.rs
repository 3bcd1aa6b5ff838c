//! Settings that were made dynamically: which resource, which keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stonelog_protocol::BrokerId;

/// The overrides of one resource, by key.
pub type ConfigValues = BTreeMap<String, String>;

/// What a dynamic setting belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigResource {
    /// One topic, by name.
    Topic(Arc<str>),
    /// One broker, or with `None` the default of all brokers.
    Broker(Option<BrokerId>),
    /// One group, by id.
    Group(Arc<str>),
    /// What the active controller's own configuration says of the keys that hold for the whole cluster
    /// ([`crate::settings::CLUSTER_KEYS`]). Written at its activation, by nobody else.
    Recorded,
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigResource::Topic(name) => write!(f, "topic {name}"),
            ConfigResource::Broker(Some(id)) => write!(f, "broker {id}"),
            ConfigResource::Broker(None) => f.write_str("all brokers"),
            ConfigResource::Group(id) => write!(f, "group {id}"),
            ConfigResource::Recorded => f.write_str("the controller"),
        }
    }
}

/// The dynamic settings of an image. Resources without any are absent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Configs {
    pub(super) topics: BTreeMap<Arc<str>, Arc<ConfigValues>>,
    pub(super) brokers: BTreeMap<Option<BrokerId>, Arc<ConfigValues>>,
    pub(super) groups: BTreeMap<Arc<str>, Arc<ConfigValues>>,
    /// At most the one entry of [`ConfigResource::Recorded`].
    pub(super) recorded: BTreeMap<(), Arc<ConfigValues>>,
}

impl Configs {
    pub(super) fn get(&self, resource: &ConfigResource) -> Option<&Arc<ConfigValues>> {
        match resource {
            ConfigResource::Topic(name) => self.topics.get(name),
            ConfigResource::Broker(id) => self.brokers.get(id),
            ConfigResource::Group(id) => self.groups.get(id),
            ConfigResource::Recorded => self.recorded.get(&()),
        }
    }

    /// Sets one key, or removes it.
    pub(super) fn set(&mut self, resource: &ConfigResource, key: &str, value: Option<&str>) {
        match resource {
            ConfigResource::Topic(name) => set_in(&mut self.topics, name, key, value),
            ConfigResource::Broker(id) => set_in(&mut self.brokers, id, key, value),
            ConfigResource::Group(id) => set_in(&mut self.groups, id, key, value),
            ConfigResource::Recorded => set_in(&mut self.recorded, &(), key, value),
        }
    }

    /// Every resource with its overrides, topics first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConfigResource, &Arc<ConfigValues>)> {
        let topics = self.topics.iter().map(|(name, values)| (ConfigResource::Topic(name.clone()), values));
        let brokers = self.brokers.iter().map(|(id, values)| (ConfigResource::Broker(*id), values));
        let groups = self.groups.iter().map(|(id, values)| (ConfigResource::Group(id.clone()), values));
        let recorded = self.recorded.values().map(|values| (ConfigResource::Recorded, values));
        topics.chain(brokers).chain(groups).chain(recorded)
    }
}

fn set_in<K: Ord + Clone>(map: &mut BTreeMap<K, Arc<ConfigValues>>, name: &K, key: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            let values = map.entry(name.clone()).or_default();
            Arc::make_mut(values).insert(key.to_owned(), value.to_owned());
        }
        None => {
            let Some(values) = map.get_mut(name) else { return };
            Arc::make_mut(values).remove(key);
            if values.is_empty() {
                map.remove(name);
            }
        }
    }
}
