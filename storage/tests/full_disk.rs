//! A new file, or a directory, for which there is no room is no fault of the device: it is tried again, and nothing is lost.
//!
//! XFS says so when a file is created, ext4 when space is allocated in it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::path::Path;
use std::sync::Arc;

use stonelog_protocol::Offset;
use stonelog_storage::disk::{Disk, SimFault, SimOperation};
use stonelog_storage::log::LogConfig;
use stonelog_storage::segment::SegmentFile;

use support::{Batch, Lane, NOW, ROOT, new_disk, partition};

#[test]
fn no_room_for_a_new_name_is_tried_again() {
    // The directory of the replica, a segment, both files of a checkpoint, and their final names.
    let create = ["-0", ".log", "checkpoint.tmp", "checkpoint.copy.tmp"].map(|name| (SimOperation::Create, name));
    let rename = ["checkpoint.tmp", "checkpoint.copy.tmp"].map(|name| (SimOperation::Rename, name));
    for (operation, name) in create.into_iter().chain(rename) {
        let disk = new_disk();
        let mut lane = Lane::start(Arc::new(disk.clone()), LogConfig::default()).unwrap();
        lane.create(0);
        let written = lane.append(0, &Batch::of(3), 0);
        lane.commit().unwrap();
        disk.fail(operation, name, 0, SimFault::StorageFull);
        let mut refused = 0;
        let job = lane.logs[0].plan_flush(NOW, true, 0).unwrap();
        match job.run(&lane.access) {
            Ok(done) => assert!(lane.logs[0].on_flushed(done)),
            Err(fault) => {
                assert!(fault.is_out_of_space(), "{name}: {fault}");
                let generation = lane.logs[0].key().generation;
                lane.logs[0].on_flush_deferred(generation);
                refused += 1;
                assert!(lane.flush(0).unwrap(), "{name}");
            }
        }
        if let Err(fault) = lane.checkpoint() {
            assert!(fault.is_out_of_space(), "{name}: {fault}");
            refused += 1;
            lane.checkpoint().unwrap();
        }
        assert_eq!(refused, 1, "{operation:?} {name}");
        drop(lane);
        disk.crash(1, stonelog_storage::disk::Tearing::Blocks);
        let lane = Lane::start(Arc::new(disk), LogConfig::default()).unwrap();
        assert_eq!(lane.read_all(0, Offset::ZERO, 10_000).unwrap(), written, "{name}");
    }
}

/// Whoever carries a log need remember nothing of a checkpoint that failed: the next plan names the same files again.
#[test]
fn checksums_that_had_no_room_are_durable_before_the_next_checkpoint_names_their_segment() {
    for operation in [SimOperation::Create, SimOperation::Allocate] {
        let disk = new_disk();
        let config = LogConfig { segment_bytes: 80 << 10, ..LogConfig::default() };
        let mut lane = Lane::start(Arc::new(disk.clone()), config.clone()).unwrap();
        lane.create(0);
        let mut written = Vec::new();
        for _ in 0..3 {
            written.extend_from_slice(&lane.append(0, &Batch { filler_bytes: 70_000, ..Batch::of(3) }, 0));
            lane.commit().unwrap();
        }
        while lane.flush(0).unwrap() {}
        disk.fail(operation, ".sum", 1, SimFault::StorageFull);
        let fault = lane.checkpoint().unwrap_err();
        assert!(fault.is_out_of_space(), "{operation:?}: {fault}");
        lane.checkpoint().unwrap();
        let sums: Vec<_> = lane.logs[0].segments().iter().map(|segment| segment.name()).collect();
        assert_eq!(sums.len(), 3);
        drop(lane);
        disk.crash(1, stonelog_storage::disk::Tearing::Blocks);
        for name in sums {
            let path = Path::new(ROOT).join(name.of(partition(0)).path(SegmentFile::Sums));
            assert!(disk.exists(&path).unwrap(), "{operation:?}: {}", path.display());
        }
        let lane = Lane::start(Arc::new(disk), config).unwrap();
        assert_eq!(lane.read_all(0, Offset::ZERO, 1 << 20).unwrap(), written, "{operation:?}");
    }
}
