//! Logs that recovery found and no topic claims: put aside whole, and removed after a day (rule 12).
//!
//! A stray is most likely of a topic that was deleted while its directory was away; but a mistake of ours would look the
//! same, so nothing of it is lost at once. What only the journal holds is flushed first, since the journal forgets it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stonelog_protocol::Timestamp;
use stonelog_storage::Fault;
use stonelog_storage::disk::Disk;
use stonelog_storage::log::Log;
use stonelog_storage::segment::sync::sync_names;

use crate::runtime::directory::Directory;
use crate::runtime::node::Node;

/// How long a stray is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);
/// How often it is looked whether one is old enough, while there are any.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Ends the name of a stray's directory, behind the time in ms at which it was put aside.
const SUFFIX: &str = ".stray";

/// How long strays are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A day.
    ForADay,
    /// Until a person decides: an old copy of a directory has been put back, the metadata may be older than the logs, and
    /// these may be of topics that it has forgotten.
    ForGood,
}

impl Kept {
    /// What the name of a directory put aside `now` gets.
    fn extension(self, now: Timestamp) -> String {
        match self {
            Kept::ForADay => format!("{}{SUFFIX}", now.0),
            // Not a time, so nothing ever takes it for old.
            Kept::ForGood => format!("{}.kept{SUFFIX}", now.0),
        }
    }
}

/// Puts each log aside in its directory, which its place names. Returns where they are now. A directory whose device fails
/// meanwhile goes offline; a stray that cannot be put aside for another reason stays where it is.
pub(super) fn put_aside(node: &Node, strays: Vec<(Log, usize)>, keep: Kept) -> Vec<PathBuf> {
    let mut kept = Vec::new();
    for (mut log, place) in strays {
        let directory = &node.directories[place];
        if directory.is_offline() {
            continue;
        }
        match put_aside_one(&mut log, directory, node.clock.wall(), keep) {
            Ok(moved) => kept.extend(moved),
            Err(fault) if fault.is_device_failure() || !is_of_names(&fault) => node.take_offline(directory, &fault),
            Err(fault) => {
                tracing::error!("no topic claims {}, and it stays where it is: {fault}", log.key().partition);
            }
        }
    }
    kept
}

/// Whether what failed changed no byte of a file and made none durable: another name, or a look at one.
fn is_of_names(fault: &Fault) -> bool {
    matches!(fault, Fault::Io { operation: "stat" | "rename", .. })
}

fn put_aside_one(log: &mut Log, directory: &Directory, now: Timestamp, keep: Kept) -> Result<Option<PathBuf>, Fault> {
    let disk = &*directory.disk;
    let from = directory.path.join(log.key().partition.to_string());
    let is_there = || disk.exists(&from).map_err(|e| Fault::io("stat", &from, e));
    // Without its directory it was put aside before, by a start that ended before its first checkpoint.
    if is_there()? || log.segments().is_empty() {
        match flush(log, directory, now) {
            Err(fault) if fault.is_temporary() => {
                tracing::error!("what only the journal holds of {} is not kept: {fault}", log.key().partition);
            }
            done => done?,
        }
    }
    // It may never have held anything.
    if !is_there()? {
        return Ok(None);
    }
    let to = from.with_extension(keep.extension(now));
    disk.rename(&from, &to).map_err(|e| Fault::io("rename", &from, e))?;
    disk.sync_dir(&directory.path).map_err(|e| Fault::io("fsync directory", &directory.path, e))?;
    let long = if keep == Kept::ForADay { "for a day" } else { "until you remove it" };
    tracing::warn!("no topic claims {}: it is kept {long} as {}", from.display(), to.display());
    Ok(Some(to))
}

/// Moves everything the journal holds of a log to its segments, durably.
fn flush(log: &mut Log, directory: &Directory, now: Timestamp) -> Result<(), Fault> {
    let access = &directory.access;
    while let Some(job) = log.plan_flush(now, true, 0) {
        let done = job.run(access)?;
        log.on_flushed(done);
    }
    if let Some((_, Some(sync))) = log.plan_checkpoint(directory.journal.reported()) {
        sync.run(access)?;
        sync_names(access)?;
    }
    access.files().forget_all(log.key().partition);
    Ok(())
}

/// Removes strays that were kept long enough, for as long as there are any.
pub(super) async fn remove_in_time(node: Arc<Node>, directory: Arc<Directory>) {
    loop {
        let (looked_in, now) = (Arc::clone(&directory), node.clock.wall());
        let looked = directory.writers.run(move || remove_old(&*looked_in.disk, &looked_in.path, now)).await;
        match looked {
            Ok(Ok(0)) | Err(_) => return,
            Ok(Ok(_)) => {}
            Ok(Err(fault)) => tracing::warn!("strays are not looked at: {fault}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if directory.is_offline() {
            return;
        }
    }
}

/// Removes the strays that are old enough; how many are left that will be.
fn remove_old(disk: &dyn Disk, root: &Path, now: Timestamp) -> Result<usize, Fault> {
    let mut left = 0;
    for entry in disk.list(root).map_err(|e| Fault::io("list", root, e))? {
        let Some(since) = put_aside_at(&entry.name).filter(|_| entry.is_dir) else { continue };
        if since.saturating_add(KEPT_FOR) > now {
            left += 1;
            continue;
        }
        let path = root.join(&entry.name);
        match remove(disk, &path) {
            Ok(()) => tracing::info!("{} has been kept for a day and is gone", path.display()),
            // The others are looked at all the same, and this one again.
            Err(fault) => {
                tracing::warn!("a stray is not removed: {fault}");
                left += 1;
            }
        }
    }
    Ok(left)
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), Fault> {
    for file in disk.list(path).map_err(|e| Fault::io("list", path, e))?.iter().filter(|file| !file.is_dir) {
        let file = path.join(&file.name);
        disk.remove_file(&file).map_err(|e| Fault::io("remove", &file, e))?;
    }
    disk.remove_dir(path).map_err(|e| Fault::io("rmdir", path, e))
}

/// When a stray of that name was put aside.
fn put_aside_at(name: &str) -> Option<Timestamp> {
    let (_, since) = name.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    since.parse().ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use stonelog_storage::disk::{Open, SimDisk};

    use super::*;

    #[test]
    fn one_that_cannot_be_removed_stops_no_other_and_is_tried_again() {
        let disk = SimDisk::new();
        for name in ["a-0.1000.stray", "a-1.1000.stray", "a-2.1000.stray"] {
            disk.create_dir(&Path::new("/").join(name)).unwrap();
        }
        // Somebody else's directory in it, which is not ours to remove.
        disk.create_dir(Path::new("/a-1.1000.stray/x")).unwrap();
        let now = Timestamp(1000 + KEPT_FOR.as_millis() as i64);
        assert_eq!(remove_old(&disk, Path::new("/"), now).unwrap(), 1);
        let left: Vec<_> = disk.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, ["a-1.1000.stray"]);
        disk.remove_dir(Path::new("/a-1.1000.stray/x")).unwrap();
        assert_eq!(remove_old(&disk, Path::new("/"), now).unwrap(), 0);
        assert!(disk.list(Path::new("/")).unwrap().is_empty());
    }

    #[test]
    fn what_is_kept_for_good_has_a_name_that_no_time_makes_old() {
        let name = |keep: Kept| format!("a-0.{}", keep.extension(Timestamp(1000)));
        assert_eq!(put_aside_at(&name(Kept::ForADay)), Some(Timestamp(1000)));
        assert_eq!(put_aside_at(&name(Kept::ForGood)), None);
        let disk = SimDisk::new();
        disk.create_dir(&Path::new("/").join(name(Kept::ForGood))).unwrap();
        assert_eq!(remove_old(&disk, Path::new("/"), Timestamp(i64::MAX)).unwrap(), 0);
        assert_eq!(disk.list(Path::new("/")).unwrap().len(), 1);
    }

    #[test]
    fn a_stray_goes_after_a_day_and_nothing_else_does() {
        let disk = SimDisk::new();
        let names = ["a-0.1000.stray", "a-1.2000.stray", "a-2", "a-3.500.kept.stray", "x.y.stray"];
        for name in names {
            let path = Path::new("/").join(name);
            disk.create_dir(&path).unwrap();
            disk.open(&path.join("00000000000000000000.log"), Open::CreateNew).unwrap();
        }
        let there = || {
            let mut names: Vec<_> = disk.list(Path::new("/")).unwrap().into_iter().map(|entry| entry.name).collect();
            names.sort();
            names
        };
        let day = KEPT_FOR.as_millis() as i64;
        assert_eq!(remove_old(&disk, Path::new("/"), Timestamp(999 + day)).unwrap(), 2);
        assert_eq!(there(), names);
        assert_eq!(remove_old(&disk, Path::new("/"), Timestamp(1000 + day)).unwrap(), 1);
        assert_eq!(there(), names[1..]);
        assert_eq!(remove_old(&disk, Path::new("/"), Timestamp(2000 + day)).unwrap(), 0);
        assert_eq!(there(), names[2..]);
    }
}
