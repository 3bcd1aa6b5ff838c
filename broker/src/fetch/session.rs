//! Incremental fetch sessions (KIP-227): the broker remembers what a client fetches, so that a request names only what
//! changed and an answer only what is new.
//!
//! Pure: time is an argument. A cache holds a bounded number of sessions, and of partitions over all of them; a client
//! that gets no slot is answered with session id 0 and goes on with full requests. Source: `FetchManager`, `FetchContext`, `FetchSession`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stonelog_protocol::error_code::ErrorCode;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicId};

/// A session idle for this long may lose its slot (`FetchSessionCache`, 120 s).
pub const EVICT_AFTER: Duration = Duration::from_secs(120);
/// Session id of a request or answer without a session.
pub const NO_SESSION: i32 = 0;
/// Epoch of a request that wants a new session (after closing the named one).
pub const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that wants no session (and closes the named one).
pub const FINAL_EPOCH: i32 = -1;

/// How a topic is named on the wire; versions below 13 use names, from 13 on ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TopicKey {
    /// Up to version 12.
    Name(Arc<str>),
    /// From version 13 on.
    Id(TopicId),
}

/// A partition as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionKey {
    /// Its topic.
    pub topic: TopicKey,
    /// Its index.
    pub partition: PartitionIndex,
}

/// What a client wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From where on.
    pub fetch_offset: Offset,
    /// The log start offset a follower knows; consumers send -1.
    pub log_start_offset: Offset,
    /// At most so many bytes, unless the first batch is larger.
    pub max_bytes: i32,
    /// The epoch the client believes in, or none.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the last record it has, or none.
    pub last_fetched_epoch: LeaderEpoch,
}

/// What an answer says of one partition, as far as sessions compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The high watermark.
    pub high_watermark: Offset,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// Whether there are records.
    pub has_records: bool,
    /// Whether the partition failed.
    pub failed: bool,
    /// Whether a diverging epoch or a preferred replica is named.
    pub has_news: bool,
}

/// How one request relates to sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No session: everything is named in the request and in the answer.
    Sessionless,
    /// A new session wants to be made with everything named in the request.
    Full,
    /// An established session; the answer names only what is new.
    Incremental {
        /// The session.
        id: i32,
    },
}

/// What a request amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// How the answer is made.
    pub mode: Mode,
    /// Everything to read, in service order.
    pub wanted: Vec<(PartitionKey, Wanted)>,
}

struct Session {
    epoch: i32,
    uses_ids: bool,
    last_used: Instant,
    /// Service order: partitions that returned data move to the end.
    order: BTreeMap<u64, PartitionKey>,
    partitions: HashMap<PartitionKey, Remembered>,
    next_turn: u64,
}

struct Remembered {
    wanted: Wanted,
    turn: u64,
    /// What was said last; `None` before the first answer and after an error, so that it is said again.
    high_watermark: Option<Offset>,
    log_start_offset: Option<Offset>,
}

/// A bounded cache of sessions.
pub struct Sessions {
    slots: usize,
    /// Partitions that all sessions may remember together.
    partitions_max: usize,
    /// How many they do.
    partitions: usize,
    sessions: HashMap<i32, Session>,
}

impl Sessions {
    /// A cache of at most `slots` sessions (`max.incremental.fetch.session.cache.slots`), which remember at most
    /// `partitions_max` partitions together.
    pub fn new(slots: usize, partitions_max: usize) -> Sessions {
        Sessions { slots, partitions_max, partitions: 0, sessions: HashMap::new() }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request in: checks the session and its epoch, merges what changed, and lists what to read.
    pub fn begin(
        &mut self,
        id: i32,
        epoch: i32,
        named: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
        now: Instant,
    ) -> Result<Begun, ErrorCode> {
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            self.close(id);
            let mode = if epoch == FINAL_EPOCH { Mode::Sessionless } else { Mode::Full };
            return Ok(Begun { mode, wanted: named });
        }
        let session = self.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        let mixes = |key: &PartitionKey| matches!(key.topic, TopicKey::Id(_)) != session.uses_ids;
        if named.iter().map(|(key, _)| key).chain(forgotten).any(mixes) {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        session.epoch = next_epoch(epoch);
        session.last_used = now;
        let before = session.partitions.len();
        for key in forgotten {
            session.forget(key);
        }
        for (key, wanted) in named {
            session.want(key, wanted);
        }
        self.partitions = self.partitions - before + session.partitions.len();
        if self.partitions > self.partitions_max {
            // The client begins anew, and is served without a session while there is no room for one.
            self.close(id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        let wanted = session.order.values().map(|key| (key.clone(), session.partitions[key].wanted)).collect();
        Ok(Begun { mode: Mode::Incremental { id }, wanted })
    }

    /// Makes a session of a full request, if there is a slot. `fresh_id` is random and positive. Returns its id, or 0.
    pub fn establish(&mut self, fresh_id: i32, answered: &[(PartitionKey, Wanted, Said)], now: Instant) -> i32 {
        if answered.is_empty() || !self.make_room(answered.len(), now) || self.sessions.contains_key(&fresh_id) {
            return NO_SESSION;
        }
        let uses_ids = matches!(answered[0].0.topic, TopicKey::Id(_));
        let mut session = Session {
            epoch: 1,
            uses_ids,
            last_used: now,
            order: BTreeMap::new(),
            partitions: HashMap::with_capacity(answered.len()),
            next_turn: 0,
        };
        for (key, wanted, said) in answered {
            session.want(key.clone(), *wanted);
            session.say(key, *said);
        }
        self.partitions += session.partitions.len();
        self.sessions.insert(fresh_id, session);
        fresh_id
    }

    fn close(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }

    /// Which of the answers of an incremental request are worth saying; remembers them as said.
    pub fn filter(&mut self, id: i32, answered: &[(PartitionKey, Said)]) -> Vec<bool> {
        match self.sessions.get_mut(&id) {
            Some(session) => answered.iter().map(|(key, said)| session.say(key, *said)).collect(),
            // Closed by another connection meanwhile: everything is said.
            None => vec![true; answered.len()],
        }
    }

    /// Frees a slot for a session of `partitions` if need be, of a session idle for long, or of a smaller one; and room
    /// to remember them, of sessions idle for long.
    fn make_room(&mut self, partitions: usize, now: Instant) -> bool {
        while self.sessions.len() >= self.slots || self.partitions + partitions > self.partitions_max {
            let oldest = self.sessions.iter().min_by_key(|(id, session)| (session.last_used, **id));
            let idle = oldest.filter(|(_, session)| now.saturating_duration_since(session.last_used) > EVICT_AFTER);
            let smallest = || {
                let smallest = self.sessions.iter().min_by_key(|(id, session)| (session.partitions.len(), **id));
                smallest.filter(|(_, session)| session.partitions.len() < partitions)
            };
            let has_slot = self.sessions.len() < self.slots;
            let goes = match idle {
                Some((id, _)) => Some(*id),
                None if has_slot => None,
                None => smallest().map(|(id, _)| *id),
            };
            match goes {
                Some(id) => self.close(id),
                None => return false,
            }
        }
        true
    }
}

impl Session {
    fn want(&mut self, key: PartitionKey, wanted: Wanted) {
        if let Some(remembered) = self.partitions.get_mut(&key) {
            remembered.wanted = wanted;
            return;
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.order.insert(turn, key.clone());
        self.partitions.insert(key, Remembered { wanted, turn, high_watermark: None, log_start_offset: None });
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(remembered) = self.partitions.remove(key) {
            self.order.remove(&remembered.turn);
        }
    }

    /// Remembers an answer and tells whether it had to be said.
    fn say(&mut self, key: &PartitionKey, said: Said) -> bool {
        let Some(remembered) = self.partitions.get_mut(key) else { return true };
        let new_mark = remembered.high_watermark != Some(said.high_watermark);
        let new_start = remembered.log_start_offset != Some(said.log_start_offset);
        remembered.high_watermark = (!said.failed).then_some(said.high_watermark);
        remembered.log_start_offset = (!said.failed).then_some(said.log_start_offset);
        if said.has_records {
            let turn = self.next_turn;
            self.next_turn += 1;
            self.order.remove(&remembered.turn);
            remembered.turn = turn;
            self.order.insert(turn, key.clone());
        }
        said.failed || said.has_records || said.has_news || new_mark || new_start
    }
}

/// Epochs of a session count up and wrap to 1 (`FetchMetadata.nextEpoch`).
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> PartitionKey {
        PartitionKey { topic: TopicKey::Name("t".into()), partition: PartitionIndex(partition) }
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted {
            fetch_offset: Offset(offset),
            log_start_offset: Offset::NONE,
            max_bytes: 100,
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
        }
    }

    fn said(mark: i64) -> Said {
        Said {
            high_watermark: Offset(mark),
            log_start_offset: Offset(0),
            has_records: false,
            failed: false,
            has_news: false,
        }
    }

    fn now() -> Instant {
        #[allow(clippy::disallowed_methods, reason = "a test needs some instant")]
        Instant::now()
    }

    fn established(slots: usize, partitions: i32) -> (Sessions, Instant) {
        let (mut sessions, now) = (Sessions::new(slots, 8), now());
        let answered: Vec<_> = (0..partitions).map(|p| (key(p), wanted(0), said(5))).collect();
        assert_eq!(sessions.establish(77, &answered, now), 77);
        (sessions, now)
    }

    #[test]
    fn incremental_request_reads_everything_remembered() {
        let (mut sessions, now) = established(10, 3);
        let begun = sessions.begin(77, 1, vec![(key(1), wanted(9))], &[key(0)], now).unwrap();
        assert_eq!(begun.mode, Mode::Incremental { id: 77 });
        assert_eq!(begun.wanted, vec![(key(1), wanted(9)), (key(2), wanted(0))]);
    }

    #[test]
    fn answer_names_only_what_is_new() {
        let (mut sessions, now) = established(10, 3);
        sessions.begin(77, 1, vec![], &[], now).unwrap();
        let answered = [(key(0), said(5)), (key(1), said(6)), (key(2), Said { failed: true, ..said(5) })];
        assert_eq!(sessions.filter(77, &answered), vec![false, true, true]);
        let again = [(key(0), said(5)), (key(1), said(6)), (key(2), said(5))];
        assert_eq!(sessions.filter(77, &again), vec![false, false, true], "recovery from an error is said");
    }

    #[test]
    fn partition_that_returned_data_moves_to_the_end() {
        let (mut sessions, now) = established(10, 3);
        sessions.filter(77, &[(key(0), Said { has_records: true, ..said(6) })]);
        let begun = sessions.begin(77, 1, vec![], &[], now).unwrap();
        let order: Vec<_> = begun.wanted.into_iter().map(|(key, _)| key.partition.0).collect();
        assert_eq!(order, vec![1, 2, 0]);
    }

    #[test]
    fn wrong_epoch_and_unknown_session_are_told_apart() {
        let (mut sessions, now) = established(10, 1);
        assert_eq!(sessions.begin(77, 2, vec![], &[], now), Err(ErrorCode::InvalidFetchSessionEpoch));
        assert_eq!(sessions.begin(78, 1, vec![], &[], now), Err(ErrorCode::FetchSessionIdNotFound));
        let by_id = PartitionKey { topic: TopicKey::Id(TopicId::ZERO), partition: PartitionIndex(0) };
        assert_eq!(sessions.begin(77, 1, vec![(by_id, wanted(0))], &[], now), Err(ErrorCode::FetchSessionTopicIdError));
        assert!(sessions.begin(77, 1, vec![], &[], now).is_ok());
        assert!(sessions.begin(77, 2, vec![], &[], now).is_ok(), "each use raises the epoch");
    }

    #[test]
    fn closing_and_sessionless_requests_forget_the_session() {
        let (mut sessions, now) = established(10, 1);
        let begun = sessions.begin(77, FINAL_EPOCH, vec![(key(0), wanted(0))], &[], now).unwrap();
        assert_eq!(begun.mode, Mode::Sessionless);
        assert!(sessions.is_empty());
    }

    #[test]
    fn full_cache_evicts_the_idle_or_the_smaller_and_else_refuses() {
        let (mut sessions, start) = established(1, 2);
        let one = [(key(9), wanted(0), said(1))];
        let three: Vec<_> = (0..3).map(|p| (key(p), wanted(0), said(1))).collect();
        assert_eq!(sessions.establish(5, &one, start), NO_SESSION);
        assert_eq!(sessions.establish(6, &three, start), 6);
        assert_eq!(sessions.establish(7, &one, start + EVICT_AFTER + Duration::from_secs(1)), 7);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn sessions_remember_so_many_partitions_together_and_no_more() {
        let (mut sessions, start) = established(10, 6);
        let three: Vec<_> = (0..3).map(|p| (key(p), wanted(0), said(1))).collect();
        assert_eq!(sessions.establish(5, &three, start), NO_SESSION, "nine are too many");
        assert_eq!(sessions.establish(5, &three[..2], start), 5);
        let more = vec![(key(100), wanted(0))];
        assert_eq!(sessions.begin(5, 1, more.clone(), &[key(0)], start).map(|begun| begun.wanted.len()), Ok(2));
        assert_eq!(sessions.begin(5, 2, more, &[], start).map(|begun| begun.wanted.len()), Ok(2), "known already");
        let too_many = vec![(key(101), wanted(0))];
        assert_eq!(sessions.begin(5, 3, too_many, &[], start), Err(ErrorCode::FetchSessionIdNotFound));
        assert_eq!(sessions.len(), 1, "it is closed, and the client begins anew");
        let later = start + EVICT_AFTER + Duration::from_secs(1);
        assert_eq!(sessions.establish(6, &three, later), 6, "idle sessions make room");
        assert_eq!((sessions.len(), sessions.partitions), (1, 3));
    }

    #[test]
    fn epoch_wraps_to_one() {
        assert_eq!(next_epoch(i32::MAX), 1);
    }
}
