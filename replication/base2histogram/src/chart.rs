//! Several histograms one below the other, as text.

use std::fmt;

use crate::Histogram;

/// Named histograms. openraft shows them only with its feature `runtime-stats`, which Stonelog does not ask for.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    rows: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// One without rows.
    pub fn new() -> AsciiChart {
        AsciiChart::default()
    }

    /// With one more row.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram) -> AsciiChart {
        self.rows.push((name.to_owned(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, histogram) in &self.rows {
            let stats = histogram.percentile_stats();
            writeln!(out, "{name:width$} n={} p50={} p90={} p99={}", stats.samples, stats.p50, stats.p90, stats.p99)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_below_each_other_in_the_order_they_came() {
        let mut short = Histogram::new();
        short.record_n(3, 4);
        let chart = AsciiChart::new().add("long name", Histogram::new()).add("short", short);
        assert_eq!(chart.to_string(), "long name n=0 p50=0 p90=0 p99=0\nshort     n=4 p50=3 p90=3 p99=3\n");
    }
}
