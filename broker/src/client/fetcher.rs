//! Reading partitions: a position per partition, moved forward by what each Fetch brings.
//!
//! Leaders are asked one after the other and share the time to wait; with one broker that is one long poll. No fetch
//! sessions are used.

use std::collections::BTreeMap;
use std::time::Duration;

use stonelog_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use stonelog_protocol::messages::fetch_response::PartitionData;
use stonelog_protocol::messages::{BrokerId, FetchRequest, FetchResponse};
use stonelog_protocol::{TopicId, Uuid};

use super::batch::{Record, decode_records};
use super::cluster::Cluster;
use super::error::Error;
use super::text::topic_name;

/// From this version on topics are named by id alone (KIP-516).
const BY_ID_SINCE: i16 = 13;
/// Bytes asked for in one Fetch, in all and per partition.
const BYTES_MAX: i32 = 8 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;

/// What one Fetch brought of one partition.
#[derive(Debug)]
pub struct Fetched {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// End of what consumers may see, as the leader tells.
    pub high_watermark: i64,
    /// Where the log begins, as the leader tells; -1 when the version does not tell.
    pub log_start_offset: i64,
    /// The records, from the position on.
    pub records: Vec<Record>,
}

/// Positions of the partitions that are read.
#[derive(Debug, Default)]
pub struct Fetcher {
    positions: BTreeMap<(String, i32), i64>,
    /// What one leader answered after another had brought records: those were handed out first.
    owed: Option<Error>,
}

impl Fetcher {
    /// Reads nothing yet.
    pub fn new() -> Fetcher {
        Fetcher::default()
    }

    /// Reads `topic`-`partition` from `offset` on.
    pub fn seek(&mut self, topic: &str, partition: i32, offset: i64) {
        self.positions.insert((topic.to_owned(), partition), offset);
    }

    /// Stops reading a partition.
    pub fn remove(&mut self, topic: &str, partition: i32) {
        self.positions.remove(&(topic.to_owned(), partition));
    }

    /// The next offset to be read of each partition.
    pub fn positions(&self) -> &BTreeMap<(String, i32), i64> {
        &self.positions
    }

    /// Fetches once from every leader, waiting up to `wait` in all for something to arrive.
    ///
    /// A position outside a log is the error OFFSET_OUT_OF_RANGE; everything that passes by itself is tried again.
    pub async fn fetch(&mut self, cluster: &mut Cluster, wait: Duration) -> Result<Vec<Fetched>, Error> {
        let mut retry = cluster.retry();
        loop {
            let outcome = self.try_fetch(cluster, wait).await;
            if !cluster.again(&mut retry, &outcome).await {
                return outcome;
            }
            let topics: Vec<String> = self.positions.keys().map(|(topic, _)| topic.clone()).collect();
            topics.iter().for_each(|topic| cluster.forget_topic(topic));
        }
    }

    async fn try_fetch(&mut self, cluster: &mut Cluster, wait: Duration) -> Result<Vec<Fetched>, Error> {
        if let Some(error) = self.owed.take() {
            return Err(error);
        }
        let mut fetched = Vec::new();
        let asked = self.ask_leaders(cluster, wait, &mut fetched).await;
        self.hand_out(asked, fetched)
    }

    /// Positions have moved past what is in `fetched`, so it is handed out also when a later answer was an error.
    fn hand_out(&mut self, asked: Result<(), Error>, fetched: Vec<Fetched>) -> Result<Vec<Fetched>, Error> {
        match asked {
            Err(error) if fetched.is_empty() => Err(error),
            asked => {
                self.owed = asked.err();
                Ok(fetched)
            }
        }
    }

    async fn ask_leaders(
        &mut self,
        cluster: &mut Cluster,
        wait: Duration,
        fetched: &mut Vec<Fetched>,
    ) -> Result<(), Error> {
        let mut by_leader: BTreeMap<i32, Vec<(String, i32)>> = BTreeMap::new();
        for (topic, partition) in self.positions.keys() {
            let leader = cluster.leader(topic, *partition).await?;
            by_leader.entry(leader).or_default().push((topic.clone(), *partition));
        }
        let leaders = by_leader.len().max(1) as u32;
        let wait_ms = (wait / leaders).min(cluster.settings().request_timeout / 2).as_millis() as i32;
        for (leader, partitions) in by_leader {
            let mut ids = BTreeMap::new();
            for (topic, _) in &partitions {
                ids.insert(topic.clone(), cluster.topic(topic).await?.id);
            }
            let ceiling = if ids.values().any(TopicId::is_zero) { BY_ID_SINCE - 1 } else { i16::MAX };
            let request = |version: i16| self.request(version, &partitions, &ids, wait_ms);
            let answer = cluster.call_broker(leader, ceiling, request).await?;
            self.take(answer, &ids, fetched)?;
        }
        Ok(())
    }

    fn request(
        &self,
        version: i16,
        partitions: &[(String, i32)],
        ids: &BTreeMap<String, TopicId>,
        wait_ms: i32,
    ) -> FetchRequest {
        let topics = partitions.chunk_by(|a, b| a.0 == b.0).map(|of_topic| {
            let wanted = of_topic.iter().map(|key| {
                FetchPartition::default()
                    .with_partition(key.1)
                    .with_fetch_offset(self.positions[key])
                    .with_partition_max_bytes(PARTITION_BYTES_MAX)
            });
            let name = &of_topic[0].0;
            let mut topic = FetchTopic::default().with_partitions(wanted.collect());
            if version < BY_ID_SINCE {
                topic.topic = topic_name(name);
            } else {
                topic.topic_id = ids[name].into();
            }
            topic
        });
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(BYTES_MAX)
            .with_session_epoch(-1)
            .with_topics(topics.collect())
    }

    fn take(
        &mut self,
        answer: FetchResponse,
        ids: &BTreeMap<String, TopicId>,
        fetched: &mut Vec<Fetched>,
    ) -> Result<(), Error> {
        Error::check(answer.error_code, "fetch", None)?;
        for topic in answer.responses {
            let id = Uuid::from(topic.topic_id);
            let by_id = ids.iter().find(|(_, known)| !id.is_zero() && **known == id).map(|(name, _)| name.clone());
            let name = by_id.unwrap_or_else(|| topic.topic.to_string());
            for data in topic.partitions {
                fetched.extend(self.take_partition(&name, data)?);
            }
        }
        Ok(())
    }

    fn take_partition(&mut self, topic: &str, data: PartitionData) -> Result<Option<Fetched>, Error> {
        let partition = data.partition_index;
        Error::check(data.error_code, format!("partition {topic}-{partition}"), None)?;
        let Some(position) = self.positions.get_mut(&(topic.to_owned(), partition)) else {
            return Ok(None);
        };
        let decoded = decode_records(data.records.unwrap_or_default(), *position)
            .map_err(|reason| reason.at(topic, partition, *position))?;
        *position = decoded.next_offset;
        Ok(Some(Fetched {
            topic: topic.to_owned(),
            partition,
            high_watermark: data.high_watermark,
            log_start_offset: data.log_start_offset,
            records: decoded.records,
        }))
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::ErrorCode;
    use stonelog_protocol::Timestamp;
    use stonelog_protocol::batch::{BatchBuilder, NewRecord};
    use stonelog_protocol::messages::fetch_response::FetchableTopicResponse;

    use super::*;

    #[test]
    fn records_that_came_before_an_error_are_handed_out_and_the_error_after_them() {
        let mut fetcher = Fetcher::new();
        fetcher.seek("t", 0, 0);
        fetcher.seek("t", 1, 0);
        let mut batch = BatchBuilder::new();
        batch.push(NewRecord::new(Timestamp(1), None, Some(b"v")));
        let batch = batch.build().unwrap();
        let whole = PartitionData::default().with_partition_index(0).with_records(Some(batch.into()));
        let moved =
            PartitionData::default().with_partition_index(1).with_error_code(ErrorCode::NotLeaderOrFollower.code());
        let topic = FetchableTopicResponse::default().with_topic(topic_name("t")).with_partitions(vec![whole, moved]);
        let mut fetched = Vec::new();
        let answer = FetchResponse::default().with_responses(vec![topic]);
        let taken = fetcher.take(answer, &BTreeMap::new(), &mut fetched);
        let handed_out = fetcher.hand_out(taken, fetched).unwrap();
        assert_eq!(handed_out[0].records.len(), 1);
        assert_eq!(fetcher.positions()[&("t".to_owned(), 0)], 1);
        assert_eq!(fetcher.owed.as_ref().and_then(Error::code), Some(ErrorCode::NotLeaderOrFollower));
        let owed = fetcher.owed.take().unwrap();
        assert!(fetcher.hand_out(Err(owed), Vec::new()).is_err(), "without records it is told at once");
    }
}
