//! The simulated tree of names, durable and current, and the files behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::inode::BLOCK;
use super::survival::Fate;
use super::{DirEntry, Inode, Space};

const ROOT: u64 = 0;

#[derive(Clone)]
pub(super) struct World {
    nodes: BTreeMap<u64, Node>,
    next_id: u64,
    /// How many nodes the last look for garbage left.
    kept_count: usize,
    pub(super) capacity_bytes: Option<u64>,
}

#[derive(Clone)]
enum Node {
    File(Inode),
    Directory(Directory),
}

#[derive(Clone, Default)]
pub(super) struct Directory {
    durable: BTreeMap<String, u64>,
    current: BTreeMap<String, u64>,
    /// Changes since the last sync, in order; a crash keeps some prefix.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Change::Link(name, id) => {
                names.insert(name.clone(), *id);
            }
            Change::Unlink(name) => {
                names.remove(name);
            }
            Change::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.current);
    }

    fn crash(&mut self, fate: &mut Fate) {
        let kept = fate.kept_names(self.pending.len());
        for change in self.pending.drain(..).take(kept) {
            change.apply(&mut self.durable);
        }
        self.current.clone_from(&self.durable);
    }
}

impl World {
    pub(super) fn new() -> World {
        let nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
        World { nodes, next_id: ROOT + 1, kept_count: 1, capacity_bytes: None }
    }

    pub(super) fn inode(&mut self, id: u64) -> &mut Inode {
        match self.nodes.get_mut(&id) {
            Some(Node::File(inode)) => inode,
            _ => panic!("file {id} is open or named"),
        }
    }

    pub(super) fn directory(&mut self, path: &Path) -> io::Result<&mut Directory> {
        let id = self.resolve(path)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn file_id(&self, path: &Path) -> io::Result<u64> {
        let id = self.resolve(path)?;
        match self.nodes.get(&id) {
            Some(Node::File(_)) => Ok(id),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub(super) fn exists(&self, path: &Path) -> bool {
        self.resolve(path).is_ok()
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.add(path, Node::File(Inode::default()))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.add(path, Node::Directory(Directory::default())).map(|_| ())
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.exists(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_id;
        let (parent, name) = self.parent(path)?;
        parent.change(Change::Link(name, id));
        self.next_id += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    pub(super) fn list(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let names = self.directory(path)?.current.clone();
        let entry = |(name, id): (String, u64)| match &self.nodes[&id] {
            Node::File(inode) => DirEntry { name, is_dir: false, len: inode.len() },
            Node::Directory(_) => DirEntry { name, is_dir: true, len: 0 },
        };
        Ok(names.into_iter().map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            // Nothing here moves between directories, and two journals of names could not keep it atomic.
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let moved = self.resolve(from)?;
        if let Ok(replaced) = self.resolve(to)
            && replaced != moved
            && matches!(self.nodes[&replaced], Node::Directory(_))
        {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Ok(replaced) = self.file_id(to)
            && replaced != moved
        {
            self.inode(replaced).claimed.clear();
        }
        let (_, from_name) = self.parent(from)?;
        let (parent, to_name) = self.parent(to)?;
        parent.change(Change::Rename(from_name, to_name));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.file_id(path)?;
        self.inode(id).claimed.clear();
        let (parent, name) = self.parent(path)?;
        parent.change(Change::Unlink(name));
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.directory(path)?.current.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (parent, name) = self.parent(path)?;
        parent.change(Change::Unlink(name));
        Ok(())
    }

    /// What counts against the capacity.
    pub(super) fn used_bytes(&self) -> u64 {
        let claimed = |node: &Node| match node {
            Node::File(inode) => inode.claimed.count(),
            Node::Directory(_) => 0,
        };
        self.nodes.values().map(claimed).sum::<u64>() * BLOCK as u64
    }

    /// What is left of the capacity.
    pub(super) fn space(&self) -> Space {
        let total_bytes = self.capacity_bytes.unwrap_or(u64::MAX);
        let used = self.capacity_bytes.map_or(0, |_| self.used_bytes());
        Space { total_bytes, usable_bytes: total_bytes.saturating_sub(used) }
    }

    /// Counts a range of a file against the capacity.
    pub(super) fn claim(&mut self, id: u64, position: u64, len: u64) -> io::Result<()> {
        let blocks = position / BLOCK as u64..(position + len).div_ceil(BLOCK as u64);
        if let Some(capacity) = self.capacity_bytes {
            let used = self.used_bytes();
            let new = blocks.clone().filter(|block| !self.inode(id).claimed.contains(*block)).count() as u64;
            if new > 0 && used + new * BLOCK as u64 > capacity {
                return Err(io::Error::from_raw_os_error(28));
            }
        }
        self.inode(id).claimed.insert(blocks);
        Ok(())
    }

    pub(super) fn crash(&mut self, fate: &mut Fate) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(inode) => inode.crash(fate),
                Node::Directory(directory) => directory.crash(fate),
            }
        }
        self.collect_garbage();
    }

    /// All files, open or named.
    pub(super) fn files(&mut self) -> impl Iterator<Item = &mut Inode> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(inode) => Some(inode),
            Node::Directory(_) => None,
        })
    }

    /// Looks for garbage where as much may have come together as is in use: it costs memory only.
    pub(super) fn collect_much_garbage(&mut self) {
        if self.nodes.len() > 2 * self.kept_count + 8 {
            self.collect_garbage();
        }
    }

    /// Forgets files that no name, durable or current, and no process refers to.
    pub(super) fn collect_garbage(&mut self) {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut unvisited = vec![ROOT];
        while let Some(id) = unvisited.pop() {
            let Some(Node::Directory(directory)) = self.nodes.get(&id) else { continue };
            let pending = directory.pending.iter().filter_map(|change| match change {
                Change::Link(_, id) => Some(id),
                _ => None,
            });
            for id in directory.durable.values().chain(directory.current.values()).chain(pending) {
                if reachable.insert(*id) {
                    unvisited.push(*id);
                }
            }
        }
        self.nodes
            .retain(|id, node| reachable.contains(id) || matches!(node, Node::File(inode) if inode.open_count > 0));
        self.kept_count = self.nodes.len();
    }

    fn parent(&mut self, path: &Path) -> io::Result<(&mut Directory, String)> {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(parent)?, name))
    }

    fn resolve(&self, path: &Path) -> io::Result<u64> {
        let mut id = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            let Some(Node::Directory(directory)) = self.nodes.get(&id) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            id = *directory.current.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(id)
    }
}
