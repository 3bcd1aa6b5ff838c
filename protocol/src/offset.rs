//! A record's position in its partition.

use std::fmt;
use std::ops::{Add, Sub};

/// A record's position in its partition, from 0.
///
/// Where an `Offset` marks an end (`log_end_offset`, `high_watermark`, `last_stable_offset`), it is exclusive: the
/// offset of the first record not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of a partition.
    pub const ZERO: Offset = Offset(0);
    /// "No offset" on the wire.
    pub const NONE: Offset = Offset(-1);

    /// The offset after this one.
    pub fn next(self) -> Offset {
        self + 1
    }
}

impl Add<i64> for Offset {
    type Output = Offset;
    fn add(self, records: i64) -> Offset {
        Offset(self.0 + records)
    }
}

impl Sub<Offset> for Offset {
    type Output = i64;
    fn sub(self, other: Offset) -> i64 {
        self.0 - other.0
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
