//! OffsetCommit and OffsetDelete answer each partition on its own: those that do not exist here, the others as the
//! coordinator says. This puts both back in the order of the request.

use std::sync::Arc;

use stonelog_protocol::{ErrorCode, PartitionIndex};

use crate::coordinator::group::message::{PartitionErrors, PerPartition};

/// A topic of the request: each partition with the error the handler found, `None` where the coordinator is asked.
pub(super) struct Judged {
    /// The topic's name.
    pub(super) topic: Arc<str>,
    /// Its partitions, in the order of the request.
    pub(super) partitions: Vec<(PartitionIndex, Option<ErrorCode>)>,
}

/// Every partition's error, in the order of the request. `answer` holds, in the same order, those that were asked for;
/// its error of the whole request, if it has one, is theirs.
pub(super) fn merge(judged: Vec<Judged>, answer: PerPartition) -> Vec<(Arc<str>, PartitionErrors)> {
    let refused = answer.error;
    let mut answered = answer.topics.into_iter().flat_map(|(_, partitions)| partitions);
    let mut error_of = |index: PartitionIndex| {
        if refused.is_error() {
            return refused;
        }
        let (answered, error) = answered.next().expect("the coordinator answers each partition");
        assert_eq!(answered, index, "in the order it was asked");
        error
    };
    let one = |judged: Judged| {
        let partitions = judged.partitions.into_iter();
        let partitions = partitions.map(|(index, found)| (index, found.unwrap_or_else(|| error_of(index)))).collect();
        (judged.topic, partitions)
    };
    judged.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged() -> Vec<Judged> {
        let unknown = Some(ErrorCode::UnknownTopicOrPartition);
        vec![
            Judged { topic: "a".into(), partitions: vec![(PartitionIndex(1), None), (PartitionIndex(9), unknown)] },
            Judged { topic: "gone".into(), partitions: vec![(PartitionIndex(0), unknown)] },
            Judged { topic: "b".into(), partitions: vec![(PartitionIndex(0), None)] },
        ]
    }

    fn errors(merged: &[(Arc<str>, PartitionErrors)]) -> Vec<ErrorCode> {
        merged.iter().flat_map(|(_, partitions)| partitions.iter().map(|(_, error)| *error)).collect()
    }

    #[test]
    fn answers_fill_the_places_that_were_left_open() {
        let answer = PerPartition {
            error: ErrorCode::None,
            topics: vec![
                ("a".into(), vec![(PartitionIndex(1), ErrorCode::None)]),
                ("b".into(), vec![(PartitionIndex(0), ErrorCode::OffsetMetadataTooLarge)]),
            ],
        };
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let expected = [ErrorCode::None, unknown, unknown, ErrorCode::OffsetMetadataTooLarge];
        assert_eq!(errors(&merge(judged(), answer)), expected);
    }

    #[test]
    fn an_error_of_the_whole_request_is_that_of_every_partition_asked_for() {
        let refused = ErrorCode::IllegalGeneration;
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let merged = merge(judged(), PerPartition::refused(refused));
        assert_eq!(errors(&merged), [refused, unknown, unknown, refused]);
    }
}
