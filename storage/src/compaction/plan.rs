//! Which segments are compacted, when, and which go together: pure functions of what a log knows of its segments.
//!
//! Never the active segment, nor one that reaches beyond the bound: the last stable offset, the end that a durable
//! checkpoint covers. From the first segment on that holds a record younger than `min.compaction.lag.ms`, nothing is taken.
//! Source: `LogCleanerManager.{cleanableOffsets, maxCompactionDelay, grabFilthiestCompactedLog}`, `Cleaner.groupSegmentsBySize`.

use std::ops::Range;

use stonelog_protocol::{Offset, Timestamp};

use super::CompactionConfig;
use crate::segment::Segment;

/// Index entries are 8 bytes in Kafka, by which `segment.index.bytes` counts.
const KAFKA_INDEX_ENTRY_BYTES: u64 = 8;

/// How dirty a log is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirt {
    /// The segments that may be taken, as indexes.
    pub taken_start: usize,
    /// Their end (exclusive).
    pub taken_end: usize,
    /// Bytes of those below the clean end.
    pub clean_bytes: u64,
    /// Bytes of those with anything dirty.
    pub dirty_bytes: u64,
    /// Whether something dirty is older than `max.compaction.lag.ms`.
    pub is_overdue: bool,
}

impl Dirt {
    /// The dirty share of what may be compacted, 0 to 1.
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            total => self.dirty_bytes as f64 / total as f64,
        }
    }

    /// Whether the log is to be compacted now.
    pub fn is_due(&self, config: &CompactionConfig) -> bool {
        self.dirty_bytes > 0 && (self.is_overdue || self.ratio() > config.dirty_ratio_min)
    }
}

/// Looks at the segments of a log, the last of which is the active one.
pub fn survey(
    segments: &[Segment],
    log_start: Offset,
    clean_end: Offset,
    bound: Offset,
    config: &CompactionConfig,
    now: Timestamp,
) -> Dirt {
    let sealed = &segments[..segments.len().saturating_sub(1)];
    let taken_start = sealed.partition_point(|segment| segment.end <= log_start);
    let mut dirt = Dirt { taken_start, taken_end: taken_start, clean_bytes: 0, dirty_bytes: 0, is_overdue: false };
    for segment in &sealed[taken_start..] {
        let is_dirty = segment.end > clean_end;
        let is_young = !config.lag_min.is_zero() && segment.newest().saturating_add(config.lag_min) > now;
        if segment.end > bound || (is_dirty && is_young) {
            break;
        }
        dirt.taken_end += 1;
        if is_dirty {
            dirt.dirty_bytes += segment.bytes;
        } else {
            dirt.clean_bytes += segment.bytes;
        }
    }
    // By all that is sealed, as Kafka counts: what the bound holds back ages too.
    dirt.is_overdue = config.lag_max.is_some_and(|lag_max| {
        let dirty = sealed[taken_start..].iter().filter(|segment| segment.end > clean_end);
        let began = |segment: &Segment| match segment.first_timestamp {
            known if known.0 > 0 => known,
            _ => segment.created,
        };
        dirty.map(began).min().is_some_and(|oldest| oldest.saturating_add(lag_max) < now)
    });
    dirt
}

/// Cuts segments into groups that become one segment each: as large as a segment and its index may be.
pub fn group(
    segments: &[Segment],
    segment_bytes: u32,
    segment_index_bytes: u32,
    index_interval_bytes: u32,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, segment) in segments.iter().enumerate() {
        let joined = bytes + segment.bytes;
        let index_bytes = joined / u64::from(index_interval_bytes.max(1)) * KAFKA_INDEX_ENTRY_BYTES;
        match groups.last_mut() {
            Some(last)
                if joined <= u64::from(segment_bytes)
                    && index_bytes <= u64::from(segment_index_bytes)
                    && segment.end - segments[last.start].base <= i64::from(i32::MAX) =>
            {
                last.end = at + 1;
                bytes = joined;
            }
            _ => {
                groups.push(at..at + 1);
                bytes = segment.bytes;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(100_000);

    /// Segments of ten offsets and 100 bytes each, a second apart, from time 1,000 on.
    fn segments(count: i64) -> Vec<Segment> {
        (0..count)
            .map(|n| Segment {
                end: Offset(n * 10 + 10),
                bytes: 100,
                first_timestamp: Timestamp(1_000 * n + 1_000),
                max_timestamp: Timestamp(1_000 * n + 1_500),
                ..Segment::empty(Offset(n * 10), Timestamp(50_000))
            })
            .collect()
    }

    fn look(clean_end: i64, bound: i64, config: &CompactionConfig) -> Dirt {
        survey(&segments(6), Offset(0), Offset(clean_end), Offset(bound), config, NOW)
    }

    #[test]
    fn the_active_segment_is_never_taken() {
        let dirt = look(0, 1_000, &CompactionConfig::default());
        assert_eq!((dirt.taken_start, dirt.taken_end, dirt.dirty_bytes), (0, 5, 500));
        let one = survey(&segments(1), Offset(0), Offset(0), Offset(99), &CompactionConfig::default(), NOW);
        assert_eq!((one.taken_end, one.is_due(&CompactionConfig::default())), (0, false));
    }

    #[test]
    fn a_segment_that_reaches_beyond_the_bound_is_not_taken() {
        assert_eq!(look(0, 30, &CompactionConfig::default()).taken_end, 3);
        assert_eq!(look(0, 29, &CompactionConfig::default()).taken_end, 2);
        assert_eq!(look(0, 9, &CompactionConfig::default()).taken_end, 0);
    }

    #[test]
    fn what_lies_below_the_log_start_is_not_taken() {
        let dirt = survey(&segments(6), Offset(20), Offset(0), Offset(99), &CompactionConfig::default(), NOW);
        assert_eq!((dirt.taken_start, dirt.taken_end), (2, 5));
    }

    #[test]
    fn the_ratio_must_be_exceeded_not_reached() {
        let config = CompactionConfig { dirty_ratio_min: 0.6, ..CompactionConfig::default() };
        let dirt = look(20, 99, &config);
        assert_eq!((dirt.clean_bytes, dirt.dirty_bytes), (200, 300));
        assert!(!dirt.is_due(&config));
        assert!(look(10, 99, &config).is_due(&config));
    }

    #[test]
    fn a_segment_that_is_clean_in_part_counts_as_dirty() {
        assert_eq!(look(25, 99, &CompactionConfig::default()).clean_bytes, 200);
    }

    #[test]
    fn nothing_from_the_first_young_record_on_is_taken() {
        let config = CompactionConfig { lag_min: Duration::from_millis(97_000), ..CompactionConfig::default() };
        assert_eq!(look(0, 99, &config).taken_end, 2, "newest at 2,500 is old enough, at 3,500 it is not");
        assert_eq!(look(40, 99, &config).taken_end, 4, "what is clean is not asked for its age");
    }

    #[test]
    fn what_waited_too_long_is_due_whatever_the_ratio() {
        let config = CompactionConfig {
            dirty_ratio_min: 1.0,
            lag_max: Some(Duration::from_millis(96_000)),
            ..CompactionConfig::default()
        };
        assert!(look(20, 99, &config).is_due(&config), "begun at 3,000");
        assert!(!look(40, 99, &config).is_due(&config), "begun at 5,000");
        assert!(!look(20, 9, &config).is_due(&config), "overdue, but nothing may be taken");
    }

    #[test]
    fn groups_fill_segments_and_never_span_too_many_offsets() {
        let given = segments(5);
        assert_eq!(group(&given, 250, u32::MAX, 4096), [0..2, 2..4, 4..5]);
        assert_eq!(group(&given, 50, u32::MAX, 4096), [0..1, 1..2, 2..3, 3..4, 4..5], "one alone may be larger");
        assert_eq!(group(&given, 10_000, 16, 100), [0..2, 2..4, 4..5], "two index entries");
        let mut far = given;
        far[4].end = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(group(&far, 10_000, u32::MAX, 4096), [0..4, 4..5]);
    }
}
