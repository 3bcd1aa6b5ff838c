//! A follower's end of a stream: opens where its log ends, appends what comes in order, cuts on proof, and says how far
//! it has come.
//!
//! Invariants: at most one stream; a message with another stream's id or stamps changes nothing and is counted; what is
//! appended begins at exactly the log's end and has the stream's next number; a change of the leader epoch, of either
//! broker's epoch or of the log's generation ends the stream; no stream is opened while the log is changing, so that a
//! truncation is durable before the new end is said to anybody (rule 6).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use stonelog_protocol::peer::stream::{
    OpenStream, Push, Refusal, Stamps, StreamBody, StreamGeneration, StreamId, StreamMessage, StreamNews, StreamReport,
};
use stonelog_protocol::{BrokerEpoch, BrokerId, DirectoryId, LeaderEpoch, Offset, TopicPartition};
use stonelog_storage::LogGeneration;
use stonelog_storage::log::{FollowerReject, Log};

use super::truncate::{Cut, Stopped, plan_cut, plan_cut_to};

/// How long an open may stay without an answer.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long after a refusal or an end it is tried again. Doubled each time until records come.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
/// The longest of these pauses.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// Whom a replica follows, by the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// Which partition.
    pub partition: TopicPartition,
    /// The epoch it is led in.
    pub leader_epoch: LeaderEpoch,
    /// Who leads.
    pub leader: BrokerId,
    /// The leader's registration.
    pub leader_broker_epoch: BrokerEpoch,
    /// This broker.
    pub me: BrokerId,
    /// This broker's registration.
    pub my_broker_epoch: BrokerEpoch,
    /// The directory its log lies in.
    pub my_directory: DirectoryId,
}

impl Following {
    /// The stamps of a stream into this log.
    pub fn stamps(&self, generation: LogGeneration) -> Stamps {
        Stamps {
            partition: self.partition,
            leader_epoch: self.leader_epoch,
            leader: self.leader,
            leader_broker_epoch: self.leader_broker_epoch,
            follower: self.me,
            follower_broker_epoch: self.my_broker_epoch,
            follower_directory: self.my_directory,
            generation: StreamGeneration { recovery_epoch: generation.recovery_epoch, counter: generation.counter },
        }
    }
}

/// What a message from the leader wants done to the log, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// [`Log::append_as_follower`] in the epoch followed, then [`Follower::on_appended`].
    Append(Bytes),
    /// [`Log::advance_log_start`].
    AdvanceLogStart(Offset),
    /// Cut the log. On a relaxed topic the range that goes may have been committed.
    Cut {
        /// Where.
        cut: Cut,
        /// What goes although it was below the high watermark, to be reported.
        lost: Option<(Offset, Offset)>,
    },
    /// Nothing more is done under this leader; to be reported.
    Stop(Stopped),
}

#[derive(Clone, Debug)]
enum State {
    Idle { retry_at: Instant },
    Opening { stream: StreamId, stamps: Stamps, since: Instant },
    Streaming { stream: StreamId, stamps: Stamps, next_number: u64 },
    Stopped,
}

/// The follower of one partition under one leader at a time.
#[derive(Clone, Debug)]
pub struct Follower {
    following: Following,
    state: State,
    /// What is below is in the log and known to be committed.
    high_watermark: Offset,
    /// What the open stream's leader said last of its own, which may lie above what has been appended here.
    said_high_watermark: Offset,
    probe: u64,
    /// What the open stream's leader was told last.
    said: Option<StreamReport>,
    /// Pushes that are not written yet: their ends and bytes, to be given back as credit.
    /// Kept from one stream to the next: a leader gets no credit for memory that is still taken.
    unwritten: VecDeque<(Offset, u32)>,
    /// What the open stream's leader has not been given yet of what it may have; below zero after a batch larger than
    /// what was left.
    withheld: i64,
    credit: u32,
    /// Whether nobody counts on this replica, and enough others have everything.
    is_spare: bool,
    /// Streams that ended since records came last.
    ended_count: u32,
    fenced_count: u64,
}

impl Follower {
    /// Begins to follow. `high_watermark` is the newest this replica knows of its log.
    pub fn begin(following: Following, high_watermark: Offset, credit: u32, now: Instant) -> Follower {
        Follower {
            following,
            state: State::Idle { retry_at: now },
            high_watermark,
            said_high_watermark: Offset::ZERO,
            probe: 0,
            said: None,
            unwritten: VecDeque::new(),
            withheld: 0,
            credit,
            is_spare: false,
            ended_count: 0,
            fenced_count: 0,
        }
    }

    /// What the metadata says now. Another leader, epoch or incarnation ends the stream.
    pub fn on_following(&mut self, following: Following, now: Instant) {
        if following != self.following {
            assert!(following.leader_epoch >= self.following.leader_epoch, "leader epochs never go back");
            self.following = following;
            self.ended_count = 0;
            // What another leader asked proves nothing to this one.
            self.probe = 0;
            self.state = State::Idle { retry_at: now };
        }
    }

    /// Whether this replica is in neither the in-sync set nor the ELR, and two others at least are in sync: then a log
    /// with damage in it is dropped and fetched again whole (rule 9), which a new stream begins.
    pub fn set_spare(&mut self, is_spare: bool, log: &Log, now: Instant) {
        if is_spare && !self.is_spare && !log.holes().is_empty() && !matches!(self.state, State::Stopped) {
            self.state = State::Idle { retry_at: now };
        }
        self.is_spare = is_spare;
    }

    /// Whom it follows.
    pub fn following(&self) -> &Following {
        &self.following
    }

    /// End of what is known to be committed. Never goes back on a strict topic: nothing is cut below it, so a reader that
    /// was told of it before this broker followed, or is told after it leads, is never contradicted.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Messages that failed a fence.
    pub fn fenced_count(&self) -> u64 {
        self.fenced_count
    }

    /// Whether its stream is open.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// Opens a stream if it is time to. `stream` is above every earlier one of this process. It begins with the credit
    /// that is left beside what is not written yet, or with none, if credit is withheld.
    pub fn open(&mut self, stream: StreamId, log: &Log, withhold_credit: bool, now: Instant) -> Option<StreamMessage> {
        match self.state {
            State::Idle { retry_at } if now >= retry_at => {}
            State::Opening { since, .. } if now.saturating_duration_since(since) > OPEN_TIME_MAX => {}
            _ => return None,
        }
        // A log whose creation is not in the journal could not be reset, should the leader's begin later.
        if (log.is_changing() && !off!(TruncateDurable)) || !log.is_created() {
            return None;
        }
        let stamps = self.following.stamps(log.key().generation);
        self.state = State::Opening { stream, stamps, since: now };
        let (written, end) = (log.written(), log.log_end());
        // What was cut off has left the journal's queue before a log is settled.
        self.unwritten.retain(|(to, _)| *to > written && *to <= end);
        let unwritten: i64 = self.unwritten.iter().map(|(_, bytes)| i64::from(*bytes)).sum();
        self.withheld = i64::from(self.credit) - unwritten;
        let credit = self.take_withheld(withhold_credit);
        let report = self.positions(log);
        self.said = Some(report);
        let open =
            OpenStream { fetch_offset: log.log_end(), last_fetched_epoch: log.last_record_epoch(), report, credit };
        Some(StreamMessage { stream, stamps, body: StreamBody::Open(open) })
    }

    /// The connection to the leader is gone.
    pub fn on_disconnected(&mut self, now: Instant) {
        if !matches!(self.state, State::Stopped) {
            self.state = State::Idle { retry_at: now };
        }
    }

    /// A message from the leader.
    pub fn on_message(&mut self, message: &StreamMessage, log: &Log, now: Instant) -> Vec<Effect> {
        let (stream, stamps) = match &self.state {
            State::Opening { stream, stamps, .. } | State::Streaming { stream, stamps, .. } => (*stream, *stamps),
            State::Idle { .. } | State::Stopped => return self.fenced(),
        };
        let is_current = stamps == self.following.stamps(log.key().generation);
        if message.stream != stream || message.stamps != stamps || !is_current {
            return self.fenced();
        }
        let is_opening = matches!(self.state, State::Opening { .. });
        match &message.body {
            StreamBody::Opened(news) if is_opening && self.is_spare && news.is_whole && !log.holes().is_empty() => {
                // What this log has beside its damage is on those that count, and comes back with the rest.
                self.high_watermark = self.high_watermark.min(news.log_start);
                self.state = State::Idle { retry_at: now };
                vec![Effect::Cut { cut: Cut::Reset(news.log_start), lost: None }]
            }
            StreamBody::Opened(news) if is_opening => {
                self.state = State::Streaming { stream, stamps, next_number: 0 };
                self.on_news(news, log)
            }
            StreamBody::Diverging(diverging) if is_opening => {
                let planned = plan_cut(log, self.high_watermark, *diverging);
                self.cut(planned, now)
            }
            StreamBody::Refused(refusal) if is_opening => self.on_refused(*refusal, log, now),
            StreamBody::Push(push) if !is_opening => self.on_push(push, log, now),
            StreamBody::News(news) if !is_opening => self.on_news(news, log),
            StreamBody::Close => {
                self.end(now);
                Vec::new()
            }
            _ => self.fenced(),
        }
    }

    /// What came of an [`Effect::Append`]; `log` has it appended. Anything but success ends the stream.
    pub fn on_appended(&mut self, appended: Result<u32, FollowerReject>, log: &Log, now: Instant) {
        match appended {
            Ok(bytes) => {
                self.ended_count = 0;
                self.unwritten.push_back((log.log_end(), bytes));
                self.raise_high_watermark(log);
            }
            Err(_) => self.end(now),
        }
    }

    /// An [`Effect::Cut`] could not be done. The next open asks for it again, after a pause that grows.
    pub fn on_cut_failed(&mut self, now: Instant) {
        if matches!(self.state, State::Idle { .. }) {
            self.end(now);
        }
    }

    /// What the leader should hear now: positions that moved, and credit for what is written unless it is withheld,
    /// because there is no room for more.
    pub fn say(&mut self, log: &Log, withhold_credit: bool) -> Vec<StreamMessage> {
        let State::Streaming { stream, stamps, .. } = self.state else { return Vec::new() };
        if stamps.generation != self.following.stamps(log.key().generation).generation {
            return Vec::new();
        }
        let mut messages = Vec::new();
        let report = self.positions(log);
        if self.said != Some(report) {
            self.said = Some(report);
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Report(report) });
        }
        while let Some((_, bytes)) = self.unwritten.pop_front_if(|(end, _)| *end <= log.written()) {
            self.withheld += i64::from(bytes);
        }
        let credit = self.take_withheld(withhold_credit);
        if credit > 0 {
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Credit(credit) });
        }
        messages
    }

    /// Whether its leader waits for credit that it could have by now, if there is room.
    pub fn owes_credit(&self) -> bool {
        self.withheld > 0 && matches!(self.state, State::Opening { .. } | State::Streaming { .. })
    }

    fn take_withheld(&mut self, withhold_credit: bool) -> u32 {
        if withhold_credit || self.withheld <= 0 {
            return 0;
        }
        u32::try_from(std::mem::take(&mut self.withheld)).unwrap_or(u32::MAX)
    }

    fn positions(&self, log: &Log) -> StreamReport {
        StreamReport {
            written: log.written(),
            durable: log.durable(),
            probe: self.probe,
            is_whole: log.holes().is_empty(),
        }
    }

    fn fenced(&mut self) -> Vec<Effect> {
        self.fenced_count += 1;
        Vec::new()
    }

    fn on_push(&mut self, push: &Push, log: &Log, now: Instant) -> Vec<Effect> {
        let State::Streaming { next_number, .. } = &mut self.state else { return self.fenced() };
        let holds_nothing = log.last_record_epoch() == LeaderEpoch::NONE;
        if holds_nothing && push.number == 0 && push.base != log.log_end() {
            // The leader's log begins with another batch, maybe with one that its log start lies within (Kafka's
            // `UnexpectedAppendOffsetException`): so does this log.
            self.high_watermark = push.base;
            self.state = State::Idle { retry_at: now };
            return vec![Effect::Cut { cut: Cut::Reset(push.base), lost: None }];
        }
        let is_next = push.number == *next_number && push.base == log.log_end();
        if !is_next && !off!(StreamNumber) {
            // Something between was lost, or is there twice: the next open says what is missing.
            self.end(now);
            return Vec::new();
        }
        *next_number += 1;
        let batches = match &push.batches[..] {
            [one] => one.clone(),
            several => {
                let mut all = BytesMut::new();
                several.iter().for_each(|piece| all.extend_from_slice(piece));
                all.freeze()
            }
        };
        let mut effects = vec![Effect::Append(batches)];
        effects.extend(self.on_news(&push.news, log));
        effects
    }

    /// Nothing above the log's end is known to be the leader's, so what it says of that is kept until that is appended.
    fn on_news(&mut self, news: &StreamNews, log: &Log) -> Vec<Effect> {
        self.said_high_watermark = news.high_watermark;
        self.raise_high_watermark(log);
        self.probe = self.probe.max(news.probe);
        let start = news.log_start.min(log.log_end());
        if start > log.log_start() { vec![Effect::AdvanceLogStart(start)] } else { Vec::new() }
    }

    fn raise_high_watermark(&mut self, log: &Log) {
        self.high_watermark = self.high_watermark.max(self.said_high_watermark.min(log.log_end()));
    }

    fn on_refused(&mut self, refusal: Refusal, log: &Log, now: Instant) -> Vec<Effect> {
        match refusal {
            // All that this log holds was deleted.
            Refusal::OutOfRange { log_start, .. } if log.log_end() < log_start => {
                self.high_watermark = self.high_watermark.max(log_start);
                self.state = State::Idle { retry_at: now };
                vec![Effect::Cut { cut: Cut::Reset(log_start), lost: None }]
            }
            Refusal::OutOfRange { log_end, .. } if log.log_end() > log_end => {
                let planned = plan_cut_to(log, self.high_watermark, log_end);
                self.cut(planned, now)
            }
            _ => {
                self.end(now);
                Vec::new()
            }
        }
    }

    /// The stream is over, and the next one is not opened at once: what ended this one may end it as well.
    fn end(&mut self, now: Instant) {
        let pause = RETRY_AFTER.saturating_mul(1 << self.ended_count.min(8)).min(RETRY_AFTER_MAX);
        self.ended_count = self.ended_count.saturating_add(1);
        self.state = State::Idle { retry_at: now + pause };
    }

    fn cut(&mut self, planned: Result<Cut, Stopped>, now: Instant) -> Vec<Effect> {
        match planned {
            Ok(cut) => {
                let (Cut::To(to) | Cut::Reset(to)) = cut;
                let lost = (to < self.high_watermark).then_some((to, self.high_watermark));
                self.high_watermark = self.high_watermark.min(to);
                self.state = State::Idle { retry_at: now };
                vec![Effect::Cut { cut, lost }]
            }
            Err(stopped) => {
                self.state = State::Stopped;
                vec![Effect::Stop(stopped)]
            }
        }
    }
}

#[cfg(test)]
mod tests;
