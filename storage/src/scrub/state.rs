//! What the background scrub of a directory knows: how far its round is, what it found, and how fast it may read.
//!
//! A decider with a small file of its own, `.stonelog_scrub`, from which a scrub goes on after a restart and from which
//! `stonelog storage scrub-status` tells how it stands. One copy: what is lost with it is read once more.
//! Not here: reading segments, and waiting.

use std::path::Path;
use std::time::Duration;

use stonelog_protocol::{Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};

use super::scan::SegmentTarget;
use super::segment_check::{SegmentDamage, SegmentReport, Wrong};
use crate::Fault;
use crate::disk::Disk;
use crate::fields::{FieldReader, Short};
use crate::segment::SegmentId;
use crate::small_file::{Envelope, EnvelopeKind, read_small_file, write_small_file};

/// The file's name in the log directory.
pub const SCRUB_NAME: &str = ".stonelog_scrub";

/// Its envelope.
pub(super) const SCRUB_KIND: EnvelopeKind = EnvelopeKind { magic: *b"SLSCRUB\0", format: 1, what: "scrub state" };

/// Places of damage remembered; more are counted and logged, and found again by the next round.
pub const DAMAGE_KEPT_MAX: usize = 1_000;

const DAMAGE_BYTES: usize = 72;
const FLAG_ROUND: u8 = 1;
const FLAG_AFTER: u8 = 2;
const FLAG_LAST: u8 = 4;

/// A round that is being done: every sealed segment is read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// From 1.
    pub number: u64,
    /// When it began.
    pub started: Timestamp,
    /// Bytes of segments done in it.
    pub bytes_done: u64,
    /// Bytes of segments there were when it was looked at last.
    pub bytes_total: u64,
    /// Segments done in it.
    pub segments_done: u64,
    /// The last one done; `None` at the beginning.
    pub after: Option<SegmentId>,
}

/// A round that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeRound {
    /// From 1.
    pub number: u64,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Bytes of segments read in it.
    pub bytes: u64,
    /// Segments read in it.
    pub segments: u64,
}

/// Damage that is there as far as the scrub knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDamage {
    /// In which segment.
    pub segment: SegmentId,
    /// Where, and what.
    pub damage: SegmentDamage,
    /// When it was found first.
    pub found: Timestamp,
}

/// See the module's comment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubState {
    /// When it was written down last.
    pub written: Timestamp,
    /// Bytes read since the directory was made.
    pub bytes_read: u64,
    /// Segments read whole since then.
    pub segments_read: u64,
    /// Places of damage found since then.
    pub damage_found: u64,
    /// The round being done; `None` between two.
    pub round: Option<Round>,
    /// The last round that was done.
    pub last: Option<WholeRound>,
    /// Damage in segments that are still there; at most [`DAMAGE_KEPT_MAX`].
    pub damage: Vec<KnownDamage>,
}

impl ScrubState {
    /// Goes on with the round, or begins the next one, over these segments.
    pub fn begin(&mut self, now: Timestamp, targets: &[SegmentTarget]) {
        let number = self.last.map_or(0, |last| last.number) + 1;
        let fresh = Round { number, started: now, bytes_done: 0, bytes_total: 0, segments_done: 0, after: None };
        let round = self.round.get_or_insert(fresh);
        let left: u64 = targets.iter().filter(|target| Some(target.id) > round.after).map(|target| target.bytes).sum();
        round.bytes_total = round.bytes_done + left;
    }

    /// The next segment to read; `targets` are in order. `None` when the round has seen all.
    pub fn next(&self, targets: &[SegmentTarget]) -> Option<SegmentTarget> {
        let after = self.round.as_ref().and_then(|round| round.after);
        targets.get(targets.partition_point(|target| Some(target.id) <= after)).copied()
    }

    /// Counts bytes as they are read.
    pub fn on_read(&mut self, bytes: u64) {
        self.bytes_read += bytes;
    }

    /// A segment was read whole. Returns the damage that was not known before.
    pub fn on_segment(&mut self, now: Timestamp, target: SegmentTarget, report: &SegmentReport) -> Vec<KnownDamage> {
        self.segments_read += 1;
        self.pass(target);
        let (known, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.damage).into_iter().partition(|known| known.segment == target.id);
        self.damage = others;
        let mut fresh = Vec::new();
        for damage in &report.damage {
            let before = known.iter().find(|known| known.damage == *damage);
            let found = before.map_or(now, |known| known.found);
            let damage = KnownDamage { segment: target.id, damage: *damage, found };
            if before.is_none() {
                self.damage_found += 1;
                fresh.push(damage);
            }
            if self.damage.len() < DAMAGE_KEPT_MAX {
                self.damage.push(damage);
            }
        }
        fresh
    }

    /// A segment was gone or had changed before it was read: it is passed over until the next round.
    pub fn pass(&mut self, target: SegmentTarget) {
        if let Some(round) = &mut self.round {
            round.after = round.after.max(Some(target.id));
            round.bytes_done += target.bytes;
            round.segments_done += 1;
        }
    }

    /// Every segment was seen; damage in segments that are no more is forgotten. `targets` are in order.
    pub fn end_round(&mut self, now: Timestamp, targets: &[SegmentTarget]) {
        let Some(round) = self.round.take() else { return };
        self.last = Some(WholeRound {
            number: round.number,
            started: round.started,
            ended: now,
            bytes: round.bytes_done,
            segments: round.segments_done,
        });
        self.damage.retain(|known| targets.binary_search_by_key(&known.segment, |target| target.id).is_ok());
    }

    /// What the last process left; the beginning, when there is nothing or it is damaged.
    pub fn read(disk: &dyn Disk, directory: &Path) -> Result<ScrubState, Fault> {
        Ok(ScrubState::read_if_whole(disk, directory)?.unwrap_or_default())
    }

    /// What was written down last; `None` when there is nothing, or it is damaged.
    pub fn read_if_whole(disk: &dyn Disk, directory: &Path) -> Result<Option<ScrubState>, Fault> {
        let Some(bytes) = read_small_file(disk, &directory.join(SCRUB_NAME))? else { return Ok(None) };
        Ok(ScrubState::decode_file(&bytes).ok())
    }

    /// Reads the whole file; what is wrong with it otherwise.
    pub fn decode_file(bytes: &[u8]) -> Result<ScrubState, String> {
        let (_, payload) = Envelope::open(&SCRUB_KIND, bytes).map_err(|error| error.to_string())?;
        ScrubState::decode(payload).ok_or_else(|| "its contents make no sense".to_owned())
    }

    /// Writes it down (rule 17).
    pub fn write(&mut self, disk: &dyn Disk, directory: &Path, now: Timestamp) -> Result<(), Fault> {
        self.written = now;
        write_small_file(disk, directory, SCRUB_NAME, &Envelope::seal(&SCRUB_KIND, 1, &self.encode()))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160 + self.damage.len() * DAMAGE_BYTES);
        let after = self.round.and_then(|round| round.after);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.round.is_some(), FLAG_ROUND)
            | flag(after.is_some(), FLAG_AFTER)
            | flag(self.last.is_some(), FLAG_LAST);
        out.extend_from_slice(&self.written.0.to_le_bytes());
        for count in [self.bytes_read, self.segments_read, self.damage_found] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&[flags, 0, 0, 0, 0, 0, 0, 0]);
        let round = self.round.unwrap_or(Round {
            number: 0,
            started: Timestamp(0),
            bytes_done: 0,
            bytes_total: 0,
            segments_done: 0,
            after: None,
        });
        out.extend_from_slice(&round.number.to_le_bytes());
        out.extend_from_slice(&round.started.0.to_le_bytes());
        for count in [round.bytes_done, round.bytes_total, round.segments_done] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        match after {
            Some(after) => encode_segment(after, &mut out),
            None => out.extend_from_slice(&[0; 32]),
        }
        let nothing = WholeRound { number: 0, started: Timestamp(0), ended: Timestamp(0), bytes: 0, segments: 0 };
        let last = self.last.unwrap_or(nothing);
        out.extend_from_slice(&last.number.to_le_bytes());
        out.extend_from_slice(&last.started.0.to_le_bytes());
        out.extend_from_slice(&last.ended.0.to_le_bytes());
        out.extend_from_slice(&last.bytes.to_le_bytes());
        out.extend_from_slice(&last.segments.to_le_bytes());
        let count = u32::try_from(self.damage.len()).expect("at most as many as are kept");
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for known in &self.damage {
            encode_segment(known.segment, &mut out);
            out.extend_from_slice(&known.damage.position.to_le_bytes());
            out.extend_from_slice(&known.damage.bytes.to_le_bytes());
            out.extend_from_slice(&known.damage.from.0.to_le_bytes());
            out.extend_from_slice(&known.damage.to.0.to_le_bytes());
            // A time in ms fits seven bytes until the year 1143000.
            let wrong_and_found = u64::from(known.damage.wrong.bits()) << 56 | known.found.0.max(0) as u64;
            out.extend_from_slice(&wrong_and_found.to_le_bytes());
        }
        out
    }

    /// Reads what was encoded; `None` when it makes no sense.
    pub(super) fn decode(payload: &[u8]) -> Option<ScrubState> {
        let mut reader = FieldReader::new(payload);
        let state = decode(&mut reader).ok()??;
        (reader.remaining() == 0).then_some(state)
    }
}

fn encode_segment(segment: SegmentId, out: &mut Vec<u8>) {
    out.extend_from_slice(&segment.partition.topic_id.0);
    out.extend_from_slice(&segment.partition.partition.0.to_le_bytes());
    out.extend_from_slice(&segment.version.to_le_bytes());
    out.extend_from_slice(&segment.base.0.to_le_bytes());
}

fn decode_segment(reader: &mut FieldReader<'_>) -> Result<SegmentId, Short> {
    let topic_id = Uuid(reader.array()?);
    let partition = PartitionIndex(reader.i32()?);
    let version = reader.u32()?;
    let base = Offset(reader.i64()?);
    Ok(SegmentId { partition: TopicPartition { topic_id, partition }, base, version })
}

fn decode(reader: &mut FieldReader<'_>) -> Result<Option<ScrubState>, Short> {
    let written = Timestamp(reader.i64()?);
    let (bytes_read, segments_read, damage_found) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let [flags, ..] = reader.array::<8>()?;
    if flags & !(FLAG_ROUND | FLAG_AFTER | FLAG_LAST) != 0 {
        return Ok(None);
    }
    let mut round = Round {
        number: reader.u64()?,
        started: Timestamp(reader.i64()?),
        bytes_done: reader.u64()?,
        bytes_total: reader.u64()?,
        segments_done: reader.u64()?,
        after: None,
    };
    round.after = Some(decode_segment(reader)?).filter(|_| flags & FLAG_AFTER != 0);
    let last = WholeRound {
        number: reader.u64()?,
        started: Timestamp(reader.i64()?),
        ended: Timestamp(reader.i64()?),
        bytes: reader.u64()?,
        segments: reader.u64()?,
    };
    let count = reader.u32()? as usize;
    reader.u32()?;
    if count > DAMAGE_KEPT_MAX || reader.remaining() != count * DAMAGE_BYTES {
        return Ok(None);
    }
    let mut damage = Vec::with_capacity(count);
    for _ in 0..count {
        let segment = decode_segment(reader)?;
        let (position, bytes) = (reader.u64()?, reader.u64()?);
        let (from, to) = (Offset(reader.i64()?), Offset(reader.i64()?));
        let wrong_and_found = reader.u64()?;
        let wrong = Wrong::from_bits((wrong_and_found >> 56) as u8);
        let found = Timestamp((wrong_and_found & ((1 << 56) - 1)) as i64);
        damage.push(KnownDamage { segment, damage: SegmentDamage { position, bytes, from, to, wrong }, found });
    }
    Ok(Some(ScrubState {
        written,
        bytes_read,
        segments_read,
        damage_found,
        round: Some(round).filter(|_| flags & FLAG_ROUND != 0),
        last: Some(last).filter(|_| flags & FLAG_LAST != 0),
        damage,
    }))
}

/// How fast a scrub may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubPace {
    /// Everything is read once in this time, if the rate below allows.
    pub interval: Duration,
    /// Never faster than this.
    pub bytes_per_second_max: u64,
}

impl ScrubPace {
    /// So slow that no device notices; a smaller directory is simply done earlier.
    const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
    /// The part of the interval that reading is planned for, in tenths: the rest is for restarts and slow disks.
    const BUSY_TENTHS: u64 = 8;

    /// Bytes per second for a round over this many bytes.
    pub fn rate(&self, bytes_total: u64) -> u64 {
        let busy_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX) / 10 * Self::BUSY_TENTHS;
        let wanted = u128::from(bytes_total) * 1_000 / u128::from(busy_ms.max(1));
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        wanted.max(Self::BYTES_PER_SECOND_MIN).min(self.bytes_per_second_max.max(1))
    }

    /// How long to rest after having read `bytes`.
    pub fn rest(&self, bytes: u64, bytes_total: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate(bytes_total) as f64)
    }

    /// How long until the next round, after the last one; nothing while one is being done.
    pub fn until_next_round(&self, now: Timestamp, state: &ScrubState) -> Duration {
        let Some(last) = state.last.filter(|_| state.round.is_none()) else { return Duration::ZERO };
        let passed = Duration::from_millis(u64::try_from(now - last.started).unwrap_or(0));
        self.interval.saturating_sub(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    fn target(partition: i32, base: i64) -> SegmentTarget {
        let partition = TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(partition) };
        SegmentTarget {
            id: SegmentId { partition, base: Offset(base), version: 0 },
            end: Offset(base + 10),
            bytes: 1_000,
            last_block: None,
        }
    }

    fn damage(position: u64) -> SegmentDamage {
        let wrong = Wrong { block: true, unreadable: true, ..Wrong::default() };
        SegmentDamage { position, bytes: 64, from: Offset(3), to: Offset(5), wrong }
    }

    fn report(positions: &[u64]) -> SegmentReport {
        SegmentReport { damage: positions.iter().map(|at| damage(*at)).collect(), batches_count: 1 }
    }

    #[test]
    fn a_round_reads_each_segment_once_and_goes_on_after_a_restart() {
        let targets = [target(0, 0), target(0, 10), target(1, 5)];
        let disk = SimDisk::new();
        let mut state = ScrubState::default();
        let mut read = Vec::new();
        state.begin(Timestamp(1_000), &targets);
        while let Some(next) = state.next(&targets) {
            read.push(next.id);
            assert_eq!(state.on_segment(Timestamp(1_001), next, &report(&[])), []);
            state.write(&disk, Path::new("/"), Timestamp(1_002)).unwrap();
            state = ScrubState::read(&disk, Path::new("/")).unwrap();
            state.begin(Timestamp(1_003), &targets);
        }
        assert_eq!(read, targets.map(|target| target.id));
        state.end_round(Timestamp(2_000), &targets);
        let whole =
            WholeRound { number: 1, started: Timestamp(1_000), ended: Timestamp(2_000), bytes: 3_000, segments: 3 };
        assert_eq!((state.last, state.round), (Some(whole), None));
        state.begin(Timestamp(3_000), &targets);
        assert_eq!(state.next(&targets).map(|next| next.id), Some(targets[0].id));
    }

    #[test]
    fn a_segment_that_is_new_behind_the_cursor_waits_for_the_next_round() {
        let mut state = ScrubState::default();
        let targets = [target(0, 10), target(1, 0)];
        state.begin(Timestamp(0), &targets);
        state.on_segment(Timestamp(0), targets[0], &report(&[]));
        let later = [target(0, 0), targets[0], targets[1]];
        state.begin(Timestamp(0), &later);
        assert_eq!(state.next(&later), Some(targets[1]));
        assert_eq!(state.round.map(|round| (round.bytes_done, round.bytes_total)), Some((1_000, 2_000)));
    }

    #[test]
    fn damage_is_new_once_and_forgotten_with_its_segment_or_when_it_reads_well_again() {
        let targets = [target(0, 0), target(0, 10)];
        let mut state = ScrubState::default();
        for round in 0..2 {
            state.begin(Timestamp(round), &targets);
            let fresh = state.on_segment(Timestamp(round), targets[0], &report(&[100, 900]));
            assert_eq!(fresh.len(), if round == 0 { 2 } else { 0 });
            state.on_segment(Timestamp(round), targets[1], &report(&[5]));
            state.end_round(Timestamp(round), &targets);
        }
        assert_eq!(state.damage.iter().map(|known| known.found).collect::<Vec<_>>(), [Timestamp(0); 3]);
        state.begin(Timestamp(5), &targets);
        assert_eq!(state.on_segment(Timestamp(5), targets[0], &report(&[])), []);
        state.end_round(Timestamp(6), &targets[..1]);
        assert_eq!((state.damage.len(), state.damage_found), (0, 3));
    }

    #[test]
    fn each_flipped_bit_of_the_file_makes_the_scrub_begin_anew() {
        let disk = SimDisk::new();
        let mut state = ScrubState::default();
        state.begin(Timestamp(1), &[target(0, 0), target(0, 10)]);
        state.on_segment(Timestamp(2), target(0, 0), &report(&[100]));
        state.write(&disk, Path::new("/"), Timestamp(3)).unwrap();
        assert_eq!(ScrubState::read(&disk, Path::new("/")).unwrap(), state);
        let path = Path::new("/").join(SCRUB_NAME);
        for byte in (0..disk.contents(&path).len() as u64).filter(|byte| !(36..40).contains(byte)) {
            disk.flip_bit(&path, byte, 3);
            assert_eq!(ScrubState::read(&disk, Path::new("/")).unwrap(), ScrubState::default(), "byte {byte}");
            disk.flip_bit(&path, byte, 3);
        }
    }

    #[test]
    fn the_pace_keeps_the_interval_between_its_bounds() {
        let week = Duration::from_secs(7 * 86_400);
        let pace = ScrubPace { interval: week, bytes_per_second_max: 32 << 20 };
        assert_eq!(pace.rate(0), 1 << 20);
        assert_eq!(pace.rate(u64::MAX), 32 << 20);
        let terabytes = 8 << 40;
        assert_eq!(pace.rate(terabytes), terabytes * 1_000 / (86_400_000 * 7 / 10 * 8));
        assert_eq!(pace.rest(1 << 20, 0), Duration::from_secs(1));
        let mut state = ScrubState::default();
        assert_eq!(pace.until_next_round(Timestamp(5), &state), Duration::ZERO);
        state.begin(Timestamp(1_000), &[]);
        state.end_round(Timestamp(2_000), &[]);
        assert_eq!(pace.until_next_round(Timestamp(61_000), &state), week - Duration::from_secs(60));
    }
}
