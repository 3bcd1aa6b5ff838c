//! Counts of `u64` values in buckets whose width grows with the value: what openraft keeps its runtime statistics in.
//!
//! This crate stands in for the published one of the same name (see `docs/decisions/0007-own-histogram.md`) and has the
//! interface that openraft's core uses, no more. Nothing in Stonelog reads these statistics. A histogram holds no more
//! counts than its largest value needs, 252 at most, and there are no tables.

mod chart;
mod histogram;
mod percentiles;

pub use chart::AsciiChart;
pub use histogram::Histogram;
pub use percentiles::PercentileStats;
