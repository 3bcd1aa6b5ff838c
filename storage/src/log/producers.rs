//! What a log knows about its idempotent producers (KIP-98; Kafka's `ProducerStateManager`).
//!
//! The last five batches of each producer tell a repeated batch from a new one, and a gap from the next in sequence.
//! [`Producers::check`] decides and changes nothing; [`Producers::apply`] is the only writer, also in recovery.
//!
//! One difference from Kafka: a producer expires by the time this broker last saw it, not by its own timestamps, so
//! that a producer of historical records keeps its protection against duplicates.

use std::collections::HashMap;
use std::time::Duration;

use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::add_sequence;
use stonelog_protocol::{Offset, ProducerEpoch, ProducerId, Timestamp};

/// Batches remembered per producer (`ProducerStateEntry.NUM_BATCHES_TO_RETAIN`): clients keep at most five in flight.
pub const PRODUCER_BATCHES_COUNT: usize = 5;

/// Producers remembered per log. A client that makes more (each restart makes one) loses the protection of those
/// seen longest ago, instead of the broker its memory.
pub const PRODUCERS_COUNT_MAX: usize = 100_000;

/// One batch a producer appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ProducedBatch {
    /// Sequence number of its first record.
    pub first_sequence: i32,
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its largest record timestamp.
    pub max_timestamp: Timestamp,
}

/// What is known of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerState {
    /// The newest epoch it used here.
    pub epoch: ProducerEpoch,
    /// When this broker last saw a batch of it.
    pub last_seen: Timestamp,
    batches: [ProducedBatch; PRODUCER_BATCHES_COUNT],
    batches_count: u8,
}

impl ProducerState {
    /// A state read from a checkpoint; `None` when it holds no batch or too many.
    pub fn from_batches(
        epoch: ProducerEpoch,
        last_seen: Timestamp,
        remembered: &[ProducedBatch],
    ) -> Option<ProducerState> {
        if remembered.is_empty() || remembered.len() > PRODUCER_BATCHES_COUNT {
            return None;
        }
        let mut batches = [ProducedBatch::default(); PRODUCER_BATCHES_COUNT];
        batches[..remembered.len()].copy_from_slice(remembered);
        Some(ProducerState { epoch, last_seen, batches, batches_count: remembered.len() as u8 })
    }

    /// The remembered batches of the newest epoch, oldest first; never empty.
    pub fn batches(&self) -> &[ProducedBatch] {
        &self.batches[..usize::from(self.batches_count)]
    }

    fn newest(&self) -> &ProducedBatch {
        &self.batches[usize::from(self.batches_count) - 1]
    }

    fn push(&mut self, batch: ProducedBatch) {
        if usize::from(self.batches_count) == PRODUCER_BATCHES_COUNT {
            self.batches.copy_within(1.., 0);
            self.batches_count -= 1;
        }
        self.batches[usize::from(self.batches_count)] = batch;
        self.batches_count += 1;
    }
}

/// A batch of an idempotent producer that may be appended, or was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequence {
    /// Next in sequence, or of no producer.
    New,
    /// Exactly this batch was appended before.
    Duplicate(ProducedBatch),
}

/// Why a batch does not fit what is known of its producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceReject {
    /// An older epoch of the producer (INVALID_PRODUCER_EPOCH, 47).
    StaleEpoch {
        /// The newest epoch known.
        current: ProducerEpoch,
    },
    /// Not the next sequence number (OUT_OF_ORDER_SEQUENCE_NUMBER, 45).
    OutOfOrder {
        /// The last sequence number appended; -1 for a new epoch, which starts at 0.
        last_sequence: i32,
    },
}

/// The producers of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    states: HashMap<ProducerId, ProducerState>,
}

impl Producers {
    /// Puts in a state read from a checkpoint.
    pub fn restore(&mut self, id: ProducerId, state: ProducerState) {
        self.states.insert(id, state);
    }

    /// All producers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ProducerId, &ProducerState)> {
        self.states.iter().map(|(id, state)| (*id, state))
    }

    /// How many producers are remembered.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether no producer is remembered.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// What is known of one producer.
    pub fn get(&self, id: ProducerId) -> Option<&ProducerState> {
        self.states.get(&id)
    }

    /// Whether a client's batch may be appended. The first step looks for the exact batch among the last five; a
    /// producer nothing is known of may start anywhere (`ProducerAppendInfo.checkSequence`).
    pub fn check(&self, header: &BatchHeader) -> Result<Sequence, SequenceReject> {
        if header.producer_id.0 < 0 {
            return Ok(Sequence::New);
        }
        let Some(state) = self.states.get(&header.producer_id) else { return Ok(Sequence::New) };
        if header.producer_epoch < state.epoch {
            return Err(SequenceReject::StaleEpoch { current: state.epoch });
        }
        if header.producer_epoch > state.epoch {
            return match header.base_sequence {
                0 => Ok(Sequence::New),
                _ => Err(SequenceReject::OutOfOrder { last_sequence: -1 }),
            };
        }
        let same = |batch: &&ProducedBatch| {
            batch.first_sequence == header.base_sequence && batch.last_sequence == header.last_sequence()
        };
        if let Some(original) = state.batches().iter().find(same) {
            return Ok(Sequence::Duplicate(*original));
        }
        let last_sequence = state.newest().last_sequence;
        match header.base_sequence == add_sequence(last_sequence, 1) {
            true => Ok(Sequence::New),
            false => Err(SequenceReject::OutOfOrder { last_sequence }),
        }
    }

    /// Notes an appended batch, whose header carries its final offsets, first seen at `seen`.
    /// Whether it fits was decided before; what is in the log is a fact.
    pub fn apply(&mut self, header: &BatchHeader, seen: Timestamp) {
        if header.producer_id.0 < 0 || header.is_control() {
            return;
        }
        let batch = ProducedBatch {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp,
        };
        if self.states.len() >= PRODUCERS_COUNT_MAX && !self.states.contains_key(&header.producer_id) {
            self.forget_longest_unseen(PRODUCERS_COUNT_MAX / 16);
        }
        let fresh = ProducerState {
            epoch: header.producer_epoch,
            last_seen: seen,
            batches: [ProducedBatch::default(); PRODUCER_BATCHES_COUNT],
            batches_count: 0,
        };
        let state = self.states.entry(header.producer_id).or_insert(fresh);
        if state.epoch != header.producer_epoch {
            *state = fresh;
        }
        state.last_seen = state.last_seen.max(seen);
        state.push(batch);
    }

    /// Notes a batch that was lost and is back, at its place among those that are known.
    pub(super) fn learn(&mut self, header: &BatchHeader, seen: Timestamp) {
        let known = self.states.get(&header.producer_id).copied();
        let Some(known) = known.filter(|known| known.epoch >= header.producer_epoch) else {
            return self.apply(header, seen);
        };
        let later = known.batches().iter().filter(|batch| batch.base_offset > header.base_offset);
        let is_known = known.batches().iter().any(|batch| batch.base_offset == header.base_offset);
        if known.epoch > header.producer_epoch || is_known || later.clone().count() == PRODUCER_BATCHES_COUNT {
            return;
        }
        let earlier = known.batches().len() - later.clone().count();
        let mut learnt = Producers::default();
        if let Some(state) = ProducerState::from_batches(known.epoch, known.last_seen, &known.batches()[..earlier]) {
            learnt.restore(header.producer_id, state);
        }
        learnt.apply(header, known.last_seen);
        if let Some(mut state) = learnt.states.remove(&header.producer_id) {
            later.for_each(|batch| state.push(*batch));
            self.states.insert(header.producer_id, state);
        }
    }

    /// Forgets producers not seen for `after` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now: Timestamp, after: Duration) {
        self.states.retain(|_, state| state.last_seen.saturating_add(after) > now);
    }

    fn forget_longest_unseen(&mut self, count: usize) {
        let mut seen: Vec<(Timestamp, ProducerId)> =
            self.states.iter().map(|(id, state)| (state.last_seen, *id)).collect();
        if count < seen.len() {
            seen.select_nth_unstable(count);
        }
        for (_, id) in seen.into_iter().take(count) {
            self.states.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::{Batch, header};

    fn batch(epoch: i16, sequence: i32, offset: i64, records: i32) -> BatchHeader {
        header(&Batch { base_offset: offset, records, ..Batch::of_producer(7, epoch, sequence) }.bytes())
    }

    fn after(batches: &[BatchHeader]) -> Producers {
        let mut producers = Producers::default();
        for header in batches {
            producers.apply(header, Timestamp(1));
        }
        producers
    }

    #[test]
    fn a_batch_sent_again_is_a_duplicate_with_its_original_offsets() {
        let given = after(&[batch(0, 0, 100, 3), batch(0, 3, 103, 2)]);
        let Ok(Sequence::Duplicate(original)) = given.check(&batch(0, 0, 0, 3)) else { panic!("not a duplicate") };
        assert_eq!((original.base_offset, original.last_offset), (Offset(100), Offset(102)));
        assert_eq!(given.check(&batch(0, 5, 0, 1)), Ok(Sequence::New));
    }

    #[test]
    fn a_duplicate_older_than_five_batches_is_out_of_order() {
        let sent: Vec<BatchHeader> = (0..6).map(|n| batch(0, n, i64::from(n), 1)).collect();
        let given = after(&sent);
        assert_eq!(given.check(&sent[0]), Err(SequenceReject::OutOfOrder { last_sequence: 5 }));
        assert!(matches!(given.check(&sent[1]), Ok(Sequence::Duplicate(_))));
    }

    #[test]
    fn a_gap_and_a_partial_overlap_are_out_of_order() {
        let given = after(&[batch(0, 0, 0, 3)]);
        assert_eq!(given.check(&batch(0, 4, 0, 1)), Err(SequenceReject::OutOfOrder { last_sequence: 2 }));
        assert_eq!(given.check(&batch(0, 0, 0, 2)), Err(SequenceReject::OutOfOrder { last_sequence: 2 }));
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        let given = after(&[batch(0, i32::MAX - 1, 0, 2)]);
        assert_eq!(given.check(&batch(0, 0, 0, 1)), Ok(Sequence::New));
        assert!(given.check(&batch(0, 1, 0, 1)).is_err());
    }

    #[test]
    fn epochs_fence_older_ones_and_begin_at_zero() {
        let given = after(&[batch(3, 5, 0, 1)]);
        assert_eq!(given.check(&batch(2, 6, 0, 1)), Err(SequenceReject::StaleEpoch { current: ProducerEpoch(3) }));
        assert_eq!(given.check(&batch(4, 6, 0, 1)), Err(SequenceReject::OutOfOrder { last_sequence: -1 }));
        assert_eq!(given.check(&batch(4, 0, 0, 1)), Ok(Sequence::New));
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        assert_eq!(Producers::default().check(&batch(4, 77, 0, 1)), Ok(Sequence::New));
    }

    #[test]
    fn a_producer_expires_by_when_it_was_last_seen() {
        let mut given = after(&[batch(0, 0, 0, 1)]);
        given.expire(Timestamp(1_000), Duration::from_secs(1));
        assert_eq!(given.len(), 1, "seen at 1 ms, expires at 1,001 ms");
        given.expire(Timestamp(1_001), Duration::from_secs(1));
        assert!(given.is_empty());
    }

    #[test]
    fn a_new_epoch_forgets_the_batches_of_the_old_one() {
        let given = after(&[batch(0, 0, 0, 1), batch(1, 0, 1, 1)]);
        let state = given.get(ProducerId(7)).expect("known");
        assert_eq!((state.epoch, state.batches().len()), (ProducerEpoch(1), 1));
    }
}
