//! What keeps a failed directory out of use until somebody has had it read again (rule 8).
//!
//! `.stonelog_offline` in the directory itself, and, because a failing device may take nothing more,
//! `.stonelog_offline-<directory id>` in the broker's other directories, which names the broker epoch under which it
//! failed. That a marker exists is what counts; its text is for people.
//! `.stonelog_reopened` in the directory names the broker epoch up to which its failures are settled, so that the
//! markers elsewhere need not be reached by whoever settles them. Until the next start it says too that *all* of them
//! are, also those whose epoch is newer than the directory knows, or cannot be read: that start removes them.

use std::path::Path;

use stonelog_protocol::{BrokerEpoch, DirectoryId, Uuid};

use crate::Fault;
use crate::disk::Disk;
use crate::small_file::{read_small_file, remove_small_file, write_small_file};

/// The marker in a failed directory.
pub const OFFLINE_NAME: &str = ".stonelog_offline";
/// How far failures are settled.
pub const REOPENED_NAME: &str = ".stonelog_reopened";

/// The second line of a [`REOPENED_NAME`] that no start has seen yet.
const ALL: &str = "all";

/// Text of a marker shown at most; whoever wrote more is not us.
const REASON_BYTES_MAX: usize = 4096;

/// A marker about another directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMarker {
    /// The directory that failed.
    pub id: DirectoryId,
    /// Under which broker epoch.
    pub epoch: BrokerEpoch,
    /// Why.
    pub reason: String,
}

/// Marks a directory as failed, in itself.
pub fn mark_offline(disk: &dyn Disk, directory: &Path, reason: &str) -> Result<(), Fault> {
    write_small_file(disk, directory, OFFLINE_NAME, format!("{reason}\n").as_bytes())
}

/// Why a directory may not be used; `None` when it may. Needs no lock.
pub fn offline_reason(disk: &dyn Disk, directory: &Path) -> Result<Option<String>, Fault> {
    #[cfg(feature = "mutants")]
    if crate::mutants::Guard::OfflineMarker.is_off() {
        return Ok(None);
    }
    Ok(read_small_file(disk, &directory.join(OFFLINE_NAME))?.map(|bytes| text(&bytes)))
}

/// Marks in `directory` that its neighbour `id` has failed.
pub fn mark_peer_offline(
    disk: &dyn Disk,
    directory: &Path,
    id: DirectoryId,
    epoch: BrokerEpoch,
    reason: &str,
) -> Result<(), Fault> {
    write_small_file(disk, directory, &peer_name(id), format!("{epoch}\n{reason}\n").as_bytes())
}

/// What a directory says of its neighbours. A marker whose epoch cannot be read holds for every epoch.
pub fn peers_offline(disk: &dyn Disk, directory: &Path) -> Result<Vec<PeerMarker>, Fault> {
    let entries = disk.list(directory).map_err(|source| Fault::io("list", directory, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let id = entry.name.strip_prefix(OFFLINE_NAME).and_then(|rest| Uuid::parse(rest.strip_prefix('-')?));
        let Some(id) = id else { continue };
        let Some(bytes) = read_small_file(disk, &directory.join(&entry.name))? else { continue };
        let text = text(&bytes);
        let (epoch, reason) = text.split_once('\n').unwrap_or(("", &text));
        let epoch = BrokerEpoch(epoch.parse().unwrap_or(i64::MAX));
        found.push(PeerMarker { id, epoch, reason: reason.to_owned() });
    }
    Ok(found)
}

/// Removes what `directory` says of a neighbour.
pub fn forget_peer(disk: &dyn Disk, directory: &Path, id: DirectoryId) -> Result<(), Fault> {
    remove_small_file(disk, directory, &peer_name(id)).map(drop)
}

/// The broker epoch up to which the directory's failures are settled.
pub fn reopened_epoch(disk: &dyn Disk, directory: &Path) -> Result<Option<BrokerEpoch>, Fault> {
    let bytes = read_small_file(disk, &directory.join(REOPENED_NAME))?;
    Ok(bytes.and_then(|bytes| text(&bytes).lines().next()?.parse().ok()).map(BrokerEpoch))
}

/// The epoch for markers about a directory that fails while the broker has the epoch `broker_epoch`, or had it last: none
/// that was settled, or such a marker would not count.
pub fn failure_epoch(disk: &dyn Disk, directory: &Path, broker_epoch: BrokerEpoch) -> Result<BrokerEpoch, Fault> {
    let settled = reopened_epoch(disk, directory)?;
    Ok(settled.map_or(broker_epoch, |settled| broker_epoch.max(BrokerEpoch(settled.0.saturating_add(1)))))
}

/// Whether the directory was reopened since it was last used: whatever anybody says of it is settled.
pub fn is_just_reopened(disk: &dyn Disk, directory: &Path) -> Result<bool, Fault> {
    let bytes = read_small_file(disk, &directory.join(REOPENED_NAME))?;
    Ok(bytes.is_some_and(|bytes| text(&bytes).lines().nth(1) == Some(ALL)))
}

/// The markers that a reopening settled are gone: from here on one counts again if it is newer than `epoch`.
pub fn on_reopened(disk: &dyn Disk, directory: &Path, epoch: BrokerEpoch) -> Result<(), Fault> {
    write_small_file(disk, directory, REOPENED_NAME, format!("{epoch}\n").as_bytes())
}

/// Puts a directory back into use. Only for whoever has just read all of it from the device.
pub(super) fn settle(disk: &dyn Disk, directory: &Path, epoch: BrokerEpoch) -> Result<(), Fault> {
    write_small_file(disk, directory, REOPENED_NAME, format!("{epoch}\n{ALL}\n").as_bytes())?;
    remove_small_file(disk, directory, OFFLINE_NAME).map(drop)
}

fn peer_name(id: DirectoryId) -> String {
    format!("{OFFLINE_NAME}-{id}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_BYTES_MAX)]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{SimDisk, Tearing};

    fn root() -> &'static Path {
        Path::new("/")
    }

    #[test]
    fn a_marked_directory_stays_offline_through_a_power_cut_until_it_is_settled() {
        let disk = SimDisk::new();
        assert_eq!(offline_reason(&disk, root()).unwrap(), None);
        mark_offline(&disk, root(), "fdatasync x: EIO").unwrap();
        disk.crash(1, Tearing::Sectors);
        assert_eq!(offline_reason(&disk, root()).unwrap().as_deref(), Some("fdatasync x: EIO"));
        settle(&disk, root(), BrokerEpoch(7)).unwrap();
        disk.crash(2, Tearing::Sectors);
        assert_eq!(offline_reason(&disk, root()).unwrap(), None);
        assert_eq!(reopened_epoch(&disk, root()).unwrap(), Some(BrokerEpoch(7)));
        assert!(is_just_reopened(&disk, root()).unwrap());
        on_reopened(&disk, root(), BrokerEpoch(8)).unwrap();
        assert_eq!(reopened_epoch(&disk, root()).unwrap(), Some(BrokerEpoch(8)));
        assert!(!is_just_reopened(&disk, root()).unwrap());
        for (broker_epoch, expected) in [(3, 9), (8, 9), (9, 9), (12, 12)] {
            let epoch = failure_epoch(&disk, root(), BrokerEpoch(broker_epoch)).unwrap();
            assert_eq!(epoch, BrokerEpoch(expected), "a marker of today is not settled");
        }
    }

    #[test]
    fn a_neighbour_remembers_who_failed_and_when() {
        let disk = SimDisk::new();
        let id = Uuid([9; 16]);
        mark_peer_offline(&disk, root(), id, BrokerEpoch(5), "write: EIO").unwrap();
        let marker = PeerMarker { id, epoch: BrokerEpoch(5), reason: "write: EIO".to_owned() };
        assert_eq!(peers_offline(&disk, root()).unwrap(), [marker]);
        write_small_file(&disk, root(), &peer_name(id), b"").unwrap();
        assert_eq!(peers_offline(&disk, root()).unwrap()[0].epoch, BrokerEpoch(i64::MAX), "unreadable holds for ever");
        forget_peer(&disk, root(), id).unwrap();
        assert_eq!(peers_offline(&disk, root()).unwrap(), []);
    }
}
