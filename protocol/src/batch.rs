//! Record batches: Kafka's on-wire and on-disk unit (magic 2, KIP-98).
//!
//! Batches stay as bytes from the socket to the disk and back. These modules look into them without decoding more than
//! the question needs.

pub mod build;
pub mod compression;
pub mod header;
pub mod iter;
pub mod recompress;
pub mod records;
pub mod retain;
pub mod validate;

pub use build::{BatchBuilder, NewRecord};
pub use compression::{CompressionError, compress, decompress, open_records};
pub use header::{BatchHeader, Compression, HEADER_BYTES, crc_matches};
pub use iter::Batches;
pub use recompress::recompress;
pub use records::{Header, Headers, Record, RecordError, Records};
pub use retain::{RetainError, Retained, empty_batch, retain_records};
pub use validate::{BatchReject, BatchRules, ProducedBatch, RecordReject, TimestampType, validate_produced};
