//! The log directories of one process: each a disk with a journal of its own, and in which one each replica lies.

use std::collections::BTreeMap;

use stonelog_protocol::{DirectoryId, TopicPartition};
use stonelog_storage::journal::JournalEntry;
use stonelog_storage::log::Log;

use super::process::{Hosted, LANES_COUNT, Process};
use crate::support::Random;

/// One directory in use.
pub struct Directory {
    pub process: Process,
    /// Written, and not synced.
    unsynced: bool,
    /// Something was written or synced that the lanes have not heard of.
    unheard: bool,
}

impl Directory {
    pub fn new(process: Process) -> Directory {
        Directory { process, unsynced: false, unheard: false }
    }

    fn is_idle(&self) -> bool {
        self.process.queued_count() == 0 && !self.process.has_untold() && !self.unsynced && !self.unheard
    }

    fn hear(&mut self) {
        (0..LANES_COUNT).for_each(|lane| {
            self.process.hear(lane);
        });
        self.unheard = false;
    }

    /// One step of the journal's threads: write, tell, sync, or the lanes hear.
    fn step(&mut self, random: &mut Random) {
        let choice = random.below(4);
        let count = 1 + random.below(20) as usize;
        if choice == 0 && self.unheard {
            self.hear();
        } else if self.process.has_untold() {
            self.process.tell();
            (self.unsynced, self.unheard) = (true, true);
        } else if self.process.queued_count() > 0 && (choice < 3 || !self.unsynced) {
            self.process.write(count).expect("the disk is whole");
        } else if self.unsynced {
            self.process.sync().expect("the disk is whole");
            (self.unsynced, self.unheard) = (false, true);
        } else if self.unheard {
            self.hear();
        }
    }
}

/// See the module's comment.
#[derive(Default)]
pub struct Directories {
    all: BTreeMap<DirectoryId, Directory>,
    /// Where the replicas in use lie.
    homes: BTreeMap<TopicPartition, DirectoryId>,
}

impl Directories {
    pub fn open(&mut self, id: DirectoryId, process: Process) {
        self.all.insert(id, Directory::new(process));
    }

    /// A directory is used no more, with the replicas in it.
    pub fn close(&mut self, id: DirectoryId) -> Vec<TopicPartition> {
        self.all.remove(&id);
        let gone: Vec<TopicPartition> = self.homes.iter().filter(|(_, home)| **home == id).map(|(id, _)| *id).collect();
        self.homes.retain(|_, home| *home != id);
        gone
    }

    pub fn ids(&self) -> Vec<DirectoryId> {
        self.all.keys().copied().collect()
    }

    pub fn is_open(&self, id: DirectoryId) -> bool {
        self.all.contains_key(&id)
    }

    /// Everything that lies anywhere.
    pub fn held(&self) -> Vec<(DirectoryId, TopicPartition)> {
        let each = |(id, directory): (&DirectoryId, &Directory)| {
            let id = *id;
            directory.process.ids().into_iter().map(move |partition| (id, partition))
        };
        self.all.iter().flat_map(each).collect()
    }

    pub fn holds(&self, directory: DirectoryId, id: TopicPartition) -> bool {
        self.all.get(&directory).is_some_and(|directory| directory.process.holds(id))
    }

    pub fn home(&self, id: TopicPartition) -> Option<DirectoryId> {
        self.homes.get(&id).copied()
    }

    /// The replica in use is the one there.
    pub fn settle(&mut self, id: TopicPartition, directory: DirectoryId) {
        self.homes.insert(id, directory);
    }

    pub fn unsettle(&mut self, id: TopicPartition) {
        self.homes.remove(&id);
    }

    pub fn directory(&mut self, id: DirectoryId) -> &mut Process {
        &mut self.all.get_mut(&id).expect("in use").process
    }

    pub fn peek(&self, id: DirectoryId) -> &Process {
        &self.all[&id].process
    }

    pub fn of(&self, id: TopicPartition) -> &Process {
        &self.all[&self.homes[&id]].process
    }

    pub fn of_mut(&mut self, id: TopicPartition) -> &mut Process {
        &mut self.all.get_mut(&self.homes[&id]).expect("in use").process
    }

    pub fn log(&self, id: TopicPartition) -> &Log {
        self.of(id).log(id)
    }

    pub fn hosted(&mut self, id: TopicPartition) -> &mut Hosted {
        self.of_mut(id).hosted(id)
    }

    pub fn ticket(&self, id: TopicPartition) -> u64 {
        self.of(id).ticket(id)
    }

    pub fn enqueue(&mut self, entry: JournalEntry) {
        self.of_mut(entry.replica.partition).enqueue(entry);
    }

    /// Whether no journal has anything to do.
    pub fn is_idle(&self) -> bool {
        self.all.values().all(Directory::is_idle)
    }

    /// One step of one journal that has something to do.
    pub fn step(&mut self, random: &mut Random) {
        let mut busy: Vec<&mut Directory> = self.all.values_mut().filter(|directory| !directory.is_idle()).collect();
        if !busy.is_empty() {
            let place = random.below(busy.len() as u64) as usize;
            busy[place].step(random);
        }
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.all.values_mut().map(|directory| &mut directory.process)
    }
}
