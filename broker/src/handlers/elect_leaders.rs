//! ElectLeaders (key 43): has partitions led by their preferred replica, or by whoever is there (KIP-183, KIP-460).
//!
//! *Behaviour*: one answer for each partition; without a list, for every partition that an election was needed for. Done
//! by the active controller, whichever broker is asked. *Versions*: 0–2. Version 0 knows preferred elections only and
//! has no error of the whole.
//! *Differences from Kafka*: an unclean election on a strict topic answers POLICY_VIOLATION (DESIGN §1); who must accept
//! that records are lost says so with `stonelog partition accept-loss`. More than a thousand elections are made in
//! several steps; a controller that is lost meanwhile leaves the rest undone, each with its error.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use stonelog_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use stonelog_protocol::{PartitionIndex, StrBytes};
use stonelog_replication::controller::{
    ControllerRequest, ControllerResponse, ElectLeaders, ElectionResult, ElectionType, PREFERRED_ELECTIONS_MAX, Reject,
};
use stonelog_replication::metadata::MetadataImage;

use crate::request::RequestContext;

/// Answers an ElectLeaders request.
pub async fn handle(context: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let version = context.version();
    let Some(election) = election_of(version, request.election_type) else {
        return respond(version, ErrorCode::InvalidRequest, Vec::new());
    };
    let wants_all = request.topic_partitions.is_none();
    let asked = match &request.topic_partitions {
        None => candidates(&context.image(), election),
        Some(topics) => {
            let mut seen = HashSet::new();
            let places = topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|index| (topic.topic.to_string(), PartitionIndex(*index)))
            });
            // Each is elected once, however often it is named.
            places.filter(|place| seen.insert(place.clone())).collect()
        }
    };
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = context.broker.node.clock.mono() + timeout;
    let mut results = Vec::with_capacity(asked.len());
    let mut failed: Option<Reject> = None;
    for some in asked.chunks(PREFERRED_ELECTIONS_MAX) {
        if failed.is_none() {
            let left = deadline.saturating_duration_since(context.broker.node.clock.mono());
            let elect = ElectLeaders { election, partitions: Some(some.to_vec()) };
            match super::submit(context, ControllerRequest::ElectLeaders(elect), left).await {
                Ok(ControllerResponse::ElectLeaders(elected)) => results.extend(elected),
                Ok(_) => unreachable!("the answer's variant is the request's"),
                Err(reject) => failed = Some(reject),
            }
        }
        if let Some(reject) = &failed {
            let undone = some.iter().cloned();
            results.extend(undone.map(|(topic, partition)| {
                let result = Err(reject.clone());
                ElectionResult { topic, partition, result }
            }));
        }
    }
    let nothing_done = results.iter().all(|result| result.result.is_err());
    let error = failed.filter(|_| nothing_done).map_or(ErrorCode::None, |reject| reject.code);
    if wants_all {
        results.retain(|result| code_of(result) != ErrorCode::ElectionNotNeeded);
    }
    respond(version, error, results)
}

/// What the request's number means; version 0 has none.
fn election_of(version: i16, code: i8) -> Option<ElectionType> {
    match (version, code) {
        (0, _) | (_, 0) => Some(ElectionType::Preferred),
        (_, 1) => Some(ElectionType::Unclean),
        _ => None,
    }
}

/// The partitions that an election of that kind could change something for.
fn candidates(image: &MetadataImage, election: ElectionType) -> Vec<(String, PartitionIndex)> {
    let all = image.partitions().filter(|(_, _, partition)| match election {
        ElectionType::Preferred => !image.is_led(partition) || partition.leader != partition.preferred_leader(),
        ElectionType::Unclean => !image.is_led(partition),
    });
    all.map(|(topic, index, _)| (topic.name.to_string(), index)).collect()
}

fn code_of(result: &ElectionResult) -> ErrorCode {
    result.result.as_ref().err().map_or(ErrorCode::None, |reject| reject.code)
}

/// The results by topic, topics in the order they came.
fn respond(version: i16, error: ErrorCode, results: Vec<ElectionResult>) -> ElectLeadersResponse {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for result in results {
        let place = *places.entry(result.topic).or_insert_with_key(|topic| {
            let name = StrBytes::from_string(topic.clone()).into();
            topics.push(ReplicaElectionResult::default().with_topic(name));
            topics.len() - 1
        });
        let partition = PartitionResult::default().with_partition_id(result.partition.0);
        topics[place].partition_result.push(match result.result {
            Ok(()) => partition.with_error_message(None),
            Err(reject) => partition
                .with_error_code(reject.code.code())
                .with_error_message(Some(StrBytes::from_string(reject.message))),
        });
    }
    let response = ElectLeadersResponse::default().with_replica_election_results(topics);
    if version >= 1 { response.with_error_code(error.code()) } else { response }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(topic: &str, index: i32, code: Option<ErrorCode>) -> ElectionResult {
        let result = code.map_or(Ok(()), |code| Err(code.into()));
        ElectionResult { topic: topic.to_owned(), partition: PartitionIndex(index), result }
    }

    #[test]
    fn version_zero_elects_the_preferred_whatever_its_number_is() {
        assert_eq!(election_of(0, 1), Some(ElectionType::Preferred));
        assert_eq!(election_of(1, 0), Some(ElectionType::Preferred));
        assert_eq!(election_of(2, 1), Some(ElectionType::Unclean));
        assert_eq!(election_of(2, 2), None);
    }

    #[test]
    fn results_are_gathered_by_topic_and_keep_their_errors() {
        let strict = Some(ErrorCode::PolicyViolation);
        let results = vec![result("b", 1, None), result("a", 0, strict), result("b", 0, strict)];
        let response = respond(2, ErrorCode::None, results);
        let told: Vec<(String, Vec<(i32, i16)>)> = response
            .replica_election_results
            .iter()
            .map(|topic| {
                let partitions = topic.partition_result.iter().map(|one| (one.partition_id, one.error_code));
                (topic.topic.to_string(), partitions.collect())
            })
            .collect();
        assert_eq!(told, [("b".to_owned(), vec![(1, 0), (0, 44)]), ("a".to_owned(), vec![(0, 44)])]);
    }

    #[test]
    fn version_zero_has_no_error_of_the_whole() {
        assert_eq!(respond(0, ErrorCode::RequestTimedOut, Vec::new()).error_code, 0);
        assert_eq!(respond(1, ErrorCode::RequestTimedOut, Vec::new()).error_code, 7);
    }
}
