//! A follower's end of a stream: opens where its log ends, appends what comes in order, cuts on proof, and says how far
//! it has come.
//!
//! Invariants: at most one stream; a message with another stream's id or stamps changes nothing and is counted; what is
//! appended begins at exactly the log's end and has the stream's next number; a change of the leader epoch, of either
//! broker's epoch or of the log's generation ends the stream; no stream is opened while the log is changing, so that a
//! truncation is durable before the new end is said to anybody (rule 6).

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use stonelog_protocol::peer::stream::{
    Filled, OpenStream, Opened, Push, Refusal, Stamps, StreamBody, StreamId, StreamMessage, StreamNews, StreamReport,
};
use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_storage::compaction::repair::RepairPlan;
use stonelog_storage::log::{FollowerReject, Log};

use super::credit::{CreditPool, Share};
use super::following::Following;
use super::repair::{Repair, Step};
use super::truncate::{Cut, Stopped, plan_cut, plan_cut_to};

/// How long an open may stay without an answer.
pub const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long after a refusal or an end it is tried again. Doubled each time until records come.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);
/// The longest of these pauses.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);
/// Cuts one after the other that came to nothing, before the follower stops.
pub const CUTS_FAILED_MAX: u32 = 8;
/// What one stream may have in memory because its leader asked for more than its fair part, unless a batch alone is larger.
const ASKED_BYTES_MAX: i64 = 1 << 20;

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
    /// [`Log::widen_damage`], for the leader's log is compacted up to there.
    Widen(Offset),
    /// [`Log::begin_repair`], run its job, [`Log::on_repaired`], then [`Follower::on_mended`].
    Mend(RepairPlan, Vec<Vec<Bytes>>),
    /// Nothing more is done under this leader; to be reported.
    Stop(Stopped),
}

#[derive(Debug)]
enum State {
    Idle { retry_at: Instant },
    Opening { stream: StreamId, stamps: Stamps, since: Instant },
    Streaming { stream: StreamId, stamps: Stamps, next_number: u64 },
    Stopped,
}

/// The follower of one partition under one leader at a time.
#[derive(Debug)]
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
    /// The sum of that.
    unwritten_bytes: i64,
    /// What the open stream's leader may push before more is given.
    given: i64,
    /// What it said its next push needs in all, once; an earlier question may come late. 0 when it waits for nothing more.
    wanted: i64,
    /// Whether it lacks credit only because there is no room.
    is_withheld: bool,
    /// What is held of the lane's pool: what was given, and what is not written.
    share: Share,
    /// A stream that ended here, of which its leader has not heard that.
    closing: Option<(StreamId, Stamps)>,
    /// Its damaged segments, being mended.
    repair: Repair,
    /// Whether nobody counts on this replica, and enough others have everything.
    is_spare: bool,
    /// Whether somebody counts on this replica, by the image here.
    counts: bool,
    /// What is compacted here does not go with what the leader would send, which has compacted up to there.
    incompatible: Option<Offset>,
    /// Streams that ended since records came last.
    ended_count: u32,
    /// Cuts that failed, since one was done or another leader led.
    cuts_failed: u32,
    fenced_count: u64,
}

impl Follower {
    /// Begins to follow. `high_watermark` is the newest this replica knows of its log.
    pub fn begin(following: Following, high_watermark: Offset, pool: &Rc<CreditPool>, now: Instant) -> Follower {
        Follower {
            following,
            state: State::Idle { retry_at: now },
            high_watermark,
            said_high_watermark: Offset::ZERO,
            probe: 0,
            said: None,
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
            given: 0,
            wanted: 0,
            is_withheld: false,
            share: Share::of(pool, following.partition),
            closing: None,
            repair: Repair::default(),
            is_spare: false,
            counts: true,
            incompatible: None,
            ended_count: 0,
            cuts_failed: 0,
            fenced_count: 0,
        }
    }

    /// What the metadata says now. Another leader, epoch or incarnation ends the stream.
    pub fn on_following(&mut self, following: Following, now: Instant) {
        if following != self.following {
            assert!(following.leader_epoch >= self.following.leader_epoch, "leader epochs never go back");
            self.following = following;
            self.ended_count = 0;
            self.cuts_failed = 0;
            self.repair.on_another_leader();
            self.incompatible = None;
            // What another leader asked proves nothing to this one.
            self.probe = 0;
            self.idle(now);
            // It ends its streams by itself with its epoch.
            self.closing = None;
        }
    }

    /// Somebody has accepted that what was committed is lost: what is known of that holds no cut up any more.
    pub fn on_loss_accepted(&mut self, log: &Log) {
        if off!(LossAcceptedLowers) {
            return;
        }
        self.high_watermark = log.log_start();
        self.said_high_watermark = log.log_start();
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

    /// Whether consumers may read its log up to [`Follower::high_watermark`] (KIP-392).
    ///
    /// Only while its stream is open: then the leader of the newest epoch known here has found this log to be a beginning
    /// of its own, so that nothing is shown that was committed while the topic was relaxed and is cut off now, or that was
    /// accepted to be lost. Nor while it is out of the in-sync set, where nothing bounds how far it is behind.
    pub fn may_serve(&self, log: &Log, is_in_sync: bool) -> bool {
        let is_in_step = self.is_streaming() && !log.is_changing();
        is_in_sync && (is_in_step || off!(ServeInStep)) && log.holes().is_empty()
    }

    /// Whether it follows no more under this leader.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Whether it has no stream and will open one.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle { .. } | State::Opening { .. })
    }

    /// Whether it is time to open a stream.
    pub fn may_open(&self, log: &Log, now: Instant) -> bool {
        let is_time = match self.state {
            State::Idle { retry_at } => now >= retry_at,
            State::Opening { since, .. } => now.saturating_duration_since(since) > OPEN_TIME_MAX,
            State::Streaming { .. } | State::Stopped => false,
        };
        // A log whose creation is not in the journal could not be reset, should the leader's begin later.
        is_time && (!log.is_changing() || off!(TruncateDurable)) && log.is_created()
    }

    /// Whether [`Follower::say`] may say anything.
    pub fn may_speak(&self) -> bool {
        self.is_streaming() || self.closing.is_some()
    }

    /// Opens a stream if it is time to. `stream` is above every earlier one of this process. It begins with the credit
    /// that is left beside what is not written yet, or with none, if credit is withheld.
    pub fn open(&mut self, stream: StreamId, log: &Log, withhold_credit: bool, now: Instant) -> Option<StreamMessage> {
        if !self.may_open(log, now) {
            return None;
        }
        let stamps = self.following.stamps(log.key().generation);
        self.idle(now);
        self.state = State::Opening { stream, stamps, since: now };
        // The leader forgets the stream before.
        self.closing = None;
        let (written, end) = (log.written(), log.log_end());
        // What was cut off has left the journal's queue before a log is settled.
        self.unwritten.retain(|(to, _)| *to > written && *to <= end);
        self.unwritten_bytes = self.unwritten.iter().map(|(_, bytes)| i64::from(*bytes)).sum();
        self.share.hold(self.unwritten_bytes);
        let credit = self.give(withhold_credit);
        let report = self.positions(log);
        self.said = Some(report);
        let open = OpenStream {
            fetch_offset: log.log_end(),
            last_fetched_epoch: log.last_record_epoch(),
            report,
            credit,
            batch_bytes_max: self.share.pool().batch_bytes_max(),
        };
        Some(StreamMessage { stream, stamps, body: StreamBody::Open(open) })
    }

    /// The connection to the leader is gone.
    pub fn on_disconnected(&mut self, now: Instant) {
        self.closing = None;
        if !matches!(self.state, State::Stopped) {
            self.idle(now);
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
            StreamBody::Opened(Opened { news, counts }) if is_opening && self.begins_anew(news, *counts, log) => {
                // What this log has beside its damage is on those that count, and comes back with the rest.
                self.high_watermark = self.high_watermark.min(news.log_start);
                self.leave(now);
                vec![Effect::Cut { cut: Cut::Reset(news.log_start), lost: None }]
            }
            StreamBody::Opened(opened) if is_opening => {
                self.state = State::Streaming { stream, stamps, next_number: 0 };
                let mut effects = self.on_news(&opened.news, log);
                let may_widen = !self.counts && !opened.counts && opened.news.is_whole && !log.holes().is_empty();
                if let Some(cleaned_end) = self.incompatible.take().filter(|_| may_widen) {
                    self.repair.on_widened();
                    effects.push(Effect::Widen(cleaned_end));
                }
                effects
            }
            StreamBody::Diverging(diverging) if is_opening => {
                let planned = plan_cut(log, self.high_watermark, *diverging);
                self.cut(planned, now)
            }
            StreamBody::Refused(refusal) if is_opening => self.on_refused(*refusal, log, now),
            StreamBody::Push(push) if !is_opening => self.on_push(push, log, now),
            StreamBody::News(news) if !is_opening => self.on_news(news, log),
            StreamBody::Wants(bytes) if !is_opening => {
                let most = i64::from(self.share.pool().batch_bytes_max()).max(ASKED_BYTES_MAX);
                self.wanted = self.wanted.max(i64::from(*bytes).min(most));
                Vec::new()
            }
            StreamBody::Filled(filled) if !is_opening => self.on_filled(filled, now),
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
                self.unwritten_bytes += i64::from(bytes);
                self.raise_high_watermark(log);
            }
            Err(_) => {
                self.leave(now);
                self.end(now);
            }
        }
    }

    /// An [`Effect::Cut`] at `to` could not be done. The next open asks for it again, after a pause that grows; after
    /// [`CUTS_FAILED_MAX`] the follower stops, for damage in its way is looked for each time and should be known by then.
    pub fn on_cut_failed(&mut self, to: Offset, now: Instant) -> Option<Stopped> {
        if !matches!(self.state, State::Idle { .. }) {
            return None;
        }
        self.cuts_failed += 1;
        if self.cuts_failed >= CUTS_FAILED_MAX {
            self.state = State::Stopped;
            return Some(Stopped::CutFailed { to });
        }
        self.end(now);
        None
    }

    /// An [`Effect::Cut`] was done.
    pub fn on_cut_done(&mut self) {
        self.cuts_failed = 0;
    }

    /// What the leader should hear now: positions that moved, and credit for what is written unless it is withheld,
    /// because there is no room for more; or that the stream is over.
    pub fn say(&mut self, log: &Log, withhold_credit: bool) -> Vec<StreamMessage> {
        let mut messages = Vec::new();
        if let Some((stream, stamps)) = self.closing.take() {
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Close });
        }
        while let Some((_, bytes)) = self.unwritten.pop_front_if(|(end, _)| *end <= log.written()) {
            self.unwritten_bytes -= i64::from(bytes);
        }
        self.share.hold(self.given + self.unwritten_bytes);
        let State::Streaming { stream, stamps, .. } = self.state else { return messages };
        if stamps.generation != self.following.stamps(log.key().generation).generation {
            return messages;
        }
        let report = self.positions(log);
        if self.said != Some(report) {
            self.said = Some(report);
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Report(report) });
        }
        if let Some(asked) = self.repair.ask(log.cleaned_end()) {
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Repair(asked) });
        }
        let credit = self.give(withhold_credit);
        if credit > 0 {
            messages.push(StreamMessage { stream, stamps, body: StreamBody::Credit(credit) });
        }
        messages
    }

    /// Whether its leader waits for credit that it could have by now, if there is room.
    pub fn owes_credit(&self) -> bool {
        self.is_withheld && matches!(self.state, State::Opening { .. } | State::Streaming { .. })
    }

    /// Gives the leader what it should have, as far as there is any: its fair part, and what it asked for beyond that.
    fn give(&mut self, withhold: bool) -> u32 {
        let missing = self.share.fair() - self.given - self.unwritten_bytes;
        let lacks_asked = self.wanted > self.given;
        self.is_withheld = withhold && (missing > 0 || lacks_asked);
        if withhold {
            self.share.step_out();
            return 0;
        }
        let before = self.given;
        if missing > 0 {
            self.given += self.share.take_fair(missing);
        }
        let asked = self.wanted - self.given;
        // Beside what is in memory already it waits for that to be written.
        let may_ask = self.unwritten_bytes == 0 || self.unwritten_bytes + self.wanted <= ASKED_BYTES_MAX;
        if asked > 0 && !may_ask {
            // Nobody waits behind it meanwhile.
            if !off!(OutOfTurn) {
                self.share.step_out();
            }
        } else if asked > 0 && self.share.take_in_turn(asked) {
            self.given += asked;
        }
        if self.given >= self.wanted {
            self.wanted = 0;
            self.share.step_out();
        }
        u32::try_from(self.given - before).expect("a part of the pool, or one batch")
    }

    fn positions(&self, log: &Log) -> StreamReport {
        StreamReport {
            written: log.written(),
            durable: log.durable(),
            probe: self.probe,
            log_start: log.durable_log_start(),
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
            self.leave(now);
            return vec![Effect::Cut { cut: Cut::Reset(push.base), lost: None }];
        }
        let is_next = (push.number == *next_number && push.base == log.log_end()) || off!(StreamNumber);
        let bytes = push.batches.iter().map(|piece| piece.len() as i64).sum::<i64>();
        let is_paid = bytes <= self.given || off!(CreditBound);
        if !is_next || !is_paid {
            // Something between was lost, or is there twice: the next open says what is missing. Or the leader minds no
            // limit, and what it sends is not kept.
            self.leave(now);
            self.end(now);
            return Vec::new();
        }
        *next_number += 1;
        self.given = (self.given - bytes).max(0);
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
        if news.log_start > log.log_start() { vec![Effect::AdvanceLogStart(news.log_start)] } else { Vec::new() }
    }

    fn raise_high_watermark(&mut self, log: &Log) {
        self.high_watermark = self.high_watermark.max(self.said_high_watermark.min(log.log_end()));
    }

    fn on_refused(&mut self, refusal: Refusal, log: &Log, now: Instant) -> Vec<Effect> {
        match refusal {
            // All that this log holds was deleted.
            Refusal::OutOfRange { log_start, .. } if log.log_end() < log_start => {
                self.high_watermark = self.high_watermark.max(log_start);
                self.idle(now);
                vec![Effect::Cut { cut: Cut::Reset(log_start), lost: None }]
            }
            Refusal::OutOfRange { log_end, .. } if log.log_end() > log_end => {
                let planned = plan_cut_to(log, self.high_watermark, log_end);
                self.cut(planned, now)
            }
            // One of the two has an image some milliseconds behind the other's.
            Refusal::UnknownEpoch(_) | Refusal::StaleBroker => {
                self.idle(now + RETRY_AFTER);
                Vec::new()
            }
            _ => {
                self.end(now);
                Vec::new()
            }
        }
    }

    /// There is no stream. What its leader could have pushed on it is nobody's any more.
    fn idle(&mut self, retry_at: Instant) {
        self.given = 0;
        self.wanted = 0;
        self.is_withheld = false;
        self.repair.on_stream_over();
        self.share.step_out();
        self.share.hold(self.unwritten_bytes);
        self.state = State::Idle { retry_at };
    }

    /// The stream ends here, and its leader is told so.
    fn leave(&mut self, now: Instant) {
        if let State::Streaming { stream, stamps, .. } | State::Opening { stream, stamps, .. } = self.state {
            self.closing = Some((stream, stamps));
        }
        self.idle(now);
    }

    /// The stream is over, and the next one is not opened at once: what ended this one may end it as well.
    fn end(&mut self, now: Instant) {
        let pause = RETRY_AFTER.saturating_mul(1 << self.ended_count.min(8)).min(RETRY_AFTER_MAX);
        self.ended_count = self.ended_count.saturating_add(1);
        self.idle(now + pause);
    }

    fn cut(&mut self, planned: Result<Cut, Stopped>, now: Instant) -> Vec<Effect> {
        match planned {
            Ok(cut) => {
                let (Cut::To(to) | Cut::Reset(to)) = cut;
                let lost = (to < self.high_watermark).then_some((to, self.high_watermark));
                self.high_watermark = self.high_watermark.min(to);
                self.idle(now);
                vec![Effect::Cut { cut, lost }]
            }
            Err(stopped) => {
                self.idle(now);
                self.state = State::Stopped;
                vec![Effect::Stop(stopped)]
            }
        }
    }
}

mod mending;
#[cfg(test)]
mod repair_tests;
#[cfg(test)]
mod tests;
