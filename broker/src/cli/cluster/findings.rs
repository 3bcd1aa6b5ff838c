//! What is wrong with a cluster, judged from one look at it. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::client::Error;
use crate::client::cluster_admin::{LogDirState, PartitionState};
use crate::client::survey::Survey;

/// A voter that had not everything for so long is missing, in milliseconds: more than a heartbeat and a write take.
const VOTER_BEHIND_MS_MAX: i64 = 10_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something does not work, or the next failure would be one too many.
    Problem,
    /// It works as it was asked to, which is less than it could.
    Warning,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Severity::Problem => "PROBLEM",
            Severity::Warning => "warning",
        }
    }
}

/// What it is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    NoController,
    NoLeader,
    BelowMinIsr,
    BrokerFenced,
    BrokerUnreachable,
    DirectoryOffline,
    VoterMissing,
    UnderReplicated,
    AtMinIsr,
    WeakSettings,
}

impl Kind {
    pub(super) fn meaning(self) -> &'static str {
        match self {
            Kind::NoController => "nobody can change topics, settings or leaders",
            Kind::NoLeader => "partitions nobody leads: neither written nor read",
            Kind::BelowMinIsr => "partitions with too few replicas in sync: not written",
            Kind::BrokerFenced => "brokers out of touch or not ready",
            Kind::BrokerUnreachable => "brokers that do not answer here",
            Kind::DirectoryOffline => "log directories that failed",
            Kind::VoterMissing => "metadata voters that do not keep up",
            Kind::UnderReplicated => "partitions with replicas that are not in sync",
            Kind::AtMinIsr => "partitions that one more failure would stop",
            Kind::WeakSettings => "topics whose settings promise less than they could",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) kind: Kind,
    /// A partition `topic:index`, a topic, a broker.
    pub(super) subject: String,
    pub(super) detail: String,
}

/// What of a broker's directories is known.
pub(super) type Directories = [(i32, Result<Vec<LogDirState>, Error>)];

/// Everything that is wrong, by kind.
pub(super) fn judge(survey: &Survey, directories: &Directories) -> Vec<Finding> {
    let mut found = Vec::new();
    of_brokers(survey, directories, &mut found);
    of_quorum(survey, &mut found);
    for partition in &survey.partitions {
        of_partition(survey, partition, &mut found);
    }
    of_settings(survey, &mut found);
    // Stable: within a kind in the order of the cluster.
    found.sort_by_key(|finding| (finding.severity, finding.kind));
    found
}

fn problem(kind: Kind, subject: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { severity: Severity::Problem, kind, subject: subject.into(), detail: detail.into() }
}

fn warning(kind: Kind, subject: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, kind, subject: subject.into(), detail: detail.into() }
}

fn of_brokers(survey: &Survey, directories: &Directories, found: &mut Vec<Finding>) {
    for broker in survey.state.brokers.iter().filter(|broker| broker.fenced) {
        found.push(problem(Kind::BrokerFenced, format!("broker {}", broker.id), format!("at {}", broker.address)));
    }
    for (broker, result) in directories {
        match result {
            Err(error) => {
                found.push(problem(Kind::BrokerUnreachable, format!("broker {broker}"), error.to_string()));
            }
            Ok(all) => {
                let failed = all.iter().filter(|directory| directory.error.is_some());
                found.extend(failed.map(|directory| {
                    let detail = "see the broker's log; `stonelog storage reopen` puts it back into use";
                    problem(Kind::DirectoryOffline, format!("broker {broker}, {}", directory.path), detail)
                }));
            }
        }
    }
}

fn of_quorum(survey: &Survey, found: &mut Vec<Finding>) {
    let quorum = match &survey.quorum {
        Ok(quorum) => quorum,
        // An older broker does not tell; one that does and fails has no controller.
        Err(Error::Unsupported { .. }) => return,
        Err(error) => {
            found.push(problem(Kind::NoController, "the metadata quorum", error.to_string()));
            return;
        }
    };
    let leader = quorum.voters.iter().find(|voter| voter.node == quorum.leader);
    for voter in &quorum.voters {
        let behind = leader.map(|leader| leader.last_caught_up_ms - voter.last_caught_up_ms);
        let detail = match behind {
            _ if voter.last_caught_up_ms < 0 => "the leader has not seen it with everything".to_owned(),
            Some(ms) if ms > VOTER_BEHIND_MS_MAX => format!("it has not had everything for {} s", ms / 1_000),
            _ => continue,
        };
        found.push(problem(Kind::VoterMissing, format!("node {}", voter.node), detail));
    }
}

fn of_partition(survey: &Survey, partition: &PartitionState, found: &mut Vec<Finding>) {
    let subject = format!("{}:{}", partition.topic, partition.partition);
    let (isr, min_isr) = (survey.settled_isr(partition).count(), survey.min_isr(partition));
    if partition.leader < 0 {
        found.push(problem(Kind::NoLeader, subject, why_nobody_leads(partition)));
        return;
    }
    let settled = survey.settled_replicas(partition);
    let outside: Vec<String> =
        partition.replicas.iter().filter(|id| !partition.isr.contains(id)).map(i32::to_string).collect();
    if isr < min_isr {
        found.push(problem(Kind::BelowMinIsr, subject, format!("{isr} in sync, {min_isr} are needed")));
    } else if isr < settled {
        let detail = format!("not in sync: {}", outside.join(", "));
        found.push(problem(Kind::UnderReplicated, subject.clone(), detail));
        if isr == min_isr {
            found.push(warning(Kind::AtMinIsr, subject, format!("{isr} in sync, {min_isr} are needed")));
        }
    }
}

/// Who could lead, and what to do.
fn why_nobody_leads(partition: &PartitionState) -> String {
    let join = |ids: &[i32]| ids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
    let mut whole = partition.isr.clone();
    whole.extend(partition.elr.iter().filter(|id| !partition.isr.contains(id)));
    if !whole.is_empty() {
        return format!("brokers {} have all its records: bring one of them back", join(&whole));
    }
    let last = match partition.last_known_elr.as_slice() {
        [] => String::new(),
        last => format!("; broker {} led last", join(last)),
    };
    let replicas = join(&partition.replicas);
    format!(
        "no replica is known to have all its records{last}: `stonelog partition accept-loss {}:{} --replica N` goes on \
         with what one of {replicas} has",
        partition.topic, partition.partition
    )
}

/// By topic, for all its partitions alike.
fn of_settings(survey: &Survey, found: &mut Vec<Finding>) {
    let mut topics: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for partition in &survey.partitions {
        let of = (survey.settled_replicas(partition), survey.min_isr(partition));
        let weakest = topics.entry(&partition.topic).or_insert(of);
        *weakest = (*weakest).min(of);
    }
    let several = survey.state.brokers.len() > 1;
    for (topic, (replicas, min_isr)) in topics {
        if replicas == 1 && several {
            found.push(warning(Kind::WeakSettings, topic, "one replica: it is lost with its broker's disk"));
        } else if replicas > 1 && replicas == min_isr {
            let detail = format!("min.insync.replicas={min_isr} of {replicas} replicas: one broker down stops writes");
            found.push(warning(Kind::WeakSettings, topic, detail));
        } else if replicas >= 3 && min_isr == 1 {
            let detail =
                format!("min.insync.replicas=1 of {replicas} replicas: what one broker has alone is acknowledged");
            found.push(warning(Kind::WeakSettings, topic, detail));
        }
        let unclean = survey.setting(topic, "unclean.leader.election.enable") == Some("true");
        if unclean {
            let detail = match survey.is_strict(topic) {
                true => "unclean.leader.election.enable=true has no effect while the topic is strict",
                false => "unclean.leader.election.enable=true: a replica that lacks records may lead",
            };
            found.push(warning(Kind::WeakSettings, topic, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cluster_admin::{Quorum, QuorumReplica, Reassignment};
    use crate::client::survey::tests::{partition, survey};
    use stonelog_protocol::Uuid;

    fn quorum(caught_up_ms: [i64; 3]) -> Quorum {
        let voter = |(node, last_caught_up_ms)| QuorumReplica {
            node,
            directory: Uuid::ZERO,
            log_end: 1,
            last_fetch_ms: 1,
            last_caught_up_ms,
        };
        let voters = (1..).zip(caught_up_ms).map(voter).collect();
        Quorum { leader: 1, epoch: 1, high_watermark: 1, voters, observers: Vec::new() }
    }

    fn kinds(found: &[Finding]) -> Vec<(Kind, &str)> {
        found.iter().map(|finding| (finding.kind, finding.subject.as_str())).collect()
    }

    #[test]
    fn a_whole_cluster_has_nothing_wrong() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[3, 1, 2])]);
        survey.quorum = Ok(quorum([9_000, 8_000, 9_000]));
        assert_eq!(judge(&survey, &[]), []);
    }

    #[test]
    fn partitions_are_told_worst_first() {
        let partitions = vec![
            partition(0, &[1, 2, 3], &[1, 2]),
            partition(1, &[1, 2, 3], &[1]),
            partition(2, &[1, 2, 3], &[]),
            partition(3, &[1, 2, 3], &[1, 2, 3]),
        ];
        let mut survey = survey(&[3], "2", partitions);
        survey.quorum = Ok(quorum([90_000, 89_000, 2_000]));
        let expected = [
            (Kind::NoLeader, "t:2"),
            (Kind::BelowMinIsr, "t:1"),
            (Kind::BrokerFenced, "broker 3"),
            (Kind::VoterMissing, "node 3"),
            (Kind::UnderReplicated, "t:0"),
            (Kind::AtMinIsr, "t:0"),
        ];
        assert_eq!(kinds(&judge(&survey, &[])), expected);
    }

    #[test]
    fn replicas_being_added_do_not_make_up_for_those_that_are_missing() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[1, 3])]);
        survey.quorum = Ok(quorum([1, 1, 1]));
        survey.partitions[0].replicas = vec![1, 2, 3, 4];
        survey.reassignments = vec![Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![1, 2, 3, 4],
            adding: vec![3, 4],
            removing: vec![2],
        }];
        assert_eq!(kinds(&judge(&survey, &[]))[0], (Kind::BelowMinIsr, "t:0"));
    }

    #[test]
    fn who_has_everything_is_named_where_nobody_leads() {
        let mut offline = partition(0, &[1, 2, 3], &[]);
        offline.elr = vec![2];
        assert!(why_nobody_leads(&offline).contains("brokers 2 have all its records"));
        offline.elr.clear();
        offline.last_known_elr = vec![1];
        let said = why_nobody_leads(&offline);
        assert!(said.contains("broker 1 led last") && said.contains("accept-loss t:0 --replica N"), "{said}");
    }

    #[test]
    fn settings_that_promise_little_are_warnings_once_for_each_topic() {
        for (min_isr, replicas) in [("1", [1, 2, 3].as_slice()), ("3", &[1, 2, 3]), ("1", &[2])] {
            let partitions = vec![partition(0, replicas, replicas), partition(1, replicas, replicas)];
            let mut survey = survey(&[], min_isr, partitions);
            survey.quorum = Ok(quorum([1, 1, 1]));
            assert_eq!(kinds(&judge(&survey, &[])), [(Kind::WeakSettings, "t")], "{min_isr} of {replicas:?}");
        }
    }

    #[test]
    fn a_quorum_that_cannot_be_asked_is_no_controller_unless_nobody_could_ask_it() {
        let mut survey = survey(&[], "2", Vec::new());
        assert_eq!(kinds(&judge(&survey, &[])), [(Kind::NoController, "the metadata quorum")]);
        let text = || String::from("x");
        survey.quorum = Err(Error::Unsupported { broker: text(), api: text(), theirs: text(), ours: text() });
        assert_eq!(judge(&survey, &[]), []);
    }
}
