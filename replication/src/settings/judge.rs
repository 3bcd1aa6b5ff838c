//! A topic's settings judged whole, as DESIGN.md §1 asks: at create, alter at any level, and changes of replicas.
//!
//! A problem refuses the change; a warning is named in the answer where it has room, and in `cluster health`.

use std::collections::BTreeMap;

use super::problem::Problem;
use super::topic::{TopicConfig, default_min_isr};

/// Settings that may be used, and what weakens the promise in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The effective settings.
    pub config: TopicConfig,
    /// What the owner should know.
    pub warnings: Vec<Warning>,
}

/// A legal setting that weakens the promise or cannot have its effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// One replica down stops writes.
    #[error("min.insync.replicas={0} equals the number of replicas: writes stop when any one replica is down")]
    MinIsrEqualsReplicas(i32),
    /// The setting is higher than can be met; the number of replicas counts.
    #[error("min.insync.replicas={min_isr} is above the {replicas} replica(s): {replicas} is used")]
    MinIsrAboveReplicas {
        /// As it was set.
        min_isr: i32,
        /// The topic's replication factor.
        replicas: usize,
    },
    /// The leader alone acknowledges.
    #[error("min.insync.replicas=1 with {0} replicas: a record may be acknowledged while only one copy exists")]
    MinIsrOne(usize),
    /// An inherited true that a strict topic does not follow.
    #[error(
        "unclean.leader.election.enable=true is inherited and without effect: the topic is strict (flush.messages=1)"
    )]
    UncleanWithoutEffect,
    /// The topic has Kafka's own contract.
    #[error("flush.messages={0} makes the topic relaxed: a power failure may lose acknowledged records")]
    Relaxed(u64),
}

/// Judges a topic's settings. `topic` decides only whether the topic is an internal one.
pub fn judge_topic(
    topic: &str,
    overrides: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
    replicas: usize,
) -> Result<Judgement, Vec<Problem>> {
    let internal = is_internal(topic);
    let config = if internal {
        TopicConfig::effective_internal(overrides, broker)
    } else {
        TopicConfig::effective(overrides, broker)
    }?;
    let problems = problems_of_whole(topic, internal, &config, overrides);
    if problems.is_empty() {
        Ok(Judgement { warnings: warnings(&config, internal, broker, overrides, replicas), config })
    } else {
        Err(problems)
    }
}

/// Whether this is one of the topics Kafka calls internal.
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

fn problems_of_whole(
    topic: &str,
    internal: bool,
    config: &TopicConfig,
    overrides: &BTreeMap<String, String>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let says_true = |key: &str| overrides.get(key).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if says_true("unclean.leader.election.enable") && config.is_strict() {
        problems.push(Problem::UncleanOnStrict);
    }
    if internal
        && let Some(value) = overrides.get("flush.messages").and_then(|text| text.trim().parse().ok())
        && value != 1
    {
        problems.push(Problem::RelaxedInternal { topic: topic.to_owned(), value });
    }
    problems
}

fn warnings(
    config: &TopicConfig,
    internal: bool,
    broker: &BTreeMap<String, String>,
    overrides: &BTreeMap<String, String>,
    replicas: usize,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(min_isr) = config.min_insync_replicas {
        let wished = usize::try_from(min_isr).unwrap_or(1);
        if wished > replicas {
            warnings.push(Warning::MinIsrAboveReplicas { min_isr, replicas });
        } else if wished == replicas && replicas > 1 {
            warnings.push(Warning::MinIsrEqualsReplicas(min_isr));
        } else if wished < default_min_isr(replicas) {
            warnings.push(Warning::MinIsrOne(replicas));
        }
    }
    let inherited = !overrides.contains_key("unclean.leader.election.enable")
        && broker.get("unclean.leader.election.enable").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if inherited && config.is_strict() && !internal {
        warnings.push(Warning::UncleanWithoutEffect);
    }
    if !config.is_strict() {
        warnings.push(Warning::Relaxed(config.flush_messages));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn warned(overrides: &[(&str, &str)], broker: &[(&str, &str)], replicas: usize) -> Vec<Warning> {
        judge_topic("t", &map(overrides), &map(broker), replicas).unwrap().warnings
    }

    #[test]
    fn defaults_warn_of_nothing() {
        assert_eq!([1, 2, 3].map(|replicas| warned(&[], &[], replicas)), [vec![], vec![], vec![]]);
    }

    #[test]
    fn min_isr_is_judged_against_the_replicas() {
        let with = |value, replicas| warned(&[("min.insync.replicas", value)], &[], replicas);
        assert_eq!(with("1", 1), []);
        assert_eq!(with("2", 2), [Warning::MinIsrEqualsReplicas(2)]);
        assert_eq!(with("2", 1), [Warning::MinIsrAboveReplicas { min_isr: 2, replicas: 1 }]);
        assert_eq!(with("1", 3), [Warning::MinIsrOne(3)]);
        assert_eq!(with("2", 3), []);
    }

    #[test]
    fn explicit_unclean_election_is_refused_on_a_strict_topic() {
        let unclean = ("unclean.leader.election.enable", "true");
        assert_eq!(judge_topic("t", &map(&[unclean]), &map(&[]), 1), Err(vec![Problem::UncleanOnStrict]));
        let relaxed = judge_topic("t", &map(&[unclean, ("flush.messages", "10")]), &map(&[]), 1).unwrap();
        assert!(relaxed.config.allows_unclean_election());
        assert_eq!(relaxed.warnings, [Warning::Relaxed(10)]);
    }

    #[test]
    fn inherited_unclean_election_has_no_effect_and_is_named() {
        let broker = map(&[("unclean.leader.election.enable", "true")]);
        let judgement = judge_topic("t", &map(&[]), &broker, 1).unwrap();
        assert!(!judgement.config.allows_unclean_election());
        assert_eq!(judgement.warnings, [Warning::UncleanWithoutEffect]);
    }

    #[test]
    fn internal_topics_cannot_be_relaxed() {
        let overrides = map(&[("flush.messages", "100")]);
        assert_eq!(
            judge_topic("__consumer_offsets", &overrides, &map(&[]), 1),
            Err(vec![Problem::RelaxedInternal { topic: "__consumer_offsets".to_owned(), value: 100 }])
        );
        assert!(judge_topic("__mine", &overrides, &map(&[]), 1).is_ok());
    }
}
