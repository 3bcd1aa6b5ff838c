//! The simulated disk loses and fails as it should: what the crash tests prove rests on this.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use stonelog_storage::disk::{Disk, Open, SimDisk, SimFault, SimOperation, Survival, Tearing};

fn read(disk: &SimDisk, path: &str) -> Vec<u8> {
    disk.contents(Path::new(path))
}

fn synced_file(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let path = PathBuf::from(path);
    let file = disk.open(&path, Open::CreateNew).unwrap();
    file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(path.parent().unwrap()).unwrap();
}

#[test]
fn a_crash_keeps_what_was_synced_and_some_subset_of_the_rest() {
    let mut kept_counts = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::new();
        synced_file(&disk, "/f", &[1; 8 * 4096]);
        let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
        file.write_at(2 * 4096, &[IoSlice::new(&[2; 4 * 4096])]).unwrap();
        disk.crash(seed, Tearing::Blocks);
        let bytes = read(&disk, "/f");
        assert_eq!(bytes.len(), 8 * 4096);
        for (index, block) in bytes.chunks(4096).enumerate() {
            assert!(block.iter().all(|byte| *byte == block[0]), "no block is torn");
            assert!(block[0] == 1 || (2..6).contains(&index));
        }
        kept_counts.insert(bytes.chunks(4096).filter(|block| block[0] == 2).count());
        assert!(file.sync_data().is_err(), "a file opened before the crash is dead");
    }
    assert!(kept_counts.len() >= 4, "{kept_counts:?}");
}

#[test]
fn sectors_tear_when_asked() {
    let torn = (0..20).any(|seed| {
        let disk = SimDisk::new();
        synced_file(&disk, "/f", &[1; 4096]);
        disk.open(Path::new("/f"), Open::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
        disk.crash(seed, Tearing::Sectors);
        let bytes = read(&disk, "/f");
        bytes.contains(&1) && bytes.contains(&2)
    });
    assert!(torn);
}

#[test]
fn what_was_being_written_may_hold_neither_the_old_nor_the_new_bytes() {
    let crashed = |tearing| {
        (0..20).any(|seed| {
            let disk = SimDisk::new();
            synced_file(&disk, "/f", &[1; 8192]);
            disk.open(Path::new("/f"), Open::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
            disk.crash(seed, tearing);
            let bytes = read(&disk, "/f");
            assert_eq!(bytes[4096..], [1; 4096], "nobody wrote there");
            bytes.iter().any(|byte| ![1, 2].contains(byte))
        })
    };
    assert!(crashed(Tearing::Garbage) && !crashed(Tearing::Sectors));
}

#[test]
fn names_are_lost_without_a_directory_sync() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let disk = SimDisk::new();
        synced_file(&disk, "/old", b"x");
        let file = disk.open(Path::new("/new"), Open::CreateNew).unwrap();
        file.sync_data().unwrap();
        disk.rename(Path::new("/old"), Path::new("/renamed")).unwrap();
        disk.crash(seed, Tearing::Blocks);
        let names: Vec<String> = disk.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
        outcomes.insert(names.join(" "));
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["new old", "new renamed", "old"]);
}

#[test]
fn a_failed_sync_loses_the_bytes_and_the_next_says_ok() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 4096]);
    disk.fail(SimOperation::SyncData, "f", 0, SimFault::LosesBytes);
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    file.write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    assert_eq!(file.sync_data().err().unwrap().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    assert_eq!(read(&disk, "/f"), [2; 4096], "the cache shows the new bytes");
    let mut device = [0; 4096];
    file.read_device_at(0, &mut device).unwrap();
    assert_eq!(device, [1; 4096], "the device keeps the old ones");
    disk.crash(1, Tearing::Blocks);
    assert_eq!(read(&disk, "/f"), [1; 4096]);
}

#[test]
fn capacity_is_refused_before_anything_is_written() {
    let disk = SimDisk::new();
    disk.set_capacity(Some(2 * 4096));
    let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
    file.allocate(0, 4096).unwrap();
    assert_eq!(file.write_at(0, &[IoSlice::new(&[1; 3 * 4096])]).err().unwrap().kind(), ErrorKind::StorageFull);
    assert_eq!(read(&disk, "/f"), [0; 4096]);
    file.write_at(0, &[IoSlice::new(&[1; 2 * 4096])]).unwrap();
    disk.remove_file(Path::new("/f")).unwrap();
    let other = disk.open(Path::new("/g"), Open::CreateNew).unwrap();
    other.allocate(0, 2 * 4096).unwrap();
}

#[test]
fn the_power_goes_at_the_chosen_change_and_stays_away() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 4096]);
    let before = disk.changes();
    disk.cut_power_at(before + 1);
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    file.write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    assert!(file.sync_data().is_err());
    assert!(disk.is_dead() && file.read_at(0, &mut [0]).is_err());
    let survived: Vec<bool> = (0..16)
        .map(|seed| {
            let disk = SimDisk::new();
            synced_file(&disk, "/f", &[1; 4096]);
            disk.open(Path::new("/f"), Open::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
            disk.crash(seed, Tearing::Blocks);
            read(&disk, "/f")[0] == 2
        })
        .collect();
    assert!(survived.contains(&true) && survived.contains(&false), "the interrupted sync decided nothing");
}

#[test]
fn what_survives_can_be_chosen() {
    let made = || {
        let disk = SimDisk::new();
        synced_file(&disk, "/old", &[1; 4096]);
        disk.open(Path::new("/old"), Open::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
        disk.rename(Path::new("/old"), Path::new("/new")).unwrap();
        disk
    };
    let after = |survival| {
        let disk = made();
        disk.crash_to(survival);
        let is_renamed = disk.exists(Path::new("/new")).unwrap();
        (is_renamed, read(&disk, if is_renamed { "/new" } else { "/old" })[0])
    };
    assert_eq!(after(Survival::Nothing), (false, 1));
    assert_eq!(after(Survival::Everything), (true, 2));
    assert_eq!(after(Survival::Names), (true, 1));
    assert_eq!(after(Survival::Bytes), (false, 2));
}

#[test]
fn an_image_shows_the_disk_as_it_was_in_each_change() {
    let disk = SimDisk::new();
    disk.record_images();
    synced_file(&disk, "/f", &[1; 4096]);
    disk.open(Path::new("/f"), Open::ReadWrite).unwrap().write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    let images = disk.take_images();
    let seen: Vec<_> = images.iter().map(|image| (image.change, image.operation)).collect();
    use SimOperation::{Create, SyncData, SyncDir, Write};
    assert_eq!(seen, [(0, Create), (1, Write), (2, SyncData), (3, SyncDir), (4, Write)]);
    let first = |at: usize, survival| {
        let disk = images[at].after(survival);
        disk.exists(Path::new("/f")).unwrap().then(|| read(&disk, "/f").first().copied())
    };
    assert_eq!(first(0, Survival::Everything), Some(None), "created, and nothing in it yet");
    assert_eq!(first(2, Survival::Everything), Some(Some(1)));
    assert_eq!(first(3, Survival::Nothing), None, "the interrupted sync of the directory decided nothing");
    assert_eq!((first(4, Survival::Nothing), first(4, Survival::Everything)), (Some(Some(1)), Some(Some(2))));
    assert_eq!(read(&disk, "/f"), [2; 4096], "the disk itself went on");
}

#[test]
fn a_fork_goes_its_own_way() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 4096]);
    let fork = disk.fork();
    fork.flip_bit(Path::new("/f"), 0, 1);
    assert_eq!((read(&disk, "/f")[0], read(&fork, "/f")[0]), (1, 3));
}

#[test]
fn a_lost_write_is_seen_until_the_cache_is_dropped() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 2 * 4096]);
    disk.fail(SimOperation::Write, "f", 0, SimFault::Lost);
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    file.write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&disk, "/f")[0], 2);
    let mut device = [0; 1];
    file.read_device_at(0, &mut device).unwrap();
    assert_eq!(device, [1]);
    disk.drop_caches();
    assert_eq!(read(&disk, "/f")[0], 1);
}

#[test]
fn a_misdirected_write_hits_another_block() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 3 * 4096]);
    disk.fail(SimOperation::Write, "f", 0, SimFault::Misdirected { blocks: 2 });
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    file.write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    file.sync_data().unwrap();
    disk.crash_to(Survival::Nothing);
    let bytes = read(&disk, "/f");
    assert_eq!((bytes.len(), bytes[0], bytes[4096], bytes[2 * 4096]), (3 * 4096, 1, 1, 2));
}

#[test]
fn a_short_write_leaves_its_first_half() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 4096]);
    disk.fail(SimOperation::Write, "f", 0, SimFault::Short);
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    assert!(file.write_at(0, &[IoSlice::new(&[2; 4096])]).is_err());
    let bytes = read(&disk, "/f");
    assert!(bytes[..2048] == [2; 2048] && bytes[2048..] == [1; 2048]);
}

#[test]
fn a_sync_that_is_ignored_says_ok_and_keeps_nothing() {
    let disk = SimDisk::new();
    synced_file(&disk, "/f", &[1; 4096]);
    disk.fail(SimOperation::SyncData, "f", 0, SimFault::Ignored);
    disk.fail(SimOperation::SyncDir, "", 0, SimFault::Ignored);
    let file = disk.open(Path::new("/f"), Open::ReadWrite).unwrap();
    file.write_at(0, &[IoSlice::new(&[2; 4096])]).unwrap();
    file.sync_data().unwrap();
    disk.rename(Path::new("/f"), Path::new("/g")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk.crash_to(Survival::Nothing);
    assert_eq!(read(&disk, "/f"), [1; 4096]);
}
