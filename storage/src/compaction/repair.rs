//! Writing a damaged segment anew, whole: what of it is good, and what a replica sent for what is not (rule 9).
//!
//! Like a compacted segment it has a name of its own and is durable before the log names it; the next checkpoint swaps
//! one for the other. Only then the damaged file goes, so that a crash leaves either the segment with its holes or the
//! whole one. Nothing is believed because of who sent it: batches have their CRC, lie in the holes and nowhere else, and
//! carry the leader epochs that the log knows for their offsets ([`crate::log::Log::begin_repair`]).

use std::io;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::header::crc_matches;
use stonelog_protocol::{LeaderEpoch, Offset, TopicPartition};

use super::WINDOW_BYTES;
use super::output::Output;
use super::scan::checked;
use crate::holes::HoleBytes;
use crate::job::FileAccess;
use crate::segment::delete::DeleteJob;
use crate::segment::sync::sync_names;
use crate::segment::verified::VerifiedSegment;
use crate::segment::walk::Batches;
use crate::segment::{Segment, SegmentName, directory_of};
use crate::{Fault, ReplicaKey};

/// What a segment lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairPlan {
    /// Which.
    pub segment: SegmentName,
    /// There is none yet that has the place of these offsets.
    pub is_new: bool,
    /// The damaged offsets in it, rising.
    pub ranges: Vec<(Offset, Offset)>,
    /// Bytes of the file that are damaged, which what is fetched should not exceed by much.
    pub damaged_bytes: u64,
}

/// Why what was fetched does not mend a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairReject {
    /// The log is not what it was when the repair was planned, or busy with a compaction: plan again.
    Changed,
    /// What was fetched is no run of whole batches within the holes, with the epochs that the log knows.
    Unfit {
        /// Where a batch begins that does not fit.
        at: Offset,
    },
}

/// Writes one segment anew. Made by [`crate::log::Log::begin_repair`].
#[derive(Debug)]
pub struct RepairJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) segment: Segment,
    pub(crate) is_new: bool,
    /// Whether its last, partial block's checksum is in its file.
    pub(crate) closed: bool,
    pub(crate) skip: Vec<HoleBytes>,
    /// What is damaged of it, rising.
    pub(crate) known: Vec<(Offset, Offset)>,
    /// Rising. What is good of the segment there gives way to what was fetched.
    pub(crate) ranges: Vec<(Offset, Offset)>,
    /// A batch without records, should nothing else be left: a segment has at least one.
    pub(crate) filler: Bytes,
    /// Whole batches, each piece within one range, rising.
    pub(crate) fetched: Vec<Bytes>,
    pub(crate) index_interval_bytes: u32,
}

/// A whole segment, durable, for [`crate::log::Log::on_repaired`].
#[derive(Clone, Debug)]
pub struct Repaired {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) source: SegmentName,
    pub(crate) is_new: bool,
    pub(crate) skip: Vec<HoleBytes>,
    pub(crate) known: Vec<(Offset, Offset)>,
    pub(crate) ranges: Vec<(Offset, Offset)>,
    pub(crate) fetched: Vec<Bytes>,
    pub(crate) segment: Segment,
}

impl Repaired {
    /// Removes what was written, when the log has no use for it.
    pub fn leftover(&self) -> DeleteJob {
        DeleteJob { partition: self.replica.partition, segments: vec![self.segment.name()] }
    }
}

impl RepairJob {
    /// Writes it. [`Fault::Damage`]: more of the segment is damaged than was known.
    pub fn run(self, access: &FileAccess) -> Result<Repaired, Fault> {
        let old = self.segment;
        let version = if self.is_new { old.version } else { old.version + 1 };
        let empty = Segment { version, end: old.end, ..Segment::empty(old.base, old.created) };
        let id = old.id(self.replica.partition);
        if self.is_new {
            make_directory(access, id.partition)?;
        }
        let mut output = Output::create(access, id.partition, empty, self.index_interval_bytes)?;
        match self.copy(access, &mut output) {
            Ok(()) => {
                let segment = output.finish()?;
                let RepairJob { replica, is_new, skip, known, ranges, fetched, .. } = self;
                Ok(Repaired { replica, source: old.name(), is_new, skip, known, ranges, fetched, segment })
            }
            Err(fault) => {
                // What is left of it nobody names.
                let _ = output.abandon();
                Err(fault)
            }
        }
    }

    fn copy(&self, access: &FileAccess, output: &mut Output<'_>) -> Result<(), Fault> {
        let mut fetched = self.fetched.iter().flat_map(|piece| {
            Batches::of(piece).map(|(at, header)| (header, piece.slice(at..at + header.batch_bytes)))
        });
        let mut next = fetched.next();
        let id = self.segment.id(self.replica.partition);
        let is_fetched = |offset: Offset| {
            let at = self.ranges.partition_point(|(_, end)| *end <= offset);
            self.ranges.get(at).is_some_and(|(start, _)| *start <= offset)
        };
        let file = match self.is_new {
            true => None,
            false => VerifiedSegment::open(access, id, self.segment, self.closed, &self.skip)?,
        };
        // Without the file there is nothing good in it, and all of it is fetched.
        if let Some(file) = file {
            file.for_each_window(0, WINDOW_BYTES, |position, window| {
                for (at, header) in Batches::of(&window) {
                    let batch = checked(&file, &window, position, at, &header)?;
                    while let Some((lacking, bytes)) =
                        next.take_if(|(lacking, _)| lacking.base_offset < header.base_offset)
                    {
                        output.push(&lacking, &bytes)?;
                        next = fetched.next();
                    }
                    if !is_fetched(header.base_offset) {
                        output.push(&header, batch)?;
                    }
                }
                Ok(true)
            })?;
        }
        while let Some((lacking, bytes)) = next {
            output.push(&lacking, &bytes)?;
            next = fetched.next();
        }
        // Where compaction has left nothing of it at the leader.
        for (_, header) in Batches::of(&self.filler).filter(|_| output.is_empty()).collect::<Vec<_>>() {
            output.push(&header, &self.filler)?;
        }
        Ok(())
    }
}

/// A log of which no batch came to a segment has no directory.
fn make_directory(access: &FileAccess, partition: TopicPartition) -> Result<(), Fault> {
    let directory = directory_of(partition);
    match access.disk().create_dir(&access.path(&directory)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(access.fault("mkdir", &directory, None, source)),
        Ok(()) => sync_names(access),
    }
}

/// What may be so of batches that were fetched for a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchedRules {
    /// The first may begin below the range: the log begins within it.
    pub(crate) may_begin_below: bool,
    /// Offsets may lack a record. Where nothing was ever compacted a gap is what got lost on the way.
    pub(crate) may_have_gaps: bool,
}

/// Whether batches lie one after the other within a range, and fill it where they have to.
pub(crate) fn check_fetched(
    batches: &[Bytes],
    (start, end): (Offset, Offset),
    rules: FetchedRules,
    mut is_known: impl FnMut(Offset, LeaderEpoch) -> bool,
) -> Result<(), RepairReject> {
    let may_have_gaps = rules.may_have_gaps;
    #[cfg(feature = "mutants")]
    let may_have_gaps = may_have_gaps || crate::mutants::Guard::RepairGapless.is_off();
    let mut at = start;
    for piece in batches {
        let mut position = 0;
        while position < piece.len() {
            let unfit = RepairReject::Unfit { at };
            let header = BatchHeader::read(&piece[position..]).map_err(|_| unfit)?;
            let batch = piece.get(position..position + header.batch_bytes).ok_or(unfit)?;
            let begins = match header.base_offset {
                base if base < at => rules.may_begin_below && at == start && header.next_offset() > start,
                base => base == at || may_have_gaps,
            };
            let is_known = is_known(header.base_offset.max(start), header.leader_epoch);
            if !begins || header.next_offset() > end || !is_known || !crc_matches(batch) {
                return Err(unfit);
            }
            at = header.next_offset();
            position += header.batch_bytes;
        }
    }
    if at < end && !may_have_gaps {
        return Err(RepairReject::Unfit { at });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::test_batches::Batch;

    const RANGE: (Offset, Offset) = (Offset(10), Offset(14));

    /// Batches of two records at these offsets, in epoch 3.
    fn fetched(bases: &[i64]) -> Vec<Bytes> {
        let batch = |base: &i64| Batch { leader_epoch: 3, ..Batch::at(*base, 2) }.bytes().freeze();
        bases.iter().map(batch).collect()
    }

    fn check(batches: &[Bytes], may_begin_below: bool) -> Result<(), RepairReject> {
        let rules = FetchedRules { may_begin_below, may_have_gaps: true };
        check_fetched(batches, RANGE, rules, |_, epoch| epoch == LeaderEpoch(3))
    }

    #[test]
    fn only_whole_batches_of_the_known_epochs_within_the_hole_are_taken() {
        let unfit = |at: i64| Err(RepairReject::Unfit { at: Offset(at) });
        assert_eq!(check(&fetched(&[10, 12]), false), Ok(()));
        assert_eq!(check(&fetched(&[12]), false), Ok(()), "compaction leaves gaps");
        assert_eq!(check(&[], false), Ok(()));
        assert_eq!(check(&fetched(&[10, 13]), false), unfit(12), "beyond the hole");
        assert_eq!(check(&fetched(&[12, 10]), false), unfit(14), "not in order");
        assert_eq!(check(&fetched(&[9, 11]), false), unfit(10), "it begins before the hole");
        assert_eq!(check(&fetched(&[9, 11]), true), Ok(()), "and so does the log");
        let rules = FetchedRules { may_begin_below: false, may_have_gaps: true };
        let other_epoch = check_fetched(&fetched(&[10]), RANGE, rules, |_, epoch| epoch == LeaderEpoch(2));
        assert_eq!(other_epoch, unfit(10));
        let mut flipped = fetched(&[10])[0].to_vec();
        *flipped.last_mut().expect("not empty") ^= 1;
        assert_eq!(check(&[flipped.into()], false), unfit(10));
    }

    #[test]
    fn where_nothing_was_ever_compacted_no_offset_of_a_hole_is_left_out() {
        let check = |bases: &[i64], may_begin_below| {
            let rules = FetchedRules { may_begin_below, may_have_gaps: false };
            check_fetched(&fetched(bases), RANGE, rules, |_, epoch| epoch == LeaderEpoch(3))
        };
        let unfit = |at: i64| Err(RepairReject::Unfit { at: Offset(at) });
        assert_eq!(check(&[10, 12], false), Ok(()));
        assert_eq!(check(&[9, 11], true), unfit(13), "its end");
        assert_eq!(check(&[12], false), unfit(10), "its beginning");
        assert_eq!(check(&[10], false), unfit(12), "its end");
        assert_eq!(check(&[], false), unfit(10), "all of it");
    }
}
