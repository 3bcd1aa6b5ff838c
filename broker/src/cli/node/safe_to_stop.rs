//! `stonelog node safe-to-stop`: what would not work any more if brokers stopped now.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::{Output, join};
use crate::client::survey::Survey;
use crate::client::{Cluster, Error};

/// A voter that had not everything for so long does not count for the majority, in milliseconds.
const VOTER_BEHIND_MS_MAX: i64 = 10_000;
/// Partitions of one kind that are printed for people.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
#[command(after_help = "Exit codes:
    0  they may stop: everything is still written and read
    3  there is no such broker
    8  they may not: some partitions would not be written or read, or nobody could change the cluster")]
pub(super) struct SafeToStop {
    /// The brokers that would stop together.
    #[arg(required = true, value_name = "BROKER")]
    nodes: Vec<i32>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Verdict {
    brokers: Vec<i32>,
    safe: bool,
    /// Would have no replica in sync: neither written nor read.
    offline: Vec<String>,
    /// Would have fewer replicas in sync than an acknowledgement needs: not written.
    below_min_isr: Vec<String>,
    /// Would have just as many: the next failure stops them.
    at_min_isr: Vec<String>,
    /// Whether a majority of the metadata's voters would be left; `null` if that is not known.
    quorum: Option<bool>,
    /// Brokers that were counted on and do not answer: taken for gone.
    unreachable: Vec<i32>,
    /// What could not be found out, and would have to be.
    unknown: Vec<String>,
}

impl SafeToStop {
    /// Asks, judges, prints.
    pub(super) async fn run(self, cluster: &mut Cluster, output: Output) -> Result<Exit, Failure> {
        let survey = cluster.survey().await?;
        let known: BTreeSet<i32> = survey.state.brokers.iter().map(|broker| broker.id).collect();
        let voters = survey.quorum.as_ref().map(|quorum| quorum.voters.as_slice()).unwrap_or_default();
        let is_known = |id: &i32| known.contains(id) || voters.iter().any(|voter| voter.node == *id);
        if let Some(unknown) = self.nodes.iter().find(|id| !is_known(id)) {
            return Err(Failure::new(Exit::NotFound, format!("there is no broker {unknown}")));
        }
        // A broker that died a moment ago is in every in-sync set still, and nobody may be left to take it out.
        let mut unreachable = Vec::new();
        for broker in counted_on(&survey, &self.nodes) {
            if cluster.log_dirs(broker).await.is_err() {
                unreachable.push(broker);
            }
        }
        let verdict = judge(&survey, &self.nodes, unreachable);
        let exit = if verdict.safe { Exit::Done } else { Exit::Precondition };
        if output.is_json() {
            output.document("node.safe-to-stop/1", &verdict)?;
            return Ok(exit);
        }
        let kinds = [
            ("neither written nor read", &verdict.offline),
            ("not written: below min.insync.replicas", &verdict.below_min_isr),
            ("still written, but one more failure would stop them", &verdict.at_min_isr),
        ];
        for (meaning, partitions) in kinds {
            if partitions.is_empty() {
                continue;
            }
            output.line(&format!("{meaning} ({}):", partitions.len()))?;
            let shown = &partitions[..partitions.len().min(SHOWN_MAX)];
            let more = if shown.len() < partitions.len() { ", …" } else { "" };
            output.line(&format!("  {}{more}", shown.join(", ")))?;
        }
        if verdict.quorum == Some(false) {
            output
                .line("no majority of the metadata's voters would be left: nothing could be changed, nobody elected")?;
        }
        if !verdict.unreachable.is_empty() {
            output.line(&format!("do not answer, taken for gone: {}", join(&verdict.unreachable)))?;
        }
        for unknown in &verdict.unknown {
            output.line(&format!("not known: {unknown}"))?;
        }
        output.line(if verdict.safe { "safe" } else { "not safe" })?;
        Ok(exit)
    }
}

/// The brokers that would have to go on: those in sync, in touch or voting that do not stop.
fn counted_on(survey: &Survey, stopping: &[i32]) -> BTreeSet<i32> {
    let in_sync = survey.partitions.iter().flat_map(|partition| partition.isr.iter().copied());
    let registered: BTreeSet<i32> = survey.state.brokers.iter().map(|broker| broker.id).collect();
    let voters = survey.quorum.iter().flat_map(|quorum| &quorum.voters).map(|voter| voter.node);
    let all = in_sync.chain(survey.up()).chain(voters.filter(|voter| registered.contains(voter)));
    all.filter(|id| !stopping.contains(id)).collect()
}

/// What would be if these brokers were gone.
fn judge(survey: &Survey, stopping: &[i32], unreachable: Vec<i32>) -> Verdict {
    let (mut offline, mut below, mut at) = (Vec::new(), Vec::new(), Vec::new());
    let mut unknown = BTreeSet::new();
    let is_left = |id: &i32| !stopping.contains(id) && !unreachable.contains(id);
    for partition in &survey.partitions {
        let is_concerned = partition.isr.iter().any(|id| stopping.contains(id));
        if !is_concerned {
            continue;
        }
        let left = survey.settled_isr(partition).filter(is_left).count();
        let min_isr = survey.min_isr(partition);
        let name = format!("{}:{}", partition.topic, partition.partition);
        if !partition.isr.iter().any(is_left) {
            offline.push(name);
        } else if left < min_isr {
            below.push(name);
        } else if !survey.knows_min_isr(partition) {
            unknown.insert(format!("min.insync.replicas of topic {}", partition.topic));
        } else if left == min_isr {
            at.push(name);
        }
    }
    let quorum = survey.quorum.as_ref().ok().map(|quorum| {
        let leader = quorum.voters.iter().find(|voter| voter.node == quorum.leader);
        let in_touch = quorum.voters.iter().filter(|voter| {
            let behind = leader.map_or(0, |leader| leader.last_caught_up_ms - voter.last_caught_up_ms);
            voter.last_caught_up_ms >= 0 && behind <= VOTER_BEHIND_MS_MAX
        });
        let left = in_touch.filter(|voter| is_left(&voter.node)).count();
        2 * left > quorum.voters.len()
    });
    let mut unknown: Vec<String> = unknown.into_iter().collect();
    match &survey.quorum {
        // A broker that does not tell of a quorum has none to keep whole here.
        Ok(_) | Err(Error::Unsupported { .. }) => {}
        // Without one nobody takes a dead broker out of an in-sync set: they say nothing of who is there.
        Err(error) => unknown.push(format!("the metadata quorum, and with it who is in sync: {error}")),
    }
    let safe = offline.is_empty() && below.is_empty() && quorum != Some(false) && unknown.is_empty();
    let (brokers, below_min_isr, at_min_isr) = (stopping.to_vec(), below, at);
    Verdict { brokers, safe, offline, below_min_isr, at_min_isr, quorum, unreachable, unknown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cluster_admin::{Quorum, QuorumReplica, Reassignment};
    use crate::client::survey::tests::{partition, survey};
    use stonelog_protocol::Uuid;

    fn names(indexes: &[i32]) -> Vec<String> {
        indexes.iter().map(|index| format!("t:{index}")).collect()
    }

    fn quorum(caught_up_ms: &[i64]) -> Quorum {
        let voter = |(node, last_caught_up_ms): (i32, &i64)| QuorumReplica {
            node,
            directory: Uuid::ZERO,
            log_end: 1,
            last_fetch_ms: 1,
            last_caught_up_ms: *last_caught_up_ms,
        };
        let voters = (1..).zip(caught_up_ms).map(voter).collect();
        Quorum { leader: 1, epoch: 1, high_watermark: 1, voters, observers: Vec::new() }
    }

    #[test]
    fn partitions_are_told_by_what_would_be_left_of_them() {
        let partitions = vec![
            partition(0, &[1, 2, 3], &[1, 2, 3]),
            partition(1, &[1, 2, 3], &[1, 2]),
            partition(2, &[3], &[3]),
            partition(3, &[1, 2], &[1, 2]),
        ];
        let mut survey = survey(&[], "2", partitions);
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        let verdict = judge(&survey, &[3], Vec::new());
        assert_eq!((verdict.offline, verdict.at_min_isr, verdict.safe), (names(&[2]), names(&[0]), false));
        let verdict = judge(&survey, &[2], Vec::new());
        assert_eq!((verdict.below_min_isr, verdict.at_min_isr), (names(&[1, 3]), names(&[0])));
        let verdict = judge(&survey, &[1, 2], Vec::new());
        assert_eq!((verdict.offline, verdict.below_min_isr), (names(&[1, 3]), names(&[0])));
    }

    #[test]
    fn brokers_that_keep_the_majority_may_not_stop() {
        let mut survey = survey(&[], "1", Vec::new());
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        assert!(judge(&survey, &[2], Vec::new()).safe);
        assert_eq!(judge(&survey, &[2, 3], Vec::new()).quorum, Some(false));
        // One of them is missing already.
        survey.quorum = Ok(quorum(&[90_000, 90_000, 10_000]));
        assert!(!judge(&survey, &[2], Vec::new()).safe);
        assert!(judge(&survey, &[3], Vec::new()).safe);
    }
    #[test]
    fn nothing_is_safe_while_the_quorum_does_not_answer_unless_there_is_none_to_ask() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[1, 2, 3])]);
        let verdict = judge(&survey, &[1], Vec::new());
        assert_eq!((verdict.safe, verdict.quorum, verdict.unknown.len()), (false, None, 1));
        let text = || String::from("x");
        survey.quorum = Err(Error::Unsupported { broker: text(), api: text(), theirs: text(), ours: text() });
        assert!(judge(&survey, &[1], Vec::new()).safe);
    }

    #[test]
    fn replicas_being_added_do_not_count_for_those_that_stop() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 3, 4], &[1, 3, 4])]);
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        assert!(judge(&survey, &[1], Vec::new()).safe);
        survey.reassignments = vec![Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![1, 3, 4, 5],
            adding: vec![4, 5],
            removing: Vec::new(),
        }];
        assert_eq!(judge(&survey, &[1], Vec::new()).below_min_isr, names(&[0]));
    }

    #[test]
    fn a_topic_whose_settings_are_not_known_is_not_safe() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[1, 2])]);
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        survey.settings.clear();
        let verdict = judge(&survey, &[1], Vec::new());
        assert_eq!((verdict.safe, verdict.unknown), (false, vec!["min.insync.replicas of topic t".to_owned()]));
    }

    #[test]
    fn who_does_not_answer_is_taken_for_gone() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[1, 2, 3])]);
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        assert_eq!(counted_on(&survey, &[1]), BTreeSet::from([2, 3]));
        let verdict = judge(&survey, &[1], vec![3]);
        assert_eq!((verdict.safe, verdict.below_min_isr, verdict.quorum), (false, names(&[0]), Some(false)));
    }
}
