//! What the checker found, for people and programs.

use std::collections::BTreeMap;

use serde::Serialize;

/// Kinds of damage to what a cluster promised. Every one of them is a failed verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// An acknowledged record is not there.
    Lost,
    /// A record is there more than once.
    Duplicated,
    /// A record lies before one that was acknowledged before it was sent, or a batch's records are mixed up.
    Reordered,
    /// A record is there, but not at the offset that the acknowledgement named.
    WrongOffset,
    /// A record was changed, lies in another partition, or was written by nobody.
    Corrupted,
    /// A record of this run is there that was never sent.
    Phantom,
    /// A record is there that the cluster had refused.
    RefusedButStored,
    /// A batch is there in part.
    Torn,
    /// Offsets without records.
    Gap,
    /// A scan or a member was given offsets out of order.
    WentBackwards,
    /// A member was not given records that are there.
    Skipped,
    /// A record that a member has read is not there.
    Vanished,
    /// A member has read a record at one offset that now lies at another, or another record.
    Changed,
    /// An acknowledged commit is gone: the committed offset is lower.
    CommitWentBack,
    /// A committed offset that nobody committed.
    CommitPhantom,
}

/// How often an anomaly was found, with its first examples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Records or commits concerned.
    pub count: u64,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// Examples kept of each kind.
const EXAMPLES_MAX: usize = 10;

/// The checker's judgement of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Identifier of the run.
    pub run: String,
    /// The topic.
    pub topic: String,
    /// Records sent.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records refused.
    pub refused: u64,
    /// Records that were never acknowledged nor refused, and are there.
    pub unknown_present: u64,
    /// Records that were never acknowledged nor refused, and are not there.
    pub unknown_absent: u64,
    /// Acknowledged records below the log's start, in a topic that others may trim.
    pub expired: u64,
    /// Records in the topic that are not of this run.
    pub foreign: u64,
    /// Records in the final scan.
    pub scanned: u64,
    /// Records that members of groups have read, with repetitions.
    pub polled: u64,
    /// Acknowledged commits.
    pub commits: u64,
    /// Commits never acknowledged whose offset a later read returned instead of a newer one.
    pub commits_overtaken: u64,
    /// Groups that did not reach the end before the run's patience did.
    pub undrained_groups: Vec<String>,
    /// What is wrong, by kind. Empty when nothing is.
    pub anomalies: BTreeMap<Anomaly, Findings>,
}

impl Verdict {
    /// Whether the cluster kept its promises.
    pub fn is_sound(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// How often an anomaly was found.
    pub fn count(&self, anomaly: Anomaly) -> u64 {
        self.anomalies.get(&anomaly).map_or(0, |findings| findings.count)
    }

    pub(super) fn add(&mut self, anomaly: Anomaly, count: u64, example: impl FnOnce() -> String) {
        let findings = self.anomalies.entry(anomaly).or_default();
        findings.count += count;
        if findings.examples.len() < EXAMPLES_MAX {
            findings.examples.push(example());
        }
    }
}
