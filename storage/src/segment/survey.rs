//! Looking at a whole segment once to say exactly what of it is damaged.
//!
//! A block whose checksum fails takes with it the batches that touch it: base offsets and leader epochs lie outside a
//! batch's own CRC, so nothing in the block can be believed by itself. The one exception: when every batch in the block
//! has its CRC, follows the batch before without a gap and carries the leader epoch that the log knows for its offset,
//! then it is the checksum that is wrong, and it is written anew. So a lost `.sum` file costs nothing.
//! Behind damage the walk finds its way again by looking for a batch that is whole and fits; bytes a client chose
//! cannot pass for one, since what follows it must fit too.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use stonelog_protocol::batch::header::crc_matches;
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES};
use stonelog_protocol::{LeaderEpoch, Offset};

use super::pending_sums::SUM_BYTES;
use super::read::buffer;
use super::{BLOCK_BYTES, Segment, SegmentFile, SegmentId, directory_of};
use crate::disk::DiskFile;
use crate::holes::{Cause, Hole, HoleBytes};
use crate::job::FileAccess;
use crate::log::EpochEntry;
use crate::{Fault, ReplicaKey};

/// No batch is longer: a journal file, into which each fits, is smaller.
const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Looks at one segment. Planned by [`crate::log::Log::plan_survey`].
#[derive(Clone, Debug)]
pub struct SurveyJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) segment: Segment,
    pub(crate) closed: bool,
    pub(crate) epochs: Vec<EpochEntry>,
    pub(crate) log_start: Offset,
}

/// What a survey found, for [`crate::log::Log::on_surveyed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// What of the segment is damaged or missing, rising.
    pub holes: Vec<Hole>,
    /// Checksums that were wrong over bytes that were proved right, and have been written anew.
    pub sums_rewritten: usize,
    pub(crate) segment: Segment,
    pub(crate) closed: bool,
    /// The `.log` file is missing or ends too early.
    pub(crate) file_is_short: bool,
}

impl SurveyJob {
    /// The segment's base offset.
    pub fn base(&self) -> Offset {
        self.segment.base
    }

    /// Reads everything and checks it. A fault is the disk's; damage is the result.
    pub fn run(self, access: &FileAccess) -> Result<Surveyed, Fault> {
        let id = self.segment.id(self.replica.partition);
        let mut surveyed = Surveyed {
            replica: self.replica,
            holes: Vec::new(),
            sums_rewritten: 0,
            segment: self.segment,
            closed: self.closed,
            file_is_short: true,
        };
        let Some(log) = access.files().open_existing(access, id, SegmentFile::Log)? else {
            let bytes = Some((0, self.segment.bytes));
            surveyed.holes.push(self.hole(self.segment.base, self.segment.end, Cause::Missing, bytes));
            return Ok(surveyed);
        };
        let len = log.len().map_err(|source| access.fault("fstat", &id.path(SegmentFile::Log), None, source))?;
        surveyed.file_is_short = len < self.segment.bytes;
        let sums = self.read_sums(access, id)?;
        let mut walk = Walk {
            blocks: Blocks { access, id, log, len: len.min(self.segment.bytes), sums },
            job: &self,
            at: 0,
            next: self.segment.base,
            held: BytesMut::new(),
            suspects: Vec::new(),
            proved: Vec::new(),
            holes: Vec::new(),
        };
        walk.run()?;
        let Walk { holes, proved, .. } = walk;
        surveyed.holes = holes;
        surveyed.sums_rewritten = proved.len();
        if !proved.is_empty() {
            write_sums(access, id, &proved)?;
        }
        Ok(surveyed)
    }

    /// The checksum of each block, as far as the file has it.
    fn read_sums(&self, access: &FileAccess, id: SegmentId) -> Result<Vec<Option<u32>>, Fault> {
        let bytes = self.segment.bytes;
        let blocks = bytes.div_ceil(BLOCK_BYTES);
        let stored = if self.closed { blocks } else { bytes / BLOCK_BYTES };
        // Asked for before the file is read: what leaves there is in the file first.
        let pending = access.pending_sums().get(id, 0, stored);
        let mut read = buffer(stored * SUM_BYTES);
        let mut len = 0;
        if let Some(file) = access.files().open_existing(access, id, SegmentFile::Sums)? {
            let path = id.path(SegmentFile::Sums);
            len = file.read_at(0, &mut read).map_err(|source| access.fault("read", &path, Some(0), source))?;
        }
        let mut sums: Vec<Option<u32>> =
            read[..len].chunks_exact(4).map(|sum| Some(u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]))).collect();
        sums.resize(stored as usize, None);
        if let Some((from, known)) = pending {
            sums.truncate(from as usize);
            sums.extend(known.into_iter().map(Some));
            sums.resize(stored as usize, None);
        }
        if stored < blocks {
            sums.push(Some(self.segment.partial_crc));
        }
        Ok(sums)
    }

    fn hole(&self, start: Offset, end: Offset, why: Cause, bytes: Option<(u64, u64)>) -> Hole {
        // A segment's bytes are counted in 32 bits (`Log::from_checkpoint`, `SparseIndex`).
        let bytes =
            bytes.map(|(from, to)| HoleBytes { segment: self.segment.name(), from: from as u32, to: to as u32 });
        Hole { start, end, why, newest: self.segment.max_timestamp, bytes, epoch_unsure: false }
    }

    /// Whether a batch can be believed without its block's checksum.
    fn is_proved(&self, header: &BatchHeader, next: Offset) -> bool {
        // The epochs below the log start are forgotten; a batch that straddles it is of the one in force there.
        let known_at = header.base_offset.max(self.log_start);
        let after = self.epochs.partition_point(|entry| entry.start <= known_at);
        let epoch = after.checked_sub(1).map_or(LeaderEpoch::NONE, |at| self.epochs[at].epoch);
        let is_deleted = header.next_offset() <= self.log_start;
        // A cut at the log start takes the batch that straddles it, and the log goes on from there.
        let follows = header.base_offset == next || (next < header.base_offset && header.base_offset <= self.log_start);
        follows && (header.leader_epoch == epoch || is_deleted)
    }
}

/// Writes the checksums of some blocks, durably.
fn write_sums(access: &FileAccess, id: SegmentId, sums: &[(u64, u32)]) -> Result<(), Fault> {
    let path = id.path(SegmentFile::Sums);
    let (file, _) = access.files().open_or_create(access, id, SegmentFile::Sums)?;
    for (block, sum) in sums {
        let position = block * SUM_BYTES;
        let fault = |operation, source| access.fault(operation, &path, Some(position), source);
        file.allocate(position, SUM_BYTES).map_err(|source| fault("allocate", source))?;
        file.write_at(position, &[IoSlice::new(&sum.to_le_bytes())]).map_err(|source| fault("write", source))?;
    }
    file.sync_data().map_err(|source| access.fault("fdatasync", &path, None, source))?;
    let directory = directory_of(id.partition);
    let synced = access.disk().sync_dir(&access.path(&directory));
    synced.map_err(|source| access.fault("fsync directory", &directory, None, source))
}

/// The blocks of one segment.
struct Blocks<'a> {
    access: &'a FileAccess,
    id: SegmentId,
    log: Arc<dyn DiskFile>,
    /// Bytes that count and are there.
    len: u64,
    sums: Vec<Option<u32>>,
}

impl Blocks<'_> {
    /// A block's bytes, their checksum, and whether that is the one that should be there.
    fn read(&self, block: u64) -> Result<(Bytes, u32, bool), Fault> {
        let start = block * BLOCK_BYTES;
        let mut bytes = buffer(BLOCK_BYTES.min(self.len - start));
        let path = self.id.path(SegmentFile::Log);
        let read = self
            .log
            .read_at(start, &mut bytes)
            .map_err(|source| self.access.fault("read", &path, Some(start), source))?;
        bytes.truncate(read);
        let sum = crc32c::crc32c(&bytes);
        let whole = self.sums.get(block as usize).copied().flatten() == Some(sum);
        Ok((bytes.freeze(), sum, whole))
    }
}

/// A block whose checksum does not match, and the first batch that touches it.
#[derive(Clone, Copy)]
struct Suspect {
    block: u64,
    sum: u32,
    /// Where that batch begins, and the offset before it.
    at: u64,
    next: Offset,
}

/// The walk from batch to batch.
struct Walk<'a> {
    blocks: Blocks<'a>,
    job: &'a SurveyJob,
    /// Where the next batch begins, and the first byte held.
    at: u64,
    /// The offset it should begin with, or one above.
    next: Offset,
    held: BytesMut,
    suspects: Vec<Suspect>,
    /// Blocks with the checksums they should have.
    proved: Vec<(u64, u32)>,
    holes: Vec<Hole>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let end = self.job.segment.bytes;
        while self.at < end {
            match self.batch()? {
                Some(header) => {
                    let bytes = header.batch_bytes as u64;
                    self.at += bytes;
                    self.held.advance(header.batch_bytes);
                    self.next = header.next_offset();
                    let done = |suspect: &Suspect| ((suspect.block + 1) * BLOCK_BYTES).min(end) <= self.at;
                    let count = self.suspects.iter().take_while(|suspect| done(suspect)).count();
                    self.proved.extend(self.suspects.drain(..count).map(|suspect| (suspect.block, suspect.sum)));
                }
                None => self.go_on_behind()?,
            }
        }
        Ok(())
    }

    /// The whole batch that begins here, if it can be believed.
    fn batch(&mut self) -> Result<Option<BatchHeader>, Fault> {
        if !self.hold(HEADER_BYTES as u64)? {
            return Ok(None);
        }
        let Ok(header) = BatchHeader::read_without_records(&self.held) else { return Ok(None) };
        let bytes = header.batch_bytes as u64;
        if bytes > BATCH_BYTES_MAX || !self.hold(bytes)? {
            return Ok(None);
        }
        let fits = header.base_offset >= self.next
            && header.last_offset_delta >= 0
            && header.next_offset() <= self.job.segment.end
            && crc_matches(&self.held[..header.batch_bytes])
            && (self.suspects.is_empty() || self.job.is_proved(&header, self.next));
        Ok(fits.then_some(header))
    }

    /// Reads on until `bytes` are held; blocks that fail their check become suspects. `false` at the file's end.
    fn hold(&mut self, bytes: u64) -> Result<bool, Fault> {
        if self.at + bytes > self.blocks.len {
            return Ok(false);
        }
        while (self.held.len() as u64) < bytes {
            let from = self.at + self.held.len() as u64;
            let block = from / BLOCK_BYTES;
            let (found, sum, whole) = self.blocks.read(block)?;
            let skip = (from - block * BLOCK_BYTES) as usize;
            if found.len() <= skip {
                return Ok(false);
            }
            self.held.extend_from_slice(&found[skip..]);
            if !whole {
                self.suspects.push(Suspect { block, sum, at: self.at, next: self.next });
            }
        }
        Ok(true)
    }

    /// The batch here is damaged: makes a hole up to the next one that is whole, outside of bad blocks.
    fn go_on_behind(&mut self) -> Result<(), Fault> {
        let (from, start) = self.suspects.first().map_or((self.at, self.next), |first| (first.at, first.next));
        let behind_suspects = self.suspects.last().map_or(0, |last| (last.block + 1) * BLOCK_BYTES);
        self.suspects.clear();
        self.held.clear();
        let end = self.job.segment.bytes;
        let mut look_from = behind_suspects.max(self.at + 1);
        let mut found = None;
        while look_from < self.blocks.len && found.is_none() {
            // A stretch of whole blocks, as long as it lasts.
            let block = look_from / BLOCK_BYTES;
            let (bytes, _, whole) = self.blocks.read(block)?;
            if whole {
                let skip = (look_from - block * BLOCK_BYTES) as usize;
                for at in skip..bytes.len() {
                    // The byte that tells a batch's version is looked at first: most places end there.
                    if bytes.get(at + 16).is_some_and(|magic| *magic != 2) {
                        continue;
                    }
                    if let Some(header) = self.batch_at(block * BLOCK_BYTES + at as u64, start)? {
                        found = Some((block * BLOCK_BYTES + at as u64, header.base_offset));
                        break;
                    }
                }
            }
            look_from = (block + 1) * BLOCK_BYTES;
        }
        let (to, next) = found.unwrap_or((end, self.job.segment.end));
        let why = if from >= self.blocks.len { Cause::Missing } else { Cause::Segment };
        self.holes.push(self.job.hole(start, next, why, Some((from, to))));
        (self.at, self.next) = (to, next);
        Ok(())
    }

    /// A whole batch behind `start`, in whole blocks only, that is followed by another one or by the segment's end.
    fn batch_at(&self, position: u64, start: Offset) -> Result<Option<BatchHeader>, Fault> {
        let segment = &self.job.segment;
        let plausible = |bytes: &[u8], after: Offset| {
            BatchHeader::read_without_records(bytes).ok().filter(|header| {
                header.base_offset > after
                    && header.last_offset_delta >= 0
                    && header.next_offset() <= segment.end
                    && header.batch_bytes as u64 <= BATCH_BYTES_MAX
            })
        };
        let Some(head) = self.whole_bytes(position, HEADER_BYTES as u64)? else { return Ok(None) };
        let Some(header) = plausible(&head, start) else { return Ok(None) };
        let Some(batch) = self.whole_bytes(position, header.batch_bytes as u64)? else { return Ok(None) };
        if !crc_matches(&batch) {
            return Ok(None);
        }
        let after = position + header.batch_bytes as u64;
        if after == segment.bytes {
            return Ok(Some(header));
        }
        let last = header.next_offset() + -1;
        Ok(match self.whole_bytes(after, HEADER_BYTES as u64)? {
            Some(head) => plausible(&head, last).map(|_| header),
            // Damage follows; nothing more can be asked.
            None => Some(header),
        })
    }

    /// Bytes that lie in whole blocks.
    fn whole_bytes(&self, position: u64, bytes: u64) -> Result<Option<BytesMut>, Fault> {
        if position.checked_add(bytes).is_none_or(|end| end > self.blocks.len) {
            return Ok(None);
        }
        let mut held = BytesMut::new();
        while (held.len() as u64) < bytes {
            let from = position + held.len() as u64;
            let block = from / BLOCK_BYTES;
            let (found, _, whole) = self.blocks.read(block)?;
            let skip = (from - block * BLOCK_BYTES) as usize;
            if !whole || found.len() <= skip {
                return Ok(None);
            }
            let want = (bytes - held.len() as u64).min((found.len() - skip) as u64) as usize;
            held.extend_from_slice(&found[skip..skip + want]);
        }
        Ok(Some(held))
    }
}
