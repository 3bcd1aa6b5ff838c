//! The one place of this crate that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stonelog_protocol::Timestamp;

/// Wall time for stamping records; monotonic time for everything that waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Milliseconds since the Unix epoch, as records carry them.
    #[allow(clippy::disallowed_methods, reason = "the clock seam itself")]
    pub fn wall(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// A moment that only moves forward.
    #[allow(clippy::disallowed_methods, reason = "the clock seam itself")]
    pub fn mono(&self) -> Instant {
        Instant::now()
    }
}
