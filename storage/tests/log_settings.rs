//! Settings of a log that take effect where its segments begin: `segment.jitter.ms` and `preallocate`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stonelog_storage::log::LogConfig;
use support::{Batch, Lane, new_disk};

#[test]
fn jitter_makes_segments_of_logs_that_began_together_roll_at_their_own_times() {
    let ms = Duration::from_millis;
    let config = LogConfig { segment_ms: ms(1_000), segment_jitter: ms(900), ..LogConfig::default() };
    let mut lane = Lane::start(Arc::new(new_disk()), config).unwrap();
    let mut ages = BTreeSet::new();
    for at in 0..6 {
        lane.create(at);
        for age in (0..=1_020).step_by(20) {
            lane.append(at as usize, &Batch { max_timestamp: 1_000 + age, ..Batch::of(1) }, 0);
            lane.commit().unwrap();
            lane.flush(at as usize).unwrap();
        }
        let second = lane.logs[at as usize].segments()[1].base.0;
        ages.insert(second * 20);
    }
    assert!(ages.len() > 3, "{ages:?}");
    assert!(ages.iter().all(|age| (100..=1_020).contains(age)), "{ages:?}");
}

#[test]
fn a_preallocated_segment_has_its_whole_space_from_its_first_byte_on() {
    let used = |preallocate| {
        let disk = new_disk();
        let config = LogConfig { segment_bytes: 5 << 20, preallocate, ..LogConfig::default() };
        let mut lane = Lane::start(Arc::new(disk.clone()), config).unwrap();
        lane.create(0);
        let before = disk.used_bytes();
        lane.append(0, &Batch::of(1), 0);
        lane.commit().unwrap();
        lane.flush(0).unwrap();
        disk.used_bytes() - before
    };
    assert!(used(false) < 1 << 20);
    assert!((5 << 20..6 << 20).contains(&used(true)));
}
