//! AlterPartitionReassignments (key 45): where partitions shall lie, with more or fewer replicas if asked (KIP-455,
//! KIP-860).
//!
//! *Behaviour*: one answer for each partition, once the reassignment is recorded and every lane here has seen it; moving
//! the records takes its time (ListPartitionReassignments tells). Null replicas give up what is in progress. Done by the
//! active controller, whichever broker is asked. *Versions*: 0–1. From 1 on the number of replicas may be held fast.
//! *Differences from Kafka*: a change that would leave a partition without a replica that has all its records is refused
//! with INVALID_REPLICA_ASSIGNMENT, where Kafka waits for one that is in sync.

use std::time::Duration;

use stonelog_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use stonelog_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use stonelog_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use stonelog_protocol::{BrokerId, PartitionIndex, StrBytes};
use stonelog_replication::controller::{
    AlterReassignments, ControllerRequest, ControllerResponse, NewReplicas, ReassignmentResult,
};

use crate::request::RequestContext;

/// Answers an AlterPartitionReassignments request.
pub async fn handle(
    context: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    // Before version 1 there is no word for it, and the number may change.
    let allow_replication_factor_change = context.version() < 1 || request.allow_replication_factor_change;
    let partitions = request.topics.iter().flat_map(wishes).collect();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let alter = AlterReassignments { partitions, allow_replication_factor_change };
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(allow_replication_factor_change);
    match super::submit(context, ControllerRequest::AlterReassignments(alter), timeout).await {
        Ok(ControllerResponse::AlterReassignments(results)) => {
            response.with_error_message(None).with_responses(by_topic(&request.topics, results))
        }
        Ok(_) => unreachable!("the answer's variant is the request's"),
        Err(reject) => {
            response.with_error_code(reject.code.code()).with_error_message(Some(StrBytes::from_string(reject.message)))
        }
    }
}

fn wishes(topic: &ReassignableTopic) -> impl Iterator<Item = NewReplicas> + '_ {
    topic.partitions.iter().map(|partition| NewReplicas {
        topic: topic.name.to_string(),
        partition: PartitionIndex(partition.partition_index),
        replicas: partition.replicas.as_ref().map(|replicas| replicas.iter().map(|id| BrokerId(id.0)).collect()),
    })
}

/// The results, which come in the order asked, under the topics of the request.
fn by_topic(asked: &[ReassignableTopic], results: Vec<ReassignmentResult>) -> Vec<ReassignableTopicResponse> {
    let mut results = results.into_iter();
    let one = |result: ReassignmentResult| {
        let partition = ReassignablePartitionResponse::default().with_partition_index(result.partition.0);
        match result.result {
            Ok(warnings) => {
                for warning in warnings {
                    tracing::warn!(topic = %result.topic, partition = result.partition.0, "{warning}");
                }
                partition.with_error_message(None)
            }
            Err(reject) => partition
                .with_error_code(reject.code.code())
                .with_error_message(Some(StrBytes::from_string(reject.message))),
        }
    };
    let topics = asked.iter().map(|topic| {
        let partitions = results.by_ref().take(topic.partitions.len()).map(one).collect();
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    topics.collect()
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::ErrorCode;
    use stonelog_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;

    use super::*;

    fn topic(name: &'static str, partitions: &[(i32, Option<&[i32]>)]) -> ReassignableTopic {
        let partitions = partitions.iter().map(|(index, replicas)| {
            let replicas = replicas.map(|replicas| replicas.iter().map(|id| (*id).into()).collect());
            ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas)
        });
        let name = StrBytes::from_static_str(name).into();
        ReassignableTopic::default().with_name(name).with_partitions(partitions.collect())
    }

    #[test]
    fn no_replicas_mean_giving_up_and_an_empty_list_does_not() {
        let asked = topic("t", &[(0, Some(&[3, 1])), (1, None), (2, Some(&[]))]);
        let read: Vec<_> = wishes(&asked).map(|wish| (wish.partition.0, wish.replicas)).collect();
        let expected = [(0, Some(vec![BrokerId(3), BrokerId(1)])), (1, None), (2, Some(Vec::new()))];
        assert_eq!(read, expected);
    }

    #[test]
    fn results_stand_under_the_topics_that_asked() {
        let asked = [topic("a", &[(1, None), (0, None)]), topic("empty", &[]), topic("b", &[(4, None)])];
        let result = |topic: &str, index, result| ReassignmentResult {
            topic: topic.to_owned(),
            partition: PartitionIndex(index),
            result,
        };
        let none = || Err(ErrorCode::NoReassignmentInProgress.into());
        let results = vec![result("a", 1, none()), result("a", 0, Ok(Vec::new())), result("b", 4, none())];
        let told: Vec<(String, Vec<(i32, i16)>)> = by_topic(&asked, results)
            .into_iter()
            .map(|topic| {
                let partitions = topic.partitions.iter().map(|one| (one.partition_index, one.error_code));
                (topic.name.to_string(), partitions.collect())
            })
            .collect();
        let expected = [
            ("a".to_owned(), vec![(1, 85), (0, 0)]),
            ("empty".to_owned(), Vec::new()),
            ("b".to_owned(), vec![(4, 85)]),
        ];
        assert_eq!(told, expected);
    }
}
