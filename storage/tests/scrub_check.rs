//! `scrub::check_log_dir` on real files: damage of every class is found and named, and what a crash leaves is not
//! mistaken for damage.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stonelog_protocol::{BrokerId, ClusterId, Offset, Timestamp, Uuid};
use stonelog_storage::checkpoint::Checkpoint;
use stonelog_storage::disk::{Disk, Open, RealDisk, SimDisk, SimFault, SimOperation};
use stonelog_storage::holes::Cause;
use stonelog_storage::log::LogConfig;
use stonelog_storage::log_dir::{LogDir, MetaProperties, current_tenure};
use stonelog_storage::scrub::{
    Access, CheckOptions, Depth, FileContents, FileKind, Finding, Report, ScrubState, SegmentScan, SegmentTarget,
    Severity, check_log_dir, read_file, walk_log,
};
use stonelog_storage::segment::SegmentFile;

use support::{Batch, Lane, partition};

const OFFLINE: CheckOptions = CheckOptions { access: Access::Offline, depth: Depth::Batches };

fn config() -> LogConfig {
    LogConfig { segment_bytes: 200_000, ..LogConfig::default() }
}

/// A directory with sealed segments, indexes, an active segment, and a journal behind the checkpoint, as the sudden end
/// of the process leaves it.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let (dir, _) = LogDir::open(Arc::new(RealDisk), root).unwrap();
    dir.format(&MetaProperties {
        cluster_id: ClusterId("c".into()),
        node_id: BrokerId(1),
        directory_id: Uuid([7; 16]),
        broker_epoch: None,
        follows_epoch: None,
        metadata_index: None,
    })
    .unwrap();
    dir.record_tenure(&current_tenure(root).unwrap()).unwrap();
    ScrubState::default().write(&RealDisk, root, Timestamp(1)).unwrap();
    let mut lane = Lane::start_in(Arc::new(RealDisk), root, config()).unwrap();
    for index in 0..2 {
        lane.create(index);
    }
    for n in 0..70 {
        for index in 0..2 {
            lane.append(index, &Batch { seed: n * 2 + index as u64, filler_bytes: 9_000, ..Batch::of(2) }, 0);
        }
        if n % 5 == 4 {
            lane.commit().unwrap();
        }
        if n % 20 == 9 {
            lane.flush(0).unwrap();
            lane.flush(1).unwrap();
        }
        if n == 55 {
            lane.checkpoint().unwrap();
        }
    }
    lane.commit().unwrap();
    // A read by offset makes the index of a sealed segment.
    lane.logs[0].evict(0);
    lane.read_all(0, Offset(30), 20_000).unwrap();
    directory
}

fn check(root: &Path) -> Report {
    check_log_dir(&RealDisk, root, OFFLINE, &mut |_| {}).unwrap()
}

fn flip(path: &Path, byte: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[byte as usize] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn replica(root: &Path, index: i32) -> PathBuf {
    root.join(partition(index).to_string())
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn worst(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|finding| finding.severity != Severity::Note).collect()
}

#[test]
fn what_the_sudden_end_of_a_process_leaves_is_whole() {
    let directory = directory();
    let report = check(directory.path());
    assert!(report.is_whole(), "{:?}", report.findings);
    assert_eq!(report.findings, []);
    assert_eq!(report.replicas.len(), 2);
    let first = &report.replicas[0];
    assert_eq!((first.log_start, first.log_end), (Offset(0), Offset(140)));
    assert!(first.segments_count >= 3 && first.segments_end < first.log_end, "{first:?}");
    assert_eq!(first.batches_count, 70, "those in the segments and those in the journal behind them");
}

#[test]
fn a_check_changes_nothing() {
    let directory = directory();
    let listing = |root: &Path| {
        let mut all = Vec::new();
        let mut pending = vec![root.to_owned()];
        while let Some(next) = pending.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path.clone());
                    all.push((path, Vec::new()));
                } else {
                    let bytes = fs::read(&path).unwrap();
                    all.push((path, bytes));
                }
            }
        }
        all.sort();
        all
    };
    flip(&directory.path().join("checkpoint"), 50);
    let before = listing(directory.path());
    check(directory.path());
    assert!(listing(directory.path()) == before);
}

#[test]
fn damage_of_each_class_of_file_is_found_and_named() {
    type Pick = fn(&Path) -> (PathBuf, u64);
    let classes: &[(&str, FileKind, Severity, Pick)] = &[
        ("a sealed segment", FileKind::Segment, Severity::Damage, |root| {
            (files(&replica(root, 0), "log")[1].clone(), 100_000)
        }),
        ("the active segment's last block", FileKind::Segment, Severity::Damage, |root| {
            let state = Checkpoint::read(&RealDisk, root).unwrap().unwrap().value;
            let active = *state.replicas[0].segments.last().unwrap();
            let directory = replica(root, state.replicas[0].replica.partition.partition.0);
            (directory.join(format!("{:020}.log", active.base.0)), active.bytes - 5)
        }),
        ("block checksums", FileKind::Segment, Severity::Damage, |root| {
            (files(&replica(root, 1), "sum")[0].clone(), 5)
        }),
        ("an index", FileKind::Index, Severity::Note, |root| (files(&replica(root, 0), "index")[0].clone(), 40)),
        ("one copy of the checkpoint", FileKind::Checkpoint, Severity::Repairable, |root| {
            (root.join("checkpoint.copy"), 60)
        }),
        ("one copy of the identity", FileKind::MetaProperties, Severity::Repairable, |root| {
            (root.join("meta.properties"), 20)
        }),
        ("the tenure", FileKind::Tenure, Severity::Damage, |root| (root.join(".stonelog_tenure"), 45)),
        ("the scrub's state", FileKind::ScrubState, Severity::Repairable, |root| (root.join(".stonelog_scrub"), 45)),
        ("one copy of a journal file's header", FileKind::Journal, Severity::Repairable, |root| {
            (newest_journal(root), 10)
        }),
        // Not the last commit, and behind what the checkpoint covers.
        ("a commit of the journal", FileKind::Journal, Severity::Damage, |root| {
            (used_journals(root).into_iter().nth_back(1).unwrap(), 3 * 4096 + 100)
        }),
    ];
    for (what, kind, severity, pick) in classes {
        let directory = directory();
        let (path, byte) = pick(directory.path());
        flip(&path, byte);
        let report = check(directory.path());
        let found = report.findings.iter().find(|finding| finding.kind == *kind);
        let found = found.unwrap_or_else(|| panic!("{what}: {:?}", report.findings));
        assert_eq!(found.severity, *severity, "{what}: {found}");
        // Block checksums and their bytes accuse each other: what cannot be served is told.
        if !what.contains("checksums") {
            assert_eq!(found.path, path, "{what}");
        }
        assert_eq!(report.is_whole(), *severity == Severity::Note, "{what}");
        assert_eq!(worst(&report).len(), usize::from(*severity != Severity::Note), "{what}: {:?}", report.findings);
    }
}

/// The journal file of the newest generation: it holds what no checkpoint covers.
fn newest_journal(root: &Path) -> PathBuf {
    used_journals(root).pop().unwrap()
}

/// The journal's files that were put into use, oldest first; their names do not tell.
fn used_journals(root: &Path) -> Vec<PathBuf> {
    let generation = |path: &PathBuf| u64::from_le_bytes(fs::read(path).unwrap()[8..16].try_into().unwrap());
    let mut files = files(&root.join("journal"), "journal");
    files.retain(|path| generation(path) > 0);
    files.sort_by_key(generation);
    files
}

#[test]
fn both_copies_damaged_are_damage_and_a_missing_segment_is_named() {
    let directory = directory();
    let root = directory.path();
    flip(&root.join("meta.properties"), 20);
    flip(&root.join("meta.properties.copy"), 20);
    let gone = files(&replica(root, 1), "log")[0].clone();
    fs::remove_file(&gone).unwrap();
    fs::remove_file(files(&replica(root, 0), "sum")[0].clone()).unwrap();
    let report = check(root);
    let kinds: Vec<FileKind> = worst(&report).iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds[..3], [FileKind::MetaProperties, FileKind::MetaProperties, FileKind::Sums]);
    assert!(worst(&report).iter().all(|finding| finding.severity == Severity::Damage));
    let missing = worst(&report).into_iter().find(|finding| finding.path == gone).unwrap();
    assert!(missing.offsets.is_some_and(|(from, _)| from == Offset(0)), "{missing}");
}

#[test]
fn what_is_quarantined_is_told_although_no_byte_of_it_is_left_to_read() {
    let directory = directory();
    let mut lane = Lane::start_in(Arc::new(RealDisk), directory.path(), config()).unwrap();
    assert!(lane.logs[1].quarantine(Offset(10), Offset(14), Cause::Journal));
    lane.checkpoint().unwrap();
    drop(lane);
    let report = check(directory.path());
    let [hole] = worst(&report)[..] else { panic!("{:?}", report.findings) };
    assert_eq!((hole.partition, hole.offsets), (Some(partition(1)), Some((Offset(10), Offset(14)))));
    assert_eq!(report.replicas[1].damage_count, 1);
}

#[test]
fn a_torn_tail_is_no_damage_and_is_told_by_position_and_size() {
    let directory = directory();
    let root = directory.path();
    // The last commit of the journal, and so the newest thing written: nothing says that it was durable.
    let path = newest_journal(root);
    let mut commits = Vec::new();
    let mut visit = |found: stonelog_storage::journal::ReplayedEntry| commits.push(found.commit_position.0);
    let inspection = stonelog_storage::journal::inspect_file(&RealDisk, &path, &mut visit).unwrap();
    let base = inspection.files[0].header.unwrap().base.0;
    let last = commits.pop().unwrap() - base;
    flip(&path, last + 4096 + 7);
    let report = check(root);
    assert!(report.is_whole(), "{:?}", report.findings);
    let [torn] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((torn.kind, torn.position), (FileKind::Journal, Some(last)));
    assert_eq!(torn.bytes, Some(inspection.end.0 - base - last));
    assert!(torn.detail.contains("torn tail"));
}

#[test]
fn online_only_what_does_not_move_is_read_and_damage_there_is_found() {
    let directory = directory();
    let root = directory.path();
    let online = CheckOptions { access: Access::Online, ..OFFLINE };
    let check = || check_log_dir(&RealDisk, root, online, &mut |_| {}).unwrap();
    flip(&used_journals(root).into_iter().nth_back(1).unwrap(), 3 * 4096 + 100);
    assert!(check().is_whole(), "the journal is the broker's");
    flip(&files(&replica(root, 0), "log")[0], 70_000);
    let report = check();
    assert!(!report.is_whole());
    assert_eq!(worst(&report).len(), 1);
}

#[test]
fn a_directory_that_is_not_ours_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("letter.txt"), "hello").unwrap();
    assert!(check_log_dir(&RealDisk, directory.path(), OFFLINE, &mut |_| {}).is_err());
}

#[test]
fn dumped_batches_are_those_that_were_written() {
    let directory = directory();
    let root = directory.path();
    let mut offsets = Vec::new();
    let state = Checkpoint::read(&RealDisk, root).unwrap().unwrap().value;
    let sealed = state.replicas[0].segments.len() - 1;
    let logs = files(&replica(root, state.replicas[0].replica.partition.partition.0), "log");
    for path in &logs[..sealed] {
        assert!(matches!(read_file(&RealDisk, path).unwrap(), FileContents::Log));
        walk_log(&RealDisk, path, &mut |line| {
            assert!(line.is_intact);
            offsets.push(line.header.base_offset.0);
            true
        })
        .unwrap();
    }
    assert_eq!(offsets, (0..offsets.len() as i64).map(|n| n * 2).collect::<Vec<_>>());
    for path in files(&replica(root, 0), "sum") {
        let FileContents::Sums(sums) = read_file(&RealDisk, &path).unwrap() else { panic!("checksums") };
        assert!(!sums.is_empty());
        let sealed = &sums[..sums.len() - 1];
        assert!(sealed.iter().all(|sum| sum.computed == Some(sum.stored)), "{}", path.display());
    }
    let FileContents::Checkpoint(_, read) = read_file(&RealDisk, &root.join("checkpoint.copy")).unwrap() else {
        panic!("a checkpoint")
    };
    assert_eq!(*read, state);
    let FileContents::Index(index) = read_file(&RealDisk, &files(&replica(root, 0), "index")[0]).unwrap() else {
        panic!("an index")
    };
    assert!(!index.entries.is_empty());
}

#[test]
fn a_segment_that_no_checkpoint_has_covered_yet_says_that_its_checksums_are_on_their_way() {
    let disk = support::new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), config()).unwrap();
    lane.create(0);
    for n in 0..60 {
        lane.append(0, &Batch { seed: n, filler_bytes: 9_000, ..Batch::of(2) }, 0);
    }
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    let log = &lane.logs[0];
    let target = SegmentTarget::sealed(log.key().partition, &log.segments()[0]);
    let open = || SegmentScan::open(&disk, Path::new(support::ROOT), target, Depth::Batches).unwrap().unwrap();
    assert!(open().sums_wrong().is_some(), "the file alone looks damaged");
    assert!(lane.access.has_pending_sums(target.id));
    lane.checkpoint().unwrap();
    assert!(!lane.access.has_pending_sums(target.id));
    assert_eq!(open().sums_wrong(), None);
}

/// The device lost what the page cache still shows: only a read past the cache can find that.
#[test]
fn a_scan_finds_what_only_the_device_has_lost() {
    let disk = support::new_disk();
    let mut lane = Lane::start(Arc::new(disk.clone()), config()).unwrap();
    lane.create(0);
    for n in 0..60 {
        lane.append(0, &Batch { seed: n, filler_bytes: 9_000, ..Batch::of(2) }, 0);
    }
    lane.commit().unwrap();
    lane.flush(0).unwrap();
    lane.checkpoint().unwrap();
    let log = &lane.logs[0];
    let target = SegmentTarget::sealed(log.key().partition, &log.segments()[0]);
    let scan = |disk: &SimDisk| {
        let mut scan = SegmentScan::open(disk, Path::new(support::ROOT), target, Depth::Batches).unwrap().unwrap();
        while scan.step() > 0 {}
        scan.finish()
    };
    assert_eq!(scan(&disk).damage, []);
    // A bit decays; the right bytes are written once more, and a sync that fails takes them for written.
    let path = Path::new(support::ROOT).join(target.id.path(SegmentFile::Log));
    let bytes = disk.contents(&path);
    disk.flip_bit(&path, 70_000, 2);
    let file = disk.open(&path, Open::ReadWrite).unwrap();
    disk.fail(SimOperation::SyncData, ".log", 0, SimFault::LosesBytes);
    file.write_at(65_536, &[std::io::IoSlice::new(&bytes[65_536..73_728])]).unwrap();
    assert!(file.sync_data().is_err());
    lane.logs[0].evict(0);
    lane.read_all(0, Offset(0), 50_000).expect("the page cache shows what was written");
    let report = scan(&disk);
    let [damage] = report.damage[..] else { panic!("{report:?}") };
    assert!(damage.wrong.block && (damage.position..damage.position + damage.bytes).contains(&70_000), "{damage:?}");
}
