//! Everything about a cluster that its health rests on, gathered once: values to judge, without asking again.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::Cluster;
use super::cluster_admin::{ClusterState, PartitionState, Quorum, Reassignment};
use super::error::Error;

/// The settings that say what an acknowledgement needs.
const KEYS: [&str; 3] = ["min.insync.replicas", "flush.messages", "unclean.leader.election.enable"];

/// One look at a cluster. Its parts were asked for one after the other, so they may be moments apart.
#[derive(Clone, Debug)]
pub struct Survey {
    /// Its brokers.
    pub state: ClusterState,
    /// Its partitions, by topic and index.
    pub partitions: Vec<PartitionState>,
    /// What is being moved.
    pub reassignments: Vec<Reassignment>,
    /// By topic, then by key.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Its metadata quorum, or why that is not known.
    pub quorum: Result<Quorum, Error>,
}

impl Survey {
    /// The brokers that are in touch.
    pub fn up(&self) -> BTreeSet<i32> {
        self.state.brokers.iter().filter(|broker| !broker.fenced).map(|broker| broker.id).collect()
    }

    /// How many replicas a partition has but for those that a reassignment is adding.
    pub fn settled_replicas(&self, partition: &PartitionState) -> usize {
        let adding = self.adding(partition);
        partition.replicas.iter().filter(|replica| !adding.contains(replica)).count()
    }

    /// The replicas in sync that count for an acknowledgement: all but those that a reassignment is adding.
    pub fn settled_isr<'a>(&'a self, partition: &'a PartitionState) -> impl Iterator<Item = i32> + 'a {
        let adding = self.adding(partition);
        partition.isr.iter().copied().filter(move |replica| !adding.contains(replica))
    }

    fn adding(&self, partition: &PartitionState) -> &[i32] {
        let is_it = |moving: &&Reassignment| moving.topic == partition.topic && moving.partition == partition.partition;
        self.reassignments.iter().find(is_it).map(|moving| moving.adding.as_slice()).unwrap_or_default()
    }

    /// Whether it is known how many in-sync replicas an acknowledgement needs. It is not where the broker that was asked
    /// did not have the topic.
    pub fn knows_min_isr(&self, partition: &PartitionState) -> bool {
        self.setting(&partition.topic, "min.insync.replicas").is_some()
    }

    /// How many in-sync replicas an acknowledgement needs: `min.insync.replicas`, but never more than there are replicas.
    pub fn min_isr(&self, partition: &PartitionState) -> usize {
        let replicas = self.settled_replicas(partition);
        let set = self.setting(&partition.topic, "min.insync.replicas").and_then(|value| value.parse().ok());
        set.unwrap_or(1usize).min(replicas).max(1)
    }

    /// The value of one of the settings that were asked for.
    pub fn setting(&self, topic: &str, key: &str) -> Option<&str> {
        self.settings.get(topic)?.get(key).map(String::as_str)
    }

    /// Whether a topic is strict: acknowledged after fsync.
    pub fn is_strict(&self, topic: &str) -> bool {
        self.setting(topic, "flush.messages") == Some("1")
    }
}

impl Cluster {
    /// Looks at the whole cluster.
    pub async fn survey(&mut self) -> Result<Survey, Error> {
        let state = self.state().await?;
        let partitions = self.partitions(None).await?;
        let reassignments = self.reassignments().await?;
        let topics: BTreeSet<String> = partitions.iter().map(|partition| partition.topic.clone()).collect();
        let topics: Vec<String> = topics.into_iter().collect();
        let settings = self.settings_of(&topics, &KEYS).await?;
        let quorum = self.quorum().await;
        Ok(Survey { state, partitions, reassignments, settings, quorum })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::client::cluster_admin::BrokerState;

    /// A partition of topic `t`.
    pub(crate) fn partition(index: i32, replicas: &[i32], isr: &[i32]) -> PartitionState {
        PartitionState {
            topic: "t".to_owned(),
            partition: index,
            leader: isr.first().copied().unwrap_or(-1),
            leader_epoch: 0,
            replicas: replicas.to_vec(),
            isr: isr.to_vec(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            offline: Vec::new(),
        }
    }

    /// Three brokers, those of `fenced` out of touch; `min_isr` for topic `t`, which is strict.
    pub(crate) fn survey(fenced: &[i32], min_isr: &str, partitions: Vec<PartitionState>) -> Survey {
        let broker = |id| BrokerState { id, address: format!("b{id}:1"), rack: None, fenced: fenced.contains(&id) };
        let settings = [("min.insync.replicas", min_isr), ("flush.messages", "1")];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Survey {
            state: ClusterState { id: "c".to_owned(), controller: 1, brokers: (1..=3).map(broker).collect() },
            partitions,
            reassignments: Vec::new(),
            settings: BTreeMap::from([("t".to_owned(), BTreeMap::from(settings))]),
            quorum: Err(Error::Missing { subject: "the metadata quorum".to_owned() }),
        }
    }

    #[test]
    fn replicas_being_added_do_not_raise_what_an_acknowledgement_needs() {
        let mut survey = survey(&[], "2", vec![partition(0, &[1, 2, 3], &[1])]);
        assert_eq!(survey.min_isr(&survey.partitions[0]), 2);
        survey.reassignments = vec![Reassignment {
            topic: "t".to_owned(),
            partition: 0,
            replicas: vec![1, 2, 3],
            adding: vec![2, 3],
            removing: Vec::new(),
        }];
        assert_eq!(survey.min_isr(&survey.partitions[0]), 1);
        survey.partitions[0].isr = vec![1, 3];
        assert_eq!(survey.settled_isr(&survey.partitions[0]).collect::<Vec<_>>(), [1]);
    }
}
