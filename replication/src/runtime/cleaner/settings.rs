//! The cleaner's settings, read from the broker's keys as they are now. Values were judged when they were set; one that
//! cannot be used all the same counts as not set.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_storage::compaction::offset_map::SLOT_BYTES;

/// Below this a map is of no use; Kafka's own bound for one thread.
const MAP_BYTES_MIN: u64 = 1 << 20;

/// See the module's comment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CleanerSettings {
    /// `log.cleaner.enable`.
    pub(super) is_enabled: bool,
    /// `log.cleaner.backoff.ms`.
    pub(super) backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`.
    pub(super) map_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`.
    pub(super) map_load_factor: f64,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub(super) bytes_per_second: f64,
}

impl Default for CleanerSettings {
    /// Kafka's defaults.
    fn default() -> CleanerSettings {
        CleanerSettings {
            is_enabled: true,
            backoff: Duration::from_secs(15),
            map_bytes: 128 << 20,
            map_load_factor: 0.9,
            bytes_per_second: f64::MAX,
        }
    }
}

impl CleanerSettings {
    /// From the broker's settings, those that nobody made left out.
    pub(super) fn effective(broker: &BTreeMap<String, String>) -> CleanerSettings {
        fn of<T: std::str::FromStr>(broker: &BTreeMap<String, String>, key: &str) -> Option<T> {
            broker.get(key)?.trim().parse().ok()
        }
        let default = CleanerSettings::default();
        let is_off = broker.get("log.cleaner.enable").is_some_and(|value| value.trim().eq_ignore_ascii_case("false"));
        CleanerSettings {
            is_enabled: !is_off,
            backoff: of(broker, "log.cleaner.backoff.ms").map_or(default.backoff, Duration::from_millis),
            map_bytes: of(broker, "log.cleaner.dedupe.buffer.size").unwrap_or(default.map_bytes).max(MAP_BYTES_MIN),
            map_load_factor: of(broker, "log.cleaner.io.buffer.load.factor").unwrap_or(default.map_load_factor),
            bytes_per_second: of(broker, "log.cleaner.io.max.bytes.per.second")
                .filter(|rate| *rate > 0.0)
                .unwrap_or(default.bytes_per_second),
        }
    }
}

const _: () = assert!(MAP_BYTES_MIN > 1_000 * SLOT_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(settings: &[(&str, &str)]) -> CleanerSettings {
        CleanerSettings::effective(&settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn what_is_set_counts_and_what_is_not_has_kafkas_default() {
        assert_eq!(of(&[]), CleanerSettings::default());
        let set = of(&[
            ("log.cleaner.enable", "FALSE"),
            ("log.cleaner.backoff.ms", "20"),
            ("log.cleaner.dedupe.buffer.size", "2097152"),
            ("log.cleaner.io.buffer.load.factor", "0.5"),
            ("log.cleaner.io.max.bytes.per.second", "1048576.0"),
        ]);
        let expected = CleanerSettings {
            is_enabled: false,
            backoff: Duration::from_millis(20),
            map_bytes: 2 << 20,
            map_load_factor: 0.5,
            bytes_per_second: 1_048_576.0,
        };
        assert_eq!(set, expected);
        assert_eq!(of(&[("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308")]).bytes_per_second, f64::MAX);
    }
}
