//! A log with records, for the tests of both ends of a stream.

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::batch::build::{BatchBuilder, NewRecord};
use stonelog_protocol::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicPartition, Uuid};
use stonelog_storage::disk::{Disk, SimDisk};
use stonelog_storage::holes::Cause;
use stonelog_storage::job::FileAccess;
use stonelog_storage::journal::{JournalEntry, JournalOptions, JournalPosition};
use stonelog_storage::log::{CommitSpan, FollowerReject, Log, LogConfig, Read, Truncation};
use stonelog_storage::recovery::{RecoveryOptions, recover_log_dir};
use stonelog_storage::{LogGeneration, ReplicaKey};

const NOW: Timestamp = Timestamp(1_000);

pub(super) fn id() -> TopicPartition {
    TopicPartition { topic_id: Uuid([7; 16]), partition: PartitionIndex(0) }
}

/// A log whose journal completes when the test says so.
pub(super) struct TestLog {
    pub(super) log: Log,
    ticket: u64,
}

impl TestLog {
    /// Empty, and its creation durable.
    pub(super) fn new(strict: bool) -> TestLog {
        let mut created = TestLog::just_made(strict);
        created.sync();
        created
    }

    /// Empty, and its creation on its way to the journal.
    pub(super) fn just_made(strict: bool) -> TestLog {
        let key = ReplicaKey { partition: id(), generation: LogGeneration { recovery_epoch: 1, counter: 0 } };
        let ticket = stonelog_storage::log::FIRST_TICKET + 1;
        let (log, _) = Log::create(key, LogConfig::default(), strict, Offset(0), ticket);
        TestLog { log, ticket }
    }

    fn ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Appends that many batches of one record in an epoch, which begins if it has not.
    pub(super) fn lead(&mut self, epoch: i32, count: usize) -> &mut TestLog {
        if self.log.latest_epoch() != Some(LeaderEpoch(epoch)) {
            let ticket = self.ticket();
            self.log.begin_epoch(LeaderEpoch(epoch), ticket);
        }
        (0..count).for_each(|_| self.append(epoch, 1));
        self
    }

    /// Appends one batch in an epoch that has begun.
    pub(super) fn append(&mut self, epoch: i32, records: usize) {
        let mut builder = BatchBuilder::new();
        (0..records).for_each(|_| builder.push(NewRecord::new(NOW, None, Some(b"a value"))));
        let batch = BytesMut::from(&builder.build().expect("a batch")[..]);
        let header = BatchHeader::read(&batch).expect("just built");
        let ticket = self.ticket();
        self.log.append_as_leader(batch, &header, LeaderEpoch(epoch), NOW, ticket).expect("it appends");
    }

    /// Appends what a leader sent.
    pub(super) fn follow(&mut self, epoch: i32, batches: Bytes) -> Result<JournalEntry, FollowerReject> {
        let ticket = self.ticket();
        self.log.append_as_follower(batches, LeaderEpoch(epoch), NOW, ticket)
    }

    /// What was queued is written, not durable.
    pub(super) fn write(&mut self) -> &mut TestLog {
        let at = JournalPosition(self.ticket);
        let generation = self.log.key().generation;
        self.log.on_written(generation, self.ticket, CommitSpan { start: at, end: JournalPosition(self.ticket + 1) });
        self
    }

    /// Everything queued is durable.
    pub(super) fn sync(&mut self) -> &mut TestLog {
        self.write();
        let generation = self.log.key().generation;
        self.log.on_durable(generation, self.ticket);
        self
    }

    /// Cuts; the journal has not heard of it.
    pub(super) fn cut(&mut self, to: i64) {
        let ticket = self.ticket();
        let done = self.log.truncate_to(Offset(to), ticket);
        assert!(matches!(done, Truncation::Done(_)), "{done:?}");
    }

    /// The topic becomes strict.
    pub(super) fn tighten(&mut self) {
        let ticket = self.ticket();
        self.log.set_mode(true, ticket).expect("it was relaxed");
        self.sync();
    }

    /// Everything below an offset is deleted.
    pub(super) fn delete_below(&mut self, start: i64) {
        let ticket = self.ticket();
        self.log.advance_log_start(Offset(start), ticket).expect("it moves");
    }

    /// Everything goes; the log begins anew.
    pub(super) fn reset(&mut self, start: Offset) {
        let ticket = self.ticket();
        self.log.reset(start, ticket);
    }

    /// Everything goes to a segment, and a range of it is found damaged.
    pub(super) fn damage(&mut self, start: i64, end: i64) {
        self.flush_all();
        assert!(self.log.quarantine(Offset(start), Offset(end), Cause::Missing));
    }

    /// A checkpoint covers all that is in segments.
    pub(super) fn checkpoint(&mut self) {
        self.log.plan_checkpoint(JournalPosition(1)).expect("it exists");
        assert!(self.log.on_checkpointed(self.log.key().generation));
    }

    /// Everything goes to a segment, where jobs read it.
    pub(super) fn flush_all(&mut self) -> Arc<FileAccess> {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/d")).expect("it is new");
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let options = RecoveryOptions {
            journal_name: "journal",
            journal: JournalOptions {
                file_bytes: 128 << 10,
                first_file_bytes: 64 << 10,
                commit_bytes_max: 24 << 10,
                bytes_max: 1 << 20,
            },
            config: LogConfig::default(),
            relaxed_survived: false,
            open_files_count: 3,
            index_bytes_max: 4096,
            progress: Default::default(),
        };
        let recovered = recover_log_dir(&disk, Path::new("/d"), &options, NOW).expect("nothing is there");
        let flush = self.log.plan_flush(NOW, true, 0).expect("all is durable");
        assert!(self.log.on_flushed(flush.run(&recovered.access).expect("the disk works")));
        self.log.evict(0);
        recovered.access
    }

    /// The bytes of the batches between two offsets.
    pub(super) fn bytes(&self, from: i64, to: i64) -> Bytes {
        match self.log.read(Offset(from), Offset(to), usize::MAX, true) {
            Read::Ready(pieces, _) => pieces.concat().into(),
            other => panic!("{other:?}"),
        }
    }
}
