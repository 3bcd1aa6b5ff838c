//! Record batches: Kafka's on-wire and on-disk unit (magic 2, KIP-98).
//!
//! Batches stay as bytes from the socket to the disk and back. These modules look into them without decoding more than
//! the question needs.

pub mod header;

pub use header::{BatchHeader, Compression, HEADER_BYTES};
