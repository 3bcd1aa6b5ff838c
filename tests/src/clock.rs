//! The clock of the harness: deadlines for brokers that never answer, and times to print. No verdict depends on it.

use std::time::Instant;

/// Now.
#[allow(clippy::disallowed_methods, reason = "the harness is a carrier, and this is the one place where it reads time")]
pub fn now() -> Instant {
    Instant::now()
}

/// A number that differs from run to run, for a seed that is then printed.
#[allow(clippy::disallowed_methods, reason = "a seed may come from anywhere")]
pub fn seed() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::from(since.subsec_nanos()))
}
