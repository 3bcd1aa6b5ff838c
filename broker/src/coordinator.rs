//! Coordinators: the owners of consumer groups (and, later, of transactions).
//!
//! Each partition of `__consumer_offsets` has one owner, which holds the state of the groups that hash to it, and whose
//! only durable form is that partition's log. [`group`], [`record`], [`parking`] and [`partition`] are pure: they decide
//! and apply, and touch neither clock, nor disk, nor network. What they decide is carried to the log by [`runtime`].
//!
//! - [`group`]: the state of one partition's groups, one file per request.
//! - [`record`]: what the log holds, in Kafka's own formats.
//! - [`parking`]: answers that wait until what they rest on is committed.
//! - [`partition`]: which partition a group hashes to.
//! - [`internal_topic`](mod@internal_topic): how `__consumer_offsets` is created.
//! - [`runtime`]: one owner for each partition this broker leads, on the lane that has its log.

pub mod group;
pub mod internal_topic;
pub mod parking;
pub mod partition;
pub mod record;
pub mod runtime;

pub use internal_topic::internal_topic;
pub use runtime::start;
