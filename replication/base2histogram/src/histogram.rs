//! The histogram: four buckets for each power of two, values below eight each in one of their own.

use std::marker::PhantomData;

use crate::PercentileStats;

/// Bits of a value, after its highest one, that choose among the buckets of a power of two.
const FINE_BITS: u32 = 2;
/// Buckets of each power of two.
const FINE: usize = 1 << FINE_BITS;

/// How often values of each magnitude were recorded. The bucket of a value is at most a quarter of it wide.
///
/// `T` is the published crate's label of a time slot. There are no slots here, so it says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Counts by bucket, up to the last one that holds any.
    counts: Vec<u64>,
    /// Sum of all counts.
    total: u64,
    slot: PhantomData<T>,
}

impl<T> Histogram<T> {
    /// An empty one; it allocates with the first value.
    pub fn new() -> Histogram<T> {
        Histogram { counts: Vec::new(), total: 0, slot: PhantomData }
    }

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        let bucket = bucket_of(value);
        if bucket >= self.counts.len() {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(times);
        self.total = self.total.saturating_add(times);
    }

    /// How many values were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The value that the given share of all values does not exceed: the largest value of its bucket. 0 if none was
    /// counted.
    pub fn percentile(&self, share: f64) -> u64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return last_of(bucket);
            }
        }
        self.counts.len().checked_sub(1).map_or(0, last_of)
    }

    /// The percentiles that openraft shows.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.10),
            p50: self.percentile(0.50),
            p90: self.percentile(0.90),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Histogram<T> {
        Histogram::new()
    }
}

/// The bucket that a value is counted in.
fn bucket_of(value: u64) -> usize {
    let Some(highest) = value.checked_ilog2().filter(|highest| *highest > FINE_BITS) else {
        return value as usize;
    };
    let shift = highest - FINE_BITS;
    // The value's three highest bits are 1xx; each power of two above the exact values adds four buckets.
    (shift as usize) * FINE + (value >> shift) as usize
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < 2 * FINE {
        return bucket as u64;
    }
    let shift = bucket / FINE - 1;
    let first = ((FINE + bucket % FINE) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::new();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn buckets_join_without_gap_or_overlap_up_to_the_largest_value() {
        let mut bucket = 0;
        let mut first = 0_u64;
        loop {
            let last = last_of(bucket);
            assert_eq!(bucket_of(first), bucket, "first value {first}");
            assert_eq!(bucket_of(last), bucket, "last value {last}");
            if last == u64::MAX {
                break;
            }
            (bucket, first) = (bucket + 1, last + 1);
        }
        assert_eq!(bucket + 1, 252);
    }

    #[test]
    fn bucket_is_at_most_a_quarter_of_its_value_wide() {
        for value in (0..64).map(|bit| 1_u64 << bit).chain([9, 1_000, 123_456_789, u64::MAX]) {
            assert!(last_of(bucket_of(value)) - value <= value / 4, "{value}");
        }
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let histogram = of([5; 50].into_iter().chain([100; 49]).chain([1_000_000]));
        assert_eq!(histogram.total(), 100);
        assert_eq!(histogram.percentile(0.5), 5);
        assert_eq!(bucket_of(histogram.percentile(0.51)), bucket_of(100));
        assert_eq!(bucket_of(histogram.percentile(0.99)), bucket_of(100));
        assert_eq!(bucket_of(histogram.percentile(1.0)), bucket_of(1_000_000));
    }

    #[test]
    fn stats_of_nothing_are_all_zero() {
        let none = of([]).percentile_stats();
        assert_eq!((none.samples, none.p0_1, none.p99_9), (0, 0, 0));
    }

    #[test]
    fn counting_several_times_is_counting_one_by_one() {
        let mut at_once = Histogram::<()>::new();
        at_once.record_n(42, 3);
        at_once.record_n(7, 0);
        assert_eq!(at_once, of([42, 42, 42]));
    }

    #[test]
    fn memory_follows_the_largest_value() {
        assert_eq!(of([]).counts.capacity(), 0);
        assert!(of([1_000; 100]).counts.len() < 40);
    }
}
