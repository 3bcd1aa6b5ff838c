//! Writing batches: idempotent, tried again until they are acknowledged or the time is up, never out of order.
//!
//! One batch per partition is in flight, so a batch that is sent again keeps its place. A batch whose outcome is not
//! known leaves its sequence number in doubt: the producer then takes a new producer id and starts its sequences again,
//! so that later batches do not depend on it.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use stonelog_protocol::batch::{Compression, header};
use stonelog_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use stonelog_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use stonelog_protocol::{ErrorCode, TopicId, Uuid};

use super::batch::{NewRecord, Sequence, encode_records};
use super::cluster::Cluster;
use super::error::Error;
use super::text::topic_name;

/// From this version on topics are named by id alone (KIP-516).
const BY_ID_SINCE: i16 = 13;

/// Which replicas must have a batch before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// Every in-sync replica.
    All,
    /// The leader.
    Leader,
    /// None: nothing is answered and nothing promised.
    None,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::All => -1,
            Acks::Leader => 1,
            Acks::None => 0,
        }
    }
}

/// Records for one partition, to be written as one batch.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// At least one record.
    pub records: Vec<NewRecord>,
}

/// How a batch fared.
#[derive(Debug)]
pub enum Outcome {
    /// Stored and acknowledged. The offset of the first record; `None` when the broker found the batch to be a
    /// duplicate whose offset it has forgotten.
    Acked(Option<i64>),
    /// Sent with acks=0.
    Unanswered,
    /// Not stored, for certain.
    Failed(Error),
    /// Perhaps stored.
    Unknown(Error),
}

/// A producer id with the next sequence number of each partition.
#[derive(Debug)]
struct Identity {
    id: i64,
    epoch: i16,
    next: HashMap<(String, i32), i32>,
}

/// A batch on its way.
struct Pending {
    key: (String, i32),
    bytes: Bytes,
    /// Whether an earlier try may have stored it.
    in_doubt: bool,
    last: Option<Error>,
}

/// Writes batches to a cluster.
#[derive(Debug)]
pub struct Producer {
    acks: Acks,
    compression: Compression,
    identity: Option<Identity>,
}

impl Producer {
    /// A producer that has not asked for its id yet.
    pub fn new(acks: Acks, compression: Compression) -> Producer {
        Producer { acks, compression, identity: None }
    }

    /// Writes `batches`, at most one per partition, and tells how each fared, in the same order.
    ///
    /// The error is that no producer id was given; nothing has been sent then.
    pub async fn send(&mut self, cluster: &mut Cluster, batches: Vec<Batch>) -> Result<Vec<Outcome>, Error> {
        if self.acks != Acks::None && self.identity.is_none() {
            self.identity = Some(new_identity(cluster).await?);
        }
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        let mut waiting: BTreeMap<usize, Pending> = BTreeMap::new();
        for (index, batch) in batches.into_iter().enumerate() {
            match self.prepare(batch) {
                Ok(pending) => {
                    waiting.insert(index, pending);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Outcome::Failed(error))),
            }
        }
        let mut retry = cluster.retry();
        loop {
            for (index, outcome) in self.round(cluster, &mut waiting).await {
                outcomes[index] = Some(outcome);
            }
            let Some((_, first)) = waiting.first_key_value() else { break };
            let give_up = first.last.as_ref().is_some_and(|error| cluster.is_out_of_reach(error));
            if give_up || !retry.pause().await {
                break;
            }
        }
        for (index, pending) in waiting {
            let error = pending.last.unwrap_or(Error::Missing { subject: describe(&pending.key) });
            outcomes[index] = Some(if pending.in_doubt { Outcome::Unknown(error) } else { Outcome::Failed(error) });
        }
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        // A gap in the sequence, or one that may be there, would make the broker refuse all that follows.
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Unknown(_))) {
            self.identity = None;
        }
        Ok(outcomes)
    }

    fn prepare(&mut self, batch: Batch) -> Result<Pending, Error> {
        let key = (batch.topic, batch.partition);
        let sequence = self.identity.as_mut().map(|identity| {
            let next = identity.next.entry(key.clone()).or_insert(0);
            let first = *next;
            *next = header::add_sequence(first, batch.records.len() as i32);
            Sequence { producer_id: identity.id, producer_epoch: identity.epoch, first }
        });
        let bytes =
            encode_records(&batch.records, self.compression, sequence).map_err(|error| error.at(&key.0, key.1, -1))?;
        Ok(Pending { key, bytes, in_doubt: false, last: None })
    }

    /// Sends everything that waits once, one request per leader; what is settled is answered and waits no more.
    async fn round(&mut self, cluster: &mut Cluster, waiting: &mut BTreeMap<usize, Pending>) -> Vec<(usize, Outcome)> {
        let mut by_leader: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, pending) in waiting.iter_mut() {
            match cluster.leader(&pending.key.0, pending.key.1).await {
                Ok(leader) => by_leader.entry(leader).or_default().push(*index),
                Err(error) => pending.last = Some(error),
            }
        }
        let mut settled = Vec::new();
        for (leader, indexes) in by_leader {
            let answers = self.ask(cluster, leader, waiting, &indexes).await;
            for (index, answer) in indexes.into_iter().zip(answers) {
                let Some(pending) = waiting.get_mut(&index) else { continue };
                match judge(pending, answer) {
                    Some(outcome) => {
                        waiting.remove(&index);
                        settled.push((index, outcome));
                    }
                    None => cluster.forget_topic(&waiting[&index].key.0),
                }
            }
        }
        // Those without a leader: unless time heals it, it is final.
        let hopeless = |pending: &Pending| pending.last.as_ref().is_some_and(|error| !error.is_retriable());
        let finished: Vec<usize> =
            waiting.iter().filter(|(_, pending)| hopeless(pending)).map(|(index, _)| *index).collect();
        for index in finished {
            if let Some(Pending { in_doubt, last: Some(error), .. }) = waiting.remove(&index) {
                settled.push((index, if in_doubt { Outcome::Unknown(error) } else { Outcome::Failed(error) }));
            }
        }
        settled
    }

    /// One Produce to one leader; an answer per batch, in the order of `indexes`.
    async fn ask(
        &self,
        cluster: &mut Cluster,
        leader: i32,
        waiting: &BTreeMap<usize, Pending>,
        indexes: &[usize],
    ) -> Vec<Result<Outcome, Error>> {
        match self.try_ask(cluster, leader, waiting, indexes).await {
            Ok(mut answers) => {
                let answer = |index: &usize| {
                    let key = &waiting[index].key;
                    answers.remove(key).unwrap_or_else(|| Err(Error::Missing { subject: describe(key) }))
                };
                indexes.iter().map(answer).collect()
            }
            // The same misfortune befell every batch of the request.
            Err(error) => {
                let copies = indexes.iter().skip(1).map(|_| Err(error.clone())).collect::<Vec<_>>();
                std::iter::once(Err(error)).chain(copies).collect()
            }
        }
    }

    async fn try_ask(
        &self,
        cluster: &mut Cluster,
        leader: i32,
        waiting: &BTreeMap<usize, Pending>,
        indexes: &[usize],
    ) -> Result<HashMap<(String, i32), Result<Outcome, Error>>, Error> {
        let mut ids: BTreeMap<String, TopicId> = BTreeMap::new();
        for index in indexes {
            let topic = &waiting[index].key.0;
            ids.insert(topic.clone(), cluster.topic(topic).await?.id);
        }
        let ceiling = if ids.values().any(TopicId::is_zero) { BY_ID_SINCE - 1 } else { i16::MAX };
        let timeout_ms = cluster.timeout_ms();
        let build = |version: i16| {
            let topics = ids.iter().map(|(name, id)| {
                let data = indexes.iter().map(|index| &waiting[index]).filter(|pending| pending.key.0 == *name);
                let data = data.map(|pending| {
                    PartitionProduceData::default().with_index(pending.key.1).with_records(Some(pending.bytes.clone()))
                });
                let mut topic = TopicProduceData::default().with_partition_data(data.collect());
                if version < BY_ID_SINCE {
                    topic.name = topic_name(name);
                } else {
                    topic.topic_id = (*id).into();
                }
                topic
            });
            ProduceRequest::default()
                .with_acks(self.acks.wire())
                .with_timeout_ms(timeout_ms)
                .with_topic_data(topics.collect())
        };
        if self.acks == Acks::None {
            cluster.send_broker(leader, ceiling, build).await?;
            return Ok(indexes.iter().map(|index| (waiting[index].key.clone(), Ok(Outcome::Unanswered))).collect());
        }
        let answer = cluster.call_broker(leader, ceiling, build).await?;
        let mut answers = HashMap::new();
        for topic in answer.responses {
            let id = Uuid::from(topic.topic_id);
            let by_id = ids.iter().find(|(_, known)| !id.is_zero() && **known == id).map(|(name, _)| name.clone());
            let name = by_id.unwrap_or_else(|| topic.name.to_string());
            for partition in topic.partition_responses {
                let key = (name.clone(), partition.index);
                let checked = Error::check(partition.error_code, describe(&key), partition.error_message.as_deref());
                let offset = Some(partition.base_offset).filter(|offset| *offset >= 0);
                answers.insert(key, checked.map(|()| Outcome::Acked(offset)));
            }
        }
        Ok(answers)
    }
}

/// Turns one answer into an outcome, or keeps the batch waiting for another try.
fn judge(pending: &mut Pending, answer: Result<Outcome, Error>) -> Option<Outcome> {
    let error = match answer {
        Ok(outcome) => return Some(outcome),
        Err(error) => error,
    };
    if error.code() == Some(ErrorCode::DuplicateSequenceNumber) {
        return Some(Outcome::Acked(None));
    }
    pending.in_doubt |= error.may_have_acted();
    if error.is_retriable() {
        pending.last = Some(error);
        return None;
    }
    Some(if pending.in_doubt { Outcome::Unknown(error) } else { Outcome::Failed(error) })
}

fn describe(key: &(String, i32)) -> String {
    format!("partition {}-{}", key.0, key.1)
}

async fn new_identity(cluster: &mut Cluster) -> Result<Identity, Error> {
    let mut retry = cluster.retry();
    loop {
        let outcome = try_new_identity(cluster).await;
        if !cluster.again(&mut retry, &outcome).await {
            return outcome;
        }
    }
}

async fn try_new_identity(cluster: &mut Cluster) -> Result<Identity, Error> {
    let answer = cluster
        .call_any(|_| {
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        })
        .await?;
    Error::check(answer.error_code, "a producer id", None)?;
    Ok(Identity { id: answer.producer_id.0, epoch: answer.producer_epoch, next: HashMap::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> Pending {
        Pending { key: ("t".to_owned(), 0), bytes: Bytes::new(), in_doubt: false, last: None }
    }

    fn refused(code: i16) -> Result<Outcome, Error> {
        Err(Error::check(code, "t-0", None).unwrap_err())
    }

    #[test]
    fn a_refusal_after_a_lost_answer_is_not_a_definite_failure() {
        let mut batch = pending();
        assert!(judge(&mut batch, refused(7)).is_none(), "timed out: tried again");
        assert!(matches!(judge(&mut batch, refused(10)), Some(Outcome::Unknown(_))));
        assert!(matches!(judge(&mut pending(), refused(10)), Some(Outcome::Failed(_))));
    }

    #[test]
    fn a_duplicate_is_an_acknowledgement() {
        assert!(matches!(judge(&mut pending(), refused(46)), Some(Outcome::Acked(None))));
    }

    #[test]
    fn too_few_replicas_before_the_append_leaves_no_doubt() {
        let mut batch = pending();
        assert!(judge(&mut batch, refused(19)).is_none());
        assert!(!batch.in_doubt);
        assert!(judge(&mut batch, refused(20)).is_none());
        assert!(batch.in_doubt);
    }
}
