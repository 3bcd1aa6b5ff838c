//! Coordinators: the owners of consumer groups (and, later, of transactions).
//!
//! Each partition of `__consumer_offsets` has one owner, which holds the state of the groups that hash to it, and whose
//! only durable form is that partition's log. The modules here are pure: they decide and apply, and touch neither
//! clock, nor disk, nor network. What they decide is carried to the log by the coordinator runtime.
//!
//! - [`group`]: the state of one partition's groups, one file per request.
//! - [`record`]: what the log holds, in Kafka's own formats.
//! - [`parking`]: answers that wait until what they rest on is committed.
//! - [`partition`]: which partition a group hashes to.

pub mod group;
pub mod parking;
pub mod partition;
pub mod record;
