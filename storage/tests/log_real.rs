//! The log on a real file system: what the simulated disk allows, the kernel does too.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::Offset;
use stonelog_storage::disk::RealDisk;
use stonelog_storage::log::LogConfig;
use stonelog_storage::recovery::Verdict;

use support::{Batch, Lane};

#[test]
fn a_log_comes_back_from_segments_checkpoint_and_journal() {
    let directory = tempfile::tempdir().unwrap();
    let config = LogConfig { segment_bytes: 200_000, ..LogConfig::default() };
    let start = || Lane::start_in(Arc::new(RealDisk), directory.path(), config.clone()).unwrap();
    let mut all: Vec<Bytes> = Vec::new();
    for round in 0..3_u64 {
        let mut lane = start();
        match round {
            0 => drop(lane.create(0)),
            _ => assert_eq!(lane.verdicts, [Verdict::Proved]),
        }
        for n in 0..40 {
            all.push(lane.append(
                0,
                &Batch { seed: round * 100 + n, filler_bytes: 9_000, ..Batch::of(2) },
                round as i32,
            ));
            if n % 5 == 4 {
                lane.commit().unwrap();
            }
            if n == 19 {
                assert!(lane.flush(0).unwrap());
                lane.checkpoint().unwrap();
            }
            if n == 34 {
                assert!(lane.flush(0).unwrap());
            }
        }
        lane.logs[0].evict(0);
        assert_eq!(lane.read_all(0, Offset::ZERO, 50_000).unwrap(), all.concat(), "round {round}");
    }
    let lane = start();
    assert_eq!(lane.logs[0].log_end(), Offset(240));
    assert!(lane.logs[0].segments().len() > 2);
    assert_eq!(lane.read_all(0, Offset::ZERO, 50_000).unwrap(), all.concat());
    assert_eq!(lane.logs[0].epochs().entries().len(), 3);
}
