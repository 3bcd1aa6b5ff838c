//! One flipped bit anywhere in a log directory: no wrong byte is ever served, nothing beside the hurt range is lost, and
//! the flip is noticed, by the start, by a read or by a full check.
//!
//! Each class of files is taken in turn, at bytes spread evenly over it and a bit chosen by the byte. How many flips per
//! class says `STONELOG_FLIPS`; `docs/testing.md` has the figures of a long run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use stonelog_protocol::batch::BatchHeader;
use stonelog_protocol::{BrokerEpoch, BrokerId, ClusterId, LeaderEpoch, Offset, ProducerId, Uuid};
use stonelog_storage::Fault;
use stonelog_storage::disk::{Disk, Open, SimDisk};
use stonelog_storage::journal::{Hurt, JournalPosition};
use stonelog_storage::log::{EpochEntry, LogConfig, Read};
use stonelog_storage::log_dir::{DirectoryState, LastStop, LogDir, MetaProperties, Tenure};
use stonelog_storage::recovery::Verdict;
use stonelog_storage::segment::read::ReadDone;

use support::{Batch, Lane, ROOT, WrittenSpan, partition};

/// Flips per class unless the environment says otherwise: enough for each structure of each file to be hit.
const FLIPS_DEFAULT: u64 = 60;

const BLOCK: u64 = 64 << 10;
const JOURNAL_BLOCK: u64 = 4096;

fn flips() -> u64 {
    std::env::var("STONELOG_FLIPS").map_or(FLIPS_DEFAULT, |count| count.parse().expect("a number of flips"))
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 150_000, ..LogConfig::default() }
}

fn tenure() -> Tenure {
    Tenure { boot_id: [3; 16], mount_id: Some(77) }
}

fn meta() -> MetaProperties {
    MetaProperties {
        cluster_id: ClusterId("flips".into()),
        node_id: BrokerId(1),
        directory_id: Uuid([7; 16]),
        broker_epoch: Some(BrokerEpoch(12)),
        follows_epoch: None,
        metadata_index: None,
    }
}

/// What a log is besides its records.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    log_start: Offset,
    log_end: Offset,
    epochs: Vec<EpochEntry>,
    producers: Vec<(ProducerId, i32)>,
}

impl Shape {
    fn of(lane: &Lane, at: usize) -> Shape {
        let log = &lane.logs[at];
        let mut producers: Vec<_> =
            log.producers().iter().map(|(id, state)| (id, state.batches().last().unwrap().last_sequence)).collect();
        producers.sort_unstable();
        let (log_start, log_end) = (log.log_start(), log.log_end());
        Shape { log_start, log_end, epochs: log.epochs().entries().to_vec(), producers }
    }
}

/// A directory as a killed process left it, and what is in it.
struct World {
    disk: SimDisk,
    /// Every batch, by log; each holds one record, so that its place is its offset.
    truth: Vec<Vec<Bytes>>,
    shapes: Vec<Shape>,
    spans: Vec<WrittenSpan>,
    /// Where replay begins.
    covered: JournalPosition,
}

impl World {
    fn new() -> World {
        World::after(60)
    }

    /// `rounds` of appends before the checkpoint.
    fn after(rounds: i32) -> World {
        let disk = support::new_disk();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (directory, _) = LogDir::open(shared.clone(), Path::new(ROOT)).unwrap();
        directory.format(&MetaProperties { broker_epoch: None, ..meta() }).unwrap();
        directory.record_broker_epoch(BrokerEpoch(12), None).unwrap();
        directory.begin(&tenure()).unwrap();
        directory.record_tenure(&tenure()).unwrap();
        drop(directory);
        let mut lane = Lane::start(shared, config()).unwrap();
        let mut truth: Vec<Vec<Bytes>> = vec![Vec::new(); 3];
        let mut sequence = 0;
        let mut append = |lane: &mut Lane, at: usize, epoch: i32| {
            sequence += 1;
            let (seed, filler_bytes) = (sequence as u64, 600 + sequence as usize * 37 % 900);
            let producer = if at == 0 { (9, 0, truth[0].len() as i32) } else { (-1, -1, -1) };
            let batch = Batch { seed, filler_bytes, producer, ..Batch::of(1) };
            truth[at].push(lane.append(at, &batch, epoch));
        };
        for index in 0..3 {
            lane.create(index);
        }
        lane.commit().unwrap();
        for n in 0..rounds {
            for _ in 0..4 {
                append(&mut lane, 0, n / 25);
            }
            append(&mut lane, 1, 0);
            lane.commit().unwrap();
        }
        for at in 0..2 {
            while lane.flush(at).unwrap() {}
        }
        lane.checkpoint().unwrap();
        // A read leaves an index behind.
        lane.logs[0].evict(0);
        lane.read_all(0, Offset(0), 4096).unwrap();
        let covered = lane.durable();
        lane.prepare_spares().unwrap();
        let begin_epoch = |lane: &mut Lane, at: usize, epoch: i32| {
            let ticket = lane.next_ticket();
            let entry = lane.logs[at].begin_epoch(LeaderEpoch(epoch), ticket);
            lane.push(ticket, entry);
        };
        for n in 0..12 {
            if n % 4 == 1 {
                begin_epoch(&mut lane, 1, n);
            }
            append(&mut lane, 0, 5);
            // The epoch begun last, where one begins.
            append(&mut lane, n as usize % 3, if n % 3 == 1 { (n - 1) / 4 * 4 + 1 } else { 5 });
            if n % 3 == 0 {
                append(&mut lane, 2, 5);
            }
            lane.commit().unwrap();
            if n == 8 {
                // In segments, and no checkpoint says so.
                lane.flush(0).unwrap();
            }
        }
        let spans = lane.written_spans.clone();
        drop(lane);
        disk.kill();
        let mut world = World { disk, truth, shapes: Vec::new(), spans, covered };
        let (lane, _) = world.fork().start();
        assert!(lane.verdicts.iter().all(|verdict| *verdict == Verdict::Proved), "{:?}", lane.verdicts);
        world.shapes = (0..3).map(|at| Shape::of(&lane, at)).collect();
        world
    }

    /// The same directory on a disk of its own.
    fn fork(&self) -> Fork {
        let copy = support::new_disk();
        for path in self.files(Path::new(ROOT)) {
            let directory = path.parent().unwrap();
            if !copy.exists(directory).unwrap() {
                copy.create_dir(directory).unwrap();
                copy.sync_dir(Path::new(ROOT)).unwrap();
            }
            let file = copy.open(&path, Open::CreateNew).unwrap();
            let bytes = self.disk.contents(&path);
            if !bytes.is_empty() {
                file.allocate(0, bytes.len() as u64).unwrap();
                file.write_at(0, &[IoSlice::new(&bytes)]).unwrap();
            }
            file.sync_data().unwrap();
            copy.sync_dir(directory).unwrap();
        }
        Fork { disk: copy }
    }

    fn files(&self, directory: &Path) -> Vec<PathBuf> {
        let mut entries = self.disk.list(directory).unwrap();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut files = Vec::new();
        for entry in entries {
            let path = directory.join(&entry.name);
            match entry.is_dir {
                true => files.extend(self.files(&path)),
                false => files.push(path),
            }
        }
        files
    }

    fn files_named(&self, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let mut files = self.files(Path::new(ROOT));
        files.retain(|path| is_one(path.file_name().unwrap().to_str().unwrap()));
        assert!(!files.is_empty(), "the class has files");
        files
    }

    /// The journal's files that are in use, or those that never were.
    fn journal_files(&self, are_used: bool) -> Vec<PathBuf> {
        let mut files = self.files_named(|name| name.ends_with(".journal"));
        files.retain(|path| (u64_at(&self.disk.contents(path), 8) > 0) == are_used);
        assert!(!files.is_empty(), "the class has files");
        files
    }

    /// Bytes spread over the files, each with a bit.
    fn sample(&self, files: &[PathBuf]) -> Vec<(PathBuf, u64, u8)> {
        let sizes: Vec<u64> = files.iter().map(|path| self.disk.contents(path).len() as u64).collect();
        let total: u64 = sizes.iter().sum();
        let count = flips().min(total * 8);
        let mut sample = Vec::new();
        for n in 0..count {
            let mut at = (n * total + (n * 7919) % total.max(1)) / count % total;
            for (path, size) in files.iter().zip(&sizes) {
                if at < *size {
                    sample.push((path.clone(), at, ((n * 5 + at) % 8) as u8));
                    break;
                }
                at -= size;
            }
        }
        sample
    }

    /// Bytes of the commits that no checkpoint covers, and some of all others.
    fn sample_journal(&self) -> Vec<(PathBuf, u64, u8)> {
        let files = self.journal_files(true);
        let spans: Vec<_> = self.spans.iter().filter(|written| written.span.start >= self.covered).collect();
        let mut sample = self.sample(&files);
        for (n, flip) in sample.iter_mut().enumerate().filter(|(n, _)| n % 5 > 0) {
            let span = spans[n % spans.len()].span;
            let position = span.start.0 + (n as u64 * 2_654_435_761) % (span.end.0 - span.start.0);
            let home = files.iter().find_map(|path| {
                let bytes = self.disk.contents(path);
                let base = u64_at(&bytes, 16);
                (base..base + bytes.len() as u64).contains(&position).then(|| (path.clone(), position - base))
            });
            (flip.0, flip.1) = home.expect("a file holds it");
        }
        sample
    }

    /// Starts on a copy with one bit flipped, reads everything, and holds it against the truth. `may_lose` are the
    /// offsets of each log that the flip has hurt.
    fn judge(&self, flip: &(PathBuf, u64, u8), may_lose: &[BTreeSet<i64>]) -> Judged {
        let (path, byte, bit) = flip;
        let context = format!("{} byte {byte} bit {bit}", path.display());
        let fork = self.fork();
        fork.disk.flip_bit(path, *byte, *bit);
        let (mut lane, end) = fork.start();
        assert_eq!(lane.logs.len(), 3, "{context}");
        let mut judged = Judged { damage: end.damage.len(), torn: None, lost: 0, sums_rewritten: 0, fork };
        judged.torn = end.torn_tail.as_ref().map(|torn| (torn.position, torn.bytes));
        for (at, may_lose) in may_lose.iter().enumerate() {
            let log_end = lane.logs[at].log_end();
            let mut lost = BTreeSet::new();
            for (offset, batch) in self.truth[at].iter().enumerate() {
                let offset = offset as i64;
                if Offset(offset) >= log_end {
                    assert!(
                        judged.torn.is_some() || matches!(lane.verdicts[at], Verdict::Lost(_)),
                        "{context}: log {at} ends at {log_end} and nobody says why"
                    );
                    lost.insert(offset);
                    continue;
                }
                match read_one(&mut lane, at, offset, &mut judged.sums_rewritten) {
                    Some(read) => assert_eq!(read, batch, "{context}: log {at} offset {offset}: wrong bytes"),
                    None => drop(lost.insert(offset)),
                }
            }
            assert!(lost.is_subset(may_lose), "{context}: log {at} lost {lost:?}, hurt were {may_lose:?}");
            let quarantined: BTreeSet<i64> =
                lane.logs[at].holes().iter().flat_map(|hole| hole.start.0..hole.end.0).collect();
            let inside: BTreeSet<i64> = lost.iter().copied().filter(|offset| Offset(*offset) < log_end).collect();
            assert_eq!(inside, quarantined, "{context}: log {at}: what is not served is quarantined, and no more");
            if lost.is_empty() {
                assert_eq!(Shape::of(&lane, at), self.shapes[at], "{context}: log {at}");
            } else if quarantined == lost {
                let (shape, before) = (Shape::of(&lane, at), &self.shapes[at]);
                assert_eq!((shape.log_start, shape.log_end), (before.log_start, before.log_end), "{context}: log {at}");
                let is_doubted = lane.logs[at].holes().iter().any(|hole| hole.epoch_unsure);
                assert!(shape.epochs == before.epochs || is_doubted, "{context}: log {at}: {:?}", shape.epochs);
            }
            judged.lost += lost.len();
        }
        for damage in end.damage.iter().filter(|damage| matches!(damage.hurt, Hurt::Ranges(_))) {
            let (file, _) = damage.place.as_ref().expect("a place in a file");
            assert_eq!(file, path, "{context}");
        }
        judged
    }
}

/// What a flip did.
struct Judged {
    damage: usize,
    torn: Option<(JournalPosition, u64)>,
    lost: usize,
    sums_rewritten: usize,
    fork: Fork,
}

struct Fork {
    disk: SimDisk,
}

impl Fork {
    fn start(&self) -> (Lane, stonelog_storage::journal::RecoveryEnd) {
        let lane = Lane::start(Arc::new(self.disk.clone()), config()).unwrap();
        let end = lane.journal_end.clone();
        (lane, end)
    }
}

/// The batch that holds an offset, or nothing where it is damaged.
fn read_one(lane: &mut Lane, at: usize, offset: i64, sums_rewritten: &mut usize) -> Option<Bytes> {
    loop {
        let log = &lane.logs[at];
        let job = match log.read(Offset(offset), log.log_end(), 1, true) {
            Read::Ready(batches, _) => return Some(batches.concat().into()),
            Read::Damaged(_) => return None,
            Read::Job(job) => job,
            other => panic!("{other:?} at {offset}"),
        };
        match job.run(&lane.access) {
            Ok(ReadDone::Batches { batches, .. }) => {
                let bytes: Bytes = batches.concat().into();
                let header = BatchHeader::read(&bytes).expect("a batch");
                assert_eq!((header.base_offset, header.batch_bytes), (Offset(offset), bytes.len()));
                return Some(bytes);
            }
            Ok(ReadDone::Damaged(_)) => return None,
            Ok(ReadDone::Moved) => panic!("nothing moves"),
            Err(Fault::Damage { .. }) => {
                let surveyed = lane.logs[at].plan_survey(Offset(offset)).unwrap().run(&lane.access).unwrap();
                let found = lane.logs[at].on_surveyed(&surveyed);
                *sums_rewritten += surveyed.sums_rewritten;
                assert!(!found.is_empty() || surveyed.sums_rewritten > 0, "each look finds something");
            }
            Err(fault) => panic!("{fault}"),
        }
    }
}

fn nothing() -> Vec<BTreeSet<i64>> {
    vec![BTreeSet::new(); 3]
}

fn u64_at(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: u64) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at as usize..at as usize + 4].try_into().unwrap()))
}

/// A line of the table that `tests/sweep` makes.
fn told(class: &str, count: usize, what: &str) {
    println!("swept | {class} | flipped bit | {count} | {what}");
}

#[test]
fn journal() {
    let world = World::new();
    let (mut torn, mut damaged, mut harmless) = (0, 0, 0);
    for flip in world.sample_journal() {
        let bytes = world.disk.contents(&flip.0);
        let position = JournalPosition(u64_at(&bytes, 16) + flip.1);
        let last = world.spans.last().unwrap();
        let hit = world.spans.iter().find(|written| (written.span.start..written.span.end).contains(&position));
        let Some(hit) = hit.filter(|hit| hit.span.start >= world.covered) else {
            let judged = world.judge(&flip, &nothing());
            assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
            harmless += 1;
            continue;
        };
        let at = flip.1 - (position.0 - hit.span.start.0);
        let meaning = at..at + u32_at(&bytes, at + 8) + u32_at(&bytes, at + 56);
        let mut hurt = nothing();
        if meaning.contains(&flip.1) {
            for (of, start, end) in &hit.appends {
                hurt[of.partition.0 as usize].extend(start.0..end.0);
            }
        }
        let judged = world.judge(&flip, &hurt);
        if !meaning.contains(&flip.1) {
            assert_eq!((judged.damage, judged.torn), (0, None), "{flip:?}");
            harmless += 1;
        } else if hit.span.start == last.span.start {
            let bytes = judged.torn.expect("a torn tail").1;
            assert_eq!(judged.torn.unwrap().0, last.span.start, "{flip:?}");
            assert!(bytes >= JOURNAL_BLOCK && bytes <= last.span.end.0 - last.span.start.0, "{flip:?}: {bytes}");
            torn += 1;
        } else {
            assert_eq!((judged.damage, judged.torn), (1, None), "{flip:?}");
            assert!(judged.lost > 0, "{flip:?}");
            damaged += 1;
        }
    }
    let what = format!("{damaged} damage that is named, {torn} torn tails, {harmless} in bytes that nobody needs");
    told("journal", torn + damaged + harmless, &what);
    assert!(torn > 0 && damaged > 0 && harmless > 0, "{what}");
}

#[test]
fn spare_journal() {
    // Later a recycled file is the spare, which keeps its name.
    let world = World::after(3);
    let files = world.journal_files(false);
    let sample = world.sample(&files);
    for flip in &sample {
        let judged = world.judge(flip, &nothing());
        assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
    }
    told("journal, spare", sample.len(), "nobody needs it");
    // Where a header would be, byte by byte.
    for byte in 0..flips().min(512) {
        for copy in 0..2 {
            let flip = (files[0].clone(), copy * JOURNAL_BLOCK + byte, (byte % 8) as u8);
            let judged = world.judge(&flip, &nothing());
            assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
        }
    }
}

#[test]
fn segments() {
    let world = World::new();
    let files = world.files_named(|name| name.ends_with(".log"));
    let mut hits = 0;
    let sample = world.sample(&files);
    for flip in &sample {
        let name = flip.0.file_name().unwrap().to_str().unwrap();
        let base: i64 = name.strip_suffix(".log").unwrap().parse().unwrap();
        let directory = flip.0.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let at = (0..3).find(|index| partition(*index).to_string() == directory).unwrap() as usize;
        // The batches that touch the block, of those the checkpoint covers.
        let block = flip.1 / BLOCK * BLOCK..(flip.1 / BLOCK + 1) * BLOCK;
        let mut hurt = nothing();
        let mut place = 0;
        for (offset, batch) in world.truth[at].iter().enumerate().skip(base as usize) {
            let end = place + batch.len() as u64;
            if end > block.start && place < block.end {
                hurt[at].insert(offset as i64);
            }
            place = end;
        }
        let judged = world.judge(flip, &hurt);
        assert_eq!((judged.damage, judged.torn, judged.sums_rewritten), (0, None, 0), "{flip:?}");
        hits += usize::from(judged.lost > 0);
    }
    let what = format!("{hits} quarantined in their block, {} in no batch", sample.len() - hits);
    told("segments", sample.len(), &what);
    assert!(hits as u64 > flips() / 2, "most bytes carry meaning: {hits}");
}

#[test]
fn checksums() {
    let world = World::new();
    let sample = world.sample(&world.files_named(|name| name.ends_with(".sum")));
    told("block checksums", sample.len(), "all written anew");
    for flip in &sample {
        let judged = world.judge(flip, &nothing());
        assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
        assert_eq!(judged.sums_rewritten, 1, "{flip:?}: noticed");
        assert_eq!(judged.fork.disk.contents(&flip.0), world.disk.contents(&flip.0), "{flip:?}: as it was");
    }
}

#[test]
fn indexes() {
    let world = World::new();
    let sample = world.sample(&world.files_named(|name| name.ends_with(".index")));
    told("indexes", sample.len(), "all built anew");
    for flip in &sample {
        let judged = world.judge(flip, &nothing());
        assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
        let found = judged.fork.disk.contents(&flip.0);
        let mut flipped = world.disk.contents(&flip.0);
        flipped[flip.1 as usize] ^= 1 << flip.2;
        assert_ne!(found, flipped, "{flip:?}: noticed, and built anew");
    }
}

#[test]
fn checkpoint() {
    let world = World::new();
    let sample = world.sample(&world.files_named(|name| name.starts_with("checkpoint")));
    told("checkpoint, with producers", sample.len(), "all repaired from the other copy");
    for flip in &sample {
        let judged = world.judge(flip, &nothing());
        assert_eq!((judged.damage, judged.torn, judged.lost), (0, None, 0), "{flip:?}");
        // Reserved bytes are not read.
        if !(36..40).contains(&flip.1) {
            assert_eq!(judged.fork.disk.contents(&flip.0), world.disk.contents(&flip.0), "{flip:?}: as it was");
        }
    }
}

#[test]
fn identity() {
    let world = World::new();
    let sample = world.sample(&world.files_named(|name| name.starts_with("meta.properties")));
    told("meta.properties", sample.len(), "all repaired from the other copy");
    for flip in &sample {
        let fork = world.fork();
        fork.disk.flip_bit(&flip.0, flip.1, flip.2);
        let (_, state) = LogDir::open(Arc::new(fork.disk.clone()), Path::new(ROOT)).unwrap();
        assert_eq!(state, DirectoryState::Ours(meta()), "{flip:?}");
        assert_eq!(fork.disk.contents(&flip.0), world.disk.contents(&flip.0), "{flip:?}: as it was");
    }
}

#[test]
fn tenure_and_clean_stop() {
    let world = World::new();
    let stopped = |fork: &Fork| {
        let (directory, _) = LogDir::open(Arc::new(fork.disk.clone()), Path::new(ROOT)).unwrap();
        directory.begin(&tenure()).unwrap()
    };
    assert_eq!(stopped(&world.fork()), LastStop::ProcessDied);
    let sample = world.sample(&world.files_named(|name| name == ".stonelog_tenure"));
    told("tenure", sample.len(), "all prove nothing any more");
    for flip in &sample {
        let fork = world.fork();
        fork.disk.flip_bit(&flip.0, flip.1, flip.2);
        let reserved = (36..40).contains(&flip.1);
        let expected = if reserved { LastStop::ProcessDied } else { LastStop::Unknown };
        assert_eq!(stopped(&fork), expected, "{flip:?}: what cannot be read proves nothing");
    }
    let (directory, _) = LogDir::open(Arc::new(world.disk.clone()), Path::new(ROOT)).unwrap();
    directory.mark_clean_stop(&tenure()).unwrap();
    drop(directory);
    assert_eq!(stopped(&world.fork()), LastStop::Clean);
    let sample = world.sample(&world.files_named(|name| name == ".stonelog_clean_stop"));
    told("clean stop", sample.len(), "all count as no clean stop");
    for flip in &sample {
        let fork = world.fork();
        fork.disk.flip_bit(&flip.0, flip.1, flip.2);
        let reserved = (36..40).contains(&flip.1);
        assert_eq!(stopped(&fork) == LastStop::Clean, reserved, "{flip:?}: a marker that cannot be read is none");
    }
}
