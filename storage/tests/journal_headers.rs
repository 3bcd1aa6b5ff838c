//! What a journal's file is when its header does not say, and what becomes of its name: nothing.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod journal_support;

use std::path::Path;

use journal_support::{
    BLOCK, DIRECTORY, FILE_HEADER, append, commit_at, file_of, from_start, in_use, open, reopen, several_files,
    three_commits, unused_files,
};
use stonelog_storage::disk::{Disk, Open, SimDisk, SimFault, SimOperation, Survival, Tearing};
use stonelog_storage::journal::{Hurt, ReplayFrom};

#[test]
fn a_damaged_file_header_is_told_by_its_copy_or_the_first_commit_and_without_them_hurts_everyone() {
    for damaged in [&[20][..], &[BLOCK + 20], &[20, BLOCK + 20]] {
        let (disk, entries) = three_commits(true);
        damaged.iter().for_each(|byte| disk.flip_bit(&file_of(1), *byte, 0));
        let (found, ends) = reopen(&disk);
        assert_eq!(found, entries, "{damaged:?}");
        assert!(ends.is_proved(), "{damaged:?}: {ends:?}");
    }
    // Also where they are zeroes: what was committed is not taken for a spare.
    let (disk, entries) = three_commits(true);
    disk.overwrite(&file_of(1), 0, &[0; BLOCK as usize]);
    disk.overwrite(&file_of(1), BLOCK, &[0; BLOCK as usize]);
    assert_eq!(reopen(&disk).0, entries);
    for byte in [0, 4, 9, 17, 25, 33, 41, 45, 49, 57, 70, 110] {
        let (disk, _) = three_commits(true);
        [20, BLOCK + 20, FILE_HEADER + byte].iter().for_each(|byte| disk.flip_bit(&file_of(1), *byte, 0));
        let (found, ends) = reopen(&disk);
        assert_eq!(found, [], "byte {byte}");
        assert!(ends.damage.iter().any(|damage| damage.hurt == Hurt::All), "byte {byte}: {ends:?}");
    }
}

#[test]
fn a_file_that_somebody_cut_short_hurts_everyone_though_its_first_commit_is_whole() {
    let (disk, _) = three_commits(true);
    disk.kill();
    let file = disk.open(&file_of(1), Open::ReadWrite).unwrap();
    file.set_len(commit_at(2)).unwrap();
    file.sync_data().unwrap();
    drop(file);
    let (_, ends) = reopen(&disk);
    assert!(ends.damage.iter().any(|damage| damage.hurt == Hurt::All), "{ends:?}");
}

#[test]
fn an_empty_file_was_no_spare() {
    for len in [0, FILE_HEADER, commit_at(2) + 1] {
        let (disk, _) = three_commits(true);
        disk.kill();
        let file = disk.open(&file_of(1), Open::ReadWrite).unwrap();
        file.set_len(len).unwrap();
        file.sync_data().unwrap();
        drop(file);
        [20, BLOCK + 20].iter().filter(|byte| **byte < len).for_each(|byte| disk.flip_bit(&file_of(1), *byte, 0));
        let (_, ends) = reopen(&disk);
        assert!(ends.damage.iter().any(|damage| damage.hurt == Hurt::All), "{len} bytes: {ends:?}");
    }
}

#[test]
fn a_damaged_file_is_put_aside_when_a_checkpoint_has_covered_what_could_be_read() {
    let (disk, _) = three_commits(true);
    [20, BLOCK + 20, FILE_HEADER].iter().for_each(|byte| disk.flip_bit(&file_of(1), *byte, 0));
    let (journal, _) = open(&disk, from_start()).unwrap();
    assert!(!journal.ends.is_proved());
    // Nothing is covered yet: another start has to judge anew.
    journal.maintenance.recycle(from_start().position).unwrap();
    let (_, ends) = reopen(&disk);
    assert!(!ends.is_proved());
    let (journal, _) = open(&disk, from_start()).unwrap();
    let covered = journal.flusher.durable().position;
    journal.maintenance.recycle(covered).unwrap();
    drop(journal);
    disk.crash_to(Survival::Nothing);
    let (journal, _) = open(&disk, ReplayFrom { position: covered, recovery_epoch: 2 }).unwrap();
    assert!(journal.ends.is_proved(), "{:?}", journal.ends);
    let kept = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().filter(|entry| entry.name.ends_with(".damaged"));
    assert_eq!(kept.count(), 1, "somebody may want to look at it");
}

/// What the power leaves of a header that was being written may be neither the old one nor the new: nothing was committed
/// in the file since, whatever it is.
#[test]
fn a_header_torn_while_its_file_is_put_into_use_hurts_nobody() {
    for is_recycled in [false, true] {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk, from_start()).unwrap();
        while journal.maintenance.prepare_spare().unwrap() {}
        let mut replay_from = from_start();
        let mut written = Vec::new();
        if is_recycled {
            let mut last = None;
            for n in 0..20 {
                last = Some(journal.writer.write(&[append(0, n, 15_000)]).unwrap());
                journal.flusher.sync().unwrap();
            }
            let last = last.unwrap();
            assert!(journal.maintenance.recycle(last.start).unwrap() > 3);
            replay_from = ReplayFrom { position: last.start, recovery_epoch: 1 };
            written.push(append(0, 19, 15_000));
        }
        // The next file's header is written and, as the power goes, not synced.
        let mut next = 20;
        loop {
            assert!(next < 40, "a file has an end");
            disk.cut_power_at(disk.changes() + 2);
            let entry = append(0, next, 15_000);
            let is_dead = journal.writer.write(std::slice::from_ref(&entry)).is_err();
            if is_dead {
                break;
            }
            disk.cut_power_at(u64::MAX);
            journal.flusher.sync().unwrap();
            written.push(entry);
            next += 1;
        }
        drop(journal);
        disk.crash_to(Survival::Everything);
        let newest = in_use(&disk).pop().unwrap();
        for copy in 0..2 {
            disk.overwrite(&newest, copy * BLOCK, &[0x5a; BLOCK as usize]);
        }
        let (journal, replayed) = open(&disk, replay_from).unwrap();
        assert!(journal.ends.is_proved(), "recycled {is_recycled}: {:?}", journal.ends);
        let found: Vec<_> = replayed.into_iter().map(|found| found.entry).collect();
        assert_eq!(found, written, "recycled {is_recycled}");
    }
}

/// A device that loses writes, and says nothing, leaves the header of a file's former life, which a checkpoint covers.
#[test]
fn a_file_whose_new_header_never_reached_the_device_is_told_by_its_first_commit() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    while journal.maintenance.prepare_spare().unwrap() {}
    let mut last = None;
    for n in 0..20 {
        last = Some(journal.writer.write(&[append(0, n, 15_000)]).unwrap());
        journal.flusher.sync().unwrap();
    }
    let last = last.unwrap();
    assert!(journal.maintenance.recycle(last.start).unwrap() > 3);
    let replay_from = ReplayFrom { position: last.start, recovery_epoch: 1 };
    let mut written = vec![append(0, 19, 15_000)];
    let headers = |disk: &SimDisk| -> Vec<_> {
        in_use(disk).into_iter().map(|path| (disk.contents(&path)[..2 * BLOCK as usize].to_vec(), path)).collect()
    };
    let former = headers(&disk);
    for n in 20..24 {
        written.push(append(0, n, 15_000));
        journal.writer.write(&written[written.len() - 1..]).unwrap();
        journal.flusher.sync().unwrap();
    }
    drop(journal);
    disk.crash_to(Survival::Nothing);
    let rewritten = former.into_iter().filter(|(bytes, path)| !disk.contents(path).starts_with(bytes));
    let mut lost = 0;
    for (bytes, path) in rewritten.collect::<Vec<_>>() {
        let (first, copy) = bytes.split_at(BLOCK as usize);
        disk.overwrite(&path, 0, first);
        disk.overwrite(&path, BLOCK, copy);
        lost += 1;
    }
    assert!(lost > 0, "it went on in a file that had been freed");
    let (journal, replayed) = open(&disk, replay_from).unwrap();
    assert!(journal.ends.is_proved(), "{:?}", journal.ends);
    assert_eq!(replayed.into_iter().map(|found| found.entry).collect::<Vec<_>>(), written);
}

/// The first commit of a file is the one that a power cut tears most often: each start begins a new file. Once the file is
/// covered it is put into use again, and if the power tears its header then, the remains must not be taken for damage.
#[test]
fn a_header_torn_over_the_remains_of_a_torn_first_commit_hurts_nobody() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    while journal.maintenance.prepare_spare().unwrap() {}
    // The first file is full, and the first commit of the next one is torn.
    for n in 0..2 {
        journal.writer.write(&[append(0, n, 15_000)]).unwrap();
        journal.flusher.sync().unwrap();
    }
    drop(journal);
    disk.kill();
    let torn = in_use(&disk).pop().unwrap();
    disk.flip_bit(&torn, FILE_HEADER + 70, 1);
    let (mut journal, replayed) = open(&disk, from_start()).unwrap();
    assert_eq!(replayed.len(), 1);
    let tail = journal.ends.torn_tail.clone().expect("a torn tail");
    assert_eq!(tail.path, torn);
    // Covered, the file is kept for its next use, and has it.
    while journal.maintenance.prepare_spare().unwrap() {}
    let written = journal.writer.write(&[append(0, 1, 15_000)]).unwrap();
    journal.flusher.sync().unwrap();
    assert!(journal.maintenance.recycle(written.start).unwrap() >= 2);
    disk.record_images();
    for n in 2..12 {
        journal.writer.write(&[append(0, n, 15_000)]).unwrap();
        journal.flusher.sync().unwrap();
    }
    drop(journal);
    let images = disk.take_images();
    let replay_from = ReplayFrom { position: written.start, recovery_epoch: 2 };
    let mut torn_headers = 0;
    for image in images.iter().filter(|image| image.path == torn) {
        for seed in 0..60 {
            let left = image.after(Survival::Some { seed, tearing: Tearing::Garbage });
            let bytes = left.contents(&torn);
            torn_headers +=
                usize::from(!bytes.starts_with(b"SLJRNL") && !bytes[BLOCK as usize..].starts_with(b"SLJRNL"));
            let (journal, _) = open(&left, replay_from).unwrap();
            assert!(!journal.ends.hurts_everyone(), "change {}, seed {seed}: {:?}", image.change, journal.ends);
        }
    }
    assert!(torn_headers > 0, "the file was put into use again, and its header torn");
}

/// Where nothing can be reserved ahead, space runs out when the zeroes of a spare are written back. Nothing is lost with
/// the file, which is thrown away.
#[test]
fn a_spare_that_finds_no_space_when_it_is_synced_is_no_fault() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    disk.fail(SimOperation::SyncData, ".new", 0, SimFault::StorageFull);
    let before = disk.list(Path::new(DIRECTORY)).unwrap().len();
    assert!(journal.maintenance.prepare_spare().unwrap_err().is_out_of_space());
    assert_eq!(disk.list(Path::new(DIRECTORY)).unwrap().len(), before);
    assert!(journal.maintenance.prepare_spare().unwrap());
    journal.writer.write(&[append(0, 1, 1000)]).unwrap();
    journal.flusher.sync().unwrap();
    assert_eq!(reopen(&disk).0, [append(0, 1, 1000)]);
}

#[test]
fn putting_a_file_into_use_takes_no_room_for_names() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    while journal.maintenance.prepare_spare().unwrap() {}
    let before: Vec<_> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
    for operation in [SimOperation::Create, SimOperation::Rename, SimOperation::Allocate] {
        disk.fail(operation, DIRECTORY, 0, SimFault::StorageFull);
    }
    // The first file is small, and the writer takes a spare.
    let entries = [append(0, 1, 15_000), append(0, 2, 15_000)];
    for entry in &entries {
        journal.writer.write(std::slice::from_ref(entry)).unwrap();
        journal.flusher.sync().unwrap();
    }
    assert_eq!(in_use(&disk).len(), 2, "it went on in another file");
    assert_eq!(disk.waiting_faults(), 3, "nothing was asked of the file system that may have no room");
    let after: Vec<_> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(after, before, "a name is for life");
    // What makes a spare meets them, one after the other, and stores nothing.
    for _ in 0..3 {
        assert!(journal.maintenance.prepare_spare().unwrap_err().is_out_of_space());
        assert_eq!(disk.list(Path::new(DIRECTORY)).unwrap().len(), before.len());
    }
    assert!(journal.maintenance.prepare_spare().unwrap());
    assert_eq!(reopen(&disk).0, entries);
}

/// Earlier releases named a file in use by its generation, and a spare otherwise, until they put it into use.
#[test]
fn a_journal_with_the_names_of_an_earlier_release_is_read_and_goes_on() {
    let (disk, mut entries) = several_files();
    {
        let (journal, _) = open(&disk, from_start()).unwrap();
        assert!(journal.maintenance.prepare_spare().unwrap());
    }
    disk.kill();
    let spares = unused_files(&disk);
    assert!(!spares.is_empty());
    let rename = |from: &Path, name: String| disk.rename(from, &Path::new(DIRECTORY).join(name)).unwrap();
    spares.iter().zip(1..).for_each(|(path, number)| rename(path, format!("{number:020}.spare")));
    let files = in_use(&disk);
    files.iter().zip(1..).for_each(|(path, number)| rename(path, format!("{number}.moving")));
    for number in 1..=files.len() as u64 {
        rename(&Path::new(DIRECTORY).join(format!("{number}.moving")), format!("{number:020}.journal"));
    }
    disk.sync_dir(Path::new(DIRECTORY)).unwrap();
    // A start that ended while it put the spare into use.
    disk.overwrite(&Path::new(DIRECTORY).join(format!("{:020}.spare", 1)), 0, &[0x5a; BLOCK as usize]);
    for n in 0..12 {
        let (mut journal, replayed) = open(&disk, from_start()).unwrap();
        assert!(journal.ends.is_proved(), "{:?}", journal.ends);
        assert_eq!(replayed.into_iter().map(|found| found.entry).collect::<Vec<_>>(), entries);
        let entry = append(0, 1000 + n, 15_000);
        journal.writer.write(std::slice::from_ref(&entry)).unwrap();
        journal.flusher.sync().unwrap();
        entries.push(entry);
        disk.kill();
    }
}
