//! Re-reading what is on disk: the whole of a log directory offline, its sealed segments while a broker runs, and any
//! one file for a person to look at.
//!
//! Everything here only reads, past the page cache where the file system allows it, and says what it found; the one
//! exception is [`ScrubState::write`], the scrub's own small file. What to do about damage is for others. Nothing is
//! mapped into memory: a map turns a bad block into the end of the process, just where it should become a finding.
//!
//! Reading is bounded: one chunk and one batch of a segment, one window of a journal file, one small file at a time.

mod check;
mod dump;
mod finding;
mod journal_check;
mod scan;
mod segment_check;
mod small;
mod state;

pub use check::{Access, CheckOptions, Progress, check_log_dir};
pub use dump::{BatchLine, DumpError, FileContents, IndexContents, Sum, read_file, walk_log};
pub use finding::{FINDINGS_MAX, FileKind, Finding, ReplicaReport, Report, Severity};
pub use journal_check::check_journal;
pub use scan::{STEP_BYTES, SegmentScan, SegmentTarget};
pub use segment_check::{Depth, SegmentCheck, SegmentDamage, SegmentReport, Wrong};
pub use small::{check_envelopes, check_two_copies};
pub use state::{DAMAGE_KEPT_MAX, KnownDamage, Round, SCRUB_NAME, ScrubPace, ScrubState, WholeRound};
