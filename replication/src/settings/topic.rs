//! A topic's effective settings, parsed: what lanes, retention and validation read. Kafka's `LogConfig`.
//!
//! A value comes from the topic's override, else from the first broker key in the synonym chain that is set, else from
//! the default. Nothing here changes: a new configuration is a new value.

use std::collections::BTreeMap;
use std::time::Duration;

use super::definition::Definition;
use super::judge::is_internal;
use super::log_keys::{log_key, unit_ms};
use super::problem::Problem;
use super::throttled::ThrottledReplicas;
use super::topic_keys::{OBSOLETE_TOPIC_KEYS, TOPIC_KEYS, topic_key};
use super::value::{accept, check, elements};

/// What happens to old records. Both may be set; neither keeps everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Whole segments go by age and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

/// The codec batches are stored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// What the producer chose.
    Producer,
    /// None.
    Uncompressed,
    /// gzip at `compression.gzip.level`.
    Gzip,
    /// snappy, which has no levels.
    Snappy,
    /// lz4 at `compression.lz4.level`.
    Lz4,
    /// zstd at `compression.zstd.level`.
    Zstd,
}

/// Whose clock stamps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at append.
    LogAppendTime,
}

/// A topic's effective settings. Durations that are `None` mean "no limit".
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `retention.ms`; `None` keeps records for ever.
    pub retention: Option<Duration>,
    /// `retention.bytes` per partition; `None` sets no limit.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_age_max: Duration,
    /// `segment.jitter.ms`: the greatest random time taken off `segment_age_max`.
    pub segment_jitter: Duration,
    /// `segment.index.bytes`: a segment whose index would take more in Kafka's format is followed by a new one.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: the largest batch, compressed, whole header included.
    pub max_message_bytes: u32,
    /// `min.insync.replicas` as somebody set it; [`TopicConfig::effective_min_isr`] is what counts.
    pub min_insync_replicas: Option<i32>,
    /// `compression.type`.
    pub compression: Compression,
    /// `compression.gzip.level`.
    pub gzip_level: i32,
    /// `compression.lz4.level`.
    pub lz4_level: i32,
    /// `compression.zstd.level`.
    pub zstd_level: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max: Option<Duration>,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max: Option<Duration>,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag: Option<Duration>,
    /// `delete.retention.ms`: how long tombstones stay after compaction.
    pub delete_retention: Duration,
    /// `file.delete.delay.ms`.
    pub file_delete_delay: Duration,
    /// `flush.messages`; 1 makes the topic strict.
    pub flush_messages: u64,
    /// `flush.ms`: the longest un-flushed time of a relaxed topic.
    pub flush_interval: Option<Duration>,
    /// `unclean.leader.election.enable` as set; [`TopicConfig::allows_unclean_election`] is what counts.
    pub unclean_leader_election: bool,
    /// `preallocate`.
    pub preallocate: bool,
    /// `leader.replication.throttled.replicas`: whose leaders send no faster than their broker may.
    pub leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`: who fetches no faster than its broker may.
    pub follower_throttled: ThrottledReplicas,
}

impl TopicConfig {
    /// The settings of a user's topic.
    ///
    /// `overrides` are the topic's own; `broker` holds what is set on the broker by broker key, dynamic values already
    /// laid over static ones ([`super::Layers::merged`]); keys that are no synonym of a topic key are ignored.
    /// All problems are reported, not only the first.
    pub fn effective(
        overrides: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, Vec<Problem>> {
        let mut problems = problems_of_overrides(overrides);
        for definition in TOPIC_KEYS {
            for key in definition.broker_keys() {
                if let (Some(value), Some(broker_key)) = (broker.get(*key), log_key(key))
                    && let Err(problem) = check(broker_key, value)
                    && !problems.contains(&problem)
                {
                    problems.push(problem);
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let config = Effective { overrides, broker }.config();
        let min = millis(config.min_compaction_lag);
        match config.max_compaction_lag.map(millis) {
            Some(max) if min > max => Err(vec![Problem::CompactionLag { min, max }]),
            _ => Ok(config),
        }
    }

    /// The settings of an internal topic: as [`TopicConfig::effective`], and always strict.
    pub fn effective_internal(
        overrides: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, Vec<Problem>> {
        TopicConfig::effective(overrides, broker).map(TopicConfig::internal)
    }

    /// What a topic runs with, whatever is set, and what of it does not hold.
    ///
    /// Settings are judged before they are accepted, but not every broker's file with every topic's own. So nothing here
    /// refuses: a value that does not hold is left out alone, records that wait too long to be compacted are compacted
    /// in time, and while anybody's word on what to delete is not understood nothing is deleted. Above all the promise
    /// ([`TopicConfig::is_strict`], [`TopicConfig::effective_min_isr`]) never changes for another key's sake.
    pub fn in_force(
        topic: &str,
        overrides: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> (TopicConfig, Vec<Problem>) {
        let judged = TopicConfig::effective(overrides, broker);
        let (config, problems) = match judged {
            Ok(config) => (config, Vec::new()),
            Err(problems) => (TopicConfig::mended(overrides, broker), problems),
        };
        if is_internal(topic) { (config.internal(), problems) } else { (config, problems) }
    }

    /// See [`TopicConfig::in_force`]: the settings without those that do not hold.
    fn mended(overrides: &BTreeMap<String, String>, broker: &BTreeMap<String, String>) -> TopicConfig {
        let deletes = |definition: &Definition| DELETING_KEYS.contains(&definition.name.trim_start_matches("log."));
        let mut keeps_all = false;
        let mut holds = |definition: Option<&Definition>, verdict: Result<(), Problem>| {
            keeps_all |= verdict.is_err() && definition.is_some_and(deletes);
            verdict.is_ok()
        };
        let (mut overrides, mut broker) = (overrides.clone(), broker.clone());
        overrides.retain(|key, value| {
            let definition = topic_key(key);
            holds(definition, definition.map_or(Ok(()), |definition| accept(definition, value)))
        });
        broker.retain(|key, value| {
            let definition = log_key(key);
            holds(definition, definition.map_or(Ok(()), |definition| check(definition, value)))
        });
        let mut config = Effective { overrides: &overrides, broker: &broker }.config();
        if let Some(max) = config.max_compaction_lag {
            config.min_compaction_lag = config.min_compaction_lag.min(max);
        }
        if keeps_all {
            (config.retention, config.retention_bytes) = (None, None);
        }
        config
    }

    /// As the cluster's own topics are, whatever is set: strict.
    fn internal(self) -> TopicConfig {
        TopicConfig { flush_messages: 1, unclean_leader_election: false, ..self }
    }

    /// The settings of a topic for which nobody has set anything.
    pub fn defaults() -> TopicConfig {
        Effective { overrides: &BTreeMap::new(), broker: &BTreeMap::new() }.config()
    }

    /// Whether an acknowledgement means "on disk on every in-sync replica".
    pub fn is_strict(&self) -> bool {
        self.flush_messages == 1
    }

    /// How many in-sync replicas an acknowledgement needs: the setting, or 1 for one or two replicas and 2 for more;
    /// never above the number of replicas.
    pub fn effective_min_isr(&self, replicas: usize) -> usize {
        let wished = match self.min_insync_replicas {
            Some(wished) => usize::try_from(wished).unwrap_or(1),
            None => default_min_isr(replicas),
        };
        wished.min(replicas).max(1)
    }

    /// Whether a replica outside the in-sync set may lead. Never on a strict topic.
    pub fn allows_unclean_election(&self) -> bool {
        self.unclean_leader_election && !self.is_strict()
    }
}

/// What says which records go, by the topic's name of it or the broker's without its `log.`.
const DELETING_KEYS: [&str; 5] =
    ["cleanup.policy", "retention.ms", "retention.minutes", "retention.hours", "retention.bytes"];

/// `min.insync.replicas` while nobody sets it.
pub fn default_min_isr(replicas: usize) -> usize {
    if replicas <= 2 { 1 } else { 2 }
}

/// The problems of a topic's own settings, each looked at alone. Obsolete keys are no problem.
pub fn problems_of_overrides(overrides: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, value) in overrides {
        match topic_key(key) {
            Some(definition) => problems.extend(accept(definition, value).err()),
            None if OBSOLETE_TOPIC_KEYS.contains(&key.as_str()) => {}
            None => problems.push(Problem::UnknownTopicKey { key: key.clone() }),
        }
    }
    problems
}

/// A topic key's effective value as text; a broker's hours and minutes become milliseconds.
/// `None` only for a key whose default is null.
pub fn effective_text(
    definition: &Definition,
    overrides: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> Option<String> {
    if let Some(value) = overrides.get(definition.name) {
        return Some(value.trim().to_owned());
    }
    let inherited = definition.broker_keys().iter().find_map(|key| Some((key, broker.get(*key)?)));
    match inherited {
        Some((key, value)) => Some(in_topic_unit(key, value)),
        None => definition.default.map(str::to_owned),
    }
}

fn in_topic_unit(broker_key: &str, value: &str) -> String {
    let unit = unit_ms(broker_key);
    match value.trim().parse::<i64>() {
        Ok(number) if unit > 1 => if number < 0 { -1 } else { number.saturating_mul(unit) }.to_string(),
        _ => value.trim().to_owned(),
    }
}

/// Reads validated settings; a value that does not parse here is our own bug.
struct Effective<'a> {
    overrides: &'a BTreeMap<String, String>,
    broker: &'a BTreeMap<String, String>,
}

impl Effective<'_> {
    fn config(&self) -> TopicConfig {
        let policy = self.text("cleanup.policy");
        let policy = elements(&policy);
        TopicConfig {
            cleanup_policy: CleanupPolicy { delete: policy.contains(&"delete"), compact: policy.contains(&"compact") },
            retention: self.bounded("retention.ms"),
            retention_bytes: u64::try_from(self.whole("retention.bytes")).ok(),
            segment_bytes: self.size("segment.bytes"),
            segment_age_max: self.duration("segment.ms"),
            segment_jitter: self.duration("segment.jitter.ms"),
            segment_index_bytes: self.size("segment.index.bytes"),
            index_interval_bytes: self.size("index.interval.bytes"),
            max_message_bytes: self.size("max.message.bytes"),
            min_insync_replicas: self.find("min.insync.replicas").map(|text| parsed(&text)),
            compression: match self.text("compression.type").as_str() {
                "producer" => Compression::Producer,
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip,
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4,
                "zstd" => Compression::Zstd,
                other => unreachable!("compression.type={other} passed validation"),
            },
            gzip_level: parsed(&self.text("compression.gzip.level")),
            lz4_level: parsed(&self.text("compression.lz4.level")),
            zstd_level: parsed(&self.text("compression.zstd.level")),
            timestamp_type: match self.text("message.timestamp.type").as_str() {
                "CreateTime" => TimestampType::CreateTime,
                "LogAppendTime" => TimestampType::LogAppendTime,
                other => unreachable!("message.timestamp.type={other} passed validation"),
            },
            timestamp_before_max: self.bounded("message.timestamp.before.max.ms"),
            timestamp_after_max: self.bounded("message.timestamp.after.max.ms"),
            min_cleanable_dirty_ratio: parsed(&self.text("min.cleanable.dirty.ratio")),
            min_compaction_lag: self.duration("min.compaction.lag.ms"),
            max_compaction_lag: self.bounded("max.compaction.lag.ms"),
            delete_retention: self.duration("delete.retention.ms"),
            file_delete_delay: self.duration("file.delete.delay.ms"),
            flush_messages: parsed(&self.text("flush.messages")),
            flush_interval: self.bounded("flush.ms"),
            unclean_leader_election: self.boolean("unclean.leader.election.enable"),
            preallocate: self.boolean("preallocate"),
            leader_throttled: ThrottledReplicas::read(&self.text("leader.replication.throttled.replicas")),
            follower_throttled: ThrottledReplicas::read(&self.text("follower.replication.throttled.replicas")),
        }
    }

    fn find(&self, key: &str) -> Option<String> {
        let definition = topic_key(key).unwrap_or_else(|| panic!("{key} is not in the table of topic keys"));
        effective_text(definition, self.overrides, self.broker)
    }

    fn text(&self, key: &str) -> String {
        self.find(key).unwrap_or_else(|| panic!("{key} has no default"))
    }

    fn whole(&self, key: &str) -> i64 {
        parsed(&self.text(key))
    }

    fn size(&self, key: &str) -> u32 {
        parsed(&self.text(key))
    }

    fn boolean(&self, key: &str) -> bool {
        self.text(key).eq_ignore_ascii_case("true")
    }

    /// A duration that cannot be negative after validation, except through a broker's unchecked key: then 0.
    fn duration(&self, key: &str) -> Duration {
        Duration::from_millis(u64::try_from(self.whole(key)).unwrap_or(0))
    }

    /// A duration where a negative number and Kafka's `Long.MAX_VALUE` mean "no limit".
    fn bounded(&self, key: &str) -> Option<Duration> {
        match self.whole(key) {
            i64::MAX => None,
            ms => u64::try_from(ms).ok().map(Duration::from_millis),
        }
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.trim().parse().unwrap_or_else(|_| panic!("{text} passed validation and does not parse"))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn defaults_are_those_of_kafka_except_flush_messages() {
        let config = TopicConfig::effective(&map(&[]), &map(&[])).unwrap();
        assert_eq!(config, TopicConfig::defaults());
        assert!(config.is_strict());
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: false });
        assert_eq!(config.retention, Some(Duration::from_secs(7 * 24 * 3600)));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.timestamp_after_max, Some(Duration::from_secs(3600)));
        assert_eq!(config.timestamp_before_max, None);
        assert_eq!(config.flush_interval, None);
        assert_eq!(config.min_insync_replicas, None);
    }

    #[test]
    fn override_goes_before_broker_and_broker_before_default() {
        let broker = map(&[("log.segment.bytes", "2097152"), ("message.max.bytes", "500")]);
        let config = TopicConfig::effective(&map(&[("segment.bytes", "1048576")]), &broker).unwrap();
        assert_eq!(config.segment_bytes, 1_048_576);
        assert_eq!(config.max_message_bytes, 500);
    }

    #[test]
    fn milliseconds_go_before_minutes_before_hours() {
        let mut broker = map(&[("log.retention.hours", "2")]);
        let retention = |broker: &BTreeMap<_, _>| TopicConfig::effective(&map(&[]), broker).unwrap().retention;
        assert_eq!(retention(&broker), Some(Duration::from_secs(7200)));
        broker.insert("log.retention.minutes".into(), "3".into());
        assert_eq!(retention(&broker), Some(Duration::from_secs(180)));
        broker.insert("log.retention.ms".into(), "-1".into());
        assert_eq!(retention(&broker), None);
    }

    #[test]
    fn unset_min_isr_follows_the_number_of_replicas() {
        let config = TopicConfig::defaults();
        assert_eq!([1, 2, 3, 5].map(|replicas| config.effective_min_isr(replicas)), [1, 1, 2, 2]);
        let wished = TopicConfig::effective(&map(&[("min.insync.replicas", "3")]), &map(&[])).unwrap();
        assert_eq!([1, 3, 5].map(|replicas| wished.effective_min_isr(replicas)), [1, 3, 3]);
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let overrides = map(&[("retention.ms", "x"), ("retentionms", "1"), ("remote.storage.enable", "true")]);
        let problems = TopicConfig::effective(&overrides, &map(&[("log.roll.hours", "0")])).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert!(problems.iter().any(
            |problem| problem.to_string() == "Unknown topic config name: retentionms (did you mean retention.ms?)"
        ));
    }

    #[test]
    fn obsolete_keys_have_no_effect() {
        let overrides = map(&[("message.format.version", "2.8")]);
        assert_eq!(TopicConfig::effective(&overrides, &map(&[])), Ok(TopicConfig::defaults()));
    }

    #[test]
    fn a_compaction_lag_that_contradicts_itself_is_a_problem() {
        let overrides = map(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")]);
        assert_eq!(
            TopicConfig::effective(&overrides, &map(&[])),
            Err(vec![Problem::CompactionLag { min: 10, max: 5 }])
        );
    }

    #[test]
    fn a_contradiction_changes_nothing_but_the_lag() {
        let own = [
            ("max.compaction.lag.ms", "60000"),
            ("cleanup.policy", "compact"),
            ("retention.ms", "-1"),
            ("min.insync.replicas", "3"),
        ];
        let broker = map(&[("log.cleaner.min.compaction.lag.ms", "3600000")]);
        let (config, problems) = TopicConfig::in_force("t", &map(&own), &broker);
        assert_eq!(problems, [Problem::CompactionLag { min: 3_600_000, max: 60_000 }]);
        let whole = TopicConfig::effective(&map(&own), &map(&[])).unwrap();
        assert_eq!(config, TopicConfig { min_compaction_lag: Duration::from_secs(60), ..whole });
    }

    #[test]
    fn a_value_that_does_not_hold_is_left_out_alone_and_never_deletes_more() {
        let own = [("retention.ms", "soon"), ("flush.messages", "9"), ("min.insync.replicas", "3")];
        let (config, problems) = TopicConfig::in_force("t", &map(&own), &map(&[("log.retention.bytes", "many")]));
        assert_eq!((config.retention, config.retention_bytes), (None, None));
        assert_eq!((config.flush_messages, config.min_insync_replicas), (9, Some(3)));
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (relaxed, _) = TopicConfig::in_force("__consumer_offsets", &map(&own), &map(&[]));
        assert!(relaxed.is_strict());
        let (config, _) = TopicConfig::in_force("t", &map(&[("flush.messages", "never")]), &map(&[]));
        assert_eq!(config, TopicConfig::defaults(), "an unreadable promise is the strict one");
    }

    #[test]
    fn internal_topics_are_strict_whatever_the_broker_says() {
        let broker = map(&[("log.flush.interval.messages", "10000"), ("unclean.leader.election.enable", "true")]);
        assert!(!TopicConfig::effective(&map(&[]), &broker).unwrap().is_strict());
        let internal = TopicConfig::effective_internal(&map(&[("cleanup.policy", "compact")]), &broker).unwrap();
        assert!(internal.is_strict() && !internal.allows_unclean_election() && internal.cleanup_policy.compact);
    }

    #[test]
    fn flush_ms_never_relaxes() {
        let config = TopicConfig::effective(&map(&[("flush.ms", "5000")]), &map(&[])).unwrap();
        assert!(config.is_strict());
        assert_eq!(config.flush_interval, Some(Duration::from_secs(5)));
    }
}
