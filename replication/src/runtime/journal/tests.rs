//! Tests of the journal's threads.

use std::path::Path;

use bytes::Bytes;
use stonelog_protocol::{Offset, PartitionIndex, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::journal::{self, JournalOptions, ReplayFrom};
use stonelog_storage::{LogGeneration, ReplicaKey};

use super::*;
use crate::runtime::clock::Clock;
use crate::runtime::space::Room;

const OPTIONS: JournalOptions = JournalOptions {
    file_bytes: 64 << 10,
    first_file_bytes: 64 << 10,
    commit_bytes_max: 16 << 10,
    bytes_max: 256 << 10,
};

fn opened() -> journal::Recovered {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    journal::recover(&disk, Path::new("/journal"), OPTIONS, ReplayFrom::default(), &mut |_| {}).unwrap()
}

fn entry(bytes: usize) -> JournalEntry {
    let partition = TopicPartition { topic_id: Uuid([1; 16]), partition: PartitionIndex(0) };
    let generation = LogGeneration { recovery_epoch: 1, counter: 0 };
    let batches = Bytes::from(vec![7; bytes]);
    let change = Change::Append { base_offset: Offset(0), end_offset: Offset(1), batches };
    JournalEntry { replica: ReplicaKey { partition, generation }, change }
}

fn events(signal: &LaneSignal) -> Vec<JournalEvent> {
    let mut events = Vec::new();
    signal.take_now(&mut events);
    events
}

/// Looks again until it is so.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let give_up = Clock.mono() + Duration::from_secs(120);
    while !is_so() {
        assert!(Clock.mono() < give_up, "it never came to be");
        std::thread::yield_now();
    }
}

#[test]
fn durable_commit_that_lanes_have_not_heard_of_is_not_reported() {
    let journal::Recovered { mut writer, flusher, maintenance, .. } = opened();
    let lane = Arc::new(LaneSignal::default());
    let shared = Shared::new(&flusher, Arc::new(maintenance), vec![Arc::clone(&lane)], Arc::new(Space::new(0)));
    let told = writer.write(&[entry(10)]).unwrap();
    let commit = Commit { sequence: told.sequence, end: told.end, tickets: vec![(0, 1)] };
    *lock(&shared.written) = Written { commits: [commit].into(), stopping: true };
    // Written, and not yet told: the sync that follows covers it all the same.
    let untold = writer.write(&[entry(10)]).unwrap();
    shared.flush_commits(&flusher);
    assert_eq!(flusher.durable().position, untold.end);
    assert_eq!(shared.reported.load(Ordering::Acquire), told.end.0);
    assert!(matches!(events(&lane)[..], [JournalEvent::Durable { last_ticket: 1 }]));
}

#[test]
fn turn_larger_than_the_journal_has_room_for_is_written_bit_by_bit() {
    let journal::Recovered { writer, flusher, maintenance, .. } = opened();
    let lane = Arc::new(LaneSignal::default());
    let signals = vec![Arc::clone(&lane)];
    let maintenance = Arc::new(maintenance);
    let (threads, queue) =
        JournalThreads::start(writer, flusher, Arc::clone(&maintenance), signals, Arc::new(Space::new(0))).unwrap();
    let (count, bytes) = (6, 50 << 10);
    let entries = (0..count).map(|_| entry(bytes)).collect();
    queue.submit(Submission { lane: 0, first_ticket: 1, entries, hurry_written: false });
    let mut durable = 0;
    wait_until(|| {
        // As a checkpoint does that covers everything reported.
        maintenance.recycle(queue.reported()).unwrap();
        for event in events(&lane) {
            if let JournalEvent::Durable { last_ticket } = event {
                durable = last_ticket;
            }
        }
        durable >= count
    });
    threads.stop().unwrap();
}

#[test]
fn stopping_does_not_wait_for_a_journal_that_nobody_will_free() {
    let journal::Recovered { writer, flusher, maintenance, .. } = opened();
    let lane = Arc::new(LaneSignal::default());
    let (threads, queue) =
        JournalThreads::start(writer, flusher, Arc::new(maintenance), vec![lane], Arc::new(Space::new(0))).unwrap();
    let entries = (0..6).map(|_| entry(50 << 10)).collect();
    queue.submit(Submission { lane: 0, first_ticket: 1, entries, hurry_written: false });
    assert!(threads.stop().is_err_and(|fault| fault.is_out_of_space()));
}

#[test]
fn a_drop_behind_a_full_journal_that_only_it_can_free_is_written_all_the_same() {
    let journal::Recovered { writer, flusher, maintenance, .. } = opened();
    let lane = Arc::new(LaneSignal::default());
    let maintenance = Arc::new(maintenance);
    let (threads, queue) = JournalThreads::start(
        writer,
        flusher,
        Arc::clone(&maintenance),
        vec![Arc::clone(&lane)],
        Arc::new(Space::new(0)),
    )
    .unwrap();
    // Appends fill it and wait, and behind them the drop of their log. Nobody recycles before that is durable.
    let drop_entry = JournalEntry { change: Change::Drop, ..entry(0) };
    let entries: Vec<_> = (0..6).map(|_| entry(50 << 10)).chain([drop_entry]).collect();
    let count = entries.len() as u64;
    queue.submit(Submission { lane: 0, first_ticket: 1, entries, hurry_written: false });
    let mut durable = 0;
    wait_until(|| {
        for event in events(&lane) {
            if let JournalEvent::Durable { last_ticket } = event {
                durable = last_ticket;
            }
        }
        durable >= count
    });
    let usage = maintenance.usage();
    assert!(usage.bytes_live > usage.bytes_max && usage.bytes_live <= 2 * usage.bytes_max, "{usage:?}");
    // Then it is freed as usual, and keeps its limit again.
    maintenance.recycle(queue.reported()).unwrap();
    assert!(maintenance.usage().bytes_live <= usage.bytes_max);
    threads.stop().unwrap();
}

#[test]
fn a_journal_at_its_limit_on_a_full_disk_takes_nothing_more() {
    let journal::Recovered { writer, flusher, maintenance, .. } = opened();
    let space = Arc::new(Space::new(0));
    let full = Fault::io("allocate", Path::new("segment"), std::io::ErrorKind::StorageFull.into());
    space.on_allocation_failed(&full);
    let (threads, queue) = JournalThreads::start(
        writer,
        flusher,
        Arc::new(maintenance),
        vec![Arc::new(LaneSignal::default())],
        Arc::clone(&space),
    )
    .unwrap();
    let entries = (0..6).map(|_| entry(50 << 10)).collect();
    queue.submit(Submission { lane: 0, first_ticket: 1, entries, hurry_written: false });
    wait_until(|| space.journal_waits());
    assert!(!space.admits(true), "not even internal topics: no segment takes what the journal cannot");
    // Space comes back while the journal still waits: for a checkpoint, so segments must go on.
    space.on_measured(Path::new("directory"), u64::MAX, true);
    assert_eq!(space.room(), Room::Ample);
    assert!(threads.stop().is_err_and(|fault| fault.is_out_of_space()));
}
