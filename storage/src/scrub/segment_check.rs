//! Checks the bytes of one segment as they pass: block checksums, batch headers, batch CRCs, the order of offsets.
//!
//! It is fed whole blocks in order and touches no file. Damage is told as runs of bytes and the offsets that cannot be
//! served for them: reads refuse every batch that touches a block whose checksum fails, so a run has whole batches.
//! Behind damage it finds its way again at the next bytes that are a batch of this segment with an intact CRC.

use std::fmt;

use stonelog_protocol::Offset;
use stonelog_protocol::batch::header::{HeaderError, PREFIX_BYTES, crc_matches};
use stonelog_protocol::batch::{BatchHeader, HEADER_BYTES, Records, open_records};

use crate::segment::BLOCK_BYTES;

/// A batch opens to at most this when its records are looked at (what an append accepts).
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// While a batch is searched for behind damage, nothing longer counts as one: bounds what is gathered for a false hope.
const SEARCHED_BATCH_BYTES_MAX: usize = 64 << 20;

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Checksums, headers and offsets.
    Batches,
    /// Also every record, decompressed.
    Records,
}

/// What is wrong with a run of bytes. Several may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// A block's checksum does not match.
    pub block: bool,
    /// A batch's own CRC does not match.
    pub batch_crc: bool,
    /// No batch begins where one should.
    pub header: bool,
    /// A batch's offsets go back or lie outside the segment.
    pub offsets: bool,
    /// The records of a batch whose CRC matches cannot be read.
    pub records: bool,
    /// The device gave no bytes.
    pub unreadable: bool,
    /// The file ends before its checkpointed end.
    pub short: bool,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let only_block = *self == Wrong { block: true, ..Wrong::default() };
        if only_block {
            return f.write_str(
                "a block's checksum does not match, while every batch in it passes its own: a base offset, a leader \
                 epoch or the .sum file is damaged",
            );
        }
        let all = [
            (self.unreadable, "the device cannot read it"),
            (self.short, "the file ends before its checkpointed end"),
            (self.block, "a block's checksum does not match"),
            (self.header, "no batch begins where one should"),
            (self.batch_crc, "a batch's CRC does not match"),
            (self.offsets, "a batch's offsets are out of order"),
            (self.records, "a batch's records are malformed although its CRC matches"),
        ];
        let texts: Vec<&str> = all.iter().filter(|(holds, _)| *holds).map(|(_, text)| *text).collect();
        f.write_str(&texts.join("; "))
    }
}

/// A run of damaged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentDamage {
    /// Where it begins in the `.log` file.
    pub position: u64,
    /// How long it is.
    pub bytes: u64,
    /// The first offset that may lie in it.
    pub from: Offset,
    /// The first offset known to lie behind it.
    pub to: Offset,
    /// What is wrong.
    pub wrong: Wrong,
}

/// What a whole segment was found to be.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SegmentReport {
    /// In order; none when it is whole.
    pub damage: Vec<SegmentDamage>,
    /// Intact batches.
    pub batches_count: u64,
}

/// The check of one segment. See the module's comment.
#[derive(Debug)]
pub struct SegmentCheck {
    end: Offset,
    bytes: u64,
    sums: Vec<u32>,
    depth: Depth,
    /// Bytes from `at` on that were fed and are not walked yet.
    pending: Vec<u8>,
    /// Where the next batch should begin.
    at: u64,
    /// Lowest offset it may have.
    next_offset: Offset,
    /// Blocks that failed, by number, rising; only those that may still touch a batch to come.
    bad_blocks: Vec<(u64, Wrong)>,
    run: Option<SegmentDamage>,
    report: SegmentReport,
}

impl SegmentCheck {
    /// A check of the segment of `bytes` that holds offsets `base..end`. `sums` are its blocks' checksums, the last,
    /// partial block's included; where there are fewer, the blocks behind fail.
    pub fn new(base: Offset, end: Offset, bytes: u64, sums: Vec<u32>, depth: Depth) -> SegmentCheck {
        SegmentCheck {
            end,
            bytes,
            sums,
            depth,
            pending: Vec::new(),
            at: 0,
            next_offset: base,
            bad_blocks: Vec::new(),
            run: None,
            report: SegmentReport::default(),
        }
    }

    /// How many bytes it was fed: where the next ones begin.
    pub fn fed(&self) -> u64 {
        self.at + self.pending.len() as u64
    }

    /// Takes the next bytes: whole blocks, or all that are left.
    pub fn push(&mut self, bytes: &[u8]) {
        let start = self.fed();
        assert!(start.is_multiple_of(BLOCK_BYTES), "blocks are fed whole");
        for (index, block) in (start / BLOCK_BYTES..).zip(bytes.chunks(BLOCK_BYTES as usize)) {
            if self.sums.get(index as usize) != Some(&crc32c::crc32c(block)) {
                self.bad_blocks.push((index, Wrong { block: true, ..Wrong::default() }));
            }
        }
        self.pending.extend_from_slice(bytes);
        self.walk();
    }

    /// The next `len` bytes, whole blocks or all that are left, could not be had.
    pub fn push_missing(&mut self, len: u64, wrong: Wrong) {
        let start = self.fed();
        assert!(start.is_multiple_of(BLOCK_BYTES), "blocks are fed whole");
        for index in start / BLOCK_BYTES..(start + len).div_ceil(BLOCK_BYTES) {
            self.bad_blocks.push((index, wrong));
        }
        self.walk_over();
        // Whatever began before it and did not end is lost with it.
        self.lose(self.pending.len() as u64, wrong);
        self.at = start;
        self.pending.clear();
        self.lose(len, wrong);
        self.at += len;
    }

    /// Ends the check. Bytes that were never fed count as missing from the file.
    pub fn finish(mut self) -> SegmentReport {
        if self.fed() < self.bytes {
            let short = Wrong { short: true, ..Wrong::default() };
            self.lose(self.bytes - self.at, short);
        } else {
            self.walk_over();
            let rest = self.pending.len() as u64;
            if rest > 0 {
                self.lose(rest, Wrong { header: true, ..self.wrong_in(self.at, rest) });
            }
        }
        self.end_run(self.end);
        self.report
    }

    /// Walks the whole batches that were fed.
    fn walk(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let mut walked = 0;
        loop {
            let rest = &pending[walked..];
            match self.look(rest) {
                Look::Batch(header) => {
                    self.take(&rest[..header.batch_bytes], &header);
                    walked += header.batch_bytes;
                    self.at += header.batch_bytes as u64;
                }
                Look::More => break,
                Look::Nothing(wrong) => {
                    // One byte at a time, and only behind damage.
                    let skipped = self.skip(rest);
                    self.lose(skipped as u64, wrong);
                    walked += skipped;
                    self.at += skipped as u64;
                }
            }
        }
        pending.drain(..walked);
        self.pending = pending;
        let block = self.at / BLOCK_BYTES;
        self.bad_blocks.retain(|(index, _)| *index >= block);
    }

    /// As [`SegmentCheck::walk`], when no more bytes will come for what has begun.
    fn walk_over(&mut self) {
        while !self.pending.is_empty() {
            self.walk();
            if self.pending.len() < HEADER_BYTES {
                return;
            }
            // What begins here does not end: look behind it.
            let pending = std::mem::take(&mut self.pending);
            let skipped = 1 + self.skip(&pending[1..]);
            let wrong = Wrong { header: true, ..self.wrong_in(self.at, skipped as u64) };
            self.lose(skipped as u64, wrong);
            self.at += skipped as u64;
            self.pending = pending[skipped..].to_vec();
        }
    }

    /// What `rest`, the bytes at `at`, begins with.
    fn look(&self, rest: &[u8]) -> Look {
        if rest.len() < HEADER_BYTES {
            return Look::More;
        }
        let header_wrong = self.wrong_in(self.at, HEADER_BYTES as u64);
        let is_doubtful = header_wrong != Wrong::default();
        let header = match BatchHeader::read_without_records(rest) {
            Ok(header) => header,
            Err(HeaderError::Short | HeaderError::Length(_) | HeaderError::Magic(_)) => {
                return Look::Nothing(Wrong { header: true, ..header_wrong });
            }
        };
        if header.batch_bytes as u64 > self.bytes - self.at {
            return Look::Nothing(Wrong { header: true, ..header_wrong });
        }
        // A length from a damaged block, or one we only hope is a batch's, must not make us gather the whole segment.
        let is_searching = self.run.is_some() || is_doubtful;
        if is_searching && (!self.is_plausible(&header) || header.batch_bytes > SEARCHED_BATCH_BYTES_MAX) {
            return Look::Nothing(Wrong { offsets: true, ..header_wrong });
        }
        if header.batch_bytes > rest.len() {
            return Look::More;
        }
        if is_searching && !crc_matches(&rest[..header.batch_bytes]) {
            return Look::Nothing(Wrong { batch_crc: true, ..header_wrong });
        }
        Look::Batch(header)
    }

    fn is_plausible(&self, header: &BatchHeader) -> bool {
        header.base_offset >= self.next_offset
            && header.last_offset_delta >= 0
            && header.next_offset() <= self.end
            && header.next_offset() > header.base_offset
    }

    /// Bytes up to the next place that may be a batch's beginning; at least one.
    fn skip(&self, rest: &[u8]) -> usize {
        let magic_at = PREFIX_BYTES + 4;
        (1..rest.len())
            .find(|at| {
                let candidate = &rest[*at..];
                candidate.len() <= magic_at || candidate[magic_at] == stonelog_protocol::batch::header::MAGIC as u8
            })
            .unwrap_or(rest.len())
    }

    /// A whole batch.
    fn take(&mut self, batch: &[u8], header: &BatchHeader) {
        let mut wrong = self.wrong_in(self.at, batch.len() as u64);
        let is_intact = crc_matches(batch);
        wrong.batch_crc |= !is_intact;
        wrong.offsets |= !self.is_plausible(header);
        if is_intact && self.depth == Depth::Records {
            wrong.records |= !records_are_readable(batch, header);
        }
        if wrong != Wrong::default() {
            self.lose(batch.len() as u64, wrong);
            if is_intact && self.is_plausible(header) {
                self.next_offset = header.next_offset();
            }
            return;
        }
        self.end_run(header.base_offset);
        self.report.batches_count += 1;
        self.next_offset = header.next_offset();
    }

    /// What failed in the blocks that a range touches.
    fn wrong_in(&self, position: u64, len: u64) -> Wrong {
        let blocks = position / BLOCK_BYTES..(position + len).div_ceil(BLOCK_BYTES);
        let touched = self.bad_blocks.iter().filter(|(index, _)| blocks.contains(index));
        touched.fold(Wrong::default(), |all, (_, wrong)| all.and(*wrong))
    }

    /// The next `len` bytes are damaged.
    fn lose(&mut self, len: u64, wrong: Wrong) {
        if len == 0 {
            return;
        }
        let fresh = SegmentDamage {
            position: self.at,
            bytes: 0,
            from: self.next_offset,
            to: self.next_offset,
            wrong: Wrong::default(),
        };
        let run = self.run.get_or_insert(fresh);
        run.bytes += len;
        run.wrong = run.wrong.and(wrong);
    }

    fn end_run(&mut self, to: Offset) {
        if let Some(run) = self.run.take() {
            self.report.damage.push(SegmentDamage { to, ..run });
        }
    }
}

enum Look {
    /// A whole batch.
    Batch(BatchHeader),
    /// Perhaps a batch, once more bytes have come.
    More,
    /// No batch begins here.
    Nothing(Wrong),
}

impl Wrong {
    /// One bit for each, for the scrub's file.
    pub(super) fn bits(self) -> u8 {
        let flags = [self.block, self.batch_crc, self.header, self.offsets, self.records, self.unreadable, self.short];
        flags.iter().enumerate().fold(0, |bits, (at, flag)| bits | u8::from(*flag) << at)
    }

    pub(super) fn from_bits(bits: u8) -> Wrong {
        let flag = |at: u8| bits & (1 << at) != 0;
        Wrong {
            block: flag(0),
            batch_crc: flag(1),
            header: flag(2),
            offsets: flag(3),
            records: flag(4),
            unreadable: flag(5),
            short: flag(6),
        }
    }

    fn and(self, other: Wrong) -> Wrong {
        Wrong {
            block: self.block || other.block,
            batch_crc: self.batch_crc || other.batch_crc,
            header: self.header || other.header,
            offsets: self.offsets || other.offsets,
            records: self.records || other.records,
            unreadable: self.unreadable || other.unreadable,
            short: self.short || other.short,
        }
    }
}

fn records_are_readable(batch: &[u8], header: &BatchHeader) -> bool {
    open_records(batch, header, RECORDS_BYTES_MAX)
        .is_ok_and(|bytes| Records::new(&bytes, header.records_count).all(|record| record.is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::Batch;

    /// Batches of three records each, 40 KiB long, so that blocks and batches overlap; the last one is short.
    fn segment() -> Vec<u8> {
        let batch = |at: i64| Batch { filler_bytes: if at == 36 { 500 } else { 40_000 }, ..Batch::at(at, 3) }.bytes();
        (0..13).flat_map(|n| batch(n * 3)).collect()
    }

    const BATCH: u64 = 40_061;

    fn sums(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect()
    }

    fn check(bytes: &[u8], sums: Vec<u32>, step: usize) -> SegmentReport {
        let mut check = SegmentCheck::new(Offset(0), Offset(39), segment().len() as u64, sums, Depth::Batches);
        bytes.chunks(step).for_each(|piece| check.push(piece));
        check.finish()
    }

    #[test]
    fn a_whole_segment_is_whole_however_it_comes() {
        let bytes = segment();
        for step in [BLOCK_BYTES as usize, 3 * BLOCK_BYTES as usize, 1 << 30] {
            let report = check(&bytes, sums(&bytes), step);
            assert_eq!(report, SegmentReport { damage: Vec::new(), batches_count: 13 });
        }
    }

    #[test]
    fn each_flipped_bit_is_found_and_hurts_the_batches_of_its_block_only() {
        let bytes = segment();
        // In every field of a header that lies in the middle of a block, and among records.
        let batch = 4 * BATCH;
        for at in (0..HEADER_BYTES as u64).chain([1_000, 30_000]) {
            let mut damaged = bytes.clone();
            damaged[(batch + at) as usize] ^= 4;
            let report = check(&damaged, sums(&bytes), BLOCK_BYTES as usize);
            let block = (batch + at) / BLOCK_BYTES;
            let first = block * BLOCK_BYTES / BATCH;
            let last = ((block + 1) * BLOCK_BYTES - 1) / BATCH;
            let [damage] = report.damage[..] else { panic!("byte {at}: {report:?}") };
            assert!(damage.wrong.block, "byte {at}");
            assert_eq!((damage.position, damage.bytes), (first * BATCH, (last + 1 - first) * BATCH), "byte {at}");
            assert_eq!((damage.from, damage.to), (Offset(first as i64 * 3), Offset(last as i64 * 3 + 3)), "byte {at}");
            assert_eq!(report.batches_count, 13 - (last + 1 - first));
        }
    }

    #[test]
    fn without_block_checksums_a_batch_that_fails_its_own_hurts_nobody_else() {
        let bytes = segment();
        for at in [8, 16, 17, 30, 5_000] {
            let mut damaged = bytes.clone();
            damaged[(2 * BATCH + at) as usize] ^= 1;
            let report = check(&damaged, sums(&damaged), BLOCK_BYTES as usize);
            let [damage] = report.damage[..] else { panic!("byte {at}: {report:?}") };
            assert_eq!((damage.position, damage.bytes), (2 * BATCH, BATCH), "byte {at}");
            assert_eq!((damage.from, damage.to), (Offset(6), Offset(9)));
            assert!(damage.wrong.batch_crc || damage.wrong.header, "byte {at}: {:?}", damage.wrong);
        }
    }

    #[test]
    fn a_block_that_cannot_be_read_hurts_what_touches_it() {
        let bytes = segment();
        let mut check = SegmentCheck::new(Offset(0), Offset(39), bytes.len() as u64, sums(&bytes), Depth::Batches);
        for (index, block) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
            match index {
                2 => check.push_missing(block.len() as u64, Wrong { unreadable: true, ..Wrong::default() }),
                _ => check.push(block),
            }
        }
        let report = check.finish();
        let [damage] = report.damage[..] else { panic!("{report:?}") };
        // Bytes 131072..196608 lie in the batches 3 and 4; batch 3 begins at 120183, batch 5 at 200305.
        assert_eq!((damage.position, damage.bytes), (3 * BATCH, 2 * BATCH));
        assert_eq!((damage.from, damage.to), (Offset(9), Offset(15)));
        assert!(damage.wrong.unreadable);
    }

    #[test]
    fn a_file_that_ends_early_says_from_where_on() {
        let bytes = segment();
        let kept = 2 * BLOCK_BYTES as usize;
        let report = check(&bytes[..kept], sums(&bytes), BLOCK_BYTES as usize);
        let [damage] = report.damage[..] else { panic!("{report:?}") };
        assert_eq!((damage.position, damage.from, damage.to), (3 * BATCH, Offset(9), Offset(39)));
        assert!(damage.wrong.short);
    }

    #[test]
    fn offsets_that_go_back_are_damage_although_every_checksum_matches() {
        let mut bytes = segment();
        let at = (5 * BATCH) as usize;
        bytes[at..at + 8].copy_from_slice(&3_i64.to_be_bytes());
        let report = check(&bytes, sums(&bytes), BLOCK_BYTES as usize);
        let [damage] = report.damage[..] else { panic!("{report:?}") };
        assert_eq!((damage.position, damage.bytes, damage.wrong.offsets), (5 * BATCH, BATCH, true));
    }

    #[test]
    fn records_that_cannot_be_read_are_found_when_one_looks_for_them() {
        // The filler of these batches is no records.
        let bytes = segment();
        let mut check = SegmentCheck::new(Offset(0), Offset(39), bytes.len() as u64, sums(&bytes), Depth::Records);
        check.push(&bytes);
        let report = check.finish();
        assert!(report.damage[0].wrong.records && report.batches_count == 0);
    }
}
