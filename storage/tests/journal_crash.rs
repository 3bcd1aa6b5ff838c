//! The journal under power cuts: at every single change of the disk, and in long seeded runs.
//!
//! The oracle is a plain list: everything synced is replayed exactly and in order, what follows it is a prefix of what
//! was written, and a power cut alone never looks like damage.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod journal_support;

use journal_support::{Choices, Model};
use stonelog_storage::disk::{SimDisk, Tearing};

const STEPS: usize = 80;

/// A fixed workload: a start, steps, a restart in the middle, steps. `Err` when the power went.
fn workload(model: &mut Model) -> Result<(), stonelog_storage::Fault> {
    let mut choices = Choices::new(77);
    model.recover()?;
    for step in 0..STEPS {
        if step == STEPS / 2 {
            model.recover()?;
        }
        model.step(&mut choices)?;
    }
    Ok(())
}

fn changes_of_the_workload() -> u64 {
    let disk = SimDisk::new();
    workload(&mut Model::new(disk.clone())).unwrap();
    disk.changes()
}

/// Of the crashes of one change, what becomes of blocks that were being written.
fn tearing(seed: u64) -> Tearing {
    [Tearing::Blocks, Tearing::Sectors, Tearing::Garbage][(seed % 3) as usize]
}

/// After a cut: recover, go on, and be cut once more without a fault in between.
fn recover_and_go_on(model: &mut Model, seed: u64) {
    let mut choices = Choices::new(seed);
    model.recover().unwrap();
    for _ in 0..12 {
        model.step(&mut choices).unwrap();
    }
    model.disk.crash(seed + 1, tearing(seed + 1));
    model.recover().unwrap();
}

#[test]
fn a_power_cut_at_any_change_loses_nothing_synced() {
    let changes = changes_of_the_workload();
    assert!(changes > 150, "the workload is worth cutting: {changes} changes");
    let mut torn_tails = 0;
    for cut in 0..changes {
        for seed in 0..6 {
            let mut model = Model::new(SimDisk::new());
            model.disk.cut_power_at(cut);
            assert!(workload(&mut model).is_err());
            model.disk.crash(seed * 1000 + cut, tearing(seed));
            torn_tails += usize::from(model.recover().unwrap().torn_tail.is_some());
            model.journal = None;
            recover_and_go_on(&mut model, seed);
        }
    }
    assert!(torn_tails > 30, "the cuts tear tails: {torn_tails}");
}

#[test]
fn a_power_cut_at_any_change_of_a_recovery_loses_nothing_synced() {
    for first_cut in (5..changes_of_the_workload()).step_by(13) {
        let after_first_cut = || {
            let mut model = Model::new(SimDisk::new());
            model.disk.cut_power_at(first_cut);
            assert!(workload(&mut model).is_err());
            model.disk.crash(first_cut, tearing(first_cut));
            model
        };
        let mut model = after_first_cut();
        let before = model.disk.changes();
        model.recover().unwrap();
        for second_cut in before..model.disk.changes() {
            for seed in 0..2 {
                let mut model = after_first_cut();
                model.disk.cut_power_at(second_cut);
                assert!(model.recover().is_err());
                model.disk.crash(seed * 100 + second_cut, tearing(seed + 1));
                recover_and_go_on(&mut model, seed);
            }
        }
    }
}

#[test]
fn the_death_of_the_process_loses_nothing_written() {
    for cut in 0..changes_of_the_workload() {
        let mut model = Model::new(SimDisk::new());
        model.disk.cut_power_at(cut);
        assert!(workload(&mut model).is_err());
        let in_doubt = model.written.iter().filter(|known| known.is_in_doubt()).count();
        let whole = model.written.len() - in_doubt;
        model.disk.kill();
        model.journal = None;
        model.recover().unwrap();
        assert!(model.synced >= whole, "cut {cut}: {} of {whole} written entries are left", model.synced);
    }
}

#[test]
fn long_runs_with_many_cuts_lose_nothing_synced() {
    let seeds = std::env::var("STONELOG_JOURNAL_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for seed in 0..seeds {
        let mut choices = Choices::new(seed);
        let mut model = Model::new(SimDisk::new());
        model.recover().unwrap();
        let (mut appends, mut cuts) = (0, 0);
        while appends < 500 || cuts < 10 {
            if choices.below(40) == 0 {
                model.disk.cut_power_at(model.disk.changes() + choices.below(12));
            }
            appends += 1;
            if model.step(&mut choices).is_err() {
                if !model.disk.is_dead() {
                    // The journal is full of what no checkpoint covers yet.
                    model.sync().and_then(|()| model.checkpoint(&mut choices)).ok();
                    continue;
                }
                cuts += 1;
                let tearing = tearing(choices.below(3));
                model.disk.crash(seed * 7919 + cuts, tearing);
                if choices.below(3) == 0 {
                    model.disk.cut_power_at(model.disk.changes() + choices.below(8));
                    if model.recover().is_err() {
                        model.disk.crash(seed + cuts, tearing);
                    }
                }
                model.recover().unwrap_or_else(|fault| panic!("seed {seed}, cut {cuts}: {fault}"));
            }
        }
    }
}

#[test]
fn the_oracle_notices_a_sync_that_never_happened() {
    let noticed = (0..20).any(|seed| {
        std::panic::catch_unwind(|| {
            let mut choices = Choices::new(seed);
            let mut model = Model::new(SimDisk::new());
            model.recover().unwrap();
            for _ in 0..5 {
                model.write(&mut choices).unwrap();
            }
            model.synced = model.written.len();
            model.disk.crash(seed, Tearing::Blocks);
            model.recover().unwrap();
        })
        .is_err()
    });
    assert!(noticed);
}
