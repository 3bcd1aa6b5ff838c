//! Walks the journal's files in the order of their headers and tells entries, torn tails and damage apart (rule 6).
//!
//! Every byte is read past the page cache and checked. A commit that fails is a *torn tail* only when nothing intact
//! behind it shows that it, or anything after it, was durable: a later commit's header, a later file's header, or the
//! checkpoint itself. Otherwise it is *damage*, and the walk goes on behind it.
//! Not here: which files there are, and starting the next one.

use bytes::Bytes;

use super::commit::{self, BLOCK_BYTES, CommitHeader, Peeked};
use super::file::{ChainEnd, FILE_HEADER_BYTES, LiveFile};
use super::recover::{Hurt, HurtRange, JournalDamage, RecoveryEnd, ReplayFrom, ReplayedEntry, TornTail};
use super::window::Window;
use super::{Change, JournalEntry, JournalPosition};
use crate::Fault;

/// The walk over all files.
pub(super) struct Scan<'a, 'v> {
    /// In the order of their generations.
    files: &'a [LiveFile],
    replay_from: ReplayFrom,
    visit: &'v mut dyn FnMut(ReplayedEntry),
    /// The last commit accepted.
    chain: ChainEnd,
    ends: RecoveryEnd,
}

/// How the commits of one file ended.
enum FileEnd {
    /// Where the next file goes on, or where nothing was begun.
    Complete,
    /// Nothing from here on was durable; the walk is over.
    Torn,
}

/// A commit whose header is intact.
struct Located {
    offset: u64,
    peeked: Peeked,
}

impl<'a, 'v> Scan<'a, 'v> {
    /// Visits every entry at or after the replay position; returns the last commit and how the walk ended.
    pub(super) fn run(
        files: &'a [LiveFile],
        replay_from: ReplayFrom,
        visit: &'v mut dyn FnMut(ReplayedEntry),
    ) -> Result<(ChainEnd, RecoveryEnd), Fault> {
        let chain = files.first().map(|file| file.header.previous).unwrap_or_default();
        let mut scan = Scan { files, replay_from, visit, chain, ends: RecoveryEnd::default() };
        scan.walk()?;
        let begins = |file: &LiveFile| JournalPosition(file.header.base.0 + FILE_HEADER_BYTES);
        let reached = scan.files.iter().map(begins).max().unwrap_or_default().max(scan.chain.end);
        let is_short = reached < replay_from.position;
        #[cfg(feature = "mutants")]
        let is_short = is_short && !crate::mutants::Guard::JournalReachesCheckpoint.is_off();
        if is_short {
            // The checkpoint covers more than the journal has: what followed is gone as well.
            scan.hurt(replay_from.position, Hurt::All);
        }
        Ok((scan.chain, scan.ends))
    }

    fn walk(&mut self) -> Result<(), Fault> {
        if self.chain.end > self.replay_from.position {
            // The files between the checkpoint and the oldest one left are missing.
            self.hurt(self.replay_from.position, Hurt::All);
        }
        for index in 0..self.files.len() {
            let limit = self.limit(index);
            let previous = self.files[index].header.previous;
            if previous.sequence > limit {
                // Written after commits that an earlier recovery found torn: never durable, dropped then as now.
                continue;
            }
            if (previous.sequence, previous.checksum) != (self.chain.sequence, self.chain.checksum) {
                self.hurt_between(self.chain.end, previous.end, Hurt::All);
            }
            if previous.sequence >= self.chain.sequence {
                self.chain = ChainEnd { end: previous.end.max(self.chain.end), ..previous };
            }
            match self.walk_file(index, limit)? {
                FileEnd::Complete => {}
                FileEnd::Torn => return Ok(()),
            }
        }
        Ok(())
    }

    /// The last sequence of a file that later recoveries trusted: they began their own files behind it, and what lies
    /// beyond was torn then.
    fn limit(&self, index: usize) -> u64 {
        let epoch = self.files[index].header.recovery_epoch;
        let later = self.files[index + 1..].iter().filter(|file| file.header.recovery_epoch > epoch);
        later.map(|file| file.header.previous.sequence).min().unwrap_or(u64::MAX)
    }

    fn walk_file(&mut self, index: usize, limit: u64) -> Result<FileEnd, Fault> {
        let live = &self.files[index];
        let next = self.files.get(index + 1).map(|file| file.header.previous);
        let last = next.map_or(limit, |previous| previous.sequence.min(limit));
        let mut window = Window::new(live);
        let mut offset = FILE_HEADER_BYTES;
        while self.chain.sequence < last && offset < live.header.len {
            let expected = self.expected(live, offset);
            // No slice of the window outlives its use here, so that its buffer serves the next read.
            let (begun, peeked) = {
                let block = window.at(offset, BLOCK_BYTES)?;
                (commit::was_begun_here(&block, &expected), commit::peek(&block, live.header.len - offset))
            };
            if let Some(peeked) = peeked.filter(|peeked| follows(peeked, &expected))
                && is_intact(live, offset, &peeked, &window.at(offset, peeked.header_bytes as u64)?)
                && let Some(entries) = decode(&peeked, &window.at(offset, peeked.commit_bytes())?)
            {
                self.visit_all(&peeked, entries, false);
                self.accept(live, offset, &peeked);
                offset += peeked.commit_bytes();
                continue;
            }
            // Whatever stands here is not the next commit.
            match self.judge(index, offset, last, begun)? {
                Judged::GoOn(next_offset) => offset = next_offset,
                Judged::End(end) => return Ok(end),
            }
        }
        Ok(FileEnd::Complete)
    }

    /// Decides what a failing commit at `offset` is.
    fn judge(&mut self, index: usize, offset: u64, last: u64, begun: bool) -> Result<Judged, Fault> {
        let live = &self.files[index];
        let sequence = self.chain.sequence + 1;
        let position = JournalPosition(live.header.base.0 + offset);
        let is_last_file = index + 1 == self.files.len();
        let is_covered = position < self.replay_from.position;
        let here = intact_headers(live, offset, sequence, last)?;
        let durable = self.durable_evidence(index, &here)?;
        let was_durable = durable >= sequence;
        #[cfg(feature = "mutants")]
        let was_durable = was_durable && !crate::mutants::Guard::TornTailEvidence.is_off();
        if !is_covered && !was_durable {
            // Nothing shows that this was ever durable.
            let is_torn = begun || !here.is_empty() || !is_last_file;
            if is_torn {
                let end = here.last().map_or(offset + BLOCK_BYTES, |found| found.offset + found.peeked.commit_bytes());
                self.ends.torn_tail = Some(TornTail { path: live.path.clone(), position, bytes: end - offset });
            }
            return Ok(Judged::End(FileEnd::Torn));
        }
        // Damage. Replay goes on at the next intact header, which may be this commit's own.
        let Some(found) = here.first() else {
            if is_last_file {
                // Inside what the checkpoint covers, with nothing behind it: whether the journal reaches far enough is
                // judged at the end of the walk.
                return Ok(Judged::End(FileEnd::Torn));
            }
            let next = self.files[index + 1].header.previous;
            self.hurt_between(position, next.end, Hurt::All);
            self.chain = next;
            return Ok(Judged::End(FileEnd::Complete));
        };
        let header = found.peeked.header;
        let before = ChainEnd {
            sequence: header.sequence - 1,
            checksum: header.previous_checksum,
            end: JournalPosition(live.header.base.0 + found.offset),
        };
        if (before.sequence, before.checksum) != (self.chain.sequence, self.chain.checksum) {
            // Something before it is not what was written; what was lost lies up to here, or is the commit before.
            let end = before.end.max(JournalPosition(position.0 + 1));
            self.hurt_between(position, end, Hurt::All);
            self.chain = before;
            return Ok(Judged::GoOn(found.offset));
        }
        // It follows as it should, so only its batches are damaged.
        let next_offset = found.offset + found.peeked.commit_bytes();
        let end = JournalPosition(live.header.base.0 + next_offset);
        let header = Window::new(live).at(found.offset, found.peeked.header_bytes as u64)?;
        match commit::decode_heads(&found.peeked, &header) {
            Some(heads) => {
                self.hurt_between(position, end, Hurt::Ranges(ranges(&heads)));
                self.visit_all(&found.peeked, heads, true);
            }
            // Another release's.
            None => self.hurt_between(position, end, Hurt::All),
        }
        self.accept(live, found.offset, &found.peeked);
        Ok(Judged::GoOn(next_offset))
    }

    /// The newest sequence that something at or behind a point names as durable.
    fn durable_evidence(&self, index: usize, here: &[Located]) -> Result<u64, Fault> {
        let mut durable = here.iter().map(|found| found.peeked.header.durable_sequence).max().unwrap_or(0);
        for (later, live) in self.files.iter().enumerate().skip(index + 1) {
            if live.header.previous.sequence > self.limit(later) {
                continue;
            }
            durable = durable.max(live.header.durable_sequence);
            if durable > self.chain.sequence {
                break;
            }
            for found in intact_headers(live, FILE_HEADER_BYTES, 1, self.limit(later))? {
                durable = durable.max(found.peeked.header.durable_sequence);
            }
        }
        Ok(durable)
    }

    fn expected(&self, live: &LiveFile, offset: u64) -> CommitHeader {
        CommitHeader {
            sequence: self.chain.sequence + 1,
            generation: live.header.generation,
            position: JournalPosition(live.header.base.0 + offset),
            recovery_epoch: live.header.recovery_epoch,
            previous_checksum: self.chain.checksum,
            durable_sequence: 0,
            payload_bytes: 0,
            payload_checksum: 0,
        }
    }

    fn accept(&mut self, live: &LiveFile, offset: u64, peeked: &Peeked) {
        let end = JournalPosition(live.header.base.0 + offset + peeked.commit_bytes());
        self.chain = ChainEnd { sequence: peeked.header.sequence, checksum: peeked.checksum, end };
    }

    fn visit_all(&mut self, peeked: &Peeked, entries: Vec<JournalEntry>, damaged: bool) {
        let commit_position = peeked.header.position;
        let mut payload_position = JournalPosition(commit_position.0 + peeked.header_bytes as u64);
        for (index, entry) in entries.into_iter().enumerate() {
            let head = commit::HEADER_FIXED_BYTES + index * commit::HEAD_BYTES;
            let position = JournalPosition(commit_position.0 + head as u64);
            let bytes = match &entry.change {
                Change::Append { batches, .. } => batches.len() as u64,
                _ => 0,
            };
            if commit_position >= self.replay_from.position {
                let sequence = peeked.header.sequence;
                let batches_damaged = damaged && matches!(entry.change, Change::Append { .. });
                (self.visit)(ReplayedEntry {
                    position,
                    commit_position,
                    sequence,
                    payload_position,
                    entry,
                    batches_damaged,
                });
            }
            payload_position.0 += bytes;
        }
    }

    /// Records damage in a range, unless the checkpoint covers all of it.
    fn hurt_between(&mut self, from: JournalPosition, to: JournalPosition, hurt: Hurt) {
        if to > self.replay_from.position {
            self.hurt(from.max(self.replay_from.position), hurt);
        }
    }

    fn hurt(&mut self, position: JournalPosition, hurt: Hurt) {
        tracing::error!(position = position.0, ?hurt, "journal damaged");
        let holds = |live: &&LiveFile| (live.header.base..live.header.end()).contains(&position);
        let place = self.files.iter().find(holds).map(|live| (live.path.clone(), position.0 - live.header.base.0));
        self.ends.damage.push(JournalDamage { position, place, hurt });
    }
}

/// What comes after a failing commit.
enum Judged {
    GoOn(u64),
    End(FileEnd),
}

fn follows(peeked: &Peeked, expected: &CommitHeader) -> bool {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::CommitPlace.is_off() {
        return true;
    }
    peeked.header.sequence == expected.sequence && peeked.header.previous_checksum == expected.previous_checksum
}

/// The entries of a commit whose header is intact; `None` when its batches are damaged.
fn decode(peeked: &Peeked, bytes: &Bytes) -> Option<Vec<JournalEntry>> {
    let payload = &bytes[peeked.header_bytes..][..peeked.header.payload_bytes as usize];
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::CommitPayload.is_off() {
        return commit::decode_entries(peeked, bytes);
    }
    let is_whole = crc32c::crc32c(payload) == peeked.header.payload_checksum;
    if is_whole { commit::decode_entries(peeked, bytes) } else { None }
}

/// Whether a header was written for this place of this file and passes its checksum.
fn is_intact(live: &LiveFile, offset: u64, peeked: &Peeked, bytes: &[u8]) -> bool {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::CommitPlace.is_off() {
        return commit::header_is_intact(peeked, bytes, live.header.seed());
    }
    peeked.header.generation == live.header.generation
        && peeked.header.recovery_epoch == live.header.recovery_epoch
        && peeked.header.position.0 == live.header.base.0 + offset
        && commit::header_is_intact(peeked, bytes, live.header.seed())
}

/// The ranges that appends without their batches name, one for each replica that has any.
fn ranges(heads: &[JournalEntry]) -> Vec<HurtRange> {
    let mut ranges: Vec<HurtRange> = Vec::new();
    for head in heads {
        let Change::Append { base_offset, end_offset, .. } = head.change else { continue };
        match ranges.iter_mut().find(|range| range.replica == head.replica && range.end == base_offset) {
            Some(range) => range.end = end_offset,
            None => ranges.push(HurtRange { replica: head.replica, start: base_offset, end: end_offset }),
        }
    }
    ranges.sort_by_key(|range| (range.replica, range.start));
    ranges
}

/// The intact headers of a file from an offset on, with sequences in `from..=last`, in order.
fn intact_headers(live: &LiveFile, offset: u64, from: u64, last: u64) -> Result<Vec<Located>, Fault> {
    let mut window = Window::new(live);
    let mut found: Vec<Located> = Vec::new();
    let mut offset = offset;
    let mut from = from;
    while offset < live.header.len {
        let peeked = commit::peek(&window.at(offset, BLOCK_BYTES)?, live.header.len - offset);
        let mut step = BLOCK_BYTES;
        if let Some(peeked) = peeked.filter(|peeked| (from..=last).contains(&peeked.header.sequence))
            && is_intact(live, offset, &peeked, &window.at(offset, peeked.header_bytes as u64)?)
        {
            from = peeked.header.sequence + 1;
            step = peeked.commit_bytes();
            found.push(Located { offset, peeked });
        }
        offset += step;
    }
    Ok(found)
}
