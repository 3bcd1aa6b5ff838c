//! Deciders of one replica's stream: the follower's end, the leader's end, and where a log is cut.
//!
//! Pure and synchronous. They read a [`stonelog_storage::log::Log`] and say what is to be sent or done; whoever runs them
//! owns the log, the connections and the clock.

pub mod credit;
pub mod follow;
pub mod following;
pub mod lead;
pub mod loss;
pub mod repair;
#[cfg(test)]
mod test_log;
pub mod throttle;
pub mod truncate;

pub use credit::{CreditPool, Share};
pub use follow::{Effect, Follower};
pub use following::Following;
pub use lead::{LeadStream, Opening, PushPlan};
pub use loss::forget_committed;
pub use throttle::Throttle;
pub use truncate::{Cut, Stopped};
