//! `stonelog node safe-to-stop`: what would not work any more if brokers stopped now.

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use super::super::exit::{Exit, Failure};
use super::super::output::Output;
use crate::client::Cluster;
use crate::client::survey::Survey;

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
    /// Whether a majority of the metadata's voters would be left; `null` if the cluster does not tell.
    quorum: Option<bool>,
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
        let verdict = judge(&survey, &self.nodes);
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
        output.line(if verdict.safe { "safe" } else { "not safe" })?;
        Ok(exit)
    }
}

/// What would be if these brokers were gone.
fn judge(survey: &Survey, stopping: &[i32]) -> Verdict {
    let (mut offline, mut below, mut at) = (Vec::new(), Vec::new(), Vec::new());
    for partition in &survey.partitions {
        let is_concerned = partition.isr.iter().any(|id| stopping.contains(id));
        if !is_concerned {
            continue;
        }
        let left = partition.isr.iter().filter(|id| !stopping.contains(id)).count();
        let min_isr = survey.min_isr(partition);
        let name = format!("{}:{}", partition.topic, partition.partition);
        if left == 0 {
            offline.push(name);
        } else if left < min_isr {
            below.push(name);
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
        let left = in_touch.filter(|voter| !stopping.contains(&voter.node)).count();
        2 * left > quorum.voters.len()
    });
    let safe = offline.is_empty() && below.is_empty() && quorum != Some(false);
    Verdict { brokers: stopping.to_vec(), safe, offline, below_min_isr: below, at_min_isr: at, quorum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cluster_admin::{Quorum, QuorumReplica};
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
        let survey = survey(&[], "2", partitions);
        let verdict = judge(&survey, &[3]);
        assert_eq!((verdict.offline, verdict.at_min_isr, verdict.safe), (names(&[2]), names(&[0]), false));
        let verdict = judge(&survey, &[2]);
        assert_eq!((verdict.below_min_isr, verdict.at_min_isr), (names(&[1, 3]), names(&[0])));
        let verdict = judge(&survey, &[1, 2]);
        assert_eq!((verdict.offline, verdict.below_min_isr), (names(&[1, 3]), names(&[0])));
    }

    #[test]
    fn brokers_that_keep_the_majority_may_not_stop() {
        let mut survey = survey(&[], "1", Vec::new());
        survey.quorum = Ok(quorum(&[90_000, 90_000, 90_000]));
        assert!(judge(&survey, &[2]).safe);
        assert_eq!(judge(&survey, &[2, 3]).quorum, Some(false));
        // One of them is missing already.
        survey.quorum = Ok(quorum(&[90_000, 90_000, 10_000]));
        assert!(!judge(&survey, &[2]).safe);
        assert!(judge(&survey, &[3]).safe);
    }
}
