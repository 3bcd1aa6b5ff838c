//! Open segment files, shared by the pool threads that flush, sync and read; the least recently used are closed.
//!
//! A keeper used by several threads, hence the mutexes: they are held for look-ups only, never across I/O.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use stonelog_protocol::TopicPartition;

use super::{SegmentFile, SegmentId, directory_of};
use crate::Fault;
use crate::disk::{DiskFile, Open};
use crate::index::{ENTRY_BYTES, SparseIndex};
use crate::job::FileAccess;

/// Files kept open when nothing is known of the process's limit. Well below the usual one of 1,024, with the connections
/// of a small broker.
pub const OPEN_FILES_COUNT: usize = 512;

/// Files kept open whatever the process's limit allows: bounds the kernel's memory for them.
pub const OPEN_FILES_COUNT_MAX: usize = 32 << 10;

/// Files to keep open in a process that may have `descriptors` open: a quarter, most of the rest is for connections.
pub fn open_files_count(descriptors: u64) -> usize {
    usize::try_from(descriptors / 4).map_or(OPEN_FILES_COUNT_MAX, |share| share.clamp(1, OPEN_FILES_COUNT_MAX))
}

/// Bytes of indexes of closed segments kept in memory.
pub const INDEX_BYTES_MAX: usize = 64 << 20;

/// Caches open files and loaded indexes of one log directory.
pub struct FileCache {
    files: Mutex<Lru<(SegmentId, u8), Arc<dyn DiskFile>>>,
    indexes: Mutex<Lru<SegmentId, (Arc<SparseIndex>, u64)>>,
}

impl FileCache {
    /// A cache of at most `open_count` files and `index_bytes` of indexes.
    pub fn new(open_count: usize, index_bytes: usize) -> FileCache {
        FileCache { files: Mutex::new(Lru::new(open_count.max(1))), indexes: Mutex::new(Lru::new(index_bytes)) }
    }

    /// A file that may not exist: `None` then.
    pub(crate) fn open_existing(
        &self,
        access: &FileAccess,
        id: SegmentId,
        file: SegmentFile,
    ) -> Result<Option<Arc<dyn DiskFile>>, Fault> {
        if let Some(open) = self.opened(id, file) {
            return Ok(Some(open));
        }
        let path = id.path(file);
        match access.disk().open(&access.path(&path), Open::ReadWrite) {
            Ok(open) => {
                lock(&self.files).put((id, file as u8), Arc::clone(&open), 1);
                Ok(Some(open))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(access.fault("open", &path, None, source)),
        }
    }

    /// A file, if it is open already.
    pub(super) fn opened(&self, id: SegmentId, file: SegmentFile) -> Option<Arc<dyn DiskFile>> {
        lock(&self.files).get(&(id, file as u8))
    }

    /// A file that is made where it does not exist. Says whether it existed. Only a `.log` makes its directory too: what
    /// belongs to a `.log` that is being deleted must not bring its directory back.
    pub(crate) fn open_or_create(
        &self,
        access: &FileAccess,
        id: SegmentId,
        file: SegmentFile,
    ) -> Result<(Arc<dyn DiskFile>, bool), Fault> {
        if let Some(open) = self.open_existing(access, id, file)? {
            return Ok((open, true));
        }
        let path = id.path(file);
        let full = access.path(&path);
        let create = || access.disk().open(&full, Open::CreateNew);
        let open = match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file == SegmentFile::Log => {
                let directory = directory_of(id.partition);
                match access.disk().create_dir(&access.path(&directory)) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    result => result.map_err(|source| access.fault("mkdir", &directory, None, source))?,
                }
                create()
            }
            result => result,
        };
        let open = match open {
            // Another thread was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let made = access.disk().open(&full, Open::ReadWrite);
                return Ok((made.map_err(|source| access.fault("open", &path, None, source))?, true));
            }
            open => open.map_err(|source| access.fault("create", &path, None, source))?,
        };
        lock(&self.files).put((id, file as u8), Arc::clone(&open), 1);
        Ok((open, false))
    }

    /// The index of a segment, if it is in memory, with the bytes of the `.log` that it knows.
    pub(super) fn index(&self, id: SegmentId) -> Option<(Arc<SparseIndex>, u64)> {
        lock(&self.indexes).get(&id)
    }

    /// Keeps an index in memory, which knows the first `log_bytes`.
    pub(super) fn put_index(&self, id: SegmentId, index: Arc<SparseIndex>, log_bytes: u64) {
        let bytes = index.entries().len() * ENTRY_BYTES;
        lock(&self.indexes).put(id, (index, log_bytes), bytes);
    }

    /// Forgets an index that is of another history of its segment.
    pub(crate) fn forget_index(&self, id: SegmentId) {
        lock(&self.indexes).remove(&id);
        lock(&self.files).remove(&(id, SegmentFile::Index as u8));
    }

    /// Closes a segment's files.
    pub fn forget(&self, id: SegmentId) {
        for file in [SegmentFile::Log, SegmentFile::Sums] {
            lock(&self.files).remove(&(id, file as u8));
        }
        self.forget_index(id);
    }

    /// Closes all files of a log.
    pub fn forget_all(&self, partition: TopicPartition) {
        lock(&self.files).retain(|(id, _)| id.partition != partition);
        lock(&self.indexes).retain(|id| id.partition != partition);
    }

    /// How many files are open.
    pub fn open_count(&self) -> usize {
        lock(&self.files).entries.len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under the lock leaves a cache that is at worst incomplete.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A map that lets go of the entry used longest ago when its weights exceed a limit.
struct Lru<K, V> {
    limit: usize,
    weight: usize,
    clock: u64,
    entries: HashMap<K, (V, u64, usize)>,
    order: BTreeMap<u64, K>,
}

impl<K: Copy + Eq + std::hash::Hash, V: Clone> Lru<K, V> {
    fn new(limit: usize) -> Lru<K, V> {
        Lru { limit, weight: 0, clock: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    fn get(&mut self, key: &K) -> Option<V> {
        let (value, used, _) = self.entries.get_mut(key)?;
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, *key);
        Some(value.clone())
    }

    fn put(&mut self, key: K, value: V, weight: usize) {
        self.remove(&key);
        self.clock += 1;
        self.entries.insert(key, (value, self.clock, weight));
        self.order.insert(self.clock, key);
        self.weight += weight;
        while self.weight > self.limit && self.entries.len() > 1 {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some((_, used, weight)) = self.entries.remove(key) {
            self.order.remove(&used);
            self.weight -= weight;
        }
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !keep(key)).copied().collect();
        gone.iter().for_each(|key| self.remove(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_a_quarter_of_the_descriptors_and_no_more_than_the_limit() {
        assert_eq!(open_files_count(1024), 256);
        assert_eq!(open_files_count(u64::MAX), OPEN_FILES_COUNT_MAX);
        assert_eq!(open_files_count(0), 1);
    }

    #[test]
    fn the_entry_used_longest_ago_makes_room() {
        let mut lru = Lru::new(2);
        lru.put(1, 'a', 1);
        lru.put(2, 'b', 1);
        assert_eq!(lru.get(&1), Some('a'));
        lru.put(3, 'c', 1);
        assert_eq!((lru.get(&1), lru.get(&2), lru.get(&3)), (Some('a'), None, Some('c')));
        lru.put(4, 'd', 5);
        assert_eq!((lru.get(&3), lru.get(&4)), (None, Some('d')), "one entry above the limit is kept alone");
    }
}
