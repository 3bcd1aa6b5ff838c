//! What a Fetch request needs besides the log: sessions (KIP-227) and the merging of what lanes read.

pub mod merge;
pub mod session;
