//! The journal on a disk that decays, misplaces, fills up and fails: what is damage, what is a torn tail, who is hurt.

#![allow(clippy::unwrap_used, reason = "a test that meets an error has failed")]

mod journal_support;

use std::path::Path;

use journal_support::{
    BLOCK, Choices, DIRECTORY, FILE_HEADER, OPTIONS, any_entry, append, commit_at, file_of, from_start, in_use, key,
    open, reopen, several_files, three_commits, unused_files,
};
use stonelog_protocol::Offset;
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, SimDisk, SimFault, SimOperation, Tearing};
use stonelog_storage::journal::{
    Change, Hurt, HurtRange, JournalDamage, JournalEntry, JournalPosition, RecoveryEnd, ReplayFrom,
};

fn damage(index: u64, hurt: Hurt) -> RecoveryEnd {
    let position = JournalPosition(commit_at(index));
    let place = Some((file_of(1), commit_at(index)));
    RecoveryEnd { damage: vec![JournalDamage { position, place, hurt }], torn_tail: None }
}

/// What the entry of [`three_commits`] with that number loses.
fn range(index: i32) -> Hurt {
    let (start, end) = (Offset(i64::from(index)), Offset(i64::from(index) + 1));
    Hurt::Ranges(vec![HurtRange { replica: key(index), start, end }])
}

#[test]
fn damaged_batches_hurt_only_the_ranges_the_header_names() {
    let (disk, entries) = three_commits(false);
    disk.flip_bit(&file_of(1), commit_at(1) + 500, 3);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, [entries[0].clone(), entries[2].clone()]);
    assert_eq!(ends, damage(1, range(1)));
    let (again, ends) = reopen(&disk);
    assert_eq!((again.len(), ends), (2, damage(1, range(1))), "and it is reported again");
}

#[test]
fn a_damaged_header_hurts_everyone_and_replay_goes_on_behind_it() {
    for byte in [0, 5, 9, 17, 25, 33, 41, 45, 49, 57, 61, 70, 110] {
        let (disk, entries) = three_commits(false);
        disk.flip_bit(&file_of(1), commit_at(1) + byte, 1);
        let (found, ends) = reopen(&disk);
        assert_eq!(found, [entries[0].clone(), entries[2].clone()], "byte {byte}");
        assert_eq!(ends, damage(1, Hurt::All), "byte {byte}");
    }
}

#[test]
fn the_last_commit_is_a_torn_tail_until_a_later_one_names_it() {
    let (disk, entries) = three_commits(false);
    disk.flip_bit(&file_of(1), commit_at(2) + 500, 3);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, entries[..2]);
    assert!(ends.damage.is_empty());
    let torn = ends.torn_tail.unwrap();
    assert_eq!((torn.position, torn.bytes), (JournalPosition(commit_at(2)), BLOCK));

    let (disk, entries) = three_commits(true);
    disk.flip_bit(&file_of(1), commit_at(2) + 500, 3);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, entries[..2]);
    assert_eq!(ends, damage(2, range(2)));
}

#[test]
fn a_flipped_bit_in_a_spare_that_was_never_used_hurts_nobody() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    journal.writer.write(&[append(0, 1, 1000)]).unwrap();
    journal.flusher.sync().unwrap();
    assert!(journal.maintenance.prepare_spare().unwrap());
    let spare = unused_files(&disk).pop().unwrap();
    // In a copy of the header, and where the first commit would be.
    for byte in [20, BLOCK + 20, FILE_HEADER + 20] {
        let disk = disk.fork();
        disk.flip_bit(&spare, byte, 1);
        let (found, ends) = reopen(&disk);
        assert_eq!(found.len(), 1);
        assert!(ends.is_proved(), "byte {byte}: {ends:?}");
    }
}

#[test]
fn what_a_recovery_dropped_stays_dropped() {
    let (disk, entries) = three_commits(false);
    disk.flip_bit(&file_of(1), commit_at(2) + 500, 3);
    assert_eq!(reopen(&disk).0, entries[..2]);
    // The bit flips back, as a flaky device's may: the commit is whole again, and must not come back.
    disk.flip_bit(&file_of(1), commit_at(2) + 500, 3);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, entries[..2]);
    assert!(ends.is_proved(), "{ends:?}");
}

#[test]
fn the_last_commit_of_an_earlier_start_is_damage_when_it_fails() {
    let (disk, entries) = three_commits(false);
    assert!(reopen(&disk).1.is_proved());
    disk.flip_bit(&file_of(1), commit_at(2) + 500, 3);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, entries[..2]);
    assert_eq!(ends, damage(2, range(2)));
}

#[test]
fn a_misplaced_or_stale_block_is_never_taken_for_a_commit() {
    let (disk, entries) = three_commits(true);
    let file = file_of(1);
    let bytes = disk.contents(&file);
    let first = bytes[commit_at(0) as usize..commit_at(1) as usize].to_vec();
    disk.overwrite(&file, commit_at(1), &first);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, [entries[0].clone(), entries[2].clone()]);
    assert_eq!(ends, damage(1, Hurt::All));
    // Beyond the end a copy of a commit is stale rubbish.
    let (disk, entries) = three_commits(true);
    disk.overwrite(&file, commit_at(4), &first);
    let (found, ends) = reopen(&disk);
    assert_eq!(found, entries);
    assert!(ends.is_proved(), "{ends:?}");
}

/// Space is allocated before it is written: a header may reach the device alone, with the zeroes of before behind it.
#[test]
fn zeroes_behind_a_header_are_not_its_batches() {
    for index in [1, 2] {
        let (disk, mut entries) = three_commits(false);
        let start = commit_at(index as u64);
        let batches = start + 64 + 52;
        disk.overwrite(&file_of(1), batches, &vec![0; (commit_at(index as u64 + 1) - batches) as usize]);
        let (found, ends) = reopen(&disk);
        entries.remove(index as usize);
        assert_eq!(found, entries);
        match index {
            1 => assert_eq!(ends, damage(1, range(1))),
            _ => assert_eq!(ends.torn_tail.unwrap().position, JournalPosition(start)),
        }
    }
}

#[test]
fn a_missing_file_hurts_everyone() {
    for generation in 1..=4 {
        let (disk, entries) = several_files();
        disk.kill();
        disk.remove_file(&file_of(generation)).unwrap();
        let (found, ends) = reopen(&disk);
        assert!(found.len() < entries.len());
        assert!(ends.damage.iter().any(|damage| damage.hurt == Hurt::All), "file {generation}: {ends:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_reported_or_harmless_and_never_believed() {
    let (disk, entries) = several_files();
    let mut files = in_use(&disk);
    files.pop();
    let (mut reported, mut harmless) = (0, 0);
    let mut choices = Choices::new(1);
    for file in &files {
        let len = disk.contents(file).len() as u64;
        for block in 0..len / BLOCK {
            let (disk, _) = several_files();
            let byte = block * BLOCK + if block % 2 == 0 { choices.below(200) } else { choices.below(BLOCK) };
            disk.flip_bit(file, byte, choices.below(8) as u8);
            let (found, ends) = reopen(&disk);
            let mut rest = entries.iter();
            for entry in &found {
                assert!(rest.any(|written| written == entry), "{file:?} byte {byte}: an entry nobody wrote");
            }
            let lost: Vec<_> = entries.iter().filter(|entry| !found.contains(entry)).collect();
            let hurt_all = ends.damage.iter().any(|damage| damage.hurt == Hurt::All);
            for entry in &lost {
                let named = ends.damage.iter().any(|damage| match &damage.hurt {
                    Hurt::Ranges(ranges) => ranges.iter().any(|range| range.replica == entry.replica),
                    Hurt::All => true,
                });
                assert!(named, "{file:?} byte {byte}: {entry:?} is missing and nobody is told");
            }
            assert!(hurt_all || lost.len() < 6, "{file:?} byte {byte}: damage stays where it is");
            if lost.is_empty() { harmless += 1 } else { reported += 1 }
        }
    }
    assert!(reported > 20 && harmless > 0, "{reported} reported, {harmless} harmless");
}

#[test]
fn damage_that_the_checkpoint_covers_is_nobodys() {
    let (disk, entries) = three_commits(true);
    disk.flip_bit(&file_of(1), commit_at(0) + 500, 0);
    disk.flip_bit(&file_of(1), commit_at(1) + 20, 0);
    disk.kill();
    let covered = ReplayFrom { position: JournalPosition(commit_at(2)), recovery_epoch: 1 };
    let (journal, replayed) = open(&disk, covered).unwrap();
    assert!(journal.ends.is_proved(), "{:?}", journal.ends);
    assert_eq!(replayed.into_iter().map(|found| found.entry).collect::<Vec<_>>(), entries[2..]);
}

#[test]
fn a_journal_that_ends_before_its_checkpoint_hurts_everyone_once_and_epochs_go_on() {
    let disk = SimDisk::new();
    let lost = ReplayFrom { position: JournalPosition(1 << 20), recovery_epoch: 9 };
    let (mut journal, _) = open(&disk, lost).unwrap();
    assert_eq!(journal.recovery_epoch, 10);
    assert_eq!(journal.ends.damage, [JournalDamage { position: lost.position, place: None, hurt: Hurt::All }]);
    let receipt = journal.writer.write(&[append(0, 1, 10)]).unwrap();
    assert!(receipt.start >= lost.position);
    journal.flusher.sync().unwrap();
    disk.kill();
    let (journal, replayed) = open(&disk, ReplayFrom { recovery_epoch: 10, ..lost }).unwrap();
    assert_eq!((journal.recovery_epoch, replayed.len()), (11, 1));
    assert!(journal.ends.is_proved());

    let (disk, _) = three_commits(false);
    disk.overwrite(&file_of(1), commit_at(1), &[0; 64]);
    disk.overwrite(&file_of(1), commit_at(2), &[0; 64]);
    disk.kill();
    let covered = ReplayFrom { position: JournalPosition(commit_at(2)), recovery_epoch: 1 };
    let (journal, _) = open(&disk, covered).unwrap();
    let place = Some((file_of(1), commit_at(2)));
    assert_eq!(journal.ends.damage, [JournalDamage { position: covered.position, place, hurt: Hurt::All }]);
}

#[test]
fn a_failed_sync_ends_the_journal_and_is_never_retried() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    journal.writer.write(&[append(0, 1, 5000)]).unwrap();
    let durable = journal.flusher.sync().unwrap();
    disk.fail(SimOperation::SyncData, "journal", 0, SimFault::LosesBytes);
    journal.writer.write(&[append(0, 2, 5000)]).unwrap();
    let first = journal.flusher.sync().unwrap_err().to_string();
    let before = disk.changes();
    assert_eq!(journal.flusher.sync().unwrap_err().to_string(), first);
    assert_eq!(journal.writer.write(&[append(0, 3, 10)]).unwrap_err().to_string(), first);
    assert_eq!(journal.writer.write_empty_commit().unwrap_err().to_string(), first);
    assert!(journal.maintenance.prepare_spare().is_err());
    assert!(journal.maintenance.recycle(JournalPosition(0)).is_err());
    assert_eq!(disk.changes(), before, "nothing was attempted again");
    assert_eq!(journal.flusher.durable(), durable);
    drop(journal);
    // The cache still shows what the device lost; recovery believes the device.
    disk.kill();
    let (_, replayed) = open(&disk, from_start()).unwrap();
    assert_eq!(replayed.len(), 1);
}

#[test]
fn a_failed_write_ends_the_journal() {
    for operation in [SimOperation::Write, SimOperation::Rename, SimOperation::SyncDir] {
        let mut choices = Choices::new(3);
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk, from_start()).unwrap();
        disk.fail(operation, DIRECTORY, 0, SimFault::InputOutput);
        let fault = (0..30).find_map(|n| journal.writer.write(&[any_entry(&mut choices, n)]).err()).unwrap();
        assert!(!fault.is_out_of_space());
        assert_eq!(journal.flusher.sync().unwrap_err().to_string(), fault.to_string());
    }
}

/// Repeats a write until it fails.
fn until_refused(mut write: impl FnMut() -> Result<(), Fault>) -> Fault {
    (0..1000).find_map(|_| write().err()).expect("a journal has a limit, and so has its disk")
}

#[test]
fn running_out_of_space_stores_nothing_and_can_be_tried_again() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    disk.set_capacity(Some(OPTIONS.first_file_bytes));
    let mut entries = Vec::new();
    let refused = until_refused(|| {
        // Two commits: the first would still fit the file.
        let both = [append(0, entries.len() as i64, 3000), append(1, entries.len() as i64, 14_000)];
        journal.writer.write(&both).map(|_| entries.extend(both))
    });
    assert!(refused.is_out_of_space(), "{refused}");
    assert!(journal.maintenance.prepare_spare().unwrap_err().is_out_of_space());
    journal.flusher.sync().unwrap();
    let names: Vec<String> = disk.list(Path::new(DIRECTORY)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), 1, "nothing is left behind: {names:?}");
    disk.set_capacity(None);
    let last = append(2, 99, 14_000);
    journal.writer.write(std::slice::from_ref(&last)).unwrap();
    journal.flusher.sync().unwrap();
    entries.push(last);
    assert_eq!(reopen(&disk).0, entries);
}

#[test]
fn the_limit_refuses_until_files_are_recycled() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    let mut last = None;
    let refused = until_refused(|| {
        last = Some(journal.writer.write(&[append(0, 1, 15_000)])?);
        journal.flusher.sync().unwrap();
        let usage = journal.maintenance.usage();
        assert!(usage.bytes_live <= usage.bytes_max);
        Ok(())
    });
    assert!(refused.is_out_of_space());
    assert!(journal.maintenance.recycle(last.unwrap().start).unwrap() > 5);
    journal.writer.write(&[append(0, 1, 15_000)]).unwrap();
}

#[test]
fn what_a_checkpoint_frees_is_written_again_without_new_space() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    let mut last = None;
    until_refused(|| {
        last = Some(journal.writer.write(&[append(0, 1, 15_000)])?);
        journal.flusher.sync().map(drop)
    });
    let last = last.unwrap();
    let freed = journal.maintenance.recycle(last.start).unwrap();
    assert!(freed > 5, "a checkpoint frees many at once: {freed}");
    disk.set_capacity(Some(0));
    // One file stays for the next recovery, and what was freed first was smaller.
    for _ in 2..freed {
        journal.writer.write(&[append(0, 2, 15_000)]).unwrap();
        journal.flusher.sync().unwrap();
    }
    disk.kill();
    let (journal, replayed) = open(&disk, ReplayFrom { position: last.start, recovery_epoch: 1 }).unwrap();
    assert!(journal.ends.is_proved());
    assert_eq!(replayed.len(), 1 + freed - 2);
}

#[test]
fn what_was_written_beyond_the_limit_is_recovered_and_freed_like_the_rest() {
    for crash in 0..16 {
        let disk = SimDisk::new();
        let (mut journal, _) = open(&disk, from_start()).unwrap();
        let mut entries = Vec::new();
        let mut offset = 0;
        until_refused(|| {
            journal.writer.write(&[append(0, offset, 15_000)])?;
            entries.push(append(0, offset, 15_000));
            offset += 1;
            Ok(())
        });
        let dropped = JournalEntry { change: Change::Drop, ..append(0, 0, 1) };
        let beyond = [append(0, offset, 15_000), dropped];
        journal.writer.write_beyond_limit(&beyond).unwrap();
        let usage = journal.maintenance.usage();
        assert!(usage.bytes_live > usage.bytes_max);
        journal.flusher.sync().unwrap();
        entries.extend(beyond);
        disk.crash(crash, Tearing::Sectors);
        let (journal, replayed) = open(&disk, from_start()).unwrap();
        assert_eq!(replayed.into_iter().map(|found| found.entry).collect::<Vec<_>>(), entries);
        journal.maintenance.recycle(journal.flusher.durable().position).unwrap();
        let usage = journal.maintenance.usage();
        assert!(usage.bytes_live <= usage.bytes_max);
    }
}

#[test]
fn spares_that_somebody_removed_are_made_anew() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    while journal.maintenance.prepare_spare().unwrap() {}
    let spares = unused_files(&disk);
    assert_eq!(spares.len(), 2);
    spares.iter().for_each(|path| disk.remove_file(path).unwrap());
    let entries: Vec<_> = (0..6).map(|n| append(0, n, 15_000)).collect();
    for entry in &entries {
        journal.writer.write(std::slice::from_ref(entry)).unwrap();
        journal.flusher.sync().unwrap();
    }
    assert_eq!(reopen(&disk).0, entries);
}

#[test]
fn a_full_disk_still_recovers_with_the_spare() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    while journal.maintenance.spare_wanted() {
        assert!(journal.maintenance.prepare_spare().unwrap());
    }
    assert!(!journal.maintenance.prepare_spare().unwrap());
    journal.writer.write(&[append(0, 1, 5000)]).unwrap();
    journal.flusher.sync().unwrap();
    disk.set_capacity(Some(0));
    // The writer takes one spare and leaves the last.
    let refused = until_refused(|| journal.writer.write(&[append(0, 2, 15_000)]).map(drop));
    assert!(refused.is_out_of_space());
    journal.flusher.sync().unwrap();
    disk.crash(4, Tearing::Sectors);
    let (mut journal, replayed) = open(&disk, from_start()).unwrap();
    assert!(replayed.len() > 1);
    journal.writer.write(&[append(0, 3, 5000)]).unwrap();
    disk.kill();
    assert!(open(&disk, from_start()).err().unwrap().is_out_of_space(), "the spare is spent");
}

#[test]
fn recycled_files_hold_nothing_of_their_former_life() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    let mut covered = JournalPosition(0);
    for n in 0..60 {
        // Equal sizes put new commits exactly on old ones.
        let receipt = journal.writer.write(&[append(0, n, 3000)]).unwrap();
        journal.flusher.sync().unwrap();
        journal.maintenance.recycle(covered).unwrap();
        covered = receipt.end;
    }
    disk.kill();
    let (_, replayed) = open(&disk, ReplayFrom { position: covered, recovery_epoch: 1 }).unwrap();
    assert_eq!(replayed.len(), 0, "{replayed:?}");
    disk.kill();
    let (journal, replayed) = open(&disk, ReplayFrom { position: JournalPosition(0), recovery_epoch: 1 }).unwrap();
    assert!(journal.ends.damage.iter().any(|damage| damage.hurt == Hurt::All), "the beginning is gone, and it shows");
    let bases: Vec<i64> = replayed
        .iter()
        .map(|found| match found.entry.change {
            Change::Append { base_offset: Offset(base), .. } => base,
            _ => panic!("only appends were written"),
        })
        .collect();
    assert!(bases.is_sorted() && bases.last() == Some(&59), "{bases:?}");
}

#[test]
fn reading_a_recycled_position_is_refused() {
    let disk = SimDisk::new();
    let (mut journal, _) = open(&disk, from_start()).unwrap();
    let first = journal.writer.write(&[append(0, 1, 100)]).unwrap();
    let payload = JournalPosition(first.start.0 + 64 + 52);
    journal.flusher.sync().unwrap();
    assert_eq!(journal.reader.read(payload, 100).unwrap().len(), 100);
    let mut last = first;
    for n in 0..10 {
        last = journal.writer.write(&[append(0, n, 15_000)]).unwrap();
    }
    journal.flusher.sync().unwrap();
    assert!(journal.maintenance.recycle(last.start).unwrap() > 0);
    assert!(matches!(journal.reader.read(payload, 100), Err(Fault::Damage { .. })));
    assert!(matches!(journal.reader.read(JournalPosition(u64::MAX), 1), Err(Fault::Damage { .. })));
}
