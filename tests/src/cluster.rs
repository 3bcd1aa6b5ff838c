//! A cluster of real processes on three machines that are network namespaces, and what goes wrong with it.
//!
//! [`ground`] is where the processes run and how they are cut off from each other, [`nodes`] starts and ends them,
//! [`faults`] chooses what goes wrong, [`loads`] writes and reads meanwhile, [`view`] asks the cluster how it is.
//! [`flips`] damages disks, with [`bits`], and holds replicas against each other, with [`compare`]. Nothing else here judges:
//! the loads' checkers do.

pub mod bits;
pub mod compare;
pub mod disk;
pub mod faults;
pub mod flips;
pub mod ground;
pub mod loads;
pub mod nodes;
pub mod view;

/// Nodes of the cluster.
pub const NODES: usize = 3;
