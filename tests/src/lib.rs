//! What the tests of whole brokers share: starting and killing them, loading them, taking their power away.
//!
//! Nothing here judges a broker: the checker is `stonelog verify`, which speaks the protocol only.

pub mod binary;
pub mod broker;
pub mod clock;
pub mod cluster;
pub mod generator;
pub mod load;
pub mod mutate;
pub mod power;
pub mod random;
pub mod stock;
