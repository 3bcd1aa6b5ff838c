//! Reading the log back: what a coordinator does before it answers anybody.
//!
//! Records of other kinds of groups, and versions this one does not know, are passed over and counted; so are records
//! whose bytes are not a record's, which only something other than a coordinator can have written. Nothing of them is
//! guessed at, and nothing is lost from the log by that.

use stonelog_protocol::Offset;
use stonelog_protocol::batch::header::HeaderError;
use stonelog_protocol::batch::{Batches, CompressionError, RecordError, Records, open_records};
use thiserror::Error;

use super::live::LiveGroup;
use super::rebalance::Turn;
use super::{Groups, Now, Timers};
use crate::coordinator::record::{Decoded, Record};

/// What one batch may open to. Batches written here are far smaller; another coordinator may have compressed its own.
pub const BATCH_RECORDS_BYTES_MAX: usize = 64 << 20;

/// A batch of the log cannot be read.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Its header is not a batch's.
    #[error("a batch header cannot be read: {0:?}")]
    Header(HeaderError),
    /// Its records cannot be decompressed.
    #[error("a batch at offset {0} cannot be opened: {1}")]
    Compression(Offset, CompressionError),
    /// A record does not lie within it.
    #[error("a batch at offset {0} cannot be walked: {1}")]
    Record(Offset, RecordError),
}

/// What a replay has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records that were applied.
    pub applied_count: u64,
    /// Records of types that are not a classic group's.
    pub unknown_type_count: u64,
    /// Records in versions newer than those known.
    pub unknown_version_count: u64,
    /// Records whose bytes are not a record's.
    pub malformed_count: u64,
    /// Records of transactions, which this version cannot settle and so does not apply.
    pub transactional_count: u64,
}

impl Groups {
    /// Reads a run of whole batches, as a read of the log returns them, and applies what they hold. Returns the offset
    /// to read next, `None` when there was no whole batch.
    pub fn replay_batches(&mut self, bytes: &[u8], replayed: &mut Replayed) -> Result<Option<Offset>, ReplayError> {
        let mut next = None;
        for batch in Batches::new(bytes) {
            let (header, batch) = batch.map_err(ReplayError::Header)?;
            next = Some(header.next_offset());
            if header.is_control() {
                continue;
            }
            let at = header.base_offset;
            let opened = open_records(batch, &header, BATCH_RECORDS_BYTES_MAX);
            let opened = opened.map_err(|error| ReplayError::Compression(at, error))?;
            for record in Records::new(&opened, header.records_count) {
                let record = record.map_err(|error| ReplayError::Record(at, error))?;
                match record.key {
                    _ if header.is_transactional() => replayed.transactional_count += 1,
                    Some(key) => self.replay(key, record.value, replayed),
                    None => replayed.malformed_count += 1,
                }
            }
        }
        Ok(next)
    }

    /// Reads one record of the log (`value` is `None` for a tombstone) and applies it. For replay only: what was
    /// decided here is applied by [`Groups::on_appended`].
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>, replayed: &mut Replayed) {
        match Record::decode(key, value) {
            Ok(Decoded::Known(record)) => {
                self.apply(&record);
                replayed.applied_count += 1;
            }
            Ok(Decoded::UnknownType(_)) => replayed.unknown_type_count += 1,
            Ok(Decoded::UnknownVersion { .. }) => replayed.unknown_version_count += 1,
            Err(_) => replayed.malformed_count += 1,
        }
    }

    /// Applies one record of the log; see [`Groups::replay`].
    pub fn apply(&mut self, record: &Record) {
        self.hard.apply(record);
    }

    /// Ends the replay: members the log names become live, each with a fresh session, in the group's last generation.
    /// A group larger than the limit rebalances, so that its members can commit before some of them are turned away.
    pub fn on_loaded(&mut self, now: Now) {
        let with_members = self.hard.iter().filter_map(|(id, hard)| {
            let stored = hard.metadata.as_ref().filter(|stored| !stored.members.is_empty())?;
            Some((id.clone(), LiveGroup::from_stored(id.clone(), stored)))
        });
        self.live = with_members.collect();
        self.timers = Timers::default();
        for group in self.live.values_mut() {
            let mut turn = Turn::new(group, &mut self.timers, &self.config, now);
            turn.reset_every_session();
            if turn.group.members.len() > turn.config.group_members_max {
                turn.prepare_rebalance();
            }
            assert!(turn.decision.records.is_empty(), "nobody waits in a group just loaded");
        }
    }
}

#[cfg(test)]
mod tests {
    use stonelog_protocol::batch::header::patch_offset_and_epoch;
    use stonelog_protocol::batch::{BatchBuilder, Compression, NewRecord};
    use stonelog_protocol::{ErrorCode, LeaderEpoch};

    use super::super::live::State;
    use super::super::message::JoinRequest;
    use super::super::testing::{World, commit_request, instance, join_request};
    use super::*;
    use crate::coordinator::record::encode_batch;

    #[test]
    fn a_reloaded_group_keeps_members_generation_and_assignments() {
        let mut world = World::new();
        let fixed = JoinRequest { instance_id: Some(instance("i")), ..join_request() };
        let ids = world.stable_with(vec![join_request(), fixed]);
        world.commit(commit_request(1, &ids[1], 5));
        world.advance_ms(9_000);
        world.restart();
        assert_eq!(world.state(), Some(State::Stable));
        world.advance_ms(9_000);
        for id in &ids {
            assert_eq!(world.heartbeat(id, 1), ErrorCode::None, "sessions begin anew");
            let ticket = world.sync_as(id, 1, &[]);
            assert_eq!(world.synced(ticket).unwrap().assignment, id.as_str().as_bytes());
        }
        assert_eq!(world.commit(commit_request(1, &ids[0], 6)), ErrorCode::None);
        world.advance_ms(10_000);
        assert_eq!(world.state(), Some(State::Empty), "and end when nobody comes");
    }

    #[test]
    fn a_group_reloaded_in_the_middle_of_a_rebalance_is_in_its_last_generation() {
        let mut world = World::new();
        let ids = world.stable(2);
        let joining = world.join(JoinRequest { member_id: ids[0].clone(), ..join_request() });
        world.restart();
        assert_eq!(world.joined(joining).unwrap().error, ErrorCode::NotCoordinator);
        assert_eq!(world.state(), Some(State::Stable));
        assert_eq!(world.heartbeat(&ids[0], 1), ErrorCode::None);
    }

    #[test]
    fn a_reloaded_group_larger_than_the_limit_rebalances() {
        let mut world = World::new();
        let ids = world.stable(3);
        world.groups.config.group_members_max = 2;
        world.restart();
        assert_eq!(world.state(), Some(State::PreparingRebalance));
        assert_eq!(world.commit(commit_request(1, &ids[2], 5)), ErrorCode::None);
        for id in &ids[..2] {
            world.join(JoinRequest { member_id: id.clone(), ..join_request() });
        }
        let last = JoinRequest { member_id: ids[2].clone(), ..join_request() };
        assert_eq!(world.join_error(last), ErrorCode::GroupMaxSizeReached);
        assert_eq!(world.state(), Some(State::CompletingRebalance));
    }

    #[test]
    fn what_is_not_ours_is_counted_and_passed_over() {
        let mut world = World::new();
        let ids = world.stable(1);
        world.commit(commit_request(1, &ids[0], 5));
        let mut fresh = Groups::new(world.groups.config.clone());
        let mut replayed = Replayed::default();
        for record in &world.log {
            fresh.replay(&record.encode_key(), record.encode_value().as_deref(), &mut replayed);
        }
        fresh.replay(b"\x00\x03\x00\x01g", Some(b"\x00\x00"), &mut replayed);
        fresh.replay(b"\x00\x02\x00\x01g", Some(b"\x00\x09"), &mut replayed);
        fresh.replay(b"\x00\x02\x00\x01g", Some(b"\x00\x03\x7f"), &mut replayed);
        fresh.replay(b"\x00", None, &mut replayed);
        let expected = Replayed {
            applied_count: 2,
            unknown_type_count: 1,
            unknown_version_count: 1,
            malformed_count: 2,
            transactional_count: 0,
        };
        assert_eq!(replayed, expected);
        assert_eq!(fresh.hard(), world.groups.hard());
    }

    #[test]
    fn batches_are_read_back_whatever_their_codec() {
        let mut world = World::new();
        let ids = world.stable(2);
        world.commit(commit_request(1, &ids[0], 5));
        world.leave_as(&ids[0]);
        let now = world.now.wall;
        for codec in [Compression::None, Compression::Zstd, Compression::Lz4] {
            let mut bytes = Vec::new();
            for (at, half) in world.log.chunks(2).enumerate() {
                let mut batch = encode_batch(half, codec, now, usize::MAX).unwrap();
                patch_offset_and_epoch(&mut batch, Offset(at as i64 * 2), LeaderEpoch(1));
                bytes.extend(batch);
            }
            let control = BatchBuilder::new().control().at(Offset(50), LeaderEpoch(1));
            bytes.extend(control.build().unwrap());
            let mut transactional = BatchBuilder::new().transactional().at(Offset(60), LeaderEpoch(1));
            transactional.push(NewRecord::new(now, Some(&world.log[0].encode_key()), None));
            transactional.push(NewRecord::new(now, None, None));
            bytes.extend(transactional.build().unwrap());

            let mut fresh = Groups::new(world.groups.config.clone());
            let mut replayed = Replayed::default();
            let next = fresh.replay_batches(&bytes, &mut replayed).unwrap();
            assert_eq!(next, Some(Offset(62)));
            assert_eq!(fresh.hard(), world.groups.hard(), "{codec:?}");
            assert_eq!((replayed.applied_count, replayed.transactional_count), (world.log.len() as u64, 2));
            assert_eq!(fresh.replay_batches(&bytes[..40], &mut replayed).unwrap(), None);
        }
    }
}
