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
        let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        #[cfg(feature = "mutants")]
        let ms = ms.saturating_add(shift::now());
        Timestamp(ms)
    }

    /// A moment that only moves forward.
    #[allow(clippy::disallowed_methods, reason = "the clock seam itself")]
    pub fn mono(&self) -> Instant {
        Instant::now()
    }
}

/// A wall clock that jumps, in test builds: no process can have one of its own from the kernel.
#[cfg(feature = "mutants")]
mod shift {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    /// Names the file that says by how many milliseconds the wall clock is wrong; without it, or while the file is not
    /// there, it is right.
    const VARIABLE: &str = "STONELOG_WALL_SHIFT_FILE";

    /// Read each time: it may change at any moment.
    #[allow(clippy::disallowed_methods, reason = "a test's switch, in test builds only")]
    pub(super) fn now() -> i64 {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let said = file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        said.and_then(|said| said.trim().parse().ok()).unwrap_or(0)
    }
}
