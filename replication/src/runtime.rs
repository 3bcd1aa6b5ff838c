//! Carriers: the threads that run deciders and keepers.
//!
//! One [`lane`] per core owns partitions and connections; the [`journal`]'s threads make entries durable; [`pool`]
//! threads run the other jobs. Nothing here compares offsets or epochs: that is decided in `partition` and in storage.
//! A panic in any of these, or while a partition's state changes, ends the process.

pub(crate) mod abort;
pub mod acks;
pub mod changed;
pub mod checkpointer;
pub mod cleaner;
pub mod clock;
pub mod damage;
pub mod directory;
pub mod find_offset;
pub mod follow_image;
pub mod heartbeats;
pub mod homes;
pub mod journal;
pub mod lane;
pub mod lanes;
pub mod memory;
pub mod node;
pub mod partition;
pub mod peers;
pub mod pool;
pub mod priority;
pub mod read;
pub mod room;
pub mod scrubber;
pub mod space;
pub mod start;
pub mod streams;
pub mod throttles;
pub mod under_way;
pub mod upkeep;
