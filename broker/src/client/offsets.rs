//! ListOffsets: where a partition begins and ends, and which offset a time has.

use std::collections::BTreeMap;

use stonelog_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use stonelog_protocol::messages::{BrokerId, ListOffsetsRequest};

use super::cluster::Cluster;
use super::error::Error;
use super::text::topic_name;

/// The question asked of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The log start offset.
    Start,
    /// The high watermark.
    End,
    /// The first record whose timestamp, in milliseconds since 1970, is not before this.
    Time(i64),
}

impl At {
    fn wire(self) -> i64 {
        match self {
            At::Start => -2,
            At::End => -1,
            At::Time(ms) => ms,
        }
    }
}

impl Cluster {
    /// The offsets of several partitions of a topic. A time after the last record has no offset: `None`.
    pub async fn list_offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: At,
    ) -> Result<BTreeMap<i32, Option<i64>>, Error> {
        let mut retry = self.retry();
        loop {
            let outcome = self.try_list_offsets(topic, partitions, at).await;
            if !self.again(&mut retry, &outcome).await {
                return outcome;
            }
            self.forget_topic(topic);
        }
    }

    async fn try_list_offsets(
        &mut self,
        topic: &str,
        partitions: &[i32],
        at: At,
    ) -> Result<BTreeMap<i32, Option<i64>>, Error> {
        let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            by_leader.entry(self.leader(topic, *partition).await?).or_default().push(*partition);
        }
        let mut offsets = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let asked = partitions
                .iter()
                .map(|index| ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(at.wire()))
                .collect();
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(vec![ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(asked)]);
            let answer = self.call_broker(leader, i16::MAX, |_| request).await?;
            for found in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                Error::check(found.error_code, format!("partition {topic}-{}", found.partition_index), None)?;
                offsets.insert(found.partition_index, Some(found.offset).filter(|offset| *offset >= 0));
            }
        }
        match partitions.iter().find(|partition| !offsets.contains_key(partition)) {
            Some(missing) => Err(Error::Missing { subject: format!("partition {topic}-{missing}") }),
            None => Ok(offsets),
        }
    }

    /// Start (inclusive) and end (exclusive) offset of every partition of a topic.
    pub async fn bounds(&mut self, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
        let partitions: Vec<i32> = self.topic(topic).await?.partitions.iter().map(|found| found.index).collect();
        let starts = self.list_offsets(topic, &partitions, At::Start).await?;
        let ends = self.list_offsets(topic, &partitions, At::End).await?;
        let bound = |offsets: &BTreeMap<i32, Option<i64>>, index: i32| offsets.get(&index).copied().flatten();
        Ok(partitions
            .iter()
            .map(|index| (*index, (bound(&starts, *index).unwrap_or(0), bound(&ends, *index).unwrap_or(0))))
            .collect())
    }
}
