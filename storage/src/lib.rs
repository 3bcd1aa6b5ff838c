//! Bytes on disk: the journal, segments, indexes, recovery, and the `Disk` seam they all go through.
//!
//! Nothing here knows a request, a topic's name, a thread or a socket. A [`log`] plans jobs, which are values; keepers
//! run them over a [`disk::Disk`]; completions come back to the log as events that carry its generation.

pub mod checkpoint;
pub mod compaction;
pub mod disk;
pub mod fault;
mod fields;
pub mod holes;
pub mod index;
pub mod job;
pub mod journal;
pub mod log;
pub mod log_dir;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod recovery;
pub mod replica;
pub mod scrub;
pub mod segment;
pub mod small_file;

pub use fault::Fault;
pub use replica::{LogGeneration, ReplicaKey};
