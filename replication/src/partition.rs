//! Deciders of one partition: who counts for the high watermark, and when an append is acknowledged.
//!
//! Pure and synchronous: events and time arrive as arguments.

pub mod ack;
mod followers;
mod isr;
pub mod leader;
pub mod leadership;
pub mod near;
pub mod reject;

pub use ack::{Ack, Acks, Receipt};
pub use leader::Leader;
pub use leadership::{Leadership, Member};
pub use near::ReadsNear;
pub use reject::Reject;
