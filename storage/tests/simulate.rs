//! Many seeds of the simulated world (`world/`): see `seeds/` for the command line.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod seeds;
mod support;
mod world;

use seeds::Simulation;
use world::coverage::Coverage;
use world::faults;

const APPENDS: &str = "batches appended";
const FAULTS: &str = "faults";

fn live(seed: u64) -> (u64, Coverage) {
    let world = faults::live(seed);
    let mut coverage = world.coverage.clone();
    coverage.add(APPENDS, world.appends_count);
    coverage.add(FAULTS, world.faults_count);
    (world.trace(), coverage)
}

fn main() {
    let simulation = Simulation {
        name: "simulate",
        command: "tests/simulate",
        dose: (40, 4),
        chunk: 50,
        marked_seeds_min: 1_000,
        marks: faults::marks().chain([APPENDS, FAULTS]).collect(),
        live,
    };
    simulation.run();
}
