//! What the storage code relies on, checked on every implementation of `Disk`.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use stonelog_storage::disk::{Disk, Open, RealDisk, SimDisk};

fn on_each(check: impl Fn(&dyn Disk, &Path)) {
    let temporary = tempfile::tempdir().unwrap();
    check(&RealDisk, temporary.path());
    let sim = SimDisk::new();
    let directory = PathBuf::from("/d");
    sim.create_dir(&directory).unwrap();
    check(&sim, &directory);
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    disk.open(path, Open::CreateNew).unwrap().write_at(0, &[IoSlice::new(bytes)]).unwrap();
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

#[test]
fn gathered_writes_land_one_after_the_other() {
    on_each(|disk, directory| {
        let file = disk.open(&directory.join("f"), Open::CreateNew).unwrap();
        // More slices than one system call takes, of uneven lengths, some empty.
        let parts: Vec<Vec<u8>> = (0..2500_usize).map(|n| vec![n as u8; n % 7]).collect();
        let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        file.write_at(5, &slices).unwrap();
        let expected: Vec<u8> = std::iter::repeat_n(0, 5).chain(parts.concat()).collect();
        assert_eq!(read(disk, &directory.join("f")), expected);
    });
}

#[test]
fn reads_are_short_only_at_the_end() {
    on_each(|disk, directory| {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        write(disk, &directory.join("f"), &bytes);
        let file = disk.open(&directory.join("f"), Open::Read).unwrap();
        for (position, len) in [(0, 4096), (1, 5000), (9_000, 5000), (10_000, 10), (20_000, 1), (8192, 8192)] {
            let end = bytes.len().min(position + len);
            let expected = &bytes[position.min(end)..end];
            let mut cached = vec![0xee; len];
            assert_eq!(file.read_at(position as u64, &mut cached).unwrap(), expected.len());
            assert_eq!(cached[..expected.len()], *expected);
            let mut device = vec![0xee; len];
            assert_eq!(file.read_device_at(position as u64, &mut device).unwrap(), expected.len());
            assert_eq!(device[..expected.len()], *expected, "{position}+{len}");
        }
    });
}

#[test]
fn reads_that_do_not_wait_bring_everything_or_nothing() {
    on_each(|disk, directory| {
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
        write(disk, &directory.join("f"), &bytes);
        let file = disk.open(&directory.join("f"), Open::Read).unwrap();
        for (position, len) in [(0, 4096), (1, 5000), (8192, 1808)] {
            let mut now = vec![0xee; len];
            // A file system may not be able to tell what is in memory.
            match file.read_now_at(position as u64, &mut now) {
                Ok(()) => assert_eq!(now, bytes[position..position + len]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        for (position, len) in [(9_000, 5000), (10_000, 10), (20_000, 1)] {
            let beyond = file.read_now_at(position, &mut vec![0; len]).unwrap_err();
            assert_eq!(beyond.kind(), ErrorKind::WouldBlock, "{position}+{len}");
        }
    });
}

#[test]
fn seed_says_which_simulated_reads_do_not_wait() {
    let answers = |seed: Option<u64>| {
        let disk = SimDisk::new();
        write(&disk, Path::new("/f"), &[7; 100]);
        seed.into_iter().for_each(|seed| disk.seed_page_cache(seed));
        let file = disk.open(Path::new("/f"), Open::Read).unwrap();
        (0..64).map(|_| file.read_now_at(0, &mut [0; 100]).is_ok()).collect::<Vec<_>>()
    };
    assert!(answers(None).into_iter().all(|now| now));
    assert!(answers(Some(1)).contains(&true) && answers(Some(1)).contains(&false));
    assert_eq!(answers(Some(1)), answers(Some(1)));
    assert_ne!(answers(Some(1)), answers(Some(2)));
}

#[test]
fn large_device_reads_go_through_whole() {
    on_each(|disk, directory| {
        let bytes: Vec<u8> = (0..(3 << 20) + 123_u32).map(|n| (n / 7) as u8).collect();
        write(disk, &directory.join("f"), &bytes);
        let file = disk.open(&directory.join("f"), Open::Read).unwrap();
        let mut device = vec![0; bytes.len() + 10];
        assert_eq!(file.read_device_at(0, &mut device).unwrap(), bytes.len());
        assert!(device[..bytes.len()] == bytes);
    });
}

#[test]
fn allocation_gives_zeroes_and_length() {
    on_each(|disk, directory| {
        let file = disk.open(&directory.join("f"), Open::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(b"abc")]).unwrap();
        file.allocate(0, 9000).unwrap();
        assert_eq!(file.len().unwrap(), 9000);
        file.allocate(0, 100).unwrap();
        assert_eq!(file.len().unwrap(), 9000);
        let bytes = read(disk, &directory.join("f"));
        assert_eq!(bytes[..4], *b"abc\0");
        assert!(bytes[3..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn reserved_space_does_not_move_the_end() {
    on_each(|disk, directory| {
        let file = disk.open(&directory.join("f"), Open::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(b"abc")]).unwrap();
        file.reserve(3, 100_000).unwrap();
        assert_eq!(file.len().unwrap(), 3);
        file.write_at(3, &[IoSlice::new(b"def")]).unwrap();
        file.set_len(6).unwrap();
        assert_eq!(read(disk, &directory.join("f")), b"abcdef");
    });
}

#[test]
fn cut_bytes_never_come_back() {
    on_each(|disk, directory| {
        let file = disk.open(&directory.join("f"), Open::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(&[7; 10_000])]).unwrap();
        file.set_len(5000).unwrap();
        file.set_len(9000).unwrap();
        let bytes = read(disk, &directory.join("f"));
        assert_eq!(bytes.len(), 9000);
        assert!(bytes[..5000].iter().all(|byte| *byte == 7));
        assert!(bytes[5000..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn names_behave() {
    on_each(|disk, directory| {
        let (a, b, sub) = (directory.join("a"), directory.join("b"), directory.join("sub"));
        assert!(!disk.exists(&a).unwrap());
        assert_eq!(disk.open(&a, Open::Read).err().unwrap().kind(), ErrorKind::NotFound);
        write(disk, &a, b"one");
        assert_eq!(disk.open(&a, Open::CreateNew).err().unwrap().kind(), ErrorKind::AlreadyExists);
        write(disk, &b, b"two");
        let open_before = disk.open(&a, Open::Read).unwrap();
        disk.rename(&a, &b).unwrap();
        assert_eq!(read(disk, &b), b"one");
        assert!(!disk.exists(&a).unwrap());
        let mut bytes = [0; 3];
        open_before.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, *b"one", "an open file survives its renaming");
        disk.create_dir(&sub).unwrap();
        assert_eq!(disk.create_dir(&sub).err().unwrap().kind(), ErrorKind::AlreadyExists);
        write(disk, &sub.join("inner"), b"");
        assert_eq!(disk.remove_dir(&sub).err().unwrap().kind(), ErrorKind::DirectoryNotEmpty);
        let mut listed = disk.list(directory).unwrap();
        listed.sort_by(|x, y| x.name.cmp(&y.name));
        let seen: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.len)).collect();
        assert_eq!(seen, [("b", false, 3), ("sub", true, 0)]);
        disk.remove_file(&sub.join("inner")).unwrap();
        disk.remove_dir(&sub).unwrap();
        disk.remove_file(&b).unwrap();
        assert_eq!(disk.remove_file(&b).err().unwrap().kind(), ErrorKind::NotFound);
        disk.sync_dir(directory).unwrap();
        assert_eq!(disk.list(directory).unwrap(), []);
        assert!(disk.sync_dir(&sub).is_err());
    });
}

#[test]
fn a_directory_has_one_owner_at_a_time() {
    on_each(|disk, directory| {
        let held = disk.lock_dir(directory).unwrap();
        assert_eq!(disk.lock_dir(directory).err().unwrap().kind(), ErrorKind::WouldBlock);
        drop(held);
        assert!(disk.lock_dir(directory).is_ok());
    });
}

#[test]
fn a_file_opened_for_reading_refuses_writes() {
    on_each(|disk, directory| {
        write(disk, &directory.join("f"), b"abc");
        let file = disk.open(&directory.join("f"), Open::Read).unwrap();
        assert!(file.write_at(0, &[IoSlice::new(b"x")]).is_err());
        assert_eq!(read(disk, &directory.join("f")), b"abc");
    });
}

#[test]
fn what_was_synced_survives_the_cache() {
    on_each(|disk, directory| {
        let path = directory.join("f");
        let file = disk.open(&path, Open::CreateNew).unwrap();
        file.write_at(100, &[IoSlice::new(&[7; 9000])]).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(directory).unwrap();
        file.write_at(4096, &[IoSlice::new(&[8; 10])]).unwrap();
        let mut device = vec![0; 9100];
        assert_eq!(file.read_device_at(0, &mut device).unwrap(), 9100);
        assert_eq!((device[0], device[99], device[100], device[9099]), (0, 0, 7, 7));
        assert_eq!((device[4096], device[4106]), (8, 7), "a device read sees what was written before it");
    });
}

#[test]
fn overlapping_writes_leave_the_newest_bytes() {
    on_each(|disk, directory| {
        let path = directory.join("f");
        let file = disk.open(&path, Open::CreateNew).unwrap();
        let mut expected = vec![0; 3 * 4096];
        for (round, (at, len)) in
            [(0, 3 * 4096), (4000, 200), (4095, 2), (1, 1), (8191, 4096), (512, 512), (0, 0)].into_iter().enumerate()
        {
            let bytes = vec![round as u8 + 1; len];
            expected[at..at + len].copy_from_slice(&bytes);
            file.write_at(at as u64, &[IoSlice::new(&bytes)]).unwrap();
            if round % 2 == 0 {
                file.sync_data().unwrap();
            }
        }
        assert_eq!(read(disk, &path), expected);
    });
}

#[test]
fn a_removed_file_is_read_by_those_who_have_it_open() {
    on_each(|disk, directory| {
        let path = directory.join("f");
        write(disk, &path, b"abc");
        let file = disk.open(&path, Open::ReadWrite).unwrap();
        disk.remove_file(&path).unwrap();
        disk.sync_dir(directory).unwrap();
        write(disk, &path, b"other");
        file.write_at(1, &[IoSlice::new(b"x")]).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [0; 3];
        assert_eq!(file.read_at(0, &mut bytes).unwrap(), 3);
        assert_eq!(bytes, *b"axc");
        assert_eq!(read(disk, &path), b"other");
    });
}

#[test]
fn a_renamed_directory_takes_its_files_along() {
    on_each(|disk, directory| {
        let (from, to) = (directory.join("from"), directory.join("to"));
        disk.create_dir(&from).unwrap();
        write(disk, &from.join("f"), b"abc");
        disk.rename(&from, &to).unwrap();
        disk.sync_dir(directory).unwrap();
        assert_eq!(read(disk, &to.join("f")), b"abc");
        assert!(!disk.exists(&from).unwrap());
    });
}
