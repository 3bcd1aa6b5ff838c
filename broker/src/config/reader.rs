//! Accepted settings, read by key and type. What is not set has its default; what does not parse was reported before
//! and counts as not set, so that one mistake does not hide the next.

use std::collections::BTreeMap;
use std::time::Duration;

use super::broker_keys::broker_key;
use super::setting::Setting;

/// The settings that passed validation.
pub(super) struct Reader<'a> {
    settings: &'a BTreeMap<String, Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(settings: &'a BTreeMap<String, Setting>) -> Reader<'a> {
        Reader { settings }
    }

    /// The setting somebody made, unless its value is empty.
    pub(super) fn set(&self, key: &str) -> Option<&'a Setting> {
        debug_assert!(broker_key(key).is_some(), "{key} is in no table");
        self.settings.get(key).filter(|setting| !setting.value.trim().is_empty())
    }

    /// The value or the default as text; empty when there is neither.
    pub(super) fn text(&self, key: &str) -> &'a str {
        match self.set(key) {
            Some(setting) => setting.value.trim(),
            None => broker_key(key).and_then(|definition| definition.default).unwrap_or(""),
        }
    }

    pub(super) fn whole(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap_or_else(|_| panic!("{key} has neither a value nor a default that is a number"))
    }

    /// A size or count that its definition keeps from being negative.
    pub(super) fn size(&self, key: &str) -> u32 {
        u32::try_from(self.whole(key)).unwrap_or(0)
    }

    pub(super) fn size64(&self, key: &str) -> u64 {
        u64::try_from(self.whole(key)).unwrap_or(0)
    }

    pub(super) fn int(&self, key: &str) -> i32 {
        i32::try_from(self.whole(key)).unwrap_or(i32::MAX)
    }

    pub(super) fn boolean(&self, key: &str) -> bool {
        self.text(key).eq_ignore_ascii_case("true")
    }

    pub(super) fn millis(&self, key: &str) -> Duration {
        Duration::from_millis(self.size64(key))
    }

    pub(super) fn minutes(&self, key: &str) -> Duration {
        Duration::from_secs(self.size64(key).saturating_mul(60))
    }

    /// A replication factor somebody set.
    pub(super) fn factor(&self, key: &str) -> Option<i16> {
        self.set(key).and_then(|setting| setting.value.trim().parse().ok())
    }
}
