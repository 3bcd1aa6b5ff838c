//! Damage to one node's disk while streams run: flipped bits and lost sectors in sealed segments, in the one that is
//! written, and in journal commits that something later names as durable. At most one directory has any, and only while
//! everybody else has everything: what is damaged must come back from them, and no wrong byte leaves it meanwhile.

use std::path::Path;

use stonelog_protocol::{BrokerId, DirectoryId, Offset, TopicPartition};
use stonelog_storage::disk::SimDisk;
use stonelog_storage::journal::{JournalFile, JournalPosition, ReplayFrom, inspect};
use stonelog_storage::segment::SegmentFile;

use super::node::Up;
use super::part::{Env, Out};
use super::steps::{Found, read_all, read_some, survey};
use super::{Cluster, ROOT, faults};

const SECTOR: u64 = 512;

/// Where damage is, or may be.
#[derive(Clone, Copy, Debug)]
pub struct Damaged {
    node: BrokerId,
    directory: DirectoryId,
    /// Its journal is damaged at its next start.
    at_start: bool,
}

/// Something of one node's goes bad.
pub(super) fn inject(cluster: &mut Cluster, node: BrokerId) {
    settle(cluster);
    let directory = faults::any_directory(cluster, node);
    if cluster.damaged.is_some() || faults::may_lose(cluster, node, directory) != Some("disk replaced") {
        return;
    }
    let at_start = cluster.below(3) == 0;
    if at_start {
        // What it finds at a start is named as durable by the file that the start begins.
        cluster.damaged = Some(Damaged { node, directory, at_start });
        let is_power = cluster.below(2) == 0;
        faults::crash(cluster, node, is_power);
    } else if hit_segment(cluster, node, directory) {
        cluster.damaged = Some(Damaged { node, directory, at_start });
    }
}

/// One bit, or 512 bytes.
fn hit(cluster: &mut Cluster, disk: &SimDisk, path: &Path, byte: u64) {
    if cluster.below(3) > 0 {
        let bit = cluster.below(8) as u8;
        return disk.flip_bit(path, byte, bit);
    }
    cluster.coverage.hit("sector lost");
    disk.overwrite(path, byte / SECTOR * SECTOR, &[0; SECTOR as usize]);
}

fn hit_segment(cluster: &mut Cluster, node: BrokerId, directory: DirectoryId) -> bool {
    let wants_sealed = cluster.below(3) > 0;
    let dice = cluster.random.next();
    let Some(up) = &cluster.node(node).up else { return false };
    let process = up.directories.peek(directory);
    let mut places = Vec::new();
    for id in process.ids() {
        let log = process.log(id);
        let sealed: Vec<_> = log.sealed_segments().map(|segment| segment.name()).collect();
        let written = log.segments().iter().filter(|segment| segment.bytes > 0 && segment.end > log.log_start());
        for segment in written.filter(|segment| sealed.contains(&segment.name()) == wants_sealed) {
            places.push((segment.id(id).path(SegmentFile::Log), segment.bytes));
        }
    }
    if places.is_empty() {
        return false;
    }
    let (path, bytes) = places.swap_remove(dice as usize % places.len());
    let byte = cluster.below(bytes);
    let disk = cluster.node(node).stores[&directory].disk.clone();
    hit(cluster, &disk, &Path::new(ROOT).join(path), byte);
    cluster.coverage.hit(if wants_sealed {
        "damage in a sealed segment"
    } else {
        "damage in the segment being written"
    });
    true
}

/// A process has started: one whose journal is to be damaged dies again, and the next finds that.
pub(super) fn on_started(cluster: &mut Cluster, id: BrokerId) {
    let Some(Damaged { node, directory, at_start: true }) = cluster.damaged else { return };
    if node != id {
        return;
    }
    cluster.damaged = Some(Damaged { node, directory, at_start: false });
    faults::crash(cluster, node, false);
    let Some(disk) = cluster.node(node).stores.get(&directory).map(|store| store.disk.clone()) else { return };
    let mut commits = Vec::new();
    let journal = Path::new(ROOT).join("journal");
    let found = inspect(&disk, &journal, ReplayFrom::default(), &mut |entry| {
        commits.push((entry.commit_position, entry.payload_position));
    });
    let files = found.expect("the disk is whole").files;
    // The newest ones: a checkpoint covers what is older.
    let newest = commits.len().min(12) as u64;
    if newest == 0 {
        return;
    }
    let (commit, payload) = commits[commits.len() - 1 - cluster.below(newest) as usize];
    let at = if cluster.below(3) == 0 { commit } else { payload };
    let at = JournalPosition(at.0 + cluster.below(64));
    let Some((path, byte)) = place_of(&files, at) else { return };
    hit(cluster, &disk, &path, byte);
    cluster.coverage.hit("damage in the journal");
}

fn place_of(files: &[JournalFile], at: JournalPosition) -> Option<(std::path::PathBuf, u64)> {
    files.iter().find_map(|file| {
        let header = file.header?;
        let is_here = header.base <= at && at.0 < header.base.0 + header.len;
        is_here.then(|| (file.path.clone(), at.0 - header.base.0))
    })
}

/// Looks for damage that nobody has met, as a scrub does; when there is none left the next may come.
pub(super) fn settle(cluster: &mut Cluster) {
    let Some(Damaged { node, directory, at_start }) = cluster.damaged else { return };
    if !cluster.node(node).stores.contains_key(&directory) {
        cluster.damaged = None;
        return;
    }
    let is_whole =
        !at_start && cluster.with(node, |node, env| node.up.as_mut().is_some_and(|up| up.scrub(directory, env)));
    if is_whole {
        cluster.damaged = None;
    }
}

/// At the end: whatever is acknowledged can be read from every replica, each byte as it was written.
pub(super) fn read_everything(cluster: &mut Cluster) {
    let image = std::sync::Arc::clone(cluster.log.newest());
    for id in cluster.partitions() {
        for node in cluster.ids() {
            cluster.with(node, |node, env| {
                let Some(up) = node.up.as_mut().filter(|up| up.parts.contains_key(&id)) else { return };
                let held = read_all(up.directories.of_mut(id), id, env);
                let log = up.directories.log(id);
                assert!(log.holes().is_empty(), "{id} on {} has {:?}", node.id, log.holes());
                let epoch = image.partition(id).map_or(log.latest_epoch(), |now| Some(now.leader_epoch));
                let lacks = epoch.and_then(|epoch| env.oracle.missing(id, &held, log.log_start().0, epoch));
                assert_eq!(lacks, None, "{id} on {} cannot be read whole", node.id);
            });
        }
    }
}

impl Up {
    /// Looks at every segment of a directory; whether nothing in it is damaged.
    fn scrub(&mut self, directory: DirectoryId, env: &mut Env<'_>) -> bool {
        if !self.directories.is_open(directory) {
            return true;
        }
        let process = self.directories.directory(directory);
        let mut is_whole = true;
        for id in process.ids() {
            for base in process.log(id).segments().iter().map(|segment| segment.base).collect::<Vec<_>>() {
                survey(process, id, base, env);
            }
            is_whole &= process.log(id).holes().is_empty();
        }
        is_whole
    }

    /// A consumer reads somewhere below the high watermark.
    pub(super) fn consume(&mut self, env: &mut Env<'_>) {
        let ids: Vec<TopicPartition> = self.parts.keys().copied().collect();
        let Some(id) = ids.get(env.dice as usize % ids.len().max(1)).copied() else { return };
        let end = self.parts[&id].high_watermark;
        let start = self.directories.log(id).log_start();
        if start < end {
            let from = Offset(start.0 + (env.dice >> 8) as i64 % (end.0 - start.0));
            self.read_once(id, from, end, env);
        }
    }

    fn read_once(&mut self, id: TopicPartition, from: Offset, end: Offset, env: &mut Env<'_>) {
        let process = self.directories.of_mut(id);
        if let Found::Damaged(_) = read_some(process, id, from, end, 1 << 10, env) {
            env.out.push(Out::Mark("read refused for damage"));
        }
    }
}
