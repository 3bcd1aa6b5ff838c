//! The first pass: which keys the dirty part holds, each with its newest offset.
//!
//! It ends early when the map is full; what was read up to there is compacted, the rest next time. Records of a
//! transaction count once its commit marker is met, those of an aborted one never; the part that is compacted ends before
//! the oldest transaction that is still open at the end of the scan.

use bytes::Bytes;
use stonelog_protocol::Offset;
use stonelog_protocol::batch::{BatchHeader, Records, crc_matches, open_records};

use super::offset_map::OffsetMap;
use super::rewrite::Rewriting;
use super::transactions::{BatchAt, Marker, Met, Open, marker_of};
use super::{CompactJob, DECOMPRESSED_BYTES_MAX, Pace, Totals, WINDOW_BYTES, plan};
use crate::Fault;
use crate::holes::HoleBytes;
use crate::job::FileAccess;
use crate::segment::verified::{VerifiedSegment, is_gone};
use crate::segment::walk::Batches;

/// How the first pass ended.
#[derive(Debug)]
pub enum Mapped {
    /// Go on with [`Rewriting::step`].
    Ready(Box<Rewriting>),
    /// The pace said stop, files have gone meanwhile, or what is dirty begins with a transaction that has no marker yet:
    /// nothing has changed.
    Stopped,
}

impl CompactJob {
    /// Reads the dirty part. [`Fault::Damage`] and [`Fault::Foreign`] concern this log alone.
    pub fn map_keys(self, access: &FileAccess, pace: &mut dyn Pace) -> Result<Mapped, Fault> {
        match self.scan(access, pace) {
            Err(fault) if is_gone(&fault) => Ok(Mapped::Stopped),
            done => done,
        }
    }

    fn scan(self, access: &FileAccess, pace: &mut dyn Pace) -> Result<Mapped, Fault> {
        let dirty = self.sources.iter().filter(|segment| segment.end > self.clean_end);
        let offsets: i64 = dirty.map(|segment| segment.end - segment.base.max(self.clean_end)).sum();
        let limits = self.limits;
        let mut scan = Scan {
            job: &self,
            map: OffsetMap::new(limits.map_bytes_max, limits.map_load_factor, offsets as u64, limits.hash_seeds),
            open: Open::default(),
            mapped_end: self.clean_end,
            is_full: false,
            is_stopped: false,
            bytes_read: 0,
        };
        for at in 0..self.sources.len() {
            if self.sources[at].end <= self.clean_end {
                continue;
            }
            let Some(file) = open(access, &self, at, &self.passed[at])? else { return Ok(Mapped::Stopped) };
            scan.segment(access, &file, at, pace)?;
            if scan.is_stopped {
                return Ok(Mapped::Stopped);
            }
            if scan.is_full {
                break;
            }
            // Also what no batch lies in.
            scan.mapped_end = self.sources[at].end;
        }
        let clean_end = scan.open.first_offset().map_or(scan.mapped_end, |first| first.min(scan.mapped_end));
        if clean_end <= self.clean_end && !scan.is_full {
            // A transaction begins there whose marker lies beyond: it will be in reach.
            return Ok(Mapped::Stopped);
        }
        if clean_end <= self.clean_end {
            return Err(Fault::Foreign {
                path: access.path(&crate::segment::directory_of(self.replica.partition)),
                detail: format!(
                    "compaction cannot move beyond offset {}: its next batch or transaction has more keys than \
                     log.cleaner.dedupe.buffer.size has room for",
                    self.clean_end
                ),
            });
        }
        let Scan { map, open, bytes_read, .. } = scan;
        let totals = Totals { bytes_read, keys_count: map.keys_count() as u64, ..Totals::default() };
        let taken = self.sources.partition_point(|segment| segment.base < clean_end);
        let groups = plan::group(
            &self.sources[..taken],
            self.segment_bytes,
            self.segment_index_bytes,
            self.index_interval_bytes,
        );
        Ok(Mapped::Ready(Box::new(Rewriting::new(self, map, clean_end, Met::new(open.into_aborted()), groups, totals))))
    }
}

/// One source as it was planned, without what it has `passed`; `None` when its file is gone.
pub(super) fn open<'a>(
    access: &'a FileAccess,
    job: &CompactJob,
    at: usize,
    passed: &'a [HoleBytes],
) -> Result<Option<VerifiedSegment<'a>>, Fault> {
    let source = job.sources[at];
    VerifiedSegment::open(access, source.id(job.replica.partition), source, true, passed)
}

/// One batch of a window, whose CRC fits.
pub(super) fn checked<'a>(
    file: &VerifiedSegment<'_>,
    window: &'a Bytes,
    position: u64,
    at: usize,
    header: &BatchHeader,
) -> Result<&'a [u8], Fault> {
    let batch = &window[at..at + header.batch_bytes];
    match crc_matches(batch) {
        true => Ok(batch),
        false => Err(file.damage("batch", position + at as u64, "its CRC does not match")),
    }
}

struct Scan<'a> {
    job: &'a CompactJob,
    map: OffsetMap,
    open: Open,
    /// Everything below is in the map.
    mapped_end: Offset,
    is_full: bool,
    is_stopped: bool,
    bytes_read: u64,
}

impl Scan<'_> {
    fn segment(
        &mut self,
        access: &FileAccess,
        file: &VerifiedSegment<'_>,
        source: usize,
        pace: &mut dyn Pace,
    ) -> Result<(), Fault> {
        file.for_each_window(0, WINDOW_BYTES, |position, window| {
            self.bytes_read += window.len() as u64;
            self.is_stopped = !pace.spent(window.len() as u64);
            if self.is_stopped {
                return Ok(false);
            }
            for (at, header) in Batches::of(&window) {
                if header.next_offset() <= self.job.clean_end {
                    continue;
                }
                let batch = checked(file, &window, position, at, &header)?;
                let place = BatchAt { source, position: position + at as u64, bytes: header.batch_bytes as u64 };
                if !self.batch(access, file, batch, &header, place)? {
                    self.is_full = true;
                    return Ok(false);
                }
                self.mapped_end = header.next_offset();
            }
            Ok(true)
        })
    }

    /// Whether there was room for all of it.
    fn batch(
        &mut self,
        access: &FileAccess,
        file: &VerifiedSegment<'_>,
        batch: &[u8],
        header: &BatchHeader,
        place: BatchAt,
    ) -> Result<bool, Fault> {
        if header.is_control() {
            let section = opened(file, batch, header, place.position)?;
            let Some(marker) = marker_of(&section, header) else { return Ok(true) };
            let committed = if marker == Marker::Commit { self.open.batches(header) } else { Vec::new() };
            for committed in committed {
                let job = self.job;
                let Some(file) = open(access, job, committed.source, &job.passed[committed.source])? else {
                    self.is_stopped = true;
                    return Ok(false);
                };
                let bytes = file.read(committed.position, committed.bytes)?;
                let Ok(data) = BatchHeader::read(&bytes) else {
                    return Err(file.damage("batch", committed.position, "no batch begins here"));
                };
                // The transaction stays open then: nothing of it is clean.
                if !self.keys(&file, &bytes, &data, committed.position)? {
                    return Ok(false);
                }
            }
            self.open.on_marker(header, marker);
            return Ok(true);
        }
        if header.is_transactional() {
            return Ok(self.open.on_data(header, place));
        }
        self.keys(file, batch, header, place.position)
    }

    fn keys(
        &mut self,
        file: &VerifiedSegment<'_>,
        batch: &[u8],
        header: &BatchHeader,
        position: u64,
    ) -> Result<bool, Fault> {
        let section = opened(file, batch, header, position)?;
        for record in Records::new(&section, header.records_count) {
            let record = record.map_err(|error| file.damage("batch", position, &error.to_string()))?;
            let offset = Offset(header.base_offset.0 + i64::from(record.offset_delta));
            if let Some(key) = record.key
                && offset >= self.job.clean_end
                && !self.map.put(key, offset)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn opened<'a>(
    file: &VerifiedSegment<'_>,
    batch: &'a [u8],
    header: &BatchHeader,
    position: u64,
) -> Result<std::borrow::Cow<'a, [u8]>, Fault> {
    let opened = open_records(batch, header, DECOMPRESSED_BYTES_MAX);
    opened.map_err(|error| file.damage("batch", position, &error.to_string()))
}
