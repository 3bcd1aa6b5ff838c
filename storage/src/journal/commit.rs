//! The bytes of a commit: header with the entries' heads, then the batches, padded to whole 4 KiB blocks.
//!
//! The header has its own checksum, so that a commit whose batches are damaged still says whose they were. Checksums
//! are seeded per file generation: bytes a client chose cannot pass for a header, and neither can stale ones.
//! Little-endian; byte by byte in `docs/formats.md`.

use std::io::IoSlice;

use bytes::Bytes;
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};

use super::{Change, JournalEntry, JournalPosition};
use crate::fields::{FieldReader, Short};
use crate::{LogGeneration, ReplicaKey};

/// Commits begin on this boundary: a power cut tears between blocks, and a partial page is never read back to write.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// The header before the entries' heads.
pub(super) const HEADER_FIXED_BYTES: usize = 64;
/// One entry's head.
pub(super) const HEAD_BYTES: usize = 52;
/// Entries in one commit: bounds the header to 416 KiB.
pub(super) const ENTRIES_MAX: usize = 8192;

const MAGIC: u32 = u32::from_le_bytes(*b"SLJC");
static ZEROES: [u8; BLOCK_BYTES as usize] = [0; BLOCK_BYTES as usize];

/// The fields of a commit's header, without the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommitHeader {
    /// Raised by one with each commit of the journal, from 1.
    pub(super) sequence: u64,
    /// Of the file it was written to.
    pub(super) generation: u64,
    /// Where it begins.
    pub(super) position: JournalPosition,
    /// The start it was written in.
    pub(super) recovery_epoch: u32,
    /// Checksum of the commit before it, across files; 0 for the first.
    pub(super) previous_checksum: u32,
    /// Newest sequence known to be durable when it was written.
    pub(super) durable_sequence: u64,
    /// Bytes of batches behind the header.
    pub(super) payload_bytes: u32,
    /// CRC-32C of those.
    pub(super) payload_checksum: u32,
}

/// Whole blocks that a commit of these entries takes.
pub(super) fn commit_bytes(entry_count: usize, payload_bytes: u64) -> u64 {
    ((HEADER_FIXED_BYTES + entry_count * HEAD_BYTES) as u64 + payload_bytes).next_multiple_of(BLOCK_BYTES)
}

/// The batches an entry carries.
pub(super) fn payload(entry: &JournalEntry) -> &[u8] {
    match &entry.change {
        Change::Append { batches, .. } => batches,
        _ => &[],
    }
}

/// Replaces `out` by header and heads; returns the commit's checksum.
pub(super) fn encode_header(header: &CommitHeader, entries: &[JournalEntry], seed: u32, out: &mut Vec<u8>) -> u32 {
    let header_bytes = HEADER_FIXED_BYTES + entries.len() * HEAD_BYTES;
    out.clear();
    out.reserve(header_bytes);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(header_bytes as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&header.sequence.to_le_bytes());
    out.extend_from_slice(&header.generation.to_le_bytes());
    out.extend_from_slice(&header.position.0.to_le_bytes());
    out.extend_from_slice(&header.recovery_epoch.to_le_bytes());
    out.extend_from_slice(&header.previous_checksum.to_le_bytes());
    out.extend_from_slice(&header.durable_sequence.to_le_bytes());
    out.extend_from_slice(&header.payload_bytes.to_le_bytes());
    out.extend_from_slice(&header.payload_checksum.to_le_bytes());
    for entry in entries {
        encode_head(entry, out);
    }
    let checksum = crc32c::crc32c_append(seed, &out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

fn encode_head(entry: &JournalEntry, out: &mut Vec<u8>) {
    let (kind, flag, a, b) = match &entry.change {
        Change::Append { base_offset, end_offset, .. } => (1, 0, base_offset.0, end_offset.0),
        Change::Create { start, strict } => (2, u8::from(*strict), start.0, 0),
        Change::Truncate { end } => (3, 0, end.0, 0),
        Change::Reset { start } => (4, 0, start.0, 0),
        Change::LogStart { start } => (5, 0, start.0, 0),
        Change::EpochStart { epoch, offset } => (6, 0, i64::from(epoch.0), offset.0),
        Change::Mode { strict } => (7, u8::from(*strict), 0, 0),
        Change::Drop => (8, 0, 0, 0),
    };
    let key = &entry.replica;
    out.extend_from_slice(&key.partition.topic_id.0);
    out.extend_from_slice(&key.partition.partition.0.to_le_bytes());
    out.extend_from_slice(&key.generation.recovery_epoch.to_le_bytes());
    out.extend_from_slice(&key.generation.counter.to_le_bytes());
    out.extend_from_slice(&[kind, flag, 0, 0]);
    out.extend_from_slice(&i64::to_le_bytes(a));
    out.extend_from_slice(&i64::to_le_bytes(b));
    out.extend_from_slice(&(payload(entry).len() as u32).to_le_bytes());
}

/// The commit's slices in writing order, the padding last. Batches are not copied.
pub(super) fn gather<'a>(header: &'a [u8], entries: &'a [JournalEntry], payload_bytes: u64) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(entries.len() + 2);
    slices.push(IoSlice::new(header));
    slices.extend(entries.iter().map(payload).filter(|batches| !batches.is_empty()).map(IoSlice::new));
    let written = header.len() as u64 + payload_bytes;
    let padding = (written.next_multiple_of(BLOCK_BYTES) - written) as usize;
    if padding > 0 {
        slices.push(IoSlice::new(&ZEROES[..padding]));
    }
    slices
}

/// What a header's first 64 bytes promise, before its checksum can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peeked {
    pub(super) header: CommitHeader,
    pub(super) header_bytes: usize,
    pub(super) entry_count: usize,
    pub(super) checksum: u32,
}

impl Peeked {
    /// Whole blocks of the commit.
    pub(super) fn commit_bytes(&self) -> u64 {
        (self.header_bytes as u64 + u64::from(self.header.payload_bytes)).next_multiple_of(BLOCK_BYTES)
    }
}

/// Reads the fixed part; `None` when it is no commit header or its lengths do not agree with each other or the space.
/// Nothing in it may be believed before [`header_is_intact`].
pub(super) fn peek(bytes: &[u8], space: u64) -> Option<Peeked> {
    let peeked = fixed_fields(bytes).ok()??;
    let legal = peeked.entry_count <= ENTRIES_MAX
        && peeked.header_bytes == HEADER_FIXED_BYTES + peeked.entry_count * HEAD_BYTES
        && peeked.commit_bytes() <= space;
    legal.then_some(peeked)
}

fn fixed_fields(bytes: &[u8]) -> Result<Option<Peeked>, Short> {
    let mut reader = FieldReader::new(bytes);
    if reader.u32()? != MAGIC {
        return Ok(None);
    }
    let checksum = reader.u32()?;
    let header_bytes = reader.u32()? as usize;
    let entry_count = reader.u32()? as usize;
    let header = CommitHeader {
        sequence: reader.u64()?,
        generation: reader.u64()?,
        position: JournalPosition(reader.u64()?),
        recovery_epoch: reader.u32()?,
        previous_checksum: reader.u32()?,
        durable_sequence: reader.u64()?,
        payload_bytes: reader.u32()?,
        payload_checksum: reader.u32()?,
    };
    Ok(Some(Peeked { header, header_bytes, entry_count, checksum }))
}

/// Whether the whole header, heads included, passes its checksum. `bytes` begins with it.
pub(super) fn header_is_intact(peeked: &Peeked, bytes: &[u8], seed: u32) -> bool {
    bytes.get(8..peeked.header_bytes).is_some_and(|checked| crc32c::crc32c_append(seed, checked) == peeked.checksum)
}

/// Whether some field could only have been written for this very place: tells the remains of a commit from stale bytes.
pub(super) fn was_begun_here(bytes: &[u8], expected: &CommitHeader) -> bool {
    let field = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    field(16) == Some(expected.sequence)
        || field(24) == Some(expected.generation)
        || field(32) == Some(expected.position.0)
}

/// The entries of a header that is intact; `None` when a head is one that this release does not write.
/// `commit` holds the header and, where the batches are wanted, the payload behind it.
pub(super) fn decode_entries(peeked: &Peeked, commit: &Bytes) -> Option<Vec<JournalEntry>> {
    let heads = commit.get(HEADER_FIXED_BYTES..peeked.header_bytes)?;
    let mut reader = FieldReader::new(heads);
    let mut entries = Vec::with_capacity(reader.remaining() / HEAD_BYTES);
    let mut payload_at = peeked.header_bytes;
    for _ in 0..peeked.entry_count {
        let (entry, payload_bytes) = decode_head(&mut reader, Some(commit), payload_at).ok()??;
        payload_at += payload_bytes;
        entries.push(entry);
    }
    (payload_at == peeked.header_bytes + peeked.header.payload_bytes as usize).then_some(entries)
}

/// The entries of an intact header whose batches are damaged: appends carry none.
pub(super) fn decode_heads(peeked: &Peeked, header: &Bytes) -> Option<Vec<JournalEntry>> {
    let mut reader = FieldReader::new(header.get(HEADER_FIXED_BYTES..peeked.header_bytes)?);
    let mut entries = Vec::with_capacity(reader.remaining() / HEAD_BYTES);
    let mut payload_bytes = 0;
    for _ in 0..peeked.entry_count {
        let (entry, bytes) = decode_head(&mut reader, None, 0).ok()??;
        payload_bytes += bytes;
        entries.push(entry);
    }
    (payload_bytes == peeked.header.payload_bytes as usize).then_some(entries)
}

fn decode_key(reader: &mut FieldReader<'_>) -> Result<ReplicaKey, Short> {
    let topic_id = Uuid(reader.array()?);
    let partition = PartitionIndex(reader.i32()?);
    let generation = LogGeneration { recovery_epoch: reader.u32()?, counter: reader.u32()? };
    Ok(ReplicaKey { partition: TopicPartition { topic_id, partition }, generation })
}

fn decode_head(
    reader: &mut FieldReader<'_>,
    commit: Option<&Bytes>,
    payload_at: usize,
) -> Result<Option<(JournalEntry, usize)>, Short> {
    let replica = decode_key(reader)?;
    let [kind, flag, ..] = reader.array::<4>()?;
    let a = reader.i64()?;
    let b = reader.i64()?;
    let payload_bytes = reader.u32()? as usize;
    let change = match kind {
        1 => {
            let batches = match commit {
                Some(commit) => {
                    let end = payload_at.checked_add(payload_bytes).filter(|end| *end <= commit.len()).ok_or(Short)?;
                    commit.slice(payload_at..end)
                }
                None => Bytes::new(),
            };
            Change::Append { base_offset: Offset(a), end_offset: Offset(b), batches }
        }
        2 => Change::Create { start: Offset(a), strict: flag == 1 },
        3 => Change::Truncate { end: Offset(a) },
        4 => Change::Reset { start: Offset(a) },
        5 => Change::LogStart { start: Offset(a) },
        6 => match i32::try_from(a) {
            Ok(epoch) => Change::EpochStart { epoch: LeaderEpoch(epoch), offset: Offset(b) },
            Err(_) => return Ok(None),
        },
        7 => Change::Mode { strict: flag == 1 },
        8 => Change::Drop,
        _ => return Ok(None),
    };
    Ok((kind == 1 || payload_bytes == 0).then_some((JournalEntry { replica, change }, payload_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(partition: i32) -> ReplicaKey {
        ReplicaKey {
            partition: TopicPartition { topic_id: Uuid([0xaa; 16]), partition: PartitionIndex(partition) },
            generation: LogGeneration { recovery_epoch: 3, counter: 4 },
        }
    }

    fn append(partition: i32, batches: &'static [u8]) -> JournalEntry {
        let batches = Bytes::from_static(batches);
        let change = Change::Append { base_offset: Offset(10), end_offset: Offset(12), batches };
        JournalEntry { replica: key(partition), change }
    }

    fn entries() -> Vec<JournalEntry> {
        let epoch = Change::EpochStart { epoch: LeaderEpoch(6), offset: Offset(10) };
        vec![append(2, b"first"), JournalEntry { replica: key(1), change: epoch }, append(1, b"second")]
    }

    fn header() -> CommitHeader {
        CommitHeader {
            sequence: 0x11,
            generation: 0x22,
            position: JournalPosition(0x3000),
            recovery_epoch: 0x44,
            previous_checksum: 0x55,
            durable_sequence: 0x10,
            payload_bytes: 11,
            payload_checksum: crc32c::crc32c(b"firstsecond"),
        }
    }

    fn commit() -> Bytes {
        let mut head = Vec::new();
        let entries = entries();
        encode_header(&header(), &entries, 99, &mut head);
        let slices = gather(&head, &entries, 11);
        slices.iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    #[test]
    fn a_commit_round_trips() {
        let bytes = commit();
        assert_eq!(bytes.len() as u64, commit_bytes(3, 11));
        let peeked = peek(&bytes, BLOCK_BYTES).unwrap();
        assert_eq!((peeked.header, peeked.commit_bytes()), (header(), BLOCK_BYTES));
        assert!(header_is_intact(&peeked, &bytes, 99));
        assert!(!header_is_intact(&peeked, &bytes, 98), "another file's seed");
        assert_eq!(decode_entries(&peeked, &bytes), Some(entries()));
        let without_batches: Vec<_> = entries()
            .into_iter()
            .map(|mut entry| {
                if let Change::Append { batches, .. } = &mut entry.change {
                    batches.clear();
                }
                entry
            })
            .collect();
        assert_eq!(decode_heads(&peeked, &bytes), Some(without_batches));
    }

    #[test]
    fn layout_is_the_documented_one() {
        let bytes = commit();
        let at = |range: std::ops::Range<usize>| bytes[range].to_vec();
        assert_eq!(at(0..4), b"SLJC");
        assert_eq!(at(8..16), [220, 0, 0, 0, 3, 0, 0, 0]);
        assert_eq!((bytes[16], bytes[24], at(32..34), bytes[40], bytes[44]), (0x11, 0x22, vec![0, 0x30], 0x44, 0x55));
        assert_eq!((bytes[48], bytes[56]), (0x10, 11));
        let head = 64;
        assert_eq!(at(head..head + 16), [0xaa; 16]);
        assert_eq!((bytes[head + 16], bytes[head + 20], bytes[head + 24], bytes[head + 28]), (2, 3, 4, 1));
        assert_eq!((bytes[head + 32], bytes[head + 40], bytes[head + 48]), (10, 12, 5));
        assert_eq!((bytes[head + 52 + 28], bytes[head + 52 + 32]), (6, 6));
        assert_eq!(at(220..231), b"firstsecond");
        assert!(bytes[231..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn each_flipped_header_bit_is_noticed() {
        let bytes = commit();
        for bit in 0..220 * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let intact = peek(&flipped, BLOCK_BYTES).is_some_and(|peeked| header_is_intact(&peeked, &flipped, 99));
            assert!(!intact, "bit {bit}");
        }
    }

    #[test]
    fn promised_lengths_stay_within_the_space() {
        let mut bytes = commit().to_vec();
        assert!(peek(&bytes, BLOCK_BYTES - 1).is_none());
        bytes[56..60].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(peek(&bytes, 1 << 20).is_none());
        let mut bytes = commit().to_vec();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(peek(&bytes, 1 << 20).is_none());
        assert!(peek(&bytes[..63], 1 << 20).is_none());
    }
}
