//! Many seeds of the simulated cluster (`cluster/`): see `storage/tests/seeds/` for the command line.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod cluster;
#[path = "../../storage/tests/seeds/mod.rs"]
mod seeds;
#[path = "../../storage/tests/support/mod.rs"]
mod support;

use cluster::coverage::Coverage;
use cluster::faults;
use seeds::Simulation;

const ACKNOWLEDGED: &str = "acknowledged batches";

fn live(seed: u64) -> (u64, Coverage) {
    let cluster = faults::live(seed);
    let mut coverage = cluster.coverage.clone();
    coverage.add(ACKNOWLEDGED, cluster.acknowledged_count());
    (cluster.trace(), coverage)
}

fn main() {
    let simulation = Simulation {
        name: "cluster_simulate",
        command: "tests/simulate --cluster",
        dose: (6, 1),
        chunk: 20,
        marked_seeds_min: 10_000,
        marks: faults::MARKS.iter().copied().chain([ACKNOWLEDGED]).collect(),
        live,
    };
    simulation.run();
}
