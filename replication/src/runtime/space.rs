//! How much room a log directory has left, and what is refused for want of it.
//!
//! Producers are refused before anything is stored (rule 8: KAFKA_STORAGE_ERROR, retry later), as soon as less is free
//! than the watermark, or an allocation has failed. What is left then, and the journal files that were allocated
//! before, are for internal topics and for what was appended already. Reads go on. Nothing here needs a restart: the
//! monitor measures, and when there is room again everything goes on by itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::time::Duration;

use stonelog_storage::Fault;
use stonelog_storage::log_dir::{RESERVE_BYTES, has_reserve, make_reserve, probe_space, release_reserve};
use tokio::sync::Notify;

use super::directory::Directory;
use super::node::Node;
use super::under_way::UnderWay;

/// How often free space is measured while something is written.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// How often while nothing is: others may fill the disk too.
const MEASURE_IDLE: Duration = Duration::from_secs(30);
/// How often while there is too little, and how soon segments are tried again.
pub(super) const MEASURE_AGAIN: Duration = Duration::from_millis(200);

/// What a directory has room for; each level refuses what those before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Everything.
    Ample = 0,
    /// Less is free than the watermark: producers are refused, internal topics are not.
    Low = 1,
    /// An allocation has failed: segments wait, the journal goes on with the files it has.
    Full = 2,
    /// The journal itself waits for a file: nothing can be appended.
    Exhausted = 3,
}

/// The room of one directory, as its threads and lanes see it.
pub struct Space {
    /// Free bytes below which producers are refused.
    free_bytes_min: u64,
    room: AtomicU8,
    journal_waits: AtomicBool,
    /// The monitor rests until something is written.
    is_resting: AtomicBool,
    written: Notify,
    /// What the directory's device is asked for at this moment.
    pub(super) under_way: UnderWay,
}

impl Space {
    /// Ample until something else is heard.
    pub fn new(free_bytes_min: u64) -> Space {
        Space {
            free_bytes_min,
            room: AtomicU8::new(Room::Ample as u8),
            journal_waits: AtomicBool::new(false),
            is_resting: AtomicBool::new(false),
            written: Notify::new(),
            under_way: UnderWay::default(),
        }
    }

    /// What there is room for.
    pub fn room(&self) -> Room {
        match self.room.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Low,
            2 => Room::Full,
            _ => Room::Exhausted,
        }
    }

    /// Whether a batch may be appended: a refusal stores nothing.
    pub fn admits(&self, is_internal: bool) -> bool {
        match self.room() {
            Room::Ample => true,
            Room::Low => is_internal,
            // Segments wait for space: what the journal cannot take either would stay in memory.
            Room::Full => is_internal && !self.journal_waits(),
            Room::Exhausted => false,
        }
    }

    /// An allocation failed, of a segment, a checkpoint or a journal file made ahead of need.
    pub fn on_allocation_failed(&self, fault: &Fault) {
        let before = self.room.fetch_max(Room::Full as u8, Ordering::Relaxed);
        // Either the monitor sees the room when it looks once more before it rests, or this sees that it rests.
        fence(Ordering::SeqCst);
        self.on_written();
        if before < Room::Full as u8 {
            tracing::error!(
                "no space: {fault}; appends are refused with KAFKA_STORAGE_ERROR, reads go on; free some, and appends \
                 go on by themselves"
            );
        }
    }

    /// The journal waits for a file that cannot be allocated. Only that: a journal at its own limit is freed by a
    /// checkpoint, not by an allocation, and must not keep the level when there is space again.
    pub(super) fn on_journal_waits(&self, fault: &Fault) {
        self.on_allocation_failed(fault);
        self.room.fetch_max(Room::Exhausted as u8, Ordering::Relaxed);
    }

    /// The journal has got its file.
    pub(super) fn on_journal_goes_on(&self) {
        let _ =
            self.room.compare_exchange(Room::Exhausted as u8, Room::Full as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether the journal's writer waits for a file, for whatever reason: what is appended meanwhile stays in memory.
    pub(super) fn journal_waits(&self) -> bool {
        self.journal_waits.load(Ordering::Relaxed)
    }

    pub(super) fn set_journal_waits(&self, waits: bool) {
        self.journal_waits.store(waits, Ordering::Relaxed);
    }

    /// Something is on its way to the journal, or has failed to be: it is time to measure.
    pub(super) fn on_written(&self) {
        if self.is_resting.load(Ordering::Relaxed) && self.is_resting.swap(false, Ordering::Relaxed) {
            self.written.notify_one();
        }
    }

    /// Waits until something is written, but not for ever; not at all if something has happened meanwhile: `is_calm` is
    /// asked once more when whatever happens next would be heard.
    async fn rest(&self, is_calm: impl Fn() -> bool) {
        self.is_resting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if is_calm() {
            let _ = tokio::time::timeout(MEASURE_IDLE, self.written.notified()).await;
        }
        self.is_resting.store(false, Ordering::Relaxed);
    }

    /// Some more than the watermark, so that the level does not change with every batch.
    pub(super) fn enough(&self) -> u64 {
        self.free_bytes_min + self.free_bytes_min / 8
    }

    /// So many bytes are free; `is_allocatable` says whether an allocation was tried and worked.
    pub(super) fn on_measured(&self, path: &Path, free_bytes: u64, is_allocatable: bool) {
        let next = match self.room() {
            Room::Ample | Room::Low if free_bytes < self.free_bytes_min => Room::Low,
            Room::Ample => return,
            Room::Low if free_bytes < self.enough() => return,
            Room::Full if free_bytes < self.enough() + RESERVE_BYTES || !is_allocatable => return,
            Room::Low | Room::Full => Room::Ample,
            Room::Exhausted => return,
        };
        let before = self.room.swap(next as u8, Ordering::Relaxed);
        match next {
            Room::Low if before == Room::Ample as u8 => tracing::warn!(
                "{} has {free_bytes} bytes free, less than the {} of stonelog.free.bytes.min: producers are refused \
                 with KAFKA_STORAGE_ERROR until there are more",
                path.display(),
                self.free_bytes_min
            ),
            Room::Ample => tracing::warn!("{} has space again ({free_bytes} bytes free)", path.display()),
            _ => {}
        }
    }
}

/// Measures a directory's room, and sees that its journal's files are there, for as long as it works.
pub(super) async fn monitor(node: Arc<Node>, directory: Arc<Directory>) {
    let mut seen = None;
    loop {
        if directory.is_offline() {
            return;
        }
        if directory.space.room() >= Room::Full {
            directory.journal.want_spare();
        }
        let measured = Arc::clone(&directory);
        match directory.writers.run(move || measure(&measured)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) if fault.is_temporary() => {}
            Ok(Err(fault)) => return node.take_offline(&directory, &fault),
            Err(_) => return,
        }
        let is_calm = || directory.space.room() == Room::Ample && !directory.lacks_journal_files();
        let reported = Some(directory.journal.reported());
        match (is_calm(), std::mem::replace(&mut seen, reported) == reported) {
            (false, _) => tokio::time::sleep(MEASURE_AGAIN).await,
            (true, false) => tokio::time::sleep(MEASURE_EVERY).await,
            (true, true) => directory.space.rest(|| is_calm() && Some(directory.journal.reported()) == reported).await,
        }
    }
}

/// Runs on a writer.
fn measure(directory: &Directory) -> Result<(), Fault> {
    let (disk, path) = (&*directory.disk, &directory.path);
    directory.on_journal_looked_at(directory.journal.maintenance().check_names()?);
    // A measurement that fails says nothing about room: a failing disk shows itself in its writes.
    let Ok(space) = disk.space(path) else { return Ok(()) };
    let room = directory.space.room();
    if room >= Room::Full && has_reserve(disk, path) {
        // For checkpoints, without which retention frees nothing.
        match release_reserve(disk, path) {
            Ok(()) => tracing::warn!("{} has no space left: the reserve is given up", path.display()),
            Err(fault) => tracing::error!("the reserve cannot be given up: {fault}"),
        }
    }
    let is_allocatable = room < Room::Full
        || (space.usable_bytes >= directory.space.enough() + RESERVE_BYTES
            && !directory.journal.maintenance().spare_wanted()
            && probe_space(disk, path).is_ok());
    directory.space.on_measured(path, space.usable_bytes, is_allocatable);
    let is_roomy = space.usable_bytes >= directory.space.free_bytes_min + RESERVE_BYTES;
    if is_roomy && directory.space.room() == Room::Ample && !has_reserve(disk, path) {
        // Without it everything works as long as there is space.
        let _ = make_reserve(disk, path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Fault {
        Fault::io("allocate", Path::new("f"), std::io::ErrorKind::StorageFull.into())
    }

    #[tokio::test]
    async fn what_fails_just_before_the_monitor_rests_is_not_slept_over() {
        let space = Space::new(0);
        let is_over = |rest: std::pin::Pin<&mut dyn Future<Output = ()>>| {
            rest.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        let mut rest = std::pin::pin!(space.rest(|| space.room() == Room::Ample));
        assert!(!is_over(rest.as_mut()), "nothing happens");
        space.on_allocation_failed(&full());
        assert!(is_over(rest.as_mut()), "it wakes");
        // The look found it calm, and then an allocation failed: nobody says so twice.
        let mut rest = std::pin::pin!(space.rest(|| space.room() == Room::Ample));
        assert!(is_over(rest.as_mut()));
    }

    #[test]
    fn below_the_watermark_internal_topics_go_on_until_the_journal_itself_waits() {
        let space = Space::new(1000);
        let at = |free, allocatable| space.on_measured(Path::new("d"), free, allocatable);
        assert!(space.admits(false));
        at(999, true);
        assert_eq!((space.room(), space.admits(false), space.admits(true)), (Room::Low, false, true));
        space.on_allocation_failed(&full());
        assert_eq!((space.room(), space.admits(true)), (Room::Full, true));
        space.on_journal_waits(&full());
        assert_eq!((space.room(), space.admits(true)), (Room::Exhausted, false));
        at(5000, true);
        assert_eq!(space.room(), Room::Exhausted, "the journal knows best");
        space.on_journal_goes_on();
        assert!(space.admits(true) && !space.admits(false));
    }

    #[test]
    fn room_returns_only_well_above_the_watermark_and_when_allocating_works() {
        let space = Space::new(1000);
        let at = |free, allocatable| space.on_measured(Path::new("d"), free, allocatable);
        at(10, true);
        at(1000, true);
        assert_eq!(space.room(), Room::Low);
        at(1125, true);
        assert_eq!(space.room(), Room::Ample);
        space.on_allocation_failed(&full());
        at(1125, true);
        assert_eq!(space.room(), Room::Full, "the reserve, given up meanwhile, wants to be made again");
        at(1125 + RESERVE_BYTES, false);
        assert_eq!(space.room(), Room::Full, "a quota may be smaller than the disk");
        at(1125 + RESERVE_BYTES, true);
        assert_eq!(space.room(), Room::Ample);
    }
}
