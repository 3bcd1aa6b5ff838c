//! Finding the state at an offset inside the segments, for a truncation that cuts into them.
//!
//! Reads every batch header from the log's start to the cut. That is rare: only a follower whose leader proves a
//! divergence below what it has flushed needs it, and recovery of a truncation that no checkpoint covered.

use stonelog_protocol::{Offset, Timestamp};

use super::verified::VerifiedSegment;
use super::walk::Batches;
use super::{BLOCK_BYTES, Segment};
use crate::holes::HoleBytes;
use crate::job::FileAccess;
use crate::log::Producers;
use crate::{Fault, ReplicaKey};

/// How much is read at once.
const SCAN_BYTES: u64 = 1 << 20;

/// Finds the state at `end`. Planned by [`crate::log::Log::truncate_to`].
#[derive(Clone, Debug)]
pub struct RebuildJob {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    pub(crate) end: Offset,
    pub(crate) log_start: Offset,
    /// The segments with anything from the log start on, each with whether it is closed and what is damaged in it.
    pub(crate) segments: Vec<(Segment, bool, Vec<HoleBytes>)>,
    /// When producers count as last seen.
    pub(crate) seen: Timestamp,
}

/// The state at the cut, for [`crate::log::Log::truncate_into_segments`].
#[derive(Debug)]
pub struct Rebuilt {
    /// Whose, in which generation.
    pub replica: ReplicaKey,
    /// Where the last batch kept ends.
    pub(crate) end: Offset,
    /// Where the cut was to be.
    pub(crate) wanted: Offset,
    pub(crate) segments: Vec<Segment>,
    pub(crate) producers: Producers,
}

impl RebuildJob {
    /// Reads the segments up to the cut.
    pub fn run(self, access: &FileAccess) -> Result<Rebuilt, Fault> {
        let mut rebuilt = Rebuilt {
            replica: self.replica,
            end: self.log_start,
            wanted: self.end,
            segments: Vec::new(),
            producers: Producers::default(),
        };
        for (segment, closed, skip) in &self.segments {
            if segment.base >= self.end {
                break;
            }
            let id = segment.id(self.replica.partition);
            let is_known_missing = skip.iter().any(|hole| hole.from == 0 && u64::from(hole.to) >= segment.bytes);
            if is_known_missing && segment.end <= self.end {
                rebuilt.segments.push(*segment);
                continue;
            }
            let Some(file) = VerifiedSegment::open(access, id, *segment, *closed, skip)? else {
                if is_known_missing {
                    break;
                }
                return Err(Fault::Foreign {
                    path: access.path(&id.path(super::SegmentFile::Log)),
                    detail: "a segment that the log names is missing".to_owned(),
                });
            };
            let mut cut = Segment { bytes: 0, end: segment.base, max_timestamp: Timestamp::NONE, ..*segment };
            file.for_each_window(0, SCAN_BYTES, |position, window| {
                for (at, header) in Batches::of(&window) {
                    if header.next_offset() > self.end {
                        return Ok(false);
                    }
                    rebuilt.producers.apply(&header, self.seen);
                    cut.bytes = position + at as u64 + header.batch_bytes as u64;
                    cut.end = header.next_offset();
                    cut.max_timestamp = cut.max_timestamp.max(header.max_timestamp);
                }
                Ok(true)
            })?;
            let is_cut = segment.end > self.end;
            if !is_cut {
                // Kept whole, also what is damaged at its end.
                cut = Segment { partial_crc: 0, ..*segment };
            }
            let block = cut.bytes / BLOCK_BYTES * BLOCK_BYTES;
            let partial = cut.bytes - block;
            if partial > 0 {
                cut.partial_crc = match file.read(block, partial) {
                    Ok(bytes) => crc32c::crc32c(&bytes),
                    // All of it is in a hole, and nobody reads it.
                    Err(Fault::Damage { .. }) if skip.iter().any(|hole| u64::from(hole.to) >= cut.bytes) => 0,
                    Err(fault) => return Err(fault),
                };
            }
            if cut.bytes > 0 {
                rebuilt.segments.push(cut);
            }
            if is_cut {
                break;
            }
        }
        // Where the last batch kept ends: no batch is cut in two.
        rebuilt.end = rebuilt.segments.last().map_or(self.log_start, |last| last.end.max(self.log_start));
        Ok(rebuilt)
    }
}
