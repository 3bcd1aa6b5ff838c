//! The clocks of the command line and its client, which run on no lane: read here and nowhere else.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is where a client's carriers ask for the time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The wall clock, in milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "this is where a client's carriers ask for the time")]
pub(crate) fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
