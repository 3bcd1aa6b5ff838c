//! One simulated file: what the device holds, what the cache shows, and the writes in between.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::Tearing;
use super::survival::Fate;

pub(super) const BLOCK: usize = 4096;
const SECTOR: usize = 512;

/// Shared between versions and forks; copied when it changes.
type Block = Arc<[u8; BLOCK]>;

/// Un-synced versions of one block that a crash chooses from; older ones are forgotten.
const VERSIONS_MAX: usize = 4;

#[derive(Clone, Default)]
pub(super) struct Inode {
    durable: BTreeMap<u64, Block>,
    durable_len: u64,
    /// Where the page cache differs from the device.
    cached: BTreeMap<u64, Block>,
    len: u64,
    /// What was written since the last sync, oldest first.
    pending: BTreeMap<u64, Vec<Block>>,
    /// Lengths since the last sync.
    pending_lens: Vec<u64>,
    /// Blocks that count against the disk's capacity.
    pub(super) claimed: Claimed,
    pub(super) open_count: usize,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        for (block, range, bytes) in pieces(position, bytes) {
            let new = self.changed(block, range, bytes);
            self.put(block, new);
        }
        self.grow_to(position, bytes);
    }

    /// A write that the device confirms and never does: the cache shows it, and no sync will find it.
    pub(super) fn write_to_cache(&mut self, position: u64, bytes: &[u8]) {
        for (block, range, bytes) in pieces(position, bytes) {
            let new = self.changed(block, range, bytes);
            self.cached.insert(block, new);
        }
        self.grow_to(position, bytes);
    }

    /// What a write to another place leaves here: on the device alone, as far as the file reaches.
    pub(super) fn write_to_device(&mut self, position: u64, bytes: &[u8]) {
        for (block, range, bytes) in pieces(position, bytes) {
            if block < self.durable_len.div_ceil(BLOCK as u64) {
                let durable = self.durable.entry(block).or_insert_with(zeroes);
                Arc::make_mut(durable)[range].copy_from_slice(bytes);
            }
        }
    }

    fn grow_to(&mut self, position: u64, bytes: &[u8]) {
        let end = position + bytes.len() as u64;
        if end > self.len && !bytes.is_empty() {
            self.len = end;
            self.pending_lens.push(end);
        }
    }

    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> usize {
        self.read_blocks(position, buffer, |block| self.cached.get(&block).or_else(|| self.durable.get(&block)))
    }

    /// A direct read: dirty pages are written out first, but pages that a failed sync took for clean are not.
    pub(super) fn read_device(&self, position: u64, buffer: &mut [u8]) -> usize {
        self.read_blocks(position, buffer, |block| {
            self.pending.get(&block).and_then(|versions| versions.last()).or_else(|| self.durable.get(&block))
        })
    }

    fn read_blocks<'a>(&'a self, position: u64, buffer: &mut [u8], source: impl Fn(u64) -> Option<&'a Block>) -> usize {
        let len = self.len.saturating_sub(position).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let at = position + done as u64;
            let skip = (at % BLOCK as u64) as usize;
            let bytes = (BLOCK - skip).min(len - done);
            match source(at / BLOCK as u64) {
                Some(block) => buffer[done..done + bytes].copy_from_slice(&block[skip..skip + bytes]),
                None => buffer[done..done + bytes].fill(0),
            }
            done += bytes;
        }
        len
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let first = len / BLOCK as u64;
            let blocks: BTreeSet<u64> = self
                .cached
                .range(first..)
                .map(|(b, _)| *b)
                .chain(self.durable.range(first..).map(|(b, _)| *b))
                .collect();
            for block in blocks {
                let mut new = self.view(block);
                let kept = if block == first { (len % BLOCK as u64) as usize } else { 0 };
                Arc::make_mut(&mut new)[kept..].fill(0);
                self.put(block, new);
            }
        }
        if len <= self.len {
            self.claimed.truncate(len.div_ceil(BLOCK as u64));
        }
        self.len = len;
        self.pending_lens.push(len);
    }

    pub(super) fn sync(&mut self) {
        for (block, mut versions) in std::mem::take(&mut self.pending) {
            if let Some(newest) = versions.pop() {
                self.durable.insert(block, newest);
                self.cached.remove(&block);
            }
        }
        self.pending_lens.clear();
        self.durable_len = self.len;
    }

    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
        self.pending_lens.clear();
    }

    /// The cache forgets what it may: pages that are, or that it takes for, clean.
    pub(super) fn drop_cache(&mut self) {
        let pending = &self.pending;
        self.cached.retain(|block, _| pending.contains_key(block));
    }

    pub(super) fn crash(&mut self, fate: &mut Fate) {
        for (block, versions) in std::mem::take(&mut self.pending) {
            let old = self.durable.get(&block).cloned().unwrap_or_else(zeroes);
            let kept = match fate.kept_bytes(versions.len()) {
                0 => old.clone(),
                n => versions[n - 1].clone(),
            };
            let kept = match fate.tearing() {
                Tearing::Blocks => kept,
                Tearing::Sectors | Tearing::Garbage => tear(fate, &old, &versions, kept),
            };
            self.durable.insert(block, kept);
        }
        let choice = fate.kept_bytes(self.pending_lens.len());
        if choice > 0 {
            self.durable_len = self.pending_lens[choice - 1];
        }
        self.pending_lens.clear();
        self.cached.clear();
        self.len = self.durable_len;
        let blocks = self.len.div_ceil(BLOCK as u64);
        self.durable.split_off(&blocks);
        // Also of a file whose removal was undone.
        self.claimed.clear();
        self.claimed.insert(0..blocks);
        self.open_count = 0;
    }

    /// Changes bytes everywhere, behind everybody's back.
    pub(super) fn edit(&mut self, position: u64, len: usize, change: &dyn Fn(&mut [u8])) {
        assert!(position / BLOCK as u64 == (position + len as u64 - 1) / BLOCK as u64, "an edit lies within one block");
        let (block, at) = (position / BLOCK as u64, (position % BLOCK as u64) as usize);
        let durable = self.durable.entry(block).or_insert_with(zeroes);
        change(&mut Arc::make_mut(durable)[at..at + len]);
        if let Some(cached) = self.cached.get_mut(&block) {
            change(&mut Arc::make_mut(cached)[at..at + len]);
        }
        for version in self.pending.get_mut(&block).into_iter().flatten() {
            change(&mut Arc::make_mut(version)[at..at + len]);
        }
    }

    fn view(&self, block: u64) -> Block {
        let found = self.cached.get(&block).or_else(|| self.durable.get(&block));
        found.cloned().unwrap_or_else(zeroes)
    }

    /// A block with other bytes in it.
    fn changed(&self, block: u64, range: Range<usize>, bytes: &[u8]) -> Block {
        if let Ok(whole) = <&[u8; BLOCK]>::try_from(bytes) {
            return if *whole == ZEROES { zeroes() } else { Arc::new(*whole) };
        }
        let mut new = self.view(block);
        Arc::make_mut(&mut new)[range].copy_from_slice(bytes);
        new
    }

    fn put(&mut self, block: u64, new: Block) {
        let versions = self.pending.entry(block).or_default();
        if versions.len() == VERSIONS_MAX {
            versions.remove(0);
        }
        versions.push(new.clone());
        self.cached.insert(block, new);
    }
}

/// The blocks of one file that count against the capacity.
#[derive(Clone, Default)]
pub(super) struct Claimed {
    blocks: Vec<bool>,
    count: u64,
}

impl Claimed {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn contains(&self, block: u64) -> bool {
        self.blocks.get(block as usize).is_some_and(|is_claimed| *is_claimed)
    }

    pub(super) fn insert(&mut self, blocks: Range<u64>) {
        if self.blocks.len() < blocks.end as usize {
            self.blocks.resize(blocks.end as usize, false);
        }
        for is_claimed in &mut self.blocks[blocks.start as usize..blocks.end as usize] {
            self.count += u64::from(!std::mem::replace(is_claimed, true));
        }
    }

    pub(super) fn clear(&mut self) {
        self.truncate(0);
    }

    fn truncate(&mut self, len: u64) {
        self.blocks.truncate(len as usize);
        self.count = self.blocks.iter().filter(|is_claimed| **is_claimed).count() as u64;
    }
}

static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// A block of zeroes, one for each thread: files are made of them.
fn zeroes() -> Block {
    thread_local! {
        static SHARED: Block = Arc::new(ZEROES);
    }
    SHARED.with(Arc::clone)
}

fn tear(fate: &mut Fate, old: &Block, versions: &[Block], kept: Block) -> Block {
    let mut torn = *kept;
    for sector in 0..BLOCK / SECTOR {
        let range = sector * SECTOR..(sector + 1) * SECTOR;
        let source = match fate.kept_bytes(versions.len()) {
            0 => old,
            n => &versions[n - 1],
        };
        torn[range.clone()].copy_from_slice(&source[range.clone()]);
        fate.garbage(&mut torn[range]);
    }
    Arc::new(torn)
}

/// Cuts bytes at block boundaries: block number, range within it, bytes.
fn pieces(position: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, Range<usize>, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == bytes.len() {
            return None;
        }
        let at = position + done as u64;
        let skip = (at % BLOCK as u64) as usize;
        let len = (BLOCK - skip).min(bytes.len() - done);
        let piece = (at / BLOCK as u64, skip..skip + len, &bytes[done..done + len]);
        done += len;
        Some(piece)
    })
}
