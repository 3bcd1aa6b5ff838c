//! What a leader knows of its followers: one session each, fenced by every stamp of rule 1.
//!
//! A session begins when a follower's stream opens and its log was found to be a beginning of the leader's. Its positions
//! count until a later session replaces it, the follower registers anew, or the leader's epoch ends.

use std::collections::BTreeMap;
use std::time::Instant;

use stonelog_protocol::peer::stream::{Stamps, StreamId, StreamReport};
use stonelog_protocol::{BrokerId, Offset};

use super::leadership::Member;

/// A replica's two positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Positions {
    /// End of what it has written (survives its process).
    pub written: Offset,
    /// End of what it has fsynced (survives its power).
    pub durable: Offset,
}

impl Positions {
    /// The one position that decides in this mode (rule 2).
    pub fn deciding(&self, strict: bool) -> Offset {
        if strict && !off!(OnePosition) { self.durable } else { self.written }
    }
}

/// One follower in one leader epoch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) stamps: Stamps,
    pub(super) stream: StreamId,
    pub(super) positions: Positions,
    /// Whether it knows of no damage in its log, by what it said last.
    pub(super) is_whole: bool,
    /// Whether its log ended below the high watermark when its stream opened.
    pub(super) opened_short: bool,
    /// Whether its stream is open.
    pub(super) is_open: bool,
    /// End of what was pushed to it: it cannot have more.
    pushed: Offset,
    /// The newest moment at which it had all that the leader had.
    pub(super) caught_up_at: Instant,
    /// Where the leader stood at a moment: when the follower passes it, it was caught up then (KAFKA-1546).
    mark: (Instant, Offset),
    /// What its log begins at, also after a power cut, by what it said last.
    pub(super) log_start: Offset,
    /// The newest question it has repeated in this epoch.
    pub(super) probe: u64,
}

/// The sessions of a leader.
#[derive(Clone, Debug)]
pub(super) struct Followers {
    sessions: BTreeMap<BrokerId, Session>,
    /// When the epoch began: who has not been heard of since is behind from here on.
    began: Instant,
}

impl Followers {
    pub(super) fn new(began: Instant) -> Followers {
        Followers { sessions: BTreeMap::new(), began }
    }

    pub(super) fn get(&self, broker: BrokerId) -> Option<&Session> {
        self.sessions.get(&broker)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BrokerId, &Session)> {
        self.sessions.iter().map(|(broker, session)| (*broker, session))
    }

    /// An epoch ended: nothing that was said in it counts.
    pub(super) fn begin_epoch(&mut self, now: Instant) {
        self.sessions.clear();
        self.began = now;
    }

    /// Forgets who is no replica any more, has registered anew, or was given another directory.
    pub(super) fn on_members(&mut self, members: &BTreeMap<BrokerId, Member>) {
        self.sessions.retain(|broker, session| {
            members.get(broker).is_some_and(|member| {
                member.broker_epoch == session.stamps.follower_broker_epoch
                    && (member.directory == session.stamps.follower_directory || off!(MemberDirectory))
            })
        });
    }

    /// Whether a stream is later than every one of that follower's before. A late open must not undo a newer one.
    pub(super) fn is_later(&self, stamps: &Stamps, stream: StreamId) -> bool {
        let known = self.sessions.get(&stamps.follower);
        known.is_none_or(|known| {
            stamps.follower_broker_epoch > known.stamps.follower_broker_epoch || stream > known.stream
        })
    }

    /// A stream is open, and the follower's log up to `fetch_offset` is as the leader's.
    pub(super) fn open(
        &mut self,
        stream: StreamId,
        stamps: Stamps,
        report: StreamReport,
        (fetch_offset, leader_at): (Offset, Offset),
        high_watermark: Offset,
        now: Instant,
    ) {
        let caught_up_at = self.sessions.get(&stamps.follower).map_or(self.began, |old| old.caught_up_at);
        let positions =
            Positions { written: report.written.min(fetch_offset), durable: report.durable.min(fetch_offset) };
        let session = Session {
            stamps,
            stream,
            positions,
            is_whole: report.is_whole,
            opened_short: fetch_offset < high_watermark,
            is_open: true,
            pushed: fetch_offset,
            caught_up_at,
            mark: (now, leader_at),
            log_start: report.log_start,
            // What it heard on an earlier stream it does not say again.
            probe: report.probe,
        };
        self.sessions.insert(stamps.follower, session);
    }

    /// Batches up to `end` were pushed on a stream.
    pub(super) fn on_pushed(&mut self, stream: StreamId, stamps: &Stamps, end: Offset) {
        if let Some(session) = self.of(stream, stamps) {
            session.pushed = session.pushed.max(end);
        }
    }

    /// A report. Returns whether it counts: every stamp is the session's own, and it claims no more than was pushed.
    pub(super) fn on_report(
        &mut self,
        stream: StreamId,
        stamps: &Stamps,
        report: &StreamReport,
        (leader_at, strict): (Offset, bool),
        now: Instant,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&stamps.follower) else { return false };
        let is_own = session.stream == stream && session.stamps == *stamps && session.is_open;
        if !(is_own || off!(ReportStamps)) || report.written > session.pushed {
            return false;
        }
        session.positions.written = session.positions.written.max(report.written);
        session.positions.durable = session.positions.durable.max(report.durable);
        session.is_whole = report.is_whole;
        session.log_start = report.log_start;
        session.probe = session.probe.max(report.probe);
        session.look(leader_at, strict, now);
        true
    }

    /// The stream is over. What was reported on it stays true.
    pub(super) fn close(&mut self, stream: StreamId, stamps: &Stamps) {
        if let Some(session) = self.of(stream, stamps) {
            session.is_open = false;
        }
    }

    /// The session that a stream belongs to. The stream's number alone names none: every incarnation begins anew.
    fn of(&mut self, stream: StreamId, stamps: &Stamps) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&stamps.follower)?;
        (session.stream == stream && session.stamps == *stamps).then_some(session)
    }

    /// Time has passed, or the leader's own position has moved.
    pub(super) fn look(&mut self, leader_at: Offset, strict: bool, now: Instant) {
        self.sessions.values_mut().for_each(|session| session.look(leader_at, strict, now));
    }

    /// Since when a follower has been behind; `None` while it has all that the leader has.
    pub(super) fn behind_since(&self, broker: BrokerId, leader_at: Offset, strict: bool) -> Option<Instant> {
        match self.sessions.get(&broker) {
            Some(session) if session.positions.deciding(strict) >= leader_at => None,
            Some(session) => Some(session.caught_up_at),
            None => Some(self.began),
        }
    }

    /// What a follower's log begins at, also after a power cut; nothing is known of who has not been heard in this epoch.
    pub(super) fn log_start(&self, broker: BrokerId) -> Offset {
        self.sessions.get(&broker).map_or(Offset::ZERO, |session| session.log_start)
    }

    /// Who is made a member of the in-sync set counts as caught up at that moment, and has the same time as every member
    /// to be so again: it may join at a high watermark far below the leader's end.
    pub(super) fn on_joins(&mut self, broker: BrokerId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&broker) {
            session.caught_up_at = session.caught_up_at.max(now);
        }
    }
}

impl Session {
    fn look(&mut self, leader_at: Offset, strict: bool, now: Instant) {
        let at = self.positions.deciding(strict);
        if at >= leader_at {
            self.caught_up_at = self.caught_up_at.max(now);
            self.mark = (now, leader_at);
        } else if at >= self.mark.1 {
            self.caught_up_at = self.caught_up_at.max(self.mark.0);
            self.mark = (now, leader_at);
        }
    }
}
