//! Appends commits: one gathering write each, no copy of the batches, never across files.

use std::sync::Arc;

use super::commit::{self, BLOCK_BYTES, CommitHeader, ENTRIES_MAX};
use super::file::{ChainEnd, FILE_HEADER_BYTES, FileHeader, LiveFile, put_into_use};
use super::flusher::Durable;
use super::recycle::make_numbered;
use super::shared::Shared;
use super::spare::Spare;
use super::{JournalEntry, JournalPosition};
use crate::Fault;

/// What is queued when a journal is full is bounded by the memory for it, which is no larger than the journal.
const BEYOND_LIMIT_FACTOR: u64 = 2;

/// Where a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitReceipt {
    /// Sequence of the last commit written; durable once a sync returns this or a later one.
    pub sequence: u64,
    /// Where the first commit begins.
    pub start: JournalPosition,
    /// Where the last commit ends: the entries are covered by this position.
    pub end: JournalPosition,
}

/// The journal's one writing end.
pub struct JournalWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) current: Arc<LiveFile>,
    /// Where the next commit begins in the current file.
    pub(super) offset: u64,
    /// The last commit.
    pub(super) last: ChainEnd,
    /// The last commit that carries entries.
    pub(super) last_entries_sequence: u64,
    /// The durable sequence that the last commit names.
    pub(super) named_sequence: u64,
    /// Header bytes, reused.
    pub(super) header: Vec<u8>,
    /// The commits a call will write, reused.
    pub(super) plan: Vec<PlannedCommit>,
}

/// One commit of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedCommit {
    /// Index behind its last entry.
    end: usize,
    /// Bytes of its batches.
    payload_bytes: u64,
    /// Whether a new file begins before it.
    rolls: bool,
}

impl JournalWriter {
    /// Writes the entries in order, as one commit or, where one would be too large or not fit the file, several.
    ///
    /// They have survived a process crash when it returns, a power cut only after [`super::JournalFlusher::sync`].
    /// Out of space ([`Fault::is_out_of_space`]) means nothing was written, and the call may be repeated; any other
    /// failure ends the journal. Panics when an entry is larger than [`super::JournalOptions::entry_bytes_max`].
    pub fn write(&mut self, entries: &[JournalEntry]) -> Result<CommitReceipt, Fault> {
        self.shared.check()?;
        self.plan(entries);
        self.run_plan(entries, self.shared.options.bytes_max)
    }

    /// As [`JournalWriter::write`], but the live files may grow to twice their limit. For what stands before a change
    /// that must be durable before the journal can be freed at all ([`super::Change::holds_journal`]): waiting for
    /// room would be waiting for itself.
    pub fn write_beyond_limit(&mut self, entries: &[JournalEntry]) -> Result<CommitReceipt, Fault> {
        self.shared.check()?;
        self.plan(entries);
        self.run_plan(entries, self.shared.options.bytes_max.saturating_mul(BEYOND_LIMIT_FACTOR))
    }

    /// Writes a commit without entries. Its header names the newest durable sequence, so that a later recovery can tell
    /// a torn tail from damage to commits that were already durable (rule 6).
    pub fn write_empty_commit(&mut self) -> Result<CommitReceipt, Fault> {
        self.shared.check()?;
        self.plan.clear();
        let rolls = self.must_roll() || self.offset + BLOCK_BYTES > self.current.header.len;
        self.plan.push(PlannedCommit { end: 0, payload_bytes: 0, rolls });
        self.run_plan(&[], self.shared.options.bytes_max)
    }

    /// Whether an empty commit would name a durable commit with entries that no header names yet.
    pub fn empty_commit_wanted(&self) -> bool {
        self.has_unnamed() && self.shared.durable_sequence() >= self.last_entries_sequence
    }

    /// Whether the last commit with entries is not yet named as durable by a later header.
    pub fn has_unnamed(&self) -> bool {
        self.named_sequence < self.last_entries_sequence
    }

    /// Whether the file being written was removed ([`super::JournalMaintenance::check_names`]): the next commit, also an
    /// empty one, goes to another.
    pub fn must_roll(&self) -> bool {
        self.shared.state().missing.contains(&self.current.header.base.0)
    }

    /// Where the next commit will begin, unless it needs a new file.
    pub fn position(&self) -> JournalPosition {
        JournalPosition(self.current.header.base.0 + self.offset)
    }

    fn plan(&mut self, entries: &[JournalEntry]) {
        self.plan.clear();
        let mut room = if self.must_roll() { 0 } else { self.current.header.len - self.offset };
        let mut begun = PlannedCommit { end: 0, payload_bytes: 0, rolls: false };
        let mut first = 0;
        for (index, entry) in entries.iter().enumerate() {
            let bytes = commit::payload(entry).len() as u64;
            assert!(bytes <= self.shared.options.entry_bytes_max(), "an entry fits a journal file");
            let whole = commit::commit_bytes(index + 1 - first, begun.payload_bytes + bytes);
            let too_large = whole > self.shared.options.commit_bytes_max as u64 || index - first == ENTRIES_MAX;
            if index > first && (too_large || whole > room) {
                room -= commit::commit_bytes(index - first, begun.payload_bytes);
                self.plan.push(begun);
                begun = PlannedCommit { end: index, payload_bytes: 0, rolls: false };
                first = index;
            }
            if index == first && commit::commit_bytes(1, bytes) > room {
                begun.rolls = true;
                room = self.shared.options.file_bytes - FILE_HEADER_BYTES;
            }
            begun.end = index + 1;
            begun.payload_bytes += bytes;
        }
        if !entries.is_empty() {
            self.plan.push(begun);
        }
    }

    fn run_plan(&mut self, entries: &[JournalEntry], bytes_max: u64) -> Result<CommitReceipt, Fault> {
        // All files first: running out of space after the first commit would store half of what is refused.
        let rolls = self.plan.iter().filter(|planned| planned.rolls).count();
        let mut files = if rolls == 0 { Vec::new() } else { self.take_files(rolls, bytes_max)? };
        let mut receipt: Option<CommitReceipt> = None;
        let mut first = 0;
        for index in 0..self.plan.len() {
            let planned = self.plan[index];
            if planned.rolls {
                let spare = files.pop().expect("as many files were taken as the plan rolls");
                let rolled = self.roll(spare);
                self.shared.stick(rolled)?;
            }
            let written = self.write_commit(&entries[first..planned.end], planned.payload_bytes);
            let written = self.shared.stick(written)?;
            first = planned.end;
            receipt = Some(CommitReceipt { start: receipt.map_or(written.start, |r| r.start), ..written });
        }
        let nothing = CommitReceipt { sequence: self.last.sequence, start: self.last.end, end: self.last.end };
        Ok(receipt.unwrap_or(nothing))
    }

    /// Takes spares, leaving the one that belongs to the next recovery, or makes files on the spot.
    fn take_files(&self, count: usize, bytes_max: u64) -> Result<Vec<Spare>, Fault> {
        let options = &self.shared.options;
        let mut taken = Vec::with_capacity(count);
        {
            let mut state = self.shared.state();
            if state.bytes_live() + count as u64 * options.file_bytes > bytes_max {
                let full = std::io::ErrorKind::StorageFull.into();
                return Err(Fault::io("allocate", &self.shared.directory, full));
            }
            while taken.len() < count && state.spares.len() > 1 {
                taken.extend(state.spares.pop());
            }
        }
        // Somebody may have removed one: another is made, and what the journal holds goes on.
        taken.retain(|spare| self.shared.disk.exists(&spare.path).unwrap_or(false));
        while taken.len() < count {
            match make_numbered(&self.shared, &mut || ()) {
                Ok(spare) => taken.push(spare),
                Err(fault) => {
                    self.shared.state().spares.append(&mut taken);
                    return Err(fault);
                }
            }
        }
        Ok(taken)
    }

    fn roll(&mut self, spare: Spare) -> Result<(), Fault> {
        let full = &self.current.header;
        let header = FileHeader {
            generation: full.generation + 1,
            recovery_epoch: full.recovery_epoch,
            base: full.end(),
            len: spare.len,
            previous: self.last,
            durable_sequence: self.shared.durable_sequence(),
        };
        let live = Arc::new(put_into_use(spare.file, spare.path, header)?);
        self.shared.state().live.insert(header.base.0, live.clone());
        self.current = live;
        self.offset = FILE_HEADER_BYTES;
        Ok(())
    }

    fn write_commit(&mut self, entries: &[JournalEntry], payload_bytes: u64) -> Result<CommitReceipt, Fault> {
        let file = &self.current.header;
        let start = self.position();
        let checksum = entries.iter().fold(0, |crc, entry| crc32c::crc32c_append(crc, commit::payload(entry)));
        let header = CommitHeader {
            sequence: self.last.sequence + 1,
            generation: file.generation,
            position: start,
            recovery_epoch: file.recovery_epoch,
            previous_checksum: self.last.checksum,
            durable_sequence: self.shared.durable_sequence(),
            payload_bytes: u32::try_from(payload_bytes).expect("a commit fits a file, whose lengths fit 32 bits"),
            payload_checksum: checksum,
        };
        let checksum = commit::encode_header(&header, entries, file.seed(), &mut self.header);
        let bytes = commit::commit_bytes(entries.len(), payload_bytes);
        assert!(self.offset + bytes <= file.len, "a commit never spans files");
        let slices = commit::gather(&self.header, entries, payload_bytes);
        self.current
            .file
            .write_at(self.offset, &slices)
            .map_err(|e| Fault::io_at("write", &self.current.path, self.offset, e))?;
        let end = JournalPosition(start.0 + bytes);
        self.offset += bytes;
        self.last = ChainEnd { sequence: header.sequence, checksum, end };
        self.named_sequence = header.durable_sequence;
        if !entries.is_empty() {
            self.last_entries_sequence = header.sequence;
        }
        let mut state = self.shared.state();
        state.written = Durable { sequence: header.sequence, position: end };
        if !state.dirty.last().is_some_and(|last| Arc::ptr_eq(last, &self.current)) {
            state.dirty.push(self.current.clone());
        }
        Ok(CommitReceipt { sequence: header.sequence, start, end })
    }
}
