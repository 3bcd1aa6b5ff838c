//! A log directory whose device does not answer, and returns no error either: producers to the others go on.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use stonelog_protocol::TopicId;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::error_code::ErrorCode;
use stonelog_replication::partition::Acks;
use stonelog_replication::runtime::lane::Append;
use stonelog_replication::runtime::node::NodeSettings;
use stonelog_replication::runtime::start::{self, StartOptions, Started};
use stonelog_storage::disk::{DirEntry, DirLock, Disk, DiskFile, Open, SimDisk, Space};
use support::*;

const A: &str = "/a";
const B: &str = "/b";
const VALUE_BYTES: usize = 16 << 10;

/// While it is closed, whoever writes to the device waits.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set_closed(&self, closed: bool) {
        *self.0.0.lock().unwrap() = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(closed, |closed| *closed).unwrap());
    }
}

/// A simulated disk with a gate before the writes to everything in [`B`] whose name contains `held`.
struct Gated {
    disk: SimDisk,
    gate: Gate,
    held: &'static str,
}

struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Option<Gate>,
}

impl Disk for Gated {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let is_held = path.starts_with(B) && path.to_string_lossy().contains(self.held);
        let gate = is_held.then(|| self.gate.clone());
        Ok(Arc::new(GatedFile { file: self.disk.open(path, how)?, gate }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn lock_dir(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.disk.lock_dir(path)
    }
}

impl GatedFile {
    fn passed(&self) -> &dyn DiskFile {
        self.gate.iter().for_each(Gate::pass);
        &*self.file
    }
}

impl DiskFile for GatedFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.passed().write_at(position, slices)
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, buffer)
    }
    fn read_now_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_now_at(position, buffer)
    }
    fn read_device_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_device_at(position, buffer)
    }
    fn allocate(&self, position: u64, len: u64) -> io::Result<()> {
        self.passed().allocate(position, len)
    }
    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.passed().reserve(position, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.passed().sync_data()
    }
    fn start_writeback(&self, position: u64, len: u64) {
        self.file.start_writeback(position, len);
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.passed().set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

/// A broker whose second directory has stopped answering when it was full of what it had not written.
async fn with_b_hanging(hangs_after: Duration) -> (Started, Gate, TopicId, i32, i32) {
    with_b_hanging_for("", hangs_after).await
}

/// The same, and the device answers whoever writes to files whose names do not contain `held`.
async fn with_b_hanging_for(held: &'static str, hangs_after: Duration) -> (Started, Gate, TopicId, i32, i32) {
    let gate = Gate::default();
    let disk = Arc::new(Gated { disk: SimDisk::new(), gate: gate.clone(), held });
    let options = options(disk, vec![PathBuf::from(A), PathBuf::from(B)], Upkeep::AtOnce, 1);
    let node = NodeSettings { hangs_after, ..options.node.clone() };
    let started = start::start(StartOptions { node, ..options }).await.unwrap();
    let topic = create_topic(&started, "t").await;
    let home = |path: &str| {
        let id = started.node.directories.iter().find(|directory| directory.path == Path::new(path)).unwrap().id;
        let image = started.metadata.image();
        let lies_there = |index: &i32| image.partition(partition(topic, *index)).unwrap().directories == [id];
        (0..PARTITIONS).find(lies_there).unwrap()
    };
    let (in_a, in_b) = (home(A), home(B));
    produce(&started, partition(topic, in_b), value(in_b, 0, 50)).await.unwrap();
    gate.set_closed(true);
    let (id, b) = (partition(topic, in_b), Arc::clone(&started.node.directories[1]));
    let filled = started.lanes.call(started.lanes.owner(id), move |lane| {
        for _ in 0..JOURNAL.bytes_max as usize / VALUE_BYTES {
            if b.is_under_pressure() {
                break;
            }
            let batch = batch_of(&value(in_b, 1, VALUE_BYTES));
            let header = BatchHeader::read(&batch).unwrap();
            lane.append(Append { partition: id, batch, header, acks: Acks::All }).unwrap();
        }
        assert!(b.is_under_pressure(), "more than its journal takes");
        std::future::ready(())
    });
    filled.await;
    (started, gate, topic, in_a, in_b)
}

#[tokio::test]
async fn producers_to_other_directories_do_not_wait_for_one_that_hangs() {
    let (started, gate, topic, in_a, in_b) = with_b_hanging(NEVER).await;
    for number in 0..100 {
        let produced = produce(&started, partition(topic, in_a), value(in_a, number, VALUE_BYTES));
        tokio::time::timeout(Duration::from_secs(60), produced).await.expect("its directory answers").unwrap();
    }
    assert!(started.node.directories[1].is_under_pressure());
    gate.set_closed(false);
    produce(&started, partition(topic, in_b), value(in_b, 2, 50)).await.unwrap();
    started.stop().unwrap();
}

#[tokio::test]
async fn producers_to_a_directory_that_hangs_are_refused_until_it_answers() {
    let (started, gate, topic, _, in_b) = with_b_hanging(Duration::from_millis(100)).await;
    let b = &started.node.directories[1];
    eventually(|| b.is_stuck()).await;
    let refused = produce(&started, partition(topic, in_b), value(in_b, 2, 50)).await;
    assert_eq!(refused, Err(ErrorCode::KafkaStorageError), "nothing was stored");
    gate.set_closed(false);
    eventually(|| !b.is_stuck()).await;
    produce(&started, partition(topic, in_b), value(in_b, 2, 50)).await.unwrap();
    started.stop().unwrap();
}

/// Segments are written, and the journal is not freed.
#[tokio::test]
async fn a_device_that_hangs_in_a_checkpoint_is_noticed_too() {
    let (started, gate, topic, _, in_b) = with_b_hanging_for("checkpoint", Duration::from_millis(100)).await;
    let (id, b) = (partition(topic, in_b), &started.node.directories[1]);
    for number in 0..JOURNAL.bytes_max / VALUE_BYTES as u64 * 4 {
        let batch = batch_of(&value(in_b, number as i64, VALUE_BYTES));
        let header = BatchHeader::read(&batch).unwrap();
        let append = Append { partition: id, batch, header, acks: Acks::All };
        let appended = started.lanes.call(started.lanes.owner(id), |lane| {
            let appended = lane.append(append).map(drop);
            std::future::ready(appended)
        });
        if appended.await.is_err() {
            break;
        }
        eventually(|| !b.is_under_pressure()).await;
    }
    eventually(|| b.is_stuck()).await;
    let refused = produce(&started, partition(topic, in_b), value(in_b, 2, 50)).await;
    assert_eq!(refused, Err(ErrorCode::KafkaStorageError), "nothing was stored");
    gate.set_closed(false);
    eventually(|| !b.is_stuck()).await;
    produce(&started, partition(topic, in_b), value(in_b, 2, 50)).await.unwrap();
    started.stop().unwrap();
}
