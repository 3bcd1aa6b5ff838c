//! A broker's wishes for in-sync sets on their way to the controller: one request at a time, many partitions in it
//! (Kafka's `AlterPartitionManager`).
//!
//! Answers do not take anything back: whatever came of a wish, its leader goes on counting the wished set until its own
//! image settles it ([`crate::partition::Leader::on_isr_answer`]). What differs is when it may be tried again:
//!
//! | answer | the leader |
//! |---|---|
//! | accepted, INELIGIBLE_REPLICA, OPERATION_NOT_ATTEMPTED | goes on when its image has reached the answer's index |
//! | FENCED_LEADER_EPOCH, INVALID_UPDATE_VERSION, INVALID_REQUEST, UNKNOWN_TOPIC_ID, UNKNOWN_TOPIC_OR_PARTITION, NEW_LEADER_ELECTED | the same: its image is behind |
//! | NOT_CONTROLLER, any other, none in time | asks again, [`RETRY_AFTER`] later |

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{BrokerEpoch, BrokerId, LeaderEpoch, TopicPartition};

use crate::controller::{AlterPartition, IsrResult, PartitionIsr};

/// Partitions in one request.
pub const WISHES_PER_REQUEST_MAX: usize = 1_000;
/// How long after a refusal anything is asked again.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
/// How long an answer is waited for.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// What the controller said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrAnswer {
    /// The index of the image after the decision.
    pub decided_at: u64,
    /// For each partition, or why the whole request was refused.
    pub results: Result<Vec<IsrResult>, ErrorCode>,
}

/// A wish that is on its way no more: for the leader of that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whose.
    pub partition: TopicPartition,
    /// The epoch it was made in.
    pub leader_epoch: LeaderEpoch,
    /// The image index the answer rests on; `None` when nobody knows what became of the wish.
    pub decided_at: Option<u64>,
}

/// The wishes of one broker.
#[derive(Clone, Debug, Default)]
pub struct IsrProposals {
    waiting: BTreeMap<TopicPartition, PartitionIsr>,
    in_flight: Option<InFlight>,
    not_before: Option<Instant>,
    requests_count: u64,
}

#[derive(Clone, Debug)]
struct InFlight {
    number: u64,
    since: Instant,
    wishes: Vec<(TopicPartition, LeaderEpoch)>,
}

impl IsrProposals {
    /// A leader wishes. A later wish of the same partition replaces one that was not sent.
    pub fn wish(&mut self, wish: PartitionIsr) {
        self.waiting.insert(wish.partition, wish);
    }

    /// The partition is led here no more.
    pub fn forget(&mut self, partition: TopicPartition) {
        self.waiting.remove(&partition);
    }

    /// The next request and its number, if one is due.
    pub fn request(
        &mut self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        now: Instant,
    ) -> Option<(u64, AlterPartition)> {
        let is_early = self.not_before.is_some_and(|moment| now < moment);
        if self.in_flight.is_some() || self.waiting.is_empty() || is_early {
            return None;
        }
        let mut partitions = Vec::new();
        while partitions.len() < WISHES_PER_REQUEST_MAX
            && let Some((_, wish)) = self.waiting.pop_first()
        {
            partitions.push(wish);
        }
        self.requests_count += 1;
        let wishes = partitions.iter().map(|wish| (wish.partition, wish.leader_epoch)).collect();
        self.in_flight = Some(InFlight { number: self.requests_count, since: now, wishes });
        Some((self.requests_count, AlterPartition { broker, broker_epoch, partitions }))
    }

    /// The answer to a request; that of an earlier one changes nothing.
    pub fn on_answer(&mut self, number: u64, answer: &IsrAnswer, now: Instant) -> Vec<Settled> {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.number == number) else { return Vec::new() };
        let mut settled = Vec::new();
        for (partition, leader_epoch) in in_flight.wishes {
            let result = match &answer.results {
                Ok(results) => {
                    results.iter().find(|result| result.partition == partition).map(|one| match &one.result {
                        Ok(_) => ErrorCode::None,
                        Err(reject) => reject.code,
                    })
                }
                Err(code) => Some(*code),
            };
            if result != Some(ErrorCode::None) {
                self.not_before = Some(now + RETRY_AFTER);
            }
            let decided_at = result.filter(|code| is_decided(*code)).map(|_| answer.decided_at);
            settled.push(Settled { partition, leader_epoch, decided_at });
        }
        settled
    }

    /// The request went nowhere, or its connection is gone: nobody knows what became of it.
    pub fn on_lost(&mut self, number: u64, now: Instant) -> Vec<Settled> {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.number == number) else { return Vec::new() };
        self.not_before = Some(now + RETRY_AFTER);
        let unknown = |(partition, leader_epoch)| Settled { partition, leader_epoch, decided_at: None };
        in_flight.wishes.into_iter().map(unknown).collect()
    }

    /// The number of a request that has waited for its answer for too long.
    pub fn overdue(&self, now: Instant) -> Option<u64> {
        let in_flight = self.in_flight.as_ref()?;
        (now.saturating_duration_since(in_flight.since) > ANSWER_TIME_MAX).then_some(in_flight.number)
    }
}

/// Whether a controller decided this, so that its image is what the leader's must reach.
fn is_decided(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::None
            | ErrorCode::IneligibleReplica
            | ErrorCode::OperationNotAttempted
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NewLeaderElected
    )
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::{PartitionEpoch, PartitionIndex, Uuid};

    use super::*;
    use crate::controller::Reject;
    use crate::metadata::RecoveryState;

    fn id(partition: i32) -> TopicPartition {
        TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(partition) }
    }

    fn wish(partition: i32) -> PartitionIsr {
        PartitionIsr {
            partition: id(partition),
            leader_epoch: LeaderEpoch(3),
            partition_epoch: PartitionEpoch(7),
            isr: Vec::new(),
            damaged: Vec::new(),
            recovering: RecoveryState::Recovered,
            hand_over: false,
        }
    }

    fn request(proposals: &mut IsrProposals, now: Instant) -> Option<(u64, usize)> {
        let (number, request) = proposals.request(BrokerId(1), BrokerEpoch(5), now)?;
        Some((number, request.partitions.len()))
    }

    fn refused(partition: i32, code: ErrorCode) -> IsrResult {
        IsrResult { partition: id(partition), result: Err(Reject::from(code)) }
    }

    #[test]
    fn wishes_that_wait_go_together_and_one_request_at_a_time() {
        let now = crate::runtime::clock::Clock.mono();
        let mut proposals = IsrProposals::default();
        proposals.wish(wish(0));
        assert_eq!(request(&mut proposals, now), Some((1, 1)));
        proposals.wish(wish(1));
        proposals.wish(wish(2));
        proposals.wish(wish(3));
        proposals.forget(id(3));
        assert_eq!(request(&mut proposals, now), None);
        let lost = Settled { partition: id(0), leader_epoch: LeaderEpoch(3), decided_at: None };
        assert_eq!(proposals.on_lost(1, now), [lost]);
        assert_eq!(request(&mut proposals, now), None, "not at once");
        assert_eq!(request(&mut proposals, now + RETRY_AFTER), Some((2, 2)));
        let late = IsrAnswer { decided_at: 9, results: Err(ErrorCode::NotController) };
        assert_eq!(proposals.on_answer(1, &late, now), [], "the answer to an earlier request");
    }

    #[test]
    fn a_decision_names_the_image_it_rests_on_and_anything_else_is_asked_again() {
        let now = crate::runtime::clock::Clock.mono();
        let answered = |results| {
            let mut proposals = IsrProposals::default();
            proposals.wish(wish(0));
            let (number, _) = request(&mut proposals, now).expect("due");
            proposals.on_answer(number, &IsrAnswer { decided_at: 9, results }, now)[0].decided_at
        };
        for code in [ErrorCode::IneligibleReplica, ErrorCode::FencedLeaderEpoch, ErrorCode::InvalidUpdateVersion] {
            assert_eq!(answered(Ok(vec![refused(0, code)])), Some(9), "{code}");
        }
        assert_eq!(answered(Ok(vec![refused(0, ErrorCode::NotController)])), None);
        assert_eq!(answered(Err(ErrorCode::StaleBrokerEpoch)), None);
        assert_eq!(answered(Ok(vec![])), None, "an answer that leaves it out");
    }

    #[test]
    fn an_answer_that_does_not_come_is_given_up() {
        let now = crate::runtime::clock::Clock.mono();
        let mut proposals = IsrProposals::default();
        proposals.wish(wish(0));
        request(&mut proposals, now);
        assert_eq!(proposals.overdue(now + ANSWER_TIME_MAX), None);
        assert_eq!(proposals.overdue(now + ANSWER_TIME_MAX + RETRY_AFTER), Some(1));
    }
}
