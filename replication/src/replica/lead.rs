//! The leader's end of a stream: answers an open, and says what to push next.
//!
//! Each follower has a stream with its own credit and its own place in the log, so that a slow one holds nobody else up.
//! What is in memory is pushed at once, ahead of the leader's own fsync; what is not is read by a job, one at a time.

use std::time::Instant;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::peer::stream::{
    Diverging, Filled, OpenStream, Opened, Push, Refusal, Repair, Stamps, StreamBody, StreamId, StreamMessage,
    StreamNews,
};
use stonelog_protocol::{LeaderEpoch, Offset};
use stonelog_storage::log::{EpochEnd, Log, Read};
use stonelog_storage::segment::read::{ReadDone, ReadJob};

use super::repair::is_compatible;
use crate::partition::Leader;

/// Bytes of one push, unless its first batch alone is larger.
pub const PUSH_BYTES_MAX: usize = 1 << 20;

/// Who has no credit left asks for what it has to push, up to this unless its first batch is larger.
const ASK_BYTES: i64 = 64 << 10;

/// A read that follows the log around for so long finds its files nowhere the log knows.
const MOVES_COUNT_MAX: u32 = 16;

/// One follower's stream, open.
#[derive(Clone, Debug)]
pub struct LeadStream {
    stream: StreamId,
    stamps: Stamps,
    /// Where the next push begins: the follower's log end.
    next: Offset,
    /// Where its batches are looked for: not below `next`, for compaction leaves gaps, and whole segments empty.
    from: Offset,
    next_number: u64,
    /// The follower holds nothing, and begins with the batch that its log end or the log start lies in, maybe in its
    /// middle.
    begins_anew: bool,
    /// Bytes that may be pushed.
    credit: i64,
    /// What the next push takes of it, if that was more than there was: a batch is never split.
    needs: i64,
    /// What the follower was told of that and has not given yet.
    asked: i64,
    /// The longest batch that the follower takes.
    batch_bytes_max: i64,
    /// The next batch is longer than that.
    is_stuck: bool,
    /// A job reads the next push.
    reading: bool,
    /// Reads that found their bytes elsewhere, since the last that did not.
    moves_count: u32,
    said: StreamNews,
    /// What the follower's log lacks and has asked for.
    lacks: Option<Lacks>,
}

/// See [`StreamBody::Repair`].
#[derive(Clone, Copy, Debug)]
struct Lacks {
    wanted: Repair,
    /// From where on it is looked for: not below `wanted.from`, for compaction leaves gaps.
    from: Offset,
    reading: bool,
    moves_count: u32,
    /// [`Log::cleaned_end`] when that was read.
    cleaned_end: Offset,
}

/// What an open came to.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The answer.
    pub answer: StreamMessage,
    /// The stream, unless it was refused.
    pub stream: Option<LeadStream>,
    /// Whether the high watermark moved.
    pub watermark_moved: bool,
}

/// What to push next.
#[derive(Debug)]
pub enum PushPlan {
    /// Nothing for now: no credit, no records, or a read is under way.
    Nothing,
    /// This.
    Push(StreamMessage),
    /// Say that more credit is needed.
    Ask(StreamMessage),
    /// The next batch has so many bytes, more than the follower takes: nothing is pushed on this stream any more.
    Stuck(i64),
    /// Run the job, then call [`LeadStream::on_read`].
    Read(ReadJob),
    /// The stream cannot go on here: tell the follower, which opens anew.
    End(StreamMessage),
}

/// Answers an open. The stamps are judged by the leader, the follower's history by its epochs (KIP-595).
pub fn open(
    leader: &mut Leader,
    log: &Log,
    (stream, stamps): (StreamId, Stamps),
    open: &OpenStream,
    now: Instant,
) -> Opening {
    let answer =
        |body| Opening { answer: StreamMessage { stream, stamps, body }, stream: None, watermark_moved: false };
    if let Err(refusal) = leader.check_open(stream, &stamps) {
        return answer(StreamBody::Refused(refusal));
    }
    if !off!(Divergence) {
        match parting(log, open) {
            Ok(None) => {}
            Ok(Some(diverging)) => return answer(StreamBody::Diverging(diverging)),
            Err(refusal) => return answer(StreamBody::Refused(refusal)),
        }
    }
    // Of a log without records nothing is out of range: the first push says where it begins.
    let is_empty = open.last_fetched_epoch == LeaderEpoch::NONE;
    // It may have begun where an earlier leader's log did, which was within a batch.
    let begins_within = open.fetch_offset <= log.log_start() || !off!(BeginsWithin);
    let begins_anew = is_empty && begins_within && open.fetch_offset.max(log.log_start()) < log.log_end();
    if (open.fetch_offset < log.log_start() && !begins_anew) || open.fetch_offset > log.log_end() {
        let refusal = Refusal::OutOfRange { log_start: log.log_start(), log_end: log.log_end() };
        return answer(StreamBody::Refused(refusal));
    }
    let watermark_moved = leader.on_opened(stream, stamps, open.report, open.fetch_offset, now);
    let said = news(leader, log, 0);
    let lead = LeadStream {
        stream,
        stamps,
        next: open.fetch_offset.max(log.log_start()),
        from: open.fetch_offset.max(log.log_start()),
        next_number: 0,
        begins_anew,
        credit: i64::from(open.credit),
        needs: 0,
        asked: 0,
        batch_bytes_max: i64::from(open.batch_bytes_max),
        is_stuck: false,
        reading: false,
        moves_count: 0,
        said,
        lacks: None,
    };
    let opened = Opened { news: said, counts: leader.counts(stamps.follower) };
    Opening { stream: Some(lead), watermark_moved, ..answer(StreamBody::Opened(opened)) }
}

/// Where the follower's history parts from ours, if it does.
fn parting(log: &Log, open: &OpenStream) -> Result<Option<Diverging>, Refusal> {
    if open.last_fetched_epoch == LeaderEpoch::NONE {
        return Ok(None);
    }
    let known = log.end_offset_for_epoch(open.last_fetched_epoch).map_err(|_| Refusal::Damaged)?;
    if known == EpochEnd::UNKNOWN {
        // All that it was in was deleted here, or it is later than anything here, which the epochs of leaders exclude.
        let refusal = Refusal::OutOfRange { log_start: log.log_start(), log_end: log.log_end() };
        return if open.fetch_offset < log.log_start() { Err(refusal) } else { Err(Refusal::Damaged) };
    }
    let diverges = known.epoch < open.last_fetched_epoch || known.end < open.fetch_offset;
    Ok(diverges.then_some(Diverging { epoch: known.epoch, end: known.end }))
}

fn news(leader: &Leader, log: &Log, probe: u64) -> StreamNews {
    StreamNews {
        high_watermark: leader.high_watermark().max(log.log_start()),
        log_start: log.log_start(),
        probe,
        is_whole: log.holes().is_empty(),
    }
}

impl LeadStream {
    /// Which stream.
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// Between whom.
    pub fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Whether a message of the follower's is of this stream.
    pub fn is_of(&self, message: &StreamMessage) -> bool {
        message.stream == self.stream && message.stamps == self.stamps
    }

    /// The follower has room for more.
    pub fn on_credit(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(i64::from(bytes)).min(i64::from(u32::MAX));
    }

    /// What to push now. `probe` is the newest that followers should repeat.
    pub fn plan(&mut self, leader: &mut Leader, log: &Log, probe: u64) -> PushPlan {
        if self.reading || self.is_stuck || self.from >= log.log_end() {
            return PushPlan::Nothing;
        }
        if self.credit < self.needs && self.needs > 0 {
            return self.ask();
        }
        match log.read(self.from, log.log_end(), self.room(), true) {
            Read::Ready(batches, _) => self.push(leader, log, batches, probe),
            Read::Job(job) => {
                self.reading = true;
                PushPlan::Read(job)
            }
            Read::Empty => PushPlan::Nothing,
            Read::Damaged(_) | Read::OutOfRange => PushPlan::End(self.message(StreamBody::Close)),
        }
    }

    /// What the job read. When its bytes have moved meanwhile, or there were none, [`LeadStream::plan`] asks again.
    pub fn on_read(&mut self, leader: &mut Leader, log: &Log, done: ReadDone, probe: u64) -> PushPlan {
        if !std::mem::replace(&mut self.reading, false) {
            // What was read for an earlier stream is nothing to this one.
            return PushPlan::End(self.message(StreamBody::Close));
        }
        match done {
            ReadDone::Batches { batches, .. } if batches.iter().any(|piece| !piece.is_empty()) => {
                self.moves_count = 0;
                self.push(leader, log, batches, probe)
            }
            // The segment holds nothing from there on: the next one does.
            ReadDone::Batches { next, .. } if next > self.from => {
                self.from = next;
                PushPlan::Nothing
            }
            ReadDone::Batches { .. } | ReadDone::Moved if self.moves_count < MOVES_COUNT_MAX => {
                self.moves_count += 1;
                PushPlan::Nothing
            }
            ReadDone::Batches { .. } | ReadDone::Moved | ReadDone::Damaged(_) => {
                PushPlan::End(self.message(StreamBody::Close))
            }
        }
    }

    /// The follower lacks a range, in place of any it asked for before: what is being read for that is not for this.
    pub fn on_lacking(&mut self, wanted: Repair) {
        self.lacks =
            Some(Lacks { wanted, from: wanted.from, reading: false, moves_count: 0, cleaned_end: Offset::ZERO });
    }

    /// What to answer to that, or to read for it; no credit is needed, for it asks for one piece at a time.
    pub fn plan_filling(&mut self, log: &Log) -> PushPlan {
        let Some(lacks) = self.lacks.as_mut().filter(|lacks| !lacks.reading) else { return PushPlan::Nothing };
        lacks.cleaned_end = log.cleaned_end();
        let lacks = *lacks;
        if lacks.from >= lacks.wanted.to {
            return self.filled(lacks.wanted.to, Vec::new());
        }
        if !is_compatible(&lacks.wanted, log.cleaned_end()) {
            return self.filled(lacks.wanted.from, Vec::new());
        }
        let bytes_max = PUSH_BYTES_MAX.min(usize::try_from(self.batch_bytes_max).unwrap_or(PUSH_BYTES_MAX));
        match log.read(lacks.from, lacks.wanted.to.min(log.log_end()), bytes_max, true) {
            Read::Ready(batches, _) => self.fill(batches),
            Read::Job(job) => {
                self.lacks = Some(Lacks { reading: true, ..lacks });
                PushPlan::Read(job)
            }
            // All of a batch does not lie below the range's end, or there is nothing.
            Read::Empty | Read::Damaged(_) | Read::OutOfRange => self.filled(lacks.wanted.from, Vec::new()),
        }
    }

    /// The [`Repair::number`] for which a job of [`LeadStream::plan_filling`] reads.
    pub fn is_read_for(&self) -> Option<u64> {
        self.lacks.filter(|lacks| lacks.reading).map(|lacks| lacks.wanted.number)
    }

    /// What a job of [`LeadStream::plan_filling`] read for that number. One that was made for an earlier request says
    /// nothing of this one: it may begin behind it, and what lies between would be lost.
    pub fn on_filling_read(&mut self, number: u64, done: ReadDone) -> PushPlan {
        let is_wanted = |lacks: &&mut Lacks| lacks.reading && (lacks.wanted.number == number || off!(RepairNumber));
        let Some(lacks) = self.lacks.as_mut().filter(is_wanted) else { return PushPlan::Nothing };
        lacks.reading = false;
        match done {
            ReadDone::Batches { batches, .. } if batches.iter().any(|piece| !piece.is_empty()) => self.fill(batches),
            ReadDone::Batches { next, .. } if next > lacks.from => {
                lacks.from = next;
                PushPlan::Nothing
            }
            ReadDone::Batches { .. } | ReadDone::Moved if lacks.moves_count < MOVES_COUNT_MAX => {
                lacks.moves_count += 1;
                PushPlan::Nothing
            }
            ReadDone::Batches { .. } | ReadDone::Moved | ReadDone::Damaged(_) => {
                let from = lacks.wanted.from;
                self.filled(from, Vec::new())
            }
        }
    }

    fn fill(&mut self, batches: Vec<Bytes>) -> PushPlan {
        let Some(lacks) = self.lacks else { return PushPlan::Nothing };
        let first = batches.iter().find_map(|piece| BatchHeader::read(piece).ok());
        // The first may begin below where the range does, if the log does.
        let base = first.map_or(lacks.from, |header| header.base_offset.min(lacks.from));
        match end_of(&batches, base) {
            Some((end, longest)) if end <= lacks.wanted.to && longest <= self.batch_bytes_max => {
                self.filled(end, batches)
            }
            _ => self.filled(lacks.wanted.from, Vec::new()),
        }
    }

    fn filled(&mut self, upto: Offset, batches: Vec<Bytes>) -> PushPlan {
        let Some(lacks) = self.lacks.take() else { return PushPlan::Nothing };
        let Repair { number, from, .. } = lacks.wanted;
        let cleaned_end = lacks.cleaned_end;
        PushPlan::Push(self.message(StreamBody::Filled(Filled { number, from, upto, cleaned_end, batches })))
    }

    /// What the follower should hear although there is nothing to push.
    pub fn news(&mut self, leader: &Leader, log: &Log, probe: u64) -> Option<StreamMessage> {
        let news = news(leader, log, probe.max(self.said.probe));
        if news == self.said {
            return None;
        }
        self.said = news;
        Some(self.message(StreamBody::News(news)))
    }

    /// Says what the next push needs, once; and no more, for what is given and not used others wait for.
    fn ask(&mut self) -> PushPlan {
        if self.asked >= self.needs {
            return PushPlan::Nothing;
        }
        self.asked = self.needs;
        let bytes = u32::try_from(self.needs).unwrap_or(u32::MAX);
        PushPlan::Ask(self.message(StreamBody::Wants(bytes)))
    }

    fn room(&self) -> usize {
        let bytes = if self.credit > 0 { self.credit } else { ASK_BYTES };
        usize::try_from(bytes).unwrap_or(0).min(PUSH_BYTES_MAX)
    }

    fn push(&mut self, leader: &mut Leader, log: &Log, batches: Vec<Bytes>, probe: u64) -> PushPlan {
        if self.begins_anew && self.next_number == 0 {
            let first = batches.iter().find_map(|piece| BatchHeader::read(piece).ok());
            self.next = first.map_or(self.next, |header| header.base_offset.min(self.next));
        }
        let Some((end, longest)) = end_of(&batches, self.next) else {
            return PushPlan::End(self.message(StreamBody::Close));
        };
        if longest > self.batch_bytes_max {
            self.is_stuck = true;
            return PushPlan::Stuck(longest);
        }
        let bytes = batches.iter().map(|piece| piece.len() as i64).sum::<i64>();
        if bytes > self.credit {
            // It is read once more when there is credit for it.
            self.needs = bytes;
            return self.ask();
        }
        self.said = news(leader, log, probe.max(self.said.probe));
        let push = Push { number: self.next_number, base: self.next, news: self.said, batches };
        leader.on_pushed(self.stream, &self.stamps, end);
        (self.next, self.from) = (end, end);
        self.next_number += 1;
        self.credit -= bytes;
        (self.needs, self.asked) = (0, 0);
        PushPlan::Push(self.message(StreamBody::Push(push)))
    }

    fn message(&self, body: StreamBody) -> StreamMessage {
        StreamMessage { stream: self.stream, stamps: self.stamps, body }
    }
}

/// Where batches end that lie behind `base` one after the other, for compaction leaves gaps; and the longest one's bytes.
fn end_of(batches: &[Bytes], base: Offset) -> Option<(Offset, i64)> {
    let (mut end, mut longest) = (base, 0);
    for piece in batches {
        let mut at = 0;
        while at < piece.len() {
            let header = BatchHeader::read(&piece[at..]).ok()?;
            if header.base_offset < end {
                return None;
            }
            end = header.next_offset();
            longest = longest.max(header.batch_bytes as i64);
            at += header.batch_bytes;
        }
    }
    (end > base).then_some((end, longest))
}

#[cfg(test)]
mod tests;
